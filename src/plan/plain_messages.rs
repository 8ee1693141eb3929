//! Messages about a query without the planner's code: no dump of a syntax tree, no internal name.
//!
//! Where a message names a node of the syntax tree, this names the construct instead, and takes the place from
//! the dump.

use std::sync::LazyLock;

use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use regex::Regex;

use super::error::Refusal;
use super::message_rules::types_as_written;

/// For a node or operator of the syntax tree: what SQL calls it, and what to write instead.
const NODES: [(&str, &str, &str); 29] = [
    ("JsonAccess", "a path with colons", "write payload ->> 'a'"),
    ("IsNormalized", "IS NORMALIZED", "remove it: texts are kept as they are"),
    ("Convert", "CONVERT", "write CAST(x AS type)"),
    ("InUnnest", "IN UNNEST", "write x = ANY(list)"),
    ("MemberOf", "MEMBER OF", "write x = ANY(list)"),
    ("MatchAgainst", "MATCH ... AGAINST", "write text ILIKE '%word%'"),
    ("Prior", "PRIOR", "write a self-join for each level"),
    ("OuterJoin", "(+)", "write LEFT JOIN ... ON"),
    (
        "Lambda",
        "a function of items",
        "unnest the list in FROM, and gather the items by array_agg",
    ),
    ("Tuple", "a row of columns as a value", "name its columns one by one"),
    ("Struct", "a STRUCT", "write named_struct('a', x, 'b', y)"),
    ("Position", "POSITION", "write strpos(text, part)"),
    ("RLike", "RLIKE or REGEXP", "write text ~ pattern"),
    (
        "Overlaps",
        "OVERLAPS",
        "write (a, b) OVERLAPS (c, d): two times, each of two ends",
    ),
    ("AnyOp", "ANY", "write x = ANY(list) or x = ANY (SELECT ...)"),
    ("AllOp", "ALL", "write x > ALL(list) or x > ALL (SELECT ...)"),
    ("Rollup", "ROLLUP outside of GROUP BY", "write it in GROUP BY"),
    ("Cube", "CUBE outside of GROUP BY", "write it in GROUP BY"),
    ("AsOf", "ASOF JOIN", "write ASOF JOIN u ON t.k = u.k AND t.ts >= u.ts"),
    ("PGSquareRoot", "|/", "write sqrt(x)"),
    ("PGCubeRoot", "||/", "write cbrt(x)"),
    ("PGAbs", "@", "write abs(x)"),
    ("PGPostfixFactorial", "!", "write factorial(x)"),
    ("PGPrefixFactorial", "!!", "write factorial(x)"),
    ("Xor", "XOR", "write (a <> b) of conditions, or a # b of whole numbers"),
    (
        "DuckIntegerDivide",
        "//",
        "write a / b, which is whole for whole numbers",
    ),
    (
        "MyIntegerDivide",
        "DIV",
        "write a / b, which is whole for whole numbers",
    ),
    ("Spaceship", "<=>", "write IS NOT DISTINCT FROM"),
    ("Match", "MATCH", "write text ILIKE '%word%'"),
];

const ELSE: &str = "write it in terms of what docs/src/sql/supported.md names";

