//! Subqueries as joins: a plan in which no expression holds a query, and no query of FROM uses a column beside it.
//!
//! ```text
//! WHERE EXISTS / IN  -- conditions.rs: semi-joins, anti-joins ---+
//! elsewhere          -- values.rs: a column of the rows ---------+--> related.rs: pulled up (pulled.rs), or for the
//! LATERAL            -- lateral.rs: rows beside the rows --------+    distinct bindings (rows.rs), node by node:
//!                              one_row.rs: aggregates of all rows      nodes.rs, joins.rs, groups.rs, ranks.rs
//! ```
//!
//! The general method is that of Neumann and Kemper, "Unnesting arbitrary queries" (BTW 2015). It works from the top:
//! a subquery is given the bindings of the rows that ask it, and hands them on to the subqueries in it.
//!
//! It stands between the analysed plan and the optimizer. Behind the agreement on types, as comparisons are moved to
//! other nodes and must not be given other types there; and before all rules, as some fold what they take a subquery's
//! value to be (`(SELECT k ...) IS NULL` is not false because k is never null). DataFusion's own rules for subqueries
//! lose NULLs and are left out.

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

/// The key columns of an input or table, by its name in SQL.
pub(super) type Keys<'a> = dyn Fn(&str) -> Vec<String> + 'a;

/// Whether a plan has subqueries, or reads columns of an outer query.
pub(super) fn are_in(plan: &LogicalPlan) -> bool {
    names::has_subqueries(plan)
}

/// The plan without subqueries; `place` is where the first one stands that is used as a value.
///
/// # Errors
/// A subquery used as a value may yield several rows, or one stands where it cannot be evaluated for each row.
pub(super) fn unnest(plan: LogicalPlan, keys: &Keys, place: Option<Span>) -> Planned<LogicalPlan> {
    if !names::has_subqueries(&plan) {
        return Ok(plan);
    }
    let mut unnesting = Unnesting { next: 0, keys, place };
    let rows = unnesting.rows(&plan, None)?;
    Ok(nodes::in_order(rows.plan, plan.schema())?)
}

/// Has a session join the subqueries of its statements, where that is planned here; behind its other rules. What is refused
/// here is left to DataFusion, which may find at run time that there is one row.
pub fn join_subqueries(context: &SessionContext) {
    context.add_analyzer_rule(Arc::new(Joined));
}

#[derive(Debug)]
struct Joined;

impl AnalyzerRule for Joined {
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

/// What is known while a plan is rewritten.
struct Unnesting<'a> {
    /// The number of the next name.
    next: usize,
    keys: &'a Keys<'a>,
    place: Option<Span>,
}

impl Unnesting<'_> {
    /// A number for names that nothing else has.
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }
}
