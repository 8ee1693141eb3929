//! The thread that keeps what waits: it hears readers, asks the gate, and hands over to workers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select_biased;

use super::gate::{Gate, GivenUp, Id, Release, Segment, Topic};
use super::line::{DELIVERIES, KeeperEnd, Message, Place};
use super::marker::{self, Marker};
use super::together::{Given, OpenEpoch, Together};
use crate::decode::Decoded;
use crate::definition::split_partition;
use crate::repr::Epoch;
use crate::source::batch::{nothing, payload_bytes};
use crate::source::outlet::{Ended, Gauges, Hand, Waiter};
use crate::source::{Delivery, Position, SourceError};

/// The longest pause between two looks at what waits.
const LOOK: Duration = Duration::from_millis(100);
/// The shortest pause between two questions where partitions end.
const ASK: Duration = Duration::from_millis(500);
/// How long a transaction is overdue until it is named.
const OVERDUE: Duration = Duration::from_secs(5);
/// How long the others are read on once a feed cannot be.
const STUCK: Duration = Duration::from_secs(10);
/// Between two looks whether the next epoch is open.
const ROOM: Duration = Duration::from_millis(1);
/// Transactions that are named at once.
const NAMED: usize = 3;

/// Feeds of one source.
pub struct Group {
    pub gate: Gate,
    /// The topic of BEGIN and END.
    pub topic: String,
    /// Inputs and feeds, by number at the gate.
    pub feeds: Vec<(usize, usize)>,
    /// Readers that have not found their partitions yet, that of the transaction topic among them.
    pub readers: usize,
    /// Of each feed, and how many readers it has.
    pub gauges: Vec<(Arc<Gauges>, usize)>,
    /// Ends once what is there when partitions are found has gone on.
    pub stop_at_end: bool,
    pub together: Arc<Together>,
    pub open: OpenEpoch,
}

/// Keeps the records of a group of feeds, until readers are to stop, or all is handed over and that is wanted. `hand` is
/// that of the feed under whose name the progress of the transaction topic is kept.
pub fn keep(hand: Hand, group: Group, end: KeeperEnd) -> Result<(), Ended> {
    Keeper {
        hand,
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
        given: Given::default(),
        away: Duration::ZERO,
        stuck: None,
    }
    .keep()
}

struct Keeper {
    hand: Hand,
    group: Group,
    end: KeeperEnd,
    /// By number at the gate.
    partitions: Vec<Partition>,
    places: HashMap<Place, usize>,
    /// Behind each marker that waits, where its partition goes on.
    markers: VecDeque<Position>,
    marker_place: Option<Place>,
    /// Partitions that are read to their ends, that of the markers too.
    at_end: HashSet<Place>,
    /// Partitions of which all is here that was there when they were found.
    caught: HashSet<Place>,
    /// Markers among that which wait.
    owed: usize,
    /// The transaction that is overdue, since when, and whether it was named.
    overdue: Option<(Id, Instant, bool)>,
    /// When readers were asked last.
    asked: Option<Instant>,
    /// The epoch of a transaction that goes on as it comes.
    holding: Option<Epoch>,
    /// What the newest epoch was given.
    given: Given,
    /// By (6), how long releases were handed over.
    away: Duration,
    /// Since when a feed cannot be read.
    stuck: Option<Instant>,
}

/// A partition's records that wait.
struct Partition {
    place: Place,
    deliveries: VecDeque<Delivery>,
    /// Behind the records that were there when it was found, if no snapshot knows it.
    old: u64,
}

