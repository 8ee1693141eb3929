//! From SQL to a small plan that can be kept up to date incrementally.
//!
//! DataFusion parses, plans and optimises each table's SELECT. [`compile`] lowers the optimised logical plans
//! of all tables into one [`Graph`]: a list of [`Node`]s in which every node comes after its inputs and equal
//! subplans share one node. A construct that cannot be kept up to date incrementally, or that is not
//! deterministic, is refused with the construct's name, file and line. `render` turns a graph into operators;
//! `verify` runs [`PlannedTable::logical`] in batch.
//!
//! The plan is deterministic even where SQL is not: where SQL leaves an order open (ties of a top-k or of
//! ROW_NUMBER, the order inside array_agg), the remaining columns complete the order, in the graph and in
//! `logical` alike.

mod calendar;
mod casts;
mod change_feed;
mod compile;
mod complete;
mod diagnose;
mod dialect;
mod encoding;
mod error;
mod explain;
#[cfg(test)]
pub(crate) mod faults;
mod foreign;
mod functions;
mod guard;
mod json_numbers;
mod json_text;
mod laterals;
mod limits;
mod lower;
mod meaning;
mod message_rules;
mod mistakes;
mod moments;
mod named_windows;
mod normalise;
mod now;
mod numbers;
mod operators;
mod optimise;
mod ordered_sets;
mod partitions;
mod patterns;
mod places;
mod plain_messages;
mod positions;
mod reading;
mod recursive;
mod refuse;
mod rewrite;
mod row_queries;
mod session;
mod sets;
mod shape;
mod share;
mod shorthands;
mod standard;
mod subqueries;
mod syntax;
#[cfg(test)]
mod tests;
mod ties;
mod times;
mod unread;
mod using;
mod values;
mod widen_windows;
mod window_shifts;
mod windows;

pub use compile::{compile, compile_part};
pub use diagnose::query_mistakes;
pub use dialect::Standard;
pub use encoding::{PlanHash, VERSION as ENCODING_VERSION, meaning_of, meaning_text, quoted, retention, texts};
pub use explain::{readable, readable_call};
pub use functions::register as register_functions;
pub use guard::{keep_within_bounds, shown_bytes, too_long, value_above, without_large_values};
pub use laterals::{laterals_asked, tokens_asked};
pub use meaning::{meanings, used_columns};
pub use moments::microseconds;
pub use named_windows::windows_asked;
pub use now::{asked_at, bind_now};
pub use numbers::{decimals, exact_numbers, name_of, read_decimals};
pub use operators::operators;
pub use positions::places_asked;
pub use reading::{WrittenQuery, written_condition, written_query};
pub use recursive::{MOST_EQUAL, OwnRows, Recursion, own_rows};
pub use session::{batch_context, batch_context_within, rebind};
pub use sets::{SetKind, SetsExpanded, marked};
pub use shape::{PARSER_DEPTH, flatten_asked};
pub use shorthands::{paths_asked, write_out};
pub use standard::lengths;
pub use subqueries::join_subqueries;
pub use ties::fetch_as_limit;
pub use using::without_using;
pub use widen_windows::wider;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::WindowExpr;

use crate::definition::OnViolation;

/// An expression over the columns of a node's input. It is evaluated on `RecordBatch`es of the input's schema.
pub type Expr = Arc<dyn PhysicalExpr>;

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// Everything the dataflow computes.
pub struct Graph {
    /// Each node comes after its inputs.
    pub nodes: Vec<Node>,
    /// One for each table of the definition, in the definition's order.
    pub tables: Vec<PlannedTable>,
}

impl Graph {
    /// The inputs that a node depends on, directly or through tables, as indices into `Dataflow::inputs`.
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
    /// The operator, with its expressions.
    pub op: Op,
    /// The nodes whose rows it reads.
    pub inputs: Vec<NodeId>,
    /// The columns it produces; types are normalised (`repr::normalise_schema`).
    pub schema: SchemaRef,
    /// Readable, and the same after a restart: "join orders x customers".
    pub name: String,
    /// Identifies what the node computes, also after a restart: nodes with equal hashes compute the same.
    pub hash: PlanHash,
    /// Whether it never retracts a row as long as its inputs do not.
    pub append_only: bool,
}

