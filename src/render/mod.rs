//! The plan as differential operators: one file for each plan node, one match that dispatches.
//!
//! ```text
//! inputs -> nodes (mfp, join, aggregate, ...) -> checks of a table -> tap
//! ```
//!
//! 1. A node is built once, however many nodes and tables read it.
//! 2. Rows arranged by the same keys are arranged once.
//! 3. An error is reported by every table whose rows it may be missing from, but not again by tables that
//!    read that table.
//! 4. A node makes its rows in one face, encoded or as columns; whoever wants the other shares one operator that turns
//!    them. What computes on a row alone takes and makes columns, everything else rows.
//! 5. A node's rows are in the encoding of its (normalised) schema; where a difference of an epoch cancels, it
//!    may still flow as two updates.

pub mod aggregate;
pub mod arrange;
mod checks;
mod columns;
pub mod error;
pub mod expr;
mod face;
#[cfg(test)]
pub(crate) mod footprint_tests;
mod join;
mod key;
mod mfp;
mod order;
mod recursive;
mod rounds;
mod tagged;
pub mod tap;
mod temporal;
#[cfg(test)]
pub(crate) mod tests;
mod topk;
mod unnest;
mod window;

use std::collections::{HashMap, HashSet};

use differential_dataflow::AsCollection;
use timely::dataflow::Scope;
use timely::dataflow::operators::ToStream;

pub use aggregate::{Accumulators, SumStates, Telling};
pub use arrange::Rows;
pub use checks::{CLASH, Counters};
pub use temporal::{Keep, LATE, Pause, expire, leaving, retain, still_late};

use self::columns::Computed;
use self::face::Made;
use crate::definition::{Dataflow, OnViolation, Retention};
use crate::plan::{Expr, Graph, Join, JoinKind, Mfp, Node, NodeId, Op, PlannedTable, SetKind};
use crate::repr::{Epoch, RowCodec, Update};

/// A collection as it flows through the graph: rows that are fine, and errors made on the way.
#[derive(Clone)]
pub struct Collections<'scope> {
    /// Rows of the node's schema.
    pub oks: Rows<'scope>,
    /// Error rows ([`error::error_schema`]).
    pub errs: Rows<'scope>,
}

/// The whole graph, built.
pub struct Built<'scope> {
    /// One for each table of [`Graph::tables`], after its retention, expectations and key check; of those that stand as
    /// they are ([`Past::tables`]) what comes after the past.
    pub tables: Vec<Collections<'scope>>,
    /// Error rows of violated `fail` expectations: while this collection is not empty as of an epoch, no snapshot
    /// of that epoch may be committed.
    pub failures: Rows<'scope>,
    /// What the aggregates hold whose accumulators are kept, see [`Kept`].
    pub sums: HashMap<NodeId, SumStates<'scope>>,
}

/// What of the graph outlives a run, and what a run over a lake with a past starts from.
#[derive(Default)]
pub struct Kept<'scope> {
    /// Aggregates that tell what they hold; each [`holds_sums_alone`].
    pub sums: Vec<NodeId>,
    /// In a run over a lake with a past.
    pub past: Option<Past<'scope>>,
}

/// What is known of the past, all at one epoch. What reaches a table or aggregate that is named here from what it reads
/// does not count up to that epoch.
pub struct Past<'scope> {
    /// What comes up to its beginning is the past.
    pub pause: Pause,
    /// By place in [`Graph::tables`]: the table's rows, before its key is checked.
    pub tables: HashMap<usize, Rows<'scope>>,
    /// By aggregate: what it held.
    pub sums: HashMap<NodeId, SumStates<'scope>>,
}

/// Whether an aggregate's accumulators are all that it holds, so that they can be kept over restarts.
pub fn holds_sums_alone(graph: &Graph, node: NodeId) -> bool {
    let Node { op, inputs, schema, .. } = &graph.nodes[node];
    matches!(op, Op::Aggregate(plan) if aggregate::holds_sums_alone(&graph.nodes[inputs[0]].schema, schema, plan))
}

