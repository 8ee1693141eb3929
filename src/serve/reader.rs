//! A snapshot for callers outside of an asynchronous runtime: it brings its own.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Runtime;

use super::query::{OutputFormat, QueryError, Snapshot, render};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::sink::Lake;

/// All tables of a dataflow's lake as of one epoch.
pub struct Reader {
    snapshot: Snapshot,
    runtime: Runtime,
}

impl Reader {
    /// The newest snapshot, or the newest at or before `epoch`.
    pub fn open(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<Reader, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(QueryError::Runtime)?;
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
        let snapshot = runtime.block_on(Snapshot::open(&lake, epoch))?;
        Ok(Reader { snapshot, runtime })
    }

    /// Its epoch and every table's version.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Runs one statement and gathers its rows.
    pub fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        self.runtime.block_on(self.snapshot.query(sql))
    }

    /// Runs one statement and prints its rows.
    pub fn print(&self, sql: &str, format: OutputFormat) -> Result<String, QueryError> {
        let (schema, rows) = self.query(sql)?;
        render(&schema, &rows, format)
    }

    /// All rows of a table, named as in SQL.
    pub fn rows(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        self.runtime.block_on(self.snapshot.rows(table))
    }
}
