//! Compares a GROUP BY with an oracle: at every epoch it must equal DataFusion's result over the rows so far, with any
//! number of workers. Other tests check what DataFusion cannot: exactness, errors, and the order of NaN.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use datafusion::prelude::SessionConfig;
use differential_dataflow::input::Input;
use proptest::prelude::*;

use super::super::columns;
use super::super::face::OutputRows;
use super::aggregate;
use super::finish::ColumnSource;
use super::layout::AggregateLayout;
use crate::plan::{Aggregate, AggregateCall, AggregateKind};
use crate::repr::{Diff, Epoch, Row, RowCodec, Update, normalise_batch, normalise_schema};

/// A row of the test table.
#[derive(Clone, Debug)]
struct Line {
    k: Option<String>,
    j: i64,
    i: Option<i64>,
    f: Option<f64>,
    g: Option<f64>,
    d: Option<i128>,
    b: Option<bool>,
    s: Option<String>,
    t: Option<i64>,
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("k", DataType::Utf8),
        field("j", DataType::Int64),
        field("i", DataType::Int64),
        field("f", DataType::Float64),
        field("g", DataType::Float64),
        field("d", DataType::Decimal128(12, 2)),
        field("b", DataType::Boolean),
        field("s", DataType::Utf8),
        field("t", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ]))
}

