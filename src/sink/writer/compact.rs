//! Compaction merges small files, or rewrites a file with many removed rows, into one file. The table's rows do not
//! change.
//!
//! ```text
//! writer thread: pick files -> [background: read live rows, write one file] -> move index entries
//! ```
//!
//! 1. The writer's thread never reads a file for compaction, and moves index entries a slice at a time
//!    ([`super::index_move`]).
//! 2. Files are merged with files of their own size class, so a row is rewritten a logarithmic number of times.
//! 3. Files of a log are folded: their rows are added up, and may be spread over several files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::WriterLimits;
use super::error::WriterError;
use super::file::{FileEncoder, FileNames, NewFile, decode_file, encode_groups};
use super::file_store::FileStore;
use super::files::{TableFiles, WriterFile};
use super::hash::RowHash;
use super::layout::TableLayout;
use crate::repr::Epoch;
use crate::sink::{LogSummation, TableBatch};

/// The files of one partition to merge.
pub(super) struct CompactionJob {
    pub(super) table: usize,
    pub(super) epoch: Epoch,
    pub(super) layout: Arc<TableLayout>,
    pub(super) store: Arc<FileStore>,
    pub(super) names: FileNames,
    pub(super) inputs: Vec<(u32, WriterFile)>,
    /// Whether the table has an index, whose entries move to the new file.
    pub(super) indexed: bool,
    /// For a log: the most rows of a partition that is not split.
    pub(super) fold_rows: usize,
}

/// For each row of the new file: its hash, and its old place.
type Moves = Vec<(RowHash, (u32, u32))>;

/// The outcome of a job.
pub(super) struct MergedFiles {
    pub(super) table: usize,
    pub(super) inputs: Vec<u32>,
    /// The new file; for a log, any number of files.
    pub(super) files: Vec<NewFile>,
    /// The index entries to move; empty if the table has no index.
    pub(super) moves: Moves,
}

/// Picks the files to merge next; none if the table needs no compaction. Files of a log are merged however large they
/// are, because each may have rows of the same group.
pub(super) fn pick(files: &TableFiles, limits: &WriterLimits, is_log: bool) -> Option<Vec<u32>> {
    let fewest = limits.merge_files.max(2);
    let mut classes: HashMap<_, Vec<(u32, u32, u64)>> = HashMap::new();
    let mut hollow = None;
    for (id, file) in files.iter() {
        let live = file.live();
        if is_log || (live as usize) <= limits.merge_rows / 2 && file.bytes <= limits.merge_bytes / 2 {
            let class = (file.values.as_ref(), live.max(1).ilog(8));
            classes.entry(class).or_default().push((live, id, file.bytes));
        }
        // A file with few removed rows waits for a merge of its class; otherwise it would be rewritten again and
        // again.
        let excluded = file.excluded.len();
        let worth =
            excluded > limits.merge_rows as u64 / 64 && excluded as f64 > limits.dead_share * f64::from(file.rows);
        if worth && !file.shared && hollow.is_none_or(|(most, _)| excluded > most) {
            hollow = Some((excluded, id));
        }
    }
    // The smallest full class comes first: it removes the most files for the fewest bytes.
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

impl CompactionJob {
    /// Reads, merges and stores files. It blocks, so it does not run on the writer's thread.
    pub(super) fn run(self) -> Result<MergedFiles, WriterError> {
        let (mut files, moves) = match &self.layout.spec.summation {
            Some(summation) => (self.add_up(summation.as_ref())?, Vec::new()),
            None => self.merge()?,
        };
        let bytes = files.iter_mut().map(|file| std::mem::take(&mut file.bytes));
        let bytes: Vec<Bytes> = bytes.collect();
        let named = files.iter().map(|file| file.physical.clone()).zip(bytes);
        self.store.put_all(named.collect())?;
        Ok(MergedFiles {
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
                moves.extend(rows.map(|(row, position)| (RowHash::of_row(row.as_ref()), (id, *position))));
            }
            file.write(&self.layout.to_file(live)?)
        })?;
        let values = self.inputs[0].1.values.clone();
        Ok((vec![file.finish(values, (&self.names, self.epoch), false)?], moves))
    }

    fn add_up(&self, summation: &dyn LogSummation) -> Result<Vec<NewFile>, WriterError> {
        let mut batches = Vec::new();
        self.read(|_, live, _| {
            batches.push(live.clone());
            Ok(())
        })?;
        let folded = summation.add_up(&batches, self.fold_rows);
        encode_groups(&self.layout, folded, usize::MAX, (&self.names, self.epoch), false)
    }

    /// Calls `each` with the live rows of each input, and their positions in it.
    fn read(
        &self,
        mut each: impl FnMut(u32, &RecordBatch, &[u32]) -> Result<(), WriterError>,
    ) -> Result<(), WriterError> {
        for (id, input) in &self.inputs {
            let mut start = 0u32;
            for batch in decode_file(&self.layout, &input.physical, self.store.get(&input.physical)?)? {
                let batch = batch?;
                let numbers = 0..batch.num_rows() as u32;
                let end = start + numbers.end;
                let mut live: Vec<u32> = numbers.filter(|n| !input.excluded.contains(start + n)).collect();
                let rows = self.layout.to_table(&self.layout.pick(&batch, &live)?, &input.values)?;
                live.iter_mut().for_each(|number| *number += start);
                each(*id, &rows, &live)?;
                start = end;
            }
        }
        Ok(())
    }
}

/// Replaces the inputs by the new files, in an append-only table.
pub(super) fn replace_appended(files: &mut TableFiles, merged: &MergedFiles) -> TableBatch {
    let mut batch = TableBatch {
        adds: merged.files.iter().map(|file| file.add.clone()).collect(),
        ..TableBatch::default()
    };
    for id in &merged.inputs {
        let file = files
            .remove(*id)
            .expect("files of append-only tables go by compaction alone");
        batch.removes.push(file.path);
    }
    for file in &merged.files {
        files.insert(WriterFile::of_new(file));
    }
    batch
}
