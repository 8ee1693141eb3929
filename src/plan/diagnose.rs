//! What went wrong, as diagnostics: message, place, remedy.

use std::path::Path;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::error::{PlanError, Refusal};
use super::refuse::nearest;
use crate::definition::Diagnostic;

/// One or several diagnostics for an error in the SQL of `file`, whose tokens help to find the place.
pub(super) fn diagnose(error: PlanError, file: &Path, tokens: &[TokenWithSpan]) -> Vec<Diagnostic> {
    match error {
        PlanError::Refused(refusal) => vec![refused(*refusal, file, tokens)],
        PlanError::DataFusion(error) => flatten(&error)
            .into_iter()
            .map(|error| refused(understand(error), file, tokens))
            .collect(),
    }
}

/// The diagnostic of a refusal.
pub(super) fn refused(refusal: Refusal, file: &Path, tokens: &[TokenWithSpan]) -> Diagnostic {
    let place = refusal
        .span
        .map(|span| span.start)
        .filter(|start| start.line > 0)
        .or_else(|| refusal.word.as_ref().and_then(|word| find(tokens, word)))
        .or_else(|| {
            refusal
                .message
                .ends_with("found: EOF")
                .then(|| tokens.last().map(|t| t.span.end))?
        })
        .or_else(|| mentioned(tokens, &refusal.message))
        .or_else(|| tokens.first().map(|t| t.span.start));
    Diagnostic {
        file: file.to_path_buf(),
        line: place.map_or(0, |p| p.line as usize),
        column: place.map_or(0, |p| p.column as usize),
        message: refusal.message,
        help: refusal.help,
    }
}

fn flatten(error: &DataFusionError) -> Vec<&DataFusionError> {
    match error {
        DataFusionError::Collection(errors) => errors.iter().flat_map(flatten).collect(),
        DataFusionError::Context(_, inner) => flatten(inner),
        other => vec![other],
    }
}

/// DataFusion's error in our words.
fn understand(error: &DataFusionError) -> Refusal {
    let found = error.diagnostic();
    let span = found.and_then(|d| d.span);
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root {
        match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                return unknown_column(field, valid_fields).at_span(span.or(field.spans().first()));
            }
            SchemaError::AmbiguousReference { field } => {
                return Refusal::new(format!(
                    "could not tell which {:?} is meant: several tables have it",
                    field.name
                ))
                .help(format!("write its table before it: t.{}", field.name))
                .at_span(span.or(field.spans().first()))
                .near(&field.name);
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                return Refusal::new(format!("could not name two columns {name:?}"))
                    .help("name one of them anew: AS ...")
                    .at_span(span)
                    .near(name.as_str());
            }
        }
    }
    let text = match (root, found) {
        (DataFusionError::SQL(error, _), _) => error.to_string(),
        (_, Some(diagnostic)) => diagnostic.message.clone(),
        _ => root.strip_backtrace(),
    };
    let span = span.or_else(|| found.and_then(|d| d.notes.iter().find_map(|n| n.span)));
    let (text, place) = split_place(&text);
    if text.contains("require unique expression names") {
        let name = text.split('"').nth(1).unwrap_or_default();
        return Refusal::new(format!("could not name two columns {name:?}"))
            .help("name one of them anew: AS ...")
            .at_span(span)
            .near(name.rsplit('.').next().unwrap_or(name));
    }
    let mut refusal = Refusal::new(lower_case(&strip(&text)));
    refusal.span = place.map(|start| datafusion::sql::sqlparser::tokenizer::Span { start, end: start });
    if span.is_some() {
        refusal = refusal.at_span(span);
    }
    let helps: Vec<String> = found
        .iter()
        .flat_map(|d| d.helps.iter().map(|h| lower_case(&h.message)))
        .collect();
    let helps: Vec<String> = match found.and_then(|d| {
        d.notes
            .iter()
            .find_map(|n| n.message.strip_prefix("Possible function "))
    }) {
        Some(function) => vec![format!("did you mean {function}?")],
        None => helps,
    };
    let notes: Vec<&str> = found
        .iter()
        .flat_map(|d| d.notes.iter().map(|n| n.message.as_str()))
        .filter(|note| !note.starts_with("Possible function"))
        .collect();
    if !notes.is_empty() {
        refusal.message = format!("{} ({})", refusal.message, notes.join(", "));
    }
    if !helps.is_empty() {
        refusal = refusal.help(helps.join("; "));
    } else if refusal.message.contains("coerce") || refusal.message.contains("type") {
        refusal = refusal.help("cast one side: CAST(... AS ...)");
    }
    refusal
}

fn unknown_column(field: &Column, valid: &[Column]) -> Refusal {
    let same_table: Vec<&str> = valid
        .iter()
        .filter(|v| field.relation.is_none() || v.relation == field.relation)
        .map(|v| v.name.as_str())
        .collect();
    let help = if same_table.is_empty() && field.relation.is_some() {
        let mut tables: Vec<String> = valid
            .iter()
            .filter_map(|v| v.relation.as_ref().map(|r| r.to_string()))
            .collect();
        tables.dedup();
        format!("tables here are {}", tables.join(", "))
    } else {
        match nearest(&field.name, same_table.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if same_table.is_empty() => "no column may stand here".to_string(),
            None => format!("known are {}", same_table.join(", ")),
        }
    };
    Refusal::new(format!("could not find a column {:?}", field.flat_name()))
        .help(help)
        .near(&field.name)
}

/// `... at Line: 3, Column: 8` as sqlparser puts it.
fn split_place(text: &str) -> (String, Option<Location>) {
    let Some((message, place)) = text.split_once(" at Line: ") else {
        return (text.to_string(), None);
    };
    let number = |s: &str| -> Option<u64> {
        let digits: String = s.trim().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location {
            line: number(line)?,
            column: number(column)?,
        })
    });
    (message.to_string(), location)
}

fn strip(text: &str) -> String {
    let mut text = text.trim();
    for prefix in [
        "Error during planning: ",
        "SQL error: ",
        "sql parser error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "type_coercion",
        "caused by",
        "Arrow error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text).trim_start();
    }
    let line = text.split("\n\n").next().unwrap_or(text);
    line.replace('\n', " ").trim_end_matches('.').to_string()
}

fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

/// Where a word stands in the SQL.
fn find(tokens: &[TokenWithSpan], word: &str) -> Option<Location> {
    let kin: &[&str] = if word == "now" {
        &["now", "current_timestamp", "current_date", "today"]
    } else {
        &[word]
    };
    tokens
        .iter()
        .find(|t| matches!(&t.token, Token::Word(w) if kin.iter().any(|k| w.value.eq_ignore_ascii_case(k))))
        .map(|t| t.span.start)
}

/// The first quoted word, call or operator of a message that stands in the SQL.
fn mentioned(tokens: &[TokenWithSpan], message: &str) -> Option<Location> {
    let quoted = message
        .split(['\'', '"', '`'])
        .skip(1)
        .step_by(2)
        .flat_map(|q| q.split(['(', '.', ' ']).filter(|w| !w.is_empty()));
    if let Some(place) = quoted.filter_map(|word| find(tokens, word)).next() {
        return Some(place);
    }
    message.split_whitespace().find_map(|word| {
        let mut same = tokens.iter().filter(|t| {
            !matches!(
                t.token,
                Token::Word(_) | Token::Comma | Token::Period | Token::LParen | Token::RParen
            ) && t.token.to_string() == word
        });
        match (same.next(), same.next()) {
            (Some(only), None) => Some(only.span.start),
            _ => None,
        }
    })
}
