//! Avro's binary encoding, read value by value from a record's bytes.
//!
//! 1. Nothing is allocated by a length or count that the bytes claim: bytes and text are borrowed, and a count only says
//!    how often to try.
//! 2. A record costs at most so many values as its bytes may stand for, and some: items without bytes of their own (null, records
//!    of nothing) could be claimed without end ([`Cursor::spend`]).

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::cell::{Cell, Datum, Kind, Meaning};
use super::super::coerce::temporal;
use super::super::target::{Epoch, Finer};
use super::schema::{Field, Form, Schema, Type};

/// How deep values may nest that a column takes.
const DEPTH: usize = 128;

/// How deep values may nest that are gone past: what is open around a value takes memory.
const SKIPPED_DEPTH: usize = 100_000;

const TOO_DEEP: &str = "it is nested deeper than 128 levels";

/// Values that a byte may stand for: records and unions around it have none of their own.
const NESTED: usize = 16;

/// Values that a record may have beyond that.
const SPARE: usize = 10_000;

/// The longest text, in bytes, that nested values of a record may become.
const DERIVED: usize = 64 << 20;

/// Bytes that are not of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Bad {
    /// Byte of the record, behind its schema id.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Why bytes are not of their schema.
pub(in crate::decode) fn not_avro(bad: Bad) -> String {
    if bad.what == TOO_DEEP {
        return format!(
            "a value that a column takes is nested deeper than {DEPTH} levels, at byte {} behind the schema id; take it into no \
             column, or have its producer write it flat",
            bad.at
        );
    }
    format!(
        "the record is not what its schema says: {} at byte {} behind the schema id; correct its producer",
        bad.what, bad.at
    )
}

/// A value that is gone past in part.
enum OpenValue<'s> {
    /// A record: its fields that still come.
    Record(&'s [Field]),
    /// An array, or with keys a map: of which type its items are, and how many of its block still come.
    Items { of: usize, keyed: bool, left: u64 },
}

