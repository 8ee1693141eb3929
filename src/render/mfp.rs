//! Filter, then project.

use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use super::Collections;
use super::expr::{Kernel, apply, columns, passing};
use crate::plan::Mfp;
use crate::repr::{Row, RowCodec};

/// Rows that pass the predicates, projected.
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
    let applied = apply(input.oks, input_schema, name, kernel(plan, output_schema));
    Collections {
        oks: applied.main,
        errs: input.errs.concat(applied.errs),
    }
}

fn kernel(plan: &Mfp, output_schema: &SchemaRef) -> Kernel<Row> {
    let predicates = plan.predicates.clone();
    let projection = plan.projection.clone();
    let types: Vec<_> = output_schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let codec = RowCodec::new(output_schema.clone()).expect("a planned schema has a row encoding");
    Box::new(move |batch, updates, outputs| {
        let mask = passing(&predicates, batch)?;
        let kept = updates
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| mask.value(*i))
            .map(|(_, u)| u);
        match &projection {
            // A row that only passes a filter keeps its bytes.
            None => outputs
                .main
                .extend(kept.map(|(row, time, diff)| (std::mem::take(row), *time, *diff))),
            Some(exprs) => {
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
                        .zip(kept)
                        .map(|(row, (_, time, diff))| (row, *time, *diff)),
                );
            }
        }
        Ok(())
    })
}