static NODE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?is)^(?:unsupported|could not plan) (?:ast node in sqltorel:|ast node|join operator|sql unary operator|binary operator:|sql binary operator:|value) ['"]?(\w+)"#,
    )
});
static PLACE: LazyLock<Regex> = LazyLock::new(|| pattern(r"Location\((\d+),\s*(\d+)\)"));
static DUMP: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b[A-Z]\w+ ?\{ |\bSpan\(|\b(?:Some|Word|Ident)\(|\bIdent \{"));
static UNNESTED: LazyLock<Regex> = LazyLock::new(|| pattern(r"__unnest_placeholder\((.*?),depth=\d+\)"));
static QUALIFIER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"__(?:rows|subquery_\d+|correlated_sq_\d+|scalar_sq_\d+)\."));
static OWN: LazyLock<Regex> = LazyLock::new(|| pattern(r#"["']?\b__\w+["']?"#));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is right")
}

/// Says a refusal in a user's words.
pub(super) fn simplify_message(mut refusal: Refusal, tokens: &[TokenWithSpan]) -> Refusal {
    let message = refusal.message.clone();
    if let Some(rest) = message.to_lowercase().strip_prefix("no infix parser for token ") {
        return unread(&message[message.len() - rest.len()..], tokens);
    }
    if refusal.span.is_none()
        && let Some(place) = PLACE.captures(&message)
    {
        let number = |n: usize| place[n].parse().unwrap_or_default();
        let start = Location {
            line: number(1),
            column: number(2),
        };
        refusal.span = Some(Span { start, end: start });
    }
    if let Some(node) = NODE.captures(&message).map(|found| found[1].to_string()) {
        let known = NODES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(&node));
        let (construct, help) =
            known.map_or_else(|| (spelled(&node), ELSE), |(_, words, help)| (words.to_string(), *help));
        refusal.message = format!("could not plan {construct}");
        refusal.help.get_or_insert_with(|| help.to_string());
        if refusal.span.is_none() {
            refusal.word = construct.split(' ').next().map(str::to_string);
        }
        return refusal;
    }
    if message.contains("Overflow converting") || message.contains("overflow converting") {
        refusal.message = "could not read a date or moment that is written out: it is out of range".to_string();
        refusal.help = Some("write one of the years 1 to 9999".to_string());
        return refusal;
    }
    if DUMP.is_match(&message) {
        let what = message.split([':', '{', '(']).next().unwrap_or_default().trim();
        let what = match DUMP.is_match(what) || what.is_empty() {
            true => "this part of the query",
            false => what,
        };
        refusal.message = format!("could not plan this: {what}");
        refusal.help.get_or_insert_with(|| ELSE.to_string());
    }
    refusal.message = types_as_written(&without_own_names(&refusal.message));
    refusal.help = refusal.help.map(|help| without_own_names(&help));
    refusal
}

/// A text without the names that DataFusion's and our rewrites give to columns.
fn without_own_names(text: &str) -> String {
    let text = UNNESTED.replace_all(text, "unnest($1)");
    let text = QUALIFIER.replace_all(&text, "");
    OWN.replace_all(&text, "a column of the subquery").into_owned()
}

/// Spells the name of a node in words: `IsNormalized` becomes `IS NORMALIZED`.
fn spelled(node: &str) -> String {
    let mut words = String::new();
    for (n, c) in node.chars().enumerate() {
        if n > 0 && c.is_uppercase() {
            words.push(' ');
        }
        words.extend(c.to_uppercase());
    }
    words
}

/// The refusal of a token that cannot follow an expression. `token` is the token in its `Debug` form, as the
/// parser's message has it.
fn unread(token: &str, tokens: &[TokenWithSpan]) -> Refusal {
    let same = |t: &&TokenWithSpan| format!("{:?}", t.token).eq_ignore_ascii_case(token) && t.token != Token::EOF;
    let found = tokens.iter().find(same);
    let what = found.map_or("what stands behind an expression".to_string(), |t| {
        format!("\"{}\"", t.token)
    });
    Refusal::new(format!("could not read {what} behind an expression"))
        .help("look for a missing comma, operator or keyword before this place")
        .at(found.map(|t| t.span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::windows::tokenize;

    #[test]
    fn no_code_is_told() {
        let tokens = tokenize("SELECT a ! b FROM t").unwrap();
        for (message, plain, place) in [
            (
                "unsupported ast node in sqltorel: IsNormalized { expr: Identifier(Ident { value: \"s\", span: \
                 Span(Location(3,7)..Location(3,8)) }) }",
                "could not plan IS NORMALIZED",
                Some((3, 7)),
            ),
            (
                "unsupported JOIN operator CrossApply",
                "could not plan CROSS APPLY",
                None,
            ),
            ("Unsupported SQL unary operator PGSquareRoot", "could not plan |/", None),
            (
                "no infix parser for token ExclamationMark",
                "could not read \"!\" behind an expression",
                Some((1, 10)),
            ),
            (
                "field \"__unnest_placeholder(t.a,depth=1)\" of __rows.x and __rows.__column_1",
                "field \"unnest(t.a)\" of x and a column of the subquery",
                None,
            ),
            ("could not find x", "could not find x", None),
        ] {
            let refusal = simplify_message(Refusal::new(message), &tokens);
            assert_eq!(refusal.message, plain);
            assert_eq!(refusal.span.map(|s| (s.start.line, s.start.column)), place, "{message}");
        }
    }
}
