//! What a lake holds, for whoever wants to know before anything happens: reads, fences nothing.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::ledger::{self, Entry};
use super::schema::{self, Evolution, Terms};
use super::{CommitError, TABLES, log, read_plan, state};
use crate::repr::Epoch;
use crate::sink::states::is_state;
use crate::sink::{Lake, TableSpec, is_ours};

/// A lake as of its newest snapshot.
#[derive(Debug, Default)]
pub struct Survey {
    /// The snapshot; none in a new lake.
    pub epoch: Option<Epoch>,
    /// What it was computed by, where that was kept.
    pub plan: Option<Bytes>,
    /// Of each table of the sink: what there is; none of a new one.
    pub tables: Vec<Option<Found>>,
    /// Tables of the snapshot that the sink does not have.
    pub gone: Vec<String>,
}

/// A table that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why the next snapshot replaces all of its rows, if it does.
    pub replaced: Option<String>,
    /// As in [`super::Restored::altered`].
    pub altered: bool,
}

/// Looks at a lake with the eyes of these tables.
///
/// # Errors
/// A ledger or log that cannot be read.
pub async fn survey(lake: &Lake, specs: &[TableSpec], history: Duration) -> Result<Survey, CommitError> {
    let mut newest = None;
    for seq in ledger::list(lake).await?.into_iter().rev() {
        if let Some(Entry::Intent(intent)) = ledger::read(lake, seq).await? {
            newest = Some(intent);
            break;
        }
    }
    let Some(intent) = newest else {
        return Ok(Survey {
            tables: vec![None; specs.len()],
            ..Survey::default()
        });
    };
    let base = |spec: &TableSpec| intent.versions.get(&spec.name).copied().unwrap_or(-1);
    let tables = stream::iter(specs)
        .map(|spec| found(lake, spec, base(spec), history))
        .buffered(TABLES);
    let known = |table: &&String| is_state(table) || specs.iter().any(|spec| spec.name == **table);
    Ok(Survey {
        epoch: Some(intent.epoch),
        plan: read_plan(lake, &intent.plan).await?,
        tables: tables.try_collect().await?,
        gone: intent.versions.keys().filter(|table| !known(table)).cloned().collect(),
    })
}

async fn found(lake: &Lake, spec: &TableSpec, base: i64, history: Duration) -> Result<Option<Found>, CommitError> {
    let Some(loaded) = log::load(lake, &spec.path, None).await? else {
        return Ok(None);
    };
    let stored = (&loaded.protocol, &loaded.meta_data);
    // Whether others are kept out changes no rows.
    let terms = Terms {
        retention: history,
        guard: false,
    };
    let evolution = schema::evolution(spec, stored, loaded.files.is_empty(), terms)?;
    let rows = loaded.files.values().map(|add| {
        let gone = add
            .deletion_vector
            .as_ref()
            .map_or(0, |vector| vector.cardinality.max(0) as u64);
        let rows = add.stats.as_deref().and_then(state::physical_rows).unwrap_or(0);
        rows.saturating_sub(gone)
    });
    let foreign = loaded.files.keys().any(|file| !is_ours(file));
    Ok(Some(Found {
        altered: foreign || loaded.version < base || matches!(evolution, Evolution::Rebuild { .. }),
        rows: rows.sum(),
        bytes: loaded.files.values().map(|add| add.size).sum(),
        replaced: match evolution {
            Evolution::Rebuild { reason, .. } => Some(reason.to_string()),
            Evolution::Now(_) | Evolution::Grow(_) => None,
        },
    }))
}
