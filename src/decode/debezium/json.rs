//! Envelopes in JSON, with or without the schema part, also behind a schema id.

use std::borrow::Cow;

use arrow::array::{Array, BinaryArray};

use super::super::Batch;
use super::super::cell::{Cell, Kind, Meaning};
use super::super::changes::{Changes, Outcome, Shape};
use super::super::coerce::shown;
use super::super::flat::time;
use super::super::json::{not_json, unmarked};
use super::super::keys::Keys;
use super::super::names::{Names, Slots};
use super::super::{scan, wire};
use super::meaning::{Payload, Schemas};
use super::origin::{Origin, Transactions};
use super::{Room, Side, metadata, tell_times};
use crate::registry::Unready;

/// Decodes Debezium's JSON.
#[derive(Debug)]
pub(in crate::decode) struct DebeziumJson {
    after: Names,
    /// The same names; what is ignored there was counted in `after` already.
    before: Names,
    metadata: [(&'static str, Names); 3],
    keys: Keys,
    schemas: Schemas,
    transactions: Transactions,
    /// Values are what they are in JSON: our own reader of PostgreSQL wrote them.
    told: bool,
}

impl DebeziumJson {
    /// For rows of this shape. `told`: see [`Meaning::Untold`]; nothing is left open.
    pub fn new(shape: &Shape, keys: Keys, told: bool) -> Self {
        let columns = || shape.targets.iter().enumerate();
        DebeziumJson {
            after: Names::new(columns(), ""),
            before: Names::new(columns(), ""),
            metadata: metadata(shape),
            keys,
            schemas: Schemas::new(Payload::Envelope),
            transactions: Transactions::default(),
            told,
        }
    }

    /// What values mean without the schema part, by the kind of their source. PostgreSQL's points in time are microseconds by
    /// default; of others they are of the unit that their column's precision needs.
    fn untold(&self, connector: &Cell<'_>) -> Meaning {
        match connector.text() {
            _ if self.told => Meaning::Plain,
            "" | "postgresql" => Meaning::Untold,
            _ => Meaning::UntoldUnit,
        }
    }

    /// Makes the schemas of keys known.
    pub fn prepare(&mut self, shape: &Shape, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        self.keys.prepare(shape, keys)
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>) -> Outcome {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut transactions = Vec::new();
        let mut changes = Changes::new(shape.targets.len(), values.len());
        // First the envelopes: rows that are JSON in a string (MongoDB) are unescaped into them, and cells borrow.
        let mut envelopes: Vec<(usize, Envelope<'_>, Meaning)> = Vec::with_capacity(values.len());
        for record in (0..values.len()).filter(|record| values.is_valid(*record)) {
            match shape.text(wire::unwrapped(values.value(record))).and_then(read) {
                Ok(Record::Change(envelope)) => {
                    let origin = envelope.origin();
                    source_ms[record] = origin.source_ms().or(envelope.ts_ms).or(source_ms[record]);
                    transactions.extend(self.transactions.place(record, envelope.op, &origin));
                    envelopes.push((record, envelope, self.untold(&origin.connector)));
                }
                Ok(Record::Message { ts_ms }) => {
                    source_ms[record] = ts_ms.or(source_ms[record]);
                    changes.count("(debezium message)");
                }
                Ok(Record::Tombstone) => (),
                Err(reason) => changes.reject(record, reason),
            }
        }
        let mut room = Room::new(shape.targets.len());
        let mut beside = Slots::new(shape.targets.len());
        for (record, envelope, untold) in &envelopes {
            let mut change = Change {
                decoder: self,
                shape,
                record: *record,
                envelope,
                untold: *untold,
                keys,
                derived: &mut derived,
                beside: &mut beside,
            };
            if let Err(reason) = room.push(shape, *record, &mut change, &mut changes) {
                changes.reject(*record, reason);
            }
        }
        Outcome {
            typed: changes.typed(shape, &derived),
            source_ms,
            ignored: self.after.take_ignored(),
            transactions,
        }
    }
}

/// One envelope on its way to rows.
struct Change<'s, 'a> {
    decoder: &'s mut DebeziumJson,
    shape: &'s Shape,
    record: usize,
    envelope: &'a Envelope<'a>,
    /// What its values mean where it has no schema part.
    untold: Meaning,
    keys: Option<&'a BinaryArray>,
    derived: &'s mut String,
    /// Room for what columns take from beside the row.
    beside: &'s mut Slots<'a>,
}

impl<'a> super::Envelope<'a> for Change<'_, 'a> {
    fn op(&self) -> &'a str {
        self.envelope.op
    }

    fn has_before(&self) -> bool {
        self.envelope.before.is_some()
    }

    fn fill(&mut self, side: Side, slots: &mut Slots<'a>) -> Result<(), String> {
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
        let meanings = self.envelope.schema.map(|schema| decoder.schemas.of(schema));
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

    fn fill_metadata(&mut self, slots: &mut Slots<'a>) -> Result<(), String> {
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
            tell_times(self.shape, self.beside);
            slots.merge(self.beside);
        }
        Ok(())
    }

    fn has_key(&self) -> bool {
        self.keys.is_some_and(|keys| keys.is_valid(self.record))
    }

    fn fill_key(&mut self, slots: &mut Slots<'a>) -> Result<(), String> {
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

/// A record.
enum Record<'a> {
    /// It changes the input.
    Change(Envelope<'a>),
    /// It tells of something else: logical messages, transactions, heartbeats, schema changes.
    Message {
        /// When.
        ts_ms: Option<i64>,
    },
    /// Its payload is null.
    Tombstone,
}

/// An envelope with an `op`.
struct Envelope<'a> {
    /// The envelope as written.
    text: &'a str,
    op: &'a str,
    /// The row before, a JSON object's text.
    before: Option<Cow<'a, str>>,
    /// The row after, a JSON object's text.
    after: Option<Cow<'a, str>>,
    source: Option<&'a str>,
    transaction: Option<&'a str>,
    /// The schema part as written.
    schema: Option<&'a str>,
    ts_ms: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// Where the change comes from. The transaction's parts are looked for where there is one.
    fn origin(&self) -> Origin<'a> {
        let mut origin = Origin::NONE;
        if let Some(source) = self.source {
            let _ = scan::object(source, |key, value| origin.of_source(key.text(), value));
        }
        if let Some(transaction) = self.transaction {
            let _ = scan::object(transaction, |key, value| origin.of_transaction(key.text(), value));
        }
        origin
    }
}

/// The fields of an object that matter here, as they come.
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
    /// Why the change cannot be applied, as our own reader of PostgreSQL says.
    refused: Option<Cell<'a>>,
    /// Fields that no envelope and no message has.
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

/// Reads a record's value.
fn read(text: &str) -> Result<Record<'_>, String> {
    let text = unmarked(text);
    let outer = fields(text)?;
    let nested = |cell: &Option<Cell<'_>>| cell.is_some_and(|c| c.text().starts_with('{') && c.kind == Kind::Nested);
    match outer.payload {
        Some(payload) if outer.op.is_none() => match payload.kind {
            Kind::Null => Ok(Record::Tombstone),
            Kind::Nested if payload.text().starts_with('{') => {
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
        // A flattened row may have any of these fields too, so only what no row would be made of counts.
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
    if op.kind == Kind::Text && op.text() == "m" {
        return Ok(Record::Message { ts_ms });
    }
    if op.kind != Kind::Text {
        return Err(format!(
            "the Debezium operation {} is not a text; known are c, r, u, d, t and m",
            shown(op.text())
        ));
    }
    let object = |cell: Option<Cell<'a>>| {
        cell.filter(|c| c.kind == Kind::Nested && c.text().starts_with('{'))
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

/// A row: an object, or an object in a string (MongoDB).
fn image<'a>(called: &str, cell: Option<Cell<'a>>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(cell) = cell.filter(Cell::is_value) else {
        return Ok(None);
    };
    let row = match cell.kind {
        Kind::Nested if cell.text().starts_with('{') => Some(Cow::Borrowed(cell.text())),
        Kind::Text | Kind::Escaped => cell.resolved(),
        _ => None,
    };
    row.map(Some)
        .ok_or_else(|| format!("`{called}` is {}; it must be an object or null", shown(cell.text())))
}
