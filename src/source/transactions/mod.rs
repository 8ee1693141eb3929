//! Source transactions stay whole: feeds whose records are in transactions of one source wait here, until what a
//! transaction has in all of them is there, and go on to the workers in one epoch.
//!
//! ```text
//! readers of orders, lines, ...  --Delivery-->            stash per partition
//!                                              keeper  <                       --Delivery{epoch}--> workers
//! reader of the transaction topic --BEGIN, END-->         gate: what may go on
//! ```
//!
//! 1. All feeds that name one transaction topic share a keeper, in one process (process 0, which opens epochs): what is
//!    kept together must be seen together.
//! 2. What goes on is decided by [`gate::Gate`]; it goes into the epoch that is open then, which stays open until workers
//!    have taken all of it ([`Together`]). A snapshot is of a closed epoch, so it holds all or nothing.
//! 3. What waits is not read as far as snapshots know: a restart reads it again, and the ENDs that it waits for.
//! 4. A partition that keeps much waiting is not read on until less waits; the others are.
//! 5. A release that has begun is handed over to its end, even if readers are to stop. One that goes on as it comes cannot
//!    be: then the run fails rather than commit half of it.
//! 6. While workers take a release, nobody hears what readers have to say. That time is no part of any wait: what the gate
//!    knows of partitions' ends is from before it.
//!
//! The wait costs what a transaction's last event comes later than its first, no more: nothing is held for a time.

mod gate;
mod groups;
mod marker;
mod together;

pub use together::{OpenEpoch, Together};

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::batch::nothing;
use super::outlet::{Ended, Gauges, Hand};
use super::{Delivery, Position, SourceError};
use crate::decode::Decoded;
use crate::definition::split_partition;
use gate::{Gate, GivenUp, Id, Release, Segment};

pub(crate) use groups::Groups;
use marker::{Marker, decoder};

/// Deliveries that may wait for a keeper.
const DELIVERIES: usize = 64;
/// Records that a partition may keep waiting.
const STASH: usize = 64 * 1024;
/// The longest pause between two looks at what waits.
const LOOK: Duration = Duration::from_millis(100);
/// Transactions that are named at once.
const NAMED: usize = 3;

/// What readers tell a keeper.
enum Message {
    /// A partition is read.
    Partition(Place),
    /// A reader has found its partitions for the first time.
    Found,
    Delivery(Box<Delivery>),
    /// A partition is read to its end.
    AtEnd(Place),
}

/// A partition, as readers name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    input: usize,
    feed: usize,
    partition: Arc<str>,
}

/// A reader's way to its keeper.
#[derive(Clone)]
pub(crate) struct Line {
    sender: Sender<Message>,
    /// Partitions that bring nothing more for now.
    full: Arc<Mutex<HashSet<Place>>>,
}

impl Line {
    fn place(hand: &Hand, partition: &Arc<str>) -> Place {
        Place {
            input: hand.input,
            feed: hand.feed,
            partition: partition.clone(),
        }
    }

    fn send(&self, hand: &Hand, message: Message) -> Result<(), Ended> {
        select_biased! {
            recv(hand.stop) -> _ => Err(Ended::Stopped),
            // A keeper that is gone has told why.
            send(self.sender, message) -> sent => sent.map_err(|_| Ended::Stopped),
        }
    }

    /// A partition will be read.
    pub fn announce(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::Partition(Line::place(hand, partition)))
    }

    /// Every partition there is was announced by this reader.
    pub fn found(&self, hand: &Hand) -> Result<(), Ended> {
        self.send(hand, Message::Found)
    }

    /// Hands a delivery over to the keeper.
    pub fn keep(&self, hand: &Hand, delivery: Delivery) -> Result<(), Ended> {
        self.send(hand, Message::Delivery(Box::new(delivery)))
    }

    /// A partition is read to its end.
    pub fn at_end(&self, hand: &Hand, partition: &Arc<str>) -> Result<(), Ended> {
        self.send(hand, Message::AtEnd(Line::place(hand, partition)))
    }

    /// Whether a partition should bring nothing more for now.
    pub fn is_full(&self, hand: &Hand, partition: &Arc<str>) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        !full.is_empty() && full.contains(&Line::place(hand, partition))
    }
}

