//! The channel from readers to their coordinator, and its signals to them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::queue::EndObservation;
use crate::source::Delivery;
use crate::source::error::ReaderExit;

/// A reader whose records go to a coordinator before they go to workers.
pub trait CoordinatedReader {
    /// Indexes into `Dataflow::inputs` and `Input::feeds`.
    fn feed_index(&self) -> (usize, usize);
    /// Disconnected when readers are to stop.
    fn stop(&self) -> &Receiver<Infallible>;
}

/// How many deliveries the channel to a coordinator holds.
pub const DELIVERIES: usize = 16;

/// A message from a reader to its coordinator.
pub enum ReaderMessage {
    /// A partition exists.
    Partition(FeedPartition),
    /// The partition is being read from now on.
    Opened(FeedPartition, OpenedPartition),
    /// The reader has found its partitions for the first time.
    Found,
    Delivery(Box<Delivery>),
    /// A partition was read to its end.
    AtEnd(FeedPartition),
    /// A partition has records that cannot be handed over yet.
    Behind(FeedPartition),
    /// Everything that existed when the partition was found is handed over.
    Caught(FeedPartition),
    /// The answer to a question for a partition's end.
    Look(FeedPartition, EndObservation),
}

/// Identifies a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeedPartition {
    pub input: usize,
    pub feed: usize,
    pub partition: Arc<str>,
}

/// The state of a partition when it was found.
#[derive(Clone, Copy, Debug)]
pub struct OpenedPartition {
    /// The first record to read.
    pub from: u64,
    /// The offset behind the last record.
    pub end: u64,
    /// Whether a snapshot knows it.
    pub known: bool,
}

/// A reader's handle to its coordinator.
#[derive(Clone)]
pub struct CoordinatorHandle {
    sender: Sender<ReaderMessage>,
    signals: Arc<Mutex<CoordinatorSignals>>,
}

/// A coordinator's signals to readers.
#[derive(Default)]
pub struct CoordinatorSignals {
    /// Partitions whose readers should deliver nothing more for now.
    pub full: HashSet<FeedPartition>,
    /// Since when readers are asked for the ends of their partitions.
    pub asked: Option<Instant>,
}

impl CoordinatorHandle {
    fn place(handle: &impl CoordinatedReader, partition: &Arc<str>) -> FeedPartition {
        let (input, feed) = handle.feed_index();
        FeedPartition {
            input,
            feed,
            partition: partition.clone(),
        }
    }

    fn send(&self, handle: &impl CoordinatedReader, message: ReaderMessage) -> Result<(), ReaderExit> {
        select_biased! {
            recv(handle.stop()) -> _ => Err(ReaderExit::Stopped),
            // A coordinator that has ended has recorded why.
            send(self.sender, message) -> sent => sent.map_err(|_| ReaderExit::Stopped),
        }
    }

    /// Announces a partition that will be read.
    pub fn announce(&self, handle: &impl CoordinatedReader, partition: &Arc<str>) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::Partition(CoordinatorHandle::place(handle, partition)),
        )
    }

    /// Reports that a partition is being read from now on.
    pub fn open(
        &self,
        handle: &impl CoordinatedReader,
        partition: &Arc<str>,
        opened: OpenedPartition,
    ) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::Opened(CoordinatorHandle::place(handle, partition), opened),
        )
    }

    /// Reports that this reader has announced all existing partitions.
    pub fn partitions_found(&self, handle: &impl CoordinatedReader) -> Result<(), ReaderExit> {
        self.send(handle, ReaderMessage::Found)
    }

    /// Sends a delivery to the coordinator.
    pub fn keep(&self, handle: &impl CoordinatedReader, delivery: Delivery) -> Result<(), ReaderExit> {
        self.send(handle, ReaderMessage::Delivery(Box::new(delivery)))
    }

    /// Reports that a partition was read to its end.
    pub fn at_end(&self, handle: &impl CoordinatedReader, partition: &Arc<str>) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::AtEnd(CoordinatorHandle::place(handle, partition)),
        )
    }

    /// Reports that a partition has records that cannot be handed over yet.
    pub fn behind(&self, handle: &impl CoordinatedReader, partition: &Arc<str>) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::Behind(CoordinatorHandle::place(handle, partition)),
        )
    }

    /// Reports that everything that existed when a partition was found is handed over.
    pub fn caught(&self, handle: &impl CoordinatedReader, partition: &Arc<str>) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::Caught(CoordinatorHandle::place(handle, partition)),
        )
    }

    /// Answers a question for a partition's end.
    pub fn observe_end(
        &self,
        handle: &impl CoordinatedReader,
        partition: &Arc<str>,
        look: EndObservation,
    ) -> Result<(), ReaderExit> {
        self.send(
            handle,
            ReaderMessage::Look(CoordinatorHandle::place(handle, partition), look),
        )
    }

    /// Whether the reader should deliver nothing more of a partition for now.
    pub fn is_full(&self, handle: &impl CoordinatedReader, partition: &Arc<str>) -> bool {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        !signals.full.is_empty() && signals.full.contains(&CoordinatorHandle::place(handle, partition))
    }

    /// The time of the newest question for ends, which the answer must repeat.
    pub fn asked(&self) -> Option<Instant> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).asked
    }
}

/// The two ends of the channel to a new coordinator.
pub fn coordinator_channel() -> (CoordinatorHandle, CoordinatorInbox) {
    let (sender, messages) = bounded(DELIVERIES);
    let signals: Arc<Mutex<CoordinatorSignals>> = Arc::default();
    let end = CoordinatorInbox {
        messages,
        signals: signals.clone(),
    };
    (CoordinatorHandle { sender, signals }, end)
}

/// The coordinator's end of a [`CoordinatorHandle`].
pub struct CoordinatorInbox {
    pub messages: Receiver<ReaderMessage>,
    signals: Arc<Mutex<CoordinatorSignals>>,
}

impl CoordinatorInbox {
    pub fn signals(&self) -> std::sync::MutexGuard<'_, CoordinatorSignals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
