//! Compares operators with brute-force oracles: random updates at every time, with 1, 2 and 3 workers, both epoch by
//! epoch and with all epochs at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::{LogicalPlan, Operator};
use datafusion::physical_expr::expressions::{Column, binary, lit};
use differential_dataflow::AsCollection;
use timely::dataflow::operators::{Input as _, Inspect, Probe};
use timely::logging::{TimelyEvent, TimelyEventBuilder};

use super::*;
use crate::definition::{Dataflow, Input};
use crate::plan::*;
use crate::repr::{Diff, Row, Update};

mod functions;
mod numbers;
mod postgres;
mod recursive;

/// A tuple of nullable integers.
type Tuple = Vec<Option<i64>>;
/// Tuples with their counts.
type Bag = BTreeMap<Tuple, i64>;

pub struct SeededRandom(u64);

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        SeededRandom(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

fn schema(width: usize) -> SchemaRef {
    let fields: Vec<Field> = (0..width)
        .map(|i| Field::new(format!("c{i}"), DataType::Int64, true))
        .collect();
    Arc::new(Schema::new(fields))
}

fn encode(tuple: &Tuple) -> Row {
    let columns: Vec<ArrayRef> = tuple
        .iter()
        .map(|v| Arc::new(Int64Array::from(vec![*v])) as ArrayRef)
        .collect();
    RowCodec::new(schema(tuple.len()))
        .unwrap()
        .encode_rows(&columns, 1)
        .unwrap()
        .swap_remove(0)
}

/// Decodes integers, unsigned integers and booleans as integers.
fn decode(schema: &SchemaRef, rows: &[&Row]) -> Vec<Tuple> {
    let batch = RowCodec::new(expr::relaxed(schema))
        .unwrap()
        .decode(rows.iter().map(|r| r.bytes()))
        .unwrap();
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|c| arrow::compute::cast(c, &DataType::Int64).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|i| {
            columns
                .iter()
                .map(|c| (!c.is_null(i)).then(|| c.as_primitive::<Int64Type>().value(i)))
                .collect()
        })
        .collect()
}

fn col(index: usize) -> Expr {
    Arc::new(Column::new(&format!("c{index}"), index))
}

#[derive(Default)]
struct Plan {
    nodes: Vec<Node>,
    tables: Vec<PlannedTable>,
}

impl Plan {
    fn add(&mut self, op: Op, inputs: &[NodeId], schema: SchemaRef) -> NodeId {
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            schema,
            name: format!("node {}", self.nodes.len()),
            hash: 0,
            append_only: false,
        });
        self.nodes.len() - 1
    }

    fn table(&mut self, node: NodeId) -> &mut PlannedTable {
        let index = self.tables.len();
        self.tables.push(PlannedTable {
            table: index,
            name: format!("silver.t{index}"),
            node,
            schema: self.nodes[node].schema.clone(),
            expectations: vec![],
            key: vec![],
            partition_by: vec![],
            append_only: false,
            logical: LogicalPlan::default(),
            recursions: vec![],
        });
        &mut self.tables[index]
    }

    fn keep(self) -> Graph {
        Graph {
            nodes: self.nodes,
            tables: self.tables,
        }
    }
}

pub fn dataflow(inputs: Vec<Input>, tables: usize) -> Dataflow {
    let table = |i: usize| crate::definition::Table {
        layer: crate::definition::Layer::Silver,
        name: format!("t{i}"),
        sql: String::new(),
        file: Default::default(),
        settings_file: None,
        description: None,
        key: vec![],
        partition_by: vec![],
        expectations: vec![],
        deletes: crate::definition::Deletes::Auto,
        change_data_feed: false,
        retention: None,
        output: None,
    };
    Dataflow {
        name: "test".into(),
        folder: Default::default(),
        lake: String::new(),
        epoch: Duration::from_millis(10),
        commit: Duration::from_secs(1),
        store_options: Default::default(),
        durable: false,
        guard: false,
        history: std::time::Duration::from_secs(86_400),
        dead_letters: None,
        http: None,
        bounds: Default::default(),
        inputs,
        tables: (0..tables).map(table).collect(),
    }
}

/// The updates of each input at each time 0, 1, ...
type History = Vec<Vec<Vec<(Row, Diff)>>>;

/// Random histories that only remove tuples that are there.
fn history(
    random: &mut SeededRandom,
    times: usize,
    changes: u64,
    tuple: impl Fn(&mut SeededRandom) -> Tuple,
) -> Vec<Vec<(Tuple, Diff)>> {
    let mut live: Vec<Tuple> = vec![];
    (0..times)
        .map(|_| {
            (0..random.below(changes + 1))
                .map(|_| {
                    if !live.is_empty() && random.below(5) < 2 {
                        let position = random.below(live.len() as u64) as usize;
                        (live.swap_remove(position), -1)
                    } else {
                        let new = tuple(random);
                        live.push(new.clone());
                        (new, 1)
                    }
                })
                .collect()
        })
        .collect()
}

