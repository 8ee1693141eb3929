//! Creates the tables of a sink or evolves them to their definitions, and reads their state.

use bytes::Bytes;
use serde_json::json;

use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;

use super::CommitError;
use super::action::{self, Action, engine_info};
use super::checkpoint;
use super::live::Live;
use super::log::{self, CommitEntry, LoadedTable};
use super::planned::Redefinition;
use super::policy::LakePolicy;
use super::schema::{self, Evolution};
use crate::lake::{Lake, Put, file_location};
use crate::sink::{AddFile, DepartingRows, TableSpec};

/// What the creation of a table needs to know.
#[derive(Clone, Copy)]
pub struct TableCreation<'a> {
    /// The application id of the transactions.
    pub app_id: &'a str,
    /// The committer's generation.
    pub generation: u64,
    /// The settings that all tables share.
    pub policy: LakePolicy,
    /// Unix milliseconds.
    pub now: i64,
}

/// Creates the table, or evolves it to its definition, and then reads it. If the definition can only change together
/// with rows, the second value says what the entry with these rows must contain.
pub async fn ensure(
    lake: &Lake,
    spec: &TableSpec,
    making: TableCreation<'_>,
) -> Result<(LoadedTable, Option<Redefinition>), CommitError> {
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
        actions.extend(schema::creation(spec, making.policy, making.now)?);
        let bytes = Bytes::from(action::to_lines(&actions));
        let put = lake.put_new(&log::entry_path(&spec.path, 0), bytes).await;
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
    checkpoint::mend(lake, &spec.path, &mut loaded).await?;
    let stored = (&loaded.protocol, &loaded.meta_data);
    let mut actions = match schema::evolution(spec, stored, loaded.files.is_empty(), making.policy)? {
        Evolution::Now(actions) if actions.is_empty() => return Ok((loaded, None)),
        Evolution::Now(actions) => actions,
        Evolution::Grow(actions) => {
            let replaces = false;
            return Ok((loaded, Some(Redefinition { actions, replaces })));
        }
        Evolution::Rebuild {
            mut actions,
            reason,
            showable,
        } => {
            tracing::info!(table = spec.name, %reason, "rebuilding the table with the next snapshot");
            if spec.change_data_feed && showable {
                actions.extend(departing(lake, spec, loaded.version, making).await?);
            }
            let replaces = true;
            return Ok((loaded, Some(Redefinition { actions, replaces })));
        }
    };
    actions.splice(0..0, [info("SET TBLPROPERTIES"), txn]);
    let bytes = Bytes::from(action::to_lines(&actions));
    let entry = CommitEntry {
        app_id: &definition,
        epoch: making.generation as i64,
        bytes,
    };
    let version = log::apply(lake, &spec.path, loaded.version, &entry).await?;
    tracing::info!(table = spec.name, version, "changed the table's definition");
    let reloaded = log::load(lake, &spec.path, None).await?;
    Ok((reloaded.expect("a table that was there a moment ago loads"), None))
}

/// Counts a file's rows if its statistics lack them: not every engine that rewrites files records the count, and
/// without it the file could not be removed as a whole. A file that cannot be read is reported later, when its rows
/// are needed.
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
    let bytes = lake.get(&location).await;
    let bytes = bytes.map_err(|e| log::store_error(&spec.path, format!("read {}", live.add.path), e))?;
    let rows = bytes.and_then(|bytes| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
        Some(reader.metadata().file_metadata().num_rows() as u64)
    });
    Ok(match rows {
        Some(rows) => Live::counted(live.add, live.deleted, rows),
        None => live,
    })
}

/// The most rows of a change data file for departing rows.
const DEPARTING: usize = 1 << 17;

/// Writes the rows of a table as of a version into its change data feed, as deletions in the form of its new
/// definition. Returns the actions for the entry that removes them. If no entry ever refers to these files, the sweep
/// deletes them.
async fn departing(
    lake: &Lake,
    spec: &TableSpec,
    version: i64,
    making: TableCreation<'_>,
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
    let departing = DepartingRows::new(spec.clone(), making.generation).map_err(|e| failed(e.into()))?;
    let mut actions = Vec::new();
    while let Some(batch) = rows.try_next().await.map_err(|e| failed(e.into()))? {
        for (file, place, bytes) in departing.files(&batch).map_err(|e| failed(e.into()))? {
            let put = lake.put_new(&Path::from(place), bytes).await;
            put.map_err(|e| failed(e.into()))?;
            actions.push(Action::cdc(file));
        }
    }
    Ok(actions)
}
