//! What a snapshot does to a table, by key: rows that are there now, and keys that are gone.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use thiserror::Error;

use crate::repr::{CodecError, Row, RowCodec};
use crate::sink::ledger::TableIntent;
use crate::sink::{Lake, TableSpec, file_location};

/// Why a snapshot's changes could not be read.
#[derive(Debug, Error)]
pub enum ChangesError {
    /// A file is gone or cannot be read.
    #[error("could not read {path} of table {table}, which a snapshot names: {reason}")]
    File {
        /// Which table.
        table: String,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Rows that are not of the table's schema.
    #[error("could not take rows of table {table} apart")]
    Rows {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// Keys that cannot be encoded.
    #[error(transparent)]
    Key(#[from] CodecError),
}

/// What changes of a table.
#[derive(Debug)]
pub struct Changes {
    /// Rows that are there now, of the table's schema.
    pub rows: RecordBatch,
    /// Rows that are gone, of which the key's columns count.
    pub gone: RecordBatch,
}

impl Changes {
    /// Of an intent: from the change feed where rows were removed, else from the files that came.
    pub async fn of_intent(
        lake: &Lake,
        spec: &TableSpec,
        key: &[usize],
        intent: &TableIntent,
    ) -> Result<Changes, ChangesError> {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for commit in &intent.commits {
            let told = commit.actions.iter().filter_map(|action| action.cdc.as_ref());
            let mut any = false;
            for file in told {
                any = true;
                for batch in read(lake, spec, &file.path).await? {
                    let kinds = kinds(&batch);
                    let of = |insert: bool| -> BooleanArray {
                        let kinds = kinds.iter();
                        kinds.map(|kind| Some((kind == Some("insert")) == insert)).collect()
                    };
                    let batch = project(spec, &batch, &file.partition_values)?;
                    came.push(filtered(spec, &batch, &of(true))?);
                    went.push(filtered(spec, &batch, &of(false))?);
                }
            }
            let added = commit.actions.iter().filter_map(|action| action.add.as_ref());
            for file in added.filter(|file| !any && file.data_change) {
                for batch in read(lake, spec, &file.path).await? {
                    came.push(project(spec, &batch, &file.partition_values)?);
                }
            }
        }
        Changes::net(spec, key, came, went)
    }

    /// From one content of a table to another.
    pub fn between(
        spec: &TableSpec,
        key: &[usize],
        before: Vec<RecordBatch>,
        now: Vec<RecordBatch>,
    ) -> Result<Changes, ChangesError> {
        let none = Default::default();
        let of = |batches: Vec<RecordBatch>| -> Result<Vec<RecordBatch>, ChangesError> {
            batches.iter().map(|batch| project(spec, batch, &none)).collect()
        };
        let (before, now) = (of(before)?, of(now)?);
        let all: Vec<usize> = (0..spec.schema.fields().len()).collect();
        let came = without(spec, &all, &now, &before)?;
        // A key that is there still is told by its row, or has not changed.
        let went = without(spec, key, &before, &now)?;
        Changes::net(spec, key, came, went)
    }

    /// A row that came stands for its key, whatever went. Where there is no key, what went is not told.
    fn net(
        spec: &TableSpec,
        key: &[usize],
        came: Vec<RecordBatch>,
        went: Vec<RecordBatch>,
    ) -> Result<Changes, ChangesError> {
        let gone = without(spec, key, &went, &came)?;
        let all = |batches: &[RecordBatch]| {
            concat_batches(&spec.schema, batches).map_err(|source| ChangesError::Rows {
                table: spec.name.clone(),
                source,
            })
        };
        Ok(Changes {
            rows: all(&came)?,
            gone: all(&gone)?,
        })
    }
}

/// Rows whose values of some columns are not among others'; of no columns none are.
fn without(
    spec: &TableSpec,
    columns: &[usize],
    rows: &[RecordBatch],
    others: &[RecordBatch],
) -> Result<Vec<RecordBatch>, ChangesError> {
    if columns.is_empty() {
        return Ok(vec![]);
    }
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| spec.schema.field(*column).clone())
        .collect();
    let codec = RowCodec::new(Arc::new(Schema::new(fields)))?;
    let encode = |batch: &RecordBatch| {
        let values: Vec<ArrayRef> = columns.iter().map(|column| batch.column(*column).clone()).collect();
        codec.encode_rows(&values, batch.num_rows())
    };
    let mut known: HashSet<Row> = HashSet::new();
    for batch in others {
        known.extend(encode(batch)?);
    }
    let mut without = Vec::with_capacity(rows.len());
    for batch in rows {
        let new: BooleanArray = encode(batch)?.iter().map(|row| Some(!known.contains(row))).collect();
        without.push(filtered(spec, batch, &new)?);
    }
    Ok(without)
}

/// Values of partition columns, as the log has them.
type PartitionValues = std::collections::BTreeMap<String, Option<String>>;

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
        .ok_or_else(|| fail("it is gone".into()))?;
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

/// A file's rows as the table's: partition columns are in the log alone.
fn project(spec: &TableSpec, batch: &RecordBatch, values: &PartitionValues) -> Result<RecordBatch, ChangesError> {
    let fail = |source| ChangesError::Rows {
        table: spec.name.clone(),
        source,
    };
    let mut columns = Vec::with_capacity(spec.schema.fields().len());
    for field in spec.schema.fields() {
        let column: ArrayRef = match batch.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => {
                let value = values.get(field.name()).cloned().flatten();
                Arc::new(StringArray::from(vec![value; batch.num_rows()]))
            }
        };
        columns.push(cast(&column, field.data_type()).map_err(fail)?);
    }
    RecordBatch::try_new(spec.schema.clone(), columns).map_err(fail)
}

fn filtered(spec: &TableSpec, batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch, ChangesError> {
    filter_record_batch(batch, keep).map_err(|source| ChangesError::Rows {
        table: spec.name.clone(),
        source,
    })
}
