//! The records of a compressed file that no checksum has verified yet. gzip has a checksum behind each member; zstd,
//! xz and bzip2 have one behind each frame or block. If unpacking fails, bytes before the failure may already be
//! wrong.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of unpacked bytes that checksums have verified, shared with the unpacker.
#[derive(Clone, Default)]
pub(crate) struct VerifiedBytes(Arc<AtomicU64>);

impl VerifiedBytes {
    /// The number of verified bytes from the beginning on.
    #[cfg(test)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number of verified bytes from the beginning on.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Finds the records that no checksum covers.
pub(super) struct SuspectRecords {
    proven: VerifiedBytes,
    /// Whether offsets in the text equal offsets in the unpacked bytes; if not, all records are suspect.
    has_places: bool,
    /// Verified ends that no record has reached yet, because unpacking runs ahead of the records.
    ahead: VecDeque<u64>,
    known: u64,
    /// The number and line of the first suspect record.
    first: Option<(u64, u64)>,
}

impl SuspectRecords {
    pub fn new(proven: VerifiedBytes, has_places: bool) -> Self {
        SuspectRecords {
            proven,
            has_places,
            ahead: VecDeque::from([0]),
            known: 0,
            first: None,
        }
    }

    /// Takes in a record that ends before offset `end`.
    pub fn observe(&mut self, end: u64, record: u64, line: u64) {
        let proven = self.proven.0.load(Ordering::Relaxed);
        if proven > self.known && self.has_places {
            self.ahead.push_back(proven);
            self.known = proven;
        }
        while self.ahead.front().is_some_and(|place| *place < end) {
            self.ahead.pop_front();
            self.first = Some((record, line));
        }
    }

    /// The message about the suspect records after unpacking failed before record `next`; none if there are none.
    pub fn describe(mut self, next: u64) -> Option<String> {
        // A checksum may have been verified since the last record.
        let proven = self.proven.0.load(Ordering::Relaxed);
        if self.has_places && (!self.ahead.is_empty() || proven > self.known) {
            self.first = None;
        }
        let (first, line) = self.first?;
        let records = next - first;
        let (counted, are) = match records {
            1 => ("1 record".to_string(), "is a row"),
            _ => (format!("{records} records"), "are rows"),
        };
        Some(format!(
            "no checksum vouches for the {counted} before, from that of line {line} on: what of them {are} may be wrong; compare it \
             with the original"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_behind_the_last_checksum_are_suspects() {
        let proven = VerifiedBytes::default();
        let note = |proven_later: u64, has_places: bool| {
            proven.set(0);
            let mut suspects = SuspectRecords::new(proven.clone(), has_places);
            suspects.observe(10, 0, 2);
            suspects.observe(20, 1, 3);
            proven.set(25);
            suspects.observe(25, 2, 4);
            suspects.observe(30, 3, 5);
            proven.set(proven_later);
            suspects.observe(40, 4, 6);
            suspects.describe(5)
        };
        let text = |note: Option<String>| note.unwrap_or_default();
        assert!(text(note(25, true)).contains("the 2 records before, from that of line 5 on"));
        assert!(text(note(38, true)).contains("the 1 record before, from that of line 6 on"));
        assert_eq!(note(40, true), None, "all that was read is right");
        assert!(text(note(40, false)).contains("the 5 records before, from that of line 2 on"));
    }
}
