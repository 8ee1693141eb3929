//! Rows and keys as a topic's records have them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
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
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keyed {
    pub key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Encodes one table's changes: the key's columns as an object, the row as an object, nulls written. A dead letter is the
/// record that it was, with its key and headers, and the reason and place as headers more (`alluvium.reason`, ...).
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
        if self.key.is_empty() {
            return Ok(letters(&changes.rows));
        }
        let values = self.lines(&changes.rows)?;
        let mut records = Vec::with_capacity(values.len() + changes.gone.num_rows());
        let keys = self.keys(&changes.rows)?;
        records.extend(keys.into_iter().zip(values).map(|(key, value)| Keyed {
            key: Some(key),
            value: Some(value),
            headers: vec![],
        }));
        let gone = self.keys(&changes.gone)?;
        records.extend(gone.into_iter().map(|key| Keyed {
            key: Some(key),
            ..Keyed::default()
        }));
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

/// Headers of a dead letter's place and reason, and the columns they are of.
const PLACE: [&str; 7] = ["reason", "kind", "input", "feed", "partition", "offset", "table_name"];

/// Dead letters as records.
fn letters(rows: &RecordBatch) -> Vec<Keyed> {
    let bytes = |name: &str| {
        rows.column_by_name(name)
            .and_then(|column| column.as_binary_opt::<i32>())
    };
    let (keys, values) = (bytes("key"), bytes("payload"));
    let texts: Vec<(&str, StringArray)> = PLACE
        .iter()
        .chain(&["headers"])
        .filter_map(|name| {
            let column = cast(rows.column_by_name(name)?, &DataType::Utf8).ok()?;
            Some((*name, column.as_string::<i32>().clone()))
        })
        .collect();
    let letter = |row: usize| {
        let of = |column: Option<&BinaryArray>| {
            column
                .filter(|column| column.is_valid(row))
                .map(|column| column.value(row).to_vec())
        };
        let mut headers = Vec::new();
        for (name, column) in texts.iter().filter(|(_, column)| column.is_valid(row)) {
            match *name {
                "headers" => headers.extend(own_headers(column.value(row))),
                place => headers.push((format!("alluvium.{place}"), column.value(row).as_bytes().to_vec())),
            }
        }
        Keyed {
            key: of(keys),
            value: of(values),
            headers,
        }
    };
    (0..rows.num_rows()).map(letter).collect()
}

/// The headers that a record came with, from the JSON that keeps them.
fn own_headers(json: &str) -> Vec<(String, Vec<u8>)> {
    let object: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let bytes = |value: &Value| match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(object) => {
            let encoded = object.get("base64").and_then(Value::as_str);
            encoded.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
        }
        Value::Null => vec![],
        other => other.to_string().into_bytes(),
    };
    let mut headers = Vec::new();
    for (name, value) in &object {
        match value {
            Value::Array(values) => headers.extend(values.iter().map(|value| (name.clone(), bytes(value)))),
            value => headers.push((name.clone(), bytes(value))),
        }
    }
    headers
}
