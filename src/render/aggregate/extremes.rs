//! min and max: the least and the greatest value of each group, in the order of the values' bytes.
//!
//! The arrangement keeps a group's values sorted, so both are found by seeking, not by reading the group:
//!
//! 1. Values that are gone may still stand in the arrangement, until it is compacted. Where a search has passed over
//!    more than a few of them, it is remembered how far it came: nothing beyond that bound is there, and
//!    the next search begins at it.
//! 2. A new value is compared with the extreme; only when the extreme itself goes does the search move on, from
//!    where it was, to the next value that is there.
//!
//! An update of a group of n values so costs O(log n), and one record of state for each value. (Reducing in levels
//! of buckets would cost an arrangement for each level, every one of them as large as the input where groups are
//! small, as they mostly are.)

use hashbrown::HashMap;

use super::history::{Batch, End, History, Keys};
use super::meet::Queued;
use crate::repr::{Epoch, Row, RowRef};

/// Values passed over in one search from which on its end is remembered.
const PASSED: usize = 16;
/// Bounds that are remembered: they are not told when their groups are gone.
const BOUNDS: usize = 1 << 16;

/// By (1), for one end of all groups' values.
#[derive(Default)]
pub(super) struct Bounds(HashMap<Row, Row>);

impl Bounds {
    #[inline]
    fn of(&self, key: RowRef<'_>) -> Option<&Row> {
        match self.0.is_empty() {
            true => None,
            false => self.0.get(key.bytes()),
        }
    }

    fn set(&mut self, key: RowRef<'_>, bound: RowRef<'_>) {
        if self.0.len() >= BOUNDS {
            self.0.clear();
        }
        self.0.insert(key.to_row(), bound.to_row());
    }
}

/// An extreme of the group at hand.
pub(super) struct Extreme<'a> {
    end: End,
    bounds: &'a mut Bounds,
    /// None: no value is there.
    pub value: Option<RowRef<'a>>,
    /// In the searches for this group: how many values were gone at the most, and the last of them.
    passed: usize,
    last_passed: Option<RowRef<'a>>,
}

impl<'a> Extreme<'a> {
    /// At an end; before the first group.
    pub fn new(end: End, bounds: &'a mut Bounds) -> Self {
        Extreme {
            end,
            bounds,
            value: None,
            passed: 0,
            last_passed: None,
        }
    }

    /// Turns to the group that `history` is at, as of what is before a time in older batches.
    fn begin(&mut self, key: RowRef<'_>, history: &mut History<'a>, from: Epoch) {
        (self.passed, self.last_passed) = (0, None);
        let bound = self.bounds.of(key).map(|bound| RowRef::new(bound.bytes()));
        let found = history.search(self.end, bound, from, true);
        (self.value, self.passed, self.last_passed) = (found.value, found.passed, found.last_passed);
    }

    /// Follows the updates of one time, whose values these are, ascending.
    fn advance(&mut self, history: &mut History<'a>, updates: &[(Epoch, RowRef<'a>)]) {
        let until = updates[0].0.saturating_add(1);
        let (mut ascending, mut descending) = (updates.iter(), updates.iter().rev());
        let mut next = || match self.end {
            End::Least => ascending.next(),
            End::Greatest => descending.next(),
        };
        // They come in order, so the first of them that is there is the nearest to the end.
        while let Some((_, value)) = next() {
            if let Some(extreme) = self.value
                && !self.end.is_nearer(*value, extreme)
            {
                if *value == extreme {
                    let found = history.search(self.end, Some(extreme), until, false);
                    self.value = found.value;
                    self.passed += found.passed;
                    self.last_passed = found.last_passed.or(self.last_passed);
                }
                return;
            }
            if history.count(*value, until) > 0 {
                self.value = Some(*value);
                return;
            }
        }
    }

    /// Leaves the group. By (1): a bound moves with the search, and back to an extreme beyond it.
    fn end(&mut self, key: RowRef<'_>) {
        let beyond = |extreme| {
            let bound = self.bounds.of(key);
            bound.is_some_and(|bound| self.end.is_nearer(extreme, RowRef::new(bound.bytes())))
        };
        let reached = match self.passed > PASSED {
            true => self.value.or(self.last_passed),
            false => self.value.filter(|extreme| beyond(*extreme)),
        };
        if let Some(reached) = reached {
            self.bounds.set(key, reached);
        }
    }
}

/// The values of one arrangement that is being answered, group by group.
pub(super) struct Values<'a> {
    history: History<'a>,
    /// The batches that are not answered yet.
    queue: Vec<(&'a Batch, Keys<'a>)>,
    from: Epoch,
    until: Epoch,
    /// Of the group at hand, sorted; those before `next` have been followed.
    updates: Vec<(Epoch, RowRef<'a>)>,
    next: usize,
    /// What is looked for.
    pub extremes: Vec<Extreme<'a>>,
}

impl<'a> Values<'a> {
    /// Of these batches, with the updates of times in `from..until` to be answered.
    pub fn new(
        batches: &'a [Batch],
        queued: Queued,
        (from, until): (Epoch, Epoch),
        extremes: Vec<Extreme<'a>>,
    ) -> Self {
        let queue = batches[queued.past..].iter();
        Values {
            history: History::new(batches, queued.begun),
            queue: queue.map(|batch| (batch, Keys::new(&batch.storage.keys))).collect(),
            from,
            until,
            updates: vec![],
            next: 0,
            extremes,
        }
    }

    /// The next key that has updates.
    pub fn key(&self) -> Option<RowRef<'a>> {
        self.queue.iter().filter_map(|(_, keys)| keys.get()).min()
    }

    /// Turns to a group; keys must ascend.
    pub fn begin(&mut self, key: RowRef<'_>) {
        self.updates.clear();
        self.next = 0;
        for (batch, keys) in &mut self.queue {
            let Some(position) = keys.seek(key) else { continue };
            keys.step();
            let (start, end) = batch.storage.vals.bounds(position);
            for value in start..end {
                let (first, behind) = batch.storage.upds.bounds(value);
                for time in &batch.storage.upds.times[first..behind] {
                    if (self.from..self.until).contains(time) {
                        self.updates.push((*time, batch.storage.vals.get_abs(value)));
                    }
                }
            }
        }
        self.updates.sort_unstable();
        self.history.seek_key(key);
        for extreme in &mut self.extremes {
            extreme.begin(key, &mut self.history, self.from);
        }
    }

    /// The time of the group's next updates.
    pub fn time(&self) -> Option<Epoch> {
        self.updates.get(self.next).map(|(time, _)| *time)
    }

    /// Follows the group's updates at a time.
    pub fn advance(&mut self, time: Epoch) {
        let rest = &self.updates[self.next..];
        let count = rest.iter().take_while(|(other, _)| *other == time).count();
        if count > 0 {
            for extreme in &mut self.extremes {
                extreme.advance(&mut self.history, &rest[..count]);
            }
            self.next += count;
        }
    }

    /// Leaves the group.
    pub fn end(&mut self, key: RowRef<'_>) {
        self.extremes.iter_mut().for_each(|extreme| extreme.end(key));
    }
}
