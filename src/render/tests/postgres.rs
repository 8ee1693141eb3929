//! Compares numbers with PostgreSQL: expressions over rows with extreme values, and queries.
//!
//! PostgreSQL's results are in `postgres.txt`. `ALLUVIUM_GOLDEN=1 cargo test --lib numbers_are_postgresqls`
//! regenerates them with `psql` from the PostgreSQL of `scripts/services` (`eval "$(scripts/services env)"`). A
//! decimal may have fewer or more fractional digits than PostgreSQL's; it is compared in the digits that both have.

use std::fmt::Write;
use std::process::Command;

use serde_json::json;

use super::numbers::{CaseRows, answer};
use crate::testing::checkout;

/// Evaluated for each row of t alone, so that a row with an error does not hide the others.
const EXPRESSIONS: &str = include_str!("expressions.txt");

/// The number of rows of t.
const ROWS: usize = 9;

const SCHEMA: &str = "\
    drop schema if exists alluvium_numbers cascade; create schema alluvium_numbers; set search_path = alluvium_numbers;
    create table t(id bigint, k int, x bigint, d numeric(18,2), e numeric(38,10), f double precision, s text);
    create table u(p numeric(10,4), q double precision, n bigint);";

fn t() -> CaseRows {
    let rows = json!([
        [1, 7, i64::MAX, "16.10", "1.2345678901", "16.1", "1.005"],
        [2, -7, 3, "4567.89", "-0.5", "0.1", "-2.5"],
        [3, 0, 0, "0.00", "0", "0", "0"],
        [4, null, null, null, null, null, null],
        [5, i32::MAX, -i64::MAX, "-99.99", "9999999999.9999999999", "NaN", "1e3"],
        [6, 2, 10, "2.50", "2.5", "2.5", "2.5"],
        [7, 3, 1, "0.10", "0.1", "Infinity", " 7 "],
        [8, 5, 100, "16.10", "16.1", "1e300", "100"],
        [9, -3, i64::MIN, "-0.05", "-1.25", "-2.5", "0.005"]
    ]);
    let columns = "id BIGINT, k INT, x BIGINT, d DECIMAL(18,2), e DECIMAL(38,10), f DOUBLE, s VARCHAR";
    CaseRows::new("t", columns, &rows)
}

fn u() -> CaseRows {
    let rows = json!([
        ["16.1000", "16.1", 16],
        ["0.1000", "0.1", 0],
        ["2.5000", "2.5", 2],
        [null, null, null]
    ]);
    CaseRows::new("u", "p DECIMAL(10,4), q DOUBLE, n BIGINT", &rows)
}

/// The queries for PostgreSQL: the line itself, or the expression for each row.
fn questions(line: &str) -> Vec<String> {
    if line.starts_with("SELECT") {
        return vec![line.to_string()];
    }
    (1..=ROWS)
        .map(|id| format!("SELECT ({line}) AS a FROM t WHERE id = {id}"))
        .collect()
}

fn psql(sql: &str) -> String {
    let url = std::env::var("ALLUVIUM_POSTGRES").expect("scripts/services env says where PostgreSQL is");
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-P", "null=∅", "-F", ",", &url]);
    for part in sql.split(";\n") {
        command.args(["-c", part]);
    }
    let output = command.output().expect("psql runs");
    match output.status.success() {
        true => {
            let text = String::from_utf8(output.stdout).unwrap();
            let mut lines: Vec<String> = text.lines().map(|line| format!("({line})")).collect();
            lines.sort();
            lines.join(" ")
        }
        false => "error".to_string(),
    }
}

fn insert(rows: &CaseRows) -> String {
    let mut text = String::new();
    for row in &rows.rows {
        let cells = row.iter().map(|cell| match super::numbers::text(cell) {
            Some(text) => format!("'{text}'"),
            None => "null".to_string(),
        });
        let cells: Vec<String> = cells.collect();
        write!(text, ";\ninsert into {} values ({})", rows.name, cells.join(", ")).unwrap();
    }
    text
}

