//! Renders the plan as differential operators: one file for each plan node, and one match that dispatches.
//!
//! ```text
//! inputs -> nodes (mfp, join, aggregate, ...) -> checks of a table -> tap
//! ```
//!
//! 1. A node is built once, however many nodes and tables read it.
//! 2. Rows that are arranged by the same keys are arranged once.
//! 3. An error is reported by every table whose rows it may be missing from, but not again by tables that read that
//!    table.
//! 4. A node outputs its rows in one face, encoded or as columns. If some reader needs the other face, one shared
//!    operator converts them. Nodes that work row by row take and output columns; all other nodes take and output
//!    encoded rows.
//! 5. A node's rows are in the encoding of its (normalised) schema. Two updates of one epoch that cancel may still
//!    flow.

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
mod sets;
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
use timely::dataflow::operators::ToStream;
use timely::dataflow::{ProbeHandle, Scope};

pub use aggregate::{SumReporting, SumStates};
pub use checks::{CLASH, Counters};
pub use temporal::{LATE, Pause, RowRetention, expire, leaving, retain, still_late};

use self::columns::Computed;
use self::face::NodeOutput;
use crate::definition::{Dataflow, OnViolation, Retention};
use crate::plan::{Aggregate, Expr, Graph, Join, JoinKind, Mfp, Node, NodeId, Op, PlannedTable};
use crate::repr::{Epoch, Round, RowCodec, Rows, Update};

/// A collection as it flows through the graph: its rows, and the errors of rows that could not be computed.
#[derive(Clone)]
pub struct Collections<'scope> {
    /// Rows of the node's schema.
    pub oks: Rows<'scope>,
    /// Error rows ([`error::error_schema`]).
    pub errs: Rows<'scope>,
}

/// The built graph.
pub struct BuiltGraph<'scope> {
    /// One for each table of [`Graph::tables`], after its retention, expectations and key check. For a table whose
    /// stored rows are kept ([`GraphPast::tables`]), only what changes after the past.
    pub tables: Vec<Collections<'scope>>,
    /// Error rows of violated `fail` expectations. No snapshot may be committed as of an epoch at which this
    /// collection is not empty.
    pub failures: Rows<'scope>,
    /// The accumulators of the aggregates in [`RestartState::sums`].
    pub sums: HashMap<NodeId, SumStates<'scope>>,
    /// Of each recursive query, by its name: which rounds are over.
    pub rounds: Vec<(String, ProbeHandle<Round>)>,
}

/// The state of the graph that outlives a run, and the restored state that a run starts from.
#[derive(Default)]
pub struct RestartState<'scope> {
    /// The aggregates whose accumulators the lake keeps; [`holds_sums_alone`] is true for each of them.
    pub sums: Vec<NodeId>,
    /// The restored state, over a lake with a past.
    pub past: Option<GraphPast<'scope>>,
}

/// The restored state of tables and aggregates, all at one epoch. Up to that epoch, a table or aggregate in it ignores
/// what arrives from the nodes that it reads.
pub struct GraphPast<'scope> {
    /// The past is what comes before this pause.
    pub pause: Pause,
    /// By index into [`Graph::tables`]: the table's rows, before its key is checked.
    pub tables: HashMap<usize, Rows<'scope>>,
    /// By aggregate: its accumulators.
    pub sums: HashMap<NodeId, SumStates<'scope>>,
}

/// Whether an aggregate has no state besides its accumulators, so that the lake can keep it for a restart.
pub fn holds_sums_alone(graph: &Graph, node: NodeId) -> bool {
    let Node { op, inputs, schema, .. } = &graph.nodes[node];
    matches!(op, Op::Aggregate(plan) if aggregate::holds_sums_alone(&graph.nodes[inputs[0]].schema, schema, plan))
}

/// Builds every table of the graph over the collections of the inputs, in the order of [`Dataflow::inputs`].
pub fn build<'s>(
    scope: Scope<'s, Epoch>,
    dataflow: &Dataflow,
    graph: &Graph,
    inputs: Vec<Collections<'s>>,
    counters: &Counters,
    restart: RestartState<'s>,
) -> BuiltGraph<'s> {
    let mut builder = Builder {
        scope,
        dataflow,
        graph,
        inputs,
        counters,
        columns: read_as_columns(graph),
        restart,
        sums: HashMap::new(),
        rounds: Vec::new(),
        nodes: graph.nodes.iter().map(|_| None).collect(),
        tables: graph.tables.iter().map(|_| None).collect(),
        keyed: HashMap::new(),
        failures: empty(scope),
    };
    let past = builder.restart.past.as_ref();
    let stored_tables = past.map_or_else(HashSet::new, |past| past.tables.keys().copied().collect());
    let epoch = past.map_or(Epoch::MIN, |past| past.pause.since);
    let tables = (0..graph.tables.len()).map(|table| match builder.table(table) {
        made if stored_tables.contains(&table) => made.after(epoch).encoded(),
        made => made.encoded(),
    });
    let tables = tables.collect();
    BuiltGraph {
        tables,
        failures: builder.failures,
        sums: builder.sums,
        rounds: builder.rounds,
    }
}

