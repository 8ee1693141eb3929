//! Replaces messages of DataFusion and the parser by ones in a user's words, with what to write instead.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use regex::Regex;
use std::sync::LazyLock;

use super::error::Refusal;

/// A part of DataFusion's message; our message (`None` keeps DataFusion's); what to write instead; words of the
/// SQL near which the construct may stand.
type MessageRule = (
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static [&'static str],
);

const MESSAGE_RULES: [MessageRule; 27] = [
    (
        "with RENAME",
        Some("could not plan * with RENAME"),
        "name the columns: SELECT id AS number",
        &["RENAME"],
    ),
    (
        "only support Literal types",
        Some("could not plan a window function with an argument that is computed"),
        "write a number itself there: lag(x, 1)",
        &["OVER"],
    ),
    (
        "NTILE requires",
        None,
        "write a number greater than 0: ntile(4)",
        &["ntile"],
    ),
    (
        "indow function calls cannot be nested",
        Some("could not plan a window function within another one"),
        "compute the inner one in a subquery of FROM, and use its column",
        &[],
    ),
    (
        "Unnest should be rewritten",
        Some("could not plan unnest() here: it yields rows"),
        "put it in FROM: FROM t CROSS JOIN unnest(t.list) AS u(item)",
        &["unnest"],
    ),
    (
        "unnest() can only be applied",
        Some("could not unnest what is no list"),
        "make it a list: string_to_array(text, ',') or [x, y]",
        &["unnest"],
    ),
    (
        "ubstring without for/from",
        Some("could not plan a substring without its place"),
        "write substr(text, from, length)",
        &["substr", "substring"],
    ),
    (
        "COUNT DISTINCT with multiple",
        Some("could not count distinct values of several columns at once"),
        "write count(DISTINCT (a, b))",
        &["count"],
    ),
    ("ercentile value for", None, "write a number from 0 to 1 itself", &[]),
    (
        "HAVING not supported in function",
        Some("could not plan HAVING within an aggregate"),
        "write first_value(x ORDER BY y DESC)",
        &["HAVING"],
    ),
    (
        "with DISTINCT, ORDER BY expressions must",
        Some("could not order the distinct values of an aggregate by something else"),
        "order by the argument itself, or remove DISTINCT",
        &[],
    ),
    (
        "to grouping function",
        Some("could not plan GROUPING of what GROUP BY does not have"),
        "name a column of GROUP BY",
        &["GROUPING"],
    ),
    (
        "call to 'cardinality' function",
        Some("could not compare with ANY or ALL of what is no list"),
        "write ANY(ARRAY['a', 'b']), or a subquery",
        &["ANY", "ALL", "SOME", "cardinality"],
    ),
    (
        "xpected LIMIT to be an integer",
        Some("could not read LIMIT: it is no whole number"),
        "write a whole number, as in LIMIT 10",
        &["LIMIT"],
    ),
    (
        "rder by column out of bounds",
        None,
        "write the number of a column of SELECT, or its name",
        &["ORDER"],
    ),
    (
        "DISTINCT ON expressions must match",
        Some("could not plan DISTINCT ON: ORDER BY does not begin with its columns"),
        "write DISTINCT ON (a) ... ORDER BY a, b",
        &["DISTINCT"],
    ),
    (
        "RANGE requires exactly one",
        Some("could not plan RANGE with a distance over several columns"),
        "order by one column, or write ROWS or GROUPS",
        &["RANGE", "OVER"],
    ),
    (
        "SingleQuotedByteStringLiteral",
        Some("could not plan a text of bytes"),
        "write x'00ff', or convert_to(text, 'UTF8')",
        &[],
    ),
    (
        "UnicodeStringLiteral",
        Some("could not plan a text with U&"),
        "write E'\\u0041'",
        &[],
    ),
    (
        "LATERAL syntax",
        Some("could not plan RIGHT or FULL JOIN LATERAL: there may be no row to look at"),
        "write CROSS JOIN LATERAL or LEFT JOIN LATERAL",
        &["LATERAL", "RIGHT", "FULL"],
    ),
    (
        "cannot access field",
        Some("could not take a field of what has none"),
        "write the column alone, or its table before it: t.id",
        &[],
    ),
    (
        "coerce then (",
        Some("could not bring what CASE yields to one type"),
        "cast what stands behind THEN and ELSE: CAST(... AS ...)",
        &["CASE"],
    ),
    (
        "xpressions have incompatible types",
        Some("could not compare texts: these are none"),
        "cast both sides: CAST(... AS VARCHAR)",
        &[],
    ),
    (
        "ANY in LIKE",
        Some("could not plan LIKE ANY of what is not written out"),
        "write text LIKE ANY (ARRAY['a%', 'b%'])",
        &["LIKE", "ILIKE"],
    ),
    (
        "pipe operator is not supported",
        None,
        "write SELECT ... FROM ... WHERE ...",
        &[],
    ),
    (
        "UNNEST must have",
        Some("could not plan unnest() of nothing"),
        "give it a list: unnest([1, 2])",
        &["unnest"],
    ),
    (
        "HAVING clause references",
        None,
        "add it to GROUP BY, or use an aggregate: max(...)",
        &["HAVING"],
    ),
];

static VALUE: LazyLock<Regex> = LazyLock::new(|| pattern(r"Can't cast value (\S+) to type (\w+)"));
static NAMES: LazyLock<Regex> = LazyLock::new(|| pattern(r"contains (\d+) columns but only (\d+) names given"));
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| pattern(r#"variable \["(@\w+)"\] has no type"#));
static QUALIFIER: LazyLock<Regex> = LazyLock::new(|| pattern(r"nvalid qualifier (\w+)"));
static LIST: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bList\(([^()]*(?:\([^()]*\))?)\)"));
static LENGTH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:Duration|Interval)\b(?:\([^()]*\))?"));
static ZONED: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\bTimestamp\([^()]*"[^()]*\)"#));
static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bTime(?:32|64)?\b(?:\([^()]*\))?"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is right")
}

