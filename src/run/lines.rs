//! The channels to the workers of this process. Those that carry records are bounded: a sender waits until its worker
//! has room.

use std::thread::Thread;

use crossbeam_channel::{Sender, bounded, unbounded};

use super::past::PastPiece;
use super::worker::WorkerParts;
use crate::backfill::BackfillBatch;
use crate::repr::Epoch;
use crate::sink::WriterMessage;
use crate::source::Delivery;

/// Capacity of each channel of deliveries.
pub const DELIVERIES: usize = 16;
/// Capacity of each channel of portions.
const PORTIONS: usize = 2;

/// Control of the workers of this process: sends them epochs to seal, and wakes them. Both fields are indexed by
/// worker.
#[derive(Clone, Default)]
pub struct WorkerSignals {
    /// Sends epochs to seal.
    seals: Vec<Sender<Epoch>>,
    /// The workers' threads, once they run.
    pub threads: Vec<Thread>,
}

impl WorkerSignals {
    /// Wakes the workers.
    pub fn wake(&self) {
        self.threads.iter().for_each(Thread::unpark);
    }

    /// Has every worker seal an epoch. The caller wakes the workers.
    pub fn seal(&self, epoch: Epoch) {
        for worker in &self.seals {
            // A worker that is gone has reported why.
            let _ = worker.send(epoch);
        }
    }

    /// Drops the senders; workers can still be woken.
    pub fn close(&mut self) {
        self.seals.clear();
    }
}

/// The senders to the workers, indexed by worker.
pub struct WorkerLines {
    /// For deliveries of feeds.
    pub deliveries: Vec<Sender<Delivery>>,
    /// For those deliveries of feeds that have to share an epoch with others.
    pub together: Vec<Sender<Delivery>>,
    /// For portions of requests.
    pub portions: Vec<Sender<BackfillBatch>>,
    /// For seals and wake-ups.
    pub signals: WorkerSignals,
}

/// Makes the channels to one worker for each of `writers`, the channels to the writers. Returns the senders, the
/// senders for the past, and the workers' ends.
pub fn channels(writers: Vec<Sender<WriterMessage>>) -> (WorkerLines, Vec<Sender<PastPiece>>, Vec<WorkerParts>) {
    let mut lines = WorkerLines {
        deliveries: vec![],
        together: vec![],
        portions: vec![],
        signals: WorkerSignals::default(),
    };
    let (mut pasts, mut parts) = (vec![], vec![]);
    for (index, writer) in writers.into_iter().enumerate() {
        let (deliveries_in, deliveries) = bounded(DELIVERIES);
        let (together_in, together) = bounded(DELIVERIES);
        let (past_in, past) = bounded(DELIVERIES);
        // Unbounded, but short: the pacer bounds the number of snapshots in flight.
        let (seals_in, seals) = unbounded();
        let (portions_in, portions) = bounded(PORTIONS);
        lines.deliveries.push(deliveries_in);
        lines.together.push(together_in);
        lines.portions.push(portions_in);
        lines.signals.seals.push(seals_in);
        pasts.push(past_in);
        parts.push(WorkerParts {
            index,
            deliveries,
            together,
            past,
            portions,
            seals,
            writer,
        });
    }
    (lines, pasts, parts)
}

impl WorkerLines {
    /// Whether no delivery and no portion waits for a worker.
    pub fn are_empty(&self) -> bool {
        let deliveries = self.deliveries.iter().chain(&self.together);
        deliveries.into_iter().all(Sender::is_empty) && self.portions.iter().all(Sender::is_empty)
    }

    /// Drops all senders, so that workers stop waiting.
    pub fn close(&mut self) {
        self.deliveries.clear();
        self.together.clear();
        self.portions.clear();
        self.signals.close();
    }
}
