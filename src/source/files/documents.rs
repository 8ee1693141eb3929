//! JSON files that are not one object a line: an array of objects, objects over several lines, objects one behind the other.
//!
//! [`LineDocuments`] has a separator end each of their objects, which [`super::text::Records`] splits by, and leaves a file of
//! lines as it is. Which of them a file is, its beginning tells: an array begins with `[`; the first line of an object over several
//! lines is no whole object, and the line behind it begins none. Of an array each value is a record.
//!
//! 1. In a file of lines every line stands for itself: what is damaged in one changes nothing of the next. Where an object ends
//!    and, but for blanks, another begins behind it on its line, there are two records.
//! 2. A record stays what it was: only line breaks between its parts become blanks. A line break inside of a string, which
//!    JSON does not know, becomes another character that it does not know, so that the record is refused as it would have
//!    been; so does a separator.
//! 3. Lines keep their numbers: as many line breaks as a record had stand behind it.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memrchr};

use super::text::RECORD_SEPARATOR;

/// How far a file's beginning is looked at.
const HEAD: usize = 64 << 10;

/// Bytes asked for at a time.
const READ_BYTES: usize = 64 << 10;

/// What stands for a line break or a separator inside of a string.
const BROKEN: u8 = 0x0b;

/// A text of JSON values that end with their lines or with a separator.
pub(crate) struct LineDocuments<R> {
    source: R,
    /// None until the beginning was looked at.
    form: Option<Form>,
    /// What is ready to be given, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// What the source failed of behind what is ready.
    failure: Option<io::Error>,
}

enum Form {
    Lines(Lines),
    Documents(Documents),
}

impl<R: Read> LineDocuments<R> {
    /// Of a JSON file's plain bytes.
    pub fn new(source: R) -> Self {
        LineDocuments {
            source,
            form: None,
            ready: Vec::new(),
            given: 0,
            failure: None,
        }
    }

    /// Makes more ready; says whether there is any. What was read before a failure is given before it is told.
    fn refill(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.given = 0;
        while self.ready.is_empty() {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            let is_first = self.form.is_none();
            let limit = if is_first { HEAD } else { READ_BYTES };
            let mut read = Vec::new();
            let ended = match self.source.by_ref().take(limit as u64).read_to_end(&mut read) {
                Ok(length) => length == 0,
                Err(failure) => {
                    self.failure = Some(failure);
                    false
                }
            };
            let form = self.form.get_or_insert_with(|| match are_documents(&read) {
                true => Form::Documents(Documents::default()),
                false => Form::Lines(Lines::default()),
            });
            match form {
                Form::Lines(lines) => lines.push(&read, &mut self.ready),
                Form::Documents(documents) if is_first => documents.push(without_mark(&read), &mut self.ready),
                Form::Documents(documents) => documents.push(&read, &mut self.ready),
            }
            if ended {
                break;
            }
        }
        Ok(!self.ready.is_empty())
    }
}

impl<R: Read> Read for LineDocuments<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            if let Some(Form::Lines(lines)) = &mut self.form
                && self.failure.is_none()
            {
                let length = self.source.read(buffer)?;
                if lines.pass(&buffer[..length]) {
                    return Ok(length);
                }
                self.ready.clear();
                self.given = 0;
                lines.push(&buffer[..length], &mut self.ready);
            } else if !self.refill()? {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.ready.len() - self.given);
        buffer[..length].copy_from_slice(&self.ready[self.given..][..length]);
        self.given += length;
        Ok(length)
    }
}

fn without_mark(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head)
}

