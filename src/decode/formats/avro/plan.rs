//! How records of one writer's schema fill columns: a plan is made once, and executed for each record.
//!
//! A column's name is looked up, in this order, as a field of the writer's schema, as an alias of such a field, and
//! as a field of the reader's schema one of whose aliases is a field of the writer's. A field that only the reader's
//! schema has stands for its default, unless another name of the column has a value.

use serde_json::Value;
use smallvec::SmallVec;

use crate::decode::cell::{Cell, CellKind, Datum, Meaning};
use crate::decode::formats::avro::read::{AvroMismatch, Cursor, not_avro};
use crate::decode::formats::avro::schema::{AvroField, AvroForm, AvroSchema};
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::decode_plan::DecodePlan;
use crate::registry;

/// The priority of defaults, which is lower than that of any value in a record.
const DEFAULT: u32 = 1 << 30;

/// The columns that take a value, each with its priority; lower numbers win.
type TakingColumns = SmallVec<[(u32, u32); 1]>;

/// How records of a schema fill columns.
#[derive(Debug)]
pub(in crate::decode) struct AvroPlan {
    pub schema: AvroSchema,
    pub root: AvroStep,
    records: Vec<RecordPlan>,
}

/// What to do with a value.
#[derive(Debug)]
pub(in crate::decode) enum AvroStep {
    /// No column takes it.
    Skip,
    /// Columns take it.
    Take(TakingColumns),
    /// Columns take fields of it, and perhaps also the whole.
    Record { takes: TakingColumns, record: usize },
    /// The step of each branch.
    Union(Vec<AvroStep>),
    /// Columns take values of some keys, and perhaps also the whole.
    Map {
        takes: TakingColumns,
        entries: Vec<(Box<str>, AvroStep)>,
    },
}

/// A record whose fields columns take.
#[derive(Debug)]
struct RecordPlan {
    /// The type and the step of each field.
    fields: Vec<(usize, AvroStep)>,
    /// The paths of fields that no column takes.
    ignored: Vec<String>,
    defaults: Vec<(TakingColumns, FieldDefault)>,
}

/// A default value, as text.
#[derive(Debug)]
struct FieldDefault {
    kind: CellKind,
    text: String,
    meaning: Meaning,
    scale: i16,
}

/// The output of a plan besides the cells: text that records do not contain.
pub(in crate::decode) struct WalkOutput<'w, 'a> {
    pub slots: &'w mut RecordCells<'a>,
    /// The batch's derived text.
    pub derived: &'w mut String,
}

impl AvroPlan {
    /// A plan for columns that take fields with these names.
    ///
    /// # Errors
    /// The schema is not that of a record.
    pub fn of_record(schema: AvroSchema, names: &FieldTree, reader: Option<&AvroSchema>) -> Result<AvroPlan, String> {
        let root = schema.root;
        if schema.record(root).is_none() {
            return Err("its values are no records, so that they have no fields for columns".to_string());
        }
        let mut compiler = Compiler {
            schema: &schema,
            reader,
            records: Vec::new(),
        };
        let reader_fields = reader.and_then(|reader| reader.record(reader.root));
        let root = compiler.inside(root, names, 0, TakingColumns::new(), reader_fields);
        let records = compiler.records;
        Ok(AvroPlan { schema, root, records })
    }

    /// A plan in which a column takes the whole value, which is no record; for keys.
    pub fn of_value(schema: AvroSchema, column: usize) -> AvroPlan {
        AvroPlan {
            root: AvroStep::Take(SmallVec::from_slice(&[(column as u32, 0)])),
            schema,
            records: Vec::new(),
        }
    }

    /// A plan without steps, to which parts of a record are added; see [`AvroPlan::part`].
    pub fn empty(schema: AvroSchema) -> AvroPlan {
        AvroPlan {
            root: AvroStep::Skip,
            schema,
            records: Vec::new(),
        }
    }

    /// The step for a part of a record, of type `index`, if columns take its fields by `names`.
    pub fn part(&mut self, index: usize, names: &FieldTree, reader: Option<(&AvroSchema, &[AvroField])>) -> AvroStep {
        let mut compiler = Compiler {
            schema: &self.schema,
            reader: reader.map(|(schema, _)| schema),
            records: std::mem::take(&mut self.records),
        };
        let step = compiler.inside(index, names, 0, TakingColumns::new(), reader.map(|(_, fields)| fields));
        self.records = compiler.records;
        step
    }

