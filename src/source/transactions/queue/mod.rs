//! Decides which records may be released together, so that no snapshot holds half of a source's transaction.
//!
//! Records of one source's partitions wait in a backlog for each partition, in order, cut into segments of one
//! transaction (or none). A transaction's END states how many events each table has; the transaction is complete once
//! they have arrived. Released is always a prefix of the transactions in the order of their ENDs, which is the order
//! of their commits:
//!
//! ```text
//! orders-0   [T1 T1][T2][   ][T4 ..        released: T1 and T2 wholly, and records without a transaction that have
//! lines-0    [T1][T2 T2 ..                  nothing waiting before them; only T1, while T2's third line is missing
//! ```
//!
//! 1. A transaction is released whole, in one release, with everything that precedes it in its partitions.
//! 2. No release skips a transaction whose END is known: the released records are what the source held at one moment.
//! 3. Only tables that are read count, for each feed that reads them. A table's topic is the source's prefix and the
//!    table's name (`shop.public.orders` for `public.orders`), or any topic whose name ends so. It need not exist
//!    yet.
//! 4. If records of a released transaction come again (after a restart of the connector), they do not wait: released
//!    transactions are remembered for a while.
//! 5. A connector that was killed in the middle of a transaction continues in the middle, numbers events from 1
//!    again, and its END counts only those, and only their tables. So if a second BEGIN came, or a number decreased,
//!    the counts prove nothing: such a transaction is complete once its END is there and every partition has passed
//!    it (6), a while after the END.
//! 6. A partition has passed a transaction once it holds another that follows it in the order of commits, or once
//!    everything was read that existed after the transaction's deadline. That its end was reached earlier proves
//!    nothing, because the reader's messages may be delayed; nor do records without a transaction, because a
//!    tombstone follows each delete in the middle of its transaction. A transaction that does not become complete
//!    within `wait` is given up, and reported, once every partition that could deliver what it lacks has passed it.
//!    Without an END, it is given up once the END will not come and each partition that holds it has passed it, or is
//!    full with it (so that it is not read) while its source has begun other transactions or was silent for `wait`.
//!    It is released as it is.
//! 7. A transaction larger than a backlog is streamed once its END is known and it is next: in several releases that
//!    belong together. Meanwhile nothing else is released, except records without a transaction that lie between its
//!    records.
//! 8. A partition that is read for the first time holds records from before the first END that is read. Transactions
//!    that consist only of these, and have no END once all markers are read, are history: they are released as they
//!    are, and not reported.
//! 9. What waits is bounded: by records and bytes for each partition, and by the number of markers. A full partition
//!    is not read. That blocks nothing forever: the next transaction is complete, or is streamed (7), or is given up
//!    (6).

mod backlog;
mod judge;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

pub use backlog::{AbandonedTransaction, EndObservation, FeedTopic, Release, Segment, TransactionId};
use backlog::{PartitionBacklog, PartitionEnd, PendingTransaction, RecentTransactions, TransactionEnd};
use judge::Verdict;

/// By (5), how long after an END its partitions are watched if the counts prove nothing.
const SETTLING: Duration = Duration::from_secs(1);

/// Returns whether a feed reads a topic, which need not exist yet.
pub type ReadsTopic = Box<dyn Fn(&str) -> bool + Send>;

/// The topics of a source that are read.
pub struct SourceTopics {
    /// The part of a topic's name before the table's name.
    pub prefix: String,
    /// For each feed, which topics it reads.
    pub feeds: Vec<ReadsTopic>,
}

