//! Which rules make a plan cheaper, in their order.
//!
//! Each of them yields the rows of the plan it is given, in three-valued logic, over whatever rows: that is shown of each by
//! the test beside this file, which compares plans with and without it over all combinations of small domains. DataFusion has
//! more rules. Some of those answer wrongly: its simplification of expressions takes `x IN (1) AND x IN (2)` for false where
//! x is NULL, `NULL ~ '.*'` for false, and trusts in what an expression says of its being NULL. Others do not suit
//! incremental upkeep: limits stay where the user put them (a top-k is `Limit` over `Sort`), and fields of a struct are taken
//! where the query takes them. Subqueries are joins before any rule sees them (`subqueries`).

mod arguments;
mod filters;
mod fold;
mod keys;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;

pub(super) use arguments::PASSED;
pub(super) use fold::{constant, folded};

use arguments::{Distincts, FailingArguments};
use filters::Filters;
use fold::Fold;
use keys::{CrossJoins, EquiKeys};

/// A rule.
pub type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rules of all plans: of tables, of their recomputation in batch, and of questions that are asked.
pub fn rules() -> Vec<Rule> {
    vec![
        // A chain of unions is one; it has each row as often.
        Arc::new(OptimizeUnions::new()),
        // Our own, see there.
        Arc::new(Fold),
        // DISTINCT is a GROUP BY of all columns, in which nulls equal each other in both.
        Arc::new(ReplaceDistinctWithAggregate::new()),
        // A side that only decides whether a row is there becomes a semi-join, or goes where it decides nothing. It asks
        // for keys that are unique by a GROUP BY, and in which joins nulls equal each other.
        Arc::new(EliminateJoin::new()),
        // Our own, see there.
        Arc::new(EquiKeys),
        // An order or a group by a column twice is one by it once.
        Arc::new(EliminateDuplicatedExpr::new()),
        // A filter that is true goes; one that is false or NULL leaves nothing.
        Arc::new(EliminateFilter::new()),
        // See there. It joins by equalities of ON and WHERE, which keep nulls out in both.
        Arc::new(CrossJoins(EliminateCrossJoin::new())),
        Arc::new(EquiKeys),
        // LIMIT 0 leaves nothing.
        Arc::new(EliminateLimit::new()),
        // What reads nothing yields nothing, but for a group without columns; an outer join its other side with nulls.
        Arc::new(PropagateEmptyRelation::new()),
        // Outer to inner where a condition above keeps the rows with nulls out: it follows nulls through comparisons and
        // strict functions, and stops at AND, OR and all tests that a null can pass.
        Arc::new(EliminateOuterJoin::new()),
        // See there. Conditions go to the sides that an outer join does not preserve only from its ON, to those that it
        // preserves only from above it; a condition on one key of a join goes to the other only where a null fails it.
        Arc::new(Filters(PushDownFilter::new())),
        // Our own, see there.
        Arc::new(FailingArguments),
        // See there. A count of distinct values counts the groups by them.
        Arc::new(Distincts(SingleDistinctToGroupBy::new())),
        // A group by a constant beside a column is one by the column.
        Arc::new(EliminateGroupByConstant::new()),
        // An expression that is evaluated in any case is evaluated once.
        Arc::new(CommonSubexprEliminate::new()),
        // Columns that nobody reads go.
        Arc::new(OptimizeProjections::new()),
        // Our own, see there.
        Arc::new(FailingArguments),
        Arc::new(Fold),
        Arc::new(EliminateFilter::new()),
    ]
}
