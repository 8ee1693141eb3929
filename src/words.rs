//! Translates messages of Arrow and DataFusion to SQL's terms, because the readers of a dead letter may know neither.
//!
//! Types get their SQL names, a value is shown without the Rust structure around it, and messages that only make sense
//! in code (a failed assertion) are dropped. A value that a message quotes stays unchanged.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// The message in SQL's terms.
pub fn in_sql_words(message: &str) -> String {
    let message = unwrapped(message);
    if let Some((value, sql_type)) = message
        .strip_prefix("Cannot cast string '")
        .and_then(|rest| rest.strip_suffix(" type"))
        .and_then(|rest| rest.rsplit_once("' to value of "))
    {
        return format!("could not read '{value}' as a {}", sql_types(sql_type));
    }
    if message.starts_with("Regular expression did not compile") {
        return "the regular expression does not compile".to_string();
    }
    let (mut plain_text, mut at) = (String::new(), 0);
    for quoted in QUOTED.find_iter(message) {
        plain_text += &plain(&message[at..quoted.start()]);
        plain_text += quoted.as_str();
        at = quoted.end();
    }
    plain_text += &plain(&message[at..]);
    if !CODE.is_match(&QUOTED.replace_all(&plain_text, "")) {
        return plain_text.trim().to_string();
    }
    let function = plain_text.split_once("(): ").map(|(function, _)| function);
    match function.filter(|function| function.starts_with("could not compute ")) {
        Some(function) => format!("{function}(): it has no answer to these values"),
        None => "an expression has no answer to these values".to_string(),
    }
}

/// The innermost message on one line, without the prefixes of the errors around it.
fn unwrapped(message: &str) -> &str {
    const WRAPPERS: [&str; 17] = [
        "Arrow error: ",
        "Arithmetic overflow: ",
        "Cast error: ",
        "Compute error: ",
        "Error during planning: ",
        "Execution error: ",
        "External error: ",
        "External: ",
        "Internal error: ",
        "Invalid argument error: ",
        "Json error: ",
        "Not yet implemented: ",
        "Parser error: ",
        "Schema error: ",
        "SchemaError: ",
        "This feature is not implemented: ",
        "Optimizer rule error: ",
    ];
    let mut message = message;
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| message.strip_prefix(wrapper)) {
        message = rest;
    }
    message.lines().next().unwrap_or("").trim()
}

/// A quoted value with the character before it, so that the apostrophe in `can't` opens no quote.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?:^|\W)(?:'[^']*'|"(?:[^"\\]|\\.)*")"#));
/// The prefix of a wrapping error inside a message.
static WRAPPER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\s*\b(?:Arrow|Cast|Compute|Execution|External|Internal|Invalid argument|Parser|Schema) error:")
});
static OPTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bSome\(((?:[^()]|\([^()]*\))*)\)"));
static STRUCTURE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-Z]\w* \{ ([^{}]*?),? \}"));
static PATH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:\w+::)+(\w+)"));
static NATIVE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b([A-Z][A-Za-z0-9]*?)Type\b"));
/// Text that only makes sense in code.
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"::|`(?:None|Some|Err|Ok)|\bassertion\b|\{ |\bSome\(|\bErr\(|\bOk\(|index out of bounds|out of range for slice",
    )
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is right")
}

/// Translates a part of a message outside quotes.
fn plain(text: &str) -> String {
    let mut text = WRAPPER.replace_all(text, "").into_owned();
    // Inner structures are unwrapped first.
    for inner in [&*OPTION, &*STRUCTURE] {
        while inner.is_match(&text) {
            text = inner.replace_all(&text, "$1").into_owned();
        }
    }
    let text = PATH.replace_all(&text, "$1");
    let text = NATIVE.replace_all(&text, |found: &Captures<'_>| match &found[1] {
        "TimestampSecond" | "TimestampMillisecond" | "TimestampMicrosecond" | "TimestampNanosecond" => "TIMESTAMP",
        "Date32" | "Date64" => "DATE",
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "UInt8" | "UInt16" | "UInt32" | "UInt64" => "unsigned integer",
        "Float16" | "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "DECIMAL",
        "Utf8" | "LargeUtf8" | "StringView" => "VARCHAR",
        "Binary" | "LargeBinary" | "BinaryView" => "BINARY",
        "Time32Second" | "Time32Millisecond" | "Time64Microsecond" | "Time64Nanosecond" => "TIME",
        "IntervalYearMonth" | "IntervalDayTime" | "IntervalMonthDayNano" => "INTERVAL",
        _ => "value",
    });
    sql_types(&text)
}

