//! Unnests WHERE and HAVING. A condition that is wholly an EXISTS, IN or quantified comparison becomes a
//! semi-join or anti-join; any other condition is computed as a value.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan};

use super::super::error::Planned;
use super::Unnesting;
use super::names::{NameScope, has_subquery, outer_columns};
use super::one_row::is_always_there;
use super::related::SubqueryUse;
use super::rows::{Bindings, NodeRows, project};
use super::values::SubqueryCondition;

impl Unnesting<'_> {
    pub(super) fn filter(&mut self, filter: &Filter, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let conditions = split_conjunction_owned(filter.predicate.clone());
        let (rows, scope) = self.below(&filter.input, &conditions, outer)?;
        self.conditions(rows, &scope, conditions)
    }

    /// Keeps the rows for which all conditions are true.
    pub fn conditions(&mut self, rows: NodeRows, scope: &NameScope, conditions: Vec<Expr>) -> Planned<NodeRows> {
        let conditions = conditions.into_iter().map(|condition| scope.over_rows(condition));
        let (asking, plain): (Vec<Expr>, Vec<Expr>) = conditions
            .collect::<Planned<Vec<_>>>()?
            .into_iter()
            .partition(has_subquery);
        let mut rows = rows;
        rows.plan = filter_rows(rows.plan, plain)?;
        if asking.is_empty() {
            return Ok(rows);
        }
        let scope = scope.clone().on(rows.plan.clone());
        let mut computed = Vec::new();
        for condition in asking {
            match SubqueryCondition::parse(&condition) {
                Some((asking, negated)) if !self.joins_as_value(&asking) => {
                    rows = self.filter_by_subquery(rows, &scope, asking, negated)?;
                }
                _ => computed.push(condition),
            }
        }
        let columns = rows.plan.schema().columns();
        let mut conditions = Vec::with_capacity(computed.len());
        for condition in computed {
            conditions.push(self.value(&mut rows, &scope, condition, true)?);
        }
        rows.plan = filter_rows(rows.plan, conditions)?;
        if rows.plan.schema().fields().len() > columns.len() {
            rows.plan = project(columns.into_iter().map(Expr::Column).collect(), rows.plan)?;
        }
        Ok(rows)
    }

    /// Whether a subquery yields at most one row that is better joined as a value than by a semi-join or anti-join.
    fn joins_as_value(&self, asking: &SubqueryCondition) -> bool {
        let correlated = !outer_columns(asking.rows()).is_empty();
        match asking {
            SubqueryCondition::Exists(plan) => is_always_there(plan) || super::one_row::is_one_row_form(plan),
            SubqueryCondition::Any(any) => correlated && super::one_row::is_one_row_form(&any.rows),
        }
    }

    /// Keeps the rows for which the subquery has rows, or with `negated` those for which it has none.
    fn filter_by_subquery(
        &mut self,
        rows: NodeRows,
        scope: &NameScope,
        asking: SubqueryCondition,
        negated: bool,
    ) -> Planned<NodeRows> {
        let mut rows = rows;
        let kind = if negated {
            JoinType::LeftAnti
        } else {
            JoinType::LeftSemi
        };
        match asking {
            SubqueryCondition::Exists(plan) => {
                let related = self.related(&plan, scope, SubqueryUse::Existence)?;
                rows.plan = related.joined(rows.plan, kind, vec![])?;
            }
            SubqueryCondition::Any(any) => {
                let columns = rows.plan.schema().columns();
                let of = self.value(&mut rows, scope, any.of.clone(), false)?;
                let related = self.related(&any.rows, scope, SubqueryUse::Existence)?;
                let with = related.outputs[0].clone();
                let unknown_row = negated && related.nullable(&with, &rows.plan)?;
                let unknown_of = negated && of.nullable(rows.plan.schema())?;
                let nulls = unknown_row.then(|| self.copy_of(&related)).transpose()?;
                let any_row = unknown_of.then(|| self.copy_of(&related)).transpose()?;
                rows.plan = related.joined(rows.plan, kind, vec![any.compared(&of, &with)])?;
                // NOT IN is unknown if the subquery has a null, and for a null if the subquery has any row;
                // such rows are not kept.
                if let Some(nulls) = nulls {
                    let null = nulls.outputs[0].clone().is_null();
                    rows.plan = nulls.joined(rows.plan, kind, vec![null])?;
                }
                if let Some(any_row) = any_row {
                    rows.plan = any_row.joined(rows.plan, kind, vec![of.is_null()])?;
                }
                if rows.plan.schema().fields().len() > columns.len() {
                    rows.plan = project(columns.into_iter().map(Expr::Column).collect(), rows.plan)?;
                }
            }
        }
        Ok(rows)
    }
}

/// Keeps the rows for which conditions without subqueries are true.
pub(super) fn filter_rows(plan: LogicalPlan, conditions: Vec<Expr>) -> Planned<LogicalPlan> {
    match conjunction(conditions) {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)),
        None => Ok(plan),
    }
}
