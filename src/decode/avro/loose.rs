//! Containers without columns to fill, for whoever looks at them to find out which columns there are.

use arrow::array::{Array, AsArray, BinaryArray, BinaryBuilder, RecordBatch};

use super::super::cell::{Datum, Kind, Meaning};
use super::super::fields::fields_of;
use super::super::names::{Names, Slots};
use super::super::records::Plan as _;
use super::super::target::Target;
use super::capture::{BODY, is_capture};
use super::container::{DAMAGE, SCHEMA};
use super::plan::Plan;
use super::read::Cursor;
use super::schema::{Form, Schema};
use crate::repr::SqlType;

/// A field of a container's records.
pub struct ContainerColumn {
    /// Its name.
    pub name: String,
    /// The type that holds its values; or why it is none but VARCHAR.
    pub sql_type: Result<SqlType, String>,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it counts nanoseconds.
    pub nanos: bool,
}

fn schema_of(batch: &RecordBatch) -> Result<Schema, String> {
    Schema::of_text(batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str))
}

fn records(batch: &RecordBatch) -> Option<&BinaryArray> {
    batch.columns().first().and_then(|column| column.as_binary_opt::<i32>())
}

/// The fields of records.
///
/// # Errors
/// Their schema cannot be read.
pub fn container_columns(batch: &RecordBatch) -> Result<Vec<ContainerColumn>, String> {
    let schema = schema_of(batch)?;
    let record = schema.record(schema.root).unwrap_or_default();
    let fields = fields_of(&schema, record).into_iter().zip(record);
    let columns = fields.map(|(field, own)| ContainerColumn {
        name: field.name,
        sql_type: field.sql_type,
        nullable: schema.takes_null(own.schema),
        nanos: counts_nanos(&schema, own.schema),
    });
    Ok(columns.collect())
}

fn counts_nanos(schema: &Schema, index: usize) -> bool {
    let found = schema.of(index);
    match &found.form {
        Form::Union(branches) => branches.iter().any(|branch| counts_nanos(schema, *branch)),
        _ => found.meaning == Meaning::Nanos,
    }
}

/// Records of a container as JSON, one at a time.
pub struct ContainerJson<'a> {
    schema: Schema,
    records: &'a BinaryArray,
}

impl<'a> ContainerJson<'a> {
    /// Of a batch of [`super::read_container`]; none: it is of another file.
    pub fn new(batch: &'a RecordBatch) -> Option<Self> {
        batch.column_by_name(DAMAGE)?;
        Some(ContainerJson {
            schema: schema_of(batch).ok()?,
            records: records(batch)?,
        })
    }

    /// A record; its own bytes where they are not what the schema says. None: it is a damaged block.
    pub fn of(&self, record: usize) -> Option<Vec<u8>> {
        let bytes = self.records.is_valid(record).then(|| self.records.value(record))?;
        let mut derived = String::new();
        let cell = Cursor::new(bytes).cell(&self.schema, self.schema.root, &mut derived);
        Some(match cell {
            Ok(cell) if cell.kind == Kind::Nested => derived.into_bytes(),
            _ => bytes.to_vec(),
        })
    }
}

/// The events that records wrap; none: they wrap none.
///
/// # Errors
/// Their schema cannot be read.
pub fn container_bodies(batch: &RecordBatch) -> Result<Option<Bodies>, String> {
    let schema = schema_of(batch)?;
    if !is_capture(&schema) {
        return Ok(None);
    }
    let mut names = Names::new(std::iter::empty::<(usize, &Target)>(), "");
    names.watch(0, BODY);
    let plan = Plan::of_record(schema, &names, None)?;
    let mut bodies = BinaryBuilder::new();
    let (mut slots, mut derived) = (Slots::new(1), String::new());
    for record in records(batch).into_iter().flat_map(|records| records.iter().flatten()) {
        slots.clear();
        derived.clear();
        if plan.fill(record, &mut names, &mut slots, &mut derived).is_ok()
            && let Datum::Bytes(body) = slots.cells[0].datum
        {
            bodies.append_value(body);
        }
    }
    Ok(Some(Bodies(bodies.finish())))
}

/// The bytes of events.
pub struct Bodies(BinaryArray);

impl Bodies {
    /// Of each event.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flatten()
    }
}

/// Gives each record's fields to `each`, by name and as text; those that are null or nested are left out.
///
/// # Errors
/// The records' schema cannot be read.
pub fn container_rows(batch: &RecordBatch, mut each: impl FnMut(Vec<(&str, String)>)) -> Result<(), String> {
    let schema = schema_of(batch)?;
    let fields = schema.record(schema.root).unwrap_or_default();
    let fields: Vec<String> = fields.iter().map(|field| field.name.to_string()).collect();
    let mut names = Names::new(std::iter::empty::<(usize, &Target)>(), "");
    fields
        .iter()
        .enumerate()
        .for_each(|(slot, field)| names.watch(slot, field));
    let plan = Plan::of_record(schema, &names, None)?;
    for record in records(batch).into_iter().flat_map(|records| records.iter().flatten()) {
        let (mut slots, mut derived) = (Slots::new(fields.len()), String::new());
        if plan.fill(record, &mut names, &mut slots, &mut derived).is_err() {
            continue;
        }
        let cells = fields.iter().zip(&slots.cells);
        let values = cells.filter_map(|(field, cell)| {
            let cell = cell.settle(&derived);
            match cell.datum {
                Datum::Bytes(bytes) => Some((field.as_str(), String::from_utf8_lossy(bytes).into_owned())),
                _ if cell.is_value() && cell.kind != Kind::Nested => {
                    Some((field.as_str(), cell.resolved()?.into_owned()))
                }
                _ => None,
            }
        });
        each(values.collect());
    }
    Ok(())
}
