//! A second oracle: DataFusion's own planner answers the SQL as written, over the lake's copies of the inputs.
//! `verify` shares the rewriting and optimising of plans with the run; this shares nothing.

use alluvium::definition::Dataflow;
use alluvium::serve::LakeReader;
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Float64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::sql::Query;
use crate::support::chain;

/// Compares these tables with their queries, at the newest snapshot. `copies` is the prefix that makes an input's name
/// that of its copy. Returns how many could be compared: DataFusion cannot run everything that it plans.
pub fn assert_as_written<'a>(
    dataflow: &Dataflow,
    copies: &str,
    tables: impl IntoIterator<Item = (&'a String, &'a Query)>,
) -> usize {
    let reader = LakeReader::open(dataflow, None).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let mut compared = 0;
    for (table, query) in tables {
        let sql = query.over(copies);
        let (schema, rows) = reader.rows(table).unwrap_or_else(|e| panic!("{table}: {}", chain(&e)));
        let (_, wanted) = match reader.query(&sql) {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("not answered as written: {sql}\n  {}", chain(&error));
                continue;
            }
        };
        let (found, wanted) = (lines(&schema, &rows), lines(&schema, &wanted));
        let only = |a: &[String], b: &[String]| {
            let mut rest = b.to_vec();
            let mut only = a.to_vec();
            only.retain(|line| match rest.iter().position(|other| other == line) {
                Some(at) => {
                    rest.swap_remove(at);
                    false
                }
                None => true,
            });
            only.truncate(5);
            only
        };
        assert!(
            found == wanted,
            "{table} of {} is not what DataFusion answers to its SQL:\n{sql}\nonly in the table: {:#?}\nonly in the answer: {:#?}",
            dataflow.lake,
            only(&found, &wanted),
            only(&wanted, &found),
        );
        compared += 1;
    }
    compared
}

/// Rows as sorted text, in the table's types, with doubles to nine digits.
fn lines(schema: &Schema, batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = vec![];
    for batch in batches {
        let columns: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| {
                let column = cast(column, field.data_type()).expect("the answer is of the table's types");
                match column.as_primitive_opt::<Float64Type>() {
                    Some(doubles) => {
                        let nine = |x: f64| format!("{x:.8e}").parse().expect("a printed number reads back");
                        let doubles: Float64Array = doubles.unary(nine);
                        std::sync::Arc::new(doubles) as ArrayRef
                    }
                    None => column,
                }
            })
            .collect();
        let options = FormatOptions::default().with_null("null");
        let formatters: Vec<ArrayFormatter<'_>> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("every type can be shown"))
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = formatters.iter().map(|f| f.value(row).to_string()).collect();
            lines.push(cells.join(" | "));
        }
    }
    lines.sort();
    lines
}
