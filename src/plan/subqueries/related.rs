//! Relates a subquery's rows to the rows of the outer query that they belong to.
//!
//! If outer columns only stand in conditions that can be pulled up through filters, projections and inner
//! joins, these become conditions of a join with the subquery. Otherwise the subquery is evaluated for the
//! distinct bindings, and joined on them.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, TableReference};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, Filter, LogicalPlan, lit};

use super::super::error::Planned;
use super::Unnesting;
use super::names::{NameScope, names_outer, outer_columns, replaced};
use super::rows::{join, null_safe_keys, project};

/// The rows of a subquery, and how they are joined to the outer rows.
pub(super) struct RelatedRows {
    /// The subquery's rows. All of their columns have one qualifier that nothing else has.
    rows: LogicalPlan,
    qualifier: String,
    /// Which rows belong to an outer row: pairs of equal keys (outer, subquery), and further conditions.
    on: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
    /// The subquery's columns, as expressions over both.
    pub outputs: Vec<Expr>,
}

/// What the outer query needs of a subquery's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SubqueryUse {
    /// Whether rows exist; it does not matter how often.
    Existence,
    /// Each row.
    Rows,
    /// Each row, or nulls if there is none. For this the output columns must not depend on outer columns.
    OptionalRows,
}

impl Unnesting<'_> {
    /// The rows of a subquery, related to those of a scope.
    pub fn related(&mut self, plan: &LogicalPlan, scope: &NameScope, asked: SubqueryUse) -> Planned<RelatedRows> {
        let names = outer_columns(plan);
        if names.is_empty() {
            let rows = self.rows(plan, None)?.plan;
            let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
            return self.renamed(rows, vec![], vec![], columns, scope);
        }
        if let Some(pulled) = self.pulled(plan, asked == SubqueryUse::Existence)?
            && (asked != SubqueryUse::OptionalRows || !pulled.outputs.iter().any(names_outer))
        {
            return self.renamed(pulled.plan, vec![], pulled.conditions, pulled.outputs, scope);
        }
        let columns = names
            .iter()
            .map(|name| scope.resolve(name))
            .collect::<Planned<Vec<_>>>()?;
        let bindings = self.bindings(&scope.base, names, &columns)?;
        let rows = self.rows(plan, Some(&bindings))?;
        let own = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let on = null_safe_keys((&columns, scope.base.schema()), (rows.bound(), rows.plan.schema()))?;
        let on = if rows.bindings.is_some() { on } else { vec![] };
        self.renamed(rows.plan, on, vec![], own, scope)
    }

    /// Gives all columns one new qualifier. Outputs that only depend on the subquery's rows become columns of these.
    pub fn renamed(
        &mut self,
        plan: LogicalPlan,
        on: Vec<(Expr, Expr)>,
        conditions: Vec<Expr>,
        outputs: Vec<Expr>,
        scope: &NameScope,
    ) -> Planned<RelatedRows> {
        let qualifier = format!("__subquery_{}", self.number());
        let relation = TableReference::bare(qualifier.clone());
        let mut exprs: Vec<Expr> = Vec::new();
        let mut named_exprs: Vec<(Expr, String)> = Vec::new();
        let mut column = |expr: Expr| {
            let n = named_exprs.iter().position(|(h, _)| h == &expr).unwrap_or_else(|| {
                // An unqualified outer column with this name would make the name ambiguous.
                let beside = |name: &str| scope.base.schema().qualified_fields_with_unqualified_name(name);
                let is_taken = |name: &str| {
                    named_exprs.iter().any(|(_, taken)| taken == name) || beside(name).iter().any(|(q, _)| q.is_none())
                };
                let name = free_name(&expr, is_taken);
                exprs.push(expr.clone().alias_qualified(Some(relation.clone()), &name));
                named_exprs.push((expr, name));
                named_exprs.len() - 1
            });
            Expr::Column(Column::new(Some(relation.clone()), &named_exprs[n].1))
        };
        let mut over_both = |expr: Expr| -> Planned<Expr> {
            let outer = names_outer(&expr);
            if !outer && !matches!(expr, Expr::Column(_)) {
                return Ok(column(expr));
            }
            let expr = replaced(expr, &mut |e| match e {
                Expr::Column(_) => Some(column(e.clone())),
                _ => None,
            })?;
            scope.resolve_all(expr)
        };
        let outputs = outputs.into_iter().map(&mut over_both).collect::<Planned<Vec<_>>>()?;
        let conditions = conditions
            .into_iter()
            .map(&mut over_both)
            .collect::<Planned<Vec<_>>>()?;
        let on = on.into_iter().map(|(l, r)| Ok((l, over_both(r)?)));
        let on = on.collect::<Planned<Vec<_>>>()?;
        if exprs.is_empty() {
            exprs.push(lit(true).alias_qualified(Some(relation.clone()), "c0"));
        }
        Ok(RelatedRows {
            rows: project(exprs, plan)?,
            qualifier,
            on,
            conditions,
            outputs,
        })
    }

    /// The same rows under another qualifier, so that they can be joined once more.
    pub fn copy_of(&mut self, related: &RelatedRows) -> Planned<RelatedRows> {
        let qualifier = format!("__subquery_{}", self.number());
        let (old, new) = (
            TableReference::bare(related.qualifier.clone()),
            TableReference::bare(qualifier.clone()),
        );
        let moved = |expr: &Expr| {
            replaced(expr.clone(), &mut |e| match e {
                Expr::Column(column) if column.relation.as_ref() == Some(&old) => {
                    Some(Expr::Column(Column::new(Some(new.clone()), &column.name)))
                }
                _ => None,
            })
        };
        let columns = related.rows.schema().columns().into_iter();
        let exprs = columns.map(|column| {
            let name = column.name.clone();
            Expr::Column(column).alias_qualified(Some(new.clone()), name)
        });
        let on = related.on.iter().map(|(l, r)| Ok((l.clone(), moved(r)?)));
        Ok(RelatedRows {
            rows: project(exprs.collect(), related.rows.clone())?,
            on: on.collect::<Planned<_>>()?,
            conditions: related.conditions.iter().map(&moved).collect::<Result<_, _>>()?,
            outputs: related.outputs.iter().map(&moved).collect::<Result<_, _>>()?,
            qualifier,
        })
    }
}

