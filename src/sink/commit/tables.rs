//! Makes the tables of a sink exist as their definitions want them, and reads them as they are.

use bytes::Bytes;
use serde_json::json;

use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;

use super::CommitError;
use super::action::{self, Action};
use super::checkpoint;
use super::log::{self, Entry, Loaded};
use super::schema::{self, Evolution, Terms};
use super::state::{Live, Redefinition, engine_info};
use crate::sink::lake::{Lake, Put, file_location};
use crate::sink::{AddFile, Departing, TableSpec};

/// What making a table takes.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// Whose transactions.
    pub app_id: &'a str,
    /// The committer's generation.
    pub generation: u64,
    /// Whether log entries are synced.
    pub durable: bool,
    /// What all tables have in common.
    pub terms: Terms,
    /// Unix milliseconds.
    pub now: i64,
}

/// Creates the table, or brings its definition up to date; then reads it. Where rows have to come with the definition, also
/// what the entry in which they come must say.
pub async fn ensure(
    lake: &Lake,
    spec: &TableSpec,
    making: Making<'_>,
) -> Result<(Loaded, Option<Redefinition>), CommitError> {
    let definition = format!("{}:definition", making.app_id);
    let info = |operation: &str| {
        Action::commit_info(json!({
            "timestamp": making.now, "operation": operation, "operationParameters": {},
            "engineInfo": engine_info(), "generation": making.generation,
        }))
    };
    let txn = Action::txn(&definition, making.generation as i64, making.now);
    let mut loaded = log::load(lake, &spec.path, None).await?;
    if loaded.is_none() {
        let mut actions = vec![info("CREATE TABLE")];
        actions.extend(schema::creation(spec, making.terms, making.now)?);
        let bytes = Bytes::from(action::to_lines(&actions));
        let put = lake
            .put_new(&log::entry_path(&spec.path, 0), bytes, making.durable)
            .await;
        let put = put.map_err(|source| CommitError::Write {
            what: "the first log entry".into(),
            table: spec.name.clone(),
            source,
        })?;
        if put == Put::Written {
            tracing::info!(table = spec.name, "created table");
        }
        loaded = log::load(lake, &spec.path, None).await?;
    }
    let mut loaded = loaded.expect("a table whose first entry is there loads");
    checkpoint::mend(lake, &spec.path, &mut loaded, making.durable).await?;
    let stored = (&loaded.protocol, &loaded.meta_data);
    let mut actions = match schema::evolution(spec, stored, loaded.files.is_empty(), making.terms)? {
        Evolution::Now(actions) if actions.is_empty() => return Ok((loaded, None)),
        Evolution::Now(actions) => actions,
        Evolution::Grow(actions) => {
            let replaces = false;
            return Ok((loaded, Some(Redefinition { actions, replaces })));
        }
        Evolution::Rebuild {
            mut actions,
            reason,
            told,
        } => {
            tracing::info!(table = spec.name, %reason, "rebuilding the table with the next snapshot");
            if spec.change_data_feed && told {
                actions.extend(departing(lake, spec, loaded.version, making).await?);
            }
            let replaces = true;
            return Ok((loaded, Some(Redefinition { actions, replaces })));
        }
    };
    actions.splice(0..0, [info("SET TBLPROPERTIES"), txn]);
    let bytes = Bytes::from(action::to_lines(&actions));
    let entry = Entry {
        app_id: &definition,
        epoch: making.generation as i64,
        bytes,
    };
    let version = log::apply(lake, &spec.path, loaded.version, &entry, making.durable).await?;
    tracing::info!(table = spec.name, version, "changed the table's definition");
    let reloaded = log::load(lake, &spec.path, None).await?;
    Ok((reloaded.expect("a table that was there a moment ago loads"), None))
}

/// A file with its rows counted: not every engine that rewrites files says how many there are, and a file of which that is
/// not known could not go as a whole. One that does not read is told of when its rows are.
pub async fn counted(
    lake: &Lake,
    spec: &TableSpec,
    add: AddFile,
    deleted: RoaringTreemap,
) -> Result<Live, CommitError> {
    let live = Live::new(add, deleted);
    let location = match (live.rows(), file_location(&spec.path, &live.add.path)) {
        (None, Ok(location)) => location,
        _ => return Ok(live),
    };
    let found = lake.get(&location).await;
    let found = found.map_err(|e| log::store_error(&spec.path, format!("read {}", live.add.path), e))?;
    let rows = found.and_then(|bytes| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
        Some(reader.metadata().file_metadata().num_rows() as u64)
    });
    Ok(match rows {
        Some(rows) => Live::counted(live.add, live.deleted, rows),
        None => live,
    })
}

/// Rows of a change data file that tells of departing rows, at most.
const DEPARTING: usize = 1 << 17;

/// Writes the rows of a table as of a version into its change data feed, as deletions in the form they have by its new
/// definition. Says what the entry in which they go must hold. Files that no entry comes to name are swept.
async fn departing(
    lake: &Lake,
    spec: &TableSpec,
    version: i64,
    making: Making<'_>,
) -> Result<Vec<Action>, CommitError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| CommitError::Departing {
        table: spec.name.clone(),
        source,
    };
    let rows = async {
        let mut handle = lake.delta_table(&spec.path);
        handle.load_version(version as u64).await?;
        let context = SessionContext::new_with_config(SessionConfig::new().with_batch_size(DEPARTING));
        handle.update_datafusion_session(&context.state())?;
        let rows = context
            .read_table(handle.table_provider().await?)?
            .execute_stream()
            .await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(rows)
    };
    let mut rows = rows.await.map_err(failed)?;
    let departing = Departing::new(spec.clone(), making.generation).map_err(|e| failed(e.into()))?;
    let mut actions = Vec::new();
    while let Some(batch) = rows.try_next().await.map_err(|e| failed(e.into()))? {
        for (file, place, bytes) in departing.files(&batch).map_err(|e| failed(e.into()))? {
            let put = lake.put_new(&Path::from(place), bytes, making.durable).await;
            put.map_err(|e| failed(e.into()))?;
            actions.push(Action::cdc(file));
        }
    }
    Ok(actions)
}
