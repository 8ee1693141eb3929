//! `make_date(year, month, day)` and `make_timestamp(year, month, day, hour, minute, seconds)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Builder, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::{answer, is_text, rows_of};
use crate::plan::times::{DAY, MOMENT, SECOND, day_within, days_from_civil, days_of_month, in_calendar};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MakeFunction {
    /// Whether the function also takes a time of day.
    has_time: bool,
    signature: Signature,
}

impl MakeFunction {
    pub fn date() -> Self {
        MakeFunction {
            has_time: false,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    pub fn timestamp() -> Self {
        MakeFunction {
            has_time: true,
            ..MakeFunction::date()
        }
    }

    fn is_outside(&self, parts: &[String]) -> DataFusionError {
        let (name, of) = (self.name(), if self.has_time { "moment" } else { "day" });
        exec_datafusion_err!(
            "could not compute {name}({}): there is no such {of} in the years 1 to 9999",
            parts.join(", ")
        )
    }
}

impl ScalarUDFImpl for MakeFunction {
    fn name(&self) -> &str {
        match self.has_time {
            true => "make_timestamp",
            false => "make_date",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = if self.has_time { 6 } else { 3 };
        if types.len() != wanted {
            return plan_err!("{}() takes {wanted} numbers", self.name());
        }
        let coerced = types.iter().enumerate().map(|(n, of)| match of {
            of if n == 5 && (of.is_numeric() || of.is_null() || is_text(of)) => Ok(DataType::Float64),
            of if n < 5 && (of.is_integer() || of.is_null() || is_text(of)) => Ok(DataType::Int64),
            other => plan_err!(
                "{}() takes numbers, whole ones but for seconds, not a {other}",
                self.name()
            ),
        });
        coerced.collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.has_time { MOMENT } else { DataType::Date32 })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = rows_of(&args);
        let whole = args
            .args
            .iter()
            .take(5)
            .map(|arg| Ok(cast(&arg.to_array(rows)?, &DataType::Int64)?));
        let whole: Vec<ArrayRef> = whole.collect::<Result<_>>()?;
        let seconds = args.args.get(5).map(|arg| arg.to_array(rows)).transpose()?;
        let (mut days, mut points) = (Date32Builder::new(), TimestampMicrosecondBuilder::new());
        for row in 0..rows {
            let is_null = whole.iter().chain(&seconds).any(|part| part.is_null(row));
            if is_null {
                days.append_null();
                points.append_null();
                continue;
            }
            let part = |n: usize| whole[n].as_primitive::<Int64Type>().value(row);
            let second = seconds
                .as_ref()
                .map(|seconds| seconds.as_primitive::<Float64Type>().value(row));
            let shown = || {
                let parts = whole
                    .iter()
                    .map(|part| part.as_primitive::<Int64Type>().value(row).to_string());
                parts.chain(second.map(|second| second.to_string())).collect::<Vec<_>>()
            };
            let day = day(part(0), part(1), part(2)).ok_or_else(|| self.is_outside(&shown()))?;
            match second {
                None => days.append_value(day),
                Some(second) => {
                    let point = point(day, part(3), part(4), second);
                    points.append_value(point.ok_or_else(|| self.is_outside(&shown()))?);
                }
            }
        }
        let made: ArrayRef = match self.has_time {
            true => Arc::new(points.finish()),
            false => Arc::new(days.finish()),
        };
        answer(made, &args.args)
    }
}

fn day(year: i64, month: i64, day: i64) -> Option<i32> {
    let is_there =
        (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
    is_there
        .then(|| day_within(days_from_civil(year, month, day)))
        .flatten()
}

/// As in PostgreSQL, 24:00 is the next midnight, and 60 seconds are the next minute.
fn point(day: i32, hour: i64, minute: i64, second: f64) -> Option<i64> {
    let micros = (second * SECOND as f64).round_ties_even();
    let is_there = (0..60).contains(&minute) && (0.0..=60.0 * SECOND as f64).contains(&micros);
    let time = (hour * 3600 + minute * 60) * SECOND + micros as i64;
    let is_there = is_there && (0..=24).contains(&hour) && time <= DAY;
    is_there
        .then(|| in_calendar(i128::from(day) * i128::from(DAY) + i128::from(time)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn days_are_those_of_chrono(year in -1i64..10_002, month in 0i64..14, of in 0i64..33) {
            let chrono = NaiveDate::from_ymd_opt(year as i32, month as u32, of as u32);
            let chrono = chrono.filter(|_| (1..=9999).contains(&year)).map(|it| it.num_days_from_ce() - 719_163);
            prop_assert_eq!(day(year, month, of), chrono);
        }
    }

    #[test]
    fn a_minute_may_end_with_its_60th_second() {
        assert_eq!(point(0, 23, 59, 60.0), Some(DAY));
        assert_eq!(point(0, 24, 0, 0.0), Some(DAY));
        assert_eq!(point(0, 24, 0, 0.000_001), None);
        assert_eq!(point(0, 12, 0, f64::NAN), None);
        assert_eq!(point(2_932_896, 24, 0, 0.0), None);
    }
}
