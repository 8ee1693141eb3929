//! The epochs of a run: which is open, which have closed at each worker, which is committed, and whether the past is
//! over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Epochs, RunExtent};
use crate::repr::Epoch;
use crate::source::OpenEpochDeliveries;

/// See the module's header. In process 0, a vector that is indexed by worker has one more element, at its end, for
/// each other process.
pub struct EpochBoard {
    /// The epochs at which the run begins.
    pub plan: Epochs,
    /// Rows of restored state that a worker takes into one epoch.
    pub load_rows: u64,
    /// The open epoch. Only the conductor writes it.
    pub open: AtomicU64,
    /// By worker: its frontier; every earlier epoch has closed there.
    pub frontiers: Vec<AtomicU64>,
    /// The newest epoch that rows were taken into since the conductor last looked.
    pub taken: AtomicU64,
    /// Whether some worker has taken as much into the open epoch as it may.
    pub full: AtomicBool,
    /// The newest snapshot that this run committed; 0 before the first.
    pub committed: AtomicU64,
    /// By worker: whether it has taken the whole past (from the start `true` without a past).
    pub replayed: Vec<AtomicBool>,
    /// Whether workers take what feeds bring. They do so only once the replayed past is sealed, because the audit must
    /// see the past alone.
    pub live: AtomicBool,
    /// Whether workers take nothing from feeds and requests, because the run is above its memory limit.
    pub paused: AtomicBool,
    /// Whether another process has taken so much that a snapshot is due.
    pub heavy: AtomicBool,
    /// Deliveries of source transactions that are on their way to workers and belong into the open epoch.
    pub together: Arc<OpenEpochDeliveries>,
    /// Whether the open epoch stays open until the past is over; see [`EpochBoard::hold`].
    held: Mutex<bool>,
}

impl EpochBoard {
    /// The board at the beginning of a run.
    pub fn new(extent: &RunExtent) -> EpochBoard {
        let everybody = extent.workers + extent.followers;
        EpochBoard {
            plan: extent.epochs,
            load_rows: extent.load_rows,
            open: AtomicU64::new(extent.epochs.first),
            frontiers: (0..everybody).map(|_| AtomicU64::new(0)).collect(),
            taken: AtomicU64::new(0),
            full: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            replayed: (0..everybody).map(|_| AtomicBool::new(!extent.replays)).collect(),
            live: AtomicBool::new(!extent.replays),
            paused: AtomicBool::new(false),
            heavy: AtomicBool::new(false),
            together: Arc::default(),
            held: Mutex::new(!extent.replays),
        }
    }

    /// The frontier over all workers: every earlier epoch has closed at each of them.
    pub fn frontier(&self) -> Epoch {
        let frontiers = self.frontiers.iter().map(|frontier| frontier.load(Ordering::Acquire));
        frontiers.min().unwrap_or(0)
    }

    /// Whether every worker has taken the whole past.
    pub fn is_past_over(&self) -> bool {
        self.replayed.iter().all(|replayed| replayed.load(Ordering::Acquire))
    }

    /// The open epoch, if workers take what feeds bring into it.
    pub fn live_epoch(&self) -> Option<Epoch> {
        let is_taken = self.live.load(Ordering::Acquire) && !self.paused.load(Ordering::Acquire);
        is_taken.then(|| self.open.load(Ordering::Acquire))
    }

    /// Keeps the open epoch open until the past is over. Records of the past are fed at one epoch, so that the
    /// versions of a key are ordered by their original arrivals.
    pub fn hold(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether the open epoch stays open until the past is over.
    pub fn is_held(&self) -> bool {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the epoch that `next` returns, unless the open one is held.
    pub fn open_unless_held(&self, next: impl FnOnce() -> Epoch) {
        let is_held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_held {
            self.open.store(next(), Ordering::Release);
        }
    }
}
