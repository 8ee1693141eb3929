//! Envelopes in JSON, with or without the schema part, also behind a schema id.

use std::borrow::Cow;

use arrow::array::{Array, BinaryArray};

use crate::decode::batch::Batch;
use crate::decode::cell::{Cell, CellKind, Meaning};
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::coerce::shown;
use crate::decode::envelopes::debezium::meaning::{Payload, SchemaCache};
use crate::decode::envelopes::debezium::origin::{SourceBlock, TransactionBuilder};
use crate::decode::envelopes::debezium::{RowBuffers, Side, metadata, set_time_units};
use crate::decode::envelopes::flat::time;
use crate::decode::formats::json_text::{not_json, unmarked};
use crate::decode::formats::keys::KeyDecoder;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::scan;
use crate::decode::schemas::wire;
use crate::registry::Unready;

/// Decodes Debezium's JSON envelopes.
#[derive(Debug)]
pub(in crate::decode) struct DebeziumJson {
    after: FieldTree,
    /// For the same names; ignored fields are already counted in `after`.
    before: FieldTree,
    metadata: [(&'static str, FieldTree); 3],
    keys: KeyDecoder,
    schemas: SchemaCache,
    transactions: TransactionBuilder,
    /// Whether values have no hidden meaning, because our own PostgreSQL reader wrote them.
    is_unambiguous: bool,
}

impl DebeziumJson {
    /// A decoder for rows of this shape. `is_unambiguous` means that nothing is ambiguous in the sense of
    /// [`Meaning::Untold`].
    pub fn new(shape: &InputShape, keys: KeyDecoder, is_unambiguous: bool) -> Self {
        let columns = || shape.targets.iter().enumerate();
        DebeziumJson {
            after: FieldTree::new(columns(), ""),
            before: FieldTree::new(columns(), ""),
            metadata: metadata(shape),
            keys,
            schemas: SchemaCache::new(Payload::Envelope),
            transactions: TransactionBuilder::default(),
            is_unambiguous,
        }
    }

    /// The meaning of values without the schema part, depending on the source. Points in time from PostgreSQL count
    /// microseconds by default; for other sources the unit depends on the column's precision.
    fn untold(&self, connector: &Cell<'_>) -> Meaning {
        match connector.text() {
            _ if self.is_unambiguous => Meaning::Plain,
            "" | "postgresql" => Meaning::Untold,
            _ => Meaning::UntoldUnit,
        }
    }

    /// Loads the schemas of keys.
    pub fn prepare(&mut self, shape: &InputShape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        self.keys.prepare(shape, keys)
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>) -> DecodedBatch {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut transactions = Vec::new();
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        // All envelopes are parsed first: rows that are JSON in a string (MongoDB) are unescaped into them, and cells
        // borrow from them.
        let mut envelopes: Vec<(usize, Envelope<'_>, Meaning)> = Vec::with_capacity(values.len());
        let known = self.schemas.newest().map(str::to_string);
        let valid = (0..values.len()).filter(|record| values.is_valid(*record));
        changes.each_record(valid, |record, changes| {
            let text = shape.text(wire::unwrapped(values.value(record)))?;
            match read(text, known.as_deref())? {
                Record::Change(envelope) => {
                    let origin = envelope.origin();
                    source_ms[record] = origin.source_ms().or(envelope.ts_ms).or(source_ms[record]);
                    transactions.extend(self.transactions.place(record, envelope.op, &origin));
                    envelopes.push((record, envelope, self.untold(&origin.connector)));
                }
                Record::Message { ts_ms } => {
                    source_ms[record] = ts_ms.or(source_ms[record]);
                    changes.count("(debezium message)");
                }
                Record::Tombstone => (),
            }
            Ok(())
        });
        let mut room = RowBuffers::new(shape.targets.len());
        let mut beside = RecordCells::new(shape.targets.len());
        let mut parsed = envelopes.iter();
        changes.each_record(envelopes.iter().map(|(record, ..)| *record), |record, changes| {
            let (_, envelope, untold) = parsed.next().expect("there is an envelope for each of these records");
            let mut change = Change {
                decoder: self,
                shape,
                record,
                envelope,
                untold: *untold,
                keys,
                derived: &mut derived,
                beside: &mut beside,
            };
            room.push(shape, record, &mut change, changes)
        });
        DecodedBatch {
            typed: changes.typed(shape, &derived),
            source_ms,
            ignored: self.after.take_ignored(),
            transactions,
        }
    }
}

/// An envelope that is being turned into rows.
struct Change<'s, 'a> {
    decoder: &'s mut DebeziumJson,
    shape: &'s InputShape,
    record: usize,
    envelope: &'a Envelope<'a>,
    /// The meaning of its values if it has no schema part.
    untold: Meaning,
    keys: Option<&'a BinaryArray>,
    derived: &'s mut String,
    /// Buffer for the values that columns take from outside the row.
    beside: &'s mut RecordCells<'a>,
}

impl<'a> crate::decode::envelopes::debezium::Envelope<'a> for Change<'_, 'a> {
    fn op(&self) -> &'a str {
        self.envelope.op
    }

    fn has_before(&self) -> bool {
        self.envelope.before.is_some()
    }

    fn fill(&mut self, side: Side, slots: &mut RecordCells<'a>) -> Result<(), String> {
        let decoder = &mut *self.decoder;
        let (image, names, called) = match side {
            Side::After => (&self.envelope.after, &mut decoder.after, "after"),
            Side::Before => (&self.envelope.before, &mut decoder.before, "before"),
            Side::Deleted => (&self.envelope.before, &mut decoder.after, "before"),
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
        let meanings = self.envelope.schema.map(|schema| decoder.schemas.meanings(schema));
        let untold = (self.untold, 0);
        let mut dress = |key: &str, cell: Cell<'a>| {
            let (meaning, scale) = match meanings {
                None => untold,
                Some(meanings) => meanings.get(key).copied().unwrap_or_default(),
            };
            Cell { meaning, scale, ..cell }
        };
        names
            .walk(image, slots, &mut dress)
            .map_err(|broken| format!("in `{called}`: {}", not_json(image, broken)))?;
        self.shape.placeholder.mark(&mut slots.cells, "");
        self.fill_metadata(slots)
    }

    fn fill_metadata(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String> {
        for (part, names) in self.decoder.metadata.iter_mut().filter(|(_, names)| !names.is_empty()) {
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
            set_time_units(self.shape, self.beside);
            slots.merge(self.beside);
        }
        Ok(())
    }

    fn has_key(&self) -> bool {
        self.keys.is_some_and(|keys| keys.is_valid(self.record))
    }

    fn fill_key(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String> {
        let Change {
            shape, keys, record, ..
        } = *self;
        self.decoder.keys.fill(shape, keys, record, slots, self.derived)?;
        for column in &shape.key {
            let cell = &mut slots.cells[*column];
            if cell.meaning == Meaning::Plain {
                cell.meaning = self.untold;
            }
        }
        Ok(())
    }

    fn derived(&self) -> &str {
        self.derived
    }
}

/// A parsed record.
enum Record<'a> {
    /// It changes the input.
    Change(Envelope<'a>),
    /// It reports something else: logical messages, transactions, heartbeats, schema changes.
    Message {
        /// Its timestamp.
        ts_ms: Option<i64>,
    },
    /// Its payload is null, or it is the text `null`, as dumps of topics have it.
    Tombstone,
}

/// An envelope with an `op`.
struct Envelope<'a> {
    /// The envelope's JSON text.
    text: &'a str,
    op: &'a str,
    /// The old row, as the text of a JSON object.
    before: Option<Cow<'a, str>>,
    /// The new row, as the text of a JSON object.
    after: Option<Cow<'a, str>>,
    source: Option<&'a str>,
    transaction: Option<&'a str>,
    /// The schema part's JSON text.
    schema: Option<&'a str>,
    ts_ms: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// Where the change comes from. The transaction is parsed only if there is one.
    fn origin(&self) -> SourceBlock<'a> {
        let mut origin = SourceBlock::NONE;
        if let Some(source) = self.source {
            let _ = scan::object(source, |key, value| origin.of_source(key.text(), value));
        }
        if let Some(transaction) = self.transaction {
            let _ = scan::object(transaction, |key, value| origin.of_transaction(key.text(), value));
        }
        origin
    }
}

/// The relevant fields of an object.
#[derive(Default)]
struct Fields<'a> {
    any: bool,
    schema: Option<Cell<'a>>,
    payload: Option<Cell<'a>>,
    op: Option<Cell<'a>>,
    before: Option<Cell<'a>>,
    after: Option<Cell<'a>>,
    source: Option<Cell<'a>>,
    transaction: Option<Cell<'a>>,
    ts_ms: Option<Cell<'a>>,
    status: Option<Cell<'a>>,
    schema_change: bool,
    /// Why the change cannot be applied, as stated by our own PostgreSQL reader.
    refused: Option<Cell<'a>>,
    /// Whether there are fields that neither an envelope nor a message has.
    foreign: bool,
}

fn fields(text: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::default();
    scan::object(text, |key, value| {
        fields.any = true;
        match key.text() {
            "schema" => fields.schema = Some(value),
            "payload" => fields.payload = Some(value),
            "op" => fields.op = Some(value),
            "before" => fields.before = Some(value),
            "after" => fields.after = Some(value),
            "source" => fields.source = Some(value),
            "transaction" => fields.transaction = Some(value),
            "ts_ms" => fields.ts_ms = Some(value),
            "status" => fields.status = Some(value),
            "ddl" | "tableChanges" => fields.schema_change = true,
            "refused" => fields.refused = Some(value),
            "ts_us" | "ts_ns" => (),
            _ => fields.foreign = true,
        }
    })
    .map_err(|broken| not_json(text, broken))?;
    Ok(fields)
}

/// Splits a record into its schema part and its payload, if the schema part equals `known`, which has been parsed
/// before, and the record consists of these two alone. A schema part is several times as long as its payload.
fn behind_schema<'a>(text: &'a str, known: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.strip_prefix("{\"schema\":")?;
    let (schema, rest) = rest.split_at_checked(known.len())?;
    let payload = rest.strip_prefix(",\"payload\":")?.strip_suffix('}')?;
    (schema == known && payload.starts_with('{')).then_some((schema, payload))
}

