//! The functions to which window table functions are rewritten, in the graph and in batch alike. Our own
//! versions of DataFusion's functions are elsewhere, such as in `calendar`.
//!
//! - `window_time(t)` is t as a TIMESTAMP; planning refuses it if t is neither a TIMESTAMP nor a DATE.
//! - `hop_windows(ts, slide, size)` lists the starts of all windows of length `size` that contain `ts`, where
//!   one window starts every `slide` since 1970-01-01. Both lengths may be in months.
//! - `session_start(ts, gap)` and `session_end(ts, gap)`, over a partition ordered by `ts`, are the bounds of
//!   the row's session. A row begins a new session if it comes `gap` or more after the row before it; a session
//!   ends, exclusively, `gap` after its last row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LimitEffect, PartitionEvaluator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, WindowUDF, WindowUDFImpl, cast,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use super::casts::AsType;
use super::times::{TimeLength, months_later};
use super::{calendar, json_numbers, json_text, ordered_sets, standard, window_shifts};
use crate::repr::civil_from_days;

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The most hopping windows that one row may fall into. More are taken for a mistake in the lengths.
pub(super) const MAX_WINDOWS_PER_ROW: i64 = 10_000;

/// Registers the functions of this file and of the modules beside it, and the JSON functions.
pub fn register(context: &SessionContext) {
    let mut state = context.state();
    datafusion_functions_json::register_all(&mut state).expect("a fresh session takes the JSON functions");
    *context.state_ref().write() = state;
    calendar::register(context);
    json_numbers::register(context);
    json_text::register(context);
    ordered_sets::register(context);
    standard::register(context);
    window_shifts::register(context);
    context.register_udf(ScalarUDF::from(AsType::new()));
    context.register_udf(ScalarUDF::from(WindowTime::new()));
    context.register_udf(ScalarUDF::from(HopWindows::new()));
    context.register_udwf(WindowUDF::from(SessionBound::new(Side::Start)));
    context.register_udwf(WindowUDF::from(SessionBound::new(Side::End)));
}

