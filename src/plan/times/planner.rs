//! Plans `INTERVAL * number`, `INTERVAL / number` and `DATE + INTERVAL` while SQL becomes a logical plan.
//! DataFusion takes the number for an INTERVAL and the sum for a DATE, and refuses some of these before any
//! analyzer rule runs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::agree::arithmetic;
use super::types::is_length;

/// Registers this planner in a session.
pub(in crate::plan) fn register(context: &SessionContext) {
    let mut state = context.state();
    state
        .register_expr_planner(Arc::new(Lengths))
        .expect("a session takes planners of expressions");
    *context.state_ref().write() = state;
}

#[derive(Debug)]
struct Lengths;

impl ExprPlanner for Lengths {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = raw;
        let operator = match op {
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Plus | BinaryOperator::Minus if is_day_and_length(&left, &right, schema) => match op {
                BinaryOperator::Plus => Operator::Plus,
                _ => Operator::Minus,
            },
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        if !may_be_length(&left) && !may_be_length(&right) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        Ok(match (left.get_type(schema), right.get_type(schema)) {
            (Ok(l), Ok(r)) if is_length(&l) || is_length(&r) => match arithmetic(operator, left, right, (&l, &r)) {
                Ok(made) => PlannerResult::Planned(made),
                Err((left, right)) => PlannerResult::Original(RawBinaryExpr { op, left, right }),
            },
            _ => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }
}

/// Whether a date and an interval are added, which makes a timestamp. Expressions that read the clock are left
/// alone; they are recognised later by where they stand.
fn is_day_and_length(left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
    // In a chain of operations the right operand is short, so its type is looked at first.
    let is_of = |expr: &Expr, is: fn(&DataType) -> bool| expr.get_type(schema).is_ok_and(|of| is(&of));
    let is_day: fn(&DataType) -> bool = |of| of == &DataType::Date32;
    let reads_clock = |expr: &Expr| {
        let mentions = expr
            .exists(|e| Ok(matches!(e, Expr::ScalarFunction(call) if matches!(call.name(), "now" | "current_date"))));
        mentions.unwrap_or(true)
    };
    (is_of(right, is_length) && is_of(left, is_day) || is_of(right, is_day) && is_of(left, is_length))
        && !reads_clock(left)
        && !reads_clock(right)
}

/// Whether an expression may be an interval. This avoids computing types: a product of an interval is already a
/// function, and in a chain of thousands of products each type would cost a walk of the chain.
fn may_be_length(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(operation) => matches!(operation.op, Operator::Plus | Operator::Minus),
        Expr::Literal(value, _) => is_length(&value.data_type()),
        _ => true,
    }
}
