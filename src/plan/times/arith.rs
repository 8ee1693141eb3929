//! Arithmetic of dates, timestamps and intervals. Intermediate results may be outside the calendar, as long as
//! their type has room.

use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, DurationMicrosecondType, Float64Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, Time64NanosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;

use super::super::numbers::kernels::{KernelOperand, by_zero, checked, wrong};
use super::civil::{DAY, DateText, TimestampText, in_range};
use super::lengths::TimeLength;
use super::types::{INTERVAL, LENGTH, MOMENT};

/// An arithmetic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TimeArithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl TimeArithmetic {
    /// The operator in SQL.
    pub fn sign(self) -> &'static str {
        match self {
            TimeArithmetic::Add => "+",
            TimeArithmetic::Subtract => "-",
            TimeArithmetic::Multiply => "*",
            TimeArithmetic::Divide => "/",
        }
    }
}

/// The type of an operation's result; `None` if there is no such operation.
pub(super) fn outcome(arith: TimeArithmetic, left: &DataType, right: &DataType) -> Option<DataType> {
    use TimeArithmetic::*;
    Some(match (arith, left, right) {
        (Add | Subtract, DataType::Date32, DataType::Int64) => DataType::Date32,
        (Add | Subtract, DataType::Date32, DataType::Interval(_) | DataType::Duration(_)) => MOMENT,
        (Add, DataType::Date32, DataType::Time64(_)) => MOMENT,
        (Add | Subtract, DataType::Timestamp(..), DataType::Interval(_) | DataType::Duration(_)) => left.clone(),
        (Subtract, DataType::Timestamp(..), DataType::Timestamp(..)) => LENGTH,
        (Add | Subtract, DataType::Interval(_), DataType::Interval(_)) => INTERVAL,
        (Multiply | Divide, DataType::Interval(_), DataType::Float64) => INTERVAL,
        _ => return None,
    })
}

/// `left arith right`, for types that [`outcome`] supports.
pub(super) fn compute(arith: TimeArithmetic, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    use DataType::*;
    let (l, r) = (left.data_type(), right.data_type());
    let Some(of) = outcome(arith, &l, &r) else {
        return exec_err!("could not compute {l} {} {r}", arith.sign());
    };
    let sign = if arith == TimeArithmetic::Subtract { -1 } else { 1 };
    match (&l, &r) {
        (Date32, Int64) => run::<Date32Type, Int64Type, Date32Type>(left, right, &of, |day, days| {
            let made = days.checked_mul(sign).and_then(|days| days.checked_add(day.into()));
            made.and_then(|day| i32::try_from(day).ok())
                .ok_or_else(|| outside(arith, DateText(day.into()), days))
        }),
        (Date32, Interval(_)) => {
            run::<Date32Type, IntervalMonthDayNanoType, TimestampMicrosecondType>(left, right, &of, |day, by| {
                shifted(arith, i64::from(day) * DAY, by)
            })
        }
        (Timestamp(..), Interval(_)) => run::<
            TimestampMicrosecondType,
            IntervalMonthDayNanoType,
            TimestampMicrosecondType,
        >(left, right, &of, |at, by| shifted(arith, at, by)),
        (Date32, Duration(_)) => {
            run::<Date32Type, DurationMicrosecondType, TimestampMicrosecondType>(left, right, &of, |day, by| {
                moved(arith, i64::from(day) * DAY, by)
            })
        }
        (Timestamp(..), Duration(_)) => run::<
            TimestampMicrosecondType,
            DurationMicrosecondType,
            TimestampMicrosecondType,
        >(left, right, &of, |at, by| moved(arith, at, by)),
        (Date32, Time64(_)) => {
            run::<Date32Type, Time64NanosecondType, TimestampMicrosecondType>(left, right, &of, |day, time| {
                moved(arith, i64::from(day) * DAY, time.div_euclid(1000))
            })
        }
        (Timestamp(..), Timestamp(..)) => run::<
            TimestampMicrosecondType,
            TimestampMicrosecondType,
            DurationMicrosecondType,
        >(left, right, &of, |a, b| {
            a.checked_sub(b)
                .ok_or_else(|| outside(arith, TimestampText(a), TimestampText(b)))
        }),
        (Interval(_), Interval(_)) => {
            run::<IntervalMonthDayNanoType, IntervalMonthDayNanoType, IntervalMonthDayNanoType>(
                left,
                right,
                &of,
                |a, b| {
                    let (a, b) = (TimeLength::from_interval(a), TimeLength::from_interval(b));
                    let b = if arith == TimeArithmetic::Subtract {
                        b.negated()
                    } else {
                        b
                    };
                    fitting(a.plus(b))
                },
            )
        }
        (Interval(_), Float64) => {
            run::<IntervalMonthDayNanoType, Float64Type, IntervalMonthDayNanoType>(left, right, &of, |length, by| {
                let length = TimeLength::from_interval(length);
                match arith {
                    TimeArithmetic::Divide if by == 0.0 => Err(by_zero()),
                    TimeArithmetic::Divide => fitting(length.over(by)),
                    _ => fitting(length.times(by)),
                }
            })
        }
        _ => exec_err!("could not compute {l} {} {r}", arith.sign()),
    }
}

