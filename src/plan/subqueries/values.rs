//! Unnests subqueries that are used as values: each becomes a column of the outer rows.
//!
//! `x IN (S)` is true if a row of S equals x. Otherwise it is unknown if S has a null, or if x is null and S
//! has a row; else it is false. The same holds for `x op ANY (S)`; `x op ALL (S)` is NOT of ANY with the
//! opposite operator.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, plan_err};
use datafusion::logical_expr::expr::SetQuantifier;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit, not, when};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::{NameScope, has_subquery, outer_columns};
use super::one_row::is_always_there;
use super::related::SubqueryUse;
use super::rows::NodeRows;
use super::single::at_most_one;
use datafusion::common::ScalarValue;

/// A condition on the rows of a subquery.
pub(super) enum SubqueryCondition {
    /// The subquery has a row.
    Exists(Arc<LogicalPlan>),
    /// The comparison is true for a row of the subquery.
    Any(Any),
}

/// `of op ANY (rows)`.
pub(super) struct Any {
    pub of: Expr,
    op: Operator,
    /// Whether the comparison is negated, for an operator that has no opposite.
    opposite: bool,
    pub rows: Arc<LogicalPlan>,
}

impl Any {
    /// The comparison of `of` with a column of a row.
    pub fn compared(&self, of: &Expr, with: &Expr) -> Expr {
        let compared = binary_expr(of.clone(), self.op, with.clone());
        if self.opposite { not(compared) } else { compared }
    }
}

impl SubqueryCondition {
    /// The condition on a subquery that an expression is, and whether it is negated; `None` for other expressions.
    pub fn parse(condition: &Expr) -> Option<(SubqueryCondition, bool)> {
        match condition {
            Expr::Not(inner) => SubqueryCondition::parse(inner).map(|(asking, negated)| (asking, !negated)),
            Expr::Exists(exists) => Some((
                SubqueryCondition::Exists(exists.subquery.subquery.clone()),
                exists.negated,
            )),
            Expr::InSubquery(within) => {
                let any = Any {
                    of: within.expr.as_ref().clone(),
                    op: Operator::Eq,
                    opposite: false,
                    rows: within.subquery.subquery.clone(),
                };
                Some((SubqueryCondition::Any(any), within.negated))
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
                Some((SubqueryCondition::Any(any), all))
            }
            _ => None,
        }
    }

    pub fn rows(&self) -> &Arc<LogicalPlan> {
        match self {
            SubqueryCondition::Exists(rows) => rows,
            SubqueryCondition::Any(any) => &any.rows,
        }
    }
}

impl Unnesting<'_> {
    /// An expression with each subquery replaced by a column; the subqueries are joined to `rows`. With
    /// `filter`, an unknown result may become false.
    pub fn value(&mut self, rows: &mut NodeRows, scope: &NameScope, expr: Expr, filter: bool) -> Planned<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        if filter && let Some((asking, negated)) = SubqueryCondition::parse(&expr) {
            return self.condition_value(rows, scope, asking, negated, true);
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
                    let value = match (&e, SubqueryCondition::parse(&e)) {
                        (Expr::ScalarSubquery(subquery), _) => self.scalar(rows, scope, &subquery.subquery),
                        // Negations by NOT have been replaced when their operands were visited.
                        (_, Some((asking, negated))) if !matches!(e, Expr::Not(_)) => {
                            self.condition_value(rows, scope, asking, negated, false)
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

    fn condition_value(
        &mut self,
        rows: &mut NodeRows,
        scope: &NameScope,
        asking: SubqueryCondition,
        negated: bool,
        filter: bool,
    ) -> Planned<Expr> {
        let signed = |e: Expr| if negated { not(e) } else { e };
        let correlated = !outer_columns(asking.rows()).is_empty();
        match asking {
            SubqueryCondition::Exists(plan) => {
                if is_always_there(&plan) {
                    return Ok(lit(!negated));
                }
                if let Some(row) = self.one_row(&plan, &mut rows.plan, scope)? {
                    let exists = row.value_or(lit(true), lit(false))?;
                    return Ok(signed(exists));
                }
                let related = self.related(&plan, scope, SubqueryUse::Existence)?;
                let (joined, mark) = related.marked(std::mem::take(&mut rows.plan), vec![])?;
                rows.plan = joined;
                Ok(signed(mark))
            }
            SubqueryCondition::Any(any) => {
                let of = self.value(rows, scope, any.of.clone(), false)?;
                if correlated && let Some(row) = self.one_row(&any.rows, &mut rows.plan, scope)? {
                    let compared = any.compared(&of, &row.outputs[0]);
                    return Ok(signed(row.value_or(compared, lit(false))?));
                }
                let related = self.related(&any.rows, scope, SubqueryUse::Existence)?;
                let with = related.outputs[0].clone();
                let unknown_row = related.nullable(&with, &rows.plan)?;
                let unknown_of = of.nullable(rows.plan.schema())?;
                let mut unknown: Option<Expr> = None;
                // With `filter`, unknown only matters below a NOT.
                if unknown_row && (negated || !filter) {
                    let again = self.copy_of(&related)?;
                    let null = again.outputs[0].clone().is_null();
                    let (joined, mark) = again.marked(std::mem::take(&mut rows.plan), vec![null])?;
                    rows.plan = joined;
                    unknown = Some(mark);
                }
                if unknown_of && (negated || !filter) {
                    let again = self.copy_of(&related)?;
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

    /// The value of a subquery's only row; null if it has none.
    fn scalar(&mut self, rows: &mut NodeRows, scope: &NameScope, plan: &LogicalPlan) -> Planned<Expr> {
        if let Some(row) = self.one_row(plan, &mut rows.plan, scope)? {
            let value = row.outputs[0].clone();
            let none = ScalarValue::try_from(plan.schema().field(0).data_type())?;
            return row.value_or(value, lit(none));
        }
        if !at_most_one(plan, self.keys) {
            return Err(
                Refusal::new("could not plan a subquery as one value: it may yield several rows")
                    .help("make it one row: an aggregate without GROUP BY, or ORDER BY ... LIMIT 1")
                    .at(self.place)
                    .into(),
            );
        }
        let related = self.related(plan, scope, SubqueryUse::OptionalRows)?;
        let value = related.outputs[0].clone();
        rows.plan = related.joined(std::mem::take(&mut rows.plan), JoinType::Left, vec![])?;
        Ok(value)
    }
}
