//! What an arrangement of rows held before some batches, one key at a time.
//!
//! In place of differential's `CursorList`, whose `seek_val` also moves the cursors that are at other keys, and
//! panics at those that have run out of keys.

use differential_dataflow::trace::{BatchReader, Cursor, Navigable, TraceReader};

use crate::repr::{Diff, RowRef, RowValSpine};

/// A batch of rows by key.
pub(super) type Batch = <RowValSpine as TraceReader>::Batch;

/// The values of one key in several batches, merged.
pub(super) struct Past<'a> {
    batches: &'a [Batch],
    cursors: Vec<<Batch as Navigable>::Cursor>,
    /// Which batches hold the key.
    holders: Vec<usize>,
}

impl<'a> Past<'a> {
    /// Before the first key.
    pub fn new(batches: &'a [Batch]) -> Self {
        Past {
            batches,
            cursors: batches.iter().map(|batch| batch.cursor()).collect(),
            holders: vec![],
        }
    }

    /// Moves on to a key (keys must ascend), before its first value.
    pub fn seek_key(&mut self, key: RowRef<'_>) {
        self.holders.clear();
        for (index, (cursor, batch)) in self.cursors.iter_mut().zip(self.batches).enumerate() {
            if !batch.is_empty() {
                cursor.seek_key(batch, key);
                if cursor.get_key(batch) == Some(key) {
                    self.holders.push(index);
                }
            }
        }
    }

    /// Back to the key's first value.
    pub fn rewind(&mut self) {
        for index in &self.holders {
            self.cursors[*index].rewind_vals(&self.batches[*index]);
        }
    }

    /// Moves on to a value (values must ascend between rewinds), or to the first behind it.
    pub fn seek(&mut self, value: RowRef<'_>) {
        for index in &self.holders {
            self.cursors[*index].seek_val(&self.batches[*index], value);
        }
    }

    /// How often the key has a value; moves on to it.
    pub fn count(&mut self, value: RowRef<'_>) -> Diff {
        self.seek(value);
        self.take(value, false)
    }

    /// The value at hand and how often it is there; moves on to the next.
    pub fn next(&mut self) -> Option<(RowRef<'a>, Diff)> {
        let batches = self.batches;
        let values = self
            .holders
            .iter()
            .filter_map(|index| self.cursors[*index].get_val(&batches[*index]));
        let value = values.min()?;
        let count = self.take(value, true);
        Some((value, count))
    }

    fn take(&mut self, value: RowRef<'_>, step: bool) -> Diff {
        let mut count = 0;
        for index in &self.holders {
            let (cursor, batch) = (&mut self.cursors[*index], &self.batches[*index]);
            if cursor.get_val(batch) == Some(value) {
                cursor.map_times(batch, |_, diff| count += diff);
                if step {
                    cursor.step_val(batch);
                }
            }
        }
        count
    }
}
