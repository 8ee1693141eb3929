use super::*;

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Float64Array, Int64Array, LargeStringArray, ListArray, RecordBatch,
    StringArray, StructArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, Int64Type};

fn columns(batch: RecordBatch) -> Raw {
    Raw {
        offsets: (0..batch.num_rows() as u64).collect(),
        payloads: Payloads::Columns {
            batch,
            path: Arc::from("file.parquet"),
            tag: Arc::from(""),
        },
        header: None,
        cut: Vec::new(),
        place: Default::default(),
    }
}

fn file() -> RecordBatch {
    let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("z")]));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(UInt64Array::from(vec![1, u64::MAX, 3]))),
        (
            "price",
            Arc::new(Float64Array::from(vec![Some(2.55), Some(1.0), Some(0.125)])),
        ),
        (
            "day",
            Arc::new(LargeStringArray::from(vec![Some("1/1/17"), Some("NA"), None])),
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from(vec![1_000, -1_000, 0]).with_timezone("Europe/Berlin")),
        ),
        (
            "tag",
            Arc::new(DictionaryArray::<Int32Type>::from_iter(["a", "b", "a"])),
        ),
        (
            "who",
            Arc::new(StructArray::from(vec![(
                Arc::new(arrow::datatypes::Field::new("name", inner.data_type().clone(), true)),
                inner,
            )])),
        ),
        ("nums", Arc::new(lists)),
        (
            "cents",
            Arc::new(
                Decimal128Array::from(vec![150, 200, 12_345])
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
        ),
        ("spare", Arc::new(Int64Array::from(vec![0, 0, 0]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

#[test]
fn columns_of_any_type_are_converted_exactly_or_refused_by_the_row() {
    let wanted = vec![
        col("id", "BIGINT").required(),
        col("price", "DECIMAL(10,2)"),
        col("day", "DATE").format(&["%m/%d/%y"]).null(&["NA"]),
        col("at", "TIMESTAMP"),
        col("tag", "VARCHAR"),
        col("name", "VARCHAR").from(&["name", "who.name"]),
        col("who", "VARCHAR"),
        col("nums", "INT[]"),
        col("whole", "INT").from(&["cents"]),
        col("absent", "DOUBLE"),
    ];
    let decoded = decoder(Format::Parquet, &[], wanted.clone()).decode(columns(file()));
    assert_eq!(rows(&decoded), Vec::<String>::new());
    let reasons = rejects(&decoded);
    assert!(
        reasons[0].contains("column \"whole\": \"1.50\" is no whole number"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("column \"id\": \"18446744073709551615\" does not fit"),
        "{reasons:?}"
    );
    assert!(
        reasons[2].contains("column \"price\": \"0.125\" has more digits"),
        "{reasons:?}"
    );
    assert_eq!(decoded.ignored_fields, [("spare".to_string(), 3)]);

    let mut lenient = wanted;
    lenient[0] = col("id", "DOUBLE");
    lenient[1] = col("price", "DECIMAL(10,3)");
    lenient[8] = col("whole", "DECIMAL(6,3)").from(&["cents"]);
    let decoded = decoder(Format::Parquet, &[], lenient).decode(columns(file()));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1.0|2.550|2017-01-01|1970-01-01T00:00:00.000001|a|x|{\"name\":\"x\"}|[1, ]|1.500|-",
            "1+ 1.8446744073709552e19|1.000|-|1969-12-31T23:59:59.999999|b|-|{\"name\":null}|-|2.000|-",
            "2+ 3.0|0.125|-|1970-01-01T00:00:00|a|z|{\"name\":\"z\"}|[]|123.450|-",
        ]
    );
}

#[test]
fn a_required_column_that_the_file_lacks_refuses_its_rows() {
    let decoded = decoder(Format::Parquet, &[], vec![col("Id", "BIGINT").required()]).decode(columns(file()));
    assert_eq!(decoded.rejects.len(), 3);
    assert!(
        decoded.rejects[0]
            .reason
            .contains("the file has no column [\"Id\"]: it has \"id,price"),
        "{:?}",
        decoded.rejects[0]
    );
}

#[test]
fn points_in_time_are_the_numbers_that_the_file_has_in_a_bigint() {
    use arrow::array::IntervalMonthDayNanoArray;
    use arrow::datatypes::IntervalMonthDayNano;
    let decoded = decoder(Format::Parquet, &[], vec![col("at", "BIGINT")]).decode(columns(file()));
    assert_eq!(rows(&decoded), ["0+ 1000", "1+ -1000", "2+ 0"]);
    // INT96 becomes nanoseconds since 1970, if 64 bits are enough.
    let day = |day, nanos| IntervalMonthDayNano::new(0, day, nanos);
    let days = IntervalMonthDayNanoArray::from(vec![day(2_440_589, 1), day(5_373_484, 0)]);
    let batch = RecordBatch::try_from_iter([("at", Arc::new(days) as ArrayRef)]).unwrap();
    let decoded = decoder(Format::Parquet, &[], vec![col("at", "BIGINT")]).decode(columns(batch));
    assert_eq!(rows(&decoded), ["0+ 86400000000001"]);
    assert!(
        decoded.rejects[0]
            .reason
            .contains("\"9999-12-31T00:00:00\" does not fit into BIGINT"),
        "{:?}",
        decoded.rejects
    );
}

/// The advice for a point beyond the calendar was VARCHAR, which refused it, too; days were refused as numbers.
#[test]
fn what_is_advised_for_moments_beyond_the_calendar_takes_them() {
    use arrow::array::{Date32Array, TimestampMicrosecondArray};
    let batch = RecordBatch::try_from_iter([
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX])) as ArrayRef,
        ),
        ("day", Arc::new(Date32Array::from(vec![i32::MAX])) as ArrayRef),
    ])
    .unwrap();
    for (column, sql_type, stored) in [("at", "TIMESTAMP", i64::MAX), ("day", "DATE", i64::from(i32::MAX))] {
        for refusing in [sql_type, "VARCHAR"] {
            let decoded = decoder(Format::Parquet, &[], vec![col(column, refusing)]).decode(columns(batch.clone()));
            let reason = &decoded.rejects[0].reason;
            assert!(
                reason.contains("or declare BIGINT, which takes the number that is stored"),
                "{reason}"
            );
        }
        let decoded = decoder(Format::Parquet, &[], vec![col(column, "BIGINT")]).decode(columns(batch.clone()));
        assert_eq!(rows(&decoded), [format!("0+ {stored}")]);
    }
    let decoded =
        decoder(Format::Ndjson, &[], vec![col("at", "TIMESTAMP")]).decode(raw(None, &["{\"at\":\"0000-01-01\"}"]));
    let reason = &decoded.rejects[0].reason;
    assert!(reason.ends_with("correct the record, or declare VARCHAR"), "{reason}");
}

