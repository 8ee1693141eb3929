//! INT96, the type in which older writers store points in time: nanoseconds of a day, and a Julian day.
//!
//! Arrow has no type for all of its values. 64-bit nanoseconds end in the year 2262, and the reader's alternative,
//! microseconds, silently truncates. So these columns are read as their twelve bytes, by substituting another type in
//! the file's schema, and become pairs of a day and nanoseconds: `Interval(MonthDayNano)`, without months. No other
//! column of a Parquet file has that type, so it identifies them.
//!
//! INTERVAL is read as bytes for the same reason: the reader would convert it to days and milliseconds, and drop its
//! months. It becomes text in ISO 8601, such as `P1M2DT3.000S`, like a duration in Avro.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, IntervalMonthDayNanoArray, MapArray,
    OffsetSizeTrait, RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalUnit, Schema};
use arrow::error::ArrowError;
use parquet::basic::{ConvertedType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type, TypePtr};

use crate::decode::formats::avro::write_duration;

/// The type of INT96 columns in batches.
pub(crate) const INT96: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The number of bytes of a value.
const WIDTH: i32 = 12;

/// The Julian day of 1970-01-01; `DAY` is the nanoseconds of a day.
const EPOCH: i128 = 2_440_588;
const DAY: i128 = 86_400_000_000_000;

/// A batch's value as nanoseconds since 1970-01-01.
pub(crate) fn nanos(value: IntervalMonthDayNano) -> i128 {
    (i128::from(value.days) - EPOCH) * DAY + i128::from(value.nanoseconds)
}

/// The meaning of the twelve bytes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TwelveBytes {
    Int96,
    Interval,
}

impl TwelveBytes {
    fn of_column(column: &ColumnDescriptor) -> Option<TwelveBytes> {
        match column.physical_type() {
            Physical::INT96 => Some(TwelveBytes::Int96),
            _ if is_interval(column.self_type()) => Some(TwelveBytes::Interval),
            _ => None,
        }
    }
}

fn is_interval(of: &Type) -> bool {
    let is_of_width = matches!(of, Type::PrimitiveType { physical_type: Physical::FIXED_LEN_BYTE_ARRAY, type_length, .. } if *type_length == WIDTH);
    is_of_width && of.get_basic_info().converted_type() == ConvertedType::INTERVAL
}

/// A file's footer with these columns declared as bytes; none if there are no such columns.
pub(super) fn as_bytes(metadata: &ParquetMetaData) -> Result<Option<ParquetMetaData>, ParquetError> {
    let file = metadata.file_metadata();
    let columns = file.schema_descr().columns();
    if !columns.iter().any(|column| TwelveBytes::of_column(column).is_some()) {
        return Ok(None);
    }
    let root = bytes_for(file.schema_descr().root_schema_ptr())?;
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_string),
        file.key_value_metadata().cloned(),
        Arc::new(SchemaDescriptor::new(root)),
        file.column_orders().cloned(),
    );
    // The columns of row groups keep their types, by which `read` recognises them.
    Ok(Some(ParquetMetaData::new(file, metadata.row_groups().to_vec())))
}

/// The same type, with bytes in place of each INT96 and INTERVAL.
fn bytes_for(of: TypePtr) -> Result<TypePtr, ParquetError> {
    let info = of.get_basic_info();
    let id = info.has_id().then(|| info.id());
    if of.is_primitive() {
        if of.get_physical_type() != Physical::INT96 && !is_interval(&of) {
            return Ok(of);
        }
        let bytes = Type::primitive_type_builder(of.name(), Physical::FIXED_LEN_BYTE_ARRAY)
            .with_length(WIDTH)
            .with_repetition(info.repetition())
            .with_id(id);
        return Ok(Arc::new(bytes.build()?));
    }
    let fields: Vec<TypePtr> = of
        .get_fields()
        .iter()
        .map(|field| bytes_for(field.clone()))
        .collect::<Result<_, _>>()?;
    let mut group = Type::group_type_builder(of.name())
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields)
        .with_id(id);
    if info.has_repetition() {
        group = group.with_repetition(info.repetition());
    }
    Ok(Arc::new(group.build()?))
}