fn batch(lines: &[&Line]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(lines.iter().map(|l| l.k.clone()))),
        Arc::new(Int64Array::from_iter(lines.iter().map(|l| Some(l.j)))),
        Arc::new(Int64Array::from_iter(lines.iter().map(|l| l.i))),
        Arc::new(Float64Array::from_iter(lines.iter().map(|l| l.f))),
        Arc::new(Float64Array::from_iter(lines.iter().map(|l| l.g))),
        Arc::new(
            Decimal128Array::from_iter(lines.iter().map(|l| l.d))
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(BooleanArray::from_iter(lines.iter().map(|l| l.b))),
        Arc::new(StringArray::from_iter(lines.iter().map(|l| l.s.clone()))),
        Arc::new(TimestampMicrosecondArray::from_iter(lines.iter().map(|l| l.t))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn line() -> impl Strategy<Value = Line> {
    let k = prop_oneof![
        Just(None),
        Just(Some("a".to_string())),
        Just(Some("b".to_string())),
        Just(Some("a key that is longer than a row holds inline".to_string())),
        Just(Some(String::new())),
    ];
    let special = prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(0.0),
    ];
    let money = || (-1_000_000i64..1_000_000).prop_map(|cents| cents as f64 / 100.0);
    let numbers = (
        prop::option::weighted(0.8, prop_oneof![-9i64..9, any::<i32>().prop_map(i64::from)]),
        prop::option::weighted(0.8, prop_oneof![20 => money(), 1 => special]),
        prop::option::weighted(0.8, money()),
        prop::option::weighted(0.8, -999_999_999_999i128..999_999_999_999),
    );
    let others = (
        prop::option::weighted(0.8, any::<bool>()),
        prop::option::weighted(0.8, "[a-c]{0,2}"),
        prop::option::weighted(0.8, -1_000i64..1_000_000),
    );
    (k, 0i64..3, numbers, others).prop_map(|(k, j, (i, f, g, d), (b, s, t))| Line {
        k,
        j,
        i,
        f,
        g,
        d,
        b,
        s,
        t,
    })
}

/// Epochs of changes: the rows that are added, and, as indices, which of the existing rows are removed.
fn history() -> impl Strategy<Value = Vec<(Vec<Line>, Vec<prop::sample::Index>)>> {
    let removals = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
    prop::collection::vec((prop::collection::vec(line(), 0..10), removals), 1..5)
}

type Changes = Vec<Vec<(Line, Diff)>>;

/// The changes of each epoch. Only existing rows are removed, and the last epoch removes all that are left.
fn changes(history: &[(Vec<Line>, Vec<prop::sample::Index>)]) -> Changes {
    let mut alive: Vec<Line> = vec![];
    let mut epochs = vec![];
    for (come, go) in history {
        let mut changes = vec![];
        for index in go {
            if !alive.is_empty() {
                changes.push((alive.swap_remove(index.index(alive.len())), -1));
            }
        }
        alive.extend(come.iter().cloned());
        changes.extend(come.iter().map(|line| (line.clone(), 1)));
        epochs.push(changes);
    }
    epochs.push(alive.into_iter().map(|line| (line, -1)).collect());
    epochs
}

fn kind(name: &str) -> AggregateKind {
    match name {
        "count" => AggregateKind::Count,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Avg,
        "var_pop" => AggregateKind::VarPop,
        "var" | "var_samp" => AggregateKind::VarSamp,
        "stddev_pop" => AggregateKind::StddevPop,
        "stddev" => AggregateKind::StddevSamp,
        "bool_and" => AggregateKind::BoolAnd,
        "bool_or" => AggregateKind::BoolOr,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        _ => AggregateKind::General,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn context(rows: RecordBatch) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    context
}

/// The GROUP BY of a query, and its schema.
fn planned(sql: &str) -> (Aggregate, SchemaRef) {
    let state = context(RecordBatch::new_empty(schema())).state();
    let plan = runtime().block_on(state.create_logical_plan(sql)).unwrap();
    let plan = state
        .analyzer()
        .execute_and_check(plan, &ConfigOptions::default(), |_, _| {})
        .unwrap();
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            found = Some(aggregate.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    let node = found.expect("a GROUP BY");
    let (props, planning) = (state.execution_props(), PhysicalPlanningContext::default());
    let logical = node.input.schema().clone();
    let group = node
        .group_expr
        .iter()
        .map(|expr| create_physical_expr(expr, &logical, props, &planning).unwrap())
        .collect();
    let aggregates = node
        .aggr_expr
        .iter()
        .map(|expr| {
            let lowered = LoweredAggregateBuilder::new(expr, &logical, logical.as_arrow(), props, &planning)
                .build()
                .unwrap();
            AggregateCall {
                kind: kind(lowered.aggregate.fun().name()),
                args: lowered.aggregate.expressions(),
                filter: lowered.filter,
                distinct: lowered.aggregate.is_distinct(),
                function: lowered.aggregate,
                most: None,
            }
        })
        .collect();
    (
        Aggregate { group, aggregates },
        normalise_schema(node.schema.as_arrow()),
    )
}

/// The output of a GROUP BY: rows and error rows, as updates.
struct Output {
    schema: SchemaRef,
    oks: Vec<Update>,
    errs: Vec<Update>,
}

/// Aborts the test when a worker panics, because the other workers would wait for it forever.
struct OnPanic;

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Runs the query over the changes of epochs 1, 2, ...
fn run(sql: &str, epochs: &Changes, workers: usize) -> Output {
    let codec = RowCodec::new(schema()).unwrap();
    let updates: Vec<Update> = epochs
        .iter()
        .zip(1..)
        .flat_map(|(changes, epoch)| {
            let lines: Vec<&Line> = changes.iter().map(|(line, _)| line).collect();
            let rows = codec.encode_rows(batch(&lines).columns(), lines.len()).unwrap();
            rows.into_iter()
                .zip(changes)
                .map(move |(row, (_, diff))| (row, epoch, *diff))
                .collect::<Vec<_>>()
        })
        .collect();
    run_rows(sql, updates, workers)
}

fn run_rows(sql: &str, updates: Vec<Update>, workers: usize) -> Output {
    let schema_of_output = planned(sql).1;
    let (sql, updates) = (sql.to_string(), Arc::new(updates));
    let (oks, errs) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let (to_oks, to_errs) = (oks.clone(), errs.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let _abort = OnPanic;
        let (plan, output) = planned(&sql);
        let (oks, errs) = (to_oks.clone(), to_errs.clone());
        let (index, peers) = (worker.index(), worker.peers());
        let mut input = worker.dataflow::<Epoch, _, _>(|scope| {
            let (input, rows) = scope.new_collection::<Row, Diff>();
            let (_, none) = scope.new_collection::<Row, Diff>();
            // Rows arrive as columns or encoded, depending on the number of workers.
            let rows = match peers {
                2 => OutputRows::Columns(columns::decode(rows, &schema(), "t")),
                _ => OutputRows::Rows(rows),
            };
            let (out, _) = aggregate(rows, none, [schema(), output], &plan, None, "aggregate t");
            out.oks.inspect(move |update| oks.lock().unwrap().push(update.clone()));
            out.errs
                .inspect(move |update| errs.lock().unwrap().push(update.clone()));
            input
        });
        for (row, (update, epoch, diff)) in updates.iter().enumerate() {
            if *input.time() < *epoch {
                input.advance_to(*epoch);
                input.flush();
                // Some epochs are processed alone, others together.
                if epoch % 2 == 0 {
                    worker.step();
                }
            }
            if row % peers == index {
                input.update(update.clone(), *diff);
            }
        }
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|result| result.unwrap());
    let take = |updates: Arc<Mutex<Vec<Update>>>| std::mem::take(&mut *updates.lock().unwrap());
    Output {
        schema: schema_of_output,
        oks: take(oks),
        errs: take(errs),
    }
}

/// The rows as of an epoch.
fn as_of(updates: &[Update], epoch: Epoch) -> Vec<Row> {
    let mut rows: BTreeMap<&Row, Diff> = BTreeMap::new();
    for (row, time, diff) in updates {
        if *time <= epoch {
            *rows.entry(row).or_default() += diff;
        }
    }
    rows.into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(row, count)| {
            assert_eq!(count, 1, "a group has one row");
            row.clone()
        })
        .collect()
}

type Table = Vec<Vec<ScalarValue>>;

fn table(batch: &RecordBatch) -> Table {
    let cell = |column: &ArrayRef, row| ScalarValue::try_from_array(column, row).unwrap();
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| cell(column, row)).collect())
        .collect()
}

