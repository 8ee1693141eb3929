//! The graph's collections of rows, and the hash that assigns keys to workers.

use differential_dataflow::VecCollection;

use super::{Diff, Epoch, Row};

/// Updates of rows.
pub type Rows<'s> = VecCollection<'s, Epoch, Row, Diff>;

/// Updates of (key, value) pairs.
pub type Pairs<'s> = VecCollection<'s, Epoch, (Row, Row), Diff>;

/// The hash of a key, which decides the worker that owns the key.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(key)
}
