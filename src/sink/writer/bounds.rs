//! Delta's per-file statistics: the number of rows, and for each column the number of nulls, the minimum and the
//! maximum (protocol, "Per-file Statistics").
//!
//! Readers skip files by these bounds, so bounds contain every value in every reader's order, or are left out:
//!
//! 1. Only the first 32 columns have statistics, as is Delta's own default. Nested columns have none. Booleans and
//!    binaries have only their number of nulls; so do floats with NaN or infinity, and dates outside the years 1 to
//!    9999.
//! 2. A zero may be either zero, because some readers order -0.0 below 0.0: a lower bound of zero is -0.0, an upper
//!    bound 0.0.
//! 3. Bounds of timestamps have milliseconds, as the protocol demands: the upper bound is rounded up.
//! 4. Bounds of texts have about 32 characters: the upper bound ends in a character greater than what was cut off.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, TimeDelta};

const COLUMNS: usize = 32;
const TEXT: usize = 32;

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Value {
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(String),
}

#[derive(Default)]
struct Column {
    nulls: u64,
    bounds: Option<(Value, Value)>,
    unbounded: bool,
}

/// Statistics of one file, gathered batch by batch.
pub(super) struct FileStatistics {
    schema: SchemaRef,
    rows: u64,
    columns: Vec<Column>,
}

impl FileStatistics {
    /// Starts the statistics of a file with these columns.
    pub(super) fn new(schema: SchemaRef) -> Self {
        let columns = schema
            .fields()
            .iter()
            .take(COLUMNS)
            .map(|_| Column::default())
            .collect();
        FileStatistics {
            schema,
            rows: 0,
            columns,
        }
    }

    /// Number of rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds the next rows of the file.
    pub(super) fn observe(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        for (state, array) in self.columns.iter_mut().zip(batch.columns()) {
            state.nulls += array.null_count() as u64;
            let Some((low, high)) = extremes(array.as_ref()) else {
                continue;
            };
            if matches!((&low, &high), (Value::Float(l), Value::Float(h)) if !l.is_finite() || !h.is_finite()) {
                state.unbounded = true;
                continue;
            }
            state.bounds = Some(match state.bounds.take() {
                None => (low, high),
                Some((l, h)) => (if low < l { low } else { l }, if high > h { high } else { h }),
            });
        }
    }

