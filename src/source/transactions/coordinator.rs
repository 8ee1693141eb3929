//! The coordinator's thread, which buffers deliveries: it gets readers' messages, asks the queue, and hands over to
//! workers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select_biased;

use super::handle::{CoordinatorInbox, DELIVERIES, FeedPartition, ReaderMessage};
use super::marker::{self, Marker};
use super::queue::{AbandonedTransaction, FeedTopic, Release, Segment, TransactionId, TransactionQueue};
use super::together::{EpochShare, OpenEpoch, OpenEpochDeliveries};
use crate::decode::Decoded;
use crate::definition::split_partition;
use crate::repr::{Epoch, Position};
use crate::source::batch::{nothing, payload_bytes};
use crate::source::error::ReaderExit;
use crate::source::feed_handle::{FeedHandle, Gauges, Waiter};
use crate::source::{Delivery, SourceError};

/// The longest pause between two checks of what waits.
const LOOK: Duration = Duration::from_millis(100);
/// The least interval between two questions to readers for the ends of their partitions.
const ASK: Duration = Duration::from_millis(500);
/// For how long a transaction must be overdue before it is reported.
const OVERDUE: Duration = Duration::from_secs(5);
/// For how long the other feeds are read on after one became unreadable.
const STUCK: Duration = Duration::from_secs(10);
/// How often to check whether the next epoch is open.
const ROOM: Duration = Duration::from_millis(1);
/// How many transactions a message names.
const NAMED: usize = 3;

/// The feeds of one source, and the state they share.
pub struct SourceFeeds {
    pub queue: TransactionQueue,
    /// The topic with the markers BEGIN and END.
    pub topic: String,
    /// Inputs and feeds by index, in the order of the queue's numbers.
    pub feeds: Vec<(usize, usize)>,
    /// How many readers have not found their partitions yet, including that of the transaction topic.
    pub readers: usize,
    /// The gauges of each feed, and its number of readers.
    pub gauges: Vec<(Arc<Gauges>, usize)>,
    /// Whether to end once everything is handed over that existed when partitions were found.
    pub stop_at_end: bool,
    pub together: Arc<OpenEpochDeliveries>,
    pub open: OpenEpoch,
}

/// Coordinates a group of feeds until readers are to stop or, if the run ends at the end of its data, until all is
/// handed over. `handle` belongs to the feed under whose name the transaction topic's progress is stored.
pub fn run(handle: FeedHandle, group: SourceFeeds, end: CoordinatorInbox) -> Result<(), ReaderExit> {
    TransactionCoordinator {
        handle,
        group,
        end,
        partitions: Vec::new(),
        places: HashMap::new(),
        markers: VecDeque::new(),
        marker_place: None,
        at_end: HashSet::new(),
        caught: HashSet::new(),
        owed: 0,
        overdue: None,
        asked: None,
        holding: None,
        given: EpochShare::default(),
        away: Duration::ZERO,
        stuck: None,
    }
    .keep()
}

struct TransactionCoordinator {
    handle: FeedHandle,
    group: SourceFeeds,
    end: CoordinatorInbox,
    /// The partitions, in the order of the queue's numbers.
    partitions: Vec<Partition>,
    places: HashMap<FeedPartition, usize>,
    /// For each waiting marker, the position behind it.
    markers: VecDeque<Position>,
    marker_place: Option<FeedPartition>,
    /// Partitions that are read to their ends, including that of the transaction topic.
    at_end: HashSet<FeedPartition>,
    /// Partitions that have delivered everything that existed when they were found.
    caught: HashSet<FeedPartition>,
    /// How many of the waiting markers existed when the transaction topic was found.
    owed: usize,
    /// The overdue transaction, since when it is overdue, and whether it was reported.
    overdue: Option<(TransactionId, Instant, bool)>,
    /// When readers were last asked for ends.
    asked: Option<Instant>,
    /// The epoch held for a transaction that is streamed.
    holding: Option<Epoch>,
    /// What the newest epoch was given so far.
    given: EpochShare,
    /// By (6), how long this thread spent in hand-overs.
    away: Duration,
    /// Since when a feed has been unreadable.
    stuck: Option<Instant>,
}

