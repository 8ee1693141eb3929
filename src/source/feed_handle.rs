//! How a reader hands over its records: bounded, in order, and interruptible.
//!
//! 1. All deliveries of a partition go to one worker. A hash of the partition's identity chooses it, the same in
//!    every process.
//! 2. While its worker's channel is full, a reader blocks (it does not spin): that is the back-pressure.
//! 3. A request to stop ends every wait of a reader.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select_biased};
use serde::{Deserialize, Serialize};

use super::Delivery;
use super::batch::{BatchLimits, nothing, payload_bytes};
use super::error::{ReaderExit, SourceError};
use super::in_flight::{InFlightBudget, InFlightReservation};
use super::options::{Decode, Undecoded};
use super::share::Share;
use super::transactions::{CoordinatedReader, CoordinatorHandle};
use crate::backoff::Backoff;
use crate::decode::{Decoded, Raw, blank_rows};
use crate::definition::{Dataflow, Feed, Input};
use crate::repr::{FeedPositions, Position};

/// The channels to one worker, and the function that wakes it.
#[derive(Clone)]
pub struct WorkerChannel {
    /// Bounded. The worker drains it unless it already holds as many bytes as it may.
    pub sender: Sender<Delivery>,
    /// Bounded too, for deliveries that must enter one epoch together with others, and only for those. The worker
    /// always drains this channel, because that epoch cannot close before they are in. So such a delivery never waits
    /// behind one that the worker must not take yet.
    pub together: Sender<Delivery>,
    /// Called after a send, so that a parked worker wakes.
    pub wake: Arc<dyn Fn() + Send + Sync>,
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
    /// If the partition lags, the age of the newest record that was read, in milliseconds.
    pub age_ms: Option<u64>,
}

/// The part of a feed that waits for something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    /// A reader of the feed, by number.
    Reader(usize),
    /// The coordinator of transactions of the feed's source.
    Coordinator,
    /// The reader of this partition, which lacks schemas.
    Schemas(Arc<str>),
}

/// A feed's status: its threads write it, and others may read it at any time.
pub(crate) struct Gauges {
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub files_done: AtomicU64,
    pub lag_files: AtomicU64,
    pub lag_bytes: AtomicU64,
    /// Records that retention removed before they were read.
    pub missing: AtomicU64,
    /// Requests that were answered successfully; `refused` counts the others.
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    /// One bit for each reader that has something left to hand over. A reader clears its bit after its last send,
    /// so that an observer who reads 0 finds the deliveries in the channels.
    busy: AtomicU64,
    /// The lag of each reader's partitions, where the kind of feed reports it.
    partitions: Mutex<BTreeMap<usize, Vec<PartitionLag>>>,
    last_error: Mutex<Option<String>>,
    /// For each waiter, why it or a part of it cannot go on now, and the time from which that counts as lasting.
    waits_for: Mutex<BTreeMap<Waiter, (String, Instant)>>,
    /// How many readers have waited for schemas as long as all retries take, while the feed handed over nothing else.
    stalled: AtomicU64,
}

/// The gauges of a feed with one reader that has not listed anything yet.
impl Default for Gauges {
    fn default() -> Self {
        Gauges::of_readers(1)
    }
}

impl Gauges {
    /// The gauges of a feed with this number of readers, at most 64.
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

    /// Whether everything that can be handed over has been. A reader that has waited long for schemas does not
    /// count.
    pub fn exhausted(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0 || self.stalled.load(Ordering::Acquire) > 0
    }

    /// For a feed with one reader.
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

    /// Why the feed, or a part of it, cannot go on now; none if it can.
    pub fn waits_for(&self) -> Option<String> {
        let waits = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        waits.values().next().map(|(cause, _)| cause.clone())
    }

    /// Whether a cause has lasted so long that it counts as lasting.
    pub fn waits_lastingly(&self) -> bool {
        let waits = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        waits.values().any(|(_, lasts)| *lasts <= Instant::now())
    }

    /// Sets or clears why a waiter cannot go on, with the time from which the cause counts as lasting.
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

/// What the threads of a feed share: its definition, the channels to the workers, its gauges. It is cheap to
/// clone, and each thread has a clone.
#[derive(Clone)]
pub(crate) struct FeedHandle {
    pub dataflow: Arc<Dataflow>,
    pub input: usize,
    pub feed: usize,
    pub channels: Arc<[WorkerChannel]>,
    /// Never carries anything; disconnected when readers are to stop.
    pub stop: Receiver<Infallible>,
    pub gauges: Arc<Gauges>,
    /// Where deliveries wait until the transactions of their source are complete; none if they go straight to the
    /// workers.
    pub coordinator: Option<CoordinatorHandle>,
    pub limits: BatchLimits,
    /// How long all retries take together. A wait that is longer counts as lasting.
    pub patience: Duration,
    /// Shared by all feeds of the process.
    pub room: Arc<InFlightBudget>,
    pub share: Share,
}

impl CoordinatedReader for FeedHandle {
    fn feed_index(&self) -> (usize, usize) {
        (self.input, self.feed)
    }

