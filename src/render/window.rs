//! General window functions: a changed partition is read in its order, decoded, and evaluated as a whole.
//! Costs O(partition) per change; a partition that fails to evaluate becomes errors, row by row.

use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

use super::arrange::{Rows, Scan, scan};
use super::error::Errors;
use super::expr::{KernelError, relaxed};
use super::order::{Ordering, ordered, split};
use super::{Collections, tagged};
use crate::contain::contain;
use crate::plan::Window;
use crate::repr::{Row, RowCodec, RowRef};

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

fn logic(plan: &Window, input_schema: &SchemaRef, output_schema: &SchemaRef) -> Scan {
    let codec = RowCodec::new(relaxed(input_schema)).expect("a planned schema has a row encoding");
    let functions = plan.functions.clone();
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
        let batch = codec
            .decode(rows.iter().map(|row| row.bytes()))
            .expect("a row was encoded with the schema of its node");
        let evaluate = || -> Result<Vec<Row>, KernelError> {
            let mut columns = Vec::with_capacity(functions.len());
            for (function, data_type) in functions.iter().zip(&types) {
                columns.push(arrow::compute::cast(&function.evaluate(&batch)?, data_type)?);
            }
            Ok(added.encode_rows(&columns, batch.num_rows())?)
        };
        match contain(evaluate).unwrap_or_else(|panic| Err(KernelError::Panic(panic))) {
            Ok(columns) => output.extend(
                rows.iter()
                    .zip(columns)
                    .map(|(row, added)| (tagged::ok(&[row.bytes(), added.bytes()]), 1)),
            ),
            Err(error) => {
                let reason = error.reason();
                output.extend((0..rows.len()).map(|i| (tagged::err(errors.row(&reason, &batch, i).bytes()), 1)));
            }
        }
    })
}