/// The waiting records of a partition.
struct Partition {
    place: FeedPartition,
    deliveries: VecDeque<Delivery>,
    /// If no snapshot knows the partition: the end offset when it was found.
    old: u64,
}

impl TransactionCoordinator {
    fn keep(mut self) -> Result<(), ReaderExit> {
        loop {
            let heard = self.listen()?;
            if self.group.stop_at_end && self.is_stuck() {
                // Everything received before has been released as far as possible. The time limit is needed because
                // the other feeds may never pause.
                let since = *self.stuck.get_or_insert_with(Instant::now);
                if !heard || since.elapsed() >= STUCK {
                    return self.leave();
                }
            }
            // Readers get this signal even before all of them have found their partitions.
            self.mark_full();
            if self.group.readers > 0 {
                continue;
            }
            while let Some(release) = self.group.queue.next_release(self.now()) {
                self.report_given_up(&release.given_up);
                self.release(release)?;
            }
            self.release_progress()?;
            self.mark_full();
            self.ask();
            self.report_overdue();
            let exhausted = self.is_exhausted();
            let ends = exhausted && self.group.stop_at_end;
            if ends {
                self.report_open();
            }
            self.set_exhausted(exhausted);
            if ends {
                return Ok(());
            }
        }
    }

    fn set_exhausted(&self, exhausted: bool) {
        for (gauges, readers) in &self.group.gauges {
            (0..*readers).for_each(|reader| gauges.set_reader_exhausted(reader, exhausted));
        }
    }

    /// Whether a feed of the group has a lasting fault.
    fn is_stuck(&self) -> bool {
        self.group.gauges.iter().any(|(gauges, _)| gauges.waits_lastingly())
    }

    /// Leaves what waits for an unreadable feed to the next run; everything that does not depend on it was released.
    fn leave(&self) -> Result<(), ReaderExit> {
        if self.holding.is_some() {
            return Err(self.cut());
        }
        self.set_exhausted(true);
        Ok(())
    }

    /// The error by (5).
    fn cut(&self) -> ReaderExit {
        let topic = self.group.topic.clone();
        SourceError::TransactionCut { topic }.into()
    }

    /// Whether everything was handed over that has an END; by (7).
    fn is_exhausted(&self) -> bool {
        let all = self.places.len() + usize::from(self.marker_place.is_some());
        let is_at_end = self.end.messages.is_empty() && self.at_end.len() == all && self.group.queue.markers() == 0;
        let is_caught = self.group.stop_at_end && self.caught.len() == all && self.owed == 0;
        self.holding.is_none() && (is_at_end || is_caught)
    }

    /// The time without hand-overs, by (6).
    fn now(&self) -> Instant {
        Instant::now() - self.away
    }

    /// Processes readers' messages; returns false if none came within a pause.
    fn listen(&mut self) -> Result<bool, ReaderExit> {
        let pause = match self.group.queue.waits() || self.group.stop_at_end {
            true => LOOK,
            false => Duration::from_secs(3600),
        };
        let first = select_biased! {
            recv(self.handle.stop) -> _ => {
                return Err(match self.holding {
                    None => ReaderExit::Stopped,
                    Some(_) => self.cut(),
                });
            }
            recv(self.end.messages) -> message => message.map_err(|_| ReaderExit::Stopped)?,
            default(pause) => return Ok(false),
        };
        self.observe(first);
        for _ in 0..DELIVERIES {
            match self.end.messages.try_recv() {
                Ok(message) => self.observe(message),
                Err(_) => break,
            }
        }
        Ok(true)
    }

