//! Collects what the audit of a restart corrected: the rows in which stored tables differed from what was computed
//! again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::run::Wiring;
use crate::run::board::Board;
use crate::sink::WriterStats;
use crate::sink::states::is_state;

/// Reads the counters of the writers, which compare and correct.
pub struct Audit {
    wiring: Arc<Wiring>,
    writers: Vec<Arc<WriterStats>>,
    board: Arc<Board>,
    /// When all of the past was in the graph.
    handed_over: Option<Instant>,
}

impl Audit {
    pub fn new(wiring: Arc<Wiring>, writers: Vec<Arc<WriterStats>>, board: Arc<Board>) -> Audit {
        Audit {
            wiring,
            writers,
            board,
            handed_over: None,
        }
    }

    /// Takes note that all of the past is in the graph.
    pub fn observe_handed_over(&mut self) {
        self.handed_over = Some(Instant::now());
    }

    /// The number of corrected rows by table; tables without a difference are left out. Valid once the first snapshot
    /// is committed.
    pub fn finish(self) -> Vec<(String, u64)> {
        let took = self.handed_over.map_or(Duration::ZERO, |since| since.elapsed());
        self.board.counters.observe_phase("audit", took);
        let by_table = self.wiring.specs.iter().enumerate().map(|(table, spec)| {
            let corrected = self
                .writers
                .iter()
                .map(|writer| writer.tables[table].corrections.load(Ordering::Acquire));
            (spec.name.clone(), corrected.sum())
        });
        // State tables are left out: they are internal, and are written anew whenever their form changes.
        by_table.filter(|(table, rows)| *rows > 0 && !is_state(table)).collect()
    }
}
