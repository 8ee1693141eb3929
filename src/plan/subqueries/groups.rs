//! Unnests GROUP BY for each binding, by adding the bindings to the group columns.
//!
//! Without GROUP BY, and for the set `()` of GROUPING SETS, there is a group even over no rows. So the bindings
//! are left-joined to their groups; where a group is missing, its columns are NULL or the aggregate's result
//! over no rows.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, ScalarValue};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, cast, lit, when};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::names_outer;
use super::nodes::{NodeInput, named};
use super::rows::{Bindings, NodeRows, join, null_safe_keys, project};

/// The column that identifies grouping sets.
const GROUPING_ID: &str = Aggregate::INTERNAL_GROUPING_ID;

impl Unnesting<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let grouped = self.groups(aggregate, outer)?;
        let Some(bindings) = outer.filter(|_| grouped.bindings.is_some()) else {
            return Ok(grouped);
        };
        let of_everything = match sets(&aggregate.group_expr) {
            Some(sets) => sets.iter().filter(|set| set.is_empty()).count(),
            None => usize::from(aggregate.group_expr.is_empty()),
        };
        match of_everything {
            0 => Ok(grouped),
            1 => self.with_group_of_nothing(grouped, aggregate, bindings),
            _ => Err(Refusal::new(
                "could not plan GROUPING SETS that name () twice in a subquery that uses columns of the outer query",
            )
            .help("name it once, and UNION ALL the other one")
            .near("GROUPING")
            .into()),
        }
    }

    /// The groups that have rows.
    pub fn groups(&mut self, aggregate: &Aggregate, outer: Option<&Bindings>) -> Planned<NodeRows> {
        aggregate.aggr_expr.iter().try_for_each(of_these_rows)?;
        let sets = sets(&aggregate.group_expr);
        let plain: Vec<Expr> = match &sets {
            Some(sets) => distinct(sets),
            None => aggregate.group_expr.clone(),
        };
        let groups = plain.len();
        let exprs = plain.iter().chain(&aggregate.aggr_expr).cloned().collect();
        let NodeInput { rows, mut exprs } = self.node(&aggregate.input, exprs, outer)?;
        let calls = exprs.split_off(groups);
        let shown = aggregate.schema.fields().len() - calls.len();
        let calls = named(calls, &aggregate.schema, shown);
        let plain_named = named(exprs, &aggregate.schema, 0);
        if rows.bindings.is_none() {
            let group = match &sets {
                // ROLLUP and CUBE are only expanded to sets if their columns have changed.
                Some(_) if plain_named == plain => aggregate.group_expr.clone(),
                Some(sets) => vec![grouping_sets(sets, &plain, &plain_named, &[])],
                None => plain_named,
            };
            let made = Aggregate::try_new(Arc::new(rows.plan), group, calls)?;
            return Ok(NodeRows::from_plan(LogicalPlan::Aggregate(made)));
        }
        let bound: Vec<Expr> = rows.bound().iter().cloned().map(Expr::Column).collect();
        let group = match &sets {
            Some(sets) => vec![grouping_sets(sets, &plain, &plain_named, &bound)],
            None => bound.iter().cloned().chain(plain_named).collect(),
        };
        let made = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows.plan), group, calls)?);
        let bound = rows.bindings.unwrap_or_default();
        Ok(NodeRows {
            plan: match &sets {
                Some(_) => with_old_id(made, &aggregate.schema, &bound)?,
                None => made,
            },
            bindings: Some(bound),
        })
    }

    /// Adds, for each binding without a group, the group over no rows.
    fn with_group_of_nothing(&mut self, groups: NodeRows, of: &Aggregate, bindings: &Bindings) -> Planned<NodeRows> {
        let (all, columns) = self.instance(bindings)?;
        let on = null_safe_keys((&columns, all.schema()), (groups.bound(), groups.plan.schema()))?;
        let before = groups.plan.schema().clone();
        let plan = join(all, groups.plan, JoinType::Left, on, None)?;
        let shown = of.schema.fields().len() - of.aggr_expr.len();
        let mut exprs = Vec::with_capacity(of.schema.fields().len() + columns.len());
        for (n, (qualifier, field)) in of.schema.iter().enumerate() {
            let column = Expr::Column(Column::from((qualifier, field)));
            let nothing = match n.checked_sub(shown) {
                Some(call) => over_nothing(&of.aggr_expr[call], &of.input)?,
                None if field.name() == GROUPING_ID => id_of_everything(&of.group_expr, before.as_ref())?,
                None => ScalarValue::Null,
            };
            exprs.push(match nothing.is_null() {
                true => column,
                // An aggregate with such a result is never null over rows.
                false => when(column.clone().is_null(), lit(nothing))
                    .otherwise(column)?
                    .alias_qualified(qualifier.cloned(), field.name()),
            });
        }
        exprs.extend(columns.iter().cloned().map(Expr::Column));
        Ok(NodeRows {
            plan: project(exprs, plan)?,
            bindings: Some(columns),
        })
    }
}

