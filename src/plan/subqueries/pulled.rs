//! Pulls conditions on outer columns out of a subquery. The subquery then has no outer columns, and the
//! conditions become those of a join with it.
//!
//! Conditions can be pulled up through filters, projections and inner joins, and through DISTINCT if only
//! existence matters.

use std::sync::Arc;

use datafusion::common::{DFSchema, JoinType, NullEquality, TableReference};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Distinct, Expr, Filter, Join, LogicalPlan};

use super::super::error::Planned;
use super::super::now;
use super::Unnesting;
use super::names::{NameScope, has_subquery, lateral_columns, names_outer, outer_columns, outer_columns_of, replaced};
use super::related::free_name;
use super::rows::{NodeRows, join, project};

/// A subquery without outer columns, and the conditions that contained them.
pub(super) struct PulledSubquery {
    pub plan: LogicalPlan,
    /// The conditions over the plan's columns and outer columns.
    pub conditions: Vec<Expr>,
    /// The subquery's columns, as expressions over the plan's columns and outer columns.
    pub outputs: Vec<Expr>,
}

impl Unnesting<'_> {
    /// The plan without outer columns. `None` if these stand elsewhere than in conditions that decide over
    /// whole rows.
    pub fn pulled(&mut self, plan: &LogicalPlan, existence: bool) -> Planned<Option<PulledSubquery>> {
        if outer_columns(plan).is_empty() {
            let rows = self.rows(plan, None)?.plan;
            let qualifier = TableReference::bare(format!("__pulled_{}", self.number()));
            let mut names: Vec<String> = Vec::new();
            let exprs = plan.schema().columns().into_iter().map(|column| {
                let column = Expr::Column(column);
                let name = free_name(&column, |name| names.iter().any(|taken| taken == name));
                names.push(name.clone());
                column.alias_qualified(Some(qualifier.clone()), name)
            });
            let plan = project(exprs.collect(), rows)?;
            let outputs = plan.schema().columns().into_iter().map(Expr::Column).collect();
            return Ok(Some(PulledSubquery {
                plan,
                conditions: vec![],
                outputs,
            }));
        }
        match plan {
            LogicalPlan::Subquery(subquery) => self.pulled(&subquery.subquery, existence),
            LogicalPlan::SubqueryAlias(alias) => self.pulled(&alias.input, existence),
            // A subquery's rows have no order.
            LogicalPlan::Sort(sort) => self.pulled(&sort.input, existence),
            LogicalPlan::Distinct(Distinct::All(input)) if existence => self.pulled(input, existence),
            LogicalPlan::Projection(projection) => {
                if projection.expr.iter().any(has_subquery) {
                    return Ok(None);
                }
                let Some(below) = self.pulled(&projection.input, existence)? else {
                    return Ok(None);
                };
                let exprs = projection.expr.iter().cloned();
                let outputs = exprs.map(|e| over(e.unalias(), projection.input.schema(), &below.outputs));
                Ok(Some(PulledSubquery {
                    outputs: outputs.collect::<Planned<_>>()?,
                    ..below
                }))
            }
            LogicalPlan::Filter(filter) => {
                let Some(below) = self.pulled(&filter.input, existence)? else {
                    return Ok(None);
                };
                self.pulled_filter(filter, below)
            }
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => self.pulled_join(join, existence),
            _ => Ok(None),
        }
    }

    fn pulled_filter(&mut self, filter: &Filter, below: PulledSubquery) -> Planned<Option<PulledSubquery>> {
        let own = filter.input.schema();
        let mut pulled = below;
        let mut correlated = Vec::new();
        for condition in split_conjunction_owned(filter.predicate.clone()) {
            if names_outer(&condition) {
                // A condition on now() must stay, as it decides when rows of this node exist.
                if has_subquery(&condition) || now::mentions_now(&condition) {
                    return Ok(None);
                }
                pulled.conditions.push(over(condition, own, &pulled.outputs)?);
            } else {
                correlated.push(condition);
            }
        }
        if correlated.is_empty() {
            return Ok(Some(pulled));
        }
        if pulled.outputs.iter().any(names_outer) {
            let uses_outer = correlated.iter().cloned().map(|e| over(e, own, &pulled.outputs));
            if uses_outer.collect::<Planned<Vec<_>>>()?.iter().any(names_outer) {
                return Ok(None);
            }
        }
        let scope = NameScope::shown(own.clone(), pulled.outputs.clone(), pulled.plan.clone());
        let asks = outer_columns_of(&correlated, own);
        let nested = correlated.iter().filter(|e| has_subquery(e));
        let resolved = nested.flat_map(|e| outer_columns_of([e], &Arc::new(DFSchema::empty())));
        if !asks.is_empty() || !scope.knows(&resolved.collect::<Vec<_>>()) {
            return Ok(None);
        }
        pulled.plan = self
            .conditions(NodeRows::from_plan(pulled.plan), &scope, correlated)?
            .plan;
        Ok(Some(pulled))
    }

    fn pulled_join(&mut self, inner: &Join, existence: bool) -> Planned<Option<PulledSubquery>> {
        let beside = lateral_columns(&inner.right);
        let conditions: Vec<Expr> = inner.filter.iter().cloned().flat_map(split_conjunction_owned).collect();
        if beside.iter().any(|column| inner.left.schema().has_column(column))
            || (inner.null_equality == NullEquality::NullEqualsNull && !inner.on.is_empty())
            || conditions.iter().any(|e| has_subquery(e) || now::mentions_now(e))
        {
            return Ok(None);
        }
        let Some(left) = self.pulled(&inner.left, existence)? else {
            return Ok(None);
        };
        let Some(right) = self.pulled(&inner.right, existence)? else {
            return Ok(None);
        };
        let both = inner.left.schema().join(inner.right.schema())?;
        let outputs: Vec<Expr> = left.outputs.iter().chain(&right.outputs).cloned().collect();
        let equal = inner.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let all = equal.chain(conditions).map(|e| over(e, &both, &outputs));
        let (mut pulled, mut correlated) = (vec![], vec![]);
        for condition in all {
            let condition = condition?;
            if names_outer(&condition) {
                &mut pulled
            } else {
                &mut correlated
            }
            .push(condition);
        }
        pulled.extend(left.conditions.into_iter().chain(right.conditions));
        Ok(Some(PulledSubquery {
            plan: join(left.plan, right.plan, JoinType::Inner, vec![], conjunction(correlated))?,
            conditions: pulled,
            outputs,
        }))
    }
}

/// An expression over a node's columns, with each column replaced by its expression in `columns`.
pub(super) fn over(expr: Expr, own: &DFSchema, columns: &[Expr]) -> Planned<Expr> {
    Ok(replaced(expr, &mut |e| match e {
        Expr::Column(column) => own.maybe_index_of_column(column).map(|n| columns[n].clone()),
        _ => None,
    })?)
}
