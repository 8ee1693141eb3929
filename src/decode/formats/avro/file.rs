//! Decodes records of object container files to rows, like single records, by a plan for each schema. Files of Azure
//! Event Hubs Capture are recognised by their schema (`capture`).

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use hashbrown::{HashMap, HashSet};

use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::columns::file_fields::{FileFields, stranger};
use crate::decode::decoded::ChangeOp;
use crate::decode::formats::avro::capture;
use crate::decode::formats::avro::capture::Capture;
use crate::decode::formats::avro::container::{DAMAGE, SCHEMA};
use crate::decode::formats::avro::plan::AvroPlan;
use crate::decode::formats::avro::read::write_moment;
use crate::decode::formats::avro::schema::AvroSchema;
use crate::decode::formats::records::summed;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::schemas::decode_plan::DecodePlan as _;
use crate::decode::target::Target;
use crate::repr::SqlType;

/// How many schemas are cached; the files of a feed have few.
const KEPT: usize = 64;

/// Decodes records of containers.
#[derive(Debug)]
pub(in crate::decode) struct ContainerRecords {
    names: FieldTree,
    /// The columns of type VARCHAR.
    texts: Vec<usize>,
    /// Whether a record is refused if it has no field of any column.
    refuses_strangers: bool,
    capture: Capture,
    /// The plans, by the schema's text.
    plans: HashMap<String, ContainerPlan>,
}

/// How records of one schema are decoded.
#[derive(Clone, Debug)]
enum ContainerPlan {
    Rows(Arc<AvroPlan>),
    /// Wrapped events.
    Events(Arc<AvroPlan>),
    /// They are refused, for this reason.
    Refused(Arc<str>),
}

/// The fields of a container's records that columns take; none if the records wrap events.
///
/// # Errors
/// The schema is invalid.
pub(in crate::decode) fn taken_fields(targets: &[Target], batch: &RecordBatch) -> Option<Result<FileFields, String>> {
    let text = batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str);
    let schema = match AvroSchema::of_text(text) {
        Ok(schema) => schema,
        Err(reason) => return Some(Err(reason)),
    };
    if capture::is_capture(&schema) {
        return None;
    }
    let names = FieldTree::new(targets.iter().enumerate(), "");
    Some(AvroPlan::of_record(schema, &names, None).map(|plan| {
        let taken = taken(&plan);
        let mut ignored = Vec::new();
        plan.ignored(&mut |path| ignored.push(path.to_string()));
        FileFields {
            columns: (0..targets.len()).map(|column| taken.contains(&column)).collect(),
            names: names_of(&plan),
            ignored,
        }
    }))
}

/// The columns that records fill.
fn taken(plan: &AvroPlan) -> HashSet<usize> {
    let mut taken = HashSet::new();
    plan.taken(&plan.root, plan.schema.root, &mut |column, _| {
        taken.insert(column);
    });
    taken
}

/// The names of records' fields.
fn names_of(plan: &AvroPlan) -> Vec<String> {
    let fields = plan.schema.record(plan.schema.root).unwrap_or_default();
    fields.iter().map(|field| field.name.to_string()).collect()
}

/// Which records of a batch are damaged blocks.
#[derive(Clone, Copy)]
pub(super) struct DamagedRecords<'a>(Option<&'a StringArray>);

impl<'a> DamagedRecords<'a> {
    /// The reason, if a record is a damaged block.
    pub fn reason(self, record: usize) -> Option<&'a str> {
        let reasons = self.0.filter(|reasons| reasons.is_valid(record))?;
        Some(reasons.value(record))
    }
}

impl ContainerRecords {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape) -> Self {
        ContainerRecords {
            names: FieldTree::new(shape.targets.iter().enumerate(), ""),
            texts: (0..shape.targets.len())
                .filter(|column| shape.targets[*column].sql_type == SqlType::Varchar)
                .collect(),
            refuses_strangers: shape.may_be_null(),
            capture: Capture::new(shape),
            plans: HashMap::new(),
        }
    }

    /// Decodes a batch of [`crate::decode::formats::avro::read_container`].
    pub fn decode(&mut self, shape: &InputShape, batch: &RecordBatch) -> DecodedBatch {
        let none = BinaryArray::new_null(0);
        let records = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let records = records.unwrap_or(&none);
        let damage = batch.column_by_name(DAMAGE);
        let damaged = DamagedRecords(damage.and_then(|column| column.as_string_opt::<i32>()));
        let schema = batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str);
        match self.plan(shape, schema) {
            ContainerPlan::Events(plan) => self.capture.decode(shape, &plan, records, damaged),
            ContainerPlan::Rows(plan) => self.rows(shape, &plan, records, damaged),
            ContainerPlan::Refused(reason) => {
                let mut changes = ChangeBuilder::new(shape.targets.len(), 0);
                changes.each_record(0..records.len(), |record, _| {
                    Err(damaged.reason(record).unwrap_or(&reason).to_string())
                });
                DecodedBatch::new(changes.typed(shape, ""), vec![None; records.len()], Vec::new())
            }
        }
    }

    fn plan(&mut self, shape: &InputShape, text: &str) -> ContainerPlan {
        if let Some(known) = self.plans.get(text) {
            return known.clone();
        }
        let reading = match AvroSchema::of_text(text) {
            Ok(schema) if capture::is_capture(&schema) => ContainerPlan::Events(Arc::new(self.capture.plan(schema))),
            Ok(schema) => match AvroPlan::of_record(schema, &self.names, None) {
                Ok(plan) => {
                    // A row of nulls would hide the mistake.
                    match self.refuses_strangers && taken(&plan).is_empty() {
                        true => ContainerPlan::Refused(stranger(&names_of(&plan), &shape.targets).into()),
                        false => ContainerPlan::Rows(Arc::new(plan)),
                    }
                }
                Err(reason) => ContainerPlan::Refused(reason.into()),
            },
            Err(reason) => ContainerPlan::Refused(reason.into()),
        };
        if self.plans.len() == KEPT {
            self.plans.clear();
        }
        self.plans.insert(text.to_string(), reading.clone());
        reading
    }

    fn rows(
        &mut self,
        shape: &InputShape,
        plan: &AvroPlan,
        records: &BinaryArray,
        damaged: DamagedRecords<'_>,
    ) -> DecodedBatch {
        let mut derived = String::new();
        let mut changes = ChangeBuilder::new(shape.targets.len(), records.len());
        let mut slots = RecordCells::new(shape.targets.len());
        changes.each_record(0..records.len(), |record, changes| {
            if let Some(reason) = damaged.reason(record) {
                return Err(reason.to_string());
            }
            slots.clear();
            plan.fill(records.value(record), &mut self.names, &mut slots, &mut derived)?;
            for column in &self.texts {
                shown(&mut slots.cells[*column], &mut derived);
            }
            changes.push(record, ChangeOp::Upsert, &slots.cells);
            Ok(())
        });
        let mut ignored = Vec::new();
        if !records.is_empty() {
            plan.ignored(&mut |path| ignored.push((path.to_string(), records.len() as u64)));
        }
        DecodedBatch::new(
            changes.typed(shape, &derived),
            vec![None; records.len()],
            summed(ignored),
        )
    }
}

/// Replaces the number of a date, a time or a point in time by its ISO text, for a text column.
fn shown(cell: &mut Cell<'_>, derived: &mut String) {
    let Datum::Int(n) = cell.datum else {
        return;
    };
    let start = derived.len();
    if write_moment(derived, cell.meaning, cell.scale, n) {
        *cell = Cell::with_datum(CellKind::Text, Datum::Derived(start, derived.len()));
    }
}
