//! The compression of blocks in object container files.

use std::borrow::Cow;
use std::io::Read;

/// The most bytes of a compressed block.
pub(super) const LONGEST: u64 = 1 << 30;

/// How many bytes each byte of a block may decompress to, and the least limit for a whole block.
const UNPACKED_PER_BYTE: u64 = 1000;
const UNPACKED: u64 = 64 << 20;

/// How much memory xz decompression may use; its strongest usual preset uses 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// The codec that a file's header names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
    Bzip2,
    Xz,
}

impl Codec {
    /// The codec with a name.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn named(name: Option<&[u8]>) -> Result<Codec, String> {
        Ok(match name {
            None | Some(b"" | b"null") => Codec::Null,
            Some(b"deflate") => Codec::Deflate,
            Some(b"snappy") => Codec::Snappy,
            Some(b"zstandard") => Codec::Zstandard,
            Some(b"bzip2") => Codec::Bzip2,
            Some(b"xz") => Codec::Xz,
            Some(other) => {
                let name = String::from_utf8_lossy(other);
                return Err(format!(
                    "its codec {name:?} is not known; write it with deflate, snappy, zstandard, bzip2 or xz"
                ));
            }
        })
    }

    /// Decompresses a block: to at most [`UNPACKED_PER_BYTE`] times its length, or [`UNPACKED`] if that is more.
    ///
    /// # Errors
    /// The block is damaged, or decompresses to more bytes.
    pub fn unpack(self, packed: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        let most = (packed.len() as u64)
            .saturating_mul(UNPACKED_PER_BYTE)
            .clamp(UNPACKED, LONGEST);
        let too_long = || format!("it becomes more than {most} bytes");
        let all = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            let read = reader.take(most + 1).read_to_end(&mut bytes);
            read.map_err(|error| error.to_string())?;
            match bytes.len() as u64 > most {
                true => Err(too_long()),
                false => Ok(bytes),
            }
        };
        let unpacked = match self {
            Codec::Null => return Ok(Cow::Borrowed(packed)),
            Codec::Deflate => all(&mut flate2::read::DeflateDecoder::new(packed)),
            Codec::Zstandard => {
                let mut reader = zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| e.to_string())?;
                all(&mut reader)
            }
            Codec::Bzip2 => all(&mut bzip2::read::MultiBzDecoder::new(packed)),
            Codec::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(|error| error.to_string())?;
                all(&mut liblzma::read::XzDecoder::new_stream(packed, stream))
            }
            Codec::Snappy => {
                // The block ends with a checksum of the decompressed bytes.
                let (packed, sum) = packed.split_last_chunk::<4>().ok_or("it is too short")?;
                let length = snap::raw::decompress_len(packed).map_err(|error| error.to_string())?;
                if length as u64 > most {
                    return Err(too_long());
                }
                let unpacked = snap::raw::Decoder::new().decompress_vec(packed);
                let unpacked = unpacked.map_err(|error| error.to_string())?;
                match crc32fast::hash(&unpacked) == u32::from_be_bytes(*sum) {
                    true => Ok(unpacked),
                    false => Err("its checksum is another".to_string()),
                }
            }
        };
        unpacked.map(Cow::Owned)
    }
}
