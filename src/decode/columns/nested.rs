//! Writes nested values of Arrow columns as JSON text, for a VARCHAR that takes a list, a struct or a map.
//!
//! - A struct is an object with all of its fields; a null field is `null`. A map is an object: its keys are written
//!   as strings, whatever their type in the file, and a null value is `null`. A list is an array.
//! - Numbers are as in the file, decimals with all digits. JSON has no NaN and no infinities: they are the strings
//!   `"NaN"`, `"Infinity"` and `"-Infinity"`.
//! - Bytes are base64, and UUIDs have their usual text. Dates, times and points in time are ISO 8601.
//!
//! arrow-json's encoder is not used, because it omits null fields and entries, writes `null` for NaN, and writes
//! `ERROR: ...` for a point in time that it cannot format.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;

use crate::decode::columns::uuids::{is_uuid, text as uuid_text};
use crate::decode::formats::avro::{write_base64, write_float, write_text};
use crate::decode::formats::parquet::{INT96, int96_nanos};

/// Writes the values of one array as JSON.
pub(super) struct JsonWriter<'a> {
    array: &'a dyn Array,
    form: Form<'a>,
}

/// How the values of an array are written.
enum Form<'a> {
    Null,
    Boolean(&'a BooleanArray),
    /// As Arrow formats it.
    Shown(ArrayFormatter<'a>),
    /// The same in quotes; the text never needs escapes.
    Quoted(ArrayFormatter<'a>),
    /// Points in time of INT96.
    Int96(Box<dyn Fn(usize) -> IntervalMonthDayNano + 'a>),
    /// A floating-point number; the formatter is for finite ones.
    Float(Box<dyn Fn(usize) -> f64 + 'a>, ArrayFormatter<'a>),
    Text(Box<dyn Fn(usize) -> &'a str + 'a>),
    Bytes(Box<dyn Fn(usize) -> &'a [u8] + 'a>),
    Uuid(&'a FixedSizeBinaryArray),
    /// The items, and the range of them in each list.
    List(Box<JsonWriter<'a>>, Box<dyn Fn(usize) -> (usize, usize) + 'a>),
    /// The name and the values of each field.
    Struct(Vec<(&'a str, JsonWriter<'a>)>),
    /// Keys and values, and the offsets of each map's entries.
    Map(Box<JsonWriter<'a>>, Box<JsonWriter<'a>>, &'a [i32]),
    /// The distinct values, and the index of each row's value.
    Dictionary(Box<JsonWriter<'a>>, Vec<Option<usize>>),
}

impl<'a> JsonWriter<'a> {
    /// A writer for an array.
    ///
    /// # Errors
    /// The array's type has no representation in JSON.
    pub fn new(array: &'a dyn Array) -> Result<Self, ArrowError> {
        use DataType as T;
        const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
        let shown = || ArrayFormatter::try_new(array, &OPTIONS);
        let inner = |field: &Field, array: &'a ArrayRef| JsonWriter::of_field(field, array).map(Box::new);
        macro_rules! ends {
            ($lists:expr) => {{
                let offsets = $lists.value_offsets();
                Box::new(move |row: usize| (offsets[row] as usize, offsets[row + 1] as usize))
            }};
        }
        macro_rules! float {
            ($type:ty) => {{
                let values = array.as_primitive::<$type>();
                Form::Float(Box::new(move |row| values.value(row).into()), shown()?)
            }};
        }
        macro_rules! values {
            ($form:path, $values:expr) => {{
                let values = $values;
                $form(Box::new(move |row| values.value(row)))
            }};
        }
        let form = match array.data_type() {
            T::Null => Form::Null,
            T::Boolean => Form::Boolean(array.as_boolean()),
            T::Float16 => float!(Float16Type),
            T::Float32 => float!(Float32Type),
            T::Float64 => float!(Float64Type),
            from if *from == INT96 => values!(Form::Int96, array.as_primitive::<IntervalMonthDayNanoType>()),
            from if from.is_numeric() => Form::Shown(shown()?),
            from if from.is_temporal() => Form::Quoted(shown()?),
            T::Utf8 => values!(Form::Text, array.as_string::<i32>()),
            T::LargeUtf8 => values!(Form::Text, array.as_string::<i64>()),
            T::Utf8View => values!(Form::Text, array.as_string_view()),
            T::Binary => values!(Form::Bytes, array.as_binary::<i32>()),
            T::LargeBinary => values!(Form::Bytes, array.as_binary::<i64>()),
            T::BinaryView => values!(Form::Bytes, array.as_binary_view()),
            T::FixedSizeBinary(_) => values!(Form::Bytes, array.as_fixed_size_binary()),
            T::List(item) => Form::List(
                inner(item, array.as_list::<i32>().values())?,
                ends!(array.as_list::<i32>()),
            ),
            T::LargeList(item) => Form::List(
                inner(item, array.as_list::<i64>().values())?,
                ends!(array.as_list::<i64>()),
            ),
            T::FixedSizeList(item, width) => {
                let width = *width as usize;
                let lists = array.as_fixed_size_list();
                Form::List(
                    inner(item, lists.values())?,
                    Box::new(move |row| (row * width, (row + 1) * width)),
                )
            }
            T::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let columns =
                    columns.map(|(field, column)| Ok((field.name().as_str(), JsonWriter::of_field(field, column)?)));
                Form::Struct(columns.collect::<Result<_, ArrowError>>()?)
            }
            T::Map(..) => {
                let maps = array.as_map();
                let entries = maps.entries().fields();
                Form::Map(
                    inner(&entries[0], maps.keys())?,
                    inner(&entries[1], maps.values())?,
                    maps.value_offsets(),
                )
            }
            T::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let keys = match dictionary.values().is_empty() {
                    true => vec![None; array.len()],
                    false => {
                        let keys = dictionary.normalized_keys().into_iter().enumerate();
                        keys.map(|(row, key)| array.is_valid(row).then_some(key)).collect()
                    }
                };
                Form::Dictionary(Box::new(JsonWriter::new(dictionary.values().as_ref())?), keys)
            }
            other => {
                return Err(ArrowError::NotYetImplemented(format!("{other} has no form in JSON")));
            }
        };
        Ok(JsonWriter { array, form })
    }

    /// A writer for an array with its field, which may mark it as UUIDs.
    fn of_field(field: &Field, array: &'a ArrayRef) -> Result<Self, ArrowError> {
        if !is_uuid(field) {
            return JsonWriter::new(array.as_ref());
        }
        let form = Form::Uuid(array.as_fixed_size_binary());
        Ok(JsonWriter {
            array: array.as_ref(),
            form,
        })
    }

    /// Appends the value of a row.
    ///
    /// # Errors
    /// The value cannot be formatted: a point in time beyond the calendar.
    pub fn write(&self, row: usize, out: &mut String) -> Result<(), ArrowError> {
        if self.array.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match &self.form {
            Form::Null => out.push_str("null"),
            Form::Boolean(values) => out.push_str(if values.value(row) { "true" } else { "false" }),
            Form::Shown(values) => values.value(row).write(out)?,
            Form::Quoted(values) => {
                out.push('"');
                values.value(row).write(out)?;
                out.push('"');
            }
            Form::Int96(value) => {
                out.push('"');
                write_int96(value(row), out)?;
                out.push('"');
            }
            Form::Float(value, shown) => match value(row) {
                finite if finite.is_finite() => shown.value(row).write(out)?,
                other => write_float(out, other),
            },
            Form::Text(value) => write_text(out, value(row)),
            Form::Bytes(value) => write_base64(out, value(row)),
            Form::Uuid(values) => write_text(out, &uuid_text(values, row)),
            Form::List(values, ends) => {
                let (start, end) = ends(row);
                out.push('[');
                for item in start..end {
                    if item > start {
                        out.push(',');
                    }
                    values.write(item, out)?;
                }
                out.push(']');
            }
            Form::Struct(fields) => {
                out.push('{');
                for (n, (name, values)) in fields.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    write_text(out, name);
                    out.push(':');
                    values.write(row, out)?;
                }
                out.push('}');
            }
            Form::Map(keys, values, offsets) => {
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                out.push('{');
                for entry in start..end {
                    if entry > start {
                        out.push(',');
                    }
                    keys.write_key(entry, out)?;
                    out.push(':');
                    values.write(entry, out)?;
                }
                out.push('}');
            }
            Form::Dictionary(values, keys) => match keys[row] {
                Some(key) => values.write(key, out)?,
                None => out.push_str("null"),
            },
        }
        Ok(())
    }

    /// Appends the value of a row as a key: a string that contains the value.
    fn write_key(&self, row: usize, out: &mut String) -> Result<(), ArrowError> {
        let start = out.len();
        self.write(row, out)?;
        if !out[start..].starts_with('"') {
            let value = out.split_off(start);
            write_text(out, &value);
        }
        Ok(())
    }
}

/// Passes each value of an array, as JSON text with its row, to `each`; none for a null.
///
/// # Errors
/// The array's type has no representation in JSON.
pub(super) fn texts(
    array: &ArrayRef,
    mut each: impl FnMut(usize, Option<Result<&str, ArrowError>>),
) -> Result<(), ArrowError> {
    let array = plain(array)?;
    let writer = JsonWriter::new(array.as_ref())?;
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            each(row, None);
            continue;
        }
        text.clear();
        let written = writer.write(row, &mut text);
        each(row, Some(written.map(|()| text.as_str())));
    }
    Ok(())
}

/// Converts list views to lists, because a view may have its items in any order.
fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::ListView(item) => cast(array, &DataType::List(Arc::clone(item))),
        DataType::LargeListView(item) => cast(array, &DataType::LargeList(Arc::clone(item))),
        _ => Ok(Arc::clone(array)),
    }
}

/// Writes values of an array that is not nested as text.
type Show<'a> = Box<dyn Fn(usize, &mut String) -> Result<(), ArrowError> + 'a>;

/// A function that writes values that are not nested as text, as [`ArrayFormatter`] does.
pub(super) fn shown<'a>(array: &'a dyn Array) -> Result<Show<'a>, ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
    if *array.data_type() == INT96 {
        let values = array.as_primitive::<IntervalMonthDayNanoType>();
        return Ok(Box::new(move |row: usize, out: &mut String| {
            write_int96(values.value(row), out)
        }));
    }
    let formatter = ArrayFormatter::try_new(array, &OPTIONS)?;
    Ok(Box::new(move |row, out| {
        formatter.value(row).write(out as &mut dyn Write)
    }))
}

/// Writes a point in time of INT96 in the format that [`ArrayFormatter`] has for other types.
fn write_int96(value: IntervalMonthDayNano, out: &mut String) -> Result<(), ArrowError> {
    let nanos = int96_nanos(value);
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let moment = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, rest as u32))
        .ok_or_else(|| ArrowError::CastError(format!("{nanos} ns lie beyond the calendar")))?;
    write!(out, "{:?}", moment.naive_utc()).expect("writing to memory does not fail");
    Ok(())
}
