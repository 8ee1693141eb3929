//! How much memory a run takes, and what happens above its limit: nothing more is read.
//!
//! The measure is what the process has resident: that is what a machine or a container counts. Above the limit workers
//! leave what feeds brought in its queues, which are bounded, so feeds wait; what was taken goes on to its commit, and
//! what that frees may be enough. Below the limit by a margin reading goes on. The past of a lake is loaded whatever the
//! limit: a run that cannot hold it would never read.
//!
//! On request it is told what of it arrangements and indexes take ([`crate::repr::footprint`]).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;

use super::Wiring;
use super::shared::Shared;
use crate::repr::footprint::Footprint;
use crate::sink::WriterStats;

/// Of the limit, where reading goes on.
const AGAIN: f64 = 0.95;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is said again that reading has stopped.
const REMIND: Duration = Duration::from_secs(60);

/// The longest that a report waits for workers.
const ANSWER: Duration = Duration::from_secs(5);

/// Decides whether feeds are read.
#[derive(Debug)]
struct Gate {
    limit: u64,
    closed: bool,
}

impl Gate {
    /// So much is resident. Says whether the gate moves: closed or open now.
    fn observe(&mut self, resident: u64) -> Option<bool> {
        let closed = match self.closed {
            false => resident > self.limit,
            true => resident as f64 > self.limit as f64 * AGAIN,
        };
        (std::mem::replace(&mut self.closed, closed) != closed).then_some(closed)
    }
}

/// A run's memory.
pub struct Memory {
    pub wiring: Arc<Wiring>,
    /// Of each writer of this process.
    pub writers: Vec<Arc<WriterStats>>,
    gate: Option<Gate>,
    looked: Option<Instant>,
    told: Option<Instant>,
    /// Since when a report is wanted.
    asked: Option<Instant>,
}

impl Memory {
    /// With the limit of the definition.
    pub fn new(wiring: Arc<Wiring>, writers: Vec<Arc<WriterStats>>) -> Memory {
        let limit = wiring.dataflow.bounds.memory;
        Memory {
            wiring,
            writers,
            gate: limit.map(|limit| Gate { limit, closed: false }),
            looked: None,
            told: None,
            asked: None,
        }
    }

    /// Looks at memory, now and then. Answers whether feeds are held back, and what there is to say.
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
            None if !gate.closed || self.told.is_some_and(|told| now.duration_since(told) < REMIND) => None,
            _ => {
                self.told = Some(now);
                Some(format!(
                    "{taken} of memory is above memory_limit {limit}: no feed is read until it is {:.0} % of that; \
                     raise the limit, or bound what inputs hold with retention",
                    AGAIN * 100.0
                ))
            }
        };
        Some((gate.closed, say))
    }

    /// A report is wanted: the workers are asked what their operators hold.
    pub fn ask(&mut self, shared: &Shared, now: Instant) {
        // Who is being asked already answers both.
        if self.asked.is_none() {
            shared.ask_footprints();
            self.asked = Some(now);
        }
    }

    /// The report, once the workers have answered or time is up: what is resident, and what arrangements and indexes of
    /// this process take of it, the largest first.
    pub fn report(&mut self, shared: &Shared, now: Instant) -> Option<String> {
        let asked = self.asked?;
        let (operators, silent) = shared.footprints();
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

    /// What the index of each table takes.
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

/// Bytes of this process that are resident; none where the system does not say.
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
        let mut gate = Gate {
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