/// Whether a file that begins like this is none of one object a line.
fn are_documents(head: &[u8]) -> bool {
    let is_before = |byte: &u8| !byte.is_ascii_whitespace() && *byte != RECORD_SEPARATOR;
    let head = without_mark(head);
    let head = &head[head.iter().position(is_before).unwrap_or(head.len())..];
    match head.first() {
        Some(b'[') => true,
        Some(b'{') => {
            let Some(end) = memchr(b'\n', head) else {
                return false;
            };
            let (first, behind) = head.split_at(end);
            let mut probe = Documents::default();
            probe.push(first, &mut Vec::new());
            // A line that begins an object at its first byte is a record of its own, and the one before it is damaged.
            probe.is_inside() && !behind[1..].starts_with(b"{")
        }
        _ => false,
    }
}

/// Where a file of lines is, by (1).
#[derive(Debug, Default)]
struct Lines {
    at: InLine,
    /// Objects and arrays that are open.
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InLine {
    /// Before its first object.
    #[default]
    Start,
    /// In an object, in a string of one, behind a backslash in a string.
    Object,
    Text,
    Escaped,
    /// Behind an object, but for blanks.
    Behind,
    /// In what is no object: it is not looked at.
    Other,
}

impl Lines {
    /// Passes over bytes that are given as they are; says whether they may be, and if not has done nothing. What matters is found
    /// without looking at each byte: only the last line has to be followed.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
        let follows = |at: usize| match bytes[..at].iter().rfind(|byte| !is_blank(byte)) {
            Some(before) => *before == b'}',
            None => self.at == InLine::Behind,
        };
        if memchr(RECORD_SEPARATOR, bytes).is_some() || memchr_iter(b'{', bytes).any(follows) {
            return false;
        }
        let line = memrchr(b'\n', bytes).map_or(0, |end| {
            *self = Lines::default();
            end + 1
        });
        for byte in &bytes[line..] {
            self.advance(*byte);
        }
        true
    }

    /// Appends what these bytes are, with a separator between two objects of one line.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if self.at == InLine::Behind && *byte == b'{' {
                out.push(RECORD_SEPARATOR);
            }
            let is_broken = *byte == RECORD_SEPARATOR && !matches!(self.at, InLine::Start | InLine::Behind);
            out.push(if is_broken { BROKEN } else { *byte });
            self.advance(*byte);
        }
    }

    fn advance(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (_, b'\n') => {
                self.depth = 0;
                InLine::Start
            }
            (InLine::Start | InLine::Behind, b'{') => {
                self.depth = 1;
                InLine::Object
            }
            (at @ (InLine::Start | InLine::Behind), b' ' | b'\t' | b'\r') => at,
            (InLine::Start | InLine::Behind, RECORD_SEPARATOR) => InLine::Start,
            (InLine::Start | InLine::Behind | InLine::Other, _) => InLine::Other,
            (InLine::Object, b'"') | (InLine::Escaped, _) => InLine::Text,
            (InLine::Text, b'"') => InLine::Object,
            (InLine::Text, b'\\') => InLine::Escaped,
            (InLine::Text, _) => InLine::Text,
            (InLine::Object, b'{' | b'[') => {
                self.depth += 1;
                InLine::Object
            }
            (InLine::Object, b'}' | b']') => {
                self.depth -= 1;
                match (self.depth, byte) {
                    (0, b'}') => InLine::Behind,
                    (0, _) => InLine::Other,
                    _ => InLine::Object,
                }
            }
            (InLine::Object, _) => InLine::Object,
        };
    }
}

/// Where a text of JSON values is.
#[derive(Debug, Default)]
struct Documents {
    /// Objects and arrays that are open, an array of records aside.
    depth: usize,
    /// Whether values of an array of records come.
    in_array: bool,
    in_string: bool,
    escaped: bool,
    /// Inside of a value that is no object and no array.
    in_scalar: bool,
    /// Line breaks in the value so far, by (3).
    breaks: usize,
    behind_cr: bool,
}

impl Documents {
    /// Whether a value has begun and not ended.
    fn is_inside(&self) -> bool {
        self.depth > 0 || self.in_string || self.in_scalar
    }

