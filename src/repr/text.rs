//! Values of columns as text, for any value.
//!
//! Arrow's writers put `ERROR: ...` in place of a value that they cannot format: a date or timestamp beyond the years
//! that chrono knows, a time of more than a day, and any list or struct with such a value in it. This module formats
//! dates and timestamps in the proleptic Gregorian calendar, and other such values as the number that they are stored
//! as.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, FieldRef, Int32Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::calendar::civil_from_days;

/// A value within a list that cannot be formatted makes formatting the list fail, too.
const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);

const DAY: i128 = 86_400_000_000;

/// Formats the values of a column as text.
pub struct ValueTexts<'a> {
    array: &'a dyn Array,
    shown: ArrayFormatter<'a>,
}

impl<'a> ValueTexts<'a> {
    /// For a column.
    ///
    /// # Errors
    /// The column's type cannot be formatted.
    pub fn new(array: &'a dyn Array) -> Result<Self, ArrowError> {
        Ok(ValueTexts {
            array,
            shown: ArrayFormatter::try_new(array, &OPTIONS)?,
        })
    }

    /// The value of a row as text; empty for null.
    pub fn text(&self, row: usize) -> String {
        let mut text = String::new();
        match self.shown.value(row).write(&mut text) {
            Ok(()) => text,
            Err(_) => unshown(self.array, row),
        }
    }
}

/// The text of a value that Arrow cannot format.
fn unshown(array: &dyn Array, row: usize) -> String {
    let one = array.slice(row, 1);
    if one.data_type().is_nested() {
        return nested(&one).unwrap_or_else(|_| format!("a value of {}", one.data_type()));
    }
    let number = match numbers(one.as_ref()) {
        Some(numbers) if numbers.is_valid(0) => numbers.as_primitive::<Int64Type>().value(0),
        _ => return format!("a value of {}", one.data_type()),
    };
    let scaled = |unit: &TimeUnit| match unit {
        TimeUnit::Second => i128::from(number) * 1_000_000,
        TimeUnit::Millisecond => i128::from(number) * 1000,
        TimeUnit::Microsecond => i128::from(number),
        TimeUnit::Nanosecond => i128::from(number).div_euclid(1000),
    };
    match one.data_type() {
        DataType::Timestamp(unit, zone) => {
            let text = moment(scaled(unit));
            format!("{text}{}", if zone.is_some() { "Z" } else { "" })
        }
        DataType::Date32 => date(number),
        DataType::Date64 => moment(scaled(&TimeUnit::Millisecond)),
        _ => number.to_string(),
    }
}

fn nested(one: &ArrayRef) -> Result<String, ArrowError> {
    let options = EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(ShowableJson));
    let field: FieldRef = Arc::new(arrow::datatypes::Field::new("value", one.data_type().clone(), true));
    let mut bytes = Vec::new();
    make_encoder(&field, one, &options)?.encode(0, &mut bytes);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers that dates, times and timestamps are stored as.
fn numbers(array: &dyn Array) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => {
            let numbers = cast(array, &DataType::Int32).ok()?;
            cast(&numbers, &DataType::Int64).ok()
        }
        _ => cast(array, &DataType::Int64).ok(),
    }
}

/// The texts of a column of dates, times or timestamps; `None` if Arrow can format all of its values, and for other
/// types.
pub fn unshown_texts(array: &dyn Array) -> Option<StringArray> {
    if !array.data_type().is_temporal() || are_shown(array) {
        return None;
    }
    let values = ValueTexts::new(array).ok()?;
    let rows = (0..array.len()).map(|row| array.is_valid(row).then(|| values.text(row)));
    Some(rows.collect())
}

/// Whether Arrow can format all values of a column. For dates and timestamps it suffices to try the least and the
/// greatest.
fn are_shown(array: &dyn Array) -> bool {
    let is_shown = |row: &dyn Array| {
        let shown = ArrayFormatter::try_new(row, &OPTIONS);
        shown.is_ok_and(|shown| (0..row.len()).all(|n| shown.value(n).write(&mut String::new()).is_ok()))
    };
    let ends = match array.data_type() {
        DataType::Date32 => {
            let days = cast(array, &DataType::Int32).ok();
            days.map(|days| {
                let days = days.as_primitive::<Int32Type>();
                [min(days).map(i64::from), max(days).map(i64::from)]
            })
        }
        DataType::Date64 | DataType::Timestamp(..) => numbers(array).map(|numbers| {
            let numbers = numbers.as_primitive::<Int64Type>();
            [min(numbers), max(numbers)]
        }),
        _ => None,
    };
    let Some(ends) = ends else { return is_shown(array) };
    let ends = arrow::array::Int64Array::from(ends.to_vec());
    let ends = match array.data_type() {
        DataType::Date32 => cast(&ends, &DataType::Int32).and_then(|days| cast(&days, array.data_type())),
        of => cast(&ends, of),
    };
    ends.is_ok_and(|ends| is_shown(ends.as_ref()))
}

