//! Counts the bytes that a process has taken and that no snapshot holds yet. Writers keep them in memory, as rows and
//! as Bronze, so they have to be bounded however long the commit interval is.
//!
//! 1. Once a limit of bytes waits for a snapshot, one is sealed before its time.
//! 2. While twice as many bytes wait for their commit, workers take nothing more, except for deliveries that an open
//!    epoch needs before it can close.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::repr::Epoch;

/// The limit (1) in bytes where the definition has no `memory_limit`, and the greatest.
const USUAL: u64 = 256 << 20;
/// The smallest limit (1) in bytes: the cost of a snapshot would outweigh the saving.
const LEAST: u64 = 16 << 20;
/// The limit (1) is `memory_limit` divided by this: a row stands in several tables, and once more while it is encoded.
const SHARE: u64 = 16;

/// See the module's header.
#[derive(Debug)]
pub struct Weight {
    early: u64,
    state: Mutex<State>,
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that were taken at each epoch and are not committed.
    taken: BTreeMap<Epoch, u64>,
    sealed: Epoch,
}

impl Weight {
    /// For a process with this `memory_limit` in bytes.
    pub fn of_limit(memory_limit: Option<u64>) -> Weight {
        Weight {
            early: memory_limit.map_or(USUAL, |limit| (limit / SHARE).clamp(LEAST, USUAL)),
            state: Mutex::default(),
            full: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, state: &State) {
        let all: u64 = state.taken.values().sum();
        self.full.store(all >= 2 * self.early, Ordering::Release);
    }

    /// Takes note of bytes that were taken at an epoch.
    pub fn observe_taken(&self, epoch: Epoch, bytes: u64) {
        if bytes > 0 {
            let mut state = self.state();
            *state.taken.entry(epoch).or_default() += bytes;
            self.judge(&state);
        }
    }

    /// Takes note that a snapshot is sealed at an epoch.
    pub fn observe_sealed(&self, epoch: Epoch) {
        self.state().sealed = epoch;
    }

    /// Takes note that the snapshot at an epoch is committed. Returns whether workers may take again after a pause.
    pub fn observe_committed(&self, epoch: Epoch) -> bool {
        let mut state = self.state();
        state.taken = state.taken.split_off(&(epoch + 1));
        let was_full = self.is_full();
        self.judge(&state);
        was_full && !self.is_full()
    }

    /// Whether a snapshot is due by (1).
    pub fn is_due(&self) -> bool {
        let state = self.state();
        let waiting: u64 = state.taken.range(state.sealed + 1..).map(|(_, bytes)| bytes).sum();
        waiting >= self.early
    }

    /// Whether workers may take nothing more by (2).
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_that_waits_is_sealed_early_and_what_is_twice_as_much_holds_workers() {
        let weight = Weight::of_limit(Some(512 << 20));
        weight.observe_taken(10, 20 << 20);
        assert!(!weight.is_due());
        weight.observe_taken(11, 12 << 20);
        assert!(weight.is_due() && !weight.is_full());
        weight.observe_sealed(11);
        assert!(!weight.is_due(), "what is sealed waits for no snapshot");
        weight.observe_taken(12, 32 << 20);
        assert!(weight.is_due() && weight.is_full());
        assert!(weight.observe_committed(11));
        assert!(weight.is_due() && !weight.is_full());
        assert!(!weight.observe_committed(12) && !weight.is_due());
    }
}
