//! Reads the changes of a snapshot to a table, by key: rows that exist now, and keys that are gone.
//!
//! Rows have the schema of the table's present definition. A file of an earlier definition is read if that schema can
//! show its rows; otherwise reading it is a [`ChangesError::Form`]: its rows are never published, only those that
//! replace them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use thiserror::Error;

use crate::lake::{Lake, file_location};
use crate::repr::{CodecError, Row, RowCodec, normalise_type};
use crate::sink::TableSpec;
use crate::sink::ledger::TableIntent;

/// Why a snapshot's changes could not be read.
#[derive(Debug, Error)]
pub enum ChangesError {
    /// A file has been deleted.
    #[error("could not read {path} of table {table}, which a snapshot names: it is gone")]
    Gone {
        /// Which table.
        table: String,
        /// The file.
        path: String,
    },
    /// A file cannot be read.
    #[error("could not read {path} of table {table}, which a snapshot names: {reason}")]
    File {
        /// Which table.
        table: String,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Rows of an earlier definition do not fit the table's present schema.
    #[error("rows of table {table} are not of its definition: column {column} {fault}; rebuild the table")]
    Form {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// What is wrong with the column.
        fault: &'static str,
    },
    /// It cannot be determined which of the topic's keys are gone.
    #[error(
        "could not tell which keys of table {table} are gone: column {column} of its key {fault} in snapshots that its topic has; name another topic"
    )]
    Key {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// How the column differed.
        fault: &'static str,
    },
    /// Rows do not match the table's schema.
    #[error("could not take rows of table {table} apart")]
    Rows {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// Rows cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The changes of a table.
#[derive(Debug)]
pub struct PublishedChanges {
    /// Rows that exist now, in the table's schema.
    pub rows: RecordBatch,
    /// Keys that are gone, with only the key's columns.
    pub gone: RecordBatch,
}

impl PublishedChanges {
    /// Changes that consist of rows only.
    pub fn of_rows(key: &SchemaRef, rows: RecordBatch) -> PublishedChanges {
        PublishedChanges {
            rows,
            gone: RecordBatch::new_empty(key.clone()),
        }
    }

    /// Changes that consist of keys that are gone.
    pub fn of_gone(spec: &TableSpec, gone: RecordBatch) -> PublishedChanges {
        PublishedChanges {
            rows: RecordBatch::new_empty(spec.schema.clone()),
            gone,
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0 && self.gone.num_rows() == 0
    }

    /// The changes of an intent: from the change data feed if it was written, otherwise from the added files. None if
    /// rows were removed without change files: then all rows were replaced, because the table has another schema now.
    pub async fn of_intent(
        lake: &Lake,
        spec: &TableSpec,
        key: &[usize],
        intent: &TableIntent,
    ) -> Result<Option<PublishedChanges>, ChangesError> {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for commit in &intent.commits {
            let change_files: Vec<_> = commit.actions.iter().filter_map(|action| action.cdc.as_ref()).collect();
            for file in &change_files {
                for batch in read(lake, spec, &file.path).await? {
                    let kinds = kinds(&batch);
                    let of = |insert: bool| -> BooleanArray {
                        let kinds = kinds.iter();
                        kinds.map(|kind| Some((kind == Some("insert")) == insert)).collect()
                    };
                    let (insert, delete) = (of(true), of(false));
                    // The removed rows may have another schema, so only their keys are read.
                    came.push(project(
                        spec,
                        &filtered(spec, &batch, &insert)?,
                        &file.partition_values,
                    )?);
                    went.push(keys_of(
                        spec,
                        key,
                        &filtered(spec, &batch, &delete)?,
                        &file.partition_values,
                    )?);
                }
            }
            if !change_files.is_empty() {
                continue;
            }
            let removed = commit.actions.iter().filter_map(|action| action.remove.as_ref());
            if removed.into_iter().any(|file| file.data_change) {
                return Ok(None);
            }
            let added = commit.actions.iter().filter_map(|action| action.add.as_ref());
            for file in added.filter(|file| file.data_change) {
                for batch in read(lake, spec, &file.path).await? {
                    came.push(project(spec, &batch, &file.partition_values)?);
                }
            }
        }
        PublishedChanges::net(spec, key, came, went).map(Some)
    }

    /// Nets the changes: a row that came stands for its key, whatever rows of that key went. Without a key, removed
    /// rows are not published.
    fn net(
        spec: &TableSpec,
        key: &[usize],
        came: Vec<RecordBatch>,
        went: Vec<RecordBatch>,
    ) -> Result<PublishedChanges, ChangesError> {
        let schema = key_schema(spec, key);
        let mut removed_keys = Vec::new();
        if !key.is_empty() {
            let codec = RowCodec::new(schema.clone())?;
            let mut known_keys: HashSet<Row> = HashSet::new();
            for batch in &came {
                let keys: Vec<ArrayRef> = key.iter().map(|column| batch.column(*column).clone()).collect();
                known_keys.extend(codec.encode_rows(&keys, batch.num_rows())?);
            }
            for batch in &went {
                let keys = codec.encode_rows(batch.columns(), batch.num_rows())?;
                // A key of which several rows went appears once.
                let new: BooleanArray = keys.into_iter().map(|row| Some(known_keys.insert(row))).collect();
                removed_keys.push(filtered(spec, batch, &new)?);
            }
        }
        let all = |schema: &SchemaRef, batches: &[RecordBatch]| {
            concat_batches(schema, batches).map_err(|source| ChangesError::Rows {
                table: spec.name.clone(),
                source,
            })
        };
        Ok(PublishedChanges {
            rows: all(&spec.schema, &came)?,
            gone: all(&schema, &removed_keys)?,
        })
    }
}

/// The columns of a key.
pub fn key_schema(spec: &TableSpec, key: &[usize]) -> SchemaRef {
    let fields: Vec<Field> = key.iter().map(|column| spec.schema.field(*column).clone()).collect();
    Arc::new(Schema::new(fields))
}

/// Values of partition columns, in the log's text form.
pub type PartitionValues = std::collections::BTreeMap<String, Option<String>>;

async fn read(lake: &Lake, spec: &TableSpec, path: &str) -> Result<Vec<RecordBatch>, ChangesError> {
    let fail = |reason: String| ChangesError::File {
        table: spec.name.clone(),
        path: path.to_string(),
        reason,
    };
    let location: Path = file_location(&spec.path, path).map_err(|e| fail(e.to_string()))?;
    let bytes: Bytes = lake
        .get(&location)
        .await
        .map_err(|e| fail(e.to_string()))?
        .ok_or_else(|| ChangesError::Gone {
            table: spec.name.clone(),
            path: path.to_string(),
        })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let batches: Result<Vec<RecordBatch>, ArrowError> = reader.map_err(|e| fail(e.to_string()))?.collect();
    batches.map_err(|e| fail(e.to_string()))
}

fn kinds(batch: &RecordBatch) -> StringArray {
    let column = batch
        .column_by_name("_change_type")
        .and_then(|kinds| cast(kinds, &DataType::Utf8).ok());
    column.map_or_else(
        || StringArray::new_null(batch.num_rows()),
        |column| column.as_string().clone(),
    )
}

/// Rows in the table's schema; the partition columns come from the log only.
pub fn project(spec: &TableSpec, batch: &RecordBatch, values: &PartitionValues) -> Result<RecordBatch, ChangesError> {
    let columns = spec
        .schema
        .fields()
        .iter()
        .map(|field| shown(spec, field, batch, values));
    let columns = columns.collect::<Result<Vec<ArrayRef>, ChangesError>>()?;
    RecordBatch::try_new(spec.schema.clone(), columns).map_err(|source| failed(spec, source))
}

/// The key's columns of rows, converted as in [`project`].
fn keys_of(
    spec: &TableSpec,
    key: &[usize],
    batch: &RecordBatch,
    values: &PartitionValues,
) -> Result<RecordBatch, ChangesError> {
    let schema = key_schema(spec, key);
    let columns = schema.fields().iter().map(|field| shown(spec, field, batch, values));
    let columns = columns.collect::<Result<Vec<ArrayRef>, ChangesError>>()?;
    if columns.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    RecordBatch::try_new(schema, columns).map_err(|source| failed(spec, source))
}

/// A column in the type of the table.
fn shown(
    spec: &TableSpec,
    field: &Field,
    batch: &RecordBatch,
    values: &PartitionValues,
) -> Result<ArrayRef, ChangesError> {
    let column: ArrayRef = match (batch.column_by_name(field.name()), values.get(field.name())) {
        (Some(column), _) if !is_same(column.data_type(), field.data_type()) => {
            return Err(misfit(spec, field, "has another type"));
        }
        (Some(column), _) => column.clone(),
        (None, Some(value)) => Arc::new(StringArray::from(vec![value.clone(); batch.num_rows()])),
        (None, None) if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
        (None, None) => return Err(misfit(spec, field, "is missing")),
    };
    let column = cast(&column, field.data_type()).map_err(|source| failed(spec, source))?;
    match column.null_count() > 0 && !field.is_nullable() {
        true => Err(misfit(spec, field, "may not be null, and is")),
        false => Ok(column),
    }
}

/// Whether two types have the same values, apart from their memory layout.
pub fn is_same(one: &DataType, other: &DataType) -> bool {
    fn same(one: &DataType, other: &DataType) -> bool {
        match (one, other) {
            (DataType::List(one), DataType::List(other)) => same(one.data_type(), other.data_type()),
            (DataType::Struct(one), DataType::Struct(other)) => {
                let alike = |(one, other): (&Arc<Field>, &Arc<Field>)| {
                    one.name() == other.name() && same(one.data_type(), other.data_type())
                };
                one.len() == other.len() && one.iter().zip(other).all(alike)
            }
            (one, other) => one == other,
        }
    }
    same(&normalise_type(one), &normalise_type(other))
}

fn misfit(spec: &TableSpec, field: &Field, fault: &'static str) -> ChangesError {
    ChangesError::Form {
        table: spec.name.clone(),
        column: field.name().clone(),
        fault,
    }
}

pub fn failed(spec: &TableSpec, source: ArrowError) -> ChangesError {
    ChangesError::Rows {
        table: spec.name.clone(),
        source,
    }
}

pub fn filtered(spec: &TableSpec, batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch, ChangesError> {
    filter_record_batch(batch, keep).map_err(|source| failed(spec, source))
}
