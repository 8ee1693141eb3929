//! The optimizer rules, in their order.
//!
//! Each rule must preserve the rows of its plan, in three-valued logic, over any input. The tests beside this
//! file check that for each rule: they compare plans with and without it over all combinations of small
//! domains. DataFusion has more rules. Some of them give wrong results: its simplification of expressions takes
//! `x IN (1) AND x IN (2)` for false where x is NULL, takes `NULL ~ '.*'` for false, and relies on the declared
//! nullability of expressions. Others do not suit incremental maintenance: limits must stay where the user put
//! them (a top-k is `Limit` over `Sort`), and fields of a struct must be read where the query reads them.
//! Subqueries are joins before any rule runs (`subqueries`).

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
use fold::SimplifyExpressions;
use keys::{CrossJoins, EquiKeys};

/// An optimizer rule.
pub type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rules for all plans: of tables, of batch recomputation, and of live queries.
pub fn rules() -> Vec<Rule> {
    vec![
        // Merges nested UNION ALLs, which keeps the count of each row.
        Arc::new(OptimizeUnions::new()),
        // This rule is our own.
        Arc::new(SimplifyExpressions),
        // Makes DISTINCT a GROUP BY of all columns. Nulls equal each other in both.
        Arc::new(ReplaceDistinctWithAggregate::new()),
        // Replaces a join whose other side only decides over existence by a semi-join, or removes the other
        // side if it has no effect. The rule proves uniqueness by GROUP BY, and respects joins in which nulls
        // equal each other.
        Arc::new(EliminateJoin::new()),
        // This rule is our own.
        Arc::new(EquiKeys),
        // Removes repeated columns from an ORDER BY or GROUP BY.
        Arc::new(EliminateDuplicatedExpr::new()),
        // Removes a filter that is always true; an input with a filter that is false or NULL becomes empty.
        Arc::new(EliminateFilter::new()),
        // Adapts DataFusion's rule. It uses equalities of ON and WHERE, and both exclude nulls.
        Arc::new(CrossJoins(EliminateCrossJoin::new())),
        Arc::new(EquiKeys),
        // An input with LIMIT 0 becomes empty.
        Arc::new(EliminateLimit::new()),
        // Removes nodes over empty inputs, except for aggregates without group columns. An outer join becomes
        // its preserved side with nulls.
        Arc::new(PropagateEmptyRelation::new()),
        // Turns an outer join into an inner one if a condition above removes rows with nulls. The rule follows
        // nulls through comparisons and strict functions, and stops at AND, OR and any test that a null can
        // pass.
        Arc::new(EliminateOuterJoin::new()),
        // Adapts DataFusion's rule. Into the side that an outer join does not preserve it only pushes
        // conditions of ON; into the preserved side, only conditions from above. A condition on one key of a
        // join is copied to the other key only if nulls fail it.
        Arc::new(Filters(PushDownFilter::new())),
        // This rule is our own.
        Arc::new(FailingArguments),
        // Adapts DataFusion's rule. A count of distinct values becomes a count of groups.
        Arc::new(Distincts(SingleDistinctToGroupBy::new())),
        // Removes a constant from a GROUP BY that has another column.
        Arc::new(EliminateGroupByConstant::new()),
        // Evaluates an expression once if it is evaluated in any case.
        Arc::new(CommonSubexprEliminate::new()),
        // Removes columns that nobody reads.
        Arc::new(OptimizeProjections::new()),
        // Runs again, as the rules above may have moved arguments out of aggregates.
        Arc::new(FailingArguments),
        Arc::new(SimplifyExpressions),
        Arc::new(EliminateFilter::new()),
    ]
}
