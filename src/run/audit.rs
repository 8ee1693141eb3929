//! What the audit of a restart found: rows by which stored tables differed from what was recomputed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Wiring;
use crate::sink::WriterStats;

/// Asks the writers, which compare and correct.
pub struct Audit {
    pub wiring: Arc<Wiring>,
    pub writers: Vec<Arc<WriterStats>>,
}

impl Audit {
    /// Rows corrected by table, tables without a difference left out. Complete once the first snapshot is committed.
    pub fn corrections(&self) -> Vec<(String, u64)> {
        let by_table = self.wiring.specs.iter().enumerate().map(|(table, spec)| {
            let corrected = self
                .writers
                .iter()
                .map(|writer| writer.tables[table].corrections.load(Ordering::Acquire));
            (spec.name.clone(), corrected.sum())
        });
        by_table.filter(|(_, rows)| *rows > 0).collect()
    }
}