/// Parses a record's value. `known` is the text of a schema part that earlier records had.
fn read<'a>(text: &'a str, known: Option<&str>) -> Result<Record<'a>, String> {
    let text = unmarked(text);
    if let Some((schema, payload)) = known.and_then(|known| behind_schema(text, known))
        && let Ok(inner) = fields(payload)
    {
        return classify(payload, inner, Some(schema));
    }
    if text.trim_matches([' ', '\t', '\n', '\r']) == "null" {
        return Ok(Record::Tombstone);
    }
    let outer = fields(text)?;
    let nested =
        |cell: &Option<Cell<'_>>| cell.is_some_and(|c| c.text().starts_with('{') && c.kind == CellKind::Nested);
    match outer.payload {
        Some(payload) if outer.op.is_none() => match payload.kind {
            CellKind::Null => Ok(Record::Tombstone),
            CellKind::Nested if payload.text().starts_with('{') => {
                let schema = outer
                    .schema
                    .filter(|_| nested(&outer.schema))
                    .map(|schema| schema.text());
                classify(payload.text(), fields(payload.text())?, schema)
            }
            _ => Err(format!(
                "the Debezium payload {} is not an object; it must hold before, after and op",
                shown(payload.text())
            )),
        },
        _ => classify(text, outer, None),
    }
}

