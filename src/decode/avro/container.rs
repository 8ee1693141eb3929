//! Avro object container files: their blocks, taken apart into records.
//!
//! A file's records become batches of one column, [`RECORD`], which holds each record's bytes; the batch's schema says by which
//! Avro schema they were written ([`SCHEMA`]). So a container's records go to columns as single records do (`plan`), and the
//! rules of `read` hold for both.
//!
//! 1. A block is taken as a whole or not at all: its marker must be the file's, its bytes must be as many records as it says.
//!    Where a block is damaged, the file ends before it.
//! 2. Nothing is allocated by a length that the file claims: what is read grows with the bytes that come, what is unpacked
//!    ends at [`UNPACKED_PER_BYTE`] times the block's bytes or [`UNPACKED`].
//! 3. A block's records cost what a record of as many bytes may cost (`read`), so that records without bytes end, too.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;

use super::super::damage::Damage;
use super::packed::Unpacked;
use super::read::Cursor;
use super::schema::Schema;
use crate::contain::contain;

/// The column of batches: each record's bytes.
pub(super) const RECORD: &str = "record";

/// Under what a batch's schema keeps the Avro schema of its records.
pub(super) const SCHEMA: &str = "avro.schema";

/// The longest header, and the longest block as it is stored.
const LONGEST: u64 = 1 << 30;

/// Bytes that a byte of a block may become, and how many any block may.
const UNPACKED_PER_BYTE: u64 = 1000;
const UNPACKED: u64 = 64 << 20;

/// Memory that unpacking xz may take; its strongest usual preset takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// Bytes of a batch from which on it is given out.
const BATCH_BYTES: usize = 8 << 20;

type Marker = [u8; 16];

#[derive(Clone, Copy, Debug)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
    Bzip2,
    Xz,
}

/// The records of an object container file, also of one that was compressed as a whole, from number `next` on, in batches of at most `rows`.
///
/// # Errors
/// It is no such file, or its records have no fields; the iterator's items fail where a block is damaged, and that is the
/// last. Failures of `source` are [`ArrowError::IoError`].
pub(crate) fn read_container(
    source: impl Read,
    next: u64,
    rows: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
    // Numbers are read byte by byte.
    let mut container = Container::open(BufReader::new(Unpacked::new(source)?))?;
    let mut left_out = next;
    let mut gathered = Gathered::default();
    let mut broken: Option<ArrowError> = None;
    let mut ended = false;
    let mut next_batch = move || -> Option<Result<RecordBatch, ArrowError>> {
        while !ended && gathered.len() < rows && gathered.bytes.len() - gathered.start < BATCH_BYTES {
            match container.next_block() {
                Ok(Some(block)) => gathered.add(&block, &mut left_out),
                Ok(None) => ended = true,
                Err(error) => (ended, broken) = (true, Some(error)),
            }
        }
        if gathered.len() > 0 {
            return Some(Ok(gathered.take(rows, &container.batches)));
        }
        broken.take().map(Err)
    };
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let read = contain(&mut next_batch).unwrap_or_else(|panic| Some(Err(Damage::of_panic(panic).into())));
        over = !matches!(read, Some(Ok(_)));
        read
    }))
}

/// Records on their way into a batch.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of these records were given out, and where they end.
    given: usize,
    start: usize,
}

impl Gathered {
    fn len(&self) -> usize {
        self.ends.len() - self.given
    }

    /// Adds a block's records, without as many as are to be left out.
    fn add(&mut self, block: &Block, left_out: &mut u64) {
        let skipped = (*left_out).min(block.ends.len() as u64) as usize;
        *left_out -= skipped as u64;
        let from = skipped.checked_sub(1).map_or(0, |last| block.ends[last]);
        // Few are left of the blocks before: less than a batch.
        self.bytes.drain(..self.start);
        self.ends.drain(..self.given);
        self.ends.iter_mut().for_each(|end| *end -= self.start);
        (self.given, self.start) = (0, 0);
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&block.bytes[from..]);
        self.ends
            .extend(block.ends[skipped..].iter().map(|end| end - from + before));
    }

    /// The first records, at most `rows`.
    fn take(&mut self, rows: usize, schema: &SchemaRef) -> RecordBatch {
        let ends = &self.ends[self.given..];
        let ends = &ends[..ends.len().min(rows)];
        let end = ends.last().copied().unwrap_or(self.start);
        let offsets: Vec<i32> = std::iter::once(&self.start)
            .chain(ends)
            .map(|end| i32::try_from(end - self.start).expect("a block is shorter than 2 GiB"))
            .collect();
        let records = BinaryArray::new(
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            Buffer::from(&self.bytes[self.start..end]),
            None,
        );
        self.given += ends.len();
        self.start = end;
        RecordBatch::try_new(schema.clone(), vec![Arc::new(records) as ArrayRef]).expect("one column of bytes")
    }
}

/// A file that is open behind its header.
struct Container<R> {
    source: R,
    /// Of batches.
    batches: SchemaRef,
    schema: Schema,
    codec: Codec,
    marker: Marker,
    /// How many blocks were read.
    blocks: u64,
}

/// One block's records.
struct Block {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
}

fn damage<T>(what: impl Into<String>) -> Result<T, ArrowError> {
    Err(Damage(what.into()).into())
}

