//! `date_bin(stride, t [, origin])`.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Months};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{DAY, answer, beyond, microseconds, rows_of, zoned};

const STRIDE: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The function.
pub(in crate::plan) fn date_bin() -> Arc<ScalarUDF> {
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
            return plan_err!("date_bin() takes an INTERVAL, a TIMESTAMP and perhaps a TIMESTAMP to count from");
        };
        let source = match &types[1] {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
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
                    binned.append_value(bin(strides.value(row), points.value(row), origin)?);
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

/// The start of the bin that a point is in, where they are counted from `origin`. All of them in microseconds.
fn bin(stride: IntervalMonthDayNano, point: i64, origin: i64) -> Result<i64> {
    let nanos = i128::from(stride.days) * i128::from(DAY) * 1000 + i128::from(stride.nanoseconds);
    if stride.months != 0 && nanos != 0 {
        return exec_err!("date_bin() takes a stride of months or years alone, or of days and times");
    }
    if stride.months < 0 || nanos < 0 || stride.months == 0 && nanos == 0 {
        return exec_err!("date_bin() takes a stride that is greater than zero");
    }
    if stride.months > 0 {
        return bin_by_months(i64::from(stride.months), point, origin);
    }
    let (point, origin) = (i128::from(point) * 1000, i128::from(origin) * 1000);
    let start = origin + (point - origin).div_euclid(nanos) * nanos;
    i64::try_from(start.div_euclid(1000)).map_err(|_| beyond())
}

fn bin_by_months(stride: i64, point: i64, origin: i64) -> Result<i64> {
    let date = |micros| DateTime::from_timestamp_micros(micros).ok_or_else(beyond);
    let (at, from) = (date(point)?, date(origin)?);
    let months = i64::from(at.year() - from.year()) * 12 + i64::from(at.month()) - i64::from(from.month());
    let shifted = |months: i64| {
        let length = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
        let start = match months < 0 {
            true => from.checked_sub_months(length)?,
            false => from.checked_add_months(length)?,
        };
        Some(start.timestamp_micros())
    };
    let bins = months.div_euclid(stride);
    let start = shifted(bins * stride).ok_or_else(beyond)?;
    match start <= point {
        true => Ok(start),
        // A month's bin begins on a later day of the month, or at a later hour.
        false => shifted((bins - 1) * stride).ok_or_else(beyond),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    /// Those of strides without months are as PostgreSQL says.
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
            assert_eq!(bin(stride, micros(at), micros(origin)).unwrap(), micros(start), "{at}");
        }
        for stride in [day(0), day(-1), months(-1), IntervalMonthDayNano::new(1, 1, 0)] {
            assert!(bin(stride, 0, 0).is_err());
        }
    }
}