fn encoded(histories: &[&[Vec<(Tuple, Diff)>]]) -> History {
    histories
        .iter()
        .map(|h| {
            h.iter()
                .map(|at| at.iter().map(|(t, d)| (encode(t), *d)).collect())
                .collect()
        })
        .collect()
}

/// The output of a graph: rows and errors by table, and violations of `fail` expectations.
#[derive(Default)]
struct Answer {
    oks: Vec<Vec<Update>>,
    errs: Vec<Vec<Update>>,
    failures: Vec<Update>,
    /// How long the first worker took for each time, if the run is stepwise.
    took: Vec<Duration>,
}

/// How a graph is run.
#[derive(Clone, Copy, Debug)]
struct Way {
    workers: usize,
    /// Whether each epoch is waited for; otherwise all epochs are fed at once.
    stepwise: bool,
}

const WAYS: [Way; 4] = [
    Way {
        workers: 1,
        stepwise: true,
    },
    Way {
        workers: 1,
        stepwise: false,
    },
    Way {
        workers: 2,
        stepwise: true,
    },
    Way {
        workers: 3,
        stepwise: false,
    },
];

/// Runs a graph to time `end`; every worker feeds a share of the updates.
fn run(graph: &Arc<Graph>, history: &Arc<History>, end: u64, way: Way, counters: &Arc<Counters>) -> Answer {
    let answer = Arc::new(Mutex::new(Answer {
        oks: graph.tables.iter().map(|_| vec![]).collect(),
        errs: graph.tables.iter().map(|_| vec![]).collect(),
        failures: vec![],
        took: vec![],
    }));
    let (shared, graph, history, counters) = (answer.clone(), graph.clone(), history.clone(), counters.clone());
    let guards = timely::execute(timely::Config::process(way.workers), move |worker| {
        let definition = dataflow(vec![], graph.tables.len());
        let took = shared.clone();
        let mut probe = timely::dataflow::ProbeHandle::new();
        let mut handles = worker.dataflow::<Epoch, _, _>(|scope| {
            let (handles, inputs): (Vec<_>, Vec<_>) = history
                .iter()
                .map(|_| {
                    let (handle, stream) = scope.new_input::<Vec<Update>>();
                    let collections = Collections {
                        oks: stream.as_collection(),
                        errs: empty(scope),
                    };
                    (handle, collections)
                })
                .unzip();
            let built = build(scope, &definition, &graph, inputs, &counters, RestartState::default());
            for (table, collections) in built.tables.into_iter().enumerate() {
                let (oks, errs) = (shared.clone(), shared.clone());
                let owner = |row: &[u8], writers: usize| crate::repr::key_hash(row) as usize % writers;
                tap::tap(collections.oks, "oks", owner, move |updates| {
                    oks.lock().unwrap().oks[table].extend(updates)
                })
                .probe_with(&probe);
                tap::tap(collections.errs, "errs", owner, move |updates| {
                    errs.lock().unwrap().errs[table].extend(updates)
                })
                .probe_with(&probe);
            }
            let failures = shared.clone();
            built
                .failures
                .inner
                .inspect(move |update| failures.lock().unwrap().failures.push(update.clone()))
                .probe_with(&probe);
            handles
        });
        let _ = &mut probe;
        for time in 0..end {
            for (input, handle) in handles.iter_mut().enumerate() {
                if let Some(changes) = history[input].get(time as usize) {
                    for (index, (row, diff)) in changes.iter().enumerate() {
                        if index % worker.peers() == worker.index() {
                            handle.send((row.clone(), time, *diff));
                        }
                    }
                }
                handle.advance_to(time + 1);
            }
            if way.stepwise {
                let began = Instant::now();
                while probe.less_than(&(time + 1)) {
                    worker.step();
                }
                if worker.index() == 0 {
                    took.lock().unwrap().took.push(began.elapsed());
                }
            }
        }
        while probe.less_than(&end) {
            worker.step();
        }
    })
    .unwrap();
    drop(guards);
    Arc::into_inner(answer).unwrap().into_inner().unwrap()
}

