//! Which process reads a partition: with several processes each is read by exactly one.
//!
//! 1. A hash of its name says which, the same in every process; with another number of processes it may be another.
//! 2. Files of an input where the order of arrival decides (a key without `order_by`, or a `dedup_key`) are read by one
//!    process, one after the other.

use crate::definition::{FeedKind, Input};

/// One of several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub process: usize,
    /// Of how many.
    pub processes: usize,
}

/// The only one.
impl Default for Share {
    fn default() -> Self {
        Share {
            process: 0,
            processes: 1,
        }
    }
}

impl Share {
    /// Whether a partition of a feed is read here.
    pub fn holds(&self, input: &Input, feed: usize, partition: &str) -> bool {
        self.processes == 1 || self.of(input, feed, partition).0 == self.process
    }

    /// Whether files of this feed must be read one after the other.
    pub fn in_order(input: &Input) -> bool {
        (!input.key.is_empty() && input.order_by.is_empty()) || !input.dedup_key.is_empty()
    }

    /// The process that reads a partition, and a number that tells its partitions apart.
    pub fn of(&self, input: &Input, feed: usize, partition: &str) -> (usize, u64) {
        let name = &input.feeds[feed].name;
        let hash = hash(&[&input.name, name, partition]);
        let processes = self.processes as u64;
        let one = matches!(input.feeds[feed].kind, FeedKind::Files { .. }) && Share::in_order(input);
        let process = if one { self::hash(&[&input.name]) } else { hash } % processes;
        (process as usize, hash / processes)
    }
}

fn hash(parts: &[&str]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = twox_hash::XxHash64::with_seed(0);
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff); // no UTF-8 text holds it: ("a", "bc") and ("ab", "c") differ
    }
    hasher.finish()
}
