//! `now()`: the epoch's time, never a constant of the plan.
//!
//! Before optimisation every `now()` becomes a placeholder that no rule folds; [`bind_now`] gives it a value
//! for batch recomputation. In the graph it may only stand in a comparison with an expression of the row,
//! which [`solve`] turns round into the moments at which the row enters and leaves:
//! `ts > now() - INTERVAL '1 hour'` is `now() < ts + INTERVAL '1 hour'`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr, cast, lit};

use super::calendar::is_utc;
use super::error::{Planned, Refusal};
use super::functions::interval_micros;
use super::rewrite::rewrite;
use super::times::{self, DAY, Part, SECOND, floored, later};
use crate::repr::Epoch;

const ID: &str = "$alluvium_now";
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The plan with `now()` being the time of this epoch (milliseconds).
pub fn bind_now(logical: LogicalPlan, epoch_ms: Epoch) -> LogicalPlan {
    let micros = i64::try_from(epoch_ms)
        .ok()
        .and_then(|ms| ms.checked_mul(1000))
        .unwrap_or(i64::MAX);
    let value = lit(ScalarValue::TimestampMicrosecond(Some(micros), None));
    replace(logical, &|expr| is_now(expr).then(|| value.clone()))
        .expect("a literal of the placeholder's type fits wherever the placeholder does")
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
}

/// Turns a predicate that mentions `now()` into moments.
pub(super) fn solve(predicate: &Expr, moments: &mut Moments) -> Planned<()> {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if *op == Operator::And {
                solve(left, moments)?;
                return solve(right, moments);
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

/// The refusal of `now()` where a row's stay cannot be derived.
pub(super) fn misplaced() -> Refusal {
    Refusal::new("could not keep this use of now() up to date")
        .help("compare it with an expression of the row in WHERE: ts > now() - INTERVAL '1 hour'; months and years in days")
        .near("now")
}

/// `floor(now + before) + behind`, where `unit` microseconds are what it is cut to (none: not cut).
#[derive(Clone, Copy)]
struct Form {
    before: i64,
    unit: Option<i64>,
    behind: i64,
}

fn form(expr: &Expr) -> Option<Form> {
    if let Some(part) = times::part(expr) {
        return match part {
            Part::Cast(of, to) => form_as(of, to),
            Part::Plus(of, by) => moved(form(of)?, constant_micros(by)?),
            Part::Minus(of, by) => moved(form(of)?, constant_micros(by)?.checked_neg()?),
        };
    }
    match expr {
        e if is_now(e) => Some(Form {
            before: 0,
            unit: None,
            behind: 0,
        }),
        Expr::Alias(alias) => form(&alias.expr),
        Expr::Cast(Cast { expr, field }) => form_as(expr, field.data_type()),
        Expr::ScalarFunction(call) if call.name() == "timezone" => match call.args.as_slice() {
            [Expr::Literal(zone, _), of] if is_utc(zone) => form(of),
            _ => None,
        },
        Expr::ScalarFunction(call) if call.name() == "date_trunc" => {
            let [Expr::Literal(unit, _), time] = call.args.as_slice() else {
                return None;
            };
            let unit = match unit.try_as_str()??.to_ascii_lowercase().as_str() {
                "second" => SECOND,
                "minute" => 60 * SECOND,
                "hour" => 3600 * SECOND,
                "day" => DAY,
                _ => return None,
            };
            cut(form(time)?, unit)
        }
        _ => None,
    }
}

/// The form of a cast.
fn form_as(expr: &Expr, to: &DataType) -> Option<Form> {
    let form = form(expr)?;
    match to {
        DataType::Date32 => cut(form, DAY),
        DataType::Timestamp(..) => Some(form),
        _ => None,
    }
}

fn moved(form: Form, by: i64) -> Option<Form> {
    let behind = form.behind.checked_add(by)?;
    (behind.abs() <= MOST).then_some(Form { behind, ..form })
}

/// The longest that now() may be moved: the length of the calendar.
const MOST: i64 = 9_999 * 366 * DAY;

fn cut(form: Form, unit: i64) -> Option<Form> {
    match form.unit {
        None => Some(Form {
            before: form.before.checked_add(form.behind)?,
            unit: Some(unit),
            behind: 0,
        }),
        // Cutting what is already cut at least as coarsely changes nothing.
        Some(cut) if cut % unit == 0 && form.behind % unit == 0 => Some(form),
        Some(_) => None,
    }
}

/// The microseconds of a literal INTERVAL without months, or of a duration.
fn constant_micros(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Alias(alias) => constant_micros(&alias.expr),
        Expr::Cast(cast) => constant_micros(&cast.expr),
        e if let Some(Part::Cast(of, _)) = times::part(e) => constant_micros(of),
        Expr::Literal(value, _) => match value {
            ScalarValue::IntervalMonthDayNano(Some(interval)) => interval_micros(*interval),
            ScalarValue::IntervalDayTime(Some(interval)) => {
                Some(i64::from(interval.days) * DAY + i64::from(interval.milliseconds) * 1000)
            }
            ScalarValue::DurationSecond(Some(n)) => n.checked_mul(SECOND),
            ScalarValue::DurationMillisecond(Some(n)) => n.checked_mul(1000),
            ScalarValue::DurationMicrosecond(Some(n)) => Some(*n),
            ScalarValue::DurationNanosecond(Some(n)) => Some(n / 1000),
            _ => None,
        },
        _ => None,
    }
}

/// `timed op row`, where only `timed` mentions now().
fn compare(timed: &Expr, op: Operator, row: &Expr, moments: &mut Moments) -> Planned<()> {
    // now() - ts < INTERVAL '1 hour'
    if let (Some(Part::Minus(left, right)), Some(micros)) = (times::part(uncast(timed)), constant_micros(row))
        && constant_micros(right).is_none()
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
        bound(form, Operator::GtEq, row.clone(), moments);
        bound(form, Operator::LtEq, row, moments);
    } else {
        bound(form, op, row, moments);
    }
    Ok(())
}

fn bound(form: Form, op: Operator, row: Expr, moments: &mut Moments) {
    let lower = matches!(op, Operator::Gt | Operator::GtEq);
    let (moment, inclusive) = match form.unit {
        None => (
            later(row, -form.behind - form.before),
            matches!(op, Operator::GtEq | Operator::LtEq),
        ),
        Some(unit) => {
            // With f the cut and y = row - behind: f(n) > y and f(n) <= y turn at the first multiple of the
            // unit behind y, f(n) >= y and f(n) < y at the first one not before y.
            let back = matches!(op, Operator::GtEq | Operator::Lt);
            let y = later(row, -form.behind - i64::from(back));
            (later(floored(y, unit), unit - form.before), lower)
        }
    };
    if lower {
        moments.lower.push((moment, inclusive));
    } else {
        moments.upper.push((moment, inclusive));
    }
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
