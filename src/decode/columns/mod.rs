//! Converts columns of a file to columns of an input: they are found by name or dotted path, and converted exactly.
//!
//! A column of the right type is used unchanged. Integers are narrowed with a check, points in time are converted to
//! microseconds (finer ones are refused, or truncated if the column's format says so; zones become UTC), text is
//! parsed like any text, and everything else is first written as text, so that the same rules apply: nothing is
//! rounded or wrapped. Nested values in a VARCHAR become JSON (`nested`).

pub(in crate::decode) mod file;
pub(in crate::decode) mod file_fields;
mod nested;
mod uuids;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, PrimitiveArray, RecordBatch, StringBuilder, make_array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options, max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Int64Type, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use crate::decode::cell::{Cell, CellKind};
use crate::decode::changes::{DecodedBatch, InputShape, TypedRows};
use crate::decode::coerce;
use crate::decode::coerce::{CellFault, ParseFailure, temporal};
use crate::decode::columns::file_fields::{FileFields, stranger};
use crate::decode::decoded::ChangeOp;
use crate::decode::formats::parquet::{INT96, int96_nanos};
use crate::decode::path;
use crate::decode::target::{EpochUnit, SubMicrosecondRule, Target};
use crate::definition::FileField;
use crate::repr::SqlType;
use crate::words::{in_sql_words, sql_types};

pub(super) use uuids::UUID;

/// Decodes rows of a file.
pub(super) fn decode(shape: &InputShape, batch: &RecordBatch) -> DecodedBatch {
    let rows = batch.num_rows();
    let fields = batch.schema_ref().fields();
    let mut faults = Vec::new();
    let mut used = vec![false; batch.num_columns()];
    let mut missing = vec![false; shape.targets.len()];
    let mut arrays = Vec::with_capacity(shape.targets.len());
    for (column, target) in shape.targets.iter().enumerate() {
        let named = target
            .from
            .iter()
            .find_map(|name| find(batch, name).map(|named| (named, name)));
        match named {
            Some(((root, array), name)) => {
                let array = uuids::taken(array, uuids::field_of(batch, name).as_deref(), &target.sql_type);
                used[root] = true;
                let twins = fields.iter().filter(|field| field.name() == fields[root].name());
                arrays.push(match twins.count() {
                    1 => convert(target, &array, &mut faults),
                    _ => refuse_twins(target, fields[root].name(), rows, &mut faults),
                });
            }
            None => {
                missing[column] = true;
                arrays.push(new_null_array(&target.arrow, rows));
            }
        }
    }
    let asked = shape.targets.iter().zip(&missing);
    let mut asked = asked.filter(|(target, _)| FileField::among(&target.from).is_none());
    // A row of nulls would hide the mistake; if a column is required, that column reports it.
    if shape.may_be_null() && asked.all(|(_, missing)| *missing) {
        let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let reason = stranger(&names, &shape.targets);
        faults.extend((0..rows as u32).map(|row| CellFault {
            row,
            reason: reason.clone(),
        }));
    }
    let mut typed = TypedRows {
        arrays,
        ops: vec![ChangeOp::Upsert; rows],
        record: (0..rows as u32).collect(),
        rejects: Vec::new(),
        counted: Vec::new(),
        unchanged: Vec::new(),
    };
    typed.require(shape, &mut faults, |_, column| {
        missing[column].then(|| {
            let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
            let Target { name, from, .. } = &shape.targets[column];
            format!(
                "column {name:?} is {}, but the file has no column {from:?}: it has {}; list its name there in the column's `from`, or {}",
                shape.needed(column),
                coerce::shown(&names.join(",")),
                shape.remedy(column)
            )
        })
    });
    typed.refuse(faults);
    let ignored = fields.iter().zip(used).filter(|(_, used)| rows > 0 && !used);
    let ignored = ignored.map(|(field, _)| (field.name().clone(), rows as u64)).collect();
    DecodedBatch::new(typed, vec![None; rows], ignored)
}

/// The fields that a file has of those that columns take.
pub(super) fn taken_fields(targets: &[Target], batch: &RecordBatch) -> FileFields {
    let root_fields: Vec<Option<usize>> = targets
        .iter()
        .map(|target| target.from.iter().find_map(|name| find(batch, name)))
        .map(|field| field.map(|(root, _)| root))
        .collect();
    let names: Vec<String> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let ignored = names
        .iter()
        .enumerate()
        .filter(|(root, _)| !root_fields.contains(&Some(*root)));
    FileFields {
        columns: root_fields.iter().map(Option::is_some).collect(),
        ignored: ignored.map(|(_, name)| name.clone()).collect(),
        names,
    }
}