    /// Appends what these bytes are, each value with a separator behind it.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            let is_break = *byte == b'\r' || *byte == b'\n' && !self.behind_cr;
            self.behind_cr = *byte == b'\r';
            self.breaks += usize::from(is_break);
            self.push_byte(*byte, out);
            if !self.is_inside() {
                out.extend(std::iter::repeat_n(b'\n', std::mem::take(&mut self.breaks)));
            }
        }
    }

    fn push_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            let is_broken = matches!(byte, b'\n' | b'\r' | RECORD_SEPARATOR);
            out.push(if is_broken { BROKEN } else { byte });
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.in_scalar |= self.depth == 0;
                }
                _ => (),
            }
            return;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if self.depth > 0 => out.push(b' '),
            RECORD_SEPARATOR if self.depth > 0 => out.push(BROKEN),
            b' ' | b'\t' | b'\n' | b'\r' | RECORD_SEPARATOR => self.end_scalar(out),
            b',' if self.depth == 0 => self.end_scalar(out),
            b'[' if self.depth == 0 && !self.in_array && !self.in_scalar => self.in_array = true,
            b']' if self.depth == 0 && self.in_array => {
                self.end_scalar(out);
                self.in_array = false;
            }
            b'{' | b'[' => {
                out.push(byte);
                self.depth += 1;
            }
            b'}' | b']' if self.depth > 0 => {
                out.push(byte);
                self.depth -= 1;
                if self.depth == 0 {
                    self.in_scalar = false;
                    out.push(RECORD_SEPARATOR);
                }
            }
            b'"' => {
                out.push(byte);
                self.in_string = true;
            }
            other => {
                out.push(other);
                self.in_scalar |= self.depth == 0;
            }
        }
    }

    fn end_scalar(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.in_scalar) {
            out.push(RECORD_SEPARATOR);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    use super::super::text::Records;
    use super::super::text::tests::Slowly;

    /// The records of a text, and their lines.
    fn records(text: &str, step: usize) -> Vec<(String, u64)> {
        let mut records = Records::new(LineDocuments::new(Slowly(text.as_bytes(), step)), None, 1 << 20);
        let mut found = Vec::new();
        while let Some(line) = records.next().unwrap() {
            found.push((String::from_utf8(line.bytes.to_vec()).unwrap(), line.number));
        }
        found
    }

    fn lines(text: &str) -> Vec<String> {
        records(text, 1 << 20).into_iter().map(|(text, _)| text).collect()
    }

    /// Objects without a line break between them, as Kinesis Firehose writes them, were one dead letter.
    #[test]
    fn objects_one_behind_the_other_are_records() {
        let expected = ["{\"a\":1}", "{\"b\":{\"c\":\"}{\\\"} {\"}}", "{\"a\":3}"];
        for between in ["", " ", " \t ", "\r", "\n", "\r\n", "\u{1e}", "\n\u{1e}"] {
            let text = expected.join(between);
            for text in [text.clone(), format!("{text}\n"), format!("\u{1e}{text}\n")] {
                assert_eq!(lines(&text), expected, "{text:?}");
            }
        }
        let many: String = (0..50_000).map(|n| format!("{{\"a\":{n}}}")).collect();
        assert_eq!(records(&many, 100_000).last(), Some(&("{\"a\":49999}".to_string(), 1)));
    }

    #[test]
    fn what_is_between_objects_of_a_line_is_not_left_out() {
        for text in [
            "{\"a\":1},{\"a\":2}",
            "{\"a\":1}x{\"a\":2} {\"a\":3}",
            "x{\"a\":1}{\"a\":2}",
            "{\"a\":1]{\"a\":2}",
            "[{\"a\":1}]{\"a\":2}",
        ] {
            let text = format!("{{}}\n{text}\n{{}}");
            let expected: Vec<&str> = text.lines().collect();
            assert_eq!(lines(&text), expected);
        }
        assert_eq!(
            lines("{}\n{\"a\":1}{\"a\":\n{}{}"),
            ["{}", "{\"a\":1}", "{\"a\":", "{}", "{}"]
        );
    }

    /// Numbers of records must be the same after a restart.
    #[test]
    fn where_lines_are_split_does_not_depend_on_how_much_is_read_at_once() {
        let parts = [
            "{",
            "}",
            "\"",
            "\\",
            "[",
            "]",
            " ",
            "\n",
            "\r",
            ",",
            "1",
            "\u{1e}",
            "{\"a\":1}",
        ];
        let mut random = 7u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(parts[(random >> 33) as usize % parts.len()]);
            }
            let mut whole = Vec::new();
            Lines::default().push(text.as_bytes(), &mut whole);
            for step in [1, 2, 5, 100] {
                let (mut lines, mut all) = (Lines::default(), Vec::new());
                for piece in text.as_bytes().chunks(step) {
                    match lines.pass(piece) {
                        true => all.extend_from_slice(piece),
                        false => lines.push(piece, &mut all),
                    }
                }
                assert_eq!(all, whole, "{text:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn records_over_several_lines_tell_the_line_that_they_begin_on() {
        for end in ["\n", "\r\n"] {
            let pretty = "{\n  \"a\": 1,\n  \"b\": {\n  }\n}\n\n{\n \"a\": 2}{\n \"a\": 3\n}\n".replace('\n', end);
            let array = "[\n{\"a\": 1},\n{\"a\":\n2}, {\"a\": 3},\n\n4\n]".replace('\n', end);
            for step in [1, 7, 1 << 20] {
                let numbers = |text: &str| {
                    records(text, step)
                        .into_iter()
                        .map(|(_, line)| line)
                        .collect::<Vec<_>>()
                };
                assert_eq!(numbers(&pretty), [1, 7, 8]);
                assert_eq!(numbers(&array), [2, 3, 4, 6]);
            }
        }
    }

    #[test]
    fn arrays_and_objects_over_several_lines_become_one_object_a_line() {
        let expected = [r#"{"a":1}"#, r#"{"a":"x]}\",","b":[1,2]}"#];
        for text in [
            format!("[{},{}]", expected[0], expected[1]),
            format!("\u{feff} [\n{}\n,\n{}\n]\n", expected[0], expected[1]),
            format!("{}\n{}\n", expected[0], expected[1]),
            format!("[{}]\n[{}]", expected[0], expected[1]),
        ] {
            assert_eq!(lines(&text), expected, "{text}");
        }
        let pretty = "{\n  \"a\": 1,\n  \"b\": {\r\n    \"c\": null\n  }\n}\n{\n  \"a\": 2\n}";
        let read: Vec<serde_json::Value> = lines(pretty)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            read,
            [
                serde_json::json!({"a": 1, "b": {"c": null}}),
                serde_json::json!({"a": 2})
            ]
        );
        assert_eq!(lines("[]"), Vec::<String>::new());
        assert_eq!(lines("[1, \"two\", [3], null]"), ["1", "\"two\"", "[3]", "null"]);
    }

    #[test]
    fn a_file_of_lines_stays_as_it_is_even_where_its_first_is_damaged() {
        for text in [
            "{\"a\":1}\n{\"a\":2}\n",
            "{\"a\":\n{\"a\":2}\n",
            "{\"a\":\"\n{\"a\":2}\n",
            "{\"a\":1}",
            "x\n[1]\n",
            "",
            "\n\n",
        ] {
            let mut all = String::new();
            LineDocuments::new(text.as_bytes()).read_to_string(&mut all).unwrap();
            assert_eq!(all, text);
        }
    }

    #[test]
    fn a_line_break_in_a_string_makes_no_record_good() {
        let broken = lines("[{\"a\":\"x\ny\"},{\"a\":1}]");
        assert_eq!(broken.len(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(&broken[0]).is_err());
        assert_eq!(broken[1], "{\"a\":1}");
    }
}
