//! Containers that were compressed as a whole, recognised by their first bytes: gzip, zstd, framed snappy.

use std::io::{self, BufReader, Chain, Cursor, Read};

/// A stream whose first bytes were read ahead and put back.
type RewoundStream<R> = Chain<Cursor<Vec<u8>>, R>;

/// A stream of the decompressed file.
#[expect(clippy::large_enum_variant, reason = "there is one a file")]
pub(super) enum UnpackedAvro<R: Read> {
    Plain(RewoundStream<R>),
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<RewoundStream<R>>>),
    Zstandard(zstd::stream::read::Decoder<'static, BufReader<RewoundStream<R>>>),
    Snappy(snap::read::FrameDecoder<RewoundStream<R>>),
}

impl<R: Read> UnpackedAvro<R> {
    /// Wraps a file that may be compressed.
    ///
    /// # Errors
    /// Failures of the source.
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut first = Vec::new();
        source.by_ref().take(10).read_to_end(&mut first)?;
        let head: [u8; 10] = std::array::from_fn(|at| first.get(at).copied().unwrap_or(0));
        let whole = Cursor::new(first).chain(source);
        Ok(match head {
            [0x1f, 0x8b, ..] => UnpackedAvro::Gzip(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                UnpackedAvro::Zstandard(zstd::stream::read::Decoder::with_buffer(BufReader::new(whole))?)
            }
            [0xff, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y'] => {
                UnpackedAvro::Snappy(snap::read::FrameDecoder::new(whole))
            }
            _ => UnpackedAvro::Plain(whole),
        })
    }
}

impl<R: Read> Read for UnpackedAvro<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            UnpackedAvro::Plain(source) => source.read(buffer),
            UnpackedAvro::Gzip(source) => source.read(buffer),
            UnpackedAvro::Zstandard(source) => source.read(buffer),
            UnpackedAvro::Snappy(source) => source.read(buffer),
        }
    }
}