impl Output {
    fn at(&self, epoch: Epoch) -> Table {
        let rows = as_of(&self.oks, epoch);
        let codec = RowCodec::new(self.schema.clone()).unwrap();
        table(&codec.decode(rows.iter().map(Row::bytes)).unwrap())
    }

    fn errors_at(&self, epoch: Epoch) -> Vec<(String, Vec<u8>)> {
        let fields = vec![
            Field::new("reason", DataType::Utf8, false),
            Field::new("payload", DataType::Binary, true),
        ];
        let codec = RowCodec::new(Arc::new(Schema::new(fields))).unwrap();
        let mut errors = vec![];
        for (row, time, diff) in &self.errs {
            assert!(diff.abs() == 1);
            if *time <= epoch {
                errors.push((row.clone(), *time, *diff));
            }
        }
        as_of(&errors, epoch)
            .iter()
            .map(|row| match &table(&codec.decode([row.bytes()]).unwrap())[0][..] {
                [ScalarValue::Utf8(Some(reason)), ScalarValue::Binary(Some(payload))] => {
                    (reason.clone(), payload.clone())
                }
                other => panic!("not an error row: {other:?}"),
            })
            .collect()
    }
}

fn expected(sql: &str, schema: &SchemaRef, lines: &[&Line]) -> Table {
    let context = context(batch(lines));
    let batches = runtime().block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
    let codec = RowCodec::new(schema.clone()).unwrap();
    let mut rows = vec![];
    for batch in batches {
        let batch = normalise_batch(schema, &batch).unwrap();
        rows.extend(codec.encode_rows(batch.columns(), batch.num_rows()).unwrap());
    }
    rows.sort();
    table(&codec.decode(rows.iter().map(Row::bytes)).unwrap())
}

/// Equal, except that floats may differ slightly, because DataFusion rounds at every step.
fn alike(ours: &ScalarValue, theirs: &ScalarValue) -> bool {
    match (ours, theirs) {
        (ScalarValue::Float64(Some(x)), ScalarValue::Float64(Some(y))) => {
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-9 * (1.0 + x.abs().max(y.abs()))
        }
        _ => ours == theirs,
    }
}

fn check(sql: &str, epochs: &Changes, workers: usize) {
    let output = run(sql, epochs, workers);
    assert!(output.errs.is_empty(), "{sql}: {:?}", output.errors_at(Epoch::MAX));
    for epoch in 0..=epochs.len() {
        let mut lines: Vec<&Line> = vec![];
        for (line, diff) in epochs[..epoch].iter().flatten() {
            match diff {
                1 => lines.push(line),
                _ => {
                    let same = |other: &&Line| format!("{other:?}") == format!("{line:?}");
                    lines.swap_remove(lines.iter().position(same).expect("only rows that are there go"));
                }
            }
        }
        let (ours, theirs) = (output.at(epoch as Epoch), expected(sql, &output.schema, &lines));
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{sql}\n at {epoch}, {workers} workers\n{ours:?}\n{theirs:?}\n{lines:?}"
        );
        // Rows are sorted by their keys. Sorted by all of their bytes, a float that differs in its last bit could move
        // a row.
        let sorted = |mut table: Table| {
            table.sort_by_key(|row| format!("{:?}", &row[..keys(sql)]));
            table
        };
        for (our, their) in sorted(ours).iter().zip(&sorted(theirs)) {
            let same = our.iter().zip(their).all(|(x, y)| alike(x, y));
            assert!(
                same,
                "{sql}\n at {epoch}, {workers} workers\nours   {our:?}\ntheirs {their:?}\n{lines:?}"
            );
        }
    }
}

