//! How a reader hands over: bounded, in order, and interruptible.
//!
//! 1. A partition's deliveries go to one worker, named by a hash of its identity that is the same in every process.
//! 2. A reader waits, without spinning, while its worker's channel is full: that is the back-pressure.
//! 3. Whatever a reader waits for, a request to stop ends the wait.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select_biased};
use serde::{Deserialize, Serialize};

use super::batch::{BatchLimits, nothing, payload_bytes};
use super::passage::{Passage, Reserved};
use super::share::Share;
use super::transactions::Line;
use super::{Decode, Delivery, Held, Position, Progress, SourceError};
use crate::decode::{Decoded, Raw, blank_rows};
use crate::definition::{Dataflow, Feed, Input};

/// A worker's end of the readers.
#[derive(Clone)]
pub struct Outlet {
    /// Bounded; the worker drains it, unless it holds as much as it may.
    pub sender: Sender<Delivery>,
    /// The same for deliveries that belong into an epoch with others, and for them alone: the worker takes these always, for
    /// that epoch cannot close before. So they never wait behind what it must not take.
    pub together: Sender<Delivery>,
    /// Called after a send, so that a parked worker wakes.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// Why a reader's work ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It cannot go on.
    Failed(SourceError),
    /// The file that it reads is not the one any more that was to be read, or cannot be read now: whoever reads files knows
    /// what to do.
    Unread(io::Error),
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        Ended::Failed(error)
    }
}

/// How far a partition lags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionLag {
    /// See [`super::Delivery::partition`].
    pub partition: String,
    /// The next record to read.
    pub next: u64,
    /// Records that are there and not yet read.
    pub records: u64,
    /// Of a partition that lags, how old the newest record is that was read, in milliseconds.
    pub age_ms: Option<u64>,
}

/// Who of a feed waits for something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    /// One of its readers, by number.
    Reader(usize),
    /// Who keeps its source's transactions whole.
    Keeper,
    /// Who reads this partition, and needs schemas.
    Schemas(Arc<str>),
}

/// What a feed tells about itself; read by others at any time.
pub(crate) struct Gauges {
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub files_done: AtomicU64,
    pub lag_files: AtomicU64,
    pub lag_bytes: AtomicU64,
    /// Records that retention removed before they were read.
    pub missing: AtomicU64,
    /// Requests that were answered, and that were refused.
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    /// A bit for each reader of the feed that has something left to hand over. Cleared after the last send, so whoever
    /// reads 0 finds the deliveries in the channels.
    busy: AtomicU64,
    /// By reader: how far its partitions lag, where that is told.
    partitions: Mutex<BTreeMap<usize, Vec<PartitionLag>>>,
    last_error: Mutex<Option<String>>,
    /// Why somebody cannot go on now, or not with all of its part, and from when on that counts as lasting.
    waits_for: Mutex<BTreeMap<Waiter, (String, Instant)>>,
    /// Readers that have waited for schemas as long as retries take, while nothing else of the feed was handed over.
    stalled: AtomicU64,
}

/// A feed of one reader that has not looked yet.
impl Default for Gauges {
    fn default() -> Self {
        Gauges::of_readers(1)
    }
}

impl Gauges {
    /// Of a feed that so many readers share, at most 64.
    pub fn of_readers(readers: usize) -> Self {
        Gauges {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            lag_files: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(u64::MAX >> (64 - readers)),
            partitions: Mutex::default(),
            last_error: Mutex::default(),
            waits_for: Mutex::default(),
            stalled: AtomicU64::new(0),
        }
    }

    /// Whether all is handed over that can be: a reader that waits for schemas for long keeps nobody waiting.
    pub fn exhausted(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0 || self.stalled.load(Ordering::Acquire) > 0
    }

    /// Of a feed with one reader.
    pub fn set_exhausted(&self, exhausted: bool) {
        self.set_reader_exhausted(0, exhausted);
    }

    pub fn set_reader_exhausted(&self, reader: usize, exhausted: bool) {
        let bit = 1 << reader;
        match exhausted {
            true => self.busy.fetch_and(!bit, Ordering::Release),
            false => self.busy.fetch_or(bit, Ordering::Release),
        };
    }

