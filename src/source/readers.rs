//! The reader threads of a run, which are started, watched and stopped together.
//!
//! 1. The number of threads is bounded by the number of feeds: a lister and a few readers for `files`, a few readers
//!    for `kafka`, one thread for `log` and `generate`.
//! 2. Every thread is joined in [`Readers::stop`]. A thread that fails or panics stores its error in
//!    [`Readers::failure`] and wakes the workers, so that the run notices it at once.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::batch::BatchLimits;
use super::connector_of;
use super::error::SourceError;
use super::fault::patience;
use super::feed_handle::{FeedHandle, Gauges, PartitionLag, WorkerChannel};
use super::in_flight::InFlightBudget;
use super::options::{Decoders, ReaderOptions};
use super::starter::{RunningFeeds, StartedThreads, Starter};
use crate::definition::Dataflow;
use crate::repr::{FeedPositions, PartitionId, Position};
use crate::runtime::{FILES, io_runtime};

/// The status of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// Records handed over in this run, including rejected ones.
    pub records: u64,
    /// Bytes of their payloads, uncompressed.
    pub bytes: u64,
    /// Files that were read to their end or given up in this run.
    pub files_done: u64,
    /// Files that exist and are not done.
    pub lag_files: u64,
    /// Bytes not yet read: for logs, exactly; for files, the sizes of those that are not done.
    pub lag_bytes: u64,
    /// The lag of each partition, for feeds whose lag is counted in records.
    pub partitions: Vec<PartitionLag>,
    /// Records that the source removed before they were read.
    pub missing: u64,
    /// Requests that were answered successfully in this run.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Whether everything that exists is handed over.
    pub exhausted: bool,
    /// The newest error, if any.
    pub last_error: Option<String>,
    /// Why the feed, or a part of it, cannot go on now, such as an unreadable folder or file. It goes on by itself
    /// once that is repaired. A feed whose wait has lasted as long as all retries take counts as exhausted.
    pub waits_for: Option<String>,
}

struct StartedFeed {
    input: String,
    feed: String,
    gauges: Arc<Gauges>,
}

/// The reader threads of a run.
pub struct Readers {
    /// Dropped to stop.
    stop: Sender<Infallible>,
    feeds: Vec<StartedFeed>,
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<SourceError>>>,
    /// Groups of feeds that react to the progress of the run.
    running: Vec<Box<dyn RunningFeeds>>,
    /// The runtime for object stores; dropped after the threads that use it.
    runtime: Option<tokio::runtime::Runtime>,
}

/// Starts the readers of every feed, each partition from where `resume` says.
///
/// `channels` has one entry per worker and is not empty. Fails at once for a condition that cannot improve: a URL of
/// no known store, an invalid glob, an unknown generator.
pub fn start(
    dataflow: Arc<Dataflow>,
    resume: &FeedPositions,
    decoders: Decoders,
    channels: Vec<WorkerChannel>,
    options: ReaderOptions,
) -> Result<Readers, SourceError> {
    assert!(!channels.is_empty(), "a run has at least one worker");
    let (stop, stopped) = crossbeam_channel::bounded(0);
    let runtime = store_runtime(&dataflow)?;
    let room = InFlightBudget::of_limit(dataflow.bounds.memory);
    let share = options.share;
    let mut starter = Starter::new(options, decoders, runtime.as_ref().map(|r| r.handle().clone()));
    let channels: Arc<[WorkerChannel]> = channels.into();
    let mut feeds = Vec::new();
    let mut started = Ok(());
    for (input, definition) in dataflow.inputs.iter().enumerate() {
        for (feed, definition_of_feed) in definition.feeds.iter().enumerate() {
            let connector = connector_of(&definition_of_feed.kind);
            let gauges = Arc::new(Gauges::of_readers(connector.readers(channels.len())));
            let handle = FeedHandle {
                dataflow: dataflow.clone(),
                input,
                feed,
                channels: channels.clone(),
                stop: stopped.clone(),
                gauges: gauges.clone(),
                coordinator: None,
                limits: BatchLimits::new(&starter.options, definition_of_feed),
                patience: patience(&starter.options),
                room: room.clone(),
                share,
            };
            feeds.push(StartedFeed {
                input: definition.name.clone(),
                feed: definition_of_feed.name.clone(),
                gauges,
            });
            if started.is_ok() {
                started = connector.start(&mut starter, handle, resume);
            }
        }
    }
    let running = started.and_then(|()| starter.start_groups(resume));
    let StartedThreads { threads, failure } = starter.finish();
    let readers = Readers {
        stop,
        feeds,
        threads,
        failure,
        running: Vec::new(),
        runtime,
    };
    match running {
        Ok(running) => Ok(Readers { running, ..readers }),
        Err(error) => {
            // The threads that did start are stopped first; their own failures would only be consequences of that.
            let _ = readers.stop();
            Err(error)
        }
    }
}

