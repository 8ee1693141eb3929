//! A snapshot for callers outside of an asynchronous runtime: it brings its own.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Runtime;

use super::printed::{OutputFormat, render};
use super::query::{QueryError, Snapshot};
use super::question::QuestionLimits;
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::sink::Lake;
use crate::{contain, deep};

/// All tables of a dataflow's lake as of one epoch.
pub struct Reader {
    snapshot: Arc<Snapshot>,
    limits: QuestionLimits,
    /// Always there but while it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A question that was given up may still compute: nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

impl Reader {
    /// The newest snapshot, or the newest at or before `epoch`.
    pub fn open(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<Reader, QueryError> {
        let limits = QuestionLimits {
            max_value: dataflow.bounds.max_value,
            ..QuestionLimits::default()
        };
        Reader::open_within(dataflow, epoch, limits)
    }

    /// The same, for questions within limits.
    pub fn open_within(
        dataflow: &Dataflow,
        epoch: Option<Epoch>,
        limits: QuestionLimits,
    ) -> Result<Reader, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_stack_size(deep::STACK)
            .build()
            .map_err(QueryError::Runtime)?;
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
        let snapshot = runtime.block_on(Snapshot::open_within(&lake, epoch, |_| true, limits))?;
        Ok(Reader {
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

    /// Its epoch and every table's version.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Runs one statement that only reads, and gathers its rows; when its time is over, it is given up.
    pub fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let (snapshot, sql) = (self.snapshot.clone(), sql.to_string());
        // On a thread of the runtime, so that this one can stop waiting whatever the other does.
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
    pub fn print(&self, sql: &str, format: OutputFormat) -> Result<String, QueryError> {
        let (schema, rows) = self.query(sql)?;
        Ok(render(&schema, &rows, format)?)
    }

    /// All rows of a table, named as in SQL.
    pub fn rows(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        self.runtime().block_on(self.snapshot.rows(table))
    }
}
