//! Deletes files that no log refers to: files of snapshots that were never decided on (because of a crash, a zombie,
//! or a compaction that ended with its run), and change data whose commits are past the retention.
//!
//! A file is deleted only if it is older than the retention. A file is committed within seconds after it is written,
//! so a file that is old and in no log will never be in one. Files that past snapshots need are among the log's
//! tombstones until these too are past the retention.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use super::log::{self, LogError};
use super::vector;
use crate::lake::{Lake, file_location};
use crate::sink::DeletionVector;

/// The most files that one sweep looks at; the next sweep looks at others.
const MOST: usize = 100_000;

/// The files in a table's folder that may be deleted. `cutoff`: Unix milliseconds.
pub async fn orphans(lake: &Lake, table: &str, cutoff: i64) -> Result<Vec<Path>, LogError> {
    let Some(loaded) = log::load(lake, table, None).await? else {
        return Ok(Vec::new());
    };
    let mut named: HashSet<Path> = HashSet::new();
    for add in loaded.files.values() {
        named.extend(names(table, &add.path, add.deletion_vector.as_ref()));
    }
    let folder = Path::from(table);
    let log = Path::from(format!("{table}/_delta_log"));
    let candidates = lake.store.list(Some(&folder)).try_filter(|object| {
        let old = object.last_modified.timestamp_millis() < cutoff;
        let orphan = old && !object.location.prefix_matches(&log) && !named.contains(&object.location);
        std::future::ready(orphan)
    });
    // The candidates, neither live nor young, are few. So they are collected before the tombstones, of which there are
    // many.
    let candidates: Result<HashSet<Path>, _> = candidates
        .map_ok(|object| object.location)
        .take(MOST)
        .try_collect()
        .await;
    let mut candidates = candidates.map_err(|source| LogError::Store {
        what: "list the files".into(),
        table: table.into(),
        source,
    })?;
    if !candidates.is_empty() {
        log::tombstones(lake, table, |tombstone| {
            if tombstone.deletion_timestamp.unwrap_or(0) > cutoff {
                for name in names(table, &tombstone.path, tombstone.deletion_vector.as_ref()) {
                    candidates.remove(&name);
                }
            }
        })
        .await?;
    }
    Ok(candidates.into_iter().collect())
}

/// The places of a file and of its vector.
fn names(table: &str, path: &str, vector: Option<&DeletionVector>) -> impl Iterator<Item = Path> {
    let vector = vector.and_then(|v| vector::file_of(v).ok().flatten());
    let names = [
        file_location(table, path).ok(),
        vector.and_then(|v| file_location(table, &v).ok()),
    ];
    // A malformed path cannot occur in a listing.
    names.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;
    use chrono::Utc;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use url::Url;

    use super::super::action::{self, Action, RemoveFile};
    use super::*;
    use crate::sink::AddFile;

    #[tokio::test]
    async fn only_old_files_that_no_log_names_go() {
        let store = Arc::new(InMemory::new());
        let lake = Lake::over(store, Path::default(), Url::parse("memory:///").unwrap());
        let id = uuid::Uuid::new_v4();
        let (_, vectors) = vector::pack(id, [&[1u64].into_iter().collect()].into_iter());
        let add = |path: &str, deletion_vector: Option<DeletionVector>| AddFile {
            path: path.into(),
            partition_values: BTreeMap::new(),
            size: 1,
            modification_time: 0,
            data_change: true,
            stats: None,
            deletion_vector,
        };
        let remove = |path: &str, at: i64| RemoveFile {
            path: path.into(),
            deletion_timestamp: Some(at),
            data_change: true,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            deletion_vector: None,
        };
        let now = Utc::now().timestamp_millis();
        let actions = [
            serde_json::from_str::<Action>(r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#).unwrap(),
            serde_json::from_str::<Action>(
                r#"{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":[],"configuration":{}}}"#,
            )
            .unwrap(),
            Action::add(add("day=a%20b/live.parquet", vectors.into_iter().next())),
            Action::remove(remove("kept.parquet", now + 10_000)),
            Action::remove(remove("expired.parquet", 1)),
        ];
        let bytes = Bytes::from(action::to_lines(&actions));
        let entry = log::entry_path("silver/x", 0);
        lake.put_new(&entry, bytes).await.unwrap();
        let names = [
            "day=a b/live.parquet",
            &vector::file_name(id),
            "kept.parquet",
            "expired.parquet",
            "day=a b/orphan.parquet",
            "_change_data/old.parquet",
        ];
        for name in names {
            let path = Path::from(format!("silver/x/{name}"));
            lake.store.put(&path, "bytes".into()).await.unwrap();
        }
        assert!(orphans(&lake, "silver/x", 0).await.unwrap().is_empty(), "all are young");
        let mut found_orphans = orphans(&lake, "silver/x", now + 5_000).await.unwrap();
        found_orphans.sort();
        let expected = ["_change_data/old.parquet", "day=a b/orphan.parquet", "expired.parquet"];
        let expected: Vec<Path> = expected
            .iter()
            .map(|name| Path::from(format!("silver/x/{name}")))
            .collect();
        assert_eq!(found_orphans, expected);
        assert!(orphans(&lake, "silver/none", now).await.unwrap().is_empty());
    }
}
