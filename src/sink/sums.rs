//! What aggregates hold, as a log ([`Fold`]): each row says by how much the accumulators of a group grew.
//!
//! | column | type | |
//! |---|---|---|
//! | bucket | Utf8, partition | which groups, by the first bits of their hash: `b` all, `b011` an eighth |
//! | sum | Int64 | which aggregate, by its [`number`] |
//! | key | Binary | the group |
//! | grew | Binary | accumulators, [`Accumulators`] |
//!
//! 1. Rows may be read in any order and added up in any way, and none is ever taken back: a commit costs one file for
//!    all aggregates of a worker, without an index, and without vectors. (As tables of one row a group, with both, the sums
//!    of the retail dataflow took four files of each worker and commit.)
//! 2. An aggregate that is made again is told under another number. Rows of numbers that nobody has any more count for
//!    nothing, and go when their files are merged.
//! 3. A bucket whose groups are too many for one file is split, so that merging takes bounded memory, however many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use twox_hash::XxHash3_64;

use super::fold::Fold;
use super::{TableSpec, states};
use crate::definition::Deletes;
use crate::render::Accumulators;
use crate::repr::{Epoch, Row};

/// The bucket of all groups.
const ALL: &str = "b";
/// A bucket is split in eight.
const SPLIT_BITS: usize = 3;

mod column {
    pub const BUCKET: usize = 0;
    pub const SUM: usize = 1;
    pub const KEY: usize = 2;
    pub const GREW: usize = 3;
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("bucket", DataType::Utf8, false),
        Field::new("sum", DataType::Int64, false),
        Field::new("key", DataType::Binary, false),
        Field::new("grew", DataType::Binary, false),
    ]))
}

/// The log of the aggregates of these numbers.
pub fn spec(live: BTreeSet<i64>) -> TableSpec {
    TableSpec {
        name: format!("{}sums", states::PREFIX),
        path: "_alluvium/state/sums".into(),
        schema: schema(),
        partition_by: vec![column::BUCKET],
        append_only: true,
        fold: Some(Arc::new(Sums { live })),
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: None,
    }
}

/// Under which an aggregate of this meaning is told that was made from nothing in an epoch, by (2).
pub fn number(meaning: u64, since: Epoch) -> i64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&meaning.to_le_bytes());
    bytes[8..].copy_from_slice(&since.to_le_bytes());
    XxHash3_64::oneshot(&bytes) as i64
}

/// Rows of the log in the making.
#[derive(Default)]
pub struct Rows {
    buckets: StringBuilder,
    sums: Int64Builder,
    keys: BinaryBuilder,
    grew: BinaryBuilder,
    bytes: usize,
}

/// Bytes of a batch that is full: an array of Arrow's holds less than twice as many.
const FULL: usize = 1 << 30;

impl Rows {
    /// A group of an aggregate grew by these accumulators.
    pub fn push(&mut self, sum: i64, key: &[u8], grew: &[u8]) {
        self.push_to(ALL, sum, key, grew);
    }

    fn push_to(&mut self, bucket: &str, sum: i64, key: &[u8], grew: &[u8]) {
        self.buckets.append_value(bucket);
        self.sums.append_value(sum);
        self.keys.append_value(key);
        self.grew.append_value(grew);
        self.bytes += bucket.len() + key.len() + grew.len();
    }

    /// Whether it is time to begin another batch.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// All of them; the next begin a batch of their own.
    pub fn finish(&mut self) -> RecordBatch {
        self.bytes = 0;
        let columns: [ArrayRef; 4] = [
            Arc::new(self.buckets.finish()),
            Arc::new(self.sums.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.grew.finish()),
        ];
        RecordBatch::try_new(schema(), columns.into()).expect("columns of one length")
    }
}

/// Of a batch of the log: aggregate, group, and what it grew by.
pub fn rows(batch: &RecordBatch) -> impl Iterator<Item = (i64, Row, Row)> + '_ {
    grown(batch).map(|row| (row.sum, Row::new(row.key), Row::new(row.grew)))
}

#[derive(Debug)]
struct Sums {
    live: BTreeSet<i64>,
}

/// A row.
struct Grown<'a> {
    sum: i64,
    key: &'a [u8],
    grew: &'a [u8],
}

impl Grown<'_> {
    /// Of the group.
    fn hash(&self) -> u64 {
        XxHash3_64::oneshot_with_seed(self.sum as u64, self.key)
    }
}

fn grown(batch: &RecordBatch) -> impl Iterator<Item = Grown<'_>> {
    let sums = batch.column(column::SUM).as_primitive::<Int64Type>();
    let [keys, grew] = [column::KEY, column::GREW].map(|column| batch.column(column).as_binary::<i32>());
    (0..batch.num_rows()).map(move |row| Grown {
        sum: sums.value(row),
        key: keys.value(row),
        grew: grew.value(row),
    })
}

