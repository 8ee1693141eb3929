//! Infers a file's format from its first bytes and its beginning.

use std::io::{Cursor, Read};

use super::deadline::{Deadline, Timed};
use super::dialect;
use crate::decode::{FieldValue, json_fields};
use crate::definition::TextDialect;
use crate::repr::Charset;
use crate::source::{FileMark, LineDocuments, NamedFile, Peeked, RECORD_SEPARATOR, declared_delimiter, to_utf8};

/// The number of bytes at a file's beginning from which format and dialect are inferred.
const SAMPLE: usize = 256 << 10;

/// The number of lines at the beginning that are searched for an object.
const LINES: usize = 100;

/// The formats of files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum InferredFormat {
    Csv(TextDialect),
    Json(JsonForm),
    Parquet,
    Avro,
}

/// How a JSON file is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct JsonForm {
    pub charset: Charset,
    /// Whether objects are change envelopes.
    pub envelopes: bool,
    /// Whether each object is on a line of its own.
    pub lines: bool,
}

/// The inferred format of one file, and properties that make some settings irrelevant to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct InferredFile {
    pub form: InferredFormat,
    /// Whether the file's first line names its delimiter.
    tells_delimiter: bool,
    /// Whether the file contains quotes.
    quotes: bool,
    /// Whether the file reads the same under every encoding.
    any_charset: bool,
    /// See [`dialect::odd_header`].
    pub odd_header: Option<(u64, usize, usize)>,
}

impl InferredFile {
    /// A format without further properties.
    fn plain(form: InferredFormat) -> InferredFile {
        InferredFile {
            form,
            tells_delimiter: false,
            quotes: false,
            any_charset: true,
            odd_header: None,
        }
    }

    /// Why the file is not read correctly with this format; none if it is.
    pub fn misfit(&self, read_as: &InferredFormat) -> Option<String> {
        let wants = match (&self.form, read_as) {
            (InferredFormat::Csv(own), InferredFormat::Csv(others)) => self.wants(own, others),
            (InferredFormat::Json(own), InferredFormat::Json(others)) if own.envelopes == others.envelopes => {
                let wants = self.wants_charset(own.charset, others.charset);
                wants.into_iter().collect()
            }
            (own, others) if own.kind() == others.kind() => return None,
            (own, _) => return Some(format!("it is {}", own.kind())),
        };
        let first = wants.first()?;
        let more = wants[1..].iter().map(|more| format!(" and {more}"));
        Some(format!(
            "it is {} of another dialect, and wants {first}{}: move it to a folder that a feed of its own reads",
            self.form.kind(),
            more.collect::<String>()
        ))
    }

    /// The settings that this file needs and `others` lacks.
    fn wants(&self, own: &TextDialect, others: &TextDialect) -> Vec<String> {
        let text = |byte: Option<u8>| quoted(&byte.map(|byte| char::from(byte).to_string()).unwrap_or_default());
        let mut wants = Vec::new();
        if own.delimiter != others.delimiter && !self.tells_delimiter {
            wants.push(format!("delimiter = {}", text(Some(own.delimiter))));
        }
        if own.header != others.header {
            wants.push(format!("header = {}", own.header));
        }
        // The line that names the delimiter counts as a skipped line only if others are skipped.
        let is_told = self.tells_delimiter && own.skip_lines == 0 && others.skip_lines == 1;
        if own.skip_lines != others.skip_lines && !is_told {
            wants.push(format!("skip_lines = {}, not {}", own.skip_lines, others.skip_lines));
        }
        if own.comment.is_some() && own.comment != others.comment {
            wants.push(format!("comment = {}", text(own.comment)));
        }
        if own.quote != others.quote && (self.quotes || own.quote.is_none()) {
            wants.push(format!("quote = {}", text(own.quote)));
        }
        if own.escape.is_some() && own.escape != others.escape {
            wants.push(format!("escape = {}", text(own.escape)));
        }
        if own.trim && !others.trim {
            wants.push("trim = true".to_string());
        }
        wants.extend(self.wants_charset(own.charset, others.charset));
        wants
    }

