//! The values that a key has in several batches, merged, read from either end as of a moment.
//!
//! Reads the batches' storage itself: differential's cursors go one way, and its `CursorList` moves on the
//! cursors that are at other keys, too.

use std::ops::{Deref, Range};

use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{BatchReader, TraceReader};

use crate::repr::{Diff, Epoch, RowArena, RowRef, RowValSpine};

/// A batch of rows by key.
pub(super) type Batch = <RowValSpine as TraceReader>::Batch;
type Stored = <Batch as Deref>::Target;

/// A way through the keys of a batch, ascending.
pub(super) struct Keys<'a> {
    keys: &'a RowArena,
    at: usize,
}

impl<'a> Keys<'a> {
    /// Before the first key.
    pub fn new(keys: &'a RowArena) -> Self {
        Keys { keys, at: 0 }
    }

    /// The key at hand.
    #[inline]
    pub fn get(&self) -> Option<RowRef<'a>> {
        (self.at < self.keys.len()).then(|| self.keys.index(self.at))
    }

    /// The position of a key, if it is there; moves on to it (keys must ascend), or to the first behind it.
    #[inline]
    pub fn seek(&mut self, key: RowRef<'_>) -> Option<usize> {
        self.at += (self.keys).advance(self.at, self.keys.len(), |other| other.bytes() < key.bytes());
        (self.get()?.bytes() == key.bytes()).then_some(self.at)
    }

    /// Moves on to the next key.
    #[inline]
    pub fn step(&mut self) {
        self.at += 1;
    }
}

/// An end of a key's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Least,
    Greatest,
}

impl End {
    /// Whether `value` is nearer to this end than `other`.
    #[inline]
    pub fn is_nearer(self, value: RowRef<'_>, other: RowRef<'_>) -> bool {
        match self {
            End::Least => value.bytes() < other.bytes(),
            End::Greatest => value.bytes() > other.bytes(),
        }
    }
}

/// The values of one key in several batches.
pub(super) struct History<'a> {
    batches: Vec<(&'a Stored, Keys<'a>)>,
    /// How many of them are older than the others.
    older: usize,
    /// Of the batches that have the key.
    holders: Vec<Holder<'a>>,
    older_holders: usize,
}

impl<'a> History<'a> {
    /// Of these batches, the first few of them `older`; before the first key.
    pub fn new(batches: &'a [Batch], older: usize) -> Self {
        let filled = |batch: &&Batch| !batch.is_empty();
        let filled_and_older = batches[..older].iter().filter(filled).count();
        let batches = batches.iter().filter(filled);
        History {
            batches: batches
                .map(|batch| (&**batch, Keys::new(&batch.storage.keys)))
                .collect(),
            older: filled_and_older,
            holders: vec![],
            older_holders: 0,
        }
    }

    /// Moves on to a key; keys must ascend.
    pub fn seek_key(&mut self, key: RowRef<'_>) {
        self.holders.clear();
        self.older_holders = 0;
        for (index, (batch, keys)) in self.batches.iter_mut().enumerate() {
            if let Some(key) = keys.seek(key) {
                let (start, end) = batch.storage.vals.bounds(key);
                self.holders.push(Holder {
                    batch,
                    values: start..end,
                    at: start,
                });
                self.older_holders += usize::from(index < self.older);
            }
        }
    }

    /// How often the key has a value before a time. Quickest for values that ascend.
    pub fn count(&mut self, value: RowRef<'_>, until: Epoch) -> Diff {
        self.holders.iter_mut().map(|holder| holder.count(value, until)).sum()
    }

    /// Looks from an end for the first value that is there before a time; from value `from` on, if that is given.
    /// `older`: in the older batches alone.
    pub fn search(&mut self, end: End, from: Option<RowRef<'_>>, until: Epoch, older: bool) -> Found<'a> {
        let holders = match older {
            true => &mut self.holders[..self.older_holders],
            false => &mut self.holders[..],
        };
        holders.iter_mut().for_each(|holder| holder.begin(end, from));
        let mut found = Found::default();
        loop {
            let values = holders.iter().filter_map(|holder| holder.peek(end));
            let nearest = match end {
                End::Least => values.min(),
                End::Greatest => values.max(),
            };
            let Some(value) = nearest else { break };
            let with_it = holders.iter_mut().filter(|holder| holder.peek(end) == Some(value));
            let count: Diff = with_it.map(|holder| holder.take(end, until)).sum();
            if count > 0 {
                found.value = Some(value);
                break;
            }
            found.passed += 1;
            found.last_passed = Some(value);
        }
        // What `count` relies on.
        holders.iter_mut().for_each(|holder| holder.at = holder.values.start);
        found
    }
}

/// What a search came to.
#[derive(Clone, Copy, Default)]
pub(super) struct Found<'a> {
    pub value: Option<RowRef<'a>>,
    /// How many values were not there.
    pub passed: usize,
    /// The last of them.
    pub last_passed: Option<RowRef<'a>>,
}

/// The key's values in one batch.
struct Holder<'a> {
    batch: &'a Stored,
    /// Where they are among all keys'.
    values: Range<usize>,
    /// Everything before it is less than what was looked for last; while searching for the greatest, what is behind it
    /// has been passed.
    at: usize,
}

impl<'a> Holder<'a> {
    #[inline]
    fn value(&self, index: usize) -> RowRef<'a> {
        self.batch.storage.vals.get_abs(index)
    }

    /// How often the value at this position is there before a time.
    #[inline]
    fn counted(&self, index: usize, until: Epoch) -> Diff {
        let updates = &self.batch.storage.upds;
        let (start, end) = updates.bounds(index);
        (start..end)
            .filter(|update| updates.times[*update] < until)
            .map(|update| updates.diffs[update])
            .sum()
    }

    fn count(&mut self, value: RowRef<'_>, until: Epoch) -> Diff {
        if self.at > self.values.start && self.value(self.at - 1) >= value {
            self.at = self.values.start;
        }
        self.at += self.less(self.at, value);
        match self.at < self.values.end && self.value(self.at) == value {
            true => self.counted(self.at, until),
            false => 0,
        }
    }

    /// How many values from a position on are less than this one.
    fn less(&self, start: usize, value: RowRef<'_>) -> usize {
        let values = &self.batch.storage.vals.vals;
        values.advance(start, self.values.end, |other| other.bytes() < value.bytes())
    }

    fn begin(&mut self, end: End, from: Option<RowRef<'_>>) {
        let Range { start, end: behind } = self.values;
        self.at = match (end, from) {
            (End::Least, None) => start,
            (End::Greatest, None) => behind,
            (End::Least, Some(from)) => start + self.less(start, from),
            (End::Greatest, Some(from)) => {
                let at = start + self.less(start, from);
                at + usize::from(at < behind && self.value(at) == from)
            }
        };
    }

    #[inline]
    fn peek(&self, end: End) -> Option<RowRef<'a>> {
        match end {
            End::Least => (self.at < self.values.end).then(|| self.value(self.at)),
            End::Greatest => (self.at > self.values.start).then(|| self.value(self.at - 1)),
        }
    }

    /// How often the value at hand is there; moves on to the next.
    #[inline]
    fn take(&mut self, end: End, until: Epoch) -> Diff {
        match end {
            End::Least => {
                self.at += 1;
                self.counted(self.at - 1, until)
            }
            End::Greatest => {
                self.at -= 1;
                self.counted(self.at, until)
            }
        }
    }
}
