//! Debezium's change envelope, in JSON (with or without the schema part) and in Avro behind a schema id.
//!
//! | op | with a key | without |
//! |---|---|---|
//! | `c`, `r` | upsert of `after` | the same |
//! | `u` | upsert of `after`; before it a delete of `before` where that has another key | delete of `before`, upsert of `after` |
//! | `d` | delete, by `before` or else the record's key | delete of `before` |
//! | `t` | truncate | truncate |
//!
//! Tombstones change nothing, because the delete before them did. Messages (`m`), transaction metadata, heartbeats
//! and schema changes are counted as `(debezium message)`. A column may also take `source.<field>`,
//! `transaction.<field>`, `envelope.op` and `envelope.ts_ms`, unless the row has such a field.
//!
//! A value that the source left out ([`unavailable`]) is taken from `before` if that has it. Otherwise a keyed input
//! takes it from the key's current row ([`crate::decode::decoded::Decoded::unchanged`]); without a key it is null and
//! counted as `(unavailable value)`. A row that is new under its key has no current row, so it is refused if it lacks
//! a value.
//!
//! Both encodings fill the same cells, so that values have the same meaning in either. This module decides what an
//! envelope does; [`json`] and [`avro`] parse its content.

mod avro;
mod json;
pub(in crate::decode) mod meaning;
mod origin;
mod unavailable;

pub(in crate::decode) use avro::DebeziumAvro;
pub(in crate::decode) use json::DebeziumJson;
pub(in crate::decode) use unavailable::Placeholder;

use crate::decode::cell::{CellKind, Meaning};
use crate::decode::changes::{ChangeBuilder, InputShape};
use crate::decode::coerce::shown;
use crate::decode::decoded::ChangeOp;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::target::Target;

/// The row image from which columns are filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// `after`.
    After,
    /// The `before` of an update.
    Before,
    /// The `before` of a delete, which is the only image that the record has.
    Deleted,
}

/// An envelope with an `op`, in either encoding.
trait Envelope<'a> {
    /// The operation.
    fn op(&self) -> &'a str;

    /// Whether it has an old row.
    fn has_before(&self) -> bool;

    /// Fills the columns from a row image and from the parts beside it.
    fn fill(&mut self, side: Side, slots: &mut RecordCells<'a>) -> Result<(), String>;

    /// Fills the columns only from the parts beside the rows.
    fn fill_metadata(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String>;

    /// Whether the record has a key.
    fn has_key(&self) -> bool;

    /// Fills the key's columns from the record's key.
    fn fill_key(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String>;

    /// The text that was derived while the envelope was read.
    fn derived(&self) -> &str {
        ""
    }
}

/// Buffers for the cells of an envelope's rows.
struct RowBuffers<'a> {
    before: RecordCells<'a>,
    after: RecordCells<'a>,
}

impl<'a> RowBuffers<'a> {
    fn new(columns: usize) -> Self {
        RowBuffers {
            before: RecordCells::new(columns),
            after: RecordCells::new(columns),
        }
    }

    /// Adds the rows of an envelope.
    fn push(
        &mut self,
        shape: &InputShape,
        record: usize,
        envelope: &mut impl Envelope<'a>,
        changes: &mut ChangeBuilder<'a>,
    ) -> Result<(), String> {
        let RowBuffers { before, after } = self;
        before.clear();
        after.clear();
        match envelope.op() {
            "c" | "r" => {
                envelope.fill(Side::After, after)?;
                if shape.keyed() {
                    check_all_values(shape, after)?;
                }
                changes.push(record, ChangeOp::Upsert, &after.cells);
            }
            "u" => {
                envelope.fill(Side::After, after)?;
                if envelope.has_before() {
                    envelope.fill(Side::Before, before)?;
                    for (new, old) in after.cells.iter_mut().zip(&before.cells) {
                        if new.kind == CellKind::Unavailable && old.is_value() {
                            *new = *old;
                        }
                    }
                }
                if shape.keyed() {
                    let whole = shape.key.iter().all(|c| before.cells[*c].is_value());
                    let same = |c: &usize| before.cells[*c].same(&after.cells[*c], envelope.derived());
                    if whole && !shape.key.iter().all(same) {
                        check_all_values(shape, after)?;
                        changes.push(record, ChangeOp::Delete, &before.cells);
                    }
                } else {
                    let partial = before
                        .cells
                        .iter()
                        .zip(&after.cells)
                        .any(|(old, new)| old.kind == CellKind::Absent && new.kind != CellKind::Absent);
                    if !envelope.has_before() || partial {
                        return Err(no_image("an update"));
                    }
                    changes.push(record, ChangeOp::Delete, &before.cells);
                }
                changes.push(record, ChangeOp::Upsert, &after.cells);
            }
            "d" => {
                if envelope.has_before() {
                    envelope.fill(Side::Deleted, before)?;
                } else if !shape.keyed() {
                    return Err(no_image("a delete"));
                }
                let whole = shape.key.iter().all(|c| before.cells[*c].is_value());
                if !whole && envelope.has_key() {
                    envelope.fill_key(before)?;
                } else if !whole && !envelope.has_before() {
                    return Err(
                        "the delete has neither `before` nor a record key; send either, so that the row can be found"
                            .to_string(),
                    );
                }
                if !envelope.has_before() {
                    envelope.fill_metadata(before)?;
                }
                changes.push(record, ChangeOp::Delete, &before.cells);
            }
            "t" => changes.truncation(shape, record)?,
            other => {
                return Err(format!(
                    "the Debezium operation {} is unknown; known are c, r, u, d, t and m",
                    shown(other)
                ));
            }
        }
        Ok(())
    }
}

/// What columns take from `source`, `transaction` and the envelope itself.
fn metadata(shape: &InputShape) -> [(&'static str, FieldTree); 3] {
    ["source.", "transaction.", "envelope."].map(|part| (part, FieldTree::new(shape.targets.iter().enumerate(), part)))
}

/// The columns that take `ts_ms`, `ts_us` or `ts_ns`, each with the index in its `from` and the unit of the numbers.
pub(in crate::decode) fn times(targets: &[Target]) -> Vec<(usize, usize, Meaning)> {
    let mut times = Vec::new();
    for (column, target) in targets.iter().enumerate() {
        for (choice, name) in target.from.iter().enumerate() {
            let meaning = match name.rsplit('.').next() {
                Some("ts_ms") => Meaning::Millis,
                Some("ts_us") => Meaning::Micros,
                Some("ts_ns") => Meaning::Nanos,
                _ => continue,
            };
            times.push((column, choice, meaning));
        }
    }
    times
}

/// Sets the unit of numbers in such fields, which no schema states.
fn set_time_units(shape: &InputShape, beside: &mut RecordCells<'_>) {
    for (column, choice, meaning) in &shape.times {
        let (cell, taken) = beside.taken(*column);
        if taken == *choice && cell.kind == CellKind::Number && cell.meaning == Meaning::Plain {
            cell.meaning = *meaning;
        }
    }
}

/// Checks a row that is new under its key: no current row has what the source left out.
fn check_all_values(shape: &InputShape, row: &RecordCells<'_>) -> Result<(), String> {
    match row.cells.iter().position(|cell| cell.kind == CellKind::Unavailable) {
        None => Ok(()),
        Some(column) => Err(format!(
            "a key changed, and the source does not tell the value of column {:?}, which did not; set REPLICA IDENTITY FULL at \
             the source, and repair the row",
            shape.targets[column].name
        )),
    }
}

fn no_image(what: &str) -> String {
    format!(
        "without key {what} needs its whole before image; set REPLICA IDENTITY FULL at the source or give the input a key"
    )
}
