//! A value of a record before it has a type: its text, borrowed from the record, and what kind of text it is.
//!
//! Formats (CSV, JSON, Debezium) turn records into columns of [`Cell`]s without copying a byte;
//! [`super::coerce`] turns columns of cells into Arrow arrays. Nothing here knows SQL types.

use std::borrow::Cow;

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
    /// A JSON number.
    Number,
    /// JSON `true`.
    True,
    /// JSON `false`.
    False,
    /// A JSON object or array, as written.
    Nested,
    /// Debezium did not have the value (an unchanged TOASTed column).
    Unavailable,
}

/// What a Debezium schema says a value means beyond its JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Meaning {
    /// Nothing.
    #[default]
    Plain,
    /// Days since 1970-01-01.
    Days,
    /// Milliseconds since 1970-01-01 00:00.
    Millis,
    /// Microseconds since 1970-01-01 00:00.
    Micros,
    /// Nanoseconds since 1970-01-01 00:00.
    Nanos,
    /// A time of day or a duration: no point in time.
    NoPoint,
    /// Base64 of a big-endian two's complement number, to be divided by 10 to the cell's `scale`.
    Unscaled,
}

/// One value of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    /// See [`Kind`]; empty for `Absent`, `Null` and `Unavailable`.
    pub text: &'a str,
    /// What `text` is.
    pub kind: Kind,
    /// What a schema says of it.
    pub meaning: Meaning,
    /// Of [`Meaning::Unscaled`].
    pub scale: i16,
}

impl<'a> Cell<'a> {
    /// No value named.
    pub const ABSENT: Cell<'static> = Cell::new(Kind::Absent, "");
    /// A null.
    pub const NULL: Cell<'static> = Cell::new(Kind::Null, "");

    /// A cell without a meaning of its own.
    pub const fn new(kind: Kind, text: &'a str) -> Self {
        Cell {
            text,
            kind,
            meaning: Meaning::Plain,
            scale: 0,
        }
    }

    /// Whether it holds a value.
    pub fn is_value(&self) -> bool {
        !matches!(self.kind, Kind::Absent | Kind::Null | Kind::Unavailable)
    }

    /// Whether two cells are written alike.
    pub fn same(&self, other: &Cell<'_>) -> bool {
        self.kind == other.kind && self.text == other.text
    }

    /// Its text with escapes resolved; `None` where an escape stands for no character.
    pub fn resolved(&self) -> Option<Cow<'a, str>> {
        let mut scratch = String::new();
        Some(match self.kind {
            Kind::Escaped | Kind::Doubled => {
                self.resolve(&mut scratch)?;
                Cow::Owned(scratch)
            }
            _ => Cow::Borrowed(self.text),
        })
    }

    /// Its text with escapes resolved, in `scratch` where that is needed; `None` where an escape stands
    /// for no character (half of a surrogate pair).
    pub fn resolve<'s>(&self, scratch: &'s mut String) -> Option<&'s str>
    where
        'a: 's,
    {
        match self.kind {
            Kind::Escaped => {
                scratch.clear();
                unescape(self.text, scratch)?;
                Some(scratch)
            }
            Kind::Doubled => {
                scratch.clear();
                let mut rest = self.text;
                while let Some(at) = rest.find("\"\"") {
                    scratch.push_str(&rest[..=at]);
                    rest = &rest[at + 2..];
                }
                scratch.push_str(rest);
                Some(scratch)
            }
            _ => Some(self.text),
        }
    }
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