/// Finds a column by its name, or by a path into structs; returns it with the index of the file's column.
fn find(batch: &RecordBatch, name: &str) -> Option<(usize, ArrayRef)> {
    let schema = batch.schema_ref();
    if let Some((root, _)) = schema.column_with_name(name) {
        return Some((root, Arc::clone(batch.column(root))));
    }
    let steps = path::steps(name);
    let (first, inner) = steps.split_first()?;
    let (root, _) = schema.column_with_name(first)?;
    let mut array = Arc::clone(batch.column(root));
    for step in inner {
        let outer = array.as_struct_opt()?;
        let inner = outer.column_by_name(step)?;
        // The fields of a null struct count as null, whatever values are stored.
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        let data = inner.to_data().into_builder().nulls(nulls);
        array = make_array(data.build().ok()?);
    }
    Some((root, array))
}

/// Converts an array to the target's type, with a null and a fault where a value does not fit.
fn convert(target: &Target, array: &ArrayRef, faults: &mut Vec<CellFault>) -> ArrayRef {
    use DataType as T;
    use SqlType as S;
    let plain = target.nulls.is_empty() && target.patterns.is_empty();
    match (array.data_type(), &target.sql_type) {
        (T::Timestamp(TimeUnit::Microsecond, None), S::Timestamp)
            if plain && within_calendar(array, EpochUnit::Micros) =>
        {
            Arc::clone(array)
        }
        (T::Date32, S::Date) if plain && within_calendar(array, EpochUnit::Days) => Arc::clone(array),
        (T::Decimal128(precision, _), S::Decimal(..)) if *array.data_type() == target.arrow && plain => {
            // A file may contain more digits than its schema declares.
            match array
                .as_primitive::<Decimal128Type>()
                .validate_decimal_precision(*precision)
            {
                Ok(()) => Arc::clone(array),
                Err(_) => through_text(target, array, CellKind::Number, faults),
            }
        }
        (from, _) if *from == target.arrow && plain && !from.is_temporal() && !from.is_nested() => Arc::clone(array),
        (T::Dictionary(_, values), _) => match cast(array, values) {
            Ok(array) => convert(target, &array, faults),
            Err(_) => refuse(target, array, faults),
        },
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, _) => through_text(target, array, CellKind::Text, faults),
        (from, S::Int | S::BigInt) if from.is_integer() && plain => narrow(target, array, faults),
        (from, S::Double) if (from.is_integer() || from.is_floating()) && plain => {
            cast(array, &target.arrow).unwrap_or_else(|_| refuse(target, array, faults))
        }
        (T::Timestamp(unit, _), S::Timestamp | S::Date) => {
            let epoch = match unit {
                TimeUnit::Second => EpochUnit::Seconds,
                TimeUnit::Millisecond => EpochUnit::Millis,
                TimeUnit::Microsecond => EpochUnit::Micros,
                TimeUnit::Nanosecond => EpochUnit::Nanos,
            };
            points(target, array, epoch, faults)
        }
        (from, S::Timestamp | S::Date) if *from == INT96 => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            let nanos = |row: usize| int96_nanos(values.value(row));
            let point = |row| temporal::wide(nanos(row), target.finer);
            points_by(target, array, faults, point, |row| format!("{} ns", nanos(row)))
        }
        (from, S::BigInt) if *from == INT96 && plain => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            let nanos = |row: usize| int96_nanos(values.value(row));
            let number = |row| i64::try_from(nanos(row)).map_err(|_| ParseFailure::Beyond);
            values_by::<Int64Type>(target, array, faults, number, |row| format!("{} ns", nanos(row)))
        }
        // The stored number is used, in the file's unit.
        (T::Timestamp(..) | T::Date32 | T::Date64, S::BigInt) if plain => {
            counts(array).unwrap_or_else(|_| refuse(target, array, faults))
        }
        (T::Date32, S::Timestamp | S::Date) => points(target, array, EpochUnit::Days, faults),
        (T::Date64, S::Timestamp | S::Date) => points(target, array, EpochUnit::Millis, faults),
        (T::LargeList(item) | T::FixedSizeList(item, _) | T::ListView(item) | T::LargeListView(item), S::List(_)) => {
            match cast(array, &T::List(Arc::clone(item))) {
                Ok(array) => lists(target, array.as_list(), faults),
                Err(_) => refuse(target, array, faults),
            }
        }
        (T::List(_), S::List(_)) => lists(target, array.as_list(), faults),
        (from, S::Varchar) if from.is_nested() => nested(target, array, faults),
        (T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_), S::Binary) => {
            cast(array, &T::Binary).unwrap_or_else(|_| refuse(target, array, faults))
        }
        (T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_), S::Varchar) => utf8(target, array, faults),
        (from, _) if from.is_nested() || *from == T::Null => refuse(target, array, faults),
        (from, _) => {
            let kind = if from.is_numeric() {
                CellKind::Number
            } else {
                CellKind::Text
            };
            through_text(target, array, kind, faults)
        }
    }
}

