//! Guesses the settings by which a file would fit whose header does not fit the feed.

use hashbrown::HashSet;

use crate::decode::formats::csv::by_name::FieldsByName;
use crate::decode::formats::csv::header::HeaderColumn;
use crate::decode::formats::csv::split::fields;
use crate::definition::TextDialect;

/// How many lines before a header are considered.
const TITLES: usize = 30;

/// What to change so that a file that begins with `sample` fits; none if no known change would help.
pub(super) fn guess(wanted: &[HeaderColumn<'_>], sample: &str, dialect: &TextDialect) -> Option<String> {
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
                let fills = |column: &&HeaderColumn<'_>| by_name.field(column.from).is_some();
                let filled = wanted.iter().filter(|column| fills(column)).count();
                let fits = filled > 0
                    && wanted
                        .iter()
                        .filter(|column| column.required)
                        .all(|column| fills(&column));
                // Field numbers fit any line, so only a matching name shows that a line is the header.
                let named = names.iter().any(|name| asked.contains(&name.to_ascii_lowercase()));
                if !fits || !named {
                    continue;
                }
                let (changes, advice) = dialect_changes(dialect, &candidate, skip);
                // The candidate that fills the most columns is best; of equal ones, that with the fewest changes.
                let cost = (wanted.len() - filled) * 100 + changes * 10 + usize::from(skip > 0);
                if changes > 0 && best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, advice));
                }
            }
        }
    }
    best.map(|(_, advice)| advice)
        .or_else(|| without_header(wanted, lines.first()?, dialect))
}

/// The remedy for a text that is no CSV.
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

/// Candidates for the delimiter, beginning with the present setting.
fn delimiters(dialect: &TextDialect) -> impl Iterator<Item = u8> {
    let set = dialect.delimiter;
    let others = [b',', b';', b'\t', b'|'].into_iter().filter(move |other| *other != set);
    std::iter::once(set).chain(others)
}

fn lines(sample: &str) -> impl Iterator<Item = &str> {
    // CR LF, LF and CR each end a line.
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

/// The number of settings in which two dialects differ, and the text that asks for these changes.
fn dialect_changes(from: &TextDialect, to: &TextDialect, skip: usize) -> (usize, String) {
    let mut advice = Vec::new();
    if to.delimiter != from.delimiter {
        advice.push(looks(to.delimiter));
    }
    if to.ignore_case != from.ignore_case {
        advice.push("the header has these names in another case: set `ignore_case = true`".to_string());
    }
    if to.trim != from.trim {
        advice.push("the header has blanks around its names: set `trim = true`".to_string());
    }
    if skip as u64 != from.skip_lines {
        advice.push(format!("the header is line {}: set `skip_lines = {skip}`", skip + 1));
    }
    (advice.len(), advice.join("; "))
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

/// Whether a first line is data and no header: one of its fields begins like a number or a date.
pub(super) fn without_header(wanted: &[HeaderColumn<'_>], line: &str, dialect: &TextDialect) -> Option<String> {
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
