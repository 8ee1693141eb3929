//! Decides how many rows of a Parquet file are read at once, such that they take a bounded number of bytes. The
//! decision is based on the file's metadata, before any page is read.

use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

/// The greatest size in bytes that is assumed for a value whose size the metadata does not tell, because it is
/// repeated from a dictionary.
const UNTOLD: u64 = 64 << 10;

/// How many rows to read at once: at most `most`, and fewer if these would take more than `bytes` bytes.
pub fn rows_at_once(metadata: &ParquetMetaData, most: usize, bytes: u64) -> usize {
    let widest = metadata.row_groups().iter().map(row_bytes).max().unwrap_or(0);
    match usize::try_from(bytes / widest.max(1)) {
        Ok(rows) => rows.clamp(1, most.max(1)),
        Err(_) => most,
    }
}

/// The average size in bytes of a row of a row group.
fn row_bytes(group: &RowGroupMetaData) -> u64 {
    let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
    let mut known = 0;
    let mut unknown = 0;
    for chunk in group.columns() {
        match chunk_bytes(chunk) {
            Some(bytes) => known += bytes,
            None => unknown = unknown.max(size(chunk).min(UNTOLD)),
        }
    }
    known.div_ceil(rows) + unknown
}

/// The size in bytes of a chunk's decoded values, if the metadata tells it.
fn chunk_bytes(chunk: &ColumnChunkMetaData) -> Option<u64> {
    if chunk.column_type() != Type::BYTE_ARRAY {
        return Some(size(chunk));
    }
    match chunk.unencoded_byte_array_data_bytes() {
        Some(bytes) => u64::try_from(bytes).ok(),
        None => chunk.encodings().all(is_as_long).then(|| size(chunk)),
    }
}

/// Whether encoded values take as many bytes as decoded ones. Among the encodings are those of levels, which are
/// small.
fn is_as_long(encoding: parquet::basic::Encoding) -> bool {
    use parquet::basic::Encoding;
    !matches!(
        encoding,
        Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY | Encoding::DELTA_BYTE_ARRAY
    )
}

fn size(chunk: &ColumnChunkMetaData) -> u64 {
    u64::try_from(chunk.uncompressed_size()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::*;

    #[test]
    fn rows_with_large_values_are_read_a_few_at_once_whatever_their_encoding() {
        let long = "x".repeat(100_000);
        for (statistics, dictionary, expected) in [
            (EnabledStatistics::Page, true, 10),
            (EnabledStatistics::None, false, 10),
            (EnabledStatistics::None, true, 16),
        ] {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&long, 50)));
            let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
            let properties = WriterProperties::builder()
                .set_statistics_enabled(statistics)
                .set_dictionary_enabled(dictionary);
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
            writer.write(&batch).unwrap();
            let bytes = Bytes::from(writer.into_inner().unwrap());
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            let rows = rows_at_once(builder.metadata(), 8192, 1 << 20);
            assert!(
                rows <= expected && rows >= expected / 2,
                "{statistics:?} {dictionary}: {rows}"
            );
            assert_eq!(rows_at_once(builder.metadata(), 3, 1 << 30), 3);
        }
    }
}
