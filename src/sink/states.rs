//! State tables keep the graph's state in the lake; only Alluvium reads them. A row holds a key and a state, both
//! opaque. The same sink writes them in the same snapshots as the tables that they belong to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::TableSpec;
use crate::definition::Deletes;
use crate::plan::{PlanHash, meaning_text};
use crate::render::error::error_schema;
use crate::repr::{CodecError, Row, RowCodec};

/// The common prefix of the names of state tables.
pub(super) const PREFIX: &str = "state.";

/// Whether a table of the sink is a state table.
pub fn is_state(table: &str) -> bool {
    table.starts_with(PREFIX)
}

/// The state table of an input with current rows.
pub fn of_input(input: &str) -> TableSpec {
    spec(&format!("inputs/{input}"), keyed_schema())
}

/// The state table of errors in rows that aggregates consumed: each row names the aggregate and holds the error row.
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
        summation: None,
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: None,
    }
}

fn keyed_schema() -> SchemaRef {
    let bytes = |name: &str| Field::new(name, DataType::Binary, false);
    Arc::new(Schema::new(vec![bytes("key"), bytes("state")]))
}

/// Encodes states as rows.
pub struct StateCodec(RowCodec);

impl StateCodec {
    /// The codec of every keyed state table.
    pub fn new() -> Result<Self, CodecError> {
        Ok(StateCodec(RowCodec::new(keyed_schema())?))
    }

    /// Encodes pairs of key and state as rows.
    pub fn encode<'a>(&self, states: impl Iterator<Item = &'a (Row, Row)> + Clone) -> Vec<Row> {
        let keys = BinaryArray::from_iter_values(states.clone().map(|(key, _)| key.bytes()));
        let values = BinaryArray::from_iter_values(states.map(|(_, state)| state.bytes()));
        let rows = keys.len();
        let columns: [ArrayRef; 2] = [Arc::new(keys), Arc::new(values)];
        self.0.encode_rows(&columns, rows).expect("bytes have row encodings")
    }
}

/// The pairs of key and state in a batch of a keyed state table.
pub fn states(batch: &RecordBatch) -> Vec<(Row, Row)> {
    let [keys, states] = [0, 1].map(|column| batch.column(column).as_binary::<i32>());
    let rows = 0..batch.num_rows();
    rows.map(|row| (Row::new(keys.value(row)), Row::new(states.value(row))))
        .collect()
}

/// The encoded column of [`of_errors`] that precedes an aggregate's error rows.
pub fn errors_of(meaning: PlanHash) -> Result<Row, CodecError> {
    let schema = Schema::new(vec![of_errors().schema.field(0).clone()]);
    let meaning: ArrayRef = Arc::new(StringArray::from(vec![meaning_text(meaning)]));
    let mut rows = RowCodec::new(Arc::new(schema))?.encode_rows(&[meaning], 1)?;
    Ok(rows.pop().expect("one row was encoded"))
}

/// The error rows of a batch of [`of_errors`], each with the meaning of its aggregate.
pub fn errors(batch: &RecordBatch) -> Result<Vec<(PlanHash, Row)>, CodecError> {
    let meanings = batch.column(0).as_string::<i32>();
    let rows = RowCodec::new(error_schema())?.encode_rows(&batch.columns()[1..], batch.num_rows())?;
    let meanings = meanings
        .iter()
        .map(|meaning| meaning.and_then(|m| PlanHash::from_str_radix(m, 16).ok()).unwrap_or(0));
    Ok(meanings.zip(rows).collect())
}
