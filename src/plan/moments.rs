//! A type TIMESTAMP without a precision has microseconds.
//!
//! Columns of a lake have microseconds, which reach far beyond the year 9999. DataFusion takes TIMESTAMP for one of
//! nanoseconds, which end in the year 2262: `TIMESTAMP '9999-12-31 00:00:00'`, the usual end of what is valid for ever,
//! could not be written. Where a moment meets a text or a DATE, in a comparison, a CASE, a COALESCE or a UNION, DataFusion takes
//! all of them for nanoseconds, too.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType as ArrowType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr as Logical, ExprSchemable, Operator, cast, lit};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, TypedString, VisitMut, VisitorMut};

use super::calendar::looked_at;

/// Gives each TIMESTAMP of a statement or query that has no precision six digits.
pub fn microseconds(sql: &mut impl VisitMut) {
    struct Types;
    impl VisitorMut for Types {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                    six_digits(data_type)
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Types);
}

fn six_digits(of: &mut DataType) {
    match of {
        DataType::Timestamp(precision @ None, _) => *precision = Some(6),
        DataType::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, _)) => {
            six_digits(item);
        }
        _ => {}
    }
}

/// A comparison whose sides were made nanoseconds, though one of them is not, as one of microseconds; and one of differences with
/// INTERVALs as one of lengths of time. Types are agreed on.
pub(super) fn compared(mut expr: Logical, schema: &DFSchema) -> Result<Transformed<Logical>> {
    let operands: Vec<&Logical> = operands(&mut expr).into_iter().map(|operand| &*operand).collect();
    let convert = match () {
        () if operands.is_empty() => return Ok(Transformed::no(expr)),
        () if are_durations(&operands, schema)? => in_durations,
        () if was_made_nanoseconds(&operands, schema)? => in_microseconds,
        () => return Ok(Transformed::no(expr)),
    };
    for operand in self::operands(&mut expr) {
        *operand = convert(std::mem::take(operand), schema)?;
    }
    Ok(Transformed::yes(expr))
}

/// What a comparison compares; nothing of another expression.
fn operands(expr: &mut Logical) -> Vec<&mut Logical> {
    match expr {
        Logical::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => vec![left, right],
        Logical::Between(Between { expr, low, high, .. }) => vec![expr, low, high],
        Logical::InList(InList { expr, list, .. }) => std::iter::once(&mut **expr).chain(list).collect(),
        _ => vec![],
    }
}

/// Microseconds of a day, and days of a month of an INTERVAL, as PostgreSQL compares them.
const DAY: i64 = 86_400_000_000;
const MONTH: i64 = 30;

/// Whether operands of a comparison are differences of moments that were made INTERVALs for the sake of literal ones. Arrow
/// compares months, then days, then the rest: a difference has none but the rest, so that 30 hours were less than a day, and
/// its nanoseconds end at 292 years.
fn are_durations(operands: &[&Logical], schema: &DFSchema) -> Result<bool> {
    let mut is_any = false;
    for operand in operands {
        match operand {
            Logical::Cast(to) if matches!(to.field.data_type(), ArrowType::Interval(_)) => {
                if !matches!(to.expr.get_type(schema)?, ArrowType::Duration(_)) {
                    return Ok(false);
                }
                is_any = true;
            }
            Logical::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if micros(*interval).is_some() => (),
            _ => return Ok(false),
        }
    }
    Ok(is_any)
}

/// One of them as a length of time.
fn in_durations(operand: Logical, schema: &DFSchema) -> Result<Logical> {
    let to = ArrowType::Duration(TimeUnit::Microsecond);
    Ok(match operand {
        Logical::Cast(made) if made.expr.get_type(schema)? == to => *made.expr,
        Logical::Cast(made) => cast(*made.expr, to),
        Logical::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            lit(ScalarValue::DurationMicrosecond(micros(interval)))
        }
        other => other,
    })
}

/// The microseconds of an interval; none: it is finer, or longer than any difference.
fn micros(interval: IntervalMonthDayNano) -> Option<i64> {
    let days = i64::from(interval.months) * MONTH + i64::from(interval.days);
    let is_whole = interval.nanoseconds % 1000 == 0;
    days.checked_mul(DAY)?
        .checked_add(interval.nanoseconds / 1000)
        .filter(|_| is_whole)
}

/// Functions whose arguments are made to agree on a type.
const AGREEING: [&str; 9] = [
    "coalesce",
    "nullif",
    "ifnull",
    "nvl",
    "nvl2",
    "greatest",
    "least",
    "make_array",
    "date_part",
];

