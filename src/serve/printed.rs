//! Prints rows as aligned columns, CSV or JSON.
//!
//! Arrow's writers do most of it. This module encodes what they refuse or misrepresent: lists, structs and maps in CSV
//! (as JSON text), doubles that are not finite in JSON (as the texts "NaN", "Infinity", "-Infinity"), maps whose keys
//! are not texts (as objects, with the keys' printed form), values of JSON functions, and values that they cannot show
//! at all ([`crate::repr::unshown_texts`]). In a table for people, no part of a value can control the terminal.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, MapArray, RecordBatch, StringArray, StringBuilder, UnionArray,
};
use arrow::csv::WriterBuilder as CsvWriter;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{ArrayWriter, NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder as JsonWriter};
use arrow::util::pretty::pretty_format_batches_with_schema;

use crate::repr::{TextEncoder, ValueTexts, unshown_texts};
use crate::shown::shown_lines;

/// The output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFormat {
    /// Aligned columns for people.
    Table,
    /// CSV with a header line.
    Csv,
    /// One JSON array of objects; nulls are written.
    Json,
}

/// Prints rows as text, which always ends in a newline.
///
/// # Errors
/// A column's type has no text form.
pub fn render(schema: &SchemaRef, batches: &[RecordBatch], format: PrintFormat) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    match format {
        PrintFormat::Table => {
            let names = schema
                .fields()
                .iter()
                .map(|field| Field::new(shown_lines(field.name()), DataType::Utf8, true));
            let names: SchemaRef = Arc::new(Schema::new(names.collect::<Vec<_>>()));
            let rows = batches
                .iter()
                .map(|batch| cells(batch, &names))
                .collect::<Result<Vec<_>, _>>()?;
            let table = pretty_format_batches_with_schema(names, &rows)?;
            return Ok(format!("{table}\n"));
        }
        PrintFormat::Csv => {
            let header = RecordBatch::new_empty(schema.clone());
            let mut writer = CsvWriter::new().with_header(true).build(&mut bytes);
            writer.write(&flat(&header)?)?;
            for batch in batches {
                writer.write(&flat(batch)?)?;
            }
        }
        PrintFormat::Json => {
            let options = JsonWriter::new()
                .with_explicit_nulls(true)
                .with_encoder_factory(Arc::new(Plain));
            let mut writer: ArrayWriter<_> = options.build(&mut bytes);
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
            drop(writer);
            if bytes.is_empty() {
                bytes.extend_from_slice(b"[]");
            }
            bytes.push(b'\n');
        }
    }
    Ok(String::from_utf8(bytes).expect("Arrow's writers write UTF-8"))
}

/// Every value as text that is safe to show. Line breaks in a value stay, because the table's frame handles them.
fn cells(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| {
        let values = ValueTexts::new(column.as_ref())?;
        let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| shown_lines(&values.text(row))));
        Ok(Arc::new(texts.collect::<StringArray>()) as ArrayRef)
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, ArrowError>>()?)
}

/// The rows with every column in a type that CSV supports.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| match field.data_type() {
            nested if nested.is_nested() => json_texts(field, column),
            _ => Ok(unshown_texts(column.as_ref()).map_or_else(|| column.clone(), |texts| Arc::new(texts) as ArrayRef)),
        });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let fields = schema.fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}

/// A column's values as JSON texts.
fn json_texts(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(Plain));
    let mut encoder = make_encoder(field, column, &options)?;
    let mut texts = StringBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        texts.append_value(std::str::from_utf8(&bytes).expect("JSON is UTF-8"));
    }
    Ok(Arc::new(texts.finish()))
}

/// Encodes the values that Arrow's JSON writer does not.
#[derive(Debug)]
struct Plain;

impl EncoderFactory for Plain {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(Doubles(array.as_primitive())),
            DataType::Float32 => Box::new(Floats(array.as_primitive())),
            temporal if temporal.is_temporal() => match unshown_texts(array) {
                Some(texts) => Box::new(TextEncoder(texts)),
                None => return Ok(None),
            },
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Ok(None);
                };
                let map = array.as_map();
                Box::new(Entries {
                    map,
                    keys: ValueTexts::new(map.keys().as_ref())?,
                    values: make_encoder(&fields[1], map.values(), options)?,
                })
            }
            DataType::Union(fields, _) => {
                let union = array
                    .as_any()
                    .downcast_ref::<UnionArray>()
                    .expect("its type is a union");
                let members = fields.iter().map(|(id, field)| {
                    // Unions of JSON functions store lists and objects as JSON text already.
                    let raw = matches!(field.name().as_str(), "array" | "object");
                    let encoder = make_encoder(field, union.child(id).as_ref(), options)?;
                    let text = raw.then(|| union.child(id).as_string_opt::<i32>()).flatten();
                    Ok(Member { id, encoder, text })
                });
                Box::new(Members {
                    union,
                    members: members.collect::<Result<Vec<_>, ArrowError>>()?,
                })
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.logical_nulls())))
    }
}

fn text(value: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a text is written to memory");
}

/// Writes a number, or the text for a double that is not finite.
fn double(value: f64, out: &mut Vec<u8>) {
    match value {
        value if value.is_nan() => text("NaN", out),
        f64::INFINITY => text("Infinity", out),
        f64::NEG_INFINITY => text("-Infinity", out),
        value => serde_json::to_writer(out, &value).expect("a number is written to memory"),
    }
}

struct Doubles<'a>(&'a Float64Array);

impl Encoder for Doubles<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        double(self.0.value(row), out);
    }
}

struct Floats<'a>(&'a Float32Array);

