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
//! 3. Only tables that are read count, for each feed that reads them: those whose topic is, the source's prefix and the
//!    table's name (`shop.public.orders` for `public.orders`), or any topic whose name ends so. It need not be there yet.
//! 4. What comes again of a transaction that has gone on (a connector that was restarted) waits for nothing: those are
//!    remembered for a while.
//! 5. A connector that was killed amid a transaction goes on amid it, numbers its events from 1 again, and its END counts
//!    those alone, and only the tables that they are of. So where a second BEGIN came, or an order fell, counts say
//!    nothing: such a transaction is whole once its END is here and every partition has passed it (6), a while after the
//!    END.
//! 6. A partition has passed a transaction once it holds another that is behind it in the order of commits, or all was
//!    read that was there after the transaction's deadline. That its end was reached earlier says nothing, for its reader
//!    may not be heard; nor do records of no transaction: a tombstone follows each delete, amid its transaction.
//!    A transaction that does not become whole within the wait is given up, and named, once every partition that could
//!    bring what it lacks has passed it. Without an END it is given up once the END will not come, and each partition that
//!    holds it has passed it, or is full with it (so that it is not read) and its source is seen to be at other things, or
//!    silent for the wait. It goes on as it is.
//! 7. A transaction larger than what a stash may hold goes on as it comes once its END is known and it is its turn, in
//!    releases that belong together; nothing goes on meanwhile but what is of no transaction and between its records.
//! 8. A partition that is read for the first time holds records from before the first END that is read. Transactions of
//!    them alone, without an END once all markers are read, are history: they go on as they are, and are not named.
//! 9. What waits is bounded: by records and bytes for each partition, and by markers. A partition that is full is not read
//!    on. That stops nobody for good: the transaction that is next is whole, or streams (7), or is given up (6).

mod judge;
mod stash;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use judge::Verdict;
use stash::{End, Ends, Recent, Stash, Transaction};
pub use stash::{GivenUp, Id, Look, Release, Segment, Topic};

/// How long after an END its partitions are watched, where counts say nothing.
const SETTLING: Duration = Duration::from_secs(1);

/// Whether a feed reads a topic, once that is there.
pub type ReadsTopic = Box<dyn Fn(&str) -> bool + Send>;

/// What is read of a source.
pub struct Reads {
    /// In front of a table's name in its topic's.
    pub prefix: String,
    /// By feed.
    pub feeds: Vec<ReadsTopic>,
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// By (9), what may wait; and how large a release grows, unless one transaction makes it larger.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records of a partition.
    pub records: usize,
    /// Bytes of all partitions, each of which may have its part.
    pub bytes: usize,
    pub markers: usize,
    pub release: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct Gate {
    reads: Reads,
    wait: Duration,
    limits: Limits,
    stashes: Vec<Stash>,
    transactions: HashMap<Id, Transaction>,
    /// Markers in their order: the transaction that one ends; none: it ends nothing.
    markers: VecDeque<Option<Id>>,
    marker_ends: Ends,
    /// By (8): there were ENDs before the first that is read.
    has_history: bool,
    /// ENDs that came.
    ended: u64,
    /// The newest BEGIN, and a time before it was written.
    began: Option<(Instant, Id)>,
    /// The transaction that goes on as it comes.
    streaming: Option<Id>,
    /// What has gone on.
    gone: Recent,
    /// BEGINs that came.
    begun: Recent,
    /// A transaction is judged by where partitions end now.
    asks: bool,
    /// A transaction is past its wait.
    overdue: Option<Id>,
}

impl Gate {
    pub fn new(reads: Reads, wait: Duration, limits: Limits) -> Self {
        Gate {
            reads,
            wait,
            limits,
            stashes: Vec::new(),
            transactions: HashMap::new(),
            markers: VecDeque::new(),
            marker_ends: Ends::default(),
            has_history: false,
            ended: 0,
            began: None,
            streaming: None,
            gone: Recent::default(),
            begun: Recent::default(),
            asks: false,
            overdue: None,
        }
    }

