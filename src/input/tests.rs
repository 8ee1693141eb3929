//! Tests inputs against the batch oracle ([`Resolver`]): random changes over two feeds, compared at every epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use timely::dataflow::operators::{Inspect, Probe};

use super::*;
use crate::decode::{ChangeOp, Decoded, Payloads, Raw, Reject};
use crate::definition::{Column, Feed, FeedKind, Format, LogFeed, Retention};
use crate::render::Pause;
use crate::render::tests::{SeededRandom, dataflow};
use crate::repr::{Row, RowCodec, SqlType};

/// A record: offset, operation, values.
type Record = (u64, ChangeOp, Vec<Option<i64>>);
/// A delivery: epoch, feed, partition, records.
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
        kind: FeedKind::Log(LogFeed {
            path: "log".into(),
            rules: Default::default(),
        }),
        format,
        wire: Default::default(),
        columns: columns.clone(),
        max_record: 16 << 20,
    };
    Input {
        name: "rows".into(),
        description: None,
        key: names(key),
        order_by: names(order_by),
        dedup_key: names(dedup_key),
        bronze: true,
        retention: None,
        evolved: vec![],
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
    // In a keyed input, a row without x at an odd offset stands for a change whose source left x out.
    let left_out = |(_, (offset, op, values)): &(usize, &Record)| {
        !input.key.is_empty() && *op == ChangeOp::Upsert && values[2].is_none() && offset % 2 == 1
    };
    let unchanged = records
        .iter()
        .enumerate()
        .filter(left_out)
        .map(|(row, _)| (row as u32, 2))
        .collect();
    Decoded {
        raw: Raw {
            payloads: Payloads::Records {
                headers: None,
                values: BinaryArray::from_iter_values(records.iter().map(|_| b"")),
                keys: None,
                ts_ms: vec![None; records.len()],
            },
            offsets: records.iter().map(|(offset, _, _)| *offset).collect(),
            header: None,
            cut: Vec::new(),
            place: Default::default(),
        },
        rows,
        ops: records.iter().map(|(_, op, _)| *op).collect(),
        record: (0..records.len() as u32).collect(),
        source_ms: vec![None; records.len()],
        rejects: vec![],
        ignored_fields: vec![],
        unchanged,
        transactions: vec![],
    }
}

/// How a test runs an input.
#[derive(Clone, Copy, Debug)]
struct RunOptions {
    workers: usize,
    /// Whether every epoch is closed before the next one opens.
    stepwise: bool,
    /// If set, everything comes at this epoch, as in a replay of the past.
    replay: Option<Epoch>,
}

impl RunOptions {
    fn stepwise(workers: usize) -> RunOptions {
        RunOptions {
            workers,
            stepwise: true,
            replay: None,
        }
    }
}

/// The states (key, state), with their multiplicities.
type States = BTreeMap<(Row, Row), i64>;

/// The outputs of a run.
#[derive(Default)]
struct RunOutput {
    rows: Vec<Update>,
    late: Vec<Reject>,
    states: Vec<((Row, Row), Epoch, i64)>,
}

/// Runs an input, with its partitions spread over workers. Returns the updates of its rows, and the records that came
/// too late.
fn run(input: &Input, batches: &[Batch], end: Epoch, how: RunOptions) -> (Vec<Update>, Vec<Reject>) {
    let output = run_from(input, &States::new(), None, batches, end, how);
    (output.rows, output.late)
}