impl fmt::Debug for SourceTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// By (9), limits on what may wait; and the size of a release, which only a single transaction may exceed.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// The most records of a partition.
    pub records: usize,
    /// The most bytes of all partitions, of which each may have an equal part.
    pub bytes: usize,
    pub markers: usize,
    pub release: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct TransactionQueue {
    reads: SourceTopics,
    wait: Duration,
    limits: QueueLimits,
    backlogs: Vec<PartitionBacklog>,
    transactions: HashMap<TransactionId, PendingTransaction>,
    /// The markers in their order, each with the transaction that it ends; none if it ends nothing.
    markers: VecDeque<Option<TransactionId>>,
    marker_ends: PartitionEnd,
    /// By (8): whether there were ENDs before the first that is read.
    has_history: bool,
    /// The number of ENDs that arrived.
    ended: u64,
    /// The transaction of the newest BEGIN, and a time before that was written.
    began: Option<(Instant, TransactionId)>,
    /// The transaction that is being streamed.
    streaming: Option<TransactionId>,
    /// Released transactions.
    released: RecentTransactions,
    /// Transactions whose BEGIN arrived.
    begun: RecentTransactions,
    /// Whether a decision depends on the present ends of partitions.
    asks: bool,
    /// A transaction that has waited for longer than `wait`.
    overdue: Option<TransactionId>,
}

impl TransactionQueue {
    pub fn new(reads: SourceTopics, wait: Duration, limits: QueueLimits) -> Self {
        TransactionQueue {
            reads,
            wait,
            limits,
            backlogs: Vec::new(),
            transactions: HashMap::new(),
            markers: VecDeque::new(),
            marker_ends: PartitionEnd::default(),
            has_history: false,
            ended: 0,
            began: None,
            streaming: None,
            released: RecentTransactions::default(),
            begun: RecentTransactions::default(),
            asks: false,
            overdue: None,
        }
    }

    /// Adds a partition that is read; returns its number.
    pub fn add_partition(&mut self, topic: FeedTopic) -> usize {
        self.backlogs.push(PartitionBacklog {
            topic,
            ..PartitionBacklog::default()
        });
        for id in self.transactions.keys().cloned().collect::<Vec<_>>() {
            self.expect(&id);
        }
        self.backlogs.len() - 1
    }

    /// Records the arrival of records.
    pub fn observe_records(&mut self, partition: usize, segments: impl IntoIterator<Item = Segment>, now: Instant) {
        for mut segment in segments {
            if segment.id.as_ref().is_some_and(|id| self.released.contains(id)) {
                segment.id = None; // by (4)
            }
            let backlog = &mut self.backlogs[partition];
            backlog.records += segment.records;
            backlog.bytes += segment.bytes;
            let follows = backlog.segments.back().is_some_and(|last| last.id == segment.id);
            if let Some(id) = &segment.id {
                let transaction = self
                    .transactions
                    .entry(id.clone())
                    .or_insert_with(|| PendingTransaction::new(now));
                transaction.observe(partition, &segment, now);
                if !follows {
                    *transaction.segments.entry(partition).or_default() += 1;
                }
            }
            match backlog.segments.back_mut().filter(|_| follows) {
                Some(last) => {
                    last.records += segment.records;
                    last.bytes += segment.bytes;
                    last.orders.1 = segment.orders.1;
                }
                None => backlog.segments.push_back(segment),
            }
        }
    }

    /// Records an observation of a partition's end.
    pub fn observe_look(&mut self, partition: usize, look: EndObservation) {
        self.backlogs[partition].ends.observe(look);
    }

    /// The same for the transaction topic.
    pub fn observe_look_at_markers(&mut self, look: EndObservation) {
        self.marker_ends.observe(look);
    }

    /// Records that markers are read, and whether from the first that was ever written.
    pub fn observe_first_marker(&mut self, is_first_of_all: bool) {
        self.has_history = !is_first_of_all;
    }

    /// Records a BEGIN.
    pub fn observe_begin(&mut self, id: &str) {
        self.observe_marker();
        let id: TransactionId = id.into();
        if self.begun.contains(&id)
            && let Some(transaction) = self.transactions.get_mut(&id)
        {
            transaction.resumed = true;
        }
        // It was written after everything that existed when the transaction topic was last read to its end.
        self.began = self
            .marker_ends
            .read()
            .map(|read| (read, id.clone()))
            .or(self.began.take());
        self.begun.insert(id);
    }

