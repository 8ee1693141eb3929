//! The state of aggregates, as a log ([`LogSummation`]): each row says by how much the accumulators of a group grew.
//!
//! | column | type | |
//! |---|---|---|
//! | bucket | Utf8, partition | the groups in the file, by the first bits of their hash: `b` all, `b011` an eighth |
//! | sum | Int64 | the aggregate, by its [`number`] |
//! | key | Binary | the group |
//! | grew | Binary | accumulators, [`Accumulators`] |
//!
//! 1. Rows may be read and added up in any order, and no row is ever taken back: a commit costs one file for all
//!    aggregates of a worker, without an index and without deletion vectors. (Tables with one row per group, which
//!    need both, cost four files per worker and commit for the sums of the retail dataflow.)
//! 2. An aggregate that is computed anew gets another number. Rows with a number that no aggregate has any more do not
//!    count, and disappear when their files are merged.
//! 3. A bucket with too many groups for one file is split, so that merging takes bounded memory, however many groups
//!    there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use twox_hash::XxHash3_64;

use super::summation::LogSummation;
use super::{TableSpec, states};
use crate::definition::Deletes;
use crate::plan::PlanHash;
use crate::repr::{Accumulators, Epoch, Row};

/// The bucket of all groups.
const ALL: &str = "b";
/// A full bucket is split into 2^3 parts.
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

/// The log of the aggregates with these numbers.
pub fn spec(live: BTreeSet<i64>) -> TableSpec {
    TableSpec {
        name: format!("{}sums", states::PREFIX),
        path: "_alluvium/state/sums".into(),
        schema: schema(),
        partition_by: vec![column::BUCKET],
        append_only: true,
        summation: Some(Arc::new(LiveSums { live })),
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: None,
    }
}

/// The number of an aggregate of this meaning that was computed from nothing in epoch `since`, by (2).
pub fn number(meaning: PlanHash, since: Epoch) -> i64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&meaning.to_le_bytes());
    bytes[16..].copy_from_slice(&since.to_le_bytes());
    XxHash3_64::oneshot(&bytes) as i64
}

/// Builds batches of the log.
#[derive(Default)]
pub struct SumRows {
    buckets: StringBuilder,
    sums: Int64Builder,
    keys: BinaryBuilder,
    grew: BinaryBuilder,
    bytes: usize,
}

/// Bytes at which a batch is full: the offsets of an Arrow array allow less than twice as many.
const FULL: usize = 1 << 30;

impl SumRows {
    /// Adds a row: a group of an aggregate grew by these accumulators.
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

    /// Whether the batch should be finished and another one begun.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Returns the batch; the next rows go to a new one.
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

/// The rows of a batch of the log: aggregate, group, and what it grew by.
pub fn rows(batch: &RecordBatch) -> impl Iterator<Item = (i64, Row, Row)> + '_ {
    growths(batch).map(|row| (row.sum, Row::new(row.key), Row::new(row.grew)))
}

#[derive(Debug)]
struct LiveSums {
    live: BTreeSet<i64>,
}

/// A row of the log.
struct SumGrowth<'a> {
    sum: i64,
    key: &'a [u8],
    grew: &'a [u8],
}

impl SumGrowth<'_> {
    /// The hash of the group, of which the bucket is a prefix.
    fn hash(&self) -> u64 {
        XxHash3_64::oneshot_with_seed(self.sum as u64, self.key)
    }
}

fn growths(batch: &RecordBatch) -> impl Iterator<Item = SumGrowth<'_>> {
    let sums = batch.column(column::SUM).as_primitive::<Int64Type>();
    let [keys, grew] = [column::KEY, column::GREW].map(|column| batch.column(column).as_binary::<i32>());
    (0..batch.num_rows()).map(move |row| SumGrowth {
        sum: sums.value(row),
        key: keys.value(row),
        grew: grew.value(row),
    })
}

impl LogSummation for LiveSums {
    fn add_up(&self, batches: &[RecordBatch], most: usize) -> Vec<RecordBatch> {
        let counts = |row: &SumGrowth<'_>| self.live.contains(&row.sum);
        let mut grown: Vec<SumGrowth<'_>> = batches.iter().flat_map(growths).filter(counts).collect();
        // The sort is stable because that algorithm uses presorted runs: rows of one aggregate and epoch are sorted,
        // and so is a file.
        grown.sort_by(|a, b| (a.sum, a.key).cmp(&(b.sum, b.key)));
        let same = |a: &SumGrowth<'_>, b: &SumGrowth<'_>| (a.sum, a.key) == (b.sum, b.key);
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
        let part = |group: &SumGrowth<'_>| match split {
            true => (group.hash() << bits >> (u64::BITS as usize - SPLIT_BITS)) as usize,
            false => 0,
        };
        let (mut rows, mut folded) = (SumRows::default(), Vec::new());
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

    type Totals = BTreeMap<(i64, Vec<u8>), BTreeMap<u32, i64>>;

    fn batch(given: &[(i64, u8, i64)]) -> RecordBatch {
        let mut rows = SumRows::default();
        for (sum, key, value) in given {
            let grew = Accumulators::from_entries([(0, 1), (9, *value)]).into_row();
            rows.push(*sum, &[*key], grew.bytes());
        }
        rows.finish()
    }

    fn totals(batches: &[RecordBatch], live: &BTreeSet<i64>) -> Totals {
        let mut totals = Totals::new();
        for (sum, key, grew) in batches.iter().flat_map(rows).filter(|(sum, ..)| live.contains(sum)) {
            let group = totals.entry((sum, key.bytes().to_vec())).or_default();
            for (position, value) in Accumulators::from_row(grew).entries() {
                *group.entry(position).or_default() += value;
            }
        }
        totals
            .values_mut()
            .for_each(|group| group.retain(|_, value| *value != 0));
        totals
    }

    /// Splits a batch by bucket.
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
            given in prop::collection::vec((0i64..4, any::<u8>(), -50i64..50), 1..400),
            cut in 1usize..50,
            most in 1usize..60,
        ) {
            let live: BTreeSet<i64> = [0, 1, 2].into();
            let log = LiveSums { live: live.clone() };
            let batches: Vec<RecordBatch> = given.chunks(cut).map(batch).collect();
            let expected = totals(&batches, &live);
            let once = log.add_up(&batches, most);
            prop_assert_eq!(once.iter().map(RecordBatch::num_rows).sum::<usize>(), expected.len());
            prop_assert_eq!(totals(&once, &live), expected.clone());
            // Folds each bucket by itself, again and again, until all are small: no group may leave its bucket.
            let mut whole: BTreeMap<String, RecordBatch> = once.iter().flat_map(parts).collect();
            for _ in 0..20 {
                let folded = whole.values().flat_map(|part| log.add_up(std::slice::from_ref(part), most));
                whole = folded.flat_map(|part| parts(&part)).collect();
            }
            prop_assert!(whole.values().all(|part| part.num_rows() <= most));
            let whole: Vec<RecordBatch> = whole.into_values().collect();
            prop_assert_eq!(totals(&whole, &live), expected);
        }
    }

    #[test]
    fn an_aggregate_that_is_made_again_has_another_number() {
        assert_ne!(number(7, 0), number(7, 1));
        assert_ne!(number(7, 0), number(8, 0));
        assert_eq!(number(7, 12), number(7, 12));
    }
}