impl RelatedRows {
    /// Whether an expression over the rows of `beside` and these rows can be null.
    pub fn nullable(&self, expr: &Expr, beside: &LogicalPlan) -> Planned<bool> {
        let both = beside.schema().join(self.rows.schema())?;
        Ok(expr.nullable(&both)? && !never_null(expr, &self.rows))
    }

    /// Whether all rows belong to every outer row.
    pub fn belongs_to_all(&self) -> bool {
        self.on.is_empty() && self.conditions.is_empty()
    }

    /// Joins these rows to the outer rows, with further conditions.
    pub fn joined(self, left: LogicalPlan, kind: JoinType, more: Vec<Expr>) -> Planned<LogicalPlan> {
        let existence = matches!(kind, JoinType::LeftSemi | JoinType::LeftAnti);
        let related = self.with_conditions(more)?;
        let rows = match existence && related.is_of_no_row() {
            true => {
                // Only the existence of a row matters, so one row is enough.
                let qualifier = TableReference::bare(related.qualifier);
                let one = project(vec![lit(true).alias_qualified(Some(qualifier), "any")], related.rows)?;
                LogicalPlan::Distinct(Distinct::All(Arc::new(one)))
            }
            false => related.rows,
        };
        join(left, rows, kind, related.on, conjunction(related.conditions))
    }

    /// The outer rows, and a column of them, never null, that tells whether a row belongs to each for which the
    /// further conditions are true.
    pub fn marked(self, left: LogicalPlan, more: Vec<Expr>) -> Planned<(LogicalPlan, Expr)> {
        let related = self.with_conditions(more)?;
        let qualifier = TableReference::bare(related.qualifier.clone());
        if !related.is_of_no_row() {
            let mark = Expr::Column(Column::new(Some(qualifier), "mark"));
            let marked = join(
                left,
                related.rows,
                JoinType::LeftMark,
                related.on,
                conjunction(related.conditions),
            )?;
            return Ok((marked, mark));
        }
        let count = Aggregate::try_new(Arc::new(related.rows), vec![], vec![count(lit(1i64)).alias("__rows")])?;
        let some = Expr::Column(Column::new_unqualified("__rows")).gt(lit(0i64));
        let any = vec![some.alias_qualified(Some(qualifier.clone()), "any")];
        let any = project(any, LogicalPlan::Aggregate(count))?;
        let marked = join(left, any, JoinType::Inner, vec![], None)?;
        let any = Expr::Column(Column::new(Some(qualifier), "any"));
        let conditions = related.conditions.into_iter().map(Expr::is_true);
        Ok((marked, conditions.fold(any, Expr::and)))
    }

    /// Adds conditions. Those that only depend on the subquery's rows become filters of these.
    fn with_conditions(self, more: Vec<Expr>) -> Planned<RelatedRows> {
        let mut related = self;
        let own = related.rows.schema().clone();
        let all = std::mem::take(&mut related.conditions).into_iter().chain(more);
        let (own, beside): (Vec<Expr>, Vec<Expr>) = all.partition(|e| {
            let columns = e.column_refs();
            !columns.is_empty() && columns.iter().all(|c| own.has_column(c))
        });
        if let Some(condition) = conjunction(own) {
            related.rows = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(related.rows))?);
        }
        related.conditions = beside;
        Ok(related)
    }

    /// Whether no condition depends on these rows.
    fn is_of_no_row(&self) -> bool {
        let mut asked = self.conditions.iter().flat_map(|e| e.column_refs());
        self.on.is_empty() && !asked.any(|c| self.rows.schema().has_column(c))
    }
}

/// A name for an expression's column: the name of the column that it is, unless that is taken.
pub(super) fn free_name(expr: &Expr, is_taken: impl Fn(&str) -> bool) -> String {
    let own = match expr {
        Expr::Column(column) => column.name.clone(),
        _ => "value".to_string(),
    };
    let numbered = (1..).map(|n| format!("{own}_{n}"));
    let mut names = std::iter::once(own.clone()).chain(numbered);
    names.find(|name| !is_taken(name)).expect("numbers do not end")
}

/// Whether a filter within the plan removes rows in which a column is null.
fn never_null(expr: &Expr, plan: &LogicalPlan) -> bool {
    let Expr::Column(column) = expr else { return false };
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = projection.schema.maybe_index_of_column(column);
            let below = below.map(|n| projection.expr[n].clone().unalias());
            below.is_some_and(|below| never_null(&below, &projection.input))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = alias.schema.maybe_index_of_column(column);
            let below = below.map(|n| Expr::Column(alias.input.schema().columns()[n].clone()));
            below.is_some_and(|below| never_null(&below, &alias.input))
        }
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate);
            let mut not_null = conditions.iter().filter_map(|e| match e {
                Expr::IsNotNull(of) => Some(of.as_ref()),
                _ => None,
            });
            not_null.any(|of| of == expr) || never_null(expr, &filter.input)
        }
        _ => false,
    }
}
