//! Record keys, which identify the row of a deletion that has no row image.
//!
//! A key is a JSON object (also as the payload beside its schema), a single JSON value, plain text, or binary behind
//! a schema id. The setting `key_format` determines which; without it, a key with the header of a schema id is
//! decoded in the format of the feed's values, and any other as JSON or text.

use arrow::array::{Array, BinaryArray};

use crate::decode::batch::utf8;
use crate::decode::cell::{Cell, CellKind};
use crate::decode::changes::InputShape;
use crate::decode::coerce;
use crate::decode::formats::avro;
use crate::decode::formats::json_text::{beside_schema, not_json};
use crate::decode::formats::protobuf;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::scan;
use crate::decode::scan::JsonError;
use crate::decode::schemas::decode_plan::DecodePlan;
use crate::decode::schemas::plans::SchemaPlans;
use crate::decode::schemas::wire;
use crate::definition::KeyFormat;
use crate::registry::Unready;

/// Decodes record keys.
#[derive(Debug)]
pub(in crate::decode) struct KeyDecoder {
    names: FieldTree,
    declared: Option<KeyFormat>,
    registered: Option<RegisteredKeys>,
}

/// The format of keys behind a schema id.
#[derive(Debug)]
pub(in crate::decode) enum RegisteredKeys {
    Avro(SchemaPlans<avro::AvroPlan>),
    Protobuf(SchemaPlans<protobuf::ProtobufPlan>),
}

impl RegisteredKeys {
    fn fill<'a>(
        &self,
        key: &'a [u8],
        names: &mut FieldTree,
        slots: &mut RecordCells<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        let (id, bytes) = wire::split(key)?;
        match self {
            RegisteredKeys::Avro(schemas) => schemas.plan(id)?.fill(bytes, names, slots, derived),
            RegisteredKeys::Protobuf(schemas) => schemas.plan(id)?.fill(bytes, names, slots, derived),
        }
    }
}

impl KeyDecoder {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape, declared: Option<KeyFormat>, registered: Option<RegisteredKeys>) -> Self {
        KeyDecoder {
            names: FieldTree::new(shape.key.iter().map(|c| (*c, &shape.targets[*c])), ""),
            declared,
            registered,
        }
    }

    /// Loads the schemas of these keys.
    pub fn prepare(&mut self, shape: &InputShape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        let Some(keys) =
            keys.filter(|_| shape.keyed() && !matches!(self.declared, Some(KeyFormat::Json | KeyFormat::Text)))
        else {
            return Ok(());
        };
        let names = &self.names;
        let single = match shape.key[..] {
            [column] => Some(column),
            _ => None,
        };
        match &mut self.registered {
            None => Ok(()),
            Some(RegisteredKeys::Avro(schemas)) => schemas.prepare(keys, |schema, _| {
                let parsed = avro::AvroSchema::parse(schema)?;
                match (parsed.record(parsed.root), single) {
                    (None, Some(column)) => Ok(avro::AvroPlan::of_value(parsed, column)),
                    _ => avro::AvroPlan::of_record(parsed, names, None),
                }
            }),
            Some(RegisteredKeys::Protobuf(schemas)) => {
                schemas.prepare(keys, |schema, _| protobuf::ProtobufPlan::new(schema, names, None))
            }
        }
    }

    /// Fills the key's columns from a record's key.
    ///
    /// # Errors
    /// The record has no key, or one that does not fit the input's.
    pub fn fill<'a>(
        &mut self,
        shape: &InputShape,
        keys: Option<&'a BinaryArray>,
        record: usize,
        slots: &mut RecordCells<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        if !shape.keyed() {
            return Err(
                "the record is null, which deletes a key's row, but the input has no key; declare one".to_string(),
            );
        }
        let Some(keys) = keys.filter(|keys| keys.is_valid(record)) else {
            return Err("the record is null and has no key, so it deletes nothing; send its key".to_string());
        };
        let bytes = keys.value(record);
        let in_key = |reason: String| format!("in the record's key: {reason}");
        match (self.declared, &mut self.registered) {
            (Some(KeyFormat::Text), _) => {
                let text = Cell::new(CellKind::Text, utf8(bytes).map_err(in_key)?);
                return self.one_value(shape, text, slots).map_err(in_key);
            }
            (Some(KeyFormat::Json), _) => (),
            (None, _) if wire::id(bytes).is_none() => (),
            (_, Some(schemas)) => return schemas.fill(bytes, &mut self.names, slots, derived).map_err(in_key),
            // The bytes behind the id are JSON.
            (_, None) => (),
        }
        self.json(shape, wire::unwrapped(bytes), slots).map_err(in_key)
    }

    fn json<'a>(&mut self, shape: &InputShape, bytes: &'a [u8], slots: &mut RecordCells<'a>) -> Result<(), String> {
        let text = utf8(bytes)?;
        if text.trim_start().starts_with('{') {
            let broken = |broken: JsonError| not_json(text, broken);
            let text = match beside_schema(text).map_err(broken)? {
                Some((_, payload)) if payload.text().starts_with('{') => payload.text(),
                Some((_, payload)) => return self.one_value(shape, payload, slots),
                None => text,
            };
            return self.names.walk(text, slots, &mut |_, cell| cell).map_err(broken);
        }
        // Plain text is accepted, because not every producer writes its keys as JSON.
        let value = scan::value(text).unwrap_or(Cell::new(CellKind::Text, text));
        self.one_value(shape, value, slots)
    }

    fn one_value<'a>(&self, shape: &InputShape, value: Cell<'a>, slots: &mut RecordCells<'a>) -> Result<(), String> {
        let [column] = shape.key[..] else {
            return Err(format!(
                "{} is one value, but the input's key has several columns; send a JSON object",
                coerce::shown(&value.resolved().unwrap_or_default())
            ));
        };
        slots.cells[column] = value;
        Ok(())
    }
}
