//! The writer's thread: arrivals in, events out, compactions in the background beside them.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, never, select};

use super::compact::Merged;
use super::{Compaction, Loaded, Writer, WriterConfig, WriterError, WriterStats};
use crate::sink::{Arrival, Prepared};

/// What a writer hands to the committer, in an order that must be kept.
#[derive(Debug)]
pub enum WriterEvent {
    /// Its part of a snapshot; there is one for every seal, also where nothing changed.
    Prepared(Prepared),
    /// Files written anew.
    Compaction(Compaction),
}

/// A running writer.
pub struct WriterThread {
    /// Ends when the arrivals' senders are gone, or with the fault that stopped it.
    pub handle: JoinHandle<Result<(), WriterError>>,
    /// Its figures.
    pub stats: Arc<WriterStats>,
}

/// Starts a writer. Both channels should be bounded: a writer that lags makes its worker wait, a committer
/// that lags makes writers wait.
pub fn spawn(
    config: WriterConfig,
    restored: Loaded,
    arrivals: Receiver<Arrival>,
    events: Sender<WriterEvent>,
) -> Result<WriterThread, WriterError> {
    let name = format!("writer-{}", config.writer);
    let writer = Writer::new(config, restored)?;
    let stats = writer.stats();
    let handle = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || run(writer, arrivals, events))
        .map_err(|source| WriterError::Disk {
            action: "start the thread",
            path: name.into(),
            source,
        })?;
    Ok(WriterThread { handle, stats })
}

type Outcome = Result<Merged, WriterError>;

fn run(mut writer: Writer, arrivals: Receiver<Arrival>, events: Sender<WriterEvent>) -> Result<(), WriterError> {
    // `never` while no compaction runs.
    let mut merged: Receiver<Outcome> = never();
    let mut compacting = false;
    // Whether files have changed since the last look for a compaction.
    let mut due = false;
    let mut epoch = 0;
    loop {
        if !compacting
            && std::mem::take(&mut due)
            && let Some(started) = start(&mut writer)
        {
            (merged, compacting) = (started, true);
        }
        let event = select! {
            recv(arrivals) -> arrival => match arrival {
                Ok(arrival) => writer.observe(arrival)?.map(WriterEvent::Prepared),
                Err(_) => break,
            },
            recv(merged) -> outcome => {
                (merged, compacting) = (never(), false);
                let outcome = outcome.map_err(|_| WriterError::Task { task: "a compaction" })??;
                due = true;
                writer.settle(outcome)?.map(WriterEvent::Compaction)
            }
        };
        if let Some(event) = event {
            if let WriterEvent::Prepared(prepared) = &event {
                (epoch, due) = (prepared.epoch, true);
            }
            events.send(event).map_err(|_| WriterError::CommitterGone { epoch })?;
        }
    }
    if compacting {
        // Nobody will commit it.
        let outcome = merged
            .recv()
            .map_err(|_| WriterError::Task { task: "a compaction" })??;
        writer.discard(outcome)?;
    }
    Ok(())
}

/// Starts a compaction on the runtime's threads; its outcome comes through the channel, and if the task panics, the
/// channel closes.
fn start(writer: &mut Writer) -> Option<Receiver<Outcome>> {
    let job = writer.compaction()?;
    let (done, merged) = crossbeam_channel::bounded(1);
    // Not joined by its handle: the channel above is how its end, and its failure, are seen.
    drop(writer.config.runtime.spawn_blocking(move || {
        // A writer that stopped with a fault does not listen any more.
        let _ = done.send(job.run());
    }));
    Some(merged)
}
