//! The queue's data: segments and ends of partitions, transactions, and releases.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transaction's name at its source.
pub type TransactionId = Arc<str>;

/// How many released transactions are remembered, and how many BEGINs.
const REMEMBERED: usize = 8192;

/// Consecutive records of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// None if they belong to no transaction.
    pub id: Option<TransactionId>,
    pub records: usize,
    pub bytes: usize,
    /// The numbers of the first and the last of them within the transaction.
    pub orders: (u64, u64),
    /// Whether they existed when their partition was found, if that was not read before this run.
    pub old: bool,
}

/// Records and markers that may be handed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// For each partition, how many of its first records.
    pub records: BTreeMap<usize, usize>,
    /// How many of the first markers are done.
    pub markers: usize,
    /// Whether more of the same transaction follows, which must go into the same epoch.
    pub continues: bool,
    pub given_up: Vec<AbandonedTransaction>,
}

impl Release {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.markers == 0 && self.given_up.is_empty()
    }

    pub fn rows(&self) -> usize {
        self.records.values().sum()
    }
}

/// A transaction that did not become complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedTransaction {
    pub id: TransactionId,
    /// For each topic, the events that arrived and the expected number; the latter is none without an END.
    pub topics: Vec<(String, u64, Option<u64>)>,
}

/// A topic as read by one of the feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedTopic {
    pub feed: usize,
    pub name: String,
}

/// A partition's end offset, in answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndObservation {
    /// The time of the question; the observation is not older.
    pub asked: Instant,
    /// The offset behind the last record that existed.
    pub end: u64,
    /// Whether everything before the end was delivered.
    pub read: bool,
}

/// What is known of a partition's end. No observation becomes wrong when more is written.
#[derive(Debug, Default)]
pub struct PartitionEnd {
    /// Everything that existed at this time has arrived.
    read: Option<Instant>,
    /// The newest observed end, and when it was first and last observed.
    seen: Option<(u64, Instant, Instant)>,
}

impl PartitionEnd {
    pub fn observe(&mut self, look: EndObservation) {
        if look.read {
            self.read = self.read.max(Some(look.asked));
        }
        self.seen = match self.seen {
            // A report that everything before an end was read arrives later than newer observations of the end.
            Some((end, ..)) if look.end < end => self.seen,
            Some((end, first, last)) if look.end == end => Some((end, first, last.max(look.asked))),
            _ => Some((look.end, look.asked, look.asked)),
        };
    }

    /// The newest time as of which everything has arrived.
    pub fn read(&self) -> Option<Instant> {
        self.read
    }

    /// Whether everything that existed at this time has arrived.
    pub fn is_read(&self, at: Instant) -> bool {
        self.read.is_some_and(|read| read >= at)
    }

    /// Whether, as of this time or later, nothing had been written for `wait`, whether or not earlier records have
    /// arrived.
    pub fn is_silent(&self, at: Instant, wait: Duration) -> bool {
        self.seen
            .is_some_and(|(_, first, last)| last >= at && last - first >= wait)
    }
}

#[derive(Debug, Default)]
pub struct PartitionBacklog {
    pub topic: FeedTopic,
    pub segments: VecDeque<Segment>,
    /// The number of waiting records, and their bytes.
    pub records: usize,
    pub bytes: usize,
    pub ends: PartitionEnd,
    /// Whether something of a transaction with an END was released: then what arrives now is not older than the first
    /// END read.
    pub released_ended: bool,
}

impl PartitionBacklog {
    /// The transaction of the first waiting record.
    pub fn head(&self) -> Option<&TransactionId> {
        self.segments.front()?.id.as_ref()
    }

    /// The transactions of the waiting records, from the newest on; one may occur several times.
    pub fn newest(&self) -> impl Iterator<Item = &TransactionId> {
        self.segments.iter().rev().filter_map(|segment| segment.id.as_ref())
    }
}

#[derive(Debug)]
pub struct PendingTransaction {
    /// For each partition, the number of events that arrived, and the last one's number.
    pub seen: HashMap<usize, (u64, u64)>,
    /// None until its END arrives.
    pub end: Option<TransactionEnd>,
    /// The expected number of events by topic, for topics that are read.
    pub expected: BTreeMap<FeedTopic, u64>,
    /// By (5) of the queue: its connector sent its events in several runs.
    pub resumed: bool,
    /// By (8) of the queue: all of its records so far are old.
    pub old: bool,
    /// For each partition, the number of its waiting segments.
    pub segments: HashMap<usize, usize>,
    /// When its END arrived; before that, when its last event arrived.
    pub since: Instant,
}

/// The content of a transaction's END.
#[derive(Debug)]
pub struct TransactionEnd {
    /// Its number in the sequence of all ENDs.
    pub number: u64,
    /// For each table, the number of events.
    pub tables: Vec<(String, u64)>,
}

impl PendingTransaction {
    pub fn new(now: Instant) -> Self {
        PendingTransaction {
            seen: HashMap::new(),
            end: None,
            expected: BTreeMap::new(),
            resumed: false,
            old: true,
            segments: HashMap::new(),
            since: now,
        }
    }

    /// Counts the events of a segment. Only those with a higher number than the last count; by (5) of the queue,
    /// others show that the transaction is sent again.
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

/// The most recent transactions, up to [`REMEMBERED`].
#[derive(Debug, Default)]
pub struct RecentTransactions {
    /// In the order of arrival, the oldest first.
    order: VecDeque<TransactionId>,
    /// How often each is in `order`.
    counts: HashMap<TransactionId, usize>,
}

impl RecentTransactions {
    pub fn insert(&mut self, id: TransactionId) {
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
