//! Debezium's change envelope in JSON, with or without the schema part.
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
//! A value that the source left out (`__debezium_unavailable_value`) is taken from `before` where that has it. Else a
//! keyed input takes it from its current row ([`super::Decoded::unchanged`]); without a key it is null and counted as
//! `(unavailable value)`.

mod envelope;
mod meaning;

use std::borrow::Cow;

use arrow::array::{Array, BinaryArray};

use super::cell::{Cell, Kind};
use super::changes::{Changes, Shape, Typed};
use super::coerce::shown;
use super::json::{Keys, missing, not_json};
use super::names::{Names, Slots};
use super::{Op, utf8};
use envelope::{Envelope, Record};
use meaning::Schemas;

/// Debezium's default `unavailable.value.placeholder`, and its base64.
const UNAVAILABLE: [&str; 2] = [
    "__debezium_unavailable_value",
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
];

/// Decodes Debezium records.
#[derive(Debug)]
pub(super) struct Debezium {
    rows: Rows,
    schemas: Schemas,
}

/// Fills columns from the parts of an envelope.
#[derive(Debug)]
struct Rows {
    after: Names,
    /// The same names; what is ignored there was counted in `after` already.
    before: Names,
    /// What columns take from `source`, `transaction` and the envelope itself.
    metadata: [(&'static str, Names); 3],
    keys: Keys,
}

impl Debezium {
    /// For rows of this shape.
    pub fn new(shape: &Shape) -> Self {
        let columns = || shape.targets.iter().enumerate();
        let metadata = ["source.", "transaction.", "envelope."];
        Debezium {
            rows: Rows {
                after: Names::new(columns(), ""),
                before: Names::new(columns(), ""),
                metadata: metadata.map(|part| (part, Names::new(columns(), part))),
                keys: Keys::new(shape),
            },
            schemas: Schemas::default(),
        }
    }

    /// The changes that the records make, each record's time at its source, and the fields that nobody takes.
    pub fn decode(
        &mut self,
        shape: &Shape,
        values: &BinaryArray,
        keys: Option<&BinaryArray>,
        ts_ms: &[Option<i64>],
    ) -> (Typed, Vec<Option<i64>>, Vec<(String, u64)>) {
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut source_ms = ts_ms.to_vec();
        source_ms.resize(values.len(), None);
        // First the envelopes: rows that are JSON in a string (MongoDB) are unescaped into them, and cells borrow.
        let mut envelopes: Vec<(usize, Envelope<'_>)> = Vec::with_capacity(values.len());
        for record in (0..values.len()).filter(|record| values.is_valid(*record)) {
            match utf8(values.value(record)).and_then(envelope::read) {
                Ok(Record::Change(envelope)) => {
                    source_ms[record] = envelope.source_ms().or(source_ms[record]);
                    envelopes.push((record, envelope));
                }
                Ok(Record::Message { ts_ms }) => {
                    source_ms[record] = ts_ms.or(source_ms[record]);
                    changes.count("(debezium message)");
                }
                Ok(Record::Tombstone) => (),
                Err(reason) => changes.reject(record, reason),
            }
        }
        let mut before = Slots::new(shape.targets.len());
        let mut after = Slots::new(shape.targets.len());
        let mut beside = Slots::new(shape.targets.len());
        for (record, envelope) in &envelopes {
            before.clear();
            after.clear();
            let change = Change {
                shape,
                record: *record,
                envelope,
                schemas: &mut self.schemas,
                beside: &mut beside,
            };
            if let Err(reason) = change.push(&mut self.rows, keys, &mut before, &mut after, &mut changes) {
                changes.reject(*record, reason);
            }
        }
        let typed = changes.coerce(shape, |column| Some(missing(shape, column)));
        (typed, source_ms, self.rows.after.take_ignored())
    }
}

/// One envelope on its way to rows.
struct Change<'s, 'a> {
    shape: &'s Shape,
    record: usize,
    envelope: &'a Envelope<'a>,
    schemas: &'s mut Schemas,
    /// Room for what columns take from beside the row.
    beside: &'s mut Slots<'a>,
}

impl<'a> Change<'_, 'a> {
    fn push(
        mut self,
        rows: &mut Rows,
        keys: Option<&'a BinaryArray>,
        before: &mut Slots<'a>,
        after: &mut Slots<'a>,
        changes: &mut Changes<'a>,
    ) -> Result<(), String> {
        let Change {
            shape,
            record,
            envelope,
            ..
        } = self;
        let op = envelope.op;
        match op {
            "c" | "r" => {
                self.fill(rows, Side::After, after)?;
                changes.push(record, Op::Upsert, &after.cells);
            }
            "u" => {
                self.fill(rows, Side::After, after)?;
                if envelope.before.is_some() {
                    self.fill(rows, Side::Before, before)?;
                    for (new, old) in after.cells.iter_mut().zip(&before.cells) {
                        if new.kind == Kind::Unavailable && old.is_value() {
                            *new = *old;
                        }
                    }
                }
                if shape.keyed() {
                    let whole = shape.key.iter().all(|c| before.cells[*c].is_value());
                    let moved = shape.key.iter().any(|c| !before.cells[*c].same(&after.cells[*c]));
                    if whole && moved {
                        changes.push(record, Op::Delete, &before.cells);
                    }
                } else {
                    let partial = before
                        .cells
                        .iter()
                        .zip(&after.cells)
                        .any(|(old, new)| old.kind == Kind::Absent && new.kind != Kind::Absent);
                    if envelope.before.is_none() || partial {
                        return Err(no_image("an update"));
                    }
                    changes.push(record, Op::Delete, &before.cells);
                }
                changes.push(record, Op::Upsert, &after.cells);
            }
            "d" => {
                if envelope.before.is_some() {
                    self.fill(rows, Side::Deleted, before)?;
                } else if !shape.keyed() {
                    return Err(no_image("a delete"));
                }
                let whole = shape.key.iter().all(|c| before.cells[*c].is_value());
                if !whole && keys.is_some_and(|keys| keys.is_valid(record)) {
                    rows.keys.fill(shape, keys, record, before)?;
                } else if !whole && envelope.before.is_none() {
                    return Err(
                        "the delete has neither `before` nor a record key; send either, so that the row can be found"
                            .to_string(),
                    );
                }
                if envelope.before.is_none() {
                    self.fill_metadata(rows, before)?;
                }
                changes.push(record, Op::Delete, &before.cells);
            }
            "t" => changes.push(record, Op::Truncate, &vec![Cell::NULL; shape.targets.len()]),
            other => {
                return Err(format!(
                    "the Debezium operation {} is unknown; known are c, r, u, d, t and m",
                    shown(other)
                ));
            }
        }
        Ok(())
    }

    /// Fills the columns from a row image and what lies beside it.
    fn fill(&mut self, rows: &mut Rows, side: Side, slots: &mut Slots<'a>) -> Result<(), String> {
        let (image, names, called) = match side {
            Side::After => (&self.envelope.after, &mut rows.after, "after"),
            Side::Before => (&self.envelope.before, &mut rows.before, "before"),
            Side::Deleted => (&self.envelope.before, &mut rows.after, "before"),
        };
        let Some(image) = image else {
            let op = shown(self.envelope.op);
            return Err(format!(
                "the Debezium operation {op} has no `{called}`; it must hold the row"
            ));
        };
        let image: &'a str = match image {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => text,
        };
        let meanings = self.envelope.schema.map(|schema| self.schemas.of(schema));
        let mut dress = |key: &str, mut cell: Cell<'a>| {
            if matches!(cell.kind, Kind::Text) && UNAVAILABLE.contains(&cell.text) {
                return Cell::new(Kind::Unavailable, "");
            }
            if let Some((meaning, scale)) = meanings.and_then(|meanings| meanings.get(key)) {
                cell.meaning = *meaning;
                cell.scale = *scale;
            }
            cell
        };
        names
            .walk(image, slots, &mut dress)
            .map_err(|broken| format!("in `{called}`: {}", not_json(image, broken)))?;
        self.fill_metadata(rows, slots)
    }

    fn fill_metadata(&mut self, rows: &mut Rows, slots: &mut Slots<'a>) -> Result<(), String> {
        for (part, names) in rows.metadata.iter_mut().filter(|(_, names)| !names.is_empty()) {
            let text = match *part {
                "source." => self.envelope.source,
                "transaction." => self.envelope.transaction,
                _ => Some(self.envelope.text),
            };
            self.beside.clear();
            if let Some(text) = text {
                names
                    .walk(text, self.beside, &mut |_, cell| cell)
                    .map_err(|broken| format!("in `{}`: {}", part.trim_end_matches('.'), not_json(text, broken)))?;
            }
            slots.merge(self.beside);
        }
        Ok(())
    }
}

/// Which row image fills the columns.
#[derive(Clone, Copy)]
enum Side {
    /// `after`.
    After,
    /// `before` of an update.
    Before,
    /// `before` of a delete: all that the record has.
    Deleted,
}

fn no_image(what: &str) -> String {
    format!(
        "without key {what} needs its whole before image; set REPLICA IDENTITY FULL at the source or give the input a key"
    )
}