    /// Reads a value of type `index` according to the step.
    pub fn walk<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        index: usize,
        step: &AvroStep,
        walk: &mut WalkOutput<'_, 'a>,
    ) -> Result<(), AvroMismatch> {
        match step {
            AvroStep::Skip => cursor.skip(&self.schema, index, 0),
            AvroStep::Take(takes) => {
                let cell = cursor.cell(&self.schema, index, walk.derived)?;
                takes
                    .iter()
                    .for_each(|(column, rank)| walk.slots.fill(*column, *rank, cell));
                Ok(())
            }
            AvroStep::Record { takes, record } => {
                if !takes.is_empty() {
                    let cell = cursor.clone().cell(&self.schema, index, walk.derived)?;
                    takes
                        .iter()
                        .for_each(|(column, rank)| walk.slots.fill(*column, *rank, cell));
                }
                let plan = &self.records[*record];
                for (takes, default) in &plan.defaults {
                    let start = walk.derived.len();
                    walk.derived.push_str(&default.text);
                    let cell = Cell {
                        meaning: default.meaning,
                        scale: default.scale,
                        ..Cell::with_datum(default.kind, Datum::Derived(start, walk.derived.len()))
                    };
                    takes
                        .iter()
                        .for_each(|(column, rank)| walk.slots.fill(*column, *rank, cell));
                }
                for (index, step) in &plan.fields {
                    self.walk(cursor, *index, step, walk)?;
                }
                Ok(())
            }
            AvroStep::Union(branches) => {
                let AvroForm::Union(types) = &self.schema.type_at(index).form else {
                    unreachable!("a step of branches was made for a union");
                };
                let branch = cursor.branch(types.len())?;
                self.walk(cursor, types[branch], &branches[branch], walk)
            }
            AvroStep::Map { takes, entries } => {
                let AvroForm::Map(values) = &self.schema.type_at(index).form else {
                    unreachable!("a step of entries was made for a map");
                };
                if !takes.is_empty() {
                    let cell = cursor.clone().cell(&self.schema, index, walk.derived)?;
                    takes
                        .iter()
                        .for_each(|(column, rank)| walk.slots.fill(*column, *rank, cell));
                }
                cursor.entries(|key, cursor| {
                    let step = entries.iter().find(|(wanted, _)| **wanted == *key);
                    self.walk(cursor, *values, step.map_or(&AvroStep::Skip, |(_, step)| step), walk)
                })
            }
        }
    }

    /// Calls `each` for every column that a value of type `index` fills, with the type that fills it.
    pub fn taken(&self, step: &AvroStep, index: usize, each: &mut dyn FnMut(usize, usize)) {
        match step {
            AvroStep::Skip => (),
            AvroStep::Take(takes) => takes.iter().for_each(|(column, _)| each(*column as usize, index)),
            AvroStep::Record { takes, record } => {
                takes.iter().for_each(|(column, _)| each(*column as usize, index));
                let fields = &self.records[*record].fields;
                fields.iter().for_each(|(index, step)| self.taken(step, *index, each));
            }
            AvroStep::Union(branches) => {
                if let AvroForm::Union(types) = &self.schema.type_at(index).form {
                    branches
                        .iter()
                        .zip(types)
                        .for_each(|(step, index)| self.taken(step, *index, each));
                }
            }
            AvroStep::Map { takes, entries } => {
                takes.iter().for_each(|(column, _)| each(*column as usize, index));
                if let AvroForm::Map(values) = &self.schema.type_at(index).form {
                    entries.iter().for_each(|(_, step)| self.taken(step, *values, each));
                }
            }
        }
    }

    /// Calls `each` for every field that no column takes, as if all optional parts were present.
    pub fn ignored_in(&self, step: &AvroStep, each: &mut dyn FnMut(&str)) {
        match step {
            AvroStep::Skip | AvroStep::Take(_) | AvroStep::Map { .. } => (),
            AvroStep::Union(branches) => branches.iter().for_each(|branch| self.ignored_in(branch, each)),
            AvroStep::Record { record, .. } => {
                let plan = &self.records[*record];
                plan.ignored.iter().for_each(|path| each(path));
                plan.fields.iter().for_each(|(_, step)| self.ignored_in(step, each));
            }
        }
    }
}

