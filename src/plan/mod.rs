//! From SQL to a small plan that can be kept incrementally.
//!
//! DataFusion parses, plans and optimises each table's SELECT; [`compile`] lowers the optimised logical
//! plans of all tables into one [`Graph`]: a list of [`Node`]s, each behind its inputs, equal subplans
//! only once. What cannot be kept incrementally, or is not deterministic, is refused with construct, file
//! and line. `render` turns a graph into operators; `verify` runs [`PlannedTable::logical`] in batch.
//!
//! The plan is deterministic on its own terms: where SQL leaves an order open (ties of a top-k or of
//! ROW_NUMBER, the order inside array_agg), the remaining columns complete it, in the graph and in
//! `logical` alike.

mod calendar;
mod casts;
mod change_feed;
mod compile;
mod complete;
mod diagnose;
mod dialect;
mod error;
mod explain;
#[cfg(test)]
pub(crate) mod faults;
mod foreign;
mod functions;
mod guard;
mod json_text;
mod laterals;
mod lower;
mod meaning;
mod mistakes;
mod moments;
mod named_windows;
mod normal;
mod now;
mod numbers;
mod operators;
mod optimise;
mod ordered_sets;
mod partitions;
mod patterns;
mod places;
mod plainly;
mod reading;
mod recursive;
mod refuse;
mod rewrite;
mod row_queries;
mod said;
mod session;
mod sets;
mod shape;
mod share;
mod shorthands;
mod standard;
mod subqueries;
#[cfg(test)]
mod tests;
mod ties;
mod times;
mod using;
mod values;
mod wide;
mod windows;
mod written;

pub use calendar::register as register_calendar;
pub use compile::{compile, compile_part};
pub use dialect::Standard;
pub use explain::{readable, readable_call};
pub use guard::{keep_within_bounds, shown_bytes, too_long, value_above, without_large_values};
pub use laterals::{asof_asked, laterals_asked};
pub use meaning::{meanings, used_columns};
pub use moments::microseconds;
pub use named_windows::windows_asked;
pub use now::{asked_at, bind_now};
pub use numbers::{decimals, exact_numbers, name_of, read_decimals};
pub use operators::operators;
pub use reading::{WrittenQuery, written_condition, written_query};
pub use recursive::{MOST_EQUAL, OwnRows, Recursion, own_rows};
pub use session::{batch_context, batch_context_within, rebind};
pub use sets::{SetKind, SetsExpanded, marked};
pub use shape::{PARSER_DEPTH, flatten_asked};
pub use shorthands::write_out;
pub use standard::lengths;
pub use subqueries::join_subqueries;
pub use ties::fetch_as_limit;
pub use using::without_using;
pub use wide::wider;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::WindowExpr;

use crate::definition::OnViolation;

/// An expression over the columns of a node's input; evaluated on `RecordBatch`es of the input's schema.
pub type Expr = Arc<dyn PhysicalExpr>;

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// Everything the dataflow computes.
pub struct Graph {
    /// Every node behind its inputs.
    pub nodes: Vec<Node>,
    /// One for each table of the definition, in its order.
    pub tables: Vec<PlannedTable>,
}

impl Graph {
    /// The inputs that a node is made of, through tables too; indices into `Dataflow::inputs`.
    pub fn inputs_of(&self, node: NodeId) -> BTreeSet<usize> {
        let (mut inputs, mut seen, mut pending) = (BTreeSet::new(), BTreeSet::new(), vec![node]);
        while let Some(node) = pending.pop() {
            if !seen.insert(node) {
                continue;
            }
            match self.nodes[node].op {
                Op::Input(input) => drop(inputs.insert(input)),
                _ => pending.extend(&self.nodes[node].inputs),
            }
        }
        inputs
    }
}

/// One operator of the plan.
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<NodeId>,
    /// The columns it produces; types are normalised (`repr::normalise_schema`).
    pub schema: SchemaRef,
    /// Stable, readable: "join orders x customers".
    pub name: String,
    /// Identifies what is computed, over restarts: equal hash, equal meaning.
    pub hash: u64,
    /// Whether it never retracts a row: insertions in, insertions out.
    pub append_only: bool,
}

