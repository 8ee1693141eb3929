//! The epochs at which a run begins.
//!
//! ```text
//!            first ......... past_until      pause       live_from ...
//! the past:  what the newest snapshot holds              what feeds bring
//! ```
//! The past is fed up to the epoch of the newest snapshot, so the audit compares tables as of that: what `now()` lets come
//! and go since then is seen with the first live epoch, and is no correction.

use serde::{Deserialize, Serialize};

use crate::render::Pause;
use crate::repr::Epoch;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// The first at which the past is fed.
    pub first: Epoch,
    /// The last.
    pub past_until: Epoch,
    /// The first that is opened behind it. The first snapshot is of it; what feeds bring comes later.
    pub live_from: Epoch,
}

impl Epochs {
    /// Of a run over a lake whose `newest` snapshot this is; the past is fed at so `many` epochs more than one, and
    /// the clock says `wall`.
    pub fn new(newest: Option<Epoch>, many: u64, wall: Epoch) -> Epochs {
        let past_until = newest.unwrap_or(wall);
        Epochs {
            first: past_until.saturating_sub(many),
            past_until,
            live_from: wall.max(past_until + 1),
        }
    }

    /// The time in which nothing ran.
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
        // A clock that is behind.
        assert_eq!(of(Some(100), 0, 50), (100, 100, 101));
        assert_eq!(of(None, 0, 500), (500, 500, 501));
        assert_eq!(of(Some(2), 9, 500), (0, 2, 500));
    }
}
