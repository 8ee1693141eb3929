//! Widens the types of sums and averages over windows, so that they cannot overflow.
//!
//! DataFusion's SUM wraps around, and one AVG of decimals that overflows fails its whole partition. So window
//! functions compute in a wider type, and a projection above casts each value back: a row whose value does not
//! fit becomes a dead letter by itself, in the graph and in batch alike.
//!
//! ```text
//! Window sum(v)   =>   Projection ..., CAST(wide AS BIGINT) AS sum(v)
//!                        Window sum(CAST(v AS DECIMAL(28,0))) AS wide
//! ```
//! The keys of RANGE frames are widened too: `RANGE BETWEEN CURRENT ROW AND 1 FOLLOWING` at the greatest BIGINT
//! ends beyond BIGINT, where DataFusion would wrap around to the least.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFrameBound, WindowFrameUnits, cast,
};

use super::error::Planned;

/// The type to which an aggregate's argument must be cast so that the result, which would have the type `of`,
/// cannot overflow. `None` if it cannot overflow anyway.
pub fn wider(function: &str, argument: &DataType, of: &DataType) -> Option<DataType> {
    match (function, of, argument) {
        // Ten more digits than the argument's are room for the sum of ten thousand million rows.
        ("sum", DataType::Int64 | DataType::UInt64, _) => Some(DataType::Decimal128(28, 0)),
        // If the precision of a sum is below the greatest, it already has ten digits more than the argument's;
        // an average has four more for its fraction.
        ("sum", DataType::Decimal128(38, scale), DataType::Decimal128(_, from)) if scale == from => {
            Some(DataType::Decimal256(60, *from))
        }
        ("avg", DataType::Decimal128(38, scale), DataType::Decimal128(_, from)) if *scale == from + 4 => {
            Some(DataType::Decimal256(60, *from))
        }
        _ => None,
    }
}

/// Makes the sums and averages of windows compute in a wider type.
pub(super) fn widen_windows(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let widened = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Window(window) = node else {
            return Ok(Transformed::no(node));
        };
        let input = window.input.schema().clone();
        let before = window.schema.clone();
        let own = input.fields().len();
        let mut functions = Vec::with_capacity(window.window_expr.len());
        let mut wide = Vec::new();
        // All functions of one node share their order.
        let reaches = window.window_expr.iter().any(|function| range_key(function).is_some());
        for (n, function) in window.window_expr.iter().enumerate() {
            let Expr::WindowFunction(mut call) = function.clone().unalias_nested().data else {
                functions.push(function.clone());
                continue;
            };
            let argument = call.params.args.first().map(|a| a.get_type(&input)).transpose()?;
            let to = argument.and_then(|a| wider(call.fun.name(), &a, before.field(own + n).data_type()));
            // DataFusion's sliding sum of distinct values supports only integers.
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

/// The order key of a RANGE frame that begins or ends at a distance from the row.
fn range_key(function: &Expr) -> Option<Expr> {
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

/// Casts the order key to a type that holds it and every distance from it. Returns whether the key was of a
/// narrower type and was cast.
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