/// An interval in microseconds; `None` if it has months or overflows.
pub(super) fn interval_micros(interval: IntervalMonthDayNano) -> Option<i64> {
    if interval.months != 0 {
        return None;
    }
    i64::from(interval.days)
        .checked_mul(MICROS_PER_DAY)?
        .checked_add(interval.nanoseconds / 1000)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowTime {
    signature: Signature,
}

impl WindowTime {
    fn new() -> Self {
        WindowTime {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for WindowTime {
    fn name(&self) -> &str {
        "window_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            DataType::Timestamp(_, _) | DataType::Date32 => Ok(TIMESTAMP),
            other => plan_err!("could not window by a {other}"),
        }
    }

    fn simplify(&self, mut args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let time = args.swap_remove(0);
        Ok(ExprSimplifyResult::Simplified(match info.get_data_type(&time)? {
            TIMESTAMP => time,
            _ => cast(time, TIMESTAMP),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args[0].cast_to(&TIMESTAMP, None)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HopWindows {
    signature: Signature,
}

impl HopWindows {
    fn new() -> Self {
        HopWindows {
            signature: Signature::exact(vec![TIMESTAMP, INTERVAL, INTERVAL], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for HopWindows {
    fn name(&self) -> &str {
        "hop_windows"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", TIMESTAMP, true))))
    }

    /// Also refuses lengths that a window cannot have.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let [_, Some(slide), Some(size)] = args.scalar_arguments {
            Hops::new(slide, size)?;
        }
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let [_, ColumnarValue::Scalar(slide), ColumnarValue::Scalar(size)] = args.args.as_slice() else {
            return exec_err!("the lengths of hopping windows must be literal intervals");
        };
        let windows = Hops::new(slide, size)?.lists(times.as_primitive())?;
        Ok(ColumnarValue::Array(Arc::new(windows)))
    }
}

/// Hopping windows: one of length `size` starts every `slide`.
struct Hops {
    slide: TimeLength,
    size: TimeLength,
}

impl Hops {
    fn new(slide: &ScalarValue, size: &ScalarValue) -> Result<Hops> {
        let [slide, size] = [slide, size].map(|length| match length {
            ScalarValue::IntervalMonthDayNano(Some(interval)) => Ok(TimeLength::from_interval(*interval)),
            _ => exec_err!("the lengths of hopping windows must be literal intervals"),
        });
        let (slide, size) = (slide?, size?);
        let micros = |length: TimeLength| {
            let total = length.total().filter(|total| *total > 0);
            total.ok_or_else(|| {
                plan_datafusion_err!("a window's length must be longer than nothing, and of the calendar")
            })
        };
        if slide.months != 0 && (slide.days != 0 || slide.micros != 0) {
            return plan_err!("a slide of windows is of months and years alone, or of days and times");
        }
        match micros(size)? / micros(slide)? > MAX_WINDOWS_PER_ROW {
            true => plan_err!("a row would fall into more than {MAX_WINDOWS_PER_ROW} hopping windows"),
            false => Ok(Hops { slide, size }),
        }
    }

    /// For each time, the starts of the windows that contain it, oldest first. If the slide is greater than the
    /// size, a time in a gap between windows gets an empty list.
    fn lists(&self, times: &TimestampMicrosecondArray) -> Result<ListArray> {
        let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new());
        let mut starts = Vec::new();
        for time in times {
            let Some(time) = time else {
                lists.append_null();
                continue;
            };
            starts.clear();
            let newest = self.newest(time);
            for back in 0.. {
                let start = self.start(newest - back);
                // A window whose end overflows ends after every time.
                if self.size.behind(start).is_some_and(|end| end <= time) {
                    break;
                }
                starts.push(start);
            }
            starts
                .iter()
                .rev()
                .for_each(|start| lists.values().append_value(*start));
            lists.append(true);
        }
        Ok(lists.finish())
    }

    /// The number of the last window that starts at or before a time. Window 0 starts at 1970-01-01.
    fn newest(&self, time: i64) -> i64 {
        match self.slide.months {
            0 => time.div_euclid(self.slide.days * MICROS_PER_DAY + self.slide.micros),
            months => {
                let (year, month, _) = civil_from_days(time.div_euclid(MICROS_PER_DAY));
                ((year - 1970) * 12 + month - 1).div_euclid(months)
            }
        }
    }

    fn start(&self, number: i64) -> i64 {
        match self.slide.months {
            0 => number * (self.slide.days * MICROS_PER_DAY + self.slide.micros),
            months => months_later(0, number * months) * MICROS_PER_DAY,
        }
    }
}

/// A window's length in microseconds; an error if it is not positive or has months.
fn positive(interval: IntervalMonthDayNano) -> Result<i64> {
    match interval_micros(interval) {
        Some(micros) if micros > 0 => Ok(micros),
        _ => exec_err!("a window's length must be positive and without months"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Start,
    End,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionBound {
    side: Side,
    signature: Signature,
}

impl SessionBound {
    fn new(side: Side) -> Self {
        SessionBound {
            side,
            signature: Signature::exact(vec![TIMESTAMP, INTERVAL], Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for SessionBound {
    fn name(&self) -> &str {
        match self.side {
            Side::Start => "session_start",
            Side::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(SessionEvaluator { side: self.side }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), TIMESTAMP, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

#[derive(Debug)]
struct SessionEvaluator {
    side: Side,
}

impl PartitionEvaluator for SessionEvaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let gaps = values[1].as_primitive::<IntervalMonthDayNanoType>();
        let mut bounds: Vec<Option<i64>> = vec![None; num_rows];
        let mut first = 0;
        while first < num_rows {
            if times.is_null(first) {
                first += 1;
                continue;
            }
            let gap = positive(gaps.value(first))?;
            let mut last = first;
            while last + 1 < num_rows && times.is_valid(last + 1) && times.value(last + 1) - times.value(last) < gap {
                last += 1;
            }
            let bound = match self.side {
                Side::Start => times.value(first),
                Side::End => times.value(last).saturating_add(gap),
            };
            bounds[first..=last].fill(Some(bound));
            first = last + 1;
        }
        Ok(Arc::new(TimestampMicrosecondArray::from(bounds)))
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }

    fn uses_window_frame(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::times::{TimestampText, point_of};
    use super::*;
    use arrow::array::IntervalMonthDayNanoArray;

    fn starts(time: i64, slide: i64, size: i64) -> Vec<i64> {
        let length =
            |micros: i64| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, micros * 1000)));
        let hops = Hops::new(&length(slide), &length(size)).unwrap();
        let lists = hops.lists(&TimestampMicrosecondArray::from(vec![time])).unwrap();
        lists
            .value(0)
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .to_vec()
    }

    #[test]
    fn a_row_is_in_every_window_that_holds_it_and_in_no_other() {
        for (time, slide, size) in [
            (0, 15, 60),
            (14, 15, 60),
            (-1, 15, 60),
            (37, 10, 25),
            (37, 30, 5),
            (30, 30, 5),
        ] {
            let expected: Vec<i64> = (-20..20)
                .map(|n| n * slide)
                .filter(|start| *start <= time && time < start + size)
                .collect();
            assert_eq!(starts(time, slide, size), expected, "{time} {slide} {size}");
        }
    }

    #[test]
    fn windows_of_months_begin_with_months() {
        let length = |months, days| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, 0)));
        let starts = |time: &str, slide, size| -> Vec<String> {
            let time = point_of(time).unwrap();
            let lists = Hops::new(&slide, &size).unwrap().lists(&vec![time].into()).unwrap();
            let starts = lists.value(0);
            let starts = starts.as_primitive::<TimestampMicrosecondType>();
            starts
                .values()
                .iter()
                .map(|start| TimestampText(*start).to_string())
                .collect()
        };
        assert_eq!(
            starts("2024-03-31 12:00:00", length(1, 0), length(3, 0)),
            ["2024-01-01 00:00:00", "2024-02-01 00:00:00", "2024-03-01 00:00:00"]
        );
        // A month after February 29th and 28th is March 29th and 28th.
        let of_days = starts("2023-03-30 00:00:00", length(0, 1), length(1, 0));
        assert_eq!(of_days.first().map(String::as_str), Some("2023-03-01 00:00:00"));
        assert_eq!(of_days.len(), 30);
        assert_eq!(
            starts("1969-12-31 00:00:00", length(12, 0), length(12, 0)),
            ["1969-01-01 00:00:00"]
        );
        assert!(Hops::new(&length(1, 1), &length(3, 0)).is_err());
        assert!(Hops::new(&length(0, 1), &length(0, 0)).is_err());
    }

    #[test]
    fn a_pause_of_the_gap_begins_a_new_session() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 4, 9, 14, 30]));
        let gaps: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![
            IntervalMonthDayNano::new(
                0, 0, 5000
            );
            5
        ]));
        let bounds = |side| {
            let mut evaluator = SessionEvaluator { side };
            let bounds = evaluator.evaluate_all(&[times.clone(), gaps.clone()], 5).unwrap();
            bounds.as_primitive::<TimestampMicrosecondType>().values().to_vec()
        };
        assert_eq!(bounds(Side::Start), vec![0, 0, 9, 14, 30]);
        assert_eq!(bounds(Side::End), vec![9, 9, 14, 19, 35]);
    }
}
