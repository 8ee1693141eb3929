//! UNNEST: one row for each element of list columns. Several lists are spread side by side, and the shorter ones
//! padded with nulls. As in DataFusion, with `preserve_nulls` a null list counts as one null; an empty list has no
//! elements.

use std::rc::Rc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::SchemaRef;

use super::columns::{BatchKernel, ColumnBatches, Computed, compute};
use super::expr::{KernelError, relaxed};
use crate::plan::Unnest;

/// Spreads lists over rows.
pub fn unnest<'s>(input: ColumnBatches<'s>, output_schema: &SchemaRef, plan: &Unnest, name: &str) -> Computed<'s> {
    compute(input, name, kernel(plan, output_schema))
}

fn kernel(plan: &Unnest, output_schema: &SchemaRef) -> BatchKernel {
    let (columns, preserve_nulls) = (plan.columns.clone(), plan.preserve_nulls);
    let schema = relaxed(output_schema);
    Box::new(move |rows, made| {
        let batch = &rows.batch;
        let lengths = longest(batch, &columns, preserve_nulls);
        let sources: UInt32Array = lengths
            .iter()
            .enumerate()
            .flat_map(|(row, length)| std::iter::repeat_n(row as u32, *length))
            .collect::<Vec<u32>>()
            .into();
        let spread = columns
            .iter()
            .zip(schema.fields())
            .map(|((column, spread), field)| -> Result<ArrayRef, KernelError> {
                let column = batch.column(*column);
                let taken = if *spread {
                    elements(column, &lengths)?
                } else {
                    take(column, &sources, None)?
                };
                Ok(cast(&taken, field.data_type())?)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if !sources.is_empty() {
            made.main.push(Rc::new(rows.repeat_rows(&schema, &spread, &sources)?));
        }
        Ok(())
    })
}

/// The number of output rows of each input row.
fn longest(batch: &RecordBatch, columns: &[(usize, bool)], preserve_nulls: bool) -> Vec<usize> {
    let mut lengths = vec![0; batch.num_rows()];
    for (column, _) in columns.iter().filter(|(_, spread)| *spread) {
        let list = batch.column(*column).as_list::<i32>();
        for (row, length) in lengths.iter_mut().enumerate() {
            let own = if list.is_null(row) {
                usize::from(preserve_nulls)
            } else {
                list.value_length(row) as usize
            };
            *length = (*length).max(own);
        }
    }
    lengths
}

/// The elements of each list, padded with nulls to `lengths`.
fn elements(column: &ArrayRef, lengths: &[usize]) -> Result<ArrayRef, KernelError> {
    let list = column.as_list::<i32>();
    let mut indices: Vec<Option<u32>> = Vec::with_capacity(lengths.iter().sum());
    for (row, length) in lengths.iter().enumerate() {
        let start = list.value_offsets()[row] as u32;
        let own = if list.is_null(row) {
            0
        } else {
            list.value_length(row) as usize
        };
        indices.extend((0..*length).map(|i| (i < own).then_some(start + i as u32)));
    }
    Ok(take(list.values(), &UInt32Array::from(indices), None)?)
}
