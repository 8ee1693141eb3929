//! General window functions: a partition that changes is read in its order, decoded, and evaluated as a whole, so a
//! change costs O(partition).
//!
//! 1. A row for which an argument of a function fails becomes an error, and the rest of its partition is computed as
//!    if that row had not been there, as in front of an aggregate.
//! 2. A row for which a gathered value (`array_agg`, `string_agg`) is too large becomes an error; other rows do not.
//! 3. If a function itself fails for a partition, every row of the partition becomes an error.

use std::collections::HashSet;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::WindowExpr;
use std::sync::Arc;

use super::arrange::{KeyScan, scan};
use super::error::Errors;
use super::expr::{KernelError, bisect, evaluated, relaxed};
use super::order::{Ordering, ordered, split};
use super::{Collections, tagged};
use crate::contain::contain;
use crate::plan::{self, Expr, Window};
use crate::repr::{Row, RowCodec, RowRef, Rows, rows_bytes};

/// The maximal size in bytes of a partition with its functions' values: the 32-bit offsets of an Arrow column end at 2
/// GiB.
const MOST_OF_PARTITION: u64 = 1 << 30;

/// Appends the functions' columns to every row.
pub fn window<'s>(
    input: Collections<'s>,
    input_schema: &SchemaRef,
    output_schema: &SchemaRef,
    plan: &Window,
    name: &str,
) -> Collections<'s> {
    let by = Ordering {
        partition: &plan.partition,
        order: &plan.order,
        ranked: plan.order.len(),
    };
    let (arranged, errs) = ordered(input.oks, input_schema, by, name);
    let scanned: Rows<'s> = scan(arranged, name, logic(plan, input_schema, output_schema));
    let (oks, failed) = tagged::split(scanned);
    Collections {
        oks,
        errs: input.errs.concat(errs).concat(failed),
    }
}

/// Refuses a partition of more than [`MOST_OF_PARTITION`] bytes.
fn check_size(bytes: u64, rows: usize) -> Result<(), String> {
    if bytes <= MOST_OF_PARTITION {
        return Ok(());
    }
    Err(format!(
        "could not compute a window function over a partition of {rows} rows: it may take {}, more than {}; partition by \
         more columns, or gather shorter values",
        plan::shown_bytes(bytes),
        plan::shown_bytes(MOST_OF_PARTITION)
    ))
}

/// Refuses a partition whose gathered values would be too large together: each row may have all values of the
/// partition up to it, or from it on.
fn check_gathered(function: &Arc<dyn WindowExpr>, batch: &RecordBatch) -> Result<(), KernelError> {
    let frame = function.get_window_frame();
    let is_bounded = !frame.start_bound.is_unbounded() && !frame.end_bound.is_unbounded();
    let Some(gathered) = function.expressions().into_iter().next().filter(|_| !is_bounded) else {
        return Ok(());
    };
    let rows = batch.num_rows();
    let bytes = rows_bytes(&[evaluated(&gathered, batch)?], 0..rows);
    check_size(bytes.saturating_mul(rows as u64), rows).map_err(|reason| DataFusionError::Execution(reason).into())
}

