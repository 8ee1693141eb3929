//! Plain JSON records: one object, one row. A null record with a key deletes the key's row. A record of blanks
//! is no record (counted as `(blank line)`).

use arrow::array::{Array, BinaryArray};

use super::cell::Cell;
use super::changes::{Changes, Shape, Typed};
use super::names::{Names, Slots};
use super::scan::{self, Broken};
use super::{Op, coerce, utf8};

/// Decodes JSON records.
#[derive(Debug)]
pub(super) struct Json {
    names: Names,
    keys: Keys,
}

impl Json {
    /// For rows of this shape.
    pub fn new(shape: &Shape) -> Self {
        Json {
            names: Names::new(shape.targets.iter().enumerate(), ""),
            keys: Keys::new(shape),
        }
    }

    /// The changes that the records make, and the fields that nobody takes.
    pub fn decode(
        &mut self,
        shape: &Shape,
        values: &BinaryArray,
        keys: Option<&BinaryArray>,
    ) -> (Typed, Vec<(String, u64)>) {
        let changes = self.changes(shape, values, keys);
        let typed = changes.coerce(shape, |column| Some(missing(shape, column)));
        (typed, self.take_ignored())
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
    ) -> Changes<'a> {
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut slots = Slots::new(shape.targets.len());
        for record in 0..values.len() {
            slots.clear();
            if values.is_valid(record) && values.value(record).trim_ascii().is_empty() {
                changes.count("(blank line)");
                continue;
            }
            let outcome = if values.is_null(record) {
                self.keys.fill(shape, keys, record, &mut slots).map(|()| Op::Delete)
            } else {
                utf8(values.value(record)).and_then(|text| {
                    let walked = self.names.walk(unmarked(text), &mut slots, &mut |_, cell| cell);
                    walked.map(|()| Op::Upsert).map_err(|broken| not_json(text, broken))
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

/// Reads record keys.
#[derive(Debug)]
pub(super) struct Keys {
    names: Names,
}

impl Keys {
    /// For rows of this shape.
    pub fn new(shape: &Shape) -> Self {
        Keys {
            names: Names::new(shape.key.iter().map(|c| (*c, &shape.targets[*c])), ""),
        }
    }

    /// Fills the key's columns from a record's key: a JSON object (also as the payload beside its schema), or
    /// the one column's value.
    pub fn fill<'a>(
        &mut self,
        shape: &Shape,
        keys: Option<&'a BinaryArray>,
        record: usize,
        slots: &mut Slots<'a>,
    ) -> Result<(), String> {
        if !shape.keyed() {
            return Err(
                "the record is null, which deletes a key's row, but the input has no key; declare one".to_string(),
            );
        }
        let Some(keys) = keys.filter(|keys| keys.is_valid(record)) else {
            return Err("the record is null and has no key, so it deletes nothing; send its key".to_string());
        };
        let text = utf8(keys.value(record))?;
        if text.trim_start().starts_with('{') {
            let mut payload = None;
            let mut plain = false;
            let broken = |broken: Broken| format!("in the record's key: {}", not_json(text, broken));
            scan::object(text, |key, value| match key.text {
                "payload" => payload = Some(value),
                "schema" => (),
                _ => plain = true,
            })
            .map_err(broken)?;
            let text = match payload.filter(|_| !plain) {
                Some(payload) if payload.text.starts_with('{') => payload.text,
                Some(payload) if shape.key.len() == 1 => {
                    slots.cells[shape.key[0]] = payload;
                    return Ok(());
                }
                _ => text,
            };
            return self.names.walk(text, slots, &mut |_, cell| cell).map_err(broken);
        }
        let [column] = shape.key[..] else {
            return Err(format!(
                "the record's key {} is one value, but the input's key has several columns; send a JSON object",
                coerce::shown(text)
            ));
        };
        // Bare text is a key too: not every producer writes its keys as JSON.
        slots.cells[column] = scan::value(text).unwrap_or(Cell::new(super::cell::Kind::Text, text));
        Ok(())
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
