//! Compares scalar functions with PostgreSQL: evaluates each expression of `functions.txt` over rows with extreme
//! values, for which PostgreSQL's own results or errors are known.
//!
//! The results are in `functions.jsonl`. `ALLUVIUM_GOLDEN=1 cargo test --lib functions_are_postgresqls` regenerates
//! them with `psql` from the PostgreSQL of `scripts/services` (`eval "$(scripts/services env)"`). An expression behind
//! `check: ` is one that `check` refuses, whatever PostgreSQL returns.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value, json};

use super::numbers::{CaseRows, batch_answer};
use crate::testing::checkout;

const EXPRESSIONS: &str = include_str!("functions.txt");

/// Marks expressions that `check` refuses, whatever PostgreSQL returns.
const REFUSED: &str = "check: ";

const SCHEMA: &str = "\
    drop schema if exists alluvium_functions cascade; create schema alluvium_functions; set search_path = alluvium_functions;
    create table t(id bigint, s text, k int, n bigint, f double precision, d numeric(18,4), b boolean);
    create function answer(q text) returns json language plpgsql as $$
    declare r text; begin execute q into r; return to_json(r); exception when others then return json_build_object('error', sqlerrm); end $$;
    ";

fn t() -> CaseRows {
    let rows = json!([
        [1, "", 0, 0, 0.0, "0", true],
        [2, "a", 1, 1, 1.5, "1.5", false],
        [3, "Hello World", 2, -1, -1.5, "-2.5", true],
        [
            4,
            "\u{e4}\u{f6}\u{fc} \u{2713}\u{df}",
            -1,
            i64::MAX,
            "NaN",
            "1234.5678",
            null
        ],
        [5, " a  b ", 3, i64::MIN, "Infinity", "-0.0001", false],
        [6, "a,b,,c", -3, 10, "-Infinity", "99999999999999.9999", true],
        [7, "%_\\", 100, -10, 1e300, "0.5", true],
        [8, null, null, null, null, null, null],
        [9, "aXbXc", i32::MAX, 255, 0.1, "10", false],
        [10, "10", i32::MIN, -255, -0.5, "2.25", true],
        [11, "\u{65e5}\u{672c}\u{8a9e}\u{1f600}", 5, 7, 1e-5, "-7.7777", true],
        [12, "x\ny", -2, 12, 123456789.125, "3", false],
        [13, "true", 10, 1000000, 2.5, "100", true],
        [14, " -7 ", 4, 6, 1e15, "-99.99", false],
        [15, "aaa'bbb\"c", 7, -4, -1e-320, "0.0005", true]
    ]);
    let columns = "id BIGINT, s VARCHAR, k INT, n BIGINT, f DOUBLE, d DECIMAL(18,4), b BOOLEAN";
    CaseRows::new("t", columns, &rows)
}

/// PostgreSQL's results for each expression, row by row.
fn ask(expressions: &[&str]) -> String {
    let url = std::env::var("ALLUVIUM_POSTGRES").expect("scripts/services env says where PostgreSQL is");
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut sql = SCHEMA.to_string();
    for row in &t().rows {
        let cells = row.iter().map(|cell| match super::numbers::text(cell) {
            Some(text) => quoted(&text),
            None => "null".to_string(),
        });
        let cells: Vec<String> = cells.collect();
        sql.push_str(&format!("insert into t values ({});\n", cells.join(", ")));
    }
    for expression in expressions {
        let query = format!("SELECT ({expression})::text FROM t WHERE id = ");
        sql.push_str(&format!(
            "select json_build_object('sql', {0}, 'rows', json_agg(answer({1} || id) order by id)) from t;\n",
            quoted(expression),
            quoted(&query)
        ));
    }
    let mut psql = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let mut stdin = psql.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || stdin.write_all(sql.as_bytes()).unwrap());
    let output = psql.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "psql fails");
    String::from_utf8(output.stdout).unwrap()
}

/// A value as PostgreSQL formats it.
fn shown(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    let text = || {
        let options = FormatOptions::new();
        ArrayFormatter::try_new(column, &options)
            .unwrap()
            .value(row)
            .to_string()
    };
    Some(match column.data_type() {
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let item = |n: usize| match (shown(&items, n), items.data_type()) {
                (None, _) => "NULL".to_string(),
                (Some(text), DataType::Utf8) => quoted_item(&text),
                (Some(text), _) => text,
            };
            format!("{{{}}}", (0..items.len()).map(item).collect::<Vec<_>>().join(","))
        }
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row);
            bytes
                .iter()
                .fold("\\x".to_string(), |text, byte| format!("{text}{byte:02x}"))
        }
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => format!("{:?}", column.as_primitive::<Float32Type>().value(row)),
        _ => text(),
    })
}

/// A text as an element of an array, quoted where PostgreSQL quotes it.
fn quoted_item(text: &str) -> String {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    if text.is_empty() || text.contains(special) || text.eq_ignore_ascii_case("null") {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_string()
    }
}

/// Whether a value equals PostgreSQL's: doubles may differ in the last digit, and decimals are compared in the digits
/// that both have.
fn is(ours: &str, theirs: &str, of: &DataType) -> bool {
    if ours == theirs {
        return true;
    }
    let near = |most: f64| match (ours.parse::<f64>(), theirs.parse::<f64>()) {
        (Ok(a), Ok(b)) => a == b || (a.is_nan() && b.is_nan()) || ((a - b) / b).abs() < most,
        _ => false,
    };
    match of {
        DataType::Float32 => {
            matches!((ours.parse::<f32>(), theirs.parse::<f32>()), (Ok(a), Ok(b)) if a == b)
                || ours == "NaN" && theirs == "NaN"
        }
        DataType::Float64 | DataType::Int64 => near(1e-15),
        DataType::Decimal128(..) => near(1e-14),
        _ => false,
    }
}