/// An empty collection.
pub fn empty<'s>(scope: Scope<'s, Epoch>) -> Rows<'s> {
    timely::dataflow::operators::generic::operator::empty(scope).as_collection()
}

/// An empty collection of errors in the scope of these rows.
fn aside<'s>(rows: &Rows<'s>) -> Rows<'s> {
    empty(rows.inner.scope())
}

/// The retention of rows of this schema.
pub fn keep(retention: &Retention, schema: &arrow::datatypes::Schema) -> RowRetention {
    RowRetention {
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
    /// By node: whether some reader takes columns.
    columns: Vec<bool>,
    restart: RestartState<'s>,
    /// The accumulators of the aggregates in `restart.sums`.
    sums: HashMap<NodeId, SumStates<'s>>,
    /// See [`BuiltGraph::rounds`].
    rounds: Vec<(String, ProbeHandle<Round>)>,
    nodes: Vec<Option<NodeOutput<'s>>>,
    tables: Vec<Option<NodeOutput<'s>>>,
    /// Arranged rows by (2). The key is the node, the printed keys, and whether rows with null keys are kept apart.
    keyed: HashMap<(NodeId, String, bool), key::KeyedRows<'s>>,
    failures: Rows<'s>,
}

/// By node: whether some reader takes columns (4).
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
    fn node_output(&mut self, id: NodeId) -> NodeOutput<'s> {
        if let Some(made) = &self.nodes[id] {
            return made.clone();
        }
        let made = self.render(id);
        self.nodes[id] = Some(made.clone());
        made
    }

    fn node(&mut self, id: NodeId) -> Collections<'s> {
        self.node_output(id).encoded()
    }

    /// Builds a node over its inputs: the one place that knows all kinds of nodes.
    fn render(&mut self, id: NodeId) -> NodeOutput<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let schema = |input: usize| &graph.nodes[node.inputs[input]].schema;
        let name = node.name.as_str();
        let rows = match &node.op {
            Op::Table(table) => return self.table(*table).with_errors(empty(self.scope)), // by (3)
            Op::Unnest(plan) => {
                let input = self.node_output(node.inputs[0]).decoded();
                return self.with_columns(node, unnest::unnest(input, &node.schema, plan, name));
            }
            Op::Mfp(plan) => return self.mfp(id, plan),
            Op::Input(input) => self.inputs[*input].clone(),
            Op::Join(plan) => {
                let [left, right] = self.sides(node, plan);
                self.with_errors(node, join::join(left, right, plan, name))
            }
            Op::Aggregate(plan) => self.aggregate(id, plan),
            Op::Distinct => sets::distinct(self.node(node.inputs[0]), name),
            Op::Counted(kind) => {
                let [left, right] = [0, 1].map(|side| self.node(node.inputs[side]));
                sets::counted(kind, left, right, name)
            }
            Op::Union => {
                let inputs = node.inputs.iter().map(|input| self.node(*input)).collect();
                sets::union(self.scope, inputs)
            }
            Op::TopK(plan) => topk::topk(self.node(node.inputs[0]), schema(0), plan, name),
            Op::Window(plan) => window::window(self.node(node.inputs[0]), schema(0), &node.schema, plan, name),
            Op::Temporal(plan) => {
                let pause = self.restart.past.as_ref().map(|past| past.pause);
                temporal::temporal(self.node(node.inputs[0]), schema(0), plan, pause, name)
            }
            Op::Constant(batch) => self.constant(batch),
            Op::Recursive(plan) => self.recursive(id, plan),
            Op::SoFar => unreachable!("what reads it is built in the scope of its recursive query"),
        };
        NodeOutput::rows(rows, &node.schema, name)
    }

    /// The output of a node that computes columns from those of its one input.
    fn with_columns(&mut self, node: &Node, computed: Computed<'s>) -> NodeOutput<'s> {
        let errs = self.node_output(node.inputs[0]).errs.concat(computed.errs);
        NodeOutput::columns(computed.main, errs, &node.schema, &node.name)
    }

    /// Builds a projection with its filters, over columns or over encoded rows (4).
    fn mfp(&mut self, id: NodeId, plan: &Mfp) -> NodeOutput<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let read = node.inputs[0];
        let schema = &graph.nodes[read].schema;
        // A projection of encoded rows is cut out of their bytes, unless some operator decodes the rows anyway.
        let evaluated = || !mfp::cuts(plan, schema, &node.schema);
        let wanted = self.columns[id] && (self.columns[read] || evaluated());
        // A join that is projected at once is never made as a node of its own.
        if !wanted && let Some(joined) = self.joined_columns(node, plan) {
            return NodeOutput::rows(joined, &node.schema, &node.name);
        }
        let input = self.node_output(read);
        if wanted || input.is_columnar() {
            let computed = mfp::mfp_columns(input.decoded(), &node.schema, plan, &node.name);
            return self.with_columns(node, computed);
        }
        let rows = mfp::mfp(input.encoded(), schema, &node.schema, plan, &node.name);
        NodeOutput::rows(rows, &node.schema, &node.name)
    }

    /// Builds an aggregate, from its kept accumulators if the lake has them.
    fn aggregate(&mut self, id: NodeId, plan: &Aggregate) -> Collections<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let mut input = self.node_output(node.inputs[0]);
        let past = self.restart.past.as_mut();
        let loaded = past.and_then(|past| Some((past.pause.since, past.sums.remove(&id)?)));
        if let Some((epoch, _)) = &loaded {
            input = input.after(*epoch);
        }
        let reporting = self.restart.sums.contains(&id).then_some(SumReporting { loaded });
        let (rows, errs) = (input.face(), input.errs.clone());
        let schemas = [graph.nodes[node.inputs[0]].schema.clone(), node.schema.clone()];
        let (made, states) = aggregate::aggregate(rows, errs, schemas, plan, reporting, &node.name);
        self.sums.extend(states.map(|states| (id, states)));
        made
    }

    /// Builds a projection of a join that nothing else reads: the join outputs only these columns.
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

    /// The two sides of a join.
    fn sides(&mut self, node: &Node, plan: &Join) -> [join::JoinSide<'s>; 2] {
        let apart = !plan.null_equals_null;
        [(0, &plan.left_keys), (1, &plan.right_keys)].map(|(input, keys)| join::JoinSide {
            keyed: self.keyed(node.inputs[input], keys, apart),
            schema: self.graph.nodes[node.inputs[input]].schema.clone(),
        })
    }

    /// Adds the errors of the node's inputs.
    fn with_errors(&mut self, node: &Node, made: Collections<'s>) -> Collections<'s> {
        let inputs = node.inputs.iter().map(|input| self.node(*input).errs);
        Collections {
            errs: inputs.fold(made.errs, |errs, input| errs.concat(input)),
            ..made
        }
    }

    fn keyed(&mut self, node: NodeId, keys: &[Expr], nulls_apart: bool) -> key::KeyedRows<'s> {
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

    fn table(&mut self, index: usize) -> NodeOutput<'s> {
        if let Some(made) = &self.tables[index] {
            return made.clone();
        }
        let made = self.checked(index);
        self.tables[index] = Some(made.clone());
        made
    }

    /// Builds the rows of a table, after its retention, expectations and key check.
    fn checked(&mut self, index: usize) -> NodeOutput<'s> {
        let table = &self.graph.tables[index];
        let PlannedTable { name, schema, .. } = table;
        let mut made = self.node_output(table.node);
        if let Some(retention) = &self.dataflow.tables[table.table].retention {
            let keep = keep(retention, schema);
            let pause = self.restart.past.as_ref().map(|past| past.pause);
            let retained = retain(made.encoded(), schema, keep, pause, &format!("{name}: retention"));
            made = NodeOutput::rows(retained, schema, name);
        }
        for expectation in &table.expectations {
            let checked = checks::expect(made.decoded(), name, expectation, self.counters);
            made = NodeOutput::columns(checked.main, made.errs.concat(checked.errs), schema, name);
            if expectation.on_violation == OnViolation::Fail {
                self.failures = self.failures.clone().concat(checked.rest);
            }
        }
        if let Some(past) = &mut self.restart.past
            && let Some(rows) = past.tables.remove(&index)
        {
            made = made.after(past.pause.since).with_rows(rows);
        }
        if !table.key.is_empty() {
            made = NodeOutput::rows(checks::unique(made.encoded(), table), schema, name);
        }
        made
    }
}
