//! A strict parser of JSON text (RFC 8259) that copies nothing: a field's value is returned as a [`Cell`] that
//! borrows the text, and nested values are returned as their text.
//!
//! arrow-json's decoder is not used, because it cannot keep nested values as text, does not report which record is
//! broken or which fields are ignored, and reads two objects in one record as two rows. Every byte is validated, even
//! in values that no column takes. Duplicate keys are all reported, in order.
//!
//! **Why not a library**: with serde_json's `RawValue` or with sonic-rs in place of this scanner, decoding takes 15 to
//! 22 % longer (small orders: 791 and 838 instead of 687 ns; Debezium: 2,853 and 2,891 instead of 2,429 ns; release,
//! minimum of 7 runs), and sonic-rs accepts texts that are no JSON. simd-json is as quick, but overwrites its input and
//! yields parsed numbers, so exact decimals and nested values as they were written would be lost.

use crate::decode::cell::{Cell, CellKind};

/// How deep values may be nested.
const DEPTH: u32 = 128;

/// Why a text is not the expected JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    /// The offset in the text, in bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The message for a JSON value that is no object.
pub(super) const NO_OBJECT: &str = "it is not an object";

/// Calls `field` with each key (raw, and whether it has escapes) and value of the object in `text`.
pub(super) fn object<'a>(text: &'a str, mut field: impl FnMut(Cell<'a>, Cell<'a>)) -> Result<(), JsonError> {
    let mut scan = Scan { text, at: 0 };
    scan.blank();
    if scan.peek() != Some(b'{') {
        // Invalid JSON is reported as such, and not as a value that is no object.
        scan.value()?;
        scan.end()?;
        return Err(JsonError { at: 0, what: NO_OBJECT });
    }
    scan.at += 1;
    scan.blank();
    if scan.take(b'}') {
        return scan.end();
    }
    loop {
        let key = scan.key()?;
        let value = scan.value()?;
        field(key, value);
        scan.blank();
        if scan.take(b',') {
            scan.blank();
        } else if scan.take(b'}') {
            return scan.end();
        } else {
            return scan.broken("expected a comma or the end of the object");
        }
    }
}

/// Calls `item` with each value of the array in `text`.
pub(super) fn array<'a>(text: &'a str, mut item: impl FnMut(Cell<'a>)) -> Result<(), JsonError> {
    let mut scan = Scan { text, at: 0 };
    scan.blank();
    if !scan.take(b'[') {
        return scan.broken("it is not an array");
    }
    scan.blank();
    if scan.take(b']') {
        return scan.end();
    }
    loop {
        item(scan.value()?);
        scan.blank();
        if scan.take(b',') {
            scan.blank();
        } else if scan.take(b']') {
            return scan.end();
        } else {
            return scan.broken("expected a comma or the end of the array");
        }
    }
}