/// Converts a batch that was read by [`as_bytes`]: INT96 columns to [`INT96`], and intervals to texts.
pub(crate) fn read(batch: RecordBatch, metadata: &ParquetMetaData) -> Result<RecordBatch, ArrowError> {
    let Some(group) = metadata.row_groups().first() else {
        return Ok(batch);
    };
    let columns = group.columns().iter();
    let packed: Vec<Option<TwelveBytes>> = columns
        .map(|column| TwelveBytes::of_column(column.column_descr()))
        .collect();
    if packed.iter().all(Option::is_none) {
        return Ok(batch);
    }
    let (schema, columns, rows) = batch.into_parts();
    let mut reading = ColumnTraversal {
        packed: &packed,
        column: 0,
    };
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in schema.fields().iter().zip(&columns) {
        let array = reading.array(array);
        fields.push(retyped(field, &array));
        arrays.push(array);
    }
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
}

fn retyped(field: &FieldRef, array: &ArrayRef) -> FieldRef {
    match field.data_type() == array.data_type() {
        true => field.clone(),
        false => Arc::new(Field::clone(field).with_data_type(array.data_type().clone())),
    }
}

/// The state of a traversal of a batch's columns.
struct ColumnTraversal<'a> {
    /// For each leaf column of the file, what its bytes are.
    packed: &'a [Option<TwelveBytes>],
    /// The index of the first leaf column of the next array.
    column: usize,
}

impl ColumnTraversal<'_> {
    fn array(&mut self, array: &ArrayRef) -> ArrayRef {
        match array.data_type() {
            DataType::Struct(fields) => {
                let structs = array.as_struct();
                let columns: Vec<ArrayRef> = structs.columns().iter().map(|column| self.array(column)).collect();
                let fields = fields
                    .iter()
                    .zip(&columns)
                    .map(|(field, column)| retyped(field, column));
                let (fields, nulls) = (fields.collect(), structs.nulls().cloned());
                match columns.is_empty() {
                    true => array.clone(),
                    false => Arc::new(StructArray::new(fields, columns, nulls)),
                }
            }
            DataType::List(item) => self.list(array.as_list::<i32>(), item),
            DataType::LargeList(item) => self.list(array.as_list::<i64>(), item),
            DataType::FixedSizeList(item, width) => {
                let lists = array.as_fixed_size_list();
                let values = self.array(lists.values());
                let item = retyped(item, &values);
                Arc::new(FixedSizeListArray::new(item, *width, values, lists.nulls().cloned()))
            }
            DataType::Map(entries, sorted) => {
                let maps = array.as_map();
                let read = self.array(&(Arc::new(maps.entries().clone()) as ArrayRef));
                let entries = retyped(entries, &read);
                let (offsets, nulls) = (maps.offsets().clone(), maps.nulls().cloned());
                Arc::new(MapArray::new(
                    entries,
                    offsets,
                    read.as_struct().clone(),
                    nulls,
                    *sorted,
                ))
            }
            _ => {
                let packed = self.packed.get(self.column).copied().flatten();
                self.column += 1;
                match (array.as_fixed_size_binary_opt(), packed) {
                    (Some(bytes), Some(TwelveBytes::Int96)) => {
                        let pairs = bytes.iter().map(|bytes| bytes.map(pair));
                        Arc::new(pairs.collect::<IntervalMonthDayNanoArray>())
                    }
                    (Some(bytes), Some(TwelveBytes::Interval)) => {
                        let mut texts = StringBuilder::with_capacity(bytes.len(), bytes.len() * 16);
                        let mut text = String::new();
                        for bytes in bytes {
                            let Some(bytes) = bytes else {
                                texts.append_null();
                                continue;
                            };
                            text.clear();
                            write_duration(&mut text, bytes);
                            texts.append_value(&text);
                        }
                        Arc::new(texts.finish())
                    }
                    _ => array.clone(),
                }
            }
        }
    }

    fn list<O: OffsetSizeTrait>(&mut self, lists: &GenericListArray<O>, item: &FieldRef) -> ArrayRef {
        let values = self.array(lists.values());
        let item = retyped(item, &values);
        let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
        Arc::new(GenericListArray::<O>::new(item, offsets, values, nulls))
    }
}

/// A value's day and nanoseconds, unconverted.
fn pair(bytes: &[u8]) -> IntervalMonthDayNano {
    let (nanos, day) = bytes.split_at(8);
    let nanos = i64::from_le_bytes(nanos.try_into().expect("eight bytes were cut off"));
    let day = i32::from_le_bytes(day.try_into().expect("four of twelve bytes are left"));
    IntervalMonthDayNano::new(0, day, nanos)
}
