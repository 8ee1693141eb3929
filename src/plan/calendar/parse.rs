//! `to_timestamp(x)` and its like, of numbers and texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use chrono::format::{Parsed, StrftimeItems, parse};
use datafusion::common::{Result, exec_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{answer, beyond, rows_of};

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// One for each of DataFusion's functions but that of nanoseconds.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let config = Default::default();
    let seconds = [
        (datetime::to_timestamp(&config), TimeUnit::Microsecond),
        (datetime::to_timestamp_seconds(&config), TimeUnit::Second),
        (datetime::to_timestamp_millis(&config), TimeUnit::Millisecond),
        (datetime::to_timestamp_micros(&config), TimeUnit::Microsecond),
    ];
    let of = |(function, unit)| ScalarUDF::from(ToTimestamp::new(function, unit));
    seconds.into_iter().map(of).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    /// DataFusion's.
    function: Arc<ScalarUDF>,
    unit: TimeUnit,
    signature: Signature,
}

impl ToTimestamp {
    fn new(function: Arc<ScalarUDF>, unit: TimeUnit) -> Self {
        ToTimestamp {
            function,
            unit,
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }

    /// Whether numbers count seconds, and may have a fraction.
    fn takes_seconds(&self) -> bool {
        self.function.name() == "to_timestamp"
    }
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(self.unit, None))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(first) = args.args.first() else {
            return exec_err!("{}() takes a number or a text, and perhaps formats of it", self.name());
        };
        let of = first.data_type();
        let is_text = matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if !is_text && !self.takes_seconds() {
            return self.function.inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let values = first.to_array(rows)?;
        let points: ArrayRef = match is_text {
            true => Arc::new(of_texts(&values, &args.args[1..], rows)?),
            false => of_seconds(&values, self.name())?,
        };
        answer(floored(&points, self.unit)?, &args.args)
    }
}

/// Microseconds by a coarser unit: the one that each lies in.
fn floored(points: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
    let length = match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => return Ok(points.clone()),
    };
    let points = points.as_primitive::<TimestampMicrosecondType>();
    let whole: PrimitiveArray<TimestampMicrosecondType> = points.unary(|point| point - point.rem_euclid(length));
    Ok(cast(&whole, &DataType::Timestamp(unit, None))?)
}

/// Numbers of seconds since 1970; points in time as they are, in UTC.
fn of_seconds(values: &ArrayRef, name: &str) -> Result<ArrayRef> {
    const MILLION: i128 = 1_000_000;
    let point = |micros: i128| i64::try_from(micros).map_err(|_| beyond());
    let micros: PrimitiveArray<TimestampMicrosecondType> = match values.data_type() {
        of if of.is_integer() => {
            let whole = strictly(values, &DataType::Decimal128(38, 0))?;
            let whole = whole.as_primitive::<Decimal128Type>();
            whole.try_unary(|seconds| point(seconds * MILLION))?
        }
        of if of.is_floating() => {
            let seconds = cast(values, &DataType::Float64)?;
            // As PostgreSQL rounds.
            seconds.as_primitive::<Float64Type>().try_unary(|seconds| {
                let micros = (seconds * 1e6).round_ties_even();
                match micros.abs() < 9.2e18 {
                    true => Ok(micros as i64),
                    false => Err(beyond()),
                }
            })?
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let seconds = strictly(values, &DataType::Decimal128(38, 6))?;
            seconds.as_primitive::<Decimal128Type>().try_unary(point)?
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => {
            let points = strictly(values, &MICROSECONDS)?;
            return Ok(points);
        }
        other => return exec_err!("{name}() takes a number or a text, not a {other}"),
    };
    Ok(Arc::new(micros))
}

fn strictly(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(values, to, &strict)?)
}

