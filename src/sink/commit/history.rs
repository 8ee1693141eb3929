//! `_alluvium/snapshots` is a Delta table that says at which version each table stands in each snapshot, so that any
//! engine can read all tables as of one snapshot. Records are appended after the commits, in batches; the ledger is
//! authoritative, and a start adds from it the records that a crash lost.
//!
//! [`SnapshotHistory::tidy`] keeps the table small: it merges files of similar size, and removes a file once every
//! snapshot in it is older than the retention, because such snapshots cannot be read any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use uuid::Uuid;

use super::CommitError;
use super::action::{self, Action, RemoveFile, engine_info};
use super::log::{self, LoadedTable, LogError};
use super::tables::{self, TableCreation};
use crate::definition::Deletes;
use crate::lake::{Lake, Put};
use crate::repr::Epoch;
use crate::sink::states::is_state;
use crate::sink::{AddFile, TableSpec};

/// The table's folder below the lake.
pub const PATH: &str = "_alluvium/snapshots";

/// Number of files of similar size that are merged into one; so a row is rewritten once per power of this number.
const MERGE: usize = 64;
/// Files with at least this many rows are not merged any more.
const MERGED_ROWS: u64 = 1 << 18;

/// One published snapshot; it has a row in the table for each of its tables.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotRecord {
    /// Its epoch.
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub at: i64,
    /// Every table's version, by name.
    pub versions: BTreeMap<String, i64>,
}

/// Appends records.
pub struct SnapshotHistory {
    lake: Lake,
    app_id: String,
    version: i64,
    upto: Option<Epoch>,
    pending: Vec<SnapshotRecord>,
    /// The table's live files. Empty once another generation has written, because tidying is then that generation's
    /// job.
    files: Vec<KnownFile>,
}

/// A file with the figures from its statistics.
#[derive(Clone)]
struct KnownFile {
    add: AddFile,
    rows: u64,
    /// Commit time of its newest snapshot, Unix milliseconds.
    newest: i64,
}

impl KnownFile {
    /// None if the file's statistics lack these figures: such a file is left alone.
    fn of(add: &AddFile) -> Option<KnownFile> {
        let stats: serde_json::Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
        Some(KnownFile {
            add: add.clone(),
            rows: stats["numRecords"].as_u64()?,
            newest: stats["maxValues"]["committed_at"]
                .as_str()
                .and_then(|text| DateTime::parse_from_rfc3339(text).ok())?
                .timestamp_millis(),
        })
    }
}

impl SnapshotHistory {
    /// Opens the table, and creates it if it does not exist.
    pub async fn open(lake: &Lake, making: TableCreation<'_>) -> Result<(SnapshotHistory, LoadedTable), CommitError> {
        let (loaded, _) = tables::ensure(lake, &spec(), making).await?;
        let app_id = format!("{}:snapshots", making.app_id);
        let history = SnapshotHistory {
            lake: lake.clone(),
            upto: loaded.txns.get(&app_id).map(|v| *v as Epoch),
            app_id,
            version: loaded.version,
            pending: Vec::new(),
            files: loaded.files.values().filter_map(KnownFile::of).collect(),
        };
        Ok((history, loaded))
    }

    /// The newest epoch the table holds.
    pub fn upto(&self) -> Option<Epoch> {
        self.upto
    }

    /// Takes a record, in epoch order; drops it if the table holds its epoch already.
    pub fn observe(&mut self, mut record: SnapshotRecord) {
        record.versions.retain(|table, _| !is_state(table)); // nobody else reads those
        if self.upto.is_none_or(|upto| record.epoch > upto) {
            self.pending.push(record);
        }
    }