impl<R: Read> Container<R> {
    fn open(mut source: R) -> Result<Self, ArrowError> {
        if take(&mut source, 4)? != b"Obj\x01" {
            return damage("it is no Avro object container file: it does not begin with Obj and version 1");
        }
        let (mut text, mut codec) = (None, None);
        loop {
            let count = match long(&mut source)? {
                Some(0) => break,
                Some(count) if count < 0 => {
                    long(&mut source)?; // the entries' bytes
                    count.unsigned_abs()
                }
                Some(count) => count.unsigned_abs(),
                None => return damage("its header ends too early"),
            };
            for _ in 0..count {
                let (key, value) = (sized(&mut source)?, sized(&mut source)?);
                match &key[..] {
                    b"avro.schema" => text = Some(value),
                    b"avro.codec" => codec = Some(value),
                    _ => (),
                }
            }
        }
        let marker: Marker = match take(&mut source, 16)?.try_into() {
            Ok(marker) => marker,
            Err(_) => return damage("its header ends too early"),
        };
        let codec = match codec.as_deref() {
            None | Some(b"" | b"null") => Codec::Null,
            Some(b"deflate") => Codec::Deflate,
            Some(b"snappy") => Codec::Snappy,
            Some(b"zstandard") => Codec::Zstandard,
            Some(b"bzip2") => Codec::Bzip2,
            Some(b"xz") => Codec::Xz,
            Some(other) => {
                let name = String::from_utf8_lossy(other);
                return damage(format!(
                    "its codec {name:?} is not known; write it with deflate, snappy, zstandard, bzip2 or xz"
                ));
            }
        };
        let Some(Ok(text)) = text.map(String::from_utf8) else {
            return damage("its header has no schema");
        };
        let schema = Schema::of_text(&text).or_else(|reason| damage(format!("its schema cannot be read: {reason}")))?;
        if schema.record(schema.root).is_none() {
            return damage("its values are no records, so that they have no fields for columns");
        }
        let field = Field::new(RECORD, DataType::Binary, false);
        let metadata = [(SCHEMA.to_string(), text)].into();
        Ok(Container {
            source,
            batches: Arc::new(ArrowSchema::new_with_metadata(vec![field], metadata)),
            schema,
            codec,
            marker,
            blocks: 0,
        })
    }

    /// The next block; none behind the last.
    fn next_block(&mut self) -> Result<Option<Block>, ArrowError> {
        let Some(count) = long(&mut self.source)? else {
            return Ok(None);
        };
        self.blocks += 1;
        let number = self.blocks;
        let torn = || damage(format!("its block {number} is torn: the file ends inside of it"));
        let size = match long(&mut self.source)?.map(u64::try_from) {
            None => return torn(),
            Some(Ok(size)) if size <= LONGEST => size,
            Some(_) => return damage(format!("its block {number} claims a length that cannot be")),
        };
        let packed = take(&mut self.source, size)?;
        if packed.len() as u64 != size {
            return torn();
        }
        let marker = take(&mut self.source, 16)?;
        if marker.len() < 16 {
            return torn();
        }
        if marker != self.marker {
            return damage(format!(
                "the sync marker behind its block {number} is not the file's: bytes were lost or changed"
            ));
        }
        let bytes = match self.codec.unpack(packed) {
            Ok(bytes) => bytes,
            Err(reason) => return damage(format!("its block {number} cannot be unpacked: {reason}")),
        };
        let ends = self.ends(&bytes, count);
        let ends =
            ends.or_else(|reason| damage(format!("its block {number} is not what its schema says: {reason}")))?;
        Ok(Some(Block { bytes, ends }))
    }

    /// Where each of a block's records ends, by (1) and (3).
    fn ends(&self, bytes: &[u8], count: i64) -> Result<Vec<usize>, String> {
        let mut ends = Vec::new();
        let mut cursor = Cursor::new(bytes);
        for record in 0..count {
            let skipped = cursor.skip(&self.schema, self.schema.root, 0);
            skipped.map_err(|bad| format!("{} at byte {} of it, in its record {}", bad.what, bad.at, record + 1))?;
            ends.push(cursor.at());
        }
        if count < 0 || cursor.end().is_err() {
            return Err(format!("it claims {count} records, and has bytes of others"));
        }
        Ok(ends)
    }
}

/// So many bytes, or fewer where the source ends.
fn take(source: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A number; none where the source ends before it.
fn long(source: &mut impl Read) -> Result<Option<i64>, ArrowError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let mut byte = [0];
        match source.read_exact(&mut byte) {
            Ok(()) => (),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && shift == 0 => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return damage("it ends inside of a number"),
            Err(e) => return Err(e.into()),
        }
        value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte[0] < 0x80 {
            return Ok(Some((value >> 1) as i64 ^ -((value & 1) as i64)));
        }
    }
    damage("it has a number of more than 64 bits")
}

/// Bytes behind their length.
fn sized(source: &mut impl Read) -> Result<Vec<u8>, ArrowError> {
    match long(source)?.map(u64::try_from) {
        Some(Ok(length)) if length <= LONGEST => {
            let bytes = take(source, length)?;
            if bytes.len() as u64 == length {
                return Ok(bytes);
            }
            damage("its header ends too early")
        }
        _ => damage("its header claims a length that cannot be"),
    }
}

impl Codec {
    /// The bytes of a block, by (2).
    fn unpack(self, packed: Vec<u8>) -> Result<Vec<u8>, String> {
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
        match self {
            Codec::Null => Ok(packed),
            Codec::Deflate => all(&mut flate2::read::DeflateDecoder::new(&packed[..])),
            Codec::Zstandard => {
                let mut reader = zstd::stream::read::Decoder::with_buffer(&packed[..]).map_err(|e| e.to_string())?;
                all(&mut reader)
            }
            Codec::Bzip2 => all(&mut bzip2::read::MultiBzDecoder::new(&packed[..])),
            Codec::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(|error| error.to_string())?;
                all(&mut liblzma::read::XzDecoder::new_stream(&packed[..], stream))
            }
            Codec::Snappy => {
                // Behind the bytes is a checksum of what they become.
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
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
