//! Decompresses streams that consist of concatenated members: gzip's members, zstd's frames, streams of bzip2 and xz.
//!
//! Each member is decompressed alone, so that bytes behind the last one are distinguished from damage: zeros are
//! skipped, as gzip does, because tapes and some mirrors pad files with them; other bytes are refused with a
//! description of what they are.

use std::io::{self, BufRead, ErrorKind, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use thiserror::Error;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::magic::Packing;
use super::suspects::VerifiedBytes;

/// Why a compressed file cannot be read although it is not damaged, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct UnsupportedPacking(String);

/// A reader of the decompressed bytes of all members.
pub(super) struct Members<R> {
    packing: Packing,
    state: State<R>,
    /// How many bytes were decompressed; `proven` is how many of them belong to members whose checksums matched.
    given: u64,
    proven: VerifiedBytes,
    /// Whether every member so far has a checksum.
    has_checksums: bool,
}

enum State<R> {
    Member(Box<Member<R>>),
    /// Before the first member, or behind a member.
    Between {
        source: R,
        is_first: bool,
    },
    End,
}

enum Member<R> {
    Gzip(GzDecoder<R>),
    Zstd(ZstdDecoder<'static, R>),
    Bzip2(BzDecoder<R>),
    Xz(XzDecoder<R>),
}

impl<R: BufRead> Member<R> {
    fn new(packing: Packing, source: R) -> io::Result<Self> {
        Ok(match packing {
            Packing::Gzip => Member::Gzip(GzDecoder::new(source)),
            Packing::Zstd => Member::Zstd(ZstdDecoder::with_buffer(source)?.single_frame()),
            Packing::Bzip2 => Member::Bzip2(BzDecoder::new(source)),
            Packing::Xz => Member::Xz(XzDecoder::new(source)),
            Packing::Snappy => unreachable!("snappy's frame format is one stream of parts"),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Member::Gzip(member) => member.read(buffer),
            Member::Zstd(member) => member.read(buffer).map_err(of_zstd),
            Member::Bzip2(member) => member.read(buffer),
            Member::Xz(member) => member.read(buffer),
        }
    }

    fn into_inner(self) -> R {
        match self {
            Member::Gzip(member) => member.into_inner(),
            Member::Zstd(member) => member.into_inner(),
            Member::Bzip2(member) => member.into_inner(),
            Member::Xz(member) => member.into_inner(),
        }
    }
}

/// Classifies an error of zstd by its message, because the library gives nothing else.
fn of_zstd(error: io::Error) -> io::Error {
    let what = match error.to_string().as_str() {
        "Frame requires too much memory for decoding" => {
            "its zstd frames have a window of more than the 128 MiB that are read; compress it again without --long, or with at most \
             --long=27"
        }
        "Dictionary mismatch" => {
            "zstd compressed it with a dictionary, which is not at hand; compress it again without one"
        }
        _ => return error,
    };
    io::Error::new(ErrorKind::InvalidData, UnsupportedPacking(what.to_string()))
}

impl<R: BufRead> Members<R> {
    pub fn new(packing: Packing, source: R, proven: VerifiedBytes) -> Self {
        Members {
            packing,
            state: State::Between { source, is_first: true },
            given: 0,
            proven,
            has_checksums: true,
        }
    }

    /// Starts the member that begins with these bytes.
    fn begin(&mut self, source: R, head: &[u8; HEAD]) -> io::Result<()> {
        self.has_checksums &= match self.packing {
            Packing::Zstd => head[4] & 4 != 0,
            Packing::Xz => head[7] & 0xf != 0,
            _ => true,
        };
        self.state = State::Member(Box::new(Member::new(self.packing, source)?));
        Ok(())
    }
}

/// How many bytes of a member show whether it has a checksum.
const HEAD: usize = 8;

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::End) {
                State::Member(mut member) => {
                    let read = member.read(buffer);
                    self.given += *read.as_ref().unwrap_or(&0) as u64;
                    if matches!(read, Ok(0)) {
                        if self.has_checksums {
                            self.proven.set(self.given);
                        }
                        let source = member.into_inner();
                        self.state = State::Between {
                            source,
                            is_first: false,
                        };
                        continue;
                    }
                    self.state = State::Member(member);
                    return read;
                }
                State::Between { mut source, is_first } => {
                    let bytes = match source.fill_buf() {
                        Ok([]) => return Ok(0),
                        Ok(bytes) => bytes,
                        Err(error) => {
                            self.state = State::Between { source, is_first };
                            return Err(error);
                        }
                    };
                    let padding = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                    if padding > 0 {
                        source.consume(padding);
                        self.state = State::Between { source, is_first };
                        continue;
                    }
                    if !is_first && !self.packing.may_begin(bytes) {
                        let name = self.packing.name();
                        return Err(io::Error::new(
                            ErrorKind::InvalidData,
                            UnsupportedPacking(format!(
                                "all that {name} compressed was read, and behind its end are bytes that are no {name}; cut them off, and \
                                 if they hold records, drop these as a new file"
                            )),
                        ));
                    }
                    let mut head = [0; HEAD];
                    let known = bytes.len().min(HEAD);
                    head[..known].copy_from_slice(&bytes[..known]);
                    self.begin(source, &head)?;
                }
                State::End => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(packing: Packing, text: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                writer.write_all(text).unwrap();
                writer.finish().unwrap()
            }
            Packing::Zstd => {
                let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
                writer.include_checksum(true).unwrap();
                writer.write_all(text).unwrap();
                writer.finish().unwrap()
            }
            Packing::Bzip2 => {
                let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
                writer.write_all(text).unwrap();
                writer.finish().unwrap()
            }
            Packing::Xz => liblzma::encode_all(text, 6).unwrap(),
            Packing::Snappy => unreachable!(),
        }
    }

    fn read(packing: Packing, bytes: &[u8], proven: &VerifiedBytes) -> (Vec<u8>, Option<io::Error>) {
        read_by(7, packing, bytes, proven) // so that members and buffers end in different places
    }

    fn read_by(at_once: usize, packing: Packing, bytes: &[u8], proven: &VerifiedBytes) -> (Vec<u8>, Option<io::Error>) {
        let source = io::BufReader::with_capacity(at_once, bytes);
        let mut text = Vec::new();
        let mut members = Members::new(packing, source, proven.clone());
        let error = members.read_to_end(&mut text).err();
        (text, error)
    }

    /// The dead letter of a file with bytes behind its end used to say that its records may be wrong, or that its end
    /// was missing.
    #[test]
    fn what_stands_behind_the_last_member_is_told_from_damage() {
        for packing in [Packing::Gzip, Packing::Zstd, Packing::Bzip2, Packing::Xz] {
            let name = packing.name();
            let two = [packed(packing, b"a,1\n"), packed(packing, &b"b,2\n".repeat(1000))].concat();
            let text = [&b"a,1\n"[..], &b"b,2\n".repeat(1000)].concat();
            let proven = VerifiedBytes::default();
            assert_eq!(read(packing, &two, &VerifiedBytes::default()).0, text, "{name}");
            assert_eq!(read_by(1 << 16, packing, &two, &proven).0, text, "{name}");
            assert_eq!(proven.get(), text.len() as u64, "{name}");
            let filled_up = [&two[..], &[0; 1000], &two, &[0; 3]].concat();
            let (twice, error) = read(packing, &filled_up, &proven);
            assert!(twice.len() == 2 * text.len() && error.is_none(), "{name}: {error:?}");
            for behind in [&b"\n"[..], b"x,3\ny,4\n", b"\x1e\x8b\x28"] {
                let (read_text, error) = read(packing, &[&two, behind].concat(), &proven);
                let error = error.unwrap();
                assert_eq!(read_text, text, "{name}");
                assert!(error.get_ref().unwrap().is::<UnsupportedPacking>(), "{name}: {error}");
            }
            // An incomplete member may still be being written.
            let torn = [&two[..], &two[..two.len() / 3]].concat();
            let error = read(packing, &torn, &proven).1.unwrap();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{name}: {error}");
            let begun = [&two[..], &two[..1]].concat();
            let error = read(packing, &begun, &proven).1.unwrap();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{name}: {error}");
        }
    }

    #[test]
    fn what_zstd_needs_more_for_than_there_is_is_told_with_a_remedy() {
        // A frame with a window of 2 GiB, which `zstd --long=31` writes for a stream.
        let wide = b"\x28\xb5\x2f\xfd\x00\xa8\x21\x00\x00a,1\n";
        // A frame that needs dictionary 7.
        let foreign = b"\x28\xb5\x2f\xfd\x21\x07\x04\x21\x00\x00a,1\n";
        for (bytes, words) in [(&wide[..], "--long"), (foreign, "dictionary")] {
            let error = read(Packing::Zstd, bytes, &VerifiedBytes::default()).1.unwrap();
            assert!(error.get_ref().unwrap().is::<UnsupportedPacking>(), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