/// Converts an array by writing each value as text and parsing that.
fn through_text(target: &Target, array: &ArrayRef, kind: CellKind, faults: &mut Vec<CellFault>) -> ArrayRef {
    let Ok(show) = nested::shown(array.as_ref()) else {
        return refuse(target, array, faults);
    };
    let mut texts = String::new();
    let mut ends = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        let start = texts.len();
        if array.is_valid(row)
            && let Err(error) = show(row, &mut texts)
        {
            texts.truncate(start);
            faults.push(unshown(target, row, array.data_type(), &error));
        }
        ends.push((start, texts.len()));
    }
    let shown = ends.iter().map(|(start, end)| &texts[*start..*end]);
    let cells = shown.enumerate().map(|(row, text)| match text {
        "" if array.is_null(row) || kind == CellKind::Number => Cell::NULL,
        text => Cell::new(kind, text),
    });
    let cells: Vec<Cell<'_>> = cells.collect();
    coerce::column(target, &cells, faults)
}

/// The fault for a value that cannot be written as text.
fn unshown(target: &Target, row: usize, of: &DataType, error: &ArrowError) -> CellFault {
    let remedy = match of {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            ", or declare BIGINT, which takes the number that is stored"
        }
        _ => "",
    };
    CellFault {
        row: row as u32,
        reason: format!(
            "column {:?}: the value cannot be written as text: {}; correct the file{remedy}",
            target.name,
            in_sql_words(&error.to_string())
        ),
    }
}

/// Converts integers to a type that may be too small for them.
fn narrow(target: &Target, array: &ArrayRef, faults: &mut Vec<CellFault>) -> ArrayRef {
    let checked = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    match cast_with_options(array, &target.arrow, &checked) {
        Ok(narrowed) if narrowed.null_count() == array.null_count() => narrowed,
        _ => through_text(target, array, CellKind::Number, faults),
    }
}

/// Whether all values lie in the years 1 to 9999.
fn within_calendar(array: &ArrayRef, unit: EpochUnit) -> bool {
    counts(array).is_ok_and(|counts| {
        let counts = counts.as_primitive::<Int64Type>();
        let (least, greatest) = (min(counts), max(counts));
        let mut ends = least.into_iter().chain(greatest);
        ends.all(|end| temporal::scaled(end, unit, SubMicrosecondRule::Refused).is_ok())
    })
}

/// Points in time as the numbers by which they are stored.
fn counts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, &DataType::Int64)),
        _ => cast(array, &DataType::Int64),
    }
}

/// Converts counts of time units to points or days.
fn points(target: &Target, array: &ArrayRef, unit: EpochUnit, faults: &mut Vec<CellFault>) -> ArrayRef {
    let Ok(counts) = counts(array) else {
        return refuse(target, array, faults);
    };
    let counts = counts.as_primitive::<Int64Type>();
    let point = |row| temporal::scaled(counts.value(row), unit, target.finer);
    points_by(target, array, faults, point, |row| counts.value(row).to_string())
}

/// Converts rows to points, or to days, with `point`; `count` gives the text for a value that is beyond the calendar.
fn points_by(
    target: &Target,
    array: &ArrayRef,
    faults: &mut Vec<CellFault>,
    point: impl Fn(usize) -> Result<i64, ParseFailure>,
    count: impl Fn(usize) -> String,
) -> ArrayRef {
    match target.sql_type {
        SqlType::Date => {
            let day = |row| point(row).and_then(temporal::day);
            values_by::<Date32Type>(target, array, faults, day, count)
        }
        _ => values_by::<TimestampMicrosecondType>(target, array, faults, point, count),
    }
}

