//! Plain JSON records, also behind a schema id: each object is a row. A null record with a key deletes the key's row.
//! A blank record is skipped (counted as `(blank line)`). If a row comes with its schema (Connect's JSON converter
//! with `schemas.enable`), the row is decoded with the meanings that the schema gives to its values.

use arrow::array::{Array, BinaryArray};

use crate::decode::batch::Batch;
use crate::decode::cell::{Cell, CellKind};
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::coerce;
use crate::decode::decoded::ChangeOp;
use crate::decode::envelopes::debezium::meaning::{Payload, SchemaCache};
use crate::decode::envelopes::flat::Flat;
use crate::decode::formats::json_text::{beside_schema, not_json, unmarked};
use crate::decode::formats::keys::KeyDecoder;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::scan::{JsonError, NO_OBJECT};
use crate::decode::schemas::wire;
use crate::registry::Unready;

/// Decodes JSON records.
#[derive(Debug)]
pub(in crate::decode) struct Json {
    names: FieldTree,
    flat: Flat,
    keys: KeyDecoder,
    /// For rows that come with their schema; none if columns take fields named `schema` or `payload`.
    schemas: Option<SchemaCache>,
    /// Whether a record is refused if it has no field of any column.
    refuses_strangers: bool,
    /// Whether records are lines of a log.
    of_log: bool,
}

impl Json {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape, keys: KeyDecoder) -> Self {
        let mut names = FieldTree::new(shape.targets.iter().enumerate(), "");
        let is_taken = |field: &&str| names.wanted(0, field).is_some();
        Json {
            schemas: (!["schema", "payload"].iter().any(is_taken)).then(|| SchemaCache::new(Payload::Row)),
            flat: Flat::watch(&mut names, shape),
            names,
            keys,
            refuses_strangers: false,
            of_log: false,
        }
    }

    /// Refuses a record that has no field of any column, instead of making a row of nulls of it, unless a required
    /// column already reports that.
    pub fn refusing_strangers(self, shape: &InputShape) -> Self {
        Json {
            refuses_strangers: shape.may_be_null(),
            ..self
        }
    }

    /// Sets whether records are lines of a log, where a record's own field `value` may be mistaken for the log's.
    pub fn of_log(self, of_log: bool) -> Self {
        Json { of_log, ..self }
    }

    /// Loads the schemas of keys.
    pub fn prepare(&mut self, shape: &InputShape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        self.keys.prepare(shape, keys)
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>) -> DecodedBatch {
        let mut derived = String::new();
        let mut source_ms = batch.times();
        let changes = self.changes(shape, batch, &mut source_ms, &mut derived);
        DecodedBatch::new(changes.typed(shape, &derived), source_ms, self.take_ignored())
    }

    /// The fields that no column took since the last call.
    pub fn take_ignored(&mut self) -> Vec<(String, u64)> {
        self.names.take_ignored()
    }

    /// Decodes a batch to changes whose values do not have their columns' types yet.
    pub fn changes<'a>(
        &mut self,
        shape: &InputShape,
        batch: &Batch<'a>,
        source_ms: &mut [Option<i64>],
        derived: &mut String,
    ) -> ChangeBuilder<'a> {
        let Batch { values, keys, .. } = *batch;
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        let mut slots = RecordCells::new(shape.targets.len() + Flat::SLOTS);
        changes.each_record(0..values.len(), |record, changes| {
            slots.clear();
            if values.is_valid(record) && values.value(record).trim_ascii().is_empty() {
                changes.count("(blank line)");
                return Ok(());
            }
            let row = match values.is_null(record) {
                true => None,
                false => {
                    let text = shape.text(wire::unwrapped(values.value(record)))?;
                    self.row(unmarked(text))
                }
            };
            let op = match row {
                None => {
                    self.keys.fill(shape, keys, record, &mut slots, derived)?;
                    ChangeOp::Delete
                }
                Some((text, schema)) => {
                    let meanings = schema.zip(self.schemas.as_mut());
                    let meanings = meanings.map(|(schema, schemas)| schemas.meanings(schema));
                    let mut dress = |key: &str, cell: Cell<'a>| match meanings.and_then(|meanings| meanings.get(key)) {
                        None => cell,
                        Some((meaning, scale)) => Cell {
                            meaning: *meaning,
                            scale: *scale,
                            ..cell
                        },
                    };
                    let walked = self.names.walk(text, &mut slots, &mut dress);
                    walked.map_err(|broken| self.describe_broken(text, broken))?;
                    shape.placeholder.mark(&mut slots.cells, "");
                    self.flat.op(shape, &slots, record, source_ms)?
                }
            };
            if op == ChangeOp::Upsert && self.refuses_strangers && slots.is_empty(shape.targets.len()) {
                let text = String::from_utf8_lossy(values.value(record));
                return Err(format!(
                    "the record has no field that a column takes: {}; list the fields' names in the columns' `from`",
                    coerce::shown(&text)
                ));
            }
            changes.push(record, op, &slots.cells);
            Ok(())
        });
        changes
    }

    fn describe_broken(&self, text: &str, broken: JsonError) -> String {
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

    /// A record's row and its schema, if the record has one; none if the record explicitly has no row.
    fn row<'a>(&self, text: &'a str) -> Option<(&'a str, Option<&'a str>)> {
        let plain = Some((text, None));
        // The converter always writes the schema first.
        if self.schemas.is_none() || !text.trim_start().starts_with("{\"schema\"") {
            return plain;
        }
        // Invalid JSON is reported where the row is parsed.
        match beside_schema(text) {
            Ok(Some((_, payload))) if payload.kind == CellKind::Null => None,
            Ok(Some((schema, payload))) => Some((payload.text(), schema.map(|schema| schema.text()))),
            Ok(None) | Err(_) => plain,
        }
    }
}
