//! Encodes columns as Parquet files with Delta's statistics, and decodes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::bounds::FileStatistics;
use super::error::WriterError;
use super::layout::{SLICE, SLICE_BYTES, SharedPartitionValues, TableLayout, slice_of, to_log};
use crate::repr::{Diff, Epoch, Row, rows_at_once};
use crate::sink::{AddFile, ChangeFile};

/// Gives data files names that are unique in the lake, made of epoch, generation, writer and a count. A worker's
/// clones share the count, so its names must all come from clones of one `FileNames`.
#[derive(Clone)]
pub(super) struct FileNames {
    writer: usize,
    generation: u64,
    next: Arc<AtomicU64>,
}

impl FileNames {
    /// The names of one writer.
    pub(super) fn new(writer: usize, generation: u64) -> Self {
        FileNames {
            writer,
            generation,
            next: Arc::default(),
        }
    }

    fn name(&self, epoch: Epoch) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{epoch}-g{}-w{}-{n}.parquet", self.generation, self.writer)
    }
}

/// Whether [`FileNames`] could have named this file (its path in a table).
pub fn is_named_by_us(path: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let name = path.rsplit('/').next().unwrap_or_default();
    let named = name
        .strip_prefix("part-")
        .and_then(|name| name.strip_suffix(".parquet"));
    let parts: Option<Vec<&str>> = named.map(|name| name.split('-').collect());
    match parts.as_deref() {
        Some([epoch, generation, writer, n]) => {
            let tagged = |text: &str, tag| text.strip_prefix(tag).is_some_and(number);
            number(epoch) && tagged(generation, 'g') && tagged(writer, 'w') && number(n)
        }
        _ => false,
    }
}

/// A file that is encoded but not yet stored.
pub(super) struct NewFile {
    /// The file's future `add` action.
    pub(super) add: AddFile,
    /// The file's place in the lake.
    pub(super) physical: String,
    /// The file's content.
    pub(super) bytes: Bytes,
    /// How many rows.
    pub(super) rows: u32,
    /// The values of the file's partition columns.
    pub(super) values: SharedPartitionValues,
}

/// Encodes a data file from batches of the file's schema. It holds only encoded data.
pub(super) struct FileEncoder<'a> {
    layout: &'a TableLayout,
    bounds: FileStatistics,
    writer: ArrowWriter<Vec<u8>>,
}

impl<'a> FileEncoder<'a> {
    /// Starts a file of a table; `rows` is about how many rows are to come.
    pub(super) fn new(layout: &'a TableLayout, rows: usize) -> Result<Self, WriterError> {
        Ok(FileEncoder {
            layout,
            bounds: FileStatistics::new(layout.file_schema.clone()),
            writer: parquet_writer(layout, layout.file_schema.clone(), rows)?,
        })
    }

    /// Adds rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriterError> {
        self.bounds.observe(batch);
        self.writer.write(batch).map_err(|e| parquet_failed(self.layout, e))
    }

    /// Returns the finished file.
    pub(super) fn finish(
        self,
        values: SharedPartitionValues,
        (names, epoch): (&FileNames, Epoch),
        data_change: bool,
    ) -> Result<NewFile, WriterError> {
        let layout = self.layout;
        let bytes = self.writer.into_inner().map_err(|e| parquet_failed(layout, e))?;
        let path = format!("{}part-{}", layout.folder(&values), names.name(epoch));
        let add = AddFile {
            path: to_log(&path),
            partition_values: values.as_ref().clone(),
            size: bytes.len() as u64,
            modification_time: now_ms(),
            data_change,
            stats: Some(self.bounds.json()),
            deletion_vector: None,
        };
        let rows = u32::try_from(self.bounds.rows()).expect("files are cut long before four billion rows");
        Ok(NewFile {
            add,
            physical: format!("{}/{path}", layout.spec.path),
            bytes: bytes.into(),
            rows,
            values,
        })
    }
}

/// Encodes batches (in the file's schema, with about `rows` rows) as one data file.
pub(super) fn encode_file(
    layout: &TableLayout,
    values: SharedPartitionValues,
    names: (&FileNames, Epoch),
    data_change: bool,
    (rows, batches): (usize, impl IntoIterator<Item = Result<RecordBatch, WriterError>>),
) -> Result<NewFile, WriterError> {
    let mut file = FileEncoder::new(layout, rows)?;
    for batch in batches {
        file.write(&batch?)?;
    }
    file.finish(values, names, data_change)
}