    /// Records a marker that ends nothing.
    pub fn observe_marker(&mut self) {
        self.markers.push_back(None);
    }

    /// Records an END, with the number of events by table.
    pub fn observe_end(&mut self, id: &str, tables: &[(String, u64)], now: Instant) {
        let id: TransactionId = id.into();
        let again = self.released.contains(&id) || self.transactions.get(&id).is_some_and(|t| t.end.is_some());
        if again {
            self.markers.push_back(None);
            return;
        }
        let transaction = self
            .transactions
            .entry(id.clone())
            .or_insert_with(|| PendingTransaction::new(now));
        transaction.end = Some(TransactionEnd {
            number: self.ended,
            tables: tables.to_vec(),
        });
        self.ended += 1;
        transaction.since = now;
        transaction.resumed |= self.begun.count(&id) > 1;
        self.expect(&id);
        self.markers.push_back(Some(id));
    }

    /// Computes the expected number of events by topic.
    fn expect(&mut self, id: &TransactionId) {
        let mut expected = BTreeMap::new();
        for (table, events) in self.transactions[id].end.iter().flat_map(|end| &end.tables) {
            for topic in self.topics_of(table) {
                *expected.entry(topic).or_default() += events;
            }
        }
        self.transactions.get_mut(id).expect("it waits").expected = expected;
    }

    /// By (3), the topic of a table, for each feed that reads it.
    fn topics_of(&self, table: &str) -> Vec<FeedTopic> {
        // Debezium replaces characters that are not allowed in a topic's name.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let table: String = table.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        let usual = format!("{}.{table}", self.reads.prefix);
        let of_feed = |(feed, reads): (usize, &ReadsTopic)| {
            if reads(&usual) {
                return Some(FeedTopic {
                    feed,
                    name: usual.clone(),
                });
            }
            let mut topics = self.backlogs.iter().map(|backlog| &backlog.topic);
            let topic = topics.find(|topic| {
                let before = topic.name.strip_suffix(table.as_str()).filter(|_| topic.feed == feed);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            });
            topic.cloned()
        };
        self.reads.feeds.iter().enumerate().filter_map(of_feed).collect()
    }

    /// By (9), whether a partition should deliver nothing more for now.
    pub fn is_full(&self, partition: usize) -> bool {
        let backlog = &self.backlogs[partition];
        backlog.records >= self.limits.records || backlog.bytes >= self.limits.bytes / self.backlogs.len()
    }

    /// The same for the transaction topic.
    pub fn are_markers_full(&self) -> bool {
        self.markers.len() >= self.limits.markers
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.backlogs.iter().all(|backlog| backlog.segments.is_empty())
    }

    /// Whether something may have to be given up even if nothing more arrives.
    pub fn waits(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// The number of markers that arrived and are not done.
    pub fn markers(&self) -> usize {
        self.markers.len()
    }

    /// Whether a decision is possible once readers report the present ends and have read up to them.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// A transaction that has waited for longer than `wait`, because what it lacks may still come.
    pub fn overdue(&self) -> Option<AbandonedTransaction> {
        Some(self.given_up(self.overdue.as_ref()?))
    }

    /// The transactions without an END; nothing of them may have been released.
    pub fn open(&self) -> Vec<AbandonedTransaction> {
        let open = self
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.end.is_none());
        open.map(|(id, _)| self.given_up(id)).collect()
    }

