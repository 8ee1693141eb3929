//! Consolidation before the exchange: a table of the groups that a worker has seen since it last flushed, so
//! that a hot group becomes one update per worker and epoch.

use std::hash::{BuildHasher, Hasher};

use arrow::array::ArrayRef;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::accumulators::{Accumulators, Writer};
use super::measure::{Columns, Measures};
use crate::repr::{Diff, Epoch, Row};

/// Groups held before the table has to be flushed.
const FULL: usize = 1 << 16;

/// Groups, by key and epoch, with their accumulators.
pub(super) struct Local {
    measures: Measures,
    count_rows: bool,
    columns: Columns,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    hashes: Vec<u64>,
    keys: Vec<u8>,
    /// Group `i` has the key bytes `ends[i - 1]..ends[i]`.
    ends: Vec<usize>,
    times: Vec<Epoch>,
    /// The group of each row of the batch at hand.
    groups: Vec<u32>,
    writer: Writer,
}

impl Local {
    /// `count_rows`: whether the rows it is given are rows of the groups.
    pub fn new(measures: Measures, count_rows: bool) -> Self {
        Local {
            columns: Columns::new(&measures),
            measures,
            count_rows,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            hashes: vec![],
            keys: vec![],
            ends: vec![],
            times: vec![],
            groups: vec![],
            writer: Writer::default(),
        }
    }

    /// Adds a batch of rows: their keys, times and multiplicities, and the columns that measures refer to.
    pub fn add<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a [u8]>,
        times: impl Iterator<Item = Epoch>,
        diffs: &[Diff],
        columns: &[ArrayRef],
    ) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.clear();
        groups.extend(keys.zip(times).map(|(key, time)| self.group(key, time)));
        self.columns.add(
            &self.measures,
            &groups,
            self.times.len(),
            diffs,
            columns,
            self.count_rows,
        );
        self.groups = groups;
    }

    /// Whether it should be flushed before it grows further.
    pub fn is_full(&self) -> bool {
        self.times.len() >= FULL
    }

    /// Hands out every group and forgets it.
    pub fn flush(&mut self, mut give: impl FnMut(Row, Epoch, Accumulators)) {
        let mut start = 0;
        for group in 0..self.times.len() {
            let accumulators = self.columns.accumulators(&self.measures, group, &mut self.writer);
            if accumulators != Accumulators::default() {
                give(
                    Row::new(&self.keys[start..self.ends[group]]),
                    self.times[group],
                    accumulators,
                );
            }
            start = self.ends[group];
        }
        self.columns.clear();
        self.index.clear();
        self.hashes.clear();
        self.keys.clear();
        self.ends.clear();
        self.times.clear();
    }

    #[inline]
    fn group(&mut self, key: &[u8], time: Epoch) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.write_u64(time);
        let hash = hasher.finish();
        let (keys, ends, times) = (&self.keys, &self.ends, &self.times);
        let same = |group: &u32| {
            let group = *group as usize;
            let start = if group == 0 { 0 } else { ends[group - 1] };
            times[group] == time && &keys[start..ends[group]] == key
        };
        if let Some(group) = self.index.find(hash, same) {
            return *group;
        }
        let group = self.times.len() as u32;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.times.push(time);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.index.insert_unique(hash, group, |group| hashes[*group as usize]);
        group
    }
}
