//! Rows of arrow as values, and values as columns of arrow.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use super::number::rescaled;
use super::trust::Unjudged;
use super::value::{Length, Type, Value};

/// A row.
pub type Row = Vec<Value>;

/// What a column of arrow is in SQL.
pub fn type_of(of: &DataType) -> Type {
    match of {
        DataType::Null => Type::Null,
        DataType::Boolean => Type::Bool,
        DataType::Int16 | DataType::UInt8 => Type::Int(16),
        DataType::Int32 | DataType::UInt16 => Type::Int(32),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Type::Int(64),
        DataType::Float64 => Type::Double,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::Text,
        DataType::Date32 => Type::Date,
        DataType::Timestamp(TimeUnit::Microsecond, zone) => Type::Moment(zone.is_some()),
        DataType::Decimal128(_, scale) if *scale >= 0 => Type::Number(*scale as u8),
        DataType::Interval(_) => Type::Length,
        other => Type::Whole(other.clone()),
    }
}

/// The type of arrow in which functions are given values of a type.
pub fn arrow_type(of: &Type) -> DataType {
    match of {
        Type::Null => DataType::Null,
        Type::Bool => DataType::Boolean,
        Type::Int(16) => DataType::Int16,
        Type::Int(32) => DataType::Int32,
        Type::Int(_) => DataType::Int64,
        Type::Double => DataType::Float64,
        Type::Text => DataType::Utf8,
        Type::Date => DataType::Date32,
        Type::Moment(zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.then(|| "UTC".into())),
        Type::Number(scale) => DataType::Decimal128(38, *scale as i8),
        Type::Length => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        Type::Whole(of) => of.clone(),
    }
}

/// The rows of batches.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<Row>, Unjudged> {
    let mut all = Vec::new();
    for batch in batches {
        let first = all.len();
        all.resize_with(first + batch.num_rows(), || Vec::with_capacity(batch.num_columns()));
        for column in batch.columns() {
            for (row, value) in all[first..].iter_mut().zip(values(column)?) {
                row.push(value);
            }
        }
    }
    Ok(all)
}

/// The values of a column.
pub fn values(column: &ArrayRef) -> Result<Vec<Value>, Unjudged> {
    fn made<T>(items: impl Iterator<Item = Option<T>>, make: impl Fn(T) -> Value) -> Vec<Value> {
        items.map(|item| item.map_or(Value::Null, &make)).collect()
    }
    Ok(match column.data_type() {
        DataType::Null => vec![Value::Null; column.len()],
        DataType::Boolean => made(column.as_boolean().iter(), Value::Bool),
        DataType::Int16 => made(column.as_primitive::<Int16Type>().iter(), |n| Value::Int(n.into())),
        DataType::Int32 => made(column.as_primitive::<Int32Type>().iter(), |n| Value::Int(n.into())),
        DataType::Int64 => made(column.as_primitive::<Int64Type>().iter(), Value::Int),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            // As a table holds them; one that does not fit is an error.
            let strict = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            let signed = cast_with_options(column, &DataType::Int64, &strict).map_err(Unjudged::row)?;
            return values(&signed);
        }
        DataType::Float64 => made(column.as_primitive::<Float64Type>().iter(), |x| Value::Double(x + 0.0)),
        DataType::Utf8 => made(column.as_string::<i32>().iter(), Value::text),
        DataType::LargeUtf8 => made(column.as_string::<i64>().iter(), Value::text),
        DataType::Utf8View => made(column.as_string_view().iter(), Value::text),
        DataType::Date32 => made(column.as_primitive::<Date32Type>().iter(), Value::Date),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            made(column.as_primitive::<TimestampMicrosecondType>().iter(), Value::Moment)
        }
        DataType::Decimal128(_, scale) if *scale >= 0 => {
            let scale = *scale as u8;
            made(column.as_primitive::<Decimal128Type>().iter(), |n| {
                Value::Number(n, scale)
            })
        }
        _ => {
            let scalars = (0..column.len()).map(|row| {
                let scalar = ScalarValue::try_from_array(column, row).map_err(Unjudged::row)?;
                value(scalar)
            });
            scalars.collect::<Result<_, _>>()?
        }
    })
}

/// A single value.
pub fn value(scalar: ScalarValue) -> Result<Value, Unjudged> {
    Ok(match scalar {
        scalar if scalar.is_null() => Value::Null,
        ScalarValue::IntervalMonthDayNano(Some(length)) => Value::Length(Length {
            months: length.months,
            days: length.days,
            micros: length.nanoseconds / 1000,
        }),
        scalar => match type_of(&scalar.data_type()) {
            Type::Whole(_) => Value::Whole(Arc::new(scalar)),
            _ => {
                let column = scalar.to_array().map_err(Unjudged::row)?;
                values(&column)?.pop().expect("one value makes one")
            }
        },
    })
}

/// A value as one of arrow's; one of NULL is of the type.
pub fn scalar(value: &Value, of: &DataType) -> Result<ScalarValue, Unjudged> {
    let not = || Unjudged::Types(format!("a value that is no {of}"));
    let int = |n: i64| match of {
        DataType::Int16 => i16::try_from(n).map(|n| ScalarValue::Int16(Some(n))).ok(),
        DataType::Int32 => i32::try_from(n).map(|n| ScalarValue::Int32(Some(n))).ok(),
        DataType::Int64 => Some(ScalarValue::Int64(Some(n))),
        _ => None,
    };
    Ok(match value {
        Value::Null => ScalarValue::try_from(of).map_err(Unjudged::row)?,
        Value::Bool(b) => ScalarValue::Boolean(Some(*b)),
        Value::Int(n) => match of {
            DataType::Decimal128(digits, scale) => {
                ScalarValue::Decimal128(rescaled(((*n).into(), 0), *scale as u8), *digits, *scale)
            }
            DataType::Float64 => ScalarValue::Float64(Some(*n as f64)),
            _ => int(*n).ok_or_else(not)?,
        },
        Value::Number(n, had) => match of {
            DataType::Decimal128(digits, scale) => {
                ScalarValue::Decimal128(rescaled((*n, *had), *scale as u8), *digits, *scale)
            }
            _ => return Err(not()),
        },
        Value::Double(x) => ScalarValue::Float64(Some(*x)),
        Value::Text(text) => ScalarValue::Utf8(Some(text.to_string())),
        Value::Date(days) => ScalarValue::Date32(Some(*days)),
        Value::Moment(micros) => match of {
            DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(*micros), zone.clone()),
            _ => return Err(not()),
        },
        Value::Length(length) => ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
            length.months,
            length.days,
            length.micros.checked_mul(1000).ok_or_else(not)?,
        ))),
        Value::Whole(scalar) => scalar.as_ref().clone(),
    })
}

/// Rows as a batch of a schema.
pub fn batch(rows: &[Row], schema: &SchemaRef) -> Result<RecordBatch, Unjudged> {
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| -> Result<ArrayRef, Unjudged> {
            if rows.is_empty() {
                return Ok(arrow::array::new_empty_array(field.data_type()));
            }
            let scalars = rows.iter().map(|row| scalar(&row[at], field.data_type()));
            let scalars = scalars.collect::<Result<Vec<_>, _>>()?;
            let column = ScalarValue::iter_to_array(scalars).map_err(Unjudged::row)?;
            match column.data_type() == field.data_type() {
                true => Ok(column),
                false => arrow::compute::cast(&column, field.data_type()).map_err(Unjudged::row),
            }
        });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(Unjudged::row)
}