    /// The next release, if something may be released now.
    pub fn next_release(&mut self, now: Instant) -> Option<Release> {
        let mut release = Release::default();
        (self.asks, self.overdue) = (false, None);
        loop {
            self.release_free(&mut release);
            // Each iteration starts at a boundary between transactions.
            if release.rows() >= self.limits.release {
                if self.streaming.is_none() {
                    self.release_markers(&mut release);
                }
                break;
            }
            let streaming = self.streaming.clone();
            let Some(id) = streaming.clone().or_else(|| self.next(&mut release, now)) else {
                break;
            };
            let together = self.together(&id);
            // This is judged before their segments are removed, on which the judgement of some depends.
            let mut lacking = Vec::new();
            for id in &together {
                let verdict = self.is_whole(id, now);
                self.asks |= verdict == Verdict::Ask;
                if verdict != Verdict::Yes {
                    lacking.push(id);
                }
            }
            if self.must_give_up_all(&lacking, now) {
                release
                    .given_up
                    .extend(lacking.into_iter().filter_map(|id| self.named(id)));
                self.release_transactions(&together, &mut release);
                together.into_iter().for_each(|id| self.finish(id));
                self.streaming = None;
                if streaming.is_some() {
                    // What follows does not belong to the release that was streamed.
                    self.release_markers(&mut release);
                    break;
                }
                continue;
            }
            // By (7).
            if streaming.is_some() || (0..self.backlogs.len()).any(|partition| self.is_stuck_behind(partition, &id)) {
                // The streamed transaction is kept apart from what was released before it, which is complete.
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

    /// The next transaction: by the order of ENDs, or one that will have no END, if the former waits for something
    /// that may lie behind the latter. A full partition alone proves nothing, because the END of an earlier
    /// transaction in another partition may be on its way.
    fn next(&mut self, release: &mut Release, now: Instant) -> Option<TransactionId> {
        self.release_markers(release);
        let next = self.markers.front().cloned().flatten();
        let goes = |id: &TransactionId| {
            let mut partitions = 0..self.backlogs.len();
            self.is_whole(id, now) == Verdict::Yes || partitions.any(|partition| self.is_stuck_behind(partition, id))
        };
        match next {
            Some(id) if goes(&id) => Some(id),
            next => self.next_lost(now).or(next),
        }
    }

    /// A transaction without an END that must be given up by (6) and (8), with no other before it in its partitions
    /// that need not.
    fn next_lost(&mut self, now: Instant) -> Option<TransactionId> {
        let heads: BTreeSet<TransactionId> = self
            .backlogs
            .iter()
            .filter_map(|backlog| backlog.head().cloned())
            .collect();
        heads.into_iter().find(|id| {
            let is_open = |id: &TransactionId| self.transactions[id].end.is_none();
            // Most transactions are too young, which is cheap to find out.
            if !is_open(id) || now < self.transactions[id].since + self.patience(id) {
                return false;
            }
            let together: Vec<TransactionId> = self.together(id).into_iter().collect();
            together.iter().all(is_open) && self.must_give_up_all(&together.iter().collect::<Vec<_>>(), now)
        })
    }

    /// Whether all must be given up; notes if that depends on the present ends of partitions.
    fn must_give_up_all(&mut self, ids: &[&TransactionId], now: Instant) -> bool {
        let mut all = true;
        for id in ids {
            let verdict = self.must_give_up(id, now);
            if verdict == Verdict::Ask {
                self.asks = true;
                if !self.is_history(id) {
                    self.overdue = Some((*id).clone());
                }
            }
            all &= verdict == Verdict::Yes;
        }
        all
    }

    /// By (8), whether a transaction is history, which waits for less time and is not reported.
    fn is_history(&self, id: &TransactionId) -> bool {
        let transaction = &self.transactions[id];
        self.has_history && transaction.old && transaction.end.is_none()
    }

    fn named(&self, id: &TransactionId) -> Option<AbandonedTransaction> {
        (!self.is_history(id)).then(|| self.given_up(id))
    }

    /// Whether a backlog begins with a record that belongs to no waiting transaction.
    fn is_free(&self, partition: usize) -> bool {
        let head = self.backlogs[partition].segments.front();
        head.is_some_and(|head| head.id.as_ref().is_none_or(|id| !self.transactions.contains_key(id)))
    }

    /// Releases records that belong to no waiting transaction and have none of a waiting transaction before them.
    fn release_free(&mut self, release: &mut Release) {
        if self.streaming.is_some() {
            return;
        }
        for partition in 0..self.backlogs.len() {
            while self.is_free(partition) {
                let room = self.limits.release.saturating_sub(release.rows());
                let head = self.backlogs[partition].segments.front_mut().expect("it is free");
                if room == 0 {
                    return;
                }
                if head.records <= room {
                    self.pop(partition, release);
                    continue;
                }
                // Such a segment may be split, because nothing in it must stay together.
                let bytes = head.bytes / head.records * room;
                head.records -= room;
                head.bytes -= bytes;
                let backlog = &mut self.backlogs[partition];
                backlog.records -= room;
                backlog.bytes -= bytes;
                *release.records.entry(partition).or_default() += room;
            }
        }
    }

    /// Releases markers at the front that end no waiting transaction.
    fn release_markers(&mut self, release: &mut Release) {
        while let Some(marker) = self.markers.front() {
            if marker.as_ref().is_some_and(|id| self.transactions.contains_key(id)) {
                return;
            }
            self.markers.pop_front();
            release.markers += 1;
        }
    }

    /// By (1), the transactions that must be released with this one, because they have records before its own. In
    /// commit order there are none.
    fn together(&self, id: &TransactionId) -> BTreeSet<TransactionId> {
        let mut together = BTreeSet::from([id.clone()]);
        let mut news = vec![id.clone()];
        while let Some(id) = news.pop() {
            for (partition, count) in &self.transactions[&id].segments {
                let mut left = *count;
                for segment in &self.backlogs[*partition].segments {
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

    /// Takes the segments of transactions, and everything before them.
    fn release_transactions(&mut self, ids: &BTreeSet<TransactionId>, release: &mut Release) {
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for id in ids {
            let transaction = &self.transactions[id];
            for (partition, count) in &transaction.segments {
                *left.entry(*partition).or_default() += count;
                self.backlogs[*partition].released_ended |= transaction.end.is_some();
            }
        }
        for (partition, mut left) in left {
            while left > 0 {
                let head = self.pop(partition, release);
                left -= usize::from(head.id.is_some_and(|id| ids.contains(&id)));
            }
        }
    }

    /// Takes a transaction's segments that have nothing waiting before them; and by (7) the records between them,
    /// because otherwise the partition could fill up with these.
    fn take_heads(&mut self, id: &TransactionId, release: &mut Release) {
        for partition in 0..self.backlogs.len() {
            loop {
                let is_own = self.backlogs[partition].head() == Some(id);
                if !is_own && !self.is_free(partition) {
                    break;
                }
                self.pop(partition, release);
                if is_own {
                    self.backlogs[partition].released_ended = true;
                    let segments = &mut self.transactions.get_mut(id).expect("it waits").segments;
                    let left = segments.get_mut(&partition).expect("its segments are counted");
                    *left -= 1;
                    if *left == 0 {
                        segments.remove(&partition);
                    }
                }
            }
        }
    }

    fn pop(&mut self, partition: usize, release: &mut Release) -> Segment {
        let backlog = &mut self.backlogs[partition];
        let head = backlog.segments.pop_front().expect("as many as were counted wait");
        backlog.records -= head.records;
        backlog.bytes -= head.bytes;
        *release.records.entry(partition).or_default() += head.records;
        head
    }

    /// Removes a transaction that was released.
    fn finish(&mut self, id: TransactionId) {
        self.transactions.remove(&id);
        self.released.insert(id);
    }

    fn given_up(&self, id: &TransactionId) -> AbandonedTransaction {
        let transaction = &self.transactions[id];
        let mut topics: BTreeMap<&FeedTopic, (u64, Option<u64>)> = BTreeMap::new();
        for (partition, (count, _)) in &transaction.seen {
            topics.entry(&self.backlogs[*partition].topic).or_default().0 += count;
        }
        for (topic, events) in &transaction.expected {
            topics.entry(topic).or_default().1 = Some(*events);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, (seen, of))| (topic.name.clone(), seen, of));
        AbandonedTransaction {
            id: id.clone(),
            topics: topics.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
