//! Makes filters treat the two zeros as one. Tables hold no -0.0 (`repr::canonical_floats`), but DataFusion compares
//! floats by their bits, so a filter for -0.0 would find nothing.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::scalar::ScalarValue;

/// Replaces -0.0 by 0.0 in conditions. It runs after the rules that evaluate constants.
#[derive(Debug)]
pub(super) struct OneZero;

impl OptimizerRule for OneZero {
    fn name(&self) -> &str {
        "one_zero"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            // In other nodes, a constant is part of a column's name.
            LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::TableScan(_) => {
                plan.map_expressions(|expr| expr.transform_up(|e| Ok(one_zero(e))))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

fn one_zero(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(x)), metadata) if x == 0.0 && x.is_sign_negative() => {
            Transformed::yes(Expr::Literal(ScalarValue::Float64(Some(0.0)), metadata))
        }
        Expr::Literal(ScalarValue::Float32(Some(x)), metadata) if x == 0.0 && x.is_sign_negative() => {
            Transformed::yes(Expr::Literal(ScalarValue::Float32(Some(0.0)), metadata))
        }
        other => Transformed::no(other),
    }
}
