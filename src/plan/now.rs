//! `now()`: the epoch's time, never a constant of the plan.
//!
//! Before optimisation every `now()` becomes a placeholder that no rule folds; [`bind_now`] gives it a value
//! for batch recomputation. In the graph it may only stand in a comparison with an expression of the row,
//! which [`solve`] turns round into the moments at which the row enters and leaves:
//! `ts > now() - INTERVAL '1 hour'` is `now() < ts + INTERVAL '1 hour'`. Where now() is cut, or moved by months, `times` finds the
//! moment at which it reaches that of the row. A moment that is moved by months alone may do so several times, see [`Stay`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr, cast, lit, when};

use super::calendar::is_utc;
use super::error::{Planned, Refusal};
use super::rewrite::rewrite;
use super::times::{self, DAY, Length, Part, Stay, Step, Unit, days_from_civil, later, when_reached};
use crate::repr::Epoch;

const ID: &str = "$alluvium_now";
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The plan with `now()` being the time of this epoch (milliseconds).
pub fn bind_now(logical: LogicalPlan, epoch_ms: Epoch) -> LogicalPlan {
    let value = lit(at(epoch_ms));
    replace(logical, &|expr| is_now(expr).then(|| value.clone()))
        .expect("a literal of the placeholder's type fits wherever the placeholder does")
}

/// The plan of a question that is asked at this time, in milliseconds.
///
/// # Errors
/// Types that do not fit any more; there are none.
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

/// The plan with every call of `now()` and its kin replaced by the placeholder.
pub(super) fn hold(plan: LogicalPlan) -> Planned<LogicalPlan> {
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
    let mut found = false;
    expr.apply(|e| {
        found |= is_now(e);
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })
    .expect("looking does not fail");
    found
}

fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(p) if p.id == ID)
}

/// What a predicate on `now()` says about a row: `now() >= expr` or, as an upper bound, `now() <= expr`;
/// strictly where not inclusive. The expressions are TIMESTAMPs over the row.
#[derive(Default)]
pub(super) struct Moments {
    pub lower: Vec<(Expr, bool)>,
    pub upper: Vec<(Expr, bool)>,
    /// Lists of the moments at which a row comes, and of those at which it has gone again.
    pub stretches: Vec<(Expr, Expr)>,
}

