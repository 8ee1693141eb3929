//! Deliveries that belong into one epoch.
//!
//! Whoever hands them over asks for the epoch first; it stays open until workers have taken all of them. Whoever opens
//! epochs does so under the same lock, so that none opens in between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::repr::Epoch;

/// What is on its way to workers and belongs into the open epoch.
#[derive(Debug, Default)]
pub struct Together {
    waiting: Mutex<usize>,
    /// Transactions that go on as they come.
    held: AtomicUsize,
}

/// Answers the open epoch; none while workers take nothing from feeds.
pub type OpenEpoch = Arc<dyn Fn() -> Option<Epoch> + Send + Sync>;

/// Records that one epoch is given by one who hands over, beside those of a transaction that has begun in it.
pub const EPOCH_ROWS: u64 = 64 * 1024;

/// What one who hands over has given to the newest epoch. That one is given no more once it has its rows: else an epoch
/// could not close for as long as a source is ahead of the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    epoch: Epoch,
    records: u64,
}

impl Given {
    /// Answers the open epoch while it may be given more.
    pub fn roomy(self, open: &OpenEpoch) -> OpenEpoch {
        let open = open.clone();
        Arc::new(move || open().filter(|epoch| *epoch != self.epoch || self.records < EPOCH_ROWS))
    }

    pub fn observe(&mut self, epoch: Epoch, records: u64) {
        if self.epoch != epoch {
            *self = Given { epoch, records: 0 };
        }
        self.records += records;
    }
}

impl Together {
    fn waiting(&self) -> std::sync::MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many deliveries follow; answers the epoch that stays open until they are taken. None: nothing is taken now.
    pub fn begin(&self, deliveries: usize, open: &OpenEpoch) -> Option<Epoch> {
        let mut waiting = self.waiting();
        let epoch = open()?;
        *waiting += deliveries;
        Some(epoch)
    }

    /// So many more follow into the epoch that is open, which something that was not taken yet keeps open.
    pub fn add(&self, deliveries: usize) {
        *self.waiting() += deliveries;
    }

    /// A transaction goes on as it comes, from now on or no more: it is among what waits, and a run that ends now fails.
    pub fn observe_held(&self, begins: bool) {
        match begins {
            true => self.held.fetch_add(1, Ordering::AcqRel),
            false => self.held.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Whether some do.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    /// One of them was taken, or will never be.
    pub fn end_one(&self) {
        let mut waiting = self.waiting();
        *waiting = waiting.saturating_sub(1);
    }

    /// Whether something is on its way.
    pub fn waits(&self) -> bool {
        *self.waiting() > 0
    }

    /// Opens an epoch, unless something is on its way into the one that is open.
    pub fn unless_waiting<T>(&self, open: impl FnOnce() -> T) -> Option<T> {
        let waiting = self.waiting();
        (*waiting == 0).then(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn an_epoch_stays_open_until_all_that_belongs_into_it_is_taken() {
        let open = Arc::new(AtomicU64::new(0));
        let told: OpenEpoch = {
            let open = open.clone();
            Arc::new(move || Some(open.load(Ordering::Acquire)).filter(|epoch| *epoch > 0))
        };
        let together = Together::default();
        assert_eq!(together.begin(2, &told), None);
        assert!(!together.waits());
        let next = || together.unless_waiting(|| open.fetch_add(1, Ordering::AcqRel) + 1);
        assert_eq!(next(), Some(1));
        assert_eq!(together.begin(2, &told), Some(1));
        assert_eq!(next(), None);
        together.end_one();
        assert_eq!(next(), None);
        together.end_one();
        assert_eq!(next(), Some(2));
    }
}