/// Feeds of one source.
struct Group {
    gate: Gate,
    /// The topic of BEGIN and END.
    topic: String,
    /// Readers that have not found their partitions yet, that of the transaction topic among them.
    readers: usize,
    /// Of each feed, and how many readers it has.
    gauges: Vec<(Arc<Gauges>, usize)>,
    together: Arc<Together>,
    open: OpenEpoch,
}

/// A way to a new keeper, and what it keeps once it is started.
fn line() -> (Line, KeeperEnd) {
    let (sender, messages) = bounded(DELIVERIES);
    let full: Arc<Mutex<HashSet<Place>>> = Arc::default();
    let end = KeeperEnd {
        messages,
        full: full.clone(),
    };
    (Line { sender, full }, end)
}

/// The keeper's end of a [`Line`].
struct KeeperEnd {
    messages: Receiver<Message>,
    full: Arc<Mutex<HashSet<Place>>>,
}

/// Keeps the records of a group of feeds, until readers are to stop. `hand` is that of the feed under whose name the progress
/// of the transaction topic is kept.
fn keep(hand: Hand, group: Group, end: KeeperEnd) -> Result<(), Ended> {
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

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use crossbeam_channel::Receiver;

    use super::gate::Reads;
    use super::*;
    use crate::decode::{Decoder, Payloads, Transaction};
    use crate::definition::{FeedKind, Format};
    use crate::registry::Registries;
    use crate::source::Outlet;
    use crate::source::batch::{BatchBuilder, BatchLimits, Record};
    use crate::source::tests::{dataflow, input};

    const WAIT: Duration = Duration::from_millis(500);

    /// A keeper of one feed, whose worker takes when it is asked to.
    struct Kept {
        hand: Hand,
        line: Line,
        markers: Decoder,
        taken: Receiver<Delivery>,
        stop: Option<Sender<std::convert::Infallible>>,
        keeper: JoinHandle<Result<(), Ended>>,
    }

    impl Kept {
        fn start() -> Self {
            let path = std::path::PathBuf::new();
            let dataflow = dataflow(vec![input("i", vec![("f", FeedKind::Log { path }, Format::Json)])]);
            let (sender, taken) = bounded(1);
            let outlet = Outlet {
                sender,
                wake: Arc::new(|| {}),
            };
            let (stop, stopped) = bounded(0);
            let hand = Hand {
                dataflow,
                input: 0,
                feed: 0,
                outlets: Arc::new([outlet]),
                stop: stopped,
                gauges: Arc::default(),
                line: None,
                limits: BatchLimits { rows: 100, bytes: 1000 },
                share: Default::default(),
            };
            let reads = Reads {
                prefix: "shop".into(),
                topic: Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)),
            };
            let group = Group {
                gate: Gate::new(reads, WAIT, 1000),
                topic: "shop.transaction".into(),
                readers: 1,
                gauges: vec![(hand.gauges.clone(), 1)],
                together: Arc::default(),
                open: Arc::new(|| Some(7)),
            };
            let (line, end) = line();
            let keeper = hand.clone();
            let keeper = std::thread::spawn(move || keep(keeper, group, end));
            for partition in ["shop.orders-0", "shop.lines-0", "shop.transaction-0"] {
                line.announce(&hand, &partition.into()).expect("it listens");
            }
            line.found(&hand).expect("it listens");
            Kept {
                markers: decoder(hand.feed(), &Registries::new(None)).expect("JSON needs nothing"),
                hand,
                line,
                taken,
                stop: Some(stop),
                keeper,
            }
        }

        fn keep(&self, partition: &str, decoded: Decoded) {
            let delivery = Delivery {
                input: 0,
                feed: 0,
                partition: partition.into(),
                position: Position::at(decoded.raw.offsets.last().map_or(0, |last| last + 1)),
                decoded,
                arrived: Instant::now(),
                epoch: None,
            };
            self.line.keep(&self.hand, delivery).expect("it listens");
        }

        /// A partition's only record at this offset: the transaction's event of this number.
        fn event(&self, partition: &str, offset: u64, id: &str, total_order: u64) {
            let mut decoded = nothing(self.hand.input(), None);
            decoded.raw = raw(offset, "{}");
            decoded.transactions = vec![Transaction {
                record: 0,
                id: id.into(),
                total_order,
                collection: "".into(),
                collection_order: 0,
            }];
            self.keep(partition, decoded);
        }

        fn end(&mut self, offset: u64, id: &str, orders: u64, lines: u64) {
            let of = |table, events| format!(r#"{{"data_collection": "{table}", "event_count": {events}}}"#);
            let tables = format!("{}, {}", of("orders", orders), of("lines", lines));
            let text = format!(r#"{{"status": "END", "id": "{id}", "data_collections": [{tables}]}}"#);
            let decoded = self.markers.decode(raw(offset, &text)).expect("it is JSON");
            self.keep("shop.transaction-0", decoded);
        }

        fn at_end(&self) {
            for partition in ["shop.orders-0", "shop.lines-0", "shop.transaction-0"] {
                self.line.at_end(&self.hand, &partition.into()).expect("it listens");
            }
        }

        /// Partition and records of the next delivery.
        fn take(&self) -> (String, usize) {
            let delivery = self.taken.recv_timeout(Duration::from_secs(20)).expect("it comes");
            assert_eq!(delivery.epoch, Some(7));
            (delivery.partition.to_string(), delivery.decoded.raw.len())
        }

        fn stop(mut self) {
            drop(self.stop.take());
            let ended = self.keeper.join().expect("it does not panic");
            assert!(matches!(ended, Err(Ended::Stopped)), "{ended:?}");
        }
    }

    fn raw(offset: u64, value: &str) -> crate::decode::Raw {
        let mut batch = BatchBuilder::new(BatchLimits { rows: 100, bytes: 1000 });
        batch.push(Record {
            offset,
            value: Some(value.as_bytes()),
            ..Record::default()
        });
        let raw = batch.take(None);
        assert!(matches!(raw.payloads, Payloads::Records { .. }));
        raw
    }

    /// Workers took a release of 165,000 rows for longer than the wait. What the next transaction lacked was in readers' hands
    /// all the while, and it was given up: its partitions had been read to their ends, when they were heard last.
    #[test]
    fn time_in_which_workers_take_a_release_is_no_part_of_a_wait() {
        let mut kept = Kept::start();
        for n in 0..4 {
            kept.event("shop.orders-0", n, "T1", n + 1);
        }
        kept.end(0, "T1", 4, 0);
        // The keeper hands T1 over, which nobody takes; this is heard with its END, or later.
        kept.event("shop.orders-0", 4, "T2", 1);
        kept.end(1, "T2", 1, 1);
        kept.at_end();
        std::thread::sleep(WAIT * 3);
        for _ in 0..4 {
            assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
        }
        assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
        std::thread::sleep(WAIT / 5);
        assert!(kept.taken.is_empty(), "T2 lacks a line, and waits");
        kept.event("shop.lines-0", 0, "T2", 2);
        let whole: Vec<(String, usize)> = (0..3).map(|_| kept.take()).collect();
        assert_eq!(
            whole,
            [("shop.orders-0", 1), ("shop.lines-0", 1), ("shop.transaction-0", 0)].map(|(p, n)| (p.to_string(), n))
        );
        assert_eq!(kept.hand.gauges.last_error(), None, "nothing was given up");
        // What lacks events though everything is heard, is.
        kept.event("shop.orders-0", 5, "T3", 1);
        kept.end(2, "T3", 1, 1);
        kept.at_end();
        assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
        assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
        assert!(kept.hand.gauges.last_error().is_some_and(|text| text.contains("T3")));
        kept.stop();
    }
}
