//! What numbers mean, run by the graph: cases with the answers of PostgreSQL.
//!
//! The public cases lie beside the checkout (`../shared/cases/sql.json`); without them that test says so and checks nothing.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use super::{Answer, WAYS, dataflow, run};
use crate::definition::{Column, Input, Layer};
use crate::plan::compile;
use crate::render::expr::relaxed;
use crate::render::{Counters, error};
use crate::repr::{Diff, Row, RowCodec, SqlType, Update, normalise_schema};
use crate::testing::checkout;

/// An input: its name, its columns as SQL declares them, and its rows.
pub(super) struct Rows {
    pub name: String,
    columns: Vec<(String, SqlType)>,
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    pub fn new(name: &str, columns: &str, rows: &Value) -> Rows {
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
        Rows {
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

/// The rows of a table, as the cases write them, and why others are dead letters; or the refusal.
pub(super) fn answer(inputs: &[Rows], sql: &str) -> Result<(String, Vec<String>), String> {
    let mut definition = dataflow(inputs.iter().map(Rows::input).collect(), 1);
    definition.tables[0].layer = Layer::Gold;
    definition.tables[0].sql = sql.to_string();
    let graph = Arc::new(compile(&definition).map_err(|refusal| refusal.to_string())?);
    let schema = graph.tables[0].schema.clone();
    // All rows at once, and then one at each time, a row taken out and put back between them.
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
        answers.push(told(&schema, &answer));
    }
    assert_eq!(answers[0], answers[1], "at once, and row by row: {sql}");
    Ok(answers.remove(0))
}

fn told(schema: &SchemaRef, answer: &Answer) -> (String, Vec<String>) {
    let rows = counted(&answer.oks[0]);
    let codec = RowCodec::new(relaxed(schema)).unwrap();
    let batch = codec.decode(rows.iter().map(|row| row.bytes())).unwrap();
    let mut lines = lines(&batch);
    lines.sort();
    let errors = counted(&answer.errs[0]);
    let codec = error::error_codec();
    let mut reasons: Vec<String> = errors
        .iter()
        .map(|row| error::read_error(&codec, row).unwrap().0)
        .collect();
    reasons.sort();
    let lines = match lines.is_empty() {
        true => "none".to_string(),
        false => lines.join(" "),
    };
    (lines, reasons)
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

/// Rows as the cases write them: numbers without zeros at their end.
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

#[test]
fn the_public_cases_of_numbers_are_right() {
    let file = checkout().join("../shared/cases/sql.json");
    let Ok(cases) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: there are no cases at {}", file.display());
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
        let inputs: Vec<Rows> = inputs
            .map(|(name, input)| Rows::new(name, input["columns"].as_str().unwrap(), &input["rows"]))
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

/// Cases that have another answer here.
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