impl Fold for Sums {
    fn fold(&self, batches: &[RecordBatch], most: usize) -> Vec<RecordBatch> {
        let counts = |row: &Grown<'_>| self.live.contains(&row.sum);
        let mut grown: Vec<Grown<'_>> = batches.iter().flat_map(grown).filter(counts).collect();
        // Stable, because that finds what is sorted already: an epoch's rows of an aggregate are, and a file's.
        grown.sort_by(|a, b| (a.sum, a.key).cmp(&(b.sum, b.key)));
        let same = |a: &Grown<'_>, b: &Grown<'_>| (a.sum, a.key) == (b.sum, b.key);
        let groups = grown.chunk_by(same).count();
        let bucket = batches.iter().find(|batch| batch.num_rows() > 0);
        let bucket = bucket.map_or(ALL, |batch| batch.column(column::BUCKET).as_string::<i32>().value(0));
        let bits = bucket.len() - ALL.len();
        let split = groups > most && bits + SPLIT_BITS <= u64::BITS as usize;
        let parts: Vec<String> = match split {
            true => (0..1 << SPLIT_BITS)
                .map(|part| format!("{bucket}{part:0width$b}", width = SPLIT_BITS))
                .collect(),
            false => vec![bucket.to_string()],
        };
        let part = |group: &Grown<'_>| match split {
            true => (group.hash() << bits >> (u64::BITS as usize - SPLIT_BITS)) as usize,
            false => 0,
        };
        let (mut rows, mut folded) = (Rows::default(), Vec::new());
        for group in grown.chunk_by(same) {
            if rows.is_full() {
                folded.push(rows.finish());
            }
            let name = &parts[part(&group[0])];
            match group {
                [one] => rows.push_to(name, one.sum, one.key, one.grew),
                [first, ..] => {
                    let sum = Accumulators::sum(group.iter().map(|row| row.grew)).into_row();
                    if !sum.bytes().is_empty() {
                        rows.push_to(name, first.sum, first.key, sum.bytes());
                    }
                }
                [] => unreachable!("chunks are not empty"),
            }
        }
        folded.push(rows.finish());
        folded
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::UInt64Array;
    use arrow::compute::take_record_batch;
    use proptest::prelude::*;

    use super::*;

    type Told = BTreeMap<(i64, Vec<u8>), BTreeMap<u32, i64>>;

    fn batch(told: &[(i64, u8, i64)]) -> RecordBatch {
        let mut rows = Rows::default();
        for (sum, key, value) in told {
            let grew = Accumulators::from_entries([(0, 1), (9, *value)]).into_row();
            rows.push(*sum, &[*key], grew.bytes());
        }
        rows.finish()
    }

    fn said(batches: &[RecordBatch], live: &BTreeSet<i64>) -> Told {
        let mut told = Told::new();
        for (sum, key, grew) in batches.iter().flat_map(rows).filter(|(sum, ..)| live.contains(sum)) {
            let group = told.entry((sum, key.bytes().to_vec())).or_default();
            for (position, value) in Accumulators::from_row(grew).entries() {
                *group.entry(position).or_default() += value;
            }
        }
        told.values_mut().for_each(|group| group.retain(|_, value| *value != 0));
        told
    }

    /// By bucket.
    fn parts(batch: &RecordBatch) -> BTreeMap<String, RecordBatch> {
        let buckets = batch.column(column::BUCKET).as_string::<i32>();
        let mut parts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (row, bucket) in buckets.iter().enumerate() {
            parts.entry(bucket.unwrap().to_string()).or_default().push(row as u64);
        }
        let part = |rows: Vec<u64>| take_record_batch(batch, &UInt64Array::from(rows)).unwrap();
        parts.into_iter().map(|(bucket, rows)| (bucket, part(rows))).collect()
    }

    proptest! {
        #[test]
        fn folding_changes_nothing_that_is_said(
            told in prop::collection::vec((0i64..4, any::<u8>(), -50i64..50), 1..400),
            cut in 1usize..50,
            most in 1usize..60,
        ) {
            let live: BTreeSet<i64> = [0, 1, 2].into();
            let log = Sums { live: live.clone() };
            let batches: Vec<RecordBatch> = told.chunks(cut).map(batch).collect();
            let expected = said(&batches, &live);
            let once = log.fold(&batches, most);
            prop_assert_eq!(once.iter().map(RecordBatch::num_rows).sum::<usize>(), expected.len());
            prop_assert_eq!(said(&once, &live), expected.clone());
            // Again and again, each bucket by itself, until all are small: no bucket's groups stray.
            let mut whole: BTreeMap<String, RecordBatch> = once.iter().flat_map(parts).collect();
            for _ in 0..20 {
                let folded = whole.values().flat_map(|part| log.fold(std::slice::from_ref(part), most));
                whole = folded.flat_map(|part| parts(&part)).collect();
            }
            prop_assert!(whole.values().all(|part| part.num_rows() <= most));
            let whole: Vec<RecordBatch> = whole.into_values().collect();
            prop_assert_eq!(said(&whole, &live), expected);
        }
    }

    #[test]
    fn an_aggregate_that_is_made_again_has_another_number() {
        assert_ne!(number(7, 0), number(7, 1));
        assert_ne!(number(7, 0), number(8, 0));
        assert_eq!(number(7, 12), number(7, 12));
    }
}