/// Encodes batches of a table, partition by partition, as files of at most `limit` rows.
pub(super) fn encode_groups(
    layout: &TableLayout,
    batches: impl IntoIterator<Item = RecordBatch>,
    limit: usize,
    names: (&FileNames, Epoch),
    data_change: bool,
) -> Result<Vec<NewFile>, WriterError> {
    let mut pieces: BTreeMap<Row, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        for group in layout.group_batch(&batch)? {
            let piece = layout.to_file(&layout.pick(&batch, &group.rows)?)?;
            pieces.entry(group.key).or_default().push(piece);
        }
    }
    let mut files = Vec::new();
    for (key, batches) in pieces {
        let values = layout.values(&key)?;
        for batches in cut(batches, limit) {
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            let batches = (rows, batches.into_iter().map(Ok));
            files.push(encode_file(layout, values.clone(), names, data_change, batches)?);
        }
    }
    Ok(files)
}

/// Cuts batches into runs of at most `limit` rows.
fn cut(batches: Vec<RecordBatch>, limit: usize) -> Vec<Vec<RecordBatch>> {
    let (mut runs, mut room) = (vec![Vec::new()], limit);
    for mut batch in batches {
        while batch.num_rows() > 0 {
            if room == 0 {
                runs.push(Vec::new());
                room = limit;
            }
            let taken = batch.num_rows().min(room);
            room -= taken;
            runs.last_mut().expect("there is a run").push(batch.slice(0, taken));
            batch = batch.slice(taken, batch.num_rows() - taken);
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// Encodes rows as files of at most `limit` rows. Each file comes with the numbers of its rows, in file order.
pub(super) fn encode_rows(
    layout: &TableLayout,
    rows: &[&[u8]],
    names: (&FileNames, Epoch),
    data_change: bool,
    limit: usize,
) -> Result<Vec<(NewFile, Vec<u32>)>, WriterError> {
    let mut files = Vec::new();
    if rows.is_empty() {
        return Ok(files);
    }
    for group in layout.group_rows(rows)? {
        let values = layout.values(&group.key)?;
        for numbers in group.rows.chunks(limit) {
            let batches = slices(numbers, rows)
                .map(|slice| layout.to_file(&layout.decode(slice.iter().map(|n| rows[*n as usize]))?));
            files.push((
                encode_file(layout, values.clone(), names, data_change, (numbers.len(), batches))?,
                numbers.to_vec(),
            ));
        }
    }
    Ok(files)
}

/// Cuts the numbers of rows into slices that can be decoded at once.
fn slices<'n>(mut numbers: &'n [u32], rows: &[&[u8]]) -> impl Iterator<Item = &'n [u32]> {
    std::iter::from_fn(move || {
        let count = slice_of(numbers.iter().map(|n| rows[*n as usize].len()));
        let (slice, rest) = numbers.split_at(count);
        numbers = rest;
        (count > 0).then_some(slice)
    })
}

/// Encodes changes of rows as change data files, one per partition.
pub(super) fn encode_changes(
    layout: &TableLayout,
    changes: &[(Row, Diff)],
    (names, epoch): (&FileNames, Epoch),
) -> Result<Vec<(ChangeFile, String, Bytes)>, WriterError> {
    let mut fields: Vec<Arc<Field>> = layout.file_schema.fields().to_vec();
    fields.push(Arc::new(Field::new("_change_type", DataType::Utf8, true)));
    let schema = Arc::new(Schema::new(fields));
    let (mut rows, mut kinds): (Vec<&[u8]>, Vec<&str>) = (Vec::new(), Vec::new());
    for (row, diff) in changes {
        for _ in 0..diff.unsigned_abs() {
            rows.push(row.bytes());
            kinds.push(if *diff > 0 { "insert" } else { "delete" });
        }
    }
    let mut files = Vec::new();
    for group in layout.group_rows(&rows)? {
        let values = layout.values(&group.key)?;
        let batches = slices(&group.rows, &rows).map(|slice| {
            let data = layout.to_file(&layout.decode(slice.iter().map(|n| rows[*n as usize]))?)?;
            let mut columns = data.columns().to_vec();
            columns.push(Arc::new(
                slice.iter().map(|n| Some(kinds[*n as usize])).collect::<StringArray>(),
            ));
            RecordBatch::try_new(schema.clone(), columns).map_err(|e| layout.arrow_failed(e))
        });
        let mut writer = parquet_writer(layout, schema.clone(), group.rows.len())?;
        for batch in batches {
            writer.write(&batch?).map_err(|e| parquet_failed(layout, e))?;
        }
        let bytes = Bytes::from(writer.into_inner().map_err(|e| parquet_failed(layout, e))?);
        // Only the log has its partition, not the path: deltalake does not decode the paths of such files.
        let path = format!("_change_data/cdc-{}", names.name(epoch));
        let change = ChangeFile {
            path: to_log(&path),
            partition_values: values.as_ref().clone(),
            size: bytes.len() as u64,
            data_change: false,
        };
        files.push((change, format!("{}/{path}", layout.spec.path), bytes));
    }
    Ok(files)
}

fn parquet_failed(layout: &TableLayout, source: ParquetError) -> WriterError {
    WriterError::Parquet {
        table: layout.spec.name.clone(),
        source,
    }
}

/// Up to this many rows a file is small: a compaction will read it soon, or it costs little where it stays.
const FEW_ROWS: usize = 1 << 13;

/// The Parquet writer of a file. For a small file, creating it is most of the cost: two zstd contexts and a dictionary
/// per column took a third of the writers' time at 40 commits a second. So small files have neither.
fn parquet_writer(layout: &TableLayout, schema: SchemaRef, rows: usize) -> Result<ArrowWriter<Vec<u8>>, WriterError> {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let few = rows <= FEW_ROWS;
    let compression = if few {
        Compression::SNAPPY
    } else {
        Compression::ZSTD(level)
    };
    let is_log = layout.spec.summation.is_some();
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(!few && !is_log)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(1 << 17));
    // Parquet's bounds ignore NaN, which is greater than all numbers in Alluvium, Spark and DuckDB: a reader that
    // looks for values above the bound would miss it. So float columns have bounds in the log only, where a file with
    // NaN has none.
    for column in &layout.floats {
        properties = properties.set_column_statistics_enabled(column.clone(), EnabledStatistics::None);
    }
    if is_log {
        // The rows of a log are sorted, so neighbours have common prefixes.
        for field in schema
            .fields()
            .iter()
            .filter(|field| field.data_type() == &DataType::Binary)
        {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY);
        }
    }
    // The footer has no Arrow schema: the log defines the types, and small files stay small.
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(|e| parquet_failed(layout, e))
}

