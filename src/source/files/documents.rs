//! JSON files that do not have one object per line: an array of objects, objects that span lines, concatenated
//! objects.
//!
//! [`LineDocuments`] ends each object of such a file with a separator, by which [`super::text::TextRecords`] splits,
//! and passes a file of lines through. The beginning of a file decides which it is: an array begins with `[`; if
//! objects span lines, the first line is no complete object and the next line begins none. Each value of an array is
//! a record.
//!
//! 1. In a file of lines, each line stands alone: damage in one has no effect on the next. If, on one line, only
//!    blanks separate the end of an object from the beginning of another, they are two records.
//! 2. A record keeps its bytes, except that line breaks between its tokens become blanks. A line break inside a
//!    string, which is invalid JSON, becomes another invalid character, so that the record is refused as it would
//!    have been. The same is done to a separator inside a string.
//! 3. Lines keep their numbers: the line breaks that were removed from a record are added behind it.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memrchr};

use super::text::RECORD_SEPARATOR;

/// How many bytes of a file's beginning are examined.
const HEAD: usize = 64 << 10;

/// How many bytes are read at once.
const READ_BYTES: usize = 64 << 10;

/// Replaces a line break or a separator inside a string; it is invalid there, too.
const BROKEN: u8 = 0x0b;

/// A stream of JSON values, each of which ends with its line or with a separator.
pub(crate) struct LineDocuments<R> {
    source: R,
    /// None until the beginning was examined.
    form: Option<DocumentForm>,
    /// Bytes to return to the caller, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// An error of the source that occurred after the bytes of `ready`.
    failure: Option<io::Error>,
}

enum DocumentForm {
    Lines(LineScan),
    Documents(DocumentScan),
}

impl<R: Read> LineDocuments<R> {
    /// Wraps the uncompressed bytes of a JSON file.
    pub fn new(source: R) -> Self {
        LineDocuments {
            source,
            form: None,
            ready: Vec::new(),
            given: 0,
            failure: None,
        }
    }

    /// Prepares more bytes; returns whether there are any. An error is returned after the bytes that were read
    /// before it.
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
                true => DocumentForm::Documents(DocumentScan::default()),
                false => DocumentForm::Lines(LineScan::default()),
            });
            match form {
                DocumentForm::Lines(lines) => lines.push(&read, &mut self.ready),
                DocumentForm::Documents(documents) if is_first => documents.push(without_mark(&read), &mut self.ready),
                DocumentForm::Documents(documents) => documents.push(&read, &mut self.ready),
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
            if let Some(DocumentForm::Lines(lines)) = &mut self.form
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

/// Whether a file with this beginning does not have one object per line.
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
            let mut probe = DocumentScan::default();
            probe.push(first, &mut Vec::new());
            // If the next line begins an object at its first byte, that line is a record of its own and the one
            // before it is damaged.
            probe.is_inside() && !behind[1..].starts_with(b"{")
        }
        _ => false,
    }
}

/// The state of a scan of a file of lines, by (1).
#[derive(Debug, Default)]
struct LineScan {
    at: LinePosition,
    /// How many objects and arrays are open.
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LinePosition {
    /// Before the first object of the line.
    #[default]
    Start,
    /// In an object; the next two: in a string of it, and behind a backslash in that string.
    Object,
    Text,
    Escaped,
    /// Behind an object, with nothing but blanks since.
    Behind,
    /// In something other than an object, which is not examined.
    Other,
}

impl LineScan {
    /// Skips over bytes that can be passed through unchanged. Returns false, and changes nothing, if they cannot.
    /// It avoids a look at each byte: only the last line has to be followed to know the state.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
        let follows = |at: usize| match bytes[..at].iter().rfind(|byte| !is_blank(byte)) {
            Some(before) => *before == b'}',
            None => self.at == LinePosition::Behind,
        };
        if memchr(RECORD_SEPARATOR, bytes).is_some() || memchr_iter(b'{', bytes).any(follows) {
            return false;
        }
        let line = memrchr(b'\n', bytes).map_or(0, |end| {
            *self = LineScan::default();
            end + 1
        });
        for byte in &bytes[line..] {
            self.advance(*byte);
        }
        true
    }

    /// Appends these bytes to `out`, with a separator between two objects on one line.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if self.at == LinePosition::Behind && *byte == b'{' {
                out.push(RECORD_SEPARATOR);
            }
            let is_broken = *byte == RECORD_SEPARATOR && !matches!(self.at, LinePosition::Start | LinePosition::Behind);
            out.push(if is_broken { BROKEN } else { *byte });
            self.advance(*byte);
        }
    }

    fn advance(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (_, b'\n') => {
                self.depth = 0;
                LinePosition::Start
            }
            (LinePosition::Start | LinePosition::Behind, b'{') => {
                self.depth = 1;
                LinePosition::Object
            }
            (at @ (LinePosition::Start | LinePosition::Behind), b' ' | b'\t' | b'\r') => at,
            (LinePosition::Start | LinePosition::Behind, RECORD_SEPARATOR) => LinePosition::Start,
            (LinePosition::Start | LinePosition::Behind | LinePosition::Other, _) => LinePosition::Other,
            (LinePosition::Object, b'"') | (LinePosition::Escaped, _) => LinePosition::Text,
            (LinePosition::Text, b'"') => LinePosition::Object,
            (LinePosition::Text, b'\\') => LinePosition::Escaped,
            (LinePosition::Text, _) => LinePosition::Text,
            (LinePosition::Object, b'{' | b'[') => {
                self.depth += 1;
                LinePosition::Object
            }
            (LinePosition::Object, b'}' | b']') => {
                self.depth -= 1;
                match (self.depth, byte) {
                    (0, b'}') => LinePosition::Behind,
                    (0, _) => LinePosition::Other,
                    _ => LinePosition::Object,
                }
            }
            (LinePosition::Object, _) => LinePosition::Object,
        };
    }
}

/// The state of a scan of a text of JSON values.
#[derive(Debug, Default)]
struct DocumentScan {
    /// How many objects and arrays are open, without the array that holds the records.
    depth: usize,
    /// Whether an array that holds the records is open.
    in_array: bool,
    in_string: bool,
    escaped: bool,
    /// Inside a value that is neither an object nor an array.
    in_scalar: bool,
    /// The number of line breaks in the current value, by (3).
    breaks: usize,
    behind_cr: bool,
}

impl DocumentScan {
    /// Whether a value has begun and not yet ended.
    fn is_inside(&self) -> bool {
        self.depth > 0 || self.in_string || self.in_scalar
    }

    /// Appends these bytes to `out`, with a separator behind each value.
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

    use super::super::text::TextRecords;
    use super::super::text::tests::SlowReader;

    /// The records of a text, each with its line number.
    fn records(text: &str, step: usize) -> Vec<(String, u64)> {
        let mut records = TextRecords::new(LineDocuments::new(SlowReader(text.as_bytes(), step)), None, 1 << 20);
        let mut lines = Vec::new();
        while let Some(line) = records.next().unwrap() {
            lines.push((String::from_utf8(line.bytes.to_vec()).unwrap(), line.number));
        }
        lines
    }

    fn lines(text: &str) -> Vec<String> {
        records(text, 1 << 20).into_iter().map(|(text, _)| text).collect()
    }

    /// Objects without a line break between them, as Kinesis Firehose writes them, used to become one dead
    /// letter.
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

    /// A restart must number the records as before.
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
            LineScan::default().push(text.as_bytes(), &mut whole);
            for step in [1, 2, 5, 100] {
                let (mut lines, mut all) = (LineScan::default(), Vec::new());
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
