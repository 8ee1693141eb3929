//! The contract between a kind of feed and a run: how the feed is read. Its other half, what can be asked without
//! reading, is [`FeedContract`](crate::definition::FeedContract).
//!
//! 1. **Start from a progress.** [`Connector::start`] gets the position up to which each partition was read
//!    (`FeedHandle::positions`). It starts threads with `Starter::spawn`, or adds the feed to the feeds with which it
//!    shares a source (`Starter::group`). It returns an error only for a condition that cannot improve; the thread
//!    itself waits for a source that does not answer.
//! 2. **Discover.** The threads look for new partitions as long as they run, and read those that belong to this
//!    process (`FeedHandle::reads`).
//! 3. **Hand over batches.** Each batch goes through `FeedHandle::deliver`, with the position behind its last record:
//!    a snapshot that holds the batch also holds the position, and a restart begins there. Batches of a partition are
//!    handed over in order. Every wait ends when `FeedHandle::stop` is disconnected.
//! 4. **Status.** `Gauges` report records, lag, faults, and whether everything that exists has been handed over. The
//!    command `status` and a run until caught up know nothing else about a feed.
//! 5. **Observe committed, and close.** A kind that waits for snapshots, or serves clients, implements this in
//!    `RunningFeeds`.

use std::time::Duration;

use super::error::SourceError;
use super::feed_handle::FeedHandle;
use super::starter::Starter;
use crate::definition::Dataflow;
use crate::repr::FeedPositions;

/// How feeds of one kind are read. The settings of each kind implement it, in that kind's folder.
pub(crate) trait Connector {
    /// How many reader threads, each with its own exhausted flag, such a feed has with this number of workers; at
    /// most 64.
    fn readers(&self, _workers: usize) -> usize {
        1
    }

    /// Whether it reads an object store.
    fn uses_store(&self) -> bool {
        false
    }

    /// Starts to read each partition from where `resume` says. `handle` belongs to this feed.
    ///
    /// # Errors
    /// A condition that cannot improve, or a thread that could not be started.
    fn start(&self, starter: &mut Starter, handle: FeedHandle, resume: &FeedPositions) -> Result<(), SourceError>;

    /// Checks whether the source fits a feed, which is given by index into `Dataflow::inputs` and `Input::feeds`.
    /// The check creates and changes nothing. A source that does not answer within `patience` is reported as a
    /// misfit.
    fn check(&self, _dataflow: &Dataflow, _feed: (usize, usize), _patience: Duration) -> Vec<FeedMisfit> {
        Vec::new()
    }
}

/// A way in which a source does not fit a feed.
#[derive(Clone, Debug)]
pub struct FeedMisfit {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// Index into `Input::feeds`.
    pub feed: usize,
    pub message: String,
    /// What to do; none if the source could not be examined.
    pub help: Option<String>,
    /// Whether it prevents the feed from being read.
    pub refuses: bool,
}
