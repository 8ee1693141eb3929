//! Reads entries of a table's `_delta_log`, replays them into the set of live files, and puts the next entry.
//!
//! [`load`] replays the newest checkpoint and the entries after it with our own parser, because the committer needs
//! the actions exactly as they are written (paths, vectors, transactions), which deltalake's views do not give. A
//! checkpoint that cannot be read is skipped if an older one, or the entries that it repeats, still exist. [`apply`]
//! puts an entry after a version, and reads every version that others have put in between; it skips none.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use thiserror::Error;

use super::action::{self, Action, MetaData, Protocol, RemoveFile};
use super::checkpoint::{self, LIVE};
use super::foreign::{CommitAuthor, Foreign};
use super::vector::{self, VectorError};
use crate::lake::{Lake, Put};
use crate::sink::{AddFile, DeletionVector};

/// Number of log entries and vector files that are read concurrently.
const READS: usize = 32;

/// The log cannot be read or written.
#[derive(Debug, Error)]
pub enum LogError {
    /// The store failed.
    #[error("could not {what} of table {table}; a restart resumes where it stopped")]
    Store {
        /// What was attempted.
        what: String,
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// An entry or checkpoint does not parse.
    #[error(
        "could not read {file} of table {table}: {reason}; restore the file, or remove the table's folder to rebuild it"
    )]
    Damaged {
        /// Which table.
        table: String,
        /// Below `_delta_log`.
        file: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint cannot be read, and the log does not reach back far enough to do without it.
    #[error(
        "could not read {file} of table {table}: {reason}; the log without it lacks version {lacks}, so it cannot be passed over: restore the file from a copy (a silver or gold table can also be made again: remove its folder)"
    )]
    Checkpoint {
        /// Which table.
        table: String,
        /// Below `_delta_log`.
        file: String,
        /// Why.
        reason: String,
        /// The first version that is missing.
        lacks: i64,
    },
    /// Entries are missing between the checkpoint and the newest.
    #[error("the log of table {table} lacks version {version} but has later ones; restore {version:020}.json")]
    Gap {
        /// Which table.
        table: String,
        /// Which version.
        version: i64,
    },
    /// Another writer made a commit that the committer cannot reconcile with its own.
    #[error(
        "could not commit table {table} at version {version}: {by} {what} there; stop other writers of this table (guard = true keeps them out), then restart: the newest state of the table is read again and corrected"
    )]
    Foreign {
        /// Which table.
        table: String,
        /// Which version.
        version: i64,
        /// The `engineInfo` and operation of its commit.
        by: String,
        /// What the commit did.
        what: String,
    },
    /// Another writer's rewrite has to be undone, but a file from before it has been deleted.
    #[error(
        "could not commit table {table}: another writer's OPTIMIZE does not fit it, and {file} from before that is deleted already (VACUUM); stop other writers of this table (guard = true keeps them out), then restart: the newest state of the table is read again and corrected"
    )]
    Vacuumed {
        /// Which table.
        table: String,
        /// Which file.
        file: String,
    },
    /// A deletion vector cannot be read.
    #[error("could not read a deletion vector of table {table}")]
    Vector {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: VectorError,
    },
}

/// A table as of a version.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// The version.
    pub version: i64,
    /// The reader and writer features that the table demands.
    pub protocol: Protocol,
    /// Schema, partitioning and settings.
    pub meta_data: MetaData,
    /// The newest transaction version of each application, by application id.
    pub txns: BTreeMap<String, i64>,
    /// Live files, by path.
    pub files: BTreeMap<String, AddFile>,
    /// Version of the oldest log entry that still exists.
    pub oldest: i64,
    /// The newest readable checkpoint; none if the table has none.
    pub checkpoint: Option<i64>,
    /// Checkpoints that could not be read and were skipped, the newest first.
    pub damaged: Vec<DamagedCheckpoint>,
}

/// A checkpoint that could not be read.
#[derive(Clone, Debug)]
pub struct DamagedCheckpoint {
    /// The version that it represents.
    pub version: i64,
    /// The files that it consists of.
    pub parts: Vec<Path>,
    /// The unreadable file, relative to `_delta_log`.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// An entry to put, and the transaction that identifies it.
pub struct CommitEntry<'a> {
    /// The application id of its `txn`.
    pub app_id: &'a str,
    /// The version of its `txn`.
    pub epoch: i64,
    /// The bytes.
    pub bytes: Bytes,
}