/// A timestamp in microseconds since 1970, in chrono's format.
fn moment(micros: i128) -> String {
    let (days, of_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let mut text = format!(
        "{}T{:02}:{:02}:{:02}",
        date(i64::try_from(days).expect("a 64-bit count of seconds spans fewer days")),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction != 0 {
        let _ = write!(text, ".{fraction:06}"); // writing to a string cannot fail
    }
    text
}

/// A date in days since 1970, in chrono's format.
fn date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!(
            "{}{:06}-{month:02}-{day:02}",
            if year < 0 { '-' } else { '+' },
            year.abs()
        ),
    }
}

/// A row as a JSON object, nulls included. Columns of types that JSON cannot represent are left out.
pub fn row_json(row: &RecordBatch) -> Vec<u8> {
    written_json(row).unwrap_or_else(|| {
        let columns = (0..row.num_columns()).filter(|column| {
            let alone = row.project(&[*column]);
            alone.is_ok_and(|alone| written_json(&alone).is_some())
        });
        let shown = row.project(&columns.collect::<Vec<_>>());
        shown
            .ok()
            .and_then(|shown| written_json(&shown))
            .unwrap_or(b"{}".to_vec())
    })
}

fn written_json(row: &RecordBatch) -> Option<Vec<u8>> {
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(ShowableJson))
        .build::<_, LineDelimited>(Vec::new());
    writer.write(row).and_then(|()| writer.finish()).ok()?;
    let mut bytes = writer.into_inner();
    while bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Some(bytes)
}

/// Makes Arrow's JSON writer use these texts for values that it cannot format.
#[derive(Debug)]
pub struct ShowableJson;

impl EncoderFactory for ShowableJson {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let texts = unshown_texts(array);
        Ok(texts.map(|texts| NullableEncoder::new(Box::new(TextEncoder(texts)), array.logical_nulls())))
    }
}

/// Writes texts as JSON.
pub struct TextEncoder(pub StringArray);

impl Encoder for TextEncoder {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self.0.value(row)).expect("a text is written to memory");
    }
}

/// Columns of every date, time and timestamp type with their least and greatest values, and lists and structs of some.
#[cfg(test)]
pub(crate) fn extremes() -> Vec<ArrayRef> {
    use arrow::array::{Int32Array, Int64Array, ListArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    let units = [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ];
    let zone: Option<Arc<str>> = Some("Europe/Berlin".into());
    let long: Vec<DataType> = units
        .iter()
        .flat_map(|unit| {
            [
                DataType::Timestamp(*unit, None),
                DataType::Timestamp(*unit, zone.clone()),
                DataType::Duration(*unit),
            ]
        })
        .chain([
            DataType::Date64,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Time64(TimeUnit::Nanosecond),
        ])
        .collect();
    let short = [
        DataType::Date32,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
    ];
    let longs: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX), Some(0)]));
    let shorts: ArrayRef = Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX), Some(0)]));
    let as_type = |array: &ArrayRef, of: &DataType| {
        let data = array.to_data().into_builder().data_type(of.clone()).build();
        arrow::array::make_array(data.expect("the same bytes"))
    };
    let mut all: Vec<ArrayRef> = long.iter().map(|of| as_type(&longs, of)).collect();
    all.extend(short.iter().map(|of| as_type(&shorts, of)));
    let nested: Vec<ArrayRef> = all
        .iter()
        .flat_map(|values| {
            let item = Arc::new(Field::new("item", values.data_type().clone(), true));
            let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths([2, 2]), values.clone(), None);
            let structs = StructArray::new(vec![item].into(), vec![values.clone()], None);
            [Arc::new(lists) as ArrayRef, Arc::new(structs)]
        })
        .collect();
    all.extend(nested);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    use chrono::NaiveDateTime;

    #[test]
    fn every_value_has_a_text_and_those_that_chrono_knows_have_its() {
        for column in extremes() {
            let texts = ValueTexts::new(column.as_ref()).unwrap();
            for row in 0..column.len() {
                let text = texts.text(row);
                assert!(!text.contains("ERROR") && !text.contains("a value of"), "{text}");
                assert_eq!(text.is_empty(), column.is_null(row), "{}: {text}", column.data_type());
            }
        }
        for days in [-719_163, -1, 0, 2_932_896, 95_026_236] {
            let array = Date32Array::from(vec![days]);
            assert_eq!(date(i64::from(days)), ValueTexts::new(&array).unwrap().text(0));
        }
        for micros in [
            -62_135_596_800_000_000,
            -1,
            0,
            253_402_300_799_999_999,
            8_210_266_876_799_000_000,
        ] {
            let array = TimestampMicrosecondArray::from(vec![micros]);
            let known: NaiveDateTime = array.value_as_datetime(0).unwrap();
            assert_eq!(moment(i128::from(micros)), format!("{known:?}"));
        }
    }

    #[test]
    fn a_column_whose_values_are_all_shown_is_left_to_arrow() {
        let near = TimestampMicrosecondArray::from(vec![Some(0), None, Some(253_402_300_799_999_999)]);
        assert_eq!(unshown_texts(&near), None);
        assert_eq!(unshown_texts(&Date32Array::from(vec![None, Some(1)])), None);
        let far = TimestampMicrosecondArray::from(vec![Some(0), None, Some(i64::MAX)]);
        let texts = unshown_texts(&far).unwrap();
        assert_eq!(
            texts.iter().collect::<Vec<_>>(),
            [Some("1970-01-01T00:00:00"), None, Some("+294247-01-10T04:00:54.775807")]
        );
    }
}
