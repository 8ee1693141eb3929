//! What a file is, by its first bytes and its beginning.

use std::io::{Cursor, Read};

use super::clock::{Clock, Timed};
use super::dialect;
use crate::decode::{FieldValue, json_fields};
use crate::definition::{Charset, TextDialect};
use crate::source::{FileMark, LineDocuments, NamedFile, Peeked, RECORD_SEPARATOR, to_utf8, told_delimiter};

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

/// What a file is, and what of it needs no setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FileForm {
    pub form: Form,
    /// Whether its first line tells its delimiter.
    tells_delimiter: bool,
    /// Whether there are quotes in it.
    quotes: bool,
    /// Whether it reads the same whatever the encoding is said to be.
    any_charset: bool,
    /// See [`dialect::odd_header`].
    pub odd_header: Option<(u64, usize, usize)>,
}

impl FileForm {
    /// A form that nothing more is to be known of.
    fn plain(form: Form) -> FileForm {
        FileForm {
            form,
            tells_delimiter: false,
            quotes: false,
            any_charset: true,
            odd_header: None,
        }
    }

    /// Why the file is not read rightly as this form is; none: it is.
    pub fn misfit(&self, read_as: &Form) -> Option<String> {
        let wants = match (&self.form, read_as) {
            (Form::Csv(own), Form::Csv(others)) => self.wants(own, others),
            (Form::Json(own), Form::Json(others)) if own.envelopes == others.envelopes => {
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

    /// The settings that it wants otherwise.
    fn wants(&self, own: &TextDialect, others: &TextDialect) -> Vec<String> {
        let text = |byte: Option<u8>| quoted(&byte.map(|byte| char::from(byte).to_string()).unwrap_or_default());
        let mut wants = Vec::new();
        if own.delimiter != others.delimiter && !self.tells_delimiter {
            wants.push(format!("delimiter = {}", text(Some(own.delimiter))));
        }
        if own.header != others.header {
            wants.push(format!("header = {}", own.header));
        }
        // Where the first line tells the delimiter, it is one of them, or none.
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

/// A text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// Texts as a setting has them: one, or a list.
pub(super) fn list(texts: &[&str]) -> String {
    match texts {
        [one] => quoted(one),
        several => format!(
            "[{}]",
            several.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
        ),
    }
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
pub(super) fn form_of(file: &NamedFile, clock: Clock) -> Result<FileForm, String> {
    match file.mark()? {
        Some(FileMark::Parquet) => return Ok(FileForm::plain(Form::Parquet)),
        Some(FileMark::Avro) => return Ok(FileForm::plain(Form::Avro)),
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
    // What is cut in the middle of a character is told as text all the same.
    let _ = to_utf8(Box::new(Cursor::new(head)), charset).read_to_end(&mut text);
    let sample = String::from_utf8_lossy(&text);
    let begins = sample.trim_start_matches('\u{feff}').trim_start();
    let csv = || Form::Csv(dialect::csv(sample.trim_start_matches('\u{feff}'), charset));
    let form = match begins.as_bytes().first() {
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
            None => Ok(csv()),
        },
        Some(_) => Ok(csv()),
    }?;
    Ok(FileForm {
        form,
        tells_delimiter: told_delimiter(sample.trim_start_matches('\u{feff}').as_bytes()).is_some(),
        quotes: matches!(&form, Form::Csv(dialect) if dialect.quote.is_some_and(|quote| sample.contains(char::from(quote)))),
        any_charset,
        odd_header: match &form {
            Form::Csv(dialect) => dialect::odd_header(sample.trim_start_matches('\u{feff}'), dialect),
            _ => None,
        },
    })
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
