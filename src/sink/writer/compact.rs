//! Compaction: many small files, or files with many rows gone, become one. Rows do not change.
//!
//! ```text
//! writer thread: pick files -> [background: read live rows, write one file] -> settle: move index entries
//! ```
//!
//! 1. A file is never read for compaction on the writer's thread, and index entries move a slice at a time
//!    ([`super::settle`]).
//! 2. Files are merged with files of their own size class, so a row is written a logarithmic number of times.

use std::collections::HashMap;
use std::sync::Arc;

use super::Limits;
use super::error::WriterError;
use super::file::{FileEncoder, Names, NewFile, decode_file};
use super::files::{FileState, Files};
use super::hash::RowHash;
use super::lake::Lake;
use super::layout::Layout;
use crate::repr::Epoch;
use crate::sink::Batch;

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
}

/// What a job made.
pub(super) struct Merged {
    pub(super) table: usize,
    pub(super) inputs: Vec<u32>,
    pub(super) file: NewFile,
    /// Of each row of the new file: what it is, and where it was.
    pub(super) moves: Vec<(RowHash, (u32, u32))>,
}

/// The files to merge next; none where a table is in order.
pub(super) fn pick(files: &Files, limits: &Limits) -> Option<Vec<u32>> {
    let fewest = limits.merge_files.max(2);
    let mut classes: HashMap<_, Vec<(u32, u32, u64)>> = HashMap::new();
    let mut hollow = None;
    for (id, file) in files.iter() {
        let live = file.live();
        if (live as usize) <= limits.merge_rows / 2 && file.bytes <= limits.merge_bytes / 2 {
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
        if picked.len() >= 2 && (rows > limits.merge_rows || bytes > limits.merge_bytes) {
            break;
        }
        picked.push(id);
    }
    Some(picked)
}

impl Job {
    /// Reads, writes, waits for the disk: off the writer's thread.
    pub(super) fn run(self) -> Result<Merged, WriterError> {
        let values = self.inputs[0].1.values.clone();
        let rows = self.inputs.iter().map(|(_, input)| input.live() as usize).sum();
        let mut file = FileEncoder::new(&self.layout, rows)?;
        let mut moves = Vec::new();
        for (id, input) in &self.inputs {
            let mut position = 0u32;
            for batch in decode_file(&self.layout, &input.physical, self.lake.get(&input.physical)?)? {
                let batch = batch?;
                let slice = position..position + batch.num_rows() as u32;
                position = slice.end;
                let numbers: Vec<u32> = slice
                    .clone()
                    .filter(|p| !input.gone.contains(*p))
                    .map(|p| p - slice.start)
                    .collect();
                let live = self.layout.to_table(&self.layout.pick(&batch, &numbers)?, &values)?;
                if self.indexed {
                    let rows = self.layout.encode(&live)?;
                    moves.extend(
                        numbers
                            .iter()
                            .zip(rows.iter())
                            .map(|(number, row)| (RowHash::of(row.as_ref()), (*id, slice.start + number))),
                    );
                }
                file.write(&self.layout.to_file(&live)?)?;
            }
        }
        let names = (&self.names, self.epoch);
        let mut file = file.finish(values, names, false)?;
        let bytes = std::mem::take(&mut file.bytes);
        self.lake.put_all(vec![(file.physical.clone(), bytes)])?;
        Ok(Merged {
            table: self.table,
            inputs: self.inputs.into_iter().map(|(id, _)| id).collect(),
            file,
            moves,
        })
    }
}

/// Takes the new file for the old ones in an append-only table.
pub(super) fn settle_appended(files: &mut Files, merged: &Merged) -> Batch {
    let mut batch = Batch {
        adds: vec![merged.file.add.clone()],
        ..Batch::default()
    };
    for id in &merged.inputs {
        let file = files
            .remove(*id)
            .expect("files of append-only tables go by compaction alone");
        batch.removes.push(file.path);
    }
    files.insert(FileState::of(&merged.file));
    batch
}
