//! The reader threads of a run: started together, watched, stopped together.
//!
//! 1. Threads are bounded by the number of feeds: a lister and a few readers for `files`, a few readers for `kafka`, one
//!    thread for `log` and `generate`.
//! 2. Every thread is joined in [`Readers::stop`]. A thread that fails or panics leaves its error in
//!    [`Readers::failure`] and wakes the workers, so that whoever looks there sees it at once.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::batch::BatchLimits;
use super::fault::patience;
use super::outlet::{Ended, Gauges, Hand, Outlet};
use super::passage::Passage;
use super::share::Share;
use super::transactions::{Groups, OpenEpoch, Together};
use super::{PartitionId, PartitionLag, Position, Progress, SourceError, files, generate, http, kafka, log, postgres};
use crate::contain;
use crate::decode::{Decoded, Raw, Waiting};
use crate::definition::{Dataflow, FeedKind};
use crate::registry::Registries;

/// How one thread decodes what it reads.
pub type Decode = Box<dyn FnMut(Raw) -> Result<Decoded, Held> + Send>;

/// Records that are not decoded now.
#[derive(Debug)]
pub enum Held {
    /// The schema registry does not answer.
    Waiting(Box<Waiting>),
    /// Their schema has fields that the input takes first. Whoever decodes has told the run, which ends its readers and
    /// begins anew with these records.
    Columns,
    /// They are of a file that is not the one any more that was to be read, or that disk or store do not give now.
    Unread(io::Error),
}

impl From<Box<Waiting>> for Held {
    fn from(waiting: Box<Waiting>) -> Self {
        Held::Waiting(waiting)
    }
}

/// Makes the decoder of a feed, by index into `Dataflow::inputs` and `Input::feeds`. Each thread gets its own.
pub type Decoders = Arc<dyn Fn(usize, usize) -> Decode + Send + Sync>;

/// What time it is. Handed in, so that a test can stop it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How readers read.
#[derive(Clone)]
pub struct ReaderOptions {
    /// Records in a batch, at most.
    pub batch_rows: usize,
    /// Bytes of payload after which a batch is handed over, however few its records.
    pub batch_bytes: usize,
    /// Threads that read files, per feed. An input where the order of arrival decides (a key without `order_by`,
    /// or a `dedup_key`) has one.
    pub file_readers: usize,
    /// How often a folder is listed. A store behind a URL is listed at most every two seconds.
    pub poll: Duration,
    /// How long a file must have kept its size and time before it is read.
    pub settle: Duration,
    /// How often a log is looked at while records come.
    pub log_poll: Duration,
    /// How often a log is looked at, at least, while none come.
    pub log_idle_poll: Duration,
    /// How often new topics and partitions are looked for.
    pub topics_poll: Duration,
    /// How often reading or listing is tried again in a row before that is a lasting fault: then a feed of files or of a
    /// log waits, and another one fails.
    pub retries: u32,
    /// The first pause before trying again; it doubles each time, up to ten seconds.
    pub back_off: Duration,
    /// Feeds end once they have handed over all that exists.
    pub stop_at_end: bool,
    /// Whether source transactions are kept whole where feeds want that.
    pub keeps_transactions: bool,
    /// Whether requests are listened for; else what came earlier is read.
    pub takes_requests: bool,
    /// Wall clock.
    pub clock: Clock,
    /// Of several processes, which partitions are this one's.
    pub share: Share,
    /// What of source transactions is on its way to workers, and which epoch is open.
    pub together: Arc<Together>,
    pub open_epoch: OpenEpoch,
    /// Where schemas of markers are.
    pub registries: Arc<Registries>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            batch_rows: 8192,
            batch_bytes: 4 << 20,
            file_readers: 2,
            poll: Duration::from_millis(200),
            settle: Duration::from_secs(1),
            log_poll: Duration::from_millis(5),
            log_idle_poll: Duration::from_millis(50),
            topics_poll: Duration::from_secs(5),
            retries: 8,
            back_off: Duration::from_millis(100),
            stop_at_end: false,
            keeps_transactions: true,
            takes_requests: false,
            clock: Arc::new(SystemTime::now),
            share: Share::default(),
            together: Arc::default(),
            open_epoch: Arc::new(|| None),
            registries: Arc::new(Registries::new(None)),
        }
    }
}

