//! `now()` is the epoch's time, and never a constant of the plan.
//!
//! Before optimisation every `now()` becomes a placeholder that no rule folds; [`bind_now`] gives it a value
//! for batch recomputation. In the graph it may only stand in a comparison with an expression of the row.
//! [`solve`] rearranges the comparison into the moments at which the row appears and disappears: `ts > now() -
//! INTERVAL '1 hour'` becomes `now() < ts + INTERVAL '1 hour'`. If now() is truncated or moved by months,
//! `times` finds the moment at which it reaches the row's. A moment that is only moved by months may reach it
//! several times, see [`MonthShift`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr, cast, lit, when};

use super::calendar::is_utc;
use super::error::{Planned, Refusal};
use super::rewrite::rewrite;
use super::times::{
    self, DAY, MonthShift, TimeLength, TimeOperation, TimeShift, Unit, days_from_civil, later, when_reached,
};
use crate::repr::Epoch;

const ID: &str = "$alluvium_now";
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The plan with `now()` bound to the time of an epoch, in milliseconds.
pub fn bind_now(logical: LogicalPlan, epoch_ms: Epoch) -> LogicalPlan {
    let value = lit(at(epoch_ms));
    replace(logical, &|expr| is_now(expr).then(|| value.clone()))
        .expect("a literal of the placeholder's type fits wherever the placeholder does")
}

/// The plan of a live query with `now()` bound to a time, in milliseconds.
///
/// # Errors
/// None occur: a literal's type fits wherever the call's did.
pub fn asked_at(plan: LogicalPlan, millis: Epoch) -> datafusion::common::Result<LogicalPlan> {
    let now = || Expr::Literal(at(millis), None);
    replace(plan, &|expr| match expr {
        Expr::ScalarFunction(call) => match call.name() {
            "now" => Some(now()),
            "current_date" => Some(cast(now(), DataType::Date32)),
            "current_time" => Some(cast(now(), DataType::Time64(TimeUnit::Nanosecond))),
            _ => None,
        },
        _ => None,
    })
}

fn at(millis: Epoch) -> ScalarValue {
    let micros = i64::try_from(millis).ok().and_then(|ms| ms.checked_mul(1000));
    ScalarValue::TimestampMicrosecond(Some(micros.unwrap_or(i64::MAX)), None)
}

/// The plan with every call of `now()` and `current_date` replaced by the placeholder.
pub(super) fn hold_now(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let now = Expr::Placeholder(Placeholder::new_with_field(
        ID.to_string(),
        Some(Arc::new(Field::new("now", TIMESTAMP, false))),
    ));
    Ok(replace(plan, &|expr| match expr {
        Expr::ScalarFunction(call) => match call.name() {
            "now" => Some(now.clone()),
            "current_date" => Some(cast(now.clone(), DataType::Date32)),
            _ => None,
        },
        _ => None,
    })?)
}

fn replace(plan: LogicalPlan, with: &dyn Fn(&Expr) -> Option<Expr>) -> datafusion::common::Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        rewrite(node, |expr| {
            expr.transform_up(|e| {
                Ok(match with(&e) {
                    Some(new) => Transformed::yes(new),
                    None => Transformed::no(e),
                })
            })
        })
    })
    .data()
}

/// Whether the expression depends on the epoch's time.
pub(super) fn mentions_now(expr: &Expr) -> bool {
    let mut mentions = false;
    expr.apply(|e| {
        mentions |= is_now(e);
        Ok(if mentions {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })
    .expect("looking does not fail");
    mentions
}

fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(p) if p.id == ID)
}

/// What a predicate on `now()` demands of a row: `now() >= expr` for a lower and `now() <= expr` for an upper
/// bound, or the strict comparison where the flag (`inclusive`) is false. The expressions are TIMESTAMPs over
/// the row.
#[derive(Default)]
pub(super) struct NowBounds {
    pub lower: Vec<(Expr, bool)>,
    pub upper: Vec<(Expr, bool)>,
    /// Pairs of lists: the moments at which a row appears, and those at which it has disappeared again.
    pub stretches: Vec<(Expr, Expr)>,
}

/// Turns a predicate that mentions `now()` into moments.
pub(super) fn solve(predicate: &Expr, moments: &mut NowBounds) -> Planned<()> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if *op == Operator::And {
                solve(left, moments)?;
                return solve(right, moments);
            }
            if *op == Operator::Or {
                return match (mentions_now(left), mentions_now(right)) {
                    (true, false) => either(left, right, moments),
                    (false, true) => either(right, left, moments),
                    _ => Err(misplaced().into()),
                };
            }
            if !matches!(
                op,
                Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq | Operator::Eq
            ) {
                return Err(misplaced().into());
            }
            match (mentions_now(left), mentions_now(right)) {
                (true, false) => compare(left, *op, right, moments),
                (false, true) => compare(right, op.swap().expect("comparisons swap"), left, moments),
                _ => Err(misplaced().into()),
            }
        }
        Expr::Between(between) if !between.negated => {
            let pair = [(&between.low, Operator::GtEq), (&between.high, Operator::LtEq)];
            for (bound, op) in pair {
                solve(&binary_expr(*between.expr.clone(), op, *bound.clone()), moments)?;
            }
            Ok(())
        }
        _ => Err(misplaced().into()),
    }
}

