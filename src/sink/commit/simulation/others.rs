//! Simulates another engine that writes to our tables: it appends, and it runs OPTIMIZEs that read now and commit
//! later, with the conflict check of delta-rs, which ignores removals with `dataChange` false.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use serde_json::json;

use super::super::action::{self, Action, RemoveFile};
use super::super::log;
use super::reader::{content, now};
use super::store::Random;
use super::workload::{FOREIGN, columns, schema};
use crate::lake::{Lake, Put};
use crate::sink::AddFile;

/// An OPTIMIZE that has read its files, but not committed yet.
pub struct Optimize {
    /// The table's folder.
    pub table: String,
    /// The version that it read.
    read: i64,
    actions: Vec<Action>,
}

fn write(lake: &Lake, table: &str, name: &str, rows: &[(i64, i64)], data_change: bool) -> AddFile {
    let batch = RecordBatch::try_new(schema(), columns(rows)).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let size = bytes.len() as u64;
    now(lake.store.put(&Path::from(format!("{table}/{name}")), bytes.into())).unwrap();
    AddFile {
        path: name.into(),
        partition_values: BTreeMap::new(),
        size,
        modification_time: 1,
        data_change,
        // Some engines write no statistics.
        stats: (!name.ends_with("7.parquet")).then(|| format!("{{\"numRecords\":{}}}", rows.len())),
        deletion_vector: None,
    }
}

fn info(operation: &str) -> Action {
    Action::commit_info(json!({ "engineInfo": "other", "operation": operation }))
}

/// Appends a row, at once.
pub fn append(lake: &Lake, table: &str, number: u64) {
    let Some(loaded) = now(log::load(lake, table, None)).unwrap() else {
        return;
    };
    let row = (FOREIGN + number as i64, 0);
    let add = write(lake, table, &format!("other-{number}.parquet"), &[row], true);
    let bytes = action::to_lines(&[info("WRITE"), Action::add(add)]);
    let path = log::entry_path(table, loaded.version + 1);
    let put = lake.put_new(&path, bytes.into());
    assert_eq!(now(put).unwrap(), Put::Written);
}

/// Reads some of a table's files, and writes their rows as one file.
pub fn optimize(lake: &Lake, table: &str, number: u64, random: &mut Random) -> Option<Optimize> {
    let loaded = now(log::load(lake, table, None)).unwrap()?;
    let all = random.chance(500);
    let files: Vec<&AddFile> = loaded.files.values().filter(|_| all || random.chance(600)).collect();
    if files.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    let mut actions = vec![info("OPTIMIZE")];
    for file in files {
        let deleted = now(log::bitmap(lake, table, file.deletion_vector.as_ref())).unwrap();
        let content = content(lake, table, &file.path).unwrap().into_iter().enumerate();
        rows.extend(
            content
                .filter(|(n, _)| !deleted.contains(*n as u64))
                .map(|(_, row)| row),
        );
        actions.push(Action::remove(RemoveFile {
            path: file.path.clone(),
            deletion_timestamp: Some(1),
            data_change: false,
            extended_file_metadata: Some(true),
            partition_values: Some(BTreeMap::new()),
            size: Some(file.size),
            deletion_vector: file.deletion_vector.clone(),
        }));
    }
    if random.chance(500) {
        rows.sort_unstable();
    }
    actions.push(Action::add(write(
        lake,
        table,
        &format!("other-{number}.parquet"),
        &rows,
        false,
    )));
    Some(Optimize {
        table: table.into(),
        read: loaded.version,
        actions,
    })
}

impl Optimize {
    /// Commits if delta-rs would; returns whether it did.
    pub fn commit(self, lake: &Lake) -> bool {
        let mine: BTreeSet<&str> = (self.actions.iter().filter_map(|a| a.remove.as_ref()))
            .map(|r| r.path.as_str())
            .collect();
        let mut version = self.read + 1;
        while let Some(actions) = now(log::read(lake, &self.table, version)).unwrap() {
            let removed = actions
                .iter()
                .filter_map(|a| a.remove.as_ref())
                .filter(|r| r.data_change);
            if removed.into_iter().any(|r| mine.contains(r.path.as_str())) {
                return false;
            }
            version += 1;
        }
        let bytes = action::to_lines(&self.actions);
        let path = log::entry_path(&self.table, version);
        let put = lake.put_new(&path, bytes.into());
        now(put).unwrap() == Put::Written
    }
}
