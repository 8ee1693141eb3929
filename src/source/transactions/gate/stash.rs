//! What a gate keeps: partitions' segments and ends, transactions, and what it hands out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transaction's name at its source.
pub type Id = Arc<str>;

/// Transactions that have gone on and are remembered, and those whose BEGIN has come.
const REMEMBERED: usize = 8192;

/// Consecutive records of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// None: they are of no transaction.
    pub id: Option<Id>,
    pub records: usize,
    pub bytes: usize,
    /// Of the first and the last of them, the number within the transaction.
    pub orders: (u64, u64),
    /// Its partition was not read before this run, and they were there when it was found.
    pub old: bool,
}

/// What may go on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// By partition, how many of its first records.
    pub records: BTreeMap<usize, usize>,
    /// How many of the first markers are done with.
    pub markers: usize,
    /// More of the same transaction follows, and belongs to this.
    pub continues: bool,
    pub given_up: Vec<GivenUp>,
}

impl Release {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.markers == 0 && self.given_up.is_empty()
    }

    pub fn rows(&self) -> usize {
        self.records.values().sum()
    }
}

/// A transaction that did not become whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub id: Id,
    /// By topic: events that came, and how many there should be; none where no END came.
    pub topics: Vec<(String, u64, Option<u64>)>,
}

/// A topic as one of the feeds reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    pub feed: usize,
    pub name: String,
}

/// Where a partition ends, as it was seen at a time at which that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// It was looked at then or later.
    pub asked: Instant,
    /// Behind the last record that was there.
    pub end: u64,
    /// All that was there has come.
    pub read: bool,
}

/// What is known of a partition's end. Nothing that was seen becomes wrong as more is written.
#[derive(Debug, Default)]
pub struct Ends {
    /// All that was there at this time has come.
    read: Option<Instant>,
    /// The end that was seen last, and when it was seen first and last.
    seen: Option<(u64, Instant, Instant)>,
}

impl Ends {
    pub fn observe(&mut self, look: Look) {
        if look.read {
            self.read = self.read.max(Some(look.asked));
        }
        self.seen = match self.seen {
            // That all before it was read is told later than what was seen since.
            Some((end, ..)) if look.end < end => self.seen,
            Some((end, first, last)) if look.end == end => Some((end, first, last.max(look.asked))),
            _ => Some((look.end, look.asked, look.asked)),
        };
    }

    /// The newest time of which all has come.
    pub fn read(&self) -> Option<Instant> {
        self.read
    }

    /// Whether all that was there at this time has come.
    pub fn is_read(&self, at: Instant) -> bool {
        self.read.is_some_and(|read| read >= at)
    }

    /// Whether nothing had been written for so long at this time or later, whatever has come of what was before.
    pub fn is_silent(&self, at: Instant, wait: Duration) -> bool {
        self.seen
            .is_some_and(|(_, first, last)| last >= at && last - first >= wait)
    }
}

#[derive(Debug, Default)]
pub struct Stash {
    pub topic: Topic,
    pub segments: VecDeque<Segment>,
    /// Records and bytes that wait.
    pub records: usize,
    pub bytes: usize,
    pub ends: Ends,
    /// Something went on of a transaction whose END came: what comes now is not from before the first END that is read.
    pub told: bool,
}

impl Stash {
    /// The transaction that it begins with.
    pub fn head(&self) -> Option<&Id> {
        self.segments.front()?.id.as_ref()
    }

    /// Transactions from the newest records on; one may be named several times.
    pub fn newest(&self) -> impl Iterator<Item = &Id> {
        self.segments.iter().rev().filter_map(|segment| segment.id.as_ref())
    }
}

#[derive(Debug)]
pub struct Transaction {
    /// By partition: events that came, and the order of the last.
    pub seen: HashMap<usize, (u64, u64)>,
    /// None before its END came.
    pub end: Option<End>,
    /// The same by topic, by the topics there are.
    pub expected: BTreeMap<Topic, u64>,
    /// By (5) of the gate: its events were told in several runs.
    pub resumed: bool,
    /// By (8) of the gate: all that came of it is old.
    pub old: bool,
    /// Segments of it that wait, by partition.
    pub segments: HashMap<usize, usize>,
    /// When its END came; before that, its last event.
    pub since: Instant,
}

/// What a transaction's END says.
#[derive(Debug)]
pub struct End {
    /// Which of all ENDs it is.
    pub number: u64,
    /// By table, how many events there are.
    pub tables: Vec<(String, u64)>,
}

impl Transaction {
    pub fn new(now: Instant) -> Self {
        Transaction {
            seen: HashMap::new(),
            end: None,
            expected: BTreeMap::new(),
            resumed: false,
            old: true,
            segments: HashMap::new(),
            since: now,
        }
    }

    /// Counts events. What is behind the last counts; by (5) of the gate the rest says that it comes again.
    pub fn observe(&mut self, partition: usize, segment: &Segment, now: Instant) {
        let (count, last) = self.seen.entry(partition).or_default();
        if self.end.is_none() {
            self.since = now;
        }
        self.old &= segment.old;
        let (first, end) = segment.orders;
        self.resumed |= *last > 0 && first <= *last;
        if end > *last {
            let fresh = if first > *last {
                segment.records as u64
            } else {
                (segment.records as u64).min(end - *last)
            };
            *count += fresh;
            *last = end;
        }
    }
}

/// The newest transactions of which something came.
#[derive(Debug, Default)]
pub struct Recent {
    /// The oldest first.
    order: VecDeque<Id>,
    /// How often each is among them.
    counts: HashMap<Id, usize>,
}

impl Recent {
    pub fn insert(&mut self, id: Id) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        *self.counts.entry(id.clone()).or_default() += 1;
        self.order.push_back(id);
    }

    pub fn count(&self, id: &str) -> usize {
        self.counts.get(id).copied().unwrap_or(0)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.counts.contains_key(id)
    }
}