/// `timed OR always`: a row for which `always` is true is always there.
fn either(timed: &Expr, always: &Expr, moments: &mut NowBounds) -> Planned<()> {
    let mut of_timed = NowBounds::default();
    solve(timed, &mut of_timed)?;
    if !of_timed.stretches.is_empty() {
        return Err(misplaced().into());
    }
    let unless = |moment: Expr, micros: i64| -> Planned<Expr> {
        let far = lit(ScalarValue::TimestampMicrosecond(Some(micros), None));
        Ok(when(always.clone(), far).otherwise(moment)?)
    };
    for (moment, inclusive) in of_timed.lower {
        moments.lower.push((unless(moment, 0)?, inclusive));
    }
    for (moment, inclusive) in of_timed.upper {
        moments
            .upper
            .push((unless(moment, days_from_civil(10_000, 1, 1) * DAY - 1)?, inclusive));
    }
    Ok(())
}

/// The refusal of `now()` where the moments of a row cannot be derived.
pub(super) fn misplaced() -> Refusal {
    Refusal::new("could not keep this use of now() up to date")
        .help("compare it with an expression of the row in WHERE: ts > now() - INTERVAL '1 hour'")
        .near("now")
}

/// What an expression does to now().
#[derive(Clone, Default)]
struct Form {
    steps: Vec<TimeShift>,
    /// The time of day after the steps, in microseconds, if it is always the same.
    time: Option<i64>,
    /// After the steps: a shift by months, at any time of day, and then by microseconds.
    months: Option<(i64, i64)>,
}

fn form(expr: &Expr) -> Option<Form> {
    if let Some(part) = times::operation_of(expr) {
        return match part {
            TimeOperation::Cast(of, to) => form_as(of, to),
            TimeOperation::Plus(of, by) => moved(form(of)?, constant(by)?),
            TimeOperation::Minus(of, by) => moved(form(of)?, constant(by)?.negated()),
        };
    }
    match expr {
        e if is_now(e) => Some(Form::default()),
        Expr::Alias(alias) => form(&alias.expr),
        Expr::Cast(Cast { expr, field }) => form_as(expr, field.data_type()),
        Expr::ScalarFunction(call) if call.name() == "timezone" => match call.args.as_slice() {
            [Expr::Literal(zone, _), of] if is_utc(zone) => form(of),
            _ => None,
        },
        Expr::ScalarFunction(call) if call.name() == "date_trunc" => match call.args.as_slice() {
            [Expr::Literal(unit, _), of] => cut(form(of)?, Unit::named(unit.try_as_str()??)?),
            _ => None,
        },
        _ => None,
    }
}

/// The form of an expression that is cast to a type.
fn form_as(expr: &Expr, to: &DataType) -> Option<Form> {
    let form = form(expr)?;
    match to {
        DataType::Date32 => cut(form, Unit::Micros(DAY)),
        DataType::Timestamp(..) => Some(form),
        _ => None,
    }
}

/// The most months, days and microseconds by which now() may be moved: the extent of the calendar.
const MOST: [i64; 3] = [9_999 * 12, 9_999 * 366, 9_999 * 366 * DAY];

fn moved(mut form: Form, by: TimeLength) -> Option<Form> {
    let is_far = |(part, most): (i64, i64)| part.abs() > most;
    if [by.months, by.days, by.micros].into_iter().zip(MOST).any(is_far) {
        return None;
    }
    if by.months != 0 {
        match form.time {
            // A shift by months keeps the order of moments only if they have the same time of day.
            Some(time) => form.steps.push(TimeShift::Months {
                months: by.months,
                time,
            }),
            None if form.months.is_none() => form.months = Some((by.months, 0)),
            None => return None,
        }
    }
    let micros = by.days * DAY + by.micros;
    match &mut form.months {
        Some((_, behind)) => *behind += micros,
        None if micros != 0 => form.steps.push(TimeShift::Micros(micros)),
        None => {}
    }
    form.time = form.time.map(|time| (time + micros).rem_euclid(DAY));
    Some(form)
}