/// The names of the operators that a graph over so many inputs becomes.
fn operators(graph: &Arc<Graph>, inputs: usize) -> Vec<String> {
    let names = Arc::new(Mutex::new(vec![]));
    let (seen, graph) = (names.clone(), graph.clone());
    timely::execute_directly(move |worker| {
        let mut log = worker.log_register().expect("this worker logs");
        log.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            for (_, event) in events.iter().flatten() {
                if let TimelyEvent::Operates(made) = event {
                    seen.lock().unwrap().push(made.name.clone());
                }
            }
        });
        drop(log);
        worker.dataflow::<Epoch, _, _>(|scope| {
            let inputs = (0..inputs).map(|_| Collections {
                oks: empty(scope),
                errs: empty(scope),
            });
            let definition = dataflow(vec![], graph.tables.len());
            let kept = RestartState::default();
            build(scope, &definition, &graph, inputs.collect(), &Default::default(), kept);
        });
    });
    let names = names.lock().unwrap();
    names.clone()
}

/// The content of a collection as of a time.
fn as_of(schema: &SchemaRef, updates: &[Update], time: u64) -> Bag {
    let mut rows: BTreeMap<&Row, i64> = BTreeMap::new();
    for (row, at, diff) in updates {
        if *at <= time {
            *rows.entry(row).or_default() += diff;
        }
    }
    rows.retain(|_, count| *count != 0);
    let (rows, counts): (Vec<&Row>, Vec<i64>) = rows.into_iter().unzip();
    decode(schema, &rows).into_iter().zip(counts).collect()
}

/// The errors as of a time, as counts of (reason, payload).
fn errors_as_of(updates: &[Update], time: u64) -> BTreeMap<(String, String), i64> {
    let codec = error::error_codec();
    let mut bag = BTreeMap::new();
    for (row, at, diff) in updates {
        if *at <= time {
            let (reason, payload) = error::read_error(&codec, row).unwrap();
            *bag.entry((reason, String::from_utf8(payload).unwrap())).or_default() += diff;
        }
    }
    bag.retain(|_, count| *count != 0);
    bag
}

/// The content of an input as of a time, with each tuple repeated as often as it is there.
fn rows_of(history: &[Vec<(Tuple, Diff)>], time: u64) -> Vec<Tuple> {
    let mut bag = Bag::new();
    for (tuple, diff) in history.iter().take(time as usize + 1).flatten() {
        *bag.entry(tuple.clone()).or_default() += diff;
    }
    bag.into_iter()
        .flat_map(|(tuple, count)| std::iter::repeat_n(tuple, count as usize))
        .collect()
}

fn bag(tuples: impl IntoIterator<Item = Tuple>) -> Bag {
    let mut bag = Bag::new();
    for tuple in tuples {
        *bag.entry(tuple).or_default() += 1;
    }
    bag
}

/// Runs the graph in every way, and compares each table with its oracle at each time.
fn compare(
    graph: impl Into<Arc<Graph>>,
    histories: &[&[Vec<(Tuple, Diff)>]],
    oracle: impl Fn(usize, &[Vec<Tuple>]) -> Bag,
) {
    let graph = graph.into();
    let history = Arc::new(encoded(histories));
    let end = histories.iter().map(|h| h.len()).max().unwrap() as u64;
    for way in WAYS {
        let answer = run(&graph, &history, end, way, &Default::default());
        for time in 0..end {
            let inputs: Vec<Vec<Tuple>> = histories.iter().map(|h| rows_of(h, time)).collect();
            for (index, table) in graph.tables.iter().enumerate() {
                let found = as_of(&table.schema, &answer.oks[index], time);
                assert_eq!(found, oracle(index, &inputs), "table {index} at {time}, {way:?}");
                assert!(
                    errors_as_of(&answer.errs[index], time).is_empty(),
                    "table {index} at {time}"
                );
            }
        }
    }
}

/// A tuple of few distinct values, some null, so that keys coincide.
fn small(random: &mut SeededRandom, width: usize, values: u64) -> Tuple {
    (0..width)
        .map(|_| (random.below(6) > 0).then(|| random.below(values) as i64))
        .collect()
}

