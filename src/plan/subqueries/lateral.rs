//! Unnests LATERAL: a subquery in FROM that uses columns of the tables before it.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{ExprSchema, JoinType, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, lit};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::conditions::filter_rows;
use super::names::{NameScope, outer_columns, outer_columns_of, replaced};
use super::nodes::named;
use super::related::SubqueryUse;
use super::rows::{Bindings, NodeRows, project};

impl Unnesting<'_> {
    pub(super) fn lateral(&mut self, join: &Join, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let optional = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            other => {
                return Err(Refusal::new(format!(
                    "could not plan {} JOIN LATERAL: its subquery has no row of the other side to look at",
                    other.to_string().to_uppercase()
                ))
                .help("write CROSS JOIN LATERAL or LEFT JOIN LATERAL")
                .near("LATERAL")
                .into());
            }
        };
        let own = join.left.schema();
        let conditions = join.filter.iter().cloned().flat_map(split_conjunction_owned);
        let equal = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let conditions: Vec<Expr> = equal.chain(conditions).filter(|e| e != &lit(true)).collect();
        let right = match optional && !conditions.is_empty() {
            // For a left join, the condition is moved into the subquery, so that it decides which rows exist.
            true => Arc::new(within(&join.right, &join.left, conditions.clone())?),
            false => join.right.clone(),
        };
        let mut used = outer_columns(&right);
        used.retain(|column| !own.has_column(column));
        let mut rows = self.rows(&join.left, outer)?;
        if let Some(bindings) = outer {
            let asks = !outer_columns_of(&conditions, &join.schema).is_empty();
            if asks || used.iter().any(|column| bindings.names.contains(column)) {
                rows = self.bound(rows, bindings)?;
            }
        }
        let names = outer.map(|bindings| bindings.names.clone()).unwrap_or_default();
        let outer_named: Vec<_> = names.into_iter().zip(rows.bound().iter().cloned()).collect();
        let scope = NameScope::new(own.clone(), outer_named.clone(), rows.plan.clone());
        let joined = self.join_rows(join, &right, rows, &scope, optional)?;
        if optional || conditions.is_empty() {
            return Ok(joined);
        }
        let scope = NameScope::new(join.schema.clone(), outer_named, joined.plan.clone());
        self.conditions(joined, &scope, conditions)
    }

    /// The rows, each beside the rows of the subquery.
    fn join_rows(
        &mut self,
        join: &Join,
        right: &LogicalPlan,
        rows: NodeRows,
        scope: &NameScope,
        optional: bool,
    ) -> Planned<NodeRows> {
        let mut rows = rows;
        let row_columns: Vec<Expr> = rows.plan.schema().columns().into_iter().map(Expr::Column).collect();
        let shown = |plan, outputs: Vec<Expr>, bindings| -> Planned<NodeRows> {
            let outputs = named(outputs, join.right.schema(), 0);
            let exprs = row_columns.iter().cloned().chain(outputs).collect();
            Ok(NodeRows {
                plan: project(exprs, plan)?,
                bindings,
            })
        };
        if let Some(row) = self.one_row(right, &mut rows.plan, scope)? {
            if !optional {
                let plan = filter_rows(rows.plan, row.having)?;
                return shown(plan, row.outputs, rows.bindings);
            }
            let fields = join.right.schema().fields().iter().zip(&row.outputs);
            let outputs = fields.map(|(field, value)| {
                let none = ScalarValue::try_from(field.data_type())?;
                row.value_or(value.clone(), lit(none))
            });
            let outputs = outputs.collect::<Planned<_>>()?;
            return shown(rows.plan, outputs, rows.bindings);
        }
        if !optional && is_of_no_table(right) {
            return self.within_rows(join, right, rows, scope);
        }
        let (asked, kind) = match optional {
            true => (SubqueryUse::OptionalRows, JoinType::Left),
            false => (SubqueryUse::Rows, JoinType::Inner),
        };
        let related = self.related(right, scope, asked)?;
        let outputs = related.outputs.clone();
        let plan = related.joined(rows.plan, kind, vec![])?;
        shown(plan, outputs, rows.bindings)
    }

    /// A subquery that reads no table is computed on each row itself, without a join.
    fn within_rows(
        &mut self,
        join: &Join,
        right: &LogicalPlan,
        rows: NodeRows,
        scope: &NameScope,
    ) -> Planned<NodeRows> {
        let mut names = join.left.schema().columns();
        let mut columns = names.clone();
        for (name, column) in scope.outer() {
            names.push(name.clone());
            columns.push(column.clone());
        }
        let bindings = Bindings::all(names, rows.plan.clone(), &columns)?;
        let beside = self.rows(right, Some(&bindings))?;
        let beside = self.bound(beside, &bindings)?;
        let own = columns.iter().zip(beside.bound()).map(|(column, now)| {
            Expr::Column(now.clone()).alias_qualified(column.relation.clone(), column.name.clone())
        });
        let shown = join.right.schema().columns().into_iter().map(Expr::Column);
        Ok(NodeRows {
            plan: project(own.chain(shown).collect(), beside.plan.clone())?,
            bindings: rows.bindings,
        })
    }
}

/// The subquery filtered by conditions, in which columns of the other side become outer columns.
fn within(right: &LogicalPlan, left: &LogicalPlan, conditions: Vec<Expr>) -> Planned<LogicalPlan> {
    let mut plan = right.clone();
    for condition in conditions {
        let condition = replaced(condition, &mut |e| match e {
            Expr::Column(column) if !right.schema().has_column(column) => {
                let field = left.schema().field_from_column(column).ok()?;
                Some(Expr::OuterReferenceColumn(field.clone(), column.clone()))
            }
            _ => None,
        })?;
        plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
    }
    Ok(plan)
}

/// Whether a plan is computed from outer columns and constants only, row by row.
fn is_of_no_table(plan: &LogicalPlan) -> bool {
    !plan
        .exists(|node| {
            Ok(!matches!(
                node,
                LogicalPlan::Subquery(_)
                    | LogicalPlan::SubqueryAlias(_)
                    | LogicalPlan::Projection(_)
                    | LogicalPlan::Filter(_)
                    | LogicalPlan::Unnest(_)
                    | LogicalPlan::Union(_)
                    | LogicalPlan::Values(_)
                    | LogicalPlan::EmptyRelation(_)
            ) || node.expressions().iter().any(super::names::has_subquery))
        })
        .expect("looking does not fail")
}
