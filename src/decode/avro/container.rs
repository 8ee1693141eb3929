//! Avro object container files: their blocks, taken apart into records.
//!
//! A file's records become batches with a column of each record's bytes, [`RECORD`]; the batch's schema says by which Avro schema
//! they were written ([`SCHEMA`]). So a container's records go to columns as single records do (`plan`), and the rules of `read`
//! hold for both.
//!
//! 1. A block is taken as a whole or not at all: its marker must be the file's, its bytes must be as many records as it says.
//! 2. Nothing is allocated by a length that the file claims: what is held grows with the bytes that come, what is unpacked
//!    is bounded (`codec`).
//! 3. A block's records cost what a record of as many bytes may cost (`read`), so that records without bytes end, too.
//! 4. A damaged block stands for one record, without bytes, which column [`DAMAGE`] says the reason of. Reading goes on behind
//!    the next marker. What a file comes to depends on its bytes alone, so each record has the same number whenever it is read.
//! 5. Behind the last marker, and behind [`MOST_DAMAGED`] blocks, damage ends the file.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use arrow::error::ArrowError;
use memchr::memmem;

use super::super::damage::Damage;
use super::codec::{Codec, LONGEST};
use super::packed::Unpacked;
use super::read::Cursor;
use super::schema::Schema;
use super::tape::Tape;
use crate::contain::contain;

/// The column of batches: each record's bytes.
pub(super) const RECORD: &str = "record";

/// The column of batches: what is wrong with a block that stands for a record.
pub(super) const DAMAGE: &str = "damage";

/// Under what a batch's schema keeps the Avro schema of its records.
pub(super) const SCHEMA: &str = "avro.schema";

/// Damaged blocks of a file that are passed over: each may cost as much as a block may become.
const MOST_DAMAGED: usize = 100;

/// Bytes of a batch from which on it is given out.
const BATCH_BYTES: usize = 8 << 20;

/// The most bytes that two numbers take.
const NUMBERS: u64 = 20;

type Marker = [u8; 16];

/// The records of an object container file, also of one that was compressed as a whole, from number `next` on, in batches of at most `rows`.
///
/// # Errors
/// It is no such file, or its records have no fields; the iterator's items fail where damage ends the file (5), and that is
/// the last. Failures of `source` are [`ArrowError::IoError`].
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
            match container.next_part() {
                Ok(Some(Part::Block(block))) => gathered.add(&block, &mut left_out),
                Ok(Some(Part::Damaged(reason))) => gathered.add_damaged(reason, &mut left_out),
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
    /// How many records were given out before these.
    before: u64,
    /// Which records are damaged blocks, counted from the first that was ever given out, and why.
    damaged: VecDeque<(u64, String)>,
}

impl Gathered {
    fn len(&self) -> usize {
        self.ends.len() - self.given
    }

    /// Adds a block's records, without as many as are to be left out.
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

    /// Lets go of what was given out: few are left of the blocks before, less than a batch.
    fn forget(&mut self) {
        self.bytes.drain(..self.start);
        self.ends.drain(..self.given);
        self.ends.iter_mut().for_each(|end| *end -= self.start);
        self.before += self.given as u64;
        (self.given, self.start) = (0, 0);
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
        let first = self.before + self.given as u64;
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
        self.given += ends.len();
        self.start = end;
        let columns: Vec<ArrayRef> = vec![Arc::new(records), Arc::new(StringArray::from(reasons))];
        RecordBatch::try_new(schema.clone(), columns).expect("a column of bytes and one of texts")
    }
}

/// A file that is open behind its header.
struct Container<R> {
    tape: Tape<R>,
    /// Of batches.
    batches: SchemaRef,
    schema: Schema,
    codec: Codec,
    marker: Marker,
    /// How many blocks were read, and how many of them are damaged.
    blocks: u64,
    damaged: usize,
}

/// What comes next in a file.
enum Part<'a> {
    Block(Block<'a>),
    /// A block that cannot be used, and why.
    Damaged(String),
}

/// One block's records.
struct Block<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where each record ends.
    ends: Vec<usize>,
}

/// A whole block.
struct Checked {
    /// Bytes of the numbers in front of it, and its own.
    head: usize,
    size: usize,
    /// Its bytes, where they were packed.
    unpacked: Option<Vec<u8>>,
    ends: Vec<usize>,
}

