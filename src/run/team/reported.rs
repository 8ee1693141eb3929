//! Remembers what a process has reported to process 0, so that it reports only changes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::control::{FiguresHead, ProcessProgress};
use crate::repr::Epoch;
use crate::run::board::{Board, InputCounters};

/// See the module's header.
#[derive(Default)]
pub struct ReportedState {
    pub progress: ProcessProgress,
    pub caught_up: bool,
    pub drained: bool,
    inputs: Vec<[u64; 4]>,
    ignored: BTreeMap<(usize, String), u64>,
    pub snapshot: Epoch,
}

impl ReportedState {
    /// By how much the counters have grown since the last call.
    pub fn figures(&mut self, board: &Board) -> FiguresHead {
        let of = |counters: &InputCounters| {
            let counts = [
                &counters.records,
                &counters.replayed,
                &counters.rejected,
                &counters.rejected_files,
            ];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let now: Vec<[u64; 4]> = board.counters.inputs.iter().map(of).collect();
        self.inputs.resize(now.len(), [0; 4]);
        let since = |(now, before): (&[u64; 4], &[u64; 4])| [0, 1, 2, 3].map(|i| now[i] - before[i]);
        let inputs = now.iter().zip(&self.inputs).map(since).collect();
        self.inputs = now;
        let ignored = board.counters.ignored();
        let more = ignored.iter().filter_map(|((input, field), records)| {
            let before = self.ignored.get(&(*input, field.clone())).copied().unwrap_or(0);
            (*records > before).then(|| (*input, field.clone(), records - before))
        });
        let ignored_since = more.collect();
        self.ignored = ignored;
        FiguresHead {
            inputs,
            ignored: ignored_since,
            ..FiguresHead::default()
        }
    }
}
