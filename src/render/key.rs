//! Rows by the values of key expressions: the first half of a join, a check of keys, a partition.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;

use super::arrange::{ByKey, Rows, arrange_by_key};
use super::expr::{Kernel, apply, codec_of, columns, types_of};
use crate::plan::Expr;
use crate::repr::Row;

/// Rows arranged by a key.
#[derive(Clone)]
pub struct Keyed<'s> {
    /// Key to row.
    pub arranged: ByKey<'s>,
    /// Rows whose key holds a null, where nulls were asked to stand aside.
    pub nulls: Rows<'s>,
    /// Rows whose key does not evaluate.
    pub errs: Rows<'s>,
}

/// Arranges rows by key expressions. With `nulls_apart`, rows with a null in their key are kept out.
pub fn keyed<'s>(input: Rows<'s>, schema: &SchemaRef, keys: &[Expr], nulls_apart: bool, name: &str) -> Keyed<'s> {
    let applied = apply(input, schema, &format!("key {name}"), kernel(schema, keys, nulls_apart));
    Keyed {
        arranged: arrange_by_key(applied.main, &format!("arrange {name}")),
        nulls: applied.rest,
        errs: applied.errs,
    }
}

fn kernel(schema: &SchemaRef, keys: &[Expr], nulls_apart: bool) -> Kernel<(Row, Row)> {
    let keys = keys.to_vec();
    let types = types_of(&keys, schema);
    let codec = codec_of(&types);
    Box::new(move |batch, updates, outputs| {
        let columns = columns(&keys, &types, batch)?;
        let rows = codec.encode_rows(&columns, batch.num_rows())?;
        let with_nulls: Vec<_> = columns
            .iter()
            .filter(|c| nulls_apart && c.logical_null_count() > 0)
            .filter_map(|c| c.logical_nulls())
            .collect();
        for (index, (key, (row, time, diff))) in rows.into_iter().zip(updates).enumerate() {
            let row = std::mem::take(row);
            if with_nulls.iter().any(|nulls| nulls.is_null(index)) {
                outputs.rest.push((row, *time, *diff));
            } else {
                outputs.main.push(((key, row), *time, *diff));
            }
        }
        Ok(())
    })
}
