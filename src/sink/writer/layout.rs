//! Maps a table's rows to its files (which columns, which partition, which folder) and back.
//!
//! 1. A row that is written and read back has the same bytes. The one exception: Delta stores an empty text in a
//!    nullable partition column as null, so [`TableLayout::canonical`] makes it null before anything else.
//! 2. Data files hold no partition columns; the partition values are in the log.
//! 3. The element of a list is named `element` in files, as in Delta, whatever its name in the schema.
//! 4. The name of a partition's folder is for people only: readers take the values from the log. So a name that a file
//!    system or a bucket could not hold is replaced by a hash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::Rows;
use chrono::{DateTime, TimeDelta};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Type;
use parquet::schema::types::{ColumnDescPtr, ColumnPath};
use twox_hash::XxHash3_128;

use super::error::WriterError;
use super::mint::consolidate_sorted;
use crate::repr::{CodecError, Diff, Row, RowCodec, row_json};
use crate::sink::TableSpec;

/// Values of the partition columns in Delta's text form, by column name.
pub(super) type SharedPartitionValues = Arc<BTreeMap<String, Option<String>>>;

/// The most bytes of one level of a partition's folder, slash included: file systems allow names of 255 bytes.
const LEVEL: usize = 256;
/// The most bytes of a partition's whole folder: buckets allow keys of 1024 bytes, which must also hold the lake's
/// prefix, the table and the file's name.
const FOLDER: usize = 512;

/// The most rows that are decoded at once.
pub(super) const SLICE: usize = 1 << 15;
/// The most bytes that are decoded at once, unless a single row has more: a text column holds less than 2 GiB.
pub(super) const SLICE_BYTES: usize = 32 << 20;

/// How many of the first rows may be decoded at once, given the bytes of each row.
pub(super) fn slice_of(rows: impl Iterator<Item = usize>) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for row in rows.take(SLICE) {
        if count > 0 && bytes + row > SLICE_BYTES {
            break;
        }
        bytes += row;
        count += 1;
    }
    count
}

/// The codec of a table, and the layout of its files.
pub(super) struct TableLayout {
    /// The table.
    pub(super) spec: TableSpec,
    codec: RowCodec,
    /// Positions of the columns that data files hold.
    data: Vec<usize>,
    /// The schema of data files.
    pub(super) file_schema: SchemaRef,
    /// Paths of the float columns of data files, nested ones included.
    pub(super) floats: Vec<ColumnPath>,
    partition: Option<RowCodec>,
}

/// The rows of one partition, by number.
pub(super) struct PartitionRows {
    /// The encoded partition columns; empty where the table has none.
    pub(super) key: Row,
    /// The rows' numbers, in the order given.
    pub(super) rows: Vec<u32>,
}

impl TableLayout {
    /// A row as JSON, shortened, for a message.
    pub(super) fn shown(&self, row: &Row) -> String {
        const MOST: usize = 300;
        let Ok(batch) = self.codec.decode([row.bytes()]) else {
            return "which cannot be decoded".to_string();
        };
        let json = String::from_utf8_lossy(&row_json(&batch)).into_owned();
        match json.char_indices().nth(MOST) {
            Some((at, _)) => format!("{}...", &json[..at]),
            None => json,
        }
    }