/// The path of a log entry in the lake.
pub fn entry_path(table: &str, version: i64) -> Path {
    Path::from(format!("{table}/_delta_log/{version:020}.json"))
}

/// The actions of an entry; none if the version does not exist.
pub async fn read(lake: &Lake, table: &str, version: i64) -> Result<Option<Vec<Action>>, LogError> {
    let entry = lake.get(&entry_path(table, version)).await;
    let bytes = entry.map_err(|source| store_error(table, format!("read version {version}"), source))?;
    bytes.map(|bytes| parse(table, version, &bytes)).transpose()
}

/// Puts `entry`, which must not touch data, at the first free version after `base`, and returns that version.
/// Repeating it is safe: an entry with the same transaction after `base` counts as this one.
pub async fn apply(lake: &Lake, table: &str, base: i64, entry: &CommitEntry<'_>) -> Result<i64, LogError> {
    let mut version = base + 1;
    loop {
        let put = lake.put_new(&entry_path(table, version), entry.bytes.clone()).await;
        match put.map_err(|source| store_error(table, format!("put version {version}"), source))? {
            Put::Written => return Ok(version),
            Put::Taken => {}
        }
        let entry_there = read(lake, table, version).await?.ok_or(LogError::Gap {
            table: table.into(),
            version,
        })?;
        if carries_transaction(&entry_there, entry.app_id, entry.epoch) {
            return Ok(version);
        }
        if let Foreign::Change(what) = Foreign::from_actions(&entry_there) {
            return Err(LogError::Foreign {
                table: table.into(),
                version,
                by: CommitAuthor(&entry_there).to_string(),
                what,
            });
        }
        version += 1;
    }
}

/// Whether an entry carries this transaction.
pub fn carries_transaction(actions: &[Action], app_id: &str, epoch: i64) -> bool {
    actions
        .iter()
        .filter_map(|a| a.txn.as_ref())
        .any(|t| t.app_id == app_id && t.version == epoch)
}

/// Replays a table's log up to version `at` (none: the newest). Returns none if the table has no log.
pub async fn load(lake: &Lake, table: &str, at: Option<i64>) -> Result<Option<LoadedTable>, LogError> {
    let (mut versions, mut checkpoints) = list(lake, table).await?;
    if let Some(at) = at {
        versions.retain(|v| *v <= at);
        checkpoints.retain(|v, _| v <= &at);
    }
    let Some(newest) = versions.last().copied().max(checkpoints.keys().last().copied()) else {
        return Ok(None);
    };
    let mut damaged: Vec<DamagedCheckpoint> = Vec::new();
    let mut start = None;
    for (version, parts) in checkpoints.into_iter().rev() {
        match of_checkpoint(lake, table, version, &parts).await {
            Ok(replay) => {
                start = Some((version, replay));
                break;
            }
            Err(LogError::Damaged { file, reason, .. }) => damaged.push(DamagedCheckpoint {
                version,
                parts,
                file,
                reason,
            }),
            Err(e) => return Err(e),
        }
    }
    let (checkpoint, mut replay) = match start {
        Some((version, replay)) => (Some(version), replay),
        None => (None, Replay::default()),
    };
    let first = checkpoint.map_or(0, |v| v + 1);
    if let Some(damage) = damaged.first()
        && let Some(lacks) = (first..=damage.version).find(|version| versions.binary_search(version).is_err())
    {
        return Err(LogError::Checkpoint {
            table: table.into(),
            file: damage.file.clone(),
            reason: damage.reason.clone(),
            lacks,
        });
    }
    let mut entries = stream::iter(first..=newest)
        .map(|version| async move {
            let actions = read(lake, table, version).await?;
            actions.ok_or(LogError::Gap {
                table: table.into(),
                version,
            })
        })
        .buffered(READS);
    while let Some(actions) = entries.try_next().await? {
        replay.take(actions);
    }
    drop(entries);
    let lacking = |what: &str| LogError::Damaged {
        table: table.into(),
        file: format!("{newest:020}.json"),
        reason: format!("no entry up to it has a {what}"),
    };
    Ok(Some(LoadedTable {
        version: newest,
        protocol: replay.protocol.ok_or_else(|| lacking("protocol"))?,
        meta_data: replay.meta_data.ok_or_else(|| lacking("metaData"))?,
        txns: replay.txns,
        files: replay.files,
        oldest: versions.first().copied().unwrap_or(newest + 1),
        checkpoint,
        damaged,
    }))
}

