//! Debezium's change envelope, in JSON (with or without the schema part) and in Avro behind a schema id.
//!
//! | op | with a key | without |
//! |---|---|---|
//! | `c`, `r` | upsert of `after` | the same |
//! | `u` | upsert of `after`; before it a delete of `before` where that has another key | delete of `before`, upsert of `after` |
//! | `d` | delete, by `before` or else the record's key | delete of `before` |
//! | `t` | truncate | truncate |
//!
//! Tombstones change nothing: the delete before them did. Messages (`m`), transaction metadata, heartbeats and
//! schema changes are counted as `(debezium message)`. A column may also take `source.<field>`,
//! `transaction.<field>`, `envelope.op` and `envelope.ts_ms`, where the row has no such field.
//!
//! A value that the source left out ([`unavailable`]) is taken from `before` where that has it. Else a keyed input takes it
//! from its current row ([`super::Decoded::unchanged`]); without a key it is null and counted as `(unavailable value)`. A row
//! that is new under its key has no current row: one that lacks a value is refused.
//!
//! Both encodings fill the same cells, so that a value means the same however it came; this module decides what an
//! envelope does, [`json`] and [`avro`] say what is in it.

mod avro;
mod json;
pub(super) mod meaning;
mod origin;
mod unavailable;

pub(super) use avro::DebeziumAvro;
pub(super) use json::DebeziumJson;
pub use origin::Transaction;
pub(super) use unavailable::Placeholder;

use super::Op;
use super::cell::{Kind, Meaning};
use super::changes::{Changes, Shape};
use super::coerce::shown;
use super::names::{Names, Slots};
use super::target::Target;

/// Which row image fills the columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// `after`.
    After,
    /// `before` of an update.
    Before,
    /// `before` of a delete: all that the record has.
    Deleted,
}

/// An envelope with an `op`, however it is written.
trait Envelope<'a> {
    /// What happened.
    fn op(&self) -> &'a str;

    /// Whether it has a row before.
    fn has_before(&self) -> bool;

    /// Fills the columns from a row image and what lies beside it.
    fn fill(&mut self, side: Side, slots: &mut Slots<'a>) -> Result<(), String>;

    /// Fills the columns from what lies beside the rows.
    fn fill_metadata(&mut self, slots: &mut Slots<'a>) -> Result<(), String>;

    /// Whether the record has a key.
    fn has_key(&self) -> bool;

    /// Fills the key's columns from the record's key.
    fn fill_key(&mut self, slots: &mut Slots<'a>) -> Result<(), String>;

    /// What was derived while it was read.
    fn derived(&self) -> &str {
        ""
    }
}

/// Room for the cells of an envelope's rows.
struct Room<'a> {
    before: Slots<'a>,
    after: Slots<'a>,
}

impl<'a> Room<'a> {
    fn new(columns: usize) -> Self {
        Room {
            before: Slots::new(columns),
            after: Slots::new(columns),
        }
    }

    /// Adds the rows that an envelope makes.
    fn push(
        &mut self,
        shape: &Shape,
        record: usize,
        envelope: &mut impl Envelope<'a>,
        changes: &mut Changes<'a>,
    ) -> Result<(), String> {
        let Room { before, after } = self;
        before.clear();
        after.clear();
        match envelope.op() {
            "c" | "r" => {
                envelope.fill(Side::After, after)?;
                if shape.keyed() {
                    all_told(shape, after)?;
                }
                changes.push(record, Op::Upsert, &after.cells);
            }
            "u" => {
                envelope.fill(Side::After, after)?;
                if envelope.has_before() {
                    envelope.fill(Side::Before, before)?;
                    for (new, old) in after.cells.iter_mut().zip(&before.cells) {
                        if new.kind == Kind::Unavailable && old.is_value() {
                            *new = *old;
                        }
                    }
                }
                if shape.keyed() {
                    let whole = shape.key.iter().all(|c| before.cells[*c].is_value());
                    let same = |c: &usize| before.cells[*c].same(&after.cells[*c], envelope.derived());
                    if whole && !shape.key.iter().all(same) {
                        all_told(shape, after)?;
                        changes.push(record, Op::Delete, &before.cells);
                    }
                } else {
                    let partial = before
                        .cells
                        .iter()
                        .zip(&after.cells)
                        .any(|(old, new)| old.kind == Kind::Absent && new.kind != Kind::Absent);
                    if !envelope.has_before() || partial {
                        return Err(no_image("an update"));
                    }
                    changes.push(record, Op::Delete, &before.cells);
                }
                changes.push(record, Op::Upsert, &after.cells);
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
                changes.push(record, Op::Delete, &before.cells);
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
fn metadata(shape: &Shape) -> [(&'static str, Names); 3] {
    ["source.", "transaction.", "envelope."].map(|part| (part, Names::new(shape.targets.iter().enumerate(), part)))
}

/// The columns that take `ts_ms`, `ts_us` or `ts_ns`, by which of their names, and what the numbers there count.
pub(super) fn times(targets: &[Target]) -> Vec<(usize, usize, Meaning)> {
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

/// Says what the numbers in such fields count, which no schema does.
fn tell_times(shape: &Shape, beside: &mut Slots<'_>) {
    for (column, choice, meaning) in &shape.times {
        let (cell, taken) = beside.taken(*column);
        if taken == *choice && cell.kind == Kind::Number && cell.meaning == Meaning::Plain {
            cell.meaning = *meaning;
        }
    }
}

/// Of a row that is new under its key: there is no current row that has what the source left out.
fn all_told(shape: &Shape, row: &Slots<'_>) -> Result<(), String> {
    match row.cells.iter().position(|cell| cell.kind == Kind::Unavailable) {
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
