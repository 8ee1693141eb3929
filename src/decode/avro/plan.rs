//! How records of one writer's schema fill columns: made once, walked for each record.
//!
//! A column's name is looked for, in this order: as a field of the writer, as an alias that the writer gives a field, as
//! a field of the reader's schema one of whose aliases the writer has. A field that only the reader's schema has stands
//! for its default there, wherever no other name of the column has a value.

use serde_json::Value;
use smallvec::SmallVec;

use super::super::cell::{Cell, Datum, Kind, Meaning};
use super::super::names::{Names, Slots};
use super::super::records;
use super::read::{Bad, Cursor, not_avro};
use super::schema::{Field, Form, Schema};
use crate::registry;

/// Defaults come after every value of a record.
const DEFAULT: u32 = 1 << 30;

/// Columns that take a value, and how little.
type Takes = SmallVec<[(u32, u32); 1]>;

/// How records of a schema fill columns.
#[derive(Debug)]
pub(in crate::decode) struct Plan {
    pub schema: Schema,
    pub root: Step,
    records: Vec<RecordPlan>,
}

/// What is done with a value.
#[derive(Debug)]
pub(in crate::decode) enum Step {
    /// Nobody wants it.
    Skip,
    /// It fills columns.
    Take(Takes),
    /// Columns want what is inside it; some perhaps also the whole.
    Record { takes: Takes, record: usize },
    /// By branch.
    Union(Vec<Step>),
    /// Columns want values of keys; some perhaps also the whole.
    Map {
        takes: Takes,
        entries: Vec<(Box<str>, Step)>,
    },
}

/// A record whose fields are wanted.
#[derive(Debug)]
struct RecordPlan {
    /// The type and what is done with it, of each field.
    fields: Vec<(usize, Step)>,
    /// Paths of those that nobody wants.
    ignored: Vec<String>,
    defaults: Vec<(Takes, Default)>,
}

/// A default, as text.
#[derive(Debug)]
struct Default {
    kind: Kind,
    text: String,
    meaning: Meaning,
    scale: i16,
}

/// What walks of a batch leave beside cells.
pub(in crate::decode) struct Walk<'w, 'a> {
    pub slots: &'w mut Slots<'a>,
    /// What records have no bytes for.
    pub derived: &'w mut String,
}

impl Plan {
    /// For columns that take fields by these names.
    ///
    /// # Errors
    /// The schema is none of a record.
    pub fn of_record(schema: Schema, names: &Names, reader: Option<&Schema>) -> Result<Plan, String> {
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
        let root = compiler.inside(root, names, 0, Takes::new(), reader_fields);
        let records = compiler.records;
        Ok(Plan { schema, root, records })
    }

    /// A plan in which a column takes a whole value that is no record: of keys.
    pub fn of_value(schema: Schema, column: usize) -> Plan {
        Plan {
            root: Step::Take(SmallVec::from_slice(&[(column as u32, 0)])),
            schema,
            records: Vec::new(),
        }
    }

    /// A plan for one part of a record; see [`Plan::part`].
    pub fn empty(schema: Schema) -> Plan {
        Plan {
            root: Step::Skip,
            schema,
            records: Vec::new(),
        }
    }

    /// What is to be done with a part of a record, of the type `index`, when columns take its fields by `names`.
    pub fn part(&mut self, index: usize, names: &Names, reader: Option<(&Schema, &[Field])>) -> Step {
        let mut compiler = Compiler {
            schema: &self.schema,
            reader: reader.map(|(schema, _)| schema),
            records: std::mem::take(&mut self.records),
        };
        let step = compiler.inside(index, names, 0, Takes::new(), reader.map(|(_, fields)| fields));
        self.records = compiler.records;
        step
    }

