//! The epochs at which a run begins.
//!
//! ```text
//!            first ......... past_until      pause       live_from ...
//! the past:  what the newest snapshot holds              what feeds bring
//! ```
//! The past is fed up to the epoch of the newest snapshot, so the audit compares tables as of that epoch. Rows that
//! `now()` has added or removed since then appear with the first live epoch, and do not count as corrections.

use serde::{Deserialize, Serialize};

use crate::render::Pause;
use crate::repr::Epoch;

/// See the module's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// The first epoch at which the past is fed.
    pub first: Epoch,
    /// The last epoch at which the past is fed.
    pub past_until: Epoch,
    /// The first epoch behind the past. The run's first snapshot is as of this epoch; what feeds bring gets later
    /// ones.
    pub live_from: Epoch,
}

impl Epochs {
    /// The epochs of a run that starts when the clock shows `wall`, over a lake whose snapshot is `newest`. The past
    /// is fed at `many` epochs and the one of the snapshot.
    pub fn new(newest: Option<Epoch>, many: u64, wall: Epoch) -> Epochs {
        let past_until = newest.unwrap_or(wall);
        Epochs {
            first: past_until.saturating_sub(many),
            past_until,
            live_from: wall.max(past_until + 1),
        }
    }

    /// The time between the past and the live epochs, in which no run fed the graph.
    pub fn pause(self) -> Pause {
        Pause {
            since: self.past_until,
            until: self.live_from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_ends_with_the_newest_snapshot_and_what_is_live_is_later() {
        let of = |newest, many, wall| {
            let Epochs {
                first,
                past_until,
                live_from,
            } = Epochs::new(newest, many, wall);
            (first, past_until, live_from)
        };
        assert_eq!(of(Some(100), 3, 500), (97, 100, 500));
        // The clock is behind the newest snapshot.
        assert_eq!(of(Some(100), 0, 50), (100, 100, 101));
        assert_eq!(of(None, 0, 500), (500, 500, 501));
        assert_eq!(of(Some(2), 9, 500), (0, 2, 500));
    }
}
