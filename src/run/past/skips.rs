//! Finds the records that a run skips: those that its options name, and those that dead letters mark as skipped.

use tokio::runtime::Handle;

use super::open;
use crate::backfill;
use crate::decode::skip::Skip;
use crate::lake::Lake;
use crate::repr::{FeedPositions, PartitionId};
use crate::run::RunError;
use crate::serve::{QueryError, history};
use crate::sink::Restored;

/// Returns all records to skip, and whether one of `asked` was taken by an earlier run, so that the lake's state
/// contains its effect. A range counts as not skipped before unless the same range was, because it is not known which
/// of its offsets are records.
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

/// Whether feeds or requests have already brought the first of these records.
fn is_taken(progress: &FeedPositions, skip: &Skip) -> bool {
    // Requests keep the progress of files under a feed of their own.
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
