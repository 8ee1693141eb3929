//! `to_timestamp(x)` and similar functions, of numbers and texts.
//!
//! A text without a format is read as ISO 8601. A format with a `%` is strftime's; any other is one of
//! PostgreSQL's template patterns. The result is a TIMESTAMP of microseconds, whatever unit the function is
//! named after; for a coarser unit it is truncated to that unit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::pattern::{Template, is_template};
use super::{answer, is_text, microseconds, rows_of};
use crate::definition::{MomentFault, MomentPattern};
use crate::plan::times::{DAY, MOMENT, SECOND, in_calendar, point_of};

/// The functions, which replace DataFusion's of these names.
pub(super) fn functions() -> Vec<ScalarUDF> {
    use ReturnedType::*;
    let functions = [
        ("to_timestamp", SECOND * 1000, Moment { length: 1 }),
        ("to_timestamp_seconds", SECOND * 1000, Moment { length: SECOND }),
        ("to_timestamp_millis", 1_000_000, Moment { length: 1000 }),
        ("to_timestamp_micros", 1000, Moment { length: 1 }),
        ("to_timestamp_nanos", 1, Moment { length: 1 }),
        ("from_unixtime", SECOND * 1000, Moment { length: SECOND }),
        ("to_date", DAY * 1000, Date),
        ("to_unixtime", SECOND * 1000, Seconds),
    ];
    let of = |(name, unit, returned)| ScalarUDF::from(TimestampReader::new(name, unit, returned));
    functions.into_iter().map(of).collect()
}

/// What a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReturnedType {
    /// A TIMESTAMP that is truncated to so many microseconds.
    Moment {
        length: i64,
    },
    Date,
    /// Seconds since 1970, as a BIGINT.
    Seconds,
}

