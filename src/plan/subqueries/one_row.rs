//! Unnests subqueries that yield one row, or none because of a HAVING: an aggregate without GROUP BY, or a
//! SELECT without FROM.
//!
//! The aggregate is grouped by the columns that the subquery's WHERE compares with outer ones, or else by the
//! bindings, and left-joined on these. The subquery's other expressions are computed above that join, so that a
//! row without a group gets the aggregate's result over no rows.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, EmptyRelation, Expr, LogicalPlan, Operator, lit, when,
};

use super::super::error::Planned;
use super::Unnesting;
use super::groups::{of_these_rows, over_nothing};
use super::names::{NameScope, has_subquery, names_outer, outer_columns};
use super::pulled::over;
use super::ranks::bounds;
use super::related::RelatedRows;
use super::rows::null_safe_keys;

/// The row of a subquery, as expressions over the rows of the outer query.
pub(super) struct OneRow {
    /// The row only exists if all of these are true.
    pub having: Vec<Expr>,
    pub outputs: Vec<Expr>,
}

impl OneRow {
    /// `value` if the row exists, else `otherwise`.
    pub fn value_or(&self, value: Expr, otherwise: Expr) -> Planned<Expr> {
        match self.having.iter().cloned().reduce(Expr::and) {
            None => Ok(value),
            Some(having) => Ok(when(having, value).otherwise(otherwise)?),
        }
    }
}

impl Unnesting<'_> {
    /// The row of a subquery that yields at most one; the rows that it needs are joined to `rows`. `None` for
    /// other subqueries.
    pub fn one_row(
        &mut self,
        plan: &LogicalPlan,
        rows: &mut LogicalPlan,
        scope: &NameScope,
    ) -> Planned<Option<OneRow>> {
        let Some((above, base)) = chain(plan) else {
            return Ok(None);
        };
        let mut columns = match base {
            LogicalPlan::Aggregate(aggregate) => {
                let grouped = match self.grouped_by_compared(aggregate, scope)? {
                    Some(grouped) => grouped,
                    None => self.grouped_by_bindings(base, aggregate, scope)?,
                };
                let calls = grouped.outputs.clone();
                let left = std::mem::take(rows);
                let kind = if grouped.belongs_to_all() {
                    JoinType::Inner
                } else {
                    JoinType::Left
                };
                *rows = grouped.joined(left, kind, vec![])?;
                or_of_nothing(calls, aggregate, kind)?
            }
            _ => vec![],
        };
        let mut having = vec![];
        for node in above.into_iter().rev() {
            let input = node.inputs()[0].schema();
            let shown = |expr: &Expr| -> Planned<Expr> {
                let expr = over(expr.clone().unalias_nested().data, input, &columns)?;
                scope.resolve_all(expr)
            };
            match node {
                LogicalPlan::Projection(projection) => {
                    let exprs = projection.expr.iter().map(shown).collect::<Planned<_>>()?;
                    columns = exprs;
                }
                LogicalPlan::Filter(filter) => having.push(shown(&filter.predicate)?),
                _ => {}
            }
        }
        Ok(Some(OneRow {
            having,
            outputs: columns,
        }))
    }

    /// An aggregate without GROUP BY, grouped by the columns that its input compares with outer columns. `None`
    /// if outer columns also stand elsewhere.
    fn grouped_by_compared(&mut self, aggregate: &Aggregate, scope: &NameScope) -> Planned<Option<RelatedRows>> {
        aggregate.aggr_expr.iter().try_for_each(of_these_rows)?;
        if aggregate.aggr_expr.iter().any(|e| has_subquery(e) || names_outer(e)) {
            return Ok(None);
        }
        let Some(pulled) = self.pulled(&aggregate.input, false)? else {
            return Ok(None);
        };
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (n, call) in aggregate.aggr_expr.iter().enumerate() {
            let call = call.clone().unalias_nested().data;
            let call = over(call, aggregate.input.schema(), &pulled.outputs)?;
            if names_outer(&call) {
                return Ok(None);
            }
            calls.push(call.alias(aggregate.schema.field(n).name()));
        }
        let mut groups = Vec::with_capacity(pulled.conditions.len());
        let mut outer = Vec::with_capacity(groups.len());
        for (n, condition) in pulled.conditions.into_iter().enumerate() {
            let Some((inner, of_outer)) = sides(condition) else {
                return Ok(None);
            };
            groups.push(inner.alias(format!("__group_{n}")));
            outer.push(of_outer);
        }
        let keys = groups.len();
        let made = Aggregate::try_new(Arc::new(pulled.plan), groups, calls)?;
        let columns: Vec<Expr> = made.schema.columns().into_iter().map(Expr::Column).collect();
        let (groups, calls) = columns.split_at(keys);
        let equal = groups.iter().cloned().zip(outer);
        let conditions = equal.map(|(group, outer)| outer.eq(group)).collect();
        let plan = LogicalPlan::Aggregate(made);
        self.renamed(plan, vec![], conditions, calls.to_vec(), scope).map(Some)
    }

    /// An aggregate without GROUP BY, grouped by the bindings.
    fn grouped_by_bindings(
        &mut self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        scope: &NameScope,
    ) -> Planned<RelatedRows> {
        let names = outer_columns(plan);
        let columns = names.iter().map(|name| scope.resolve(name));
        let columns = columns.collect::<Planned<Vec<_>>>()?;
        let bindings = (!names.is_empty()).then(|| self.bindings(&scope.base, names, &columns));
        let bindings = bindings.transpose()?;
        let groups = self.groups(aggregate, bindings.as_ref())?;
        let calls = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
        let bound = (groups.bound(), groups.plan.schema().as_ref());
        let on = match groups.bindings {
            Some(_) => null_safe_keys((&columns, scope.base.schema()), bound)?,
            None => vec![],
        };
        self.renamed(groups.plan, on, vec![], calls, scope)
    }
}

