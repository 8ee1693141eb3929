//! Converts Arrow rows to values, and values to Arrow columns.

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
use super::value::{IntervalLength, Scalar, ScalarType};

/// The values of a row.
pub type ScalarRow = Vec<Scalar>;

/// The SQL type of an Arrow column.
pub fn type_of(of: &DataType) -> ScalarType {
    match of {
        DataType::Null => ScalarType::Null,
        DataType::Boolean => ScalarType::Bool,
        DataType::Int16 | DataType::UInt8 => ScalarType::Int(16),
        DataType::Int32 | DataType::UInt16 => ScalarType::Int(32),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => ScalarType::Int(64),
        DataType::Float64 => ScalarType::Double,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ScalarType::Text,
        DataType::Date32 => ScalarType::Date,
        DataType::Timestamp(TimeUnit::Microsecond, zone) => ScalarType::Moment(zone.is_some()),
        DataType::Decimal128(_, scale) if *scale >= 0 => ScalarType::Number(*scale as u8),
        DataType::Interval(_) => ScalarType::Length,
        other => ScalarType::Arrow(other.clone()),
    }
}

/// The Arrow type in which functions receive values of a type.
pub fn arrow_type(of: &ScalarType) -> DataType {
    match of {
        ScalarType::Null => DataType::Null,
        ScalarType::Bool => DataType::Boolean,
        ScalarType::Int(16) => DataType::Int16,
        ScalarType::Int(32) => DataType::Int32,
        ScalarType::Int(_) => DataType::Int64,
        ScalarType::Double => DataType::Float64,
        ScalarType::Text => DataType::Utf8,
        ScalarType::Date => DataType::Date32,
        ScalarType::Moment(zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.then(|| "UTC".into())),
        ScalarType::Number(scale) => DataType::Decimal128(38, *scale as i8),
        ScalarType::Length => DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        ScalarType::Arrow(of) => of.clone(),
    }
}

/// The rows of batches, as values.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<ScalarRow>, Unjudged> {
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
pub fn values(column: &ArrayRef) -> Result<Vec<Scalar>, Unjudged> {
    fn made<T>(items: impl Iterator<Item = Option<T>>, make: impl Fn(T) -> Scalar) -> Vec<Scalar> {
        items.map(|item| item.map_or(Scalar::Null, &make)).collect()
    }
    Ok(match column.data_type() {
        DataType::Null => vec![Scalar::Null; column.len()],
        DataType::Boolean => made(column.as_boolean().iter(), Scalar::Bool),
        DataType::Int16 => made(column.as_primitive::<Int16Type>().iter(), |n| Scalar::Int(n.into())),
        DataType::Int32 => made(column.as_primitive::<Int32Type>().iter(), |n| Scalar::Int(n.into())),
        DataType::Int64 => made(column.as_primitive::<Int64Type>().iter(), Scalar::Int),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            // Tables hold these as BIGINT; a value that does not fit is an error.
            let strict = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            let signed = cast_with_options(column, &DataType::Int64, &strict).map_err(Unjudged::row)?;
            return values(&signed);
        }
        DataType::Float64 => made(column.as_primitive::<Float64Type>().iter(), |x| Scalar::Double(x + 0.0)),
        DataType::Utf8 => made(column.as_string::<i32>().iter(), Scalar::text),
        DataType::LargeUtf8 => made(column.as_string::<i64>().iter(), Scalar::text),
        DataType::Utf8View => made(column.as_string_view().iter(), Scalar::text),
        DataType::Date32 => made(column.as_primitive::<Date32Type>().iter(), Scalar::Date),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            made(column.as_primitive::<TimestampMicrosecondType>().iter(), Scalar::Moment)
        }
        DataType::Decimal128(_, scale) if *scale >= 0 => {
            let scale = *scale as u8;
            made(column.as_primitive::<Decimal128Type>().iter(), |n| {
                Scalar::Number(n, scale)
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

/// Converts a single Arrow value.
pub fn value(scalar: ScalarValue) -> Result<Scalar, Unjudged> {
    Ok(match scalar {
        scalar if scalar.is_null() => Scalar::Null,
        ScalarValue::IntervalMonthDayNano(Some(length)) => Scalar::Length(IntervalLength {
            months: length.months,
            days: length.days,
            micros: length.nanoseconds / 1000,
        }),
        scalar => match type_of(&scalar.data_type()) {
            ScalarType::Arrow(_) => Scalar::Arrow(Arc::new(scalar)),
            _ => {
                let column = scalar.to_array().map_err(Unjudged::row)?;
                values(&column)?.pop().expect("one value makes one")
            }
        },
    })
}

/// Converts a value to an Arrow scalar of this type; NULL becomes a null of the type.
pub fn scalar(value: &Scalar, of: &DataType) -> Result<ScalarValue, Unjudged> {
    let not = || Unjudged::Types(format!("a value that is no {of}"));
    let int = |n: i64| match of {
        DataType::Int16 => i16::try_from(n).map(|n| ScalarValue::Int16(Some(n))).ok(),
        DataType::Int32 => i32::try_from(n).map(|n| ScalarValue::Int32(Some(n))).ok(),
        DataType::Int64 => Some(ScalarValue::Int64(Some(n))),
        _ => None,
    };
    Ok(match value {
        Scalar::Null => ScalarValue::try_from(of).map_err(Unjudged::row)?,
        Scalar::Bool(b) => ScalarValue::Boolean(Some(*b)),
        Scalar::Int(n) => match of {
            DataType::Decimal128(digits, scale) => {
                ScalarValue::Decimal128(rescaled(((*n).into(), 0), *scale as u8), *digits, *scale)
            }
            DataType::Float64 => ScalarValue::Float64(Some(*n as f64)),
            _ => int(*n).ok_or_else(not)?,
        },
        Scalar::Number(n, had) => match of {
            DataType::Decimal128(digits, scale) => {
                ScalarValue::Decimal128(rescaled((*n, *had), *scale as u8), *digits, *scale)
            }
            _ => return Err(not()),
        },
        Scalar::Double(x) => ScalarValue::Float64(Some(*x)),
        Scalar::Text(text) => ScalarValue::Utf8(Some(text.to_string())),
        Scalar::Date(days) => ScalarValue::Date32(Some(*days)),
        Scalar::Moment(micros) => match of {
            DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(*micros), zone.clone()),
            _ => return Err(not()),
        },
        Scalar::Length(length) => ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
            length.months,
            length.days,
            length.micros.checked_mul(1000).ok_or_else(not)?,
        ))),
        Scalar::Arrow(scalar) => scalar.as_ref().clone(),
    })
}

/// Converts rows to a batch of a schema.
pub fn batch(rows: &[ScalarRow], schema: &SchemaRef) -> Result<RecordBatch, Unjudged> {
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
