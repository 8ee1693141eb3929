//! Records of a packed file whose bytes no checksum vouched for: gzip has one behind each member, zstd, xz and bzip2 behind a
//! frame or a block. Where unpacking fails, a byte before may have been wrong already, and have become another one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Up to where a stream's unpacked bytes are known to be right, shared with who unpacks it.
#[derive(Clone, Default)]
pub(crate) struct Proven(Arc<AtomicU64>);

impl Proven {
    /// So many bytes from the beginning on.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// The records that are behind what is known to be right.
pub(super) struct Suspects {
    proven: Proven,
    /// Whether places in the text are those of its bytes; otherwise all records are suspects.
    has_places: bool,
    /// Ends of what is proven that no record reached yet: unpacking runs ahead.
    ahead: VecDeque<u64>,
    known: u64,
    /// The number and the line of the first.
    first: Option<(u64, u64)>,
}

impl Suspects {
    pub fn new(proven: Proven, has_places: bool) -> Self {
        Suspects {
            proven,
            has_places,
            ahead: VecDeque::from([0]),
            known: 0,
            first: None,
        }
    }

    /// Takes in a record that ends before the place `end`.
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

    /// What to say of them once unpacking failed in front of record `next`; none: there are none.
    pub fn told(mut self, next: u64) -> Option<String> {
        // What was proven since the last record.
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
        let proven = Proven::default();
        let told = |proven_later: u64, has_places: bool| {
            proven.set(0);
            let mut suspects = Suspects::new(proven.clone(), has_places);
            suspects.observe(10, 0, 2);
            suspects.observe(20, 1, 3);
            proven.set(25);
            suspects.observe(25, 2, 4);
            suspects.observe(30, 3, 5);
            proven.set(proven_later);
            suspects.observe(40, 4, 6);
            suspects.told(5)
        };
        let text = |told: Option<String>| told.unwrap_or_default();
        assert!(text(told(25, true)).contains("the 2 records before, from that of line 5 on"));
        assert!(text(told(38, true)).contains("the 1 record before, from that of line 6 on"));
        assert_eq!(told(40, true), None, "all that was read is right");
        assert!(text(told(40, false)).contains("the 5 records before, from that of line 2 on"));
    }
}