/// Converts rows with `value`, with a null and a fault where it fails.
fn values_by<T: ArrowPrimitiveType>(
    target: &Target,
    array: &ArrayRef,
    faults: &mut Vec<CellFault>,
    value: impl Fn(usize) -> Result<T::Native, ParseFailure>,
    count: impl Fn(usize) -> String,
) -> ArrayRef {
    let show = nested::shown(array.as_ref()).ok();
    let mut values = PrimitiveArray::<T>::builder(array.len());
    for row in 0..array.len() {
        if array.is_null(row) {
            values.append_null();
            continue;
        }
        match value(row) {
            Ok(value) => values.append_value(value),
            Err(why) => {
                let mut text = String::new();
                if show.as_ref().is_none_or(|show| show(row, &mut text).is_err()) {
                    text = count(row);
                }
                let reason = match (why, &target.sql_type) {
                    (ParseFailure::Beyond, SqlType::Date | SqlType::Timestamp) => format!(
                        "column {:?}: {} does not fit into {}, which holds the years 1 to 9999; correct the file, or declare BIGINT, which takes the number that is stored",
                        target.name,
                        coerce::shown(&text),
                        target.sql_type
                    ),
                    (why, _) => coerce::reason(target, &text, why),
                };
                faults.push(CellFault {
                    row: row as u32,
                    reason,
                });
                values.append_null();
            }
        }
    }
    Arc::new(values.finish())
}

/// Converts lists value by value.
fn lists(target: &Target, lists: &ListArray, faults: &mut Vec<CellFault>) -> ArrayRef {
    let item = target.item().expect("only list targets come here");
    let mut inner = Vec::new();
    let field = match lists.data_type() {
        DataType::List(field) => Some(field.as_ref()),
        _ => None,
    };
    let values = uuids::taken(lists.values().clone(), field, &item.sql_type);
    let values = convert(&item, &values, &mut inner);
    let offsets = lists.value_offsets();
    for fault in inner {
        // The list that contains the value. A value behind a null list belongs to no list, so its fault is ignored.
        let owner = offsets.partition_point(|offset| *offset <= fault.row as i32);
        if owner > 0 && owner <= lists.len() && lists.is_valid(owner - 1) {
            faults.push(CellFault {
                row: owner as u32 - 1,
                ..fault
            });
        }
    }
    Arc::new(ListArray::new(
        Arc::new(Field::new("item", item.arrow.clone(), true)),
        lists.offsets().clone(),
        values,
        lists.nulls().cloned(),
    ))
}

/// Converts nested values to JSON text.
fn nested(target: &Target, array: &ArrayRef, faults: &mut Vec<CellFault>) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 32);
    let mut unwritten = Vec::new();
    let written = nested::texts(array, |row, text| match text {
        Some(Ok(text)) => out.append_value(text),
        None => out.append_null(),
        Some(Err(error)) => {
            unwritten.push(unshown(target, row, array.data_type(), &error));
            out.append_null();
        }
    });
    if written.is_err() {
        return refuse(target, array, faults);
    }
    faults.extend(unwritten);
    Arc::new(out.finish())
}

/// Converts bytes that should be text.
fn utf8(target: &Target, array: &ArrayRef, faults: &mut Vec<CellFault>) -> ArrayRef {
    let Ok(bytes) = cast(array, &DataType::Binary) else {
        return refuse(target, array, faults);
    };
    let bytes = bytes.as_binary::<i32>();
    let cells: Vec<Cell<'_>> = bytes
        .iter()
        .enumerate()
        .map(|(row, bytes)| match bytes.map(std::str::from_utf8) {
            None => Cell::NULL,
            Some(Ok(text)) => Cell::new(CellKind::Text, text),
            Some(Err(_)) => {
                faults.push(CellFault {
                    row: row as u32,
                    reason: format!(
                        "column {:?}: the bytes are not UTF-8; declare the column BINARY",
                        target.name
                    ),
                });
                Cell::NULL
            }
        })
        .collect();
    coerce::column(target, &cells, faults)
}

/// Refuses all rows, because the file has two columns with this name.
fn refuse_twins(target: &Target, field: &str, rows: usize, faults: &mut Vec<CellFault>) -> ArrayRef {
    let reason = format!(
        "column {:?}: the file has more than one column {field:?}; write it with names that differ",
        target.name
    );
    faults.extend((0..rows as u32).map(|row| CellFault {
        row,
        reason: reason.clone(),
    }));
    new_null_array(&target.arrow, rows)
}

/// Refuses all values that are not null, because the types do not fit.
fn refuse(target: &Target, array: &ArrayRef, faults: &mut Vec<CellFault>) -> ArrayRef {
    let from = array.data_type();
    if *from != DataType::Null {
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            faults.push(CellFault {
                row: row as u32,
                reason: format!(
                    "column {:?}: the file has {}, which cannot become {}; declare another type",
                    target.name,
                    sql_types(&from.to_string()),
                    target.sql_type
                ),
            });
        }
    }
    new_null_array(&target.arrow, array.len())
}
