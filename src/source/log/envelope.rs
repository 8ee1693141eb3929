//! Splits a line of the embedded log: finds where `key` and `value` lie, without building a tree.
//!
//! The scan follows only JSON's structure (strings, escapes, nesting). Whether a value is well-formed JSON is left to
//! its decoder.

use memchr::memchr2;

/// The parts of a line `{"key": ..., "value": ..., "ts_ms": ..., "headers": {...}}`, unparsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEnvelope<'a> {
    /// JSON text; none if it is missing or null.
    pub key: Option<&'a [u8]>,
    /// JSON text; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// JSON text; none if it is missing or null.
    pub headers: Option<&'a [u8]>,
    /// Unix milliseconds; none unless it is an integer.
    pub ts_ms: Option<i64>,
}

/// Splits a line. Returns none if the line is no object with a `value`, or has a field that no record has, because
/// then `value` is an ordinary field of a row. A byte order mark is skipped, since some writers begin a file with
/// one.
pub(crate) fn parse(line: &[u8]) -> Option<LogEnvelope<'_>> {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let mut scan = Scan { line, at: 0 };
    let mut envelope = LogEnvelope::default();
    let mut has_value = false;
    scan.expect(b'{')?;
    if scan.peek()? == b'}' {
        return None;
    }
    loop {
        let name = scan.value()?;
        scan.expect(b':')?;
        let value = scan.value()?;
        let present = (value != b"null").then_some(value);
        match name {
            b"\"key\"" => envelope.key = present,
            b"\"headers\"" => envelope.headers = present,
            b"\"value\"" => {
                envelope.value = present;
                has_value = true;
            }
            b"\"ts_ms\"" => envelope.ts_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            _ => return None,
        }
        match scan.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    scan.skip_space();
    (scan.at == line.len() && has_value).then_some(envelope)
}

struct Scan<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn skip_space(&mut self) {
        while matches!(self.line.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.line.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// The text of the value that starts here; moves behind it.
    fn value(&mut self) -> Option<&'a [u8]> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => self.string()?,
            b'{' | b'[' => self.nested()?,
            _ => {
                let rest = &self.line[start..];
                let end = rest
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\r'))?;
                if end == 0 {
                    return None;
                }
                self.at += end;
            }
        }
        Some(&self.line[start..self.at])
    }

    /// Moves behind the string that starts here.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += memchr2(b'"', b'\\', self.line.get(self.at..)?)?;
            if self.line[self.at] == b'"' {
                self.at += 1;
                return Some(());
            }
            self.at += 2;
        }
    }

    /// Moves behind the object or array that starts here.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        while let Some(byte) = self.line.get(self.at) {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Option<&str> {
        parse(line.as_bytes()).map(|e| e.value.map_or("(tombstone)", |v| std::str::from_utf8(v).unwrap()))
    }

    #[test]
    fn the_parts_are_found_as_written_whatever_their_order() {
        let line = br#" { "headers" : {"a": [1, "}"]}, "value": {"q": "a \"b\" \\", "n": [1, {}]} , "ts_ms":17,"key": "k\"1" } "#;
        let expected = LogEnvelope {
            key: Some(br#""k\"1""#),
            value: Some(br#"{"q": "a \"b\" \\", "n": [1, {}]}"#),
            headers: Some(br#"{"a": [1, "}"]}"#),
            ts_ms: Some(17),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(br#"{"key":null,"value":1.5}"#).unwrap().key, None);
        assert_eq!(parse(br#"{"value":1,"ts_ms":"late"}"#).unwrap().ts_ms, None);
    }

    /// The first line of a log with a byte order mark became a dead letter, because its `value` was taken for a row's
    /// field.
    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(value("\u{feff}{\"value\": {\"id\": 1}}"), Some("{\"id\": 1}"));
    }

    #[test]
    fn a_null_value_is_a_tombstone_and_a_missing_one_is_no_record() {
        assert_eq!(value(r#"{"key": 1, "value": null}"#), Some("(tombstone)"));
        assert_eq!(value(r#"{"key": 1}"#), None);
        assert_eq!(value("{}"), None);
    }

    /// `{"sensor": 1, "value": {...}}` lost its sensor, because its own field `value` was taken for the whole row.
    #[test]
    fn an_object_with_fields_that_no_record_has_is_no_record() {
        assert_eq!(value(r#"{"sensor":1,"value":{"a":1}}"#), None);
        assert_eq!(value(r#"{"value":{"a":1},"key":1,"sensor":1}"#), None);
        assert_eq!(value(r#"{"Key":1,"value":{"a":1}}"#), None);
        assert_eq!(value(r#"{"value":{"a":1,"sensor":1}}"#), Some(r#"{"a":1,"sensor":1}"#));
    }

    #[test]
    fn what_is_no_whole_object_is_no_record() {
        for line in [
            "",
            "   ",
            "[1]",
            "null",
            "{",
            r#"{"value""#,
            r#"{"value":"#,
            r#"{"value":{"a":1}"#,
            r#"{"value":"a}"#,
            r#"{"value":1} x"#,
            r#"{"value":1,}"#,
            r#"{"value":}"#,
            r#"{value:1}"#,
            r#"{"value":1 2}"#,
            r#"{"value":"\"#,
            r#"{"value":{"a":1}}}"#,
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
