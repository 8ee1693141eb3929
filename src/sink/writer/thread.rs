//! Runs a writer on a thread: it receives messages and sends parts of snapshots, while compactions run in the
//! background.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, never, select};

use super::compact::MergedFiles;
use super::{LoadedWriter, SinkWriter, WriterConfig, WriterError, WriterStats};
use crate::contain::contain;
use crate::sink::{Prepared, TableBatch, WriterMessage};

/// The number of index entries to move for a compaction before the thread checks for messages again, while none
/// arrive; they take a third of a millisecond.
const IDLE_MOVES: usize = 1 << 10;
/// The number of entries to move after each seal, even if messages wait: several times what a small seal adds.
const SEAL_MOVES: usize = 1 << 12;

/// A running writer thread.
pub struct WriterThread {
    /// Ends when the senders of messages are gone, or with a fault, which it has reported.
    pub handle: JoinHandle<()>,
    /// The writer's counters.
    pub stats: Arc<WriterStats>,
}

/// Starts a writer. Every seal is answered with a part, even if nothing changed. Both channels should be bounded: a
/// writer that lags makes its worker wait, and a committer that lags makes writers wait. A fault is passed to `failed`
/// at once, because nobody else may notice it while nothing arrives.
pub fn spawn(
    config: WriterConfig,
    restored: LoadedWriter,
    arrivals: Receiver<WriterMessage>,
    prepared: Sender<Prepared>,
    failed: impl FnOnce(WriterError) + Send + 'static,
) -> Result<WriterThread, WriterError> {
    let name = format!("writer-{}", config.writer);
    let writer = SinkWriter::new(config, restored)?;
    let stats = writer.stats();
    let handle = named(name, move || {
        // A panic that is not reported would leave the run waiting for this part for ever.
        let ended = contain(|| run(writer, arrivals, prepared));
        if let Err(error) = ended.unwrap_or_else(|panic| Err(WriterError::Panicked { panic })) {
            failed(error);
        }
    })?;
    Ok(WriterThread { handle, stats })
}

type Outcome = Result<MergedFiles, WriterError>;

fn run(
    mut writer: SinkWriter,
    arrivals: Receiver<WriterMessage>,
    prepared: Sender<Prepared>,
) -> Result<(), WriterError> {
    // `never` while no compaction runs.
    let mut merged: Receiver<Outcome> = never();
    let mut compacting = false;
    // Whether files have changed since the last search for a compaction.
    let mut due = false;
    // Finished compactions go with the next part, before its own changes.
    let mut compacted: Vec<(usize, TableBatch)> = Vec::new();
    loop {
        if !compacting
            && !writer.is_moving_entries()
            && std::mem::take(&mut due)
            && let Some(started) = start(&mut writer)?
        {
            (merged, compacting) = (started, true);
        }
        if writer.is_moving_entries() && arrivals.is_empty() {
            compacted.extend(writer.move_entries(IDLE_MOVES)?.map(|c| (c.table, c.batch)));
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
                    // Every finished compaction has gone with this part.
                    writer.relocate()?;
                    compacted.extend(writer.move_entries(SEAL_MOVES)?.map(|c| (c.table, c.batch)));
                }
            }
            recv(merged) -> outcome => {
                (merged, compacting) = (never(), false);
                let outcome = outcome.map_err(|_| WriterError::Task { task: "a compaction" })??;
                due = true;
                compacted.extend(writer.begin_move(outcome)?.map(|c| (c.table, c.batch)));
            }
        }
    }
    if compacting {
        // Nobody would commit this compaction.
        let outcome = merged
            .recv()
            .map_err(|_| WriterError::Task { task: "a compaction" })??;
        writer.discard(outcome)?;
    }
    writer.give_up()
}

/// Starts a compaction on a thread of its own. Its outcome comes through the channel; if it panics, the channel
/// closes. It does not run on the runtime's threads, because the allocator keeps freed memory for the thread that
/// freed it: each of those threads would come to hold a compaction's memory, which a thread of its own gives back when
/// it ends.
fn start(writer: &mut SinkWriter) -> Result<Option<Receiver<Outcome>>, WriterError> {
    let Some(job) = writer.compaction() else {
        return Ok(None);
    };
    let (done, merged) = crossbeam_channel::bounded(1);
    // The thread is not joined: the channel shows its end and its failure.
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