impl DecodePlan for AvroPlan {
    fn new(
        schema: &registry::RegisteredSchema,
        names: &FieldTree,
        newer: Option<&registry::RegisteredSchema>,
    ) -> Result<Self, String> {
        // If the newer schema is invalid, it has no defaults.
        let newer = newer.and_then(|newer| AvroSchema::parse(newer).ok());
        AvroPlan::of_record(AvroSchema::parse(schema)?, names, newer.as_ref())
    }

    fn fill<'a>(
        &self,
        bytes: &'a [u8],
        _: &mut FieldTree,
        slots: &mut RecordCells<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        let mut cursor = Cursor::new(bytes);
        let mut walk = WalkOutput { slots, derived };
        let walked = self.walk(&mut cursor, self.schema.root, &self.root, &mut walk);
        walked.and_then(|()| cursor.end()).map_err(not_avro)
    }

    fn ignored(&self, each: &mut dyn FnMut(&str)) {
        self.ignored_in(&self.root, each);
    }
}

struct Compiler<'s> {
    schema: &'s AvroSchema,
    reader: Option<&'s AvroSchema>,
    records: Vec<RecordPlan>,
}

impl Compiler<'_> {
    /// The same for a value whose inside columns take, including a map's values by their keys.
    fn within(
        &mut self,
        index: usize,
        names: &FieldTree,
        node: usize,
        takes: TakingColumns,
        reader: Option<&[AvroField]>,
    ) -> AvroStep {
        let schema = self.schema;
        match &schema.type_at(index).form {
            AvroForm::Map(values) => {
                let mut entry = |key: &str| {
                    let (takes, child) = names.wanted(node, key)?;
                    let takes = TakingColumns::from_slice(takes);
                    Some(match child {
                        Some(child) => self.within(*values, names, child, takes, None),
                        None => AvroStep::Take(takes),
                    })
                };
                let keys: Vec<&str> = names.fields(node).collect();
                let entries = keys.into_iter().filter_map(|key| Some((key.into(), entry(key)?)));
                AvroStep::Map {
                    takes,
                    entries: entries.collect(),
                }
            }
            AvroForm::Union(branches) => {
                let steps = branches
                    .iter()
                    .map(|branch| self.within(*branch, names, node, takes.clone(), reader));
                AvroStep::Union(steps.collect())
            }
            _ => self.inside(index, names, node, takes, reader),
        }
    }

    /// The step for a type whose value `takes` wants, and whose fields are wanted under the names of `node`.
    fn inside(
        &mut self,
        index: usize,
        names: &FieldTree,
        node: usize,
        takes: TakingColumns,
        reader: Option<&[AvroField]>,
    ) -> AvroStep {
        let schema = self.schema;
        match &schema.type_at(index).form {
            AvroForm::Union(branches) => {
                let steps = branches
                    .iter()
                    .map(|branch| self.inside(*branch, names, node, takes.clone(), reader));
                AvroStep::Union(steps.collect())
            }
            AvroForm::Record(fields) => {
                let record = self.record(fields, names, node, reader);
                AvroStep::Record { takes, record }
            }
            _ if takes.is_empty() => AvroStep::Skip,
            _ => AvroStep::Take(takes),
        }
    }

    fn record(&mut self, fields: &[AvroField], names: &FieldTree, node: usize, reader: Option<&[AvroField]>) -> usize {
        let known = |name: &str| fields.iter().any(|field| &*field.name == name);
        // The name under which each field is wanted: its own has precedence, and a name that some field has is no
        // alias of another.
        let wanted_as = |field: &AvroField| -> Option<String> {
            if names.wanted(node, &field.name).is_some() {
                return Some(field.name.to_string());
            }
            let of_writer = field.aliases.iter().map(|alias| &**alias);
            let of_reader = reader.into_iter().flatten();
            let of_reader = of_reader
                .filter(|theirs| theirs.aliases.contains(&field.name))
                .map(|theirs| &*theirs.name);
            let mut others = of_writer.chain(of_reader).filter(|name| !known(name));
            others
                .find(|name| names.wanted(node, name).is_some())
                .map(str::to_string)
        };
        let mut used: Vec<String> = Vec::new();
        let mut steps = Vec::with_capacity(fields.len());
        let mut ignored = Vec::new();
        for field in fields {
            let name = wanted_as(field);
            let wanted = name.as_deref().and_then(|name| names.wanted(node, name));
            let Some((name, (takes, child))) = name.zip(wanted) else {
                ignored.push(names.path(node, &field.name));
                steps.push((field.schema, AvroStep::Skip));
                continue;
            };
            let takes = TakingColumns::from_slice(takes);
            let inner = reader.into_iter().flatten().find(|theirs| *theirs.name == name);
            let inner = inner
                .zip(self.reader)
                .and_then(|(theirs, reader)| reader.record(theirs.schema));
            let step = match child {
                Some(child) => self.within(field.schema, names, child, takes, inner),
                None if takes.is_empty() => AvroStep::Skip,
                None => AvroStep::Take(takes),
            };
            steps.push((field.schema, step));
            used.push(name);
        }
        let mut defaults = Vec::new();
        for theirs in reader
            .into_iter()
            .flatten()
            .filter(|theirs| !used.iter().any(|name| **name == *theirs.name))
        {
            if let Some(default) = &theirs.default {
                self.default(names, node, theirs, default, &mut defaults);
            }
        }
        self.records.push(RecordPlan {
            fields: steps,
            ignored,
            defaults,
        });
        self.records.len() - 1
    }

    /// A default for a field that only the reader's schema has, with the columns that take it.
    fn default(
        &self,
        names: &FieldTree,
        node: usize,
        theirs: &AvroField,
        value: &Value,
        out: &mut Vec<(TakingColumns, FieldDefault)>,
    ) {
        let Some((takes, child)) = names.wanted(node, &theirs.name) else {
            return;
        };
        let reader = self.reader.expect("its fields are");
        if !takes.is_empty()
            && let Some(default) = constant(reader, theirs.schema, value)
        {
            out.push((
                takes.iter().map(|(column, rank)| (*column, DEFAULT + rank)).collect(),
                default,
            ));
        }
        if let (Some(child), Some(fields), Value::Object(values)) = (child, reader.record(theirs.schema), value) {
            for field in fields {
                if let Some(value) = values.get(&*field.name).or(field.default.as_ref()) {
                    self.default(names, child, field, value, out);
                }
            }
        }
    }
}