/// Our refusal for a message of DataFusion, where there is one.
pub(super) fn own_refusal(text: &str, tokens: &[TokenWithSpan]) -> Option<Refusal> {
    if let Some(value) = VALUE.captures(text) {
        let refusal = Refusal::new(format!(
            "could not read {} as a whole number: it is too large",
            &value[1]
        ));
        let near = tokens.iter().find(|t| t.token.to_string() == value[1]).map(|t| t.span);
        return Some(refusal.help(format!("write it as a DECIMAL: {}.0", &value[1])).at(near));
    }
    if let Some(counts) = NAMES.captures(text) {
        let refusal = Refusal::new(format!(
            "could not name {} columns: there are {}",
            &counts[2], &counts[1]
        ));
        return Some(
            refusal
                .help("give as many names as there are columns")
                .at(column_list_span(tokens)),
        );
    }
    if let Some(variable) = VARIABLE.captures(text) {
        let refusal = Refusal::new(format!("could not plan the variable {}", &variable[1]));
        return Some(refusal.help("write the value itself").near(&variable[1]));
    }
    if let Some(qualifier) = QUALIFIER.captures(text) {
        let refusal = Refusal::new(format!("could not find a table {:?} in FROM", &qualifier[1]));
        return Some(
            refusal
                .help("write a table of FROM, by its alias where it has one")
                .near(&qualifier[1]),
        );
    }
    let (_, message, help, near) = MESSAGE_RULES.iter().find(|(part, ..)| text.contains(part))?;
    let near = near.iter().find(|word| has(tokens, word));
    let mut refusal = Refusal::new(message.unwrap_or(text)).help(*help);
    if let Some(near) = near {
        refusal = refusal.near(*near);
    }
    Some(refusal)
}

fn has(tokens: &[TokenWithSpan], word: &str) -> bool {
    let same = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
    tokens.iter().any(same)
}

/// Where the first list of column names is given: `WITH a (x, y)`, `AS a (x, y)`.
fn column_list_span(tokens: &[TokenWithSpan]) -> Option<datafusion::sql::sqlparser::tokenizer::Span> {
    let is = |t: &TokenWithSpan, word: &str| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
    let three_tokens = tokens.windows(3).find(|three| {
        (is(&three[0], "WITH") || is(&three[0], "AS"))
            && matches!(three[1].token, Token::Word(_))
            && three[2].token == Token::LParen
    });
    three_tokens.map(|three| three[1].span)
}

