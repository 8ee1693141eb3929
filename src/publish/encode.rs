//! Rows and keys as a topic's records have them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use thiserror::Error;

use super::avro::{AvroWriter, RegisterError};
use super::changes::Changes;
use crate::definition::{Output, OutputFormat};
use crate::registry::{Registries, RegistryError};
use crate::repr::ShowableJson;
use crate::sink::TableSpec;
use crate::source::{RecordHeaders, headers_of_json};

/// Why rows could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// Rows that the format does not take.
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
pub struct Keyed {
    pub key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: RecordHeaders,
}

impl Keyed {
    /// Bytes of all parts.
    pub fn size(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + bytes(value));
        bytes(&self.key) + bytes(&self.value) + headers.sum::<usize>()
    }
}

/// Encodes one table's changes: the key's columns as one record, the row as another, nulls written. A dead letter is the
/// record that it was, with its key and headers, and the reason and place as headers more (`alluvium.reason`, ...); one
/// that its topic does not take goes without what makes it large.
pub struct Encoder {
    table: String,
    topic: String,
    key: Vec<usize>,
    key_schema: SchemaRef,
    form: Form,
}

enum Form {
    AsItCame {
        /// Letters of so many bytes are too large.
        limit: usize,
    },
    Json,
    Avro(Box<AvroWriter>),
}

impl Encoder {
    /// For a table whose key is at these positions.
    pub fn new(spec: &TableSpec, output: &Output, key: &[usize], registries: &Registries) -> Result<Self, EncodeError> {
        let fields: Vec<Field> = key.iter().map(|column| spec.schema.field(*column).clone()).collect();
        let mut encoder = Encoder {
            table: spec.name.clone(),
            topic: output.topic.clone(),
            key: key.to_vec(),
            key_schema: Arc::new(Schema::new(fields)),
            form: Form::Json,
        };
        match &output.format {
            OutputFormat::AsItCame => encoder.form = Form::AsItCame { limit: usize::MAX },
            OutputFormat::Json => {}
            OutputFormat::Avro(registry) => {
                let registry = registries.of(registry)?;
                let writer = AvroWriter::new(registry, &output.topic, spec, &encoder.key_schema);
                encoder.form = Form::Avro(Box::new(writer.map_err(|e| encoder.failed(e))?));
            }
        }
        Ok(encoder)
    }

    /// Sees to it that records can be encoded.
    pub fn prepare(&mut self) -> Result<(), EncodeError> {
        if let Form::Avro(writer) = &mut self.form {
            writer.register()?;
        }
        Ok(())
    }

    /// Learns that the topic takes no record of this size. Says whether it writes those otherwise from now on.
    pub fn shorten(&mut self, size: usize) -> bool {
        match &mut self.form {
            Form::AsItCame { limit } if size < *limit => {
                *limit = size;
                true
            }
            _ => false,
        }
    }

    /// The records of changes; it is prepared.
    pub fn encode(&mut self, changes: &Changes) -> Result<Vec<Keyed>, EncodeError> {
        let schema = &self.key_schema;
        let keys = |rows: &RecordBatch| rows.project(&self.key)?.with_schema(schema.clone());
        let encoded = match &mut self.form {
            Form::AsItCame { limit } => {
                let limit = *limit;
                let letters = letters(&changes.rows).into_iter();
                return Ok(letters.map(|letter| shortened(letter, limit)).collect());
            }
            Form::Json => encode(changes, keys, json, json),
            Form::Avro(writer) => {
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

/// Rows that came, then tombstones of those that went.
fn encode(
    changes: &Changes,
    keys: impl Fn(&RecordBatch) -> Result<RecordBatch, ArrowError>,
    mut key: impl FnMut(&RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError>,
    value: impl FnOnce(&RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError>,
) -> Result<Vec<Keyed>, ArrowError> {
    let came = key(&keys(&changes.rows)?)?.into_iter().zip(value(&changes.rows)?);
    let came = came.map(|(key, value)| Keyed {
        key: Some(key),
        value: Some(value),
        ..Keyed::default()
    });
    let went = key(&changes.gone)?.into_iter().map(|key| Keyed {
        key: Some(key),
        ..Keyed::default()
    });
    Ok(came.chain(went).collect())
}

/// An object for each row.
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

/// Bytes of a header that tells of a letter too large even without its value.
const TOLD: usize = 1 << 10;

/// A letter of less than `limit` bytes, if there is one: without its value, then without its key and the headers it came
/// with. Its place is always told: the table has the rest.
fn shortened(mut letter: Keyed, limit: usize) -> Keyed {
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
            let text = column.value(row).as_bytes();
            match *name {
                "headers" => headers.extend(headers_of_json(text)),
                place => headers.push((format!("alluvium.{place}"), Some(text.to_vec()))),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// A topic's record had `ERROR: ...` in the place of a date beyond the calendar.
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
