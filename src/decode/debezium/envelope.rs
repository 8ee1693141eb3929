//! What a Debezium record is, before its rows are read.

use std::borrow::Cow;

use super::super::cell::{Cell, Kind};
use super::super::coerce::{number, shown};
use super::super::json::{not_json, unmarked};
use super::super::scan;

/// A record.
pub(super) enum Record<'a> {
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
pub(super) struct Envelope<'a> {
    /// The envelope as written.
    pub text: &'a str,
    pub op: &'a str,
    /// The row before, a JSON object's text.
    pub before: Option<Cow<'a, str>>,
    /// The row after, a JSON object's text.
    pub after: Option<Cow<'a, str>>,
    pub source: Option<&'a str>,
    pub transaction: Option<&'a str>,
    /// The schema part as written.
    pub schema: Option<&'a str>,
    ts_ms: Option<i64>,
}

impl Envelope<'_> {
    /// When the source made the change, Unix milliseconds; some connectors write 0 for "unknown".
    pub fn source_ms(&self) -> Option<i64> {
        let mut at = None;
        if let Some(source) = self.source {
            let _ = scan::object(source, |key, value| {
                if key.text == "ts_ms" {
                    at = time(value);
                }
            });
        }
        at.or(self.ts_ms)
    }
}

fn time(cell: Cell<'_>) -> Option<i64> {
    number::integer(cell.text).ok().filter(|ms| *ms > 0)
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
    /// Fields that no envelope and no message has.
    foreign: bool,
}

fn fields(text: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::default();
    scan::object(text, |key, value| {
        fields.any = true;
        match key.text {
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
            "ts_us" | "ts_ns" => (),
            _ => fields.foreign = true,
        }
    })
    .map_err(|broken| not_json(text, broken))?;
    Ok(fields)
}

/// Reads a record's value.
pub(super) fn read(text: &str) -> Result<Record<'_>, String> {
    let text = unmarked(text);
    let outer = fields(text)?;
    let nested = |cell: &Option<Cell<'_>>| cell.is_some_and(|c| c.text.starts_with('{') && c.kind == Kind::Nested);
    match outer.payload {
        Some(payload) if outer.op.is_none() => match payload.kind {
            Kind::Null => Ok(Record::Tombstone),
            Kind::Nested if payload.text.starts_with('{') => {
                let schema = outer.schema.filter(|_| nested(&outer.schema)).map(|schema| schema.text);
                classify(payload.text, fields(payload.text)?, schema)
            }
            _ => Err(format!(
                "the Debezium payload {} is not an object; it must hold before, after and op",
                shown(payload.text)
            )),
        },
        _ => classify(text, outer, None),
    }
}

fn classify<'a>(text: &'a str, fields: Fields<'a>, schema: Option<&'a str>) -> Result<Record<'a>, String> {
    let ts_ms = fields.ts_ms.and_then(time);
    let Some(op) = fields.op else {
        // A flattened row may have any of these fields too, so only what no row would be made of counts.
        let transaction = fields.status.is_some_and(|s| matches!(s.text, "BEGIN" | "END"));
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
    if op.kind == Kind::Text && op.text == "m" {
        return Ok(Record::Message { ts_ms });
    }
    if op.kind != Kind::Text {
        return Err(format!(
            "the Debezium operation {} is not a text; known are c, r, u, d, t and m",
            shown(op.text)
        ));
    }
    let object = |cell: Option<Cell<'a>>| {
        cell.filter(|c| c.kind == Kind::Nested && c.text.starts_with('{'))
            .map(|c| c.text)
    };
    Ok(Record::Change(Envelope {
        text,
        op: op.text,
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
        Kind::Nested if cell.text.starts_with('{') => Some(Cow::Borrowed(cell.text)),
        Kind::Text | Kind::Escaped => cell.resolved(),
        _ => None,
    };
    row.map(Some)
        .ok_or_else(|| format!("`{called}` is {}; it must be an object or null", shown(cell.text)))
}