impl Keeper {
    fn keep(mut self) -> Result<(), Ended> {
        loop {
            let heard = self.listen()?;
            if self.group.stop_at_end && self.is_stuck() {
                // What was heard before has gone on as far as it could; and a source is never quiet, perhaps.
                let since = *self.stuck.get_or_insert_with(Instant::now);
                if !heard || since.elapsed() >= STUCK {
                    return self.leave();
                }
            }
            // Also before every reader has found its partitions.
            self.mark_full();
            if self.group.readers > 0 {
                continue;
            }
            while let Some(release) = self.group.gate.next_release(self.now()) {
                self.tell(&release.given_up);
                self.release(release)?;
            }
            self.release_progress()?;
            self.mark_full();
            self.ask();
            self.tell_overdue();
            let exhausted = self.is_exhausted();
            let ends = exhausted && self.group.stop_at_end;
            if ends {
                self.tell_open();
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

    /// Whether a feed of the group cannot be read, and that lasts.
    fn is_stuck(&self) -> bool {
        self.group.gauges.iter().any(|(gauges, _)| gauges.waits_lastingly())
    }

    /// Leaves what waits for a feed that cannot be read to the next run: what could go on without it has gone on.
    fn leave(&self) -> Result<(), Ended> {
        if self.holding.is_some() {
            return Err(self.cut());
        }
        self.set_exhausted(true);
        Ok(())
    }

    /// By (5).
    fn cut(&self) -> Ended {
        let topic = self.group.topic.clone();
        SourceError::TransactionCut { topic }.into()
    }

    /// Whether all that exists was handed over, as far as it has an END; by (7).
    fn is_exhausted(&self) -> bool {
        let all = self.places.len() + usize::from(self.marker_place.is_some());
        let is_at_end = self.end.messages.is_empty() && self.at_end.len() == all && self.group.gate.markers() == 0;
        let is_caught = self.group.stop_at_end && self.caught.len() == all && self.owed == 0;
        self.holding.is_none() && (is_at_end || is_caught)
    }

    /// The time by (6).
    fn now(&self) -> Instant {
        Instant::now() - self.away
    }

    /// Takes what readers say, if they say something within a while.
    fn listen(&mut self) -> Result<bool, Ended> {
        let pause = match self.group.gate.waits() || self.group.stop_at_end {
            true => LOOK,
            false => Duration::from_secs(3600),
        };
        let first = select_biased! {
            recv(self.hand.stop) -> _ => {
                return Err(match self.holding {
                    None => Ended::Stopped,
                    Some(_) => self.cut(),
                });
            }
            recv(self.end.messages) -> message => message.map_err(|_| Ended::Stopped)?,
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

    fn observe(&mut self, message: Message) {
        match message {
            Message::Found => self.group.readers -= 1,
            Message::Partition(place) => {
                if self.is_marker(&place.partition) {
                    self.marker_place = Some(place);
                } else if !self.places.contains_key(&place) {
                    let feed = (place.input, place.feed);
                    let feed = self.group.feeds.iter().position(|other| *other == feed);
                    let topic = Topic {
                        feed: feed.expect("feeds of the group have its line"),
                        name: topic_of(&place.partition).to_string(),
                    };
                    self.places.insert(place.clone(), self.group.gate.add_partition(topic));
                    self.partitions.push(Partition {
                        place,
                        deliveries: VecDeque::new(),
                        old: 0,
                    });
                }
            }
            Message::Opened(place, opened) => match self.number(&place) {
                None => self.group.gate.observe_first_marker(opened.from == 0),
                Some(number) if !opened.known => self.partitions[number].old = opened.end,
                Some(_) => {}
            },
            Message::AtEnd(place) => {
                self.at_end.insert(place);
            }
            Message::Behind(place) => {
                self.at_end.remove(&place);
            }
            Message::Caught(place) => {
                if self.number(&place).is_none() {
                    self.owed = self.markers.len();
                }
                self.caught.insert(place);
            }
            Message::Look(place, look) => match self.number(&place) {
                None => self.group.gate.observe_look_at_markers(look),
                Some(number) => self.group.gate.observe_look(number, look),
            },
            Message::Delivery(delivery) => self.observe_delivery(*delivery),
        }
    }

    /// A partition's number at the gate; none: it is that of the markers.
    fn number(&self, place: &Place) -> Option<usize> {
        match self.is_marker(&place.partition) {
            true => None,
            false => Some(self.places[place]),
        }
    }

    fn is_marker(&self, partition: &str) -> bool {
        topic_of(partition) == self.group.topic
    }

    fn observe_delivery(&mut self, delivery: Delivery) {
        let place = Place {
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
        self.group.gate.observe_records(number, segments, now);
        self.partitions[number].deliveries.push_back(delivery);
    }

    fn observe_markers(&mut self, delivery: &Delivery, now: Instant) {
        let behind = |record: usize| Position::at(delivery.decoded.raw.offsets[record] + 1);
        let mut next = 0;
        let records = delivery.decoded.raw.len();
        for (record, marker) in marker::markers(&delivery.decoded) {
            // Markers that could not be read end nothing.
            (next..record).for_each(|_| self.group.gate.observe_marker());
            next = record + 1;
            match marker {
                Marker::End { id, tables } => self.group.gate.observe_end(&id, &tables, now),
                Marker::Begin(id) => self.group.gate.observe_begin(&id),
                Marker::Other => self.group.gate.observe_marker(),
            }
        }
        (next..records).for_each(|_| self.group.gate.observe_marker());
        self.markers.extend((0..records).map(behind));
        match self.markers.back_mut() {
            Some(last) => *last = delivery.position.clone(),
            // Progress alone, and nothing before it waits.
            None => {
                self.group.gate.observe_marker();
                self.markers.push_back(delivery.position.clone());
            }
        }
    }

    /// Names what was given up.
    fn tell(&self, given_up: &[GivenUp]) {
        if given_up.is_empty() {
            return;
        }
        self.trouble(format!(
            "{} transactions of {} lack events after the wait, and go on without them: {}",
            given_up.len(),
            self.group.topic,
            names(given_up)
        ));
    }

    /// Names a transaction that waits for longer than the wait, for what it lacks may still come.
    fn tell_overdue(&mut self) {
        let Some(overdue) = self.group.gate.overdue() else {
            if let Some((.., true)) = self.overdue.take() {
                self.group.gauges.iter().for_each(|(gauges, _)| gauges.clear_error());
            }
            return;
        };
        match &mut self.overdue {
            Some((id, since, named)) if *id == overdue.id => {
                if !*named && since.elapsed() >= OVERDUE {
                    *named = true;
                    self.trouble(format!(
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

    /// Names what has no END as all is read. It is not lost: it is read again by the next run.
    fn tell_open(&self) {
        let open = self.group.gate.open();
        if open.is_empty() {
            return;
        }
        let (topic, transactions) = (&self.group.topic, names(&open));
        if self.marker_place.is_some() {
            self.trouble(format!(
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
            gauges.set_waits_for(Waiter::Keeper, Some((cause.clone(), Instant::now())));
        }
    }

    fn trouble(&self, text: String) {
        tracing::warn!("{text}");
        let gauges = self.group.gauges.iter();
        gauges.for_each(|(gauges, _)| gauges.set_error(text.clone()));
    }

    /// Asks readers where partitions end, where that decides something.
    fn ask(&mut self) {
        if self.group.gate.asks() && self.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            self.asked = Some(Instant::now());
            self.end.said().asked = Some(self.now());
        }
    }

    /// Hands a release over to the workers, in one epoch.
    fn release(&mut self, release: Release) -> Result<(), Ended> {
        let mut deliveries = Vec::new();
        for (number, records) in release.records {
            self.partitions[number].take(records, &mut deliveries);
        }
        if release.markers > 0 {
            self.owed = self.owed.saturating_sub(release.markers);
            let behind = self.markers.drain(..release.markers).next_back();
            deliveries.extend(behind.map(|position| self.progress_of_markers(position)));
        }
        self.hand_over(deliveries, release.continues)
    }

    /// Progress alone of partitions in which nothing waits before it.
    fn release_progress(&mut self) -> Result<(), Ended> {
        let mut deliveries = Vec::new();
        // By (5): what is handed over now would end what goes on as it comes.
        if self.holding.is_none() {
            self.partitions
                .iter_mut()
                .for_each(|partition| partition.take(0, &mut deliveries));
        }
        match deliveries.is_empty() {
            true => Ok(()),
            false => self.hand_over(deliveries, false),
        }
    }

    fn progress_of_markers(&self, position: Position) -> Delivery {
        Delivery {
            input: self.hand.input,
            feed: self.hand.feed,
            partition: self
                .marker_place
                .as_ref()
                .expect("markers come of a partition")
                .partition
                .clone(),
            decoded: nothing(self.hand.input(), None),
            position,
            arrived: Instant::now(),
            epoch: None,
            room: None,
        }
    }

    /// By (2), (5) and (8).
    fn hand_over(&mut self, deliveries: Vec<Delivery>, continues: bool) -> Result<(), Ended> {
        let begun = Instant::now();
        let held = usize::from(continues && self.holding.is_none());
        let epoch = match self.holding {
            Some(epoch) => {
                // It is open still: the one that holds it is among those that are waited for.
                self.group.together.add(deliveries.len());
                epoch
            }
            None => {
                let roomy = self.given.roomy(&self.group.open);
                loop {
                    match self.group.together.begin(deliveries.len() + held, &roomy) {
                        Some(epoch) => break epoch,
                        None => self.hand.sleep(ROOM)?,
                    }
                }
            }
        };
        let records = deliveries
            .iter()
            .map(|delivery| delivery.decoded.raw.len() as u64)
            .sum();
        self.given.observe(epoch, records);
        if held > 0 {
            self.group.together.observe_held(true);
        }
        for delivery in deliveries {
            let worker = self.hand.worker_of(delivery.input, delivery.feed, &delivery.partition);
            let outlet = &self.hand.outlets[worker];
            let together = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            if outlet.together.send(together).is_err() {
                return Err(SourceError::Disconnected {
                    feed: self.hand.name(),
                    worker,
                }
                .into());
            }
            (outlet.wake)();
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

    /// By (4).
    fn mark_full(&self) {
        let mut said = self.end.said();
        said.full.clear();
        let over = self.partitions.iter().enumerate();
        let over = over.filter(|(number, _)| self.group.gate.is_full(*number));
        said.full.extend(over.map(|(_, partition)| partition.place.clone()));
        let markers = self.marker_place.iter().filter(|_| self.group.gate.are_markers_full());
        said.full.extend(markers.cloned());
    }
}

/// Some transactions, and what there is of them.
fn names(transactions: &[GivenUp]) -> String {
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
    /// Takes the first records, and progress alone behind them.
    fn take(&mut self, records: usize, taken: &mut Vec<Delivery>) {
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

/// A delivery's records by transaction; those before offset `old` are old.
fn segments(decoded: &Decoded, old: u64) -> Vec<Segment> {
    let bytes = payload_bytes(&decoded.raw) as usize / decoded.raw.len().max(1);
    let mut segments: Vec<Segment> = Vec::new();
    // The newest id, and its transaction.
    let mut newest: Option<(Id, Id)> = None;
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
