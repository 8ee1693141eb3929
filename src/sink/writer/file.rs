//! Data files: columns to Parquet bytes with Delta's statistics, and back.

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

use super::bounds::Bounds;
use super::error::WriterError;
use super::layout::{Layout, PartitionValues, SLICE, SLICE_BYTES, slice_of, to_log};
use crate::repr::{Diff, Epoch, Row, rows_at_once};
use crate::sink::{AddFile, ChangeFile};

/// Names that no other file of the lake has: no other writer of this generation counts for this worker.
#[derive(Clone)]
pub(super) struct Names {
    writer: usize,
    generation: u64,
    next: Arc<AtomicU64>,
}

impl Names {
    /// Of one writer.
    pub(super) fn new(writer: usize, generation: u64) -> Self {
        Names {
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

/// Whether a file, by its path in a table, has a name that [`Names`] give.
pub fn is_ours(path: &str) -> bool {
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
    /// As the log will have it.
    pub(super) add: AddFile,
    /// Its place in the lake.
    pub(super) physical: String,
    /// Its content.
    pub(super) bytes: Bytes,
    /// How many rows.
    pub(super) rows: u32,
    /// Its partition.
    pub(super) values: PartitionValues,
}

/// A data file in the making: takes batches of the file's schema one by one, and holds them encoded only.
pub(super) struct FileEncoder<'a> {
    layout: &'a Layout,
    bounds: Bounds,
    writer: ArrowWriter<Vec<u8>>,
}

impl<'a> FileEncoder<'a> {
    /// Of a table, without rows yet; about how many are to come.
    pub(super) fn new(layout: &'a Layout, rows: usize) -> Result<Self, WriterError> {
        Ok(FileEncoder {
            layout,
            bounds: Bounds::new(layout.file_schema.clone()),
            writer: parquet_writer(layout, layout.file_schema.clone(), rows)?,
        })
    }

    /// More rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriterError> {
        self.bounds.observe(batch);
        self.writer.write(batch).map_err(|e| parquet_failed(self.layout, e))
    }

    /// The file with all of them.
    pub(super) fn finish(
        self,
        values: PartitionValues,
        (names, epoch): (&Names, Epoch),
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

/// Encodes batches (of the file's schema, with about so many `rows`) as one data file.
pub(super) fn encode_file(
    layout: &Layout,
    values: PartitionValues,
    names: (&Names, Epoch),
    data_change: bool,
    (rows, batches): (usize, impl IntoIterator<Item = Result<RecordBatch, WriterError>>),
) -> Result<NewFile, WriterError> {
    let mut file = FileEncoder::new(layout, rows)?;
    for batch in batches {
        file.write(&batch?)?;
    }
    file.finish(values, names, data_change)
}

/// Batches of a table laid out as files of at most `limit` rows, partition by partition.
pub(super) fn encode_groups(
    layout: &Layout,
    batches: impl IntoIterator<Item = RecordBatch>,
    limit: usize,
    names: (&Names, Epoch),
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

/// Batches in runs of at most `limit` rows.
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

/// Rows laid out as files of at most `limit` rows, each with the numbers of its rows in file order.
pub(super) fn encode_rows(
    layout: &Layout,
    rows: &[&[u8]],
    names: (&Names, Epoch),
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

/// Numbers of rows, in slices that are decoded at once.
fn slices<'n>(mut numbers: &'n [u32], rows: &[&[u8]]) -> impl Iterator<Item = &'n [u32]> {
    std::iter::from_fn(move || {
        let count = slice_of(numbers.iter().map(|n| rows[*n as usize].len()));
        let (slice, rest) = numbers.split_at(count);
        numbers = rest;
        (count > 0).then_some(slice)
    })
}

/// Changes of rows as change data files, one per partition.
pub(super) fn encode_changes(
    layout: &Layout,
    changes: &[(Row, Diff)],
    (names, epoch): (&Names, Epoch),
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
        // Its partition stands in the log alone: deltalake does not decode the path of such a file.
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

fn parquet_failed(layout: &Layout, source: ParquetError) -> WriterError {
    WriterError::Parquet {
        table: layout.spec.name.clone(),
        source,
    }
}

/// Up to so many rows a file is small: it is read by a compaction soon, or costs little where it stays.
const FEW_ROWS: usize = 1 << 13;

/// A file's writer. Of a small file making it is most of the cost: two zstd contexts and a dictionary for each column took
/// a third of the writers' time at 40 commits a second. So small files have neither.
fn parquet_writer(layout: &Layout, schema: SchemaRef, rows: usize) -> Result<ArrowWriter<Vec<u8>>, WriterError> {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let few = rows <= FEW_ROWS;
    let compression = if few {
        Compression::SNAPPY
    } else {
        Compression::ZSTD(level)
    };
    let is_log = layout.spec.fold.is_some();
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(!few && !is_log)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(1 << 17));
    // Parquet's bounds leave NaN out, which is greater than all numbers here, in Spark and in DuckDB: a reader that asks for
    // what is above them would miss it. A file's own bounds (in the log) are left out only where there is NaN.
    for column in &layout.floats {
        properties = properties.set_column_statistics_enabled(column.clone(), EnabledStatistics::None);
    }
    if is_log {
        // Its rows are sorted: neighbours begin alike.
        for field in schema
            .fields()
            .iter()
            .filter(|field| field.data_type() == &DataType::Binary)
        {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY);
        }
    }
    // Without the Arrow schema in the footer: types are the log's business, and small files stay small.
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options).map_err(|e| parquet_failed(layout, e))
}

/// A file's columns, slice by slice. `name`: its place in the lake.
pub(super) fn decode_file(
    layout: &Layout,
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
        let names = Names::new(3, 12);
        for folder in ["", "country=France/day=2025-01-01/"] {
            assert!(is_ours(&format!("{folder}part-{}", names.name(1_795_287_124_006))));
        }
        let others = [
            "part-00000-77204b44-eccf-4efb-ad46-0c2873ca4c9f-c000.zstd.parquet",
            "part-00001-5c8e3c2e-8d5e-4b39-8c3c-0f7a3bb8c2f1-c000.snappy.parquet",
            "data.parquet",
            "part-1-g1-w0-.parquet",
            "part-1-g1-x0-1.parquet",
        ];
        assert!(!others.into_iter().any(is_ours));
    }
}