/// A table of the definition, planned.
pub struct PlannedTable {
    /// Index into `Dataflow::tables`.
    pub table: usize,
    /// `silver.order_lines`.
    pub name: String,
    /// The rows the SELECT yields, before expectations and key checks.
    pub node: NodeId,
    /// The table's columns.
    pub schema: SchemaRef,
    /// Conditions, each a boolean expression over `schema`.
    pub expectations: Vec<PlannedExpectation>,
    /// Positions of the key columns; empty: no key.
    pub key: Vec<usize>,
    /// Positions of partition columns.
    pub partition_by: Vec<usize>,
    /// Whether no row is ever removed from it.
    pub append_only: bool,
    /// The completed, optimised logical plan over the inputs' and tables' names, for batch recomputation.
    pub logical: LogicalPlan,
    /// The recursive queries whose rows `logical` reads, each behind those that it reads itself.
    pub recursions: Vec<Recursion>,
}

/// An expectation, planned.
pub struct PlannedExpectation {
    /// Its name.
    pub name: String,
    /// True or null: the row is fine.
    pub check: Expr,
    /// What to do with a row that is not.
    pub on_violation: OnViolation,
}

/// The operators that `render` knows.
pub enum Op {
    /// Rows of an input: its current rows, or its events. Index into `Dataflow::inputs`.
    Input(usize),
    /// Rows of a table of the definition, after its expectations and key check. Index into `Graph::tables`.
    Table(usize),
    /// Filter, then project.
    Mfp(Mfp),
    /// Two inputs by equal keys.
    Join(Join),
    /// GROUP BY.
    Aggregate(Aggregate),
    /// Each row once.
    Distinct,
    /// The first rows of each partition by an order.
    TopK(TopK),
    /// General window functions: the input's columns, then one column for each function.
    Window(Window),
    /// All rows of all inputs (by position).
    Union,
    /// EXCEPT ALL or INTERSECT ALL of two inputs (by position): the counts of equal rows decide.
    Counted(SetKind),
    /// One row for each element of list columns.
    Unnest(Unnest),
    /// Rows that exist only for a while, by the epoch's time.
    Temporal(Temporal),
    /// Rows of a constant table (VALUES, or a single empty row).
    Constant(arrow::array::RecordBatch),
    /// A recursive query: what it begins with, and its step, which reads [`Op::SoFar`] of the same beginning.
    Recursive(Recursive),
    /// Of the step of a recursive query: the query's rows of the rounds before. Its input is what the query begins with.
    SoFar,
}

/// The least `rows = base + step(rows)`; the step is linear.
pub struct Recursive {
    /// Whether each row is kept once.
    pub distinct: bool,
    /// How many rounds there may be behind the first; rows of later ones are errors.
    pub most_rounds: u64,
}

/// Filter, then project.
pub struct Mfp {
    /// All must be true (null drops the row). Over the input's schema.
    pub predicates: Vec<Expr>,
    /// The output columns, over the input's schema; none: all as they are.
    pub projection: Option<Vec<Expr>>,
}

/// What becomes of rows that match and rows that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// left ++ right for each match.
    Inner,
    /// Inner, and unmatched left rows with nulls.
    Left,
    /// Inner, and unmatched right rows with nulls.
    Right,
    /// Inner, and both sides' unmatched rows.
    Full,
    /// Left rows that match.
    LeftSemi,
    /// Left rows that do not match.
    LeftAnti,
    /// Left rows ++ a boolean: whether it matches.
    LeftMark,
}

/// An equi-join; without keys a cross join (then all rows meet on one worker).
pub struct Join {
    /// Which rows come out.
    pub kind: JoinKind,
    /// Over the left schema.
    pub left_keys: Vec<Expr>,
    /// Over the right schema; same types as `left_keys`.
    pub right_keys: Vec<Expr>,
    /// A further condition of a match, over left ++ right.
    pub residual: Option<Expr>,
    /// Whether null keys equal each other (set operations); otherwise a null key matches nothing.
    pub null_equals_null: bool,
}

