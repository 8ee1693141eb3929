//! Reads Avro object container files, and splits their blocks into records.
//!
//! A file's records become batches with a column of each record's bytes, [`RECORD`]; the batch's schema has the Avro
//! schema of the records ([`SCHEMA`]). So a container's records are converted to columns like single records
//! (`plan`), and the rules of `read` apply to both.
//!
//! 1. A block is used as a whole or not at all: its sync marker must be the file's, and its bytes must be the claimed
//!    number of records.
//! 2. No allocation depends on a length that the file claims: buffers grow with the bytes that are read, and
//!    decompressed sizes are bounded (`codec`).
//! 3. All records of a block share the limit of values that a record with as many bytes has (`read`), so that records
//!    without bytes are limited, too.
//! 4. A damaged block counts as one record without bytes, whose reason is in the column [`DAMAGE`]. Reading continues
//!    behind the next sync marker. The outcome depends only on the file's bytes, so each record always has the same
//!    number.
//! 5. Damage behind the last marker, or after [`MOST_DAMAGED`] damaged blocks, ends the file.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;
use memchr::memmem;

use crate::contain::contain;
use crate::decode::damage::Damage;
use crate::decode::formats::avro::codec::{Codec, LONGEST};
use crate::decode::formats::avro::packed::UnpackedAvro;
use crate::decode::formats::avro::read::Cursor;
use crate::decode::formats::avro::rescan::RescanBuffer;
use crate::decode::formats::avro::schema::AvroSchema;

/// The column with each record's bytes.
pub(super) const RECORD: &str = "record";

/// The column with the reason why a block that counts as a record is damaged.
pub(super) const DAMAGE: &str = "damage";

/// The metadata key of the Avro schema in a batch's schema.
pub(super) const SCHEMA: &str = "avro.schema";

/// How many damaged blocks of a file are skipped; each may cost as much as a whole block.
const MOST_DAMAGED: usize = 100;

/// A batch is handed out once it has this number of bytes.
const BATCH_BYTES: usize = 8 << 20;

/// The most bytes of two encoded numbers.
const NUMBERS: u64 = 20;

type SyncMarker = [u8; 16];

