//! The keys whose stored state expires, and the changes that make the operator forget them.

use std::collections::BTreeMap;

use super::change::{Arrival, ChangeParts, Flag, encode};
use crate::repr::{Epoch, Row};

/// The keys whose state expires, by epoch; each such key is in here once.
pub struct Expiries {
    /// Epochs are rounded up to a multiple of this, so that there are few epochs with many keys each.
    grain: Epoch,
    pub by_epoch: BTreeMap<Epoch, Vec<Row>>,
}

impl Expiries {
    /// For states that expire after this time, in milliseconds.
    pub fn new(keep: Option<u64>) -> Self {
        Expiries {
            grain: (keep.unwrap_or(0) / 64).max(1),
            by_epoch: BTreeMap::new(),
        }
    }

    /// Notes that a key's state expires at an epoch.
    pub fn observe(&mut self, key: &Row, over: Epoch) {
        let at = over.div_ceil(self.grain).saturating_mul(self.grain);
        self.by_epoch.entry(at).or_default().push(key.clone());
    }

    /// Adds changes that forget the states expired at `lower`: no change that can still arrive would see these states.
    pub fn forget(&mut self, lower: Epoch, ready: &mut Vec<(Row, Epoch, Row)>) {
        let arrival = Arrival {
            epoch: lower,
            ..Arrival::default()
        };
        let parts = ChangeParts {
            order: &[],
            arrival,
            flag: Flag::Forget,
            until: Epoch::MAX,
            unchanged: &[],
            row: &[],
        };
        while let Some(entry) = self.by_epoch.first_entry().filter(|entry| *entry.key() <= lower) {
            let change = encode(&mut Vec::new(), &parts);
            ready.extend(entry.remove().into_iter().map(|key| (key, lower, change.clone())));
        }
    }
}
