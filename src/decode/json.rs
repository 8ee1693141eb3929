//! Plain JSON records, also behind a schema id: one object, one row. A null record with a key deletes the key's row. A
//! record of blanks is no record (counted as `(blank line)`). Of a row beside its schema (Connect's JSON converter with
//! `schemas.enable`) the row is read, by what the schema says that its values mean.

use arrow::array::{Array, BinaryArray};

use super::cell::{Cell, Kind};
use super::changes::{Changes, Outcome, Shape};
use super::debezium::meaning::{Payload, Schemas};
use super::flat::Flat;
use super::keys::Keys;
use super::names::{Names, Slots};
use super::scan::{Broken, NO_OBJECT};
use super::{Batch, Op, coerce, scan, wire};
use crate::registry::Unready;

/// Decodes JSON records.
#[derive(Debug)]
pub(super) struct Json {
    names: Names,
    flat: Flat,
    keys: Keys,
    /// Of rows beside their schema; none: columns take `schema` or `payload`.
    schemas: Option<Schemas>,
    /// Whether a record is refused that has no field of any column.
    refuses_strangers: bool,
    /// Whether records are lines of a log.
    of_log: bool,
}

impl Json {
    /// For rows of this shape.
    pub fn new(shape: &Shape, keys: Keys) -> Self {
        let mut names = Names::new(shape.targets.iter().enumerate(), "");
        let is_taken = |field: &&str| names.wanted(0, field).is_some();
        Json {
            schemas: (!["schema", "payload"].iter().any(is_taken)).then(|| Schemas::new(Payload::Row)),
            flat: Flat::watch(&mut names, shape),
            names,
            keys,
            refuses_strangers: false,
            of_log: false,
        }
    }

    /// A record that has no field of any column is refused, rather than made a row of nulls, where no required column says
    /// what it lacks.
    pub fn refusing_strangers(self, shape: &Shape) -> Self {
        Json {
            refuses_strangers: shape.may_be_null(),
            ..self
        }
    }

    /// Records are lines of a log, which a record's own field `value` may be mistaken in.
    pub fn of_log(self, of_log: bool) -> Self {
        Json { of_log, ..self }
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
            let row = match values.is_null(record) {
                true => Ok(None),
                false => shape
                    .text(wire::unwrapped(values.value(record)))
                    .map(|text| self.row(unmarked(text))),
            };
            let outcome = row.and_then(|row| match row {
                None => {
                    let filled = self.keys.fill(shape, keys, record, &mut slots, derived);
                    filled.map(|()| Op::Delete)
                }
                Some((text, schema)) => {
                    let meanings = schema.zip(self.schemas.as_mut());
                    let meanings = meanings.map(|(schema, schemas)| schemas.of(schema));
                    let mut dress = |key: &str, cell: Cell<'a>| match meanings.and_then(|meanings| meanings.get(key)) {
                        None => cell,
                        Some((meaning, scale)) => Cell {
                            meaning: *meaning,
                            scale: *scale,
                            ..cell
                        },
                    };
                    let walked = self.names.walk(text, &mut slots, &mut dress);
                    walked.map_err(|broken| self.told(text, broken))?;
                    shape.placeholder.mark(&mut slots.cells, "");
                    self.flat.op(shape, &slots, record, source_ms)
                }
            });
            match outcome {
                Ok(Op::Upsert) if self.refuses_strangers && slots.is_empty(shape.targets.len()) => {
                    let text = String::from_utf8_lossy(values.value(record));
                    changes.reject(
                        record,
                        format!(
                            "the record has no field that a column takes: {}; list the fields' names in the columns' `from`",
                            coerce::shown(&text)
                        ),
                    );
                }
                Ok(op) => changes.push(record, op, &slots.cells),
                Err(reason) => changes.reject(record, reason),
            }
        }
        changes
    }

    fn told(&self, text: &str, broken: Broken) -> String {
        let is_value = self.of_log && broken.what == NO_OBJECT;
        let mut reason = not_json(text, broken);
        if is_value {
            reason.push_str(
                "; of a line {\"value\": ...} a log takes what stands there: a record whose own field is called value is \
                 written as {\"value\": {\"value\": ...}}",
            );
        }
        reason
    }

    /// A record's row, and the schema beside it; none: it says that there is no row.
    fn row<'a>(&self, text: &'a str) -> Option<(&'a str, Option<&'a str>)> {
        let plain = Some((text, None));
        // The converter writes the schema first.
        if self.schemas.is_none() || !text.trim_start().starts_with("{\"schema\"") {
            return plain;
        }
        // What is broken is told where it is read.
        match beside_schema(text) {
            Ok(Some((_, payload))) if payload.kind == Kind::Null => None,
            Ok(Some((schema, payload))) => Some((payload.text(), schema.map(|schema| schema.text()))),
            Ok(None) | Err(_) => plain,
        }
    }
}

/// The `payload` of an object, and the `schema` beside it, where it has nothing else: as Connect's JSON converter writes values.
pub(super) fn beside_schema(text: &str) -> Result<Option<(Option<Cell<'_>>, Cell<'_>)>, Broken> {
    let (mut schema, mut payload, mut other) = (None, None, false);
    scan::object(text, |key, value| match key.text() {
        "schema" => schema = Some(value),
        "payload" => payload = Some(value),
        _ => other = true,
    })?;
    Ok(payload.filter(|_| !other).map(|payload| (schema, payload)))
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
