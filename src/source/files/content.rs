//! What a file holds, told by its bytes: whether two files are the same, and whether one is the longer version of another.
//!
//! 1. A hash is of the bytes as they are stored, from the first on.
//! 2. A file whose first bytes are all the bytes of an earlier version holds that version's records first: reading goes on
//!    behind them. So it is for text and for Avro, whose records come one after the other, compressed or not.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_128;

use crate::source::FileContent;

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// Hashes what somebody reads.
#[derive(Clone, Default)]
pub(crate) struct ByteDigest(Arc<Mutex<(XxHash3_128, u64)>>);

impl ByteDigest {
    pub fn observe(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.write(bytes);
        state.1 += bytes.len() as u64;
    }

    /// Of all that was read so far.
    pub fn content(&self) -> FileContent {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        FileContent {
            bytes: state.1,
            hash: format!("{:032x}", state.0.finish_128()),
        }
    }
}

/// What a file is to an earlier version of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileComparison {
    /// The same bytes.
    Same,
    /// The earlier bytes, and more.
    Appended,
    /// Other bytes.
    Other,
}

/// Compares a file with what an earlier version of it held; `stops` says whether to give up.
///
/// # Errors
/// Failures of the source; `Interrupted` where `stops` said so.
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

/// What a file holds.
///
/// # Errors
/// As of [`compare`].
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

/// The files of a feed that are read or being read, by what they hold. All readers of the feed share it.
#[derive(Clone, Default)]
pub(crate) struct KnownFiles(Arc<Mutex<HashMap<FileContent, Arc<str>>>>);

impl KnownFiles {
    /// A file is read, or begins to be, unless another one holds the same: then that one's partition.
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
