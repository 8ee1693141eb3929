//! Generates random rows: with nulls, ties and extremes.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::judge::tables::{Column, Table};

pub const TEXTS: [&str; 9] = ["", "a", "A", "ab", "b", "\u{e4}\u{2713}", "a%b", " a ", "10"];
pub const DECIMALS: [&str; 8] = ["16.10", "4.35", "0.10", "-0.01", "1.0", "99.99", "1234567.89", "0.005"];
pub const TIMES: [&str; 6] = [
    "2024-05-01 00:00:00",
    "2024-02-29 23:59:59.999999",
    "2024-05-01 12:34:56.789",
    "2024-12-31 23:00:00",
    "2024-03-31 02:30:00",
    "2024-05-02 00:00:00",
];
pub const FAR_TIMES: [&str; 8] = [
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "9999-12-31 00:00:00",
    "1677-09-21 00:12:43",
    "2262-04-12 00:00:00",
    "1969-12-31 23:59:59.5",
    "1600-02-29 12:00:00",
    "2024-05-01 00:00:00",
];
pub const DAYS: [&str; 5] = ["2024-05-01", "2024-02-29", "2024-12-31", "2024-01-31", "2024-05-02"];
pub const FAR_DAYS: [&str; 6] = [
    "0001-01-01",
    "9999-12-31",
    "1677-09-20",
    "2262-04-13",
    "1969-12-31",
    "2024-05-01",
];
const BIG: [i64; 9] = [
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
    i64::MIN + 1,
    (1 << 53) + 1,
    -(1 << 53) - 1,
    0,
    1,
    1 << 53,
];
const DOUBLES: [&str; 9] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "0.1",
    "1.0",
    "-0.0",
    "0.0",
    "1e300",
    "16.1",
];

/// A table with all kinds of columns, in random order, with random types that fit.
pub fn table(rng: &mut StdRng, name: &str) -> Table {
    let any = |rng: &mut StdRng, of: &[&str]| of[rng.random_range(0..of.len())].to_string();
    let mut columns: Vec<(&str, String)> = vec![
        ("k", any(rng, &["INT", "BIGINT"])),
        ("v", "BIGINT".to_string()),
        ("big", "BIGINT".to_string()),
        ("x", "DOUBLE".to_string()),
        ("y", "DOUBLE".to_string()),
        ("d", any(rng, &["DECIMAL(10,2)", "DECIMAL(18,2)"])),
        ("e", any(rng, &["DECIMAL(12,4)", "DECIMAL(9,1)", "DECIMAL(38,10)"])),
        ("s", "VARCHAR".to_string()),
        ("b", "BOOLEAN".to_string()),
        ("ts", "TIMESTAMP".to_string()),
        ("dt", "DATE".to_string()),
        ("tf", "TIMESTAMP".to_string()),
        ("df", "DATE".to_string()),
    ];
    for at in (1..columns.len()).rev() {
        columns.swap(at, rng.random_range(0..=at));
    }
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|(name, sql_type)| Column {
            name: name.to_string(),
            sql_type,
            nullable: rng.random_bool(0.8),
        })
        .collect();
    let count = [0, 1, 3, 6, 8, 10, 12][rng.random_range(0..7)];
    let mut rows: Vec<Vec<Value>> = vec![];
    while rows.len() < count {
        let again = rng.random_bool(0.15) && !rows.is_empty();
        rows.push(match again {
            true => rows[rng.random_range(0..rows.len())].clone(),
            false => columns.iter().map(|column| value(rng, column)).collect(),
        });
    }
    Table {
        name: name.to_string(),
        columns,
        rows,
    }
}

fn value(rng: &mut StdRng, column: &Column) -> Value {
    if column.nullable && rng.random_bool(0.2) {
        return Value::Null;
    }
    fn any<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
        of[rng.random_range(0..of.len())]
    }
    match column.name.as_str() {
        "k" => json!(rng.random_range(-1..4)),
        "v" => json!(rng.random_range(-3..8)),
        "big" => json!(any(rng, &BIG)),
        "x" => json!(rng.random_range(-16..24) as f64 / 8.0),
        "y" => json!(any(rng, &DOUBLES)),
        "d" => json!(any(rng, &DECIMALS[..7])),
        "e" if column.sql_type == "DECIMAL(9,1)" => json!(any(rng, &["16.1", "0.1", "-0.5", "1", "99999999.9"])),
        "e" => json!(any(rng, &DECIMALS)),
        "s" => json!(any(rng, &TEXTS)),
        "b" => json!(rng.random_bool(0.5)),
        "ts" => json!(any(rng, &TIMES)),
        "dt" => json!(any(rng, &DAYS)),
        "tf" => json!(any(rng, &FAR_TIMES)),
        "df" => json!(any(rng, &FAR_DAYS)),
        other => unreachable!("no column is called {other}"),
    }
}
