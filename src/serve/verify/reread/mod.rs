//! Checks the run's decoders: reads the records of Bronze, the lake's raw layer, a second time with arrow's own
//! readers, and compares value by value.
//!
//! ```text
//! Bronze's records -+- crate::decode -------------------------------> an input's columns -+-> value by value
//!                   \- arrow-csv, arrow-json, parquet, arrow-avro --> fields --arrow-cast-/
//! ```
//!
//! 1. Only records that gave exactly one row, which is not a delete, are read again. Refused records and deletes are
//!    not checked.
//! 2. A value is compared if its column takes one field by name and unchanged: without a path, a `format`, texts that
//!    stand for null, BINARY or lists. Fields of CSV and JSON are read as texts, and arrow's cast converts them to the
//!    column's type.
//! 3. If arrow gives no value, this says nothing about our decoder: it accepts spellings that arrow does not, and
//!    arrow reads a quoted empty text as null. Such a value counts as not compared, unless it is null in both.
//! 4. [`unreadable`] says for which feeds arrow has no reader.

mod columnar;
mod csv;
mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options, take, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::decode::{ChangeOp, Payloads};
use crate::definition::{Feed, Format, Input};
use crate::lake::Lake;
use crate::repr::{Charset, SqlType};
use crate::serve::archive::Archive;
use crate::serve::history::PastDelivery;

/// The most differing values that are listed for an input.
const TOLD: usize = 20;

/// The result of reading an input again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Values that both read equally.
    pub equal: u64,
    /// Values for which arrow gives no value, for whatever reason.
    pub not_compared: u64,
    /// Values that differ.
    pub differing: u64,
    /// The first of the differing values.
    pub misread: Vec<Misread>,
    /// Feeds for whose records arrow has no reader, and why.
    pub unread: BTreeSet<(String, &'static str)>,
}

/// A value that arrow reads differently from the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// The feed, partition and offset, and the column.
    pub place: String,
    /// The value that the run decoded.
    pub decoded: String,
    /// The value that arrow reads.
    pub arrow: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: decoded as {}, by arrow as {}",
            self.place, self.decoded, self.arrow
        )
    }
}

/// A column of an input that takes one field unchanged.
struct PlainColumn<'a> {
    /// The column's index in the input.
    column: usize,
    /// Possible names of the field; the first one that exists counts.
    from: &'a [String],
    to: DataType,
}

/// Reads an input's records again, one delivery after another.
pub(super) struct Rereader<'a> {
    input: &'a Input,
    archive: Archive<'a>,
    reread: Reread,
}

impl<'a> Rereader<'a> {
    pub fn new(input: &'a Input, lake: &'a Lake) -> Rereader<'a> {
        Rereader {
            input,
            archive: Archive::new(lake, columnar::rows),
            reread: Reread::default(),
        }
    }

    pub fn finish(self) -> Reread {
        self.reread
    }

    /// Compares the decoded values of one delivery with those that arrow reads.
    pub async fn compare(&mut self, past: &PastDelivery) {
        let feed = self.input.feed(past.feed);
        if let Some(why) = unreadable(&feed) {
            self.reread.unread.insert((feed.name.clone(), why));
            return;
        }
        let columns = plain_columns(&feed);
        let rows = taken_rows(past);
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        match &past.decoded.raw.payloads {
            Payloads::Records { values, .. } => {
                let records: Vec<&[u8]> = rows.iter().map(|row| values.value(record(past, *row))).collect();
                let dialect = &feed.wire.text;
                let header = past.decoded.raw.header.as_deref();
                let is_csv = feed.format == Format::Csv;
                let read = |records: &[&[u8]]| match is_csv {
                    true => csv::fields(dialect, header, records),
                    false => json::fields(&columns, records),
                };
                in_halves(&records, &read, &mut |first, count, fields| {
                    self.judge(past, &columns, &rows[first..first + count], fields);
                });
            }
            Payloads::Columns { path, batch, .. } => {
                let raw = &past.decoded.raw;
                let first = raw.offsets[0].saturating_sub(raw.place.base);
                let read = self
                    .archive
                    .rows(feed.format, path, first, batch.num_rows() as u64)
                    .await;
                let records = UInt32Array::from_iter_values(rows.iter().map(|row| past.decoded.record[*row as usize]));
                let fields = read.ok().and_then(|read| take_record_batch(&read, &records).ok());
                self.judge(past, &columns, &rows, fields.as_ref());
            }
        }
    }

    /// Compares decoded rows with the same rows as arrow reads them. `fields`: none if arrow does not read them.
    fn judge(&mut self, past: &PastDelivery, columns: &[PlainColumn<'_>], rows: &[u32], fields: Option<&RecordBatch>) {
        let Some(fields) = fields else {
            self.reread.not_compared += (rows.len() * columns.len()) as u64;
            return;
        };
        let positions = UInt32Array::from(rows.to_vec());
        for column in columns {
            let decoded = take(past.decoded.rows.column(column.column), &positions, None);
            let decoded = decoded.expect("rows of the batch are taken");
            let read = field(fields, column.from).and_then(|field| typed(field, &column.to));
            match read {
                Some(read) => self.judge_column(past, column, rows, &comparable(&decoded), &comparable(&read)),
                None => self.reread.not_compared += rows.len() as u64,
            }
        }
    }

    fn judge_column(
        &mut self,
        past: &PastDelivery,
        column: &PlainColumn<'_>,
        rows: &[u32],
        decoded: &ArrayRef,
        read: &ArrayRef,
    ) {
        let differs = distinct(decoded, read).expect("columns of one type are compared");
        for (n, row) in rows.iter().enumerate() {
            match (differs.value(n), read.is_null(n)) {
                (false, _) => self.reread.equal += 1,
                (true, true) => self.reread.not_compared += 1,
                (true, false) => {
                    self.reread.differing += 1;
                    if self.reread.misread.len() < TOLD {
                        let offset = past.decoded.raw.offsets[record(past, *row)];
                        self.reread.misread.push(Misread {
                            place: format!(
                                "{} {} offset {offset}, column {}",
                                self.input.feed_name(past.feed),
                                past.partition,
                                self.input.columns[column.column].name
                            ),
                            decoded: shown(decoded, n),
                            arrow: shown(read, n),
                        });
                    }
                }
            }
        }
    }
}