    fn wants_charset(&self, own: Charset, others: Charset) -> Option<String> {
        let alike = own == others || own.is_single_byte() && others.is_single_byte();
        (!alike && !self.any_charset).then(|| format!("encoding = {}", quoted(own.name())))
    }
}

/// A text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// Texts as a setting's value: a string, or a list of strings.
pub(super) fn list(texts: &[&str]) -> String {
    match texts {
        [one] => quoted(one),
        several => format!(
            "[{}]",
            several.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
        ),
    }
}

impl InferredFormat {
    pub fn kind(&self) -> &'static str {
        match self {
            InferredFormat::Csv(_) => "CSV",
            InferredFormat::Json(JsonForm { envelopes: false, .. }) => "JSON",
            InferredFormat::Json(JsonForm { envelopes: true, .. }) => "change envelopes",
            InferredFormat::Parquet => "Parquet",
            InferredFormat::Avro => "Avro",
        }
    }
}

/// Infers the format of a file.
///
/// # Errors
/// The reason why the file cannot be used.
pub(super) fn form_of(file: &NamedFile, clock: Deadline) -> Result<InferredFile, String> {
    match file.mark()? {
        Some(FileMark::Parquet) => return Ok(InferredFile::plain(InferredFormat::Parquet)),
        Some(FileMark::Avro) => return Ok(InferredFile::plain(InferredFormat::Avro)),
        _ => (),
    }
    let source = Timed {
        source: file.text()?,
        clock,
    };
    let head = Peeked::new(source, SAMPLE).head;
    let charset = dialect::charset(&head);
    let is_cut = head.len() >= SAMPLE;
    let any_charset = head.is_ascii() && !head.contains(&0) || dialect::has_mark(&head);
    let mut text = Vec::new();
    // The sample may end within a character; the text before it still counts.
    let _ = to_utf8(Box::new(Cursor::new(head)), charset).read_to_end(&mut text);
    let sample = String::from_utf8_lossy(&text);
    let begins = sample.trim_start_matches('\u{feff}').trim_start();
    let csv = || InferredFormat::Csv(dialect::csv(sample.trim_start_matches('\u{feff}'), charset));
    let form = match begins.as_bytes().first() {
        None => Err("there is nothing in it".to_string()),
        Some(b'<') => Err("it looks like HTML or XML".to_string()),
        Some(b'{' | b'[') => match json(begins, charset, is_cut) {
            Some(form) => Ok(InferredFormat::Json(form)),
            None if begins.starts_with('{') => {
                Err("it begins as JSON does, and none of its first lines is a whole object".to_string())
            }
            None if serde_json::from_str::<serde::de::IgnoredAny>(begins).is_ok() => {
                Err("it is JSON, and no object is in it".to_string())
            }
            None => Ok(csv()),
        },
        Some(_) => Ok(csv()),
    }?;
    Ok(InferredFile {
        form,
        tells_delimiter: declared_delimiter(sample.trim_start_matches('\u{feff}').as_bytes()).is_some(),
        quotes: matches!(&form, InferredFormat::Csv(dialect) if dialect.quote.is_some_and(|quote| sample.contains(char::from(quote)))),
        any_charset,
        odd_header: match &form {
            InferredFormat::Csv(dialect) => dialect::odd_header(sample.trim_start_matches('\u{feff}'), dialect),
            _ => None,
        },
    })
}

/// How a text is written as JSON; none if it has no object.
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
        // The first object may be longer than the sample.
        None => is_cut.then_some(JsonForm {
            charset,
            envelopes: false,
            lines,
        }),
    }
}

/// The row of a change envelope: `after`, or otherwise `before`; empty if it has neither. None if the text is not an
/// envelope.
pub(super) fn row_of(text: &str) -> Option<&str> {
    row_within(text, true)
}

/// Like [`row_of`]. If `wrapped`, the envelope may be the `payload` beside a schema.
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
