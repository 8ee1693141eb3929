//! Decides when an epoch closes and when a snapshot is sealed, without a clock or threads of its own.
//!
//! An epoch opens at a wall-clock millisecond. It is closed by opening the next one,
//! 1. only when something was taken into it, so that an idle run stands still;
//! 2. not before its interval is over, unless it is full;
//! 3. not before every earlier epoch has closed in the graph. When the graph falls behind, epochs therefore grow, so a
//!    run has small epochs at low load and large ones at high load.
//!
//! A snapshot is sealed
//!
//! 4. every commit interval, or sooner if many bytes wait;
//! 5. as of the newest epoch that has closed in the graph;
//! 6. only when something was taken since the last one;
//! 7. while fewer than [`IN_FLIGHT`] sealed snapshots wait for their commit.
//!
//! Where rows appear or disappear by the passing of time, time itself is an input: see [`Pacer::observe_tick`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::repr::Epoch;

/// How many sealed snapshots may wait for their commit: one is committed while the next one is written.
const IN_FLIGHT: usize = 2;

/// The epochs and snapshots of a run.
#[derive(Clone, Debug)]
pub struct Pacer {
    interval: Duration,
    commit: Duration,
    open: Epoch,
    opened_at: Instant,
    /// Whether something was taken into the open epoch.
    dirty: bool,
    full: bool,
    /// All epochs before this one have closed in the graph.
    frontier: Epoch,
    /// Epochs that hold something, are no longer open, and are in no sealed snapshot yet; ascending.
    unsealed: VecDeque<Epoch>,
    /// Snapshots that are sealed and not committed; ascending.
    in_flight: VecDeque<Epoch>,
    sealed_at: Instant,
    committed: Epoch,
}

impl Pacer {
    /// Starts at `now`, with the epoch `first` open.
    pub fn new(interval: Duration, commit: Duration, first: Epoch, now: Instant) -> Self {
        Pacer {
            interval,
            commit,
            open: first,
            opened_at: now,
            dirty: false,
            full: false,
            frontier: first,
            unsealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            sealed_at: now,
            committed: 0,
        }
    }

    /// The open epoch.
    pub fn open(&self) -> Epoch {
        self.open
    }

    /// Describes what is not committed yet, for a log line.
    pub fn unfinished(&self) -> String {
        let listed = |epochs: &VecDeque<Epoch>| match (epochs.front(), epochs.back()) {
            (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
            (Some(one), _) => one.to_string(),
            _ => "none".to_string(),
        };
        let (unsealed, in_flight) = (listed(&self.unsealed), listed(&self.in_flight));
        format!(
            "epochs to close or seal: {unsealed}; snapshots being written: {in_flight}; committed {}",
            self.committed
        )
    }

    /// Takes note that something was taken into `epoch`, which is the open epoch or was until a moment ago.
    pub fn observe_taken(&mut self, epoch: Epoch) {
        if epoch >= self.open {
            self.dirty = true;
        } else if self.unsealed.back().is_none_or(|&last| last < epoch) {
            self.unsealed.push_back(epoch);
        }
    }

    /// Takes note that time may have changed rows: the open epoch then counts as one that holds something.
    pub fn observe_tick(&mut self) {
        self.dirty = true;
    }

    /// Takes note that a worker has taken as much into the open epoch as it may.
    pub fn observe_full(&mut self) {
        self.full = true;
    }

    /// Takes note that every epoch before `frontier` has closed at every worker.
    pub fn observe_closed(&mut self, frontier: Epoch) {
        self.frontier = self.frontier.max(frontier);
    }

    /// Takes note that the snapshot at `epoch` is committed.
    pub fn observe_committed(&mut self, epoch: Epoch) {
        self.in_flight.retain(|&e| e > epoch);
        self.committed = self.committed.max(epoch);
    }

    /// Opens an epoch if it is time to. `wall_ms` is the clock, which may step back.
    #[cfg(test)]
    pub fn next_epoch(&mut self, wall_ms: u64, now: Instant) -> Option<Epoch> {
        self.is_due(now).then(|| self.open_next(wall_ms, now))
    }

    /// Whether it is time to open the next epoch.
    pub fn is_due(&self, now: Instant) -> bool {
        let due = self.full || now.duration_since(self.opened_at) >= self.interval;
        self.dirty && due && self.frontier >= self.open
    }

    /// Whether a worker has taken as much into the open epoch as it may.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Opens the next epoch, whether it is due or not. `wall_ms` is the clock, which may step back.
    pub fn open_next(&mut self, wall_ms: u64, now: Instant) -> Epoch {
        if self.dirty {
            self.unsealed.push_back(self.open);
        }
        self.open = wall_ms.max(self.open + 1);
        self.opened_at = now;
        self.dirty = false;
        self.full = false;
        self.open
    }

    /// Decides on the snapshot to seal now, if any. `hurry` ignores the commit interval, because the run ends or many
    /// bytes wait.
    pub fn next_seal(&mut self, now: Instant, hurry: bool) -> Option<Epoch> {
        if self.in_flight.len() >= IN_FLIGHT || !(hurry || now.duration_since(self.sealed_at) >= self.commit) {
            return None;
        }
        let closed = self.unsealed.iter().take_while(|&&epoch| epoch < self.frontier).count();
        let epoch = self.unsealed.drain(..closed).next_back()?;
        self.in_flight.push_back(epoch);
        self.sealed_at = now;
        Some(epoch)
    }

    /// Whether everything that was taken is committed.
    pub fn all_committed(&self) -> bool {
        !self.dirty && self.unsealed.is_empty() && self.in_flight.is_empty()
    }

    /// How long the next decision can wait if nothing is observed before; `None` if only an observation can lead to
    /// one.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(now);
        let epoch = (self.dirty && self.frontier >= self.open).then(|| until(self.opened_at + self.interval));
        let sealable = self.unsealed.front().is_some_and(|&e| e < self.frontier) && self.in_flight.len() < IN_FLIGHT;
        let seal = sealable.then(|| until(self.sealed_at + self.commit));
        epoch.into_iter().chain(seal).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pacer(now: Instant) -> Pacer {
        Pacer::new(10 * MS, 100 * MS, 1000, now)
    }

    #[test]
    fn an_idle_run_opens_no_epochs_and_seals_nothing() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        assert_eq!(pacer.next_epoch(9_000, start + 8000 * MS), None);
        assert_eq!(pacer.next_seal(start + 8000 * MS, true), None);
        assert_eq!(pacer.patience(start), None);
        assert!(pacer.all_committed());
    }