impl Encoder for Floats<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match self.0.value(row) {
            value if value.is_finite() => serde_json::to_writer(out, &value).expect("a number is written to memory"),
            value => double(f64::from(value), out),
        }
    }
}

struct Entries<'a> {
    map: &'a MapArray,
    keys: ValueTexts<'a>,
    values: NullableEncoder<'a>,
}

impl Encoder for Entries<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let offsets = self.map.value_offsets();
        out.push(b'{');
        for entry in offsets[row] as usize..offsets[row + 1] as usize {
            if entry > offsets[row] as usize {
                out.push(b',');
            }
            text(&self.keys.text(entry), out);
            out.push(b':');
            match self.values.is_null(entry) {
                true => out.extend_from_slice(b"null"),
                false => self.values.encode(entry, out),
            }
        }
        out.push(b'}');
    }
}

struct Member<'a> {
    id: i8,
    encoder: NullableEncoder<'a>,
    text: Option<&'a StringArray>,
}

struct Members<'a> {
    union: &'a UnionArray,
    members: Vec<Member<'a>>,
}

impl Encoder for Members<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let (id, at) = (self.union.type_id(row), self.union.value_offset(row));
        let member = self.members.iter_mut().find(|member| member.id == id);
        let member = member.expect("a value is of one of its union's types");
        match member.text {
            _ if member.encoder.is_null(at) => out.extend_from_slice(b"null"),
            Some(texts) => out.extend_from_slice(texts.value(at).as_bytes()),
            None => member.encoder.encode(at, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Builder, ListBuilder, MapBuilder, TimestampMicrosecondArray};

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    fn printed(batch: &RecordBatch, format: PrintFormat) -> String {
        render(&batch.schema(), std::slice::from_ref(batch), format).unwrap()
    }

    #[test]
    fn lists_and_maps_are_json_in_csv() {
        let mut lists = ListBuilder::new(arrow::array::Float64Builder::new());
        lists.values().append_value(1.5);
        lists.values().append_null();
        lists.values().append_value(f64::NAN);
        lists.append(true);
        lists.append(false);
        let mut maps = MapBuilder::new(None, Int64Builder::new(), arrow::array::StringBuilder::new());
        maps.keys().append_value(7);
        maps.values().append_value("a\"b");
        maps.append(true).unwrap();
        maps.append(true).unwrap();
        let rows = batch(vec![("l", Arc::new(lists.finish())), ("m", Arc::new(maps.finish()))]);
        assert_eq!(
            printed(&rows, PrintFormat::Csv),
            "l,m\n\"[1.5,null,\"\"NaN\"\"]\",\"{\"\"7\"\":\"\"a\\\"\"b\"\"}\"\n,{}\n"
        );
        assert_eq!(
            printed(&rows, PrintFormat::Json),
            "[{\"l\":[1.5,null,\"NaN\"],\"m\":{\"7\":\"a\\\"b\"}},{\"l\":null,\"m\":{}}]\n"
        );
    }

    #[test]
    fn nothing_of_a_value_or_a_name_acts_on_the_terminal() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["\u{1b}[2Jx\r", "two\nlines"]));
        let mut lists = ListBuilder::new(arrow::array::StringBuilder::new());
        lists.values().append_value("\u{9b}31m");
        lists.append(true);
        lists.append(false);
        let rows = batch(vec![("a\u{7}", texts), ("l", Arc::new(lists.finish()))]);
        let table = printed(&rows, PrintFormat::Table);
        let acts = table.chars().filter(|c| c.is_control() && *c != '\n');
        assert_eq!(acts.count(), 0, "{table}");
        assert!(table.contains("\\u{1b}[2Jx\\r"), "{table}");
        assert!(table.contains("| two ") && table.contains("| lines "), "{table}");
    }

    /// `ERROR: ...` was printed for values that Arrow cannot show: dates beyond its calendar, and lists of such dates.
    #[test]
    fn no_value_of_any_type_is_printed_as_an_error() {
        for format in [PrintFormat::Table, PrintFormat::Csv, PrintFormat::Json] {
            for column in crate::repr::extremes() {
                let text = printed(&batch(vec![("x", column.clone())]), format);
                assert!(!text.contains("ERROR"), "{}: {text}", column.data_type());
            }
        }
        let days: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![i32::MAX, i32::MIN, 0]));
        assert_eq!(
            printed(&batch(vec![("d", days)]), PrintFormat::Csv),
            "d\n+5881580-07-11\n-5877641-06-23\n1970-01-01\n"
        );
    }

    #[test]
    fn doubles_and_moments_that_json_does_not_know_are_texts() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY, -0.0, f64::NEG_INFINITY]));
        let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX, 0, i64::MIN]));
        let rows = batch(vec![("x", doubles), ("t", moments)]);
        assert_eq!(
            printed(&rows, PrintFormat::Json),
            "[{\"x\":\"Infinity\",\"t\":\"+294247-01-10T04:00:54.775807\"},\
             {\"x\":-0.0,\"t\":\"1970-01-01T00:00:00\"},\
             {\"x\":\"-Infinity\",\"t\":\"-290308-12-21T19:59:05.224192\"}]\n"
        );
        assert_eq!(
            printed(&rows, PrintFormat::Csv),
            "x,t\ninf,+294247-01-10T04:00:54.775807\n-0.0,1970-01-01T00:00:00\n-inf,-290308-12-21T19:59:05.224192\n"
        );
        assert!(printed(&rows, PrintFormat::Table).contains("| inf  | +294247-01-10T04:00:54.775807 |"));
    }
}
