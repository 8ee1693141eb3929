//! Runs a dataflow's own tests: given these input rows, expect these table rows.
//!
//! Each test is a real run over a temporary lake; each input's feeds are replaced by a folder with the test's files.
//! For each step, its files are dropped into the folder, the run catches up, and the tables are compared with the
//! expected rows: as multisets of the columns that the expectation names, with doubles to nine significant digits.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use thiserror::Error;

use crate::definition::{
    Bounds, Case, CaseInput, Dataflow, ExpectedTable, Feed, FeedKind, FileFeed, FileRules, Format, Wire,
};
use crate::repr::ValueTexts;
use crate::run::{self, Options, RunError};
use crate::serve::{LakeReader, QueryError};

/// The outcome of one step of a test.
#[derive(Debug)]
pub struct CaseOutcome {
    /// The test and its step: `cancellations`, `cancellations/2`.
    pub name: String,
    /// The tables that differ, each with the rows that are missing or unexpected.
    pub differences: Vec<(String, Vec<RowMismatch>)>,
    /// Dead letters that the step produced, each with its source and reason.
    pub refused: Vec<String>,
}

/// A row that differs from the expectation.
#[derive(Debug, PartialEq, Eq)]
pub enum RowMismatch {
    /// The row is expected, but the table lacks it.
    Missing(String),
    /// The table has the row, but it is not expected.
    Unexpected(String),
}

impl fmt::Display for RowMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowMismatch::Missing(row) => write!(f, "- {row}"),
            RowMismatch::Unexpected(row) => write!(f, "+ {row}"),
        }
    }
}

/// Why a test could not be run.
#[derive(Debug, Error)]
pub enum CaseError {
    /// A file of the test cannot be used.
    #[error("could not use {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The expected rows cannot be read.
    #[error(
        "could not read {path:?} as rows of {table}: its header must name columns of the table, its values fit them"
    )]
    Expectation {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// The run failed.
    #[error("test {name}: the run failed")]
    Run {
        /// Which test.
        name: String,
        /// Why.
        #[source]
        source: Box<RunError>,
    },
    /// The tables could not be read.
    #[error("test {name}: the tables could not be read")]
    Query {
        /// Which test.
        name: String,
        /// Why.
        #[source]
        source: QueryError,
    },
}

/// Runs the steps of one test, one after another.
pub fn run_case(dataflow: &Dataflow, case: &Case, workers: usize) -> Result<Vec<CaseOutcome>, CaseError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CaseError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(at(Path::new("a temporary folder")))?;
    let trial = Arc::new(case_dataflow(dataflow, folder.path(), case));
    let mut outcomes = Vec::new();
    let mut names = BTreeMap::new();
    let mut letters_before = BTreeMap::new();
    for step in &case.steps {
        for (n, given) in step.inputs.iter().enumerate() {
            let drops = folder.path().join(&given.input).join(ending(given));
            std::fs::create_dir_all(&drops).map_err(at(&drops))?;
            let target = drops.join(format!("{:06}-{n:03}.{}", step.number, ending(given)));
            names.insert(target.clone(), given.path.display().to_string());
            std::fs::copy(&given.path, &target).map_err(at(&given.path))?;
        }
        let name = if case.steps.len() == 1 {
            case.name.clone()
        } else {
            format!("{}/{}", case.name, step.number)
        };
        let options = Options {
            workers,
            until_caught_up: true,
            ..Options::default()
        };
        run::run(trial.clone(), &options).map_err(|e| CaseError::Run {
            name: name.clone(),
            source: Box::new(e),
        })?;
        let mut differences = Vec::new();
        for expected in &step.expect {
            let mismatches = compare(&trial, expected, &name)?;
            if !mismatches.is_empty() {
                differences.push((format!("{}.{}", expected.layer.name(), expected.table), mismatches));
            }
        }
        let failed = |source| CaseError::Query {
            name: name.clone(),
            source,
        };
        let letters = letters(&trial).map_err(failed)?;
        let refused = letters.iter().flat_map(|(letter, count)| {
            let new = count - letters_before.get(letter).unwrap_or(&0);
            std::iter::repeat_n(renamed(letter, &names), usize::try_from(new).unwrap_or(0))
        });
        let refused = refused.collect();
        letters_before = letters;
        outcomes.push(CaseOutcome {
            name,
            differences,
            refused,
        });
    }
    Ok(outcomes)
}

