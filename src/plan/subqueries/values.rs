//! Subqueries as values: each becomes a column of the rows that ask it.
//!
//! `x IN (S)` is true if a row of S equals x; else unknown if S has a null, or if x is null and S has a row; else false.
//! The same goes for `x op ANY (S)`; `x op ALL (S)` is NOT of ANY with the opposite of op.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, plan_err};
use datafusion::logical_expr::expr::SetQuantifier;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit, not, when};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::{Scope, has_subquery, outer_columns};
use super::one_row::is_always_there;
use super::related::Asked;
use super::rows::Rows;
use super::single::at_most_one;
use datafusion::common::ScalarValue;

/// A condition on a subquery's rows.
pub(super) enum Asking {
    /// There is one.
    Exists(Arc<LogicalPlan>),
    /// There is one that compares so with a value.
    Any(Any),
}

/// `of op ANY (rows)`.
pub(super) struct Any {
    pub of: Expr,
    op: Operator,
    /// Whether it is the opposite of the operator, which has none of its own.
    opposite: bool,
    pub rows: Arc<LogicalPlan>,
}

impl Any {
    /// The comparison with a row's column.
    pub fn compared(&self, of: &Expr, with: &Expr) -> Expr {
        let compared = binary_expr(of.clone(), self.op, with.clone());
        if self.opposite { not(compared) } else { compared }
    }
}

impl Asking {
    /// What a condition asks, and whether it is negated; none if it is no such condition.
    pub fn of(condition: &Expr) -> Option<(Asking, bool)> {
        match condition {
            Expr::Not(inner) => Asking::of(inner).map(|(asking, negated)| (asking, !negated)),
            Expr::Exists(exists) => Some((Asking::Exists(exists.subquery.subquery.clone()), exists.negated)),
            Expr::InSubquery(within) => {
                let any = Any {
                    of: within.expr.as_ref().clone(),
                    op: Operator::Eq,
                    opposite: false,
                    rows: within.subquery.subquery.clone(),
                };
                Some((Asking::Any(any), within.negated))
            }
            Expr::SetComparison(comparison) => {
                let all = comparison.quantifier == SetQuantifier::All;
                let opposite = comparison.op.negate().filter(|_| all);
                let any = Any {
                    of: comparison.expr.as_ref().clone(),
                    op: opposite.unwrap_or(comparison.op),
                    opposite: all && opposite.is_none(),
                    rows: comparison.subquery.subquery.clone(),
                };
                Some((Asking::Any(any), all))
            }
            _ => None,
        }
    }

    pub fn rows(&self) -> &Arc<LogicalPlan> {
        match self {
            Asking::Exists(rows) => rows,
            Asking::Any(any) => &any.rows,
        }
    }
}

