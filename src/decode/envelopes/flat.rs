//! Rows that Debezium's `ExtractNewRecordState` has flattened: what they say besides their columns.
//!
//! If a field `__deleted` is true, or `__op` is `d`, the record is a deletion. (Both count only if no column takes
//! the field, because whoever wants the flag wants the row.) `__source_ts_ms`, or else `__ts_ms`, is the record's
//! time at its source. A value that the source left out is recognised as in an envelope
//! ([`crate::decode::envelopes::debezium::Placeholder`]).

use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::changes::InputShape;
use crate::decode::coerce::number;
use crate::decode::decoded::ChangeOp;
use crate::decode::names::{FieldTree, RecordCells};

/// The positions of these fields among a record's cells, which are behind the columns.
#[derive(Debug)]
pub(in crate::decode) struct Flat {
    first: usize,
}

const FIELDS: [&str; Flat::SLOTS] = ["__deleted", "__op", "__source_ts_ms", "__ts_ms"];

impl Flat {
    /// How many cells a record needs for them, beyond those of its columns.
    pub const SLOTS: usize = 4;

    /// Makes `names` read these fields in addition to the columns.
    pub fn watch(names: &mut FieldTree, shape: &InputShape) -> Self {
        let first = shape.targets.len();
        for (n, field) in FIELDS.iter().enumerate() {
            // A field that a column takes is not used as a flag; a time may be read twice.
            if n >= 2 || names.wanted(0, field).is_none() {
                names.watch(first + n, field);
            }
        }
        Flat { first }
    }

    /// The operation of a record; sets the record's time if it has one.
    ///
    /// # Errors
    /// It deletes a row that has no key.
    pub fn op(
        &self,
        shape: &InputShape,
        slots: &RecordCells<'_>,
        record: usize,
        source_ms: &mut [Option<i64>],
    ) -> Result<ChangeOp, String> {
        let [deleted, op, source, at] = &slots.cells[self.first..self.first + Self::SLOTS] else {
            unreachable!("slots were made with room for these");
        };
        if let Some(ms) = time(source).or_else(|| time(at)) {
            source_ms[record] = Some(ms);
        }
        let is_deleted = deleted.kind == CellKind::True || deleted.text().eq_ignore_ascii_case("true");
        if !is_deleted && op.text() != "d" {
            return Ok(ChangeOp::Upsert);
        }
        if shape.keyed() {
            return Ok(ChangeOp::Delete);
        }
        Err("the record says that its row is deleted, but the input has no key to find it by; declare one".to_string())
    }
}

/// A time in Unix milliseconds; 0 stands for "unknown".
pub(in crate::decode) fn time(cell: &Cell<'_>) -> Option<i64> {
    let ms = match cell.datum {
        Datum::Int(ms) => Some(ms),
        _ => number::integer(cell.text()).ok(),
    };
    ms.filter(|ms| *ms > 0)
}
