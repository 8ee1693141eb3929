//! Records as they are: columns take the whole value, the key, the place and the time, whatever the bytes mean.
//!
//! `value` and `key` are bytes (of a VARCHAR column their text), `headers` a JSON object and `headers.<name>` one of them,
//! `timestamp` is when the source wrote the record, `offset` where it is in its partition. A null value is a null in its column: without a format nobody knows what it deletes.

use arrow::array::{Array, BinaryArray};

use super::cell::{Cell, Datum, Kind, Meaning};
use super::changes::{Changes, Outcome, Shape};
use super::{Batch, Op, scan};

/// What the records come to; `offsets` are their places.
pub(super) fn decode(shape: &Shape, batch: &Batch<'_>, offsets: &[u64]) -> Outcome {
    let Batch {
        values,
        keys,
        headers,
        ts_ms,
    } = *batch;
    let mut changes = Changes::new(shape.targets.len(), values.len());
    let mut cells = vec![Cell::ABSENT; shape.targets.len()];
    for (record, offset) in offsets.iter().enumerate() {
        let bytes = |array: &BinaryArray| array.is_valid(record).then(|| array.value(record).len());
        let headers = headers.filter(|headers| headers.is_valid(record));
        let headers = headers.map(|headers| headers.value(record));
        let header = |wanted: &str| {
            let mut found = None;
            // What is no object has no header of this name.
            let _ = scan::object(headers?, |key, value| {
                if key.resolved().is_some_and(|key| key == wanted) {
                    found = Some(value);
                }
            });
            found
        };
        let field = |name: &str| match name {
            "headers" => Some(headers.map(|headers| Cell::new(Kind::Nested, headers))),
            "value" => Some(bytes(values).map(|_| Cell::of(Kind::Bytes, Datum::Bytes(values.value(record))))),
            "key" => Some(keys.and_then(|keys| {
                bytes(keys)?;
                Some(Cell::of(Kind::Bytes, Datum::Bytes(keys.value(record))))
            })),
            "timestamp" => Some(ts_ms.get(record).copied().flatten().map(|ms| Cell {
                meaning: Meaning::Millis,
                ..Cell::of(Kind::Number, Datum::Int(ms))
            })),
            "offset" => Some(Some(Cell::of(Kind::Number, Datum::Int(*offset as i64)))),
            name => name.strip_prefix("headers.").map(header),
        };
        for (cell, target) in cells.iter_mut().zip(&shape.targets) {
            *cell = match target.from.iter().find_map(|name| field(name)) {
                Some(Some(value)) => value,
                Some(None) => Cell::NULL,
                None => Cell::ABSENT,
            };
        }
        changes.push(record, Op::Upsert, &cells);
    }
    Outcome::new(changes.typed(shape, ""), batch.times(), Vec::new())
}
