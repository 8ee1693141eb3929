//! Measures the memory of a run, and stops reading above its limit.
//!
//! The measure is the resident set of the process, which is also what a machine or a container counts. Above the
//! limit, workers leave deliveries in their queues, which are bounded, so feeds wait. What was taken is still
//! committed, and that may free enough. Reading goes on once memory is below the limit by a margin. The past of a lake
//! is loaded whatever the limit, because a run that cannot hold it could never read anything.
//!
//! On request, it also reports how much of the memory arrangements and indexes take ([`crate::repr::footprint`]).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;

use crate::repr::footprint::Footprint;
use crate::run::Wiring;
use crate::run::board::Board;
use crate::sink::WriterStats;

/// Reading goes on below this share of the limit.
const AGAIN: f64 = 0.95;
/// How often memory is measured.
const LOOK: Duration = Duration::from_millis(100);
/// How often the warning that reading has stopped is repeated.
const REMIND: Duration = Duration::from_secs(60);

/// How long a report waits for the answers of workers.
const ANSWER: Duration = Duration::from_secs(5);

/// Decides whether feeds are read; closed means that they are not.
#[derive(Debug)]
struct ReadingGate {
    limit: u64,
    closed: bool,
}

impl ReadingGate {
    /// Takes the resident bytes. Returns whether the gate is closed now, if that has changed.
    fn observe(&mut self, resident: u64) -> Option<bool> {
        let closed = match self.closed {
            false => resident > self.limit,
            true => resident as f64 > self.limit as f64 * AGAIN,
        };
        (std::mem::replace(&mut self.closed, closed) != closed).then_some(closed)
    }
}

/// Watches the memory of a process.
pub struct MemoryWatch {
    pub wiring: Arc<Wiring>,
    /// The counters of each writer of this process.
    pub writers: Vec<Arc<WriterStats>>,
    gate: Option<ReadingGate>,
    looked: Option<Instant>,
    last_said: Option<Instant>,
    /// Since when a report has been asked for and not been made.
    asked: Option<Instant>,
}

impl MemoryWatch {
    /// Makes a watch with the definition's `memory_limit`.
    pub fn new(wiring: Arc<Wiring>, writers: Vec<Arc<WriterStats>>) -> MemoryWatch {
        let limit = wiring.dataflow.bounds.memory;
        MemoryWatch {
            wiring,
            writers,
            gate: limit.map(|limit| ReadingGate { limit, closed: false }),
            looked: None,
            last_said: None,
            asked: None,
        }
    }

    /// Measures memory, if the last measurement is old enough. Returns whether feeds are held back, and a message, if
    /// there is one. `None` without a limit, and where nothing was measured.
    pub fn look(&mut self, now: Instant) -> Option<(bool, Option<String>)> {
        let gate = self.gate.as_mut()?;
        if self.looked.is_some_and(|looked| now.duration_since(looked) < LOOK) {
            return None;
        }
        self.looked = Some(now);
        let resident = resident()?;
        let moved = gate.observe(resident);
        let (taken, limit) = (HumanBytes(resident), HumanBytes(gate.limit));
        let say = match moved {
            Some(false) => Some(format!(
                "{taken} of memory is below memory_limit {limit} again: reading goes on"
            )),
            None if !gate.closed || self.last_said.is_some_and(|said| now.duration_since(said) < REMIND) => None,
            _ => {
                self.last_said = Some(now);
                Some(format!(
                    "{taken} of memory is above memory_limit {limit}: no feed is read until it is {:.0} % of that; \
                     raise the limit, or bound what inputs hold with retention",
                    AGAIN * 100.0
                ))
            }
        };
        Some((gate.closed, say))
    }

    /// Asks for a report: the workers are asked for the footprints of their operators.
    pub fn ask(&mut self, board: &Board, now: Instant) {
        // An answer that is still awaited serves both requests.
        if self.asked.is_none() {
            board.workers.ask_footprints();
            self.asked = Some(now);
        }
    }

    /// Makes the report that was asked for, once the workers have answered or [`ANSWER`] is over: the resident bytes,
    /// and how many of them the arrangements and indexes of this process take, the largest first.
    pub fn report(&mut self, board: &Board, now: Instant) -> Option<String> {
        let asked = self.asked?;
        let (operators, silent) = board.workers.footprints();
        if silent > 0 && now.duration_since(asked) < ANSWER {
            return None;
        }
        self.asked = None;
        let mut arrangements: Vec<(Footprint, String)> = operators
            .into_iter()
            .map(|((_, name), footprint)| (footprint, name))
            .collect();
        arrangements.retain(|(footprint, _)| footprint.records > 0);
        let mut indexes = self.indexes();
        indexes.retain(|(footprint, _)| footprint.bytes > 0);
        let mut text = format!("memory: {} resident", HumanBytes(resident().unwrap_or(0)));
        for (what, parts) in [("arrangements", &mut arrangements), ("indexes", &mut indexes)] {
            let bytes = parts.iter().map(|(footprint, _)| footprint.bytes).sum();
            text += &format!(", {what} {}", HumanBytes(bytes));
            parts.sort_unstable_by(|a, b| b.cmp(a));
        }
        if silent > 0 {
            text += &format!(" ({silent} workers did not answer within {ANSWER:?}: theirs are left out)");
        }
        for (part, name) in arrangements.into_iter().chain(indexes) {
            let about = if part.estimated { "about " } else { "" };
            let (bytes, records) = (HumanBytes(part.bytes), part.records);
            text += &format!("\n  {name}: {about}{bytes} for {records} records");
        }
        Some(text)
    }

    /// The footprint of each table's index.
    fn indexes(&self) -> Vec<(Footprint, String)> {
        let tables = self.wiring.specs.iter().enumerate();
        let indexes = tables.map(|(table, spec)| {
            let mut footprint = Footprint::default();
            for stats in self.writers.iter().map(|writer| &writer.tables[table]) {
                footprint += Footprint {
                    bytes: stats.index_bytes.load(Ordering::Relaxed),
                    records: stats.live_rows.load(Ordering::Relaxed),
                    estimated: false,
                };
            }
            (footprint, format!("index of {}", spec.name))
        });
        indexes.collect()
    }
}

/// The resident bytes of this process; `None` if the system does not report them.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_above_its_limit_and_opens_below_by_a_margin() {
        let mut gate = ReadingGate {
            limit: 1000,
            closed: false,
        };
        let moves: Vec<Option<bool>> = [1000, 1001, 5000, 999, 951, 950, 1000, 1001]
            .map(|b| gate.observe(b))
            .into();
        assert_eq!(
            moves,
            [None, Some(true), None, None, None, Some(false), None, Some(true)]
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_resident_is_known() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
