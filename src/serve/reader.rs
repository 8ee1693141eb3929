//! Opens a snapshot for callers outside an asynchronous runtime; it owns the runtime.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Runtime;

use super::printed::{PrintFormat, render};
use super::query::{LakeSnapshot, QueryError};
use super::question::QuestionLimits;
use crate::contain;
use crate::definition::Dataflow;
use crate::lake::Lake;
use crate::repr::Epoch;
use crate::runtime::query_runtime;

/// All tables of a dataflow's lake as of one epoch.
pub struct LakeReader {
    snapshot: Arc<LakeSnapshot>,
    limits: QuestionLimits,
    /// None only while the reader is dropped.
    runtime: Option<Runtime>,
}

impl Drop for LakeReader {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A query that was given up may still compute, and nobody waits for it.
            crate::runtime::end(runtime);
        }
    }
}

impl LakeReader {
    /// Opens the newest snapshot, or the newest one at or before `epoch`.
    pub fn open(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<LakeReader, QueryError> {
        let limits = QuestionLimits {
            max_value: dataflow.bounds.max_value,
            ..QuestionLimits::default()
        };
        LakeReader::open_within(dataflow, epoch, limits)
    }

    /// Like [`LakeReader::open`], with limits for queries.
    pub fn open_within(
        dataflow: &Dataflow,
        epoch: Option<Epoch>,
        limits: QuestionLimits,
    ) -> Result<LakeReader, QueryError> {
        let runtime = query_runtime().map_err(QueryError::Runtime)?;
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
        let snapshot = runtime.block_on(LakeSnapshot::open_within(&lake, epoch, |_| true, limits))?;
        Ok(LakeReader {
            snapshot: Arc::new(snapshot),
            limits,
            runtime: Some(runtime),
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime
            .as_ref()
            .expect("the runtime is taken when the reader is dropped")
    }

    /// The snapshot: its epoch, and the version of every table.
    pub fn snapshot(&self) -> &LakeSnapshot {
        &self.snapshot
    }

    /// Runs one statement that only reads, and gathers its rows; gives it up when its time is over.
    pub fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let (snapshot, sql) = (self.snapshot.clone(), sql.to_string());
        // The query runs on a thread of the runtime, so that this thread can stop waiting whatever the other one does.
        let asked = self.runtime().spawn(async move { snapshot.query(&sql).await });
        let answered = match self.limits.time {
            None => self.runtime().block_on(asked),
            Some(time) => {
                let abort = asked.abort_handle();
                match self
                    .runtime()
                    .block_on(async { tokio::time::timeout(time, asked).await })
                {
                    Ok(answered) => answered,
                    Err(_) => {
                        abort.abort();
                        let limit = humantime::format_duration(time).to_string();
                        return Err(QueryError::TooLong { limit });
                    }
                }
            }
        };
        answered.unwrap_or_else(|ended| {
            Err(QueryError::Panicked(match ended.try_into_panic() {
                Ok(panic) => contain::message(panic.as_ref()),
                Err(ended) => ended.to_string(),
            }))
        })
    }

    /// Runs one statement and prints its rows.
    pub fn print(&self, sql: &str, format: PrintFormat) -> Result<String, QueryError> {
        let (schema, rows) = self.query(sql)?;
        Ok(render(&schema, &rows, format)?)
    }

    /// All rows of a table, by its name in SQL.
    pub fn rows(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        self.runtime().block_on(self.snapshot.rows(table))
    }
}
