//! `to_timestamp(x)` and its like, of numbers and texts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, exec_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{DAY, answer, beyond, rows_of};
use crate::definition::{MomentFault, MomentPattern};

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// One for each of DataFusion's functions that read a text by formats, but for those of nanoseconds and of times of day.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let config = Default::default();
    let moment = |unit| DataType::Timestamp(unit, None);
    let functions = [
        (datetime::to_timestamp(&config), moment(TimeUnit::Microsecond)),
        (datetime::to_timestamp_seconds(&config), moment(TimeUnit::Second)),
        (datetime::to_timestamp_millis(&config), moment(TimeUnit::Millisecond)),
        (datetime::to_timestamp_micros(&config), moment(TimeUnit::Microsecond)),
        (datetime::to_date(), DataType::Date32),
        (datetime::to_unixtime(), DataType::Int64),
    ];
    let of = |(function, returned)| ScalarUDF::from(ToTimestamp::new(function, returned));
    functions.into_iter().map(of).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    /// DataFusion's.
    function: Arc<ScalarUDF>,
    returned: DataType,
    signature: Signature,
}

impl ToTimestamp {
    fn new(function: Arc<ScalarUDF>, returned: DataType) -> Self {
        ToTimestamp {
            function,
            returned,
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }

    /// Whether numbers count seconds, and may have a fraction.
    fn takes_seconds(&self) -> bool {
        self.function.name() == "to_timestamp"
    }

    /// Whether texts without a format are read here.
    fn reads_iso(&self) -> bool {
        matches!(self.returned, DataType::Timestamp(..))
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
        Ok(self.returned.clone())
    }

    /// Also refuses formats that nothing can be read by, where they are known before there are rows.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        for format in args.scalar_arguments.iter().skip(1) {
            if let Some(Some(format)) = format.and_then(|format| format.try_as_str()) {
                Format::parse(format, self.name())?;
            }
        }
        Ok(Arc::new(Field::new(self.name(), self.returned.clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(first) = args.args.first() else {
            return exec_err!("{}() takes a number or a text, and perhaps formats of it", self.name());
        };
        let of = first.data_type();
        let is_text = matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_here = match is_text {
            true => self.reads_iso() || args.args.len() > 1,
            false => self.takes_seconds(),
        };
        if !is_here {
            return self.function.inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let values = first.to_array(rows)?;
        let points: ArrayRef = match is_text {
            true => Arc::new(of_texts(&values, &args.args[1..], rows, self.name())?),
            false => of_seconds(&values, self.name())?,
        };
        answer(floored(&points, &self.returned)?, &args.args)
    }
}

/// Microseconds by a coarser unit: the one that each lies in.
fn floored(points: &ArrayRef, returned: &DataType) -> Result<ArrayRef> {
    let length = match returned {
        DataType::Timestamp(TimeUnit::Second, _) | DataType::Int64 => 1_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1000,
        DataType::Date32 => DAY,
        _ => return Ok(points.clone()),
    };
    let points = points.as_primitive::<TimestampMicrosecondType>();
    if *returned == DataType::Int64 {
        return Ok(Arc::new(points.unary::<_, Int64Type>(|point| point.div_euclid(length))));
    }
    let whole: PrimitiveArray<TimestampMicrosecondType> = points.unary(|point| point - point.rem_euclid(length));
    Ok(cast(&whole, returned)?)
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
    name: &str,
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
    // Each format is parsed once, for it is the same in most rows.
    let mut parsed: HashMap<&str, Format> = HashMap::new();
    for format in &formats {
        for format in format.as_string::<i32>().iter().flatten() {
            if !parsed.contains_key(format) {
                parsed.insert(format, Format::parse(format, name)?);
            }
        }
    }
    let mut points = PrimitiveArray::<TimestampMicrosecondType>::builder(values.len());
    for row in 0..values.len() {
        let known = formats.iter().map(|format| format.as_string::<i32>());
        let mut known = known
            .filter(|format| format.is_valid(row))
            .filter_map(|format| parsed.get(format.value(row)))
            .peekable();
        if values.is_null(row) || known.peek().is_none() {
            points.append_null();
            continue;
        }
        let text = values.value(row);
        match known.find_map(|format| format.point(text)) {
            Some(point) => points.append_value(point),
            None => return exec_err!("{text:?} is no point in time by the formats that were given"),
        }
    }
    Ok(points.finish())
}

/// strftime, in UTC; also with the name of a zone at the end.
struct Format {
    pattern: MomentPattern,
    has_zone: bool,
}

impl Format {
    fn parse(format: &str, function: &str) -> Result<Format> {
        let (before, has_zone) = match format.strip_suffix(" %Z") {
            Some(before) => (before, true),
            None => (format, false),
        };
        match MomentPattern::parse(before) {
            Ok(pattern) => Ok(Format { pattern, has_zone }),
            Err(MomentFault { what, remedy }) => {
                exec_err!("{function}() cannot read by format {format:?}: the pattern {what}; {remedy}")
            }
        }
    }

    fn point(&self, text: &str) -> Option<i64> {
        let point = match self.has_zone {
            true => {
                let (text, zone) = text.rsplit_once(' ')?;
                let zone = zone.parse::<arrow::array::timezone::Tz>().ok()?;
                self.pattern.point_in(text, &zone)?
            }
            false => self.pattern.point(text)?,
        };
        Some(point.timestamp_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};

    fn by_format(text: &str, format: &str) -> Option<i64> {
        Format::parse(format, "f").expect("a format").point(text)
    }

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
        let points: ArrayRef = Arc::new(of_texts(&texts, &[], 2, "f").unwrap());
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

    /// `.5` became five nanoseconds, 69 was 2069, `2024011` a day, and a zone's name that was not last was passed over.
    #[test]
    fn formats_mean_in_sql_what_they_mean_in_a_column() {
        let at = by_format("2024-01-01 10:00:00.5", "%Y-%m-%d %H:%M:%S.%f");
        assert_eq!(at, Some(1_704_103_200_500_000));
        assert_eq!(by_format("01.01.69", "%d.%m.%y"), Some(-365 * DAY));
        assert_eq!(by_format("2024011", "%Y%m%d"), None);
        let zoned = "%Y-%m-%d %H:%M:%S %Z";
        let est = by_format("2024-01-01 05:00:00 EST", zoned);
        assert_eq!(
            est,
            Some(1_704_103_200_000_000),
            "a zone that is known is not passed over"
        );
        assert_eq!(by_format("2024-01-01 05:00:00 CEST", zoned), None);
        for wrong in ["%H:%M:%S %Z %Y-%m-%d", "%Y-%m-%dT%H:%M:%S%Z", "%H:%M", "yyyy-MM-dd"] {
            let refused = Format::parse(wrong, "to_date").err().map(|why| why.to_string());
            assert!(
                refused.is_some_and(|why| why.contains("to_date() cannot read by format")),
                "{wrong}"
            );
        }
    }
}
