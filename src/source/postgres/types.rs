//! Converts PostgreSQL's text format to JSON, by type, in the way Debezium does, so that a value means the same from
//! either.
//!
//! | type | JSON |
//! |---|---|
//! | boolean | `true`, `false` |
//! | integers, floating point, numeric | a number with PostgreSQL's digits; a text for `NaN` and infinities |
//! | timestamp, timestamptz | ISO 8601, the latter in UTC; a text for infinities |
//! | bytea | base64 |
//! | arrays | an array, of arrays where it has several dimensions |
//! | all others: text, date, time, json, uuid, enums, intervals, ranges, ... | PostgreSQL's text |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;

/// How the text of a type's values becomes JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextKind {
    Boolean,
    Number,
    Text,
    Bytes,
    Timestamp,
    TimestampTz,
    /// An array of items of a kind, with the delimiter between them.
    Array(Box<TextKind>, u8),
}

/// A type that is not built in, or that is derived from another type.
#[derive(Clone, Copy, Debug)]
pub struct DerivedType {
    /// For an array the type of its items, for a domain its base type; 0: none.
    pub of: u32,
    pub is_array: bool,
    /// The delimiter between items.
    pub delimiter: u8,
}

/// Types by OID.
#[derive(Debug, Default)]
pub struct Types(pub HashMap<u32, DerivedType>);

/// The query for [`Types`]: OID, item or base type, whether it is an array, and the items' delimiter.
pub const TYPES: &str = "SELECT t.oid, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, t.typtype <> 'd', \
                         COALESCE(e.typdelim, ',') FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem \
                         WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0 AND t.oid NOT IN (22, 30))";

impl Types {
    /// How the text of a type's values becomes JSON.
    pub fn kind(&self, oid: u32) -> TextKind {
        self.nested(oid, 0)
    }

    /// Follows domains and arrays to a limited depth, so that a catalog with a cycle does no harm.
    fn nested(&self, oid: u32, depth: u32) -> TextKind {
        match (oid, self.0.get(&oid)) {
            (16, _) => TextKind::Boolean,
            (20 | 21 | 23 | 26 | 700 | 701 | 1700, _) => TextKind::Number,
            (17, _) => TextKind::Bytes,
            (1114, _) => TextKind::Timestamp,
            (1184, _) => TextKind::TimestampTz,
            (_, Some(made)) if depth < 8 => match (made.is_array, self.nested(made.of, depth + 1)) {
                (true, item) => TextKind::Array(Box::new(item), made.delimiter),
                (false, base) => base,
            },
            _ => TextKind::Text,
        }
    }
}

/// Writes a value as JSON.
pub fn write(kind: &TextKind, text: &[u8], out: &mut Vec<u8>) {
    match kind {
        TextKind::Boolean => out.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
        TextKind::Number if is_number(text) => out.extend_from_slice(text),
        TextKind::Bytes => match text.strip_prefix(b"\\x") {
            Some(digits) => write_base64(digits, out),
            None => write_text(text, out),
        },
        TextKind::Timestamp | TextKind::TimestampTz if begins_with_date(text) => {
            let text = match kind {
                TextKind::TimestampTz => text.strip_suffix(b"+00").unwrap_or(text),
                _ => text,
            };
            let start = out.len();
            write_text(text, out);
            out[start + 11] = b'T';
            if *kind == TextKind::TimestampTz {
                out.pop();
                out.extend_from_slice(b"Z\"");
            }
        }
        TextKind::Array(item, delimiter) => write_array(item, *delimiter, text, out),
        _ => write_text(text, out),
    }
}

/// Whether a text begins with a date of a four-digit year, and a time follows.
fn begins_with_date(text: &[u8]) -> bool {
    let of_date = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    text.get(10) == Some(&b' ') && text[..10].iter().all(of_date)
}

/// Whether a number is valid in JSON: digits, not NaN or an infinity.
fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    digits.first().is_some_and(u8::is_ascii_digit)
}

/// Writes text as a JSON string. Bytes that are not UTF-8 are kept, so that the decoder refuses the record.
pub fn write_text(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
}

fn write_base64(digits: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|two| digit(two[0]) << 4 | digit(two[1]))
        .collect();
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Writes an array from PostgreSQL's text format; a text that is no array is written as text.
fn write_array(item: &TextKind, delimiter: u8, text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    // Unusual bounds precede the array, as in `[0:1]={5,6}`.
    let body = match text.first() {
        Some(b'[') => memchr::memchr(b'=', text).map_or(text, |at| &text[at + 1..]),
        _ => text,
    };
    let mut reader = Array {
        item,
        delimiter,
        text: body,
        at: 0,
        scratch: Vec::new(),
    };
    if reader.list(out, 0).is_none() || reader.at != body.len() {
        out.truncate(start);
        write_text(text, out);
    }
}