/// GROUP BY: output is the group columns, then one column for each aggregate.
pub struct Aggregate {
    /// Over the input's schema; empty: one group, which exists also over no rows.
    pub group: Vec<Expr>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
}

/// One aggregate of a GROUP BY.
pub struct AggregateCall {
    /// How it is kept.
    pub kind: AggregateKind,
    /// Over the input's schema.
    pub args: Vec<Expr>,
    /// FILTER: only rows for which it is true.
    pub filter: Option<Expr>,
    /// Only distinct argument values.
    pub distinct: bool,
    /// The physical function, over the input's schema, with its own order (array_agg): what
    /// [`AggregateKind::General`] evaluates, and every kind's definition.
    pub function: Arc<AggregateFunctionExpr>,
    /// The most bytes of its value, where that grows with the group.
    pub most: Option<u64>,
}

/// How an aggregate is kept up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateKind {
    /// count(*) or count(x): in the difference.
    Count,
    /// In the difference; exact, also for floats.
    Sum,
    /// In the difference.
    Avg,
    /// Population variance, in the difference.
    VarPop,
    /// Sample variance, in the difference.
    VarSamp,
    /// Population standard deviation, in the difference.
    StddevPop,
    /// Sample standard deviation, in the difference.
    StddevSamp,
    /// In the difference, as counts.
    BoolAnd,
    /// In the difference, as counts.
    BoolOr,
    /// Hierarchical.
    Min,
    /// Hierarchical.
    Max,
    /// Anything else: DataFusion's accumulator over the group's rows whenever the group changes.
    General,
}

/// One column of an order.
pub struct SortKey {
    /// Over the input's schema.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// Where nulls go.
    pub nulls_first: bool,
}

/// The first rows of each partition. The order is total: remaining columns complete it.
pub struct TopK {
    /// Over the input's schema; empty: one partition.
    pub partition: Vec<Expr>,
    /// At least one.
    pub order: Vec<SortKey>,
    /// How many of the order's columns the user wrote; ties among these share a rank.
    pub ranked: usize,
    /// Rows (or ranks) skipped.
    pub offset: usize,
    /// Rows (or ranks) kept behind the offset; none: all.
    pub limit: Option<usize>,
    /// What counts up to `limit`.
    pub rank: Rank,
    /// Whether the rank is appended to the row as a UInt64 column.
    pub output_rank: bool,
}

/// What a top-k counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rank {
    /// Rows: ROW_NUMBER, LIMIT.
    RowNumber,
    /// RANK: ties share, gaps follow.
    Rank,
    /// DENSE_RANK: ties share, no gaps.
    DenseRank,
}

/// General window functions that share partition and order.
pub struct Window {
    /// Over the input's schema.
    pub partition: Vec<Expr>,
    /// Total order inside a partition (remaining columns complete it).
    pub order: Vec<SortKey>,
    /// Evaluated on the partition's rows in that order.
    pub functions: Vec<Arc<dyn WindowExpr>>,
    /// Of each function, the most bytes of its value, where that grows with the partition.
    pub most: Vec<Option<u64>>,
}

/// UNNEST. The output schema is the node's.
pub struct Unnest {
    /// For each output column: the input column, and whether its list elements are taken.
    pub columns: Vec<(usize, bool)>,
    /// Whether a row whose lists are all null or empty yields one row of nulls.
    pub preserve_nulls: bool,
}

/// Rows that exist while `lower <= now() < upper`, in the epoch's milliseconds.
pub struct Temporal {
    /// Timestamp expressions over the input's schema; the row enters at the greatest of them.
    /// `inclusive`: at that moment itself, else a millisecond later. A null keeps the row out.
    pub lower: Vec<Bound>,
    /// The row leaves at the least of them.
    pub upper: Vec<Bound>,
}

/// A moment a row enters or leaves.
pub struct Bound {
    /// A Timestamp(Microsecond) expression over the input's schema.
    pub expr: Expr,
    /// For a lower bound `now() >= expr`; for an upper bound `now() <= expr`: the row still exists at it.
    pub inclusive: bool,
}
