//! Encodes rows and keys as records of a topic.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use thiserror::Error;

use super::avro::{AvroWriter, RegisterError};
use super::changes::PublishedChanges;
use crate::definition::{Output, TopicFormat};
use crate::registry::{Registries, RegistryError};
use crate::repr::ShowableJson;
use crate::sink::TableSpec;
use crate::source::{RecordHeaders, headers_of_json};

/// Why rows could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The format cannot hold the rows.
    #[error("could not write rows of table {table} for topic {topic:?}")]
    Rows {
        /// Which table.
        table: String,
        /// Which topic.
        topic: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// See [`RegisterError`].
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl EncodeError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, EncodeError::Register(RegisterError::Unready(_)))
    }
}

/// A record for a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedRecord {
    pub key: Option<Vec<u8>>,
    /// None for a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: RecordHeaders,
}

impl EncodedRecord {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + bytes(value));
        bytes(&self.key) + bytes(&self.value) + headers.sum::<usize>()
    }
}

/// Encodes one table's changes: the key's columns as the record's key, the row as its value, with explicit nulls. A
/// dead letter is encoded as the original record, with its key and headers, plus headers with reason and place
/// (`alluvium.reason`, ...). If that is too large for the topic, the large parts are left out.
pub struct RecordEncoder {
    table: String,
    topic: String,
    key: Vec<usize>,
    key_schema: SchemaRef,
    form: RecordForm,
}

enum RecordForm {
    AsItCame {
        /// Letters of this many bytes or more are too large.
        limit: usize,
    },
    Json,
    Avro(Box<AvroWriter>),
}

impl RecordEncoder {
    /// An encoder for a table whose key is at these positions.
    pub fn new(spec: &TableSpec, output: &Output, key: &[usize], registries: &Registries) -> Result<Self, EncodeError> {
        let fields: Vec<Field> = key.iter().map(|column| spec.schema.field(*column).clone()).collect();
        let mut encoder = RecordEncoder {
            table: spec.name.clone(),
            topic: output.topic.clone(),
            key: key.to_vec(),
            key_schema: Arc::new(Schema::new(fields)),
            form: RecordForm::Json,
        };
        match &output.format {
            TopicFormat::AsItCame => encoder.form = RecordForm::AsItCame { limit: usize::MAX },
            TopicFormat::Json => {}
            TopicFormat::Avro(registry) => {
                let registry = registries.registry(registry)?;
                let writer = AvroWriter::new(registry, &output.topic, spec, &encoder.key_schema);
                encoder.form = RecordForm::Avro(Box::new(writer.map_err(|e| encoder.failed(e))?));
            }
        }
        Ok(encoder)
    }

    /// Must be called before [`RecordEncoder::encode`]: registers schemas if the format needs that.
    pub fn prepare(&mut self) -> Result<(), EncodeError> {
        if let RecordForm::Avro(writer) = &mut self.form {
            writer.register()?;
        }
        Ok(())
    }

    /// Notes that the topic refuses records of this size. Returns whether such records will be encoded differently
    /// from now on.
    pub fn shorten(&mut self, size: usize) -> bool {
        match &mut self.form {
            RecordForm::AsItCame { limit } if size < *limit => {
                *limit = size;
                true
            }
            _ => false,
        }
    }

    /// Encodes changes as records. The encoder must be prepared.
    pub fn encode(&mut self, changes: &PublishedChanges) -> Result<Vec<EncodedRecord>, EncodeError> {
        let schema = &self.key_schema;
        let keys = |rows: &RecordBatch| rows.project(&self.key)?.with_schema(schema.clone());
        let encoded = match &mut self.form {
            RecordForm::AsItCame { limit } => {
                let limit = *limit;
                let letters = letters(&changes.rows).into_iter();
                return Ok(letters.map(|letter| shortened(letter, limit)).collect());
            }
            RecordForm::Json => encode(changes, keys, json, json),
            RecordForm::Avro(writer) => {
                let AvroWriter { key, value, .. } = writer.as_mut();
                encode(changes, keys, |keys| key.encode(keys), |rows| value.encode(rows))
            }
        };
        encoded.map_err(|e| self.failed(e))
    }

    fn failed(&self, source: ArrowError) -> EncodeError {
        EncodeError::Rows {
            table: self.table.clone(),
            topic: self.topic.clone(),
            source,
        }
    }
}

/// Encodes the rows, then tombstones for the keys that are gone.
fn encode(
    changes: &PublishedChanges,
    keys: impl Fn(&RecordBatch) -> Result<RecordBatch, ArrowError>,
    mut key: impl FnMut(&RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError>,
    value: impl FnOnce(&RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError>,
) -> Result<Vec<EncodedRecord>, ArrowError> {
    let came = key(&keys(&changes.rows)?)?.into_iter().zip(value(&changes.rows)?);
    let came = came.map(|(key, value)| EncodedRecord {
        key: Some(key),
        value: Some(value),
        ..EncodedRecord::default()
    });
    let went = key(&changes.gone)?.into_iter().map(|key| EncodedRecord {
        key: Some(key),
        ..EncodedRecord::default()
    });
    Ok(came.chain(went).collect())
}

/// Encodes each row as a JSON object.
fn json(rows: &RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError> {
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(ShowableJson))
        .build::<_, LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    let text = writer.into_inner();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(<[u8]>::to_vec).collect())
}

/// The most bytes of a header's value, for a letter that is too large even without its payload.
const TOLD: usize = 1 << 10;

/// Shortens a letter to less than `limit` bytes if possible: first drops its value, then its key and original headers.
/// The headers with its place always stay; the dead-letter table has the rest.
fn shortened(mut letter: EncodedRecord, limit: usize) -> EncodedRecord {
    if letter.size() < limit {
        return letter;
    }
    if let Some(value) = letter.value.take() {
        let size = value.len().to_string().into_bytes();
        letter.headers.push(("alluvium.truncated".to_string(), Some(size)));
    }
    if letter.size() >= limit {
        letter.key = None;
        letter.headers.retain(|(name, _)| name.starts_with("alluvium."));
        let values = letter.headers.iter_mut().filter_map(|(_, value)| value.as_mut());
        values.for_each(|value| value.truncate(TOLD));
    }
    letter
}

/// The columns of a dead letter that become headers.
const PLACE: [&str; 7] = ["reason", "kind", "input", "feed", "partition", "offset", "table_name"];

/// Encodes dead letters as records.
fn letters(rows: &RecordBatch) -> Vec<EncodedRecord> {
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
            let text = column.value(row).as_bytes();
            match *name {
                "headers" => headers.extend(headers_of_json(text)),
                place => headers.push((format!("alluvium.{place}"), Some(text.to_vec()))),
            }
        }
        EncodedRecord {
            key: of(keys),
            value: of(values),
            headers,
        }
    };
    (0..rows.num_rows()).map(letter).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// A topic's record contained `ERROR: ...` instead of a date outside Arrow's calendar.
    #[test]
    fn a_record_is_what_the_row_is_whatever_it_holds() {
        for column in crate::repr::extremes() {
            let rows = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
            for record in json(&rows).unwrap() {
                let text = String::from_utf8(record).unwrap();
                assert!(text.starts_with("{\"x\":") && !text.contains("ERROR"), "{text}");
            }
        }
    }
}