/// Decodes a file's columns, slice by slice. `name`: the file's place in the lake.
pub(super) fn decode_file(
    layout: &TableLayout,
    name: &str,
    bytes: Bytes,
) -> Result<impl Iterator<Item = Result<RecordBatch, WriterError>>, WriterError> {
    let (table, file) = (layout.spec.name.clone(), name.to_string());
    let damaged = move |source: ParquetError| WriterError::Damaged {
        table: table.clone(),
        file: file.clone(),
        source,
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| {
        let rows = rows_at_once(builder.metadata(), SLICE, SLICE_BYTES as u64);
        builder.with_batch_size(rows).build()
    });
    let reader = reader.map_err(&damaged)?;
    Ok(reader.map(move |batch| batch.map_err(|e| damaged(e.into()))))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_are_known_from_those_of_others() {
        let names = FileNames::new(3, 12);
        for folder in ["", "country=France/day=2025-01-01/"] {
            assert!(is_named_by_us(&format!(
                "{folder}part-{}",
                names.name(1_795_287_124_006)
            )));
        }
        let others = [
            "part-00000-77204b44-eccf-4efb-ad46-0c2873ca4c9f-c000.zstd.parquet",
            "part-00001-5c8e3c2e-8d5e-4b39-8c3c-0f7a3bb8c2f1-c000.snappy.parquet",
            "data.parquet",
            "part-1-g1-w0-.parquet",
            "part-1-g1-x0-1.parquet",
        ];
        assert!(!others.into_iter().any(is_named_by_us));
    }
}
