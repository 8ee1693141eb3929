//! The values of a key in several batches, merged, and read from either end as of a time.
//!
//! Reads the batches' storage directly: differential's cursors move in one direction only, and its `CursorList` also
//! moves the cursors that are at other keys.

use std::ops::{Deref, Range};

use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{BatchReader, TraceReader};

use crate::repr::{Diff, Epoch, RowArena, RowRef, RowValSpine};

/// A batch of rows by key.
pub(super) type RowBatch = <RowValSpine as TraceReader>::Batch;
type Stored = <RowBatch as Deref>::Target;

/// A cursor over the keys of a batch, ascending.
pub(super) struct KeyCursor<'a> {
    keys: &'a RowArena,
    at: usize,
}

impl<'a> KeyCursor<'a> {
    /// Starts at the first key.
    pub fn new(keys: &'a RowArena) -> Self {
        KeyCursor { keys, at: 0 }
    }

    /// The current key.
    #[inline]
    pub fn get(&self) -> Option<RowRef<'a>> {
        (self.at < self.keys.len()).then(|| self.keys.index(self.at))
    }

    /// Moves to a key, or to the first key behind it. Returns the key's position if it is there. Keys must ascend.
    #[inline]
    pub fn seek(&mut self, key: RowRef<'_>) -> Option<usize> {
        self.at += (self.keys).advance(self.at, self.keys.len(), |other| other.bytes() < key.bytes());
        (self.get()?.bytes() == key.bytes()).then_some(self.at)
    }

    /// Moves to the next key.
    #[inline]
    pub fn step(&mut self) {
        self.at += 1;
    }
}

/// One end of a key's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extremum {
    Least,
    Greatest,
}

impl Extremum {
    /// Whether `value` is nearer to this end than `other`.
    #[inline]
    pub fn is_nearer(self, value: RowRef<'_>, other: RowRef<'_>) -> bool {
        match self {
            Extremum::Least => value.bytes() < other.bytes(),
            Extremum::Greatest => value.bytes() > other.bytes(),
        }
    }
}

/// The values of one key in several batches.
pub(super) struct ValueHistory<'a> {
    batches: Vec<(&'a Stored, KeyCursor<'a>)>,
    /// How many of the batches, at the front, count as older.
    older: usize,
    /// The batches that have the current key.
    holders: Vec<Holder<'a>>,
    older_holders: usize,
}

impl<'a> ValueHistory<'a> {
    /// Reads these batches, of which the first `older` count as older. Starts before the first key.
    pub fn new(batches: &'a [RowBatch], older: usize) -> Self {
        let filled = |batch: &&RowBatch| !batch.is_empty();
        let filled_and_older = batches[..older].iter().filter(filled).count();
        let batches = batches.iter().filter(filled);
        ValueHistory {
            batches: batches
                .map(|batch| (&**batch, KeyCursor::new(&batch.storage.keys)))
                .collect(),
            older: filled_and_older,
            holders: vec![],
            older_holders: 0,
        }
    }

    /// Moves to a key; keys must ascend.
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

    /// The count of a value before a time. Fastest if values ascend from call to call.
    pub fn count(&mut self, value: RowRef<'_>, until: Epoch) -> Diff {
        self.holders.iter_mut().map(|holder| holder.count(value, until)).sum()
    }

    /// Searches from an end for the first value that is there before a time, beginning at value `from` if that is
    /// given. With `older`, only the older batches are searched.
    pub fn search(&mut self, end: Extremum, from: Option<RowRef<'_>>, until: Epoch, older: bool) -> ValueSearch<'a> {
        let holders = match older {
            true => &mut self.holders[..self.older_holders],
            false => &mut self.holders[..],
        };
        holders.iter_mut().for_each(|holder| holder.begin(end, from));
        let mut search = ValueSearch::default();
        loop {
            let values = holders.iter().filter_map(|holder| holder.peek(end));
            let nearest = match end {
                Extremum::Least => values.min(),
                Extremum::Greatest => values.max(),
            };
            let Some(value) = nearest else { break };
            let with_it = holders.iter_mut().filter(|holder| holder.peek(end) == Some(value));
            let count: Diff = with_it.map(|holder| holder.take_count(end, until)).sum();
            if count > 0 {
                search.value = Some(value);
                break;
            }
            search.passed += 1;
            search.last_passed = Some(value);
        }
        // `count` relies on this position.
        holders.iter_mut().for_each(|holder| holder.at = holder.values.start);
        search
    }
}

/// The result of a search.
#[derive(Clone, Copy, Default)]
pub(super) struct ValueSearch<'a> {
    pub value: Option<RowRef<'a>>,
    /// How many deleted values were skipped.
    pub passed: usize,
    /// The last of them.
    pub last_passed: Option<RowRef<'a>>,
}

/// The current key's values in one batch.
struct Holder<'a> {
    batch: &'a Stored,
    /// Their positions among all values of the batch.
    values: Range<usize>,
    /// Every value before this position is less than the last value that `count` looked for. During a search for the
    /// greatest value, the values behind it have been visited.
    at: usize,
}

impl<'a> Holder<'a> {
    #[inline]
    fn value(&self, index: usize) -> RowRef<'a> {
        self.batch.storage.vals.get_abs(index)
    }

    /// The count before a time of the value at this position.
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

    /// How many values from a position on are less than `value`.
    fn less(&self, start: usize, value: RowRef<'_>) -> usize {
        let values = &self.batch.storage.vals.vals;
        values.advance(start, self.values.end, |other| other.bytes() < value.bytes())
    }

    fn begin(&mut self, end: Extremum, from: Option<RowRef<'_>>) {
        let Range { start, end: behind } = self.values;
        self.at = match (end, from) {
            (Extremum::Least, None) => start,
            (Extremum::Greatest, None) => behind,
            (Extremum::Least, Some(from)) => start + self.less(start, from),
            (Extremum::Greatest, Some(from)) => {
                let at = start + self.less(start, from);
                at + usize::from(at < behind && self.value(at) == from)
            }
        };
    }

    #[inline]
    fn peek(&self, end: Extremum) -> Option<RowRef<'a>> {
        match end {
            Extremum::Least => (self.at < self.values.end).then(|| self.value(self.at)),
            Extremum::Greatest => (self.at > self.values.start).then(|| self.value(self.at - 1)),
        }
    }

    /// Returns the count of the current value, and moves to the next one.
    #[inline]
    fn take_count(&mut self, end: Extremum, until: Epoch) -> Diff {
        match end {
            Extremum::Least => {
                self.at += 1;
                self.counted(self.at - 1, until)
            }
            Extremum::Greatest => {
                self.at -= 1;
                self.counted(self.at, until)
            }
        }
    }
}
