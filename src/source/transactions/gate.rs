//! Decides which records may go on together, so that no snapshot holds half of a source's transaction.
//!
//! Records of one source's partitions wait in stashes, by partition in order, cut into segments of one transaction (or of
//! none). A transaction's END says how many events each table has of it; it is whole once so many have come. What goes on
//! is always a prefix of the transactions in the order of their ENDs, which is that of their commits:
//!
//! ```text
//! orders-0   [T1 T1][T2][   ][T4 ..        goes on: T1 and T2 wholly, and what is of no transaction and behind nothing
//! lines-0    [T1][T2 T2 ..                  that waits; T2's third line is not here yet: T1 alone, then
//! ```
//!
//! 1. A transaction goes on whole, in one release: with it everything that is before it in its partitions.
//! 2. No release passes over a transaction whose END is known: what is released is what the source held at one moment.
//! 3. Only tables that are read count: those whose topic is, the source's prefix and the table's name
//!    (`shop.public.orders` for `public.orders`), or any topic whose name ends so. It need not be there yet.
//! 4. What comes again of a transaction that has gone on (a connector that was restarted) waits for nothing: those are
//!    remembered for a while.
//! 5. A connector that was killed amid a transaction goes on amid it, numbers its events from 1 again, and its END counts
//!    those alone. So where a second BEGIN came, or an order fell, counts say nothing: such a transaction is whole once its
//!    END is here and each of its partitions holds something behind it, or has been read to its end for a while since.
//! 6. A transaction that does not become whole within the wait is given up, and named, once no partition can bring what it
//!    lacks: each is read to its end, or holds something behind it. It goes on as it is.
//! 7. A transaction larger than what a stash may hold goes on as it comes once its END is known and it is its turn, in
//!    releases that belong together; nothing else goes on until it is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transaction's name at its source.
pub type Id = Arc<str>;

