//! What the graph holds, kept in the lake as tables that only Alluvium reads: a key and a state a row, both opaque.
//! They are written by the same sink in the same snapshots as the tables they belong to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::TableSpec;
use crate::definition::Deletes;
use crate::render::error::error_schema;
use crate::repr::{CodecError, Row, RowCodec};

/// Names of state tables start so.
pub(super) const PREFIX: &str = "state.";

/// Whether a table of the sink is one of these.
pub fn is_state(table: &str) -> bool {
    table.starts_with(PREFIX)
}

/// The rows of an input that holds rows.
pub fn of_input(input: &str) -> TableSpec {
    spec(&format!("inputs/{input}"), keyed_schema())
}

/// The errors of rows that aggregates were made from: which aggregate, and the error row.
pub fn of_errors() -> TableSpec {
    let mut fields = vec![Field::new("meaning", DataType::Utf8, false)];
    fields.extend(error_schema().fields().iter().map(|field| field.as_ref().clone()));
    spec("errors", Arc::new(Schema::new(fields)))
}

fn spec(place: &str, schema: SchemaRef) -> TableSpec {
    TableSpec {
        name: format!("{PREFIX}{place}"),
        path: format!("_alluvium/state/{place}"),
        schema,
        partition_by: vec![],
        append_only: false,
        fold: None,
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: None,
    }
}

fn keyed_schema() -> SchemaRef {
    let bytes = |name: &str| Field::new(name, DataType::Binary, false);
    Arc::new(Schema::new(vec![bytes("key"), bytes("state")]))
}

/// Makes rows of states, and states of rows.
pub struct StateCodec(RowCodec);

impl StateCodec {
    /// The codec of every keyed state table.
    pub fn new() -> Result<Self, CodecError> {
        Ok(StateCodec(RowCodec::new(keyed_schema())?))
    }

    /// The rows of (key, state)s.
    pub fn encode<'a>(&self, states: impl Iterator<Item = &'a (Row, Row)> + Clone) -> Vec<Row> {
        let keys = BinaryArray::from_iter_values(states.clone().map(|(key, _)| key.bytes()));
        let values = BinaryArray::from_iter_values(states.map(|(_, state)| state.bytes()));
        let rows = keys.len();
        let columns: [ArrayRef; 2] = [Arc::new(keys), Arc::new(values)];
        self.0.encode_rows(&columns, rows).expect("bytes have row encodings")
    }
}

/// The (key, state)s of a batch of a keyed state table.
pub fn states(batch: &RecordBatch) -> Vec<(Row, Row)> {
    let [keys, states] = [0, 1].map(|column| batch.column(column).as_binary::<i32>());
    let rows = 0..batch.num_rows();
    rows.map(|row| (Row::new(keys.value(row)), Row::new(states.value(row))))
        .collect()
}

/// What stands in front of an error row of an aggregate in [`of_errors`].
pub fn errors_of(meaning: u64) -> Result<Row, CodecError> {
    let schema = Schema::new(vec![of_errors().schema.field(0).clone()]);
    let meaning: ArrayRef = Arc::new(StringArray::from(vec![format!("{meaning:016x}")]));
    let mut rows = RowCodec::new(Arc::new(schema))?.encode_rows(&[meaning], 1)?;
    Ok(rows.pop().expect("one row was encoded"))
}

/// The error rows of a batch of [`of_errors`], each with the meaning of its aggregate.
pub fn errors(batch: &RecordBatch) -> Result<Vec<(u64, Row)>, CodecError> {
    let meanings = batch.column(0).as_string::<i32>();
    let rows = RowCodec::new(error_schema())?.encode_rows(&batch.columns()[1..], batch.num_rows())?;
    let meanings = meanings
        .iter()
        .map(|meaning| meaning.and_then(|m| u64::from_str_radix(m, 16).ok()).unwrap_or(0));
    Ok(meanings.zip(rows).collect())
}
