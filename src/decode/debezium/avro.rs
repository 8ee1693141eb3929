//! Envelopes in Avro behind a schema id. What each part of an envelope is, its schema says once; a record's parts are
//! found by going past them, and only those are read that its operation needs.

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use super::super::Batch;
use super::super::avro::{Cursor, Form, Plan, Schema, Step, Walk, not_avro};
use super::super::changes::{Changes, Outcome, Shape};
use super::super::coerce::shown;
use super::super::flat::time;
use super::super::json::not_json;
use super::super::keys::Keys;
use super::super::names::{Names, Slots};
use super::super::records::summed;
use super::super::schemas::Schemas;
use super::origin::{Origin, Transactions};
use super::{Room, Side, metadata, tell_times};
use crate::registry::{self, Unready};

/// Decodes Debezium's Avro.
#[derive(Debug)]
pub(in crate::decode) struct DebeziumAvro {
    rows: Names,
    metadata: [(&'static str, Names); 3],
    /// What [`Origin`] is made of.
    source: Names,
    transaction: Names,
    schemas: Schemas<EnvelopePlan>,
    keys: Keys,
    transactions: Transactions,
}

/// Fields of `source` and `transaction` that [`Origin`] is made of, in the order of their slots.
const SOURCE: [&str; 6] = ["ts_ms", "connector", "db", "schema", "table", "collection"];
const TRANSACTION: [&str; 3] = ["id", "total_order", "data_collection_order"];

/// How envelopes of one schema are read.
#[derive(Debug)]
pub(in crate::decode) struct EnvelopePlan {
    plan: Plan,
    /// Type and role of the record's fields.
    fields: Vec<(usize, Role)>,
    /// What the record is where it has no `op`.
    message: Option<Message>,
    after: Image,
    before: Image,
    /// Of parts beside the rows, by [`metadata`].
    beside: [Step; 3],
    source: Step,
    transaction: Step,
}

/// A row image's type.
#[derive(Debug)]
enum Image {
    None,
    /// A record.
    Row(Step),
    /// A document in a text (MongoDB).
    Text,
}

/// What a record without `op` is, by its schema.
#[derive(Clone, Copy, Debug)]
enum Message {
    Beside,
    Stranger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Before,
    After,
    Source,
    Transaction,
    Op,
    Time,
    Other,
}

/// Where the parts of a record are.
struct Parts<'a> {
    whole: Cursor<'a>,
    before: Option<(usize, Cursor<'a>)>,
    after: Option<(usize, Cursor<'a>)>,
    source: Option<(usize, Cursor<'a>)>,
    transaction: Option<(usize, Cursor<'a>)>,
    op: &'a str,
    ts_ms: Option<i64>,
}

impl EnvelopePlan {
    fn new(
        schema: &registry::Schema,
        newer: Option<&registry::Schema>,
        rows: &Names,
        beside: &[(&'static str, Names); 3],
        origin: [&Names; 2],
    ) -> Result<Self, String> {
        let newer = newer.and_then(|newer| Schema::parse(newer).ok());
        let schema = Schema::parse(schema)?;
        let Some(envelope) = schema.record(schema.root) else {
            return Err("its values are no records, let alone Debezium's envelopes".to_string());
        };
        let fields: Vec<(usize, Role)> = envelope.iter().map(|field| (field.schema, role(&field.name))).collect();
        let has = |name: &str| envelope.iter().any(|field| &*field.name == name);
        // A flattened row may have any of these fields too, so only what no row would be made of counts.
        let heartbeat = has("ts_ms") && envelope.iter().all(|field| field.name.starts_with("ts_"));
        let transaction = has("status") && has("event_count");
        let message = if has("op") {
            None
        } else if heartbeat || transaction || has("ddl") || has("tableChanges") {
            Some(Message::Beside)
        } else {
            Some(Message::Stranger)
        };
        let of_role = |role: Role| fields.iter().find(|(_, of)| *of == role).map(|(index, _)| *index);
        let places = [Role::Before, Role::After, Role::Source, Role::Transaction].map(of_role);
        let root = schema.root;
        let [before, after, source, transaction] = places;
        let text = |index: Option<usize>| index.filter(|index| schema.record(*index).is_none());
        let (before_text, after_text) = (text(before).is_some(), text(after).is_some());
        let newer_row = newer.as_ref().and_then(|newer| {
            let envelope = newer.record(newer.root)?;
            let after = envelope.iter().find(|field| &*field.name == "after")?;
            Some((newer, newer.record(after.schema)?))
        });
        let mut plan = Plan::empty(schema);
        let mut part = |index: Option<usize>, names: &Names| match index {
            Some(index) if !names.is_empty() => plan.part(index, names, None),
            _ => Step::Skip,
        };
        let beside = [
            part(source, &beside[0].1),
            part(transaction, &beside[1].1),
            part(Some(root), &beside[2].1),
        ];
        let (source, transaction) = (part(source, origin[0]), part(transaction, origin[1]));
        let mut image = |index: Option<usize>, text: bool| match index {
            None => Image::None,
            Some(_) if text => Image::Text,
            Some(index) => Image::Row(plan.part(index, rows, newer_row)),
        };
        Ok(EnvelopePlan {
            after: image(after, after_text),
            before: image(before, before_text),
            plan,
            fields,
            message,
            beside,
            source,
            transaction,
        })
    }

    /// Finds the parts of a record.
    fn parts<'a>(&self, bytes: &'a [u8]) -> Result<Parts<'a>, String> {
        let schema = &self.plan.schema;
        let mut cursor = Cursor::new(bytes);
        let mut parts = Parts {
            whole: cursor,
            before: None,
            after: None,
            source: None,
            transaction: None,
            op: "",
            ts_ms: None,
        };
        let bad = not_avro;
        let mut unwanted = String::new();
        for (index, role) in &self.fields {
            let start = cursor;
            match role {
                Role::Op | Role::Time => {
                    let cell = cursor.cell(schema, *index, &mut unwanted).map_err(bad)?;
                    if *role == Role::Time {
                        parts.ts_ms = time(&cell);
                    } else {
                        parts.op = cell.text();
                    }
                    continue;
                }
                _ => cursor.skip(schema, *index, 0).map_err(bad)?,
            }
            // A union's null is no part.
            let present = match &schema.of(*index).form {
                Form::Union(branches) => {
                    let branch = start.clone().branch(branches.len()).map_err(bad)?;
                    !matches!(schema.of(branches[branch]).form, Form::Null)
                }
                form => !matches!(form, Form::Null),
            };
            let part = present.then_some((*index, start));
            match role {
                Role::Before => parts.before = part,
                Role::After => parts.after = part,
                Role::Source => parts.source = part,
                Role::Transaction => parts.transaction = part,
                _ => (),
            }
        }
        cursor.end().map_err(bad)?;
        Ok(parts)
    }
}

fn role(field: &str) -> Role {
    match field {
        "before" => Role::Before,
        "after" => Role::After,
        "source" => Role::Source,
        "transaction" => Role::Transaction,
        "op" => Role::Op,
        "ts_ms" => Role::Time,
        _ => Role::Other,
    }
}

impl DebeziumAvro {
    /// For rows of this shape.
    pub fn new(shape: &Shape, schemas: Schemas<EnvelopePlan>, keys: Keys) -> Self {
        let watching = |fields: &[&str]| {
            let mut names = Names::new([], "");
            fields
                .iter()
                .enumerate()
                .for_each(|(slot, field)| names.watch(slot, field));
            names
        };
        DebeziumAvro {
            rows: Names::new(shape.targets.iter().enumerate(), ""),
            metadata: metadata(shape),
            source: watching(&SOURCE),
            transaction: watching(&TRANSACTION),
            schemas,
            keys,
            transactions: Transactions::default(),
        }
    }

    /// Makes the schemas of these records known.
    pub fn prepare(&mut self, shape: &Shape, values: &BinaryArray, keys: Option<&BinaryArray>) -> Result<(), Unready> {
        let (rows, metadata, origin) = (&self.rows, &self.metadata, [&self.source, &self.transaction]);
        self.schemas.prepare(values, |schema, newer| {
            EnvelopePlan::new(schema, newer, rows, metadata, origin)
        })?;
        self.keys.prepare(shape, keys)
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>) -> Outcome {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut transactions = Vec::new();
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let mut counts: HashMap<u32, u64> = HashMap::new();
        let mut room = Room::new(shape.targets.len());
        let mut beside = Slots::new(shape.targets.len());
        let mut facts = Slots::new(SOURCE.len());
        for record in (0..values.len()).filter(|record| values.is_valid(*record)) {
            let read = self.schemas.split(values.value(record));
            let read = read.and_then(|(id, plan, bytes)| Ok((id, plan.clone(), plan.parts(bytes)?)));
            let (id, plan, parts) = match read {
                Ok(read) => read,
                Err(reason) => {
                    changes.reject(record, reason);
                    continue;
                }
            };
            source_ms[record] = parts.ts_ms.or(source_ms[record]);
            match plan.message {
                Some(Message::Beside) => {
                    changes.count("(debezium message)");
                    continue;
                }
                Some(Message::Stranger) => {
                    changes.reject(
                        record,
                        "the record is no Debezium envelope, its schema has no field \"op\"; for flattened rows set the \
                         feed's format to \"avro\""
                            .to_string(),
                    );
                    continue;
                }
                None if parts.op == "m" => {
                    changes.count("(debezium message)");
                    continue;
                }
                None => (),
            }
            let mut change = Change {
                plan: &plan,
                parts: &parts,
                rows: &mut self.rows,
                keys: &mut self.keys,
                shape,
                record,
                record_keys: keys,
                derived: &mut derived,
                beside: &mut beside,
            };
            let origin = change.origin(&mut facts);
            let pushed = origin.and_then(|origin| {
                source_ms[record] = origin.source_ms().or(source_ms[record]);
                transactions.extend(self.transactions.place(record, change.parts.op, &origin));
                room.push(shape, record, &mut change, &mut changes)
            });
            match pushed {
                Ok(()) if parts.op != "t" => *counts.entry(id).or_default() += 1,
                Ok(()) => (),
                Err(reason) => changes.reject(record, reason),
            }
        }
        let typed = changes.typed(shape, &derived);
        let typed = typed.naming(|record| self.schemas.name(values, record));
        let mut ignored = self.rows.take_ignored();
        for (id, count) in counts {
            if let Ok(plan) = self.schemas.of(id)
                && let Image::Row(step) = &plan.after
            {
                plan.plan
                    .ignored_in(step, &mut |path| ignored.push((path.to_string(), count)));
            }
        }
        Outcome {
            typed,
            source_ms,
            ignored: summed(ignored),
            transactions,
        }
    }
}

/// One envelope on its way to rows.
struct Change<'s, 'a> {
    plan: &'s EnvelopePlan,
    parts: &'s Parts<'a>,
    rows: &'s mut Names,
    keys: &'s mut Keys,
    shape: &'s Shape,
    record: usize,
    record_keys: Option<&'a BinaryArray>,
    derived: &'s mut String,
    /// Room for what columns take from beside the row.
    beside: &'s mut Slots<'a>,
}

impl<'a> Change<'_, 'a> {
    /// Reads a part as its step says.
    fn part(&mut self, step: &Step, part: Option<(usize, Cursor<'a>)>, slots: &mut Slots<'a>) -> Result<(), String> {
        let Some((index, mut cursor)) = part.filter(|_| !matches!(step, Step::Skip)) else {
            return Ok(());
        };
        let mut walk = Walk {
            slots,
            derived: self.derived,
        };
        let walked = self.plan.plan.walk(&mut cursor, index, step, &mut walk);
        walked.map_err(not_avro)
    }

    fn origin(&mut self, facts: &mut Slots<'a>) -> Result<Origin<'a>, String> {
        let mut origin = Origin::NONE;
        let (source, transaction) = (self.parts.source, self.parts.transaction);
        if source.is_some() {
            facts.clear();
            self.part(&self.plan.source, source, facts)?;
            for (field, cell) in SOURCE.iter().zip(&facts.cells) {
                origin.of_source(field, *cell);
            }
        }
        if transaction.is_some() {
            facts.clear();
            self.part(&self.plan.transaction, transaction, facts)?;
            for (field, cell) in TRANSACTION.iter().zip(&facts.cells) {
                origin.of_transaction(field, *cell);
            }
        }
        Ok(origin)
    }
}

impl<'a> super::Envelope<'a> for Change<'_, 'a> {
    fn op(&self) -> &'a str {
        self.parts.op
    }

    fn has_before(&self) -> bool {
        self.parts.before.is_some()
    }

    fn fill(&mut self, side: Side, slots: &mut Slots<'a>) -> Result<(), String> {
        let plan = self.plan;
        let (part, image, called) = match side {
            Side::After => (self.parts.after, &plan.after, "after"),
            Side::Before | Side::Deleted => (self.parts.before, &plan.before, "before"),
        };
        let Some((index, mut cursor)) = part else {
            let op = shown(self.parts.op);
            return Err(format!(
                "the Debezium operation {op} has no `{called}`; it must hold the row"
            ));
        };
        match image {
            Image::None => (),
            Image::Row(step) => self.part(step, part, slots)?,
            Image::Text => {
                let cell = cursor.cell(&plan.plan.schema, index, self.derived).map_err(not_avro)?;
                let walked = self.rows.walk(cell.text(), slots, &mut |_, cell| cell);
                walked.map_err(|broken| format!("in `{called}`: {}", not_json(cell.text(), broken)))?;
            }
        }
        self.shape.placeholder.mark(&mut slots.cells, self.derived);
        self.fill_metadata(slots)
    }

    fn fill_metadata(&mut self, slots: &mut Slots<'a>) -> Result<(), String> {
        let root = (self.plan.plan.schema.root, self.parts.whole);
        let parts = [self.parts.source, self.parts.transaction, Some(root)];
        for (step, part) in self.plan.beside.iter().zip(parts) {
            if matches!(step, Step::Skip) {
                continue;
            }
            let mut beside = std::mem::replace(self.beside, Slots::new(0));
            beside.clear();
            let read = self.part(step, part, &mut beside);
            tell_times(self.shape, &mut beside);
            slots.merge(&beside);
            *self.beside = beside;
            read?;
        }
        Ok(())
    }

    fn has_key(&self) -> bool {
        self.record_keys.is_some_and(|keys| keys.is_valid(self.record))
    }

    fn fill_key(&mut self, slots: &mut Slots<'a>) -> Result<(), String> {
        self.keys
            .fill(self.shape, self.record_keys, self.record, slots, self.derived)
    }

    fn derived(&self) -> &str {
        self.derived
    }
}
