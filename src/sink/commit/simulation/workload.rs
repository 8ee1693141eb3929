//! The simulated feed, and the rows that every table should hold: recomputed from nothing each time, so trivially
//! right.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::definition::Deletes;
use crate::repr::{Diff, Row, RowCodec};
use crate::sink::{LogSummation, TableSpec};

/// Rows with their multiplicities.
pub type RowCounts = BTreeMap<(i64, i64), i64>;

/// Keys of rows that other writers append start here.
pub const FOREIGN: i64 = 1_000_000;

/// The tables that a restart audits; the others only grow.
pub const AUDITED: Range<usize> = 1..4;
/// The table that is a log (a `LogSummation`).
const LOG: usize = 4;

/// The most events of a run.
pub const EVENTS: u64 = 150;

/// The feed of a run: upserts and deletions of a few keys.
#[derive(Clone, Copy)]
pub struct SimFeed {
    seed: u64,
}

impl SimFeed {
    /// The feed of this seed.
    pub fn new(seed: u64) -> SimFeed {
        SimFeed { seed }
    }

    fn hash(&self, event: u64) -> u64 {
        let mut x = self.seed ^ event.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// The rows of every table after so many events.
    pub fn tables(&self, events: u64) -> [RowCounts; 5] {
        let mut current: BTreeMap<i64, i64> = BTreeMap::new();
        let mut tables: [RowCounts; 5] = Default::default();
        let mut seen: RowCounts = RowCounts::new();
        for event in 0..events {
            let hash = self.hash(event);
            let (key, value) = ((hash % 14) as i64, ((hash >> 16) % 40) as i64);
            tables[0].insert((event as i64, (hash >> 40) as i64 % 1000), 1);
            *seen.entry((key, 1)).or_default() += 1;
            match (hash >> 8) % 4 {
                0 => current.remove(&key),
                _ => current.insert(key, value),
            };
        }
        tables[LOG] = folded(&seen);
        for (key, value) in &current {
            tables[1].insert((*key, *value), 1);
            *tables[2].entry((value % 4, 0)).or_default() += 1;
        }
        for bucket in 0..3 {
            let count = current.keys().filter(|key| *key % 3 == bucket).count() as i64;
            if count > 0 {
                tables[3].insert((bucket, count), 1);
            }
        }
        tables
    }

    /// The changes of every table between two numbers of events.
    pub fn changes(&self, from: u64, to: u64) -> Vec<Vec<((i64, i64), Diff)>> {
        let (before, after) = (self.tables(from), self.tables(to));
        let both = before.into_iter().zip(after);
        let changes = both.map(|(before, mut after)| {
            for (row, count) in before {
                *after.entry(row).or_default() -= count;
            }
            after.into_iter().filter(|(_, diff)| *diff != 0).collect()
        });
        let mut changes: Vec<Vec<_>> = changes.collect();
        // A log never takes rows back: it gets each event once.
        changes[LOG] = (from..to)
            .map(|event| (((self.hash(event) % 14) as i64, 1), 1))
            .collect();
        changes
    }
}

/// The sums that the rows of a log stand for: the sum of values of each key.
pub fn folded(rows: &RowCounts) -> RowCounts {
    let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
    for ((key, value), count) in rows {
        *sums.entry(*key).or_default() += value * count;
    }
    sums.into_iter().map(|sum| (sum, 1)).collect()
}

#[derive(Debug)]
struct AddUp;

impl LogSummation for AddUp {
    fn add_up(&self, batches: &[RecordBatch], _most: usize) -> Vec<RecordBatch> {
        let mut rows = RowCounts::new();
        for batch in batches {
            let [keys, values] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().values());
            let pairs = keys.iter().copied().zip(values.iter().copied());
            pairs.for_each(|row| *rows.entry(row).or_default() += 1);
        }
        let rows: Vec<(i64, i64)> = folded(&rows).into_keys().collect();
        vec![RecordBatch::try_new(schema(), columns(&rows)).expect("columns of the schema")]
    }
}

/// The tables, one for each way of keeping rows.
pub fn specs() -> Vec<TableSpec> {
    let of = |name: &str, append_only, deletes| TableSpec {
        name: name.into(),
        path: name.replace('.', "/"),
        schema: schema(),
        partition_by: vec![],
        append_only,
        summation: name.ends_with("log").then(|| Arc::new(AddUp) as Arc<dyn LogSummation>),
        deletes,
        change_data_feed: false,
        description: None,
    };
    vec![
        of("bronze.e", true, Deletes::Auto),
        of("silver.v", false, Deletes::Vectors),
        of("silver.a", false, Deletes::Auto),
        of("gold.r", false, Deletes::Rewrite),
        of("state.log", true, Deletes::Auto),
    ]
}

/// The schema of every table.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Int64, false),
    ]))
}

/// The columns of these rows.
pub fn columns(rows: &[(i64, i64)]) -> Vec<ArrayRef> {
    vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
    ]
}

/// These rows, encoded as in the graph.
pub fn encode(rows: &[(i64, i64)]) -> Vec<Row> {
    let codec = RowCodec::new(schema()).unwrap();
    codec.encode_rows(&columns(rows), rows.len()).unwrap()
}