/// The dead letters with their multiplicities: a record's source file and reason, or a row's table and reason.
fn letters(dataflow: &Dataflow) -> Result<BTreeMap<(String, String, String), i64>, QueryError> {
    let reader = LakeReader::open(dataflow, None)?;
    let (_, batches) = reader.query(
        "SELECT arrow_cast(COALESCE(table_name, input, ''), 'Utf8'), \
         arrow_cast(COALESCE(input || '/' || feed || '/' || \"partition\", ''), 'Utf8'), arrow_cast(COALESCE(reason, ''), 'Utf8') \
         FROM dead_letters",
    )?;
    let mut letters = BTreeMap::new();
    for batch in &batches {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        for row in 0..batch.num_rows() {
            *letters.entry((text(0, row), text(1, row), text(2, row))).or_default() += 1;
        }
    }
    Ok(letters)
}

/// A dead letter as text for people, with file names replaced by the names in the test's folder.
fn renamed((source, file, reason): &(String, String, String), names: &BTreeMap<PathBuf, String>) -> String {
    let mut reason = reason.clone();
    let mut source = source.clone();
    for (target, name) in names {
        reason = reason.replace(&*target.to_string_lossy(), name);
        if !file.is_empty() && target.ends_with(file) {
            source.clone_from(name);
        }
    }
    format!("{source}: {}", without_feed_advice(&reason))
}

/// A reason without advice that a test cannot follow: its files are read without the settings of a feed, and its lake is
/// gone when it ends.
fn without_feed_advice(reason: &str) -> String {
    const SET: &str = "set `";
    const FOR_ONE: &str = "; a setting holds for all files of the feed";
    const REPLAY: &str = "; then `alluvium dead-letters --replay`";
    let end = [FOR_ONE, REPLAY].iter().filter_map(|advice| reason.find(*advice)).min();
    let mut rest = &reason[..end.unwrap_or(reason.len())];
    let mut kept = String::new();
    let mut sets = false;
    while let Some((before, setting)) = rest.split_once(SET) {
        let Some((_, behind)) = setting.split_once('`') else {
            break;
        };
        kept += before;
        kept += "mend the test's file";
        sets = true;
        rest = behind;
    }
    kept += rest;
    if sets {
        kept += "; it is read without a feed's settings: as UTF-8, separated by commas, with a header of names";
    }
    kept
}

/// The dataflow with a lake of its own, in which only the test's files feed each input.
fn case_dataflow(dataflow: &Dataflow, folder: &Path, case: &Case) -> Dataflow {
    let mut trial = dataflow.clone();
    trial.lake = folder.join("lake").display().to_string();
    trial.store_options.clear();
    trial.durable = false;
    trial.epoch = std::time::Duration::from_millis(1);
    trial.commit = std::time::Duration::from_millis(1);
    for input in &mut trial.inputs {
        let envelopes = input.feeds.iter().any(|feed| feed.format.carries_changes())
            && case
                .steps
                .iter()
                .flat_map(|s| &s.inputs)
                .any(|g| g.input == input.name && holds_envelopes(g));
        let columns: Vec<_> = input
            .columns
            .iter()
            .enumerate()
            .map(|(n, column)| {
                let mut column = column.clone();
                let of_feeds = input.feeds.iter().flat_map(|feed| feed.columns[n].from.clone());
                column.from = std::iter::once(column.name.clone()).chain(of_feeds).collect();
                column
            })
            .collect();
        let feed = |name: &str, format| Feed {
            name: name.to_string(),
            kind: FeedKind::Files(FileFeed {
                path: folder
                    .join(&input.name)
                    .join(name)
                    .join(format!("*.{name}"))
                    .display()
                    .to_string(),
                rules: FileRules {
                    may_be_empty: true,
                    ..FileRules::default()
                },
            }),
            format,
            wire: Wire::default(),
            columns: columns.clone(),
            max_record: Bounds::default().max_record,
        };
        let json = if envelopes {
            Format::DebeziumJson
        } else {
            Format::Ndjson
        };
        input.feeds = vec![feed("csv", Format::Csv), feed("ndjson", json)];
    }
    trial
}

fn ending(given: &CaseInput) -> &'static str {
    match given.format {
        Format::Csv => "csv",
        _ => "ndjson",
    }
}