/// A default as a cell of text; none for null, which needs no default.
fn constant(schema: &AvroSchema, index: usize, value: &Value) -> Option<FieldDefault> {
    let mut schema_type = schema.type_at(index);
    if let AvroForm::Union(branches) = &schema_type.form {
        // The JSON type of the default shows well enough to which branch it belongs.
        let fits = |branch: &&usize| match (&schema.type_at(**branch).form, value) {
            (AvroForm::Null, value) => value.is_null(),
            (AvroForm::Boolean, value) => value.is_boolean(),
            (AvroForm::Int | AvroForm::Long | AvroForm::Float | AvroForm::Double, value) => value.is_number(),
            (AvroForm::Bytes | AvroForm::Fixed(_) | AvroForm::String | AvroForm::Enum(_), value) => value.is_string(),
            (AvroForm::Array(_), value) => value.is_array(),
            (AvroForm::Map(_) | AvroForm::Record(_), value) => value.is_object(),
            (AvroForm::Union(_), _) => false,
        };
        schema_type = schema.type_at(*branches.iter().find(fits)?);
    }
    let (kind, text) = match value {
        Value::Null => return None,
        Value::Bool(true) => (CellKind::True, "true".to_string()),
        Value::Bool(false) => (CellKind::False, "false".to_string()),
        Value::Number(number) => (CellKind::Number, number.to_string()),
        Value::String(text) if matches!(schema_type.form, AvroForm::Bytes | AvroForm::Fixed(_)) => {
            // In a default of bytes, each character stands for the byte with its code.
            let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            let mut quoted = String::new();
            crate::decode::formats::avro::read::write_base64(&mut quoted, &bytes?);
            (CellKind::Text, quoted.trim_matches('"').to_string())
        }
        Value::String(text) => (CellKind::Text, text.clone()),
        nested => (CellKind::Nested, nested.to_string()),
    };
    Some(FieldDefault {
        kind,
        text,
        meaning: schema_type.meaning,
        scale: schema_type.scale,
    })
}
