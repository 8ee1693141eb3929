//! The meaning of numbers, computed by the graph: cases with the results of PostgreSQL.
//!
//! The public cases are outside of the checkout (`../shared/cases/sql.json`); without them, that test prints a note
//! and checks nothing.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use super::{Answer, WAYS, dataflow, run};
use crate::definition::{Column, Expectation, Input, Layer, OnViolation};
use crate::plan::compile;
use crate::render::expr::relaxed;
use crate::render::{Counters, error};
use crate::repr::{Diff, Row, RowCodec, SqlType, Update, normalise_schema};
use crate::testing::{Prerequisite, checkout, skip};

/// An input: its name, its columns as SQL declares them, and its rows.
pub(super) struct CaseRows {
    pub name: String,
    columns: Vec<(String, SqlType)>,
    pub rows: Vec<Vec<Value>>,
}

impl CaseRows {
    pub fn new(name: &str, columns: &str, rows: &Value) -> CaseRows {
        let mut declared: Vec<String> = vec![];
        for part in columns.split(',') {
            match declared.last_mut() {
                Some(last) if last.matches('(').count() > last.matches(')').count() => *last += &format!(",{part}"),
                _ => declared.push(part.trim().to_string()),
            }
        }
        let column = |declared: &String| {
            let (name, of) = declared.trim().split_once(' ').unwrap();
            let of = of.trim_end_matches("NOT NULL").trim();
            (
                name.to_string(),
                of.parse().unwrap_or_else(|e| panic!("{declared}: {e}")),
            )
        };
        let rows = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_array().unwrap().clone());
        CaseRows {
            name: name.to_string(),
            columns: declared.iter().map(column).collect(),
            rows: rows.collect(),
        }
    }

    fn input(&self) -> Input {
        Input {
            name: self.name.clone(),
            description: None,
            columns: self
                .columns
                .iter()
                .map(|(name, of)| Column {
                    name: name.clone(),
                    sql_type: of.clone(),
                    nullable: true,
                    from: vec![name.clone()],
                    format: vec![],
                    null: vec![],
                })
                .collect(),
            key: vec![],
            order_by: vec![],
            dedup_key: vec![],
            bronze: true,
            retention: None,
            evolved: vec![],
            feeds: vec![],
            file: PathBuf::from(format!("inputs/{}.toml", self.name)),
        }
    }

    fn encoded(&self) -> Vec<Row> {
        let schema = normalise_schema(&self.input().schema());
        let columns = self.columns.iter().enumerate().map(|(n, (_, of))| {
            let texts: Vec<Option<String>> = self.rows.iter().map(|row| text(&row[n])).collect();
            match of {
                SqlType::Double => {
                    let doubles = texts
                        .iter()
                        .map(|text| text.as_ref().map(|text| text.parse::<f64>().unwrap()));
                    Arc::new(Float64Array::from_iter(doubles)) as ArrayRef
                }
                of => cast(&(Arc::new(StringArray::from(texts)) as ArrayRef), &of.arrow()).unwrap(),
            }
        });
        let columns: Vec<ArrayRef> = columns.collect();
        RowCodec::new(schema)
            .unwrap()
            .encode_rows(&columns, self.rows.len())
            .unwrap()
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The rows of a table in the format of the cases, and the reasons of dead letters; or the message of a refusal.
pub(super) fn answer(inputs: &[CaseRows], sql: &str) -> Result<(String, Vec<String>), String> {
    answer_expecting(inputs, sql, &[])
}

/// Like [`answer`], for a table with expectations that drop the rows that violate these checks.
fn answer_expecting(inputs: &[CaseRows], sql: &str, checks: &[&str]) -> Result<(String, Vec<String>), String> {
    let (batch, reasons) = batch_answer(inputs, sql, checks)?;
    let mut lines = lines(&batch);
    lines.sort();
    Ok(match lines.is_empty() {
        true => ("none".to_string(), reasons),
        false => (lines.join(" "), reasons),
    })
}

/// The rows themselves. Checks that they are the same when all input rows are added at once, and when rows are added
/// one by one, each also removed and added again.
pub(super) fn batch_answer(
    inputs: &[CaseRows],
    sql: &str,
    checks: &[&str],
) -> Result<(RecordBatch, Vec<String>), String> {
    let mut definition = dataflow(inputs.iter().map(CaseRows::input).collect(), 1);
    definition.tables[0].layer = Layer::Gold;
    definition.tables[0].sql = sql.to_string();
    definition.tables[0].expectations = checks
        .iter()
        .map(|check| Expectation {
            name: check.to_string(),
            check: check.to_string(),
            on_violation: OnViolation::Drop,
        })
        .collect();
    let graph = Arc::new(compile(&definition).map_err(|refusal| refusal.to_string())?);
    let schema = graph.tables[0].schema.clone();
    // All rows are added at one time; then, in another run, each is added, removed and added again.
    let whole: Vec<Vec<Vec<(Row, Diff)>>> = inputs
        .iter()
        .map(|rows| vec![rows.encoded().into_iter().map(|row| (row, 1)).collect()])
        .collect();
    let stepwise: Vec<Vec<Vec<(Row, Diff)>>> = whole
        .iter()
        .map(|times| {
            let one =
                |(row, _): &(Row, Diff)| [vec![(row.clone(), 1)], vec![(row.clone(), -1)], vec![(row.clone(), 1)]];
            times[0].iter().flat_map(one).collect()
        })
        .collect();
    let mut answers = vec![];
    for (history, way) in [(whole, WAYS[1]), (stepwise, WAYS[0])] {
        let end = history.iter().map(Vec::len).max().unwrap_or(0) as u64 + 1;
        let answer = run(&graph, &Arc::new(history), end, way, &Arc::new(Counters::default()));
        answers.push(rows_and_reasons(&schema, &answer));
    }
    assert_eq!(answers[0], answers[1], "at once, and row by row: {sql}");
    Ok(answers.remove(0))
}

fn rows_and_reasons(schema: &SchemaRef, answer: &Answer) -> (RecordBatch, Vec<String>) {
    let rows = counted(&answer.oks[0]);
    let codec = RowCodec::new(relaxed(schema)).unwrap();
    let batch = codec.decode(rows.iter().map(|row| row.bytes())).unwrap();
    let errors = counted(&answer.errs[0]);
    let codec = error::error_codec();
    let mut reasons: Vec<String> = errors
        .iter()
        .map(|row| error::read_error(&codec, row).unwrap().0)
        .collect();
    reasons.sort();
    (batch, reasons)
}

fn counted(updates: &[Update]) -> Vec<&Row> {
    let mut rows: std::collections::BTreeMap<&Row, i64> = Default::default();
    for (row, _, diff) in updates {
        *rows.entry(row).or_default() += diff;
    }
    let many = rows.into_iter().filter(|(_, count)| *count != 0);
    many.flat_map(|(row, count)| std::iter::repeat_n(row, usize::try_from(count).unwrap()))
        .collect()
}

/// Rows in the format of the cases: numbers have no trailing zeros.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new();
    let cell = |column: &ArrayRef, row: usize| {
        if column.is_null(row) {
            return "∅".to_string();
        }
        match column.data_type() {
            DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
            DataType::Decimal128(_, scale) => {
                let text = ArrayFormatter::try_new(column, &options)
                    .unwrap()
                    .value(row)
                    .to_string();
                match scale {
                    0 => text,
                    _ => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                }
            }
            _ => ArrayFormatter::try_new(column, &options)
                .unwrap()
                .value(row)
                .to_string(),
        }
    };
    let row = |row: usize| {
        let cells: Vec<String> = batch.columns().iter().map(|column| cell(column, row)).collect();
        format!("({})", cells.join(","))
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Regression: a literal was read as a double, which was cut off at 15 digits, so `price >= 16.60` dropped a price of
/// 16.60.
#[test]
fn an_expectation_compares_decimals_by_value() {
    let rows = serde_json::json!([
        [1, "16.60", 16.6],
        [2, "4.14", 4.14],
        [3, "99999999.99", 1e20],
        [4, null, null]
    ]);
    let t = || CaseRows::new("t", "id BIGINT, price DECIMAL(10,2), x DOUBLE", &rows);
    for (checks, right) in [
        (&["price >= 16.60"][..], "(1) (3) (4)"),
        (&["price NOT IN (4.14, 99999999.99)"], "(1) (4)"),
        (&["x <> 16.6"], "(2) (3) (4)"),
        (&["price * 1.5 < 1e3", "x > price - 0.005"], "(1) (2) (4)"),
        (&["CAST(price AS BIGINT) = 17"], "(1) (4)"),
    ] {
        let (kept, _) = answer_expecting(&[t()], "SELECT id, price, x FROM t", checks).unwrap();
        let ids: Vec<String> = kept
            .split(' ')
            .map(|row| format!("{})", row.split(',').next().unwrap()))
            .collect();
        assert_eq!(ids.join(" "), right, "{checks:?}");
    }
}

/// A common type of the two columns would need 48 digits, and a DECIMAL has at most 38.
#[test]
fn decimals_that_meet_beyond_38_digits_are_compared_by_value() {
    let nines = "9".repeat(38);
    let rows = serde_json::json!([
        [1, nines, "9999999999999999999999999999.9999999999"],
        [2, "1", "1"],
        [3, format!("-{nines}"), "-9999999999999999999999999999.9999999999"],
        [4, null, "0.0000000001"],
        [5, "0", null]
    ]);
    let t = || CaseRows::new("t", "id BIGINT, d DECIMAL(38,0), e DECIMAL(38,10)", &rows);
    for (sql, right) in [
        ("SELECT id FROM t WHERE d = e", "(2)"),
        ("SELECT id FROM t WHERE d > e", "(1)"),
        ("SELECT a.id FROM t a JOIN t b ON a.d = b.e", "(2)"),
        (
            "SELECT id FROM t WHERE d NOT IN (SELECT e FROM t WHERE e IS NOT NULL)",
            "(1) (3) (5)",
        ),
        (
            "SELECT id FROM t WHERE d IN (1, 0.5, 99999999999999999999999999999999999999)",
            "(1) (2)",
        ),
        ("SELECT id FROM t WHERE e < 0.00000000015 AND e > -1", "(4)"),
    ] {
        assert_eq!(answer(&[t()], sql).unwrap(), (right.to_string(), vec![]), "{sql}");
    }
    // A result column has 38 digits, and the greater of the two scales; a value that does not fit is an error.
    let (rows, reasons) = answer(&[t()], "SELECT id, CASE WHEN id < 3 THEN d ELSE e END AS v FROM t").unwrap();
    assert_eq!(
        rows,
        "(2,1) (3,-9999999999999999999999999999.9999999999) (4,0.0000000001) (5,∅)"
    );
    assert_eq!(reasons.len(), 1, "{reasons:?}");
}

#[test]
fn the_public_cases_of_numbers_are_right() {
    let file = checkout().join("../shared/cases/sql.json");
    let Ok(cases) = std::fs::read_to_string(&file) else {
        skip(Prerequisite::Data, &format!("there are no cases at {}", file.display()));
        return;
    };
    let mut wrong = vec![];
    let mut tried = 0;
    for line in cases.lines() {
        let Ok(case) = serde_json::from_str::<Value>(line.trim().trim_end_matches(',')) else {
            continue;
        };
        let name = case["name"].as_str().unwrap();
        if !name.starts_with('n') || OTHERWISE.iter().any(|(other, _)| *other == name) {
            continue;
        }
        tried += 1;
        let inputs = case["inputs"].as_object().unwrap().iter();
        let inputs: Vec<CaseRows> = inputs
            .map(|(name, input)| CaseRows::new(name, input["columns"].as_str().unwrap(), &input["rows"]))
            .collect();
        let sql = case["sql"].as_str().unwrap();
        let right = case["right"].as_str().unwrap();
        match answer(&inputs, sql) {
            Ok((rows, _)) if rows == right => {}
            Err(_) if case["may_refuse"] == true => {}
            Ok((rows, reasons)) => wrong.push(format!("{name}: {sql}\n  is    {rows} {reasons:?}\n  right {right}")),
            Err(refusal) => wrong.push(format!("{name}: {sql}\n  is    {refusal}\n  right {right}")),
        }
    }
    assert!(tried > 30, "there are cases of numbers in {}", file.display());
    assert!(
        wrong.is_empty(),
        "{} of {tried} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Cases whose result differs here, each with the reason.
const OTHERWISE: [(&str, &str); 3] = [
    (
        "n23_sum",
        "its NaN is a name of a group, and 1e-39 is read otherwise by this test",
    ),
    (
        "n25_add",
        "the sum has 39 digits at the scale of its type, which is that of nx17_eplus: an error of its rows",
    ),
    (
        "nx17_sumexpr",
        "a row that fails is a dead letter, and the sum is that of the others, as everywhere",
    ),
];
