//! Reads a table's live rows: a restart feeds them to the graph.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::RecordBatch;
use crossbeam_channel::bounded;

use super::WriterConfig;
use super::error::WriterError;
use super::file_store::FileStore;
use super::files::WriterFile;
use super::layout::TableLayout;
use super::load::state;
use crate::sink::LiveFile;

/// The number of files that are read concurrently.
const PARALLEL: usize = 2;
/// The number of batches that may wait for `each`.
const WAITING: usize = 8;

/// Passes the live rows of a table (index into the specs) to `each`, batch by batch and in no particular order.
/// Returns the number of rows. Must not be called from inside the runtime.
pub fn scan(
    config: &WriterConfig,
    table: usize,
    files: &[LiveFile],
    mut each: impl FnMut(RecordBatch),
) -> Result<u64, WriterError> {
    let store = config.file_store();
    let layout = TableLayout::new(config.specs[table].clone())?;
    let next = AtomicUsize::new(0);
    let (batches_in, batches) = bounded(WAITING);
    let mut rows = 0;
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(files.len()) {
            let (store, layout, next, batches) = (&store, &layout, &next, batches_in.clone());
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = state(layout, file.clone());
                    let read =
                        read.and_then(|file| read_live(&file, layout, store, |batch| batches.send(Ok(batch)).is_ok()));
                    if let Err(error) = read {
                        // A send fails only if the receiver is gone, and then nobody wants the error.
                        let _ = batches.send(Err(error));
                        return;
                    }
                }
            });
        }
        drop(batches_in);
        // The loop owns the receiver: when it returns early, threads that wait to send a batch fail and end.
        for batch in batches {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            each(batch);
        }
        Ok(rows)
    })
}

/// Passes a file's live rows to `each`, until that returns false.
fn read_live(
    file: &WriterFile,
    layout: &TableLayout,
    store: &FileStore,
    mut each: impl FnMut(RecordBatch) -> bool,
) -> Result<(), WriterError> {
    let mut position = 0;
    for batch in super::file::decode_file(layout, &file.physical, store.get(&file.physical)?)? {
        let batch = batch?;
        let rows = batch.num_rows() as u32;
        let live: Vec<u32> = (0..rows)
            .filter(|row| !file.excluded.contains(position + row))
            .collect();
        position += rows;
        if live.is_empty() {
            continue;
        }
        if !each(layout.to_table(&layout.pick(&batch, &live)?, &file.values)?) {
            return Ok(());
        }
    }
    Ok(())
}
