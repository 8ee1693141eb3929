//! Parquet files to Arrow columns.

use std::fs::File;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

/// The rows of a local Parquet file, in batches of at most `batch_size`.
///
/// # Errors
/// Where it is not a Parquet file; the iterator's items fail where a page is damaged.
pub fn read_file(
    file: File,
    batch_size: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ParquetError> {
    ParquetRecordBatchReaderBuilder::try_new(file)?
        .with_batch_size(batch_size)
        .build()
}
