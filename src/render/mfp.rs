//! Filters rows, then projects them, either encoded or as columns.
//!
//! If no reader needs columns, rows stay encoded: those that only pass a filter keep their bytes, and a choice of
//! columns is cut out of the bytes.

use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use std::rc::Rc;

use super::Collections;
use super::columns::{BatchKernel, ColumnBatches, Computed, compute};
use super::expr::{RowKernel, apply, columns, each, passing, plain_columns, relaxed};
use crate::plan::Mfp;
use crate::repr::{Row, RowCodec, Splice};

/// Encoded rows that pass the predicates, projected.
pub fn mfp<'s>(
    input: Collections<'s>,
    input_schema: &SchemaRef,
    output_schema: &SchemaRef,
    plan: &Mfp,
    name: &str,
) -> Collections<'s> {
    if plan.predicates.is_empty() && plan.projection.is_none() {
        return input;
    }
    if let (true, Some(splice)) = (plan.predicates.is_empty(), spliced(plan, input_schema, output_schema)) {
        let (oks, _none) = each(input.oks, name, move |row| Ok(splice.cut(row)));
        return Collections { oks, errs: input.errs };
    }
    let applied = apply(input.oks, input_schema, name, kernel(plan, input_schema, output_schema));
    Collections {
        oks: applied.main,
        errs: input.errs.concat(applied.errs),
    }
}

/// Like [`mfp`], over columns.
pub fn mfp_columns<'s>(input: ColumnBatches<'s>, output_schema: &SchemaRef, plan: &Mfp, name: &str) -> Computed<'s> {
    let (predicates, projection) = (plan.predicates.clone(), plan.projection.clone());
    let (types, schema) = (types(output_schema), relaxed(output_schema));
    let kernel: BatchKernel = Box::new(move |batch, made| {
        let passed = match predicates.is_empty() {
            true => batch.slice(0, batch.diffs.len()),
            false => batch.filter(&passing(&predicates, &batch.batch)?)?,
        };
        if passed.diffs.is_empty() {
            return Ok(());
        }
        let projected = match &projection {
            None => passed,
            Some(exprs) => passed.with_columns(&schema, &columns(exprs, &types, &passed.batch)?)?,
        };
        made.main.push(Rc::new(projected));
        Ok(())
    });
    compute(input, name, kernel)
}

/// Whether rows need not be decoded for this plan.
pub fn cuts(plan: &Mfp, input_schema: &SchemaRef, output_schema: &SchemaRef) -> bool {
    plan.predicates.is_empty() && (plan.projection.is_none() || spliced(plan, input_schema, output_schema).is_some())
}

/// The positions of the columns that a projection takes, if it consists of plain columns.
pub fn projected_columns(plan: &Mfp, input_schema: &SchemaRef, output_schema: &SchemaRef) -> Option<Vec<usize>> {
    plain_columns(plan.projection.as_ref()?, &types(output_schema), input_schema)
}

/// A projection by bytes, if it consists of plain columns whose types can all be cut out.
pub fn spliced(plan: &Mfp, input_schema: &SchemaRef, output_schema: &SchemaRef) -> Option<Splice> {
    let columns = projected_columns(plan, input_schema, output_schema)?;
    let columns: Vec<_> = columns.into_iter().map(|column| (0, column)).collect();
    Splice::new(&[types(input_schema)], &columns)
}

fn types(schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().map(|field| field.data_type().clone()).collect()
}

/// Filters and projects decoded rows, and outputs encoded ones.
pub fn kernel(plan: &Mfp, input_schema: &SchemaRef, output_schema: &SchemaRef) -> RowKernel<Row> {
    let predicates = plan.predicates.clone();
    let projection = plan.projection.clone();
    let types = types(output_schema);
    let splice = spliced(plan, input_schema, output_schema);
    let codec = RowCodec::new(output_schema.clone()).expect("a planned schema has a row encoding");
    Box::new(move |batch, updates, outputs| {
        let mask = passing(&predicates, batch)?;
        let kept_updates = updates
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| mask.value(*i))
            .map(|(_, u)| u);
        match (&projection, &splice) {
            // A row that only passes a filter keeps its bytes.
            (None, _) => outputs
                .main
                .extend(kept_updates.map(|(row, time, diff)| (std::mem::take(row), *time, *diff))),
            (_, Some(splice)) => outputs
                .main
                .extend(kept_updates.map(|(row, time, diff)| (splice.cut(std::mem::take(row)), *time, *diff))),
            (Some(exprs), None) => {
                let count = mask.true_count();
                if count == 0 {
                    return Ok(());
                }
                let filtered;
                let passed = if count == mask.len() {
                    batch
                } else {
                    filtered = filter_record_batch(batch, &mask)?;
                    &filtered
                };
                let rows = codec.encode_rows(&columns(exprs, &types, passed)?, count)?;
                outputs.main.extend(
                    rows.into_iter()
                        .zip(kept_updates)
                        .map(|(row, (_, time, diff))| (row, *time, *diff)),
                );
            }
        }
        Ok(())
    })
}
