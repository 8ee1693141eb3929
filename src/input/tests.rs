//! Inputs against the batch oracle ([`Resolver`]): random changes over two feeds, every epoch compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use timely::dataflow::operators::{Inspect, Probe};

use super::*;
use crate::decode::{Decoded, Op, Payloads, Raw};
use crate::definition::{Column, Feed, FeedKind, Retention};
use crate::render::tests::{Random, dataflow};
use crate::repr::{Row, RowCodec, SqlType};

/// (offset, operation, values) of one record.
type Record = (u64, Op, Vec<Option<i64>>);
/// Epoch, feed, partition, records.
type Batch = (Epoch, usize, &'static str, Vec<Record>);

fn input(key: &[&str], order_by: &[&str], dedup_key: &[&str], format: Format) -> Input {
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let column = |name: &str| Column {
        name: name.to_string(),
        sql_type: SqlType::BigInt,
        nullable: true,
        from: vec![name.to_string()],
        format: vec![],
        null: vec![],
    };
    let columns: Vec<Column> = ["k", "version", "x"].into_iter().map(column).collect();
    let feed = |name: &str, format| Feed {
        name: name.to_string(),
        kind: FeedKind::Log { path: "log".into() },
        format,
        columns: columns.clone(),
    };
    Input {
        name: "rows".into(),
        description: None,
        key: names(key),
        order_by: names(order_by),
        dedup_key: names(dedup_key),
        bronze: true,
        retention: None,
        feeds: vec![feed("files", Format::Csv), feed("live", format)],
        columns,
        file: Default::default(),
    }
}

fn decoded(input: &Input, records: &[Record]) -> Decoded {
    let columns: Vec<ArrayRef> = (0..input.columns.len())
        .map(|i| {
            let values = Int64Array::from(records.iter().map(|(_, _, v)| v[i]).collect::<Vec<_>>());
            arrow::compute::cast(&values, &input.columns[i].sql_type.arrow()).unwrap()
        })
        .collect();
    let rows = RecordBatch::try_new(crate::render::expr::relaxed(&input.schema()), columns).unwrap();
    Decoded {
        raw: Raw {
            payloads: Payloads::Records {
                values: BinaryArray::from_iter_values(records.iter().map(|_| b"")),
                keys: None,
                ts_ms: vec![None; records.len()],
            },
            offsets: records.iter().map(|(offset, _, _)| *offset).collect(),
            header: None,
        },
        rows,
        ops: records.iter().map(|(_, op, _)| *op).collect(),
        record: (0..records.len() as u32).collect(),
        source_ms: vec![None; records.len()],
        rejects: vec![],
        ignored_fields: vec![],
    }
}

/// Runs an input; partitions are spread over workers. Answers rows and errors.
fn run(input: &Input, batches: &[Batch], end: Epoch, workers: usize, stepwise: bool) -> (Vec<Update>, Vec<Update>) {
    let out = Arc::new(Mutex::new((vec![], vec![])));
    let (shared, definition) = (out.clone(), Arc::new(dataflow(vec![input.clone()], 0)));
    let batches = batches.to_vec();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let probe = timely::dataflow::ProbeHandle::new();
        let mut inputs = worker.dataflow::<Epoch, _, _>(|scope| {
            let (inputs, collections) = build(scope, &definition).unwrap();
            let (oks, errs) = (shared.clone(), shared.clone());
            let rows = collections[0].clone();
            rows.oks
                .inner
                .inspect(move |update| oks.lock().unwrap().0.push(update.clone()))
                .probe_with(&probe);
            rows.errs
                .inner
                .inspect(move |update| errs.lock().unwrap().1.push(update.clone()))
                .probe_with(&probe);
            inputs
        });
        let mut position = 0;
        for epoch in 0..end {
            while position < batches.len() && batches[position].0 == epoch {
                let (epoch, feed, partition, records) = &batches[position];
                position += 1;
                if crate::render::arrange::hash(partition.as_bytes()) as usize % worker.peers() == worker.index() {
                    let decoded = decoded(&definition.inputs[0], records);
                    let arrived = Arrived {
                        epoch: *epoch,
                        feed: *feed,
                        partition,
                        decoded: &decoded,
                    };
                    inputs.put(0, *epoch, arrived).unwrap();
                }
            }
            inputs.advance_to(epoch + 1);
            while stepwise && probe.less_than(&(epoch + 1)) {
                worker.step();
            }
        }
        while probe.less_than(&end) {
            worker.step();
        }
    })
    .unwrap();
    drop(guards);
    Arc::into_inner(out).unwrap().into_inner().unwrap()
}

type Bag = BTreeMap<Vec<Option<i64>>, i64>;