    fn observe(&mut self, message: ReaderMessage) {
        match message {
            ReaderMessage::Found => self.group.readers -= 1,
            ReaderMessage::Partition(place) => {
                if self.is_marker(&place.partition) {
                    self.marker_place = Some(place);
                } else if !self.places.contains_key(&place) {
                    let feed = (place.input, place.feed);
                    let feed = self.group.feeds.iter().position(|other| *other == feed);
                    let topic = FeedTopic {
                        feed: feed.expect("feeds of the group have its line"),
                        name: topic_of(&place.partition).to_string(),
                    };
                    self.places.insert(place.clone(), self.group.queue.add_partition(topic));
                    self.partitions.push(Partition {
                        place,
                        deliveries: VecDeque::new(),
                        old: 0,
                    });
                }
            }
            ReaderMessage::Opened(place, opened) => match self.number(&place) {
                None => self.group.queue.observe_first_marker(opened.from == 0),
                Some(number) if !opened.known => self.partitions[number].old = opened.end,
                Some(_) => {}
            },
            ReaderMessage::AtEnd(place) => {
                self.at_end.insert(place);
            }
            ReaderMessage::Behind(place) => {
                self.at_end.remove(&place);
            }
            ReaderMessage::Caught(place) => {
                if self.number(&place).is_none() {
                    self.owed = self.markers.len();
                }
                self.caught.insert(place);
            }
            ReaderMessage::Look(place, look) => match self.number(&place) {
                None => self.group.queue.observe_look_at_markers(look),
                Some(number) => self.group.queue.observe_look(number, look),
            },
            ReaderMessage::Delivery(delivery) => self.observe_delivery(*delivery),
        }
    }

    /// A partition's number in the queue; none for the transaction topic.
    fn number(&self, place: &FeedPartition) -> Option<usize> {
        match self.is_marker(&place.partition) {
            true => None,
            false => Some(self.places[place]),
        }
    }

    fn is_marker(&self, partition: &str) -> bool {
        topic_of(partition) == self.group.topic
    }

    fn observe_delivery(&mut self, delivery: Delivery) {
        let place = FeedPartition {
            input: delivery.input,
            feed: delivery.feed,
            partition: delivery.partition.clone(),
        };
        let now = self.now();
        if !delivery.decoded.raw.is_empty() {
            self.at_end.remove(&place);
        }
        if self.is_marker(&delivery.partition) {
            return self.observe_markers(&delivery, now);
        }
        let number = self.places[&place];
        let segments = segments(&delivery.decoded, self.partitions[number].old);
        self.group.queue.observe_records(number, segments, now);
        self.partitions[number].deliveries.push_back(delivery);
    }

    fn observe_markers(&mut self, delivery: &Delivery, now: Instant) {
        let behind = |record: usize| Position::at(delivery.decoded.raw.offsets[record] + 1);
        let mut next = 0;
        let records = delivery.decoded.raw.len();
        for (record, marker) in marker::markers(&delivery.decoded) {
            // A marker that could not be decoded counts as one that ends nothing.
            (next..record).for_each(|_| self.group.queue.observe_marker());
            next = record + 1;
            match marker {
                Marker::End { id, tables } => self.group.queue.observe_end(&id, &tables, now),
                Marker::Begin(id) => self.group.queue.observe_begin(&id),
                Marker::Other => self.group.queue.observe_marker(),
            }
        }
        (next..records).for_each(|_| self.group.queue.observe_marker());
        self.markers.extend((0..records).map(behind));
        match self.markers.back_mut() {
            Some(last) => *last = delivery.position.clone(),
            // Progress without records, with no marker before it that waits.
            None => {
                self.group.queue.observe_marker();
                self.markers.push_back(delivery.position.clone());
            }
        }
    }

    /// Reports transactions that were given up.
    fn report_given_up(&self, given_up: &[AbandonedTransaction]) {
        if given_up.is_empty() {
            return;
        }
        self.warn(format!(
            "{} transactions of {} lack events after the wait, and go on without them: {}",
            given_up.len(),
            self.group.topic,
            names(given_up)
        ));
    }

    /// Reports a transaction that has waited for longer than `wait`, because what it lacks may still come.
    fn report_overdue(&mut self) {
        let Some(overdue) = self.group.queue.overdue() else {
            if let Some((.., true)) = self.overdue.take() {
                self.group.gauges.iter().for_each(|(gauges, _)| gauges.clear_error());
            }
            return;
        };
        match &mut self.overdue {
            Some((id, since, named)) if *id == overdue.id => {
                if !*named && since.elapsed() >= OVERDUE {
                    *named = true;
                    self.warn(format!(
                        "a transaction of {} lacks events after the wait, and waits for partitions that are not read to \
                         their ends, or for its END: {}",
                        self.group.topic,
                        names(&[overdue])
                    ));
                }
            }
            other => *other = Some((overdue.id, Instant::now(), false)),
        }
    }

