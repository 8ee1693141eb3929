//! How a lake is kept: what its tables, its ledger and its maintenance have in common.

use std::time::Duration;

/// Limits and intervals that hold for all tables of a lake.
#[derive(Clone, Copy, Debug)]
pub struct LakePolicy {
    /// How long files and log entries are kept that the newest snapshot does not need: it limits how far back readers
    /// can travel.
    pub retention: Duration,
    /// Whether other writers are kept out of the tables.
    pub guard: bool,
    /// Commits of a table between its checkpoints.
    pub checkpoint_every: u64,
    /// The least time between checkpoints of a table: at a commit every 25 ms, counting alone would checkpoint all the
    /// time.
    pub checkpoint_pause: Duration,
    /// The least number of ledger entries to keep.
    pub ledger_keep: u64,
    /// Number of intents from one with the progress of every partition to the next.
    pub full_progress_every: u64,
    /// The time between two ticks of maintenance.
    pub maintenance_tick: Duration,
}

impl Default for LakePolicy {
    fn default() -> Self {
        LakePolicy {
            retention: Duration::from_secs(24 * 3600),
            guard: false,
            checkpoint_every: 100,
            checkpoint_pause: Duration::from_secs(30),
            ledger_keep: 1000,
            full_progress_every: 100,
            maintenance_tick: Duration::from_secs(1),
        }
    }
}