/// How a feed is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// Records handed over in this run, rejected ones too.
    pub records: u64,
    /// Bytes of their payloads, uncompressed.
    pub bytes: u64,
    /// Files read to their end in this run, or given up.
    pub files_done: u64,
    /// Files that are there and not yet done.
    pub lag_files: u64,
    /// Bytes that are there and not yet read: of a log; of files, their sizes.
    pub lag_bytes: u64,
    /// How far each partition lags, where that is counted in records.
    pub partitions: Vec<PartitionLag>,
    /// Records that the source has no more and that were not read.
    pub missing: u64,
    /// Requests that were answered in this run.
    pub requests: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// All that exists is handed over.
    pub exhausted: bool,
    /// The newest trouble, with a file or with listing, if any.
    pub last_error: Option<String>,
    /// Why it cannot go on now, or not with all that is there: a folder or file that cannot be read. It goes on by itself
    /// once that is mended. A feed that waits counts as exhausted when that has lasted as long as retries take.
    pub waits_for: Option<String>,
}

struct FeedHandle {
    input: String,
    feed: String,
    gauges: Arc<Gauges>,
}

/// The reader threads of a run.
pub struct Readers {
    /// Dropped to stop.
    stop: Sender<Infallible>,
    feeds: Vec<FeedHandle>,
    threads: Vec<JoinHandle<()>>,
    /// Replication slots, which keep what no snapshot holds.
    slots: Vec<postgres::Kept>,
    failure: Arc<Mutex<Option<SourceError>>>,
    /// What takes requests.
    listening: Option<http::Listening>,
    /// Drives object stores; dropped after the threads that use it.
    runtime: Option<tokio::runtime::Runtime>,
}

/// What starts threads: shared by the kinds of feeds.
pub(crate) struct Starter {
    pub options: ReaderOptions,
    pub decoders: Decoders,
    pub runtime: Option<tokio::runtime::Handle>,
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<SourceError>>>,
}