fn classify<'a>(text: &'a str, fields: Fields<'a>, schema: Option<&'a str>) -> Result<Record<'a>, String> {
    let ts_ms = fields.ts_ms.as_ref().and_then(time);
    let Some(op) = fields.op else {
        // A flattened row may have these fields as well, so only a combination counts that no row would consist of.
        let transaction = fields.status.is_some_and(|s| matches!(s.text(), "BEGIN" | "END"));
        let heartbeat = fields.ts_ms.is_some() && !fields.foreign && fields.before.is_none() && fields.after.is_none();
        if transaction || heartbeat || fields.schema_change {
            return Ok(Record::Message { ts_ms });
        }
        let what = if fields.any { "has no field \"op\"" } else { "is empty" };
        return Err(format!(
            "the record is no Debezium envelope, it {what}: {}; for flattened rows set the feed's format to \"json\"",
            shown(text)
        ));
    };
    if let Some(reason) = fields.refused {
        return Err(reason.resolved().unwrap_or_default().into_owned());
    }
    if op.kind == CellKind::Text && op.text() == "m" {
        return Ok(Record::Message { ts_ms });
    }
    if op.kind != CellKind::Text {
        return Err(format!(
            "the Debezium operation {} is not a text; known are c, r, u, d, t and m",
            shown(op.text())
        ));
    }
    let object = |cell: Option<Cell<'a>>| {
        cell.filter(|c| c.kind == CellKind::Nested && c.text().starts_with('{'))
            .map(|c| c.text())
    };
    Ok(Record::Change(Envelope {
        text,
        op: op.text(),
        before: image("before", fields.before)?,
        after: image("after", fields.after)?,
        source: object(fields.source),
        transaction: object(fields.transaction),
        schema,
        ts_ms,
    }))
}

/// A row image: an object, or an object in a string (MongoDB).
fn image<'a>(called: &str, cell: Option<Cell<'a>>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(cell) = cell.filter(Cell::is_value) else {
        return Ok(None);
    };
    let row = match cell.kind {
        CellKind::Nested if cell.text().starts_with('{') => Some(Cow::Borrowed(cell.text())),
        CellKind::Text | CellKind::Escaped => cell.resolved(),
        _ => None,
    };
    row.map(Some)
        .ok_or_else(|| format!("`{called}` is {}; it must be an object or null", shown(cell.text())))
}
