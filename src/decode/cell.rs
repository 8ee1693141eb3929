//! A value of a record before it is converted to a column's type: it is borrowed from the record, with the kind of
//! value it is.
//!
//! Formats turn records into columns of [`Cell`]s without copying: text formats as text, binary ones as numbers and
//! bytes. A value without a text of its own in the record (a nested value of Avro as JSON) is appended to one buffer
//! of derived text, and its cell has a range of that until the buffer is complete ([`Datum::Derived`]).
//! [`super::coerce`] converts columns of cells to Arrow arrays. This module knows nothing of SQL types.

use std::borrow::Cow;
use std::fmt::Write;

/// The kind of a cell's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellKind {
    /// The record does not have the field.
    Absent,
    /// The record has an explicit null.
    Null,
    /// Text without escapes.
    Text,
    /// The inside of a JSON string with escapes.
    Escaped,
    /// The inside of a quoted CSV field with doubled quotes.
    Doubled,
    /// A number.
    Number,
    /// JSON `true`.
    True,
    /// JSON `false`.
    False,
    /// A JSON object or array, as written.
    Nested,
    /// Bytes of a binary format.
    Bytes,
    /// Debezium did not have the value (an unchanged TOASTed column).
    Unavailable,
}

/// The meaning of a value beyond its type in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Meaning {
    /// No special meaning: a number is a number, a text is its characters.
    #[default]
    Plain,
    /// Ambiguous, because Debezium's JSON has no schema part: in a DATE a number counts days, in a TIMESTAMP
    /// microseconds, and in a DECIMAL a text is either digits or unscaled bytes in base64.
    Untold,
    /// Ambiguous as well, from a source whose times may have any unit: a number in a TIMESTAMP cannot be interpreted.
    UntoldUnit,
    /// Days since 1970-01-01.
    Days,
    /// Milliseconds since 1970-01-01 00:00.
    Millis,
    /// Microseconds since 1970-01-01 00:00.
    Micros,
    /// Nanoseconds since 1970-01-01 00:00.
    Nanos,
    /// A time of day or a duration, which is no point in time. For Avro's times of day, `scale` is the number of
    /// fractional digits.
    NoPoint,
    /// A big-endian two's complement number (as text: in base64), to be divided by 10 to the power of `scale`.
    Unscaled,
    /// The text of a UUID that its source stores as sixteen bytes.
    Uuid,
}

/// The data of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Datum<'a> {
    /// Text; empty for `Absent`, `Null` and `Unavailable`.
    Text(&'a str),
    /// For [`CellKind::Number`].
    Int(i64),
    /// For [`CellKind::Number`].
    Float(f32),
    /// For [`CellKind::Number`].
    Double(f64),
    /// For [`CellKind::Bytes`].
    Bytes(&'a [u8]),
    /// A range of the batch's derived text; see [`Cell::resolve_derived`].
    Derived(usize, usize),
}

/// One value of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub datum: Datum<'a>,
    /// The kind of the datum.
    pub kind: CellKind,
    /// What a schema says about it.
    pub meaning: Meaning,
    /// For [`Meaning::Unscaled`] and [`Meaning::NoPoint`].
    pub scale: i16,
}

impl<'a> Cell<'a> {
    /// The cell of a field that the record does not have.
    pub const ABSENT: Cell<'static> = Cell::new(CellKind::Absent, "");
    /// The cell of an explicit null.
    pub const NULL: Cell<'static> = Cell::new(CellKind::Null, "");

    /// A cell of text with a plain meaning.
    pub const fn new(kind: CellKind, text: &'a str) -> Self {
        Cell::with_datum(kind, Datum::Text(text))
    }

    /// A cell with a plain meaning.
    pub const fn with_datum(kind: CellKind, datum: Datum<'a>) -> Self {
        Cell {
            datum,
            kind,
            meaning: Meaning::Plain,
            scale: 0,
        }
    }