/// The runtime for object stores, if a feed reads one.
fn store_runtime(dataflow: &Dataflow) -> Result<Option<tokio::runtime::Runtime>, SourceError> {
    let mut feeds = dataflow.inputs.iter().flat_map(|input| &input.feeds);
    if !feeds.any(|feed| connector_of(&feed.kind).uses_store()) {
        return Ok(None);
    }
    let built = io_runtime("object stores", 2, FILES);
    built.map(Some).map_err(|error| SourceError::Spawn {
        feed: "object stores".into(),
        source: Arc::new(error),
    })
}

impl Readers {
    /// Whether every feed has handed over all that exists now: files are read, logs are read to their last complete
    /// line, generators have finished. The deliveries may still be in the channels. A generator without `limit` never
    /// finishes.
    pub fn exhausted(&self) -> bool {
        self.feeds.iter().all(|feed| feed.gauges.exhausted())
    }

    /// The status of each feed, in the order of the definition.
    pub fn statuses(&self) -> Vec<FeedStatus> {
        let status = |feed: &StartedFeed| FeedStatus {
            input: feed.input.clone(),
            feed: feed.feed.clone(),
            records: feed.gauges.records.load(Ordering::Relaxed),
            bytes: feed.gauges.bytes.load(Ordering::Relaxed),
            files_done: feed.gauges.files_done.load(Ordering::Relaxed),
            lag_files: feed.gauges.lag_files.load(Ordering::Relaxed),
            lag_bytes: feed.gauges.lag_bytes.load(Ordering::Relaxed),
            partitions: feed.gauges.partitions(),
            missing: feed.gauges.missing.load(Ordering::Relaxed),
            requests: feed.gauges.requests.load(Ordering::Relaxed),
            refused: feed.gauges.refused.load(Ordering::Relaxed),
            exhausted: feed.gauges.exhausted(),
            last_error: feed.gauges.last_error(),
            waits_for: feed.gauges.waits_for(),
        };
        self.feeds.iter().map(status).collect()
    }

    /// The error of the first reader that failed, after which the run must stop.
    pub fn failure(&self) -> Option<SourceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Accepts no more requests; those in progress are still answered.
    pub fn close(&self) {
        self.running.iter().for_each(|feeds| feeds.close());
    }

    /// After `close`: whether no request is in progress.
    pub fn are_requests_answered(&self) -> bool {
        self.running.iter().all(|feeds| feeds.is_answered())
    }

    /// Whether all rows of accepted requests are handed over.
    pub fn are_requests_read(&self) -> bool {
        self.running.iter().all(|feeds| feeds.is_read_out())
    }

    /// Records the progress that a snapshot holds, so that what was retained until then may be removed.
    pub fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        self.running.iter().for_each(|feeds| feeds.observe_committed(progress));
    }

    /// Asks every reader to stop, and waits until all have. Deliveries in the channels stay there. Returns the first
    /// reader's failure, if there was one.
    pub fn stop(self) -> Result<(), SourceError> {
        let Readers {
            stop,
            threads,
            failure,
            running,
            runtime,
            ..
        } = self;
        drop(stop);
        drop(running);
        for thread in threads {
            thread.join().expect("a reader thread catches its panics");
        }
        drop(runtime);
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}
