//! Turns errors of planning into diagnostics: message, place, remedy.

use std::path::Path;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::compile::two_columns;
use super::error::{PlanError, Refusal};
use super::foreign;
use super::places::{find, mentioned, named, rare};
use super::plain_messages::simplify_message;
use super::windows::tokenize;
use super::{message_rules, shape};
use crate::definition::{Diagnostic, Diagnostics, nearest};
use crate::words::sql_types;

/// A part of DataFusion's message about two expressions with one name.
const ONE_NAME: &str = "require unique expression names";

/// The diagnostics of an error in the SQL of `file`; `tokens` are that SQL's, and help to find the place.
pub(super) fn diagnose(error: PlanError, file: &Path, tokens: &[TokenWithSpan]) -> Vec<Diagnostic> {
    match error {
        PlanError::Refused(refusal) => vec![refused(*refusal, file, tokens)],
        PlanError::DataFusion(error) => flatten(&error)
            .into_iter()
            .map(|error| refused(simplify_message(understand(error, tokens), tokens), file, tokens))
            .collect(),
    }
}

/// The mistakes for which DataFusion refused a live query. Their places are in a file called `query`.
pub fn query_mistakes(error: DataFusionError, sql: &str) -> Diagnostics {
    let tokens = tokenize(sql).unwrap_or_default();
    Diagnostics(diagnose(error.into(), Path::new("query"), &tokens))
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
        .or_else(|| named(tokens, &refusal.message))
        .or_else(|| rare(tokens, &refusal.message))
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

/// Whether DataFusion refused a plan because two of its expressions have one name.
pub(super) fn names_twice(error: &PlanError) -> bool {
    let PlanError::DataFusion(error) = error else {
        return false;
    };
    flatten(error).into_iter().any(|error| match error.find_root() {
        DataFusionError::SchemaError(schema, _) => matches!(
            schema.as_ref(),
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. }
        ),
        other => other.strip_backtrace().contains(ONE_NAME),
    })
}

/// Whether DataFusion refused a plan because an expression, such as `sum(x)`, and the value of a subquery have
/// one name.
pub(super) fn takes_a_value_for_another(error: &PlanError) -> bool {
    let PlanError::DataFusion(error) = error else {
        return false;
    };
    flatten(error).into_iter().any(|error| match error.find_root() {
        DataFusionError::SchemaError(schema, _) => {
            matches!(schema.as_ref(), SchemaError::AmbiguousReference { field } if field.name.contains('('))
        }
        _ => false,
    })
}

/// The refusal of `what` where a condition is needed.
pub(super) fn not_a_condition(what: &str) -> Refusal {
    Refusal::new(sql_types(&format!("could not use {what} as a condition"))).help("compare it with something")
}