fn logic(plan: &Window, input_schema: &SchemaRef, output_schema: &SchemaRef) -> KeyScan {
    let codec = RowCodec::new(relaxed(input_schema)).expect("a planned schema has a row encoding");
    let (functions, most) = (plan.functions.clone(), plan.most.clone());
    let added: Vec<_> = output_schema.fields()[input_schema.fields().len()..].to_vec();
    let types: Vec<_> = added.iter().map(|f| f.data_type().clone()).collect();
    let added = RowCodec::new(Arc::new(Schema::new(added))).expect("a planned schema has a row encoding");
    let errors = Errors::default();
    Box::new(move |_key, values, output| {
        let rows: Vec<RowRef<'_>> = values
            .flat_map(|(value, count)| std::iter::repeat_n(RowRef::new(split(value.bytes()).row), count as usize))
            .collect();
        if rows.is_empty() {
            return;
        }
        if let Err(reason) = check_size(rows.iter().map(|row| row.bytes().len() as u64).sum(), rows.len()) {
            output.extend(rows.iter().map(|row| {
                let error = errors.encoded(&reason, &codec, row.bytes());
                (tagged::err(error.bytes()), 1)
            }));
            return;
        }
        let whole = codec
            .decode(rows.iter().map(|row| row.bytes()))
            .expect("a row was encoded with the schema of its node");
        let evaluate = |batch: &RecordBatch| {
            contain(|| outcome(batch, &functions, &most, &types, &added))
                .unwrap_or_else(|panic| Err(KernelError::Panic(panic)))
        };
        // The rows that are computed, by (1).
        let mut remaining: Vec<usize> = (0..rows.len()).collect();
        let mut made = evaluate(&whole);
        if made.is_err() {
            let failing = failing_rows(&whole, &functions);
            if !failing.is_empty() {
                output.extend(failing.iter().map(|(row, error)| {
                    let error = errors.row(&error.reason(), &whole, *row);
                    (tagged::err(error.bytes()), 1)
                }));
                let failed: HashSet<usize> = failing.into_iter().map(|(row, _)| row).collect();
                remaining.retain(|row| !failed.contains(row));
                if remaining.is_empty() {
                    return;
                }
                let rest: UInt32Array = remaining.iter().map(|row| Some(*row as u32)).collect();
                made = take_record_batch(&whole, &rest)
                    .map_err(KernelError::from)
                    .and_then(|rest| evaluate(&rest));
            }
        }
        match made {
            Ok(made) => output.extend(remaining.iter().zip(made).map(|(row, added)| match added {
                Ok(added) => (tagged::ok(&[rows[*row].bytes(), added.bytes()]), 1),
                Err(reason) => (tagged::err(errors.row(&reason, &whole, *row).bytes()), 1),
            })),
            Err(error) => {
                let reason = error.reason();
                let all = remaining.iter().map(|row| errors.row(&reason, &whole, *row));
                output.extend(all.map(|error| (tagged::err(error.bytes()), 1)));
            }
        }
    })
}

/// The rows for which an argument of a function fails, with the error.
fn failing_rows(batch: &RecordBatch, functions: &[Arc<dyn WindowExpr>]) -> Vec<(usize, KernelError)> {
    let arguments: Vec<Expr> = functions.iter().flat_map(|function| function.expressions()).collect();
    let mut failing = vec![];
    let mut run = |part: &RecordBatch, _: usize| {
        arguments
            .iter()
            .try_for_each(|argument| evaluated(argument, part).map(drop))
    };
    bisect(batch, 0, &mut run, &mut failing);
    failing
}

/// The functions' columns for each row of a partition, encoded, or the reason why a row has none, by (2).
fn outcome(
    batch: &RecordBatch,
    functions: &[Arc<dyn WindowExpr>],
    most: &[Option<u64>],
    types: &[DataType],
    added: &RowCodec,
) -> Result<Vec<Result<Row, String>>, KernelError> {
    let mut columns = Vec::with_capacity(functions.len());
    for ((function, most), data_type) in functions.iter().zip(most).zip(types) {
        if most.is_some() {
            check_gathered(function, batch)?;
        }
        columns.push(arrow::compute::cast(&function.evaluate(batch)?, data_type)?);
    }
    let rows = added.encode_rows(&columns, batch.num_rows())?;
    let rows = rows.into_iter().enumerate().map(|(row, made)| {
        let bounded = columns.iter().zip(functions).zip(most);
        for ((column, function), most) in bounded {
            if let Some(most) = most
                && let Some(bytes) = plan::value_above(&column.slice(row, 1), *most)
            {
                let name = function.name().split('(').next().unwrap_or_default();
                return Err(plan::too_long(name, bytes, *most));
            }
        }
        Ok(made)
    });
    Ok(rows.collect())
}