/// Replaces Arrow's type names by SQL's.
pub fn sql_types(text: &str) -> String {
    // A name must come before every shorter name that it contains.
    const NAMES: [(&str, &str); 36] = [
        ("Timestamp(Second, None)", "TIMESTAMP"),
        ("Timestamp(Millisecond, None)", "TIMESTAMP"),
        ("Timestamp(Microsecond, None)", "TIMESTAMP"),
        ("Timestamp(Nanosecond, None)", "TIMESTAMP"),
        ("Timestamp(s)", "TIMESTAMP"),
        ("Timestamp(ms)", "TIMESTAMP"),
        ("Timestamp(µs)", "TIMESTAMP"),
        ("Timestamp(ns)", "TIMESTAMP"),
        ("Utf8View", "VARCHAR"),
        ("LargeUtf8", "VARCHAR"),
        ("Utf8", "VARCHAR"),
        ("BinaryView", "BINARY"),
        ("LargeBinary", "BINARY"),
        ("Binary", "BINARY"),
        ("UInt64", "unsigned BIGINT"),
        ("UInt32", "unsigned INT"),
        ("UInt16", "unsigned SMALLINT"),
        ("UInt8", "unsigned TINYINT"),
        ("Int64", "BIGINT"),
        ("Int32", "INT"),
        ("Int16", "SMALLINT"),
        ("Int8", "TINYINT"),
        ("Float64", "DOUBLE"),
        ("Float32", "FLOAT"),
        ("Float16", "FLOAT"),
        ("Date32", "DATE"),
        ("Date64", "DATE"),
        ("Boolean", "BOOLEAN"),
        ("Decimal256", "DECIMAL"),
        ("Decimal128", "DECIMAL"),
        ("Decimal64", "DECIMAL"),
        ("Decimal32", "DECIMAL"),
        ("Decimal", "DECIMAL"),
        ("Interval(MonthDayNano)", "INTERVAL"),
        ("Interval(YearMonth)", "INTERVAL"),
        ("Interval(DayTime)", "INTERVAL"),
    ];
    NAMES
        .iter()
        .fold(text.to_string(), |text, (arrow, sql)| text.replace(arrow, sql))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_code_calls_things_is_not_told() {
        for (said, expected) in [
            (
                "Arrow error: Cast error: Failed to create naive time with arrow_array::types::TimestampMicrosecondType 9",
                "Failed to create naive time with TIMESTAMP 9",
            ),
            (
                "Cast error: Cannot convert arrow_array::types::TimestampSecondType -5 to datetime",
                "Cannot convert TIMESTAMP -5 to datetime",
            ),
            (
                "Compute error: Date arithmetic overflow: 1 + IntervalMonthDayNano { months: 1, days: 2, nanoseconds: 3 }",
                "Date arithmetic overflow: 1 + months: 1, days: 2, nanoseconds: 3",
            ),
            (
                "Execution error: no place for Some(3) in Some(List(Some(4)))",
                "no place for 3 in List(4)",
            ),
            (
                "round of Decimal128: Invalid argument error: \"Some(1)\" is too large",
                "round of DECIMAL: \"Some(1)\" is too large",
            ),
            (
                "Cast error: Cannot cast string 'it's Utf8' to value of Int64 type",
                "could not read 'it's Utf8' as a BIGINT",
            ),
            (
                "Can't cast value 300 to type Int8",
                "Can't cast value 300 to type TINYINT",
            ),
            (
                "no room for 'Some(Int8)' in Int16",
                "no room for 'Some(Int8)' in SMALLINT",
            ),
            (
                "called `Option::unwrap()` on a `None` value",
                "an expression has no answer to these values",
            ),
            (
                "Execution error: could not compute lpad(): range end index 9 out of range for slice of length 3",
                "could not compute lpad(): it has no answer to these values",
            ),
            (
                "Internal error: assertion failed: a.len() == b.len()\nbacktrace: ...",
                "an expression has no answer to these values",
            ),
            (
                "Compute error: Regular expression did not compile: Syntax(\n~~~",
                "the regular expression does not compile",
            ),
        ] {
            assert_eq!(in_sql_words(said), expected, "{said}");
        }
    }
}
