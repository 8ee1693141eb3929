//! Loops over numbers and times: they apply a function of one or two values to each row.
//!
//! Constants are not expanded to columns, and nothing is allocated for a row. If the function cannot fail, the
//! loop has no branch.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, new_null_array};
use arrow::compute::{binary, try_binary};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;

/// A side of an operation: a column, or a constant (`None` is null).
pub(in crate::plan) enum KernelOperand<T: ArrowPrimitiveType> {
    Column(PrimitiveArray<T>),
    Value(Option<T::Native>),
}

impl<T: ArrowPrimitiveType> KernelOperand<T> {
    /// Reads values of this type.
    pub fn new(value: &ColumnarValue) -> Result<KernelOperand<T>> {
        Ok(match value {
            ColumnarValue::Array(array) => KernelOperand::Column(array.as_primitive::<T>().clone()),
            ColumnarValue::Scalar(value) => {
                let one = value.to_array()?;
                let one = one.as_primitive::<T>();
                KernelOperand::Value((!one.is_null(0)).then(|| one.value(0)))
            }
        })
    }
}

/// Applies a function of a column; for a constant, once.
pub(in crate::plan) fn for_each_column(
    value: &ColumnarValue,
    f: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    Ok(match value {
        ColumnarValue::Array(values) => ColumnarValue::Array(f(values)?),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(ScalarValue::try_from_array(&f(&value.to_array()?)?, 0)?),
    })
}

/// Applies a function that cannot fail.
pub(in crate::plan) fn plain<A, B, O>(
    left: &KernelOperand<A>,
    right: &KernelOperand<B>,
    f: impl Fn(A::Native, B::Native) -> O::Native,
) -> Result<KernelResult<O>>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Ok(match (left, right) {
        (KernelOperand::Column(l), KernelOperand::Column(r)) => KernelResult::Column(binary(l, r, f)?),
        (KernelOperand::Column(l), KernelOperand::Value(Some(r))) => KernelResult::Column(l.unary(|l| f(l, *r))),
        (KernelOperand::Value(Some(l)), KernelOperand::Column(r)) => KernelResult::Column(r.unary(|r| f(*l, r))),
        (KernelOperand::Value(Some(l)), KernelOperand::Value(Some(r))) => KernelResult::Value(Some(f(*l, *r))),
        (KernelOperand::Value(_), KernelOperand::Value(_)) => KernelResult::Value(None),
        (KernelOperand::Column(l), _) => KernelResult::Nulls(l.len()),
        (_, KernelOperand::Column(r)) => KernelResult::Nulls(r.len()),
    })
}

/// Applies a function that may fail for a row.
pub(in crate::plan) fn checked<A, B, O>(
    left: &KernelOperand<A>,
    right: &KernelOperand<B>,
    f: impl Fn(A::Native, B::Native) -> Result<O::Native, ArrowError>,
) -> Result<KernelResult<O>>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Ok(match (left, right) {
        (KernelOperand::Column(l), KernelOperand::Column(r)) => KernelResult::Column(try_binary(l, r, f)?),
        (KernelOperand::Column(l), KernelOperand::Value(Some(r))) => KernelResult::Column(l.try_unary(|l| f(l, *r))?),
        (KernelOperand::Value(Some(l)), KernelOperand::Column(r)) => KernelResult::Column(r.try_unary(|r| f(*l, r))?),
        (KernelOperand::Value(Some(l)), KernelOperand::Value(Some(r))) => KernelResult::Value(Some(f(*l, *r)?)),
        (KernelOperand::Value(_), KernelOperand::Value(_)) => KernelResult::Value(None),
        (KernelOperand::Column(l), _) => KernelResult::Nulls(l.len()),
        (_, KernelOperand::Column(r)) => KernelResult::Nulls(r.len()),
    })
}

/// The result of a loop.
pub(in crate::plan) enum KernelResult<O: ArrowPrimitiveType> {
    Column(PrimitiveArray<O>),
    Value(Option<O::Native>),
    Nulls(usize),
}

impl<O: ArrowPrimitiveType> KernelResult<O> {
    /// The result as values of the type `to`, which gives the precision and scale of decimals.
    pub fn into_column(self, to: &DataType) -> Result<ColumnarValue> {
        Ok(match self {
            KernelResult::Column(column) => {
                ColumnarValue::Array(std::sync::Arc::new(column.with_data_type(to.clone())))
            }
            KernelResult::Nulls(rows) => ColumnarValue::Array(new_null_array(to, rows)),
            KernelResult::Value(value) => {
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

/// The error of a division by zero, as Arrow and PostgreSQL word it.
#[cold]
pub(in crate::plan) fn by_zero() -> ArrowError {
    ArrowError::DivideByZero
}
