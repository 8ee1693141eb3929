//! Which records a run passes by: those that it is asked to, and those that the lake's dead letters name as skipped.

use tokio::runtime::Handle;

use super::open;
use crate::backfill;
use crate::decode::skip::Skip;
use crate::run::RunError;
use crate::serve::{QueryError, history};
use crate::sink::{Lake, Restored};
use crate::source::{PartitionId, Progress};

/// All of them; and whether one that is asked for was taken already, so that what the lake keeps of the graph has what it did.
/// A stretch of records counts as not skipped yet: which of its offsets are records is not known here.
pub fn skips(
    lake: &Lake,
    runtime: &Handle,
    restored: &Restored,
    asked: &[Skip],
) -> Result<(Vec<Skip>, bool), RunError> {
    let Some(epoch) = restored.epoch else {
        return Ok((asked.to_vec(), false));
    };
    let mut skips = runtime.block_on(async {
        let snapshot = open(lake, epoch, |_| false).await?;
        let skipped = history::skipped(snapshot.context(), None).await;
        Ok::<_, RunError>(skipped.map_err(QueryError::from)?)
    })?;
    let is_new = |skip: &&Skip| is_taken(&restored.progress, skip) && !skips.contains(skip);
    let has_new = asked.iter().any(|skip| is_new(&skip));
    skips.extend_from_slice(asked);
    Ok((skips, has_new))
}

/// Whether the first of these records lies in what feeds or requests have brought already.
fn is_taken(progress: &Progress, skip: &Skip) -> bool {
    // What a request brings from files has progress of its own, whatever the feed.
    let (feed, partition) = match skip.partition.strip_prefix("backfill:") {
        Some(file) => (backfill::FEED, file),
        None => (skip.feed.as_str(), skip.partition.as_str()),
    };
    let id = PartitionId {
        input: skip.input.clone(),
        feed: feed.to_string(),
        partition: partition.to_string(),
    };
    progress
        .get(&id)
        .is_some_and(|position| position.next > *skip.offsets.start())
}
