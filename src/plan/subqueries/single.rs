//! Decides whether a subquery yields at most one row for each outer row, as it must if it is used as a value.

use std::collections::BTreeSet;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator};

use super::KeyLookup;
use super::ranks::number;
use crate::plan::session::source_name;

type Columns = BTreeSet<Column>;

/// Whether a plan yields at most one row, where outer columns count as constants.
pub(super) fn at_most_one(plan: &LogicalPlan, keys: &KeyLookup) -> bool {
    single(plan, &fixed_below(plan), keys)
}

/// Whether a plan yields at most one row for each combination of values of the `fixed` columns.
fn single(plan: &LogicalPlan, fixed: &Columns, keys: &KeyLookup) -> bool {
    let through = |input: &LogicalPlan, fixed: Columns| {
        let mut fixed = fixed;
        fixed.extend(fixed_below(input));
        single(input, &fixed, keys)
    };
    match plan {
        LogicalPlan::Subquery(subquery) => through(&subquery.subquery, fixed.clone()),
        LogicalPlan::Filter(filter) => through(&filter.input, fixed.clone()),
        LogicalPlan::Sort(sort) => through(&sort.input, fixed.clone()),
        LogicalPlan::Window(window) => through(&window.input, fixed.clone()),
        LogicalPlan::Projection(projection) => {
            let shown = projection.schema.columns().into_iter().zip(&projection.expr);
            let below = shown.filter_map(|(column, expr)| match expr.clone().unalias() {
                Expr::Column(of) if fixed.contains(&column) => Some(of),
                _ => None,
            });
            through(&projection.input, below.collect())
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = alias.schema.columns().into_iter().zip(alias.input.schema().columns());
            let below = columns.filter(|(column, _)| fixed.contains(column)).map(|(_, of)| of);
            through(&alias.input, below.collect())
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            input.schema().columns().iter().all(|c| fixed.contains(c)) || through(input, fixed.clone())
        }
        LogicalPlan::Limit(limit) => {
            let fetch = limit.fetch.as_deref().and_then(number).flatten();
            fetch.is_some_and(|rows| rows <= 1) || through(&limit.input, fixed.clone())
        }
        LogicalPlan::Aggregate(aggregate) => {
            let below = fixed_below(&aggregate.input);
            let groups = aggregate.group_expr.iter().zip(aggregate.schema.columns());
            !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)))
                && groups
                    .into_iter()
                    .all(|(e, column)| fixed.contains(&column) || e.column_refs().iter().all(|c| below.contains(*c)))
        }
        LogicalPlan::Join(join) => joined(join, fixed, keys),
        LogicalPlan::TableScan(scan) => {
            let key = keys(&source_name(&scan.table_name));
            let has = |name: &String| fixed.iter().any(|c| &c.name == name);
            !key.is_empty() && key.iter().all(has)
        }
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

/// Whether one side yields at most one row, and the other at most one for each row of that side.
fn joined(join: &Join, fixed: &Columns, keys: &KeyLookup) -> bool {
    let (left, right) = match join.join_type {
        JoinType::Inner => (true, true),
        JoinType::Left => (true, false),
        JoinType::Right => (false, true),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => return single(&join.left, fixed, keys),
        _ => return false,
    };
    let equal = join.on.iter().map(|(l, r)| (l, r));
    let conditions = join.filter.iter().flat_map(split_conjunction);
    let equal: Vec<(&Expr, &Expr)> = equal.chain(conditions.filter_map(sides)).collect();
    let after = |first: &LogicalPlan, second: &LogicalPlan| {
        let mut below = fixed.clone();
        below.extend(fixed_below(first));
        below.extend(fixed_below(second));
        if !single(first, &below, keys) {
            return false;
        }
        let known = |e: &Expr| e.column_refs().iter().all(|c| first.schema().has_column(c));
        for (l, r) in &equal {
            for (one, other) in [(l, r), (r, l)] {
                if let Expr::Column(column) = bare(one)
                    && second.schema().has_column(column)
                    && known(other)
                {
                    below.insert(column.clone());
                }
            }
        }
        single(second, &below, keys)
    };
    (left && after(&join.left, &join.right)) || (right && after(&join.right, &join.left))
}

/// The columns of a plan that its conditions make equal to constants.
fn fixed_below(plan: &LogicalPlan) -> Columns {
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut fixed = fixed_below(&filter.input);
            for (l, r) in split_conjunction(&filter.predicate).into_iter().filter_map(sides) {
                for (one, other) in [(l, r), (r, l)] {
                    if let Expr::Column(column) = bare(one)
                        && other.column_refs().iter().all(|c| fixed.contains(*c))
                        && !super::names::has_subquery(other)
                    {
                        fixed.insert(column.clone());
                    }
                }
            }
            fixed
        }
        LogicalPlan::Subquery(subquery) => fixed_below(&subquery.subquery),
        LogicalPlan::Sort(sort) => fixed_below(&sort.input),
        LogicalPlan::Limit(limit) => fixed_below(&limit.input),
        LogicalPlan::Distinct(Distinct::All(input)) => fixed_below(input),
        LogicalPlan::Window(window) => fixed_below(&window.input),
        LogicalPlan::Projection(projection) => {
            let below = fixed_below(&projection.input);
            let shown = projection.schema.columns().into_iter().zip(&projection.expr);
            let fixed = shown.filter(|(_, expr)| {
                let columns = expr.column_refs();
                columns.iter().all(|c| below.contains(*c)) && !super::names::has_subquery(expr)
            });
            fixed.map(|(column, _)| column).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = fixed_below(&alias.input);
            let columns = alias.schema.columns().into_iter().zip(alias.input.schema().columns());
            columns.filter(|(_, of)| below.contains(of)).map(|(c, _)| c).collect()
        }
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Inner => fixed_below(&join.left)
                .union(&fixed_below(&join.right))
                .cloned()
                .collect(),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => fixed_below(&join.left),
            JoinType::Right => fixed_below(&join.right),
            _ => Columns::new(),
        },
        _ => Columns::new(),
    }
}

fn sides(condition: &Expr) -> Option<(&Expr, &Expr)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => Some((left, right)),
        _ => None,
    }
}

/// The expression without a cast to an integer type, which keeps different values different.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() => bare(&cast.expr),
        other => other,
    }
}
