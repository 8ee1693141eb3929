//! A reader that follows Delta's protocol to the letter: path and vector together identify a file, and a file that is
//! added twice holds its rows twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use url::Url;

use super::super::log;
use super::workload::RowCounts;
use crate::lake::Lake;
use crate::sink::AddFile;

/// The lake without simulated delays and faults.
pub fn lake(objects: &Arc<InMemory>) -> Lake {
    Lake::over(objects.clone(), Path::default(), Url::parse("memory:///").unwrap())
}

/// Completes a future that never has to wait.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

/// Replays a table's log version by version.
pub struct LogReplay {
    lake: Lake,
    table: String,
    version: i64,
    live: BTreeMap<(String, String), AddFile>,
    content: HashMap<String, Arc<Vec<(i64, i64)>>>,
}

impl LogReplay {
    /// Starts before the table's first version.
    pub fn new(lake: Lake, table: &str) -> LogReplay {
        LogReplay {
            lake,
            table: table.into(),
            version: -1,
            live: BTreeMap::new(),
            content: HashMap::new(),
        }
    }

    /// Our rows of the table as of a version, and the number of rows of other writers.
    pub fn rows(&mut self, version: i64) -> Result<(RowCounts, usize), String> {
        while self.version < version {
            self.version += 1;
            let actions = now(log::read(&self.lake, &self.table, self.version)).map_err(|e| e.to_string())?;
            let actions = actions.ok_or(format!("{} has no version {}", self.table, self.version))?;
            for remove in actions.iter().filter_map(|a| a.remove.as_ref()) {
                self.live
                    .remove(&(remove.path.clone(), format!("{:?}", remove.deletion_vector)));
            }
            for add in actions.iter().filter_map(|a| a.add.as_ref()) {
                self.live
                    .insert((add.path.clone(), format!("{:?}", add.deletion_vector)), add.clone());
            }
        }
        assert_eq!(self.version, version, "versions are asked for in their order");
        let (mut rows, mut foreign) = (RowCounts::new(), 0);
        for file in self.live.values() {
            let content = match self.content.get(&file.path) {
                Some(content) => content.clone(),
                None => {
                    let content = Arc::new(content(&self.lake, &self.table, &file.path)?);
                    self.content.insert(file.path.clone(), content.clone());
                    content
                }
            };
            let deleted: RoaringTreemap =
                now(log::bitmap(&self.lake, &self.table, file.deletion_vector.as_ref())).map_err(|e| e.to_string())?;
            for (position, row) in content.iter().enumerate() {
                if deleted.contains(position as u64) {
                    continue;
                }
                if row.0 >= super::workload::FOREIGN {
                    foreign += 1;
                } else {
                    *rows.entry(*row).or_default() += 1;
                }
            }
        }
        Ok((rows, foreign))
    }
}

/// Lists a table's log for people: the files that each version removes and adds.
pub fn log_of(lake: &Lake, table: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(actions)) = now(log::read(lake, table, lines.len() as i64)) {
        let mut line = format!("{table} version {}:", lines.len());
        for action in &actions {
            if let Some(info) = &action.commit_info {
                line += &format!(" {} of {}", info["operation"], info["engineInfo"]);
            }
            if let Some(txn) = &action.txn {
                line += &format!(", {} {}", txn.app_id, txn.version);
            }
            if let Some(remove) = &action.remove {
                let vector = remove
                    .deletion_vector
                    .as_ref()
                    .map(|v| (&v.path_or_inline_dv, v.offset));
                line += &format!(
                    "\n    - {} {vector:?} (data change: {})",
                    remove.path, remove.data_change
                );
            }
            if let Some(come) = &action.add {
                let vector = come.deletion_vector.as_ref().map(|v| (&v.path_or_inline_dv, v.offset));
                let rows = content(lake, table, &come.path);
                line += &format!(
                    "\n    + {} {vector:?} (data change: {}) {rows:?}",
                    come.path, come.data_change
                );
            }
        }
        lines.push(line);
    }
    lines
}

/// The rows of a data file.
pub fn content(lake: &Lake, table: &str, file: &str) -> Result<Vec<(i64, i64)>, String> {
    let bytes = now(lake.get(&Path::from(format!("{table}/{file}")))).map_err(|e| e.to_string())?;
    let bytes = bytes.ok_or(format!("{table} names {file}, which is not there"))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build());
    let mut rows = Vec::new();
    for batch in reader.map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().to_vec();
        rows.extend(column(0).into_iter().zip(column(1)));
    }
    Ok(rows)
}