impl Unnesting<'_> {
    /// An expression over the rows without subqueries; what these yield is joined to the rows. `filter`: unknown is as
    /// good as false.
    pub fn value(&mut self, rows: &mut Rows, scope: &Scope, expr: Expr, filter: bool) -> Planned<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        if filter && let Some((asking, negated)) = Asking::of(&expr) {
            return self.asked(rows, scope, asking, negated, true);
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::And | Operator::Or),
                right,
            }) if filter => {
                let left = self.value(rows, scope, *left, true)?;
                let right = self.value(rows, scope, *right, true)?;
                Ok(binary_expr(left, op, right))
            }
            expr => {
                let mut failed = None;
                let made = expr.transform_up(|e| {
                    let value = match (&e, Asking::of(&e)) {
                        (Expr::ScalarSubquery(subquery), _) => self.scalar(rows, scope, &subquery.subquery),
                        // What is negated by NOT has been replaced by now.
                        (_, Some((asking, negated))) if !matches!(e, Expr::Not(_)) => {
                            self.asked(rows, scope, asking, negated, false)
                        }
                        _ => return Ok(Transformed::no(e)),
                    };
                    value.map(Transformed::yes).or_else(|error| {
                        failed = Some(error);
                        plan_err!("refused")
                    })
                });
                match failed {
                    Some(error) => Err(error),
                    None => Ok(made.data()?),
                }
            }
        }
    }

    fn asked(&mut self, rows: &mut Rows, scope: &Scope, asking: Asking, negated: bool, filter: bool) -> Planned<Expr> {
        let signed = |e: Expr| if negated { not(e) } else { e };
        let correlated = !outer_columns(asking.rows()).is_empty();
        match asking {
            Asking::Exists(plan) => {
                if is_always_there(&plan) {
                    return Ok(lit(!negated));
                }
                if let Some(row) = self.one_row(&plan, &mut rows.plan, scope)? {
                    let there = row.or(lit(true), lit(false))?;
                    return Ok(signed(there));
                }
                let related = self.related(&plan, scope, Asked::Existence)?;
                let (joined, mark) = related.marked(std::mem::take(&mut rows.plan), vec![])?;
                rows.plan = joined;
                Ok(signed(mark))
            }
            Asking::Any(any) => {
                let of = self.value(rows, scope, any.of.clone(), false)?;
                if correlated && let Some(row) = self.one_row(&any.rows, &mut rows.plan, scope)? {
                    let compared = any.compared(&of, &row.outputs[0]);
                    return Ok(signed(row.or(compared, lit(false))?));
                }
                let related = self.related(&any.rows, scope, Asked::Existence)?;
                let with = related.outputs[0].clone();
                let unknown_row = related.nullable(&with, &rows.plan)?;
                let unknown_of = of.nullable(rows.plan.schema())?;
                let mut unknown: Option<Expr> = None;
                // Where unknown is as good as false, it matters only to NOT.
                if unknown_row && (negated || !filter) {
                    let again = self.again(&related)?;
                    let null = again.outputs[0].clone().is_null();
                    let (joined, mark) = again.marked(std::mem::take(&mut rows.plan), vec![null])?;
                    rows.plan = joined;
                    unknown = Some(mark);
                }
                if unknown_of && (negated || !filter) {
                    let again = self.again(&related)?;
                    let (joined, mark) = again.marked(std::mem::take(&mut rows.plan), vec![])?;
                    rows.plan = joined;
                    let null = of.clone().is_null().and(mark);
                    unknown = Some(unknown.map_or(null.clone(), |unknown| unknown.or(null)));
                }
                let compared = any.compared(&of, &with);
                let (joined, mark) = related.marked(std::mem::take(&mut rows.plan), vec![compared])?;
                rows.plan = joined;
                let Some(unknown) = unknown else {
                    return Ok(signed(mark));
                };
                if filter {
                    return Ok(not(mark).and(not(unknown)));
                }
                Ok(when(mark, lit(!negated))
                    .when(unknown, lit(ScalarValue::Boolean(None)))
                    .otherwise(lit(negated))?)
            }
        }
    }

    /// The value of a subquery's one row; null where there is none.
    fn scalar(&mut self, rows: &mut Rows, scope: &Scope, plan: &LogicalPlan) -> Planned<Expr> {
        if let Some(row) = self.one_row(plan, &mut rows.plan, scope)? {
            let value = row.outputs[0].clone();
            let none = ScalarValue::try_from(plan.schema().field(0).data_type())?;
            return row.or(value, lit(none));
        }
        if !at_most_one(plan, self.keys) {
            return Err(
                Refusal::new("could not plan a subquery as one value: it may yield several rows")
                    .help("make it one row: an aggregate without GROUP BY, or ORDER BY ... LIMIT 1")
                    .at(self.place)
                    .into(),
            );
        }
        let related = self.related(plan, scope, Asked::OptionalRows)?;
        let value = related.outputs[0].clone();
        rows.plan = related.joined(std::mem::take(&mut rows.plan), JoinType::Left, vec![])?;
        Ok(value)
    }
}
