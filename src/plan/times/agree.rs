//! Coerces dates, timestamps and intervals to common types, before DataFusion coerces them to nanoseconds.
//!
//! `numbers::agree` walks the expressions of a plan, and calls this module for operands that are times.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};

use super::super::numbers::{CommonTypeUse, is_number};
use super::arith::{TimeArithmetic, outcome};
use super::convert::{cast_of, convert};
use super::functions;
use super::types::{INTERVAL, common, computed_type, is_length, is_moment, is_text};

/// Converts operands of these types to their common type, if they are times. Returns whether any operand changed.
pub(in crate::plan) fn coerce_to_common(
    operands: &mut [&mut Expr],
    types: &[DataType],
    meeting: CommonTypeUse,
) -> bool {
    let is_text = |n: usize| is_literal(operands[n]) && is_text(&types[n]);
    let others: Vec<DataType> = (0..types.len())
        .filter(|n| !is_text(*n))
        .map(|n| types[n].clone())
        .collect();
    let Some(to) = common(&others, meeting) else {
        return false;
    };
    // PostgreSQL reads a literal text beside an interval as an INTERVAL; it is not a count of microseconds.
    let is_changed: Vec<bool> = (0..types.len())
        .map(|n| types[n] != to && !types[n].is_null())
        .collect();
    for (n, operand) in operands.iter_mut().enumerate().filter(|(n, _)| is_changed[*n]) {
        let (mut value, mut from) = (std::mem::take(*operand), types[n].clone());
        if super::types::is_text(&from) && is_length(&to) {
            value = datafusion::logical_expr::cast(value, INTERVAL);
            from = INTERVAL;
        }
        **operand = converted(value, &from, &to);
    }
    is_changed.contains(&true)
}

/// An operation on times as a function of ours. If DataFusion's operator is right, the operands come back as
/// the error.
pub(in crate::plan) fn arithmetic(
    op: Operator,
    left: Expr,
    right: Expr,
    (l, r): (&DataType, &DataType),
) -> Result<Expr, (Expr, Expr)> {
    let arith = match op {
        Operator::Plus => TimeArithmetic::Add,
        Operator::Minus => TimeArithmetic::Subtract,
        Operator::Multiply => TimeArithmetic::Multiply,
        Operator::Divide => TimeArithmetic::Divide,
        _ => return Err((left, right)),
    };
    // `INTERVAL + t` and `2 * INTERVAL` have their operands swapped.
    let is_turned = matches!(arith, TimeArithmetic::Add | TimeArithmetic::Multiply)
        && (is_moment(r) && !is_moment(l) || is_length(r) && !is_length(l) && !is_moment(l));
    let (left, right, l, r) = match is_turned {
        true => (right, left, r, l),
        false => (left, right, l, r),
    };
    let back = |left, right| match is_turned {
        true => Err((right, left)),
        false => Err((left, right)),
    };
    let to = match (computed_type(l), r) {
        (Some(l), r) if is_moment(&l) && is_moment(r) && arith == TimeArithmetic::Subtract => {
            match common(&[l.clone(), r.clone()], CommonTypeUse::Compared) {
                // The difference of two dates is a number of days.
                Some(DataType::Date32) | None => return back(left, right),
                Some(to) => (to.clone(), to),
            }
        }
        (Some(l), r) if is_moment(&l) && is_length(r) => (l, computed_type(r).unwrap_or(INTERVAL)),
        (Some(DataType::Date32), r) if r.is_integer() => (DataType::Date32, DataType::Int64),
        (Some(DataType::Date32), DataType::Time32(_) | DataType::Time64(_)) => (
            DataType::Date32,
            DataType::Time64(arrow::datatypes::TimeUnit::Nanosecond),
        ),
        (Some(l), r) if is_length(&l) && is_length(r) => (INTERVAL, INTERVAL),
        (Some(l), r) if is_length(&l) && is_number(r) => (INTERVAL, DataType::Float64),
        _ => return back(left, right),
    };
    if outcome(arith, &to.0, &to.1).is_none() {
        return back(left, right);
    }
    Ok(functions::arithmetic(
        arith,
        converted(left, l, &to.0),
        super::super::numbers::converted(right, r, &to.1),
    ))
}

/// A cast of times as a function of ours; `None` if DataFusion's cast is right.
pub(in crate::plan) fn cast(of: &Expr, from: &DataType, to: &DataType, safe: bool) -> Option<Expr> {
    let to = cast_of(from, to)?;
    // A cast to the same type with all six digits does nothing.
    match from == &to.of && to.digits == 6 {
        true => Some(of.clone()),
        false => Some(functions::cast(of.clone(), to, safe)),
    }
}

/// The negated INTERVAL, or negated difference of timestamps.
pub(in crate::plan) fn negated(of: Expr, from: &DataType) -> Expr {
    functions::negated(converted(of, from, &INTERVAL))
}

/// The expression converted to another type. Constants are computed here.
pub(in crate::plan) fn converted(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to {
        return expr;
    }
    let Some(to) = cast_of(from, to) else {
        return datafusion::logical_expr::cast(expr, to.clone());
    };
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(values) = value.to_array()
        && let Ok(made) = convert(&values, &to, false)
        && let Ok(made) = ScalarValue::try_from_array(&made as &ArrayRef, 0)
    {
        return Expr::Literal(made, metadata.clone());
    }
    functions::cast(expr, to, false)
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Alias(alias) => is_literal(&alias.expr),
        _ => false,
    }
}

/// Whether a type is a date, a timestamp or an interval.
pub(in crate::plan) fn is_time(of: &DataType) -> bool {
    computed_type(of).is_some()
}