/// The plan of a table of the definition.
pub struct PlannedTable {
    /// Index into `Dataflow::tables`.
    pub table: usize,
    /// The qualified name, such as `silver.order_lines`.
    pub name: String,
    /// The node whose rows the SELECT yields, before expectations and key checks.
    pub node: NodeId,
    /// The table's columns.
    pub schema: SchemaRef,
    /// The table's expectations, each with a boolean expression over `schema`.
    pub expectations: Vec<PlannedExpectation>,
    /// Positions of the key columns; empty if the table has no key.
    pub key: Vec<usize>,
    /// Positions of partition columns.
    pub partition_by: Vec<usize>,
    /// Whether rows are never removed from it.
    pub append_only: bool,
    /// The completed, optimised logical plan over the inputs' and tables' names, for batch recomputation.
    pub logical: LogicalPlan,
    /// The recursive queries whose rows `logical` reads, each after those that it reads itself.
    pub recursions: Vec<Recursion>,
}

/// The plan of an expectation.
pub struct PlannedExpectation {
    /// Its name.
    pub name: String,
    /// A row is fine if this is true or null.
    pub check: Expr,
    /// What happens to a row for which `check` is false.
    pub on_violation: OnViolation,
}

/// The operators that `render` knows.
pub enum Op {
    /// The rows of an input, which are its current rows or its events. Holds an index into `Dataflow::inputs`.
    Input(usize),
    /// The rows of a table of the definition, after its expectations and key check. Holds an index into
    /// `Graph::tables`.
    Table(usize),
    /// Filter, then project.
    Mfp(Mfp),
    /// Joins two inputs by equal keys.
    Join(Join),
    /// GROUP BY.
    Aggregate(Aggregate),
    /// SELECT DISTINCT: equal rows become one.
    Distinct,
    /// The first rows of each partition by an order.
    TopK(TopK),
    /// General window functions: the input's columns, then one column for each function.
    Window(Window),
    /// UNION ALL of all inputs, whose columns correspond by position.
    Union,
    /// EXCEPT ALL or INTERSECT ALL of two inputs, whose columns correspond by position. How often a row is in
    /// each input decides how often it comes out.
    Counted(SetKind),
    /// One row for each element of list columns.
    Unnest(Unnest),
    /// Rows that exist only for a while, as the epoch's time decides.
    Temporal(Temporal),
    /// Rows of a constant table (VALUES, or a single empty row).
    Constant(arrow::array::RecordBatch),
    /// A recursive query. Its inputs are its base and its step; the step reads [`Op::SoFar`] of the same base.
    Recursive(Recursive),
    /// Within the step of a recursive query: the rows that the earlier rounds found. Its input is the query's base.
    SoFar,
}

/// The least fixed point of `rows = base + step(rows)`, where the step is linear in `rows`.
pub struct Recursive {
    /// Whether each row is kept once (UNION rather than UNION ALL).
    pub distinct: bool,
    /// How many rounds may follow the first; rows of later rounds are errors.
    pub most_rounds: u64,
}

/// Filter, then project.
pub struct Mfp {
    /// Conditions over the input's schema; a row is kept if all of them are true, and dropped if one is false
    /// or null.
    pub predicates: Vec<Expr>,
    /// The output columns, over the input's schema; `None` keeps all columns as they are.
    pub projection: Option<Vec<Expr>>,
}

/// What a join yields for rows that match and for rows that do not.
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

/// An equi-join. Without keys it is a cross join, and all rows go to one worker.
pub struct Join {
    /// Which rows the join yields.
    pub kind: JoinKind,
    /// Key expressions over the left schema.
    pub left_keys: Vec<Expr>,
    /// Key expressions over the right schema, of the same types as `left_keys`.
    pub right_keys: Vec<Expr>,
    /// A condition over left ++ right that a match must satisfy besides equal keys.
    pub residual: Option<Expr>,
    /// Whether null keys equal each other, as set operations need; otherwise a row with a null key matches nothing.
    pub null_equals_null: bool,
}