/// Whether a file of JSON lines has Debezium envelopes, judged by its first object, which then has an `op`.
fn holds_envelopes(given: &CaseInput) -> bool {
    let text = std::fs::read_to_string(&given.path).unwrap_or_default();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(first)
        .is_ok_and(|v| v.get("op").is_some() || v.pointer("/payload/op").is_some())
}

fn compare(dataflow: &Dataflow, expected: &ExpectedTable, name: &str) -> Result<Vec<RowMismatch>, CaseError> {
    let failed = |source| CaseError::Query {
        name: name.to_string(),
        source,
    };
    let table = format!("{}.{}", expected.layer.name(), expected.table);
    let (schema, found) = LakeReader::open(dataflow, None)
        .and_then(|reader| reader.rows(&table))
        .map_err(failed)?;
    let wanted = read_expectation(expected, &schema).map_err(|source| CaseError::Expectation {
        path: expected.path.clone(),
        table: table.clone(),
        source,
    })?;
    let columns: Vec<String> = wanted.schema().fields().iter().map(|f| f.name().clone()).collect();
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in shown(&wanted) {
        *counts.entry(row).or_default() += 1;
    }
    for batch in &found {
        let positions: Vec<usize> = columns
            .iter()
            .map(|c| schema.index_of(c).expect("the header was checked"))
            .collect();
        for row in shown(&batch.project(&positions).expect("positions come from the schema")) {
            *counts.entry(row).or_default() -= 1;
        }
    }
    let mismatch = |(row, n): (String, i64)| {
        std::iter::repeat_n(row, n.unsigned_abs() as usize).map(move |row| {
            if n > 0 {
                RowMismatch::Missing(row)
            } else {
                RowMismatch::Unexpected(row)
            }
        })
    };
    Ok(counts.into_iter().flat_map(mismatch).collect())
}

/// The expected rows, in the table's types.
fn read_expectation(expected: &ExpectedTable, schema: &Schema) -> Result<RecordBatch, ArrowError> {
    let open = || File::open(&expected.path).map_err(|e| ArrowError::IoError(e.to_string(), e));
    let (header, _) = CsvFormat::default().with_header(true).infer_schema(open()?, Some(0))?;
    let fields: Vec<Field> = header
        .fields()
        .iter()
        .map(|f| {
            schema
                .field_with_name(f.name().trim())
                .map(|f| f.clone().with_nullable(true))
        })
        .collect::<Result<_, _>>()?;
    let texts: Vec<Field> = fields
        .iter()
        .map(|f| f.clone().with_data_type(DataType::Utf8))
        .collect();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(texts.clone())))
        .with_header(true)
        .build(open()?)?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
    let text = arrow::compute::concat_batches(&Arc::new(Schema::new(texts)), &batches)?;
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns = text
        .columns()
        .iter()
        .zip(&fields)
        .map(|(column, field)| cast_with_options(column, field.data_type(), &strict))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The rows as text, for comparison and for display.
fn shown(batch: &RecordBatch) -> Vec<String> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| match column.as_any().downcast_ref::<Float64Array>() {
            Some(doubles) => Arc::new(doubles.unary::<_, arrow::datatypes::Float64Type>(nine_digits)) as ArrayRef,
            None => column.clone(),
        })
        .collect();
    let texts: Vec<ValueTexts<'_>> = columns
        .iter()
        .map(|column| ValueTexts::new(column.as_ref()).expect("every type of a table can be shown"))
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            texts
                .iter()
                .zip(&columns)
                .map(|(texts, column)| match column.is_null(row) {
                    true => "null".to_string(),
                    false => texts.text(row),
                })
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect()
}

fn nine_digits(x: f64) -> f64 {
    format!("{x:.8e}").parse().expect("a printed number reads back")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test's file with semicolons was told to set its feed's `delimiter`, and to replay its dead letter.
    #[test]
    fn the_reasons_of_a_test_advise_nothing_that_only_a_feed_can_do() {
        let reason = "the header has no \"id\": it looks semicolon-separated: set `delimiter = \";\"`; a setting holds for all \
                      files of the feed: repair the file; then `alluvium dead-letters --replay` reads it";
        assert_eq!(
            without_feed_advice(reason),
            "the header has no \"id\": it looks semicolon-separated: mend the test's file; it is read without a feed's \
             settings: as UTF-8, separated by commas, with a header of names"
        );
        let other = "column \"n\": \"x\" is not a BIGINT; correct the record";
        assert_eq!(without_feed_advice(other), other);
    }
}