#[test]
fn filter_and_projection_equal_the_oracle_and_failures_stand_alone_and_retract() {
    let mut plan = Plan::default();
    let input = schema(2);
    let predicate = binary(col(0), Operator::Gt, lit(1i64), &input).unwrap();
    let quotient = binary(lit(10i64), Operator::Divide, col(1), &input).unwrap();
    let source = plan.add(Op::Input(0), &[], input.clone());
    let mfp = Mfp {
        predicates: vec![predicate],
        projection: Some(vec![col(0), quotient]),
    };
    let node = plan.add(Op::Mfp(mfp), &[source], schema(2));
    plan.table(node);
    let graph = Arc::new(plan.keep());
    let history = history(&mut SeededRandom::new(1), 12, 40, |r| small(r, 2, 4));
    let shared = Arc::new(encoded(&[&history]));
    let mut failed = 0;
    for way in WAYS {
        let answer = run(&graph, &shared, 12, way, &Default::default());
        for time in 0..12 {
            let rows: Vec<Tuple> = rows_of(&history, time).into_iter().filter(|t| t[0] > Some(1)).collect();
            let fine = rows.iter().filter(|t| t[1] != Some(0));
            let expected = bag(fine.map(|t| vec![t[0], t[1].map(|v| 10 / v)]));
            assert_eq!(as_of(&input, &answer.oks[0], time), expected, "at {time}, {way:?}");
            let errors = errors_as_of(&answer.errs[0], time);
            let zeros = rows.iter().filter(|t| t[1] == Some(0)).count() as i64;
            assert_eq!(errors.values().sum::<i64>(), zeros, "at {time}, {way:?}");
            for (reason, payload) in errors.keys() {
                assert!(reason.to_lowercase().contains("divide by zero"), "{reason}");
                assert!(payload.contains("\"c1\":0"), "{payload}");
            }
            failed += zeros;
        }
    }
    assert!(failed > 0, "nothing failed, so nothing was tested");
}

const KINDS: [JoinKind; 7] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
    JoinKind::LeftMark,
];

#[test]
fn joins_of_all_kinds_equal_nested_loops() {
    let mut plan = Plan::default();
    let (left, right) = (schema(2), schema(3));
    let l = plan.add(Op::Input(0), &[], left.clone());
    let r = plan.add(Op::Input(1), &[], right.clone());
    let both = schema(5);
    let residual = binary(col(1), Operator::Lt, col(3), &both).unwrap();
    let mut cases = vec![];
    for kind in KINDS {
        for with_residual in [false, true] {
            for null_equals_null in [false, true] {
                for keys in [1, 0] {
                    cases.push((kind, with_residual, null_equals_null, keys));
                    let join = Join {
                        kind,
                        left_keys: if keys == 1 { vec![col(0)] } else { vec![] },
                        right_keys: if keys == 1 { vec![col(0)] } else { vec![] },
                        residual: with_residual.then(|| residual.clone()),
                        null_equals_null,
                    };
                    let output = match kind {
                        JoinKind::LeftSemi | JoinKind::LeftAnti => left.clone(),
                        JoinKind::LeftMark => {
                            let mut fields: Vec<Field> = left.fields().iter().map(|f| f.as_ref().clone()).collect();
                            fields.push(Field::new("mark", DataType::Boolean, false));
                            Arc::new(Schema::new(fields))
                        }
                        _ => both.clone(),
                    };
                    let node = plan.add(Op::Join(join), &[l, r], output);
                    plan.table(node);
                }
            }
        }
    }
    let mut random = SeededRandom::new(7);
    let lefts = history(&mut random, 8, 12, |r| small(r, 2, 4));
    let rights = history(&mut random, 8, 8, |r| small(r, 3, 4));
    compare(plan.keep(), &[&lefts, &rights], |index, inputs| {
        let (kind, with_residual, null_equals_null, keys) = cases[index];
        let matches = |l: &Tuple, r: &Tuple| {
            let equal = keys == 0 || (l[0] == r[0] && (l[0].is_some() || null_equals_null));
            equal && (!with_residual || l[1].zip(r[1]).is_some_and(|(a, b)| a < b))
        };
        let mut out = vec![];
        for l in &inputs[0] {
            let matched: Vec<&Tuple> = inputs[1].iter().filter(|r| matches(l, r)).collect();
            match kind {
                JoinKind::LeftSemi if !matched.is_empty() => out.push(l.clone()),
                JoinKind::LeftAnti if matched.is_empty() => out.push(l.clone()),
                JoinKind::LeftSemi | JoinKind::LeftAnti => {}
                JoinKind::LeftMark => {
                    let mark = vec![Some(i64::from(!matched.is_empty()))];
                    out.push([l.clone(), mark].concat());
                }
                _ => {
                    out.extend(matched.iter().map(|r| [l.as_slice(), r.as_slice()].concat()));
                    if matched.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                        out.push([l.clone(), vec![None; 3]].concat());
                    }
                }
            }
        }
        if matches!(kind, JoinKind::Right | JoinKind::Full) {
            let unmatched = inputs[1].iter().filter(|r| !inputs[0].iter().any(|l| matches(l, r)));
            out.extend(unmatched.map(|r| [vec![None; 2], r.clone()].concat()));
        }
        bag(out)
    });
}

