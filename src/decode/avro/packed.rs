//! Containers that were compressed as a whole, told by their first bytes: gzip, zstd, framed snappy.

use std::io::{self, BufReader, Chain, Cursor, Read};

/// The first bytes put back before the others.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// A file's plain bytes.
#[expect(clippy::large_enum_variant, reason = "there is one a file")]
pub(super) enum Unpacked<R: Read> {
    Plain(Whole<R>),
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<Whole<R>>>),
    Zstandard(zstd::stream::read::Decoder<'static, BufReader<Whole<R>>>),
    Snappy(snap::read::FrameDecoder<Whole<R>>),
}

impl<R: Read> Unpacked<R> {
    /// Of a file that may be compressed.
    ///
    /// # Errors
    /// Failures of the source.
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut first = Vec::new();
        source.by_ref().take(10).read_to_end(&mut first)?;
        let head: [u8; 10] = std::array::from_fn(|at| first.get(at).copied().unwrap_or(0));
        let whole = Cursor::new(first).chain(source);
        Ok(match head {
            [0x1f, 0x8b, ..] => Unpacked::Gzip(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Unpacked::Zstandard(zstd::stream::read::Decoder::with_buffer(BufReader::new(whole))?)
            }
            [0xff, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y'] => {
                Unpacked::Snappy(snap::read::FrameDecoder::new(whole))
            }
            _ => Unpacked::Plain(whole),
        })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(source) => source.read(buffer),
            Unpacked::Gzip(source) => source.read(buffer),
            Unpacked::Zstandard(source) => source.read(buffer),
            Unpacked::Snappy(source) => source.read(buffer),
        }
    }
}
