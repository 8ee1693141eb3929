//! Reads what a lake holds before anything happens. It does not fence off running committers.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::ledger::{self, LedgerEntry};
use super::policy::LakePolicy;
use super::schema::{self, Evolution};
use super::{CommitError, TABLES, live, log, read_plan};
use crate::lake::Lake;
use crate::repr::Epoch;
use crate::sink::states::is_state;
use crate::sink::{TableSpec, is_named_by_us};

/// The content of a lake as of its newest snapshot.
#[derive(Debug, Default)]
pub struct LakeSurvey {
    /// The snapshot's epoch; none in a new lake.
    pub epoch: Option<Epoch>,
    /// The plan that computed the snapshot, if it was kept.
    pub plan: Option<Bytes>,
    /// For each table of the sink: what exists; none if the table is new.
    pub tables: Vec<Option<TableSurvey>>,
    /// Tables of the snapshot that are not in the sink any more.
    pub gone: Vec<String>,
}

/// An existing table.
#[derive(Clone, Debug)]
pub struct TableSurvey {
    /// Number of live rows.
    pub rows: u64,
    /// Bytes of the table's files.
    pub bytes: u64,
    /// Why the next snapshot replaces all of the table's rows, if it does.
    pub replaced: Option<String>,
    /// As in [`super::Restored::altered`].
    pub altered: bool,
}

/// Compares the tables of a lake with these specs.
///
/// # Errors
/// The ledger or a log cannot be read.
pub async fn survey(lake: &Lake, specs: &[TableSpec], history: Duration) -> Result<LakeSurvey, CommitError> {
    let mut newest = None;
    for seq in ledger::list(lake).await?.into_iter().rev() {
        if let Some(LedgerEntry::Intent(intent)) = ledger::read(lake, seq).await? {
            newest = Some(intent);
            break;
        }
    }
    let Some(intent) = newest else {
        return Ok(LakeSurvey {
            tables: vec![None; specs.len()],
            ..LakeSurvey::default()
        });
    };
    let base = |spec: &TableSpec| intent.versions.get(&spec.name).copied().unwrap_or(-1);
    let tables = stream::iter(specs)
        .map(|spec| survey_table(lake, spec, base(spec), history))
        .buffered(TABLES);
    let known = |table: &&String| is_state(table) || specs.iter().any(|spec| spec.name == **table);
    Ok(LakeSurvey {
        epoch: Some(intent.epoch),
        plan: read_plan(lake, &intent.plan).await?,
        tables: tables.try_collect().await?,
        gone: intent.versions.keys().filter(|table| !known(table)).cloned().collect(),
    })
}

async fn survey_table(
    lake: &Lake,
    spec: &TableSpec,
    base: i64,
    history: Duration,
) -> Result<Option<TableSurvey>, CommitError> {
    let Some(loaded) = log::load(lake, &spec.path, None).await? else {
        return Ok(None);
    };
    let stored = (&loaded.protocol, &loaded.meta_data);
    // The guard does not matter here: it changes no rows.
    let policy = LakePolicy {
        retention: history,
        ..LakePolicy::default()
    };
    let evolution = schema::evolution(spec, stored, loaded.files.is_empty(), policy)?;
    let rows = loaded.files.values().map(|add| {
        let deleted_rows = add
            .deletion_vector
            .as_ref()
            .map_or(0, |vector| vector.cardinality.max(0) as u64);
        let rows = add.stats.as_deref().and_then(live::physical_rows).unwrap_or(0);
        rows.saturating_sub(deleted_rows)
    });
    let foreign = loaded.files.keys().any(|file| !is_named_by_us(file));
    Ok(Some(TableSurvey {
        altered: foreign || loaded.version < base || matches!(evolution, Evolution::Rebuild { .. }),
        rows: rows.sum(),
        bytes: loaded.files.values().map(|add| add.size).sum(),
        replaced: match evolution {
            Evolution::Rebuild { reason, .. } => Some(reason.to_string()),
            Evolution::Now(_) | Evolution::Grow(_) => None,
        },
    }))
}
