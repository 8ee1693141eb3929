//! Compaction: many small files, or files with many rows gone, become one. Rows do not change.
//!
//! ```text
//! writer thread: pick files -> [background: read live rows, write one file] -> settle: move index entries
//! ```
//!
//! 1. A file is never read for compaction on the writer's thread, and index entries move a slice at a time
//!    ([`super::settle`]).
//! 2. Files are merged with files of their own size class, so a row is written a logarithmic number of times.
//! 3. Files of a log are folded: their rows add up, and may go to several files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::Limits;
use super::error::WriterError;
use super::file::{FileEncoder, Names, NewFile, decode_file, encode_groups};
use super::files::{FileState, Files};
use super::hash::RowHash;
use super::lake::Lake;
use super::layout::Layout;
use crate::repr::Epoch;
use crate::sink::{Batch, Fold};

/// What to merge, in one partition.
pub(super) struct Job {
    pub(super) table: usize,
    pub(super) epoch: Epoch,
    pub(super) layout: Arc<Layout>,
    pub(super) lake: Arc<Lake>,
    pub(super) names: Names,
    pub(super) inputs: Vec<(u32, FileState)>,
    /// Whether the table has an index whose entries move.
    pub(super) indexed: bool,
    /// Of a log: most rows of a partition that is not split.
    pub(super) fold_rows: usize,
}

/// Of rows of a new file: what each is, and where it was.
type Moves = Vec<(RowHash, (u32, u32))>;

/// What a job made.
pub(super) struct Merged {
    pub(super) table: usize,
    pub(super) inputs: Vec<u32>,
    /// One; of a log any number.
    pub(super) files: Vec<NewFile>,
    /// Of the new file of a table with an index.
    pub(super) moves: Moves,
}

/// The files to merge next; none where a table is in order. Files of a log have no size at which they are left alone: rows
/// of a group may be in each.
pub(super) fn pick(files: &Files, limits: &Limits, is_log: bool) -> Option<Vec<u32>> {
    let fewest = limits.merge_files.max(2);
    let mut classes: HashMap<_, Vec<(u32, u32, u64)>> = HashMap::new();
    let mut hollow = None;
    for (id, file) in files.iter() {
        let live = file.live();
        if is_log || (live as usize) <= limits.merge_rows / 2 && file.bytes <= limits.merge_bytes / 2 {
            let class = (file.values.as_ref(), live.max(1).ilog(8));
            classes.entry(class).or_default().push((live, id, file.bytes));
        }
        // Files with few rows gone wait for their class: they would be written anew again and again.
        let gone = file.gone.len();
        let worth = gone > limits.merge_rows as u64 / 64 && gone as f64 > limits.dead_share * f64::from(file.rows);
        if worth && !file.shared && hollow.is_none_or(|(most, _)| gone > most) {
            hollow = Some((gone, id));
        }
    }
    // Smallest class first: most files for least bytes.
    let full = classes.into_iter().filter(|(_, files)| files.len() >= fewest);
    let Some((_, mut class)) = full.min_by(|a, b| (a.0.1, a.0.0).cmp(&(b.0.1, b.0.0))) else {
        return hollow.map(|(_, id)| vec![id]);
    };
    class.sort_unstable();
    let (mut rows, mut bytes) = (0, 0);
    let mut picked = Vec::new();
    for (live, id, size) in class.into_iter().take(fewest * 4) {
        rows += live as usize;
        bytes += size;
        let enough = rows > limits.merge_rows || bytes > limits.merge_bytes;
        if picked.len() >= (if is_log { fewest } else { 2 }) && enough {
            break;
        }
        picked.push(id);
    }
    Some(picked)
}

impl Job {
    /// Reads, writes, waits for the disk: off the writer's thread.
    pub(super) fn run(self) -> Result<Merged, WriterError> {
        let (mut files, moves) = match &self.layout.spec.fold {
            Some(fold) => (self.fold(fold.as_ref())?, Vec::new()),
            None => self.merge()?,
        };
        let bytes = files.iter_mut().map(|file| std::mem::take(&mut file.bytes));
        let bytes: Vec<Bytes> = bytes.collect();
        let named = files.iter().map(|file| file.physical.clone()).zip(bytes);
        self.lake.put_all(named.collect())?;
        Ok(Merged {
            table: self.table,
            inputs: self.inputs.into_iter().map(|(id, _)| id).collect(),
            files,
            moves,
        })
    }

    fn merge(&self) -> Result<(Vec<NewFile>, Moves), WriterError> {
        let rows = self.inputs.iter().map(|(_, input)| input.live() as usize).sum();
        let mut file = FileEncoder::new(&self.layout, rows)?;
        let mut moves = Vec::new();
        self.read(|id, live, positions| {
            if self.indexed {
                let rows = self.layout.encode(live)?;
                let rows = rows.iter().zip(positions);
                moves.extend(rows.map(|(row, position)| (RowHash::of(row.as_ref()), (id, *position))));
            }
            file.write(&self.layout.to_file(live)?)
        })?;
        let values = self.inputs[0].1.values.clone();
        Ok((vec![file.finish(values, (&self.names, self.epoch), false)?], moves))
    }

    fn fold(&self, fold: &dyn Fold) -> Result<Vec<NewFile>, WriterError> {
        let mut batches = Vec::new();
        self.read(|_, live, _| {
            batches.push(live.clone());
            Ok(())
        })?;
        let folded = fold.fold(&batches, self.fold_rows);
        encode_groups(&self.layout, folded, usize::MAX, (&self.names, self.epoch), false)
    }

    /// Tells the live rows of each input, and their positions in it.
    fn read(
        &self,
        mut each: impl FnMut(u32, &RecordBatch, &[u32]) -> Result<(), WriterError>,
    ) -> Result<(), WriterError> {
        for (id, input) in &self.inputs {
            let mut start = 0u32;
            for batch in decode_file(&self.layout, &input.physical, self.lake.get(&input.physical)?)? {
                let batch = batch?;
                let numbers = 0..batch.num_rows() as u32;
                let end = start + numbers.end;
                let mut live: Vec<u32> = numbers.filter(|n| !input.gone.contains(start + n)).collect();
                let rows = self.layout.to_table(&self.layout.pick(&batch, &live)?, &input.values)?;
                live.iter_mut().for_each(|number| *number += start);
                each(*id, &rows, &live)?;
                start = end;
            }
        }
        Ok(())
    }
}

/// Takes the new files for the old ones in an append-only table.
pub(super) fn settle_appended(files: &mut Files, merged: &Merged) -> Batch {
    let mut batch = Batch {
        adds: merged.files.iter().map(|file| file.add.clone()).collect(),
        ..Batch::default()
    };
    for id in &merged.inputs {
        let file = files
            .remove(*id)
            .expect("files of append-only tables go by compaction alone");
        batch.removes.push(file.path);
    }
    for file in &merged.files {
        files.insert(FileState::of(file));
    }
    batch
}
