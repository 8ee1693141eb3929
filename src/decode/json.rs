//! Plain JSON records, also behind a schema id: one object, one row. A null record with a key deletes the key's row. A
//! record of blanks is no record (counted as `(blank line)`).

use arrow::array::{Array, BinaryArray};

use super::changes::{Changes, Shape, Typed};
use super::flat::Flat;
use super::keys::Keys;
use super::names::{Names, Slots};
use super::scan::Broken;
use super::{Op, coerce, utf8, wire};
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

    /// The changes that the records make, each record's time at its source, and the fields that nobody takes.
    pub fn decode(
        &mut self,
        shape: &Shape,
        values: &BinaryArray,
        keys: Option<&BinaryArray>,
        mut source_ms: Vec<Option<i64>>,
    ) -> (Typed, Vec<Option<i64>>, Vec<(String, u64)>) {
        let mut derived = String::new();
        let changes = self.changes(shape, values, keys, &mut source_ms, &mut derived);
        let typed = changes
            .settle(&derived)
            .coerce(shape, |column| Some(missing(shape, column)));
        (typed, source_ms, self.take_ignored())
    }

    /// The fields that nobody took since the last call.
    pub fn take_ignored(&mut self) -> Vec<(String, u64)> {
        self.names.take_ignored()
    }

    /// The same before the values have their types.
    pub fn changes<'a>(
        &mut self,
        shape: &Shape,
        values: &'a BinaryArray,
        keys: Option<&'a BinaryArray>,
        source_ms: &mut Vec<Option<i64>>,
        derived: &mut String,
    ) -> Changes<'a> {
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut slots = Slots::new(shape.targets.len() + Flat::SLOTS);
        source_ms.resize(values.len(), None);
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
                    let walked = self.names.walk(unmarked(text), &mut slots, &mut |_, cell| cell);
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

/// Why a required column has no value.
pub(super) fn missing(shape: &Shape, column: usize) -> String {
    let target = &shape.targets[column];
    let from: Vec<String> = target.from.iter().map(|f| format!("{f:?}")).collect();
    format!(
        "column {:?} is required, but the record has no field {}; list the field's name in the column's `from`, or make it nullable",
        target.name,
        from.join(" or ")
    )
}
