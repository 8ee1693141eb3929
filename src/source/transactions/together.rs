//! Deliveries that must go into one epoch.
//!
//! Before a coordinator hands them over, it asks for the epoch, which then stays open until workers have taken all of
//! them. The run opens epochs under the same lock, so that none opens in between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::repr::Epoch;

/// Counts the deliveries on their way to workers that must go into the open epoch.
#[derive(Debug, Default)]
pub struct OpenEpochDeliveries {
    waiting: Mutex<usize>,
    /// The number of transactions that are being streamed.
    streamed: AtomicUsize,
}

/// Returns the open epoch; none while workers take nothing from feeds.
pub type OpenEpoch = Arc<dyn Fn() -> Option<Epoch> + Send + Sync>;

/// How many records one coordinator gives to an epoch, not counting the rest of a transaction that began in it.
pub const EPOCH_ROWS: u64 = 64 * 1024;

/// What one coordinator has given to the newest epoch. It gives no more than [`EPOCH_ROWS`], because otherwise an
/// epoch could not close for as long as a source is ahead of the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochShare {
    epoch: Epoch,
    records: u64,
}

impl EpochShare {
    /// A function that returns the open epoch as long as it may be given more.
    pub fn roomy(self, open: &OpenEpoch) -> OpenEpoch {
        let open = open.clone();
        Arc::new(move || open().filter(|epoch| *epoch != self.epoch || self.records < EPOCH_ROWS))
    }

    pub fn observe(&mut self, epoch: Epoch, records: u64) {
        if self.epoch != epoch {
            *self = EpochShare { epoch, records: 0 };
        }
        self.records += records;
    }
}

impl OpenEpochDeliveries {
    fn waiting(&self) -> std::sync::MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces deliveries; returns the epoch, which stays open until they are taken. None: workers take nothing
    /// now.
    pub fn begin(&self, deliveries: usize, open: &OpenEpoch) -> Option<Epoch> {
        let mut waiting = self.waiting();
        let epoch = open()?;
        *waiting += deliveries;
        Some(epoch)
    }

    /// Announces more deliveries for the open epoch, which an earlier one that was not taken yet keeps open.
    pub fn add(&self, deliveries: usize) {
        *self.waiting() += deliveries;
    }

    /// Records that a streamed transaction begins or ends. It counts as one delivery, and a run that ends meanwhile
    /// fails.
    pub fn observe_held(&self, begins: bool) {
        match begins {
            true => self.streamed.fetch_add(1, Ordering::AcqRel),
            false => self.streamed.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Whether a transaction is being streamed.
    pub fn is_held(&self) -> bool {
        self.streamed.load(Ordering::Acquire) > 0
    }

    /// Records that a delivery was taken, or will never be.
    pub fn end_one(&self) {
        let mut waiting = self.waiting();
        *waiting = waiting.saturating_sub(1);
    }

    /// Whether a delivery is on its way.
    pub fn waits(&self) -> bool {
        *self.waiting() > 0
    }

    /// Opens an epoch, unless a delivery is on its way into the open one.
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
        let open_epoch: OpenEpoch = {
            let open = open.clone();
            Arc::new(move || Some(open.load(Ordering::Acquire)).filter(|epoch| *epoch > 0))
        };
        let together = OpenEpochDeliveries::default();
        assert_eq!(together.begin(2, &open_epoch), None);
        assert!(!together.waits());
        let next = || together.unless_waiting(|| open.fetch_add(1, Ordering::AcqRel) + 1);
        assert_eq!(next(), Some(1));
        assert_eq!(together.begin(2, &open_epoch), Some(1));
        assert_eq!(next(), None);
        together.end_one();
        assert_eq!(next(), None);
        together.end_one();
        assert_eq!(next(), Some(2));
    }
}
