//! Encodes rows and keys as Avro records, each after a zero byte and the id of its schema, the framing of Confluent's
//! registry.
//!
//! The schema follows from the table: a record with a field for each column, which is nullable and null by default if
//! the column is nullable. It is registered before the first record, under the topic's name with `-key` or `-value`.
//! If the registry refuses it as incompatible with the earlier schemas of the subject, nothing is written.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::schema::{
    AVRO_FIELD_DEFAULT_METADATA_KEY, AVRO_NAME_METADATA_KEY, AVRO_NAMESPACE_METADATA_KEY, AvroSchema,
    FingerprintStrategy,
};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use thiserror::Error;

use crate::registry::{RegistrationOutcome, Registry, Unready};
use crate::sink::TableSpec;

/// Why schemas could not be registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The registry does not answer; the same may succeed later.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// The registry refuses a schema.
    #[error(
        "the schema registry refuses the schema of table {table} for subject {subject:?}: {reason}; name another topic, or change the subject's compatibility"
    )]
    Refused {
        /// Which table.
        table: String,
        /// The subject.
        subject: String,
        /// The registry's reason.
        reason: String,
    },
}

/// Encodes the records of one table.
pub struct AvroWriter {
    table: String,
    registry: Arc<Registry>,
    pub key: SubjectEncoder,
    pub value: SubjectEncoder,
}

/// Encodes keys, or values.
pub struct SubjectEncoder {
    subject: String,
    schema: SchemaRef,
    /// Set once the schema has an id.
    encoder: Option<Encoder>,
}

impl AvroWriter {
    /// A writer for a table with this key. It does not contact the registry yet.
    pub fn new(registry: Arc<Registry>, topic: &str, spec: &TableSpec, key: &Schema) -> Result<Self, ArrowError> {
        let (layer, name) = spec.name.split_once('.').unwrap_or(("", &spec.name));
        let part = |suffix: &str, name: String, schema: &Schema| {
            Ok::<_, ArrowError>(SubjectEncoder {
                subject: format!("{topic}-{suffix}"),
                schema: record_schema(layer, name, schema)?,
                encoder: None,
            })
        };
        Ok(AvroWriter {
            table: spec.name.clone(),
            registry,
            key: part("key", format!("{name}_key"), key)?,
            value: part("value", name.to_string(), &spec.schema)?,
        })
    }

    /// Registers the schemas that have no id yet.
    pub fn register(&mut self) -> Result<(), RegisterError> {
        for part in [&mut self.key, &mut self.value] {
            if part.encoder.is_none() {
                part.register(&self.table, &self.registry)?;
            }
        }
        Ok(())
    }
}

impl SubjectEncoder {
    fn register(&mut self, table: &str, registry: &Registry) -> Result<(), RegisterError> {
        let refused = |reason: String| RegisterError::Refused {
            table: table.to_string(),
            subject: self.subject.clone(),
            reason,
        };
        let text = AvroSchema::try_from(self.schema.as_ref()).map_err(|error| refused(error.to_string()))?;
        let id = match registry.register(&self.subject, &text.json_string)? {
            RegistrationOutcome::As(id) => id,
            RegistrationOutcome::Refused(reason) => return Err(refused(reason)),
        };
        let encoder = WriterBuilder::new(self.schema.as_ref().clone())
            .with_fingerprint_strategy(FingerprintStrategy::Id(id))
            .build_encoder::<AvroSoeFormat>();
        self.encoder = Some(encoder.map_err(|error| refused(error.to_string()))?);
        Ok(())
    }

    /// Encodes rows as records; the schemas must be registered.
    pub fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError> {
        let encoder = self.encoder.as_mut().expect("its schema is registered first");
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec())?;
        encoder
            .encode(&rows)
            .map_err(|error| ArrowError::AvroError(error.to_string()))?;
        Ok(encoder.flush().iter().map(|row| row.to_vec()).collect())
    }
}

/// A table's schema with names that Avro allows, and with null as default of nullable fields: so fields that are added
/// later are compatible.
fn record_schema(namespace: &str, name: String, schema: &Schema) -> Result<SchemaRef, ArrowError> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for column in schema.fields() {
        let name = avro_name(column.name());
        if fields.iter().any(|field| *field.name() == name) {
            let text = format!("two columns would be called {name:?} in Avro, which takes letters, digits and _ alone");
            return Err(ArrowError::SchemaError(text));
        }
        let field = Field::new(name, column.data_type().clone(), column.is_nullable());
        fields.push(match column.is_nullable() {
            true => field.with_metadata(HashMap::from([(
                AVRO_FIELD_DEFAULT_METADATA_KEY.to_string(),
                "null".to_string(),
            )])),
            false => field,
        });
    }
    let mut metadata = HashMap::from([(AVRO_NAME_METADATA_KEY.to_string(), name)]);
    if !namespace.is_empty() {
        metadata.insert(AVRO_NAMESPACE_METADATA_KEY.to_string(), namespace.to_string());
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// A name that follows Avro's rules: letters, digits and _, without a leading digit.
fn avro_name(column: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = column.chars().map(plain).collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}
