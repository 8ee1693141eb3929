//! A partition of the log: its file, how far it was read, and when its bytes arrived.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use memchr::memchr;

use super::mark::HeldBytes;
use crate::repr::Position;
use crate::source::kept_open::KeptOpen;

/// A partition's file, and how far it was read.
pub(super) struct Partition {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub file: File,
    _kept: KeptOpen,
    /// The offset of the file's first byte. It is not 0 after a log was begun anew; all offsets below include it.
    pub base: u64,
    pub next: u64,
    /// The offset of the file's end at the last look.
    pub size: u64,
    /// The time of the last look.
    looked: Instant,
    /// The bytes from here up to `size` arrived between the last two looks.
    fresh: u64,
    /// The time of the look before the last; those bytes arrived no earlier.
    seen: Instant,
    /// When the last of those bytes were written.
    written: Instant,
    /// An unfinished line is known to start at `next` and to reach up to here.
    pub torn: u64,
    /// Since when `torn` has had this value.
    torn_since: Instant,
    /// For a line above the limit that starts at `next`: it does not end before this offset.
    pub passed: u64,
    /// The start of the last unfinished line that was reported.
    told_torn: Option<u64>,
    /// Whether the file lost what was read of it, or was replaced: it is checked before it is read further.
    pub is_doubtful: bool,
    /// The first and last bytes that were read of the file.
    pub held: HeldBytes,
    /// The file's modification time at the last look.
    modified: Option<SystemTime>,
}

impl Partition {
    /// A file that was read up to `next` and has not been looked at yet.
    pub fn new(name: Arc<str>, path: PathBuf, (file, permit): (File, KeptOpen), (next, base): (u64, u64)) -> Partition {
        let now = Instant::now();
        Partition {
            name,
            path,
            file,
            _kept: permit,
            base,
            next,
            size: next,
            looked: now,
            fresh: next,
            seen: now,
            written: now,
            torn: next,
            passed: next,
            torn_since: now,
            told_torn: None,
            is_doubtful: false,
            held: HeldBytes::default(),
            modified: None,
        }
    }

    /// Whether the open file is the one with this metadata.
    pub fn is_of(&self, looked_at: &Metadata) -> bool {
        let same = |open: Metadata| (open.dev(), open.ino()) == (looked_at.dev(), looked_at.ino());
        self.file.metadata().is_ok_and(same)
    }

    /// Whether the file was written to since the last look without growing. If it grew, the next read checks it.
    pub fn has_changed(&self, looked_at: &Metadata) -> bool {
        let has_grown = self.base + looked_at.len() > self.size;
        !has_grown && looked_at.modified().ok() != self.modified
    }

    /// Whether the file still holds what was read of it.
    pub fn holds_what_was_read(&self) -> bool {
        HeldBytes::read_from(&self.file, self.next - self.base).is_ok_and(|held| held == self.held)
    }

    /// Starts to read the file from its beginning, with offsets that continue those before.
    pub fn begin_anew(&mut self) {
        self.base = self.next;
        self.held = HeldBytes::default();
        (self.size, self.fresh, self.torn, self.passed) = (self.next, self.next, self.next, self.next);
    }

    /// The position to store once everything before `next` is handed over, and `held` covers it.
    pub fn position(&self, next: u64) -> Position {
        Position {
            base: self.base,
            log: self.held.mark(),
            ..Position::at(next)
        }
    }

    /// Fills `buffer` from offset `at` on.
    pub fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at - self.base))?;
        self.file.read_exact(buffer)
    }

    /// Records the result of a look: the file's end offset and modification time.
    pub fn observe_size(&mut self, size: u64, modified: Option<SystemTime>) {
        let now = Instant::now();
        let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
        let written = age.and_then(|age| now.checked_sub(age));
        self.written = written.map_or(self.looked, |at| at.clamp(self.looked, now));
        self.modified = modified;
        self.seen = std::mem::replace(&mut self.looked, now);
        self.fresh = std::mem::replace(&mut self.size, size);
        // Bytes that were not read yet may have been cut off.
        self.torn = self.torn.min(size);
        if self.passed > size {
            self.passed = self.next;
        }
    }

    /// Records that the line that starts at `next` has no end yet.
    pub fn observe_torn(&mut self) {
        self.torn = self.size;
        self.torn_since = self.looked;
    }

    /// How long the last line has lacked its end, if that is at least `patience` and was not reported yet.
    pub fn observe_patience(&mut self, patience: Duration) -> Option<Duration> {
        let since = self.torn_since.elapsed();
        let tells = self.torn > self.next && since >= patience && self.told_torn != Some(self.next);
        tells.then(|| {
            self.told_torn = Some(self.next);
            since
        })
    }

    /// When complete lines that start at `next` arrived: at the last write if they are one line and the newest,
    /// otherwise at the earliest possible time.
    pub fn arrived(&self, lines: &[u8]) -> Instant {
        let last = self.next + lines.len() as u64 == self.size;
        let fresh = &lines[(self.fresh.saturating_sub(self.next) as usize).min(lines.len())..];
        let alone = memchr(b'\n', fresh).is_some_and(|end| end + 1 == fresh.len());
        let old = lines.len() - fresh.len();
        let whole_before = memchr(b'\n', &lines[..old]).is_some();
        if last && alone && !whole_before {
            self.written
        } else {
            self.seen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two records between two looks, the first seemed to have arrived with the second, so that reported latencies
    /// were too low by half the interval of looks.
    #[test]
    fn no_record_counts_as_arrived_later_than_it_may_have() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let partition = |next: u64, fresh: u64, size: u64| Partition {
            size,
            looked: at(50),
            fresh,
            seen: at(0),
            written: at(40),
            ..Partition::new(
                "0".into(),
                PathBuf::new(),
                (
                    tempfile::tempfile().expect("a file"),
                    KeptOpen::acquire().expect("few are open"),
                ),
                (next, 0),
            )
        };
        // One line, which arrived between the last two looks, or began before.
        assert_eq!(partition(10, 10, 14).arrived(b"one\n"), at(40));
        assert_eq!(partition(10, 12, 14).arrived(b"one\n"), at(40));
        // The last write may have been that of the second line, or of what follows.
        assert_eq!(partition(10, 10, 18).arrived(b"one\ntwo\n"), at(0));
        assert_eq!(partition(10, 10, 16).arrived(b"one\n"), at(0));
        // Part of a backlog.
        assert_eq!(partition(10, 14, 18).arrived(b"one\ntwo\n"), at(0));
    }
}