fn run<A, B, O>(
    left: &ColumnarValue,
    right: &ColumnarValue,
    of: &DataType,
    f: impl Fn(A::Native, B::Native) -> Result<O::Native, ArrowError>,
) -> Result<ColumnarValue>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    checked::<A, B, O>(&KernelOperand::new(left)?, &KernelOperand::new(right)?, f)?.into_column(of)
}

fn shifted(arith: TimeArithmetic, at: i64, by: IntervalMonthDayNano) -> Result<i64, ArrowError> {
    let length = TimeLength::from_interval(by);
    let signed = if arith == TimeArithmetic::Subtract {
        length.negated()
    } else {
        length
    };
    signed
        .behind(at)
        .ok_or_else(|| outside(arith, TimestampText(at), format!("INTERVAL '{length}'")))
}

fn moved(arith: TimeArithmetic, at: i64, by: i64) -> Result<i64, ArrowError> {
    let signed = if arith == TimeArithmetic::Subtract {
        -i128::from(by)
    } else {
        by.into()
    };
    in_range(i128::from(at) + signed).ok_or_else(|| outside(arith, TimestampText(at), TimeLength::of_micros(by)))
}

/// The interval as Arrow's type; an error if it does not fit.
pub(super) fn fitting(length: Option<TimeLength>) -> Result<IntervalMonthDayNano, ArrowError> {
    length
        .and_then(TimeLength::interval)
        .ok_or_else(|| wrong("could not compute an INTERVAL: it is longer than one can be".to_string()))
}

#[cold]
fn outside(arith: TimeArithmetic, left: impl std::fmt::Display, right: impl std::fmt::Display) -> ArrowError {
    let sign = arith.sign();
    wrong(format!(
        "could not compute {left} {sign} {right}: the result is beyond what a TIMESTAMP can be"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::civil::days_from_civil;
    use super::*;
    use chrono::{DateTime, Months, TimeDelta};
    use datafusion::common::ScalarValue;
    use proptest::prelude::*;

    use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

    fn plus(at: i64, months: i32, days: i32, micros: i64) -> Option<i64> {
        let at = ScalarValue::TimestampMicrosecond(Some(at), None);
        let by = IntervalMonthDayNano::new(months, days, micros * 1000);
        let by = ScalarValue::IntervalMonthDayNano(Some(by));
        match compute(
            TimeArithmetic::Add,
            &ColumnarValue::Scalar(at),
            &ColumnarValue::Scalar(by),
        ) {
            Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(made, _))) => made,
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    proptest! {
        #[test]
        fn moments_and_intervals_add_up_as_in_chrono(
            at in FIRST_MOMENT..=LAST_MOMENT,
            months in -2000i32..2000,
            days in -4_000_000i32..4_000_000,
            micros in -9_000_000_000_000_000i64..9_000_000_000_000_000,
        ) {
            let moment = DateTime::from_timestamp_micros(at).unwrap();
            let length = Months::new(months.unsigned_abs());
            let later = if months < 0 { moment.checked_sub_months(length) } else { moment.checked_add_months(length) };
            let later = later.unwrap() + TimeDelta::days(days.into()) + TimeDelta::microseconds(micros);
            prop_assert_eq!(plus(at, months, days, micros), Some(later.timestamp_micros()));
        }
    }

    #[test]
    fn a_sum_that_there_is_no_room_for_names_what_was_added() {
        let day = ScalarValue::Date32(Some(days_from_civil(9999, 12, 31) as i32));
        let one = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, i32::MAX, 0)));
        let made = compute(
            TimeArithmetic::Add,
            &ColumnarValue::Scalar(day),
            &ColumnarValue::Scalar(one),
        );
        let why = made.unwrap_err().to_string();
        assert!(
            why.contains("9999-12-31 00:00:00 + INTERVAL '2147483647 days'"),
            "{why}"
        );
    }
}