fn tuples(batch: &RecordBatch) -> Vec<Vec<Option<i64>>> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|c| arrow::compute::cast(c, &DataType::Int64).unwrap())
        .collect();
    let value = |c: &ArrayRef, i: usize| (!c.is_null(i)).then(|| c.as_primitive::<Int64Type>().value(i));
    (0..batch.num_rows())
        .map(|i| columns.iter().map(|c| value(c, i)).collect())
        .collect()
}

fn as_of(input: &Input, updates: &[Update], epoch: Epoch) -> Bag {
    let mut rows: BTreeMap<&Row, i64> = BTreeMap::new();
    for (row, _, diff) in updates.iter().filter(|(_, at, _)| *at <= epoch) {
        *rows.entry(row).or_default() += diff;
    }
    rows.retain(|_, count| *count != 0);
    let codec = RowCodec::new(crate::render::expr::relaxed(&input.schema())).unwrap();
    let batch = codec.decode(rows.keys().map(|row| row.bytes())).unwrap();
    tuples(&batch).into_iter().zip(rows.into_values()).collect()
}

fn resolved(input: &Input, batches: &[Batch], epoch: Epoch, now: Option<Epoch>) -> Bag {
    let mut resolver = Resolver::new(input).unwrap();
    // In reverse: the answer must not depend on the order in which changes are read.
    for (at, feed, partition, records) in batches.iter().filter(|b| b.0 <= epoch).rev() {
        let decoded = decoded(input, records);
        let arrived = Arrived {
            epoch: *at,
            feed: *feed,
            partition,
            decoded: &decoded,
        };
        resolver.add(arrived).unwrap();
    }
    let mut bag = Bag::new();
    for tuple in tuples(&resolver.finish(now).unwrap()) {
        *bag.entry(tuple).or_default() += 1;
    }
    bag
}

fn compare(input: &Input, batches: &[Batch], end: Epoch) {
    for (workers, stepwise) in [(1, true), (1, false), (2, true), (3, false)] {
        let (rows, errs) = run(input, batches, end, workers, stepwise);
        assert!(errs.is_empty());
        for epoch in 0..end {
            let found = as_of(input, &rows, epoch);
            let expected = resolved(input, batches, epoch, None);
            assert_eq!(
                found, expected,
                "at {epoch} with {workers} workers, stepwise {stepwise}"
            );
        }
    }
}

/// Changes of few keys over two feeds of two partitions each, out of order.
fn changes(random: &mut Random, end: Epoch, truncates: bool) -> Vec<Batch> {
    let mut offset = 0;
    let mut batches = vec![];
    for epoch in 0..end {
        for (feed, partition) in [(0, "a"), (1, "b"), (1, "c"), (0, "d")] {
            let records = (0..random.below(5))
                .map(|_| {
                    offset += 1;
                    let op = match random.below(20) {
                        0 if truncates => Op::Truncate,
                        0..=5 => Op::Delete,
                        _ => Op::Upsert,
                    };
                    let version = (random.below(5) > 0).then(|| random.below(8) as i64);
                    let values = match op {
                        Op::Truncate => vec![None; 3],
                        _ => vec![Some(random.below(5) as i64), version, Some(random.below(3) as i64)],
                    };
                    (offset, op, values)
                })
                .collect();
            batches.push((epoch, feed, partition, records));
        }
    }
    batches
}

#[test]
fn a_keyed_input_equals_the_oracle_at_every_epoch() {
    for seed in 1..6 {
        let batches = changes(&mut Random::new(seed), 12, true);
        compare(&input(&["k"], &["version"], &[], Format::DebeziumJson), &batches, 12);
        compare(&input(&["k"], &[], &[], Format::DebeziumJson), &batches, 12);
    }
}

#[test]
fn inputs_without_a_key_equal_the_oracle_at_every_epoch() {
    for seed in 1..6 {
        let batches = changes(&mut Random::new(seed), 12, true);
        compare(&input(&[], &[], &[], Format::DebeziumJson), &batches, 12);
        compare(&input(&[], &[], &["k"], Format::DebeziumJson), &batches, 12);
        compare(&input(&[], &[], &[], Format::Json), &batches, 12);
    }
}

fn upsert(offset: u64, k: i64, version: i64, x: i64) -> Record {
    (offset, Op::Upsert, vec![Some(k), Some(version), Some(x)])
}

fn row(k: i64, version: i64, x: i64) -> Vec<Option<i64>> {
    vec![Some(k), Some(version), Some(x)]
}