/// Texts in ISO 8601, or by the first of the formats that fits.
fn of_texts(
    values: &ArrayRef,
    formats: &[ColumnarValue],
    rows: usize,
) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    if formats.is_empty() {
        let points = strictly(values, &MICROSECONDS)?;
        return Ok(points.as_primitive::<TimestampMicrosecondType>().clone());
    }
    let texts = |array: &ArrayRef| cast(array, &DataType::Utf8);
    let values = texts(values)?;
    let values = values.as_string::<i32>();
    let formats: Vec<ArrayRef> = formats
        .iter()
        .map(|format| Ok(texts(&format.to_array(rows)?)?))
        .collect::<Result<_>>()?;
    let mut points = PrimitiveArray::<TimestampMicrosecondType>::builder(values.len());
    for row in 0..values.len() {
        let known = formats.iter().map(|format| format.as_string::<i32>());
        let mut known = known
            .filter(|format| format.is_valid(row))
            .map(|format| format.value(row))
            .peekable();
        if values.is_null(row) || known.peek().is_none() {
            points.append_null();
            continue;
        }
        let text = values.value(row);
        match known.find_map(|format| by_format(text, format)) {
            Some(point) => points.append_value(point),
            None => return exec_err!("{text:?} is no point in time by the formats that were given"),
        }
    }
    Ok(points.finish())
}

/// By chrono's strftime, in UTC; also with the name of a zone at the end.
fn by_format(text: &str, format: &str) -> Option<i64> {
    let (text, format, zone) = match format.strip_suffix(" %Z") {
        Some(before) => {
            let (text, zone) = text.rsplit_once(' ')?;
            (text, before, Some(zone.parse::<arrow::array::timezone::Tz>().ok()?))
        }
        None => (text, format, None),
    };
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(format)).ok()?;
    if let Some(zone) = zone {
        let point = parsed.to_datetime_with_timezone(&zone).ok()?;
        return Some(point.timestamp_micros());
    }
    if let Ok(point) = parsed.to_datetime() {
        return Some(point.timestamp_micros());
    }
    let local = parsed.to_naive_datetime_with_offset(0).ok();
    let local = local.or_else(|| parsed.to_naive_date().ok().map(Into::into))?;
    Some(local.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};

    fn micros(points: &ArrayRef) -> Vec<i64> {
        points.as_primitive::<TimestampMicrosecondType>().values().to_vec()
    }

    #[test]
    fn seconds_and_texts_of_any_year_are_points_in_time() {
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![-62_135_596_800, 253_402_300_799]));
        assert_eq!(
            micros(&of_seconds(&whole, "f").unwrap()),
            [-62_135_596_800_000_000, 253_402_300_799_000_000]
        );
        let broken: ArrayRef = Arc::new(Float64Array::from(vec![253_402_300_799.5, -0.000_000_4]));
        assert_eq!(micros(&of_seconds(&broken, "f").unwrap()), [253_402_300_799_500_000, 0]);
        for huge in [i64::MAX, i64::MIN] {
            assert!(of_seconds(&(Arc::new(Int64Array::from(vec![huge])) as ArrayRef), "f").is_err());
        }
        assert!(of_seconds(&(Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef), "f").is_err());
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["9999-12-31T23:59:59.999999Z", "0001-01-01"]));
        let points: ArrayRef = Arc::new(of_texts(&texts, &[], 2).unwrap());
        assert_eq!(micros(&points), [253_402_300_799_999_999, -62_135_596_800_000_000]);
        assert_eq!(by_format("31.12.9999", "%d.%m.%Y"), Some(253_402_214_400_000_000));
        assert_eq!(
            by_format("01.01.1600 00:00 +01:00", "%d.%m.%Y %H:%M %z"),
            Some(-11_676_099_600_000_000)
        );
        assert_eq!(
            by_format("2026-01-01 00:00:00 Europe/Berlin", "%Y-%m-%d %H:%M:%S %Z"),
            Some(1_767_222_000_000_000)
        );
        assert_eq!(by_format("soon", "%d.%m.%Y"), None);
    }
}
