//! Avro's binary encoding, read value by value from a record's bytes.
//!
//! 1. No allocation depends on a length or count that the bytes claim: bytes and text are borrowed, and a count only
//!    limits a loop.
//! 2. The number of values in a record is limited by its bytes, plus a constant: otherwise items without bytes of
//!    their own (nulls, empty records) could be claimed endlessly ([`Cursor::spend`]).

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decode::cell::{Cell, CellKind, Datum, Meaning};
use crate::decode::coerce::temporal;
use crate::decode::formats::avro::schema::{AvroField, AvroForm, AvroSchema, AvroType};
use crate::decode::target::{EpochUnit, SubMicrosecondRule};

/// How deep a value that a column takes may be nested.
const DEPTH: usize = 128;

/// How deep a value that is skipped may be nested; each open level takes memory.
const SKIPPED_DEPTH: usize = 100_000;

const TOO_DEEP: &str = "it is nested deeper than 128 levels";

/// How many values each byte may stand for, because records and unions around it have no bytes of their own.
const NESTED: usize = 16;

/// How many values a record may have beyond that.
const SPARE: usize = 10_000;

/// The most bytes of derived text that the nested values of a record may become.
const DERIVED: usize = 64 << 20;

/// Bytes that do not match the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct AvroMismatch {
    /// The offset in the record, behind its schema id.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The message for bytes that do not match their schema.
pub(in crate::decode) fn not_avro(mismatch: AvroMismatch) -> String {
    if mismatch.what == TOO_DEEP {
        return format!(
            "a value that a column takes is nested deeper than {DEPTH} levels, at byte {} behind the schema id; take it into no \
             column, or have its producer write it flat",
            mismatch.at
        );
    }
    format!(
        "the record is not what its schema says: {} at byte {} behind the schema id; correct its producer",
        mismatch.what, mismatch.at
    )
}

/// A value that was skipped in part.
enum OpenValue<'s> {
    /// A record, with its fields that still follow.
    Record(&'s [AvroField]),
    /// An array or (`keyed`) a map, with the type of its items and the number of them that still follow in the block.
    Items { of: usize, keyed: bool, left: u64 },
}