/// The records of an object container file, which may be compressed as a whole, from number `next` on, in batches of
/// at most `rows`.
///
/// # Errors
/// It is not such a file, or its records have no fields. An item of the iterator fails if damage ends the file (5),
/// and is the last. Failures of `source` are [`ArrowError::IoError`].
pub(crate) fn read_container(
    source: impl Read,
    next: u64,
    rows: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
    // Numbers are read byte by byte, hence the buffer.
    let mut container = Container::open(BufReader::new(UnpackedAvro::new(source)?))?;
    let mut left_out = next;
    let mut gathered = GatheredRecords::default();
    let mut broken: Option<ArrowError> = None;
    let mut ended = false;
    let mut next_batch = move || -> Option<Result<RecordBatch, ArrowError>> {
        while !ended && gathered.len() < rows && gathered.bytes.len() - gathered.start < BATCH_BYTES {
            match container.next_part() {
                Ok(Some(FilePart::Block(block))) => gathered.add(&block, &mut left_out),
                Ok(Some(FilePart::Damaged(reason))) => gathered.add_damaged(reason, &mut left_out),
                Ok(None) => ended = true,
                Err(error) => (ended, broken) = (true, Some(error)),
            }
        }
        if gathered.len() > 0 {
            return Some(Ok(gathered.take_batch(rows, &container.batches)));
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

/// Whether a container can be read and each of its blocks has the records that it claims.
pub(crate) fn is_whole_container(source: impl Read) -> bool {
    const ROWS: usize = 8192;
    let is_whole = |batch: Result<RecordBatch, ArrowError>| {
        let damage = batch.ok().and_then(|batch| batch.column_by_name(DAMAGE).cloned());
        damage.is_some_and(|damage| damage.null_count() == damage.len())
    };
    read_container(source, 0, ROWS).is_ok_and(|mut batches| batches.all(is_whole))
}

/// Records that are gathered into batches.
#[derive(Default)]
struct GatheredRecords {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of these records were handed out, and where they end.
    handed_out: usize,
    start: usize,
    /// How many records were handed out before these.
    before: u64,
    /// Damaged blocks, by number counted from the first record ever handed out, with the reasons.
    damaged: VecDeque<(u64, String)>,
}

impl GatheredRecords {
    fn len(&self) -> usize {
        self.ends.len() - self.handed_out
    }

    /// Adds a block's records, except the first `left_out` ones.
    fn add(&mut self, block: &Block<'_>, left_out: &mut u64) {
        let skipped = (*left_out).min(block.ends.len() as u64) as usize;
        *left_out -= skipped as u64;
        let from = skipped.checked_sub(1).map_or(0, |last| block.ends[last]);
        self.forget();
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&block.bytes[from..]);
        self.ends
            .extend(block.ends[skipped..].iter().map(|end| end - from + before));
    }

    /// Adds a damaged block, unless it is to be left out.
    fn add_damaged(&mut self, reason: String, left_out: &mut u64) {
        if *left_out > 0 {
            *left_out -= 1;
            return;
        }
        self.forget();
        self.damaged.push_back((self.before + self.ends.len() as u64, reason));
        self.ends.push(self.bytes.len());
    }

    /// Discards what was handed out; what remains is less than a batch.
    fn forget(&mut self) {
        self.bytes.drain(..self.start);
        self.ends.drain(..self.handed_out);
        self.ends.iter_mut().for_each(|end| *end -= self.start);
        self.before += self.handed_out as u64;
        (self.handed_out, self.start) = (0, 0);
    }

    /// Takes the first records, at most `rows`.
    fn take_batch(&mut self, rows: usize, schema: &SchemaRef) -> RecordBatch {
        let ends = &self.ends[self.handed_out..];
        let ends = &ends[..ends.len().min(rows)];
        let end = ends.last().copied().unwrap_or(self.start);
        let offsets: Vec<i32> = std::iter::once(&self.start)
            .chain(ends)
            .map(|end| i32::try_from(end - self.start).expect("a block is shorter than 2 GiB"))
            .collect();
        let first = self.before + self.handed_out as u64;
        let mut reasons: Vec<Option<String>> = vec![None; ends.len()];
        let here = self
            .damaged
            .partition_point(|(record, _)| *record < first + ends.len() as u64);
        for (record, reason) in self.damaged.drain(..here) {
            reasons[(record - first) as usize] = Some(reason);
        }
        let whole: NullBuffer = reasons.iter().map(Option::is_none).collect();
        let records = BinaryArray::new(
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            Buffer::from(&self.bytes[self.start..end]),
            Some(whole).filter(|whole| whole.null_count() > 0),
        );
        self.handed_out += ends.len();
        self.start = end;
        let columns: Vec<ArrayRef> = vec![Arc::new(records), Arc::new(StringArray::from(reasons))];
        RecordBatch::try_new(schema.clone(), columns).expect("a column of bytes and one of texts")
    }
}

/// A file whose header was read.
struct Container<R> {
    buffer: RescanBuffer<R>,
    /// The schema of batches.
    batches: SchemaRef,
    schema: AvroSchema,
    codec: Codec,
    marker: SyncMarker,
    /// How many blocks were read, and how many of them were damaged.
    blocks: u64,
    damaged: usize,
}

/// The next part of a file.
enum FilePart<'a> {
    Block(Block<'a>),
    /// A damaged block, with the reason.
    Damaged(String),
}

/// One block's records.
struct Block<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where each record ends.
    ends: Vec<usize>,
}

/// A block that was found valid.
struct ValidBlock {
    /// The length of the numbers before its bytes, and of its bytes.
    head: usize,
    size: usize,
    /// Its decompressed bytes, if it was compressed.
    unpacked: Option<Vec<u8>>,
    ends: Vec<usize>,
}

/// Why a block is damaged.
struct BlockDamage {
    what: String,
    /// The block's end, if that is known in spite of the damage; counted from its beginning.
    end: Option<usize>,
}

impl BlockDamage {
    fn torn() -> BlockDamage {
        BlockDamage::somewhere("the file ends inside of it")
    }

    fn somewhere(what: impl Into<String>) -> BlockDamage {
        BlockDamage {
            what: what.into(),
            end: None,
        }
    }
}

fn damage<T>(what: impl Into<String>) -> Result<T, ArrowError> {
    Err(Damage(what.into()).into())
}

impl<R: Read> Container<R> {
    fn open(source: R) -> Result<Self, ArrowError> {
        let mut source = CountedReader { source, read: 0 };
        if read_up_to(&mut source, 4)? != b"Obj\x01" {
            return damage("it is no Avro object container file: it does not begin with Obj and version 1");
        }
        let (mut text, mut codec) = (None, None);
        loop {
            let count = match long(&mut source)? {
                Some(0) => break,
                Some(count) if count < 0 => {
                    long(&mut source)?; // the length of the block's entries in bytes
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
        let marker: SyncMarker = match read_up_to(&mut source, 16)?.try_into() {
            Ok(marker) => marker,
            Err(_) => return damage("its header ends too early"),
        };
        let codec = Codec::named(codec.as_deref()).or_else(damage)?;
        let Some(Ok(text)) = text.map(String::from_utf8) else {
            return damage("its header has no schema");
        };
        let schema =
            AvroSchema::of_text(&text).or_else(|reason| damage(format!("its schema cannot be read: {reason}")))?;
        if schema.record(schema.root).is_none() {
            return damage("its values are no records, so that they have no fields for columns");
        }
        let fields = vec![
            Field::new(RECORD, DataType::Binary, true),
            Field::new(DAMAGE, DataType::Utf8, true),
        ];
        let metadata = [(SCHEMA.to_string(), text)].into();
        Ok(Container {
            buffer: RescanBuffer::new(source.source, source.read),
            batches: Arc::new(ArrowSchema::new_with_metadata(fields, metadata)),
            schema,
            codec,
            marker,
            blocks: 0,
            damaged: 0,
        })
    }

    /// Reads the next block; none after the last one. By (4), damage is reported as a part and not as an error.
    fn next_part(&mut self) -> Result<Option<FilePart<'_>>, ArrowError> {
        self.buffer.forget();
        if !self.buffer.hold(1)? {
            return Ok(None);
        }
        self.blocks += 1;
        let start = self.buffer.position();
        let wrong = match self.check_block()? {
            Ok(ValidBlock {
                head,
                size,
                unpacked,
                ends,
            }) => {
                self.buffer.go_past(head + size + 16);
                let bytes = match unpacked {
                    Some(bytes) => Cow::Owned(bytes),
                    None => Cow::Borrowed(&self.buffer.passed(size + 16)[..size]),
                };
                return Ok(Some(FilePart::Block(Block { bytes, ends })));
            }
            Err(wrong) => wrong,
        };
        let number = self.blocks;
        let place = format!("block {number} of the file, at its byte {start}");
        self.damaged += 1;
        if self.damaged > MOST_DAMAGED {
            return damage(format!(
                "more than {MOST_DAMAGED} of its blocks are damaged, the last of them {place}"
            ));
        }
        match wrong.end {
            Some(end) => self.buffer.go_past(end),
            None if self.buffer.go_behind(&self.marker)? => (),
            None => {
                return damage(format!(
                    "{place}, is damaged, and no other comes behind it: {}",
                    wrong.what
                ));
            }
        }
        Ok(Some(FilePart::Damaged(format!(
            "{place}, is damaged, and none of its records can be used: {}; bring them again in a new file",
            wrong.what
        ))))
    }
    /// Validates the next block, which stays buffered. The outer result has failures of the source.
    fn check_block(&mut self) -> io::Result<Result<ValidBlock, BlockDamage>> {
        self.buffer.hold(NUMBERS)?;
        let mut rest = self.buffer.buffered();
        let numbers = (long(&mut rest), long(&mut rest));
        let head = self.buffer.buffered().len() - rest.len();
        let (claimed, size) = match numbers {
            (Ok(Some(claimed)), Ok(Some(size))) => (claimed, size),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(BlockDamage::somewhere(error.to_string()))),
            _ => return Ok(Err(BlockDamage::torn())),
        };
        let size = match u64::try_from(size) {
            Ok(size) if size <= LONGEST => size as usize,
            _ => return Ok(Err(BlockDamage::somewhere("it claims a length that cannot be"))),
        };
        let end = head + size + 16;
        if !self.buffer.hold(end as u64)? {
            return Ok(Err(BlockDamage::torn()));
        }
        let buffered = &self.buffer.buffered()[head..end];
        let (packed, marker) = buffered.split_at(size);
        let read = self.codec.unpack(packed);
        let read = read.map_err(|reason| format!("it cannot be unpacked: {reason}"));
        let read = read.and_then(|bytes| {
            let ends = self.ends(&bytes, claimed);
            let ends = ends.map_err(|reason| format!("it is not what its schema says: {reason}"))?;
            Ok((ends, bytes))
        });
        let is_marked = marker == self.marker;
        let are_whole = match read {
            Ok((ends, bytes)) if is_marked => {
                let unpacked = match bytes {
                    Cow::Owned(bytes) => Some(bytes),
                    Cow::Borrowed(_) => None,
                };
                return Ok(Ok(ValidBlock {
                    head,
                    size,
                    unpacked,
                    ends,
                }));
            }
            Err(what) if is_marked => return Ok(Err(BlockDamage { what, end: Some(end) })),
            read => claimed > 0 && read.is_ok(),
        };
        let what = "the sync marker behind it is not the file's: bytes were lost or changed".to_string();
        // If the records are complete and no marker is near, only this block's marker is damaged, and the next block
        // begins behind it.
        self.buffer.hold((end + 15) as u64)?;
        let buffered = self.buffer.buffered();
        let is_near = memmem::find(&buffered[..buffered.len().min(end + 15)], &self.marker).is_some();
        let end = Some(end).filter(|_| are_whole && !is_near);
        Ok(Err(BlockDamage { what, end }))
    }

    /// The end of each record in a block, by (1) and (3).
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

/// Reads `length` bytes, or fewer if the source ends.
fn read_up_to(source: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a number; none if the source ends first.
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

/// Reads bytes that follow their length.
fn sized(source: &mut impl Read) -> Result<Vec<u8>, ArrowError> {
    match long(source)?.map(u64::try_from) {
        Some(Ok(length)) if length <= LONGEST => {
            let bytes = read_up_to(source, length)?;
            if bytes.len() as u64 == length {
                return Ok(bytes);
            }
            damage("its header ends too early")
        }
        _ => damage("its header claims a length that cannot be"),
    }
}

/// Counts the bytes that are read.
struct CountedReader<R> {
    source: R,
    read: u64,
}

impl<R: Read> Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