fn cut(mut form: Form, unit: Unit) -> Option<Form> {
    if let Some((months, behind)) = form.months.take() {
        // The day of a moment that is moved by months depends only on the moment's own day, so now() may be cut to
        // days first. That does not hold if microseconds are added after the months.
        if !unit.is_of_days() || behind != 0 {
            return None;
        }
        form.steps.push(TimeShift::Cut(Unit::Micros(DAY)));
        form.steps.push(TimeShift::Months { months, time: 0 });
    }
    form.time = match unit.is_of_days() {
        true => Some(0),
        false => form.time.map(|time| unit.start(time)),
    };
    form.steps.push(TimeShift::Cut(unit));
    Some(form)
}

/// The length of a constant: a literal INTERVAL, a duration, or a number of days.
fn constant(expr: &Expr) -> Option<TimeLength> {
    match expr {
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(cast) => constant(&cast.expr),
        e if let Some(TimeOperation::Cast(of, _)) = times::operation_of(e) => constant(of),
        Expr::Literal(value, _) => match value {
            ScalarValue::IntervalMonthDayNano(Some(interval)) => Some(TimeLength::from_interval(*interval)),
            ScalarValue::DurationMicrosecond(Some(micros)) => Some(TimeLength::of_micros(*micros)),
            ScalarValue::Int64(Some(days)) => Some(TimeLength {
                months: 0,
                days: *days,
                micros: 0,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// The length in microseconds. As in comparisons of differences, a month has 30 days.
fn constant_micros(expr: &Expr) -> Option<i64> {
    constant(expr)?.total().filter(|micros| micros.abs() <= MOST[2])
}

/// Handles `timed op row`, where only `timed` mentions now().
fn compare(timed: &Expr, op: Operator, row: &Expr, moments: &mut NowBounds) -> Planned<()> {
    // Such as now() - ts < INTERVAL '1 hour' or current_date - day < 7.
    let difference = match uncast(timed) {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Minus,
            right,
        }) => Some((left.as_ref(), right.as_ref())),
        other => match times::operation_of(other) {
            Some(TimeOperation::Minus(left, right)) => Some((left, right)),
            _ => None,
        },
    };
    if let (Some((left, right)), Some(micros)) = (difference, constant_micros(row))
        && constant(right).is_none()
    {
        return match (mentions_now(left), mentions_now(right)) {
            (true, false) => compare(left, op, &later(timestamp(right), micros), moments),
            (false, true) => {
                let row = later(timestamp(left), -micros);
                compare(right, op.swap().expect("comparisons swap"), &row, moments)
            }
            _ => Err(misplaced().into()),
        };
    }
    let form = form(timed).ok_or_else(misplaced)?;
    let row = timestamp(row);
    if op == Operator::Eq {
        bound(form.clone(), Operator::GtEq, row.clone(), moments)?;
        bound(form, Operator::LtEq, row, moments)
    } else {
        bound(form, op, row, moments)
    }
}

fn bound(form: Form, op: Operator, row: Expr, moments: &mut NowBounds) -> Planned<()> {
    let lower = matches!(op, Operator::Gt | Operator::GtEq);
    if let Some((months, behind)) = form.months {
        let before = form.steps.iter().try_fold(0i64, |sum, step| match step {
            TimeShift::Micros(micros) => sum.checked_add(*micros),
            _ => None,
        });
        let before = before.ok_or_else(misplaced)?;
        let stay = MonthShift {
            months,
            behind: lower,
            inclusive: matches!(op, Operator::GtEq | Operator::LtEq),
        };
        // The shift by months applies to now() plus the microseconds of the earlier steps.
        let (from, to) = stay.lists(later(row, -behind), before);
        moments.stretches.push((from, to));
        return Ok(());
    }
    let only_micros = form.steps.iter().try_fold(0i64, |sum, step| match step {
        TimeShift::Micros(micros) => sum.checked_add(*micros),
        _ => None,
    });
    let (moment, inclusive) = match only_micros {
        Some(micros) => (later(row, -micros), matches!(op, Operator::GtEq | Operator::LtEq)),
        // For a monotonic f, f(n) > y and f(n) <= y change when f(n) exceeds y; f(n) >= y and f(n) < y change
        // when f(n) reaches y.
        None => {
            let is_beyond = matches!(op, Operator::Gt | Operator::LtEq);
            (when_reached(row, form.steps, is_beyond), lower)
        }
    };
    if lower {
        moments.lower.push((moment, inclusive));
    } else {
        moments.upper.push((moment, inclusive));
    }
    Ok(())
}

fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        Expr::Alias(alias) => uncast(&alias.expr),
        other => match times::operation_of(other) {
            Some(TimeOperation::Cast(of, _)) => uncast(of),
            _ => other,
        },
    }
}

fn timestamp(expr: &Expr) -> Expr {
    cast(expr.clone(), TIMESTAMP)
}
