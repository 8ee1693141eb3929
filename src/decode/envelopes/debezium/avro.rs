//! Envelopes in Avro behind a schema id. The roles of an envelope's fields are determined once per schema. A record's
//! parts are located by skipping over them, and only those are decoded that the operation needs.

use arrow::array::{Array, BinaryArray};
use hashbrown::HashMap;

use crate::decode::batch::Batch;
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::coerce::shown;
use crate::decode::envelopes::debezium::origin::{SourceBlock, TransactionBuilder};
use crate::decode::envelopes::debezium::{RowBuffers, Side, metadata, set_time_units};
use crate::decode::envelopes::flat::time;
use crate::decode::formats::avro::{AvroForm, AvroPlan, AvroSchema, AvroStep, Cursor, WalkOutput, not_avro};
use crate::decode::formats::json_text::not_json;
use crate::decode::formats::keys::KeyDecoder;
use crate::decode::formats::records::summed;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::plans::SchemaPlans;
use crate::registry::{self, Unready};

/// Decodes Debezium's Avro envelopes.
#[derive(Debug)]
pub(in crate::decode) struct DebeziumAvro {
    rows: FieldTree,
    metadata: [(&'static str, FieldTree); 3],
    /// The fields that make up a [`SourceBlock`]; the next: those of `transaction`.
    source: FieldTree,
    transaction: FieldTree,
    schemas: SchemaPlans<EnvelopePlan>,
    keys: KeyDecoder,
    transactions: TransactionBuilder,
}

/// Why a record is refused whose schema is no envelope's.
const STRANGER: &str = "the record is no Debezium envelope, its schema has no field \"op\"; for flattened rows set the feed's \
                        format to \"avro\"";

/// The fields of `source` and `transaction` that make up a [`SourceBlock`], in the order of their slots.
const SOURCE: [&str; 6] = ["ts_ms", "connector", "db", "schema", "table", "collection"];
const TRANSACTION: [&str; 3] = ["id", "total_order", "data_collection_order"];

/// How envelopes of one schema are decoded.
#[derive(Debug)]
pub(in crate::decode) struct EnvelopePlan {
    plan: AvroPlan,
    /// The type and the role of each field of the record.
    fields: Vec<(usize, FieldRole)>,
    /// The kind of record, if the schema has no `op`.
    message: Option<Message>,
    after: ImageStep,
    before: ImageStep,
    /// For each part of [`metadata`], how it is read.
    beside: [AvroStep; 3],
    source: AvroStep,
    transaction: AvroStep,
}

/// The type of a row image.
#[derive(Debug)]
enum ImageStep {
    None,
    /// A record.
    Row(AvroStep),
    /// A document in a string (MongoDB).
    Text,
}

/// The kind of a record without `op`, by its schema.
#[derive(Clone, Copy, Debug)]
enum Message {
    Beside,
    Stranger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldRole {
    Before,
    After,
    Source,
    Transaction,
    Op,
    Time,
    Other,
}

/// The positions of a record's parts.
struct EnvelopeParts<'a> {
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
        schema: &registry::RegisteredSchema,
        newer: Option<&registry::RegisteredSchema>,
        rows: &FieldTree,
        beside: &[(&'static str, FieldTree); 3],
        origin: [&FieldTree; 2],
    ) -> Result<Self, String> {
        let newer = newer.and_then(|newer| AvroSchema::parse(newer).ok());
        let schema = AvroSchema::parse(schema)?;
        let Some(envelope) = schema.record(schema.root) else {
            return Err("its values are no records, let alone Debezium's envelopes".to_string());
        };
        let fields: Vec<(usize, FieldRole)> = envelope.iter().map(|field| (field.schema, role(&field.name))).collect();
        let has = |name: &str| envelope.iter().any(|field| &*field.name == name);
        // A flattened row may have these fields as well, so only a combination counts that no row would consist of.
        let heartbeat = has("ts_ms") && envelope.iter().all(|field| field.name.starts_with("ts_"));
        let transaction = has("status") && has("event_count");
        let message = if has("op") {
            None
        } else if heartbeat || transaction || has("ddl") || has("tableChanges") {
            Some(Message::Beside)
        } else {
            Some(Message::Stranger)
        };
        let of_role = |role: FieldRole| fields.iter().find(|(_, of)| *of == role).map(|(index, _)| *index);
        let places = [
            FieldRole::Before,
            FieldRole::After,
            FieldRole::Source,
            FieldRole::Transaction,
        ]
        .map(of_role);
        let root = schema.root;
        let [before, after, source, transaction] = places;
        let text = |index: Option<usize>| index.filter(|index| schema.record(*index).is_none());
        let (before_text, after_text) = (text(before).is_some(), text(after).is_some());
        let newer_row = newer.as_ref().and_then(|newer| {
            let envelope = newer.record(newer.root)?;
            let after = envelope.iter().find(|field| &*field.name == "after")?;
            Some((newer, newer.record(after.schema)?))
        });
        let mut plan = AvroPlan::empty(schema);
        let mut part = |index: Option<usize>, names: &FieldTree| match index {
            Some(index) if !names.is_empty() => plan.part(index, names, None),
            _ => AvroStep::Skip,
        };
        let beside = [
            part(source, &beside[0].1),
            part(transaction, &beside[1].1),
            part(Some(root), &beside[2].1),
        ];
        let (source, transaction) = (part(source, origin[0]), part(transaction, origin[1]));
        let mut image = |index: Option<usize>, text: bool| match index {
            None => ImageStep::None,
            Some(_) if text => ImageStep::Text,
            Some(index) => ImageStep::Row(plan.part(index, rows, newer_row)),
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

    /// Locates the parts of a record.
    fn parts<'a>(&self, bytes: &'a [u8]) -> Result<EnvelopeParts<'a>, String> {
        let schema = &self.plan.schema;
        let mut cursor = Cursor::new(bytes);
        let mut parts = EnvelopeParts {
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
                FieldRole::Op | FieldRole::Time => {
                    let cell = cursor.cell(schema, *index, &mut unwanted).map_err(bad)?;
                    if *role == FieldRole::Time {
                        parts.ts_ms = time(&cell);
                    } else {
                        parts.op = cell.text();
                    }
                    continue;
                }
                _ => cursor.skip(schema, *index, 0).map_err(bad)?,
            }
            // The null of a union means that the part is missing.
            let present = match &schema.type_at(*index).form {
                AvroForm::Union(branches) => {
                    let branch = start.clone().branch(branches.len()).map_err(bad)?;
                    !matches!(schema.type_at(branches[branch]).form, AvroForm::Null)
                }
                form => !matches!(form, AvroForm::Null),
            };
            let part = present.then_some((*index, start));
            match role {
                FieldRole::Before => parts.before = part,
                FieldRole::After => parts.after = part,
                FieldRole::Source => parts.source = part,
                FieldRole::Transaction => parts.transaction = part,
                _ => (),
            }
        }
        cursor.end().map_err(bad)?;
        Ok(parts)
    }
}

fn role(field: &str) -> FieldRole {
    match field {
        "before" => FieldRole::Before,
        "after" => FieldRole::After,
        "source" => FieldRole::Source,
        "transaction" => FieldRole::Transaction,
        "op" => FieldRole::Op,
        "ts_ms" => FieldRole::Time,
        _ => FieldRole::Other,
    }
}

impl DebeziumAvro {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape, schemas: SchemaPlans<EnvelopePlan>, keys: KeyDecoder) -> Self {
        let watching = |fields: &[&str]| {
            let mut names = FieldTree::new([], "");
            fields
                .iter()
                .enumerate()
                .for_each(|(slot, field)| names.watch(slot, field));
            names
        };
        DebeziumAvro {
            rows: FieldTree::new(shape.targets.iter().enumerate(), ""),
            metadata: metadata(shape),
            source: watching(&SOURCE),
            transaction: watching(&TRANSACTION),
            schemas,
            keys,
            transactions: TransactionBuilder::default(),
        }
    }

    /// Loads the schemas of these records.
    pub fn prepare(
        &mut self,
        shape: &InputShape,
        values: &BinaryArray,
        keys: Option<&BinaryArray>,
    ) -> Result<(), Unready> {
        let (rows, metadata, origin) = (&self.rows, &self.metadata, [&self.source, &self.transaction]);
        self.schemas.prepare(values, |schema, newer| {
            EnvelopePlan::new(schema, newer, rows, metadata, origin)
        })?;
        self.keys.prepare(shape, keys)
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>) -> DecodedBatch {
        let Batch { values, keys, .. } = *batch;
        let mut source_ms = batch.times();
        let mut derived = String::new();
        let mut transactions = Vec::new();
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        let mut counts: HashMap<u32, u64> = HashMap::new();
        let mut room = RowBuffers::new(shape.targets.len());
        let mut beside = RecordCells::new(shape.targets.len());
        let mut facts = RecordCells::new(SOURCE.len());
        let valid = (0..values.len()).filter(|record| values.is_valid(*record));
        changes.each_record(valid, |record, changes| {
            let (id, plan, bytes) = self.schemas.split(values.value(record))?;
            let plan = plan.clone();
            let parts = plan.parts(bytes)?;
            source_ms[record] = parts.ts_ms.or(source_ms[record]);
            if matches!(plan.message, Some(Message::Stranger)) {
                return Err(STRANGER.to_string());
            }
            if plan.message.is_some() || parts.op == "m" {
                changes.count("(debezium message)");
                return Ok(());
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
            let origin = change.origin(&mut facts)?;
            source_ms[record] = origin.source_ms().or(source_ms[record]);
            transactions.extend(self.transactions.place(record, change.parts.op, &origin));
            room.push(shape, record, &mut change, changes)?;
            if parts.op != "t" {
                *counts.entry(id).or_default() += 1;
            }
            Ok(())
        });
        let typed = changes.typed(shape, &derived);
        let typed = typed.naming(|record| self.schemas.name(values, record));
        let mut ignored = self.rows.take_ignored();
        for (id, count) in counts {
            if let Ok(plan) = self.schemas.plan(id)
                && let ImageStep::Row(step) = &plan.after
            {
                plan.plan
                    .ignored_in(step, &mut |path| ignored.push((path.to_string(), count)));
            }
        }
        DecodedBatch {
            typed,
            source_ms,
            ignored: summed(ignored),
            transactions,
        }
    }
}

/// An envelope that is being turned into rows.
struct Change<'s, 'a> {
    plan: &'s EnvelopePlan,
    parts: &'s EnvelopeParts<'a>,
    rows: &'s mut FieldTree,
    keys: &'s mut KeyDecoder,
    shape: &'s InputShape,
    record: usize,
    record_keys: Option<&'a BinaryArray>,
    derived: &'s mut String,
    /// Buffer for the values that columns take from outside the row.
    beside: &'s mut RecordCells<'a>,
}

impl<'a> Change<'_, 'a> {
    /// Reads a part according to its step.
    fn part(
        &mut self,
        step: &AvroStep,
        part: Option<(usize, Cursor<'a>)>,
        slots: &mut RecordCells<'a>,
    ) -> Result<(), String> {
        let Some((index, mut cursor)) = part.filter(|_| !matches!(step, AvroStep::Skip)) else {
            return Ok(());
        };
        let mut walk = WalkOutput {
            slots,
            derived: self.derived,
        };
        let walked = self.plan.plan.walk(&mut cursor, index, step, &mut walk);
        walked.map_err(not_avro)
    }

    fn origin(&mut self, facts: &mut RecordCells<'a>) -> Result<SourceBlock<'a>, String> {
        let mut origin = SourceBlock::NONE;
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

impl<'a> crate::decode::envelopes::debezium::Envelope<'a> for Change<'_, 'a> {
    fn op(&self) -> &'a str {
        self.parts.op
    }

    fn has_before(&self) -> bool {
        self.parts.before.is_some()
    }

    fn fill(&mut self, side: Side, slots: &mut RecordCells<'a>) -> Result<(), String> {
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
            ImageStep::None => (),
            ImageStep::Row(step) => self.part(step, part, slots)?,
            ImageStep::Text => {
                let cell = cursor.cell(&plan.plan.schema, index, self.derived).map_err(not_avro)?;
                let walked = self.rows.walk(cell.text(), slots, &mut |_, cell| cell);
                walked.map_err(|broken| format!("in `{called}`: {}", not_json(cell.text(), broken)))?;
            }
        }
        self.shape.placeholder.mark(&mut slots.cells, self.derived);
        self.fill_metadata(slots)
    }

    fn fill_metadata(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String> {
        let root = (self.plan.plan.schema.root, self.parts.whole);
        let parts = [self.parts.source, self.parts.transaction, Some(root)];
        for (step, part) in self.plan.beside.iter().zip(parts) {
            if matches!(step, AvroStep::Skip) {
                continue;
            }
            let mut beside = std::mem::replace(self.beside, RecordCells::new(0));
            beside.clear();
            let read = self.part(step, part, &mut beside);
            set_time_units(self.shape, &mut beside);
            slots.merge(&beside);
            *self.beside = beside;
            read?;
        }
        Ok(())
    }

    fn has_key(&self) -> bool {
        self.record_keys.is_some_and(|keys| keys.is_valid(self.record))
    }

    fn fill_key(&mut self, slots: &mut RecordCells<'a>) -> Result<(), String> {
        self.keys
            .fill(self.shape, self.record_keys, self.record, slots, self.derived)
    }

    fn derived(&self) -> &str {
        self.derived
    }
}
