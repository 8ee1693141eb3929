//! A table's live rows, read for whoever wants them: what a restart feeds to the graph.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::RecordBatch;
use crossbeam_channel::bounded;

use super::WriterConfig;
use super::error::WriterError;
use super::files::FileState;
use super::lake::Lake;
use super::layout::Layout;
use super::load::state;
use crate::sink::LiveFile;

/// Files read at once.
const PARALLEL: usize = 2;
/// Batches that wait to be taken.
const WAITING: usize = 8;

/// Gives the live rows of a table (index into the specs), batch by batch and in no order, to `each`. Not to be called
/// from inside the runtime. Says how many rows there were.
pub fn scan(
    config: &WriterConfig,
    table: usize,
    files: &[LiveFile],
    mut each: impl FnMut(RecordBatch),
) -> Result<u64, WriterError> {
    let lake = config.lake();
    let layout = Layout::new(config.specs[table].clone())?;
    let next = AtomicUsize::new(0);
    let (batches_in, batches) = bounded(WAITING);
    let mut rows = 0;
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(files.len()) {
            let (lake, layout, next, batches) = (&lake, &layout, &next, batches_in.clone());
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = state(layout, file.clone());
                    let read =
                        read.and_then(|file| read_live(&file, layout, lake, |batch| batches.send(Ok(batch)).is_ok()));
                    if let Err(error) = read {
                        // Nobody who takes them is none who could be told.
                        let _ = batches.send(Err(error));
                        return;
                    }
                }
            });
        }
        drop(batches_in);
        // By value: threads that wait to hand one over end when this returns.
        for batch in batches {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            each(batch);
        }
        Ok(rows)
    })
}

/// The rows of a file that are not gone, until `each` wants no more.
fn read_live(
    file: &FileState,
    layout: &Layout,
    lake: &Lake,
    mut each: impl FnMut(RecordBatch) -> bool,
) -> Result<(), WriterError> {
    let mut position = 0;
    for batch in super::file::decode_file(layout, &file.physical, lake.get(&file.physical)?)? {
        let batch = batch?;
        let rows = batch.num_rows() as u32;
        let live: Vec<u32> = (0..rows).filter(|row| !file.gone.contains(position + row)).collect();
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
