//! Loops over numbers: a function of two values for each row, that may fail or not.
//!
//! Constants are not made columns, and nothing is allocated for a row. What cannot fail has a loop without a branch.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, new_null_array};
use arrow::compute::{binary, try_binary};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

/// One side of an operation: a column, or the same value for all rows (none: null).
pub(in crate::plan) enum Side<T: ArrowPrimitiveType> {
    Column(PrimitiveArray<T>),
    Value(Option<T::Native>),
}

impl<T: ArrowPrimitiveType> Side<T> {
    /// Of values of this type.
    pub fn new(value: &ColumnarValue) -> Result<Side<T>> {
        Ok(match value {
            ColumnarValue::Array(array) => Side::Column(array.as_primitive::<T>().clone()),
            ColumnarValue::Scalar(value) => {
                let one = value.to_array()?;
                let one = one.as_primitive::<T>();
                Side::Value((!one.is_null(0)).then(|| one.value(0)))
            }
        })
    }
}

/// The outcome for each row, none of which fails.
pub(in crate::plan) fn plain<A, B, O>(
    left: &Side<A>,
    right: &Side<B>,
    f: impl Fn(A::Native, B::Native) -> O::Native,
) -> Result<Outcome<O>>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Ok(match (left, right) {
        (Side::Column(l), Side::Column(r)) => Outcome::Column(binary(l, r, f)?),
        (Side::Column(l), Side::Value(Some(r))) => Outcome::Column(l.unary(|l| f(l, *r))),
        (Side::Value(Some(l)), Side::Column(r)) => Outcome::Column(r.unary(|r| f(*l, r))),
        (Side::Value(Some(l)), Side::Value(Some(r))) => Outcome::Value(Some(f(*l, *r))),
        (Side::Value(_), Side::Value(_)) => Outcome::Value(None),
        (Side::Column(l), _) => Outcome::Nulls(l.len()),
        (_, Side::Column(r)) => Outcome::Nulls(r.len()),
    })
}

/// The outcome for each row, some of which may fail.
pub(in crate::plan) fn checked<A, B, O>(
    left: &Side<A>,
    right: &Side<B>,
    f: impl Fn(A::Native, B::Native) -> Result<O::Native, ArrowError>,
) -> Result<Outcome<O>>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Ok(match (left, right) {
        (Side::Column(l), Side::Column(r)) => Outcome::Column(try_binary(l, r, f)?),
        (Side::Column(l), Side::Value(Some(r))) => Outcome::Column(l.try_unary(|l| f(l, *r))?),
        (Side::Value(Some(l)), Side::Column(r)) => Outcome::Column(r.try_unary(|r| f(*l, r))?),
        (Side::Value(Some(l)), Side::Value(Some(r))) => Outcome::Value(Some(f(*l, *r)?)),
        (Side::Value(_), Side::Value(_)) => Outcome::Value(None),
        (Side::Column(l), _) => Outcome::Nulls(l.len()),
        (_, Side::Column(r)) => Outcome::Nulls(r.len()),
    })
}

/// What a loop has made.
pub(in crate::plan) enum Outcome<O: ArrowPrimitiveType> {
    Column(PrimitiveArray<O>),
    Value(Option<O::Native>),
    Nulls(usize),
}

impl<O: ArrowPrimitiveType> Outcome<O> {
    /// As values of a type, which decides on the digits of decimals.
    pub fn of(self, to: &DataType) -> Result<ColumnarValue> {
        Ok(match self {
            Outcome::Column(column) => ColumnarValue::Array(std::sync::Arc::new(column.with_data_type(to.clone()))),
            Outcome::Nulls(rows) => ColumnarValue::Array(new_null_array(to, rows)),
            Outcome::Value(value) => {
                let one = PrimitiveArray::<O>::from_iter([value]).with_data_type(to.clone());
                let one: ArrayRef = std::sync::Arc::new(one);
                ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
            }
        })
    }
}

/// The error of a row.
#[cold]
pub(in crate::plan) fn wrong(message: String) -> ArrowError {
    ArrowError::ComputeError(message)
}

/// A division by zero, in the words of arrow and PostgreSQL.
#[cold]
pub(in crate::plan) fn by_zero() -> ArrowError {
    ArrowError::DivideByZero
}