    /// Reads a value of the type `index` as the step says.
    pub fn walk<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        index: usize,
        step: &Step,
        walk: &mut Walk<'_, 'a>,
    ) -> Result<(), Bad> {
        match step {
            Step::Skip => cursor.skip(&self.schema, index, 0),
            Step::Take(takes) => {
                let cell = cursor.cell(&self.schema, index, walk.derived)?;
                takes
                    .iter()
                    .for_each(|(column, rank)| walk.slots.fill(*column, *rank, cell));
                Ok(())
            }
            Step::Record { takes, record } => {
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
                        ..Cell::of(default.kind, Datum::Derived(start, walk.derived.len()))
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
            Step::Union(branches) => {
                let Form::Union(types) = &self.schema.of(index).form else {
                    unreachable!("a step of branches was made for a union");
                };
                let branch = cursor.branch(types.len())?;
                self.walk(cursor, types[branch], &branches[branch], walk)
            }
            Step::Map { takes, entries } => {
                let Form::Map(values) = &self.schema.of(index).form else {
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
                    self.walk(cursor, *values, step.map_or(&Step::Skip, |(_, step)| step), walk)
                })
            }
        }
    }

    /// Tells each column that a value of the type `index` fills, and by which type.
    pub fn taken(&self, step: &Step, index: usize, each: &mut dyn FnMut(usize, usize)) {
        match step {
            Step::Skip => (),
            Step::Take(takes) => takes.iter().for_each(|(column, _)| each(*column as usize, index)),
            Step::Record { takes, record } => {
                takes.iter().for_each(|(column, _)| each(*column as usize, index));
                let fields = &self.records[*record].fields;
                fields.iter().for_each(|(index, step)| self.taken(step, *index, each));
            }
            Step::Union(branches) => {
                if let Form::Union(types) = &self.schema.of(index).form {
                    branches
                        .iter()
                        .zip(types)
                        .for_each(|(step, index)| self.taken(step, *index, each));
                }
            }
            Step::Map { takes, entries } => {
                takes.iter().for_each(|(column, _)| each(*column as usize, index));
                if let Form::Map(values) = &self.schema.of(index).form {
                    entries.iter().for_each(|(_, step)| self.taken(step, *values, each));
                }
            }
        }
    }

    /// Tells the fields that nobody takes, of a value that has all it may have.
    pub fn ignored_in(&self, step: &Step, each: &mut dyn FnMut(&str)) {
        match step {
            Step::Skip | Step::Take(_) | Step::Map { .. } => (),
            Step::Union(branches) => branches.iter().for_each(|branch| self.ignored_in(branch, each)),
            Step::Record { record, .. } => {
                let plan = &self.records[*record];
                plan.ignored.iter().for_each(|path| each(path));
                plan.fields.iter().for_each(|(_, step)| self.ignored_in(step, each));
            }
        }
    }
}

impl records::Plan for Plan {
    fn new(schema: &registry::Schema, names: &Names, newer: Option<&registry::Schema>) -> Result<Self, String> {
        // A newer schema that cannot be read has no defaults.
        let newer = newer.and_then(|newer| Schema::parse(newer).ok());
        Plan::of_record(Schema::parse(schema)?, names, newer.as_ref())
    }

    fn fill<'a>(
        &self,
        bytes: &'a [u8],
        _: &mut Names,
        slots: &mut Slots<'a>,
        derived: &mut String,
    ) -> Result<(), String> {
        let mut cursor = Cursor::new(bytes);
        let mut walk = Walk { slots, derived };
        let walked = self.walk(&mut cursor, self.schema.root, &self.root, &mut walk);
        walked.and_then(|()| cursor.end()).map_err(not_avro)
    }

    fn ignored(&self, each: &mut dyn FnMut(&str)) {
        self.ignored_in(&self.root, each);
    }
}

struct Compiler<'s> {
    schema: &'s Schema,
    reader: Option<&'s Schema>,
    records: Vec<RecordPlan>,
}