#[test]
fn an_older_version_through_another_feed_stays_dead_behind_a_tombstone() {
    let input = input(&["k"], &["version"], &[], Format::DebeziumJson);
    let delete = |offset, version| (offset, Op::Delete, vec![Some(1), version, None]);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![upsert(0, 1, 5, 50)]),
        (1, 1, "live", vec![delete(1, Some(6))]),
        (2, 0, "file", vec![upsert(0, 1, 4, 40)]), // older: stays dead
        (3, 0, "file", vec![upsert(1, 1, 7, 70)]), // newer: a re-insertion
        (4, 1, "live", vec![delete(2, None)]),     // takes version 7
        (5, 0, "file", vec![upsert(2, 1, 7, 71)]), // as old, from the earlier feed: stays dead
        (6, 1, "live", vec![upsert(3, 1, 7, 72)]), // as old, from the same feed, later
    ];
    let expected: Vec<Option<Vec<Option<i64>>>> = vec![
        Some(row(1, 5, 50)),
        None,
        None,
        Some(row(1, 7, 70)),
        None,
        None,
        Some(row(1, 7, 72)),
    ];
    for workers in [1, 2] {
        let (rows, _) = run(&input, &batches, 7, workers, true);
        for (epoch, expected) in expected.iter().enumerate() {
            let expected: Bag = expected.iter().map(|row| (row.clone(), 1)).collect();
            assert_eq!(as_of(&input, &rows, epoch as Epoch), expected, "at {epoch}");
            assert_eq!(
                resolved(&input, &batches, epoch as Epoch, None),
                expected,
                "oracle at {epoch}"
            );
        }
    }
}

#[test]
fn a_row_that_does_not_change_is_not_told_again() {
    let input = input(&["k"], &["version"], &[], Format::DebeziumJson);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![upsert(0, 1, 5, 50), upsert(1, 1, 5, 50)]),
        (1, 1, "live", vec![upsert(2, 1, 5, 50)]),
        (2, 0, "file", vec![upsert(0, 1, 4, 40)]),
    ];
    let (rows, _) = run(&input, &batches, 3, 1, true);
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn retention_lets_rows_leave_and_reports_those_that_come_too_late() {
    let mut input = input(&["k"], &[], &[], Format::DebeziumJson);
    input.columns[1].sql_type = SqlType::Timestamp;
    input.retention = Some(Retention {
        column: "version".into(),
        keep: Duration::from_millis(10),
    });
    // The second column is a moment in microseconds: 2 ms, 9 ms, 1 ms.
    let batches: Vec<Batch> = vec![
        (3, 1, "live", vec![upsert(0, 1, 2_000, 1), upsert(1, 2, 9_000, 2)]),
        (15, 1, "live", vec![upsert(2, 3, 1_000, 3)]),
    ];
    for workers in [1, 2] {
        let (rows, errs) = run(&input, &batches, 30, workers, true);
        for epoch in 0..30 {
            let found = as_of(&input, &rows, epoch);
            assert_eq!(found, resolved(&input, &batches, epoch, Some(epoch)), "at {epoch}");
        }
        assert_eq!(as_of(&input, &rows, 11).len(), 2);
        assert_eq!(as_of(&input, &rows, 12).len(), 1);
        assert_eq!(as_of(&input, &rows, 19).len(), 0);
        assert_eq!(errs.len(), 1);
        let (reason, _) = crate::render::error::read_error(&crate::render::error::error_codec(), &errs[0].0).unwrap();
        assert!(reason.starts_with("late: retention keeps \"version\""), "{reason}");
    }
}

#[test]
fn tombstones_are_forgotten_after_the_retention() {
    let mut input = input(&["k"], &["version"], &[], Format::DebeziumJson);
    input.columns[2].sql_type = SqlType::Timestamp;
    input.retention = Some(Retention {
        column: "x".into(),
        keep: Duration::from_millis(5),
    });
    let never = |offset, version| (offset, Op::Upsert, vec![Some(1), Some(version), None]);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![(0, Op::Delete, vec![Some(1), Some(6), None])]),
        (3, 0, "file", vec![never(0, 4)]),
        (12, 0, "file", vec![never(1, 5)]),
    ];
    let (rows, _) = run(&input, &batches, 20, 2, true);
    assert!(as_of(&input, &rows, 4).is_empty(), "the tombstone is still remembered");
    assert_eq!(as_of(&input, &rows, 12).len(), 1, "the tombstone is forgotten");
}

#[test]
fn times_of_rows_are_the_epochs_they_came_with() {
    let input = input(&[], &[], &[], Format::Json);
    let batches: Vec<Batch> = vec![
        (4, 1, "live", vec![upsert(0, 1, 1, 1)]),
        (9, 1, "live", vec![upsert(1, 1, 1, 1)]),
    ];
    let (rows, _) = run(&input, &batches, 10, 1, false);
    let mut times: Vec<Epoch> = rows.iter().map(|(_, time, _)| *time).collect();
    times.sort_unstable();
    assert_eq!(times, vec![4, 9]);
}
