//! The content of a file, by its bytes: whether two files are equal, and whether one extends another.
//!
//! 1. A digest covers the bytes as they are stored, from the first one on.
//! 2. If a file begins with all bytes of an earlier version, it begins with that version's records, and reading goes
//!    on behind them. This holds for text and for Avro, compressed or not, because their records are stored in
//!    sequence.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_128;

use crate::repr::FileContent;

/// How many bytes are read at once.
const READ_BYTES: usize = 256 << 10;

/// A running hash of the bytes that a reader reads.
#[derive(Clone, Default)]
pub(crate) struct ByteDigest(Arc<Mutex<(XxHash3_128, u64)>>);

impl ByteDigest {
    pub fn observe(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.write(bytes);
        state.1 += bytes.len() as u64;
    }

    /// The length and hash of all that was read so far.
    pub fn content(&self) -> FileContent {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        FileContent {
            bytes: state.1,
            hash: format!("{:032x}", state.0.finish_128()),
        }
    }
}

/// How a file relates to an earlier version of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileComparison {
    /// The same bytes.
    Same,
    /// The earlier bytes, followed by more.
    Appended,
    /// Other bytes.
    Other,
}

/// Compares a file with what an earlier version of it held; `stops` says whether to give up.
/// Compares a file with what an earlier version of it held. `stops` returns whether to give up.
/// # Errors
/// Failures of the source; `Interrupted` if `stops` returned true.
pub(crate) fn compare(
    mut source: impl Read,
    earlier: &FileContent,
    stops: &dyn Fn() -> bool,
) -> io::Result<FileComparison> {
    let (digest, mut buffer) = (ByteDigest::default(), vec![0; READ_BYTES]);
    let mut left = earlier.bytes;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match read(&mut source, &mut buffer[..wanted], stops)? {
            0 => return Ok(FileComparison::Other),
            read => {
                digest.observe(&buffer[..read]);
                left -= read as u64;
            }
        }
    }
    if digest.content() != *earlier {
        return Ok(FileComparison::Other);
    }
    Ok(match read(&mut source, &mut buffer[..1], stops)? {
        0 => FileComparison::Same,
        _ => FileComparison::Appended,
    })
}

/// The length and hash of a file.
///
/// # Errors
/// The same as those of [`compare`].
pub(crate) fn content(mut source: impl Read, stops: &dyn Fn() -> bool) -> io::Result<FileContent> {
    let (digest, mut buffer) = (ByteDigest::default(), vec![0; READ_BYTES]);
    loop {
        match read(&mut source, &mut buffer, stops)? {
            0 => return Ok(digest.content()),
            read => digest.observe(&buffer[..read]),
        }
    }
}

fn read(source: &mut impl Read, buffer: &mut [u8], stops: &dyn Fn() -> bool) -> io::Result<usize> {
    loop {
        if stops() {
            return Err(io::Error::from(ErrorKind::Interrupted));
        }
        match source.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => return read,
        }
    }
}

/// The files of a feed that were or are being read, by content. All readers of the feed share it.
#[derive(Clone, Default)]
pub(crate) struct KnownFiles(Arc<Mutex<HashMap<FileContent, Arc<str>>>>);

impl KnownFiles {
    /// Claims a content for a partition that is about to be read. If another partition has claimed the same content,
    /// returns that.
    pub fn claim(&self, content: FileContent, partition: &Arc<str>) -> Option<Arc<str>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = known.entry(content).or_insert_with(|| partition.clone());
        (holder != partition).then(|| holder.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> FileContent {
        content(bytes, &|| false).expect("bytes can be read")
    }

    #[test]
    fn a_longer_version_is_told_from_another_file() {
        let cases: [(&[u8], &[u8], FileComparison); 6] = [
            (b"a\n1\n", b"a\n1\n", FileComparison::Same),
            (b"a\n1\n", b"a\n1\n2\n", FileComparison::Appended),
            (b"a\n1\n", b"a\n2\n3\n", FileComparison::Other),
            (b"a\n1\n", b"a\n", FileComparison::Other),
            (b"", b"a\n", FileComparison::Appended),
            (b"", b"", FileComparison::Same),
        ];
        for (earlier, now, expected) in cases {
            assert_eq!(compare(now, &of(earlier), &|| false).expect("bytes"), expected);
        }
        let stopped = compare(&b"a"[..], &of(b"a"), &|| true).expect_err("it was stopped");
        assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn the_first_file_that_holds_something_is_the_one_that_is_read() {
        let (known, one, two): (_, Arc<str>, Arc<str>) = (KnownFiles::default(), "one".into(), "two".into());
        assert_eq!(known.claim(of(b"x"), &one), None);
        assert_eq!(known.claim(of(b"x"), &two), Some(one.clone()));
        assert_eq!(known.claim(of(b"x"), &one), None, "again after a restart");
        assert_eq!(known.claim(of(b"y"), &two), None);
    }
}