#[test]
fn functions_are_postgresqls() {
    let file = checkout().join("src/render/tests/functions.jsonl");
    let lines: Vec<&str> = EXPRESSIONS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let asked: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !line.starts_with(REFUSED))
        .collect();
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        std::fs::write(&file, ask(&asked)).unwrap();
    }
    let answers = std::fs::read_to_string(&file).unwrap();
    let mut answers = answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (mut wrong, mut tried) = (vec![], 0);
    let rows = [t()];
    for line in lines {
        if let Some(refused) = line.strip_prefix(REFUSED) {
            if let Ok((batch, _)) = batch_answer(&rows, &format!("SELECT id, ({refused}) AS a FROM t"), &[]) {
                wrong.push(format!(
                    "{refused}\n  is not refused, and has {} rows",
                    batch.num_rows()
                ));
            }
            continue;
        }
        let answer = answers.next().expect("an answer of PostgreSQL");
        assert_eq!(answer["sql"], line, "the answers are those of other expressions");
        let (batch, reasons) = match batch_answer(&rows, &format!("SELECT id, ({line}) AS a FROM t"), &[]) {
            Ok(answer) => answer,
            Err(refusal) => {
                wrong.push(format!("{line}\n  is refused: {refusal}"));
                continue;
            }
        };
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let ours: BTreeMap<i64, Option<String>> = (0..batch.num_rows())
            .map(|row| (ids.value(row), shown(batch.column(1), row)))
            .collect();
        let of = batch.column(1).data_type();
        let mut differ = vec![];
        for (n, theirs) in answer["rows"].as_array().unwrap().iter().enumerate() {
            tried += 1;
            let own = ours.get(&(n as i64 + 1));
            let right = match (own, theirs) {
                (None, Value::Object(_)) | (Some(None), Value::Null) => true,
                (Some(Some(own)), Value::String(theirs)) => is(own, theirs, of),
                // A DECIMAL cannot be NaN.
                (None, Value::String(theirs)) => theirs == "NaN" && matches!(of, DataType::Decimal128(..)),
                _ => false,
            };
            if !right {
                differ.push(format!("    row {}: is {own:?}, right {theirs}", n + 1));
            }
        }
        if !differ.is_empty() {
            wrong.push(format!("{line}\n{}\n    {:?}", differ.join("\n"), reasons.first()));
        }
    }
    assert!(tried > 1000, "there are expressions");
    assert!(
        wrong.is_empty(),
        "{} of {tried} answers are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Regression: all rows of a partition became dead letters when an argument failed for one of them.
#[test]
fn a_row_over_which_a_windows_argument_fails_is_the_only_dead_letter_of_its_partition() {
    for sql in [
        "SELECT id, sum(100 / k) OVER (ORDER BY id) AS a FROM t WHERE id <= 4",
        "SELECT id, max(100 / k) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND CURRENT ROW) AS a FROM t WHERE id <= 4",
    ] {
        let (batch, reasons) = batch_answer(&[t()], sql, &[]).unwrap();
        let ids: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(ids, [2, 3, 4], "{sql}");
        assert_eq!(reasons.len(), 1, "{sql}: {reasons:?}");
    }
}

/// Regression: with `SELECT ... WHERE n > 10` over a subquery that casts only texts that match a pattern, every other
/// row became a dead letter.
#[test]
fn rows_that_a_condition_excludes_are_no_dead_letters() {
    for (sql, rows) in [
        (
            "SELECT id FROM (SELECT id, CAST(s AS BIGINT) AS n FROM t WHERE s ~ '^[0-9]+$') AS q WHERE n > 5",
            1,
        ),
        ("SELECT id FROM t WHERE 100 / k > 3 AND k <> 0", 7),
        ("SELECT id FROM t WHERE k <> 0 AND 100 / k > 3", 7),
        ("SELECT id FROM t WHERE k = 0 OR 100 / k > 3", 8),
        (
            "SELECT b, sum(100 / k) FILTER (WHERE k <> 0) AS a, avg(100 / k) FILTER (WHERE k <> 0) AS c FROM t GROUP BY b",
            3,
        ),
        (
            "SELECT id, sum(100 / k) FILTER (WHERE k <> 0) OVER (ORDER BY id) AS a FROM t",
            15,
        ),
        (
            "SELECT id, CASE WHEN k <> 0 THEN 100 / k END AS a, CASE WHEN k <> 0 THEN 100 / k + 1 END AS c FROM t",
            15,
        ),
    ] {
        let (batch, reasons) = batch_answer(&[t()], sql, &[]).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        assert_eq!(reasons, Vec::<String>::new(), "{sql}");
        assert_eq!(batch.num_rows(), rows, "{sql}");
    }
}

/// Regression: an integer within a struct, such as a rank, ended the run.
#[test]
fn a_rank_within_a_struct_is_kept() {
    let sql = "SELECT id, named_struct('r', row_number() OVER (ORDER BY id)) AS a FROM t";
    let (batch, reasons) = batch_answer(&[t()], sql, &[]).unwrap();
    assert_eq!((batch.num_rows(), reasons.len()), (15, 0));
}
