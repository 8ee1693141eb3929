//! Deletes what no log names: files of snapshots that were never decided on (a crash, a zombie, a compaction that
//! ended with its run), and change data whose commits are past their retention.
//!
//! A file goes only if it is older than the retention. Between its writing and its commit there are seconds, so
//! a file that old and in no log will never be in one; and readers of a past snapshot find what that
//! names among the log's tombstones until those are past their retention too.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use super::log::{self, LogError};
use super::vector;
use crate::sink::DeletionVector;
use crate::sink::lake::{Lake, file_location};

/// Files looked at in one sweep; the next one sees further ones.
const MOST: usize = 100_000;

/// The files below a table's folder that may go. `cutoff`: Unix milliseconds.
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
    let found = lake.store.list(Some(&folder)).try_filter(|object| {
        let old = object.last_modified.timestamp_millis() < cutoff;
        let orphan = old && !object.location.prefix_matches(&log) && !named.contains(&object.location);
        std::future::ready(orphan)
    });
    // Few are candidates: those that are neither live nor young. Only then the tombstones, which are many.
    let found: Result<HashSet<Path>, _> = found.map_ok(|object| object.location).take(MOST).try_collect().await;
    let mut found = found.map_err(|source| LogError::Store {
        what: "list the files".into(),
        table: table.into(),
        source,
    })?;
    if !found.is_empty() {
        log::tombstones(lake, table, |gone| {
            if gone.deletion_timestamp.unwrap_or(0) > cutoff {
                for name in names(table, &gone.path, gone.deletion_vector.as_ref()) {
                    found.remove(&name);
                }
            }
        })
        .await?;
    }
    Ok(found.into_iter().collect())
}

/// Where a file and its vector are.
fn names(table: &str, path: &str, vector: Option<&DeletionVector>) -> impl Iterator<Item = Path> {
    let vector = vector.and_then(|v| vector::file_of(v).ok().flatten());
    let names = [
        file_location(table, path).ok(),
        vector.and_then(|v| file_location(table, &v).ok()),
    ];
    // An odd name is none that a listing could show.
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
        lake.put_new(&entry, bytes, false).await.unwrap();
        let there = [
            "day=a b/live.parquet",
            &vector::file_name(id),
            "kept.parquet",
            "expired.parquet",
            "day=a b/orphan.parquet",
            "_change_data/old.parquet",
        ];
        for name in there {
            let path = Path::from(format!("silver/x/{name}"));
            lake.store.put(&path, "bytes".into()).await.unwrap();
        }
        assert!(orphans(&lake, "silver/x", 0).await.unwrap().is_empty(), "all are young");
        let mut gone = orphans(&lake, "silver/x", now + 5_000).await.unwrap();
        gone.sort();
        let expected = ["_change_data/old.parquet", "day=a b/orphan.parquet", "expired.parquet"];
        let expected: Vec<Path> = expected
            .iter()
            .map(|name| Path::from(format!("silver/x/{name}")))
            .collect();
        assert_eq!(gone, expected);
        assert!(orphans(&lake, "silver/none", now).await.unwrap().is_empty());
    }
}