fn cells(rows: &str) -> Vec<Vec<String>> {
    let rows = rows.strip_prefix('(').and_then(|rows| rows.strip_suffix(')'));
    let rows = rows.map_or(vec![], |rows| rows.split(") (").collect());
    let plain = |text: &str| match text {
        "t" => "true".to_string(),
        "f" => "false".to_string(),
        "Infinity" => "inf".to_string(),
        "-Infinity" => "-inf".to_string(),
        "-0" => "0".to_string(),
        text if text.contains("e+") => text
            .parse::<f64>()
            .map_or(text.to_string(), |double| double.to_string()),
        text => text.to_string(),
    };
    let mut rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| row.split(',').map(plain).collect())
        .collect();
    rows.sort();
    rows
}

/// Whether a cell equals PostgreSQL's.
fn is(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (ours.to_string(), theirs.to_string());
    if ours == theirs {
        return true;
    }
    let (Ok(a), Ok(b)) = (ours.parse::<f64>(), theirs.parse::<f64>()) else {
        return false;
    };
    // The fractional digits that both may have: ours have no trailing zeros, and a scale of at least 16.
    let behind = |text: &str| text.split_once('.').map_or(0, |(_, behind)| behind.len());
    if behind(&ours) < 6 && behind(&theirs) < 6 {
        return a == b;
    }
    let (more, fewer) = match behind(&ours) > behind(&theirs) {
        true => (&ours, &theirs),
        false => (&theirs, &ours),
    };
    let digits = |text: &str, count: usize| {
        let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{behind:0<count$}").parse::<i128>().ok()
    };
    let count = behind(more);
    let unit = 10i128.checked_pow((count - behind(fewer)) as u32);
    match (digits(more, count), digits(fewer, count), unit) {
        (Some(more), Some(fewer), Some(unit)) => (more - fewer).abs() * 2 <= unit,
        _ => a == b,
    }
}

fn are(ours: &[Vec<String>], theirs: &str) -> bool {
    let theirs = cells(theirs);
    let same = |(a, b): (&Vec<String>, &Vec<String>)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is(a, b));
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same)
}

#[test]
fn numbers_are_postgresqls() {
    let file = checkout().join("src/render/tests/postgres.txt");
    let lines: Vec<&str> = EXPRESSIONS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        psql(&format!("{SCHEMA}{}{}", insert(&t()), insert(&u())));
        let answer = |sql: &String| {
            format!(
                "{sql} => {}\n",
                psql(&format!("set search_path = alluvium_numbers;\n{sql}"))
            )
        };
        let answers: Vec<String> = lines
            .iter()
            .flat_map(|line| questions(line))
            .map(|sql| answer(&sql))
            .collect();
        std::fs::write(&file, answers.concat()).unwrap();
    }
    let answers = std::fs::read_to_string(&file).unwrap();
    let mut answers = answers.lines();
    let (mut wrong, mut tried) = (vec![], 0);
    for line in lines {
        let sql = match line.starts_with("SELECT") {
            true => line.to_string(),
            false => format!("SELECT id, ({line}) AS a FROM t"),
        };
        let (ours, reasons) = answer(&[t(), u()], &sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        let ours = cells(&ours);
        for (n, question) in questions(line).into_iter().enumerate() {
            tried += 1;
            let (asked, theirs) = answers
                .next()
                .and_then(|line| line.split_once(" => "))
                .expect("an answer of PostgreSQL");
            assert_eq!(asked, question, "the answers are those of other expressions");
            let id = (n + 1).to_string();
            let own: Vec<Vec<String>> = match line.starts_with("SELECT") {
                true => ours.clone(),
                false => ours
                    .iter()
                    .filter(|row| row[0] == id)
                    .map(|row| row[1..].to_vec())
                    .collect(),
            };
            let right = match theirs {
                "error" => own.is_empty() && !reasons.is_empty(),
                // A DECIMAL cannot be NaN.
                "(NaN)" if line.contains("AS DECIMAL") => own.is_empty(),
                theirs => are(&own, theirs),
            };
            if !right {
                wrong.push(format!("{question}\n  is    {own:?} {reasons:?}\n  right {theirs}"));
            }
        }
    }
    assert!(tried > 1000, "there are expressions");
    assert!(
        wrong.is_empty(),
        "{} of {tried} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
