//! Files of Azure Event Hubs Capture: object containers whose records wrap events.
//!
//! `Body` holds an event's bytes, which are decoded as JSON. Columns may also take what the wrapper says, by `from`:
//! `SequenceNumber`, `Offset`, `EnqueuedTimeUtc` (also the event's time at its source), and of the maps `SystemProperties`
//! and `Properties` single values (`Properties.tenant`, `SystemProperties."x-opt-partition-key"`) or the whole as JSON. A field
//! of the event of the same name comes first.

use arrow::array::{Array, BinaryArray, BinaryBuilder};
use arrow::datatypes::DataType;
use chrono::{DateTime, NaiveDateTime};

use super::super::cell::{Cell, Datum, Kind};
use super::super::changes::{Outcome, Shape};
use super::super::coerce::temporal;
use super::super::json::Json;
use super::super::keys::Keys;
use super::super::names::{Names, Slots};
use super::super::path;
use super::super::records::Plan as _;
use super::super::target::Target;
use super::super::{Batch, Reject};
use super::file::Damaged;
use super::plan::Plan;
use super::schema::Schema;

pub(super) const BODY: &str = "Body";
const ENQUEUED: &str = "EnqueuedTimeUtc";

/// Fields of every wrapper besides the body.
const WRAPPER: [&str; 3] = ["SequenceNumber", "Offset", ENQUEUED];

/// Its maps.
const PROPERTIES: [&str; 2] = ["SystemProperties", "Properties"];

/// Whether records of this schema wrap events.
pub(super) fn is_capture(schema: &Schema) -> bool {
    let fields = schema.record(schema.root).unwrap_or_default();
    let has = |name: &str| fields.iter().any(|field| &*field.name == name);
    has(BODY) && WRAPPER.iter().all(|name| has(name))
}

/// Decodes wrapped events.
#[derive(Debug)]
pub(super) struct Capture {
    events: Json,
    /// What columns take of the wrapper; behind the columns' slots are those of the body and the time.
    wrapper: Names,
}

impl Capture {
    /// For rows of this shape.
    pub fn new(shape: &Shape) -> Self {
        let of_wrapper = |name: &String| {
            let steps = path::steps(name);
            let first: &str = steps.first().map_or("", |step| step);
            WRAPPER.contains(&first) || PROPERTIES.contains(&first)
        };
        let targets: Vec<Target> = shape
            .targets
            .iter()
            .map(|target| Target {
                from: target.from.iter().filter(|name| of_wrapper(name)).cloned().collect(),
                ..target.clone()
            })
            .collect();
        let mut wrapper = Names::new(targets.iter().enumerate(), "");
        wrapper.watch(targets.len(), BODY);
        wrapper.watch(targets.len() + 1, ENQUEUED);
        Capture {
            events: Json::new(shape, Keys::new(shape, None, None)),
            wrapper,
        }
    }

    /// How wrappers of a schema are read.
    pub fn plan(&self, schema: Schema) -> Plan {
        Plan::of_record(schema, &self.wrapper, None).expect("a wrapper is a record")
    }

    /// What wrapped events come to.
    pub fn decode(&mut self, shape: &Shape, plan: &Plan, records: &BinaryArray, damaged: Damaged<'_>) -> Outcome {
        let columns = shape.targets.len();
        let mut derived = String::new();
        let mut slots = Slots::new(columns + 2);
        let mut wrapped: Vec<Cell<'_>> = Vec::with_capacity(records.len() * columns);
        let mut times = Vec::with_capacity(records.len());
        let mut bodies = BinaryBuilder::with_capacity(records.len(), records.value_data().len());
        let mut broken = Vec::new();
        for record in 0..records.len() {
            slots.clear();
            let filled = match damaged.reason(record) {
                Some(reason) => Err(reason.to_string()),
                None => plan.fill(records.value(record), &mut self.wrapper, &mut slots, &mut derived),
            };
            if let Err(reason) = filled {
                broken.push((record, reason));
                slots.clear();
            }
            let enqueued = slots.cells[columns + 1].resolved();
            times.push(enqueued.as_deref().and_then(enqueued_ms));
            bodies.append_option(match slots.cells[columns].datum {
                Datum::Bytes(body) => Some(body),
                _ => None,
            });
            wrapped.extend_from_slice(&slots.cells[..columns]);
        }
        let bodies = bodies.finish();
        self.events(
            shape,
            Wrapped {
                bodies,
                times,
                cells: wrapped,
                broken,
            },
            derived,
        )
    }

    fn events(&mut self, shape: &Shape, wrapped: Wrapped<'_>, mut derived: String) -> Outcome {
        let batch = Batch {
            values: &wrapped.bodies,
            keys: None,
            headers: None,
            ts_ms: &wrapped.times,
        };
        let mut times = batch.times();
        let mut changes = self.events.changes(shape, &batch, &mut times, &mut derived);
        for (column, target) in shape.targets.iter().enumerate() {
            for (cell, record) in changes.columns[column].iter_mut().zip(&changes.record) {
                let outer = wrapped.cells[*record as usize * shape.targets.len() + column];
                if cell.kind == Kind::Absent && outer.is_value() {
                    *cell = plainly(target, outer, &mut derived);
                }
            }
        }
        // First, for an event without a body is refused for that, too.
        let broken = wrapped.broken.into_iter().map(|(record, reason)| Reject {
            record: Some(record as u32),
            reason,
        });
        changes.rejects.splice(0..0, broken);
        Outcome::new(changes.typed(shape, &derived), times, self.events.take_ignored())
    }
}

/// What wrappers hold: bodies and times of each record, and the columns' cells of each record, one record behind the other.
struct Wrapped<'a> {
    bodies: BinaryArray,
    times: Vec<Option<i64>>,
    cells: Vec<Cell<'a>>,
    broken: Vec<(usize, String)>,
}

/// The wrapper's own way of writing a time should not have to be said by a format.
fn plainly<'a>(target: &Target, cell: Cell<'a>, derived: &mut String) -> Cell<'a> {
    let asks = target.patterns.is_empty() && target.arrow != DataType::Utf8;
    let Some(at) = Some(cell.text())
        .filter(|_| asks && cell.kind == Kind::Text)
        .and_then(enqueued_ms)
    else {
        return cell;
    };
    let Some(at) = DateTime::from_timestamp_millis(at) else {
        return cell;
    };
    let start = derived.len();
    derived.push_str(&at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string());
    Cell::of(Kind::Text, Datum::Derived(start, derived.len()))
}

/// `10/16/2017 6:18:55 PM`, as .NET writes it where the culture is invariant, or ISO.
fn enqueued_ms(text: &str) -> Option<i64> {
    NaiveDateTime::parse_from_str(text, "%m/%d/%Y %I:%M:%S %p")
        .ok()
        .map(|at| at.and_utc().timestamp_millis())
        .or_else(|| temporal::iso(text.as_bytes()).map(|point| point.micros.div_euclid(1000)))
}
