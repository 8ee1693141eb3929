//! The encoding of a request's rows in the log: a frame, which is read whole or not at all.
//!
//! ```text
//! 5f3a09c1 {"rows":2,"bytes":34,"at":1795260472387,"key":"<32 hex digits>","body":"<32 hex digits>"}
//! {"id": 1, "state": "new"}
//! {"id": 2}
//! ```
//!
//! 1. A frame consists of a head, which is one line, and the rows, one per line. In front stands the CRC-32 of all
//!    that follows, so that a frame that a crash cut off, or that never reached the disk, is recognised by itself.
//! 2. The head contains digests of the request's idempotency key and body, so a key is on the disk exactly if the
//!    rows are.
//! 3. If bytes are damaged, the next valid frame is searched byte by byte; a length in a damaged head is not trusted.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};
use serde::{Deserialize, Serialize};

/// The longest head, in bytes.
const HEAD: usize = 256;
/// How many bytes of a file are read at once.
const READ: usize = 1 << 20;
/// The beginning of every head, behind the checksum.
const BEGINNING: &[u8] = b" {\"rows\":";
/// The length of the checksum's digits and the space behind them.
const SUM: usize = 9;

/// The first half of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest(pub [u8; 16]);

impl Digest {
    pub fn half_sha256(bytes: &[u8]) -> Digest {
        let whole = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        Digest(*whole.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:032x}", u128::from_be_bytes(self.0)))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Digest(number.to_be_bytes()))
    }
}

/// What is remembered of a request with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdempotencyRecord {
    pub key: Digest,
    /// The digest of the body, after decompression.
    pub body: Digest,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FrameHead {
    pub rows: u64,
    /// The length of the rows' lines.
    pub bytes: u64,
    /// When the request arrived, in Unix milliseconds.
    pub at: u64,
    #[serde(flatten)]
    pub keyed: Option<IdempotencyRecord>,
}

/// Appends a frame to `out`. `lines` are the rows, each ended by a line break.
pub(super) fn write(head: &FrameHead, lines: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[b' '; SUM]);
    serde_json::to_writer(&mut *out, head).expect("plain data, written to memory");
    out.push(b'\n');
    out.extend_from_slice(lines);
    let sum = format!("{:08x}", crc32fast::hash(&out[start + SUM..]));
    out[start..start + SUM - 1].copy_from_slice(sum.as_bytes());
}

/// The result of parsing a frame at the start of some bytes.
#[derive(Debug, PartialEq)]
pub(super) enum ParsedFrame<'a> {
    /// A valid frame: its head, the lines of its rows, and its length in bytes.
    Whole(FrameHead, &'a [u8], usize),
    /// Perhaps a frame, which needs at least this number of bytes.
    Short(usize),
    /// No frame.
    Broken,
}

/// Parses a frame at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> ParsedFrame<'_> {
    let Some(end) = memchr(b'\n', &bytes[..bytes.len().min(HEAD)]) else {
        return match bytes.len() < HEAD {
            true => ParsedFrame::Short(bytes.len() + 1),
            false => ParsedFrame::Broken,
        };
    };
    let head = bytes.get(SUM..end).and_then(|json| serde_json::from_slice(json).ok());
    let sum = bytes.first_chunk::<8>().and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        u32::from_str_radix(digits, 16).ok()
    });
    let (Some(head), Some(sum)) = (head, sum) else {
        return ParsedFrame::Broken;
    };
    let head: FrameHead = head;
    let Some(length) = usize::try_from(head.bytes).ok().and_then(|n| n.checked_add(end + 1)) else {
        return ParsedFrame::Broken;
    };
    match bytes.get(SUM..length) {
        None => ParsedFrame::Short(length),
        Some(summed) if crc32fast::hash(summed) == sum => ParsedFrame::Whole(head, &bytes[end + 1..length], length),
        Some(_) => ParsedFrame::Broken,
    }
}