#[test]
fn a_join_by_any_columns_yields_the_columns_that_a_projection_asks_for() {
    let mut plan = Plan::default();
    let (left, right, both) = (schema(2), schema(3), schema(5));
    let l = plan.add(Op::Input(0), &[], left.clone());
    let r = plan.add(Op::Input(1), &[], right.clone());
    let computed = binary(col(0), Operator::Plus, lit(0i64), &left).unwrap();
    /// The left keys, the right keys, and the pairs of columns (left, right) that they equate.
    type Keys = (Vec<Expr>, Vec<Expr>, Vec<(usize, usize)>);
    let keys: [Keys; 4] = [
        (vec![col(1)], vec![col(2)], vec![(1, 2)]),
        (vec![col(1), col(0)], vec![col(0), col(2)], vec![(1, 0), (0, 2)]),
        (vec![computed], vec![col(1)], vec![(0, 1)]),
        (vec![col(0), col(0)], vec![col(1), col(0)], vec![(0, 1), (0, 0)]),
    ];
    let columns = [4, 0, 2, 3, 0];
    let mut cases = vec![];
    for (left_keys, right_keys, equal) in keys.clone() {
        // A projection becomes part of the join only if nothing else reads the join.
        for read_twice in [false, true] {
            let join = Join {
                kind: JoinKind::Inner,
                left_keys: left_keys.clone(),
                right_keys: right_keys.clone(),
                residual: None,
                null_equals_null: false,
            };
            let joined = plan.add(Op::Join(join), &[l, r], both.clone());
            let projection = Mfp {
                predicates: vec![],
                projection: Some(columns.map(col).to_vec()),
            };
            let projected = plan.add(Op::Mfp(projection), &[joined], schema(columns.len()));
            plan.table(projected);
            cases.push((equal.clone(), true));
            if read_twice {
                plan.table(joined);
                cases.push((equal.clone(), false));
            }
        }
    }
    let graph = Arc::new(plan.keep());
    let joins = operators(&graph, 2);
    let joins = joins.iter().filter(|name| *name == "Join").count();
    assert_eq!(
        joins,
        2 * keys.len(),
        "a join is built once, whether or not it is projected"
    );
    let mut random = SeededRandom::new(17);
    let lefts = history(&mut random, 6, 12, |r| small(r, 2, 4));
    let rights = history(&mut random, 6, 12, |r| small(r, 3, 4));
    compare(graph, &[&lefts, &rights], |index, inputs| {
        let (equal, projected) = &cases[index];
        let matches = |l: &Tuple, r: &Tuple| equal.iter().all(|(i, j)| l[*i].is_some() && l[*i] == r[*j]);
        let pairs = inputs[0].iter().flat_map(|l| inputs[1].iter().map(move |r| (l, r)));
        let joined = pairs
            .filter(|(l, r)| matches(l, r))
            .map(|(l, r)| [l.as_slice(), r].concat());
        match projected {
            true => bag(joined.map(|row| columns.iter().map(|column| row[*column]).collect())),
            false => bag(joined),
        }
    });
}

#[test]
fn distinct_union_and_constants_equal_the_oracle() {
    let mut plan = Plan::default();
    let one = schema(1);
    let a = plan.add(Op::Input(0), &[], one.clone());
    let b = plan.add(Op::Input(1), &[], one.clone());
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), Some(2), None]));
    let constant = Op::Constant(RecordBatch::try_new(one.clone(), vec![values]).unwrap());
    let c = plan.add(constant, &[], one.clone());
    let union = plan.add(Op::Union, &[a, b, c, a], one.clone());
    let distinct = plan.add(Op::Distinct, &[union], one.clone());
    plan.table(union);
    plan.table(distinct);
    let mut random = SeededRandom::new(3);
    let left = history(&mut random, 10, 10, |r| small(r, 1, 9));
    let right = history(&mut random, 10, 10, |r| small(r, 1, 9));
    compare(plan.keep(), &[&left, &right], |index, inputs| {
        let constant = [vec![Some(2)], vec![Some(2)], vec![None]];
        let all = inputs[0]
            .iter()
            .chain(&inputs[1])
            .chain(&constant)
            .chain(&inputs[0])
            .cloned();
        let mut bag = bag(all);
        if index == 1 {
            bag.values_mut().for_each(|count| *count = 1);
        }
        bag
    });
}