/// A choice among values that were made nanoseconds, as one of microseconds; like [`compared`].
pub(super) fn chosen(expr: Logical, schema: &DFSchema) -> Result<Transformed<Logical>> {
    match expr {
        Logical::Case(mut case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            let results: Vec<&Logical> = results.map(AsRef::as_ref).collect();
            if !was_made_nanoseconds(&results, schema)? {
                return Ok(Transformed::no(Logical::Case(case)));
            }
            let thens = case.when_then_expr.iter_mut().map(|(_, then)| then);
            for result in thens.chain(&mut case.else_expr) {
                **result = in_microseconds(std::mem::take(result.as_mut()), schema)?;
            }
            Ok(Transformed::yes(Logical::Case(case)))
        }
        Logical::ScalarFunction(mut call) if AGREEING.contains(&call.name()) => {
            let args: Vec<&Logical> = call.args.iter().collect();
            if !was_made_nanoseconds(&args, schema)? {
                return Ok(Transformed::no(Logical::ScalarFunction(call)));
            }
            let args = call.args.into_iter().map(|arg| in_microseconds(arg, schema));
            call.args = args.collect::<Result<_>>()?;
            Ok(Transformed::yes(Logical::ScalarFunction(call)))
        }
        // Their difference.
        Logical::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Minus,
            right,
        }) if was_made_nanoseconds(&[&left, &right], schema)? => {
            let (left, right) = (in_microseconds(*left, schema)?, in_microseconds(*right, schema)?);
            Ok(Transformed::yes(left - right))
        }
        // AT TIME ZONE.
        Logical::Cast(to) if is_zoned_nanoseconds(to.field.data_type()) && is_calendar(&to.expr.get_type(schema)?) => {
            in_microseconds(Logical::Cast(to), schema).map(Transformed::yes)
        }
        Logical::InSubquery(mut found) if was_made_nanoseconds(&[&found.expr], schema)? => {
            *found.expr = in_microseconds(*found.expr, schema)?;
            Ok(Transformed::yes(Logical::InSubquery(found)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_zoned_nanoseconds(of: &ArrowType) -> bool {
    matches!(of, ArrowType::Timestamp(TimeUnit::Nanosecond, Some(_)))
}

/// Whether a type holds dates or moments without nanoseconds.
fn is_calendar(of: &ArrowType) -> bool {
    matches!(of, ArrowType::Date32 | ArrowType::Timestamp(..)) && !is_nanoseconds(of)
}

/// What a projection computes, in microseconds where it is a date or microseconds that were made nanoseconds: the inputs of a
/// UNION agree on a type so. Rows hold microseconds.
pub(super) fn projected(expr: Logical, schema: &DFSchema) -> Result<Transformed<Logical>> {
    let is_made = |expr: &Logical| -> Result<bool> {
        let Logical::Cast(to) = expr else { return Ok(false) };
        Ok(is_nanoseconds(to.field.data_type()) && is_calendar(&to.expr.get_type(schema)?))
    };
    match expr {
        Logical::Alias(mut alias) if is_made(&alias.expr)? => {
            *alias.expr = in_microseconds(*alias.expr, schema)?;
            Ok(Transformed::yes(Logical::Alias(alias)))
        }
        cast if is_made(&cast)? => in_microseconds(cast, schema).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    }
}

fn is_nanoseconds(of: &ArrowType) -> bool {
    matches!(of, ArrowType::Timestamp(TimeUnit::Nanosecond, _))
}

/// Whether one of the operands of a comparison is a cast to nanoseconds from something else. now(), which is still held
/// open as a placeholder, is solved for as it stands.
fn was_made_nanoseconds(operands: &[&Logical], schema: &DFSchema) -> Result<bool> {
    let mut made = false;
    for operand in operands {
        if let Logical::Cast(to) = operand
            && is_nanoseconds(to.field.data_type())
        {
            made |= !is_nanoseconds(&to.expr.get_type(schema)?);
        }
        if operand.exists(|e| Ok(matches!(e, Logical::Placeholder(_))))? {
            return Ok(false);
        }
    }
    Ok(made)
}

fn in_microseconds(operand: Logical, schema: &DFSchema) -> Result<Logical> {
    let ArrowType::Timestamp(TimeUnit::Nanosecond, zone) = operand.get_type(schema)? else {
        return Ok(operand);
    };
    let to = ArrowType::Timestamp(TimeUnit::Microsecond, zone);
    let inner = match operand {
        Logical::Cast(made) => *made.expr,
        other => other,
    };
    match inner.get_type(schema)? == to {
        true => Ok(inner),
        false => Ok(looked_at(cast(inner, to), schema)?.data),
    }
}
