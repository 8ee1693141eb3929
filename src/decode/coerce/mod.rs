//! Converts columns of cells to Arrow arrays. A value that does not fit its column's type becomes a null and a
//! [`CellFault`]; no value affects another.
//!
//! - BOOLEAN: `true`/`false`, `t`/`f`, `yes`/`no`, `y`/`n`, `on`/`off` in any case, `1`/`0`; or the column's words.
//! - INT, BIGINT, DECIMAL: exact, or refused. A number in a string counts as a number, by the column's patterns if it
//!   has any. In CSV, a number that lost digits in a spreadsheet is refused: see `spreadsheet`.
//! - DATE: ISO or the column's formats; a point in time only if it is a midnight.
//! - TIMESTAMP: ISO or the column's formats; zones are converted to UTC. For fractions below a microsecond see
//!   `temporal`.
//! - VARCHAR: text unchanged; numbers, objects and arrays as written; decimals with their point.
//! - BINARY: base64, or hexadecimal after `\x`; from binary formats the bytes.
//! - T[]: a JSON array (also inside a string).

pub(super) mod number;
mod spreadsheet;
pub(super) mod temporal;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder,
    Int64Builder, ListArray, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use spreadsheet::{is_error, lacks_digits};

use crate::decode::cell::{Cell, CellKind, Datum, Meaning};
use crate::decode::scan;
use crate::decode::target::{Encoding, EpochUnit, Target};
use crate::repr::SqlType;

/// Why a text cannot be converted to a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParseFailure {
    /// It does not have the form of such a value.
    Not,
    /// It is too large.
    Beyond,
    /// It has more decimals than the type.
    TooFine,
    /// Another reason.
    Custom(&'static str),
}

/// A value that does not fit its column's type.
#[derive(Debug)]
pub(super) struct CellFault {
    /// The row in the column of cells.
    pub row: u32,
    /// The message: column, value, type, remedy.
    pub reason: String,
}