impl ReturnedType {
    fn data_type(self) -> DataType {
        match self {
            ReturnedType::Moment { .. } => MOMENT,
            ReturnedType::Date => DataType::Date32,
            ReturnedType::Seconds => DataType::Int64,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimestampReader {
    name: &'static str,
    /// The unit of numbers, in nanoseconds.
    unit: i64,
    returned: ReturnedType,
    signature: Signature,
    aliases: Vec<String>,
}

impl TimestampReader {
    fn new(name: &'static str, unit: i64, returned: ReturnedType) -> Self {
        TimestampReader {
            name,
            unit,
            returned,
            signature: Signature::variadic_any(Volatility::Immutable),
            aliases: vec![],
        }
    }

    fn is_outside(&self, value: &str) -> datafusion::error::DataFusionError {
        exec_datafusion_err!(
            "could not compute {}({value}): it is not of the years 1 to 9999",
            self.name
        )
    }
}

impl ScalarUDFImpl for TimestampReader {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returned.data_type())
    }

    /// Also refuses constant formats that cannot be read.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let Some(first) = args.arg_fields.first() else {
            return plan_err!("{}() takes a number or a text, and perhaps formats of it", self.name);
        };
        if args.arg_fields.len() > 1 && !is_text(first.data_type()) && !first.data_type().is_null() {
            return plan_err!(
                "{}() takes formats for a text alone; for the time of a zone write AT TIME ZONE",
                self.name
            );
        }
        for format in args.scalar_arguments.iter().skip(1) {
            if let Some(Some(format)) = format.and_then(|format| format.try_as_str()) {
                ReadFormat::parse(format, self.name)?;
            }
        }
        Ok(Arc::new(Field::new(self.name, self.returned.data_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = rows_of(&args);
        let values = args.args[0].to_array(rows)?;
        let points = match is_text(values.data_type()) {
            true => self.of_texts(&values, &args.args[1..], rows)?,
            false => self.of_numbers(&values)?,
        };
        let made: ArrayRef = match self.returned {
            ReturnedType::Moment { length: 1 } => Arc::new(points),
            ReturnedType::Moment { length } => Arc::new(
                points.unary::<_, TimestampMicrosecondType>(|point| point.wrapping_sub(point.rem_euclid(length))),
            ),
            ReturnedType::Date => {
                let days = points
                    .iter()
                    .map(|point| point.and_then(|point| i32::try_from(point.div_euclid(DAY)).ok()));
                Arc::new(days.collect::<Date32Array>())
            }
            ReturnedType::Seconds => Arc::new(points.unary::<_, Int64Type>(|point| point.div_euclid(SECOND))),
        };
        answer(made, &args.args)
    }
}

impl TimestampReader {
    /// Reads numbers as counts since 1970; timestamps and dates stay as they are.
    fn of_numbers(&self, values: &ArrayRef) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
        let unit = i128::from(self.unit);
        let point =
            |micros: i128, shown: &dyn Fn() -> String| in_calendar(micros).ok_or_else(|| self.is_outside(&shown()));
        Ok(match values.data_type() {
            of if of.is_integer() => {
                let whole = strictly(values, &DataType::Decimal128(38, 0))?;
                let whole = whole.as_primitive::<Decimal128Type>();
                whole.try_unary(|number| point((number * unit).div_euclid(1000), &|| number.to_string()))?
            }
            of if of.is_floating() => {
                let numbers = cast(values, &DataType::Float64)?;
                let factor = self.unit as f64 / 1000.0;
                // Rounds half to even, as PostgreSQL does.
                numbers.as_primitive::<Float64Type>().try_unary(|number| {
                    let micros = (number * factor).round_ties_even();
                    match micros.abs() < 1e30 {
                        true => point(micros as i128, &|| number.to_string()),
                        false => Err(self.is_outside(&number.to_string())),
                    }
                })?
            }
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                let numbers = strictly(values, &DataType::Decimal128(38, 9))?;
                numbers.as_primitive::<Decimal128Type>().try_unary(|billionths| {
                    let outside = || self.is_outside(&format!("{billionths}e-9"));
                    let (nanos, length) = (billionths.checked_mul(unit).ok_or_else(outside)?, 1_000_000_000_000);
                    // Rounds half away from zero.
                    let micros = (nanos + nanos.signum() * length / 2) / length;
                    point(micros, &|| format!("{billionths}e-9"))
                })?
            }
            DataType::Date32 | DataType::Date64 | DataType::Null => {
                let moments = strictly(values, &MOMENT)?;
                moments.as_primitive::<TimestampMicrosecondType>().clone()
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let moments = values.as_primitive::<TimestampMicrosecondType>().clone();
                moments.with_timezone_opt::<Arc<str>>(None)
            }
            DataType::Timestamp(..) => microseconds(values)?.with_timezone_opt::<Arc<str>>(None),
            other => return exec_err!("{}() takes a number or a text, not a {other}", self.name),
        })
    }

    /// Reads texts as ISO 8601, or by the first of the formats that fits.
    fn of_texts(
        &self,
        values: &ArrayRef,
        formats: &[ColumnarValue],
        rows: usize,
    ) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
        let texts = |array: &ArrayRef| cast(array, &DataType::Utf8);
        let values = texts(values)?;
        let values = values.as_string::<i32>();
        let formats: Vec<ArrayRef> = formats
            .iter()
            .map(|format| Ok(texts(&format.to_array(rows)?)?))
            .collect::<Result<_>>()?;
        // Each format is parsed once, because most rows have the same.
        let mut parsed: HashMap<&str, ReadFormat> = HashMap::new();
        for format in &formats {
            for format in format.as_string::<i32>().iter().flatten() {
                if !parsed.contains_key(format) {
                    parsed.insert(format, ReadFormat::parse(format, self.name)?);
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
            if values.is_null(row) || (known.peek().is_none() && !formats.is_empty()) {
                points.append_null();
                continue;
            }
            let text = values.value(row);
            let point = match formats.is_empty() {
                true => point_of(text.trim()),
                false => known.find_map(|format| format.point(text)),
            };
            match point {
                Some(point) => points.append_value(point),
                None => {
                    let text: String = text.chars().take(60).collect();
                    let by = if formats.is_empty() {
                        ""
                    } else {
                        " by the formats that were given"
                    };
                    return exec_err!(
                        "could not compute {}('{text}'): it is no point in time of the years 1 to 9999{by}",
                        self.name
                    );
                }
            }
        }
        Ok(points.finish())
    }
}

fn strictly(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(values, to, &strict)?)
}