impl Starter {
    /// Starts a thread of a feed.
    pub fn spawn(
        &mut self,
        hand: &Hand,
        work: impl FnOnce(Hand) -> Result<(), Ended> + Send + 'static,
    ) -> Result<(), SourceError> {
        let name = hand.name();
        let (failure, hand) = (self.failure.clone(), hand.clone());
        let feed = name.clone();
        let body = move || {
            let outlets = hand.outlets.clone();
            let error = match std::panic::catch_unwind(AssertUnwindSafe(|| work(hand))) {
                Ok(Ok(())) | Ok(Err(Ended::Stopped | Ended::Unread(_))) => None,
                Ok(Err(Ended::Failed(error))) => Some(error),
                Err(panic) => Some(SourceError::Panicked {
                    feed: feed.clone(),
                    message: contain::message(&*panic),
                }),
            };
            if let Some(error) = error {
                tracing::error!(feed, error = &error as &dyn std::error::Error, "reader failed");
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
            }
            // Also at a good end: a worker may be waiting for the feed to be exhausted.
            outlets.iter().for_each(|outlet| (outlet.wake)());
        };
        let thread = std::thread::Builder::new()
            .name(format!("feed {name}"))
            .spawn(body)
            .map_err(|e| SourceError::Spawn {
                feed: name,
                source: Arc::new(e),
            })?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Starts the readers of every feed, each partition from where `resume` says.
///
/// `outlets` has one entry per worker and is not empty. Fails at once on what cannot get better: a URL that names no
/// store, a glob that does not parse, a generator that does not exist.
pub fn start(
    dataflow: Arc<Dataflow>,
    resume: &Progress,
    decoders: Decoders,
    outlets: Vec<Outlet>,
    options: ReaderOptions,
) -> Result<Readers, SourceError> {
    assert!(!outlets.is_empty(), "a run has at least one worker");
    let (stop, stopped) = crossbeam_channel::bounded(0);
    let remote = |kind: &FeedKind| matches!(kind, FeedKind::Files { path, .. } if files::is_remote(path));
    let runtime = if dataflow.inputs.iter().flat_map(|i| &i.feeds).any(|f| remote(&f.kind)) {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        Some(built.map_err(|e| SourceError::Spawn {
            feed: "object stores".into(),
            source: Arc::new(e),
        })?)
    } else {
        None
    };
    let room = Passage::of_limit(dataflow.bounds.memory);
    let share = options.share;
    let mut starter = Starter {
        options,
        decoders,
        runtime: runtime.as_ref().map(|r| r.handle().clone()),
        threads: Vec::new(),
        failure: Arc::default(),
    };
    let outlets: Arc<[Outlet]> = outlets.into();
    let mut feeds = Vec::new();
    let mut started = Ok(());
    let mut groups = match starter.options.keeps_transactions {
        true => Groups::of(&dataflow),
        false => Groups::default(),
    };
    let mut doors = http::Doors::default();
    let mut slots = postgres::Slots::default();
    for (input, definition) in dataflow.inputs.iter().enumerate() {
        for (feed, definition_of_feed) in definition.feeds.iter().enumerate() {
            let gauges = Arc::new(match &definition_of_feed.kind {
                FeedKind::Kafka(_) => Gauges::of_readers(kafka::readers(outlets.len())),
                _ => Gauges::default(),
            });
            let hand = Hand {
                dataflow: dataflow.clone(),
                input,
                feed,
                outlets: outlets.clone(),
                stop: stopped.clone(),
                gauges: gauges.clone(),
                line: groups.line(input, feed),
                limits: BatchLimits::new(&starter.options, definition_of_feed),
                patience: patience(&starter.options),
                room: room.clone(),
                share,
            };
            groups.observe_hand(&hand);
            feeds.push(FeedHandle {
                input: definition.name.clone(),
                feed: definition_of_feed.name.clone(),
                gauges,
            });
            if started.is_ok() {
                started = match &definition_of_feed.kind {
                    FeedKind::Files { path, rules } => files::start(&mut starter, hand, (path, rules), resume),
                    FeedKind::Log { path, rules } => log::start(&mut starter, hand, (path, *rules), resume),
                    FeedKind::Kafka(kafka) => kafka::start(&mut starter, hand, kafka, resume),
                    FeedKind::Http => {
                        doors.observe_hand(hand);
                        Ok(())
                    }
                    FeedKind::Postgres(postgres) => {
                        slots.add(hand, postgres);
                        Ok(())
                    }
                    FeedKind::Generate(settings) => generate::feed::start(&mut starter, hand, settings, resume),
                };
            }
        }
    }
    if started.is_ok() {
        started = groups.start(&mut starter, resume);
    }
    let kept = slots.kept();
    if started.is_ok() {
        started = slots.start(&mut starter, resume);
    }
    // Last: what is taken is handed over.
    let listening = started.and_then(|()| doors.start(&mut starter, resume));
    let readers = Readers {
        stop,
        feeds,
        threads: starter.threads,
        slots: kept,
        failure: starter.failure,
        listening: None,
        runtime,
    };
    match listening {
        Ok(listening) => Ok(Readers { listening, ..readers }),
        Err(error) => {
            // Those that did start go first; their own failure would only be a consequence.
            let _ = readers.stop();
            Err(error)
        }
    }
}

impl Readers {
    /// Whether every feed has handed over all that exists right now: existing files read, logs read to their last
    /// whole line, generators finished. The deliveries may still be in the outlets. A generator without `limit` never is.
    pub fn exhausted(&self) -> bool {
        self.feeds.iter().all(|feed| feed.gauges.exhausted())
    }

    /// How each feed is doing, in the order of the definition.
    pub fn statuses(&self) -> Vec<FeedStatus> {
        let status = |feed: &FeedHandle| FeedStatus {
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

    /// The first reader that died, if one did: the run must stop.
    pub fn failure(&self) -> Option<SourceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes no more requests, and answers those under way.
    pub fn close(&self) {
        if let Some(listening) = &self.listening {
            listening.close();
        }
    }

    /// Once they are closed: whether no request is under way.
    pub fn are_requests_answered(&self) -> bool {
        self.listening.as_ref().is_none_or(http::Listening::is_written)
    }

    /// Whether what requests brought is handed over.
    pub fn are_requests_read(&self) -> bool {
        self.listening.as_ref().is_none_or(http::Listening::is_read_out)
    }

    /// A snapshot holds this progress: what only waited for that may go.
    pub fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        if let Some(listening) = &self.listening {
            listening.observe_committed(progress);
        }
        self.slots.iter().for_each(|slot| slot.observe_committed(progress));
    }

    /// Asks every reader to stop, and waits until all have. What is in the outlets stays there. Returns the first
    /// failure, if a reader had died.
    pub fn stop(self) -> Result<(), SourceError> {
        let Readers {
            stop,
            threads,
            failure,
            listening,
            runtime,
            ..
        } = self;
        drop(stop);
        drop(listening);
        for thread in threads {
            thread.join().expect("a reader thread catches its panics");
        }
        drop(runtime);
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}
