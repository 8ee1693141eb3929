//! Writes the result of an inference as an input's TOML.

use std::fmt::Write;
use std::time::Duration;

use super::column::{DecimalMarks, InferredColumn};
use super::columns::{Candidate, ColumnKnowledge};
use super::deadline::Deadline;
use super::files::SampleFiles;
use super::form::{InferredFormat, JsonForm, list, quoted};
use super::sample::InferSample;
use crate::definition::TextDialect;
use crate::shown::shown;
use crate::source::NamedFile;

/// The most skipped files that are named.
const NAMED: usize = 20;

/// The TOML of an input.
pub(super) fn toml(listed: &SampleFiles, looked: &InferSample) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    comments(listed, looked, &mut line);
    let all = &looked.columns.all;
    let mut marks = DecimalMarks::default();
    for column in all {
        if let ColumnKnowledge::Seen(seen) = &column.known {
            marks.observe(&column.name, seen);
        }
    }
    let decided: Vec<(&Candidate, InferredColumn, bool)> = all
        .iter()
        .filter(|column| !is_empty_object(column, all))
        .map(|column| decided(column, &marks))
        .collect();
    // A word that stands for null in one column does so in all, because one writer wrote them.
    let nulls: Vec<&str> = {
        let all = decided.iter().flat_map(|(_, decided, _)| &decided.nulls);
        let mut words: Vec<&str> = all.copied().filter(|null| is_word(null)).collect();
        words.sort_unstable();
        words.dedup();
        words
    };
    keys(looked, &decided, &mut line);
    if !nulls.is_empty() {
        line(format!("null = {}", list(&nulls)));
    }
    line("\n[columns]".to_string());
    for (candidate, decided, nullable) in &decided {
        line(column(candidate, decided, *nullable, &looked.form, &nulls));
    }
    line("\n[[feeds]]\nname = \"files\"\nkind = \"files\"".to_string());
    if let Some(character) = listed.in_brackets {
        line(format!(
            "# [{character}{character}] is the character {character}: a path whose last part has no point and no wildcard is a folder's."
        ));
    }
    line(format!("path = {}", quoted(&listed.pattern)));
    match &looked.form {
        InferredFormat::Csv(dialect) => {
            line("format = \"csv\"".to_string());
            settings(dialect, &mut line);
            if looked.blank_rows > 0 {
                line(format!(
                    "# blank_rows = \"skip\" # leaves out rows that hold nothing but delimiters, which are rows of nulls: {} were seen",
                    looked.blank_rows
                ));
            }
        }
        InferredFormat::Json(JsonForm {
            charset,
            envelopes,
            lines,
        }) => {
            line(format!(
                "format = \"{}\"",
                match (envelopes, lines) {
                    (true, _) => "debezium-json",
                    (false, true) => "ndjson",
                    (false, false) => "json",
                }
            ));
            settings(
                &TextDialect {
                    charset: *charset,
                    ..TextDialect::default()
                },
                &mut line,
            );
        }
        InferredFormat::Parquet => line("format = \"parquet\"".to_string()),
        InferredFormat::Avro => line("format = \"avro\"".to_string()),
    }
    out
}

/// A file's name, for people.
pub(super) fn name(file: &NamedFile) -> String {
    shown(file.partition().rsplit('/').next().unwrap_or_default()).to_string()
}

/// Writes comments on how much was sampled, and what was left out.
fn comments(listed: &SampleFiles, looked: &InferSample, line: &mut impl FnMut(String)) {
    line(format!(
        "# Written by `alluvium infer`, which looked at {} of {} files and {} records{}.",
        looked.files.len(),
        listed.files.len(),
        looked.records,
        if looked.files.iter().all(|(_, is_whole)| *is_whole) {
            ""
        } else {
            ", not at all of each"
        }
    ));
    if let [(newest, _), rest @ ..] = &looked.files[..] {
        let oldest = rest.first().map_or(newest, |(oldest, _)| oldest);
        line(format!(
            "# The newest is {}, the oldest {}.",
            name(newest),
            name(oldest)
        ));
    }
    line("# Types are by these values alone: correct what you know better.".to_string());
    for (path, reason) in looked.passed.iter().take(NAMED) {
        line(format!("# Passed over: {}: {}", name(path), shown(reason)));
    }
    if looked.passed.len() > NAMED {
        line(format!("# Passed over: {} more files", looked.passed.len() - NAMED));
    }
    if !listed.others.is_empty() {
        line(format!("# Not looked at: files called *{}", listed.others.join(", *")));
    }
    if let Some((number, names, fields)) = looked.odd_header {
        line(format!(
            "# Line {number} looks like a header with {names} names, and records have {fields} fields: so it is passed over. Name the \
             columns after it, or have it repaired."
        ));
    }
    if looked.columns.cut {
        line("# There are more fields than columns were made for.".to_string());
    }
}

/// The most time for the search for sets of key columns.
const SEARCH: Duration = Duration::from_secs(3);

