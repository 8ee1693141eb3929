//! The thread that keeps what waits: it hears readers, asks the gate, and hands over to workers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::select_biased;

use super::gate::{Gate, GivenUp, Id, Release, Segment};
use super::line::{DELIVERIES, KeeperEnd, Message, Place};
use super::marker::{self, Marker};
use super::together::{OpenEpoch, Together};
use crate::decode::Decoded;
use crate::definition::split_partition;
use crate::source::batch::nothing;
use crate::source::outlet::{Ended, Gauges, Hand};
use crate::source::{Delivery, Position, SourceError};

/// The longest pause between two looks at what waits.
const LOOK: Duration = Duration::from_millis(100);
/// Transactions that are named at once.
const NAMED: usize = 3;

/// Feeds of one source.
pub struct Group {
    pub gate: Gate,
    /// The topic of BEGIN and END.
    pub topic: String,
    /// Readers that have not found their partitions yet, that of the transaction topic among them.
    pub readers: usize,
    /// Of each feed, and how many readers it has.
    pub gauges: Vec<(Arc<Gauges>, usize)>,
    pub together: Arc<Together>,
    pub open: OpenEpoch,
}

/// Keeps the records of a group of feeds, until readers are to stop. `hand` is that of the feed under whose name the progress
/// of the transaction topic is kept.
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
        holding: None,
        away: Duration::ZERO,
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
    marker_place: Option<Arc<str>>,
    /// Partitions that are read to their ends, that of the markers too.
    at_end: HashSet<Place>,
    /// The epoch of a transaction that goes on as it comes.
    holding: Option<crate::repr::Epoch>,
    /// By (6), how long releases were handed over.
    away: Duration,
}

/// A partition's records that wait.
struct Partition {
    place: Place,
    deliveries: VecDeque<Delivery>,
}

impl Keeper {
    fn keep(mut self) -> Result<(), Ended> {
        loop {
            self.listen()?;
            if self.group.readers > 0 {
                continue;
            }
            while let Some(release) = self.group.gate.next_release(self.now()) {
                self.tell(&release.given_up);
                self.release(release)?;
            }
            self.release_progress()?;
            self.mark_full();
            let all = self.places.len() + usize::from(self.marker_place.is_some());
            let exhausted = self.end.messages.is_empty() && self.at_end.len() == all;
            for (gauges, readers) in &self.group.gauges {
                (0..*readers).for_each(|reader| gauges.set_reader_exhausted(reader, exhausted));
            }
        }
    }

    /// The time by (6).
    fn now(&self) -> Instant {
        Instant::now() - self.away
    }

    /// Takes what readers say.
    fn listen(&mut self) -> Result<(), Ended> {
        let pause = self.group.gate.deadline().map_or(Duration::from_secs(3600), |_| LOOK);
        let first = select_biased! {
            recv(self.hand.stop) -> _ => {
                return Err(match self.holding {
                    None => Ended::Stopped,
                    Some(_) => SourceError::TransactionCut { topic: self.group.topic.clone() }.into(), // by (5)
                });
            }
            recv(self.end.messages) -> message => message.map_err(|_| Ended::Stopped)?,
            default(pause) => return Ok(()),
        };
        self.observe(first);
        for _ in 0..DELIVERIES {
            match self.end.messages.try_recv() {
                Ok(message) => self.observe(message),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn observe(&mut self, message: Message) {
        match message {
            Message::Found => self.group.readers -= 1,
            Message::Partition(place) => {
                if self.is_marker(&place.partition) {
                    self.marker_place = Some(place.partition);
                } else if !self.places.contains_key(&place) {
                    let number = self.group.gate.add_partition(topic_of(&place.partition));
                    self.places.insert(place.clone(), number);
                    self.partitions.push(Partition {
                        place,
                        deliveries: VecDeque::new(),
                    });
                }
            }
            Message::AtEnd(place) => {
                if self.is_marker(&place.partition) {
                    self.group.gate.observe_markers_at_end();
                } else {
                    self.group.gate.observe_at_end(self.places[&place]);
                }
                self.at_end.insert(place);
            }
            Message::Delivery(delivery) => self.observe_delivery(*delivery),
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
        self.group
            .gate
            .observe_records(number, segments(&delivery.decoded), now);
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
        let of_topic = |(topic, seen, of): &(String, u64, Option<u64>)| match of {
            Some(of) => format!("{topic} {seen} of {of}"),
            None => format!("{topic} {seen}, without an END"),
        };
        let named = given_up.iter().take(NAMED).map(|transaction| {
            let topics: Vec<String> = transaction.topics.iter().map(of_topic).collect();
            format!("{} ({})", transaction.id, topics.join(", "))
        });
        let text = format!(
            "{} transactions of {} lack events after the wait, and go on without them: {}",
            given_up.len(),
            self.group.topic,
            named.collect::<Vec<_>>().join("; ")
        );
        tracing::warn!("{text}");
        self.group
            .gauges
            .iter()
            .for_each(|(gauges, _)| gauges.set_error(text.clone()));
    }

    /// Hands a release over to the workers, in one epoch.
    fn release(&mut self, release: Release) -> Result<(), Ended> {
        let mut deliveries = Vec::new();
        for (number, records) in release.records {
            self.partitions[number].take(records, &mut deliveries);
        }
        if release.markers > 0 {
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
            partition: self.marker_place.clone().expect("markers come of a partition"),
            decoded: nothing(self.hand.input(), None),
            position,
            arrived: Instant::now(),
            epoch: None,
        }
    }

    /// By (2) and (5).
    fn hand_over(&mut self, deliveries: Vec<Delivery>, continues: bool) -> Result<(), Ended> {
        let begun = Instant::now();
        let held = usize::from(continues && self.holding.is_none());
        let epoch = match self.holding {
            Some(epoch) => {
                // It is open still: the one that holds it is among those that are waited for.
                self.group.together.add(deliveries.len());
                epoch
            }
            None => loop {
                match self.group.together.begin(deliveries.len() + held, &self.group.open) {
                    Some(epoch) => break epoch,
                    None => self.hand.sleep(LOOK / 10)?,
                }
            },
        };
        for delivery in deliveries {
            let worker = self.hand.worker_of(delivery.input, delivery.feed, &delivery.partition);
            let outlet = &self.hand.outlets[worker];
            let together = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            if outlet.sender.send(together).is_err() {
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
            self.group.together.end_one();
        }
        self.away += begun.elapsed();
        Ok(())
    }

    /// By (4).
    fn mark_full(&self) {
        let mut full = self.end.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.clear();
        let over = self.partitions.iter().enumerate();
        let over = over.filter(|(number, _)| self.group.gate.is_full(*number) && self.holding.is_none());
        full.extend(over.map(|(_, partition)| partition.place.clone()));
    }
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

/// A delivery's records by transaction.
fn segments(decoded: &Decoded) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    // The newest id, and its transaction.
    let mut newest: Option<(Id, Id)> = None;
    let mut marks = decoded.transactions.iter().peekable();
    for record in 0..decoded.raw.len() as u32 {
        let mark = marks.next_if(|mark| mark.record == record);
        let order = mark.map_or(0, |mark| mark.total_order);
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
            Some(last) if last.id == id && (id.is_none() || order > last.orders.1) => {
                last.records += 1;
                last.orders.1 = order;
            }
            _ => segments.push(Segment {
                id,
                records: 1,
                orders: (order, order),
            }),
        }
    }
    segments
}
