//! Rows that were flattened by Debezium's `ExtractNewRecordState`: what they say besides their columns.
//!
//! A field `__deleted` that is true makes the record a deletion, and so does `__op` = `d` (both only where no column takes
//! them: who wants the flag wants the row). `__source_ts_ms`, or else `__ts_ms`, is the record's time at its source. A value
//! that the source left out is left out, as within an envelope ([`super::debezium::Placeholder`]).

use super::Op;
use super::cell::{Cell, Datum, Kind};
use super::changes::Shape;
use super::coerce::number;
use super::names::{Names, Slots};

/// Where the fields are among a record's cells: behind its columns.
#[derive(Debug)]
pub(super) struct Flat {
    first: usize,
}

const FIELDS: [&str; Flat::SLOTS] = ["__deleted", "__op", "__source_ts_ms", "__ts_ms"];

impl Flat {
    /// How many cells beyond its columns a record needs.
    pub const SLOTS: usize = 4;

    /// Has the fields read besides the columns.
    pub fn watch(names: &mut Names, shape: &Shape) -> Self {
        let first = shape.targets.len();
        for (n, field) in FIELDS.iter().enumerate() {
            // A column's own field is no flag; a time is read twice if it must be.
            if n >= 2 || names.wanted(0, field).is_none() {
                names.watch(first + n, field);
            }
        }
        Flat { first }
    }

    /// What a record does, and its time where it says so.
    ///
    /// # Errors
    /// It deletes a row that has no key.
    pub fn op(
        &self,
        shape: &Shape,
        slots: &Slots<'_>,
        record: usize,
        source_ms: &mut [Option<i64>],
    ) -> Result<Op, String> {
        let [deleted, op, source, at] = &slots.cells[self.first..self.first + Self::SLOTS] else {
            unreachable!("slots were made with room for these");
        };
        if let Some(ms) = time(source).or_else(|| time(at)) {
            source_ms[record] = Some(ms);
        }
        let is_deleted = deleted.kind == Kind::True || deleted.text().eq_ignore_ascii_case("true");
        if !is_deleted && op.text() != "d" {
            return Ok(Op::Upsert);
        }
        if shape.keyed() {
            return Ok(Op::Delete);
        }
        Err("the record says that its row is deleted, but the input has no key to find it by; declare one".to_string())
    }
}

/// Unix milliseconds; 0 stands for "unknown".
pub(super) fn time(cell: &Cell<'_>) -> Option<i64> {
    let ms = match cell.datum {
        Datum::Int(ms) => Some(ms),
        _ => number::integer(cell.text()).ok(),
    };
    ms.filter(|ms| *ms > 0)
}
