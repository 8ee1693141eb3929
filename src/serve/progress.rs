//! How far feeds were read as of a snapshot, for readers that are not the lake's committer.

use crate::repr::Epoch;
use crate::sink::ledger::{self, Entry};
use crate::sink::{Lake, LedgerError};
use crate::source::Progress;

/// The progress as of the newest intent, or the newest at or before `epoch`. Empty where there is none.
pub async fn progress(lake: &Lake, epoch: Option<Epoch>) -> Result<Progress, LedgerError> {
    let mut newest_first = Vec::new();
    for seq in ledger::list(lake).await?.into_iter().rev() {
        // An entry that vanishes now is cleaned up: then a full one follows it, which was met already.
        let Some(entry) = ledger::read(lake, seq).await? else {
            break;
        };
        let Entry::Intent(intent) = entry else { continue };
        if epoch.is_some_and(|epoch| intent.epoch > epoch) {
            continue;
        }
        newest_first.push(intent.progress);
        if intent.full {
            break;
        }
    }
    let mut progress = Progress::new();
    for moved in newest_first.into_iter().rev() {
        progress.extend(moved);
    }
    Ok(progress)
}
