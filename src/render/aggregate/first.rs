//! min and max: the first value of each group, in the order of the values' bytes.
//!
//! The arrangement keeps a group's values sorted, so the first is found by seeking, not by reading the group:
//!
//! 1. Values that are gone may still stand in the arrangement, until it is compacted. Where a search has passed over
//!    more than a few of them, the operator remembers how far it came: nothing before that bound is there, and
//!    the next search begins at it.
//! 2. A new value is compared with the first; only when the first itself goes does the search move on, from
//!    where it was, to the next value that is there.
//!
//! An update of a group of n values so costs O(log n), and one record of state for each value. (Reducing in levels
//! of buckets would cost an arrangement for each level, every one of them as large as the input where groups are
//! small, as they mostly are.)

use std::collections::BTreeMap;

use differential_dataflow::trace::Cursor;
use differential_dataflow::trace::cursor::cursor_list;
use hashbrown::HashMap;
use timely::dataflow::Stream;

use super::collate::fragment;
use super::front::{Keyed, invert};
use super::past::Past;
use crate::render::arrange::{ByKey, answer};
use crate::repr::{Diff, Epoch, Row, RowRef, RowValSpine};

/// Values passed over in one search from which on its end is remembered.
const PASSED: usize = 16;

/// The first value of each group, as fragments with this tag. `inverted`: values are, and are turned back.
pub(super) fn fragments<'s>(
    arranged: ByKey<'s>,
    tag: u16,
    inverted: bool,
    name: &str,
) -> Stream<'s, Epoch, Vec<Keyed>> {
    let mut bounds: HashMap<Row, Row> = HashMap::new();
    let (fragments, _) = answer::<RowValSpine, Keyed, _>(arranged, name, move |before, batches, ok, _| {
        let mut old = Past::new(&before);
        let (mut new, new_storage) = cursor_list(batches);
        let mut updates: Vec<(Epoch, RowRef<'_>, Diff)> = vec![];
        while let Some(key) = new.get_key(&new_storage) {
            updates.clear();
            while let Some(value) = new.get_val(&new_storage) {
                new.map_times(&new_storage, |time, diff| updates.push((*time, value, *diff)));
                new.step_val(&new_storage);
            }
            updates.sort_unstable();
            old.seek_key(key);
            let mut group = Group {
                old: &mut old,
                changed: BTreeMap::new(),
                passed: 0,
                last_passed: RowRef::new(&[]),
            };
            let key = key.to_row();
            let bound = if bounds.is_empty() {
                None
            } else {
                bounds.get(&key).cloned()
            };
            let mut first = group.search(RowRef::new(bound.as_ref().map_or(&[], Row::bytes)));
            for updates in updates.chunk_by(|(time, _, _), (other, _, _)| time == other) {
                let next = group.advance(first.as_ref(), updates);
                if next != first {
                    let mut give = |value: &Row, diff| {
                        let value = match inverted {
                            true => fragment(tag, invert(value.bytes()).bytes()),
                            false => fragment(tag, value.bytes()),
                        };
                        ok(((key.clone(), value), updates[0].0, diff));
                    };
                    first.iter().for_each(|value| give(value, -1));
                    next.iter().for_each(|value| give(value, 1));
                    first = next;
                }
            }
            // By (1): a bound moves up with the search, and down to a first value before it.
            let reached = match group.passed > PASSED {
                true => Some(first.unwrap_or_else(|| group.last_passed.to_row())),
                false => first.filter(|first| bound.is_some_and(|bound| *first < bound)),
            };
            if let Some(reached) = reached {
                bounds.insert(key, reached);
            }
            new.step_key(&new_storage);
        }
    });
    fragments
}

/// One group: what it held before the batches, and how the batches have changed it so far.
struct Group<'a, 'b> {
    old: &'a mut Past<'b>,
    changed: BTreeMap<RowRef<'b>, Diff>,
    /// How many values searches found gone.
    passed: usize,
    /// The last of them.
    last_passed: RowRef<'b>,
}

impl<'b> Group<'_, 'b> {
    /// The first value after the updates of one time; `first` was it before them.
    fn advance(&mut self, first: Option<&Row>, updates: &[(Epoch, RowRef<'b>, Diff)]) -> Option<Row> {
        for (_, value, diff) in updates {
            *self.changed.entry(*value).or_default() += diff;
        }
        // Values come in order, so the first of them that is there is the least.
        self.old.rewind();
        for (_, value, _) in updates {
            if first.is_some_and(|first| first.bytes() <= value.bytes()) {
                break;
            }
            if self.changed[value] + self.old.count(*value) > 0 {
                return Some(value.to_row());
            }
        }
        // Nothing before `first` is there; without one, nothing was, and nothing came.
        first.and_then(|first| self.search(RowRef::new(first.bytes())))
    }

    /// The first value from `from` on that is there.
    fn search(&mut self, from: RowRef<'_>) -> Option<Row> {
        let mut changed = self.changed.range(from..).peekable();
        self.old.rewind();
        self.old.seek(from);
        while let Some((value, count)) = self.old.next() {
            while let Some((other, count)) = changed.next_if(|(other, _)| **other < value) {
                if *count > 0 {
                    return Some(other.to_row());
                }
            }
            let change = changed
                .next_if(|(other, _)| **other == value)
                .map_or(0, |(_, change)| *change);
            if count + change > 0 {
                return Some(value.to_row());
            }
            self.passed += 1;
            self.last_passed = value;
        }
        changed.find(|(_, count)| **count > 0).map(|(value, _)| value.to_row())
    }
}