/// Tokens that the parser found where it expected others, each with what to write instead.
const TOKEN_RULES: [(&str, &str); 19] = [
    ("MATERIALIZED", "remove MATERIALIZED"),
    ("PERCENT", "compare NTILE(100) OVER (ORDER BY ...) in QUALIFY"),
    ("GLOB", "write LIKE 'a%', or ~ '^a'"),
    ("SYSTEM_TIME", "remove it: a table is read as it is"),
    ("CHANGES", "remove EMIT CHANGES: a table is always kept up to date"),
    (
        "POSITIONAL",
        "number the rows of both sides by row_number() OVER (ORDER BY ...), and join by that",
    ),
    ("MOD", "write a % b"),
    ("DIV", "write a / b, which is whole for whole numbers"),
    ("{", "write SQL without templates: the name itself"),
    ("|/", "write sqrt(x)"),
    ("||/", "write cbrt(x)"),
    ("@", "write abs(x)"),
    ("?", "write (payload ->> 'a') IS NOT NULL for whether JSON has a field"),
    (
        "for",
        "write (SELECT array_agg(x * 2) AS list FROM unnest(list) AS u(x))",
    ),
    ("TABLE", "write SELECT * FROM t"),
    ("USING", "keep a share of the rows by a column: WHERE id % 10 = 0"),
    ("ON", "write JOIN ... ON; CROSS JOIN has no condition"),
    ("RESPECT", "remove RESPECT NULLS, which is what is done"),
    (
        "PIVOT",
        "write a column for each value: sum(x) FILTER (WHERE k = 'a') AS a, with GROUP BY",
    ),
];

/// What to write instead of the token at which the parser stopped.
pub(super) fn found_instead(expected: &str, found: &str) -> Option<&'static str> {
    if expected.starts_with("MATCH_CONDITION") {
        return Some("write ASOF JOIN u ON t.k = u.k AND t.ts >= u.ts");
    }
    if expected.starts_with("[NOT] NULL") {
        return Some("write IS NULL, IS TRUE or IS NOT DISTINCT FROM x");
    }
    let known = TOKEN_RULES.iter().find(|(word, _)| word.eq_ignore_ascii_case(found));
    known.map(|(_, help)| *help)
}

/// Arrow's types in a message as SQL writes them: `VARCHAR[]`, INTERVAL.
pub(super) fn types_as_written(text: &str) -> String {
    let text = ZONED.replace_all(text, "TIMESTAMP WITH TIME ZONE");
    let text = LENGTH.replace_all(&text, "INTERVAL");
    let text = TIME.replace_all(&text, "TIME");
    let text = LIST.replace_all(&text, "$1[]");
    text.replace("(String", "(VARCHAR").replace("Timestamp", "TIMESTAMP")
}

/// The signatures of a function, in SQL's types and without duplicates; those that tell a user nothing are left out.
pub(super) fn readable_signatures(signatures: impl Iterator<Item = String>) -> Vec<String> {
    let mut forms: Vec<String> = vec![];
    for form in signatures.map(|form| types_as_written(&form)) {
        let says_nothing = ["UserDefined", "Null", "unsigned", "Signature", "Any"];
        if !form.is_empty() && !says_nothing.iter().any(|part| form.contains(part)) && !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms.truncate(4);
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::windows::tokenize;

    #[test]
    fn messages_are_told_in_our_words_where_they_belong() {
        let tokens = tokenize("WITH a (x, y) AS (SELECT 1) SELECT x, 9223372036854775808 FROM a").unwrap();
        let refusal = |text: &str| own_refusal(text, &tokens).map(|r| (r.message, r.span.map(|s| s.start.column)));
        for (text, message, column) in [
            (
                "Source table contains 1 columns but only 2 names given as column alias",
                "could not name 2 columns: there are 1",
                Some(6),
            ),
            (
                "Can't cast value 9223372036854775808 to type Int64",
                "could not read 9223372036854775808 as a whole number: it is too large",
                Some(39),
            ),
            (
                "NTILE requires a positive integer",
                "NTILE requires a positive integer",
                None,
            ),
        ] {
            assert_eq!(refusal(text), Some((message.to_string(), column)));
        }
        assert_eq!(refusal("something else"), None);
    }

    #[test]
    fn forms_are_told_once_and_in_types_of_sql() {
        let signatures = [
            "f(Timestamp(ns, \"+TZ\"))",
            "f(List(VARCHAR))",
            "f(Duration(ns))",
            "f(Interval(DayTime))",
            "f(UserDefined)",
            "f(Time64(ns))",
        ];
        let forms = readable_signatures(signatures.iter().map(ToString::to_string));
        assert_eq!(
            forms,
            ["f(TIMESTAMP WITH TIME ZONE)", "f(VARCHAR[])", "f(INTERVAL)", "f(TIME)"]
        );
    }
}
