//! `date_bin(stride, t [, origin])` for timestamps of microseconds, also with strides of months.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{DAY, answer, microseconds, rows_of, zoned};
use crate::plan::times::{TimeLength, TimestampText, in_calendar_like, months_later};
use crate::repr::civil_from_days;
use crate::words::sql_types;

const STRIDE: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The function, shared by all sessions.
pub(super) fn date_bin() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(DateBin::new())));
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    signature: Signature,
}

impl DateBin {
    fn new() -> Self {
        DateBin {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (DataType::Interval(_), 2..=3) = (types.first().unwrap_or(&DataType::Null), types.len()) else {
            let given: Vec<String> = types.iter().map(ToString::to_string).collect();
            let given = sql_types(&given.join(", "));
            return plan_err!(
                "could not plan date_bin({given}): it is date_bin(INTERVAL '15 minutes', ts), and perhaps a TIMESTAMP to count from"
            );
        };
        let source = match &types[1] {
            DataType::Timestamp(..)
            | DataType::Date32
            | DataType::Date64
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Null => zoned(&types[1]),
            DataType::Time32(unit) => DataType::Time32(*unit),
            DataType::Time64(unit) => DataType::Time64(*unit),
            other => return plan_err!("date_bin() takes a TIMESTAMP, not a {other}"),
        };
        let mut coerced = vec![STRIDE, source.clone()];
        coerced.extend(types.get(2).map(|_| source));
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    /// Also refuses a constant stride that is not valid.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(ScalarValue::IntervalMonthDayNano(Some(stride))) = args.scalar_arguments[0] {
            check(*stride)?;
        }
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let returned = args.arg_fields[1].data_type().clone();
        Ok(Arc::new(Field::new(self.name(), returned, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = args.args[1].data_type();
        if !matches!(of, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return datetime::date_bin().inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let strides = args.args[0].to_array(rows)?;
        let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
        let points = microseconds(&args.args[1].to_array(rows)?)?;
        let origins = match args.args.get(2) {
            Some(origin) => Some(microseconds(&origin.to_array(rows)?)?),
            None => None,
        };
        let mut binned = PrimitiveArray::<TimestampMicrosecondType>::builder(points.len());
        for row in 0..points.len() {
            let origin = origins
                .as_ref()
                .map_or(Some(0), |origins| origins.is_valid(row).then(|| origins.value(row)));
            match origin {
                Some(origin) if strides.is_valid(row) && points.is_valid(row) => {
                    let (stride, point) = (strides.value(row), points.value(row));
                    check(stride)?;
                    binned.append_value(bin(stride, point, origin).ok_or_else(|| {
                        exec_datafusion_err!(
                            "could not compute date_bin(INTERVAL '{}', {}): the result is not of the years 1 to 9999",
                            TimeLength::from_interval(stride),
                            TimestampText(point)
                        )
                    })?);
                }
                _ => binned.append_null(),
            }
        }
        let zone = points.timezone().map(Arc::from);
        answer(
            Arc::new(binned.finish().with_timezone_opt::<Arc<str>>(zone)),
            &args.args,
        )
    }
}

/// Refuses a stride that is not positive, or that mixes months with days or times.
fn check(stride: IntervalMonthDayNano) -> Result<()> {
    let nanos = nanos(stride);
    if stride.months != 0 && nanos != 0 {
        return plan_err!("date_bin() takes a stride of months or years alone, or of days and times");
    }
    if stride.months < 0 || nanos < 0 || stride.months == 0 && nanos == 0 {
        return plan_err!("date_bin() takes a stride that is greater than zero");
    }
    Ok(())
}

fn nanos(stride: IntervalMonthDayNano) -> i128 {
    i128::from(stride.days) * i128::from(DAY) * 1000 + i128::from(stride.nanoseconds)
}

/// The start of the bin that contains a point, where bins are counted from `origin`. Both are in microseconds.
/// `None` if the start is outside the calendar though the point is not.
fn bin(stride: IntervalMonthDayNano, point: i64, origin: i64) -> Option<i64> {
    if stride.months > 0 {
        return bin_by_months(i64::from(stride.months), point, origin);
    }
    let nanos = nanos(stride);
    let (point, origin) = (i128::from(point) * 1000, i128::from(origin) * 1000);
    let start = origin + (point - origin).div_euclid(nanos) * nanos;
    in_calendar_like((point / 1000) as i64, start.div_euclid(1000))
}

fn bin_by_months(stride: i64, point: i64, origin: i64) -> Option<i64> {
    let months = |point: i64| {
        let (year, month, _) = civil_from_days(point.div_euclid(DAY));
        year * 12 + month
    };
    let bins = (months(point) - months(origin)).div_euclid(stride);
    let start = |bins: i64| {
        let days = months_later(origin.div_euclid(DAY), bins * stride);
        i128::from(days) * i128::from(DAY) + i128::from(origin.rem_euclid(DAY))
    };
    // Within its month, a bin may begin at a later day or time than the point.
    let bins = if start(bins) <= i128::from(point) {
        bins
    } else {
        bins - 1
    };
    in_calendar_like(point, start(bins))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    /// The values for strides without months are PostgreSQL's.
    #[test]
    fn bins_are_counted_from_their_origin_in_any_year() {
        let day = |days| IntervalMonthDayNano::new(0, days, 0);
        let minutes = |minutes: i64| IntervalMonthDayNano::new(0, 0, minutes * 60_000_000_000);
        let months = |months| IntervalMonthDayNano::new(months, 0, 0);
        for (stride, at, origin, start) in [
            (
                minutes(15),
                "9999-12-31T23:59:59.999999",
                "2001-01-01T00:00:00",
                "9999-12-31T23:45:00",
            ),
            (
                minutes(15),
                "0001-01-01T00:14:59",
                "2001-01-01T00:02:30",
                "0001-01-01T00:02:30",
            ),
            (
                day(7),
                "1600-01-01T00:00:00",
                "1970-01-01T00:00:00",
                "1599-12-30T00:00:00",
            ),
            (
                day(1),
                "2263-01-01T23:00:00",
                "1970-01-01T00:00:00",
                "2263-01-01T00:00:00",
            ),
            (
                months(12),
                "9999-12-31T00:00:00",
                "1970-01-01T00:00:00",
                "9999-01-01T00:00:00",
            ),
            (
                months(3),
                "0001-05-05T00:00:00",
                "1970-01-01T00:00:00",
                "0001-04-01T00:00:00",
            ),
            (
                months(1),
                "2263-01-01T00:00:00",
                "1970-01-15T00:00:00",
                "2262-12-15T00:00:00",
            ),
        ] {
            assert_eq!(bin(stride, micros(at), micros(origin)), Some(micros(start)), "{at}");
        }
        for stride in [day(0), day(-1), months(-1), IntervalMonthDayNano::new(1, 1, 0)] {
            assert!(check(stride).is_err());
        }
    }
}
