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

mod stash;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

pub use stash::{GivenUp, Id, Release, Segment};
use stash::{Recent, Stash, Transaction};

/// How long after an END its partitions are watched, where counts say nothing.
const SETTLING: Duration = Duration::from_secs(1);

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

#[cfg(test)]
mod tests;
