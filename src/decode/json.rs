//! Plain JSON records, also behind a schema id: one object, one row. A null record with a key deletes the key's row. A
//! record of blanks is no record (counted as `(blank line)`).

use arrow::array::{Array, BinaryArray};

use super::changes::{Changes, Outcome, Shape};
use super::debezium::available;
use super::flat::Flat;
use super::keys::Keys;
use super::names::{Names, Slots};
use super::scan::Broken;
use super::{Batch, Op, coerce, utf8, wire};
use crate::registry::Unready;

/// Decodes JSON records.
#[derive(Debug)]
pub(super) struct Json {
    names: Names,
    flat: Flat,
    keys: Keys,
}

impl Json {
    /// For rows of this shape.
    pub fn new(shape: &Shape, keys: Keys) -> Self {
        let mut names = Names::new(shape.targets.iter().enumerate(), "");
        Json {
            flat: Flat::watch(&mut names, shape),
            names,
            keys,
        }
    }

    /// Makes the schemas of keys known.
    pub fn prepare(&mut self, shape: &Shape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        self.keys.prepare(shape, keys)
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>) -> Outcome {
        let mut derived = String::new();
        let mut source_ms = batch.times();
        let changes = self.changes(shape, batch, &mut source_ms, &mut derived);
        Outcome::new(changes.typed(shape, &derived), source_ms, self.take_ignored())
    }

    /// The fields that nobody took since the last call.
    pub fn take_ignored(&mut self) -> Vec<(String, u64)> {
        self.names.take_ignored()
    }

    /// The same before the values have their types.
    pub fn changes<'a>(
        &mut self,
        shape: &Shape,
        batch: &Batch<'a>,
        source_ms: &mut [Option<i64>],
        derived: &mut String,
    ) -> Changes<'a> {
        let Batch { values, keys, .. } = *batch;
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut slots = Slots::new(shape.targets.len() + Flat::SLOTS);
        for record in 0..values.len() {
            slots.clear();
            if values.is_valid(record) && values.value(record).trim_ascii().is_empty() {
                changes.count("(blank line)");
                continue;
            }
            let outcome = if values.is_null(record) {
                self.keys
                    .fill(shape, keys, record, &mut slots, derived)
                    .map(|()| Op::Delete)
            } else {
                utf8(wire::unwrapped(values.value(record))).and_then(|text| {
                    let walked = self
                        .names
                        .walk(unmarked(text), &mut slots, &mut |_, cell| available(cell, ""));
                    walked.map_err(|broken| not_json(text, broken))?;
                    self.flat.op(shape, &slots, record, source_ms)
                })
            };
            match outcome {
                Ok(op) => changes.push(record, op, &slots.cells),
                Err(reason) => changes.reject(record, reason),
            }
        }
        changes
    }
}

/// Without a byte order mark.
pub(super) fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Why a text is not a JSON object.
pub(super) fn not_json(text: &str, broken: Broken) -> String {
    let shown = coerce::shown(text);
    let Broken { at, what } = broken;
    format!("the record is not a JSON object: {what} at byte {at} of {shown}; write one object a record")
}