    /// Reports transactions that have no END although all is read. They are not lost: the next run reads them again.
    fn report_open(&self) {
        let open = self.group.queue.open();
        if open.is_empty() {
            return;
        }
        let (topic, transactions) = (&self.group.topic, names(&open));
        if self.marker_place.is_some() {
            self.warn(format!(
                "{} transactions have no END in {topic} yet, and are left to the next run: {transactions}",
                open.len(),
            ));
            return;
        }
        let cause = format!(
            "transaction topic {topic} does not exist, and these wait for it: {transactions}; correct transactions.topic, or \
             have the connector write it (provide.transaction.metadata)"
        );
        tracing::warn!("{cause}");
        for (gauges, _) in &self.group.gauges {
            gauges.set_waits_for(Waiter::Coordinator, Some((cause.clone(), Instant::now())));
        }
    }

    fn warn(&self, text: String) {
        tracing::warn!("{text}");
        let gauges = self.group.gauges.iter();
        gauges.for_each(|(gauges, _)| gauges.set_error(text.clone()));
    }

    /// Asks readers for the ends of their partitions, if that decides something.
    fn ask(&mut self) {
        if self.group.queue.asks() && self.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            self.asked = Some(Instant::now());
            self.end.signals().asked = Some(self.now());
        }
    }

    /// Hands a release over to the workers, all in one epoch.
    fn release(&mut self, release: Release) -> Result<(), ReaderExit> {
        let mut deliveries = Vec::new();
        for (number, records) in release.records {
            self.partitions[number].take_records(records, &mut deliveries);
        }
        if release.markers > 0 {
            self.owed = self.owed.saturating_sub(release.markers);
            let behind = self.markers.drain(..release.markers).next_back();
            deliveries.extend(behind.map(|position| self.progress_of_markers(position)));
        }
        self.hand_over(deliveries, release.continues)
    }

    /// Hands over progress without records, of partitions in which nothing waits before it.
    fn release_progress(&mut self) -> Result<(), ReaderExit> {
        let mut deliveries = Vec::new();
        // By (5), a hand-over now would end the hold for the transaction that is streamed.
        if self.holding.is_none() {
            self.partitions
                .iter_mut()
                .for_each(|partition| partition.take_records(0, &mut deliveries));
        }
        match deliveries.is_empty() {
            true => Ok(()),
            false => self.hand_over(deliveries, false),
        }
    }

    fn progress_of_markers(&self, position: Position) -> Delivery {
        Delivery {
            input: self.handle.input,
            feed: self.handle.feed,
            partition: self
                .marker_place
                .as_ref()
                .expect("markers come of a partition")
                .partition
                .clone(),
            decoded: nothing(self.handle.input(), None),
            position,
            arrived: Instant::now(),
            epoch: None,
            room: None,
        }
    }

    /// Hands deliveries over to the workers, by (2), (5) and (8).
    fn hand_over(&mut self, deliveries: Vec<Delivery>, continues: bool) -> Result<(), ReaderExit> {
        let begun = Instant::now();
        let own_hold = usize::from(continues && self.holding.is_none());
        let epoch = match self.holding {
            Some(epoch) => {
                // The held epoch is still open: the hold counts as one of the deliveries for which it waits.
                self.group.together.add(deliveries.len());
                epoch
            }
            None => {
                let roomy = self.given.roomy(&self.group.open);
                loop {
                    match self.group.together.begin(deliveries.len() + own_hold, &roomy) {
                        Some(epoch) => break epoch,
                        None => self.handle.sleep(ROOM)?,
                    }
                }
            }
        };
        let records = deliveries
            .iter()
            .map(|delivery| delivery.decoded.raw.len() as u64)
            .sum();
        self.given.observe(epoch, records);
        if own_hold > 0 {
            self.group.together.observe_held(true);
        }
        for delivery in deliveries {
            let worker = self
                .handle
                .worker_of(delivery.input, delivery.feed, &delivery.partition);
            let channel = &self.handle.channels[worker];
            let together = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            if channel.together.send(together).is_err() {
                return Err(SourceError::Disconnected {
                    feed: self.handle.name(),
                    worker,
                }
                .into());
            }
            (channel.wake)();
        }
        if continues {
            self.holding = Some(epoch);
        } else if self.holding.take().is_some() {
            self.group.together.observe_held(false);
            self.group.together.end_one();
        }
        self.away += begun.elapsed();
        Ok(())
    }

    /// Signals the full partitions to their readers, by (4).
    fn mark_full(&self) {
        let mut signals = self.end.signals();
        signals.full.clear();
        let over = self.partitions.iter().enumerate();
        let over = over.filter(|(number, _)| self.group.queue.is_full(*number));
        signals.full.extend(over.map(|(_, partition)| partition.place.clone()));
        let markers = self.marker_place.iter().filter(|_| self.group.queue.are_markers_full());
        signals.full.extend(markers.cloned());
    }
}

