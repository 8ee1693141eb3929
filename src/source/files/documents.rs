//! JSON files that are not one object a line: an array of objects, or objects over several lines.
//!
//! [`LineDocuments`] turns them into one object a line, and leaves a file of lines as it is. Which of them a file is, its
//! beginning tells: an array begins with `[`; the first line of an object over several lines is no whole object, and
//! the line behind it begins none. Of an array each value is a record.
//!
//! A record stays what it was: only line breaks between its parts become blanks. A line break inside of a string, which JSON
//! does not know, becomes another character that it does not know, so that the record is refused as it would have been.

use std::io::{self, Read};

/// How far a file's beginning is looked at.
const HEAD: usize = 64 << 10;

/// Bytes asked for at a time.
const READ_BYTES: usize = 64 << 10;

/// What stands for a line break inside of a string.
const BROKEN: u8 = 0x0b;

/// A text of one JSON value a line.
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
    Lines,
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
                false => Form::Lines,
            });
            match form {
                Form::Lines => self.ready = read,
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
            if matches!(self.form, Some(Form::Lines)) && self.failure.is_none() {
                return self.source.read(buffer);
            }
            if !self.refill()? {
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
    let head = without_mark(head).trim_ascii_start();
    match head.first() {
        Some(b'[') => true,
        Some(b'{') => {
            let Some(end) = memchr::memchr(b'\n', head) else {
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

/// Where a text of JSON values is.
#[derive(Default)]
struct Documents {
    /// Objects and arrays that are open, an array of records aside.
    depth: usize,
    /// Whether values of an array of records come.
    in_array: bool,
    in_string: bool,
    escaped: bool,
    /// Inside of a value that is no object and no array.
    in_scalar: bool,
}

impl Documents {
    /// Whether a value has begun and not ended.
    fn is_inside(&self) -> bool {
        self.depth > 0 || self.in_string || self.in_scalar
    }

    /// Appends what these bytes are, one value a line.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.push_byte(*byte, out);
        }
    }

    fn push_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(if matches!(byte, b'\n' | b'\r') { BROKEN } else { byte });
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
            b' ' | b'\t' | b'\n' | b'\r' => self.end_scalar(out),
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
                    out.push(b'\n');
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
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let mut all = String::new();
        LineDocuments::new(text.as_bytes()).read_to_string(&mut all).unwrap();
        all.lines().map(str::to_string).collect()
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
