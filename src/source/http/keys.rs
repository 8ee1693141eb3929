//! Remembers idempotency keys, for a limited time and up to a limited number.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::{Digest, FrameHead, IdempotencyRecord};

/// An accepted request that has an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyedRequest {
    #[serde(flatten)]
    pub keyed: IdempotencyRecord,
    pub rows: u64,
    /// Unix milliseconds.
    pub at: u64,
}

impl KeyedRequest {
    pub fn from_head(head: &FrameHead) -> Option<KeyedRequest> {
        head.keyed.map(|keyed| KeyedRequest {
            keyed,
            rows: head.rows,
            at: head.at,
        })
    }
}

/// See the module's header. The oldest keys are forgotten first.
pub(super) struct IdempotencyKeys {
    keep: Duration,
    most: usize,
    known: HashMap<Digest, (Digest, u64)>,
    /// In the order of insertion.
    order: VecDeque<(u64, Digest)>,
}

impl IdempotencyKeys {
    pub fn new(keep: Duration, most: u64) -> IdempotencyKeys {
        IdempotencyKeys {
            keep,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The body's digest and the number of rows of the request that had this key.
    pub fn get(&self, key: &Digest) -> Option<(Digest, u64)> {
        self.known.get(key).copied()
    }

    /// Remembers a request. Returns whether another was forgotten for it before its time.
    pub fn insert(&mut self, entry: &KeyedRequest) -> bool {
        if self
            .known
            .insert(entry.keyed.key, (entry.keyed.body, entry.rows))
            .is_none()
        {
            self.order.push_back((entry.at, entry.keyed.key));
        }
        let full = self.order.len() > self.most;
        if full {
            self.forget_first();
        }
        full
    }

    /// Removes the newest request, because it was not written.
    pub fn take_back(&mut self, key: &Digest) {
        if self.order.back().is_some_and(|(_, newest)| newest == key) {
            self.order.pop_back();
            self.known.remove(key);
        }
    }

    /// Forgets requests that are too old. Returns the time (Unix milliseconds) before which all are forgotten.
    pub fn forget_old(&mut self, now: u64) -> u64 {
        let before = self.horizon(now);
        while self.order.front().is_some_and(|(at, _)| *at < before) {
            self.forget_first();
        }
        before
    }

    /// The time in Unix milliseconds before which no request is remembered.
    pub fn horizon(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX))
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u8, at: u64) -> KeyedRequest {
        KeyedRequest {
            keyed: IdempotencyRecord {
                key: Digest([key; 16]),
                body: Digest([0; 16]),
            },
            rows: u64::from(key),
            at,
        }
    }

    #[test]
    fn keys_are_forgotten_by_age_and_by_number_the_oldest_first() {
        let mut keys = IdempotencyKeys::new(Duration::from_millis(100), 3);
        let known = |keys: &IdempotencyKeys| {
            (1..9)
                .filter(|n| keys.get(&Digest([*n; 16])).is_some())
                .collect::<Vec<_>>()
        };
        assert!(!keys.insert(&entry(1, 0)) && !keys.insert(&entry(2, 50)) && !keys.insert(&entry(3, 60)));
        keys.forget_old(100);
        assert_eq!(known(&keys), [1, 2, 3]);
        keys.forget_old(101);
        assert_eq!(known(&keys), [2, 3]);
        assert!(!keys.insert(&entry(4, 110)) && keys.insert(&entry(5, 120)));
        assert_eq!(known(&keys), [3, 4, 5]);
        keys.take_back(&Digest([5; 16]));
        assert_eq!(known(&keys), [3, 4]);
        assert_eq!(keys.get(&Digest([4; 16])), Some((Digest([0; 16]), 4)));
    }
}
