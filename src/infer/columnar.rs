//! The columns of Parquet and Avro files, by their schemas.

use std::fs::File;
use std::path::Path;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::column::Decided;
use super::columns::Columns;
use crate::decode::avro::read_container;
use crate::repr::SqlType;

/// Rows that a batch of an Avro file has.
const BATCH: usize = 1024;

/// Takes the columns of a Parquet file; says how many rows it has.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn parquet(path: &Path, columns: &mut Columns) -> Result<u64, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    tell(columns, builder.schema());
    let rows = builder.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// Takes the columns of an Avro file, or the fields of the events that Event Hubs Capture put into it; says how many rows
/// were looked at.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn avro(path: &Path, columns: &mut Columns, limit: u64) -> Result<u64, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let batches = read_container(file, BATCH).map_err(|error| error.to_string())?;
    let mut rows = 0;
    for batch in batches {
        let batch = batch.map_err(|error| error.to_string())?;
        rows += batch.num_rows() as u64;
        let schema = batch.schema();
        let is_capture = ["Body", "SequenceNumber", "Offset", "EnqueuedTimeUtc"]
            .iter()
            .all(|name| schema.column_with_name(name).is_some());
        if !is_capture {
            tell(columns, &schema);
            return Ok(rows);
        }
        let body = batch
            .column_by_name("Body")
            .and_then(|body| cast(body, &DataType::Binary).ok());
        for event in body.iter().flat_map(|body| body.as_binary::<i32>().iter().flatten()) {
            columns.observe_object(&String::from_utf8_lossy(event), true);
        }
        if rows >= limit {
            break;
        }
    }
    if !columns.all.is_empty() {
        columns.tell("EnqueuedTimeUtc", decided(SqlType::Timestamp, None), true);
        columns.tell("SequenceNumber", decided(SqlType::BigInt, None), true);
    }
    Ok(rows)
}

fn tell(columns: &mut Columns, schema: &Schema) {
    for field in schema.fields() {
        let (sql_type, note) = sql_type(field.data_type());
        columns.tell(field.name(), decided(sql_type, note), field.is_nullable());
    }
}

fn decided(sql_type: SqlType, note: Option<&str>) -> Decided {
    Decided {
        sql_type,
        format: Vec::new(),
        nulls: Vec::new(),
        note: note.map(str::to_string),
    }
}

/// The type that holds values of an Arrow type without loss, as a column takes them.
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
        T::Timestamp(..) => plain(SqlType::Timestamp),
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