/// GROUP BY: the output has the group columns, then one column for each aggregate.
pub struct Aggregate {
    /// Group columns over the input's schema. Without any there is one group, which exists even if the input is
    /// empty.
    pub group: Vec<Expr>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
}

/// One aggregate of a GROUP BY.
pub struct AggregateCall {
    /// How it is kept.
    pub kind: AggregateKind,
    /// Arguments over the input's schema.
    pub args: Vec<Expr>,
    /// FILTER: the aggregate takes only rows for which this is true.
    pub filter: Option<Expr>,
    /// Whether equal arguments count once.
    pub distinct: bool,
    /// The physical function over the input's schema, with its own order (array_agg).
    /// [`AggregateKind::General`] evaluates it; for the other kinds it defines the result.
    pub function: Arc<AggregateFunctionExpr>,
    /// The most bytes that a value may have, where its size grows with the group.
    pub most: Option<u64>,
}

/// How an aggregate is kept up to date.
///
/// "In the difference" means that differential adds up the aggregate's state as the differences of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateKind {
    /// count(*) or count(x), in the difference.
    Count,
    /// In the difference, and exact for floats as well.
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
    /// In the difference, as counts of true and false.
    BoolAnd,
    /// In the difference, as counts of true and false.
    BoolOr,
    /// By a hierarchy of reductions.
    Min,
    /// By a hierarchy of reductions.
    Max,
    /// Anything else: whenever a group changes, DataFusion's accumulator runs over all of its rows.
    General,
}

/// One column of an order.
pub struct SortKey {
    /// Over the input's schema.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// Whether nulls come before all values.
    pub nulls_first: bool,
}

/// The first rows of each partition. The order is total, as the remaining columns complete it.
pub struct TopK {
    /// Partition columns over the input's schema; without any all rows are one partition.
    pub partition: Vec<Expr>,
    /// The total order, of at least one column.
    pub order: Vec<SortKey>,
    /// How many columns of the order the user wrote. Rows that tie in these share a rank.
    pub ranked: usize,
    /// How many rows (or ranks) are skipped.
    pub offset: usize,
    /// How many rows (or ranks) after the offset are kept; `None` keeps all.
    pub limit: Option<usize>,
    /// What `offset` and `limit` count.
    pub rank: Rank,
    /// Whether the rank is appended to the row as a UInt64 column.
    pub output_rank: bool,
}

/// What a top-k counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rank {
    /// Counts rows: ROW_NUMBER, LIMIT.
    RowNumber,
    /// RANK: tied rows share a rank, and a gap follows.
    Rank,
    /// DENSE_RANK: tied rows share a rank, and no gap follows.
    DenseRank,
}

/// General window functions that share partition and order.
pub struct Window {
    /// Over the input's schema.
    pub partition: Vec<Expr>,
    /// The total order inside a partition; the remaining columns complete the user's.
    pub order: Vec<SortKey>,
    /// Evaluated on the partition's rows in that order.
    pub functions: Vec<Arc<dyn WindowExpr>>,
    /// For each function, the most bytes that a value may have, where its size grows with the partition.
    pub most: Vec<Option<u64>>,
}

/// UNNEST. The output has the node's schema.
pub struct Unnest {
    /// For each output column, the input column, and whether the elements of its list are taken.
    pub columns: Vec<(usize, bool)>,
    /// Whether a row whose lists are all null or empty yields one row of nulls.
    pub preserve_nulls: bool,
}

/// Rows that exist while `lower <= now() < upper`. `now()` is the epoch's time, in milliseconds.
pub struct Temporal {
    /// Bounds over the input's schema; the row appears at the greatest of them: at that moment if the bound is
    /// `inclusive`, else a millisecond later. A row with a null bound never appears.
    pub lower: Vec<TemporalBound>,
    /// The row disappears at the least of these.
    pub upper: Vec<TemporalBound>,
}

/// A moment at which a row appears or disappears.
pub struct TemporalBound {
    /// A Timestamp(Microsecond) expression over the input's schema.
    pub expr: Expr,
    /// Whether the row exists at the moment itself: the bound is `now() >= expr` or, as an upper bound, `now()
    /// <= expr`.
    pub inclusive: bool,
}