#[test]
fn top_k_of_all_kinds_equals_sorting() {
    let mut plan = Plan::default();
    let input = schema(3);
    let source = plan.add(Op::Input(0), &[], input.clone());
    let mut cases = vec![];
    for rank in [Rank::RowNumber, Rank::Rank, Rank::DenseRank] {
        for output_rank in [false, true] {
            for (offset, limit) in [(0, Some(2)), (1, Some(2)), (2, None), (0, Some(0))] {
                for partitioned in [true, false] {
                    cases.push((rank, output_rank, offset, limit, partitioned));
                    let key = |index, descending, nulls_first| SortKey {
                        expr: col(index),
                        descending,
                        nulls_first,
                    };
                    let topk = TopK {
                        partition: if partitioned { vec![col(0)] } else { vec![] },
                        order: vec![key(1, true, false), key(2, false, true), key(0, false, false)],
                        ranked: 1,
                        offset,
                        limit,
                        rank,
                        output_rank,
                    };
                    let mut fields: Vec<Field> = input.fields().iter().map(|f| f.as_ref().clone()).collect();
                    if output_rank {
                        fields.push(Field::new("rank", DataType::UInt64, false));
                    }
                    let node = plan.add(Op::TopK(topk), &[source], Arc::new(Schema::new(fields)));
                    plan.table(node);
                }
            }
        }
    }
    let rows = history(&mut SeededRandom::new(11), 10, 14, |r| small(r, 3, 3));
    compare(plan.keep(), &[&rows], |index, inputs| {
        let (kind, output_rank, offset, limit, partitioned) = cases[index];
        let mut partitions: BTreeMap<Option<i64>, Vec<Tuple>> = BTreeMap::new();
        for tuple in &inputs[0] {
            let partition = if partitioned { tuple[0] } else { None };
            partitions.entry(partition).or_default().push(tuple.clone());
        }
        let mut out = vec![];
        for rows in partitions.values_mut() {
            // The order is: descending with nulls last, ascending with nulls first, ascending with nulls last.
            rows.sort_by_key(|t| {
                let second = (t[1].is_none(), t[1].map(|v| -v));
                (second, t[2], (t[0].is_none(), t[0]))
            });
            let (mut rank, mut dense) = (0, 0);
            for (position, row) in rows.iter().enumerate() {
                if position == 0 || rows[position - 1][1] != row[1] {
                    rank = position + 1;
                    dense += 1;
                }
                let number = match kind {
                    Rank::RowNumber => position + 1,
                    Rank::Rank => rank,
                    Rank::DenseRank => dense,
                };
                if number > offset && limit.is_none_or(|limit| number <= offset + limit) {
                    let mut row = row.clone();
                    if output_rank {
                        row.push(Some(number as i64));
                    }
                    out.push(row);
                }
            }
        }
        bag(out)
    });
}

#[test]
fn windows_equal_the_oracle() {
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::logical_expr::{WindowFrame, WindowFunctionDefinition};
    use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};

    let mut plan = Plan::default();
    let input = schema(3);
    let source = plan.add(Op::Input(0), &[], input.clone());
    let keys = || {
        [1, 2, 0].map(|index| SortKey {
            expr: col(index),
            descending: false,
            nulls_first: true,
        })
    };
    let sort = keys().map(|k| PhysicalSortExpr {
        expr: k.expr,
        options: arrow::compute::SortOptions {
            descending: false,
            nulls_first: true,
        },
    });
    let ordering = LexOrdering::new(sort).unwrap();
    // A running sum.
    let frame = Arc::new(WindowFrame::new(Some(false)));
    let function = datafusion::physical_plan::windows::create_window_expr(
        &WindowFunctionDefinition::AggregateUDF(sum_udaf()),
        "total".to_string(),
        &[col(2)],
        &[col(0)],
        ordering.as_ref(),
        frame,
        input.clone(),
        false,
        false,
        None,
    )
    .unwrap();
    let window = Window {
        partition: vec![col(0)],
        order: keys().into(),
        functions: vec![function],
        most: vec![None],
    };
    let node = plan.add(Op::Window(window), &[source], schema(4));
    plan.table(node);
    let rows = history(&mut SeededRandom::new(5), 8, 10, |r| small(r, 3, 3));
    compare(plan.keep(), &[&rows], |_, inputs| {
        let mut partitions: BTreeMap<Option<i64>, Vec<Tuple>> = BTreeMap::new();
        for tuple in &inputs[0] {
            partitions.entry(tuple[0]).or_default().push(tuple.clone());
        }
        let mut out = vec![];
        for rows in partitions.values_mut() {
            rows.sort_by_key(|t| (t[1], t[2]));
            let mut total = None;
            for row in rows {
                total = row[2].map_or(total, |x| Some(total.unwrap_or(0) + x));
                out.push([row.clone(), vec![total]].concat());
            }
        }
        bag(out)
    });
}