/// What is wrong with a block.
struct Wrong {
    what: String,
    /// Where it ends, if that is known all the same: bytes from where it begins.
    end: Option<usize>,
}

impl Wrong {
    fn torn() -> Wrong {
        Wrong::somewhere("the file ends inside of it")
    }

    fn somewhere(what: impl Into<String>) -> Wrong {
        Wrong {
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
        let mut source = Counted { source, read: 0 };
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
        let codec = Codec::named(codec.as_deref()).or_else(damage)?;
        let Some(Ok(text)) = text.map(String::from_utf8) else {
            return damage("its header has no schema");
        };
        let schema = Schema::of_text(&text).or_else(|reason| damage(format!("its schema cannot be read: {reason}")))?;
        if schema.record(schema.root).is_none() {
            return damage("its values are no records, so that they have no fields for columns");
        }
        let fields = vec![
            Field::new(RECORD, DataType::Binary, true),
            Field::new(DAMAGE, DataType::Utf8, true),
        ];
        let metadata = [(SCHEMA.to_string(), text)].into();
        Ok(Container {
            tape: Tape::new(source.source, source.read),
            batches: Arc::new(ArrowSchema::new_with_metadata(fields, metadata)),
            schema,
            codec,
            marker,
            blocks: 0,
            damaged: 0,
        })
    }

    /// Reads the next block. By (4), damage is an answer of its own; none after the last block.
    fn next_part(&mut self) -> Result<Option<Part<'_>>, ArrowError> {
        self.tape.forget();
        if !self.tape.hold(1)? {
            return Ok(None);
        }
        self.blocks += 1;
        let start = self.tape.position();
        let wrong = match self.look()? {
            Ok(Checked {
                head,
                size,
                unpacked,
                ends,
            }) => {
                self.tape.go_past(head + size + 16);
                let bytes = match unpacked {
                    Some(bytes) => Cow::Owned(bytes),
                    None => Cow::Borrowed(&self.tape.passed(size + 16)[..size]),
                };
                return Ok(Some(Part::Block(Block { bytes, ends })));
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
            Some(end) => self.tape.go_past(end),
            None if self.tape.go_behind(&self.marker)? => (),
            None => {
                return damage(format!(
                    "{place}, is damaged, and no other comes behind it: {}",
                    wrong.what
                ));
            }
        }
        Ok(Some(Part::Damaged(format!(
            "{place}, is damaged, and none of its records can be used: {}; bring them again in a new file",
            wrong.what
        ))))
    }
    /// Looks the next block over, which is held from then on. Failures of the source aside.
    fn look(&mut self) -> io::Result<Result<Checked, Wrong>> {
        self.tape.hold(NUMBERS)?;
        let mut rest = self.tape.held();
        let numbers = (long(&mut rest), long(&mut rest));
        let head = self.tape.held().len() - rest.len();
        let (claimed, size) = match numbers {
            (Ok(Some(claimed)), Ok(Some(size))) => (claimed, size),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(Wrong::somewhere(error.to_string()))),
            _ => return Ok(Err(Wrong::torn())),
        };
        let size = match u64::try_from(size) {
            Ok(size) if size <= LONGEST => size as usize,
            _ => return Ok(Err(Wrong::somewhere("it claims a length that cannot be"))),
        };
        let end = head + size + 16;
        if !self.tape.hold(end as u64)? {
            return Ok(Err(Wrong::torn()));
        }
        let held = &self.tape.held()[head..end];
        let (packed, marker) = held.split_at(size);
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
                return Ok(Ok(Checked {
                    head,
                    size,
                    unpacked,
                    ends,
                }));
            }
            Err(what) if is_marked => return Ok(Err(Wrong { what, end: Some(end) })),
            read => claimed > 0 && read.is_ok(),
        };
        let what = "the sync marker behind it is not the file's: bytes were lost or changed".to_string();
        // Where records come out even and no marker is near, the marker alone is damaged. The next block's ends later.
        self.tape.hold((end + 15) as u64)?;
        let held = self.tape.held();
        let is_near = memmem::find(&held[..held.len().min(end + 15)], &self.marker).is_some();
        let end = Some(end).filter(|_| are_whole && !is_near);
        Ok(Err(Wrong { what, end }))
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

/// Counts the bytes that are read.
struct Counted<R> {
    source: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
