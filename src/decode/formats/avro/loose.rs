//! Reads containers without an input's columns, to find out which columns they have.

use arrow::array::{Array, AsArray, BinaryArray, BinaryBuilder, RecordBatch};

use crate::decode::cell::{CellKind, Datum, Meaning};
use crate::decode::formats::avro::capture::{BODY, is_capture};
use crate::decode::formats::avro::container::{DAMAGE, SCHEMA};
use crate::decode::formats::avro::plan::AvroPlan;
use crate::decode::formats::avro::read::Cursor;
use crate::decode::formats::avro::schema::{AvroForm, AvroSchema};
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::decode_plan::DecodePlan as _;
use crate::decode::schemas::fields::fields_of;
use crate::decode::target::Target;
use crate::repr::SqlType;

/// A field of a container's records.
pub struct ContainerColumn {
    /// Its name.
    pub name: String,
    /// The type that can hold its values; or why only VARCHAR can.
    pub sql_type: Result<SqlType, String>,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it counts nanoseconds.
    pub nanos: bool,
}

fn schema_of(batch: &RecordBatch) -> Result<AvroSchema, String> {
    AvroSchema::of_text(batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str))
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

fn counts_nanos(schema: &AvroSchema, index: usize) -> bool {
    let schema_type = schema.type_at(index);
    match &schema_type.form {
        AvroForm::Union(branches) => branches.iter().any(|branch| counts_nanos(schema, *branch)),
        _ => schema_type.meaning == Meaning::Nanos,
    }
}

/// The records of a container as JSON, one at a time.
pub struct ContainerJson<'a> {
    schema: AvroSchema,
    records: &'a BinaryArray,
}

impl<'a> ContainerJson<'a> {
    /// For a batch of [`crate::decode::formats::avro::read_container`]; none if it comes from another kind of file.
    pub fn new(batch: &'a RecordBatch) -> Option<Self> {
        batch.column_by_name(DAMAGE)?;
        Some(ContainerJson {
            schema: schema_of(batch).ok()?,
            records: records(batch)?,
        })
    }

    /// A record; its raw bytes if they do not match the schema. None if it is a damaged block.
    pub fn json(&self, record: usize) -> Option<Vec<u8>> {
        let bytes = self.records.is_valid(record).then(|| self.records.value(record))?;
        let mut derived = String::new();
        let cell = Cursor::new(bytes).cell(&self.schema, self.schema.root, &mut derived);
        Some(match cell {
            Ok(cell) if cell.kind == CellKind::Nested => derived.into_bytes(),
            _ => bytes.to_vec(),
        })
    }
}

/// The bodies of events that records wrap; none if they wrap none.
///
/// # Errors
/// The schema is invalid.
pub fn container_bodies(batch: &RecordBatch) -> Result<Option<Bodies>, String> {
    let schema = schema_of(batch)?;
    if !is_capture(&schema) {
        return Ok(None);
    }
    let mut names = FieldTree::new(std::iter::empty::<(usize, &Target)>(), "");
    names.watch(0, BODY);
    let plan = AvroPlan::of_record(schema, &names, None)?;
    let mut bodies = BinaryBuilder::new();
    let (mut slots, mut derived) = (RecordCells::new(1), String::new());
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

/// The bodies of events.
pub struct Bodies(BinaryArray);

impl Bodies {
    /// The bytes of each body.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flatten()
    }
}

/// Passes each record's fields, by name and as text, to `each`, without those that are null or nested.
///
/// # Errors
/// The schema is invalid.
pub fn container_rows(batch: &RecordBatch, mut each: impl FnMut(Vec<(&str, String)>)) -> Result<(), String> {
    let schema = schema_of(batch)?;
    let fields = schema.record(schema.root).unwrap_or_default();
    let fields: Vec<String> = fields.iter().map(|field| field.name.to_string()).collect();
    let mut names = FieldTree::new(std::iter::empty::<(usize, &Target)>(), "");
    fields
        .iter()
        .enumerate()
        .for_each(|(slot, field)| names.watch(slot, field));
    let plan = AvroPlan::of_record(schema, &names, None)?;
    for record in records(batch).into_iter().flat_map(|records| records.iter().flatten()) {
        let (mut slots, mut derived) = (RecordCells::new(fields.len()), String::new());
        if plan.fill(record, &mut names, &mut slots, &mut derived).is_err() {
            continue;
        }
        let cells = fields.iter().zip(&slots.cells);
        let values = cells.filter_map(|(field, cell)| {
            let cell = cell.resolve_derived(&derived);
            match cell.datum {
                Datum::Bytes(bytes) => Some((field.as_str(), String::from_utf8_lossy(bytes).into_owned())),
                _ if cell.is_value() && cell.kind != CellKind::Nested => {
                    Some((field.as_str(), cell.resolved()?.into_owned()))
                }
                _ => None,
            }
        });
        each(values.collect());
    }
    Ok(())
}
