//! Runs SQL over one snapshot: every table as of one epoch.
//!
//! [`LakeSnapshot::open`] determines which version each table has in the snapshot, and opens the table at that version
//! with deltalake. So a query sees all tables at one epoch, while they may change meanwhile. Nothing here writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use deltalake::DeltaTableError;
use futures::TryStreamExt;
use thiserror::Error;

use super::question::{self, QuestionError, QuestionLimits};
use super::zeros::OneZero;
use crate::definition::Diagnostics;
use crate::lake::{Lake, LakeError, schema_and_name, table_folder};
use crate::plan;
use crate::repr::{CodecError, Epoch};
use crate::sink::ledger::{self, Intent, LedgerEntry};
use crate::sink::states::is_state;
use crate::sink::{LedgerError, LogError, history, log};

/// Why a query could not be answered.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Nothing was ever committed to the lake.
    #[error("the lake {0} holds no snapshot yet; start the dataflow with `alluvium run` and ask again")]
    Empty(String),
    /// No kept snapshot is at or before the epoch.
    #[error("the lake holds no snapshot at or before epoch {wanted}; kept are {oldest} to {newest}")]
    NoSuchSnapshot {
        /// The epoch that was asked for.
        wanted: Epoch,
        /// The oldest kept epoch.
        oldest: Epoch,
        /// The newest epoch.
        newest: Epoch,
    },
    /// A table of the snapshot cannot be opened at its version.
    #[error(
        "could not open table {table} at version {version} of snapshot {epoch}; if its files are cleaned up, ask for a newer snapshot"
    )]
    Table {
        /// Which table.
        table: String,
        /// Which version.
        version: i64,
        /// Which snapshot.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A table's checkpoint cannot be read; the next run repairs it.
    #[error(
        "could not read {file} of table {table}: {reason}; run the dataflow once: a run passes a damaged checkpoint over and writes a new one"
    )]
    Checkpoint {
        /// Which table.
        table: String,
        /// The file, relative to `_delta_log`.
        file: String,
        /// Why.
        reason: String,
    },
    /// The SQL names a table that does not exist.
    #[error("there is no table {wanted}; known are {known}")]
    UnknownTable {
        /// The name, as written.
        wanted: String,
        /// The existing tables, separated by commas.
        known: String,
    },
    /// See [`QuestionError`].
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The SQL is wrong.
    #[error(transparent)]
    Mistakes(#[from] Diagnostics),
    /// The answer takes more memory than allowed.
    #[error(
        "could not hold the answer: its first {rows} rows take more than {limit}; ask for fewer rows or columns (a LIMIT, a GROUP BY), or allow more with --memory"
    )]
    TooMuch {
        /// How many rows had been gathered by then.
        rows: usize,
        /// The limit, for people.
        limit: String,
    },
    /// The query ran out of memory.
    #[error(
        "could not run the query in {limit} of memory; ask for less (a filter, fewer columns, fewer groups), or allow more with --memory"
    )]
    OutOfMemory {
        /// The limit, for people.
        limit: String,
        /// DataFusion's error.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The query took longer than allowed.
    #[error("could not answer the query within {limit}; ask for less, or allow more with --timeout")]
    TooLong {
        /// The limit, for people.
        limit: String,
    },
    /// The query panicked.
    #[error("could not run the query: {0}")]
    Panicked(String),
    /// The query failed.
    #[error("could not run the query")]
    Sql(#[source] Box<DataFusionError>),
    /// The rows cannot be printed in the wanted format.
    #[error("could not print the rows")]
    Output(#[from] ArrowError),
    /// Rows do not match the table's schema.
    #[error("could not take the rows")]
    Rows(#[from] CodecError),
    /// See [`LedgerError`].
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lake cannot be opened.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The runtime for reading could not be started.
    #[error("could not start a runtime to read with")]
    Runtime(#[source] std::io::Error),
}

impl From<DataFusionError> for QueryError {
    fn from(source: DataFusionError) -> Self {
        match source {
            DataFusionError::External(inner) => match inner.downcast::<QuestionError>() {
                Ok(refused) => QueryError::Question(*refused),
                Err(inner) => QueryError::Sql(Box::new(DataFusionError::External(inner))),
            },
            source => QueryError::Sql(Box::new(source)),
        }
    }
}

/// All tables of a lake as of one epoch.
pub struct LakeSnapshot {
    epoch: Epoch,
    versions: BTreeMap<String, i64>,
    context: SessionContext,
    limits: QuestionLimits,
}

impl LakeSnapshot {
    /// Opens the newest snapshot that is applied in full, or the newest one at or before `epoch`.
    pub async fn open(lake: &Lake, epoch: Option<Epoch>) -> Result<LakeSnapshot, QueryError> {
        LakeSnapshot::open_tables(lake, epoch, |_| true).await
    }

    /// Like [`LakeSnapshot::open`], for the wanted tables only.
    pub async fn open_tables(
        lake: &Lake,
        epoch: Option<Epoch>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<LakeSnapshot, QueryError> {
        LakeSnapshot::open_within(lake, epoch, wanted, QuestionLimits::default()).await
    }

    /// Like [`LakeSnapshot::open_tables`], with limits for queries. The caller must enforce the time limit, because a
    /// computation can only be given up from outside.
    pub async fn open_within(
        lake: &Lake,
        epoch: Option<Epoch>,
        wanted: impl Fn(&str) -> bool,
        limits: QuestionLimits,
    ) -> Result<LakeSnapshot, QueryError> {
        let (epoch, mut versions) = find(lake, epoch).await?;
        versions.retain(|table, _| !is_state(table) && wanted(table));
        let context = context(&limits)?;
        for (table, version) in &versions {
            register(&context, lake, table, *version, epoch).await?;
        }
        Ok(LakeSnapshot {
            epoch,
            versions,
            context,
            limits,
        })
    }

    /// Adds a table that the snapshot does not have, as of one of its versions.
    pub async fn add_table(&mut self, lake: &Lake, table: &str, version: i64) -> Result<(), QueryError> {
        register(&self.context, lake, table, version, self.epoch).await?;
        self.versions.insert(table.to_string(), version);
        Ok(())
    }

    /// The snapshot's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The version of every table, by name.
    pub fn versions(&self) -> &BTreeMap<String, i64> {
        &self.versions
    }

    /// The session in which the tables are registered, for further queries or additional tables.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Whether the snapshot has this table, by its name in SQL.
    pub fn has(&self, table: &str) -> bool {
        self.versions.contains_key(table)
    }

    /// All rows of a table, by its name in SQL.
    pub async fn rows(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let (schema, name) = schema_and_name(table);
        self.query(&format!("SELECT * FROM \"{schema}\".\"{name}\"")).await
    }

    /// Streams all rows of a table.
    pub async fn stream(&self, table: &str) -> Result<SendableRecordBatchStream, QueryError> {
        Ok(self.table(table).await?.execute_stream().await?)
    }

    /// The columns of a table.
    pub async fn schema(&self, table: &str) -> Result<SchemaRef, QueryError> {
        Ok(self.table(table).await?.schema().inner().clone())
    }

    async fn table(&self, table: &str) -> Result<DataFrame, QueryError> {
        let (schema, name) = schema_and_name(table);
        Ok(self.context.table(TableReference::partial(schema, name)).await?)
    }

    /// Runs one statement that only reads, and gathers its rows.
    pub async fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let plan = question::plan(&self.context, sql)
            .await
            .map_err(|e| self.explain(e, sql))?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema = frame.schema().inner().clone();
        let mut stream = frame.execute_stream().await.map_err(|e| self.out_of_memory(e))?;
        let (mut batches, mut bytes, mut rows) = (Vec::new(), 0, 0);
        while let Some(batch) = stream.try_next().await.map_err(|e| self.out_of_memory(e))? {
            bytes += batch.get_array_memory_size() as u64;
            rows += batch.num_rows();
            if let Some(limit) = self.limits.memory.filter(|limit| bytes > *limit) {
                let limit = plan::shown_bytes(limit);
                return Err(QueryError::TooMuch { rows, limit });
            }
            batches.push(batch);
        }
        Ok((schema, batches))
    }

    fn out_of_memory(&self, error: DataFusionError) -> QueryError {
        match (self.limits.memory, error.find_root()) {
            (Some(limit), DataFusionError::ResourcesExhausted(_)) => QueryError::OutOfMemory {
                limit: plan::shown_bytes(limit),
                source: Box::new(error),
            },
            _ => error.into(),
        }
    }

    /// Adds the existing tables to the error: DataFusion names only the missing one.
    /// Why a query could not be planned.
    fn explain(&self, error: DataFusionError, sql: &str) -> QueryError {
        let text = error.strip_backtrace();
        let wanted = text
            .split_once("table '")
            .and_then(|(_, rest)| rest.split_once("' not found"))
            .map(|(name, _)| {
                name.trim_start_matches("datafusion.")
                    .trim_start_matches("public.")
                    .to_string()
            });
        match wanted {
            Some(wanted) => {
                let known: Vec<&str> = self.versions.keys().map(String::as_str).collect();
                QueryError::UnknownTable {
                    wanted,
                    known: known.join(", "),
                }
            }
            None => match QueryError::from(error) {
                QueryError::Sql(error) => plan::query_mistakes(*error, sql).into(),
                refused => refused,
            },
        }
    }
}

/// The epochs of all snapshots in the ledger whose commits all exist, ascending.
pub async fn epochs(lake: &Lake) -> Result<Vec<Epoch>, QueryError> {
    let mut epochs = Vec::new();
    for seq in ledger::list(lake).await? {
        if let Some(LedgerEntry::Intent(intent)) = ledger::read(lake, seq).await?
            && resolve(lake, &intent).await?.is_some()
        {
            epochs.push(intent.epoch);
        }
    }
    Ok(epochs)
}

/// A session with the functions and the arithmetic of the dataflow's tables.
fn context(limits: &QuestionLimits) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_information_schema(true);
    plan::read_decimals(&mut config);
    config.options_mut().sql_parser.collect_spans = true;
    config.options_mut().execution.time_zone = Some("UTC".to_string());
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(memory) = limits.memory {
        runtime = runtime.with_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX), 1.0);
    }
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
    let context = plan::exact_numbers(&context);
    plan::register_functions(&context);
    context.add_optimizer_rule(Arc::new(OneZero));
    plan::keep_within_bounds(&context, limits.max_value);
    context.add_analyzer_rule(Arc::new(plan::SetsExpanded));
    plan::join_subqueries(&context);
    Ok(context)
}

async fn register(
    context: &SessionContext,
    lake: &Lake,
    table: &str,
    version: i64,
    epoch: Epoch,
) -> Result<(), QueryError> {
    let (schema, name) = schema_and_name(table);
    let failed = |source| QueryError::Table {
        table: table.to_string(),
        version,
        epoch,
        source: Box::new(source),
    };
    let mut handle = lake.delta_table(&table_folder(table));
    if let Err(source) = handle.load_version(version as u64).await {
        let damaged = log::load(lake, &table_folder(table), Some(version)).await?;
        let damage = damaged.and_then(|loaded| loaded.damaged.into_iter().next());
        return Err(damage.map_or_else(
            || failed(source),
            |damage| QueryError::Checkpoint {
                table: table.to_string(),
                file: damage.file,
                reason: damage.reason,
            },
        ));
    }
    handle.update_datafusion_session(&context.state()).map_err(failed)?;
    let catalog = context.catalog("datafusion").expect("a new session has its catalog");
    let schema = match catalog.schema(schema) {
        Some(schema) => schema,
        None => {
            let made = Arc::new(MemorySchemaProvider::new());
            catalog.register_schema(schema, made.clone())?;
            made
        }
    };
    let provider = handle.table_provider().await?;
    schema.register_table(name.to_string(), provider)?;
    Ok(())
}

/// The epoch of the wanted snapshot, and every table's version in it.
async fn find(lake: &Lake, wanted: Option<Epoch>) -> Result<(Epoch, BTreeMap<String, i64>), QueryError> {
    let mut oldest: Option<Epoch> = None;
    let mut newest: Option<Epoch> = None;
    for seq in ledger::list(lake).await?.into_iter().rev() {
        // An entry that vanishes while we read was cleaned up, and so were those before it.
        let Some(entry) = ledger::read(lake, seq).await? else {
            break;
        };
        let LedgerEntry::Intent(intent) = entry else { continue };
        newest = newest.or(Some(intent.epoch));
        oldest = Some(intent.epoch);
        if wanted.is_none_or(|wanted| intent.epoch <= wanted)
            && let Some(versions) = resolve(lake, &intent).await?
        {
            return Ok((intent.epoch, versions));
        }
    }
    let (Some(oldest), Some(newest)) = (oldest, newest) else {
        return Err(QueryError::Empty(lake.root.to_string()));
    };
    match wanted {
        Some(wanted) => {
            let versions = recorded(lake, wanted).await?;
            versions.ok_or(QueryError::NoSuchSnapshot { wanted, oldest, newest })
        }
        None => Err(QueryError::Empty(lake.root.to_string())),
    }
}

/// Every table's version after an intent; none if the intent is not applied in full.
async fn resolve(lake: &Lake, intent: &Intent) -> Result<Option<BTreeMap<String, i64>>, QueryError> {
    let mut versions = intent.versions.clone();
    for change in &intent.tables {
        let mut version = versions.get(&change.table).copied().unwrap_or(-1);
        for commit in &change.commits {
            loop {
                version += 1;
                match log::read(lake, &change.path, version).await? {
                    None => return Ok(None),
                    Some(actions) if log::carries_transaction(&actions, &commit.app_id, intent.epoch as i64) => break,
                    Some(_) => {} // Another writer's append came in between.
                }
            }
        }
        versions.insert(change.table.clone(), version);
    }
    Ok(Some(versions))
}

/// Looks up, in the table of snapshots, a snapshot that the ledger no longer has.
async fn recorded(lake: &Lake, wanted: Epoch) -> Result<Option<(Epoch, BTreeMap<String, i64>)>, QueryError> {
    let context = context(&QuestionLimits::default())?;
    let Some(loaded) = log::load(lake, history::PATH, None).await? else {
        return Ok(None);
    };
    let mut handle = lake.delta_table(history::PATH);
    let failed = |source| QueryError::Table {
        table: history::PATH.into(),
        version: loaded.version,
        epoch: wanted,
        source: Box::new(source),
    };
    handle.load_version(loaded.version as u64).await.map_err(failed)?;
    handle.update_datafusion_session(&context.state()).map_err(failed)?;
    context.register_table("snapshots", handle.table_provider().await?)?;
    let sql = format!(
        "SELECT epoch, table_name, version FROM snapshots
         WHERE epoch = (SELECT max(epoch) FROM snapshots WHERE epoch <= {wanted})"
    );
    let mut newest: Option<(Epoch, BTreeMap<String, i64>)> = None;
    for batch in context.sql(&sql).await?.collect().await? {
        let tables = arrow::compute::cast(batch.column(1), &DataType::Utf8)?;
        let epochs = batch.column(0).as_primitive::<Int64Type>();
        let tables = tables.as_string::<i32>();
        let versions = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let (_, all) = newest.get_or_insert_with(|| (epochs.value(row) as Epoch, BTreeMap::new()));
            all.insert(tables.value(row).to_string(), versions.value(row));
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    /// WITH ORDINALITY, `mode`, JSON and others were rewritten as in tables, to functions that a query did not have.
    #[tokio::test]
    async fn a_query_has_the_functions_of_tables() {
        let context = context(&QuestionLimits::default()).unwrap();
        let values = "(VALUES (1), (2), (2)) AS v(x)";
        for (sql, expected) in [
            (
                "SELECT u.n FROM unnest(['a', 'b']) WITH ORDINALITY AS u(item, n) ORDER BY n".to_string(),
                "1, 2",
            ),
            (r#"SELECT '{"a": 7}'::json ->> 'a' AS a"#.to_string(), "7"),
            (r#"SELECT '{"tags": ["x", "y"]}' #>> '{tags,1}' AS t"#.to_string(), "y"),
            (
                r#"SELECT '{"tags": {"1": "z"}}'::json #>> '{tags,1}' AS t"#.to_string(),
                "z",
            ),
            (
                format!("SELECT mode() WITHIN GROUP (ORDER BY x) AS m FROM {values}"),
                "2",
            ),
            (format!("SELECT json_agg(x ORDER BY x) AS j FROM {values}"), "[1, 2, 2]"),
            ("SELECT width_bucket(5, 0, 10, 5) AS w".to_string(), "3"),
            ("SELECT regexp_like('Ab', '^a', 'i') AS r".to_string(), "true"),
            (
                "WITH v AS (SELECT TIMESTAMP '2024-01-01 00:00:30' AS ts) \
                 SELECT window_end FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' MINUTE))"
                    .to_string(),
                "2024-01-01T00:01:00",
            ),
            // DataFusion's own function is null for the third row.
            (
                "SELECT lead(x, 2) IGNORE NULLS OVER (ORDER BY id) AS l \
                 FROM (VALUES (1, 10), (2, 20), (3, 30), (4, 40), (5, NULL), (6, 70)) AS v(id, x) ORDER BY id LIMIT 3"
                    .to_string(),
                "30, 40, 70",
            ),
        ] {
            let plan = question::plan(&context, &sql).await.expect(&sql);
            let frame = context.execute_logical_plan(plan).await.expect(&sql);
            let mut answer = Vec::new();
            for batch in frame.collect().await.expect(&sql) {
                let column = batch.column(0);
                answer.extend((0..column.len()).map(|row| array_value_to_string(column, row).unwrap()));
            }
            assert_eq!(answer.join(", "), expected, "{sql}");
        }
    }
}
