//! The clock of a run: handed in, so that a test can set it.
//!
//! Epochs are its milliseconds, and never go back: where the clock is behind the newest snapshot (it was set back, or the lake
//! was written by a machine whose clock is ahead), each epoch is one more than the one before, until the clock has caught
//! up. Nothing is lost by that, but `now()` all but stands still meanwhile, and a person should know.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::repr::Epoch;
use crate::{sink, source};

/// So far may epochs be ahead of the clock without a word: they are when they are shorter than a millisecond, and clocks
/// are set back a little all the time.
const AHEAD: u64 = 1000;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(source::Clock);

impl Clock {
    /// One that tells what `now` says.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// Unix milliseconds.
    pub fn millis(&self) -> u64 {
        (self.0)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    /// For readers.
    pub(crate) fn of_readers(&self) -> source::Clock {
        self.0.clone()
    }

    /// For the committer.
    pub(crate) fn of_commits(&self) -> sink::Clock {
        let clock = self.clone();
        sink::Clock(Arc::new(move || clock.millis() as i64))
    }
}

impl Default for Clock {
    /// The machine's.
    fn default() -> Self {
        Clock::new(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.millis())
    }
}

/// Notices when the clock is behind the epochs.
#[derive(Debug, Default)]
pub struct Behind(bool);

impl Behind {
    /// `epoch` was opened when the clock said `wall`; what there is to say of that.
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
        let mut behind = Behind::default();
        assert_eq!(behind.observe(5000, 4000), None, "a second is nothing");
        let told = behind.observe(3_605_000, 5000).expect("it is an hour behind");
        assert!(told.starts_with("the clock is 1h behind"), "{told}");
        assert_eq!(behind.observe(3_605_001, 5010), None);
        assert_eq!(behind.observe(3_605_002, 3_604_000), None, "it is not there yet");
        let told = behind.observe(3_605_003, 3_605_000).expect("it is there");
        assert!(told.contains("caught up"), "{told}");
        assert_eq!(behind.observe(3_605_100, 3_605_100), None);
    }
}
