//! Rows that go all at once, with the files that hold them, as deletions of a change data feed.

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use bytes::Bytes;

use super::error::WriterError;
use super::file::{Names, encode_changes};
use super::layout::Layout;
use crate::repr::{Diff, Row, RowCodec};
use crate::sink::{ChangeFile, TableSpec};

/// Encodes the departing rows of one table.
pub struct Departing {
    layout: Layout,
    names: Names,
}

impl Departing {
    /// Of this table, as it is defined now. A generation departs once at most.
    pub fn new(spec: TableSpec, generation: u64) -> Result<Self, WriterError> {
        Ok(Departing {
            layout: Layout::new(spec)?,
            names: Names::new(0, generation),
        })
    }

    /// Files that tell of these rows' deletion, each with its place in the lake and its bytes. A column that the rows do not
    /// have is null.
    pub fn files(&self, rows: &RecordBatch) -> Result<Vec<(ChangeFile, String, Bytes)>, WriterError> {
        let schema = &self.layout.spec.schema;
        let columns = schema
            .fields()
            .iter()
            .map(|field| match rows.column_by_name(field.name()) {
                Some(column) => cast(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            });
        let columns: Vec<ArrayRef> = columns
            .collect::<Result<_, _>>()
            .map_err(|e| self.layout.arrow_failed(e))?;
        let encoded = RowCodec::new(schema.clone()).and_then(|codec| codec.encode_rows(&columns, rows.num_rows()));
        let encoded = encoded.map_err(|source| WriterError::Codec {
            table: self.layout.spec.name.clone(),
            source,
        })?;
        let gone: Vec<(Row, Diff)> = encoded.into_iter().map(|row| (row, -1)).collect();
        // No snapshot is of epoch 0: its names are free.
        encode_changes(&self.layout, &gone, (&self.names, 0))
    }
}
