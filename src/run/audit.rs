//! What the audit of a restart found: rows by which stored tables differed from what was recomputed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Wiring;
use super::shared::Shared;
use crate::sink::WriterStats;
use crate::sink::states::is_state;

/// Asks the writers, which compare and correct.
pub struct Audit {
    wiring: Arc<Wiring>,
    writers: Vec<Arc<WriterStats>>,
    shared: Arc<Shared>,
    /// When the past had been handed over.
    handed_over: Option<Instant>,
}

impl Audit {
    pub fn new(wiring: Arc<Wiring>, writers: Vec<Arc<WriterStats>>, shared: Arc<Shared>) -> Audit {
        Audit {
            wiring,
            writers,
            shared,
            handed_over: None,
        }
    }

    /// All of the past is in the graph.
    pub fn observe_handed_over(&mut self) {
        self.handed_over = Some(Instant::now());
    }

    /// Rows corrected by table, tables without a difference left out; to be asked once the first snapshot is committed.
    pub fn finish(self) -> Vec<(String, u64)> {
        let took = self.handed_over.map_or(Duration::ZERO, |since| since.elapsed());
        self.shared.observe_phase("audit", took);
        let by_table = self.wiring.specs.iter().enumerate().map(|(table, spec)| {
            let corrected = self
                .writers
                .iter()
                .map(|writer| writer.tables[table].corrections.load(Ordering::Acquire));
            (spec.name.clone(), corrected.sum())
        });
        // What the graph held is ours alone: it is made anew when it is of another form.
        by_table.filter(|(table, rows)| *rows > 0 && !is_state(table)).collect()
    }
}
