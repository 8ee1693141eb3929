//! WHERE and HAVING: conditions that are EXISTS, IN or a quantified comparison as a whole keep rows by semi-joins and
//! anti-joins; the others are computed.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan};

use super::super::error::Planned;
use super::Unnesting;
use super::names::{Scope, has_subquery, outer_columns};
use super::one_row::is_always_there;
use super::related::Asked;
use super::rows::{Bindings, Rows, project};
use super::values::Asking;

impl Unnesting<'_> {
    pub(super) fn filter(&mut self, filter: &Filter, outer: Option<&Bindings>) -> Planned<Rows> {
        let conditions = split_conjunction_owned(filter.predicate.clone());
        let (rows, scope) = self.below(&filter.input, &conditions, outer)?;
        self.conditions(rows, &scope, conditions)
    }

    /// The rows for which all conditions are true.
    pub fn conditions(&mut self, rows: Rows, scope: &Scope, conditions: Vec<Expr>) -> Planned<Rows> {
        let conditions = conditions.into_iter().map(|condition| scope.over_rows(condition));
        let (asking, plain): (Vec<Expr>, Vec<Expr>) = conditions
            .collect::<Planned<Vec<_>>>()?
            .into_iter()
            .partition(has_subquery);
        let mut rows = rows;
        rows.plan = kept(rows.plan, plain)?;
        if asking.is_empty() {
            return Ok(rows);
        }
        let scope = scope.clone().on(rows.plan.clone());
        let mut computed = Vec::new();
        for condition in asking {
            match Asking::of(&condition) {
                Some((asking, negated)) if !self.is_one_row(&asking) => {
                    rows = self.kept_by(rows, &scope, asking, negated)?;
                }
                _ => computed.push(condition),
            }
        }
        let columns = rows.plan.schema().columns();
        let mut conditions = Vec::with_capacity(computed.len());
        for condition in computed {
            conditions.push(self.value(&mut rows, &scope, condition, true)?);
        }
        rows.plan = kept(rows.plan, conditions)?;
        if rows.plan.schema().fields().len() > columns.len() {
            rows.plan = project(columns.into_iter().map(Expr::Column).collect(), rows.plan)?;
        }
        Ok(rows)
    }

    /// Whether a subquery's one row is better looked at than joined by what is asked.
    fn is_one_row(&self, asking: &Asking) -> bool {
        let correlated = !outer_columns(asking.rows()).is_empty();
        match asking {
            Asking::Exists(plan) => is_always_there(plan) || super::one_row::is_one(plan),
            Asking::Any(any) => correlated && super::one_row::is_one(&any.rows),
        }
    }

    /// The rows for which there are rows of a subquery, or none.
    fn kept_by(&mut self, rows: Rows, scope: &Scope, asking: Asking, negated: bool) -> Planned<Rows> {
        let mut rows = rows;
        let kind = if negated {
            JoinType::LeftAnti
        } else {
            JoinType::LeftSemi
        };
        match asking {
            Asking::Exists(plan) => {
                let related = self.related(&plan, scope, Asked::Existence)?;
                rows.plan = related.joined(rows.plan, kind, vec![])?;
            }
            Asking::Any(any) => {
                let columns = rows.plan.schema().columns();
                let of = self.value(&mut rows, scope, any.of.clone(), false)?;
                let related = self.related(&any.rows, scope, Asked::Existence)?;
                let with = related.outputs[0].clone();
                let unknown_row = negated && related.nullable(&with, &rows.plan)?;
                let unknown_of = negated && of.nullable(rows.plan.schema())?;
                let nulls = unknown_row.then(|| self.again(&related)).transpose()?;
                let any_row = unknown_of.then(|| self.again(&related)).transpose()?;
                rows.plan = related.joined(rows.plan, kind, vec![any.compared(&of, &with)])?;
                // NOT IN is unknown beside a null, and for a null beside any row.
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

/// The rows for which conditions without subqueries are true.
pub(super) fn kept(plan: LogicalPlan, conditions: Vec<Expr>) -> Planned<LogicalPlan> {
    match conjunction(conditions) {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)),
        None => Ok(plan),
    }
}
