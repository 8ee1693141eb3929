//! What a gate keeps: partitions' segments, transactions, and what it hands out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

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
    /// Of the first and the last of them, the number within the transaction.
    pub orders: (u64, u64),
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
}

/// A transaction that did not become whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub id: Id,
    /// By topic: events that came, and how many there should be; none where no END came.
    pub topics: Vec<(String, u64, Option<u64>)>,
}

#[derive(Debug, Default)]
pub struct Stash {
    pub topic: String,
    pub segments: VecDeque<Segment>,
    /// Records that wait.
    pub waiting: usize,
    /// Everything that exists was read.
    pub at_end: bool,
}

#[derive(Debug)]
pub struct Transaction {
    /// By partition: events that came, and the order of the last.
    pub seen: HashMap<usize, (u64, u64)>,
    /// By table, how many there are; none before the END.
    pub tables: Option<Vec<(String, u64)>>,
    /// The same by topic, by the topics there are.
    pub expected: BTreeMap<String, u64>,
    /// By (5): its events were told in several runs.
    pub resumed: bool,
    /// Segments of it that wait, by partition.
    pub segments: HashMap<usize, usize>,
    pub since: Instant,
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

impl Transaction {
    pub fn new(now: Instant) -> Self {
        Transaction {
            seen: HashMap::new(),
            tables: None,
            expected: BTreeMap::new(),
            resumed: false,
            segments: HashMap::new(),
            since: now,
        }
    }
}
