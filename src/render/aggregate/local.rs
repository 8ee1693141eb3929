//! Consolidates before the exchange: a table has the groups that a worker has seen since it last flushed, so that a
//! hot group becomes one update per worker and epoch.

use std::hash::{BuildHasher, Hasher};

use arrow::array::ArrayRef;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::measure::{MeasureColumns, Measures};
use crate::repr::{AccumulatorWriter, Accumulators, Diff, Epoch, Row};

/// How many groups the table may have before it is flushed.
const FULL: usize = 1 << 14;
/// How many rows a flush must have had to decide whether looking up groups is worthwhile.
const TELLING: usize = 1 << 12;
/// For how many flushes groups are not looked up, after that was not worthwhile.
const APART: usize = 15;
/// For how many groups an idle table keeps memory.
const IDLE: usize = 1 << 10;

/// Accumulators by key and epoch.
pub(super) struct LocalGroups {
    measures: Measures,
    count_rows: bool,
    columns: MeasureColumns,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    hashes: Vec<u64>,
    keys: Vec<u8>,
    /// Group `i` has the key bytes `ends[i - 1]..ends[i]`.
    ends: Vec<usize>,
    times: Vec<Epoch>,
    /// The group of each row of the current batch.
    groups: Vec<u32>,
    /// The number of rows since the last flush.
    rows: usize,
    /// How many flushes remain until groups are looked up again. Where nearly every row has a group of its own, each
    /// row gets a new entry instead, and the arrangement merges the few equal ones.
    apart: usize,
    writer: AccumulatorWriter,
}

impl LocalGroups {
    /// `count_rows` says whether the rows count as rows of their groups (those of a distinct set do not).
    pub fn new(measures: Measures, count_rows: bool) -> Self {
        LocalGroups {
            columns: MeasureColumns::new(&measures),
            measures,
            count_rows,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            hashes: vec![],
            keys: vec![],
            ends: vec![],
            times: vec![],
            groups: vec![],
            rows: 0,
            apart: 0,
            writer: AccumulatorWriter::default(),
        }
    }

    /// Adds a batch of rows: their keys, times and differences, and the columns that measures refer to.
    pub fn add<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a [u8]>,
        times: impl Iterator<Item = Epoch>,
        diffs: &[Diff],
        columns: &[ArrayRef],
    ) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.clear();
        groups.extend(keys.zip(times).map(|(key, time)| match self.apart {
            0 => self.group(key, time),
            _ => self.push(key, time),
        }));
        self.rows += groups.len();
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

    /// Whether the table should be flushed before it grows further.
    pub fn is_full(&self) -> bool {
        self.times.len() >= FULL
    }

    /// Calls `give` with every group, and empties the table.
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
        if self.apart > 0 {
            self.apart -= 1;
        } else if self.rows >= TELLING && self.times.len() > self.rows / 4 * 3 {
            self.apart = APART;
        }
        self.rows = 0;
        self.columns.clear();
        self.index.clear();
        self.hashes.clear();
        self.keys.clear();
        self.ends.clear();
        self.times.clear();
    }

    /// Frees most of the memory of an empty table. A dataflow has many tables, most of them idle.
    pub fn shrink(&mut self) {
        self.columns.shrink(IDLE);
        self.index.shrink_to(IDLE, |group| u64::from(*group));
        self.hashes.shrink_to(IDLE);
        self.keys.shrink_to(IDLE * 32);
        self.ends.shrink_to(IDLE);
        self.times.shrink_to(IDLE);
        self.groups.shrink_to(IDLE);
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
        let group = self.push(key, time);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.index.insert_unique(hash, group, |group| hashes[*group as usize]);
        group
    }

    #[inline]
    fn push(&mut self, key: &[u8], time: Epoch) -> u32 {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.times.push(time);
        self.times.len() as u32 - 1
    }
}