    pub fn partitions(&self) -> Vec<PartitionLag> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.values().flatten().cloned().collect()
    }

    pub fn set_partitions(&self, reader: usize, lags: Vec<PartitionLag>) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.insert(reader, lags);
    }

    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub fn clear_error(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why the feed cannot go on now, or not with all of it, if that is so.
    pub fn waits_for(&self) -> Option<String> {
        let waits = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        waits.values().next().map(|(cause, _)| cause.clone())
    }

    /// Whether it is so for good, as far as can be told.
    pub fn waits_lastingly(&self) -> bool {
        let waits = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        waits.values().any(|(_, lasts)| *lasts <= Instant::now())
    }

    /// Why somebody cannot go on, and from when on that counts as lasting.
    pub fn set_waits_for(&self, waiter: Waiter, cause: Option<(String, Instant)>) {
        let mut waits = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        match cause {
            Some(cause) => waits.insert(waiter, cause),
            None => waits.remove(&waiter),
        };
    }

    pub fn set_lag(&self, files: u64, bytes: u64) {
        self.lag_files.store(files, Ordering::Relaxed);
        self.lag_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// One feed's way to the workers. Cheap to clone: every thread of the feed has one.
#[derive(Clone)]
pub(crate) struct Hand {
    pub dataflow: Arc<Dataflow>,
    pub input: usize,
    pub feed: usize,
    pub outlets: Arc<[Outlet]>,
    /// Never carries anything; disconnected when readers are to stop.
    pub stop: Receiver<Infallible>,
    pub gauges: Arc<Gauges>,
    /// Where deliveries wait until their source's transactions are whole; none: they go to workers at once.
    pub line: Option<Line>,
    pub limits: BatchLimits,
    /// How long all retries take: what keeps a reader waiting for longer counts as lasting.
    pub patience: Duration,
    /// Shared by all feeds of the process.
    pub room: Arc<Passage>,
    pub share: Share,
}

impl Hand {
    pub fn input(&self) -> &Input {
        &self.dataflow.inputs[self.input]
    }

    pub fn feed(&self) -> &Feed {
        &self.input().feeds[self.feed]
    }

    /// `input.feed`, for messages.
    pub fn name(&self) -> String {
        format!("{}.{}", self.input().name, self.feed().name)
    }

    /// The positions of this feed's partitions, by partition.
    pub fn positions<'a>(&self, resume: &'a Progress) -> impl Iterator<Item = (&'a str, &'a Position)> {
        let (input, feed) = (self.input().name.clone(), self.feed().name.clone());
        resume
            .iter()
            .filter(move |(id, _)| id.input == input && id.feed == feed)
            .map(|(id, position)| (id.partition.as_str(), position))
    }

    /// Decodes a batch and hands it over. Says how many of its records held nothing.
    pub fn deliver(
        &self,
        decode: &mut Decode,
        partition: &Arc<str>,
        mut raw: Raw,
        position: Position,
        arrived: Instant,
    ) -> Result<u64, Ended> {
        raw.place.partition = Some(partition.clone());
        let (records, bytes) = (raw.len() as u64, payload_bytes(&raw));
        // What waits for its transaction to be whole is bounded by who keeps it.
        let room = match self.line {
            None => Some(self.room.reserve(bytes, &self.stop)?),
            Some(_) => None,
        };
        let decoded = self.decode(decode, partition, raw)?;
        let blank = blank_rows(&decoded.ignored_fields);
        self.send(partition, (decoded, room), position, arrived)?;
        self.gauges.records.fetch_add(records, Ordering::Relaxed);
        self.gauges.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(blank)
    }

    /// Decodes a batch. While its schemas cannot be had the feed waits and tells: by (3) until it is asked to stop.
    fn decode(&self, decode: &mut Decode, partition: &Arc<str>, raw: Raw) -> Result<Decoded, Ended> {
        let mut held = match decode(raw) {
            Ok(decoded) => return Ok(decoded),
            Err(Held::Unread(error)) => return Err(Ended::Unread(error)),
            Err(held) => held,
        };
        if let Some(line) = &self.line {
            line.behind(self, partition)?;
        }
        let waiter = Waiter::Schemas(partition.clone());
        let lasts = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(500);
        let decoded = loop {
            let Held::Waiting(waiting) = held else {
                let _ = self.stop.recv();
                return Err(Ended::Stopped);
            };
            tracing::warn!(
                feed = self.name(),
                error = &*waiting as &dyn std::error::Error,
                "feed waits for schemas"
            );
            self.gauges.set_error(waiting.to_string());
            self.gauges
                .set_waits_for(waiter.clone(), Some((waiting.to_string(), lasts)));
            self.sleep_for_schemas(pause, lasts)?;
            pause = (pause * 2).min(Duration::from_secs(10));
            match decode(waiting.raw) {
                Ok(decoded) => break decoded,
                Err(still) => held = still,
            }
        };
        tracing::info!(feed = self.name(), "feed has its schemas, and goes on");
        self.gauges.set_waits_for(waiter, None);
        self.gauges.clear_error();
        Ok(decoded)
    }

    /// Whoever waits for the feed to be exhausted waits no more for this reader where it waits for long, and none of the
    /// others hands anything over meanwhile.
    fn sleep_for_schemas(&self, pause: Duration, lasts: Instant) -> Result<(), Ended> {
        let records = || self.gauges.records.load(Ordering::Relaxed);
        let before = records();
        self.sleep(pause)?;
        if lasts <= Instant::now() && records() == before {
            self.gauges.stalled.fetch_add(1, Ordering::Release);
            let woken = self.sleep(pause);
            self.gauges.stalled.fetch_sub(1, Ordering::Release);
            woken?;
        }
        Ok(())
    }

    /// Hands over progress alone, or that a file as a whole cannot be used and why.
    pub fn conclude(
        &self,
        partition: &Arc<str>,
        position: Position,
        rejection: Option<String>,
        arrived: Instant,
    ) -> Result<(), Ended> {
        if let Some(reason) = &rejection {
            tracing::warn!(
                feed = self.name(),
                partition = &**partition,
                reason,
                "file to the dead letters"
            );
            self.gauges.set_error(reason.clone());
        }
        self.send(partition, (nothing(self.input(), rejection), None), position, arrived)
    }

    fn send(
        &self,
        partition: &Arc<str>,
        (decoded, room): (Decoded, Option<Reserved>),
        position: Position,
        arrived: Instant,
    ) -> Result<(), Ended> {
        let delivery = Delivery {
            input: self.input,
            feed: self.feed,
            partition: partition.clone(),
            decoded,
            position,
            arrived,
            epoch: None,
            room,
        };
        if let Some(line) = &self.line {
            return line.keep(self, delivery);
        }
        let worker = self.worker(partition);
        let outlet = &self.outlets[worker];
        // By (3), and stop first: a worker that drains to its end must not be fed for ever.
        select_biased! {
            recv(self.stop) -> _ => return Err(Ended::Stopped),
            send(outlet.sender, delivery) -> sent => {
                if sent.is_err() {
                    return Err(SourceError::Disconnected { feed: self.name(), worker }.into());
                }
            }
        }
        (outlet.wake)();
        Ok(())
    }

    /// The worker of a partition, by (1); one of this process's.
    pub fn worker(&self, partition: &str) -> usize {
        self.worker_of(self.input, self.feed, partition)
    }

    /// The same of another feed's partition.
    pub fn worker_of(&self, input: usize, feed: usize, partition: &str) -> usize {
        let (_, number) = self.share.of(&self.dataflow.inputs[input], feed, partition);
        (number % self.outlets.len() as u64) as usize
    }

    /// Whether a delivery of a partition would not have to wait.
    pub fn has_room(&self, partition: &str) -> bool {
        !self.outlets[self.worker(partition)].sender.is_full() && self.room.is_free()
    }

    /// Whether a partition is read by this process.
    pub fn reads(&self, partition: &str) -> bool {
        self.share.holds(self.input(), self.feed, partition)
    }

    /// Waits, unless readers are to stop.
    pub fn sleep(&self, duration: Duration) -> Result<(), Ended> {
        match self.stop.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Ended::Stopped),
        }
    }

    /// Whether readers are to stop; for loops that neither send nor wait.
    pub fn check(&self) -> Result<(), Ended> {
        match self.stop.try_recv() {
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(()),
            _ => Err(Ended::Stopped),
        }
    }
}