struct Array<'a> {
    item: &'a TextKind,
    delimiter: u8,
    text: &'a [u8],
    at: usize,
    /// A buffer for an item without its quotes.
    scratch: Vec<u8>,
}

impl Array<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Converts a list from its opening brace on; none if it is malformed. PostgreSQL allows at most six dimensions.
    fn list(&mut self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        if depth > 6 || self.next()? != b'{' {
            return None;
        }
        out.push(b'[');
        if self.text.get(self.at) == Some(&b'}') {
            self.at += 1;
            out.push(b']');
            return Some(());
        }
        loop {
            match self.text.get(self.at)? {
                b'{' => self.list(out, depth + 1)?,
                b'"' => self.quoted(out)?,
                _ => self.plain(out)?,
            }
            match self.next()? {
                b'}' => break,
                byte if byte == self.delimiter => out.push(b','),
                _ => return None,
            }
        }
        out.push(b']');
        Some(())
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.at += 1;
        self.scratch.clear();
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    let escaped = self.next()?;
                    self.scratch.push(escaped);
                }
                byte => self.scratch.push(byte),
            }
        }
        write(self.item, &self.scratch, out);
        Some(())
    }

    fn plain(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| *byte == self.delimiter || *byte == b'}')?;
        self.at += length;
        match &rest[..length] {
            [] => return None,
            b"NULL" => out.extend_from_slice(b"null"),
            item => write(self.item, item, out),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(kind: &TextKind, text: &str) -> String {
        let mut out = Vec::new();
        write(kind, text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_of_every_type_become_json() {
        let made = |of, is_array, delimiter| DerivedType {
            of,
            is_array,
            delimiter,
        };
        let types = Types(HashMap::from([
            (1007, made(23, true, b',')),
            (1009, made(25, true, b',')),
            (1020, made(603, true, b';')),
            (1185, made(1184, true, b',')),
            (50_000, made(1700, false, b',')),
            (50_001, made(50_000, true, b',')),
            (50_002, made(50_002, false, b',')),
        ]));
        for (oid, text, expected) in [
            (16, "t", "true"),
            (16, "f", "false"),
            (20, "-9223372036854775808", "-9223372036854775808"),
            (701, "1e+300", "1e+300"),
            (701, "-Infinity", "\"-Infinity\""),
            (1700, "12.50", "12.50"),
            (1700, "NaN", "\"NaN\""),
            (25, "a\"\\\n\u{1}\u{e4}", "\"a\\\"\\\\\\n\\u0001\u{e4}\""),
            (17, "\\x00ff10", "\"AP8Q\""),
            (17, "\\x", "\"\""),
            (1082, "2026-11-22", "\"2026-11-22\""),
            (1114, "2026-11-22 01:02:03.5", "\"2026-11-22T01:02:03.5\""),
            (1184, "2026-11-22 01:02:03+00", "\"2026-11-22T01:02:03Z\""),
            (1184, "infinity", "\"infinity\""),
            (1184, "0044-03-15 00:00:00+00 BC", "\"0044-03-15T00:00:00+00 BCZ\""),
            (3802, "{\"a\": [1]}", "\"{\\\"a\\\": [1]}\""),
            (1007, "{1,NULL,-3}", "[1,null,-3]"),
            (1007, "{}", "[]"),
            (1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (1007, "[0:1]={5,6}", "[5,6]"),
            (1007, "{1,2", "\"{1,2\""),
            (
                1009,
                "{a,\"NULL\",\"x\\\"y,}\",\"\"}",
                "[\"a\",\"NULL\",\"x\\\"y,}\",\"\"]",
            ),
            (1020, "{(1,1),(0,0);(2,2),(1,1)}", "[\"(1,1),(0,0)\",\"(2,2),(1,1)\"]"),
            (1185, "{\"2026-11-22 01:02:03+00\"}", "[\"2026-11-22T01:02:03Z\"]"),
            (50_000, "1.5", "1.5"),
            (50_001, "{1.5,NaN}", "[1.5,\"NaN\"]"),
            (50_002, "x", "\"x\""),
        ] {
            assert_eq!(json(&types.kind(oid), text), expected, "{oid} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_any_type_is_json(text in "[{}\\[\\]0-9,;\"\\\\a-cNUL =:+.-]{0,40}", oid in 0usize..4) {
            let types = Types(HashMap::from([(1007, DerivedType { of: 1184, is_array: true, delimiter: b',' })]));
            let kind = types.kind([17, 25, 1114, 1007][oid]);
            let json = json(&kind, &text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        }
    }
}