/// The text that describes some transactions.
fn names(transactions: &[AbandonedTransaction]) -> String {
    let of_topic = |(topic, seen, of): &(String, u64, Option<u64>)| match of {
        Some(of) => format!("{topic} {seen} of {of}"),
        None => format!("{topic} {seen}, without an END"),
    };
    let named = transactions.iter().take(NAMED).map(|transaction| {
        let topics: Vec<String> = transaction.topics.iter().map(of_topic).collect();
        format!("{} ({})", transaction.id, topics.join(", "))
    });
    named.collect::<Vec<_>>().join("; ")
}

impl Partition {
    /// Takes the first `records` records, and progress without records behind them.
    fn take_records(&mut self, records: usize, taken: &mut Vec<Delivery>) {
        let mut left = records;
        while let Some(first) = self.deliveries.front_mut() {
            let has = first.decoded.raw.len();
            if has <= left {
                left -= has;
                taken.extend(self.deliveries.pop_front());
                continue;
            }
            if left > 0 {
                let decoded = first.decoded.split_front(left);
                let last = *decoded.raw.offsets.last().expect("it has records");
                taken.push(Delivery {
                    decoded,
                    partition: first.partition.clone(),
                    position: Position::at(last + 1),
                    room: None,
                    ..*first
                });
            }
            return;
        }
    }
}

/// The topic of a partition.
fn topic_of(partition: &str) -> &str {
    split_partition(partition).map_or(partition, |(topic, _)| topic)
}

/// Cuts a delivery's records into segments by transaction. Records before offset `old` existed when the partition was
/// found.
fn segments(decoded: &Decoded, old: u64) -> Vec<Segment> {
    let bytes = payload_bytes(&decoded.raw) as usize / decoded.raw.len().max(1);
    let mut segments: Vec<Segment> = Vec::new();
    // The newest record's id, and the transaction that it names.
    let mut newest: Option<(TransactionId, TransactionId)> = None;
    let mut marks = decoded.transactions.iter().peekable();
    for record in 0..decoded.raw.len() as u32 {
        let mark = marks.next_if(|mark| mark.record == record);
        let order = mark.map_or(0, |mark| mark.total_order);
        let is_old = decoded.raw.offsets[record as usize] < old;
        let id = mark.map(|mark| match &newest {
            Some((id, transaction)) if *id == mark.id => transaction.clone(),
            _ => {
                let name = marker::transaction_of(&mark.id);
                let before = newest.take().map(|(_, transaction)| transaction);
                let transaction = before.filter(|before| **before == *name).unwrap_or_else(|| name.into());
                newest.insert((mark.id.clone(), transaction)).1.clone()
            }
        });
        match segments.last_mut() {
            Some(last) if last.id == id && last.old == is_old && (id.is_none() || order > last.orders.1) => {
                last.records += 1;
                last.bytes += bytes;
                last.orders.1 = order;
            }
            _ => segments.push(Segment {
                id,
                records: 1,
                bytes,
                orders: (order, order),
                old: is_old,
            }),
        }
    }
    segments
}
