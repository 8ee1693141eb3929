//! Writes generated fields as JSON or CSV, into existing buffers.

use std::io::Write;

use rand::RngExt;

use super::Random;
use crate::repr::civil_from_days;

/// How generated rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// A JSON object.
    Json,
    /// A line of CSV, without its end.
    Csv,
}

enum Form {
    Json,
    Csv,
    Names,
}

/// A row being written, field by field.
pub(super) struct Fields<'a> {
    text: &'a mut Vec<u8>,
    form: Form,
    any: bool,
}

impl<'a> Fields<'a> {
    pub fn new(text: &'a mut Vec<u8>, rendering: Rendering) -> Self {
        let form = match rendering {
            Rendering::Json => Form::Json,
            Rendering::Csv => Form::Csv,
        };
        Fields { text, form, any: false }
    }

    /// Writes the names of the fields alone: a CSV header.
    pub fn names(text: &'a mut Vec<u8>) -> Self {
        Fields {
            text,
            form: Form::Names,
            any: false,
        }
    }

    pub fn is_csv(&self) -> bool {
        matches!(self.form, Form::Csv)
    }

    /// The underlying buffer, for anything that is not a flat row.
    pub fn into_text(self) -> &'a mut Vec<u8> {
        self.text
    }

    /// Starts a field; returns whether its value is to be written.
    fn start(&mut self, name: &str) -> bool {
        match self.form {
            Form::Json => self.text.extend_from_slice(if self.any { b",\"" } else { b"{\"" }),
            Form::Csv | Form::Names if self.any => self.text.push(b','),
            Form::Csv | Form::Names => {}
        }
        self.any = true;
        match self.form {
            Form::Json => {
                self.text.extend_from_slice(name.as_bytes());
                self.text.extend_from_slice(b"\":");
            }
            Form::Names => self.text.extend_from_slice(name.as_bytes()),
            Form::Csv => {}
        }
        !matches!(self.form, Form::Names)
    }

    pub fn text(&mut self, name: &str, value: &str) {
        if self.start(name) {
            match self.form {
                Form::Json => json_text(self.text, value),
                _ => csv_text(self.text, value),
            }
        }
    }

    /// Writes a value that needs no quotes in JSON or CSV.
    pub fn plain(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        if self.start(name) {
            self.text.write_fmt(value).expect("writing to memory does not fail");
        }
    }

    /// Writes text without characters that need escaping.
    pub fn quoted(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        if self.start(name) {
            let quote: &[u8] = if self.is_csv() { b"" } else { b"\"" };
            self.text.extend_from_slice(quote);
            self.text.write_fmt(value).expect("writing to memory does not fail");
            self.text.extend_from_slice(quote);
        }
    }

    pub fn null(&mut self, name: &str) {
        if self.start(name) && !self.is_csv() {
            self.text.extend_from_slice(b"null");
        }
    }

    pub fn end(&mut self) {
        if matches!(self.form, Form::Json) {
            self.text.push(b'}');
        }
    }
}

/// Writes a JSON string with its quotes.
pub(super) fn json_text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Writes a CSV field, in quotes if it needs them.
pub(super) fn csv_text(out: &mut Vec<u8>, value: &str) {
    if value.bytes().any(|b| matches!(b, b'"' | b',' | b'\n' | b'\r')) {
        out.push(b'"');
        for byte in value.bytes() {
            if byte == b'"' {
                out.push(b'"');
            }
            out.push(byte);
        }
        out.push(b'"');
    } else {
        out.extend_from_slice(value.as_bytes());
    }
}

/// Damages a complete row so that no decoder accepts it.
pub(super) fn spoil(text: &mut Vec<u8>, rendering: Rendering, random: &mut Random) {
    match (rendering, random.random_range(0..3u32)) {
        (Rendering::Csv, 0) => text.extend_from_slice(b",unexpected,fields"),
        (Rendering::Csv, _) | (Rendering::Json, 0) => {
            text.clear();
            text.extend_from_slice(b"<html>503 Service Unavailable</html>");
        }
        (Rendering::Json, 1) => text.truncate(text.len() * 3 / 5),
        (Rendering::Json, _) => {
            text.insert(0, b'[');
            text.push(b']');
        }
    }
}

/// A point in time, formatted as date and time.
pub(super) struct FormattedTimestamp {
    us: i64,
    separator: char,
    /// The number of fractional digits of the second.
    digits: usize,
    zone: &'static str,
}

/// `2025-01-31 08:26:00`.
pub(super) fn seconds(us: i64) -> FormattedTimestamp {
    FormattedTimestamp {
        us,
        separator: ' ',
        digits: 0,
        zone: "",
    }
}

/// `2025-01-31T08:26:00.123Z`.
pub(super) fn iso_millis(us: i64) -> FormattedTimestamp {
    FormattedTimestamp {
        us,
        separator: 'T',
        digits: 3,
        zone: "Z",
    }
}

/// `2025-01-31T08:26:00.123456Z`.
pub(super) fn iso_micros(us: i64) -> FormattedTimestamp {
    FormattedTimestamp {
        us,
        separator: 'T',
        digits: 6,
        zone: "Z",
    }
}

/// `2025-01-31`.
pub(super) struct IsoDate(pub i64);

impl std::fmt::Display for IsoDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86_400_000_000));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl std::fmt::Display for FormattedTimestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of_day = self.us.rem_euclid(86_400_000_000);
        let (second, micro) = (of_day / 1_000_000, of_day % 1_000_000);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{}{}{h:02}:{m:02}:{s:02}", IsoDate(self.us), self.separator)?;
        if self.digits > 0 {
            let width = self.digits;
            write!(f, ".{:0width$}", micro / 10i64.pow(6 - width as u32))?;
        }
        f.write_str(self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_chrono_writes_them() {
        for us in [
            0,
            -1,
            1_735_689_599_999_999,
            1_709_164_800_000_000,
            951_782_400_123_456,
            -2_208_988_800_000_000,
        ] {
            let at = chrono::DateTime::from_timestamp_micros(us).unwrap();
            assert_eq!(seconds(us).to_string(), at.format("%Y-%m-%d %H:%M:%S").to_string());
            assert_eq!(
                iso_micros(us).to_string(),
                at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
            );
            assert_eq!(
                iso_millis(us).to_string(),
                at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
            );
        }
    }

    #[test]
    fn quotes_and_commas_survive_both_renderings() {
        let value = "6\" plate, \\ red";
        let mut json = Vec::new();
        let mut fields = Fields::new(&mut json, Rendering::Json);
        fields.text("a", value);
        fields.null("b");
        fields.end();
        let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(parsed, serde_json::json!({"a": value, "b": null}));
        let mut csv = Vec::new();
        let mut fields = Fields::new(&mut csv, Rendering::Csv);
        fields.text("a", value);
        fields.null("b");
        fields.plain("c", format_args!("{}", 1));
        fields.end();
        assert_eq!(String::from_utf8(csv).unwrap(), "\"6\"\" plate, \\ red\",,1");
    }
}