/// DataFusion's error as a refusal in our words.
fn understand(error: &DataFusionError, tokens: &[TokenWithSpan]) -> Refusal {
    let diagnostic = error.diagnostic();
    let span = diagnostic.and_then(|d| d.span);
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root {
        match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                return unknown_column(field, valid_fields, tokens).at_span(span.or(field.spans().first()));
            }
            SchemaError::AmbiguousReference { field } => {
                return Refusal::new(format!(
                    "could not tell which {:?} is meant: several tables have it",
                    field.name
                ))
                .help(match field.name.contains('(') {
                    // DataFusion's name of the expression is not SQL, so `t.name` would not work.
                    true => "compute one of them in a subquery of FROM, under a name of its own".to_string(),
                    false => format!("write its table before it: t.{}", field.name),
                })
                .at_span(span.or(field.spans().first()))
                .near(&field.name);
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                return two_columns(name).at_span(span).near(name.as_str());
            }
        }
    }
    let text = match (root, diagnostic) {
        (DataFusionError::SQL(error, _), _) => error.to_string(),
        (_, Some(diagnostic)) => diagnostic.message.clone(),
        _ => root.strip_backtrace(),
    };
    let span = span.or_else(|| diagnostic.and_then(|d| d.notes.iter().find_map(|n| n.span)));
    let (text, place) = split_place(&text);
    if text.contains(ONE_NAME) {
        let name = text.split('"').nth(1).unwrap_or_default();
        let near = name.rsplit('.').next().unwrap_or(name);
        return two_columns(name).at_span(span).near(near);
    }
    if let Some(refusal) = type_refusal(&root.strip_backtrace()).or_else(|| type_refusal(&text)) {
        return if span.is_some() { refusal.at_span(span) } else { refusal };
    }
    if let Some(refusal) = unknown_function(&root.strip_backtrace()).or_else(|| unknown_function(&text)) {
        return if span.is_some() { refusal.at_span(span) } else { refusal };
    }
    if let Some(refusal) = message_rules::own_refusal(&strip(&text), tokens).or_else(|| in_our_words(&text, tokens)) {
        return if refusal.span.is_none() {
            refusal.at_span(span)
        } else {
            refusal
        };
    }
    let mut refusal = Refusal::new(sql_types(&lower_case(&strip(&text))));
    refusal.span = place.map(|start| Span { start, end: start });
    if span.is_some() {
        refusal = refusal.at_span(span);
    }
    let helps: Vec<String> = diagnostic
        .iter()
        .flat_map(|d| d.helps.iter().map(|h| lower_case(&h.message)))
        .collect();
    let helps: Vec<String> = match diagnostic.and_then(|d| {
        d.notes
            .iter()
            .find_map(|n| n.message.strip_prefix("Possible function "))
    }) {
        Some(function) => vec![format!("did you mean {function}?")],
        None => helps,
    };
    let notes: Vec<&str> = diagnostic
        .iter()
        .flat_map(|d| d.notes.iter().map(|n| n.message.as_str()))
        .filter(|note| !note.starts_with("Possible function"))
        .collect();
    if !notes.is_empty() {
        refusal.message = sql_types(&format!("{} ({})", refusal.message, notes.join(", ")));
    }
    // DataFusion points at the first side, but the other one may be the mistake.
    if refusal.message.contains("queries have different number of columns") {
        let operation = refusal.message.split(' ').next().unwrap_or_default().to_string();
        refusal = refusal.at(None).near(operation);
    }
    // A help may name the inner one of two calls, which gives a place.
    let inner = helps
        .iter()
        .find_map(|help| help.strip_prefix("compute '")?.split('(').next());
    if let (None, Some(inner)) = (refusal.span, inner) {
        refusal = refusal.near(inner);
    }
    if !helps.is_empty() {
        // DataFusion calls `count(*)` `count(Int64(1))`.
        refusal = refusal.help(helps.join("; ").replace("(Int64(1))", "(*)"));
    } else if let Some(help) = remedy(&refusal.message) {
        refusal = refusal.help(help);
    }
    refusal
}

/// The refusal of a call of an unknown function.
fn unknown_function(text: &str) -> Option<Refusal> {
    let rest = strip(text);
    let rest = rest
        .strip_prefix("Invalid function '")
        .or_else(|| rest.strip_prefix("invalid function '"))?;
    let (name, rest) = rest.split_once('\'')?;
    // DataFusion suggests some function in any case, so its suggestion counts only if the names are alike.
    let near = rest.split('\'').nth(1).and_then(|near| nearest(name, [near]));
    let help = match (foreign::instead(name), near) {
        (Some(instead), _) => instead.to_string(),
        (None, Some(near)) => format!("did you mean '{near}'?"),
        (None, None) => "docs/src/sql/functions.md lists functions; write it in terms of these".to_string(),
    };
    Some(
        Refusal::new(format!("could not find a function '{name}'"))
            .help(help)
            .near(name),
    )
}

