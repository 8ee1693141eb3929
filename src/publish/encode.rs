//! Rows and keys as a topic's records have them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use thiserror::Error;

use super::changes::Changes;
use crate::definition::Output;
use crate::sink::TableSpec;

/// Why rows could not be encoded.
#[derive(Debug, Error)]
#[error("could not write rows of table {table} for topic {topic:?}")]
pub struct EncodeError {
    /// Which table.
    table: String,
    /// Which topic.
    topic: String,
    /// Why.
    #[source]
    source: ArrowError,
}

/// A record for a topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Keyed {
    pub key: Vec<u8>,
    /// None: a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Encodes one table's changes: the key's columns as an object, the row as an object, nulls written.
pub struct Encoder {
    table: String,
    topic: String,
    key: Vec<usize>,
    key_schema: SchemaRef,
}

impl Encoder {
    /// For a table whose key is at these positions.
    pub fn new(spec: &TableSpec, output: &Output, key: &[usize]) -> Result<Self, EncodeError> {
        let fields: Vec<Field> = key.iter().map(|column| spec.schema.field(*column).clone()).collect();
        Ok(Encoder {
            table: spec.name.clone(),
            topic: output.topic.clone(),
            key: key.to_vec(),
            key_schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The records of changes.
    pub fn encode(&mut self, changes: &Changes) -> Result<Vec<Keyed>, EncodeError> {
        let values = self.lines(&changes.rows)?;
        let mut records = Vec::with_capacity(values.len() + changes.gone.num_rows());
        let keys = self.keys(&changes.rows)?;
        records.extend(keys.into_iter().zip(values).map(|(key, value)| Keyed {
            key,
            value: Some(value),
        }));
        let gone = self.keys(&changes.gone)?;
        records.extend(gone.into_iter().map(|key| Keyed { key, value: None }));
        Ok(records)
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, EncodeError> {
        let columns = self.key.iter().map(|column| rows.column(*column).clone()).collect();
        let keys = RecordBatch::try_new(self.key_schema.clone(), columns).map_err(|e| self.failed(e))?;
        self.lines(&keys)
    }

    fn lines(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, EncodeError> {
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(Vec::new());
        let written = writer.write(rows).and_then(|()| writer.finish());
        written.map_err(|e| self.failed(e))?;
        let text = writer.into_inner();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(<[u8]>::to_vec).collect())
    }

    fn failed(&self, source: ArrowError) -> EncodeError {
        EncodeError {
            table: self.table.clone(),
            topic: self.topic.clone(),
            source,
        }
    }
}