/// Parses `text` as a single value.
pub(super) fn value(text: &str) -> Result<Cell<'_>, JsonError> {
    let mut scan = Scan { text, at: 0 };
    let value = scan.value()?;
    scan.end()?;
    Ok(value)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn broken<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.blank();
        if self.at == self.text.len() {
            return Ok(());
        }
        self.broken("expected the end of the record")
    }

    /// Parses a key and its colon.
    fn key(&mut self) -> Result<Cell<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.broken("expected a key in quotes");
        }
        let key = self.string()?;
        self.blank();
        if !self.take(b':') {
            return self.broken("expected a colon");
        }
        Ok(key)
    }

    /// Parses a complete value.
    fn value(&mut self) -> Result<Cell<'a>, JsonError> {
        self.blank();
        match self.peek() {
            Some(b'{' | b'[') => {
                let start = self.at;
                self.skip_nested()?;
                Ok(Cell::new(CellKind::Nested, &self.text[start..self.at]))
            }
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<Cell<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", CellKind::True),
            Some(b'f') => self.word("false", CellKind::False),
            Some(b'n') => self.word("null", CellKind::Null),
            Some(_) => self.broken("expected a value"),
            None => self.broken("it ends too early"),
        }
    }

    fn word(&mut self, word: &'static str, kind: CellKind) -> Result<Cell<'a>, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.broken("expected a value");
        }
        self.at += word.len();
        Ok(Cell::new(kind, if kind == CellKind::Null { "" } else { word }))
    }

    fn string(&mut self) -> Result<Cell<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut kind = CellKind::Text;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cell::new(kind, &self.text[start..self.at - 1]));
                }
                Some(b'\\') => {
                    kind = CellKind::Escaped;
                    let length = match bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') => {
                            let digits = bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
                            if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                                return self.broken("expected four hexadecimal digits after \\u");
                            }
                            6
                        }
                        _ => return self.broken("it has an escape that JSON does not know"),
                    };
                    self.at += length;
                }
                Some(0..0x20) => return self.broken("a string has a bare control character"),
                Some(_) => self.at += 1,
                None => return self.broken("a string does not end"),
            }
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.broken("expected a digit");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Cell<'a>, JsonError> {
        let start = self.at;
        self.take(b'-');
        if self.take(b'0') {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.broken("a number begins with 0");
            }
        } else {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(Cell::new(CellKind::Number, &self.text[start..self.at]))
    }

    /// Validates an object or array to its end. The bits of the stack are 1 for an object and 0 for an array.
    fn skip_nested(&mut self) -> Result<(), JsonError> {
        let mut stack: u128 = 0;
        let mut depth: u32 = 0;
        loop {
            // A value starts here.
            self.blank();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == DEPTH {
                        return self.broken("it is nested deeper than 128 levels");
                    }
                    self.at += 1;
                    depth += 1;
                    stack = (stack << 1) | u128::from(open == b'{');
                    self.blank();
                    let close = if open == b'{' { b'}' } else { b']' };
                    if !self.take(close) {
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                    depth -= 1;
                    stack >>= 1;
                }
                _ => {
                    self.scalar()?;
                }
            }
            // A value has ended: closes the values that end with it, and continues with what follows.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = stack & 1 == 1;
                self.blank();
                if self.take(b',') {
                    self.blank();
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                if !self.take(if in_object { b'}' } else { b']' }) {
                    return self.broken(if in_object {
                        "expected a comma or the end of the object"
                    } else {
                        "expected a comma or the end of the array"
                    });
                }
                depth -= 1;
                stack >>= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether serde_json accepts the text as an object.
    fn oracle(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && text.trim_start().starts_with('{')
    }

    proptest! {
        #[test]
        fn takes_exactly_the_objects_that_serde_json_takes(text in "\\{[\\]\\[{},:\"a\\\\nu01.eE+ -]{0,24}[}]") {
            prop_assert_eq!(object(&text, |_, _| ()).is_ok(), oracle(&text), "{}", text);
        }

        #[test]
        fn cutting_or_spoiling_an_object_is_judged_as_serde_json_judges_it(
            at in 0usize..90, with in prop::sample::select(vec!["", "\"", "{", "}", "]", "0", ",", ":", " ", "\\", "-"])
        ) {
            let whole = r#"{"a":[1,-2.5e+3,{"b":"x\n\u00e9"}],"c":{},"d":[],"e":null,"f":true,"g":"","h":[[[]]],"i":0}"#;
            let at = at.min(whole.len() - 1);
            if whole.is_char_boundary(at) && whole.is_char_boundary(at + 1) {
                let text = format!("{}{with}{}", &whole[..at], &whole[at + 1..]);
                prop_assert_eq!(object(&text, |_, _| ()).is_ok(), oracle(&text), "{}", text);
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_deep_recursion() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(object(&text, |_, _| ()).expect_err("too deep").what.contains("128"));
    }

    #[test]
    fn escapes_are_resolved_and_half_a_pair_is_not() {
        let text = r#"{"a":"x\u00e9\n\"\ud83d\ude00","b":"\ud83d"}"#;
        let mut seen = Vec::new();
        object(text, |_, value| seen.push(value.resolved().map(|t| t.into_owned()))).expect("valid JSON");
        assert_eq!(seen, vec![Some("xé\n\"😀".to_string()), None]);
    }
}
