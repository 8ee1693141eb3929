//! Record keys: what a deletion has where it has no row.
//!
//! A key is a JSON object (also as the payload beside its schema), one JSON value, plain text, or what stands behind a
//! schema id. What it is may be said (`key_format`); else a key with the header of a schema id is read as the values of
//! its feed are, and any other as JSON or text.

use arrow::array::{Array, BinaryArray};

use super::avro;
use super::cell::{Cell, Kind};
use super::changes::Shape;
use super::json::{beside_schema, not_json};
use super::names::{Names, Slots};
use super::protobuf;
use super::records::Plan;
use super::scan::{self, Broken};
use super::schemas::Schemas;
use super::{coerce, utf8, wire};
use crate::definition::KeyFormat;
use crate::registry::Unready;

/// Reads record keys.
#[derive(Debug)]
pub(super) struct Keys {
    names: Names,
    said: Option<KeyFormat>,
    behind_ids: Option<BehindIds>,
}

/// What keys behind a schema id are.
#[derive(Debug)]
pub(super) enum BehindIds {
    Avro(Schemas<avro::Plan>),
    Protobuf(Schemas<protobuf::Plan>),
}

impl BehindIds {
    fn fill<'a>(
        &self,
        key: &'a [u8],
        names: &mut Names,
        slots: &mut Slots<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        let (id, bytes) = wire::split(key)?;
        match self {
            BehindIds::Avro(schemas) => schemas.of(id)?.fill(bytes, names, slots, derived),
            BehindIds::Protobuf(schemas) => schemas.of(id)?.fill(bytes, names, slots, derived),
        }
    }
}

impl Keys {
    /// For rows of this shape.
    pub fn new(shape: &Shape, said: Option<KeyFormat>, behind_ids: Option<BehindIds>) -> Self {
        Keys {
            names: Names::new(shape.key.iter().map(|c| (*c, &shape.targets[*c])), ""),
            said,
            behind_ids,
        }
    }

    /// Makes the schemas of these keys known.
    pub fn prepare(&mut self, shape: &Shape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        let Some(keys) =
            keys.filter(|_| shape.keyed() && !matches!(self.said, Some(KeyFormat::Json | KeyFormat::Text)))
        else {
            return Ok(());
        };
        let names = &self.names;
        let single = match shape.key[..] {
            [column] => Some(column),
            _ => None,
        };
        match &mut self.behind_ids {
            None => Ok(()),
            Some(BehindIds::Avro(schemas)) => schemas.prepare(keys, |schema, _| {
                let parsed = avro::Schema::parse(schema)?;
                match (parsed.record(parsed.root), single) {
                    (None, Some(column)) => Ok(avro::Plan::of_value(parsed, column)),
                    _ => avro::Plan::of_record(parsed, names, None),
                }
            }),
            Some(BehindIds::Protobuf(schemas)) => {
                schemas.prepare(keys, |schema, _| protobuf::Plan::new(schema, names, None))
            }
        }
    }

    /// Fills the key's columns from a record's key.
    ///
    /// # Errors
    /// There is none, or it is not the input's.
    pub fn fill<'a>(
        &mut self,
        shape: &Shape,
        keys: Option<&'a BinaryArray>,
        record: usize,
        slots: &mut Slots<'a>,
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
        let told = |reason: String| format!("in the record's key: {reason}");
        match (self.said, &mut self.behind_ids) {
            (Some(KeyFormat::Text), _) => {
                let text = Cell::new(Kind::Text, utf8(bytes).map_err(told)?);
                return self.one_value(shape, text, slots).map_err(told);
            }
            (Some(KeyFormat::Json), _) => (),
            (None, _) if wire::id(bytes).is_none() => (),
            (_, Some(schemas)) => return schemas.fill(bytes, &mut self.names, slots, derived).map_err(told),
            // JSON behind an id.
            (_, None) => (),
        }
        self.json(shape, wire::unwrapped(bytes), slots).map_err(told)
    }

    fn json<'a>(&mut self, shape: &Shape, bytes: &'a [u8], slots: &mut Slots<'a>) -> Result<(), String> {
        let text = utf8(bytes)?;
        if text.trim_start().starts_with('{') {
            let broken = |broken: Broken| not_json(text, broken);
            let text = match beside_schema(text).map_err(broken)? {
                Some((_, payload)) if payload.text().starts_with('{') => payload.text(),
                Some((_, payload)) => return self.one_value(shape, payload, slots),
                None => text,
            };
            return self.names.walk(text, slots, &mut |_, cell| cell).map_err(broken);
        }
        // Bare text is a key too: not every producer writes its keys as JSON.
        let value = scan::value(text).unwrap_or(Cell::new(Kind::Text, text));
        self.one_value(shape, value, slots)
    }

    fn one_value<'a>(&self, shape: &Shape, value: Cell<'a>, slots: &mut Slots<'a>) -> Result<(), String> {
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
