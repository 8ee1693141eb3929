//! Computes the difference of a table between two snapshots: the old one is read first, and then the new one, batch by
//! batch. Memory holds the keys, and a hash of each row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use twox_hash::XxHash3_128;

use super::changes::{ChangesError, PartitionValues, failed, filtered, is_same, key_schema, project};
use crate::repr::{Row, RowCodec};
use crate::sink::TableSpec;

/// A table as its topic has it.
pub struct TableBefore {
    spec: TableSpec,
    key: Vec<usize>,
    /// The table's columns, all nullable, because rows of an earlier definition may lack some.
    loose: SchemaRef,
    rows: RowCodec,
    keys: RowCodec,
    known: TopicHashes,
    /// Whether a column had another type: then every row is published again.
    reshaped: bool,
}

/// Hashes of the topic's rows.
enum TopicHashes {
    /// The hash of each key's row.
    ByKey(HashMap<Row, u128>),
    /// For a table without a key: the hash of each row, with its multiplicity.
    Rows(HashMap<u128, u64>),
}

impl TableBefore {
    /// Starts without rows.
    pub fn new(spec: &TableSpec, key: &[usize]) -> Result<TableBefore, ChangesError> {
        let loose: Vec<Field> = spec
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let loose = Arc::new(Schema::new(loose));
        Ok(TableBefore {
            spec: spec.clone(),
            key: key.to_vec(),
            rows: RowCodec::new(loose.clone())?,
            loose,
            keys: RowCodec::new(key_schema(spec, key))?,
            known: match key.is_empty() {
                false => TopicHashes::ByKey(HashMap::new()),
                true => TopicHashes::Rows(HashMap::new()),
            },
            reshaped: false,
        })
    }

    /// Adds rows that the topic has.
    pub fn observe(&mut self, batch: &RecordBatch) -> Result<(), ChangesError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.loose.fields().len());
        for (index, field) in self.loose.fields().iter().enumerate() {
            let column = batch.column_by_name(field.name());
            let lost = |fault| ChangesError::Key {
                table: self.spec.name.clone(),
                column: field.name().clone(),
                fault,
            };
            let is_key = self.key.contains(&index);
            columns.push(match column {
                None if is_key => return Err(lost("was not there")),
                None => new_null_array(field.data_type(), batch.num_rows()),
                Some(column) if is_key && column.null_count() > 0 && !self.spec.schema.field(index).is_nullable() => {
                    return Err(lost("was null"));
                }
                Some(column) if is_same(column.data_type(), field.data_type()) => {
                    cast(column, field.data_type()).map_err(|e| failed(&self.spec, e))?
                }
                Some(_) if is_key => return Err(lost("had another type")),
                Some(_) => {
                    self.reshaped = true;
                    new_null_array(field.data_type(), batch.num_rows())
                }
            });
        }
        let hashes = self.hashes(&columns, batch.num_rows())?;
        match &mut self.known {
            TopicHashes::ByKey(known) => {
                let keys: Vec<ArrayRef> = self.key.iter().map(|column| columns[*column].clone()).collect();
                known.extend(self.keys.encode_rows(&keys, batch.num_rows())?.into_iter().zip(hashes));
            }
            TopicHashes::Rows(known) => hashes.into_iter().for_each(|hash| *known.entry(hash).or_default() += 1),
        }
        Ok(())
    }

    /// Of rows that exist now, returns those that the topic does not have.
    pub fn next_new(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ChangesError> {
        let batch = project(&self.spec, batch, &PartitionValues::new())?;
        let hashes = self.hashes(batch.columns(), batch.num_rows())?;
        let new: BooleanArray = match &mut self.known {
            TopicHashes::ByKey(known) => {
                let keys: Vec<ArrayRef> = self.key.iter().map(|column| batch.column(*column).clone()).collect();
                let keys = self.keys.encode_rows(&keys, batch.num_rows())?.into_iter();
                keys.zip(hashes)
                    .map(|(key, hash)| Some(known.remove(&key) != Some(hash) || self.reshaped))
                    .collect()
            }
            TopicHashes::Rows(known) => {
                let mut is_new = |hash: u128| match known.get_mut(&hash) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        false
                    }
                    _ => true,
                };
                hashes.into_iter().map(|hash| Some(is_new(hash))).collect()
            }
        };
        filtered(&self.spec, &batch, &new)
    }

    /// The keys that the topic has and the new snapshot lacks. To be called after all rows of the new snapshot went
    /// through [`TableBefore::next_new`].
    pub fn gone(self) -> Result<RecordBatch, ChangesError> {
        let removed_keys: Vec<Row> = match self.known {
            TopicHashes::ByKey(known) => known.into_keys().collect(),
            TopicHashes::Rows(_) => vec![],
        };
        Ok(self.keys.decode(removed_keys.iter().map(Row::bytes))?)
    }

    fn hashes(&self, columns: &[ArrayRef], count: usize) -> Result<Vec<u128>, ChangesError> {
        let rows = self.rows.encode_rows(columns, count)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot(row.bytes())).collect())
    }
}