    /// The statistics as Delta's JSON.
    pub(super) fn json(&self) -> String {
        let (mut lows, mut highs, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for (state, field) in self.columns.iter().zip(self.schema.fields()) {
            if field.data_type().is_nested() {
                continue;
            }
            let name = quoted(field.name());
            nulls.push(format!("{name}:{}", state.nulls));
            let Some((low, high)) = state.bounds.as_ref().filter(|_| !state.unbounded) else {
                continue;
            };
            let ends = (
                literal(low, field.data_type(), false),
                literal(high, field.data_type(), true),
            );
            if let (Some(low), Some(high)) = ends {
                lows.push(format!("{name}:{low}"));
                highs.push(format!("{name}:{high}"));
            }
        }
        format!(
            r#"{{"numRecords":{},"tightBounds":false,"minValues":{{{}}},"maxValues":{{{}}},"nullCount":{{{}}}}}"#,
            self.rows,
            lows.join(","),
            highs.join(","),
            nulls.join(",")
        )
    }
}

fn extremes(array: &dyn Array) -> Option<(Value, Value)> {
    macro_rules! ends {
        ($type:ty, $value:expr) => {{
            let array = array.as_primitive::<$type>();
            Some(($value(min(array)?), $value(max(array)?)))
        }};
    }
    match array.data_type() {
        DataType::Int8 => ends!(Int8Type, |x| Value::Int(i64::from(x))),
        DataType::Int16 => ends!(Int16Type, |x| Value::Int(i64::from(x))),
        DataType::Int32 => ends!(Int32Type, |x| Value::Int(i64::from(x))),
        DataType::Int64 => ends!(Int64Type, Value::Int),
        DataType::Float32 => ends!(Float32Type, |x| Value::Float(f64::from(x))),
        DataType::Float64 => ends!(Float64Type, Value::Float),
        DataType::Date32 => ends!(Date32Type, |x| Value::Int(i64::from(x))),
        DataType::Timestamp(TimeUnit::Microsecond, _) => ends!(TimestampMicrosecondType, Value::Int),
        DataType::Decimal128(_, _) => ends!(Decimal128Type, Value::Decimal),
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            Some((
                Value::Text(min_string(array)?.to_string()),
                Value::Text(max_string(array)?.to_string()),
            ))
        }
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn literal(value: &Value, data_type: &DataType, upper: bool) -> Option<String> {
    Some(match (value, data_type) {
        (Value::Int(days), DataType::Date32) => {
            let date = DateTime::UNIX_EPOCH
                .checked_add_signed(TimeDelta::try_days(*days)?)?
                .date_naive();
            (1..=9999)
                .contains(&date.year())
                .then(|| format!("\"{}\"", date.format("%Y-%m-%d")))?
        }
        (Value::Int(micros), DataType::Timestamp(_, zone)) => {
            // By (3), an upper bound is rounded up.
            let down = micros.div_euclid(1000);
            let millis = if upper && micros.rem_euclid(1000) > 0 {
                down + 1
            } else {
                down
            };
            let time = DateTime::from_timestamp_millis(millis)?;
            let zone = if zone.is_some() { "Z" } else { "" };
            let text = (1..=9999)
                .contains(&time.year())
                .then(|| time.format("%Y-%m-%dT%H:%M:%S%.3f"))?;
            format!("\"{text}{zone}\"")
        }
        (Value::Int(i), _) => i.to_string(),
        // By (2), a bound of zero includes both zeros.
        (Value::Float(0.0), _) => if upper { "0.0" } else { "-0.0" }.to_string(),
        (Value::Float(x), _) => serde_json::Number::from_f64(*x)?.to_string(),
        (Value::Decimal(units), DataType::Decimal128(precision, scale)) => {
            Decimal128Type::format_decimal(*units, *precision, *scale)
        }
        (Value::Text(text), _) if upper => quoted(&above(text)),
        (Value::Text(text), _) => quoted(prefix(text)),
        (Value::Decimal(_), _) => return None,
    })
}

fn prefix(text: &str) -> &str {
    text.char_indices().nth(TEXT).map_or(text, |(end, _)| &text[..end])
}

/// A text of about 32 characters that is not less than `text`: its beginning and a character greater than the one that
/// was cut off.
fn above(text: &str) -> String {
    let start = prefix(text);
    let mut bound = start.to_string();
    for next in text[start.len()..].chars() {
        if next < '\u{7f}' {
            bound.push('\u{7f}');
            break;
        }
        if next < char::MAX {
            bound.push(char::MAX);
            break;
        }
        bound.push(next);
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::{Field, Schema};
    use std::sync::Arc;

    #[test]
    fn statistics_are_deltas_json() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i\"x", Arc::new(Int64Array::from(vec![Some(3), None, Some(-2)]))),
            (
                "d",
                Arc::new(
                    Decimal128Array::from(vec![Some(-5), Some(1), Some(123_456_789_012_345_678_901)])
                        .with_precision_and_scale(38, 2)
                        .unwrap(),
                ),
            ),
            (
                "t",
                Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None, Some(-1)])),
            ),
            ("day", Arc::new(Date32Array::from(vec![0, 365, -1]))),
            (
                "s",
                Arc::new(StringArray::from(vec!["b".repeat(40), "é".repeat(40), "a\n".into()])),
            ),
            ("f", Arc::new(Float64Array::from(vec![0.5, 2.0, 1e300]))),
            ("nan", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1e300]))),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None, None]))),
            ("none", Arc::new(StringArray::from(vec![None::<&str>, None, None]))),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(n, a)| Field::new(*n, a.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, a)| a).collect()).unwrap();
        let mut bounds = FileStatistics::new(schema);
        bounds.observe(&batch.slice(0, 1));
        bounds.observe(&batch.slice(1, 2));
        let text = bounds.json();
        // The digits are exact, because the JSON number was never a float.
        assert!(text.contains(r#""d":1234567890123456789.01"#), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["numRecords"], 3);
        assert_eq!(json["tightBounds"], false);
        assert_eq!(
            (&json["minValues"]["i\"x"], &json["maxValues"]["i\"x"]),
            (&(-2).into(), &3.into())
        );
        assert!(text.contains(r#""d":-0.05"#), "{text}");
        assert_eq!(json["minValues"]["t"], "1969-12-31T23:59:59.999");
        assert_eq!(json["maxValues"]["t"], "1970-01-01T00:00:01.500");
        assert_eq!(
            (&json["minValues"]["day"], &json["maxValues"]["day"]),
            (&"1969-12-31".into(), &"1971-01-01".into())
        );
        assert_eq!(json["minValues"]["s"], "a\n");
        assert_eq!(json["maxValues"]["s"], format!("{}{}", "é".repeat(32), char::MAX));
        assert_eq!(json["maxValues"]["f"], 1e300);
        assert!(json["maxValues"].get("nan").is_none() && json["minValues"].get("b").is_none());
        assert_eq!(
            (&json["nullCount"]["b"], &json["nullCount"]["none"]),
            (&2.into(), &3.into())
        );
    }

    /// The bounds of a column, as JSON text.
    fn of_column(array: ArrayRef) -> String {
        let schema = Arc::new(Schema::new(vec![Field::new("x", array.data_type().clone(), true)]));
        let mut bounds = FileStatistics::new(schema.clone());
        bounds.observe(&RecordBatch::try_new(schema, vec![array]).unwrap());
        bounds.json()
    }

    /// A reader that orders -0.0 below 0.0 skipped the file that had the row it looked for.
    #[test]
    fn zero_is_bounded_by_both_zeros() {
        for zero in [0.0, -0.0] {
            let text = of_column(Arc::new(Float64Array::from(vec![zero])));
            assert!(
                text.contains(r#""minValues":{"x":-0.0},"maxValues":{"x":0.0}"#),
                "{text}"
            );
        }
    }

    /// Readers truncate a bound to milliseconds, and missed the greatest value.
    #[test]
    fn bounds_of_timestamps_are_milliseconds_that_contain_them() {
        let text = of_column(Arc::new(TimestampMicrosecondArray::from(vec![-1_001, 1_000_001])));
        assert!(
            text.contains(r#""minValues":{"x":"1969-12-31T23:59:59.998"}"#),
            "{text}"
        );
        assert!(
            text.contains(r#""maxValues":{"x":"1970-01-01T00:00:01.001"}"#),
            "{text}"
        );
        // No millisecond with a year of four digits is at or after the last microsecond of the year 9999.
        let last = 253_402_300_799_999_999;
        let text = of_column(Arc::new(TimestampMicrosecondArray::from(vec![0, last])));
        assert!(text.contains(r#""maxValues":{}"#), "{text}");
    }

    #[test]
    fn a_cut_text_bounds_the_whole() {
        for text in [
            "a".repeat(32) + "b",
            "a".repeat(32) + "\u{7f}z",
            "a".repeat(32) + "\u{10ffff}\u{10ffff}c",
            "x".into(),
        ] {
            assert!(above(&text) >= text && prefix(&text) <= text.as_str(), "{text:?}");
            assert!(prefix(&text).chars().count() <= 32);
        }
    }
}