/// Converts cells to the target's Arrow type, with a null where a value does not fit.
pub(super) fn column(target: &Target, cells: &[Cell<'_>], faults: &mut Vec<CellFault>) -> ArrayRef {
    let rows = cells.len();
    let mut each = ColumnConversion { target, cells, faults };
    match &target.sql_type {
        SqlType::Boolean => {
            let mut out = BooleanBuilder::with_capacity(rows);
            let quick = |cell: &Cell<'_>| match cell.kind {
                CellKind::True => Some(Ok(true)),
                CellKind::False => Some(Ok(false)),
                _ => None,
            };
            let read = |_: &Cell<'_>, text: &str| boolean(target, text);
            each.run(quick, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Int => {
            let mut out = Int32Builder::with_capacity(rows);
            let read = |cell: &Cell<'_>, text: &str| {
                i32::try_from(integer(target, cell, text)?).map_err(|_| ParseFailure::Beyond)
            };
            let quick =
                |cell: &Cell<'_>| Some(whole(cell)?.and_then(|n| i32::try_from(n).map_err(|_| ParseFailure::Beyond)));
            each.run(quick, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::BigInt => {
            let mut out = Int64Builder::with_capacity(rows);
            let read = |cell: &Cell<'_>, text: &str| integer(target, cell, text);
            each.run(whole, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Double => {
            let mut out = Float64Builder::with_capacity(rows);
            let read = |cell: &Cell<'_>, text: &str| double(target, cell, text);
            each.run(real, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Decimal(precision, scale) => {
            let mut out = Decimal128Builder::with_capacity(rows).with_data_type(target.arrow.clone());
            let read = |cell: &Cell<'_>, text: &str| match as_written(target, cell, text, |plain| {
                number::decimal(plain, *precision, *scale)
            }) {
                Some(read) => read,
                None => decimal(cell, text, *precision, *scale, target.encoding),
            };
            let quick = |cell: &Cell<'_>| exact(cell, *precision, *scale, target.encoding);
            each.run(quick, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Date => {
            let mut out = Date32Builder::with_capacity(rows);
            let read = |cell: &Cell<'_>, text: &str| temporal::day(point(target, cell, text)?);
            let quick = |cell: &Cell<'_>| Some(counted(target, cell)?.and_then(temporal::day));
            each.run(quick, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Timestamp => {
            let mut out = TimestampMicrosecondBuilder::with_capacity(rows);
            let read = |cell: &Cell<'_>, text: &str| point(target, cell, text);
            each.run(|cell| counted(target, cell), read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::Varchar => {
            let bytes = cells.iter().map(|c| c.text().len()).sum();
            let mut out = StringBuilder::with_capacity(rows, bytes);
            each.run_text(|text| out.append_option(text));
            Arc::new(out.finish())
        }
        SqlType::Binary => {
            let mut out = BinaryBuilder::with_capacity(rows, rows * 16);
            let read = |cell: &Cell<'_>, text: &str| match (cell.meaning, target.encoding) {
                (Meaning::Uuid, Encoding::Usual | Encoding::Hex | Encoding::Base64) => {
                    let uuid = uuid::Uuid::try_parse(text).map_err(|_| ParseFailure::Not)?;
                    Ok(uuid.as_bytes().to_vec())
                }
                _ => bytes(text, target.encoding),
            };
            let quick = |cell: &Cell<'_>| match cell.datum {
                Datum::Bytes(bytes) => Some(Ok(bytes.to_vec())),
                _ => None,
            };
            each.run(quick, read, |value| out.append_option(value));
            Arc::new(out.finish())
        }
        SqlType::List(_) => each.lists(),
    }
}

/// The message for a value that does not fit its column.
pub(super) fn reason(target: &Target, text: &str, why: ParseFailure) -> String {
    let Target { name, sql_type, .. } = target;
    let shown = shown(text);
    match why {
        ParseFailure::Not
            if target.of_csv
                && let Some(what) = spreadsheet::explain(target, text) =>
        {
            format!("column {name:?}: {shown} is not a {sql_type}; {what}")
        }
        ParseFailure::Not => {
            // A text without a digit may be a word for a missing value.
            let may_mean_null = target.nullable && !text.contains(|c: char| c.is_ascii_digit());
            let remedy = match sql_type {
                SqlType::Date | SqlType::Timestamp if temporal::names_no_day(text, &target.patterns) => {
                    "the calendar has no such day: correct the record"
                }
                SqlType::Date | SqlType::Timestamp if target.patterns.is_empty() => {
                    "write ISO 8601, or give the column a `format`"
                }
                SqlType::Date | SqlType::Timestamp if may_mean_null => {
                    "add its pattern to the column's `format`, or list it in the column's `null`"
                }
                SqlType::Date | SqlType::Timestamp => "add its pattern to the column's `format`",
                SqlType::Boolean if !target.flags.is_empty() => "add its words to the column's `format`, as in \"Y|N\"",
                SqlType::Boolean if !text.is_empty() => {
                    "say what is true by the column's `format`, as in \"ja|nein\", or correct the record"
                }
                _ if !target.numbers.is_empty() && may_mean_null => {
                    "add its pattern to the column's `format`, list it in the column's `null`, or correct the record"
                }
                _ if !target.numbers.is_empty() => "add its pattern to the column's `format`, or correct the record",
                SqlType::Int | SqlType::BigInt | SqlType::Double | SqlType::Decimal(..) if looks_written(text) => {
                    "say how its numbers are written by the column's `format`, as in \"#,##0.00\" or \"#.##0,00 €\""
                }
                _ if target.nullable => {
                    "correct the record, list it in the column's `null`, or declare the column VARCHAR"
                }
                _ => "correct the record, or declare the column VARCHAR",
            };
            format!("column {name:?}: {shown} is not a {sql_type}; {remedy}")
        }
        ParseFailure::Beyond if matches!(sql_type, SqlType::Date | SqlType::Timestamp) => {
            let other = if text.parse::<i128>().is_ok() {
                "VARCHAR or BIGINT"
            } else {
                "VARCHAR"
            };
            format!(
                "column {name:?}: {shown} does not fit into {sql_type}, which holds the years 1 to 9999; correct the record, or declare {other}"
            )
        }
        ParseFailure::Beyond if matches!(sql_type, SqlType::Double) => format!(
            "column {name:?}: {shown} is out of range for a DOUBLE, which holds 0 and what is between 4.9e-324 and 1.8e308; correct the \
             record, or declare the column VARCHAR"
        ),
        ParseFailure::Beyond => format!("column {name:?}: {shown} does not fit into {sql_type}; declare a wider type"),
        ParseFailure::TooFine if matches!(sql_type, SqlType::Int | SqlType::BigInt) => {
            format!("column {name:?}: {shown} is no whole number, which {sql_type} holds; declare a DECIMAL, or DOUBLE")
        }
        ParseFailure::TooFine => format!(
            "column {name:?}: {shown} has more digits behind the point than {sql_type} holds; declare a larger scale, or DOUBLE"
        ),
        ParseFailure::Custom(what) => format!("column {name:?}: {shown} is not a {sql_type}: it {what}"),
    }
}

/// Whether a text may be a number as people write it.
fn looks_written(text: &str) -> bool {
    let written = |c: char| ",.'$€£¥%()\u{2019} \u{a0}\u{202f}".contains(c);
    text.contains(|c: char| c.is_ascii_digit())
        && text.contains(written)
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || written(c) || matches!(c, '-' | '+'))
}

/// A value for a message: quoted, and cut to 80 characters.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The conversion of one column's cells.
struct ColumnConversion<'c, 'a> {
    target: &'c Target,
    cells: &'c [Cell<'a>],
    faults: &'c mut Vec<CellFault>,
}

impl<'a> ColumnConversion<'_, 'a> {
    /// Passes to `put` what `quick` makes of each value without its text, otherwise what `read` makes of its text,
    /// and a null if neither succeeds.
    fn run<T>(
        &mut self,
        quick: impl Fn(&Cell<'a>) -> Option<Result<T, ParseFailure>>,
        mut read: impl FnMut(&Cell<'a>, &str) -> Result<T, ParseFailure>,
        mut put: impl FnMut(Option<T>),
    ) {
        let mut scratch = String::new();
        let nulls = &self.target.nulls;
        let exact = matches!(
            self.target.sql_type,
            SqlType::Int | SqlType::BigInt | SqlType::Decimal(..) | SqlType::Date | SqlType::Timestamp
        );
        let loses_digits = self.target.of_csv && exact;
        for (row, cell) in self.cells.iter().enumerate() {
            if !cell.is_value() {
                put(None);
                continue;
            }
            let value = match (quick(cell), nulls.is_empty()) {
                (Some(value), true) => value.map(Some),
                (known, _) => match (cell.resolve(&mut scratch), known) {
                    (Some(text), _) if nulls.iter().any(|null| null == text) => Ok(None),
                    (_, Some(value)) => value.map(Some),
                    (Some(text), None) if loses_digits && lacks_digits(text) => Err(spreadsheet::CUT),
                    (Some(text), None) => read(cell, text).map(Some),
                    (None, None) => Err(no_text(cell)),
                },
            };
            put(value.unwrap_or_else(|why| {
                let reason = reason(self.target, &shown_value(cell), why);
                self.faults.push(CellFault {
                    row: row as u32,
                    reason,
                });
                None
            }));
        }
    }

    /// The same for text, which is borrowed and not returned.
    fn run_text(&mut self, mut put: impl FnMut(Option<&str>)) {
        let mut scratch = String::new();
        for (row, cell) in self.cells.iter().enumerate() {
            if !cell.is_value() {
                put(None);
                continue;
            }
            let value = match cell.meaning {
                Meaning::Unscaled if !cell.is_array() => pointed(cell, &mut scratch),
                _ => cell.resolve(&mut scratch).ok_or_else(|| no_text(cell)),
            };
            match value {
                Ok(text) if self.target.nulls.iter().any(|null| null == text) => put(None),
                Ok(text) => put(Some(text)),
                Err(why) => {
                    let reason = reason(self.target, &shown_value(cell), why);
                    self.faults.push(CellFault {
                        row: row as u32,
                        reason,
                    });
                    put(None);
                }
            }
        }
    }

    /// Converts arrays: all of their values are converted as one column, and a fault of a value counts for its array.
    fn lists(&mut self) -> ArrayRef {
        let item = self.target.item().expect("only lists come here");
        let texts: Vec<Option<Cow<'_, str>>> = self
            .cells
            .iter()
            .map(|cell| cell.is_value().then(|| cell.resolved().unwrap_or(Cow::Borrowed(""))))
            .collect();
        let mut values: Vec<Cell<'_>> = Vec::new();
        let mut owners: Vec<u32> = Vec::new();
        let mut lengths = Vec::with_capacity(texts.len());
        let mut valid = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let Cell { meaning, scale, .. } = self.cells[row];
            let start = values.len();
            let mut filled = false;
            if let Some(text) = text
                .as_deref()
                .filter(|text| !self.target.nulls.iter().any(|n| n == text))
            {
                match scan::array(text, |value| {
                    values.push(Cell {
                        meaning,
                        scale,
                        ..value
                    })
                }) {
                    Ok(()) => filled = true,
                    Err(_) => {
                        values.truncate(start);
                        let reason = reason(self.target, text, ParseFailure::Custom("is no JSON array"));
                        self.faults.push(CellFault {
                            row: row as u32,
                            reason,
                        });
                    }
                }
            }
            lengths.push(values.len() - start);
            owners.resize(values.len(), row as u32);
            valid.push(filled);
        }
        let mut inner = Vec::new();
        let items = column(&item, &values, &mut inner);
        self.faults.extend(inner.into_iter().map(|fault| CellFault {
            row: owners[fault.row as usize],
            ..fault
        }));
        Arc::new(ListArray::new(
            Arc::new(Field::new("item", item.arrow.clone(), true)),
            OffsetBuffer::from_lengths(lengths),
            items,
            Some(NullBuffer::from(valid)),
        ))
    }
}

/// Why a cell cannot be read as text.
fn no_text(cell: &Cell<'_>) -> ParseFailure {
    match cell.datum {
        Datum::Bytes(_) => ParseFailure::Custom("has bytes that are not UTF-8; declare the column BINARY"),
        _ => ParseFailure::Custom("has an escape that stands for no character"),
    }
}

/// A cell's value for a message.
fn shown_value<'a>(cell: &Cell<'a>) -> Cow<'a, str> {
    match (cell.resolved(), cell.datum) {
        (Some(text), _) => text,
        (None, Datum::Bytes(bytes)) => {
            let hex = bytes.iter().take(40).map(|byte| format!("{byte:02x}"));
            Cow::Owned(format!("\\x{}", hex.collect::<String>()))
        }
        (None, _) => Cow::Borrowed(cell.text()),
    }
}

/// An integer that needs no parsing.
fn whole(cell: &Cell<'_>) -> Option<Result<i64, ParseFailure>> {
    match cell.datum {
        Datum::Int(n) => Some(Ok(n)),
        Datum::Bytes(_) if cell.meaning == Meaning::Unscaled => Some(plain_integer(cell, "")),
        _ => None,
    }
}

/// A floating-point number that needs no parsing.
fn real(cell: &Cell<'_>) -> Option<Result<f64, ParseFailure>> {
    match cell.datum {
        Datum::Int(n) => Some(Ok(n as f64)),
        Datum::Float(x) => Some(Ok(f64::from(x))),
        Datum::Double(x) => Some(Ok(x)),
        Datum::Bytes(_) if cell.meaning == Meaning::Unscaled => Some(plain_double(cell, "")),
        _ => None,
    }
}

/// A decimal that needs no parsing.
fn exact(cell: &Cell<'_>, precision: u8, scale: i8, encoding: Encoding) -> Option<Result<i128, ParseFailure>> {
    let of_bytes = |bytes: &[u8], from: i64| number::rescale(number::big_endian(bytes)?, from, precision, scale);
    match cell.datum {
        Datum::Int(n) => Some(number::rescale(i128::from(n), 0, precision, scale)),
        Datum::Bytes(bytes) if cell.meaning == Meaning::Unscaled => Some(of_bytes(bytes, i64::from(cell.scale))),
        Datum::Bytes(bytes) if encoding == Encoding::Base64 => Some(of_bytes(bytes, i64::from(scale))),
        _ => None,
    }
}

/// A point in time from a count that needs no parsing.
fn counted(target: &Target, cell: &Cell<'_>) -> Option<Result<i64, ParseFailure>> {
    match (cell.datum, target.patterns.is_empty()) {
        (Datum::Int(n), true) => Some(unit(target, cell).and_then(|unit| match unit {
            Some(unit) => temporal::scaled(n, unit, target.finer),
            None => Err(NO_UNIT),
        })),
        _ => None,
    }
}

/// Formats an unscaled number with its decimal point.
pub(super) fn pointed<'s, 'a: 's>(cell: &Cell<'a>, scratch: &'s mut String) -> Result<&'s str, ParseFailure> {
    /// A number with more digits is certainly a mistake.
    const DIGITS: usize = 1000;
    let decoded;
    let (bytes, scale) = match (cell.datum, cell.kind) {
        (Datum::Bytes(bytes), _) => (bytes, i64::from(cell.scale)),
        (_, CellKind::Nested) => {
            let (bytes, scale) = variable(cell.text())?;
            decoded = bytes;
            (&decoded[..], scale)
        }
        (_, CellKind::Text | CellKind::Escaped) => {
            let text = cell.resolve(scratch).ok_or_else(|| no_text(cell))?;
            decoded = STANDARD.decode(text).map_err(|_| ParseFailure::Not)?;
            (&decoded[..], i64::from(cell.scale))
        }
        _ => return cell.resolve(scratch).ok_or_else(|| no_text(cell)),
    };
    if bytes.is_empty() {
        return Err(ParseFailure::Not);
    }
    if bytes.len() > DIGITS / 3 || scale.unsigned_abs() > DIGITS as u64 {
        return Err(ParseFailure::Beyond);
    }
    let value = num_bigint::BigInt::from_signed_bytes_be(bytes);
    let digits = value.magnitude().to_string();
    scratch.clear();
    if value.sign() == num_bigint::Sign::Minus {
        scratch.push('-');
    }
    if scale <= 0 {
        scratch.push_str(&digits);
        if digits != "0" {
            scratch.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
        }
    } else {
        let digits = format!("{digits:0>width$}", width = scale as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
        scratch.push_str(whole);
        scratch.push('.');
        scratch.push_str(fraction);
    }
    Ok(scratch)
}

/// Parses a boolean by the column's formats, or else as PostgreSQL does.
fn boolean(target: &Target, text: &str) -> Result<bool, ParseFailure> {
    const TRUE: [&str; 6] = ["true", "t", "1", "yes", "y", "on"];
    const FALSE: [&str; 6] = ["false", "f", "0", "no", "n", "off"];
    let text = text.trim_ascii();
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    let (yes, no) = match target.flags.is_empty() {
        true => (TRUE.iter().any(|word| is(word)), FALSE.iter().any(|word| is(word))),
        // One format's word for true may be another's for false.
        false => (
            target.flags.iter().any(|(yes, _)| is(yes)),
            target.flags.iter().any(|(_, no)| is(no)),
        ),
    };
    match (yes, no) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        (true, true) => Err(AMBIGUOUS),
        (false, false) => Err(ParseFailure::Not),
    }
}

const AMBIGUOUS: ParseFailure = ParseFailure::Custom("may be two by the column's `format`; leave one pattern");

/// Parses a text by the column's number patterns; none if the column has none, if the value is a number already, or if
/// the text is an encoded number, as the record's schema or the column's format `base64` says.
fn as_written<T: PartialEq>(
    target: &Target,
    cell: &Cell<'_>,
    text: &str,
    read: impl Fn(&str) -> Result<T, ParseFailure>,
) -> Option<Result<T, ParseFailure>> {
    let is_written = match cell.meaning {
        Meaning::Plain => true,
        // Without a schema, only the column says what a text is. What no pattern fits is refused and not taken for
        // base64, because some base64 texts consist of digits.
        Meaning::Untold | Meaning::UntoldUnit => target.encoding != Encoding::Base64,
        _ => false,
    };
    let is_text = matches!(cell.kind, CellKind::Text | CellKind::Escaped | CellKind::Doubled);
    if target.numbers.is_empty() || !is_written || !is_text {
        return None;
    }
    let mut outcome: Option<Result<T, ParseFailure>> = None;
    for plain in target.numbers.iter().filter_map(|pattern| pattern.plain(text)) {
        let value = std::str::from_utf8(&plain)
            .map_err(|_| ParseFailure::Not)
            .and_then(&read);
        match &outcome {
            None => outcome = Some(value),
            Some(before) if *before == value => (),
            Some(_) => return Some(Err(AMBIGUOUS)),
        }
    }
    Some(outcome.unwrap_or(Err(ParseFailure::Not)))
}

fn integer(target: &Target, cell: &Cell<'_>, text: &str) -> Result<i64, ParseFailure> {
    as_written(target, cell, text, number::integer).unwrap_or_else(|| plain_integer(cell, text))
}

fn plain_integer(cell: &Cell<'_>, text: &str) -> Result<i64, ParseFailure> {
    match unscaled(cell, text)? {
        Some((value, from)) => i64::try_from(number::rescale(value, from, 38, 0)?).map_err(|_| ParseFailure::Beyond),
        None => number::integer(text.trim_ascii()),
    }
}

fn double(target: &Target, cell: &Cell<'_>, text: &str) -> Result<f64, ParseFailure> {
    as_written(target, cell, text, number::double).unwrap_or_else(|| plain_double(cell, text))
}

fn plain_double(cell: &Cell<'_>, text: &str) -> Result<f64, ParseFailure> {
    match unscaled(cell, text)? {
        Some((value, from)) => number::double(&format!("{value}e{}", -from)),
        None => number::double(text.trim_ascii()),
    }
}

fn decimal(cell: &Cell<'_>, text: &str, precision: u8, scale: i8, encoding: Encoding) -> Result<i128, ParseFailure> {
    if let Some((value, from)) = unscaled(cell, text)? {
        return number::rescale(value, from, precision, scale);
    }
    let from_bytes = || {
        let bytes = STANDARD.decode(text).map_err(|_| ParseFailure::Not)?;
        number::rescale(number::big_endian(&bytes)?, i64::from(scale), precision, scale)
    };
    let is_string = matches!(cell.kind, CellKind::Text | CellKind::Escaped);
    if encoding == Encoding::Base64 && is_string {
        return from_bytes();
    }
    let read = number::decimal(text.trim_ascii(), precision, scale);
    let untold = matches!(cell.meaning, Meaning::Untold | Meaning::UntoldUnit) && encoding == Encoding::Usual;
    if !untold || !is_string || text.is_empty() || !text.len().is_multiple_of(4) {
        return read;
    }
    // Connect's JSON writes unscaled bytes in base64 and, without the schema part, no scale.
    match (read, STANDARD.decode(text)) {
        (Err(ParseFailure::Not), Ok(_)) => from_bytes(),
        // These are digits of a number with trailing zeros, as Java writes it; hardly one base64 text in 100,000
        // looks like this.
        (read, Ok(_)) if text.contains("E+") => read,
        (_, Ok(_)) => Err(EITHER),
        (read, Err(_)) => read,
    }
}

/// The bytes and the scale of a VariableScaleDecimal in JSON.
fn variable(text: &str) -> Result<(Vec<u8>, i64), ParseFailure> {
    let (mut scale, mut value) = (None, None);
    scan::object(text, |key, field| match key.text() {
        "scale" => scale = number::integer(field.text()).ok(),
        "value" => value = field.resolved(),
        _ => (),
    })
    .map_err(|_| ParseFailure::Not)?;
    let (Some(scale), Some(value)) = (scale, value) else {
        return Err(ParseFailure::Not);
    };
    Ok((STANDARD.decode(value.as_bytes()).map_err(|_| ParseFailure::Not)?, scale))
}

/// An unscaled number and its scale, if the cell has one: Connect's Decimal, Debezium's VariableScaleDecimal.
fn unscaled(cell: &Cell<'_>, text: &str) -> Result<Option<(i128, i64)>, ParseFailure> {
    if cell.kind == CellKind::Nested {
        let (bytes, scale) = variable(text)?;
        return Ok(Some((number::big_endian(&bytes)?, scale)));
    }
    if let (Datum::Bytes(bytes), Meaning::Unscaled) = (cell.datum, cell.meaning) {
        return Ok(Some((number::big_endian(bytes)?, i64::from(cell.scale))));
    }
    if cell.meaning != Meaning::Unscaled || !matches!(cell.kind, CellKind::Text | CellKind::Escaped) {
        return Ok(None);
    }
    let bytes = STANDARD.decode(text).map_err(|_| ParseFailure::Not)?;
    Ok(Some((number::big_endian(&bytes)?, i64::from(cell.scale))))
}

fn bytes(text: &str, encoding: Encoding) -> Result<Vec<u8>, ParseFailure> {
    let hex = |digits: &str| {
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| {
                let digits = std::str::from_utf8(pair)
                    .ok()
                    .filter(|p| p.len() == 2 && !p.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()
            })
            .collect::<Option<Vec<u8>>>()
            .ok_or(ParseFailure::Not)
    };
    match (encoding, text.strip_prefix("\\x")) {
        (Encoding::Utf8, _) => Ok(text.as_bytes().to_vec()),
        (Encoding::Hex, digits) => hex(digits.unwrap_or(text)),
        (Encoding::Usual, Some(digits)) => hex(digits),
        _ => STANDARD.decode(text).map_err(|_| ParseFailure::Custom("is no base64")),
    }
}

fn point(target: &Target, cell: &Cell<'_>, text: &str) -> Result<i64, ParseFailure> {
    let text = text.trim_ascii();
    if !target.patterns.is_empty() {
        return temporal::point(text, &target.patterns, target.finer);
    }
    match (cell.kind, unit(target, cell)?) {
        (CellKind::Number, Some(unit)) => temporal::count(text, unit, target.finer),
        (CellKind::Number, None) => Err(NO_UNIT),
        (CellKind::Nested | CellKind::True | CellKind::False, _) => Err(ParseFailure::Not),
        _ => temporal::point(text, &[], target.finer),
    }
}

const EITHER: ParseFailure = ParseFailure::Custom(
    "may be digits or base64; give the column `format = \"digits\"` (decimal.handling.mode = string) or `\"base64\"` (precise), or \
     have the source send its schema",
);

const NO_UNIT: ParseFailure = ParseFailure::Custom(
    "is a number; say what it counts by `format = \"epoch_ms\"` (or epoch_s, epoch_us, epoch_ns, epoch_days)",
);

/// The time unit that a cell's number counts.
fn unit(target: &Target, cell: &Cell<'_>) -> Result<Option<EpochUnit>, ParseFailure> {
    Ok(match cell.meaning {
        Meaning::Days => Some(EpochUnit::Days),
        Meaning::Millis => Some(EpochUnit::Millis),
        Meaning::Micros => Some(EpochUnit::Micros),
        Meaning::Nanos => Some(EpochUnit::Nanos),
        Meaning::NoPoint => {
            return Err(ParseFailure::Custom(
                "is a time of day or a duration; declare BIGINT or VARCHAR",
            ));
        }
        Meaning::Untold if target.sql_type == SqlType::Timestamp => Some(EpochUnit::Micros),
        Meaning::Untold | Meaning::UntoldUnit if target.sql_type == SqlType::Date => Some(EpochUnit::Days),
        Meaning::Plain | Meaning::Unscaled | Meaning::Untold | Meaning::UntoldUnit | Meaning::Uuid => None,
    })
}
