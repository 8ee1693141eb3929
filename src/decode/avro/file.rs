//! Records of object container files to rows: as single records, by a plan for each schema. Events of Azure Event Hubs
//! Capture are told by their schema (`capture`).

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use hashbrown::{HashMap, HashSet};

use super::super::brought::{Brought, stranger};
use super::super::cell::{Cell, Datum, Kind};
use super::super::changes::{Changes, Outcome, Shape};
use super::super::names::{Names, Slots};
use super::super::records::{Plan as _, summed};
use super::super::target::Target;
use super::capture::{self, Capture};
use super::container::{DAMAGE, SCHEMA};
use super::plan::Plan;
use super::read::write_moment;
use super::schema::Schema;
use crate::decode::Op;
use crate::repr::SqlType;

/// How many schemas are kept: files of one feed have few.
const KEPT: usize = 64;

/// Decodes records of containers.
#[derive(Debug)]
pub(in crate::decode) struct ContainerRecords {
    names: Names,
    /// The columns of texts.
    texts: Vec<usize>,
    /// Whether records are refused that have no field of any column.
    refuses_strangers: bool,
    capture: Capture,
    /// By the schema's text.
    plans: HashMap<String, Reading>,
}

/// How records of one schema are read.
#[derive(Clone, Debug)]
enum Reading {
    Rows(Arc<Plan>),
    /// Wrapped events.
    Events(Arc<Plan>),
    /// Not at all, and why.
    Refused(Arc<str>),
}

/// What of columns the records of a container have; none: they wrap events.
///
/// # Errors
/// Their schema cannot be read.
pub(in crate::decode) fn brought(targets: &[Target], batch: &RecordBatch) -> Option<Result<Brought, String>> {
    let text = batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str);
    let schema = match Schema::of_text(text) {
        Ok(schema) => schema,
        Err(reason) => return Some(Err(reason)),
    };
    if capture::is_capture(&schema) {
        return None;
    }
    let names = Names::new(targets.iter().enumerate(), "");
    Some(Plan::of_record(schema, &names, None).map(|plan| {
        let taken = taken(&plan);
        let mut ignored = Vec::new();
        plan.ignored(&mut |path| ignored.push(path.to_string()));
        Brought {
            columns: (0..targets.len()).map(|column| taken.contains(&column)).collect(),
            names: names_of(&plan),
            ignored,
        }
    }))
}

/// The columns that records fill.
fn taken(plan: &Plan) -> HashSet<usize> {
    let mut taken = HashSet::new();
    plan.taken(&plan.root, plan.schema.root, &mut |column, _| {
        taken.insert(column);
    });
    taken
}

/// The names of records' fields.
fn names_of(plan: &Plan) -> Vec<String> {
    let fields = plan.schema.record(plan.schema.root).unwrap_or_default();
    fields.iter().map(|field| field.name.to_string()).collect()
}

/// Which records of a batch are damaged blocks.
#[derive(Clone, Copy)]
pub(super) struct Damaged<'a>(Option<&'a StringArray>);

impl<'a> Damaged<'a> {
    /// Why a record is one of them.
    pub fn reason(self, record: usize) -> Option<&'a str> {
        let reasons = self.0.filter(|reasons| reasons.is_valid(record))?;
        Some(reasons.value(record))
    }
}

impl ContainerRecords {
    /// For rows of this shape.
    pub fn new(shape: &Shape) -> Self {
        ContainerRecords {
            names: Names::new(shape.targets.iter().enumerate(), ""),
            texts: (0..shape.targets.len())
                .filter(|column| shape.targets[*column].sql_type == SqlType::Varchar)
                .collect(),
            refuses_strangers: shape.may_be_null(),
            capture: Capture::new(shape),
            plans: HashMap::new(),
        }
    }

    /// What a batch of [`super::read_container`] comes to.
    pub fn decode(&mut self, shape: &Shape, batch: &RecordBatch) -> Outcome {
        let none = BinaryArray::new_null(0);
        let records = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        let records = records.unwrap_or(&none);
        let damage = batch.column_by_name(DAMAGE);
        let damaged = Damaged(damage.and_then(|column| column.as_string_opt::<i32>()));
        let schema = batch.schema_ref().metadata().get(SCHEMA).map_or("", String::as_str);
        match self.reading(shape, schema) {
            Reading::Events(plan) => self.capture.decode(shape, &plan, records, damaged),
            Reading::Rows(plan) => self.rows(shape, &plan, records, damaged),
            Reading::Refused(reason) => {
                let mut changes = Changes::new(shape.targets.len(), 0);
                for record in 0..records.len() {
                    changes.reject(record, damaged.reason(record).unwrap_or(&reason).to_string());
                }
                Outcome::new(changes.typed(shape, ""), vec![None; records.len()], Vec::new())
            }
        }
    }

    fn reading(&mut self, shape: &Shape, text: &str) -> Reading {
        if let Some(known) = self.plans.get(text) {
            return known.clone();
        }
        let reading = match Schema::of_text(text) {
            Ok(schema) if capture::is_capture(&schema) => Reading::Events(Arc::new(self.capture.plan(schema))),
            Ok(schema) => match Plan::of_record(schema, &self.names, None) {
                Ok(plan) => {
                    // A row of nulls would say nothing of it.
                    match self.refuses_strangers && taken(&plan).is_empty() {
                        true => Reading::Refused(stranger(&names_of(&plan), &shape.targets).into()),
                        false => Reading::Rows(Arc::new(plan)),
                    }
                }
                Err(reason) => Reading::Refused(reason.into()),
            },
            Err(reason) => Reading::Refused(reason.into()),
        };
        if self.plans.len() == KEPT {
            self.plans.clear();
        }
        self.plans.insert(text.to_string(), reading.clone());
        reading
    }

    fn rows(&mut self, shape: &Shape, plan: &Plan, records: &BinaryArray, damaged: Damaged<'_>) -> Outcome {
        let mut derived = String::new();
        let mut changes = Changes::new(shape.targets.len(), records.len());
        let mut slots = Slots::new(shape.targets.len());
        for record in 0..records.len() {
            if let Some(reason) = damaged.reason(record) {
                changes.reject(record, reason.to_string());
                continue;
            }
            slots.clear();
            match plan.fill(records.value(record), &mut self.names, &mut slots, &mut derived) {
                Ok(()) => {
                    for column in &self.texts {
                        shown(&mut slots.cells[*column], &mut derived);
                    }
                    changes.push(record, Op::Upsert, &slots.cells);
                }
                Err(reason) => changes.reject(record, reason),
            }
        }
        let mut ignored = Vec::new();
        if !records.is_empty() {
            plan.ignored(&mut |path| ignored.push((path.to_string(), records.len() as u64)));
        }
        Outcome::new(
            changes.typed(shape, &derived),
            vec![None; records.len()],
            summed(ignored),
        )
    }
}

/// A date, a point in time or a time of day in a text is written as such, not as the number that a file has of it.
fn shown(cell: &mut Cell<'_>, derived: &mut String) {
    let Datum::Int(n) = cell.datum else {
        return;
    };
    let start = derived.len();
    if write_moment(derived, cell.meaning, cell.scale, n) {
        *cell = Cell::of(Kind::Text, Datum::Derived(start, derived.len()));
    }
}