fn keys(sql: &str) -> usize {
    sql.split_once("GROUP BY")
        .map_or(0, |(_, keys)| keys.split(',').count())
}

const ADDITIVE: &str = "count(*), count(f), sum(i), sum(f), avg(f), avg(i), sum(d), avg(d), var_pop(g), var_samp(g), \
     stddev_pop(g), stddev(g), bool_and(b), bool_or(b), count(i) FILTER (WHERE b), sum(f) FILTER (WHERE i > 0), \
     sum(i + j), avg(g) FILTER (WHERE b), count(*) FILTER (WHERE NOT b)";
const ORDERED: &str = "min(i), max(i), min(g), max(g), min(s), max(s), min(d), max(d), min(t), max(t), \
     min(i) FILTER (WHERE b), max(g - i)";
const DISTINCT: &str = "count(*), count(DISTINCT i), sum(DISTINCT i), count(DISTINCT s), count(DISTINCT b), \
     sum(DISTINCT d), count(DISTINCT i) FILTER (WHERE b)";
const GENERAL: &str = "median(i), median(g), array_agg(i ORDER BY i DESC NULLS LAST), string_agg(s, ',' ORDER BY s), \
     first_value(i ORDER BY i), last_value(i ORDER BY i), covar_pop(g, i), bit_and(i), array_agg(DISTINCT s ORDER BY s), \
     percentile_cont(0.3) WITHIN GROUP (ORDER BY g), approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY g), \
     median(g) FILTER (WHERE b), array_agg(t ORDER BY t)";
const MIXED: &str = "max(s), count(*), min(g), median(i), sum(DISTINCT i), sum(d), max(t) FILTER (WHERE b), avg(f), \
     count(DISTINCT i), bool_or(b)";