#[test]
fn unnest_spreads_lists_side_by_side() {
    use arrow::array::ListArray;
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let input: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("a", list.clone(), true),
        Field::new("b", list, true),
    ]));
    let lists = [
        (Some(vec![1, 2, 3]), Some(vec![4])),
        (None, Some(vec![])),
        (Some(vec![]), Some(vec![])),
        (Some(vec![7]), None),
        (None, None),
    ];
    let of = |lists: Vec<Option<Vec<i64>>>| -> ArrayRef {
        let lists = lists.into_iter().map(|l| l.map(|l| l.into_iter().map(Some)));
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from((0..5).collect::<Vec<i64>>())),
        of(lists.iter().map(|(a, _)| a.clone()).collect()),
        of(lists.iter().map(|(_, b)| b.clone()).collect()),
    ];
    let rows = RowCodec::new(input.clone()).unwrap().encode_rows(&columns, 5).unwrap();
    let mut plan = Plan::default();
    let source = plan.add(Op::Input(0), &[], input);
    for preserve_nulls in [false, true] {
        let unnest = Unnest {
            columns: vec![(0, false), (1, true), (2, true)],
            preserve_nulls,
        };
        let node = plan.add(Op::Unnest(unnest), &[source], schema(3));
        plan.table(node);
    }
    let graph = Arc::new(plan.keep());
    let removed = vec![(rows[0].clone(), -1)];
    let history = Arc::new(vec![vec![rows.into_iter().map(|r| (r, 1)).collect(), removed]]);
    for way in WAYS {
        let answer = run(&graph, &history, 2, way, &Default::default());
        let first = bag([
            vec![Some(0), Some(1), Some(4)],
            vec![Some(0), Some(2), None],
            vec![Some(0), Some(3), None],
        ]);
        let mut rest = bag([vec![Some(3), Some(7), None]]);
        for table in 0..2 {
            if table == 1 {
                // This is how DataFusion counts: a null list is one null, and an empty list yields no row.
                rest.extend(bag([vec![Some(1), None, None], vec![Some(4), None, None]]));
            }
            let both: Bag = first.clone().into_iter().chain(rest.clone()).collect();
            assert_eq!(as_of(&schema(3), &answer.oks[table], 0), both);
            assert_eq!(as_of(&schema(3), &answer.oks[table], 1), rest);
        }
    }
}

#[test]
fn rows_enter_and_leave_by_time_and_retractions_undo_what_is_still_to_come() {
    let mut plan = Plan::default();
    let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let input = schema(2);
    let moment = |index| datafusion::physical_expr::expressions::cast(col(index), &input, micros.clone()).unwrap();
    let source = plan.add(Op::Input(0), &[], input.clone());
    let mut cases = vec![];
    for lower in [true, false] {
        for upper in [true, false] {
            cases.push((lower, upper));
            let temporal = Temporal {
                lower: vec![TemporalBound {
                    expr: moment(0),
                    inclusive: lower,
                }],
                upper: vec![TemporalBound {
                    expr: moment(1),
                    inclusive: upper,
                }],
            };
            let node = plan.add(Op::Temporal(temporal), &[source], input.clone());
            plan.table(node);
        }
    }
    // Times from 0 to 20 ms in steps of half a millisecond, in microseconds; some are null.
    let tuple = |r: &mut SeededRandom| -> Tuple {
        (0..2)
            .map(|_| (r.below(9) > 0).then(|| 500 * r.below(40) as i64))
            .collect()
    };
    let mut rows = history(&mut SeededRandom::new(9), 12, 20, tuple);
    rows.extend((0..10).map(|_| vec![])); // time goes on without changes
    let graph = Arc::new(plan.keep());
    let shared = Arc::new(encoded(&[&rows]));
    for way in WAYS {
        let answer = run(&graph, &shared, rows.len() as u64, way, &Default::default());
        for time in 0..rows.len() as u64 {
            for (index, (lower, upper)) in cases.iter().enumerate() {
                let now = time as i64 * 1000;
                let expected = bag(rows_of(&rows, time).into_iter().filter(|t| {
                    t[0].is_some_and(|l| if *lower { now >= l } else { now > l })
                        && t[1].is_some_and(|u| if *upper { now <= u } else { now < u })
                }));
                let found = as_of(&input, &answer.oks[index], time);
                assert_eq!(found, expected, "case {index} at {time}, {way:?}");
            }
        }
    }
}

