//! Shows whether a run is on a lake, by a lock on one of its files, if the lake is on a local disk.
//!
//! A run holds a shared lock from start to end; the operating system releases it with the process, however that ends.
//! So if an exclusive lock can be had, no run is on the lake. A store behind a URL has no locks; there one can only
//! put a request and wait for an answer. Correctness does not depend on this lock: the ledger decides between two runs
//! on one lake.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::lake::Lake;

const FILE: &str = "_alluvium/running.lock";

/// The lock of a run, held until it is dropped.
pub struct RunPresence {
    _lock: Option<File>,
}

impl RunPresence {
    /// Like [`RunPresence::announce`], for a run of one process. Warns if another run is on the lake, which then fails
    /// at its next commit.
    pub fn announce_single(lake: &Lake) -> RunPresence {
        if is_running(lake) == Some(true) {
            tracing::warn!(
                "another run is on this lake: this one takes over, and the other ends with an error at its next commit; where both \
                 start again and again they take turns, so stop one of them"
            );
        }
        RunPresence::announce(lake)
    }

    /// Takes the lock. If that fails, the run goes on without it.
    pub fn announce(lake: &Lake) -> RunPresence {
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
        RunPresence { _lock: lock }
    }
}

/// Whether a run is on the lake; `None` if that cannot be known.
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
    // Opened for reading, because a disk with files open for writing cannot be remounted read-only.
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
        let (one, two) = (RunPresence::announce(&lake), RunPresence::announce(&lake));
        assert_eq!(is_running(&lake), Some(true));
        drop(one);
        assert_eq!(is_running(&lake), Some(true));
        drop(two);
        assert_eq!(is_running(&lake), Some(false));
    }
}