    /// Number of records that wait for a flush.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Appends the waiting records. Returns the table's new version.
    pub async fn flush(&mut self, now: i64) -> Result<i64, CommitError> {
        while let Some(last) = self.pending.last() {
            let upto = last.epoch;
            let add = self.write(&self.batch(), now).await?;
            let actions = [
                Action::commit_info(json!({
                    "timestamp": now, "operation": "WRITE", "operationParameters": { "mode": "Append" },
                    "isBlindAppend": true, "engineInfo": engine_info(),
                })),
                Action::txn(&self.app_id, upto as i64, now),
                Action::add(add.clone()),
            ];
            let bytes = Bytes::from(action::to_lines(&actions));
            let path = log::entry_path(PATH, self.version + 1);
            match self.lake.put_new(&path, bytes).await.map_err(write_error)? {
                Put::Written => {
                    self.pending.clear();
                    self.upto = Some(upto);
                    self.files.extend(KnownFile::of(&add));
                }
                // Another generation has written: records that it appended are dropped here.
                Put::Taken => {
                    self.files.clear();
                    let entry = log::read(&self.lake, PATH, self.version + 1).await?.unwrap_or_default();
                    let theirs = entry
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

    /// Merges files, and removes files whose snapshots were all committed before `cutoff` (Unix milliseconds). One
    /// call does one step. Returns the table's new version; none if there was nothing to do.
    pub async fn tidy(&mut self, cutoff: i64, now: i64) -> Result<Option<i64>, CommitError> {
        // The newest snapshot must stay readable, however old it is.
        let last = self.files.iter().map(|file| file.newest).max();
        let is_expired = |file: &&KnownFile| file.newest < cutoff && Some(file.newest) != last;
        let expired: Vec<KnownFile> = self.files.iter().filter(is_expired).cloned().collect();
        if !expired.is_empty() {
            return self.replace(&expired, None, now).await;
        }
        let mut classes: BTreeMap<u32, Vec<KnownFile>> = BTreeMap::new();
        for file in self.files.iter().filter(|file| file.rows < MERGED_ROWS) {
            let class = file.rows.max(1).ilog2() / MERGE.ilog2();
            classes.entry(class).or_default().push(file.clone());
        }
        let Some(files) = classes.into_values().find(|files| files.len() >= MERGE) else {
            return Ok(None);
        };
        let mut batches = Vec::new();
        for file in &files {
            batches.extend(self.read(&file.add).await?);
        }
        let merged = arrow::compute::concat_batches(&spec().schema, &batches).expect("they are of one schema");
        self.replace(&files, Some(merged), now).await
    }

    /// Removes the files `replaced`, and adds one file in their place if `merged` is given.
    async fn replace(
        &mut self,
        replaced: &[KnownFile],
        merged: Option<RecordBatch>,
        now: i64,
    ) -> Result<Option<i64>, CommitError> {
        let data_change = merged.is_none();
        let mut actions = vec![Action::commit_info(json!({
            "timestamp": now, "operation": if data_change { "DELETE" } else { "OPTIMIZE" }, "operationParameters": {},
            "isBlindAppend": false, "engineInfo": engine_info(),
        }))];
        let removals = replaced
            .iter()
            .map(|file| RemoveFile::of(file.add.clone(), Some(now), data_change));
        actions.extend(removals.map(Action::remove));
        let mut added = None;
        if let Some(batch) = &merged {
            let add = self.write(batch, now).await?;
            let add = AddFile { data_change, ..add };
            added = KnownFile::of(&add);
            actions.push(Action::add(add));
        }
        let path = log::entry_path(PATH, self.version + 1);
        let bytes = Bytes::from(action::to_lines(&actions));
        let put = self.lake.put_new(&path, bytes).await;
        if put.map_err(write_error)? == Put::Taken {
            // Another generation has written, so tidying is its job.
            self.files.clear();
            return Ok(None);
        }
        self.version += 1;
        let replaced: Vec<&String> = replaced.iter().map(|file| &file.add.path).collect();
        self.files.retain(|file| !replaced.contains(&&file.add.path));
        self.files.extend(added);
        Ok(Some(self.version))
    }

    async fn read(&self, add: &AddFile) -> Result<Vec<RecordBatch>, CommitError> {
        let damaged = |reason: String| LogError::Damaged {
            table: PATH.into(),
            file: add.path.clone(),
            reason,
        };
        let location = object_store::path::Path::from(format!("{PATH}/{}", add.path));
        let file = self.lake.get(&location).await.map_err(write_error)?;
        let bytes = file.ok_or_else(|| damaged("it is missing".into()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let reader = reader.map_err(|e| damaged(e.to_string()))?;
        let batches: Result<Vec<RecordBatch>, _> = reader.collect();
        Ok(batches.map_err(|e| damaged(e.to_string()))?)
    }

    fn batch(&self) -> RecordBatch {
        let rows: Vec<(&SnapshotRecord, &String, i64)> = self
            .pending
            .iter()
            .flat_map(|r| r.versions.iter().map(move |(table, version)| (r, table, *version)))
            .collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|(r, _, _)| r.epoch as i64),
            )),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, table, _)| table))),
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|(_, _, version)| *version),
            )),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|(r, _, _)| r.at * 1000),
            )),
        ];
        RecordBatch::try_new(spec().schema, columns).expect("the columns are the schema's")
    }

    async fn write(&self, batch: &RecordBatch, now: i64) -> Result<AddFile, CommitError> {
        let epochs = batch.column(0).as_primitive::<Int64Type>();
        let (first, last) = (arrow::compute::min(epochs), arrow::compute::max(epochs));
        let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        let (from, to) = (instant(arrow::compute::min(times)), instant(arrow::compute::max(times)));
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("the schema has a Parquet form");
        writer.write(batch).expect("a Vec takes all");
        let bytes = Bytes::from(writer.into_inner().expect("a Vec takes all"));
        let file = format!("part-{}.parquet", Uuid::new_v4());
        let size = bytes.len() as u64;
        let location = object_store::path::Path::from(format!("{PATH}/{file}"));
        self.lake.put_new(&location, bytes).await.map_err(write_error)?;
        let stats = json!({
            "numRecords": batch.num_rows(), "tightBounds": true, "nullCount": { "epoch": 0, "committed_at": 0 },
            "minValues": { "epoch": first, "committed_at": from },
            "maxValues": { "epoch": last, "committed_at": to },
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

/// A time as Delta's statistics write it: in milliseconds, which is exact here.
fn instant(micros: Option<i64>) -> Option<String> {
    let at = DateTime::from_timestamp_micros(micros?)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Millis, true))
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
        summation: None,
        deletes: Deletes::Rewrite,
        change_data_feed: false,
        description: Some("Which version each table has in each snapshot: read all tables at one epoch.".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use url::Url;

    use super::super::policy::LakePolicy;
    use super::*;

    async fn open(lake: &Lake) -> SnapshotHistory {
        let making = TableCreation {
            app_id: "flow",
            generation: 1,
            policy: LakePolicy {
                retention: Duration::from_secs(60),
                ..LakePolicy::default()
            },
            now: 0,
        };
        SnapshotHistory::open(lake, making).await.unwrap().0
    }

    /// The epochs in the table, and the number of files that hold them.
    async fn stored(lake: &Lake, history: &SnapshotHistory) -> (Vec<i64>, usize) {
        let loaded = log::load(lake, PATH, None).await.unwrap().unwrap();
        let mut epochs = Vec::new();
        for add in loaded.files.values() {
            for batch in history.read(add).await.unwrap() {
                epochs.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        epochs.sort_unstable();
        (epochs, loaded.files.len())
    }

    #[tokio::test]
    async fn many_small_files_become_one_and_old_snapshots_go_but_never_the_newest() {
        let store = Arc::new(InMemory::new());
        let lake = Lake::over(store, Path::default(), Url::parse("memory:///").unwrap());
        let mut history = open(&lake).await;
        let count = MERGE as u64 + 3;
        for epoch in 1..=count {
            history.observe(SnapshotRecord {
                epoch,
                at: 1000 * epoch as i64,
                versions: BTreeMap::from([("silver.x".to_string(), epoch as i64)]),
            });
            history.flush(0).await.unwrap();
        }
        let all: Vec<i64> = (1..=count as i64).collect();
        history.tidy(0, 5).await.unwrap().expect("there is something to merge");
        assert_eq!(stored(&lake, &history).await, (all.clone(), 1));
        assert!(history.tidy(0, 5).await.unwrap().is_none());

        // A new run knows the table's files too, and goes on tidying.
        let mut history = open(&lake).await;
        for epoch in [count + 1, count + 2] {
            let versions = BTreeMap::from([("silver.x".to_string(), epoch as i64)]);
            let at = 1000 * epoch as i64;
            history.observe(SnapshotRecord { epoch, at, versions });
            history.flush(0).await.unwrap();
        }
        let tidied = history.tidy(1000 * (count as i64 + 1), 5).await.unwrap();
        assert!(tidied.is_some(), "the merged file is old");
        let newest = vec![count as i64 + 1, count as i64 + 2];
        assert_eq!(stored(&lake, &history).await, (newest, 2));
        history.tidy(i64::MAX, 5).await.unwrap();
        assert_eq!(stored(&lake, &history).await, (vec![count as i64 + 2], 1));
        assert!(history.tidy(i64::MAX, 5).await.unwrap().is_none());
    }
}