/// The result of an aggregate over no rows.
pub(super) fn over_nothing(call: &Expr, input: &LogicalPlan) -> Planned<ScalarValue> {
    match call.clone().unalias_nested().data {
        Expr::AggregateFunction(call) => {
            let of = Expr::AggregateFunction(call.clone()).get_type(input.schema())?;
            Ok(call.func.default_value(&of)?)
        }
        _ => Ok(ScalarValue::Null),
    }
}

/// Refuses an aggregate over outer columns only, which SQL computes in the outer query.
pub(super) fn of_these_rows(call: &Expr) -> Planned<()> {
    let Expr::AggregateFunction(call) = call.clone().unalias_nested().data else {
        return Ok(());
    };
    let args = &call.params.args;
    if args.iter().any(names_outer) && args.iter().all(|arg| arg.column_refs().is_empty()) {
        let name = call.func.name().to_string();
        return Err(Refusal::new(format!(
            "could not plan {name}() of the outer query's columns alone: SQL computes it of the outer query's rows"
        ))
        .help("compute it in a subquery of FROM, or give it a column of this subquery")
        .near(name)
        .into());
    }
    Ok(())
}

/// The grouping sets that a GROUP BY stands for; `None` if it is a plain list of columns.
fn sets(group: &[Expr]) -> Option<Vec<Vec<Expr>>> {
    match group {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => Some(sets.clone()),
        [Expr::GroupingSet(GroupingSet::Rollup(exprs))] => {
            Some((0..=exprs.len()).rev().map(|n| exprs[..n].to_vec()).collect())
        }
        [Expr::GroupingSet(GroupingSet::Cube(exprs))] if exprs.len() < 7 => {
            let exprs_of = |mask: usize| {
                let chosen = exprs.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0);
                chosen.map(|(_, e)| e.clone()).collect()
            };
            Some((0..1usize << exprs.len()).rev().map(exprs_of).collect())
        }
        _ => None,
    }
}

/// The columns of several sets, each once, in their order.
fn distinct(sets: &[Vec<Expr>]) -> Vec<Expr> {
    let mut all: Vec<Expr> = Vec::new();
    for e in sets.iter().flatten() {
        if !all.contains(e) {
            all.push(e.clone());
        }
    }
    all
}

/// The sets with the columns of `before` replaced by those of `after`, and with `bound` added to each.
fn grouping_sets(sets: &[Vec<Expr>], before: &[Expr], after: &[Expr], bound: &[Expr]) -> Expr {
    let replaced = |e: &Expr| {
        let at = before.iter().position(|b| b == e);
        at.map_or_else(|| e.clone(), |n| after[n].clone())
    };
    let set = |set: &Vec<Expr>| bound.iter().cloned().chain(set.iter().map(replaced)).collect();
    Expr::GroupingSet(GroupingSet::GroupingSets(sets.iter().map(set).collect()))
}

/// The groups with `__grouping_id` cast to the type that it had without bindings. The bindings have the highest
/// bits, which are never set, because every set contains the bindings. Above them only the count of equal sets
/// would stand, which no query can read.
fn with_old_id(made: LogicalPlan, before: &DFSchema, bound: &[Column]) -> Planned<LogicalPlan> {
    let mut exprs = Vec::new();
    for (qualifier, field) in before.iter() {
        let column = Column::from((qualifier, field));
        let of = made.schema().field_from_column(&column)?.data_type().clone();
        let column = Expr::Column(column);
        exprs.push(match &of == field.data_type() {
            true => column,
            false => cast(column, field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name()),
        });
    }
    exprs.extend(bound.iter().cloned().map(Expr::Column));
    project(exprs, made)
}

/// The `__grouping_id` of the set `()`, in which the bit of every column is set.
fn id_of_everything(group: &[Expr], schema: &DFSchema) -> Planned<ScalarValue> {
    let columns = sets(group).map_or(0, |sets| distinct(&sets).len());
    let id = (0..columns).fold(0u64, |id, _| (id << 1) | 1);
    let of = schema.field_with_unqualified_name(GROUPING_ID)?.data_type().clone();
    Ok(ScalarValue::UInt64(Some(id)).cast_to(&of)?)
}
