//! The clock of a run, which is handed in so that a test can set it.
//!
//! Epochs are milliseconds of this clock, and never go back. If the clock is behind the newest snapshot (because it
//! was set back, or because another machine with a fast clock wrote the lake), each epoch is the one before plus one
//! until the clock has caught up. Nothing is lost, but `now()` hardly moves meanwhile, so the run warns of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::repr::Epoch;
use crate::{sink, source};

/// Milliseconds by which epochs may be ahead of the clock without a warning. Epochs shorter than a millisecond run
/// ahead, and clocks are often set back a little.
const AHEAD: u64 = 1000;

/// A clock.
#[derive(Clone)]
pub struct RunClock(source::WallClock);

impl RunClock {
    /// Makes a clock of a function that returns the time.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> RunClock {
        RunClock(Arc::new(now))
    }

    /// The time in Unix milliseconds.
    pub fn millis(&self) -> u64 {
        (self.0)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    /// This clock as readers take it.
    pub(crate) fn of_readers(&self) -> source::WallClock {
        self.0.clone()
    }

    /// This clock as the committer takes it.
    pub(crate) fn of_commits(&self) -> sink::CommitClock {
        let clock = self.clone();
        sink::CommitClock(Arc::new(move || clock.millis() as i64))
    }
}

impl Default for RunClock {
    /// The machine's clock.
    fn default() -> Self {
        RunClock::new(SystemTime::now)
    }
}

impl fmt::Debug for RunClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.millis())
    }
}

/// Notices when the clock falls behind the epochs, and when it has caught up.
#[derive(Debug, Default)]
pub struct ClockWatch(bool);

impl ClockWatch {
    /// Takes note that `epoch` was opened when the clock showed `wall`. Returns a message when the state has changed.
    pub fn observe(&mut self, epoch: Epoch, wall: u64) -> Option<String> {
        let gap = epoch.saturating_sub(wall);
        let behind = gap > AHEAD;
        if std::mem::replace(&mut self.0, behind) == behind {
            return None;
        }
        Some(match behind {
            true => format!(
                "the clock is {} behind the newest snapshot: snapshots go on from its time, and now() hardly moves until the \
                 clock has caught up; set the clock right",
                humantime::format_duration(Duration::from_secs(gap / 1000))
            ),
            false => "the clock has caught up with the snapshots".to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_is_told_once_and_once_when_it_has_caught_up() {
        let mut behind = ClockWatch::default();
        assert_eq!(behind.observe(5000, 4000), None, "a second is nothing");
        let message = behind.observe(3_605_000, 5000).expect("it is an hour behind");
        assert!(message.starts_with("the clock is 1h behind"), "{message}");
        assert_eq!(behind.observe(3_605_001, 5010), None);
        assert_eq!(behind.observe(3_605_002, 3_604_000), None, "it is not there yet");
        let message = behind.observe(3_605_003, 3_605_000).expect("it is there");
        assert!(message.contains("caught up"), "{message}");
        assert_eq!(behind.observe(3_605_100, 3_605_100), None);
    }
}