/// Writes which columns may be the key.
fn keys(looked: &InferSample, decided: &[(&Candidate, InferredColumn, bool)], line: &mut impl FnMut(String)) {
    if looked.records < 2 {
        return;
    }
    let columns = &looked.columns;
    let name = |column: usize| columns.all[column].name.as_str();
    let ranks = columns.ranks();
    let mut unique: Vec<&str> = decided
        .iter()
        .filter(|(candidate, _, _)| matches!(&candidate.known, ColumnKnowledge::Seen(seen) if seen.is_unique(looked.records)))
        .map(|(candidate, _, _)| candidate.name.as_str())
        .collect();
    // For files with a schema, only the rows show uniqueness.
    let is_described = |column: &usize| matches!(columns.all[*column].known, ColumnKnowledge::Described(..));
    if columns.rows.len() > 1 {
        unique.extend(columns.rows.single(&ranks).into_iter().filter(is_described).map(name));
    }
    let key = |names: &[&str]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    if let [first, ..] = &unique[..] {
        line(format!(
            "# Unique in what was looked at: {}. A key, if it is one for all rows:",
            unique.join(", ")
        ));
        line(format!("# key = [{}]", quoted(first)));
        return;
    }
    let sets = columns.rows.several(&ranks, &Deadline::new(SEARCH));
    if sets.is_empty() {
        return;
    }
    line(format!(
        "# No column is unique in what was looked at; these are together, in {} rows. A key, if they are one for all rows:",
        columns.rows.len()
    ));
    for (n, set) in sets.iter().enumerate() {
        let names: Vec<&str> = set.iter().map(|column| name(*column)).collect();
        line(format!("# {}key = [{}]", if n > 0 { "or " } else { "" }, key(&names)));
    }
}

fn decided<'a>(candidate: &'a Candidate, marks: &DecimalMarks) -> (&'a Candidate, InferredColumn, bool) {
    match &candidate.known {
        ColumnKnowledge::Seen(seen) => (candidate, seen.decided(marks), true),
        ColumnKnowledge::Described(decided, nullable) => (candidate, decided.clone(), *nullable),
    }
}

/// Whether a field is null in some records and an object in others, whose own fields have columns.
fn is_empty_object(column: &Candidate, all: &[Candidate]) -> bool {
    let inside = |field: &String| {
        field
            .strip_prefix(&column.from[0])
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let is_empty = matches!(&column.known, ColumnKnowledge::Seen(seen) if seen.values() == 0);
    is_empty && all.iter().flat_map(|other| &other.from).any(inside)
}

/// Whether a text is a word for null that is unlikely to be another value.
fn is_word(null: &str) -> bool {
    null.chars().any(|c| c.is_ascii_alphabetic())
}

fn column(
    candidate: &Candidate,
    decided: &InferredColumn,
    nullable: bool,
    form: &InferredFormat,
    nulls: &[&str],
) -> String {
    let in_order = matches!(form, InferredFormat::Csv(dialect) if !dialect.header);
    let mut settings = vec![format!("type = \"{}\"", decided.sql_type)];
    if candidate.from != [candidate.name.clone()] && !in_order {
        let names: Vec<&str> = candidate.from.iter().map(String::as_str).collect();
        settings.push(format!("from = {}", fields(&names)));
    }
    if !nullable {
        settings.push("nullable = false".to_string());
    }
    let formats: Vec<&str> = decided.format.iter().map(String::as_str).collect();
    if !formats.is_empty() {
        settings.push(format!("format = {}", list(&formats)));
    }
    let own: Vec<&str> = decided.nulls.iter().copied().filter(|null| !is_word(null)).collect();
    let code = decided.code.filter(|code| nulls.contains(code));
    if !own.is_empty() || code.is_some() {
        // A column's own list replaces the input's.
        let others = nulls.iter().copied().filter(|null| Some(*null) != code);
        settings.push(format!(
            "null = {}",
            list(&own.into_iter().chain(others).collect::<Vec<_>>())
        ));
    }
    let value = match &settings[..] {
        [_] => format!("\"{}\"", decided.sql_type),
        _ => format!("{{ {} }}", settings.join(", ")),
    };
    let mut text = format!("{} = {value}", key(&candidate.name));
    let code_note = code.map(|code| format!("{code} is no null here: all other texts are written like it"));
    if let Some(note) = decided.note.as_ref().or(code_note.as_ref()) {
        let _ = write!(text, " # {note}");
    }
    text
}

/// Writes the settings that differ from the defaults.
fn settings(dialect: &TextDialect, line: &mut impl FnMut(String)) {
    let usual = TextDialect::default();
    let text = |byte: Option<u8>| quoted(&byte.map(|byte| char::from(byte).to_string()).unwrap_or_default());
    if dialect.delimiter != usual.delimiter {
        line(format!("delimiter = {}", text(Some(dialect.delimiter))));
    }
    if dialect.quote != usual.quote {
        line(format!("quote = {}", text(dialect.quote)));
    }
    if dialect.escape != usual.escape {
        line(format!("escape = {}", text(dialect.escape)));
    }
    if dialect.comment != usual.comment {
        line(format!("comment = {}", text(dialect.comment)));
    }
    if dialect.header != usual.header {
        line(format!("header = {}", dialect.header));
    }
    if dialect.skip_lines != usual.skip_lines {
        line(format!("skip_lines = {}", dialect.skip_lines));
    }
    if dialect.trim {
        line("trim = true".to_string());
    }
    if dialect.charset != usual.charset {
        line(format!("encoding = {}", quoted(dialect.charset.name())));
    }
}

fn key(name: &str) -> String {
    let is_bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_bare { name.to_string() } else { quoted(name) }
}

/// Names of fields; a name that stands for a position is written as a number.
fn fields(names: &[&str]) -> String {
    let one = |name: &&str| {
        let place = name.strip_prefix('#').and_then(|place| place.parse::<u32>().ok());
        place.map_or_else(|| quoted(name), |place| place.to_string())
    };
    match names {
        [name] => one(name),
        several => format!("[{}]", several.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}