/// Errors for which DataFusion gives no place, or which name its internal parts.
fn in_our_words(text: &str, tokens: &[TokenWithSpan]) -> Option<Refusal> {
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.trim().to_string());
    if text.contains("recursion limit exceeded") {
        return Some(shape::too_deep("parentheses, subqueries or CASEs that are nested so deep").near("SELECT"));
    }
    if text.contains("does not support logical expression WindowFunction") {
        let refusal =
            Refusal::new("could not plan a window function here: it is computed behind WHERE, GROUP BY and HAVING");
        return Some(refusal.help("compare it in QUALIFY, or in an outer query").near("OVER"));
    }
    if let Some(name) = between("WITH query name \"", "\" specified more than once") {
        let refusal = Refusal::new(format!("could not name two queries of WITH {name:?}"));
        let refusal = refusal.help("name one of them anew").near(name.as_str());
        return Some(refusal.at(defined(tokens, &name).nth(1)));
    }
    if text.contains("frame offsets for") || text.contains("cannot be larger than end bound") {
        let refusal = Refusal::new(format!(
            "could not plan this frame: {}",
            strip(text).trim_start_matches("Invalid window frame: ")
        ));
        let help =
            "begin a frame in front of its end, and write distances that are not negative: 1 PRECEDING, 1 FOLLOWING";
        return Some(refusal.help(help).near("OVER"));
    }
    let name_after = |start: &str| Some(text.split_once(start)?.1.split_whitespace().next()?.to_string());
    let near = if text.contains("Order by column out of bounds") {
        "ORDER".to_string()
    } else if text.contains("Window Function") {
        "OVER".to_string()
    } else if text.contains("could not window by") {
        "DESCRIPTOR".to_string()
    } else {
        name_after("Unsupported SQL type ").or_else(|| name_after("The window "))?
    };
    let refusal = Refusal::new(sql_types(&lower_case(&strip(text)))).near(near);
    let help = remedy(&refusal.message);
    Some(match help {
        Some(help) => refusal.help(help),
        None => refusal,
    })
}

/// Where WITH defines a query of this name.
fn defined<'a>(tokens: &'a [TokenWithSpan], name: &'a str) -> impl Iterator<Item = Span> + 'a {
    let words = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
    let next = words.clone().skip(1);
    words.zip(next).filter_map(move |(word, next)| {
        let named = matches!(&word.token, Token::Word(w) if w.value.eq_ignore_ascii_case(name));
        let begins = matches!(&next.token, Token::Word(w) if w.value.eq_ignore_ascii_case("AS"));
        (named && begins).then_some(word.span)
    })
}

/// What to do about a message that has no remedy of its own.
fn remedy(message: &str) -> Option<String> {
    const CLAUSES: [&str; 12] = [
        "SELECT", "FROM", "WHERE", "GROUP", "ORDER", "HAVING", "WITH", "JOIN", "UNION", "LIMIT", "VALUES", "DISTINCT",
    ];
    if let Some((expected, found)) = message
        .strip_prefix("expected: ")
        .and_then(|rest| rest.split_once(", found: "))
    {
        if let Some(help) = message_rules::found_instead(expected, found) {
            return Some(help.to_string());
        }
        return Some(match nearest(found, CLAUSES) {
            _ if expected.starts_with(')') => "a parenthesis before this place is not closed".to_string(),
            Some(clause) if !clause.eq_ignore_ascii_case(found) => format!("did you mean {clause}?"),
            _ if found == "EOF" => "the SQL ends too early".to_string(),
            _ => "look for a missing comma, quote or keyword before this place".to_string(),
        });
    }
    let known = [
        (
            "unsupported SQL type JSONB",
            "read a field as a text, payload::jsonb ->> 'a'; elsewhere JSON is a text: remove the cast",
        ),
        (
            "unsupported SQL type JSON",
            "JSON is a text: remove the cast, and read fields by payload ->> 'a'",
        ),
        ("unsupported SQL type INT64", "write BIGINT"),
        ("unsupported SQL type FLOAT64", "write DOUBLE"),
        ("unsupported SQL type NUMBER", "write DECIMAL(18,2)"),
        (
            "unsupported SQL type",
            "types are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), VARCHAR, BINARY, DATE and TIMESTAMP",
        ),
        (
            "for type interval",
            "write a number and a unit, as in INTERVAL '7 days'",
        ),
        ("different number of columns", "select as many columns on each side"),
        (
            "could not window by",
            "name a DATE or TIMESTAMP column, or cast it in a table that this one reads",
        ),
        ("not allowed in the WHERE", "move the condition into HAVING"),
        ("LATERAL syntax", "write CROSS JOIN LATERAL or LEFT JOIN LATERAL"),
        ("only support Literal", "write a number or a text itself there"),
        (
            "with the text '",
            "compare it with a value of its type, or make it a text: CAST(x AS VARCHAR)",
        ),
        ("coerce", "cast one side: CAST(... AS ...)"),
        ("type", "cast one side: CAST(... AS ...)"),
    ];
    let rule = known.iter().find(|(part, _)| message.contains(part));
    rule.map(|(_, help)| help.to_string())
}

