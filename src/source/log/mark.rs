//! A fingerprint of the part of a log that was read, which tells whether a file is still the same log, whatever its
//! length.
//!
//! A log only grows, so the first and the last bytes that were read must stay where they were. Both ranges are short,
//! so a check takes two short reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use twox_hash::XxHash3_64;

use crate::repr::LogMark;

/// How many of the first and of the last bytes that were read are hashed. Stored positions depend on these sizes.
const HEAD_BYTES: usize = 1 << 10;
const TAIL_BYTES: usize = 256;

/// The first and the last bytes of what was read of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBytes {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl HeldBytes {
    /// Those of a file's first `read` bytes.
    ///
    /// # Errors
    /// Those of the file; `UnexpectedEof` if it is shorter.
    pub fn read_from(file: &File, read: u64) -> io::Result<HeldBytes> {
        let buffer = |most: usize| vec![0; usize::try_from(read).map_or(most, |read| read.min(most))];
        let (mut head, mut tail) = (buffer(HEAD_BYTES), buffer(TAIL_BYTES));
        file.read_exact_at(&mut head, 0)?;
        let tail_starts = read - tail.len() as u64;
        file.read_exact_at(&mut tail, tail_starts)?;
        Ok(HeldBytes { head, tail })
    }

    /// Adds bytes that were read behind the others.
    pub fn observe(&mut self, bytes: &[u8]) {
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(last);
    }

    /// The hashes to store in a position; none if nothing was read.
    pub fn mark(&self) -> Option<LogMark> {
        let hash = |bytes: &[u8]| format!("{:016x}", XxHash3_64::oneshot(bytes));
        (!self.head.is_empty()).then(|| LogMark {
            head: hash(&self.head),
            tail: hash(&self.tail),
        })
    }
}

/// Whether a file's first `read` bytes match `mark`.
pub(super) fn begins_with(file: &File, read: u64, mark: &LogMark) -> bool {
    HeldBytes::read_from(file, read).is_ok_and(|bytes| bytes.mark().as_ref() == Some(mark))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_that_come_piece_by_piece_are_marked_as_the_files_are() {
        let bytes: Vec<u8> = (0..5_000u32).map(|n| (n * n % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        for piece in [1, 7, 255, 256, 257, 1023, 1024, 1500, 5_000] {
            let (mut seen, mut read) = (HeldBytes::default(), 0);
            for bytes in bytes.chunks(piece) {
                seen.observe(bytes);
                read += bytes.len() as u64;
                assert_eq!(seen, HeldBytes::read_from(&file, read).expect("read"), "{piece} {read}");
            }
            assert!(begins_with(&file, read, &seen.mark().expect("a mark")));
            assert!(!begins_with(&file, read - 1, &seen.mark().expect("a mark")));
            assert!(!begins_with(&file, read + 1, &seen.mark().expect("a mark")));
        }
        assert_eq!(HeldBytes::read_from(&file, 0).expect("nothing is read").mark(), None);
    }
}
