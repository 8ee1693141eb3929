//! Avro object container files to Arrow columns, and what Azure Event Hubs Capture makes of them.
//!
//! A capture file wraps each event: `Body` holds its bytes, which are decoded as JSON. The wrapper's
//! `SequenceNumber`, `Offset` and `EnqueuedTimeUtc` may fill columns too (by `from`); the latter is also the
//! event's time at its source.

use std::io::{BufReader, Read};

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use chrono::{DateTime, NaiveDateTime};

use super::super::Batch;
use super::super::cell::{Cell, Kind};
use super::super::changes::{Outcome, Shape};
use super::super::json::Json;

/// Rows of a batch, where nothing else is asked for.
pub const BATCH: usize = 8192;

/// Fields of the wrapper that columns may take.
const WRAPPER: [&str; 3] = ["SequenceNumber", "Offset", "EnqueuedTimeUtc"];

/// The rows of an object container file, in batches of at most `batch_size`.
///
/// # Errors
/// Where it is not such a file or its schema is beyond arrow-avro; the iterator's items fail where a block is
/// damaged (what follows is lost: blocks are compressed and not self-describing).
pub fn read_container(
    bytes: impl Read,
    batch_size: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
    ReaderBuilder::new()
        .with_batch_size(batch_size)
        .build(BufReader::new(bytes))
}

/// Whether a batch is of an Event Hubs Capture file.
pub(in crate::decode) fn is_capture(batch: &RecordBatch) -> bool {
    let schema = batch.schema_ref();
    let has = |name: &str| schema.column_with_name(name).is_some();
    has("Body") && WRAPPER.iter().all(|name| has(name))
}

/// Decodes the events of a capture file, as JSON.
pub(in crate::decode) fn decode_capture(shape: &Shape, json: &mut Json, batch: &RecordBatch) -> Outcome {
    let bodies = batch
        .column_by_name("Body")
        .and_then(|body| cast(body, &DataType::Binary).ok());
    let bodies = bodies.unwrap_or_else(|| std::sync::Arc::new(BinaryArray::new_null(batch.num_rows())));
    let text = |name: &str| {
        let column = batch
            .column_by_name(name)
            .and_then(|column| cast(column, &DataType::Utf8).ok());
        column.map_or_else(
            || StringArray::new_null(batch.num_rows()),
            |column| column.as_string().clone(),
        )
    };
    let enqueued = text("EnqueuedTimeUtc");
    let times: Vec<Option<i64>> = enqueued.iter().map(|at| at.and_then(enqueued_ms)).collect();
    let iso = |ms: i64| DateTime::from_timestamp_millis(ms).map(|at| at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string());
    // The wrapper's own way of writing a time should not have to be said.
    let enqueued_iso: StringArray = times.iter().map(|ms| ms.and_then(iso)).collect();
    let mut wrapped = Vec::new();
    for (column, target) in shape.targets.iter().enumerate() {
        if let Some(name) = target.from.iter().find(|from| WRAPPER.contains(&from.as_str())) {
            let values = match name.as_str() {
                "EnqueuedTimeUtc" if target.patterns.is_empty() && target.arrow != DataType::Utf8 => {
                    enqueued_iso.clone()
                }
                name => text(name),
            };
            wrapped.push((column, values));
        }
    }
    let mut derived = String::new();
    let events = Batch {
        values: bodies.as_binary(),
        keys: None,
        headers: None,
        ts_ms: &times,
    };
    let mut times = events.times();
    let mut changes = json.changes(shape, &events, &mut times, &mut derived);
    for (column, values) in &wrapped {
        for (cell, record) in changes.columns[*column].iter_mut().zip(&changes.record) {
            let record = *record as usize;
            if cell.kind == Kind::Absent && values.is_valid(record) {
                *cell = Cell::new(Kind::Text, values.value(record));
            }
        }
    }
    Outcome::new(changes.typed(shape, &derived), times, json.take_ignored())
}

/// `10/16/2017 6:18:55 PM`, as .NET writes it where the culture is invariant, or ISO.
fn enqueued_ms(text: &str) -> Option<i64> {
    NaiveDateTime::parse_from_str(text, "%m/%d/%Y %I:%M:%S %p")
        .ok()
        .map(|at| at.and_utc().timestamp_millis())
        .or_else(|| super::super::coerce::temporal::iso(text.as_bytes()).map(|micros| micros.div_euclid(1000)))
}
