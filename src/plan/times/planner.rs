//! `INTERVAL * number` and `INTERVAL / number`, planned where they are met: DataFusion takes the number for an INTERVAL, and refuses
//! what it cannot multiply before any rule sees it.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::agree::arithmetic;
use super::types::is_length;

/// Has a session plan by it.
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

/// Whether it takes a look at the types to see that an expression is no length of time. A product of one is a function already, and a
/// chain of thousands of products is not gone through for each of them.
fn may_be_length(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(operation) => matches!(operation.op, Operator::Plus | Operator::Minus),
        Expr::Literal(value, _) => is_length(&value.data_type()),
        _ => true,
    }
}