    fn stop(&self) -> &Receiver<Infallible> {
        &self.stop
    }
}

impl FeedHandle {
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
    pub fn positions<'a>(&self, resume: &'a FeedPositions) -> impl Iterator<Item = (&'a str, &'a Position)> {
        let (input, feed) = (self.input().name.clone(), self.feed().name.clone());
        resume
            .iter()
            .filter(move |(id, _)| id.input == input && id.feed == feed)
            .map(|(id, position)| (id.partition.as_str(), position))
    }

    /// Decodes a batch and hands it over. Returns how many of its records were blank.
    pub fn deliver(
        &self,
        decode: &mut Decode,
        partition: &Arc<str>,
        mut raw: Raw,
        position: Position,
        arrived: Instant,
    ) -> Result<u64, ReaderExit> {
        raw.place.partition = Some(partition.clone());
        let (records, bytes) = (raw.len() as u64, payload_bytes(&raw));
        // The coordinator bounds what it buffers until transactions are complete, so no room is reserved here.
        let room = match self.coordinator {
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

    /// Decodes a batch. While schemas are unavailable the feed waits and reports that; by (3) a request to stop
    /// ends the wait.
    fn decode(&self, decode: &mut Decode, partition: &Arc<str>, raw: Raw) -> Result<Decoded, ReaderExit> {
        let mut undecoded = match decode(raw) {
            Ok(decoded) => return Ok(decoded),
            Err(Undecoded::Unread(error)) => return Err(ReaderExit::Unread(error)),
            Err(undecoded) => undecoded,
        };
        if let Some(coordinator) = &self.coordinator {
            coordinator.behind(self, partition)?;
        }
        let waiter = Waiter::Schemas(partition.clone());
        let lasts = Instant::now() + self.patience;
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        let decoded = loop {
            let Undecoded::Waiting(waiting) = undecoded else {
                let _ = self.stop.recv();
                return Err(ReaderExit::Stopped);
            };
            tracing::warn!(
                feed = self.name(),
                error = &*waiting as &dyn std::error::Error,
                "feed waits for schemas"
            );
            self.gauges.set_error(waiting.to_string());
            self.gauges
                .set_waits_for(waiter.clone(), Some((waiting.to_string(), lasts)));
            self.sleep_for_schemas(backoff.pause(), lasts)?;
            match decode(waiting.raw) {
                Ok(decoded) => break decoded,
                Err(still) => undecoded = still,
            }
        };
        tracing::info!(feed = self.name(), "feed has its schemas, and goes on");
        self.gauges.set_waits_for(waiter, None);
        self.gauges.clear_error();
        Ok(decoded)
    }

    /// Sleeps. Once the wait for schemas counts as lasting, and no other reader of the feed handed anything over
    /// meanwhile, the feed counts as exhausted during the sleep.
    fn sleep_for_schemas(&self, pause: Duration, lasts: Instant) -> Result<(), ReaderExit> {
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

    /// Hands over progress alone, or the rejection of a whole file with its reason.
    pub fn conclude(
        &self,
        partition: &Arc<str>,
        position: Position,
        rejection: Option<String>,
        arrived: Instant,
    ) -> Result<(), ReaderExit> {
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
        (decoded, room): (Decoded, Option<InFlightReservation>),
        position: Position,
        arrived: Instant,
    ) -> Result<(), ReaderExit> {
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
        if let Some(coordinator) = &self.coordinator {
            return coordinator.keep(self, delivery);
        }
        let worker = self.worker(partition);
        let channel = &self.channels[worker];
        // By (3). The stop is polled first, because a worker that drains its channel to the end must not be fed
        // forever.
        select_biased! {
            recv(self.stop) -> _ => return Err(ReaderExit::Stopped),
            send(channel.sender, delivery) -> sent => {
                if sent.is_err() {
                    return Err(SourceError::Disconnected { feed: self.name(), worker }.into());
                }
            }
        }
        (channel.wake)();
        Ok(())
    }

    /// The index of a partition's worker in this process, by (1).
    pub fn worker(&self, partition: &str) -> usize {
        self.worker_of(self.input, self.feed, partition)
    }

    /// The same for a partition of another feed.
    pub fn worker_of(&self, input: usize, feed: usize, partition: &str) -> usize {
        let (_, number) = self.share.place(&self.dataflow.inputs[input], feed, partition);
        (number % self.channels.len() as u64) as usize
    }

    /// Whether a delivery of a partition could be sent without blocking.
    pub fn has_room(&self, partition: &str) -> bool {
        !self.channels[self.worker(partition)].sender.is_full() && self.room.is_free()
    }

    /// Whether this process reads a partition.
    pub fn reads(&self, partition: &str) -> bool {
        self.share.holds(self.input(), self.feed, partition)
    }

    /// Sleeps.
    ///
    /// # Errors
    /// [`ReaderExit::Stopped`] if readers are asked to stop meanwhile.
    pub fn sleep(&self, duration: Duration) -> Result<(), ReaderExit> {
        match self.stop.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(ReaderExit::Stopped),
        }
    }

    /// Fails if readers are asked to stop; for loops that neither send nor wait.
    pub fn check(&self) -> Result<(), ReaderExit> {
        match self.stop.try_recv() {
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(()),
            _ => Err(ReaderExit::Stopped),
        }
    }
}
