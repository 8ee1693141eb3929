//! What a file is, by its first bytes and its beginning.

use std::io::{Cursor, Read};

use super::clock::{Clock, Timed};
use super::dialect;
use crate::decode::{FieldValue, json_fields};
use crate::definition::{Charset, TextDialect};
use crate::source::{FileMark, LineDocuments, NamedFile, Peeked, RECORD_SEPARATOR, to_utf8};

/// Bytes of a file's beginning that its form and dialect are told by.
const SAMPLE: usize = 256 << 10;

/// Lines of the beginning that are looked at for an object.
const LINES: usize = 100;

/// What files are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Csv(TextDialect),
    Json(JsonForm),
    Parquet,
    Avro,
}

/// How JSON is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct JsonForm {
    pub charset: Charset,
    /// Whether objects are change envelopes.
    pub envelopes: bool,
    /// Whether each object stands on a line of its own.
    pub lines: bool,
}

impl Form {
    pub fn kind(&self) -> &'static str {
        match self {
            Form::Csv(_) => "CSV",
            Form::Json(JsonForm { envelopes: false, .. }) => "JSON",
            Form::Json(JsonForm { envelopes: true, .. }) => "change envelopes",
            Form::Parquet => "Parquet",
            Form::Avro => "Avro",
        }
    }
}

/// What a file is.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn form_of(file: &NamedFile, clock: Clock) -> Result<Form, String> {
    match file.mark()? {
        Some(FileMark::Parquet) => return Ok(Form::Parquet),
        Some(FileMark::Avro) => return Ok(Form::Avro),
        _ => (),
    }
    let source = Timed {
        source: file.text()?,
        clock,
    };
    let head = Peeked::new(source, SAMPLE).head;
    let charset = dialect::charset(&head);
    let is_cut = head.len() >= SAMPLE;
    let mut text = Vec::new();
    // What is cut in the middle of a character is told as text all the same.
    let _ = to_utf8(Box::new(Cursor::new(head)), charset).read_to_end(&mut text);
    let sample = String::from_utf8_lossy(&text);
    let begins = sample.trim_start_matches('\u{feff}').trim_start();
    match begins.as_bytes().first() {
        None => Err("there is nothing in it".to_string()),
        Some(b'<') => Err("it looks like HTML or XML".to_string()),
        Some(b'{' | b'[') => match json(begins, charset, is_cut) {
            Some(form) => Ok(Form::Json(form)),
            None if begins.starts_with('{') => {
                Err("it begins as JSON does, and none of its first lines is a whole object".to_string())
            }
            None if serde_json::from_str::<serde::de::IgnoredAny>(begins).is_ok() => {
                Err("it is JSON, and no object is in it".to_string())
            }
            None => Ok(Form::Csv(dialect::csv(&sample, charset))),
        },
        Some(_) => Ok(Form::Csv(dialect::csv(&sample, charset))),
    }
}

/// How a text is written as JSON; none: there is no object in it.
fn json(text: &str, charset: Charset, is_cut: bool) -> Option<JsonForm> {
    let is_object = |line: &str| json_fields(line, |_, _| ());
    let lines = is_object(text.lines().next().unwrap_or_default());
    let mut documents = Vec::new();
    let _ = LineDocuments::new(text.as_bytes()).read_to_end(&mut documents);
    let documents = String::from_utf8_lossy(&documents);
    let each = documents
        .split(['\n', RECORD_SEPARATOR as char])
        .filter(|text| !text.is_empty());
    let first = each.take(LINES).find(|text| is_object(text));
    match first {
        Some(object) => Some(JsonForm {
            charset,
            envelopes: row_of(object).is_some(),
            lines,
        }),
        // The first object is longer than what is looked at here.
        None => is_cut.then_some(JsonForm {
            charset,
            envelopes: false,
            lines,
        }),
    }
}

/// The row of a change envelope, `after` or else `before`; none: it is no envelope. Empty: it has no row.
pub(super) fn row_of(text: &str) -> Option<&str> {
    row_within(text, true)
}

/// The same; `wrapped`: it may be the `payload` beside a schema.
fn row_within(text: &str, wrapped: bool) -> Option<&str> {
    let (mut op, mut after, mut before, mut payload) = (false, None, None, None);
    json_fields(text, |key, value| match (key.as_ref(), value) {
        ("op", FieldValue::Text(_)) => op = true,
        ("after", FieldValue::Object(text)) => after = Some(text),
        ("before", FieldValue::Object(text)) => before = Some(text),
        ("payload", FieldValue::Object(text)) => payload = Some(text),
        _ => (),
    });
    match payload.filter(|_| !op && wrapped) {
        Some(payload) => row_within(payload, false),
        None => op.then(|| after.or(before).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_an_object_however_it_is_written() {
        for (text, lines) in [
            ("{\"a\":1}\n{\"a\":2}\n", true),
            ("[{\"a\":1},\n{\"a\":2}]", false),
            ("[\n  {\n    \"a\": 1\n  }\n]\n", false),
            ("{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n", false),
            ("{\"a\":\n{\"a\":2}\n", false),
        ] {
            let form = json(text, Charset::Utf8, false);
            assert_eq!(form.map(|form| form.lines), Some(lines), "{text}");
        }
        for text in ["[1,2]", "[a],b\n", "{", "[[[[", "[]"] {
            assert_eq!(json(text, Charset::Utf8, false), None, "{text}");
        }
    }
}