/// Errors about types, in which DataFusion describes its own implementation.
fn type_refusal(text: &str) -> Option<Refusal> {
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.trim().to_string());
    if let Some(call) = between("given name and argument types '", "'") {
        let refusal = Refusal::new(message_rules::types_as_written(&sql_types(&format!(
            "could not call {call}"
        ))));
        let name = call.split('(').next().unwrap_or_default().to_string();
        // Errors of our own functions list how the function may be called.
        if let Some((_, own)) = text.split_once(&format!("could not plan {name}("))
            && let Some((given, forms)) = own.split_once("): it is ")
        {
            let forms = forms.split(['\n', '.']).next().unwrap_or_default();
            let refusal = Refusal::new(message_rules::types_as_written(&format!(
                "could not call {name}({given})"
            )));
            return Some(refusal.near(name).help(format!("it is {forms}")));
        }
        let forms = text.split_once("Candidate functions:").map_or("", |(_, forms)| forms);
        let forms = message_rules::readable_signatures(forms.split(['\t', '\n']).map(|form| sql_types(form.trim())));
        return Some(refusal.near(name).help(match forms.as_slice() {
            [] => "cast its arguments: CAST(... AS ...)".to_string(),
            forms => format!("it takes {}", forms.join(", ")),
        }));
    }
    if let (Some(what), Some(of_type)) = (
        between("non-boolean predicate '", "'"),
        between("' returning ", "\n")
            .or_else(|| text.split_once("' returning ").map(|(_, rest)| rest.trim().to_string())),
    ) {
        let near = what.rsplit('.').next().unwrap_or(&what).to_string();
        return Some(not_a_condition(&format!("{near}, a {of_type},")).near(near));
    }
    if let Some((value, of_type)) = between("Cannot cast string '", "'").zip(between("to value of ", " type")) {
        let refusal = Refusal::new(sql_types(&format!("could not read '{value}' as a {of_type}")));
        return Some(refusal.help("write a value of that type, or compare with something else"));
    }
    let operation = ["for comparison operation ", "for logical boolean operation "]
        .iter()
        .find_map(|operation| Some(text.split_once(operation)?.1.lines().next()?.to_string()))
        .or_else(|| between("Cannot coerce arithmetic expression ", " to valid types"))?;
    // In `Timestamp(µs) > Int64` the operator is the first word that is not a type.
    let words: Vec<&str> = operation.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| !word.starts_with(char::is_alphabetic))
        .or_else(|| {
            words
                .iter()
                .position(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        })?;
    let (left, right) = (words[..at].join(" "), words[at + 1..].join(" "));
    let message = sql_types(&format!("could not apply {} to {left} and {right}", words[at]));
    let help = match matches!(words[at], "+" | "-") && message.contains("TIMESTAMP") {
        true => "write how long it is: ts + INTERVAL '1 day'",
        false => "cast one side: CAST(... AS ...)",
    };
    Some(Refusal::new(message_rules::types_as_written(&message)).help(help))
}

fn unknown_column(field: &Column, valid: &[Column], tokens: &[TokenWithSpan]) -> Refusal {
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
            None if same_table.is_empty() => "no column may stand here; or FROM is missing".to_string(),
            None if in_double_quotes(tokens, &field.name) => {
                format!("text stands in single quotes: '{}'", field.name)
            }
            None => match foreign::instead(&field.name).filter(|_| field.relation.is_none()) {
                Some(instead) => instead.to_string(),
                None => format!("known are {}", same_table.join(", ")),
            },
        }
    };
    Refusal::new(format!("could not find a column {:?}", field.flat_name()))
        .help(help)
        .near(&field.name)
}

fn in_double_quotes(tokens: &[TokenWithSpan], name: &str) -> bool {
    tokens
        .iter()
        .any(|t| matches!(&t.token, Token::Word(word) if word.quote_style == Some('"') && word.value == name))
}

/// Splits sqlparser's `... at Line: 3, Column: 8` into the message and the place.
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
        "Parser error: ",
        "Internal error: ",
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