impl Compiler<'_> {
    /// The same of a value of which columns want what is inside: also a map's values, by their keys.
    fn within(&mut self, index: usize, names: &Names, node: usize, takes: Takes, reader: Option<&[Field]>) -> Step {
        let schema = self.schema;
        match &schema.of(index).form {
            Form::Map(values) => {
                let mut entry = |key: &str| {
                    let (takes, child) = names.wanted(node, key)?;
                    let takes = Takes::from_slice(takes);
                    Some(match child {
                        Some(child) => self.within(*values, names, child, takes, None),
                        None => Step::Take(takes),
                    })
                };
                let keys: Vec<&str> = names.fields(node).collect();
                let entries = keys.into_iter().filter_map(|key| Some((key.into(), entry(key)?)));
                Step::Map {
                    takes,
                    entries: entries.collect(),
                }
            }
            Form::Union(branches) => {
                let steps = branches
                    .iter()
                    .map(|branch| self.within(*branch, names, node, takes.clone(), reader));
                Step::Union(steps.collect())
            }
            _ => self.inside(index, names, node, takes, reader),
        }
    }

    /// The step of a type whose value `takes` want, and whose fields are wanted by the names of `node`.
    fn inside(&mut self, index: usize, names: &Names, node: usize, takes: Takes, reader: Option<&[Field]>) -> Step {
        let schema = self.schema;
        match &schema.of(index).form {
            Form::Union(branches) => {
                let steps = branches
                    .iter()
                    .map(|branch| self.inside(*branch, names, node, takes.clone(), reader));
                Step::Union(steps.collect())
            }
            Form::Record(fields) => {
                let record = self.record(fields, names, node, reader);
                Step::Record { takes, record }
            }
            _ if takes.is_empty() => Step::Skip,
            _ => Step::Take(takes),
        }
    }

    fn record(&mut self, fields: &[Field], names: &Names, node: usize, reader: Option<&[Field]>) -> usize {
        let known = |name: &str| fields.iter().any(|field| &*field.name == name);
        // By which name each field is wanted, its own first; a name that some field has means no other one.
        let wanted_as = |field: &Field| -> Option<String> {
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
                steps.push((field.schema, Step::Skip));
                continue;
            };
            let takes = Takes::from_slice(takes);
            let inner = reader.into_iter().flatten().find(|theirs| *theirs.name == name);
            let inner = inner
                .zip(self.reader)
                .and_then(|(theirs, reader)| reader.record(theirs.schema));
            let step = match child {
                Some(child) => self.within(field.schema, names, child, takes, inner),
                None if takes.is_empty() => Step::Skip,
                None => Step::Take(takes),
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

    /// A field that only the reader has, and what of it is wanted.
    fn default(&self, names: &Names, node: usize, theirs: &Field, value: &Value, out: &mut Vec<(Takes, Default)>) {
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

/// A default as a cell of text; none: null, which needs no default.
fn constant(schema: &Schema, index: usize, value: &Value) -> Option<Default> {
    let mut found = schema.of(index);
    if let Form::Union(branches) = &found.form {
        // Which branch a default is of, its kind of JSON tells well enough.
        let fits = |branch: &&usize| match (&schema.of(**branch).form, value) {
            (Form::Null, value) => value.is_null(),
            (Form::Boolean, value) => value.is_boolean(),
            (Form::Int | Form::Long | Form::Float | Form::Double, value) => value.is_number(),
            (Form::Bytes | Form::Fixed(_) | Form::String | Form::Enum(_), value) => value.is_string(),
            (Form::Array(_), value) => value.is_array(),
            (Form::Map(_) | Form::Record(_), value) => value.is_object(),
            (Form::Union(_), _) => false,
        };
        found = schema.of(*branches.iter().find(fits)?);
    }
    let (kind, text) = match value {
        Value::Null => return None,
        Value::Bool(true) => (Kind::True, "true".to_string()),
        Value::Bool(false) => (Kind::False, "false".to_string()),
        Value::Number(number) => (Kind::Number, number.to_string()),
        Value::String(text) if matches!(found.form, Form::Bytes | Form::Fixed(_)) => {
            // Each character stands for the byte of its code.
            let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            let mut quoted = String::new();
            super::read::write_base64(&mut quoted, &bytes?);
            (Kind::Text, quoted.trim_matches('"').to_string())
        }
        Value::String(text) => (Kind::Text, text.clone()),
        nested => (Kind::Nested, nested.to_string()),
    };
    Some(Default {
        kind,
        text,
        meaning: found.meaning,
        scale: found.scale,
    })
}
