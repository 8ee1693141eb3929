//! Small generated files, which tests damage.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, MapBuilder, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::array::{Int32Builder, StringBuilder};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::{Repetition, Type as Physical};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType as Data, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int96, Int96Type,
};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::avro_bytes::{long, text};

const MARKER: &[u8] = b"0123456789abcdef";

/// The header of an Avro object container.
pub fn avro_header(schema: &str, codec: &str) -> Vec<u8> {
    let entries = [text("avro.schema"), text(schema), text("avro.codec"), text(codec)].concat();
    [b"Obj\x01", &long(2)[..], &entries, &long(0), MARKER].concat()
}

/// An Avro block that claims `count` records.
pub fn avro_block(count: i64, records: &[u8]) -> Vec<u8> {
    [&long(count)[..], &long(records.len() as i64), records, MARKER].concat()
}

fn written(batch: &RecordBatch) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(25))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("a writer");
    writer.write(batch).expect("the batch is written");
    writer.into_inner().expect("the file is written")
}

/// Rows of numbers `id` and texts `name`, with few distinct names so that a dictionary is used, in groups of 25 rows.
pub fn parquet_file(ids: Range<i64>) -> Vec<u8> {
    let names: StringArray = ids
        .clone()
        .map(|id| (id % 7 > 0).then(|| format!("name {}", id % 3)))
        .collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    written(
        &RecordBatch::try_from_iter([("id", ids), ("name", Arc::new(names) as ArrayRef)])
            .expect("columns of one length"),
    )
}

/// A file with one column, from values with their definition and repetition levels.
fn one_column<T: Data>(column: Type, values: &[T::T], levels: &[i16], repeated: Option<&[i16]>) -> Vec<u8> {
    let schema = Type::group_type_builder("schema")
        .with_fields(vec![Arc::new(column)])
        .build()
        .expect("a schema");
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("no failure").expect("a column");
    let written = column.typed::<T>().write_batch(values, Some(levels), repeated);
    written.expect("values are written");
    column.close().expect("the column is written");
    group.close().expect("the row group is written");
    writer.into_inner().expect("the file is written")
}

fn column(of: Physical, repetition: Repetition) -> Type {
    let column = Type::primitive_type_builder("a", of).with_repetition(repetition);
    column.build().expect("a column")
}

/// A file with a column `a` of INT96, from Julian days and nanoseconds of the day.
pub fn int96_file(points: &[Option<(u32, u64)>]) -> Vec<u8> {
    let of_point = |(day, nanos): &(u32, u64)| {
        let mut value = Int96::new();
        value.set_data(*nanos as u32, (*nanos >> 32) as u32, *day);
        value
    };
    let values: Vec<Int96> = points.iter().flatten().map(of_point).collect();
    let levels: Vec<i16> = points.iter().map(|point| i16::from(point.is_some())).collect();
    one_column::<Int96Type>(column(Physical::INT96, Repetition::OPTIONAL), &values, &levels, None)
}

/// A file with a column `a` of bytes that readers take for text: because of an annotation, or if `annotation` is none
/// because of the Arrow schema in the footer.
pub fn bytes_as_text_file(annotation: Option<&str>, value: &[u8]) -> Vec<u8> {
    let Some(annotation) = annotation else {
        let told = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
        let told = KeyValue::new(ARROW_SCHEMA_META_KEY.to_string(), encode_arrow_schema(&told));
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![told]));
        let options = ArrowWriterOptions::new()
            .with_skip_arrow_metadata(true)
            .with_properties(properties.build());
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![value]));
        let batch = RecordBatch::try_from_iter_with_nullable([("a", bytes, true)]).expect("one column");
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).expect("a writer");
        writer.write(&batch).expect("the batch is written");
        return writer.into_inner().expect("the file is written");
    };
    let schema = format!("message schema {{ optional binary a ({annotation}); }}");
    let schema = parquet::schema::parser::parse_message_type(&schema).expect("a schema");
    let column = schema.get_fields()[0].as_ref().clone();
    one_column::<ByteArrayType>(column, &[ByteArray::from(value.to_vec())], &[1], None)
}

/// A file with a UUID `a`, a list `l` of UUIDs, and a UUID in a struct `s`; one row has the UUID in all places, one in
/// none.
pub fn uuid_file(uuid: [u8; 16]) -> Vec<u8> {
    let schema = "message schema { optional fixed_len_byte_array(16) a (UUID); optional group l (LIST) { repeated group list { \
                  optional fixed_len_byte_array(16) element (UUID); } } optional group s { \
                  optional fixed_len_byte_array(16) u (UUID); } }";
    let schema = parquet::schema::parser::parse_message_type(schema).expect("a schema");
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let value = [FixedLenByteArray::from(uuid.to_vec())];
    for (defined, repeated) in [(1, None), (3, Some(&[0, 0][..])), (2, None)] {
        let mut column = group.next_column().expect("no failure").expect("a column");
        let written = column
            .typed::<FixedLenByteArrayType>()
            .write_batch(&value, Some(&[defined, 0]), repeated);
        written.expect("values are written");
        column.close().expect("the column is written");
    }
    group.close().expect("the row group is written");
    writer.into_inner().expect("the file is written")
}

/// A file with a repeated column `a` that no annotation marks as a list; its rows have 1 and 2, nothing, and 3.
pub fn repeated_file() -> Vec<u8> {
    let column = column(Physical::INT32, Repetition::REPEATED);
    one_column::<Int32Type>(column, &[1, 2, 3], &[1, 1, 0, 1], Some(&[0, 1, 0, 0]))
}

/// A file with a row that has a map with integer keys and a null, a struct of unusual values and a list; and a row
/// whose struct has a timestamp outside the calendar.
pub fn nested_file() -> Vec<u8> {
    let mut maps = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    maps.keys().append_value(1);
    maps.values().append_value("one");
    maps.keys().append_value(2);
    maps.values().append_null();
    maps.append(true).expect("keys and values are as many");
    maps.append(false).expect("no entries");
    let field = |name: &str, of: DataType| Arc::new(Field::new(name, of, true));
    let points = TimestampMicrosecondArray::from(vec![None, Some(i64::MAX)]);
    let structs = StructArray::from(vec![
        (
            field("f", DataType::Float64),
            Arc::new(Float64Array::from(vec![f64::NAN, 0.0])) as ArrayRef,
        ),
        (
            field("g", DataType::Float64),
            Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, 0.0])),
        ),
        (
            field("b", DataType::Binary),
            Arc::new(BinaryArray::from_vec(vec![&[0, 255], &[]])),
        ),
        (field("d", points_type()), Arc::new(points)),
    ]);
    let lists = [Some(vec![Some(1.5), Some(f64::INFINITY), None]), None];
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    let columns: [(&str, ArrayRef); 3] = [
        ("m", Arc::new(maps.finish())),
        ("s", Arc::new(structs)),
        ("l", Arc::new(lists)),
    ];
    written(&RecordBatch::try_from_iter(columns).expect("columns of one length"))
}

fn points_type() -> DataType {
    DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)
}