/// Builds every table of the graph over the inputs' collections (in the order of [`Dataflow::inputs`]).
pub fn build<'s>(
    scope: Scope<'s, Epoch>,
    dataflow: &Dataflow,
    graph: &Graph,
    inputs: Vec<Collections<'s>>,
    counters: &Counters,
    kept: Kept<'s>,
) -> Built<'s> {
    let mut builder = Builder {
        scope,
        dataflow,
        graph,
        inputs,
        counters,
        columns: read_as_columns(graph),
        kept,
        sums: HashMap::new(),
        nodes: graph.nodes.iter().map(|_| None).collect(),
        tables: graph.tables.iter().map(|_| None).collect(),
        keyed: HashMap::new(),
        failures: empty(scope),
    };
    let past = builder.kept.past.as_ref();
    let stands = past.map_or_else(HashSet::new, |past| past.tables.keys().copied().collect());
    let epoch = past.map_or(Epoch::MIN, |past| past.pause.since);
    let tables = (0..graph.tables.len()).map(|table| match builder.table(table) {
        made if stands.contains(&table) => made.after(epoch).encoded(),
        made => made.encoded(),
    });
    let tables = tables.collect();
    Built {
        tables,
        failures: builder.failures,
        sums: builder.sums,
    }
}

/// A collection without rows.
pub fn empty<'s>(scope: Scope<'s, Epoch>) -> Rows<'s> {
    timely::dataflow::operators::generic::operator::empty(scope).as_collection()
}

/// No errors, beside these rows.
fn aside<'s>(rows: &Rows<'s>) -> Rows<'s> {
    empty(rows.inner.scope())
}

/// A column's position and how long its rows stay.
pub fn keep(retention: &Retention, schema: &arrow::datatypes::Schema) -> Keep {
    Keep {
        column: schema
            .index_of(&retention.column)
            .expect("a loaded definition names columns that exist"),
        name: retention.column.clone(),
        keep: retention.keep,
    }
}

struct Builder<'a, 's> {
    scope: Scope<'s, Epoch>,
    dataflow: &'a Dataflow,
    graph: &'a Graph,
    inputs: Vec<Collections<'s>>,
    counters: &'a Counters,
    /// Of each node: whether somebody who takes columns reads it.
    columns: Vec<bool>,
    kept: Kept<'s>,
    /// What is told of `kept.sums`.
    sums: HashMap<NodeId, SumStates<'s>>,
    nodes: Vec<Option<Made<'s>>>,
    tables: Vec<Option<Made<'s>>>,
    /// See (2): by node, keys as printed, and whether nulls stand aside.
    keyed: HashMap<(NodeId, String, bool), key::Keyed<'s>>,
    failures: Rows<'s>,
}

/// Of each node: whether a reader of it takes columns. See (4).
fn read_as_columns(graph: &Graph) -> Vec<bool> {
    let mut columns = vec![false; graph.nodes.len()];
    for node in &graph.nodes {
        let takes = match &node.op {
            Op::Mfp(plan) => !mfp::cuts(plan, &graph.nodes[node.inputs[0]].schema, &node.schema),
            Op::Aggregate(_) | Op::Unnest(_) => true,
            _ => false,
        };
        if takes {
            node.inputs.iter().for_each(|input| columns[*input] = true);
        }
    }
    for table in graph.tables.iter().filter(|table| !table.expectations.is_empty()) {
        columns[table.node] = true;
    }
    columns
}

