//! SQL over one snapshot: every table as of one epoch.
//!
//! [`Snapshot::open`] finds out which version each table has in the snapshot and opens it there with
//! deltalake, so that a query sees all tables at one epoch, however far they go on meanwhile. It only reads.

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
use crate::plan;
use crate::repr::{CodecError, Epoch};
use crate::sink::ledger::{self, Entry, Intent};
use crate::sink::states::is_state;
use crate::sink::{Lake, LakeError, LedgerError, LogError, history, log};

/// A query that could not be answered.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Nothing was ever committed there.
    #[error("the lake {0} holds no snapshot yet; start the dataflow with `alluvium run` and ask again")]
    Empty(String),
    /// The epoch is older than anything kept, or from the future.
    #[error("the lake holds no snapshot at or before epoch {wanted}; kept are {oldest} to {newest}")]
    NoSuchSnapshot {
        /// As asked.
        wanted: Epoch,
        /// The oldest kept.
        oldest: Epoch,
        /// The newest.
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
    /// A table's checkpoint does not read, which a run makes good.
    #[error(
        "could not read {file} of table {table}: {reason}; run the dataflow once: a run passes a damaged checkpoint over and writes a new one"
    )]
    Checkpoint {
        /// Which table.
        table: String,
        /// Below `_delta_log`.
        file: String,
        /// Why.
        reason: String,
    },
    /// The SQL names what is not there.
    #[error("there is no table {wanted}; known are {known}")]
    UnknownTable {
        /// As written.
        wanted: String,
        /// By commas.
        known: String,
    },
    /// See [`QuestionError`].
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The answer is longer than memory may hold.
    #[error(
        "could not hold the answer: its first {rows} rows take more than {limit}; ask for fewer rows or columns (a LIMIT, a GROUP BY), or allow more with --memory"
    )]
    TooMuch {
        /// How many rows were there by then.
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
        /// What took it.
        #[source]
        source: Box<DataFusionError>,
    },
    /// Its time is over.
    #[error("could not answer the query within {limit}; ask for less, or allow more with --timeout")]
    TooLong {
        /// The limit, for people.
        limit: String,
    },
    /// A kernel panicked.
    #[error("could not run the query: {0}")]
    Panicked(String),
    /// The SQL is wrong, or failed.
    #[error("could not run the query")]
    Sql(#[source] Box<DataFusionError>),
    /// The rows have no such form.
    #[error("could not print the rows")]
    Output(#[from] ArrowError),
    /// Rows are not what the table's schema says.
    #[error("could not take the rows")]
    Rows(#[from] CodecError),
    /// See [`LedgerError`].
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lake's address.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// No threads to read with.
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
pub struct Snapshot {
    epoch: Epoch,
    versions: BTreeMap<String, i64>,
    context: SessionContext,
    limits: QuestionLimits,
}

impl Snapshot {
    /// The newest snapshot that is applied in full, or the newest at or before `epoch`.
    pub async fn open(lake: &Lake, epoch: Option<Epoch>) -> Result<Snapshot, QueryError> {
        Snapshot::open_tables(lake, epoch, |_| true).await
    }

    /// The same, of these tables alone.
    pub async fn open_tables(
        lake: &Lake,
        epoch: Option<Epoch>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Snapshot, QueryError> {
        Snapshot::open_within(lake, epoch, wanted, QuestionLimits::default()).await
    }

    /// The same, for questions within limits. That of time is the caller's to keep: a computation is given up from outside.
    pub async fn open_within(
        lake: &Lake,
        epoch: Option<Epoch>,
        wanted: impl Fn(&str) -> bool,
        limits: QuestionLimits,
    ) -> Result<Snapshot, QueryError> {
        let (epoch, mut versions) = find(lake, epoch).await?;
        versions.retain(|table, _| !is_state(table) && wanted(table));
        let context = context(&limits)?;
        for (table, version) in &versions {
            register(&context, lake, table, *version, epoch).await?;
        }
        Ok(Snapshot {
            epoch,
            versions,
            context,
            limits,
        })
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Every table's version, by name.
    pub fn versions(&self) -> &BTreeMap<String, i64> {
        &self.versions
    }

    /// The session its tables are registered in, for more than one query or other tables besides.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Whether the snapshot holds this table, named as in SQL.
    pub fn has(&self, table: &str) -> bool {
        self.versions.contains_key(table)
    }

    /// All rows of a table, named as in SQL.
    pub async fn rows(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        self.query(&format!("SELECT * FROM \"{schema}\".\"{name}\"")).await
    }

    /// The same, as they are read.
    pub async fn stream(&self, table: &str) -> Result<SendableRecordBatchStream, QueryError> {
        Ok(self.table(table).await?.execute_stream().await?)
    }

    /// The columns of a table.
    pub async fn schema(&self, table: &str) -> Result<SchemaRef, QueryError> {
        Ok(self.table(table).await?.schema().inner().clone())
    }

    async fn table(&self, table: &str) -> Result<DataFrame, QueryError> {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        Ok(self.context.table(TableReference::partial(schema, name)).await?)
    }

    /// Runs one statement that only reads, and gathers its rows.
    pub async fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let plan = question::plan(&self.context, sql).await.map_err(|e| self.explain(e))?;
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

    /// DataFusion says which table it lacks, but not which there are.
    fn explain(&self, error: DataFusionError) -> QueryError {
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
            None => error.into(),
        }
    }
}

/// The epochs of all snapshots that the ledger names and whose commits all exist, ascending.
pub async fn epochs(lake: &Lake) -> Result<Vec<Epoch>, QueryError> {
    let mut epochs = Vec::new();
    for seq in ledger::list(lake).await? {
        if let Some(Entry::Intent(intent)) = ledger::read(lake, seq).await?
            && resolve(lake, &intent).await?.is_some()
        {
            epochs.push(intent.epoch);
        }
    }
    Ok(epochs)
}

/// A session like the one tables are planned in: unquoted names are lower case, JSON functions are known.
fn context(limits: &QuestionLimits) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_information_schema(true);
    plan::read_decimals(&mut config);
    config.options_mut().execution.time_zone = Some("UTC".to_string());
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(memory) = limits.memory {
        runtime = runtime.with_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX), 1.0);
    }
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
    let mut context = plan::exact_numbers(&context);
    datafusion_functions_json::register_all(&mut context).expect("a new session takes functions");
    plan::register_calendar(&context);
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
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    let failed = |source| QueryError::Table {
        table: table.to_string(),
        version,
        epoch,
        source: Box::new(source),
    };
    let mut handle = lake.delta_table(&folder(table));
    if let Err(source) = handle.load_version(version as u64).await {
        let damaged = log::load(lake, &folder(table), Some(version)).await?;
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

/// Where a table is below the lake: its name with slashes.
fn folder(table: &str) -> String {
    table.replacen('.', "/", 1)
}

/// Which snapshot, and every table's version in it.
async fn find(lake: &Lake, wanted: Option<Epoch>) -> Result<(Epoch, BTreeMap<String, i64>), QueryError> {
    let mut oldest: Option<Epoch> = None;
    let mut newest: Option<Epoch> = None;
    for seq in ledger::list(lake).await?.into_iter().rev() {
        // An entry that vanishes now is cleaned up, and so are those before it.
        let Some(entry) = ledger::read(lake, seq).await? else {
            break;
        };
        let Entry::Intent(intent) = entry else { continue };
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
            let found = recorded(lake, wanted).await?;
            found.ok_or(QueryError::NoSuchSnapshot { wanted, oldest, newest })
        }
        None => Err(QueryError::Empty(lake.root.to_string())),
    }
}

/// Every table's version behind an intent; none if it is not applied in full.
async fn resolve(lake: &Lake, intent: &Intent) -> Result<Option<BTreeMap<String, i64>>, QueryError> {
    let mut versions = intent.versions.clone();
    for change in &intent.tables {
        let mut version = versions.get(&change.table).copied().unwrap_or(-1);
        for commit in &change.commits {
            loop {
                version += 1;
                match log::read(lake, &change.path, version).await? {
                    None => return Ok(None),
                    Some(actions) if log::is_ours(&actions, &commit.app_id, intent.epoch as i64) => break,
                    Some(_) => {} // An append of another writer that was passed by.
                }
            }
        }
        versions.insert(change.table.clone(), version);
    }
    Ok(Some(versions))
}

/// What the table of snapshots knows of epochs that the ledger has forgotten.
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
    let mut found: Option<(Epoch, BTreeMap<String, i64>)> = None;
    for batch in context.sql(&sql).await?.collect().await? {
        let tables = arrow::compute::cast(batch.column(1), &DataType::Utf8)?;
        let epochs = batch.column(0).as_primitive::<Int64Type>();
        let tables = tables.as_string::<i32>();
        let versions = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let (_, all) = found.get_or_insert_with(|| (epochs.value(row) as Epoch, BTreeMap::new()));
            all.insert(tables.value(row).to_string(), versions.value(row));
        }
    }
    Ok(found)
}