/// Runs an input that loads `states` as of the epoch `loaded`.
fn run_from(
    input: &Input,
    states: &States,
    loaded: Option<Epoch>,
    batches: &[Batch],
    end: Epoch,
    how: RunOptions,
) -> RunOutput {
    let out = Arc::new(Mutex::new(RunOutput::default()));
    let states = states.clone();
    let (shared, definition) = (out.clone(), Arc::new(dataflow(vec![input.clone()], 0)));
    let batches = batches.to_vec();
    let guards = timely::execute(timely::Config::process(how.workers), move |worker| {
        let probe = timely::dataflow::ProbeHandle::new();
        let mut inputs = worker.dataflow::<Epoch, _, _>(|scope| {
            let pause = loaded.map(|since| Pause {
                since,
                until: since + 1,
            });
            let built = build(scope, &definition, pause, |_| true).unwrap();
            let (oks, states_out) = (shared.clone(), shared.clone());
            let rows = built.collections[0].clone();
            rows.oks
                .inner
                .inspect(move |update| oks.lock().unwrap().rows.push(update.clone()))
                .probe_with(&probe);
            if let Some(states) = &built.states[0] {
                let states = states.inner.clone();
                states
                    .inspect(move |update| states_out.lock().unwrap().states.push(update.clone()))
                    .probe_with(&probe);
            }
            built.inputs
        });
        let mut position = 0;
        for epoch in 0..end {
            if loaded == Some(epoch) {
                let of_worker = states.iter().enumerate().skip(worker.index()).step_by(worker.peers());
                let copies =
                    of_worker.flat_map(|(_, (state, count))| std::iter::repeat_n(state.clone(), *count as usize));
                inputs.load(0, epoch, copies.collect());
            }
            while position < batches.len() && how.replay.unwrap_or(batches[position].0) == epoch {
                let (arrival, feed, partition, records) = &batches[position];
                position += 1;
                if crate::repr::key_hash(partition.as_bytes()) as usize % worker.peers() == worker.index() {
                    let decoded = decoded(&definition.inputs[0], records);
                    let arrived = ArrivedRecords {
                        epoch: *arrival,
                        feed: *feed,
                        partition,
                        decoded: &decoded,
                    };
                    let ingested = inputs.put(0, epoch, arrived).unwrap();
                    shared.lock().unwrap().late.extend(ingested.late);
                }
            }
            inputs.advance_to(epoch + 1);
            while how.stepwise && probe.less_than(&(epoch + 1)) {
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
    // The deliveries of an epoch come in reverse, because the answer must not depend on their order.
    let mut past: Vec<&Batch> = batches.iter().filter(|batch| batch.0 <= epoch).rev().collect();
    past.sort_by_key(|batch| batch.0);
    for (at, feed, partition, records) in past {
        let decoded = decoded(input, records);
        let arrived = ArrivedRecords {
            epoch: *at,
            feed: *feed,
            partition,
            decoded: &decoded,
        };
        resolver.add(arrived).unwrap();
    }
    let mut bag = Bag::new();
    for tuple in resolver.finish(now).unwrap().iter().flat_map(tuples) {
        *bag.entry(tuple).or_default() += 1;
    }
    bag
}

fn compare(input: &Input, batches: &[Batch], end: Epoch) {
    let now = |epoch| input.retention.as_ref().map(|_| epoch);
    for (workers, stepwise) in [(1, true), (1, false), (2, true), (3, false)] {
        let how = RunOptions {
            workers,
            stepwise,
            replay: None,
        };
        let (rows, late) = run(input, batches, end, how);
        assert!(late.is_empty() || input.retention.is_some());
        for epoch in 0..end {
            let found = as_of(input, &rows, epoch);
            let expected = resolved(input, batches, epoch, now(epoch));
            assert_eq!(found, expected, "at {epoch}: {how:?}");
        }
        // This simulates a restart: everything comes again, later, at one epoch.
        for replay in [end, end + 7] {
            let how = RunOptions {
                replay: Some(replay),
                ..how
            };
            let (rows, late_again) = run(input, batches, replay + 20, how);
            let sorted = |late: &[Reject]| {
                let mut late: Vec<_> = late.iter().map(|l| (l.record, l.reason.clone())).collect();
                late.sort();
                late
            };
            assert_eq!(sorted(&late_again), sorted(&late), "{how:?}");
            for epoch in replay..replay + 20 {
                let found = as_of(input, &rows, epoch);
                assert_eq!(
                    found,
                    resolved(input, batches, end, now(epoch)),
                    "replayed, at {epoch}: {how:?}"
                );
            }
        }
    }
}

/// The states that had been output up to an epoch.
fn states_as_of(updates: &[((Row, Row), Epoch, i64)], epoch: Epoch) -> States {
    let mut states = States::new();
    for (state, _, diff) in updates.iter().filter(|(_, time, _)| *time <= epoch) {
        *states.entry(state.clone()).or_default() += diff;
    }
    states.retain(|_, count| *count != 0);
    states
}

/// Compares a restart that loads the input's states as of the epoch `at`, and then goes on.
fn compare_loaded(input: &Input, batches: &[Batch], end: Epoch, at: Epoch) {
    let batches: Vec<Batch> = batches.iter().filter(|batch| batch.0 != at + 1).cloned().collect();
    let batches = batches.as_slice();
    let (before, after): (Vec<Batch>, Vec<Batch>) = batches.iter().cloned().partition(|batch| batch.0 <= at);
    let first = run_from(input, &States::new(), None, &before, at + 1, RunOptions::stepwise(2));
    let states = states_as_of(&first.states, at);
    assert!(states.values().all(|count| *count > 0), "{states:?}");
    for workers in [1, 3] {
        let how = RunOptions::stepwise(workers);
        let restarted = run_from(input, &states, Some(at + 1), &after, end + 20, how);
        let now = |epoch| input.retention.as_ref().map(|_| epoch);
        for epoch in at + 1..end + 20 {
            let expected = resolved(input, batches, epoch.min(end), now(epoch));
            assert_eq!(
                as_of(input, &restarted.rows, epoch),
                expected,
                "loaded at {}, at {epoch}: {how:?}",
                at + 1
            );
        }
        // The loaded states plus those it emitted equal the states of a run without a restart, so the next restart
        // loads the same.
        let through = run_from(input, &States::new(), None, batches, end + 20, RunOptions::stepwise(1));
        let mut states_now = states.clone();
        for (state, count) in states_as_of(&restarted.states, Epoch::MAX) {
            *states_now.entry(state).or_default() += count;
        }
        states_now.retain(|_, count| *count != 0);
        if input.retention.is_none() {
            assert_eq!(states_now, states_as_of(&through.states, Epoch::MAX), "{how:?}");
        }
        assert!(states_now.values().all(|count| *count > 0), "{states_now:?}");
    }
}

/// Random changes of few keys, out of order, over two feeds with two partitions each.
fn changes(random: &mut SeededRandom, end: Epoch, truncates: bool) -> Vec<Batch> {
    let mut offset = 0;
    let mut batches = vec![];
    for epoch in 0..end {
        for (feed, partition) in [(0, "a"), (1, "b"), (1, "c"), (0, "d")] {
            let records = (0..random.below(5))
                .map(|_| {
                    offset += 1;
                    let op = match random.below(20) {
                        0 if truncates => ChangeOp::Truncate,
                        0..=5 => ChangeOp::Delete,
                        _ => ChangeOp::Upsert,
                    };
                    let version = (random.below(5) > 0).then(|| random.below(8) as i64);
                    let values = match op {
                        ChangeOp::Truncate => vec![None; 3],
                        _ => {
                            let x = (random.below(4) > 0).then(|| random.below(3) as i64);
                            vec![Some(random.below(5) as i64), version, x]
                        }
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
        let batches = changes(&mut SeededRandom::new(seed), 12, true);
        compare(&input(&["k"], &["version"], &[], Format::DebeziumJson), &batches, 12);
        compare(&input(&["k"], &[], &[], Format::DebeziumJson), &batches, 12);
    }
}

#[test]
fn inputs_without_a_key_equal_the_oracle_at_every_epoch() {
    for seed in 1..6 {
        let batches = changes(&mut SeededRandom::new(seed), 12, true);
        compare(&input(&[], &[], &[], Format::DebeziumJson), &batches, 12);
        compare(&input(&[], &[], &["k"], Format::DebeziumJson), &batches, 12);
        compare(&input(&[], &[], &[], Format::Json), &batches, 12);
    }
}

#[test]
fn an_input_goes_on_from_the_states_it_told() {
    for seed in 1..6 {
        let batches = changes(&mut SeededRandom::new(seed), 12, true);
        for input in [
            input(&["k"], &["version"], &[], Format::DebeziumJson),
            input(&["k"], &[], &[], Format::DebeziumJson),
            input(&[], &[], &[], Format::DebeziumJson),
            input(&[], &[], &["k"], Format::DebeziumJson),
        ] {
            (0..11)
                .step_by(2)
                .for_each(|at| compare_loaded(&input, &batches, 12, at));
        }
    }
}

fn upsert(offset: u64, k: i64, version: i64, x: i64) -> Record {
    (offset, ChangeOp::Upsert, vec![Some(k), Some(version), Some(x)])
}

fn row(k: i64, version: i64, x: i64) -> Vec<Option<i64>> {
    vec![Some(k), Some(version), Some(x)]
}

#[test]
fn an_older_version_through_another_feed_stays_dead_behind_a_tombstone() {
    let input = input(&["k"], &["version"], &[], Format::DebeziumJson);
    let delete = |offset, version| (offset, ChangeOp::Delete, vec![Some(1), version, None]);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![upsert(0, 1, 5, 50)]),
        (1, 1, "live", vec![delete(1, Some(6))]),
        (2, 0, "file", vec![upsert(0, 1, 4, 40)]), // This one is older: the key stays deleted.
        (3, 0, "file", vec![upsert(1, 1, 7, 70)]), // This one is newer: it inserts the key again.
        (4, 1, "live", vec![delete(2, None)]),     // The deletion takes version 7.
        // This one is as old, but from the earlier feed: the key stays deleted.
        (5, 0, "file", vec![upsert(2, 1, 7, 71)]),
        (6, 1, "live", vec![upsert(3, 1, 7, 72)]), // This one is as old, from the same feed, and later.
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
        let (rows, _) = run(&input, &batches, 7, RunOptions::stepwise(workers));
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
fn a_value_that_the_source_left_out_is_that_of_the_row_it_replaces() {
    // Debezium leaves large values that did not change out of an update. They became null: a customer's note was gone
    // with the next change of the address.
    let input = input(&["k"], &["version"], &[], Format::DebeziumJson);
    let partial = |offset, version| (offset, ChangeOp::Upsert, vec![Some(1), Some(version), None]);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![partial(1, 1)]), // There is no row to take the value from: null.
        (1, 1, "live", vec![upsert(2, 1, 2, 50)]),
        (2, 1, "live", vec![partial(3, 3), partial(5, 4)]), // Left out twice: the value stays.
        (3, 0, "file", vec![partial(1, 2)]),                // This one is older, and is ignored.
        (4, 1, "live", vec![(8, ChangeOp::Upsert, vec![Some(1), Some(5), None])]), // Null is a value.
        (5, 1, "live", vec![(9, ChangeOp::Delete, vec![Some(1), Some(6), None])]),
        (6, 1, "live", vec![partial(11, 7)]), // The row before it was deleted.
    ];
    let value = |version, x| Some(vec![Some(1), Some(version), x]);
    let expected = [
        value(1, None),
        value(2, Some(50)),
        value(4, Some(50)),
        value(4, Some(50)),
        value(5, None),
        None,
        value(7, None),
    ];
    for workers in [1, 2] {
        let (rows, _) = run(&input, &batches, 7, RunOptions::stepwise(workers));
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
    let (rows, _) = run(&input, &batches, 3, RunOptions::stepwise(1));
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
    // The second column is a timestamp in microseconds: 2 ms, 9 ms, 1 ms.
    let batches: Vec<Batch> = vec![
        (3, 1, "live", vec![upsert(0, 1, 2_000, 1), upsert(1, 2, 9_000, 2)]),
        (15, 1, "live", vec![upsert(2, 3, 1_000, 3)]),
    ];
    for workers in [1, 2] {
        let (rows, late) = run(&input, &batches, 30, RunOptions::stepwise(workers));
        for epoch in 0..30 {
            let found = as_of(&input, &rows, epoch);
            assert_eq!(found, resolved(&input, &batches, epoch, Some(epoch)), "at {epoch}");
        }
        assert_eq!(as_of(&input, &rows, 11).len(), 2);
        assert_eq!(as_of(&input, &rows, 12).len(), 1);
        assert_eq!(as_of(&input, &rows, 19).len(), 0);
        assert_eq!(late.len(), 1);
        assert_eq!(
            late[0].reason,
            "late: retention keeps \"version\" for 10ms, this record's time had passed when it arrived"
        );
    }
}

#[test]
fn an_input_with_retention_equals_the_oracle_at_every_epoch_and_after_a_restart() {
    for seed in 1..3 {
        let mut random = SeededRandom::new(seed);
        let mut batches = changes(&mut random, 30, true);
        // The last column is a timestamp around the epoch: some rows come late, some never expire.
        for (epoch, _, _, records) in &mut batches {
            for (_, op, values) in records.iter_mut().filter(|(_, op, _)| *op != ChangeOp::Truncate) {
                let back = random.below(14) as i64;
                values[2] = (random.below(8) > 0 || *op == ChangeOp::Delete).then(|| (*epoch as i64 + 4 - back) * 1000);
            }
        }
        let kinds = [
            input(&["k"], &["version"], &[], Format::DebeziumJson),
            input(&["k"], &[], &[], Format::DebeziumJson),
            input(&[], &[], &["k"], Format::DebeziumJson),
            input(&[], &[], &[], Format::DebeziumJson),
            input(&[], &[], &[], Format::Json),
        ];
        for mut input in kinds {
            input.columns[2].sql_type = SqlType::Timestamp;
            input.retention = Some(Retention {
                column: "x".into(),
                keep: Duration::from_millis(6),
            });
            compare(&input, &batches, 30);
            if has_state(&input) {
                (0..30)
                    .step_by(6)
                    .for_each(|at| compare_loaded(&input, &batches, 30, at));
            }
        }
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
    let never = |offset, version| (offset, ChangeOp::Upsert, vec![Some(1), Some(version), None]);
    let batches: Vec<Batch> = vec![
        (0, 1, "live", vec![(0, ChangeOp::Delete, vec![Some(1), Some(6), None])]),
        (3, 0, "file", vec![never(0, 4)]),
        (12, 0, "file", vec![never(1, 5)]),
    ];
    let (rows, _) = run(&input, &batches, 20, RunOptions::stepwise(2));
    assert!(as_of(&input, &rows, 4).is_empty(), "the tombstone is still remembered");
    assert_eq!(as_of(&input, &rows, 12).len(), 1, "the tombstone is forgotten");
    assert_eq!(resolved(&input, &batches, 12, Some(12)), as_of(&input, &rows, 12));
}

#[test]
fn times_of_rows_are_the_epochs_they_came_with() {
    let input = input(&[], &[], &[], Format::Json);
    let batches: Vec<Batch> = vec![
        (4, 1, "live", vec![upsert(0, 1, 1, 1)]),
        (9, 1, "live", vec![upsert(1, 1, 1, 1)]),
    ];
    let how = RunOptions {
        stepwise: false,
        ..RunOptions::stepwise(1)
    };
    let (rows, _) = run(&input, &batches, 10, how);
    let mut times: Vec<Epoch> = rows.iter().map(|(_, time, _)| *time).collect();
    times.sort_unstable();
    assert_eq!(times, vec![4, 9]);
}
