//! Undecoded records: columns take the whole value, the key, the position and the time, whatever the bytes mean.
//!
//! `value` and `key` are the bytes (in a VARCHAR column, their text), `headers` is a JSON object and `headers.<name>`
//! one of its values, `timestamp` is when the source wrote the record, and `offset` is its position in the partition.
//! A null value is a null in its column, because without a format it is unknown what it would delete.

use arrow::array::{Array, BinaryArray};

use crate::decode::batch::Batch;
use crate::decode::cell::{Cell, CellKind, Datum, Meaning};
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::decoded::ChangeOp;
use crate::decode::scan;

/// Decodes a batch; `offsets` are the records' positions.
pub(in crate::decode) fn decode(shape: &InputShape, batch: &Batch<'_>, offsets: &[u64]) -> DecodedBatch {
    let Batch {
        values,
        keys,
        headers,
        ts_ms,
    } = *batch;
    let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
    let mut cells = vec![Cell::ABSENT; shape.targets.len()];
    for (record, offset) in offsets.iter().enumerate() {
        let bytes = |array: &BinaryArray| array.is_valid(record).then(|| array.value(record).len());
        let headers = headers.filter(|headers| headers.is_valid(record));
        let headers = headers.map(|headers| headers.value(record));
        let header = |wanted: &str| {
            let mut found = None;
            // Headers that are no JSON object have no header with this name.
            let _ = scan::object(headers?, |key, value| {
                if key.resolved().is_some_and(|key| key == wanted) {
                    found = Some(value);
                }
            });
            found
        };
        let field = |name: &str| match name {
            "headers" => Some(headers.map(|headers| Cell::new(CellKind::Nested, headers))),
            "value" => {
                Some(bytes(values).map(|_| Cell::with_datum(CellKind::Bytes, Datum::Bytes(values.value(record)))))
            }
            "key" => Some(keys.and_then(|keys| {
                bytes(keys)?;
                Some(Cell::with_datum(CellKind::Bytes, Datum::Bytes(keys.value(record))))
            })),
            "timestamp" => Some(ts_ms.get(record).copied().flatten().map(|ms| Cell {
                meaning: Meaning::Millis,
                ..Cell::with_datum(CellKind::Number, Datum::Int(ms))
            })),
            "offset" => Some(Some(Cell::with_datum(CellKind::Number, Datum::Int(*offset as i64)))),
            name => name.strip_prefix("headers.").map(header),
        };
        for (cell, target) in cells.iter_mut().zip(&shape.targets) {
            *cell = match target.from.iter().find_map(|name| field(name)) {
                Some(Some(value)) => value,
                Some(None) => Cell::NULL,
                None => Cell::ABSENT,
            };
        }
        changes.push(record, ChangeOp::Upsert, &cells);
    }
    DecodedBatch::new(changes.typed(shape, ""), batch.times(), Vec::new())
}