/// Replays the parts of one checkpoint.
async fn of_checkpoint(lake: &Lake, table: &str, version: i64, parts: &[Path]) -> Result<Replay, LogError> {
    let mut replay = Replay::default();
    for part in parts {
        checkpoint::read(lake, table, part, &LIVE, &mut |actions| replay.take_checkpoint(actions)).await?;
    }
    match (&replay.protocol, &replay.meta_data) {
        (Some(_), Some(_)) => Ok(replay),
        _ => Err(LogError::Damaged {
            table: table.into(),
            file: format!("{version:020}.checkpoint.parquet"),
            reason: "it says nothing of the table's protocol and schema".into(),
        }),
    }
}

/// Calls `tell` with every file that the log records as removed, since the newest checkpoint and in the tombstones of
/// that checkpoint. A file may come several times. Only what is read at once is held in memory, because tombstones are
/// as many as the history is long.
pub async fn tombstones(lake: &Lake, table: &str, mut tell: impl FnMut(RemoveFile)) -> Result<(), LogError> {
    let (versions, checkpoints) = list(lake, table).await?;
    let mut checkpoint = None;
    for (version, parts) in checkpoints.iter().rev() {
        match removed_by(lake, table, parts, &mut tell).await {
            Ok(()) => {
                checkpoint = Some(*version);
                break;
            }
            Err(LogError::Damaged { .. }) => {} // The damaged checkpoint is skipped, as in `load`.
            Err(e) => return Err(e),
        }
    }
    let newer = versions.into_iter().filter(|v| Some(*v) > checkpoint);
    let mut entries = stream::iter(newer)
        .map(|version| read(lake, table, version))
        .buffered(READS);
    while let Some(actions) = entries.try_next().await? {
        let removed = actions.into_iter().flatten().filter_map(|a| a.remove);
        removed.for_each(&mut tell);
    }
    Ok(())
}

/// Calls `tell` with the tombstones of a checkpoint.
async fn removed_by(
    lake: &Lake,
    table: &str,
    parts: &[Path],
    tell: &mut impl FnMut(RemoveFile),
) -> Result<(), LogError> {
    for part in parts {
        checkpoint::read(lake, table, part, &["remove"], &mut |actions| {
            actions.into_iter().filter_map(|a| a.remove).for_each(&mut *tell);
        })
        .await?;
    }
    Ok(())
}

/// Reads one deletion vector. Without a descriptor the bitmap is empty.
pub async fn bitmap(lake: &Lake, table: &str, descriptor: Option<&DeletionVector>) -> Result<RoaringTreemap, LogError> {
    let failed = |source| LogError::Vector {
        table: table.into(),
        source,
    };
    let Some(descriptor) = descriptor else {
        return Ok(RoaringTreemap::new());
    };
    let Some(name) = vector::file_of(descriptor).map_err(failed)? else {
        return vector::inline(descriptor).map_err(failed);
    };
    let path = Path::from(format!("{table}/{name}"));
    let bytes = async { lake.store.get(&path).await?.bytes().await }.await;
    let bytes = bytes.map_err(|e| store_error(table, format!("read {name}"), e))?;
    vector::unpack(&bytes, descriptor).map_err(failed)
}