    /// Computes the layout of a table.
    pub(super) fn new(spec: TableSpec) -> Result<Self, WriterError> {
        let failed = |source| WriterError::Codec {
            table: spec.name.clone(),
            source,
        };
        let codec = RowCodec::new(spec.schema.clone()).map_err(failed)?;
        for column in &spec.partition_by {
            let field = spec.schema.field(*column);
            if field.data_type().is_nested() || matches!(field.data_type(), DataType::Binary) {
                return Err(WriterError::PartitionType {
                    table: spec.name.clone(),
                    column: field.name().clone(),
                    data_type: field.data_type().clone(),
                });
            }
        }
        let data: Vec<usize> = (0..spec.schema.fields().len())
            .filter(|i| !spec.partition_by.contains(i))
            .collect();
        let fields: Vec<Field> = data.iter().map(|i| file_field(spec.schema.field(*i))).collect();
        let partition = if spec.partition_by.is_empty() {
            None
        } else {
            let fields: Vec<Field> = spec
                .partition_by
                .iter()
                .map(|i| spec.schema.field(*i).clone())
                .collect();
            Some(RowCodec::new(Arc::new(Schema::new(fields))).map_err(failed)?)
        };
        let file_schema = Arc::new(Schema::new(fields));
        let parquet = ArrowSchemaConverter::new().convert(&file_schema);
        let parquet = parquet.map_err(|source| WriterError::Parquet {
            table: spec.name.clone(),
            source,
        })?;
        let is_float = |column: &&ColumnDescPtr| matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE);
        Ok(TableLayout {
            codec,
            data,
            file_schema,
            floats: (parquet.columns().iter().filter(is_float))
                .map(|column| column.path().clone())
                .collect(),
            partition,
            spec,
        })
    }

    /// Adds the table's name to a codec's error.
    fn codec_failed(&self, source: CodecError) -> WriterError {
        WriterError::Codec {
            table: self.spec.name.clone(),
            source,
        }
    }

    /// Adds the table's name to an error of Arrow.
    pub(super) fn arrow_failed(&self, source: ArrowError) -> WriterError {
        WriterError::Arrow {
            table: self.spec.name.clone(),
            source,
        }
    }

    /// Decodes rows to the table's columns.
    pub(super) fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch, WriterError> {
        self.codec.decode(rows).map_err(|e| self.codec_failed(e))
    }

    /// Encodes the table's columns as rows.
    pub(super) fn encode(&self, batch: &RecordBatch) -> Result<Rows, WriterError> {
        self.codec.encode(batch.columns()).map_err(|e| self.codec_failed(e))
    }

    /// Groups encoded rows by partition.
    pub(super) fn group_rows(&self, rows: &[&[u8]]) -> Result<Vec<PartitionRows>, WriterError> {
        if self.partition.is_none() {
            return Ok(whole(rows.len()));
        }
        let mut groups = Groups::default();
        let mut rest = rows;
        while !rest.is_empty() {
            let (slice, behind) = rest.split_at(slice_of(rest.iter().map(|row| row.len())));
            let batch = self.decode(slice.iter().copied())?;
            self.group_into(&batch, &mut groups)?;
            rest = behind;
        }
        Ok(groups.list)
    }

    /// Groups the rows of a batch by partition.
    pub(super) fn group_batch(&self, batch: &RecordBatch) -> Result<Vec<PartitionRows>, WriterError> {
        let mut groups = Groups::default();
        self.group_into(batch, &mut groups)?;
        Ok(groups.list)
    }

    fn group_into(&self, batch: &RecordBatch, groups: &mut Groups) -> Result<(), WriterError> {
        let Some(codec) = &self.partition else {
            groups.list = whole(batch.num_rows());
            return Ok(());
        };
        let columns: Vec<ArrayRef> = self
            .spec
            .partition_by
            .iter()
            .map(|i| self.without_empty(batch, *i))
            .collect();
        let keys = codec.encode(&columns).map_err(|e| self.codec_failed(e))?;
        let mut last = None;
        for key in keys.iter() {
            let row = groups.rows;
            groups.rows += 1;
            // Adjacent rows often have the same partition.
            let known = last.filter(|group: &usize| groups.list[*group].key.bytes() == key.as_ref());
            let group = match known.or_else(|| groups.by_key.get(key.as_ref()).copied()) {
                Some(group) => group,
                None => {
                    groups.list.push(PartitionRows {
                        key: Row::new(key.as_ref()),
                        rows: Vec::new(),
                    });
                    groups.by_key.insert(key.as_ref().to_vec(), groups.list.len() - 1);
                    groups.list.len() - 1
                }
            };
            groups.list[group].rows.push(row);
            last = Some(group);
        }
        Ok(())
    }

    /// A partition column in which empty texts are null, if the column is nullable.
    fn without_empty(&self, batch: &RecordBatch, column: usize) -> ArrayRef {
        let array = batch.column(column);
        if array.data_type() != &DataType::Utf8 || !self.spec.schema.field(column).is_nullable() {
            return array.clone();
        }
        let texts = array.as_string::<i32>();
        if !texts.iter().any(|text| text == Some("")) {
            return array.clone();
        }
        Arc::new(
            texts
                .iter()
                .map(|text| text.filter(|t| !t.is_empty()))
                .collect::<StringArray>(),
        )
    }

    /// Changes minted rows to what will be read back, by (1).
    pub(super) fn canonical(&self, mut rows: Vec<(Row, Diff)>) -> Result<Vec<(Row, Diff)>, WriterError> {
        let may_differ = self.spec.partition_by.iter().any(|i| {
            let field = self.spec.schema.field(*i);
            field.data_type() == &DataType::Utf8 && field.is_nullable()
        });
        if !may_differ {
            return Ok(rows);
        }
        let mut changed = false;
        let mut rest = &mut rows[..];
        while !rest.is_empty() {
            let (slice, behind) = rest.split_at_mut(slice_of(rest.iter().map(|(row, _)| row.bytes().len())));
            rest = behind;
            let batch = self.decode(slice.iter().map(|(row, _)| row.bytes()))?;
            let mut columns = batch.columns().to_vec();
            for column in &self.spec.partition_by {
                columns[*column] = self.without_empty(&batch, *column);
            }
            if columns.iter().zip(batch.columns()).all(|(a, b)| Arc::ptr_eq(a, b)) {
                continue;
            }
            let encoded = self.codec.encode(&columns).map_err(|e| self.codec_failed(e))?;
            for ((row, _), bytes) in slice.iter_mut().zip(encoded.iter()) {
                *row = Row::new(bytes.as_ref());
            }
            changed = true;
        }
        if changed {
            rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            consolidate_sorted(&mut rows);
        }
        Ok(rows)
    }

    /// The partition values of a key, in Delta's text form.
    pub(super) fn values(&self, key: &Row) -> Result<SharedPartitionValues, WriterError> {
        let Some(codec) = &self.partition else {
            return Ok(SharedPartitionValues::default());
        };
        let batch = codec.decode([key.bytes()]).map_err(|e| self.codec_failed(e))?;
        let mut values = BTreeMap::new();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            values.insert(field.name().clone(), text(column).map_err(|e| self.arrow_failed(e))?);
        }
        Ok(Arc::new(values))
    }

    /// The folder of a partition: empty, or `a=1/b=2/`, which is safe in a file system and in a URL except for `%`;
    /// or, by (4), `partition-<hash>/`.
    pub(super) fn folder(&self, values: &SharedPartitionValues) -> String {
        let mut folder = String::new();
        let mut is_long = false;
        for column in &self.spec.partition_by {
            let name = self.spec.schema.field(*column).name();
            let value = values
                .get(name)
                .cloned()
                .flatten()
                .unwrap_or("__HIVE_DEFAULT_PARTITION__".into());
            let level = format!("{}={}/", escape(name), escape(&value));
            is_long |= level.len() > LEVEL;
            folder += &level;
        }
        if is_long || folder.len() > FOLDER {
            folder = format!("partition-{:032x}/", XxHash3_128::oneshot(folder.as_bytes()));
        }
        folder
    }

    /// Reduces a batch of the table to the columns that data files hold.
    pub(super) fn to_file(&self, batch: &RecordBatch) -> Result<RecordBatch, WriterError> {
        let columns: Result<Vec<ArrayRef>, ArrowError> = self
            .data
            .iter()
            .zip(self.file_schema.fields())
            .map(|(i, f)| retype(batch.column(*i), f))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        columns
            .and_then(|columns| RecordBatch::try_new_with_options(self.file_schema.clone(), columns, &options))
            .map_err(|e| self.arrow_failed(e))
    }

    /// Completes rows of a file with their partition's values to a batch of the table.
    pub(super) fn to_table(
        &self,
        file: &RecordBatch,
        values: &BTreeMap<String, Option<String>>,
    ) -> Result<RecordBatch, WriterError> {
        let rows = file.num_rows();
        let mut columns = Vec::with_capacity(self.spec.schema.fields().len());
        for (i, field) in self.spec.schema.fields().iter().enumerate() {
            let column = if self.spec.partition_by.contains(&i) {
                self.constant(field, values.get(field.name()).cloned().flatten(), rows)
                    .map_err(|e| self.arrow_failed(e))?
            } else if let Some(column) = file.column_by_name(field.name()) {
                retype(column, field).map_err(|e| self.arrow_failed(e))?
            } else if field.is_nullable() {
                new_null_array(field.data_type(), rows)
            } else {
                return Err(WriterError::MissingColumn {
                    table: self.spec.name.clone(),
                    column: field.name().clone(),
                });
            };
            columns.push(column);
        }
        RecordBatch::try_new(self.spec.schema.clone(), columns).map_err(|e| self.arrow_failed(e))
    }

    fn constant(&self, field: &Field, value: Option<String>, rows: usize) -> Result<ArrayRef, ArrowError> {
        let value = match value {
            None if !field.is_nullable() && field.data_type() == &DataType::Utf8 => Some(String::new()),
            value => value,
        };
        let Some(value) = value else {
            return Ok(new_null_array(field.data_type(), rows));
        };
        let one = arrow::compute::cast_with_options(
            &StringArray::from(vec![value]),
            field.data_type(),
            &arrow::compute::CastOptions {
                safe: false,
                ..Default::default()
            },
        )?;
        arrow::compute::take(&one, &UInt32Array::from(vec![0; rows]), None)
    }

    /// Selects rows of a batch.
    pub(super) fn pick(&self, batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, WriterError> {
        if rows.len() == batch.num_rows() {
            return Ok(batch.clone());
        }
        take_record_batch(batch, &UInt32Array::from(rows.to_vec())).map_err(|e| self.arrow_failed(e))
    }
}

