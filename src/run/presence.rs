//! Whether a run is on a lake: told by a lock on a file of it, on a local disk.
//!
//! A run holds a shared lock from start to end; the operating system takes it away with the process, however that ends.
//! So a lock that can be had alone means that nobody runs. A store behind a URL has no locks: there nobody knows but by
//! asking, that is by putting a request and waiting for an answer. Nothing relies on it for exactness: two runs on one lake
//! are told apart by the ledger.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::sink::Lake;

const FILE: &str = "_alluvium/running.lock";

/// The lock of a run.
pub struct Presence {
    _lock: Option<File>,
}

impl Presence {
    /// The same, of a run of one process, which warns where another run is on the lake: that one ends at its next commit.
    pub fn announce_single(lake: &Lake) -> Presence {
        if is_running(lake) == Some(true) {
            tracing::warn!(
                "another run is on this lake: this one takes over, and the other ends with an error at its next commit; where both \
                 start again and again they take turns, so stop one of them"
            );
        }
        Presence::announce(lake)
    }

    /// Says that a run is on the lake, for as long as this lives. Where that cannot be said, the run goes on without.
    pub fn announce(lake: &Lake) -> Presence {
        let locked = lake.local.as_deref().map(|folder| {
            let file = open(folder)?;
            file.lock_shared()?;
            Ok::<File, std::io::Error>(file)
        });
        let lock = match locked.transpose() {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(%error, "could not lock {FILE} of the lake; commands will not see that it is run");
                None
            }
        };
        Presence { _lock: lock }
    }
}

/// Whether a run is on the lake; none: that cannot be known.
pub fn is_running(lake: &Lake) -> Option<bool> {
    let folder = lake.local.as_deref()?;
    match open(folder).ok()?.try_lock() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

fn open(folder: &Path) -> std::io::Result<File> {
    let path = folder.join(FILE);
    // For reading: a disk whose files are open for writing cannot be made read-only.
    if let Ok(file) = File::open(&path) {
        return Ok(file);
    }
    std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
    File::options().create(true).append(true).open(&path)?;
    File::open(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_run_is_seen_for_as_long_as_it_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        assert_eq!(is_running(&lake), Some(false));
        let (one, two) = (Presence::announce(&lake), Presence::announce(&lake));
        assert_eq!(is_running(&lake), Some(true));
        drop(one);
        assert_eq!(is_running(&lake), Some(true));
        drop(two);
        assert_eq!(is_running(&lake), Some(false));
    }
}
