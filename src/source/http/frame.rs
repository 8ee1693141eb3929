//! A request's rows as they stand in the log: all of them, or none.
//!
//! ```text
//! 5f3a09c1 {"rows":2,"bytes":34,"at":1795260472387,"key":"<32 hex digits>","body":"<32 hex digits>"}
//! {"id": 1, "state": "new"}
//! {"id": 2}
//! ```
//!
//! 1. A frame is a head, one line, and its rows, one a line. In front stands the CRC-32 of all that follows: a frame that a
//!    crash cut off, or whose bytes the disk never had, is known from what it says itself.
//! 2. What a request's key and body were stands in the head, as digests: so a key is on the disk exactly if the rows are.
//! 3. Where bytes are damaged, the next whole frame is looked for byte by byte; what a damaged head says of a length counts
//!    for nothing.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};
use serde::{Deserialize, Serialize};

/// The longest head.
const HEAD: usize = 256;
/// What is read of a file at a time.
const READ: usize = 1 << 20;
/// How a head begins behind its checksum.
const BEGINNING: &[u8] = b" {\"rows\":";
/// Digits of the checksum, and a space.
const SUM: usize = 9;

/// The first half of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest(pub [u8; 16]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Digest {
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
pub(super) struct Keyed {
    pub key: Digest,
    /// Of what was sent, as it is before compression.
    pub body: Digest,
}

/// What stands before the rows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub rows: u64,
    /// Of the rows' lines.
    pub bytes: u64,
    /// When the request was there, in Unix milliseconds.
    pub at: u64,
    #[serde(flatten)]
    pub keyed: Option<Keyed>,
}

/// Appends a frame. `lines`: the rows, each ended by a line break.
pub(super) fn write(head: &Head, lines: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[b' '; SUM]);
    serde_json::to_writer(&mut *out, head).expect("plain data, written to memory");
    out.push(b'\n');
    out.extend_from_slice(lines);
    let sum = format!("{:08x}", crc32fast::hash(&out[start + SUM..]));
    out[start..start + SUM - 1].copy_from_slice(sum.as_bytes());
}

/// What bytes begin with.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// A frame of so many bytes, the last of which are its rows' lines.
    Whole(Head, &'a [u8], usize),
    /// A frame that needs at least so many bytes.
    Short(usize),
    /// None.
    Broken,
}

/// Looks at what begins here.
pub(super) fn read(bytes: &[u8]) -> Found<'_> {
    let Some(end) = memchr(b'\n', &bytes[..bytes.len().min(HEAD)]) else {
        return match bytes.len() < HEAD {
            true => Found::Short(bytes.len() + 1),
            false => Found::Broken,
        };
    };
    let head = bytes.get(SUM..end).and_then(|json| serde_json::from_slice(json).ok());
    let sum = bytes.first_chunk::<8>().and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        u32::from_str_radix(digits, 16).ok()
    });
    let (Some(head), Some(sum)) = (head, sum) else {
        return Found::Broken;
    };
    let head: Head = head;
    let Some(length) = usize::try_from(head.bytes).ok().and_then(|n| n.checked_add(end + 1)) else {
        return Found::Broken;
    };
    match bytes.get(SUM..length) {
        None => Found::Short(length),
        Some(summed) if crc32fast::hash(summed) == sum => Found::Whole(head, &bytes[end + 1..length], length),
        Some(_) => Found::Broken,
    }
}

/// The first whole frame behind the first byte: where it begins, which need not be a line's start where a line's end was
/// damaged. No row is taken for one: nothing in JSON puts digits, a space and an object behind one another.
pub(super) fn next_whole(bytes: &[u8]) -> Option<usize> {
    let starts = memmem::find_iter(bytes, BEGINNING).filter_map(|found| found.checked_sub(SUM - 1));
    let mut starts = starts.filter(|start| *start > 0);
    starts.find(|start| matches!(read(&bytes[*start..]), Found::Whole(..)))
}

/// Whether what follows the last whole frame is the beginning of one that a crash cut off. Anything else was written as a
/// whole once, and is damaged.
fn is_torn(rest: &[u8]) -> bool {
    let (head, rows) = match memchr(b'\n', &rest[..rest.len().min(HEAD)]) {
        Some(end) => (rest.get(SUM..end), &rest[end + 1..]),
        None => return !rest.ends_with(b"\n"),
    };
    match head.and_then(|json| serde_json::from_slice::<Head>(json).ok()) {
        // A length that was damaged asks for more bytes than its rows have.
        Some(head) => {
            let has_rows = rows.ends_with(b"\n") && memchr_iter(b'\n', rows).count() as u64 >= head.rows;
            (rows.len() as u64) < head.bytes && !has_rows
        }
        None => !rest.ends_with(b"\n"),
    }
}

/// What a file of frames holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scan {
    /// Of its whole frames.
    pub heads: Vec<Head>,
    /// Where what was written as a whole ends: what follows is the beginning of a frame, at most.
    pub end: u64,
    /// Where bytes are that are no frames, and were once.
    pub damaged: Vec<Range<u64>>,
}

/// Looks through a file of frames.
pub(super) fn scan(mut file: impl Read) -> io::Result<Scan> {
    let mut scan = Scan::default();
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
                Found::Whole(head, _, length) => {
                    scan.heads.push(head);
                    at += length;
                    scan.end += length as u64;
                    continue;
                }
                Found::Short(length) if got > 0 => {
                    wanted = wanted.max(length);
                    break;
                }
                Found::Short(_) | Found::Broken => {}
            }
            // By (3), and a segment fits into memory.
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

    fn head(rows: u64, lines: &[u8], key: Option<&str>) -> Head {
        Head {
            rows,
            bytes: lines.len() as u64,
            at: 1_795_260_472_387,
            keyed: key.map(|key| Keyed {
                key: Digest::of(key.as_bytes()),
                body: Digest::of(lines),
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
            assert_eq!(read(&bytes), Found::Whole(head(2, lines, key), lines, length));
            for cut in 0..length {
                let found = read(&bytes[..cut]);
                assert!(
                    matches!(found, Found::Short(wanted) if wanted > cut && wanted <= length),
                    "{cut}: {found:?}"
                );
            }
            for at in 0..length {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                let found = read(&wrong);
                // A length that became another may ask for more.
                let harmless = at == SUM - 1; // the space
                assert!(harmless || !matches!(found, Found::Whole(..)), "{at}: {found:?}");
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

    fn log() -> (Vec<u8>, Vec<usize>, Vec<Head>) {
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

    /// One flipped byte dropped every request behind it, as one that was never answered.
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
                    // The space behind the sum, and digits of it that are capital letters now, say what they said.
                    assert_eq!((found.heads.len(), found.end), (4, bytes.len() as u64), "{at} {flip}");
                    continue;
                }
                let others: Vec<Head> = (0..4).filter(|n| *n != frame).map(|n| heads[n]).collect();
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
