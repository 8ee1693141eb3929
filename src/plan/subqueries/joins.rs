//! Unnests joins for each binding, and subqueries in their conditions.
//!
//! An inner join has the bindings from one side, or from both if both use outer columns; the join then also
//! requires equal bindings. An outer, semi or anti join preserves rows of a side for each binding, so that side
//! gets the bindings whenever the other side or the condition depends on them.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Distinct, Expr, Filter, Join, JoinConstraint, LogicalPlan, when};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::{NameScope, has_subquery, lateral_columns, outer_columns_of};
use super::nodes::in_order;
use super::rows::{Bindings, NodeRows, null_safe_keys, project, requalified};

impl Unnesting<'_> {
    pub(super) fn join(&mut self, join: &Join, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let beside = lateral_columns(&join.right);
        if beside.iter().any(|column| join.left.schema().has_column(column)) {
            return self.lateral(join, outer);
        }
        let conditions = join.filter.iter().cloned().flat_map(split_conjunction_owned);
        let (asking, plain): (Vec<Expr>, Vec<Expr>) = conditions.partition(has_subquery);
        if asking.is_empty() {
            return self.plain_join(join, outer);
        }
        let without = Join {
            filter: conjunction(plain),
            ..join.clone()
        };
        if join.join_type == JoinType::Inner {
            let condition = conjunction(asking).expect("one of them asks");
            let filter = Filter::try_new(condition, Arc::new(LogicalPlan::Join(without)))?;
            return self.filter(&filter, outer);
        }
        let mut join = without;
        for condition in asking {
            join = self.with_condition(join, condition)?;
        }
        let schema = join.schema.clone();
        let mut rows = self.plain_join(&join, outer)?;
        if rows.plan.schema().fields().len() > schema.fields().len() + rows.bound().len() {
            rows = rows.only(&schema)?;
        }
        Ok(rows)
    }

    fn plain_join(&mut self, join: &Join, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let mut left = self.rows(&join.left, outer)?;
        let mut right = self.rows(&join.right, outer)?;
        let Some(bindings) = outer else {
            let made = Join {
                left: Arc::new(in_order(left.plan, join.left.schema())?),
                right: Arc::new(in_order(right.plan, join.right.schema())?),
                ..join.clone()
            };
            return Ok(NodeRows::from_plan(LogicalPlan::Join(made).recompute_schema()?));
        };
        let both: DFSchemaRef = Arc::new(join.left.schema().join(join.right.schema())?);
        let conditions = join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.filter);
        let asks = !outer_columns_of(conditions, &both).is_empty();
        let (keeps_left, keeps_right) = keeps(join.join_type);
        let none = left.bindings.is_none() && right.bindings.is_none();
        if (keeps_left && (asks || right.bindings.is_some())) || (asks && none && !keeps_right) {
            left = self.bound(left, bindings)?;
        }
        if keeps_right && (asks || left.bindings.is_some()) {
            right = self.bound(right, bindings)?;
        }
        if join.join_type == JoinType::Full && right.bindings.is_some() {
            left = self.bound(left, bindings)?;
        }
        let mut on = join.on.clone();
        let agree = left.bindings.is_some() && right.bindings.is_some();
        if agree {
            on.extend(match join.null_equality {
                NullEquality::NullEqualsNull => {
                    let pairs = left.bound().iter().zip(right.bound());
                    pairs.map(|(l, r)| (l.clone().into(), r.clone().into())).collect()
                }
                NullEquality::NullEqualsNothing => {
                    null_safe_keys((left.bound(), left.plan.schema()), (right.bound(), right.plan.schema()))?
                }
            });
        }
        let bound_columns = if keeps_right && !keeps_left || left.bindings.is_none() {
            right.bindings.clone()
        } else {
            left.bindings.clone()
        };
        let named = bindings
            .names
            .iter()
            .cloned()
            .zip(bound_columns.iter().flatten().cloned())
            .collect();
        let scope = NameScope::new(both, named, left.plan.clone());
        let mut pairs = Vec::with_capacity(on.len());
        for (l, r) in on {
            pairs.push((scope.over_rows(l)?, scope.over_rows(r)?));
        }
        let filter = join.filter.clone().map(|filter| scope.over_rows(filter)).transpose()?;
        let others = (left.bound().to_vec(), right.bound().to_vec());
        let made = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            pairs,
            filter,
            join.join_type,
            if agree {
                JoinConstraint::On
            } else {
                join.join_constraint
            },
            join.null_equality,
            join.null_aware,
        )?;
        let plan = LogicalPlan::Join(made);
        if join.join_type == JoinType::Full && agree {
            return self.either(plan, &join.schema, others);
        }
        let rows = NodeRows {
            plan,
            bindings: bound_columns,
        };
        rows.only(&join.schema)
    }

    /// The bindings of a full join, taken from whichever side has them in a row.
    fn either(&mut self, plan: LogicalPlan, schema: &DFSchema, sides: (Vec<Column>, Vec<Column>)) -> Planned<NodeRows> {
        let number = self.number();
        let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        // If the binding is null in a row that exists on the left, it is null on the right too.
        let mut bound = Vec::new();
        for (n, (l, r)) in sides.0.into_iter().zip(sides.1).enumerate() {
            let name = format!("__binding_{number}_{n}");
            let (l, r) = (Expr::Column(l), Expr::Column(r));
            exprs.push(when(l.clone().is_null(), r).otherwise(l)?.alias(&name));
            bound.push(Column::new_unqualified(name));
        }
        Ok(NodeRows {
            plan: project(exprs, plan)?,
            bindings: Some(bound),
        })
    }

    /// An outer join whose condition has a subquery. If the subquery only needs rows of one side, it is
    /// evaluated on that side; if it needs both, it is evaluated for each pair of their distinct values.
    fn with_condition(&mut self, join: Join, condition: Expr) -> Planned<Join> {
        let both: DFSchemaRef = Arc::new(join.left.schema().join(join.right.schema())?);
        let mut used: Vec<Column> = outer_columns_of([&condition], &Arc::new(DFSchema::empty()));
        used.extend(condition.column_refs().into_iter().cloned());
        let of = |schema: &DFSchema| -> Vec<Column> {
            let mut of: Vec<Column> = used.iter().filter(|c| schema.has_column(c)).cloned().collect();
            of.sort();
            of.dedup();
            of
        };
        let (left, right) = (of(join.left.schema()), of(join.right.schema()));
        let kind = join.join_type;
        let filtered = |side: &Arc<LogicalPlan>, condition| -> Planned<Arc<LogicalPlan>> {
            Ok(Arc::new(LogicalPlan::Filter(Filter::try_new(condition, side.clone())?)))
        };
        // A condition on a side that is not preserved can filter that side in advance.
        if left.is_empty() && !keeps(kind).1 {
            let right = filtered(&join.right, condition)?;
            return Ok(Join { right, ..join });
        }
        if right.is_empty() && !keeps(kind).0 {
            let left = filtered(&join.left, condition)?;
            return Ok(Join { left, ..join });
        }
        if left.is_empty() || right.is_empty() {
            return self.with_column(join, condition, right.is_empty());
        }
        let asks_outer = !outer_columns_of([&condition], &both).is_empty();
        if kind == JoinType::Full || asks_outer {
            let place = if asks_outer {
                "an outer join inside another subquery"
            } else {
                "FULL JOIN"
            };
            return Err(Refusal::new(format!(
                "could not plan a subquery in the ON of {place}, for which both sides' rows are asked"
            ))
            .help("write LEFT JOIN, and UNION ALL the rows of the other side for which NOT EXISTS a match")
            .near("ON")
            .into());
        }
        self.with_pairs(join, condition, (left, right))
    }

    /// Makes the condition a column of a side whose rows are all preserved.
    fn with_column(&mut self, join: Join, condition: Expr, of_left: bool) -> Planned<Join> {
        let name = format!("__on_{}", self.number());
        let side = if of_left { &join.left } else { &join.right };
        let mut exprs: Vec<Expr> = side.schema().columns().into_iter().map(Expr::Column).collect();
        exprs.push(condition.alias(&name));
        let side = Arc::new(project(exprs, side.as_ref().clone())?);
        let asked = Expr::Column(Column::new_unqualified(name));
        let mut join = join;
        match of_left {
            true => join.left = side,
            false => join.right = side,
        }
        join.filter = conjunction(join.filter.into_iter().chain([asked]));
        Ok(join)
    }

    /// Evaluates the condition for each distinct pair of both sides' values that satisfies all other
    /// conditions, and joins the pairs that satisfy it to the side that is not preserved.
    fn with_pairs(&mut self, join: Join, condition: Expr, of: (Vec<Column>, Vec<Column>)) -> Planned<Join> {
        let (left, right) = (join.left.clone(), join.right.clone());
        let (on, filter) = (join.on.clone(), join.filter.clone());
        let kind = JoinType::Inner;
        let beside = Join::try_new(
            left,
            right,
            on,
            filter,
            kind,
            JoinConstraint::On,
            join.null_equality,
            false,
        )?;
        let columns = of.0.iter().chain(&of.1).cloned().map(Expr::Column).collect();
        let pairs = Arc::new(project(columns, LogicalPlan::Join(beside))?);
        let pairs = LogicalPlan::Distinct(Distinct::All(pairs));
        let true_for = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(pairs))?);
        let (pairs, columns) = requalified(true_for, &format!("__pair_{}", self.number()))?;
        let (left, right) = columns.split_at(of.0.len());
        let mut join = join;
        let schema = pairs.schema().clone();
        if keeps(join.join_type).1 {
            let on = null_safe_keys((&of.0, join.left.schema()), (left, &schema))?;
            let keys = null_safe_keys((right, &schema), (&of.1, join.right.schema()))?;
            let side = super::rows::join(join.left.as_ref().clone(), pairs, JoinType::Inner, on, None)?;
            join.left = Arc::new(side);
            join.on.extend(keys);
        } else {
            let on = null_safe_keys((&of.1, join.right.schema()), (right, &schema))?;
            let keys = null_safe_keys((&of.0, join.left.schema()), (left, &schema))?;
            let side = super::rows::join(join.right.as_ref().clone(), pairs, JoinType::Inner, on, None)?;
            join.right = Arc::new(side);
            join.on.extend(keys);
        }
        join.join_constraint = JoinConstraint::On;
        Ok(join)
    }
}

/// Whether a join keeps all rows of the left side (a mark join does), and all of the right side.
fn keeps(kind: JoinType) -> (bool, bool) {
    match kind {
        JoinType::Inner => (false, false),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Full => (true, true),
    }
}
