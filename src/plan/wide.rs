//! Sums and means of windows that do not fit their type.
//!
//! DataFusion's SUM wraps around, and one AVG of decimals that does not fit fails its whole partition. Over a window they
//! are taken in a wider type and cast back above it, where each row is judged by itself: one whose value does not fit
//! is a dead letter, in the graph and in batch alike.
//!
//! ```text
//! Window sum(v)   =>   Projection ..., CAST(wide AS BIGINT) AS sum(v)
//!                        Window sum(CAST(v AS DECIMAL(28,0))) AS wide
//! ```
//! The keys of RANGE frames are widened, too: `RANGE BETWEEN CURRENT ROW AND 1 FOLLOWING` of the greatest BIGINT ends beyond
//! BIGINT, where DataFusion starts again with the least.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFrameBound, WindowFrameUnits, cast,
};

use super::error::Planned;

/// The type in which the argument of this aggregate must be taken so that the outcome, which would be `of`, cannot
/// overflow; none where it cannot anyway.
pub fn wider(function: &str, argument: &DataType, of: &DataType) -> Option<DataType> {
    match (function, of, argument) {
        // Ten digits more than the argument's are those of a sum: room for ten thousand million rows.
        ("sum", DataType::Int64 | DataType::UInt64, _) => Some(DataType::Decimal128(28, 0)),
        // Below the greatest precision a sum has ten digits more than what it adds up, a mean four for its fraction.
        ("sum", DataType::Decimal128(38, scale), DataType::Decimal128(_, from)) if scale == from => {
            Some(DataType::Decimal256(60, *from))
        }
        ("avg", DataType::Decimal128(38, scale), DataType::Decimal128(_, from)) if *scale == from + 4 => {
            Some(DataType::Decimal256(60, *from))
        }
        _ => None,
    }
}

/// The plan in which the sums and means of windows are taken in a wider type.
pub(super) fn windows(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let widened = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Window(window) = node else {
            return Ok(Transformed::no(node));
        };
        let input = window.input.schema().clone();
        let before = window.schema.clone();
        let own = input.fields().len();
        let mut functions = Vec::with_capacity(window.window_expr.len());
        let mut wide = Vec::new();
        // Functions of one node are in one order.
        let reaches = window.window_expr.iter().any(|function| reach(function).is_some());
        for (n, function) in window.window_expr.iter().enumerate() {
            let Expr::WindowFunction(mut call) = function.clone().unalias_nested().data else {
                functions.push(function.clone());
                continue;
            };
            let argument = call.params.args.first().map(|a| a.get_type(&input)).transpose()?;
            let to = argument.and_then(|a| wider(call.fun.name(), &a, before.field(own + n).data_type()));
            // A sliding sum of distinct values knows whole numbers only.
            let to = to.filter(|_| !call.params.distinct);
            let is_wide = to.is_some();
            if let Some(to) = to {
                call.params.args[0] = cast(call.params.args[0].clone(), to);
            }
            if reaches && with_wide_key(&mut call.params, &input)? || is_wide {
                functions.push(Expr::WindowFunction(call).alias(format!("$wide{n}")));
                wide.push(own + n);
            } else {
                functions.push(function.clone());
            }
        }
        if wide.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Window(window)));
        }
        let window = Window::try_new(functions, window.input)?;
        let mut shown: Vec<Expr> = window.schema.columns().into_iter().map(Expr::Column).collect();
        for n in wide {
            let (qualifier, field) = before.qualified_field(n);
            let name = Column::from((qualifier, field));
            let back = match window.schema.field(n).data_type() == field.data_type() {
                true => shown[n].clone(),
                false => cast(shown[n].clone(), field.data_type().clone()),
            };
            shown[n] = back.alias_qualified(name.relation, name.name);
        }
        let window = Arc::new(LogicalPlan::Window(window));
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(
            shown, window,
        )?)))
    });
    Ok(widened.data()?)
}

/// The key of a frame that begins or ends at a distance from the row's own.
fn reach(function: &Expr) -> Option<Expr> {
    let Expr::WindowFunction(call) = function.clone().unalias_nested().data else {
        return None;
    };
    let frame = &call.params.window_frame;
    let is_distance = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => !by.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    let [key] = call.params.order_by.as_slice() else {
        return None;
    };
    let reaches =
        frame.units == WindowFrameUnits::Range && (is_distance(&frame.start_bound) || is_distance(&frame.end_bound));
    reaches.then(|| key.expr.clone())
}

/// Orders a function by its key, a number, in a type that holds it and every distance from it. Says whether it was not in one.
fn with_wide_key(params: &mut WindowFunctionParams, input: &DFSchema) -> Result<bool> {
    let [key] = params.order_by.as_mut_slice() else {
        return Ok(false);
    };
    let scale = match key.expr.get_type(input)? {
        of if of.is_integer() => 0,
        DataType::Decimal128(precision, scale) if precision < 38 => scale,
        _ => return Ok(false),
    };
    let to = DataType::Decimal128(38, scale);
    key.expr = cast(key.expr.clone(), to.clone());
    let frame = &mut params.window_frame;
    if frame.units == WindowFrameUnits::Range {
        for bound in [&mut frame.start_bound, &mut frame.end_bound] {
            if let WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) = bound {
                *by = by.cast_to(&to)?;
            }
        }
    }
    Ok(true)
}