/// The offset of the first valid frame behind the first byte. It need not be at the start of a line, because a line
/// break may be damaged. A row is never mistaken for a frame: in JSON, digits, a space and an object never follow
/// each other.
pub(super) fn next_whole(bytes: &[u8]) -> Option<usize> {
    let starts = memmem::find_iter(bytes, BEGINNING).filter_map(|found| found.checked_sub(SUM - 1));
    let mut starts = starts.filter(|start| *start > 0);
    starts.find(|start| matches!(read(&bytes[*start..]), ParsedFrame::Whole(..)))
}

/// Whether the bytes behind the last valid frame are the beginning of a frame that a crash cut off. If not, they were
/// written completely once, and are damaged.
fn is_torn(rest: &[u8]) -> bool {
    let (head, rows) = match memchr(b'\n', &rest[..rest.len().min(HEAD)]) {
        Some(end) => (rest.get(SUM..end), &rest[end + 1..]),
        None => return !rest.ends_with(b"\n"),
    };
    match head.and_then(|json| serde_json::from_slice::<FrameHead>(json).ok()) {
        // A damaged length may ask for more bytes than there are although all rows are there.
        Some(head) => {
            let has_rows = rows.ends_with(b"\n") && memchr_iter(b'\n', rows).count() as u64 >= head.rows;
            (rows.len() as u64) < head.bytes && !has_rows
        }
        None => !rest.ends_with(b"\n"),
    }
}

/// The result of scanning a file of frames.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrameScan {
    /// The heads of all valid frames.
    pub heads: Vec<FrameHead>,
    /// Where the completely written frames end; only the beginning of a torn frame can follow.
    pub end: u64,
    /// Byte ranges that were frames once, and are damaged.
    pub damaged: Vec<Range<u64>>,
}