/// The number of the record that a row came from.
fn record(past: &PastDelivery, row: u32) -> usize {
    past.decoded.record[row as usize] as usize
}

/// Why arrow has no reader for a feed's records; none if it has one.
fn unreadable(feed: &Feed) -> Option<&'static str> {
    let text = &feed.wire.text;
    let is_file = feed.kind.contract().files().is_some();
    match feed.format {
        Format::Csv if text.charset != Charset::Utf8 => Some("its text is not UTF-8"),
        Format::Csv if text.quote.is_none() || text.trim || text.ignore_case => {
            Some("its CSV has no quotes, or blanks or letters that do not count")
        }
        Format::Csv | Format::Ndjson | Format::Json | Format::Parquet => None,
        Format::Avro if is_file => None,
        Format::DebeziumJson | Format::DebeziumAvro | Format::CanalJson | Format::MaxwellJson => {
            Some("its records are envelopes")
        }
        Format::Avro | Format::JsonSchema | Format::Protobuf => Some("its records are behind schema ids"),
        Format::Raw => Some("its records are not decoded"),
    }
}

fn plain_columns(feed: &Feed) -> Vec<PlainColumn<'_>> {
    let columns = feed.columns.iter().enumerate().filter(|(_, column)| {
        column.format.is_empty()
            && column.null.is_empty()
            && !matches!(column.sql_type, SqlType::Binary | SqlType::List(_))
            && !column.from.iter().any(|name| name.contains('.'))
    });
    let columns = columns.map(|(number, column)| PlainColumn {
        column: number,
        from: &column.from,
        to: column.sql_type.arrow(),
    });
    columns.collect()
}

/// Rows that are not deletes and are their record's only row. The rows of one record are adjacent.
fn taken_rows(past: &PastDelivery) -> Vec<u32> {
    let decoded = &past.decoded;
    let records = &decoded.record;
    let is_alone = |row: usize| {
        let same = |other: Option<&u32>| other == Some(&records[row]);
        !same(row.checked_sub(1).and_then(|before| records.get(before))) && !same(records.get(row + 1))
    };
    let rows = (0..records.len()).filter(|row| decoded.ops[*row] == ChangeOp::Upsert && is_alone(*row));
    rows.map(|row| row as u32).collect()
}

/// Reads all records at once; if that fails, halves them, until a record that cannot be read is alone. `each` gets the
/// number of the first record, how many there are, and their fields.
fn in_halves(
    records: &[&[u8]],
    read: &impl Fn(&[&[u8]]) -> Option<RecordBatch>,
    each: &mut impl FnMut(usize, usize, Option<&RecordBatch>),
) {
    let mut pending = vec![(0, records.len())];
    while let Some((first, count)) = pending.pop() {
        match read(&records[first..first + count]) {
            None if count > 1 => pending.extend([(first + count / 2, count - count / 2), (first, count / 2)]),
            fields => each(first, count, fields.as_ref()),
        }
    }
}

/// The field with the first of these names that exists; none if two fields have that name.
fn field<'a>(fields: &'a RecordBatch, names: &[String]) -> Option<&'a ArrayRef> {
    let schema = fields.schema_ref();
    let called = |name: &String| {
        let mut named = (0..schema.fields().len()).filter(|n| schema.field(*n).name() == name);
        let first = named.next();
        first.map(|first| (first, named.next().is_none()))
    };
    let (first, is_alone) = names.iter().find_map(called)?;
    is_alone.then(|| fields.column(first))
}

/// A field as values of a column's type, null where arrow's cast fails. None if our decoders read the field's type by
/// rules of our own.
fn typed(field: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    let from = match field.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let is_plain = match (from, to) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => true,
        (from, to) if from == to => true,
        (from, DataType::Int32 | DataType::Int64 | DataType::Decimal128(..)) => {
            from.is_integer() || (from.is_decimal() && to.is_decimal())
        }
        (DataType::Float32, DataType::Float64) => true,
        (DataType::Timestamp(..), DataType::Timestamp(..)) => true,
        _ => false,
    };
    if !is_plain {
        return None;
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    if let DataType::Timestamp(_, Some(zone)) = from {
        // The same moment in UTC, whatever time zone it is shown in.
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.clone()));
        let micros = cast_with_options(field, &micros, &options).ok()?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        return Some(Arc::new(micros.clone().with_timezone_opt(None::<&str>)));
    }
    cast_with_options(field, to, &options).ok()
}

/// Doubles with a single NaN and a single zero, as in SQL.
fn comparable(values: &ArrayRef) -> ArrayRef {
    let Some(doubles) = values.as_primitive_opt::<Float64Type>() else {
        return values.clone();
    };
    let same = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
    let same: Float64Array = doubles.unary(same);
    Arc::new(same)
}

fn shown(values: &ArrayRef, row: usize) -> String {
    if values.is_null(row) {
        return "NULL".to_string();
    }
    let options = FormatOptions::default();
    ArrayFormatter::try_new(values, &options).map_or_else(|e| e.to_string(), |shown| shown.value(row).to_string())
}