/// Reads the deletion vectors of files, in the order of the files. A file without one gets an empty bitmap.
pub async fn vectors(lake: &Lake, table: &str, files: &[AddFile]) -> Result<Vec<RoaringTreemap>, LogError> {
    let failed = |source| LogError::Vector {
        table: table.into(),
        source,
    };
    let mut named: Vec<String> = Vec::new();
    for file in files {
        if let Some(vector) = &file.deletion_vector {
            named.extend(vector::file_of(vector).map_err(failed)?);
        }
    }
    named.sort_unstable();
    named.dedup();
    let bytes: BTreeMap<String, Bytes> = stream::iter(named)
        .map(|name| async move {
            let path = Path::from(format!("{table}/{name}"));
            let object = lake.store.get(&path).await;
            let bytes = async { object?.bytes().await }.await;
            bytes
                .map(|b| (name.clone(), b))
                .map_err(|e| store_error(table, format!("read {name}"), e))
        })
        .buffer_unordered(READS)
        .try_collect()
        .await?;
    let bitmaps = files.iter().map(|file| match &file.deletion_vector {
        None => Ok(RoaringTreemap::new()),
        Some(vector) => match vector::file_of(vector)? {
            None => vector::inline(vector),
            Some(name) => vector::unpack(&bytes[&name], vector),
        },
    });
    bitmaps.collect::<Result<_, _>>().map_err(failed)
}

#[derive(Default)]
struct Replay {
    protocol: Option<Protocol>,
    meta_data: Option<MetaData>,
    txns: BTreeMap<String, i64>,
    files: BTreeMap<String, AddFile>,
}

impl Replay {
    /// Replays one entry. Its removes come first: one entry may remove a file with its old vector and add it with the
    /// new one.
    fn take(&mut self, actions: Vec<Action>) {
        for remove in actions.iter().filter_map(|a| a.remove.as_ref()) {
            // Path and vector together identify a file.
            if self
                .files
                .get(&remove.path)
                .is_some_and(|f| f.deletion_vector == remove.deletion_vector)
            {
                self.files.remove(&remove.path);
            }
        }
        self.take_checkpoint(actions);
    }

    /// Replays one part of a checkpoint. Every `add` is live, whatever `remove`s other parts hold: those are
    /// tombstones of the same file with an older vector, and are ignored.
    fn take_checkpoint(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Some(protocol) = action.protocol {
                self.protocol = Some(protocol);
            }
            if let Some(meta_data) = action.meta_data {
                self.meta_data = Some(meta_data);
            }
            if let Some(txn) = action.txn {
                self.txns.insert(txn.app_id, txn.version);
            }
            if let Some(add) = action.add {
                self.files.insert(add.path.clone(), add);
            }
        }
    }
}

/// The versions of the log, ascending, and the checkpoints with their parts.
pub(super) async fn list(lake: &Lake, table: &str) -> Result<(Vec<i64>, BTreeMap<i64, Vec<Path>>), LogError> {
    let folder = Path::from(format!("{table}/_delta_log"));
    let objects: Vec<_> = lake
        .store
        .list(Some(&folder))
        .try_collect()
        .await
        .map_err(|source| store_error(table, "list the log".into(), source))?;
    let mut versions = Vec::new();
    let mut checkpoints: BTreeMap<i64, Vec<Path>> = BTreeMap::new();
    for object in objects {
        let Some(name) = object.location.filename() else {
            continue;
        };
        let Some((version, rest)) = name.split_at_checked(20) else {
            continue;
        };
        let Ok(version) = version.parse::<i64>() else { continue };
        if rest == ".json" {
            versions.push(version);
        } else if rest.starts_with(".checkpoint.") && rest.ends_with(".parquet") {
            checkpoints.entry(version).or_default().push(object.location);
        }
    }
    versions.sort_unstable();
    checkpoints.retain(|_, parts| checkpoint::is_complete(parts));
    Ok((versions, checkpoints))
}

fn parse(table: &str, version: i64, bytes: &[u8]) -> Result<Vec<Action>, LogError> {
    action::from_lines(bytes).map_err(|e| LogError::Damaged {
        table: table.into(),
        file: format!("{version:020}.json"),
        reason: e.to_string(),
    })
}

