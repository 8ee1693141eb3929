//! Encodes the rows that a rebuilt table loses, with all of its files, as deletions of its change data feed.

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use bytes::Bytes;

use super::error::WriterError;
use super::file::{FileNames, encode_changes};
use super::layout::TableLayout;
use crate::repr::{Diff, Row, RowCodec};
use crate::sink::{ChangeFile, TableSpec};

/// Encodes the departing rows of one table.
pub struct DepartingRows {
    layout: TableLayout,
    names: FileNames,
}

impl DepartingRows {
    /// Encodes rows in the form of the table's present definition. A generation uses this at most once per table, so
    /// its file names are unique.
    pub fn new(spec: TableSpec, generation: u64) -> Result<Self, WriterError> {
        Ok(DepartingRows {
            layout: TableLayout::new(spec)?,
            names: FileNames::new(0, generation),
        })
    }

    /// Change files with the deletions of these rows, each with its place in the lake and its bytes. A column that the
    /// rows lack is null.
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
        let changes: Vec<(Row, Diff)> = encoded.into_iter().map(|row| (row, -1)).collect();
        // No snapshot has epoch 0, so names with it are free.
        encode_changes(&self.layout, &changes, (&self.names, 0))
    }
}
