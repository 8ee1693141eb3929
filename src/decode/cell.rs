//! A value of a record before it has a column's type: borrowed from the record, and what kind of value it is.
//!
//! Formats turn records into columns of [`Cell`]s without copying a byte: text formats as text, binary ones as numbers
//! and bytes. What has no bytes of its own in the record (a nested value of Avro as JSON) is written behind each other
//! into one text, which cells refer to by place until it is whole ([`Datum::Derived`]). [`super::coerce`] turns columns
//! of cells into Arrow arrays. Nothing here knows SQL types.

use std::borrow::Cow;
use std::fmt::Write;

/// What the text of a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The record does not name the column.
    Absent,
    /// The record says null.
    Null,
    /// Text as it is.
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

/// What a value means beyond its type in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Meaning {
    /// Nothing: a number is a number, a text its characters.
    #[default]
    Plain,
    /// What Debezium's JSON without its schema part leaves open: in a DATE a number counts days, in a TIMESTAMP microseconds,
    /// and in a DECIMAL a text is digits, or unscaled bytes in base64.
    Untold,
    /// The same of a source whose points in time may be of any unit: in a TIMESTAMP a number says nothing.
    UntoldUnit,
    /// Days since 1970-01-01.
    Days,
    /// Milliseconds since 1970-01-01 00:00.
    Millis,
    /// Microseconds since 1970-01-01 00:00.
    Micros,
    /// Nanoseconds since 1970-01-01 00:00.
    Nanos,
    /// A time of day or a duration: no point in time. Of Avro's times of day the cell's `scale` says the digits of a second.
    NoPoint,
    /// A big-endian two's complement number (as text: in base64), to be divided by 10 to the cell's `scale`.
    Unscaled,
    /// The text of a UUID that its source has as sixteen bytes.
    Uuid,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Datum<'a> {
    /// Text; empty for `Absent`, `Null` and `Unavailable`.
    Text(&'a str),
    /// Of [`Kind::Number`].
    Int(i64),
    /// Of [`Kind::Number`].
    Float(f32),
    /// Of [`Kind::Number`].
    Double(f64),
    /// Of [`Kind::Bytes`].
    Bytes(&'a [u8]),
    /// Where its text is in what was written while the batch was read; see [`Cell::settle`].
    Derived(usize, usize),
}

/// One value of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub datum: Datum<'a>,
    /// What the datum is.
    pub kind: Kind,
    /// What a schema says of it.
    pub meaning: Meaning,
    /// Of [`Meaning::Unscaled`] and [`Meaning::NoPoint`].
    pub scale: i16,
}

impl<'a> Cell<'a> {
    /// No value named.
    pub const ABSENT: Cell<'static> = Cell::new(Kind::Absent, "");
    /// A null.
    pub const NULL: Cell<'static> = Cell::new(Kind::Null, "");

    /// A cell of text without a meaning of its own.
    pub const fn new(kind: Kind, text: &'a str) -> Self {
        Cell::of(kind, Datum::Text(text))
    }

    /// A cell without a meaning of its own.
    pub const fn of(kind: Kind, datum: Datum<'a>) -> Self {
        Cell {
            datum,
            kind,
            meaning: Meaning::Plain,
            scale: 0,
        }
    }

    /// Its text as written; empty where it is no text.
    pub fn text(&self) -> &'a str {
        match self.datum {
            Datum::Text(text) => text,
            _ => "",
        }
    }

    /// With its text in place of where that is.
    pub fn settle<'b>(self, derived: &'b str) -> Cell<'b>
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
        !matches!(self.kind, Kind::Absent | Kind::Null | Kind::Unavailable)
    }

    /// Whether it is a JSON array.
    pub fn is_array(&self) -> bool {
        self.kind == Kind::Nested && self.text().starts_with('[')
    }

    /// Whether two cells are written alike, of records whose derived texts are in `derived`.
    pub fn same(&self, other: &Cell<'_>, derived: &str) -> bool {
        self.kind == other.kind && self.settle(derived).datum == other.settle(derived).datum
    }

    /// Its text, as [`Cell::resolve`] has it.
    pub fn resolved(&self) -> Option<Cow<'a, str>> {
        if let (Datum::Text(text), false) = (self.datum, matches!(self.kind, Kind::Escaped | Kind::Doubled)) {
            return Some(Cow::Borrowed(text));
        }
        let mut scratch = String::new();
        let text = self.resolve(&mut scratch)?.to_string();
        Some(Cow::Owned(text))
    }

    /// Its text with escapes resolved and numbers written, in `scratch` where that is needed; `None` where an escape
    /// stands for no character (half of a surrogate pair), or bytes are not UTF-8.
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
            Kind::Escaped => {
                scratch.clear();
                unescape(text, scratch)?;
                Some(scratch)
            }
            Kind::Doubled => {
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

/// Appends the characters that the inside of a JSON string stands for.
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

/// The character that an escape at the start of `bytes` stands for, and the escape's length.
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