/// The columns of the aggregate after the join, with its results over no rows where no group was joined.
fn or_of_nothing(calls: Vec<Expr>, aggregate: &Aggregate, kind: JoinType) -> Planned<Vec<Expr>> {
    let calls = calls.into_iter().zip(&aggregate.aggr_expr);
    let shown = calls.map(|(column, call)| {
        let nothing = over_nothing(call, &aggregate.input)?;
        Ok(match nothing.is_null() || kind == JoinType::Inner {
            true => column,
            // An aggregate with such a result is never null over rows.
            false => when(column.clone().is_null(), lit(nothing)).otherwise(column)?,
        })
    });
    shown.collect()
}

/// Whether a subquery always yields a row, whatever the outer row is.
pub(super) fn is_always_there(plan: &LogicalPlan) -> bool {
    chain(plan).is_some_and(|(above, _)| !above.iter().any(|node| matches!(node, LogicalPlan::Filter(_))))
}

/// Whether a subquery yields at most one row, whatever its tables hold, in a form that [`Unnesting::one_row`]
/// supports.
pub(super) fn is_one_row_form(plan: &LogicalPlan) -> bool {
    chain(plan).is_some()
}

/// The nodes above the one that yields one row, from the top, and that node.
fn chain(plan: &LogicalPlan) -> Option<(Vec<&LogicalPlan>, &LogicalPlan)> {
    let mut above = vec![];
    let mut node = plan;
    loop {
        let below = match node {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => return Some((above, node)),
            LogicalPlan::EmptyRelation(EmptyRelation {
                produce_one_row: true, ..
            }) => return Some((above, node)),
            LogicalPlan::Projection(projection) if !projection.expr.iter().any(has_subquery) => &projection.input,
            LogicalPlan::Filter(filter) if !has_subquery(&filter.predicate) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Subquery(subquery) => &subquery.subquery,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Distinct(Distinct::All(input)) => input,
            LogicalPlan::Limit(limit) => match bounds(limit) {
                Some((0, fetch)) if fetch != Some(0) => &limit.input,
                _ => return None,
            },
            _ => return None,
        };
        above.push(node);
        node = below;
    }
}

/// Splits an equality into its inner side and its outer side; `None` if the sides are mixed.
fn sides(condition: Expr) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = condition
    else {
        return None;
    };
    let is_inner = |e: &Expr| !names_outer(e) && !e.column_refs().is_empty();
    let is_outer = |e: &Expr| names_outer(e) && e.column_refs().is_empty();
    if is_inner(&left) && is_outer(&right) {
        Some((*left, *right))
    } else if is_outer(&left) && is_inner(&right) {
        Some((*right, *left))
    } else {
        None
    }
}
