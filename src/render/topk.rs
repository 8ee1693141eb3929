//! The first rows of each partition in an order: LIMIT, ROW_NUMBER, RANK, DENSE_RANK.
//!
//! The arrangement keeps a partition's rows in their order, so the first `offset + limit` of them are read from its
//! front. A change to a partition of n rows costs a seek (log n) and the size of the result, whether the changed row
//! is among the first or not. There is no state besides the arrangement.

use arrow::datatypes::SchemaRef;

use super::Collections;
use super::arrange::{KeyScan, scan};
use super::order::{Ordering, ordered, split};
use crate::plan::{Rank, TopK};
use crate::repr::{Diff, Row};

/// Keeps the first rows of each partition.
pub fn topk<'s>(input: Collections<'s>, schema: &SchemaRef, plan: &TopK, name: &str) -> Collections<'s> {
    let by = Ordering {
        partition: &plan.partition,
        order: &plan.order,
        ranked: plan.ranked,
    };
    let (arranged, errs) = ordered(input.oks, schema, by, name);
    Collections {
        oks: scan(arranged, name, logic(plan)),
        errs: input.errs.concat(errs),
    }
}

fn logic(plan: &TopK) -> KeyScan {
    let first = plan.offset as u64 + 1;
    let last = plan
        .limit
        .map_or(u64::MAX, |limit| (plan.offset as u64).saturating_add(limit as u64));
    let (kind, output_rank) = (plan.rank, plan.output_rank);
    Box::new(move |_key, values, output| {
        if last < first {
            return;
        }
        let mut before: u64 = 0; // number of rows in front of the current value
        let mut rank: u64 = 0; // RANK or DENSE_RANK of the current tie
        let mut tie: Option<&[u8]> = None;
        for (value, count) in values {
            let parts = split(value.bytes());
            if tie != Some(parts.ranked) {
                tie = Some(parts.ranked);
                rank = match kind {
                    Rank::DenseRank => rank + 1,
                    Rank::Rank | Rank::RowNumber => before + 1,
                };
            }
            match kind {
                Rank::RowNumber => {
                    let from = (before + 1).max(first);
                    let to = (before + count as u64).min(last);
                    if output_rank {
                        output.extend((from..=to).map(|number| (with_rank(parts.row, number), 1)));
                    } else if from <= to {
                        output.push((Row::new(parts.row), (to - from + 1) as Diff));
                    }
                    if before + count as u64 >= last {
                        return;
                    }
                }
                Rank::Rank | Rank::DenseRank => {
                    if rank > last {
                        return;
                    }
                    if rank >= first {
                        let row = if output_rank {
                            with_rank(parts.row, rank)
                        } else {
                            Row::new(parts.row)
                        };
                        output.push((row, count));
                    }
                }
            }
            before += count as u64;
        }
    })
}

/// `row ++ encode(rank)`. arrow-row encodes a UInt64 as a byte 1 and eight big-endian bytes.
fn with_rank(row: &[u8], rank: u64) -> Row {
    let mut encoded = [1u8; 9];
    encoded[1..].copy_from_slice(&rank.to_be_bytes());
    Row::concat(row, &encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::expr::codec_of;
    use arrow::array::UInt64Array;
    use arrow::datatypes::DataType;
    use std::sync::Arc;

    #[test]
    fn a_rank_is_encoded_as_the_codec_encodes_it() {
        let codec = codec_of(&[DataType::UInt64]);
        let rows = codec
            .encode_rows(&[Arc::new(UInt64Array::from(vec![1, 77_000_000_000]))], 2)
            .unwrap();
        assert_eq!(rows[0], with_rank(&[], 1));
        assert_eq!(rows[1], with_rank(&[], 77_000_000_000));
    }
}
