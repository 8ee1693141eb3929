//! `now()`: the epoch's time, never a constant of the plan.
//!
//! Before optimisation every `now()` becomes a placeholder that no rule folds; [`bind_now`] gives it a value
//! for batch recomputation. In the graph it may only stand in a comparison with an expression of the row,
//! which [`solve`] turns round into the moments at which the row enters and leaves:
//! `ts > now() - INTERVAL '1 hour'` is `now() < ts + INTERVAL '1 hour'`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr, cast, lit};

use super::calendar::date_bin;
use super::error::{Planned, Refusal};
use super::functions::interval_micros;
use super::rewrite::rewrite;
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

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

fn form(expr: &Expr) -> Option<Form> {
    match expr {
        e if is_now(e) => Some(Form {
            before: 0,
            unit: None,
            behind: 0,
        }),
        Expr::Alias(alias) => form(&alias.expr),
        Expr::Cast(Cast { expr, field }) => {
            let form = form(expr)?;
            match field.data_type() {
                DataType::Date32 => cut(form, DAY),
                DataType::Timestamp(_, None) => Some(form),
                DataType::Timestamp(_, Some(zone)) if matches!(zone.as_ref(), "UTC" | "+00:00" | "Z") => Some(form),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (form, shift) = match op {
                Operator::Plus if mentions_now(left) => (form(left)?, constant_micros(right)?),
                Operator::Plus => (form(right)?, constant_micros(left)?),
                Operator::Minus => (form(left)?, constant_micros(right)?.checked_neg()?),
                _ => return None,
            };
            // A date plus hours is a date again in some engines and a timestamp in others.
            if form.unit == Some(DAY) && shift % DAY != 0 {
                return None;
            }
            Some(Form {
                behind: form.behind.checked_add(shift)?,
                ..form
            })
        }
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
    if let (
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Minus,
            right,
        }),
        Some(micros),
    ) = (uncast(timed), constant_micros(row))
        && constant_micros(right).is_none()
    {
        return match (mentions_now(left), mentions_now(right)) {
            (true, false) => compare(left, op, &shifted(timestamp(right), micros), moments),
            (false, true) => {
                let row = shifted(timestamp(left), -micros);
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
            shifted(row, -form.behind - form.before),
            matches!(op, Operator::GtEq | Operator::LtEq),
        ),
        Some(unit) => {
            // With f the cut and y = row - behind: f(n) > y and f(n) <= y turn at the first multiple of the
            // unit behind y, f(n) >= y and f(n) < y at the first one not before y.
            let back = matches!(op, Operator::GtEq | Operator::Lt);
            let y = shifted(row, -form.behind - i64::from(back));
            let floor = date_bin().call(vec![lit(interval(unit)), y]);
            (shifted(floor, unit - form.before), lower)
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
        other => other,
    }
}

fn timestamp(expr: &Expr) -> Expr {
    cast(expr.clone(), TIMESTAMP)
}

fn shifted(expr: Expr, micros: i64) -> Expr {
    if micros == 0 {
        expr
    } else {
        binary_expr(expr, Operator::Plus, lit(interval(micros)))
    }
}

fn interval(micros: i64) -> ScalarValue {
    // Whole days apart, so that the nanoseconds of any 64-bit span of microseconds fit.
    let (days, rest) = (micros / DAY, micros % DAY);
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
        0,
        i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }),
        rest * 1000,
    )))
}