#[test]
fn rows_that_share_a_key_are_errors_until_one_is_left_and_readers_do_not_repeat_them() {
    let mut plan = Plan::default();
    let input = schema(2);
    let source = plan.add(Op::Input(0), &[], input.clone());
    plan.table(source).key = vec![0];
    let reader = plan.add(Op::Table(0), &[], input.clone());
    plan.table(reader);
    let graph = Arc::new(plan.keep());
    let rows = history(&mut SeededRandom::new(2), 12, 6, |r| small(r, 2, 8));
    let shared = Arc::new(encoded(&[&rows]));
    let mut clashes = 0;
    for way in WAYS {
        let answer = run(&graph, &shared, 12, way, &Default::default());
        for time in 0..12 {
            let all = rows_of(&rows, time);
            let (alone, shared): (Vec<_>, Vec<_>) = all
                .iter()
                .cloned()
                .partition(|t| all.iter().filter(|o| o[0] == t[0]).count() == 1);
            clashes += shared.len();
            let errors = errors_as_of(&answer.errs[0], time);
            assert_eq!(errors.values().sum::<i64>(), shared.len() as i64, "at {time}, {way:?}");
            assert!(
                errors.keys().all(|(reason, _)| reason.contains("with this key (c0)")),
                "{errors:?}"
            );
            for table in 0..2 {
                assert_eq!(
                    as_of(&input, &answer.oks[table], time),
                    bag(alone.clone()),
                    "at {time}, {way:?}"
                );
            }
            assert!(errors_as_of(&answer.errs[1], time).is_empty());
        }
    }
    assert!(clashes > 0, "no keys clashed, so nothing was tested");
}

#[test]
fn expectations_warn_drop_and_fail() {
    use crate::definition::OnViolation;
    let mut plan = Plan::default();
    let input = schema(1);
    let source = plan.add(Op::Input(0), &[], input.clone());
    for on_violation in [OnViolation::Warn, OnViolation::Drop, OnViolation::Fail] {
        let check = binary(col(0), Operator::Lt, lit(3i64), &input).unwrap();
        plan.table(source).expectations = vec![PlannedExpectation {
            name: "small".into(),
            check,
            on_violation,
        }];
    }
    let graph = Arc::new(plan.keep());
    let rows = history(&mut SeededRandom::new(4), 10, 8, |r| small(r, 1, 5));
    let shared = Arc::new(encoded(&[&rows]));
    for way in WAYS {
        let counters = Arc::new(Counters::default());
        let answer = run(&graph, &shared, 10, way, &counters);
        for time in 0..10 {
            let all = rows_of(&rows, time);
            let broken = all.iter().filter(|t| t[0] >= Some(3)).count() as i64;
            let fine = all.iter().filter(|t| t[0] < Some(3)).cloned();
            assert_eq!(as_of(&input, &answer.oks[0], time), bag(all.clone()));
            assert_eq!(as_of(&input, &answer.oks[1], time), bag(fine));
            assert_eq!(as_of(&input, &answer.oks[2], time), bag(all.clone()));
            let dropped = errors_as_of(&answer.errs[1], time);
            assert_eq!(dropped.values().sum::<i64>(), broken);
            assert!(
                dropped
                    .keys()
                    .all(|(reason, _)| reason.contains("expectation \"small\""))
            );
            assert_eq!(errors_as_of(&answer.failures, time).values().sum::<i64>(), broken);
            if time == 9 {
                let all_three = ["silver.t0", "silver.t1", "silver.t2"].map(|t| (t.into(), "small".into(), broken));
                assert_eq!(counters.read(), all_three);
            }
        }
    }
}

#[test]
fn an_arrangement_by_the_same_keys_is_made_once() {
    let mut plan = Plan::default();
    let input = schema(2);
    let source = plan.add(Op::Input(0), &[], input.clone());
    for _ in 0..2 {
        let join = Join {
            kind: JoinKind::Inner,
            left_keys: vec![col(0)],
            right_keys: vec![col(0)],
            residual: None,
            null_equals_null: false,
        };
        let node = plan.add(Op::Join(join), &[source, source], schema(4));
        plan.table(node);
    }
    let graph = plan.keep();
    let arranged = timely::execute_directly(move |worker| {
        worker.dataflow::<Epoch, _, _>(|scope| {
            let (_handle, stream) = scope.new_input::<Vec<Update>>();
            let inputs = vec![Collections {
                oks: stream.as_collection(),
                errs: empty(scope),
            }];
            let definition = dataflow(vec![], 2);
            let counters = Counters::default();
            let mut builder = Builder {
                scope,
                dataflow: &definition,
                graph: &graph,
                inputs,
                counters: &counters,
                columns: read_as_columns(&graph),
                restart: RestartState::default(),
                sums: HashMap::new(),
                rounds: Vec::new(),
                nodes: vec![None, None, None],
                tables: vec![None, None],
                keyed: HashMap::new(),
                failures: empty(scope),
            };
            builder.table(0);
            builder.table(1);
            builder.keyed.len()
        })
    });
    assert_eq!(arranged, 1);
}
