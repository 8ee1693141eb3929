//! Arranges rows in an order: each value begins with the order's columns, encoded as bytes that compare like the
//! order.
//!
//! A value is `ranked ++ rest ++ row ++ u32 length(ranked ++ rest) ++ u32 length(ranked)`. `ranked` encodes the
//! columns of the order that determine the rank, so rows that tie are equal in it, and `rest` encodes the other
//! columns. The encodings are prefix-free, so comparing values compares the order first.

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows as Encoded, SortField};

use super::arrange::{ByKey, arrange_by_key};
use super::expr::{KernelError, RowKernel, apply, codec_of, columns, types_of};
use crate::plan::{Expr, SortKey};
use crate::repr::{Row, Rows};

/// A value of the arrangement in its parts.
#[derive(Clone, Copy)]
pub struct Ordered<'a> {
    /// The encoded columns that determine the rank; equal for rows that tie.
    pub ranked: &'a [u8],
    /// The encoded row.
    pub row: &'a [u8],
}

/// Splits a value into its parts.
#[inline]
pub fn split(value: &[u8]) -> Ordered<'_> {
    let (value, ranked) = value
        .split_last_chunk::<4>()
        .expect("an ordered value ends with two lengths");
    let (value, order) = value
        .split_last_chunk::<4>()
        .expect("an ordered value ends with two lengths");
    Ordered {
        ranked: &value[..u32::from_le_bytes(*ranked) as usize],
        row: &value[u32::from_le_bytes(*order) as usize..],
    }
}

/// How rows are partitioned and ordered.
pub struct Ordering<'a> {
    /// The expressions of the partition; nulls are equal to each other.
    pub partition: &'a [Expr],
    /// The order within a partition.
    pub order: &'a [SortKey],
    /// How many columns of the order determine the rank.
    pub ranked: usize,
}

/// Arranges rows by partition, in their order. Also returns the error rows.
pub fn ordered<'s>(input: Rows<'s>, schema: &SchemaRef, by: Ordering<'_>, name: &str) -> (ByKey<'s>, Rows<'s>) {
    let applied = apply(input, schema, &format!("order {name}"), kernel(schema, by));
    (arrange_by_key(applied.main, &format!("arrange {name}")), applied.errs)
}

fn kernel(schema: &SchemaRef, by: Ordering<'_>) -> RowKernel<(Row, Row)> {
    let partition = by.partition.to_vec();
    let types = types_of(&partition, schema);
    let codec = codec_of(&types);
    let (ranking, completing) = by.order.split_at(by.ranked.min(by.order.len()));
    let ranked = OrderPart::new(ranking, schema);
    let rest = OrderPart::new(completing, schema);
    let mut bytes: Vec<u8> = Vec::new();
    Box::new(move |batch, updates, outputs| {
        let keys = codec.encode_rows(&columns(&partition, &types, batch)?, batch.num_rows())?;
        let (ranked, rest) = (ranked.encode(batch)?, rest.encode(batch)?);
        for (index, (key, (row, time, diff))) in keys.into_iter().zip(updates).enumerate() {
            bytes.clear();
            if let Some(ranked) = &ranked {
                bytes.extend_from_slice(ranked.row(index).as_ref());
            }
            let ranked_length = bytes.len() as u32;
            if let Some(rest) = &rest {
                bytes.extend_from_slice(rest.row(index).as_ref());
            }
            let order_length = bytes.len() as u32;
            bytes.extend_from_slice(row.bytes());
            bytes.extend_from_slice(&order_length.to_le_bytes());
            bytes.extend_from_slice(&ranked_length.to_le_bytes());
            outputs.main.push(((key, Row::new(&bytes)), *time, *diff));
        }
        Ok(())
    })
}

/// Encodes some columns of an order.
struct OrderPart {
    exprs: Vec<Expr>,
    types: Vec<DataType>,
    converter: RowConverter,
}

impl OrderPart {
    fn new(keys: &[SortKey], schema: &SchemaRef) -> Self {
        let exprs: Vec<Expr> = keys.iter().map(|k| k.expr.clone()).collect();
        let types = types_of(&exprs, schema);
        let fields = keys
            .iter()
            .zip(&types)
            .map(|(k, t)| {
                let options = SortOptions {
                    descending: k.descending,
                    nulls_first: k.nulls_first,
                };
                SortField::new_with_options(t.clone(), options)
            })
            .collect();
        OrderPart {
            exprs,
            types,
            converter: RowConverter::new(fields).expect("a planned order has a row encoding"),
        }
    }

    /// `None` if there are no columns.
    fn encode(&self, batch: &RecordBatch) -> Result<Option<Encoded>, KernelError> {
        if self.exprs.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.converter.convert_columns(&columns(
            &self.exprs,
            &self.types,
            batch,
        )?)?))
    }
}
