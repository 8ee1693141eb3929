//! Translates types and functions that PostgreSQL writes differently. No other module does.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::tables::Column;

/// Functions that Alluvium has and PostgreSQL lacks, defined in PostgreSQL.
pub const FUNCTIONS: &str = r"
CREATE FUNCTION json_get_int(j text, k text) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT (j::jsonb ->> k)::bigint';
";

/// Constructs that Alluvium has and PostgreSQL cannot express.
pub const ABSENT: &[&str] = &[
    "SEMI JOIN",
    "ANTI JOIN",
    "TRY_CAST(",
    "MEDIAN(",
    "APPROX_PERCENTILE_CONT(",
];

/// A column in CREATE TABLE.
pub fn column(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    format!("{} {}{not_null}", column.name, sql_type(&column.sql_type))
}

fn sql_type(name: &str) -> String {
    match name {
        "DOUBLE" => "DOUBLE PRECISION".to_string(),
        "BINARY" => "BYTEA".to_string(),
        other => other.to_string(),
    }
}

/// Words that PostgreSQL writes differently, anywhere outside quotes.
const WORDS: &[(&str, &str)] = &[
    ("MAKE_ARRAY", "ARRAY"),
    ("DOUBLE", "DOUBLE PRECISION"),
    ("STDDEV", "STDDEV_SAMP"),
];

/// A statement in PostgreSQL's form.
pub fn to_postgres(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else {
        return sql.to_string();
    };
    let mut written = String::new();
    // The depths of parentheses at which arguments of ARRAY are open.
    let mut arrays: Vec<usize> = vec![];
    let mut depth = 0;
    for (n, token) in tokens.iter().enumerate() {
        match token {
            Token::Word(word) if word.quote_style.is_none() => {
                let upper = word.value.to_ascii_uppercase();
                let precise = upper == "DOUBLE" && tokens[n..].iter().skip(2).take(1).any(is_precision);
                let other = WORDS.iter().find(|(name, _)| *name == upper && !precise);
                if upper == "MAKE_ARRAY" {
                    arrays.push(depth);
                }
                written.push_str(other.map_or(word.value.as_str(), |(_, other)| other));
            }
            Token::LParen => {
                let opens = arrays.last() == Some(&depth);
                depth += 1;
                written.push(if opens { '[' } else { '(' });
            }
            Token::RParen => {
                depth -= 1;
                let closes = arrays.last() == Some(&depth);
                if closes {
                    arrays.pop();
                }
                written.push(if closes { ']' } else { ')' });
            }
            token => written.push_str(&token.to_string()),
        }
    }
    written
}

fn is_precision(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("precision"))
}

#[test]
fn types_and_functions_are_translated_and_texts_are_not() {
    let sql = "SELECT CAST(x AS DOUBLE), 'DOUBLE', make_array((1), 2) FROM t";
    let there = "SELECT CAST(x AS DOUBLE PRECISION), 'DOUBLE', ARRAY[(1), 2] FROM t";
    assert_eq!(to_postgres(sql), there);
    assert_eq!(to_postgres("SELECT x::DOUBLE PRECISION"), "SELECT x::DOUBLE PRECISION");
}
