//! Records as they are: columns take the whole value, the key, the place and the time, whatever the bytes mean.
//!
//! `value` and `key` are bytes (of a VARCHAR column their text), `timestamp` is when the source wrote the record, `offset`
//! where it is in its partition. A null value is a null in its column: without a format nobody knows what it deletes.

use arrow::array::{Array, BinaryArray};

use super::Op;
use super::cell::{Cell, Datum, Kind, Meaning};
use super::changes::{Changes, Shape, Typed};
use super::json::missing;

/// The changes that the records make.
pub(super) fn decode(
    shape: &Shape,
    values: &BinaryArray,
    keys: Option<&BinaryArray>,
    ts_ms: &[Option<i64>],
    offsets: &[u64],
) -> Typed {
    let mut changes = Changes::new(shape.targets.len(), values.len());
    let mut cells = vec![Cell::ABSENT; shape.targets.len()];
    for record in 0..values.len() {
        let bytes = |array: &BinaryArray| array.is_valid(record).then(|| array.value(record).len());
        let field = |name: &str| match name {
            "value" => Some(bytes(values).map(|_| Cell::of(Kind::Bytes, Datum::Bytes(values.value(record))))),
            "key" => Some(keys.and_then(|keys| {
                bytes(keys)?;
                Some(Cell::of(Kind::Bytes, Datum::Bytes(keys.value(record))))
            })),
            "timestamp" => Some(ts_ms.get(record).copied().flatten().map(|ms| Cell {
                meaning: Meaning::Millis,
                ..Cell::of(Kind::Number, Datum::Int(ms))
            })),
            "offset" => Some(Some(Cell::of(Kind::Number, Datum::Int(offsets[record] as i64)))),
            _ => None,
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
    changes.coerce(shape, |column| Some(missing(shape, column)))
}
