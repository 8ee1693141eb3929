//! A strict reader of JSON text (RFC 8259) that copies nothing: a field's value comes as a [`Cell`] that
//! borrows the text, and nested values come whole, as written.
//!
//! It replaces arrow-json's decoder on this path: that one cannot keep nested values as text, does not
//! say which record is broken or which fields nobody takes, and reads two objects in one record as two rows.
//! Every byte is checked, also of values that nobody asks for. Duplicate keys are all reported, in order.

use super::cell::{Cell, Kind};

/// How deep values may nest.
const DEPTH: u32 = 128;

/// Text that is not the JSON that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Byte in the text.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// What is broken of JSON that is none.
pub(super) const NO_OBJECT: &str = "it is not an object";

/// Calls `field` with each key (raw, and whether it has escapes) and value of the object that `text` is.
pub(super) fn object<'a>(text: &'a str, mut field: impl FnMut(Cell<'a>, Cell<'a>)) -> Result<(), Broken> {
    let mut scan = Scan { text, at: 0 };
    scan.blank();
    if scan.peek() != Some(b'{') {
        // Say "not JSON" rather than "not an object" where it is neither.
        scan.value()?;
        scan.end()?;
        return Err(Broken { at: 0, what: NO_OBJECT });
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

/// Calls `item` with each value of the array that `text` is.
pub(super) fn array<'a>(text: &'a str, mut item: impl FnMut(Cell<'a>)) -> Result<(), Broken> {
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

/// The one value that `text` is.
pub(super) fn value(text: &str) -> Result<Cell<'_>, Broken> {
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
    fn broken<T>(&self, what: &'static str) -> Result<T, Broken> {
        Err(Broken { at: self.at, what })
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

    fn end(&mut self) -> Result<(), Broken> {
        self.blank();
        if self.at == self.text.len() {
            return Ok(());
        }
        self.broken("expected the end of the record")
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Cell<'a>, Broken> {
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

    /// A whole value.
    fn value(&mut self) -> Result<Cell<'a>, Broken> {
        self.blank();
        match self.peek() {
            Some(b'{' | b'[') => {
                let start = self.at;
                self.skip_nested()?;
                Ok(Cell::new(Kind::Nested, &self.text[start..self.at]))
            }
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<Cell<'a>, Broken> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            Some(_) => self.broken("expected a value"),
            None => self.broken("it ends too early"),
        }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Cell<'a>, Broken> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.broken("expected a value");
        }
        self.at += word.len();
        Ok(Cell::new(kind, if kind == Kind::Null { "" } else { word }))
    }

    fn string(&mut self) -> Result<Cell<'a>, Broken> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut kind = Kind::Text;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cell::new(kind, &self.text[start..self.at - 1]));
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
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

    fn digits(&mut self) -> Result<(), Broken> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.broken("expected a digit");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Cell<'a>, Broken> {
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
        Ok(Cell::new(Kind::Number, &self.text[start..self.at]))
    }

    /// Checks an object or array to its end. The stack is bits: 1 for an object, 0 for an array.
    fn skip_nested(&mut self) -> Result<(), Broken> {
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
            // A value ended here: close what ends with it, go on with what follows.
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

    /// What serde_json says of the text: an object it can read.
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
