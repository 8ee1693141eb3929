//! Dates, moments and lengths of time that meet agree on a type, before DataFusion has them agree on nanoseconds.
//!
//! `numbers::agree` goes through a plan's expressions and asks here where it meets no numbers.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};

use super::super::numbers::{Meeting, is_number};
use super::arith::{Arith, outcome};
use super::convert::{cast_of, convert};
use super::functions;
use super::types::{INTERVAL, common, held, is_length, is_moment, is_text};

/// Has operands of these types meet, if they are times. Says whether that changed any.
pub(in crate::plan) fn meet(operands: &mut [&mut Expr], types: &[DataType], meeting: Meeting) -> bool {
    let is_text = |n: usize| is_literal(operands[n]) && is_text(&types[n]);
    let others: Vec<DataType> = (0..types.len())
        .filter(|n| !is_text(*n))
        .map(|n| types[n].clone())
        .collect();
    let Some(to) = common(&others, meeting) else {
        return false;
    };
    // A text that stands there is an INTERVAL to PostgreSQL, and no length of microseconds.
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

/// An operation of times as a function; none where it is DataFusion's.
pub(in crate::plan) fn arithmetic(
    op: Operator,
    left: Expr,
    right: Expr,
    (l, r): (&DataType, &DataType),
) -> Result<Expr, (Expr, Expr)> {
    let arith = match op {
        Operator::Plus => Arith::Add,
        Operator::Minus => Arith::Subtract,
        Operator::Multiply => Arith::Multiply,
        Operator::Divide => Arith::Divide,
        _ => return Err((left, right)),
    };
    // `INTERVAL + t` and `2 * INTERVAL` are turned round.
    let is_turned = matches!(arith, Arith::Add | Arith::Multiply)
        && (is_moment(r) && !is_moment(l) || is_length(r) && !is_length(l) && !is_moment(l));
    let (left, right, l, r) = match is_turned {
        true => (right, left, r, l),
        false => (left, right, l, r),
    };
    let back = |left, right| match is_turned {
        true => Err((right, left)),
        false => Err((left, right)),
    };
    let to = match (held(l), r) {
        (Some(l), r) if is_moment(&l) && is_moment(r) && arith == Arith::Subtract => {
            match common(&[l.clone(), r.clone()], Meeting::Compared) {
                // Dates have days between them: a number.
                Some(DataType::Date32) | None => return back(left, right),
                Some(to) => (to.clone(), to),
            }
        }
        (Some(l), r) if is_moment(&l) && is_length(r) => (l, held(r).unwrap_or(INTERVAL)),
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

/// A cast of times as a function; none where it is DataFusion's.
pub(in crate::plan) fn cast(of: &Expr, from: &DataType, to: &DataType, safe: bool) -> Option<Expr> {
    let to = cast_of(from, to)?;
    // What it is already needs no cast.
    match from == &to.of && to.digits == 6 {
        true => Some(of.clone()),
        false => Some(functions::cast(of.clone(), to, safe)),
    }
}

/// The other sign of an INTERVAL or of a difference.
pub(in crate::plan) fn negated(of: Expr, from: &DataType) -> Expr {
    functions::negated(converted(of, from, &INTERVAL))
}

/// An expression as one of another type: constants are computed.
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

/// Whether values of a type are dates, moments or lengths of time.
pub(in crate::plan) fn is_time(of: &DataType) -> bool {
    held(of).is_some()
}
