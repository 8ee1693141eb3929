//! Rewrites subqueries as joins. In the result no expression holds a query, and no query in FROM uses a column
//! beside it.
//!
//! ```text
//! WHERE EXISTS / IN  -- conditions.rs: semi-joins, anti-joins ---+
//! elsewhere          -- values.rs: a column of the rows ---------+--> related.rs: pulled up (pulled.rs), or for the
//! LATERAL            -- lateral.rs: rows beside the rows --------+    distinct bindings (rows.rs), node by node:
//!                              one_row.rs: aggregates of all rows      nodes.rs, joins.rs, groups.rs, ranks.rs
//! ```
//!
//! The general method is that of Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW 2015). It works from
//! the top down: a subquery gets the bindings of the rows that evaluate it, and passes them on to the
//! subqueries within it.
//!
//! It runs between the analyzer and the optimizer. It must come after types are coerced, because it moves
//! comparisons to other nodes, where they must not get other types. It must come before all optimizer rules,
//! because some of them make assumptions about a subquery's value (`(SELECT k ...) IS NULL` may be true even if
//! k is never null). DataFusion's own rules for subqueries lose NULLs, and are left out.

mod conditions;
mod groups;
mod joins;
mod lateral;
mod names;
mod nodes;
mod one_row;
mod pulled;
mod ranks;
mod related;
mod rows;
mod single;
mod values;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::{PlanError, Planned};

/// Returns the key columns of an input or table, which is given by its name in SQL.
pub(super) type KeyLookup<'a> = dyn Fn(&str) -> Vec<String> + 'a;

/// Whether a plan has subqueries, or uses columns of an outer query.
pub(super) fn has_subqueries(plan: &LogicalPlan) -> bool {
    names::has_subqueries(plan)
}

/// The plan without subqueries. `place` is the span of the first subquery that is used as a value.
///
/// # Errors
/// A subquery that is used as a value may yield several rows, or a subquery stands where it cannot be evaluated
/// for each row.
pub(super) fn unnest(plan: LogicalPlan, keys: &KeyLookup, place: Option<Span>) -> Planned<LogicalPlan> {
    if !names::has_subqueries(&plan) {
        return Ok(plan);
    }
    let mut unnesting = Unnesting { next: 0, keys, place };
    let rows = unnesting.rows(&plan, None)?;
    Ok(nodes::in_order(rows.plan, plan.schema())?)
}

/// Adds an analyzer rule to a session, after its other rules, that rewrites subqueries as joins. Statements
/// that this module refuses are left to DataFusion, which may find at run time that there is only one row.
pub fn join_subqueries(context: &SessionContext) {
    context.add_analyzer_rule(Arc::new(JoinSubqueries));
}

#[derive(Debug)]
struct JoinSubqueries;

impl AnalyzerRule for JoinSubqueries {
    fn name(&self) -> &str {
        "joined_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        match unnest(plan.clone(), &|_| vec![], None) {
            Ok(joined) => Ok(joined),
            Err(PlanError::Refused(_)) => Ok(plan),
            Err(PlanError::DataFusion(error)) => Err(*error),
        }
    }
}

/// The state of a rewrite.
struct Unnesting<'a> {
    /// The number of names that have been made.
    next: usize,
    keys: &'a KeyLookup<'a>,
    place: Option<Span>,
}

impl Unnesting<'_> {
    /// A number for a name that nothing else has.
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }
}
