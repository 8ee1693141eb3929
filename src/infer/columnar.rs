//! Infers the columns of Parquet and Avro files from their schemas; the first rows show which columns may be keys.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::row::{RowConverter, SortField};

use super::column::InferredColumn;
use super::columns::CandidateColumns;
use super::sample::{InferSample, SampleRange};
use crate::contain::contain;
use crate::decode::parquet::{INT96, checked};
use crate::decode::{ContainerColumn, container_bodies, container_columns, container_rows};
use crate::repr::SqlType;
use crate::source::{FileMark, NamedFile};

/// The number of rows in a batch.
const BATCH: usize = 1024;

/// The note on a column of nanoseconds.
const NANOS: &str = "nanoseconds: what is finer than a microsecond is refused, or cut off by format = \"cut_to_us\"";

/// Observes the columns of a Parquet file, and the rows in a range of it.
///
/// # Errors
/// The reason why the file cannot be read.
pub(super) fn parquet(file: &NamedFile, looked: &mut InferSample, part: &SampleRange<'_>) -> Result<bool, String> {
    if part.skip == 0 {
        let footer = file.footer()?;
        // The types come from a batch, because batches have other types for INT96 and INTERVAL than the footer.
        let empty = RecordBatch::new_empty(footer.schema().clone());
        let empty = checked(empty, footer.metadata()).map_err(|error| error.to_string())?;
        for field in empty.schema_ref().fields() {
            let (sql_type, note) = sql_type(field.data_type());
            looked
                .columns
                .add_described(field.name(), decided(sql_type, note), field.is_nullable());
        }
    }
    each_batch(file, FileMark::Parquet, looked, part, |columns, batch| {
        let fields = batch.schema_ref().fields().iter();
        let names: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
        remember(columns, &names, batch.columns(), batch.num_rows());
        Ok(batch.num_rows() as u64)
    })
}

/// Observes the columns of an Avro file; or, if Event Hubs Capture wrote it, the fields of the captured events.
///
/// # Errors
/// The reason why the file cannot be read.
pub(super) fn avro(file: &NamedFile, looked: &mut InferSample, part: &SampleRange<'_>) -> Result<bool, String> {
    each_batch(file, FileMark::Avro, looked, part, |columns, batch| {
        if let Some(bodies) = container_bodies(batch)? {
            let mut events = 0;
            for body in bodies.iter() {
                events += u64::from(columns.observe_object(&String::from_utf8_lossy(body), true));
            }
            columns.add_described("EnqueuedTimeUtc", decided(SqlType::Timestamp, None), true);
            columns.add_described("SequenceNumber", decided(SqlType::BigInt, None), true);
            return Ok(events);
        }
        for column in container_columns(batch)? {
            let ContainerColumn {
                name,
                sql_type,
                nullable,
                nanos,
            } = column;
            let decided = match sql_type {
                Ok(sql_type) => decided(sql_type, nanos.then_some(NANOS)),
                Err(reason) => InferredColumn {
                    note: Some(reason),
                    ..decided(SqlType::Varchar, None)
                },
            };
            columns.add_described(&name, decided, nullable);
        }
        let mut rows = 0;
        container_rows(batch, |cells| {
            for (name, value) in cells {
                if let Some(column) = columns.known(name) {
                    columns.rows.put(column, value.as_bytes());
                }
            }
            columns.rows.end_row(true);
            rows += 1;
        })?;
        Ok(rows)
    })
}

/// Passes the batches of a file's range to `each`, which returns how many rows count. Returns whether the file ended.
fn each_batch(
    file: &NamedFile,
    of: FileMark,
    looked: &mut InferSample,
    part: &SampleRange<'_>,
    mut each: impl FnMut(&mut CandidateColumns, &RecordBatch) -> Result<u64, String>,
) -> Result<bool, String> {
    let mut row = 0;
    for batch in file.batches(of, BATCH)? {
        let batch = match batch {
            Ok(batch) => batch,
            Err(reason) if row == 0 => return Err(reason),
            // Rows behind damage cannot be read.
            Err(_) => break,
        };
        let rows = batch.num_rows() as u64;
        if row + rows > part.skip {
            let start = part.skip.saturating_sub(row);
            let wanted = batch.slice(start as usize, (rows - start) as usize);
            looked.records += contain(|| each(&mut looked.columns, &wanted))??;
        }
        row += rows;
        if row.saturating_sub(part.skip) >= part.limit || (part.is_over)(looked.records) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Remembers the values of a batch's rows, to find keys.
fn remember(columns: &mut CandidateColumns, names: &[&str], arrays: &[ArrayRef], rows: usize) {
    let mut encoded = Vec::new();
    for (name, array) in names.iter().zip(arrays) {
        let (Some(column), false) = (columns.known(name), array.data_type().is_nested()) else {
            continue;
        };
        let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())]);
        if let Ok(values) = converter.and_then(|converter| converter.convert_columns(std::slice::from_ref(array))) {
            encoded.push((column, array, values));
        }
    }
    for row in 0..rows {
        for (column, array, values) in &encoded {
            if array.is_valid(row) {
                columns.rows.put(*column, values.row(row).as_ref());
            }
        }
        columns.rows.end_row(true);
    }
}

fn decided(sql_type: SqlType, note: Option<&str>) -> InferredColumn {
    InferredColumn {
        sql_type,
        format: Vec::new(),
        nulls: Vec::new(),
        code: None,
        note: note.map(str::to_string),
    }
}

/// The SQL type that holds all values of an Arrow type without loss, and a note if it does not quite.
fn sql_type(arrow: &DataType) -> (SqlType, Option<&'static str>) {
    use DataType as T;
    let plain = |sql_type| (sql_type, None);
    match arrow {
        T::Boolean => plain(SqlType::Boolean),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => plain(SqlType::Int),
        T::Int64 | T::UInt32 => plain(SqlType::BigInt),
        T::UInt64 => plain(SqlType::Decimal(20, 0)),
        T::Float16 | T::Float32 | T::Float64 => plain(SqlType::Double),
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale)
            if *scale >= 0 && *precision <= 38 =>
        {
            plain(SqlType::Decimal(*precision, *scale))
        }
        T::Date32 | T::Date64 => plain(SqlType::Date),
        T::Timestamp(TimeUnit::Nanosecond, _) => (SqlType::Timestamp, Some(NANOS)),
        T::Timestamp(..) => plain(SqlType::Timestamp),
        int96 if *int96 == INT96 => plain(SqlType::Timestamp),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => plain(SqlType::Binary),
        T::Dictionary(_, values) => sql_type(values),
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) => match sql_type(item.data_type()) {
            (item, None) => plain(SqlType::List(Box::new(item))),
            (_, Some(note)) => (SqlType::Varchar, Some(note)),
        },
        T::Struct(_) | T::Map(..) | T::Union(..) => (SqlType::Varchar, Some("JSON")),
        _ => plain(SqlType::Varchar),
    }
}
