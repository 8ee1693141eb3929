//! Decodes a batch that makes its decoder panic, so that only the offending record is refused.
//!
//! The batch is decoded in halves, and each half that panics in halves again, until the offending record is alone. It
//! is refused, and its neighbours are decoded as usual. The outcome for a record does not depend on its batch, so
//! that a replay from Bronze, which cuts batches elsewhere, refuses the same records.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::contain::contain;
use crate::decode::decoded::{Decoded, Raw, Reject};

/// Decodes records of a batch that made `decode` panic as a whole. `rows` is the schema of decoded rows. The caller
/// must fill `raw` in the result.
pub(super) fn decode_apart(raw: &Raw, rows: &SchemaRef, mut decode: impl FnMut(&Raw) -> Decoded) -> Decoded {
    let mut parts: Vec<(usize, Decoded)> = Vec::new();
    // A stack of the ranges that are still to be decoded; the first range is on top.
    let mut ranges = halves(0, raw.len());
    while let Some((start, length)) = ranges.pop() {
        let part = raw.part(|record| (start..start + length).contains(&record));
        match contain(|| decode(&part)) {
            Ok(decoded) => parts.push((start, decoded)),
            Err(_) if length > 1 => ranges.extend(halves(start, length)),
            Err(panic) => parts.push((start, refused(rows, &panic))),
        }
    }
    joined(rows, parts)
}

/// Splits a range in two, the first half last; a range of fewer than two records is returned as it is.
fn halves(start: usize, length: usize) -> Vec<(usize, usize)> {
    let half = length / 2;
    let mut halves = vec![(start + half, length - half), (start, half)];
    halves.retain(|(_, length)| *length > 0);
    halves
}

/// The result for a record that makes its decoder panic.
fn refused(rows: &SchemaRef, panic: &str) -> Decoded {
    Decoded {
        source_ms: vec![None],
        rejects: vec![Reject {
            record: Some(0),
            reason: format!(
                "the record stopped its decoder ({panic}); correct its producer, and report this fault of alluvium with the record"
            ),
        }],
        ..Decoded::none(rows.clone())
    }
}

/// Joins the results of parts of a batch, each given with the number of its first record.
fn joined(rows: &SchemaRef, parts: Vec<(usize, Decoded)>) -> Decoded {
    let mut whole = Decoded::none(rows.clone());
    let mut batches: Vec<RecordBatch> = Vec::new();
    for (start, part) in parts {
        let (first_record, first_row) = (start as u32, whole.ops.len() as u32);
        batches.push(part.rows);
        whole.ops.extend(part.ops);
        whole
            .record
            .extend(part.record.iter().map(|record| record + first_record));
        whole.source_ms.extend(part.source_ms);
        whole.rejects.extend(part.rejects.into_iter().map(|reject| Reject {
            record: reject.record.map(|record| record + first_record),
            ..reject
        }));
        let unchanged = part.unchanged.iter().map(|(row, column)| (row + first_row, *column));
        whole.unchanged.extend(unchanged);
        let mut transactions = part.transactions;
        transactions.iter_mut().for_each(|place| place.record += first_record);
        whole.transactions.extend(transactions);
        for (name, count) in part.ignored_fields {
            match whole.ignored_fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => whole.ignored_fields.push((name, count)),
            }
        }
    }
    whole.rows = concat_batches(rows, &batches).expect("parts of a batch have its schema");
    whole
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::decode::decoded::{ChangeOp, FilePlace, Payloads};

    /// A decoder that makes one row of each record, and panics at a record `x`.
    fn decode(raw: &Raw, schema: &SchemaRef) -> Decoded {
        let Payloads::Records { values, .. } = &raw.payloads else {
            panic!("records were given")
        };
        let texts: Vec<&str> = values
            .iter()
            .map(|value| std::str::from_utf8(value.unwrap()).unwrap())
            .collect();
        assert!(!texts.contains(&"x"), "poison at {:?}", raw.offsets);
        Decoded {
            rows: RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(texts.clone()))]).unwrap(),
            ops: vec![ChangeOp::Upsert; texts.len()],
            record: (0..texts.len() as u32).collect(),
            source_ms: vec![Some(1); texts.len()],
            ignored_fields: vec![("other".to_string(), texts.len() as u64)],
            unchanged: vec![(0, 0)],
            ..Decoded::none(schema.clone())
        }
    }

    #[test]
    fn a_record_that_makes_its_decoder_panic_is_refused_alone() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
        let records = ["a", "b", "x", "d", "e", "f", "x"];
        let raw = Raw {
            payloads: Payloads::Records {
                values: BinaryArray::from_iter_values(records),
                keys: None,
                headers: None,
                ts_ms: Vec::new(),
            },
            offsets: (0..7).map(|n| n * 10).collect(),
            header: None,
            cut: Vec::new(),
            place: FilePlace::default(),
        };
        let decoded = decode_apart(&raw, &schema, |raw| decode(raw, &schema));
        let rows: Vec<Option<&str>> = decoded
            .rows
            .column(0)
            .as_any()
            .downcast_ref::<StringArray>()
            .unwrap()
            .iter()
            .collect();
        assert_eq!(rows, ["a", "b", "d", "e", "f"].map(Some));
        assert_eq!(decoded.record, [0, 1, 3, 4, 5]);
        assert_eq!(decoded.source_ms[2], None);
        assert_eq!(decoded.ignored_fields, [("other".to_string(), 5)]);
        let refused: Vec<(Option<u32>, &str)> = decoded.rejects.iter().map(|r| (r.record, r.reason.as_str())).collect();
        assert_eq!(refused.len(), 2);
        assert_eq!((refused[0].0, refused[1].0), (Some(2), Some(6)));
        assert!(refused[0].1.contains("poison at [20]"), "{refused:?}");
        // For the first row of each part, a value that the source left out.
        assert_eq!(decoded.unchanged, [(0, 0), (1, 0), (2, 0), (4, 0)]);
    }
}