/// Turns a predicate that mentions `now()` into moments.
pub(super) fn solve(predicate: &Expr, moments: &mut Moments) -> Planned<()> {
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

/// `timed OR always`: a row for which the latter is true never comes or goes.
fn either(timed: &Expr, always: &Expr, moments: &mut Moments) -> Planned<()> {
    let mut of_timed = Moments::default();
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

/// The refusal of `now()` where a row's stay cannot be derived.
pub(super) fn misplaced() -> Refusal {
    Refusal::new("could not keep this use of now() up to date")
        .help("compare it with an expression of the row in WHERE: ts > now() - INTERVAL '1 hour'")
        .near("now")
}

/// What is done to now() in an expression.
#[derive(Clone, Default)]
struct Form {
    steps: Vec<Step>,
    /// The time of day that it always has by then, if it is always the same.
    time: Option<i64>,
    /// Behind the steps it is moved by months, at any time of day, and by microseconds then.
    months: Option<(i64, i64)>,
}

fn form(expr: &Expr) -> Option<Form> {
    if let Some(part) = times::part(expr) {
        return match part {
            Part::Cast(of, to) => form_as(of, to),
            Part::Plus(of, by) => moved(form(of)?, constant(by)?),
            Part::Minus(of, by) => moved(form(of)?, constant(by)?.negated()),
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

/// The form of a cast.
fn form_as(expr: &Expr, to: &DataType) -> Option<Form> {
    let form = form(expr)?;
    match to {
        DataType::Date32 => cut(form, Unit::Micros(DAY)),
        DataType::Timestamp(..) => Some(form),
        _ => None,
    }
}

/// The most months, days and microseconds that now() may be moved by: those of the calendar.
const MOST: [i64; 3] = [9_999 * 12, 9_999 * 366, 9_999 * 366 * DAY];

fn moved(mut form: Form, by: Length) -> Option<Form> {
    let is_far = |(part, most): (i64, i64)| part.abs() > most;
    if [by.months, by.days, by.micros].into_iter().zip(MOST).any(is_far) {
        return None;
    }
    if by.months != 0 {
        match form.time {
            // Months keep the order of moments of one time of day only.
            Some(time) => form.steps.push(Step::Months {
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
        None if micros != 0 => form.steps.push(Step::Micros(micros)),
        None => {}
    }
    form.time = form.time.map(|time| (time + micros).rem_euclid(DAY));
    Some(form)
}

fn cut(mut form: Form, unit: Unit) -> Option<Form> {
    if let Some((months, behind)) = form.months.take() {
        // The day of a moment moved by months is that of its day; what lies behind would have to be cut as well.
        if !unit.is_of_days() || behind != 0 {
            return None;
        }
        form.steps.push(Step::Cut(Unit::Micros(DAY)));
        form.steps.push(Step::Months { months, time: 0 });
    }
    form.time = match unit.is_of_days() {
        true => Some(0),
        false => form.time.map(|time| unit.start(time)),
    };
    form.steps.push(Step::Cut(unit));
    Some(form)
}

/// A literal INTERVAL, number of days or length of time.
fn constant(expr: &Expr) -> Option<Length> {
    match expr {
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(cast) => constant(&cast.expr),
        e if let Some(Part::Cast(of, _)) = times::part(e) => constant(of),
        Expr::Literal(value, _) => match value {
            ScalarValue::IntervalMonthDayNano(Some(interval)) => Some(Length::of(*interval)),
            ScalarValue::DurationMicrosecond(Some(micros)) => Some(Length::of_micros(*micros)),
            ScalarValue::Int64(Some(days)) => Some(Length {
                months: 0,
                days: *days,
                micros: 0,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// The same in microseconds, as differences are compared: a month has 30 days.
fn constant_micros(expr: &Expr) -> Option<i64> {
    constant(expr)?.total().filter(|micros| micros.abs() <= MOST[2])
}

/// `timed op row`, where only `timed` mentions now().
fn compare(timed: &Expr, op: Operator, row: &Expr, moments: &mut Moments) -> Planned<()> {
    // now() - ts < INTERVAL '1 hour', current_date - day < 7
    let difference = match uncast(timed) {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Minus,
            right,
        }) => Some((left.as_ref(), right.as_ref())),
        other => match times::part(other) {
            Some(Part::Minus(left, right)) => Some((left, right)),
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

fn bound(form: Form, op: Operator, row: Expr, moments: &mut Moments) -> Planned<()> {
    let lower = matches!(op, Operator::Gt | Operator::GtEq);
    if let Some((months, behind)) = form.months {
        let before = form.steps.iter().try_fold(0i64, |sum, step| match step {
            Step::Micros(micros) => sum.checked_add(*micros),
            _ => None,
        });
        let before = before.ok_or_else(misplaced)?;
        let stay = Stay {
            months,
            behind: lower,
            inclusive: matches!(op, Operator::GtEq | Operator::LtEq),
        };
        // What is moved by months is now() and what was added before.
        let (from, to) = stay.lists(later(row, -behind), before);
        moments.stretches.push((from, to));
        return Ok(());
    }
    let only_micros = form.steps.iter().try_fold(0i64, |sum, step| match step {
        Step::Micros(micros) => sum.checked_add(*micros),
        _ => None,
    });
    let (moment, inclusive) = match only_micros {
        Some(micros) => (later(row, -micros), matches!(op, Operator::GtEq | Operator::LtEq)),
        // f(n) > y and f(n) <= y turn where f(n) is behind y, f(n) >= y and f(n) < y where it is no more before y.
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
        other => match times::part(other) {
            Some(Part::Cast(of, _)) => uncast(of),
            _ => other,
        },
    }
}

fn timestamp(expr: &Expr) -> Expr {
    cast(expr.clone(), TIMESTAMP)
}
