//! The identity of a row in indexes, and the writer that owns it. Both come from one 128-bit hash, but from different
//! bits, so that the rows of one writer still spread over its whole index.

use twox_hash::XxHash3_128;

/// 96 bits of a row's hash. The probability that any two different rows of a table of ten million rows share them is
/// below 1e-15.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct RowHash(pub(super) [u32; 3]);

impl RowHash {
    /// The hash of an encoded row.
    pub fn of_row(row: &[u8]) -> Self {
        let hash = XxHash3_128::oneshot(row);
        RowHash([hash as u32, (hash >> 32) as u32, (hash >> 64) as u32])
    }

    /// The bits that choose the row's bucket in a hash table.
    pub(super) fn bucket(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 32
    }
}

/// The writer, of `writers` many, that owns this row. The graph exchanges the rows of sinks by it, so that additions
/// and removals of a row meet.
pub fn owner(row: &[u8], writers: usize) -> usize {
    let top = (XxHash3_128::oneshot(row) >> 96) as u64;
    ((top * writers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_spread_evenly_over_writers() {
        for writers in 1..=5 {
            let mut counts = vec![0u32; writers];
            for i in 0..10_000u32 {
                counts[owner(&i.to_be_bytes(), writers)] += 1;
            }
            let even = 10_000 / writers as u32;
            assert!(counts.iter().all(|c| c.abs_diff(even) < even / 5), "{counts:?}");
        }
    }
}
