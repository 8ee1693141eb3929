//! Reads Parquet files to Arrow columns. Feeds and the archive use the same rules:
//!
//! 1. Footer and pages are validated before they are read (`footer`, `pages`), so that the reader never allocates
//!    more than a file's bytes can become; a panic of the reader is contained.
//! 2. Row groups are read one after another. A batch has rows of a single group, so that damage never takes rows of
//!    another.
//! 3. INT96 becomes a day and its nanoseconds, so that nothing is lost (`int96`).
//! 4. UUIDs are marked as such (`uuids`).
//! 5. The reader's output is validated before anything else uses it (`checked`): it makes strings of unvalidated
//!    bytes if a column is text by another annotation than UTF8 (JSON, ENUM, a logical type alone, an Arrow schema in
//!    the footer). Code that used such a string would panic, or worse.

mod footer;
mod int96;
mod pages;
mod thrift;
mod uuids;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;

use crate::contain::contain;
use crate::decode::damage::Damage;
use crate::repr::rows_at_once;

pub(crate) use int96::{INT96, nanos as int96_nanos};
pub(crate) use pages::check_pages;

/// The length of what follows the footer: its length, and the magic bytes.
const TAIL: u64 = 8;

/// Reads a file's footer; `fetch` returns a range of the file, which has `size` bytes.
///
/// # Errors
/// It is no Parquet file, it is encrypted, or its footer is damaged; or `fetch` fails.
pub(crate) fn read_metadata<E: From<Damage>>(
    size: u64,
    mut fetch: impl FnMut(Range<u64>) -> Result<Bytes, E>,
) -> Result<ArrowReaderMetadata, E> {
    let damage = |what: &str| Err(E::from(Damage(what.to_string())));
    // The magic bytes are also at the beginning of the file.
    if size < TAIL + 4 {
        return damage("it is too short for a Parquet file");
    }
    let tail = fetch(size - TAIL..size)?;
    let (length, magic) = tail.split_at_checked(4).unwrap_or_default();
    match magic {
        b"PAR1" => (),
        b"PARE" => return Err(Damage::encrypted().into()),
        _ => {
            return damage("it does not end as a Parquet file does: it is none, or was not written to its end");
        }
    }
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("four bytes were cut off")));
    if length > size - TAIL - 4 {
        return damage("its footer claims more bytes than the file has");
    }
    let footer = fetch(size - TAIL - length..size - TAIL)?;
    let read = contain(|| parse(&footer, size).and_then(uuids::marked)).map_err(Damage::of_panic);
    Ok(read.flatten()?)
}

fn parse(bytes: &[u8], size: u64) -> Result<ArrowReaderMetadata, Damage> {
    let as_damage = |error: ParquetError| match plain(&error) {
        // The reader of Arrow's schema has its own limit of nesting.
        text if text.contains("DepthLimitReached") => footer::too_deep(),
        text => Damage(text),
    };
    footer::check_bytes(bytes)?;
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(bytes).map_err(as_damage)?);
    footer::check_claims(&metadata, size)?;
    let metadata = match int96::as_bytes(&metadata).map_err(as_damage)? {
        None => metadata,
        Some(other) => Arc::new(other),
    };
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()).map_err(as_damage)
}

/// The row groups that have rows from `next` on, each with the number of its rows before that.
pub(crate) fn groups_from(metadata: &ParquetMetaData, next: u64) -> Vec<(usize, usize)> {
    let mut first = 0u64;
    let mut groups = Vec::new();
    for (group, rows) in metadata
        .row_groups()
        .iter()
        .map(|group| group.num_rows() as u64)
        .enumerate()
    {
        let before = next.saturating_sub(first);
        if before < rows {
            groups.push((group, before as usize));
        }
        first = first.saturating_add(rows);
    }
    groups
}

/// Validates the arrays of a batch from the reader, and converts INT96.
///
/// # Errors
/// A column has bytes that are invalid for its type.
pub(crate) fn checked(batch: RecordBatch, metadata: &ParquetMetaData) -> Result<RecordBatch, ArrowError> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if let Err(error) = column.to_data().validate_full() {
            let why = match &error {
                ArrowError::InvalidArgumentError(why) => why.clone(),
                other => other.to_string(),
            };
            return Err(Damage(format!("its column {:?} is damaged: {why}", field.name())).into());
        }
    }
    int96::read(batch, metadata)
}

/// The rows of a file from row `next` on, in batches of at most `rows` rows and about `bytes` bytes. `reopen` opens
/// the file again.
///
/// # Errors
/// See [`read_metadata`]. An item of the iterator fails if a page is damaged, and is the last.
pub(crate) fn batches<R: ChunkReader + 'static>(
    reopen: impl Fn() -> io::Result<R>,
    next: u64,
    (rows, bytes): (usize, u64),
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
    let file = reopen()?;
    let metadata = read_metadata(file.len(), |range| {
        bytes_of(&file, range.start, range.end - range.start)
    })?;
    let rows = rows_at_once(metadata.metadata(), rows, bytes);
    let mut groups = groups_from(metadata.metadata(), next).into_iter();
    let mut open: Option<ParquetRecordBatchReader> = None;
    let mut ended = false;
    let mut next_batch = move || -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            if let Some(batch) = open.as_mut().and_then(Iterator::next) {
                return checked(batch?, metadata.metadata()).map(Some);
            }
            let Some((group, before)) = groups.next() else {
                return Ok(None);
            };
            for column in metadata.metadata().row_group(group).columns() {
                check_pages(column, |start, length| bytes_of(&file, start, length))?;
            }
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(reopen()?, metadata.clone())
                .with_row_groups(vec![group])
                .with_batch_size(rows)
                .with_offset(before);
            open = Some(builder.build()?);
        }
    };
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let read = contain(&mut next_batch).map_err(|panic| Damage::of_panic(panic).into());
        let batch = read.flatten().transpose();
        ended = !matches!(batch, Some(Ok(_)));
        batch
    }))
}

fn bytes_of(file: &impl ChunkReader, start: u64, length: u64) -> Result<Bytes, ArrowError> {
    let length = usize::try_from(length).expect("parts of files fit into memory");
    Ok(file.get_bytes(start, length)?)
}

/// An error's message without the name of the library.
pub(crate) fn plain(error: &ParquetError) -> String {
    match error {
        ParquetError::General(text)
        | ParquetError::EOF(text)
        | ParquetError::NYI(text)
        | ParquetError::ArrowError(text) => text.clone(),
        other => other.to_string(),
    }
}
