//! Reads how far feeds had been read as of a snapshot, without being the lake's committer.

use crate::lake::Lake;
use crate::repr::{Epoch, FeedPositions};
use crate::sink::LedgerError;
use crate::sink::ledger::{self, LedgerEntry};

/// The progress as of the newest intent, or as of the newest one at or before `epoch`. Empty if there is none.
pub async fn progress(lake: &Lake, epoch: Option<Epoch>) -> Result<FeedPositions, LedgerError> {
    let mut newest_first = Vec::new();
    for seq in ledger::list(lake).await?.into_iter().rev() {
        // An entry that vanishes while we read was cleaned up: then an entry with full progress comes after it, and
        // has been read already.
        let Some(entry) = ledger::read(lake, seq).await? else {
            break;
        };
        let LedgerEntry::Intent(intent) = entry else { continue };
        if epoch.is_some_and(|epoch| intent.epoch > epoch) {
            continue;
        }
        newest_first.push(intent.progress);
        if intent.full {
            break;
        }
    }
    let mut progress = FeedPositions::new();
    for moved in newest_first.into_iter().rev() {
        progress.extend(moved);
    }
    Ok(progress)
}