/// A template pattern, or a strftime pattern in UTC or with a zone's name at its end.
enum ReadFormat {
    Template(Template),
    Strftime { pattern: MomentPattern, has_zone: bool },
}

impl ReadFormat {
    fn parse(format: &str, function: &str) -> Result<ReadFormat> {
        if is_template(format) {
            return match Template::to_read(format) {
                Ok(template) => Ok(ReadFormat::Template(template)),
                Err(why) => exec_err!("{function}() cannot read by format {format:?}: {why}"),
            };
        }
        let (before, has_zone) = match format.strip_suffix(" %Z") {
            Some(before) => (before, true),
            None => (format, false),
        };
        match MomentPattern::parse(before) {
            Ok(pattern) => Ok(ReadFormat::Strftime { pattern, has_zone }),
            Err(MomentFault { what, remedy }) => {
                exec_err!("{function}() cannot read by format {format:?}: the pattern {what}; {remedy}")
            }
        }
    }

    fn point(&self, text: &str) -> Option<i64> {
        let point = match self {
            ReadFormat::Template(template) => return template.read(text),
            ReadFormat::Strftime {
                pattern,
                has_zone: true,
            } => {
                let (text, zone) = text.rsplit_once(' ')?;
                let zone = zone.parse::<arrow::array::timezone::Tz>().ok()?;
                pattern.point_in(text, &zone)?
            }
            ReadFormat::Strftime { pattern, .. } => pattern.point(text)?,
        };
        in_calendar(point.timestamp_micros().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};

    fn by_format(text: &str, format: &str) -> Option<i64> {
        ReadFormat::parse(format, "f").expect("a format").point(text)
    }

    fn read(name: &str, values: ArrayRef) -> Result<Vec<i64>> {
        let function = functions()
            .into_iter()
            .find(|function| function.name() == name)
            .expect("a function");
        let of = function
            .inner()
            .downcast_ref::<TimestampReader>()
            .expect("one of these");
        let points = match is_text(values.data_type()) {
            true => of.of_texts(&values, &[], values.len())?,
            false => of.of_numbers(&values)?,
        };
        Ok(points.values().to_vec())
    }

    #[test]
    fn seconds_and_texts_of_any_year_are_points_in_time() {
        let whole = |number: i64| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
        let broken = |number: f64| Arc::new(Float64Array::from(vec![number])) as ArrayRef;
        for (name, values, point) in [
            ("to_timestamp", whole(-62_135_596_800), -62_135_596_800_000_000),
            ("to_timestamp", whole(253_402_300_799), 253_402_300_799_000_000),
            ("to_timestamp_millis", whole(-1), -1000),
            ("to_timestamp_nanos", whole(-1), -1),
            ("to_date", whole(-1), -DAY),
            ("to_timestamp", broken(253_402_300_799.5), 253_402_300_799_500_000),
            ("to_timestamp", broken(-0.000_000_4), 0),
        ] {
            assert_eq!(read(name, values).unwrap(), [point], "{name}");
        }
        for huge in [i64::MAX, i64::MIN, 253_402_300_800] {
            assert!(read("to_timestamp", whole(huge)).is_err());
        }
        let why = read("to_timestamp", broken(f64::NAN)).unwrap_err().to_string();
        assert!(why.contains("to_timestamp(NaN)"), "{why}");
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["9999-12-31T23:59:59.999999Z", "0001-01-01"]));
        let points = read("to_timestamp", texts).unwrap();
        assert_eq!(points, [253_402_300_799_999_999, -62_135_596_800_000_000]);
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

    /// Formerly `.5` was five nanoseconds, 69 was 2069, `2024011` was a day, and a zone's name that was not at
    /// the end was ignored.
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
        for wrong in ["%H:%M:%S %Z %Y-%m-%d", "%Y-%m-%dT%H:%M:%S%Z", "%H:%M", "HH24:MI"] {
            let refused = ReadFormat::parse(wrong, "to_date").err().map(|why| why.to_string());
            assert!(
                refused.is_some_and(|why| why.contains("to_date() cannot read by format")),
                "{wrong}"
            );
        }
    }
}
