//! `_alluvium/snapshots`: a Delta table of which table stands at which version in which snapshot, so that any
//! engine can read all tables as of one of them. Appended behind the commits, in batches; the ledger is the
//! truth, and fills in after a crash what the table lacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use uuid::Uuid;

use super::CommitError;
use super::action::{self, Action};
use super::log::{self, Loaded};
use super::state::engine_info;
use super::tables::{self, Making};
use crate::definition::Deletes;
use crate::repr::Epoch;
use crate::sink::lake::{Lake, Put};
use crate::sink::{AddFile, TableSpec};

/// The table's folder below the lake.
pub const PATH: &str = "_alluvium/snapshots";

/// One published snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its epoch.
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub at: i64,
    /// Every table's version, by name.
    pub versions: BTreeMap<String, i64>,
}

/// Appends records.
pub struct History {
    lake: Lake,
    app_id: String,
    durable: bool,
    version: i64,
    upto: Option<Epoch>,
    pending: Vec<Record>,
}

impl History {
    /// Opens the table, creating it if need be.
    pub async fn open(lake: &Lake, making: Making<'_>) -> Result<(History, Loaded), CommitError> {
        let loaded = tables::ensure(lake, &spec(), making).await?;
        let app_id = format!("{}:snapshots", making.app_id);
        let history = History {
            lake: lake.clone(),
            upto: loaded.txns.get(&app_id).map(|v| *v as Epoch),
            app_id,
            durable: making.durable,
            version: loaded.version,
            pending: Vec::new(),
        };
        Ok((history, loaded))
    }

    /// The newest epoch the table holds.
    pub fn upto(&self) -> Option<Epoch> {
        self.upto
    }

    /// Takes a record, in epoch order; one that the table holds already is dropped.
    pub fn observe(&mut self, record: Record) {
        if self.upto.is_none_or(|upto| record.epoch > upto) {
            self.pending.push(record);
        }
    }

    /// How many records wait.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Appends what waits. Returns the table's version.
    pub async fn flush(&mut self, now: i64) -> Result<i64, CommitError> {
        while let Some(last) = self.pending.last() {
            let upto = last.epoch;
            let add = self.write(now).await?;
            let actions = [
                Action::commit_info(json!({
                    "timestamp": now, "operation": "WRITE", "operationParameters": { "mode": "Append" },
                    "isBlindAppend": true, "engineInfo": engine_info(),
                })),
                Action::txn(&self.app_id, upto as i64, now),
                Action::add(add),
            ];
            let bytes = Bytes::from(action::to_lines(&actions));
            let path = log::entry_path(PATH, self.version + 1);
            match self
                .lake
                .put_new(&path, bytes, self.durable)
                .await
                .map_err(write_error)?
            {
                Put::Written => {
                    self.pending.clear();
                    self.upto = Some(upto);
                }
                // Another generation was here: what it has recorded is not recorded again.
                Put::Taken => {
                    let there = log::read(&self.lake, PATH, self.version + 1).await?.unwrap_or_default();
                    let theirs = there
                        .iter()
                        .filter_map(|a| a.txn.as_ref())
                        .find(|t| t.app_id == self.app_id);
                    if let Some(theirs) = theirs {
                        self.upto = self.upto.max(Some(theirs.version as Epoch));
                        self.pending.retain(|r| r.epoch > theirs.version as Epoch);
                    }
                }
            }
            self.version += 1;
        }
        Ok(self.version)
    }

    async fn write(&self, now: i64) -> Result<AddFile, CommitError> {
        let rows: Vec<(&Record, &String, i64)> = self
            .pending
            .iter()
            .flat_map(|r| r.versions.iter().map(move |(table, version)| (r, table, *version)))
            .collect();
        let epochs = rows.iter().map(|(r, _, _)| r.epoch as i64);
        let (least, greatest) = (epochs.clone().min(), epochs.clone().max());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(epochs)),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, table, _)| table))),
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|(_, _, version)| *version),
            )),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|(r, _, _)| r.at * 1000),
            )),
        ];
        let schema = spec().schema;
        let batch = RecordBatch::try_new(schema.clone(), columns).expect("the columns are the schema's");
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("the schema has a Parquet form");
        writer.write(&batch).expect("a Vec takes all");
        let bytes = Bytes::from(writer.into_inner().expect("a Vec takes all"));
        let file = format!("part-{}.parquet", Uuid::new_v4());
        let size = bytes.len() as u64;
        let location = object_store::path::Path::from(format!("{PATH}/{file}"));
        self.lake
            .put_new(&location, bytes, self.durable)
            .await
            .map_err(write_error)?;
        let stats = json!({
            "numRecords": rows.len(), "minValues": { "epoch": least }, "maxValues": { "epoch": greatest },
            "nullCount": { "epoch": 0 }, "tightBounds": true,
        });
        Ok(AddFile {
            path: file,
            partition_values: BTreeMap::new(),
            size,
            modification_time: now,
            data_change: true,
            stats: Some(stats.to_string()),
            deletion_vector: None,
        })
    }
}

fn write_error(source: object_store::Error) -> CommitError {
    CommitError::Write {
        what: "a record of snapshots".into(),
        table: PATH.into(),
        source,
    }
}

fn spec() -> TableSpec {
    TableSpec {
        name: PATH.into(),
        path: PATH.into(),
        schema: Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false),
            Field::new("table_name", DataType::Utf8, false),
            Field::new("version", DataType::Int64, false),
            Field::new("committed_at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        ])),
        partition_by: vec![],
        append_only: true,
        deletes: Deletes::Rewrite,
        change_data_feed: false,
        description: Some("Which version each table has in each snapshot: read all tables at one epoch.".into()),
    }
}