/// Scans a file of frames.
pub(super) fn scan(mut file: impl Read) -> io::Result<FrameScan> {
    let mut scan = FrameScan::default();
    let (mut bytes, mut at): (Vec<u8>, usize) = (Vec::new(), 0);
    let mut wanted = READ;
    loop {
        bytes.drain(..at);
        at = 0;
        let more = wanted - bytes.len().min(wanted);
        let got = (&mut file).take(more as u64).read_to_end(&mut bytes)?;
        wanted = READ;
        loop {
            match read(&bytes[at..]) {
                ParsedFrame::Whole(head, _, length) => {
                    scan.heads.push(head);
                    at += length;
                    scan.end += length as u64;
                    continue;
                }
                ParsedFrame::Short(length) if got > 0 => {
                    wanted = wanted.max(length);
                    break;
                }
                ParsedFrame::Short(_) | ParsedFrame::Broken => {}
            }
            // By (3), the search needs all that follows; a segment fits into memory.
            file.read_to_end(&mut bytes)?;
            let rest = &bytes[at..];
            let length = match next_whole(rest) {
                Some(length) => length,
                None if is_torn(rest) => return Ok(scan),
                None => rest.len(),
            };
            scan.damaged.push(scan.end..scan.end + length as u64);
            at += length;
            scan.end += length as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(rows: u64, lines: &[u8], key: Option<&str>) -> FrameHead {
        FrameHead {
            rows,
            bytes: lines.len() as u64,
            at: 1_795_260_472_387,
            keyed: key.map(|key| IdempotencyRecord {
                key: Digest::half_sha256(key.as_bytes()),
                body: Digest::half_sha256(lines),
            }),
        }
    }

    #[test]
    fn a_frame_is_read_back_whole_and_of_no_part_of_it() {
        let lines = b"{\"id\":1}\n{\"id\":2}\n";
        for key in [None, Some("k")] {
            let mut bytes = Vec::new();
            write(&head(2, lines, key), lines, &mut bytes);
            assert!(bytes.len() < HEAD);
            let length = bytes.len();
            assert_eq!(read(&bytes), ParsedFrame::Whole(head(2, lines, key), lines, length));
            for cut in 0..length {
                let found = read(&bytes[..cut]);
                assert!(
                    matches!(found, ParsedFrame::Short(wanted) if wanted > cut && wanted <= length),
                    "{cut}: {found:?}"
                );
            }
            for at in 0..length {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                let found = read(&wrong);
                // A damaged length may ask for more bytes.
                let harmless = at == SUM - 1; // the space
                assert!(harmless || !matches!(found, ParsedFrame::Whole(..)), "{at}: {found:?}");
            }
        }
    }

    #[test]
    fn a_scan_ends_before_a_frame_that_is_torn() {
        let long = [vec![b'x'; 3 << 20], b"\n".to_vec()].concat();
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for (rows, lines) in [(1, &b"1\n"[..]), (0, b""), (1, &long), (1, b"2\n")] {
            write(&head(rows, lines, Some("k")), lines, &mut bytes);
            ends.push(bytes.len());
        }
        for (whole, end) in ends.iter().enumerate() {
            for tail in [&b""[..], &bytes[..40], &[0; 5000]] {
                let file = [&bytes[..*end], tail].concat();
                let found = scan(&file[..]).unwrap();
                assert_eq!((found.heads.len(), found.end), (whole, *end as u64));
                assert_eq!(found.damaged, []);
            }
        }
        let found = scan(&bytes[..]).unwrap();
        assert_eq!(found.heads.iter().map(|h| h.rows).collect::<Vec<_>>(), [1, 0, 1, 1]);
    }

    fn log() -> (Vec<u8>, Vec<usize>, Vec<FrameHead>) {
        let (mut bytes, mut ends, mut heads) = (Vec::new(), vec![0], Vec::new());
        for (n, lines) in ["{\"id\":1}\n", "{\"id\":2}\n{\"id\":3}\n", "", "[4]\n"]
            .iter()
            .enumerate()
        {
            let rows = lines.lines().count() as u64;
            let head = head(rows, lines.as_bytes(), (n % 2 == 0).then_some("k"));
            write(&head, lines.as_bytes(), &mut bytes);
            ends.push(bytes.len());
            heads.push(head);
        }
        (bytes, ends, heads)
    }

    /// One flipped byte in the log dropped every request behind it, as if it had never been answered.
    #[test]
    fn a_damaged_byte_takes_its_own_frame_and_no_other() {
        let (bytes, ends, heads) = log();
        for at in 0..bytes.len() {
            let frame = ends.iter().filter(|end| **end <= at).count() - 1;
            for flip in [1, 0x80, 0xff, b'\n' ^ bytes[at]] {
                let mut wrong = bytes.clone();
                wrong[at] ^= flip;
                let found = scan(&wrong[..]).unwrap();
                if found.damaged.is_empty() {
                    // Another byte in place of the space, or a digit of the checksum as a capital letter, leaves
                    // the frame valid.
                    assert_eq!((found.heads.len(), found.end), (4, bytes.len() as u64), "{at} {flip}");
                    continue;
                }
                let others: Vec<FrameHead> = (0..4).filter(|n| *n != frame).map(|n| heads[n]).collect();
                assert_eq!(found.heads, others, "{at} {flip}");
                assert_eq!(
                    found.damaged,
                    std::slice::from_ref(&(ends[frame] as u64..ends[frame + 1] as u64)),
                    "{at} {flip}"
                );
                assert_eq!(found.end, bytes.len() as u64);
            }
        }
    }

    #[test]
    fn a_log_that_ends_early_keeps_its_whole_frames_and_calls_none_damaged() {
        let (bytes, ends, _) = log();
        for cut in 0..bytes.len() {
            let found = scan(&bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!((found.heads.len(), found.end), (whole, ends[whole] as u64), "{cut}");
            assert_eq!(found.damaged, [], "{cut}");
        }
    }

    #[test]
    fn bytes_that_a_disk_lost_take_the_frames_that_they_were_of() {
        let (bytes, ends, heads) = log();
        let mut zeroed = bytes.clone();
        zeroed[ends[1] - 3..ends[2] + 5].fill(0);
        let found = scan(&zeroed[..]).unwrap();
        assert_eq!(found.heads, [heads[3]]);
        assert_eq!(found.damaged, std::slice::from_ref(&(0..ends[3] as u64)));
    }
}