    /// A partition that is read; answers its number.
    pub fn add_partition(&mut self, topic: Topic) -> usize {
        self.stashes.push(Stash {
            topic,
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
            stash.records += segment.records;
            stash.bytes += segment.bytes;
            let follows = stash.segments.back().is_some_and(|last| last.id == segment.id);
            if let Some(id) = &segment.id {
                let transaction = self
                    .transactions
                    .entry(id.clone())
                    .or_insert_with(|| Transaction::new(now));
                transaction.observe(partition, &segment, now);
                if !follows {
                    *transaction.segments.entry(partition).or_default() += 1;
                }
            }
            match stash.segments.back_mut().filter(|_| follows) {
                Some(last) => {
                    last.records += segment.records;
                    last.bytes += segment.bytes;
                    last.orders.1 = segment.orders.1;
                }
                None => stash.segments.push_back(segment),
            }
        }
    }

    /// Where a partition ends.
    pub fn observe_look(&mut self, partition: usize, look: Look) {
        self.stashes[partition].ends.observe(look);
    }

    /// The same of the markers.
    pub fn observe_look_at_markers(&mut self, look: Look) {
        self.marker_ends.observe(look);
    }

    /// Markers are read; from the first that ever was?
    pub fn observe_first_marker(&mut self, is_first_of_all: bool) {
        self.has_history = !is_first_of_all;
    }

    /// A transaction's BEGIN came.
    pub fn observe_begin(&mut self, id: &str) {
        self.observe_marker();
        let id: Id = id.into();
        if self.begun.contains(&id)
            && let Some(transaction) = self.transactions.get_mut(&id)
        {
            transaction.resumed = true;
        }
        // It is behind all that was there when the markers were at their end.
        self.began = self
            .marker_ends
            .read()
            .map(|read| (read, id.clone()))
            .or(self.began.take());
        self.begun.insert(id);
    }

    /// A marker came that ends nothing.
    pub fn observe_marker(&mut self) {
        self.markers.push_back(None);
    }

    /// A transaction's END came: how many events each table has of it.
    pub fn observe_end(&mut self, id: &str, tables: &[(String, u64)], now: Instant) {
        let id: Id = id.into();
        let again = self.gone.contains(&id) || self.transactions.get(&id).is_some_and(|t| t.end.is_some());
        if again {
            self.markers.push_back(None);
            return;
        }
        let transaction = self
            .transactions
            .entry(id.clone())
            .or_insert_with(|| Transaction::new(now));
        transaction.end = Some(End {
            number: self.ended,
            tables: tables.to_vec(),
        });
        self.ended += 1;
        transaction.since = now;
        transaction.resumed |= self.begun.count(&id) > 1;
        self.expect(&id);
        self.markers.push_back(Some(id));
    }

    /// Works out what a transaction has by topic.
    fn expect(&mut self, id: &Id) {
        let mut expected = BTreeMap::new();
        for (table, events) in self.transactions[id].end.iter().flat_map(|end| &end.tables) {
            for topic in self.topics_of(table) {
                *expected.entry(topic).or_default() += events;
            }
        }
        self.transactions.get_mut(id).expect("it waits").expected = expected;
    }

    /// By (3), the topic of a table, for each feed that reads it.
    fn topics_of(&self, table: &str) -> Vec<Topic> {
        // What no topic's name may hold, Debezium replaces.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let table: String = table.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        let usual = format!("{}.{table}", self.reads.prefix);
        let of_feed = |(feed, reads): (usize, &ReadsTopic)| {
            if reads(&usual) {
                return Some(Topic {
                    feed,
                    name: usual.clone(),
                });
            }
            let mut topics = self.stashes.iter().map(|stash| &stash.topic);
            let topic = topics.find(|topic| {
                let before = topic.name.strip_suffix(table.as_str()).filter(|_| topic.feed == feed);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            });
            topic.cloned()
        };
        self.reads.feeds.iter().enumerate().filter_map(of_feed).collect()
    }

    /// By (9), whether a partition should bring nothing more for now.
    pub fn is_full(&self, partition: usize) -> bool {
        let stash = &self.stashes[partition];
        stash.records >= self.limits.records || stash.bytes >= self.limits.bytes / self.stashes.len()
    }

    /// The same of the markers.
    pub fn are_markers_full(&self) -> bool {
        self.markers.len() >= self.limits.markers
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.stashes.iter().all(|stash| stash.segments.is_empty())
    }

    /// Whether something may have to be given up, though nothing more comes.
    pub fn waits(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// Markers that came and are not done with: none of them belongs to what has gone on.
    pub fn markers(&self) -> usize {
        self.markers.len()
    }

    /// Whether something can be decided once partitions were looked at now, and what was read that is there.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// A transaction that waits for longer than the wait, because what it lacks may still come.
    pub fn overdue(&self) -> Option<GivenUp> {
        Some(self.given_up(self.overdue.as_ref()?))
    }

    /// Transactions that have no END; nothing of one may have gone on.
    pub fn open(&self) -> Vec<GivenUp> {
        let open = self
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.end.is_none());
        open.map(|(id, _)| self.given_up(id)).collect()
    }

    /// What may go on now, if anything may.
    pub fn next_release(&mut self, now: Instant) -> Option<Release> {
        let mut release = Release::default();
        (self.asks, self.overdue) = (false, None);
        loop {
            self.release_free(&mut release);
            // Any of these is a boundary between transactions.
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
            // Before their segments go, by which some are judged.
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
            if streaming.is_some() || (0..self.stashes.len()).any(|partition| self.is_stuck_behind(partition, &id)) {
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

    /// The transaction that is next: by the order of ENDs, or one that will have none, where the next waits for something
    /// that may be behind it. A full partition alone decides nothing: the END of what is before it in another one may be on
    /// its way.
    fn next(&mut self, release: &mut Release, now: Instant) -> Option<Id> {
        self.release_markers(release);
        let next = self.markers.front().cloned().flatten();
        let goes = |id: &Id| {
            let mut partitions = 0..self.stashes.len();
            self.is_whole(id, now) == Verdict::Yes || partitions.any(|partition| self.is_stuck_behind(partition, id))
        };
        match next {
            Some(id) if goes(&id) => Some(id),
            next => self.next_lost(now).or(next),
        }
    }

    /// A transaction without an END that can wait no longer, by (6) and (8), with nothing before it that could.
    fn next_lost(&mut self, now: Instant) -> Option<Id> {
        let heads: BTreeSet<Id> = self.stashes.iter().filter_map(|stash| stash.head().cloned()).collect();
        heads.into_iter().find(|id| {
            let is_open = |id: &Id| self.transactions[id].end.is_none();
            // Most are not old enough to be looked at further.
            if !is_open(id) || now < self.transactions[id].since + self.patience(id) {
                return false;
            }
            let together: Vec<Id> = self.together(id).into_iter().collect();
            together.iter().all(is_open) && self.must_give_up_all(&together.iter().collect::<Vec<_>>(), now)
        })
    }

    /// Whether each can wait no longer; notes those of which that is not certain.
    fn must_give_up_all(&mut self, ids: &[&Id], now: Instant) -> bool {
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

    /// By (8), what waits for less, and is not named.
    fn is_history(&self, id: &Id) -> bool {
        let transaction = &self.transactions[id];
        self.has_history && transaction.old && transaction.end.is_none()
    }

    fn named(&self, id: &Id) -> Option<GivenUp> {
        (!self.is_history(id)).then(|| self.given_up(id))
    }

    /// Whether a stash begins with what is of no transaction that waits.
    fn is_free(&self, partition: usize) -> bool {
        let head = self.stashes[partition].segments.front();
        head.is_some_and(|head| head.id.as_ref().is_none_or(|id| !self.transactions.contains_key(id)))
    }

    /// What is of no transaction that waits, and behind nothing that does.
    fn release_free(&mut self, release: &mut Release) {
        if self.streaming.is_some() {
            return;
        }
        for partition in 0..self.stashes.len() {
            while self.is_free(partition) {
                let room = self.limits.release.saturating_sub(release.rows());
                let head = self.stashes[partition].segments.front_mut().expect("it is free");
                if room == 0 {
                    return;
                }
                if head.records <= room {
                    self.pop(partition, release);
                    continue;
                }
                // It has no inside that must stay together.
                let bytes = head.bytes / head.records * room;
                head.records -= room;
                head.bytes -= bytes;
                let stash = &mut self.stashes[partition];
                stash.records -= room;
                stash.bytes -= bytes;
                *release.records.entry(partition).or_default() += room;
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

    /// Takes transactions' segments, and what is before them.
    fn take(&mut self, ids: &BTreeSet<Id>, release: &mut Release) {
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for id in ids {
            let transaction = &self.transactions[id];
            for (partition, count) in &transaction.segments {
                *left.entry(*partition).or_default() += count;
                self.stashes[*partition].told |= transaction.end.is_some();
            }
        }
        for (partition, mut left) in left {
            while left > 0 {
                let head = self.pop(partition, release);
                left -= usize::from(head.id.is_some_and(|id| ids.contains(&id)));
            }
        }
    }

    /// Takes a transaction's segments that nothing is before that waits; and by (7) what is between them, lest a partition
    /// fill up with the rest.
    fn take_heads(&mut self, id: &Id, release: &mut Release) {
        for partition in 0..self.stashes.len() {
            loop {
                let is_own = self.stashes[partition].head() == Some(id);
                if !is_own && !self.is_free(partition) {
                    break;
                }
                self.pop(partition, release);
                if is_own {
                    self.stashes[partition].told = true;
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
        let stash = &mut self.stashes[partition];
        let head = stash.segments.pop_front().expect("as many as were counted wait");
        stash.records -= head.records;
        stash.bytes -= head.bytes;
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
        let mut topics: BTreeMap<&Topic, (u64, Option<u64>)> = BTreeMap::new();
        for (partition, (count, _)) in &transaction.seen {
            topics.entry(&self.stashes[*partition].topic).or_default().0 += count;
        }
        for (topic, events) in &transaction.expected {
            topics.entry(topic).or_default().1 = Some(*events);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, (seen, of))| (topic.name.clone(), seen, of));
        GivenUp {
            id: id.clone(),
            topics: topics.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