    /// The text as written; empty if the datum is no text.
    pub fn text(&self) -> &'a str {
        match self.datum {
            Datum::Text(text) => text,
            _ => "",
        }
    }

    /// Replaces a range of the derived text by that text.
    pub fn resolve_derived<'b>(self, derived: &'b str) -> Cell<'b>
    where
        'a: 'b,
    {
        match self.datum {
            Datum::Derived(start, end) => Cell {
                datum: Datum::Text(&derived[start..end]),
                ..self
            },
            _ => self,
        }
    }

    /// Whether it holds a value.
    pub fn is_value(&self) -> bool {
        !matches!(self.kind, CellKind::Absent | CellKind::Null | CellKind::Unavailable)
    }

    /// Whether it is a JSON array.
    pub fn is_array(&self) -> bool {
        self.kind == CellKind::Nested && self.text().starts_with('[')
    }

    /// Whether two cells are written alike; `derived` is the derived text of their records.
    pub fn same(&self, other: &Cell<'_>, derived: &str) -> bool {
        self.kind == other.kind && self.resolve_derived(derived).datum == other.resolve_derived(derived).datum
    }

    /// The text as by [`Cell::resolve`].
    pub fn resolved(&self) -> Option<Cow<'a, str>> {
        if let (Datum::Text(text), false) = (self.datum, matches!(self.kind, CellKind::Escaped | CellKind::Doubled)) {
            return Some(Cow::Borrowed(text));
        }
        let mut scratch = String::new();
        let text = self.resolve(&mut scratch)?.to_string();
        Some(Cow::Owned(text))
    }

    /// The text with escapes resolved and numbers formatted, using `scratch` if necessary; `None` if an escape is no
    /// character (half of a surrogate pair), or if bytes are not UTF-8.
    pub fn resolve<'s>(&self, scratch: &'s mut String) -> Option<&'s str>
    where
        'a: 's,
    {
        let text = match self.datum {
            Datum::Text(text) => text,
            Datum::Bytes(bytes) => std::str::from_utf8(bytes).ok()?,
            Datum::Derived(..) => unreachable!("a column's cells are settled before they get its type"),
            Datum::Int(n) => return written(scratch, n),
            Datum::Float(x) => return written(scratch, x),
            Datum::Double(x) => return written(scratch, x),
        };
        match self.kind {
            CellKind::Escaped => {
                scratch.clear();
                unescape(text, scratch)?;
                Some(scratch)
            }
            CellKind::Doubled => {
                scratch.clear();
                let mut rest = text;
                while let Some(at) = rest.find("\"\"") {
                    scratch.push_str(&rest[..=at]);
                    rest = &rest[at + 2..];
                }
                scratch.push_str(rest);
                Some(scratch)
            }
            _ => Some(text),
        }
    }
}

fn written(scratch: &mut String, number: impl std::fmt::Display) -> Option<&str> {
    scratch.clear();
    write!(scratch, "{number}").expect("writing to memory does not fail");
    Some(scratch)
}

/// Appends the characters of the inside of a JSON string.
fn unescape(raw: &str, out: &mut String) -> Option<()> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (c, taken) = escaped(&rest.as_bytes()[at..])?;
        out.push(c);
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
    Some(())
}

/// The character of the escape at the start of `bytes`, and the escape's length.
fn escaped(bytes: &[u8]) -> Option<(char, usize)> {
    let hex = |at: usize| -> Option<u32> {
        let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let c = match bytes.get(1)? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => {
            let unit = hex(2)?;
            if (0xd800..0xdc00).contains(&unit) {
                let low = (bytes.get(6..8)? == b"\\u").then(|| hex(8)).flatten()?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                return Some((char::from_u32(0x10000 + ((unit - 0xd800) << 10) + low)?, 12));
            }
            return Some((char::from_u32(unit)?, 6));
        }
        plain @ (b'"' | b'\\' | b'/') => *plain as char,
        _ => return None,
    };
    Some((c, 2))
}