#[derive(Default)]
struct Groups {
    by_key: HashMap<Vec<u8>, usize>,
    list: Vec<PartitionRows>,
    rows: u32,
}

fn whole(rows: usize) -> Vec<PartitionRows> {
    vec![PartitionRows {
        key: Row::default(),
        rows: (0..rows as u32).collect(),
    }]
}

fn retype(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        Ok(column.clone())
    } else {
        cast(column, field.data_type())
    }
}

fn file_field(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(Arc::new(file_field(item).with_name("element"))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|f| file_field(f)).collect()),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

/// Delta's text form of the only value of a column (protocol, "Partition Value Serialization").
fn text(column: &ArrayRef) -> Result<Option<String>, ArrowError> {
    if column.is_null(0) {
        return Ok(None);
    }
    let text = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            DateTime::from_timestamp_micros(column.as_primitive::<TimestampMicrosecondType>().value(0))
                .map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
        DataType::Date32 => TimeDelta::try_days(i64::from(column.as_primitive::<Date32Type>().value(0)))
            .and_then(|days| DateTime::UNIX_EPOCH.checked_add_signed(days))
            .map(|time| time.format("%Y-%m-%d").to_string()),
        _ => None,
    };
    match text {
        Some(text) => Ok(Some(text)),
        None => {
            let text = cast(column, &DataType::Utf8)?;
            let text = match (column.data_type(), text.as_string::<i32>().value(0)) {
                // Java writes and reads infinities under these names.
                (DataType::Float32 | DataType::Float64, "inf") => "Infinity",
                (DataType::Float32 | DataType::Float64, "-inf") => "-Infinity",
                (_, text) => text,
            };
            Ok(Some(text.to_string()).filter(|t| !t.is_empty()))
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(byte as char),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// Converts a file's place in the table's folder to the log's `path`, which is a URL: `%` becomes `%25`.
pub(super) fn to_log(physical: &str) -> String {
    physical.replace('%', "%25")
}

/// Converts the log's `path` to a file's place in the table's folder; none if its percent-encoding is broken.
pub(super) fn from_log(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
