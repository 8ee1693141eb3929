//! Rewrites items of FROM that read the rows before them as LATERAL subqueries, before anything is planned:
//!
//! | written | stands for |
//! |---|---|
//! | `CROSS JOIN unnest(a, b) AS u(x, y)` | `CROSS JOIN LATERAL (SELECT unnest(a) AS x, unnest(b) AS y) AS u(x, y)` |
//! | `... WITH ORDINALITY` | one more column, `unnest(list_positions(a, b)) AS ordinality` |
//! | `LEFT JOIN unnest(a) AS u(x) ON TRUE` | `CROSS JOIN LATERAL (SELECT unnest(list_or_null(a)) AS x) AS u(x)` |
//! | `generate_series(...)` in FROM | the same as `unnest` of its list |
//! | `CROSS APPLY`, `OUTER APPLY` | `CROSS JOIN LATERAL`, `LEFT JOIN LATERAL ... ON TRUE` |
//! | `ASOF JOIN` | see [`asof`] |
//!
//! In a SELECT list, `generate_series(...)` and similar functions become `unnest` of their lists. Columns are
//! named as in PostgreSQL: by the alias if there is one column and no list of names, and else by the function.

mod asof;
mod functions;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, Select, SelectItem, TableFactor, TableWithJoins, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};

use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

pub(super) use asof::rewrite as rewrite_asof;
pub(super) use functions::{NAMES as TABLE_FUNCTIONS, TableFunction};

use super::error::Refusal;
use super::syntax::truth;
use super::windows::{self, tokenize};

/// Applies these rewrites to a statement or query.
pub(super) fn rewrite_laterals(sql: &mut impl VisitMut) -> Result<(), Refusal> {
    rewrite_all(sql, false)
}

fn rewrite_all(sql: &mut impl VisitMut, is_live: bool) -> Result<(), Refusal> {
    Refusal::of_visit(VisitMut::visit(sql, &mut Laterals { is_live }))
}

/// Applies these rewrites to a statement of a live query. An error has a message and its remedy.
///
/// # Errors
/// A construct is refused.
pub fn laterals_asked(sql: &mut impl VisitMut) -> Result<(), (String, String)> {
    rewrite_all(sql, true).map_err(Refusal::into_texts)
}

/// The tokens of a live query with its window table functions and ASOF JOINs rewritten for the parser. `None` if it
/// has neither.
///
/// # Errors
/// A window table function is called wrongly: the problem, and the remedy.
pub fn tokens_asked(sql: &str) -> Result<Option<Vec<TokenWithSpan>>, (String, String)> {
    let Ok(tokens) = tokenize(sql) else {
        return Ok(None); // the parser has the error
    };
    let rewritten = windows::rewrite(tokens.clone()).map_err(Refusal::into_texts)?;
    let rewritten = rewrite_asof(rewritten);
    Ok((rewritten != tokens).then_some(rewritten))
}

struct Laterals {
    /// Whether this is a live query. It reads a series that stands alone in FROM as a stream, so the series may
    /// be of any length.
    is_live: bool,
}

impl VisitorMut for Laterals {
    type Break = Box<Refusal>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Refusal>> {
        let done = select
            .from
            .iter_mut()
            .enumerate()
            .try_for_each(|(n, part)| in_from(part, n > 0, self.is_live));
        if let Err(refusal) = done {
            return ControlFlow::Break(Box::new(refusal));
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                functions::in_select(expr);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites an item of FROM and its joins. `beside`: other items stand before it.
fn in_from(from: &mut TableWithJoins, beside: bool, is_live: bool) -> Result<(), Refusal> {
    let is_streamed =
        is_live && !beside && TableFunction::from_factor(&from.relation).is_some_and(|listed| listed.is_series());
    if !is_streamed {
        in_table(&mut from.relation, beside, false)?;
    }
    for join in &mut from.joins {
        in_join(join)?;
    }
    Ok(())
}

fn in_join(join: &mut Join) -> Result<(), Refusal> {
    match &join.join_operator {
        JoinOperator::CrossApply => {
            join.join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
            beside_rows(&mut join.relation);
        }
        JoinOperator::OuterApply => {
            join.join_operator = JoinOperator::LeftOuter(JoinConstraint::On(truth(true)));
            beside_rows(&mut join.relation);
        }
        _ => asof::in_join(join)?,
    }
    let optional = match &join.join_operator {
        JoinOperator::Left(JoinConstraint::On(on)) | JoinOperator::LeftOuter(JoinConstraint::On(on)) => is_true(on),
        _ => false,
    };
    // A function that reads no columns may also be the right side of a RIGHT or FULL JOIN.
    let outer = matches!(
        join.join_operator,
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
    );
    let beside = !(outer && TableFunction::from_factor(&join.relation).is_some_and(|listed| listed.is_constant()));
    if in_table(&mut join.relation, beside, optional)? && optional {
        join.join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
    }
    Ok(())
}

fn beside_rows(table: &mut TableFactor) {
    if let TableFactor::Derived { lateral, .. } = table {
        *lateral = true;
    }
}

/// Rewrites a table function; returns whether the item was one. With `optional` an outer row without rows of
/// the function gets one of nulls.
fn in_table(table: &mut TableFactor, beside: bool, optional: bool) -> Result<bool, Refusal> {
    if let TableFactor::NestedJoin { table_with_joins, .. } = table {
        in_from(table_with_joins, false, false)?;
        return Ok(false);
    }
    let Some(listed) = TableFunction::from_factor(table) else {
        return Ok(false);
    };
    *table = listed.into_subquery(beside, optional)?;
    Ok(true)
}

/// Whether a condition is always true: TRUE, or two equal constants as in `1 = 1`.
fn is_true(condition: &Expr) -> bool {
    match condition {
        Expr::Nested(inner) => is_true(inner),
        Expr::Value(ValueWithSpan { value, .. }) => value == &Value::Boolean(true),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } => match (left.as_ref(), right.as_ref()) {
            (Expr::Value(left), Expr::Value(right)) => left.value == right.value && left.value != Value::Null,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
