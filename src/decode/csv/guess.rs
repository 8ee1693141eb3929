//! What a file may be whose header has not what is wanted: the settings that would make its beginning fit.

use hashbrown::HashSet;

use super::by_name::FieldsByName;
use super::header::Wanted;
use super::split::fields;
use crate::definition::TextDialect;

/// Lines in front of a header that are looked at.
const TITLES: usize = 30;

/// What to do so that a file fits that begins with `sample` and does not fit as it is read; none: nothing known would.
pub(super) fn guess(wanted: &[Wanted<'_>], sample: &str, dialect: &TextDialect) -> Option<String> {
    if let Some(what) = otherwise(sample) {
        return Some(what.to_string());
    }
    let lines: Vec<&str> = lines(sample).take(TITLES).collect();
    let asked: HashSet<String> = (wanted.iter().flat_map(|column| column.from))
        .map(|from| from.to_ascii_lowercase())
        .collect();
    let mut best: Option<(usize, String)> = None;
    for (skip, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        for delimiter in delimiters(dialect) {
            for loose in 0..4 {
                let candidate = TextDialect {
                    delimiter,
                    trim: dialect.trim || loose & 1 != 0,
                    ignore_case: dialect.ignore_case || loose & 2 != 0,
                    ..*dialect
                };
                let Ok(names) = fields(line, &candidate) else { continue };
                let by_name = FieldsByName::new(&names, candidate.ignore_case);
                let fills = |column: &&Wanted<'_>| by_name.field(column.from).is_some();
                let filled = wanted.iter().filter(|column| fills(column)).count();
                let fits = filled > 0
                    && wanted
                        .iter()
                        .filter(|column| column.required)
                        .all(|column| fills(&column));
                // Places fit any line: only names show that it is a header.
                let named = names.iter().any(|name| asked.contains(&name.to_ascii_lowercase()));
                if !fits || !named {
                    continue;
                }
                let (changes, told) = told(dialect, &candidate, skip);
                // First what fills the most columns, then what changes the least.
                let cost = (wanted.len() - filled) * 100 + changes * 10 + usize::from(skip > 0);
                if changes > 0 && best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, told));
                }
            }
        }
    }
    best.map(|(_, told)| told)
        .or_else(|| without_header(wanted, lines.first()?, dialect))
}

/// A kind of text that is no CSV.
fn otherwise(sample: &str) -> Option<&'static str> {
    let start = sample.trim_start();
    if sample.contains('\0') {
        return Some("it looks UTF-16: set `encoding = \"utf-16\"`");
    }
    match start.as_bytes().first()? {
        b'{' => Some("it looks like JSON: give it to a feed with `format = \"ndjson\"`"),
        b'[' => Some("it looks like a JSON array: give it to a feed of JSON"),
        b'<' => Some("it looks like HTML or XML: look what the one who wrote it was told"),
        _ => None,
    }
}

/// What may stand between fields; first what is set.
fn delimiters(dialect: &TextDialect) -> impl Iterator<Item = u8> {
    let set = dialect.delimiter;
    let others = [b',', b';', b'\t', b'|'].into_iter().filter(move |other| *other != set);
    std::iter::once(set).chain(others)
}

fn lines(sample: &str) -> impl Iterator<Item = &str> {
    // CR LF, LF and CR end a line each.
    let mut rest = Some(sample);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let length = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + length..]);
        Some(&text[..end])
    })
}

/// How one dialect becomes the other, and in how many settings they differ.
fn told(from: &TextDialect, to: &TextDialect, skip: usize) -> (usize, String) {
    let mut told = Vec::new();
    if to.delimiter != from.delimiter {
        told.push(looks(to.delimiter));
    }
    if to.ignore_case != from.ignore_case {
        told.push("the header has these names in another case: set `ignore_case = true`".to_string());
    }
    if to.trim != from.trim {
        told.push("the header has blanks around its names: set `trim = true`".to_string());
    }
    if skip as u64 != from.skip_lines {
        told.push(format!("the header is line {}: set `skip_lines = {skip}`", skip + 1));
    }
    (told.len(), told.join("; "))
}

fn looks(delimiter: u8) -> String {
    match delimiter {
        b'\t' => "it looks tab-separated: set `delimiter = \"\\t\"`".to_string(),
        b';' => "it looks semicolon-separated: set `delimiter = \";\"`".to_string(),
        b',' => "it looks comma-separated: leave `delimiter` out".to_string(),
        other => format!(
            "it looks separated by {0}: set `delimiter = \"{0}\"`",
            char::from(other)
        ),
    }
}

/// Whether a first line is data: a field of it is a number, a date or the like.
pub(super) fn without_header(wanted: &[Wanted<'_>], line: &str, dialect: &TextDialect) -> Option<String> {
    let is_data = |field: &String| {
        let text = field.trim();
        let digits = text.strip_prefix(['-', '+', '$', '€', '(']).unwrap_or(text);
        digits.starts_with(|c: char| c.is_ascii_digit())
    };
    delimiters(dialect).find_map(|delimiter| {
        let candidate = TextDialect { delimiter, ..*dialect };
        let names = fields(line, &candidate).ok()?;
        let fits = names.len() > 1 || wanted.len() == 1;
        if !fits || !names.iter().any(is_data) {
            return None;
        }
        let delimited = (delimiter != dialect.delimiter).then(|| format!("{}; ", looks(delimiter)));
        let places = match names.len() == wanted.len() {
            true => "",
            false => ", and say by `from = 1` and so on which field a column is",
        };
        Some(format!(
            "{}it has no header line, as its first line is data: set `header = false`{places}",
            delimited.unwrap_or_default()
        ))
    })
}
