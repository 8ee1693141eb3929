//! Counters of a run, for reports to people.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Counters of one input.
#[derive(Default)]
pub struct InputCounters {
    /// Records taken from feeds.
    pub records: AtomicU64,
    /// Records replayed from the past.
    pub replayed: AtomicU64,
    /// Rows of the input's state that were loaded.
    pub loaded: AtomicU64,
    /// How many of `records` became dead letters.
    pub rejected: AtomicU64,
    /// Files of feeds that became dead letters, either whole or from the place where reading failed.
    pub rejected_files: AtomicU64,
    /// Records that backfills, replays and repairs fed.
    pub backfilled: AtomicU64,
}

/// Counters of a run.
pub struct RunCounters {
    /// The counters of each input.
    pub inputs: Vec<InputCounters>,
    /// Rows of restored state that workers have taken.
    pub loaded: AtomicU64,
    /// Records that were skipped.
    pub skipped: AtomicU64,
    /// How long each step of the start took, over a lake with a past.
    phases: Mutex<Vec<(&'static str, Duration)>>,
    /// How many records had fields that no column takes, by input and name of the field.
    ignored: Mutex<BTreeMap<(usize, String), u64>>,
}

impl RunCounters {
    /// All counters at zero, for this number of inputs.
    pub fn new(inputs: usize) -> RunCounters {
        RunCounters {
            inputs: (0..inputs).map(|_| InputCounters::default()).collect(),
            loaded: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            phases: Mutex::default(),
            ignored: Mutex::default(),
        }
    }

    /// Counts records of an input with fields that no column takes.
    pub fn observe_ignored(&self, input: usize, fields: &[(String, u64)]) {
        if fields.is_empty() {
            return;
        }
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, records) in fields {
            *ignored.entry((input, name.clone())).or_default() += records;
        }
    }

    /// How many records had fields that no column takes, by input and name of the field.
    pub fn ignored(&self) -> BTreeMap<(usize, String), u64> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note that a step of the start is over.
    pub fn observe_phase(&self, phase: &'static str, took: Duration) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.push((phase, took));
    }

    /// How long each step of the start took, over a lake with a past.
    pub fn phases(&self) -> Vec<(&'static str, Duration)> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
