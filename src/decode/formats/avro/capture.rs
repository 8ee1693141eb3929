//! Files of Azure Event Hubs Capture: object containers whose records wrap events.
//!
//! `Body` contains an event's bytes, which are decoded as JSON. In `from`, columns may also name fields of the
//! wrapper: `SequenceNumber`, `Offset`, `EnqueuedTimeUtc` (also the event's time at its source), and single values of
//! the maps `SystemProperties` and `Properties` (`Properties.tenant`, `SystemProperties."x-opt-partition-key"`), or a
//! whole map as JSON. A field of the event with the same name has precedence.

use arrow::array::{Array, BinaryArray, BinaryBuilder};
use arrow::datatypes::DataType;
use chrono::{DateTime, NaiveDateTime};

use crate::decode::batch::Batch;
use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::changes::{DecodedBatch, InputShape};
use crate::decode::coerce::temporal;
use crate::decode::decoded::Reject;
use crate::decode::formats::avro::file::DamagedRecords;
use crate::decode::formats::avro::plan::AvroPlan;
use crate::decode::formats::avro::schema::AvroSchema;
use crate::decode::formats::json::Json;
use crate::decode::formats::keys::KeyDecoder;
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::path;
use crate::decode::schemas::decode_plan::DecodePlan as _;
use crate::decode::target::Target;

pub(super) const BODY: &str = "Body";
const ENQUEUED: &str = "EnqueuedTimeUtc";

/// The fields of every wrapper besides the body.
const WRAPPER: [&str; 3] = ["SequenceNumber", "Offset", ENQUEUED];

/// The maps of a wrapper.
const PROPERTIES: [&str; 2] = ["SystemProperties", "Properties"];

/// Whether records of this schema wrap events.
pub(super) fn is_capture(schema: &AvroSchema) -> bool {
    let fields = schema.record(schema.root).unwrap_or_default();
    let has = |name: &str| fields.iter().any(|field| &*field.name == name);
    has(BODY) && WRAPPER.iter().all(|name| has(name))
}

/// Decodes wrapped events.
#[derive(Debug)]
pub(super) struct Capture {
    events: Json,
    /// The wrapper's fields that columns take; the slots behind the columns' are those of the body and the time.
    wrapper: FieldTree,
}

impl Capture {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape) -> Self {
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
        let mut wrapper = FieldTree::new(targets.iter().enumerate(), "");
        wrapper.watch(targets.len(), BODY);
        wrapper.watch(targets.len() + 1, ENQUEUED);
        Capture {
            events: Json::new(shape, KeyDecoder::new(shape, None, None)),
            wrapper,
        }
    }

    /// How wrappers of a schema are decoded.
    pub fn plan(&self, schema: AvroSchema) -> AvroPlan {
        AvroPlan::of_record(schema, &self.wrapper, None).expect("a wrapper is a record")
    }

    /// Decodes wrapped events.
    pub fn decode(
        &mut self,
        shape: &InputShape,
        plan: &AvroPlan,
        records: &BinaryArray,
        damaged: DamagedRecords<'_>,
    ) -> DecodedBatch {
        let columns = shape.targets.len();
        let mut derived = String::new();
        let mut slots = RecordCells::new(columns + 2);
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
            CaptureRecords {
                bodies,
                times,
                cells: wrapped,
                broken,
            },
            derived,
        )
    }

    fn events(&mut self, shape: &InputShape, wrapped: CaptureRecords<'_>, mut derived: String) -> DecodedBatch {
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
                if cell.kind == CellKind::Absent && outer.is_value() {
                    *cell = with_iso_time(target, outer, &mut derived);
                }
            }
        }
        // These come first, because an event without a body gets a second reject for that.
        let broken = wrapped.broken.into_iter().map(|(record, reason)| Reject {
            record: Some(record as u32),
            reason,
        });
        changes.rejects.splice(0..0, broken);
        DecodedBatch::new(changes.typed(shape, &derived), times, self.events.take_ignored())
    }
}

/// The content of wrappers: the body and time of each record, and the columns' cells, record after record.
struct CaptureRecords<'a> {
    bodies: BinaryArray,
    times: Vec<Option<i64>>,
    cells: Vec<Cell<'a>>,
    broken: Vec<(usize, String)>,
}

/// Converts the wrapper's own time format, so that users need not declare it as a column's format.
fn with_iso_time<'a>(target: &Target, cell: Cell<'a>, derived: &mut String) -> Cell<'a> {
    let asks = target.patterns.is_empty() && target.arrow != DataType::Utf8;
    let Some(at) = Some(cell.text())
        .filter(|_| asks && cell.kind == CellKind::Text)
        .and_then(enqueued_ms)
    else {
        return cell;
    };
    let Some(at) = DateTime::from_timestamp_millis(at) else {
        return cell;
    };
    let start = derived.len();
    derived.push_str(&at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string());
    Cell::with_datum(CellKind::Text, Datum::Derived(start, derived.len()))
}

/// Parses `10/16/2017 6:18:55 PM`, as .NET writes it in the invariant culture, or ISO.
fn enqueued_ms(text: &str) -> Option<i64> {
    NaiveDateTime::parse_from_str(text, "%m/%d/%Y %I:%M:%S %p")
        .ok()
        .map(|at| at.and_utc().timestamp_millis())
        .or_else(|| temporal::iso(text.as_bytes()).map(|point| point.micros.div_euclid(1000)))
}
