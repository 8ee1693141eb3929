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

use std::io::{self, Read};

use memchr::memchr;
use serde::{Deserialize, Serialize};

/// The longest head.
const HEAD: usize = 256;
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

/// The heads of all whole frames of a file, from its start to the first that is none, and where that is.
pub(super) fn scan(mut file: impl Read) -> io::Result<(Vec<Head>, u64)> {
    let (mut heads, mut end) = (Vec::new(), 0);
    let (mut bytes, mut at): (Vec<u8>, usize) = (Vec::new(), 0);
    let mut wanted = 1 << 20;
    loop {
        bytes.drain(..at);
        at = 0;
        let more = wanted - bytes.len().min(wanted);
        let got = (&mut file).take(more as u64).read_to_end(&mut bytes)?;
        wanted = 1 << 20;
        loop {
            match read(&bytes[at..]) {
                Found::Whole(head, _, length) => {
                    heads.push(head);
                    at += length;
                    end += length as u64;
                }
                Found::Short(length) if got > 0 => {
                    wanted = wanted.max(length);
                    break;
                }
                Found::Short(_) | Found::Broken => return Ok((heads, end)),
            }
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
    fn a_scan_ends_before_the_first_frame_that_is_not_whole() {
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
                let (heads, found) = scan(&file[..]).unwrap();
                assert_eq!((heads.len(), found), (whole, *end as u64));
            }
        }
        let (heads, _) = scan(&bytes[..]).unwrap();
        assert_eq!(heads.iter().map(|h| h.rows).collect::<Vec<_>>(), [1, 0, 1, 1]);
    }
}