pub fn store_error(table: &str, what: String, source: object_store::Error) -> LogError {
    LogError::Store {
        what,
        table: table.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::commit::maintenance::checkpoint;
    use arrow::array::{Array, BooleanArray, RecordBatch};
    use arrow::compute::filter_record_batch;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    const TABLE: &str = "silver/x";

    async fn write(lake: &Lake, path: Path, bytes: impl Into<Bytes>) {
        lake.put_new(&path, bytes.into()).await.unwrap();
    }

    /// A table whose file `b` lost a row in version 1.
    async fn table(lake: &Lake) {
        let schema = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}"#;
        let add = |path: &str, vector: &str| {
            format!(
                r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true,"stats":"{{\"numRecords\":9}}"{vector}}}}}"#
            )
        };
        let now = chrono::Utc::now().timestamp_millis();
        let first = [
            r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#.to_string(),
            format!(
                r#"{{"metaData":{{"id":"6e1d1f9a-8f0e-4a0e-9b61-2f3f8a6b2a11","format":{{"provider":"parquet","options":{{}}}},"schemaString":"{schema}","partitionColumns":[],"configuration":{{"delta.enableDeletionVectors":"true"}},"createdTime":1}}}}"#
            ),
            add("a.parquet", ""),
            add("b.parquet", ""),
        ];
        let vector = r#","deletionVector":{"storageType":"i","pathOrInlineDv":"wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L","sizeInBytes":40,"cardinality":6}"#;
        let second = [
            format!(
                r#"{{"remove":{{"path":"b.parquet","deletionTimestamp":{now},"dataChange":true,"extendedFileMetadata":true,"partitionValues":{{}},"size":1}}}}"#
            ),
            add("b.parquet", vector),
        ];
        write(lake, entry_path(TABLE, 0), first.join("\n")).await;
        write(lake, entry_path(TABLE, 1), second.join("\n")).await;
    }

    /// A file with the rows of a checkpoint in which `column` is set (or null, if `set` is false).
    fn part(rows: &RecordBatch, column: &str, set: bool) -> Bytes {
        let of = rows.column_by_name(column).unwrap();
        let mask: BooleanArray = (0..rows.num_rows()).map(|n| Some(of.is_valid(n) == set)).collect();
        let part = filter_record_batch(rows, &mask).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), part.schema(), None).unwrap();
        writer.write(&part).unwrap();
        writer.into_inner().unwrap().into()
    }

    /// Another engine writes a large checkpoint in several parts. A tombstone in a later part removed the live file of
    /// an earlier part: a restart would have lost its rows, and then reported them as corrections.
    #[tokio::test]
    async fn a_checkpoint_in_parts_keeps_a_file_whose_older_vector_is_a_tombstone_of_another_part() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        table(&lake).await;
        let expected = load(&lake, TABLE, None).await.unwrap().unwrap();
        assert_eq!(expected.files.len(), 2);

        checkpoint(&lake, TABLE, 1).await.unwrap();
        let log = Path::from(format!("{TABLE}/_delta_log"));
        let whole = log.clone().join(format!("{:020}.checkpoint.parquet", 1));
        let bytes = lake.get(&whole).await.unwrap().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert!(
            rows.column_by_name("remove").unwrap().null_count() < rows.num_rows(),
            "a tombstone is there"
        );
        for (n, set) in [(1, false), (2, true)] {
            let name = format!("{:020}.checkpoint.{n:010}.{:010}.parquet", 1, 2);
            write(&lake, log.clone().join(name), part(&rows, "remove", set)).await;
        }
        for path in [whole, entry_path(TABLE, 0), entry_path(TABLE, 1)] {
            lake.store.delete(&path).await.unwrap();
        }

        let loaded = load(&lake, TABLE, None).await.unwrap().unwrap();
        assert_eq!(loaded.files, expected.files);
        let mut removed = Vec::new();
        tombstones(&lake, TABLE, |remove| removed.push(remove.path))
            .await
            .unwrap();
        assert_eq!(removed, ["b.parquet"]);
        assert_eq!((loaded.version, loaded.checkpoint), (1, Some(1)));
        // A checkpoint of which a part is missing does not count.
        let second = log.join(format!("{:020}.checkpoint.{:010}.{:010}.parquet", 1, 2, 2));
        lake.store.delete(&second).await.unwrap();
        assert!(load(&lake, TABLE, None).await.unwrap().is_none());
    }
}
