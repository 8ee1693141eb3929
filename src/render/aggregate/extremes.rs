//! min and max: the least and the greatest value of each group, in the order of the values' bytes.
//!
//! The arrangement keeps a group's values sorted, so both are found by seeking, without reading the group:
//!
//! 1. Deleted values stay in the arrangement until it is compacted. When a search has skipped more than a few of them,
//!    it remembers how far it came: no value is left before that bound, and the next search begins there.
//! 2. A new value is compared with the extreme. Only when the extreme itself is deleted does the search move on to the
//!    next value that is there.
//!
//! So an update of a group of n values costs O(log n), and the state is one record for each value. (A reduction in
//! levels of buckets would need an arrangement for each level, each as large as the input where groups are small, as
//! most are.)

use hashbrown::HashMap;

use super::history::{Extremum, KeyCursor, RowBatch, ValueHistory};
use super::meet::Queued;
use crate::repr::{Epoch, Row, RowRef};

/// After how many skipped values a search remembers where it ended.
const PASSED: usize = 16;
/// How many bounds are kept at most. Nothing removes the bound of a group that is gone, so all are dropped at this
/// number.
const BOUNDS: usize = 1 << 16;

/// The bounds of (1) for one end of all groups' values.
#[derive(Default)]
pub(super) struct GroupBounds(HashMap<Row, Row>);

impl GroupBounds {
    #[inline]
    fn bound_of(&self, key: RowRef<'_>) -> Option<&Row> {
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

/// Finds one extreme of the current group.
pub(super) struct Extreme<'a> {
    end: Extremum,
    bounds: &'a mut GroupBounds,
    /// The extreme; `None` if the group has no value.
    pub value: Option<RowRef<'a>>,
    /// The greatest number of deleted values that searches for this group skipped, and the last of them.
    passed: usize,
    last_passed: Option<RowRef<'a>>,
}

impl<'a> Extreme<'a> {
    /// Starts before the first group.
    pub fn new(end: Extremum, bounds: &'a mut GroupBounds) -> Self {
        Extreme {
            end,
            bounds,
            value: None,
            passed: 0,
            last_passed: None,
        }
    }

    /// Moves to the group that `history` is at, with its values before time `from`.
    fn begin(&mut self, key: RowRef<'_>, history: &mut ValueHistory<'a>, from: Epoch) {
        (self.passed, self.last_passed) = (0, None);
        let bound = self.bounds.bound_of(key).map(|bound| RowRef::new(bound.bytes()));
        let search = history.search(self.end, bound, from, true);
        (self.value, self.passed, self.last_passed) = (search.value, search.passed, search.last_passed);
    }

    /// Applies the updates of one time; their values are ascending.
    fn advance(&mut self, history: &mut ValueHistory<'a>, updates: &[(Epoch, RowRef<'a>)]) {
        let until = updates[0].0.saturating_add(1);
        let (mut ascending, mut descending) = (updates.iter(), updates.iter().rev());
        let mut next = || match self.end {
            Extremum::Least => ascending.next(),
            Extremum::Greatest => descending.next(),
        };
        // In this order, the first value that is there is the nearest to the end.
        while let Some((_, value)) = next() {
            if let Some(extreme) = self.value
                && !self.end.is_nearer(*value, extreme)
            {
                if *value == extreme {
                    let search = history.search(self.end, Some(extreme), until, false);
                    self.value = search.value;
                    self.passed += search.passed;
                    self.last_passed = search.last_passed.or(self.last_passed);
                }
                return;
            }
            if history.count(*value, until) > 0 {
                self.value = Some(*value);
                return;
            }
        }
    }

    /// Leaves the group. By (1), the bound moves with the search, and back if the extreme lies before it.
    fn end(&mut self, key: RowRef<'_>) {
        let beyond = |extreme| {
            let bound = self.bounds.bound_of(key);
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

/// Reads the values of one arrangement, group by group.
pub(super) struct GroupValues<'a> {
    history: ValueHistory<'a>,
    /// The batches that are not processed yet.
    queue: Vec<(&'a RowBatch, KeyCursor<'a>)>,
    from: Epoch,
    until: Epoch,
    /// The updates of the current group, sorted; those before `next` are applied.
    updates: Vec<(Epoch, RowRef<'a>)>,
    next: usize,
    /// The extremes to find.
    pub extremes: Vec<Extreme<'a>>,
}

impl<'a> GroupValues<'a> {
    /// Reads these batches, and processes the updates at times in `from..until`.
    pub fn new(
        batches: &'a [RowBatch],
        queued: Queued,
        (from, until): (Epoch, Epoch),
        extremes: Vec<Extreme<'a>>,
    ) -> Self {
        let queue = batches[queued.past..].iter();
        GroupValues {
            history: ValueHistory::new(batches, queued.begun),
            queue: queue
                .map(|batch| (batch, KeyCursor::new(&batch.storage.keys)))
                .collect(),
            from,
            until,
            updates: vec![],
            next: 0,
            extremes,
        }
    }

    /// The next key with updates.
    pub fn key(&self) -> Option<RowRef<'a>> {
        self.queue.iter().filter_map(|(_, keys)| keys.get()).min()
    }

    /// Moves to a group; keys must ascend.
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

    /// Applies the group's updates at a time.
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
