//! Reads archived Parquet files with the parquet crate, and Avro containers with arrow-avro, without the checks,
//! markers and rules of our own readers.

use std::io::Cursor;

use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ProjectionMask, arrow_reader::ArrowReaderOptions};
use parquet::basic::Type;

use crate::contain::contain;
use crate::decode::is_whole_container;
use crate::definition::Format;
use crate::serve::archive::{ArchivedRows, Unreadable};

/// The rows of a file from number `next` on.
pub fn rows(format: Format, bytes: Bytes, next: u64, at_once: usize) -> Result<ArchivedRows, Unreadable> {
    let batches = contain(|| match format {
        Format::Parquet => parquet(bytes, next, at_once),
        _ => avro(bytes, next, at_once),
    });
    let mut batches = batches??;
    Ok(Box::new(std::iter::from_fn(move || match contain(|| batches.next()) {
        Ok(batch) => batch,
        Err(panic) => Some(Err(ArrowError::ExternalError(panic.into()))),
    })))
}

/// Columns of INT96 are left out, because arrow reads them as nanoseconds, whose range ends in 2262.
fn parquet(bytes: Bytes, next: u64, at_once: usize) -> Result<ArchivedRows, Unreadable> {
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, ArrowReaderOptions::new())?;
    let leaves = reader.parquet_schema().columns();
    let known = (0..leaves.len()).filter(|leaf| leaves[*leaf].physical_type() != Type::INT96);
    let mask = ProjectionMask::leaves(reader.parquet_schema(), known);
    let reader = reader.with_projection(mask).with_batch_size(at_once);
    Ok(Box::new(reader.with_offset(usize::try_from(next)?).build()?))
}

/// A container with a damaged block is not read: arrow-avro never returns from a block with bytes behind the records that
/// it claims, or with values without number.
fn avro(bytes: Bytes, next: u64, at_once: usize) -> Result<ArchivedRows, Unreadable> {
    if !is_whole_container(bytes.as_ref()) {
        return Err("a block of it is damaged".into());
    }
    let reader = arrow_avro::reader::ReaderBuilder::new().with_batch_size(at_once);
    let mut before = usize::try_from(next)?;
    let batches = reader.build(Cursor::new(bytes))?.map(move |batch| {
        batch.map(|batch| {
            let passed = before.min(batch.num_rows());
            before -= passed;
            batch.slice(passed, batch.num_rows() - passed)
        })
    });
    Ok(Box::new(batches))
}