    #[test]
    fn an_epoch_closes_on_its_interval_or_when_it_is_full() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        pacer.observe_taken(1000);
        assert_eq!(pacer.next_epoch(1003, start + 3 * MS), None);
        assert_eq!(pacer.patience(start + 3 * MS), Some(7 * MS));
        assert_eq!(pacer.next_epoch(1010, start + 10 * MS), Some(1010));
        pacer.observe_closed(1010);
        pacer.observe_taken(1010);
        pacer.observe_full();
        assert_eq!(pacer.next_epoch(1011, start + 11 * MS), Some(1011));
    }

    #[test]
    fn a_graph_that_is_behind_makes_epochs_longer() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        pacer.observe_taken(1000);
        assert_eq!(pacer.next_epoch(1010, start + 10 * MS), Some(1010));
        pacer.observe_taken(1010);
        assert_eq!(
            pacer.next_epoch(1050, start + 50 * MS),
            None,
            "epoch 1000 is still open in the graph"
        );
        pacer.observe_closed(1010);
        assert_eq!(pacer.next_epoch(1050, start + 50 * MS), Some(1050));
    }

    #[test]
    fn time_never_runs_back_with_the_clock() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        pacer.observe_taken(1000);
        assert_eq!(pacer.next_epoch(400, start + 10 * MS), Some(1001));
    }

    #[test]
    fn a_snapshot_is_the_newest_closed_epoch_and_is_settled_by_its_commit() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        for step in 1..=3u64 {
            pacer.observe_taken(pacer.open());
            pacer.observe_closed(pacer.open());
            pacer
                .next_epoch(1000 + step * 10, start + (step as u32) * 10 * MS)
                .expect("each epoch is due");
        }
        pacer.observe_closed(1020);
        assert_eq!(pacer.next_seal(start + 99 * MS, false), None);
        assert_eq!(
            pacer.next_seal(start + 100 * MS, false),
            Some(1010),
            "1020 is not closed yet"
        );
        pacer.observe_closed(1030);
        assert_eq!(pacer.next_seal(start + 200 * MS, false), Some(1020));
        assert!(!pacer.all_committed());
        pacer.observe_committed(1010);
        pacer.observe_committed(1020);
        assert!(pacer.all_committed());
        assert_eq!(pacer.committed, 1020);
    }

    #[test]
    fn commits_that_lag_hold_back_further_snapshots() {
        let start = Instant::now();
        let mut pacer = pacer(start);
        let mut sealed = 0;
        for step in 1..=5u64 {
            pacer.observe_taken(pacer.open());
            pacer.observe_closed(pacer.open());
            pacer.open_next(1000 + step, start);
            pacer.observe_closed(pacer.open());
            sealed += pacer.next_seal(start, true).is_some() as usize;
        }
        assert_eq!(sealed, IN_FLIGHT);
        pacer.observe_committed(1000);
        assert_eq!(
            pacer.next_seal(start, true),
            Some(1004),
            "what waited is sealed together"
        );
    }
}
