//! The writer's thread: arrivals in, parts of snapshots out, compactions in the background beside them.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, never, select};

use super::compact::Merged;
use super::{Loaded, Writer, WriterConfig, WriterError, WriterStats};
use crate::contain::contain;
use crate::sink::{Arrival, Batch, Prepared};

/// Index entries that move to a compaction's file while nothing arrives, before it looks for arrivals again: a third
/// of a millisecond.
const IDLE_MOVES: usize = 1 << 10;
/// And behind each seal, however much arrives: several times what a small seal adds to what is to be moved.
const SEAL_MOVES: usize = 1 << 12;

/// A running writer.
pub struct WriterThread {
    /// Ends when the arrivals' senders are gone, or with a fault, of which it has told.
    pub handle: JoinHandle<()>,
    /// Its figures.
    pub stats: Arc<WriterStats>,
}

/// Starts a writer. Each seal is answered with a part, also where nothing changed. Both channels should be bounded: a
/// writer that lags makes its worker wait, a committer that lags makes writers wait. A fault is told to `failed` at once:
/// nobody else may come to see it while nothing arrives.
pub fn spawn(
    config: WriterConfig,
    restored: Loaded,
    arrivals: Receiver<Arrival>,
    prepared: Sender<Prepared>,
    failed: impl FnOnce(WriterError) + Send + 'static,
) -> Result<WriterThread, WriterError> {
    let name = format!("writer-{}", config.writer);
    let writer = Writer::new(config, restored)?;
    let stats = writer.stats();
    let handle = named(name, move || {
        // A panic that nobody is told of would leave the run waiting for this part for ever.
        let ended = contain(|| run(writer, arrivals, prepared));
        if let Err(error) = ended.unwrap_or_else(|panic| Err(WriterError::Panicked { panic })) {
            failed(error);
        }
    })?;
    Ok(WriterThread { handle, stats })
}

type Outcome = Result<Merged, WriterError>;

fn run(mut writer: Writer, arrivals: Receiver<Arrival>, prepared: Sender<Prepared>) -> Result<(), WriterError> {
    // `never` while no compaction runs.
    let mut merged: Receiver<Outcome> = never();
    let mut compacting = false;
    // Whether files have changed since the last look for a compaction.
    let mut due = false;
    // Compactions go with the next part, in front of its own changes.
    let mut compacted: Vec<(usize, Batch)> = Vec::new();
    loop {
        if !compacting
            && !writer.is_settling()
            && std::mem::take(&mut due)
            && let Some(started) = start(&mut writer)?
        {
            (merged, compacting) = (started, true);
        }
        if writer.is_settling() && arrivals.is_empty() {
            compacted.extend(writer.settle(IDLE_MOVES)?.map(|c| (c.table, c.batch)));
            due = true;
            continue;
        }
        select! {
            recv(arrivals) -> arrival => {
                let Ok(arrival) = arrival else { break };
                if let Some(mut part) = writer.observe(arrival)? {
                    part.tables.splice(0..0, compacted.drain(..));
                    let epoch = part.epoch;
                    due = true;
                    prepared.send(part).map_err(|_| WriterError::CommitterGone { epoch })?;
                    // Every compaction that is settled has gone with the part.
                    writer.relocate()?;
                    compacted.extend(writer.settle(SEAL_MOVES)?.map(|c| (c.table, c.batch)));
                }
            }
            recv(merged) -> outcome => {
                (merged, compacting) = (never(), false);
                let outcome = outcome.map_err(|_| WriterError::Task { task: "a compaction" })??;
                due = true;
                compacted.extend(writer.begin_settling(outcome)?.map(|c| (c.table, c.batch)));
            }
        }
    }
    if compacting {
        // Nobody will commit it.
        let outcome = merged
            .recv()
            .map_err(|_| WriterError::Task { task: "a compaction" })??;
        writer.discard(outcome)?;
    }
    writer.give_up()
}

/// Starts a compaction on a thread of its own; its outcome comes through the channel, and if it panics, the channel
/// closes. Not on the runtime's threads: the allocator keeps what a thread has freed for that thread, so that each of
/// those would come to hold a compaction's memory; with its thread that goes.
fn start(writer: &mut Writer) -> Result<Option<Receiver<Outcome>>, WriterError> {
    let Some(job) = writer.compaction() else {
        return Ok(None);
    };
    let (done, merged) = crossbeam_channel::bounded(1);
    // Not joined by its handle: the channel is how its end, and its failure, are seen.
    named(format!("compaction-{}", writer.config.writer), move || {
        // A writer that stopped with a fault does not listen any more.
        let _ = done.send(job.run());
    })?;
    Ok(Some(merged))
}

fn named<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, WriterError> {
    let thread = std::thread::Builder::new().name(name.clone()).spawn(body);
    thread.map_err(|source| WriterError::Disk {
        action: "start the thread",
        path: name.into(),
        source,
    })
}