/// A place in a record.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Values that may still be read.
    left: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of a record.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor {
            bytes,
            at: 0,
            left: bytes.len().saturating_mul(NESTED).saturating_add(SPARE),
        }
    }

    /// How many bytes are read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether all bytes are read.
    pub fn end(&self) -> Result<(), Bad> {
        if self.at == self.bytes.len() {
            return Ok(());
        }
        self.bad("bytes are left over")
    }

    fn bad<T>(&self, what: &'static str) -> Result<T, Bad> {
        Err(Bad { at: self.at, what })
    }

    /// By (2).
    fn spend(&mut self) -> Result<(), Bad> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.bad("it claims more values than it has bytes"),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Bad> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => self.bad("it ends too early"),
        }
    }

    fn long(&mut self) -> Result<i64, Bad> {
        let rest = &self.bytes[self.at..];
        // Most numbers are short.
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
        self.bad(if rest.len() < 10 {
            "it ends too early"
        } else {
            "a number is longer than 64 bits"
        })
    }

    fn int(&mut self) -> Result<i64, Bad> {
        let at = self.at;
        let value = self.long()?;
        if i32::try_from(value).is_err() {
            return Err(Bad {
                at,
                what: "an int is longer than 32 bits",
            });
        }
        Ok(value)
    }

    fn sized(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => self.bad("a length is negative"),
        }
    }

    fn text(&mut self) -> Result<&'a str, Bad> {
        let at = self.at;
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map_err(|_| Bad {
            at,
            what: "a text is not UTF-8",
        })
    }

    /// Which branch of a union comes.
    pub fn branch(&mut self, branches: usize) -> Result<usize, Bad> {
        let at = self.at;
        let branch = usize::try_from(self.long()?).ok().filter(|branch| *branch < branches);
        branch.ok_or(Bad {
            at,
            what: "a union has no such branch",
        })
    }

    fn symbol<'s>(&mut self, symbols: &'s [Box<str>]) -> Result<&'s str, Bad> {
        let at = self.at;
        let symbol = usize::try_from(self.int()?).ok().and_then(|index| symbols.get(index));
        symbol.map(|symbol| &**symbol).ok_or(Bad {
            at,
            what: "an enum has no such symbol",
        })
    }

    /// How many items the next block of an array or map has, and its bytes where it says so; none behind the last.
    fn block(&mut self) -> Result<Option<(u64, Option<usize>)>, Bad> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count > 0).then_some((count as u64, None)));
        }
        let size = self.long()?;
        match usize::try_from(size) {
            Ok(size) if size <= self.bytes.len() - self.at => Ok(Some((count.unsigned_abs(), Some(size)))),
            _ => self.bad("a block is longer than the record"),
        }
    }

    /// Goes past a value.
    pub fn skip(&mut self, schema: &Schema, index: usize, depth: usize) -> Result<(), Bad> {
        if depth == DEPTH {
            return self.skip_deep(schema, index);
        }
        self.spend()?;
        match &schema.of(index).form {
            Form::Null => Ok(()),
            Form::Boolean => self.take(1).map(drop),
            Form::Int | Form::Long | Form::Enum(_) => self.long().map(drop),
            Form::Float => self.take(4).map(drop),
            Form::Double => self.take(8).map(drop),
            Form::Bytes | Form::String => self.sized().map(drop),
            Form::Fixed(size) => self.take(*size).map(drop),
            Form::Record(fields) => fields
                .iter()
                .try_for_each(|field| self.skip(schema, field.schema, depth + 1)),
            Form::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(schema, branches[branch], depth + 1)
            }
            Form::Array(items) | Form::Map(items) => {
                let keyed = matches!(schema.of(index).form, Form::Map(_));
                while let Some((count, size)) = self.block()? {
                    if let Some(size) = size {
                        self.take(size)?;
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

    /// Goes past a value without the thread's stack: a record must not fail for what no column takes of it, and of a container its
    /// whole block would.
    #[cold]
    fn skip_deep(&mut self, schema: &Schema, index: usize) -> Result<(), Bad> {
        let mut open: Vec<OpenValue<'_>> = Vec::new();
        let mut index = index;
        loop {
            self.spend()?;
            match &schema.of(index).form {
                Form::Record(fields) => open.push(OpenValue::Record(fields)),
                Form::Array(items) | Form::Map(items) => open.push(OpenValue::Items {
                    of: *items,
                    keyed: matches!(schema.of(index).form, Form::Map(_)),
                    left: 0,
                }),
                Form::Union(branches) => {
                    index = branches[self.branch(branches.len())?];
                    continue;
                }
                // What nests nothing.
                _ => self.skip(schema, index, 0)?,
            }
            if open.len() > SKIPPED_DEPTH {
                return self.bad("it is nested deeper than 100000 levels");
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
                            // A list of records, each the last field of the one before, takes no memory.
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
                        Some((_, Some(size))) => drop(self.take(size)?),
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

    /// Gives each key of a map to `each`, which reads its value.
    pub fn entries(&mut self, mut each: impl FnMut(&'a str, &mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        self.spend()?;
        while let Some((count, _)) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                each(key, self)?;
            }
        }
        Ok(())
    }

    /// A value as a cell; what the record has no bytes for is written to `derived`.
    pub fn cell(&mut self, schema: &Schema, index: usize, derived: &mut String) -> Result<Cell<'a>, Bad> {
        self.cell_within(schema, index, derived, 0)
    }

    fn cell_within(
        &mut self,
        schema: &Schema,
        index: usize,
        derived: &mut String,
        depth: usize,
    ) -> Result<Cell<'a>, Bad> {
        self.spend()?;
        if depth == DEPTH {
            return self.bad(TOO_DEEP);
        }
        let found = schema.of(index);
        let start = derived.len();
        let mut cell = match &found.form {
            Form::Null => return Ok(Cell::NULL),
            Form::Boolean if self.boolean()? => Cell::new(Kind::True, "true"),
            Form::Boolean => Cell::new(Kind::False, "false"),
            Form::Int => Cell::of(Kind::Number, Datum::Int(self.int()?)),
            Form::Long => Cell::of(Kind::Number, Datum::Int(self.long()?)),
            Form::Float => Cell::of(Kind::Number, Datum::Float(self.float()?)),
            Form::Double => Cell::of(Kind::Number, Datum::Double(self.double()?)),
            Form::Bytes => Cell::of(Kind::Bytes, Datum::Bytes(self.sized()?)),
            Form::String => Cell::new(Kind::Text, self.text()?),
            Form::Fixed(size) if found.uuid => {
                write_uuid(derived, self.take(*size)?);
                Cell::of(Kind::Text, Datum::Derived(start, derived.len()))
            }
            Form::Fixed(size) if found.duration => {
                write_duration(derived, self.take(*size)?);
                Cell::of(Kind::Text, Datum::Derived(start, derived.len()))
            }
            Form::Fixed(size) => Cell::of(Kind::Bytes, Datum::Bytes(self.take(*size)?)),
            Form::Enum(symbols) => {
                derived.push_str(self.symbol(symbols)?);
                Cell::of(Kind::Text, Datum::Derived(start, derived.len()))
            }
            Form::Union(branches) => {
                let branch = self.branch(branches.len())?;
                return self.cell_within(schema, branches[branch], derived, depth + 1);
            }
            Form::Record(_) if found.variable => return self.variable(schema, index, depth),
            Form::Record(_) | Form::Array(_) | Form::Map(_) => {
                self.render(schema, index, derived, start + DERIVED, depth)?;
                Cell::of(Kind::Nested, Datum::Derived(start, derived.len()))
            }
        };
        cell.meaning = found.meaning;
        cell.scale = found.scale;
        Ok(cell)
    }

    fn boolean(&mut self) -> Result<bool, Bad> {
        let at = self.at;
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad {
                at,
                what: "a boolean is neither 0 nor 1",
            }),
        }
    }

    fn float(&mut self) -> Result<f32, Bad> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(f32::from_le_bytes(bytes))
    }

    fn double(&mut self) -> Result<f64, Bad> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(f64::from_le_bytes(bytes))
    }

    /// Debezium's VariableScaleDecimal.
    fn variable(&mut self, schema: &Schema, index: usize, depth: usize) -> Result<Cell<'a>, Bad> {
        let (mut scale, mut value) = (None, None);
        for field in schema.record(index).unwrap_or_default() {
            match (&*field.name, &schema.of(field.schema).form) {
                ("scale", Form::Int) => scale = Some(self.int()?),
                ("value", Form::Bytes) => value = Some(self.sized()?),
                _ => self.skip(schema, field.schema, depth + 1)?,
            }
        }
        let scale = scale.and_then(|scale| i16::try_from(scale).ok());
        let (Some(scale), Some(value)) = (scale, value) else {
            return self.bad("a decimal of variable scale has none, or one that nobody means");
        };
        Ok(Cell {
            meaning: Meaning::Unscaled,
            scale,
            ..Cell::of(Kind::Bytes, Datum::Bytes(value))
        })
    }

    /// Writes a value as JSON: points in time in ISO 8601, decimals as numbers, bytes in base64.
    fn render(
        &mut self,
        schema: &Schema,
        index: usize,
        out: &mut String,
        limit: usize,
        depth: usize,
    ) -> Result<(), Bad> {
        self.spend()?;
        if depth == DEPTH {
            return self.bad(TOO_DEEP);
        }
        if out.len() > limit {
            return self.bad("its nested values are too long as JSON");
        }
        let found = schema.of(index);
        match &found.form {
            Form::Null => out.push_str("null"),
            Form::Boolean => out.push_str(if self.boolean()? { "true" } else { "false" }),
            Form::Int => write_number(out, found, self.int()?),
            Form::Long => write_number(out, found, self.long()?),
            Form::Float => write_float(out, self.float()?),
            Form::Double => write_float(out, self.double()?),
            Form::Bytes => write_bytes(out, found, self.sized()?),
            Form::String => write_text(out, self.text()?),
            Form::Fixed(size) if found.uuid => {
                out.push('"');
                write_uuid(out, self.take(*size)?);
                out.push('"');
            }
            Form::Fixed(size) if found.duration => {
                out.push('"');
                write_duration(out, self.take(*size)?);
                out.push('"');
            }
            Form::Fixed(size) => write_bytes(out, found, self.take(*size)?),
            Form::Enum(symbols) => write_text(out, self.symbol(symbols)?),
            Form::Union(branches) => {
                let branch = self.branch(branches.len())?;
                return self.render(schema, branches[branch], out, limit, depth + 1);
            }
            Form::Record(_) if found.variable => {
                let cell = self.variable(schema, index, depth)?;
                if let Datum::Bytes(bytes) = cell.datum {
                    write_decimal(out, bytes, cell.scale);
                }
            }
            Form::Record(fields) => {
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
            Form::Array(items) => {
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
            Form::Map(values) => {
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

fn write_number(out: &mut String, of: &Type, n: i64) {
    let start = out.len();
    out.push('"');
    if write_moment(out, of.meaning, of.scale, n) {
        out.push('"');
    } else {
        out.truncate(start);
        write!(out, "{n}").expect("writing to memory does not fail");
    }
}

/// Writes a date, a point in time or a time of day in ISO 8601; says whether the number is one.
pub(super) fn write_moment(out: &mut String, meaning: Meaning, scale: i16, n: i64) -> bool {
    let unit = match (meaning, scale) {
        (Meaning::Days, _) => Epoch::Days,
        (Meaning::Millis, _) | (Meaning::NoPoint, 3) => Epoch::Millis,
        (Meaning::Micros, _) | (Meaning::NoPoint, 6) => Epoch::Micros,
        (Meaning::Nanos, _) => Epoch::Nanos,
        _ => return false,
    };
    let point = temporal::scaled(n, unit, Finer::CutOff).ok();
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

/// Months, days and milliseconds, little-endian, as ISO 8601 writes a duration.
pub(in crate::decode) fn write_duration(out: &mut String, bytes: &[u8]) {
    let part = |at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let (months, days, millis) = (part(0), part(4), part(8));
    let written = write!(out, "P{months}M{days}DT{}.{:03}S", millis / 1000, millis % 1000);
    written.expect("writing to memory does not fail");
}

/// JSON has no infinity and no NaN: they are strings, as protobuf writes them in JSON.
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

fn write_bytes(out: &mut String, of: &Type, bytes: &[u8]) {
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

/// As a number; one that nobody means as its bytes.
pub(in crate::decode) fn write_decimal(out: &mut String, bytes: &[u8], scale: i16) {
    let cell = Cell {
        meaning: Meaning::Unscaled,
        scale,
        ..Cell::of(Kind::Bytes, Datum::Bytes(bytes))
    };
    match super::super::coerce::pointed(&cell, &mut String::new()) {
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

/// A JSON string.
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