/// Transactions that have gone on and are remembered, and those whose BEGIN has come.
const REMEMBERED: usize = 8192;
/// How long after an END its partitions are watched, where counts say nothing.
const SETTLING: Duration = Duration::from_secs(1);

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
    fn is_empty(&self) -> bool {
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
struct Stash {
    topic: String,
    segments: VecDeque<Segment>,
    /// Records that wait.
    waiting: usize,
    /// Everything that exists was read.
    at_end: bool,
}

#[derive(Debug)]
struct Transaction {
    /// By partition: events that came, and the order of the last.
    seen: HashMap<usize, (u64, u64)>,
    /// By table, how many there are; none before the END.
    tables: Option<Vec<(String, u64)>>,
    /// The same by topic, by the topics there are.
    expected: BTreeMap<String, u64>,
    /// By (5): its events were told in several runs.
    resumed: bool,
    /// Segments of it that wait, by partition.
    segments: HashMap<usize, usize>,
    since: Instant,
}

/// The newest transactions of which something came.
#[derive(Debug, Default)]
struct Recent {
    /// The oldest first.
    order: VecDeque<Id>,
    /// How often each is among them.
    counts: HashMap<Id, usize>,
}

impl Recent {
    fn insert(&mut self, id: Id) {
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

    fn count(&self, id: &str) -> usize {
        self.counts.get(id).copied().unwrap_or(0)
    }

    fn contains(&self, id: &str) -> bool {
        self.counts.contains_key(id)
    }
}

/// What is read of a source.
pub struct Reads {
    /// In front of a table's name in its topic's.
    pub prefix: String,
    /// Whether a topic is read, once it is there.
    pub topic: Box<dyn Fn(&str) -> bool + Send>,
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Gate {
    reads: Reads,
    wait: Duration,
    /// Records that a partition may keep waiting.
    limit: usize,
    stashes: Vec<Stash>,
    transactions: HashMap<Id, Transaction>,
    /// Markers in their order: the transaction that one ends; none: it ends nothing.
    markers: VecDeque<Option<Id>>,
    markers_at_end: bool,
    /// The transaction that goes on as it comes.
    streaming: Option<Id>,
    /// What has gone on.
    gone: Recent,
    /// BEGINs that came.
    begun: Recent,
}

impl Gate {
    pub fn new(reads: Reads, wait: Duration, limit: usize) -> Self {
        Gate {
            reads,
            wait,
            limit,
            stashes: Vec::new(),
            transactions: HashMap::new(),
            markers: VecDeque::new(),
            markers_at_end: false,
            streaming: None,
            gone: Recent::default(),
            begun: Recent::default(),
        }
    }

    /// A partition of a topic that is read; answers its number.
    pub fn add_partition(&mut self, topic: &str) -> usize {
        self.stashes.push(Stash {
            topic: topic.to_string(),
            ..Stash::default()
        });
        for id in self.transactions.keys().cloned().collect::<Vec<_>>() {
            self.expect(&id);
        }
        self.stashes.len() - 1
    }

    /// Records came.
    pub fn observe_records(&mut self, partition: usize, segments: impl IntoIterator<Item = Segment>, now: Instant) {
        for mut segment in segments {
            if segment.id.as_ref().is_some_and(|id| self.gone.contains(id)) {
                segment.id = None; // by (4)
            }
            let stash = &mut self.stashes[partition];
            stash.at_end = false;
            stash.waiting += segment.records;
            let follows = stash.segments.back().is_some_and(|last| last.id == segment.id);
            if let Some(id) = &segment.id {
                let transaction = self
                    .transactions
                    .entry(id.clone())
                    .or_insert_with(|| Transaction::new(now));
                let (count, last) = transaction.seen.entry(partition).or_default();
                if transaction.tables.is_none() {
                    transaction.since = now;
                }
                // What is behind the last counts; by (5) the rest says that it comes again.
                let (first, end) = segment.orders;
                transaction.resumed |= *last > 0 && first <= *last;
                if end > *last {
                    let fresh = if first > *last {
                        segment.records as u64
                    } else {
                        (segment.records as u64).min(end - *last)
                    };
                    *count += fresh;
                    *last = end;
                }
                if !follows {
                    *transaction.segments.entry(partition).or_default() += 1;
                }
            }
            match stash.segments.back_mut().filter(|_| follows) {
                Some(last) => {
                    last.records += segment.records;
                    last.orders.1 = segment.orders.1;
                }
                None => stash.segments.push_back(segment),
            }
        }
    }

    /// Everything of a partition was read.
    pub fn observe_at_end(&mut self, partition: usize) {
        self.stashes[partition].at_end = true;
    }

    /// The same of the markers.
    pub fn observe_markers_at_end(&mut self) {
        self.markers_at_end = true;
    }

    /// A transaction's BEGIN came.
    pub fn observe_begin(&mut self, id: &str) {
        self.observe_marker();
        if self.begun.contains(id)
            && let Some(transaction) = self.transactions.get_mut(id)
        {
            transaction.resumed = true;
        }
        self.begun.insert(id.into());
    }

    /// A marker came that ends nothing.
    pub fn observe_marker(&mut self) {
        self.markers.push_back(None);
        self.markers_at_end = false;
    }

    /// A transaction's END came: how many events each table has of it.
    pub fn observe_end(&mut self, id: &str, tables: &[(String, u64)], now: Instant) {
        self.markers_at_end = false;
        let id: Id = id.into();
        let again = self.gone.contains(&id) || self.transactions.get(&id).is_some_and(|t| t.tables.is_some());
        if again {
            self.markers.push_back(None);
            return;
        }
        let transaction = self
            .transactions
            .entry(id.clone())
            .or_insert_with(|| Transaction::new(now));
        transaction.tables = Some(tables.to_vec());
        transaction.since = now;
        transaction.resumed |= self.begun.count(&id) > 1;
        self.expect(&id);
        self.markers.push_back(Some(id));
    }

    /// Works out what a transaction has by topic.
    fn expect(&mut self, id: &Id) {
        let mut expected = BTreeMap::new();
        for (table, events) in self.transactions[id].tables.iter().flatten() {
            if let Some(topic) = self.topic_of(table) {
                *expected.entry(topic).or_default() += events;
            }
        }
        self.transactions.get_mut(id).expect("it waits").expected = expected;
    }

    /// By (3), the topic of a table.
    fn topic_of(&self, table: &str) -> Option<String> {
        // What no topic's name may hold, Debezium replaces.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let table: String = table.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        let usual = format!("{}.{table}", self.reads.prefix);
        if (self.reads.topic)(&usual) {
            return Some(usual);
        }
        let mut topics = self.stashes.iter().map(|stash| &stash.topic);
        let topic = topics.find(|topic| {
            let before = topic.strip_suffix(table.as_str());
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        });
        topic.cloned()
    }

    /// Whether a partition should bring nothing more for now.
    pub fn is_full(&self, partition: usize) -> bool {
        self.stashes[partition].waiting >= self.limit
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.stashes.iter().all(|stash| stash.segments.is_empty())
    }

    /// When something may have to be given up, though nothing more comes.
    pub fn deadline(&self) -> Option<Instant> {
        self.transactions
            .values()
            .map(|transaction| transaction.since + self.wait)
            .min()
    }

    /// What may go on now, if anything may.
    pub fn next_release(&mut self, now: Instant) -> Option<Release> {
        let mut release = Release::default();
        loop {
            self.release_free(&mut release);
            let streaming = self.streaming.clone();
            let Some(id) = streaming.clone().or_else(|| self.next(&mut release, now)) else {
                break;
            };
            let together = self.together(&id);
            // Before their segments go, by which some are judged.
            let lacking: Vec<&Id> = together.iter().filter(|id| !self.is_whole(id, now)).collect();
            if lacking.is_empty() || self.must_give_up(&id, now) {
                release.given_up.extend(lacking.into_iter().map(|id| self.given_up(id)));
                self.take(&together, &mut release);
                together.into_iter().for_each(|id| self.finish(id));
                self.streaming = None;
                if streaming.is_some() {
                    // What follows is no part of what was begun with it.
                    self.release_markers(&mut release);
                    break;
                }
                continue;
            }
            // By (7).
            if streaming.is_some() || self.stashes.iter().any(|stash| self.is_stuck_behind(stash, &id)) {
                // Apart from what was released before it: that is whole.
                if streaming.is_none() && !release.is_empty() {
                    break;
                }
                self.take_heads(&id, &mut release);
                self.streaming = Some(id);
                release.continues = true;
            }
            break;
        }
        (!release.is_empty()).then_some(release)
    }

    /// The transaction that is next: by the order of ENDs, or one without an END that can wait no longer. A full partition
    /// alone decides nothing: the END of what is before it in another one may be on its way.
    fn next(&mut self, release: &mut Release, now: Instant) -> Option<Id> {
        self.release_markers(release);
        if let Some(id) = self.markers.front() {
            return id.clone();
        }
        let open = self.transactions.iter().filter(|(id, _)| self.must_give_up(id, now));
        open.min_by_key(|(_, transaction)| transaction.since)
            .map(|(id, _)| id.clone())
    }

    /// What is of no transaction that waits, and behind nothing that does.
    fn release_free(&mut self, release: &mut Release) {
        if self.streaming.is_some() {
            return;
        }
        for partition in 0..self.stashes.len() {
            let free = |gate: &Gate| {
                let head = gate.stashes[partition].segments.front();
                head.is_some_and(|head| head.id.as_ref().is_none_or(|id| !gate.transactions.contains_key(id)))
            };
            while free(self) {
                self.pop(partition, release);
            }
        }
    }

    /// Markers that end nothing that waits.
    fn release_markers(&mut self, release: &mut Release) {
        while let Some(marker) = self.markers.front() {
            if marker.as_ref().is_some_and(|id| self.transactions.contains_key(id)) {
                return;
            }
            self.markers.pop_front();
            release.markers += 1;
        }
    }

    /// Whether a full partition begins with a transaction.
    fn is_stuck_behind(&self, stash: &Stash, id: &Id) -> bool {
        stash.waiting >= self.limit && stash.segments.front().is_some_and(|head| head.id.as_ref() == Some(id))
    }

    /// By (1), the transactions that go on with one: those with records before its own. By commit order there are none.
    fn together(&self, id: &Id) -> BTreeSet<Id> {
        let mut together = BTreeSet::from([id.clone()]);
        let mut news = vec![id.clone()];
        while let Some(id) = news.pop() {
            for (partition, count) in &self.transactions[&id].segments {
                let mut left = *count;
                for segment in &self.stashes[*partition].segments {
                    if left == 0 {
                        break;
                    }
                    let Some(other) = &segment.id else { continue };
                    if *other == id {
                        left -= 1;
                    } else if self.transactions.contains_key(other) && together.insert(other.clone()) {
                        news.push(other.clone());
                    }
                }
            }
        }
        together
    }

    fn is_whole(&self, id: &Id, now: Instant) -> bool {
        let transaction = &self.transactions[id];
        if transaction.resumed && transaction.tables.is_some() {
            let settled = now.duration_since(transaction.since) >= SETTLING;
            let behind = |stash: &Stash| match stash.segments.back() {
                Some(last) => last.id.as_ref() != Some(id) || (stash.at_end && settled),
                None => stash.at_end && settled,
            };
            let mut read = self
                .stashes
                .iter()
                .filter(|stash| transaction.expected.contains_key(&stash.topic));
            return read.all(behind);
        }
        transaction.tables.is_some()
            && transaction
                .expected
                .iter()
                .all(|(topic, events)| self.seen_of(transaction, topic) >= *events)
    }

    fn seen_of(&self, transaction: &Transaction, topic: &str) -> u64 {
        let of_topic = transaction
            .seen
            .iter()
            .filter(|(p, _)| self.stashes[**p].topic == topic);
        of_topic.map(|(_, (count, _))| count).sum()
    }

    /// By (6).
    fn must_give_up(&self, id: &Id, now: Instant) -> bool {
        let transaction = &self.transactions[id];
        if now.duration_since(transaction.since) < self.wait {
            return false;
        }
        if transaction.tables.is_none() {
            return self.markers_at_end;
        }
        // What a partition that is full with it would bring goes on as it comes instead.
        if self.stashes.iter().any(|stash| self.is_stuck_behind(stash, id)) {
            return false;
        }
        let passed = |stash: &Stash| stash.at_end || stash.segments.iter().any(|s| s.id.as_ref() != Some(id));
        let lacking = transaction
            .expected
            .iter()
            .filter(|(topic, events)| self.seen_of(transaction, topic) < **events);
        let mut lacking = lacking.map(|(topic, _)| topic);
        lacking.all(|topic| self.stashes.iter().filter(|stash| stash.topic == *topic).all(passed))
    }

    /// Takes transactions' segments, and what is before them.
    fn take(&mut self, ids: &BTreeSet<Id>, release: &mut Release) {
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for id in ids {
            for (partition, count) in &self.transactions[id].segments {
                *left.entry(*partition).or_default() += count;
            }
        }
        for (partition, mut left) in left {
            while left > 0 {
                let head = self.pop(partition, release);
                left -= usize::from(head.id.is_some_and(|id| ids.contains(&id)));
            }
        }
    }

    /// Takes a transaction's segments that nothing is before.
    fn take_heads(&mut self, id: &Id, release: &mut Release) {
        for partition in 0..self.stashes.len() {
            let ours = |stash: &Stash| stash.segments.front().is_some_and(|head| head.id.as_ref() == Some(id));
            while ours(&self.stashes[partition]) {
                self.pop(partition, release);
                let segments = &mut self.transactions.get_mut(id).expect("it waits").segments;
                let left = segments.get_mut(&partition).expect("its segments are counted");
                *left -= 1;
                if *left == 0 {
                    segments.remove(&partition);
                }
            }
        }
    }

    fn pop(&mut self, partition: usize, release: &mut Release) -> Segment {
        let stash = &mut self.stashes[partition];
        let head = stash.segments.pop_front().expect("as many as were counted wait");
        stash.waiting -= head.records;
        *release.records.entry(partition).or_default() += head.records;
        head
    }

    /// A transaction has gone on.
    fn finish(&mut self, id: Id) {
        self.transactions.remove(&id);
        self.gone.insert(id);
    }

    fn given_up(&self, id: &Id) -> GivenUp {
        let transaction = &self.transactions[id];
        let mut topics: BTreeMap<String, (u64, Option<u64>)> = BTreeMap::new();
        for (partition, (count, _)) in &transaction.seen {
            topics.entry(self.stashes[*partition].topic.clone()).or_default().0 += count;
        }
        for (topic, events) in &transaction.expected {
            topics.entry(topic.clone()).or_default().1 = Some(*events);
        }
        let topics = topics.into_iter().map(|(topic, (seen, of))| (topic, seen, of));
        GivenUp {
            id: id.clone(),
            topics: topics.collect(),
        }
    }
}

impl Transaction {
    fn new(now: Instant) -> Self {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn gate(limit: usize) -> Gate {
        let reads = Reads {
            prefix: "shop".into(),
            topic: Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)),
        };
        let mut gate = Gate::new(reads, WAIT, limit);
        assert_eq!(
            (gate.add_partition("shop.orders"), gate.add_partition("shop.lines")),
            (0, 1)
        );
        gate
    }

    fn events(gate: &mut Gate, partition: usize, id: &str, orders: std::ops::RangeInclusive<u64>) {
        let segment = Segment {
            id: (!id.is_empty()).then(|| id.into()),
            records: orders.clone().count(),
            orders: (*orders.start(), *orders.end()),
        };
        gate.observe_records(partition, [segment], Instant::now());
    }

    fn end(gate: &mut Gate, id: &str, orders: u64, lines: u64) {
        let tables = [
            ("orders".to_string(), orders),
            ("lines".to_string(), lines),
            ("unread".to_string(), 9),
        ];
        gate.observe_end(id, &tables, Instant::now());
    }

    /// Records by partition, markers.
    fn released(gate: &mut Gate) -> Option<([usize; 2], usize)> {
        let release = gate.next_release(Instant::now())?;
        assert!(release.given_up.is_empty() && !release.continues, "{release:?}");
        let of = |partition| release.records.get(&partition).copied().unwrap_or(0);
        Some(([of(0), of(1)], release.markers))
    }

    #[test]
    fn a_transaction_goes_on_once_its_last_event_is_here_and_so_does_what_is_of_none() {
        let mut gate = gate(100);
        events(&mut gate, 0, "", 0..=4); // a snapshot's rows
        events(&mut gate, 0, "T1", 1..=2);
        assert_eq!(released(&mut gate), Some(([5, 0], 0)));
        gate.observe_marker(); // BEGIN
        end(&mut gate, "T1", 2, 1);
        assert_eq!(released(&mut gate), Some(([0, 0], 1)), "the BEGIN");
        assert_eq!(released(&mut gate), None);
        events(&mut gate, 1, "T1", 3..=3);
        events(&mut gate, 1, "T2", 1..=1);
        assert_eq!(released(&mut gate), Some(([2, 1], 1)));
        assert!(!gate.is_empty(), "T2 has no END");
        end(&mut gate, "T2", 0, 1);
        assert_eq!(released(&mut gate), Some(([0, 1], 1)));
        assert!(gate.is_empty());
    }

    #[test]
    fn nothing_passes_a_transaction_that_waits() {
        let mut gate = gate(100);
        end(&mut gate, "T1", 1, 0);
        end(&mut gate, "T2", 0, 1);
        events(&mut gate, 1, "T2", 1..=1);
        assert_eq!(released(&mut gate), None, "T2 is whole, and T1 was before it");
        events(&mut gate, 0, "T1", 1..=1);
        assert_eq!(released(&mut gate), Some(([1, 1], 2)));
    }

    #[test]
    fn events_and_ends_that_come_again_wait_for_nothing() {
        let mut gate = gate(100);
        events(&mut gate, 0, "T1", 1..=3);
        end(&mut gate, "T1", 3, 0);
        assert_eq!(released(&mut gate), Some(([3, 0], 1)));
        events(&mut gate, 0, "T1", 1..=3);
        end(&mut gate, "T1", 3, 0);
        assert_eq!(
            released(&mut gate),
            Some(([3, 0], 1)),
            "what went on once waits for nothing"
        );
    }

    /// Debezium was killed amid T1 twice: of eleven thousand events its END counted four thousand, and the first run's were
    /// as many already. A snapshot held what the last run took back.
    #[test]
    fn a_transaction_that_was_told_in_several_runs_is_not_judged_by_counts() {
        let mut gate = gate(100);
        gate.observe_begin("T1");
        events(&mut gate, 0, "T1", 1..=6);
        gate.observe_begin("T1");
        end(&mut gate, "T1", 3, 0);
        assert_eq!(released(&mut gate), Some(([0, 0], 2)), "the BEGINs alone");
        events(&mut gate, 0, "T1", 1..=3);
        gate.observe_at_end(0);
        gate.observe_at_end(1);
        assert_eq!(released(&mut gate), None, "more may be on its way");
        let release = gate
            .next_release(Instant::now() + SETTLING)
            .expect("its partitions are at their ends");
        assert_eq!((release.records, release.markers), (BTreeMap::from([(0, 9)]), 1));
        assert!(release.given_up.is_empty());
        // Told by an order that falls, and by what is behind it.
        events(&mut gate, 0, "T2", 1..=6);
        events(&mut gate, 0, "T2", 1..=2);
        end(&mut gate, "T2", 2, 0);
        assert_eq!(released(&mut gate), None);
        events(&mut gate, 0, "", 0..=0);
        gate.observe_at_end(1);
        let release = gate
            .next_release(Instant::now() + SETTLING)
            .expect("something is behind it");
        assert_eq!(release.records, BTreeMap::from([(0, 9)]));
    }

    #[test]
    fn a_transaction_that_does_not_become_whole_is_given_up_only_where_nothing_can_bring_the_rest() {
        let mut gate = gate(100);
        events(&mut gate, 0, "T1", 1..=1);
        end(&mut gate, "T1", 2, 1);
        let later = Instant::now() + WAIT * 2;
        gate.observe_at_end(0);
        assert_eq!(gate.next_release(later), None, "the lines may be on their way");
        gate.observe_at_end(1);
        assert_eq!(gate.next_release(Instant::now()), None, "not yet");
        let release = gate.next_release(later).expect("it is given up");
        let topics = vec![
            ("shop.lines".to_string(), 0, Some(1)),
            ("shop.orders".to_string(), 1, Some(2)),
        ];
        let given_up = GivenUp {
            id: "T1".into(),
            topics,
        };
        assert_eq!((release.given_up, release.markers), (vec![given_up], 1));
        // One without END, once the markers are read.
        events(&mut gate, 0, "T2", 1..=1);
        assert_eq!(gate.next_release(later), None);
        gate.observe_markers_at_end();
        let much_later = later + WAIT;
        assert_eq!(
            gate.next_release(much_later).expect("it is given up").given_up[0].topics[0].2,
            None
        );
        assert!(gate.is_empty());
    }

    #[test]
    fn a_topic_that_is_not_there_yet_is_waited_for() {
        let reads = Reads {
            prefix: "shop".into(),
            topic: Box::new(|topic| topic.starts_with("shop.")),
        };
        let mut gate = Gate::new(reads, WAIT, 100);
        gate.add_partition("shop.orders");
        events(&mut gate, 0, "T1", 1..=1);
        gate.observe_end("T1", &[("orders".into(), 1), ("new$table".into(), 1)], Instant::now());
        assert_eq!(released(&mut gate), None);
        let new = gate.add_partition("shop.new_table");
        events(&mut gate, new, "T1", 2..=2);
        assert_eq!(released(&mut gate), Some(([1, 1], 1)));
    }

    #[test]
    fn one_larger_than_a_stash_goes_on_as_it_comes_and_nothing_else_meanwhile() {
        let mut gate = gate(10);
        events(&mut gate, 0, "T1", 1..=1);
        end(&mut gate, "T1", 1, 0);
        events(&mut gate, 0, "T2", 1..=12);
        assert!(gate.is_full(0));
        assert_eq!(released(&mut gate), Some(([1, 0], 1)), "T1 is whole by itself");
        assert_eq!(released(&mut gate), None, "another may have to go before T2");
        end(&mut gate, "T2", 19, 1);
        let part = gate.next_release(Instant::now()).expect("T2 streams");
        assert_eq!((part.records, part.continues), (BTreeMap::from([(0, 12)]), true));
        assert_eq!(gate.next_release(Instant::now()), None);
        events(&mut gate, 1, "T2", 13..=13);
        events(&mut gate, 1, "", 0..=0);
        let part = gate.next_release(Instant::now()).expect("more of T2");
        assert_eq!((part.records, part.continues), (BTreeMap::from([(1, 1)]), true));
        events(&mut gate, 0, "T2", 14..=20);
        assert_eq!(released(&mut gate), Some(([7, 0], 1)));
        assert_eq!(released(&mut gate), Some(([0, 1], 0)), "what waited behind it");
    }

    proptest! {
        /// Whatever comes when: each release ends at one boundary of the source, and in the end all is released.
        #[test]
        fn every_release_is_a_moment_of_the_source(
            transactions in prop::collection::vec((0u64..4, 0u64..4), 1..30),
            steps in prop::collection::vec(0u8..3, 300),
            limit in prop_oneof![Just(3usize), Just(1000)],
        ) {
            let mut gate = gate(limit);
            // What each channel brings, in its order: orders, lines, ENDs.
            let mut channels: [VecDeque<(usize, u64, u64)>; 3] = Default::default();
            let mut bounds = vec![[0usize; 2]];
            for (n, (orders, lines)) in transactions.iter().enumerate() {
                (1..=*orders).for_each(|order| channels[0].push_back((n, order, 0)));
                (1..=*lines).for_each(|order| channels[1].push_back((n, orders + order, 0)));
                channels[2].push_back((n, *orders, *lines));
                let last = bounds[bounds.len() - 1];
                bounds.push([last[0] + *orders as usize, last[1] + *lines as usize]);
            }
            let mut out = [0usize; 2];
            let mut markers = 0;
            let mut steps = steps.into_iter().chain([0, 1, 2].into_iter().cycle());
            let mut rounds = 0;
            while markers < transactions.len() {
                rounds += 1;
                prop_assert!(rounds < 2000, "something waits for ever: {gate:?}");
                let channel = steps.next().expect("they go on") as usize;
                match channels[channel].pop_front() {
                    Some((n, orders, lines)) if channel == 2 => end(&mut gate, &format!("T{n}"), orders, lines),
                    Some((n, order, _)) => events(&mut gate, channel, &format!("T{n}"), order..=order),
                    None => continue,
                }
                let mut within = false;
                while let Some(release) = gate.next_release(Instant::now()) {
                    prop_assert!(release.given_up.is_empty());
                    release.records.iter().for_each(|(partition, records)| out[*partition] += records);
                    markers += release.markers;
                    within = release.continues;
                    if !within {
                        prop_assert!(bounds.contains(&out), "{out:?} is no moment of {bounds:?}");
                    }
                }
                prop_assert!(!within || gate.streaming.is_some());
            }
            prop_assert_eq!(out, bounds[bounds.len() - 1]);
            prop_assert!(gate.is_empty());
        }
    }
}