fn check_all(aggregates: &str, history: &[(Vec<Line>, Vec<prop::sample::Index>)], workers: usize) {
    let epochs = changes(history);
    check(&format!("SELECT k, {aggregates} FROM t GROUP BY k"), &epochs, workers);
    check(&format!("SELECT {aggregates} FROM t"), &epochs, workers);
    check(
        &format!("SELECT j + 1, k, {aggregates} FROM t GROUP BY j + 1, k"),
        &epochs,
        workers,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn additive_aggregates_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check_all(ADDITIVE, &history, workers);
    }

    #[test]
    fn min_and_max_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check_all(ORDERED, &history, workers);
    }

    #[test]
    fn distinct_aggregates_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check_all(DISTINCT, &history, workers);
    }

    #[test]
    fn general_aggregates_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check_all(GENERAL, &history, workers);
    }

    #[test]
    fn all_kinds_together_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check_all(MIXED, &history, workers);
    }

    #[test]
    fn groups_without_aggregates_equal_the_batch_answer(history in history(), workers in 1usize..4) {
        check("SELECT k FROM t GROUP BY k", &changes(&history), workers);
        check("SELECT j, b FROM t GROUP BY j, b", &changes(&history), workers);
    }

    #[test]
    fn min_and_max_follow_values_that_come_and_go_from_both_ends(
        steps in prop::collection::vec((0i64..40, prop::bool::weighted(0.45)), 1..120),
        workers in 1usize..4,
    ) {
        let mut alive: Vec<i64> = vec![];
        let mut epochs: Changes = vec![vec![]];
        let mut answers = vec![None];
        for (index, (value, remove)) in steps.iter().enumerate() {
            alive.sort();
            let change = match (*remove, alive.is_empty()) {
                (true, false) if value % 3 == 0 => (alive.remove(0), -1),
                (true, false) if value % 3 == 1 => (alive.pop().unwrap(), -1),
                (true, false) => (alive.remove(*value as usize % alive.len()), -1),
                _ => {
                    alive.push(*value);
                    (*value, 1)
                }
            };
            epochs.last_mut().unwrap().push((integer("a", Some(change.0)), change.1));
            *answers.last_mut().unwrap() = alive.iter().min().zip(alive.iter().max()).map(|(x, y)| (*x, *y));
            if index % 3 == 0 {
                epochs.push(vec![]);
                answers.push(*answers.last().unwrap());
            }
        }
        let output = run("SELECT k, min(i), max(i) FROM t GROUP BY k", &epochs, workers);
        for (answer, epoch) in answers.iter().zip(1..) {
            let rows: Vec<(i64, i64)> = output.at(epoch).iter().map(|row| (int(&row[1]), int(&row[2]))).collect();
            prop_assert_eq!(rows, answer.iter().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn float_sums_do_not_depend_on_order_or_on_what_has_gone(
        values in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..20),
        kept in 1usize..20,
        workers in 1usize..4,
    ) {
        let kept = &values[..kept.min(values.len())];
        let come = values.iter().map(|x| (float(*x), 1)).collect();
        let go = values[kept.len()..].iter().rev().map(|x| (float(*x), -1)).collect();
        let alone = kept.iter().rev().map(|x| (float(*x), 1)).collect();
        let sql = "SELECT sum(f), avg(f), var_pop(f), stddev(f) FROM t";
        let one = run(sql, &vec![come, go], workers).at(2);
        let other = run(sql, &vec![alone], 1).at(1);
        prop_assert_eq!(format!("{:?}", one), format!("{:?}", other));
    }
}

fn blank() -> Line {
    Line {
        k: Some("a".to_string()),
        j: 0,
        i: None,
        f: None,
        g: None,
        d: None,
        b: None,
        s: None,
        t: None,
    }
}

fn integer(k: &str, i: Option<i64>) -> Line {
    Line {
        k: Some(k.to_string()),
        i,
        ..blank()
    }
}

fn float(f: f64) -> Line {
    Line { f: Some(f), ..blank() }
}

fn int(cell: &ScalarValue) -> i64 {
    match cell {
        ScalarValue::Int64(Some(value)) => *value,
        other => panic!("not an integer: {other:?}"),
    }
}

#[test]
fn extremes_follow_their_values_wherever_they_go() {
    let of = |k: &str, i: i64| integer(k, Some(i));
    let all = |values: std::ops::Range<i64>, diff| values.map(move |i| (of("a", i), diff)).collect::<Vec<_>>();
    let histories: Vec<(&str, Changes)> = vec![
        (
            "the extremes go, and what was next to them is there",
            vec![
                all(0..5, 1),
                vec![(of("a", 0), -1)],
                vec![(of("a", 4), -1)],
                all(1..4, -1),
            ],
        ),
        (
            "one of two that tie goes",
            vec![
                [all(0..3, 1), all(0..3, 1)].concat(),
                vec![(of("a", 0), -1), (of("a", 2), -1)],
                vec![(of("a", 0), -1), (of("a", 2), -1)],
            ],
        ),
        (
            "a group goes and comes back, lower and higher",
            vec![
                all(10..12, 1),
                all(10..12, -1),
                all(5..6, 1),
                [all(5..6, -1), all(20..21, 1)].concat(),
                vec![],
                all(20..21, -1),
            ],
        ),
        (
            "searches pass many that are gone, and what comes back is beyond where they came",
            vec![
                all(0..100, 1),
                [all(0..40, -1), all(60..100, -1)].concat(),
                [all(40..41, -1), all(59..60, -1)].concat(),
                [all(3..4, 1), all(97..98, 1)].concat(),
                [all(3..4, -1), all(97..98, -1)].concat(),
                all(41..59, -1),
                all(50..51, 1),
                [all(50..51, -1), all(2..3, 1)].concat(),
                [all(2..3, -1), all(99..100, 1)].concat(),
            ],
        ),
        (
            "values are null for a time",
            vec![
                vec![(integer("a", None), 1), (integer("b", None), 1)],
                vec![(of("a", 7), 1)],
                vec![(of("a", 7), -1)],
                vec![(integer("a", None), -1), (of("b", 1), 1)],
            ],
        ),
        (
            "a row comes and goes in one epoch",
            vec![all(1..3, 1), [all(0..4, 1), all(0..4, -1)].concat(), all(1..3, -1)],
        ),
    ];
    let sql = "SELECT k, max(i), count(*), min(i), min(j - i), max(i) FILTER (WHERE i > 2), sum(i), median(i), \
         min(i) FILTER (WHERE i > 2) FROM t GROUP BY k";
    for (what, epochs) in histories {
        for workers in 1..4 {
            println!("{what}, {workers} workers");
            check(sql, &epochs, workers);
        }
    }
}

#[test]
fn ends_of_the_same_values_share_their_arrangement() {
    let (plan, output) = planned(
        "SELECT k, min(i), max(i), max(i) FILTER (WHERE b), min(i) FILTER (WHERE b), min(g), median(i), \
         count(DISTINCT i) FROM t GROUP BY k",
    );
    let schema = schema();
    let layout = AggregateLayout::new(&schema, &output, &plan);
    let kept = layout.sources.iter().map(|source| match source {
        ColumnSource::Accumulators => None,
        ColumnSource::Arranged(kept) => Some(kept.input),
    });
    let inputs = [Some(0), Some(0), Some(1), Some(1), Some(2), Some(3), None];
    assert_eq!(kept.collect::<Vec<_>>(), inputs);
    assert_eq!(layout.parts.len(), 5);
}

#[test]
fn a_global_aggregate_has_its_row_before_any_input() {
    for workers in 1..4 {
        for sql in [
            "SELECT count(*), sum(i), avg(f) FROM t",
            "SELECT count(*), min(i), median(i), count(DISTINCT s) FROM t",
        ] {
            let output = run(sql, &vec![], workers);
            assert_eq!(output.at(0), expected(sql, &output.schema, &[]), "{workers} workers");
            assert_eq!(output.oks.len(), 1);
        }
    }
}

#[test]
fn a_sum_beyond_its_type_is_an_error_until_it_fits_again() {
    let big = integer("a", Some(i64::MAX));
    let epochs = vec![
        vec![(big.clone(), 1), (integer("b", Some(1)), 1)],
        vec![(integer("a", Some(1)), 1)],
        vec![(integer("a", Some(-1)), 1)],
        vec![(big.clone(), 1)],
        vec![
            (big.clone(), -1),
            (big, -1),
            (integer("a", Some(1)), -1),
            (integer("a", Some(-1)), -1),
        ],
    ];
    for sql in [
        "SELECT k, sum(i) FROM t GROUP BY k",
        "SELECT k, sum(i), max(i), median(i) FROM t GROUP BY k",
    ] {
        let output = run(sql, &epochs, 2);
        let counts: Vec<(usize, usize)> = (1..=5)
            .map(|epoch| (output.at(epoch).len(), output.errors_at(epoch).len()))
            .collect();
        assert_eq!(counts, [(2, 0), (1, 1), (2, 0), (1, 1), (1, 0)], "{sql}");
        let (reason, _) = &output.errors_at(2)[0];
        assert_eq!(reason, "could not compute sum(i): the result does not fit BIGINT");
        assert_eq!(int(&output.at(3)[0][1]), i64::MAX);
    }
}

#[test]
fn a_decimal_sum_beyond_its_type_is_an_error() {
    let line = |d: i128| Line { d: Some(d), ..blank() };
    let times = 50;
    let epochs = vec![(0..times).map(|_| (line(999_999_999_999), 1)).collect::<Vec<_>>()];
    let sql = "SELECT k, sum(CAST(d AS DECIMAL(38, 2)) * CAST(1e26 AS DECIMAL(38, 0))) FROM t GROUP BY k";
    let output = run(sql, &epochs, 1);
    assert_eq!(
        (output.at(1).len(), output.errors_at(1).len()),
        (0, 1),
        "{:?}",
        output.at(1)
    );
}

#[test]
fn a_group_has_no_result_while_a_row_of_it_does_not_evaluate() {
    let rows = ["a", "b"]
        .into_iter()
        .flat_map(|k| (0..50).map(move |i| integer(k, Some(i % 10))));
    let zeros = |k: &'static str, count: usize| std::iter::repeat_n((integer(k, Some(0)), -1), count);
    let epochs: Changes = vec![
        rows.map(|line| (line, 1)).collect(),
        zeros("a", 5).collect(),
        zeros("b", 4).collect(),
        vec![(integer("b", Some(0)), -1), (integer("c", Some(0)), 1)],
        vec![(integer("a", Some(0)), 1)],
        zeros("a", 1).chain(zeros("c", 1)).collect(),
    ];
    // The key is a plain column or computed. A row whose key fails counts in no group.
    for (workers, key) in (1..4).flat_map(|workers| [(workers, "k"), (workers, "substr(k, 1, 1)")]) {
        let sql = format!("SELECT {key}, count(*), sum(10 / i), min(100 / i) FROM t GROUP BY {key}");
        let output = run(&sql, &epochs, workers);
        let sum: i64 = (1..10).map(|i| 5 * (10 / i)).sum();
        for row in output.at(6) {
            assert_eq!(
                row[1..].iter().map(int).collect::<Vec<_>>(),
                [45, sum, 11],
                "{sql}, {workers} workers"
            );
        }
        let groups: Vec<usize> = (1..=6).map(|epoch| output.at(epoch).len()).collect();
        assert_eq!(groups, [0, 1, 1, 2, 1, 2], "{sql}, {workers} workers");
        // One error for each failing row, and one for each group with such rows.
        let errors = |epoch: Epoch| -> Diff {
            let errs = output.errs.iter().filter(|(_, time, _)| *time <= epoch);
            errs.map(|(_, _, diff)| diff).sum()
        };
        let errors: Vec<Diff> = (1..=6).map(errors).collect();
        assert_eq!(errors, [12, 6, 2, 2, 4, 0], "{sql}, {workers} workers");
    }
}

#[test]
fn a_row_whose_key_does_not_evaluate_is_in_no_group() {
    let epochs = vec![
        (0..5)
            .chain(1..5)
            .map(|i| (integer("a", Some(i)), 1))
            .collect::<Vec<_>>(),
    ];
    let output = run(
        "SELECT 10 / i, count(*), sum(10 / i) FROM t GROUP BY 10 / i",
        &epochs,
        2,
    );
    let counts: Vec<i64> = output.at(1).iter().map(|row| int(&row[1])).collect();
    assert_eq!((counts, output.errors_at(1).len()), (vec![2; 4], 1));
}

#[test]
fn nan_is_the_greatest_float_and_zeros_are_one_group() {
    let epochs = vec![
        vec![(float(f64::NAN), 1), (float(1.0), 1), (float(f64::NEG_INFINITY), 1)],
        vec![(float(f64::NAN), -1), (float(0.0), 1), (float(-0.0), 1)],
    ];
    let output = run("SELECT k, min(f), max(f) FROM t GROUP BY k", &epochs, 2);
    let floats = |epoch| match &output.at(epoch)[0][1..] {
        [ScalarValue::Float64(Some(min)), ScalarValue::Float64(Some(max))] => (*min, *max),
        other => panic!("not floats: {other:?}"),
    };
    assert!(floats(1).0 == f64::NEG_INFINITY && floats(1).1.is_nan());
    assert_eq!(floats(2), (f64::NEG_INFINITY, 1.0));
    let groups = run("SELECT f, count(*) FROM t GROUP BY f", &epochs, 2);
    assert_eq!(
        groups.at(2).iter().map(|row| int(&row[1])).collect::<Vec<_>>(),
        [1, 2, 1]
    );
}

#[test]
fn a_residue_does_not_outlive_its_rows() {
    let epochs = vec![
        vec![(float(0.1), 1), (float(0.2), 1), (float(0.3), 1)],
        vec![(float(1e300), 1), (float(-1e-300), 1)],
        vec![(float(1e300), -1), (float(-1e-300), -1), (float(0.3), -1)],
    ];
    let output = run("SELECT k, sum(f) FROM t GROUP BY k", &epochs, 1);
    assert_eq!(output.at(3)[0][1], ScalarValue::Float64(Some(0.1 + 0.2)));
}

#[test]
fn a_hot_key_is_one_update_for_each_worker_and_epoch() {
    let epochs: Changes = (0..3)
        .map(|_| (0..20_000).map(|i| (integer("a", Some(i)), 1)).collect())
        .collect();
    let output = run("SELECT k, count(*), sum(i) FROM t GROUP BY k", &epochs, 2);
    // The row of each epoch is added once and removed once, however many input rows it was computed from.
    assert_eq!(output.oks.len(), 5);
    assert_eq!(int(&output.at(3)[0][1]), 60_000);
}

#[test]
fn a_variance_does_not_drown_in_a_large_mean() {
    let epochs = vec![(1..=3).map(|i| (float(1e15 + i as f64), 1)).collect::<Vec<_>>()];
    let output = run(
        "SELECT k, var_pop(f), var_samp(f), stddev(f) FROM t GROUP BY k",
        &epochs,
        1,
    );
    let expected = [2.0 / 3.0, 1.0, 1.0].map(|x| ScalarValue::Float64(Some(x)));
    assert_eq!(output.at(1)[0][1..], expected);
}