impl<'s> Builder<'_, 's> {
    fn made(&mut self, id: NodeId) -> Made<'s> {
        if let Some(made) = &self.nodes[id] {
            return made.clone();
        }
        let made = self.render(id);
        self.nodes[id] = Some(made.clone());
        made
    }

    fn node(&mut self, id: NodeId) -> Collections<'s> {
        self.made(id).encoded()
    }

    fn render(&mut self, id: NodeId) -> Made<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        if let Op::Table(table) = &node.op {
            return self.table(*table).with_errors(empty(self.scope)); // by (3)
        }
        if let Some(computed) = self.computed(id) {
            let errs = self.made(node.inputs[0]).errs.concat(computed.errs);
            return Made::columns(computed.main, errs, &node.schema, &node.name);
        }
        Made::rows(self.collections(id), &node.schema, &node.name)
    }

    /// A node that makes columns.
    fn computed(&mut self, id: NodeId) -> Option<Computed<'s>> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        match &node.op {
            Op::Unnest(plan) => {
                let input = self.made(node.inputs[0]).decoded();
                Some(unnest::unnest(input, &node.schema, plan, &node.name))
            }
            Op::Mfp(plan) => {
                let input = self.made(node.inputs[0]);
                // Columns that are picked out of encoded rows are cut, unless somebody decodes the rows anyway.
                let evaluated = || !mfp::cuts(plan, &graph.nodes[node.inputs[0]].schema, &node.schema);
                let wanted = self.columns[id] && (self.columns[node.inputs[0]] || evaluated());
                let columns = input.is_columnar() || wanted;
                columns.then(|| mfp::mfp_columns(input.decoded(), &node.schema, plan, &node.name))
            }
            _ => None,
        }
    }

    /// A node that makes rows.
    fn collections(&mut self, id: NodeId) -> Collections<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let schema = |input: usize| &graph.nodes[node.inputs[input]].schema;
        let name = node.name.as_str();
        match &node.op {
            Op::Input(input) => self.inputs[*input].clone(),
            Op::Mfp(plan) => self
                .joined_columns(node, plan)
                .unwrap_or_else(|| mfp::mfp(self.node(node.inputs[0]), schema(0), &node.schema, plan, name)),
            Op::Join(plan) => {
                let [left, right] = self.sides(node, plan);
                self.with_errors(node, join::join(left, right, plan, name))
            }
            Op::Aggregate(plan) => {
                let mut input = self.made(node.inputs[0]);
                let past = self.kept.past.as_mut();
                let loaded = past.and_then(|past| Some((past.pause.since, past.sums.remove(&id)?)));
                if let Some((epoch, _)) = &loaded {
                    input = input.after(*epoch);
                }
                let telling = self.kept.sums.contains(&id).then_some(Telling { loaded });
                let (rows, errs) = (input.face(), input.errs.clone());
                let schemas = [schema(0).clone(), node.schema.clone()];
                let (made, states) = aggregate::aggregate(rows, errs, schemas, plan, telling, name);
                self.sums.extend(states.map(|states| (id, states)));
                made
            }
            Op::Distinct => {
                let input = self.node(node.inputs[0]);
                let distinct =
                    |rows, name: &str| arrange::distinct(arrange::arrange_rows(rows, &format!("arrange {name}")), name);
                // Errors are rows here, too: a chain of UNIONs over one bad row would double its letter at each.
                Collections {
                    oks: distinct(input.oks, name),
                    errs: distinct(input.errs, &format!("errors of {name}")),
                }
            }
            Op::Counted(kind) => {
                let sides = node.inputs.iter().map(|input| self.node(*input));
                let (mut oks, errs): (Vec<_>, Vec<_>) = sides.map(|c| (c.oks, c.errs)).unzip();
                let (right, left) = (oks.pop(), oks.pop());
                let (left, right) = left.zip(right).expect("a set operation has two sides");
                let balance = arrange::arrange_rows(left.clone().concat(right.negate()), &format!("arrange {name}"));
                let more = arrange::counted(balance, name, |count| count.max(0));
                Collections {
                    oks: match kind {
                        SetKind::Except => more,
                        SetKind::Intersect => left.concat(more.negate()),
                    },
                    errs: differential_dataflow::collection::concatenate(self.scope, errs),
                }
            }
            Op::TopK(plan) => topk::topk(self.node(node.inputs[0]), schema(0), plan, name),
            Op::Window(plan) => window::window(self.node(node.inputs[0]), schema(0), &node.schema, plan, name),
            Op::Union => {
                let inputs: Vec<_> = node.inputs.iter().map(|input| self.node(*input)).collect();
                let (oks, errs): (Vec<_>, Vec<_>) = inputs.into_iter().map(|c| (c.oks, c.errs)).unzip();
                Collections {
                    oks: differential_dataflow::collection::concatenate(self.scope, oks),
                    errs: differential_dataflow::collection::concatenate(self.scope, errs),
                }
            }
            Op::Temporal(plan) => {
                let pause = self.kept.past.as_ref().map(|past| past.pause);
                temporal::temporal(self.node(node.inputs[0]), schema(0), plan, pause, name)
            }
            Op::Constant(batch) => self.constant(batch),
            Op::Recursive(plan) => self.recursive(id, plan),
            Op::SoFar => unreachable!("what reads it is built in the scope of its recursive query"),
            Op::Table(_) | Op::Unnest(_) => unreachable!("see `render` and `computed`"),
        }
    }

    /// A projection of columns of a join that nothing else reads: the join makes them at once.
    fn joined_columns(&mut self, node: &Node, plan: &Mfp) -> Option<Collections<'s>> {
        let graph = self.graph;
        let input = node.inputs[0];
        let joined = &graph.nodes[input];
        let Op::Join(join) = &joined.op else { return None };
        let readers = graph.nodes.iter().flat_map(|node| &node.inputs);
        let readers = readers.chain(graph.tables.iter().map(|table| &table.node));
        let alone = readers.filter(|read| **read == input).count() == 1;
        if !alone || !plan.predicates.is_empty() || join.kind != JoinKind::Inner || join.residual.is_some() {
            return None;
        }
        let columns = mfp::projected_columns(plan, &joined.schema, &node.schema)?;
        let [left, right] = self.sides(joined, join);
        let made = join::join_columns(&left, &right, &columns)?;
        Some(self.with_errors(joined, made))
    }

    /// What a join joins.
    fn sides(&mut self, node: &Node, plan: &Join) -> [join::Side<'s>; 2] {
        let apart = !plan.null_equals_null;
        [(0, &plan.left_keys), (1, &plan.right_keys)].map(|(input, keys)| join::Side {
            keyed: self.keyed(node.inputs[input], keys, apart),
            schema: self.graph.nodes[node.inputs[input]].schema.clone(),
        })
    }

    /// With the errors of the node's inputs.
    fn with_errors(&mut self, node: &Node, made: Collections<'s>) -> Collections<'s> {
        let inputs = node.inputs.iter().map(|input| self.node(*input).errs);
        Collections {
            errs: inputs.fold(made.errs, |errs, input| errs.concat(input)),
            ..made
        }
    }

    fn keyed(&mut self, node: NodeId, keys: &[Expr], nulls_apart: bool) -> key::Keyed<'s> {
        let cached = (node, format!("{keys:?}"), nulls_apart);
        if let Some(keyed) = self.keyed.get(&cached) {
            return keyed.clone();
        }
        let input = self.node(node);
        let node = &self.graph.nodes[node];
        let columns: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        let name = format!("{} by {}", node.name, columns.join(", "));
        let keyed = key::keyed(input.oks, &node.schema, keys, nulls_apart, &name);
        self.keyed.insert(cached, keyed.clone());
        keyed
    }

    fn constant(&self, batch: &arrow::array::RecordBatch) -> Collections<'s> {
        let schema = crate::repr::normalise_schema(&batch.schema());
        let rows = if self.scope.index() == 0 {
            let batch = crate::repr::normalise_batch(&schema, batch).expect("a planned constant has normalised types");
            let codec = RowCodec::new(schema).expect("a planned schema has a row encoding");
            codec
                .encode_rows(batch.columns(), batch.num_rows())
                .expect("a planned constant has a row encoding")
        } else {
            vec![]
        };
        let updates: Vec<Update> = rows.into_iter().map(|row| (row, Epoch::MIN, 1)).collect();
        Collections {
            oks: updates.to_stream(self.scope).as_collection(),
            errs: empty(self.scope),
        }
    }

    fn table(&mut self, index: usize) -> Made<'s> {
        if let Some(made) = &self.tables[index] {
            return made.clone();
        }
        let made = self.checked(index);
        self.tables[index] = Some(made.clone());
        made
    }

    /// A table's node, behind its retention, expectations and key check.
    fn checked(&mut self, index: usize) -> Made<'s> {
        let table = &self.graph.tables[index];
        let PlannedTable { name, schema, .. } = table;
        let mut made = self.made(table.node);
        if let Some(retention) = &self.dataflow.tables[table.table].retention {
            let keep = keep(retention, schema);
            let pause = self.kept.past.as_ref().map(|past| past.pause);
            let kept = retain(made.encoded(), schema, keep, pause, &format!("{name}: retention"));
            made = Made::rows(kept, schema, name);
        }
        for expectation in &table.expectations {
            let checked = checks::expect(made.decoded(), name, expectation, self.counters);
            made = Made::columns(checked.main, made.errs.concat(checked.errs), schema, name);
            if expectation.on_violation == OnViolation::Fail {
                self.failures = self.failures.clone().concat(checked.rest);
            }
        }
        if let Some(past) = &mut self.kept.past
            && let Some(rows) = past.tables.remove(&index)
        {
            made = made.after(past.pause.since).with_rows(rows);
        }
        if !table.key.is_empty() {
            made = Made::rows(checks::unique(made.encoded(), table), schema, name);
        }
        made
    }
}