/// An interval lost its months, because Arrow's reader converts it to days and milliseconds.
#[test]
fn intervals_of_parquet_are_texts_with_their_months() {
    use parquet::basic::{ConvertedType, Repetition, Type as Physical};
    use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType};
    use parquet::schema::types::Type;
    let interval = Type::primitive_type_builder("iv", Physical::FIXED_LEN_BYTE_ARRAY)
        .with_length(12)
        .with_converted_type(ConvertedType::INTERVAL)
        .with_repetition(Repetition::REQUIRED);
    let plain = Arc::new(interval.build().unwrap());
    let inner = Type::group_type_builder("s")
        .with_repetition(Repetition::REQUIRED)
        .with_fields(vec![plain.clone()]);
    let root = Type::group_type_builder("schema").with_fields(vec![plain, Arc::new(inner.build().unwrap())]);
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = parquet::file::writer::SerializedFileWriter::new(
        &mut file,
        Arc::new(root.build().unwrap()),
        Default::default(),
    )
    .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes: Vec<u8> = [1u32, 2, 3_004].iter().flat_map(|part| part.to_le_bytes()).collect();
    while let Some(mut column) = group.next_column().unwrap() {
        let value = FixedLenByteArray::from(bytes.clone());
        column
            .typed::<FixedLenByteArrayType>()
            .write_batch(&[value], None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let mut batches = crate::decode::formats::parquet::batches(move || file.try_clone(), 0, (2, 1 << 20)).unwrap();
    let columns_wanted = vec![col("iv", "VARCHAR"), col("s", "VARCHAR")];
    let decoded = decoder(Format::Parquet, &[], columns_wanted).decode(columns(batches.next().unwrap().unwrap()));
    assert_eq!(rows(&decoded), ["0+ P1M2DT3.004S|{\"iv\":\"P1M2DT3.004S\"}"]);
}

#[test]
fn impossible_conversions_are_refused() {
    let decoded = decoder(Format::Parquet, &[], vec![col("nums", "BIGINT")]).decode(columns(file()));
    assert_eq!(rows(&decoded), ["1+ -"]);
    assert!(decoded.rejects[0].reason.contains("cannot become BIGINT"));
}

#[test]
fn parquet_files_come_back_as_they_were_written() {
    let mut file_on_disk = tempfile::tempfile().unwrap();
    let batch = file();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file_on_disk, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let batches: Vec<_> = crate::decode::formats::parquet::batches(move || file_on_disk.try_clone(), 0, (2, 1 << 20))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).collect::<Vec<_>>(), [2, 1]);
    let mut decoder = decoder(
        Format::Parquet,
        &[],
        vec![col("tag", "VARCHAR"), col("price", "DOUBLE")],
    );
    let lines: Vec<String> = batches
        .into_iter()
        .flat_map(|b| rows(&decoder.decode(columns(b))))
        .collect();
    assert_eq!(lines, ["0+ a|2.55", "1+ b|1.0", "0+ a|0.125"]);
}