/// A position in a record.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more values may be read.
    left: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of a record.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor {
            bytes,
            at: 0,
            left: bytes.len().saturating_mul(NESTED).saturating_add(SPARE),
        }
    }

    /// How many bytes were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Fails unless all bytes were read.
    pub fn end(&self) -> Result<(), AvroMismatch> {
        if self.at == self.bytes.len() {
            return Ok(());
        }
        self.mismatch("bytes are left over")
    }

    fn mismatch<T>(&self, what: &'static str) -> Result<T, AvroMismatch> {
        Err(AvroMismatch { at: self.at, what })
    }

    /// Counts one value against the limit by (2).
    fn spend(&mut self) -> Result<(), AvroMismatch> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.mismatch("it claims more values than it has bytes"),
        }
    }

    fn take_bytes(&mut self, length: usize) -> Result<&'a [u8], AvroMismatch> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => self.mismatch("it ends too early"),
        }
    }

    fn long(&mut self) -> Result<i64, AvroMismatch> {
        let rest = &self.bytes[self.at..];
        // Most numbers have one byte.
        if let [byte @ 0..0x80, ..] = rest {
            self.at += 1;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        let mut value = 0u64;
        for (n, byte) in rest.iter().take(10).enumerate() {
            if n == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if *byte < 0x80 {
                self.at += n + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        self.mismatch(if rest.len() < 10 {
            "it ends too early"
        } else {
            "a number is longer than 64 bits"
        })
    }

    fn int(&mut self) -> Result<i64, AvroMismatch> {
        let at = self.at;
        let value = self.long()?;
        if i32::try_from(value).is_err() {
            return Err(AvroMismatch {
                at,
                what: "an int is longer than 32 bits",
            });
        }
        Ok(value)
    }

    fn sized(&mut self) -> Result<&'a [u8], AvroMismatch> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take_bytes(length),
            Err(_) => self.mismatch("a length is negative"),
        }
    }

    fn text(&mut self) -> Result<&'a str, AvroMismatch> {
        let at = self.at;
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map_err(|_| AvroMismatch {
            at,
            what: "a text is not UTF-8",
        })
    }

    /// Reads the branch of a union.
    pub fn branch(&mut self, branches: usize) -> Result<usize, AvroMismatch> {
        let at = self.at;
        let branch = usize::try_from(self.long()?).ok().filter(|branch| *branch < branches);
        branch.ok_or(AvroMismatch {
            at,
            what: "a union has no such branch",
        })
    }

    fn symbol<'s>(&mut self, symbols: &'s [Box<str>]) -> Result<&'s str, AvroMismatch> {
        let at = self.at;
        let symbol = usize::try_from(self.int()?).ok().and_then(|index| symbols.get(index));
        symbol.map(|symbol| &**symbol).ok_or(AvroMismatch {
            at,
            what: "an enum has no such symbol",
        })
    }

    /// Reads the number of items in the next block of an array or map, and its length in bytes if present; none
    /// behind the last block.
    fn block(&mut self) -> Result<Option<(u64, Option<usize>)>, AvroMismatch> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count > 0).then_some((count as u64, None)));
        }
        let size = self.long()?;
        match usize::try_from(size) {
            Ok(size) if size <= self.bytes.len() - self.at => Ok(Some((count.unsigned_abs(), Some(size)))),
            _ => self.mismatch("a block is longer than the record"),
        }
    }

    /// Skips a value.
    pub fn skip(&mut self, schema: &AvroSchema, index: usize, depth: usize) -> Result<(), AvroMismatch> {
        if depth == DEPTH {
            return self.skip_deep(schema, index);
        }
        self.spend()?;
        match &schema.type_at(index).form {
            AvroForm::Null => Ok(()),
            AvroForm::Boolean => self.take_bytes(1).map(drop),
            AvroForm::Int | AvroForm::Long | AvroForm::Enum(_) => self.long().map(drop),
            AvroForm::Float => self.take_bytes(4).map(drop),
            AvroForm::Double => self.take_bytes(8).map(drop),
            AvroForm::Bytes | AvroForm::String => self.sized().map(drop),
            AvroForm::Fixed(size) => self.take_bytes(*size).map(drop),
            AvroForm::Record(fields) => fields
                .iter()
                .try_for_each(|field| self.skip(schema, field.schema, depth + 1)),
            AvroForm::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(schema, branches[branch], depth + 1)
            }
            AvroForm::Array(items) | AvroForm::Map(items) => {
                let keyed = matches!(schema.type_at(index).form, AvroForm::Map(_));
                while let Some((count, size)) = self.block()? {
                    if let Some(size) = size {
                        self.take_bytes(size)?;
                        continue;
                    }
                    for _ in 0..count {
                        if keyed {
                            self.sized()?;
                        }
                        self.skip(schema, *items, depth + 1)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Skips a value without recursion: nesting in a field that no column takes must not make a record fail, nor a
    /// whole block of a container.
    #[cold]
    fn skip_deep(&mut self, schema: &AvroSchema, index: usize) -> Result<(), AvroMismatch> {
        let mut open: Vec<OpenValue<'_>> = Vec::new();
        let mut index = index;
        loop {
            self.spend()?;
            match &schema.type_at(index).form {
                AvroForm::Record(fields) => open.push(OpenValue::Record(fields)),
                AvroForm::Array(items) | AvroForm::Map(items) => open.push(OpenValue::Items {
                    of: *items,
                    keyed: matches!(schema.type_at(index).form, AvroForm::Map(_)),
                    left: 0,
                }),
                AvroForm::Union(branches) => {
                    index = branches[self.branch(branches.len())?];
                    continue;
                }
                // This value cannot contain others.
                _ => self.skip(schema, index, 0)?,
            }
            if open.len() > SKIPPED_DEPTH {
                return self.mismatch("it is nested deeper than 100000 levels");
            }
            index = loop {
                match open.last_mut() {
                    None => return Ok(()),
                    Some(OpenValue::Record(fields)) => match *fields {
                        [] => {
                            open.pop();
                        }
                        [first, rest @ ..] => {
                            *fields = rest;
                            // The last field replaces its record on the stack, so a list of records, each in the last
                            // field of the one before, takes no memory.
                            if rest.is_empty() {
                                open.pop();
                            }
                            break first.schema;
                        }
                    },
                    Some(OpenValue::Items { left, .. }) if *left == 0 => match self.block()? {
                        None => {
                            open.pop();
                        }
                        Some((_, Some(size))) => drop(self.take_bytes(size)?),
                        Some((count, None)) => *left = count,
                    },
                    Some(OpenValue::Items { of, keyed, left }) => {
                        *left -= 1;
                        if *keyed {
                            self.sized()?;
                        }
                        break *of;
                    }
                }
            };
        }
    }

    /// Calls `each` with each key of a map; it must read the value.
    pub fn entries(
        &mut self,
        mut each: impl FnMut(&'a str, &mut Self) -> Result<(), AvroMismatch>,
    ) -> Result<(), AvroMismatch> {
        self.spend()?;
        while let Some((count, _)) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                each(key, self)?;
            }
        }
        Ok(())
    }

    /// Reads a value as a cell; text that the record does not contain is appended to `derived`.
    pub fn cell(&mut self, schema: &AvroSchema, index: usize, derived: &mut String) -> Result<Cell<'a>, AvroMismatch> {
        self.cell_within(schema, index, derived, 0)
    }

    fn cell_within(
        &mut self,
        schema: &AvroSchema,
        index: usize,
        derived: &mut String,
        depth: usize,
    ) -> Result<Cell<'a>, AvroMismatch> {
        self.spend()?;
        if depth == DEPTH {
            return self.mismatch(TOO_DEEP);
        }
        let schema_type = schema.type_at(index);
        let start = derived.len();
        let mut cell = match &schema_type.form {
            AvroForm::Null => return Ok(Cell::NULL),
            AvroForm::Boolean if self.boolean()? => Cell::new(CellKind::True, "true"),
            AvroForm::Boolean => Cell::new(CellKind::False, "false"),
            AvroForm::Int => Cell::with_datum(CellKind::Number, Datum::Int(self.int()?)),
            AvroForm::Long => Cell::with_datum(CellKind::Number, Datum::Int(self.long()?)),
            AvroForm::Float => Cell::with_datum(CellKind::Number, Datum::Float(self.float()?)),
            AvroForm::Double => Cell::with_datum(CellKind::Number, Datum::Double(self.double()?)),
            AvroForm::Bytes => Cell::with_datum(CellKind::Bytes, Datum::Bytes(self.sized()?)),
            AvroForm::String => Cell::new(CellKind::Text, self.text()?),
            AvroForm::Fixed(size) if schema_type.uuid => {
                write_uuid(derived, self.take_bytes(*size)?);
                Cell::with_datum(CellKind::Text, Datum::Derived(start, derived.len()))
            }
            AvroForm::Fixed(size) if schema_type.duration => {
                write_duration(derived, self.take_bytes(*size)?);
                Cell::with_datum(CellKind::Text, Datum::Derived(start, derived.len()))
            }
            AvroForm::Fixed(size) => Cell::with_datum(CellKind::Bytes, Datum::Bytes(self.take_bytes(*size)?)),
            AvroForm::Enum(symbols) => {
                derived.push_str(self.symbol(symbols)?);
                Cell::with_datum(CellKind::Text, Datum::Derived(start, derived.len()))
            }
            AvroForm::Union(branches) => {
                let branch = self.branch(branches.len())?;
                return self.cell_within(schema, branches[branch], derived, depth + 1);
            }
            AvroForm::Record(_) if schema_type.variable => return self.variable(schema, index, depth),
            AvroForm::Record(_) | AvroForm::Array(_) | AvroForm::Map(_) => {
                self.render(schema, index, derived, start + DERIVED, depth)?;
                Cell::with_datum(CellKind::Nested, Datum::Derived(start, derived.len()))
            }
        };
        cell.meaning = schema_type.meaning;
        cell.scale = schema_type.scale;
        Ok(cell)
    }

    fn boolean(&mut self) -> Result<bool, AvroMismatch> {
        let at = self.at;
        match self.take_bytes(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(AvroMismatch {
                at,
                what: "a boolean is neither 0 nor 1",
            }),
        }
    }

    fn float(&mut self) -> Result<f32, AvroMismatch> {
        let bytes = self.take_bytes(4)?.try_into().expect("four bytes were taken");
        Ok(f32::from_le_bytes(bytes))
    }

    fn double(&mut self) -> Result<f64, AvroMismatch> {
        let bytes = self.take_bytes(8)?.try_into().expect("eight bytes were taken");
        Ok(f64::from_le_bytes(bytes))
    }

    /// Reads Debezium's VariableScaleDecimal.
    fn variable(&mut self, schema: &AvroSchema, index: usize, depth: usize) -> Result<Cell<'a>, AvroMismatch> {
        let (mut scale, mut value) = (None, None);
        for field in schema.record(index).unwrap_or_default() {
            match (&*field.name, &schema.type_at(field.schema).form) {
                ("scale", AvroForm::Int) => scale = Some(self.int()?),
                ("value", AvroForm::Bytes) => value = Some(self.sized()?),
                _ => self.skip(schema, field.schema, depth + 1)?,
            }
        }
        let scale = scale.and_then(|scale| i16::try_from(scale).ok());
        let (Some(scale), Some(value)) = (scale, value) else {
            return self.mismatch("a decimal of variable scale has none, or one that nobody means");
        };
        Ok(Cell {
            meaning: Meaning::Unscaled,
            scale,
            ..Cell::with_datum(CellKind::Bytes, Datum::Bytes(value))
        })
    }

    /// Writes a value as JSON: points in time in ISO 8601, decimals as numbers, bytes in base64.
    fn render(
        &mut self,
        schema: &AvroSchema,
        index: usize,
        out: &mut String,
        limit: usize,
        depth: usize,
    ) -> Result<(), AvroMismatch> {
        self.spend()?;
        if depth == DEPTH {
            return self.mismatch(TOO_DEEP);
        }
        if out.len() > limit {
            return self.mismatch("its nested values are too long as JSON");
        }
        let schema_type = schema.type_at(index);
        match &schema_type.form {
            AvroForm::Null => out.push_str("null"),
            AvroForm::Boolean => out.push_str(if self.boolean()? { "true" } else { "false" }),
            AvroForm::Int => write_number(out, schema_type, self.int()?),
            AvroForm::Long => write_number(out, schema_type, self.long()?),
            AvroForm::Float => write_float(out, self.float()?),
            AvroForm::Double => write_float(out, self.double()?),
            AvroForm::Bytes => write_bytes(out, schema_type, self.sized()?),
            AvroForm::String => write_text(out, self.text()?),
            AvroForm::Fixed(size) if schema_type.uuid => {
                out.push('"');
                write_uuid(out, self.take_bytes(*size)?);
                out.push('"');
            }
            AvroForm::Fixed(size) if schema_type.duration => {
                out.push('"');
                write_duration(out, self.take_bytes(*size)?);
                out.push('"');
            }
            AvroForm::Fixed(size) => write_bytes(out, schema_type, self.take_bytes(*size)?),
            AvroForm::Enum(symbols) => write_text(out, self.symbol(symbols)?),
            AvroForm::Union(branches) => {
                let branch = self.branch(branches.len())?;
                return self.render(schema, branches[branch], out, limit, depth + 1);
            }
            AvroForm::Record(_) if schema_type.variable => {
                let cell = self.variable(schema, index, depth)?;
                if let Datum::Bytes(bytes) = cell.datum {
                    write_decimal(out, bytes, cell.scale);
                }
            }
            AvroForm::Record(fields) => {
                let mut open = '{';
                for field in fields {
                    out.push(open);
                    write_text(out, &field.name);
                    out.push(':');
                    self.render(schema, field.schema, out, limit, depth + 1)?;
                    open = ',';
                }
                out.push_str(if open == '{' { "{}" } else { "}" });
            }
            AvroForm::Array(items) => {
                let mut first = true;
                out.push('[');
                while let Some((count, _)) = self.block()? {
                    for _ in 0..count {
                        if !std::mem::take(&mut first) {
                            out.push(',');
                        }
                        self.render(schema, *items, out, limit, depth + 1)?;
                    }
                }
                out.push(']');
            }
            AvroForm::Map(values) => {
                let mut first = true;
                out.push('{');
                while let Some((count, _)) = self.block()? {
                    for _ in 0..count {
                        if !std::mem::take(&mut first) {
                            out.push(',');
                        }
                        write_text(out, self.text()?);
                        out.push(':');
                        self.render(schema, *values, out, limit, depth + 1)?;
                    }
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

fn write_number(out: &mut String, of: &AvroType, n: i64) {
    let start = out.len();
    out.push('"');
    if write_moment(out, of.meaning, of.scale, n) {
        out.push('"');
    } else {
        out.truncate(start);
        write!(out, "{n}").expect("writing to memory does not fail");
    }
}

/// Writes a date, a point in time or a time of day in ISO 8601; returns whether the number is valid.
pub(super) fn write_moment(out: &mut String, meaning: Meaning, scale: i16, n: i64) -> bool {
    let unit = match (meaning, scale) {
        (Meaning::Days, _) => EpochUnit::Days,
        (Meaning::Millis, _) | (Meaning::NoPoint, 3) => EpochUnit::Millis,
        (Meaning::Micros, _) | (Meaning::NoPoint, 6) => EpochUnit::Micros,
        (Meaning::Nanos, _) => EpochUnit::Nanos,
        _ => return false,
    };
    let point = temporal::scaled(n, unit, SubMicrosecondRule::CutOff).ok();
    let Some(moment) = point.and_then(chrono::DateTime::from_timestamp_micros) else {
        return false;
    };
    let format = match meaning {
        Meaning::Days => "%Y-%m-%d",
        Meaning::NoPoint if (0..temporal::DAY).contains(&moment.timestamp_micros()) => "%H:%M:%S%.f",
        Meaning::NoPoint => return false,
        Meaning::Nanos => {
            let moment = chrono::DateTime::from_timestamp_nanos(n);
            write!(out, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.9f")).expect("writing to memory does not fail");
            return true;
        }
        _ => "%Y-%m-%dT%H:%M:%S%.6f",
    };
    write!(out, "{}", moment.format(format)).expect("writing to memory does not fail");
    true
}

/// Writes a duration of months, days and milliseconds (little-endian) in ISO 8601.
pub(in crate::decode) fn write_duration(out: &mut String, bytes: &[u8]) {
    let part = |at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let (months, days, millis) = (part(0), part(4), part(8));
    let written = write!(out, "P{months}M{days}DT{}.{:03}S", millis / 1000, millis % 1000);
    written.expect("writing to memory does not fail");
}

/// Writes a number as JSON. Infinities and NaN, which JSON lacks, are written as strings, as in protobuf's JSON.
pub(in crate::decode) fn write_float(out: &mut String, x: impl Into<f64> + std::fmt::Display + Copy) {
    let finite = x.into().is_finite();
    let written = match x.into() {
        _ if finite => write!(out, "{x}"),
        f64::INFINITY => write!(out, "\"Infinity\""),
        f64::NEG_INFINITY => write!(out, "\"-Infinity\""),
        _ => write!(out, "\"NaN\""),
    };
    written.expect("writing to memory does not fail");
}

fn write_bytes(out: &mut String, of: &AvroType, bytes: &[u8]) {
    match of.meaning {
        Meaning::Unscaled => write_decimal(out, bytes, of.scale),
        _ => write_base64(out, bytes),
    }
}

pub(in crate::decode) fn write_base64(out: &mut String, bytes: &[u8]) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

/// Writes a decimal as a number; an absurdly long one as its bytes.
pub(in crate::decode) fn write_decimal(out: &mut String, bytes: &[u8], scale: i16) {
    let cell = Cell {
        meaning: Meaning::Unscaled,
        scale,
        ..Cell::with_datum(CellKind::Bytes, Datum::Bytes(bytes))
    };
    match crate::decode::coerce::pointed(&cell, &mut String::new()) {
        Ok(text) => out.push_str(text),
        Err(_) => write_base64(out, bytes),
    }
}

fn write_uuid(out: &mut String, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{byte:02x}").expect("writing to memory does not fail");
    }
}

/// Writes a JSON string.
pub(in crate::decode) fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escaped.is_empty() {
            write!(out, "\\u{byte:04x}").expect("writing to memory does not fail");
        } else {
            out.push_str(escaped);
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}
