//! Arithmetic of integers and of floats. A result that does not fit is an error of its row.
//!
//! Floats follow IEEE 754, except where PostgreSQL has an error: for a division by zero, and for a result that
//! is infinite, or zero by underflow, though the operands are not. There is no negative zero.

use std::fmt::Display;

use arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;
use num_traits::ToPrimitive;
use num_traits::float::FloatCore;

use super::kernels::{KernelOperand, KernelResult, by_zero, checked, wrong};
use super::types::NumberArithmetic;

/// `left arith right`, where both are of the type `of`.
pub(super) fn compute(
    arith: NumberArithmetic,
    left: &ColumnarValue,
    right: &ColumnarValue,
    of: &DataType,
) -> Result<ColumnarValue> {
    match of {
        DataType::Int8 => integers::<Int8Type>(arith, left, right, of, "TINYINT"),
        DataType::Int16 => integers::<Int16Type>(arith, left, right, of, "SMALLINT"),
        DataType::Int32 => integers::<Int32Type>(arith, left, right, of, "INT"),
        DataType::Int64 => integers::<Int64Type>(arith, left, right, of, "BIGINT"),
        DataType::Float32 => doubles::<Float32Type>(arith, left, right, of),
        DataType::Float64 => doubles::<Float64Type>(arith, left, right, of),
        other => exec_err!("could not compute with a {other}"),
    }
}

fn integers<T>(
    arith: NumberArithmetic,
    left: &ColumnarValue,
    right: &ColumnarValue,
    of: &DataType,
    name: &str,
) -> Result<ColumnarValue>
where
    T: ArrowPrimitiveType,
    T::Native: Display,
{
    let (l, r) = (KernelOperand::<T>::new(left)?, KernelOperand::<T>::new(right)?);
    let beyond = |a: T::Native, b: T::Native| {
        let sign = arith.sign();
        wrong(format!(
            "could not compute {a} {sign} {b}: the result does not fit {name}"
        ))
    };
    let is_zero = |b: T::Native| b.is_zero();
    let made: Result<KernelResult<T>> = match arith {
        NumberArithmetic::Add => checked(&l, &r, |a, b| a.add_checked(b).map_err(|_| beyond(a, b))),
        NumberArithmetic::Subtract => checked(&l, &r, |a, b| a.sub_checked(b).map_err(|_| beyond(a, b))),
        NumberArithmetic::Multiply => checked(&l, &r, |a, b| a.mul_checked(b).map_err(|_| beyond(a, b))),
        NumberArithmetic::Divide => checked(&l, &r, |a, b| match is_zero(b) {
            true => Err(by_zero()),
            false => a.div_checked(b).map_err(|_| beyond(a, b)),
        }),
        // The remainder of the least number divided by -1 is 0.
        NumberArithmetic::Remainder => checked(&l, &r, |a, b| match is_zero(b) {
            true => Err(by_zero()),
            false => Ok(a.mod_wrapping(b)),
        }),
    };
    made?.into_column(of)
}

fn doubles<T>(
    arith: NumberArithmetic,
    left: &ColumnarValue,
    right: &ColumnarValue,
    of: &DataType,
) -> Result<ColumnarValue>
where
    T: ArrowPrimitiveType,
    T::Native: FloatCore + ToPrimitive,
{
    let (l, r) = (KernelOperand::<T>::new(left)?, KernelOperand::<T>::new(right)?);
    let zero: T::Native = num_traits::Zero::zero();
    let made: Result<KernelResult<T>> = match arith {
        NumberArithmetic::Add => checked(&l, &r, |a, b| within(arith, a, b, a + b)),
        NumberArithmetic::Subtract => checked(&l, &r, |a, b| within(arith, a, b, a - b)),
        NumberArithmetic::Multiply => checked(&l, &r, |a, b| match a * b {
            made if made == zero && a != zero && b != zero => Err(beyond(arith, a, b)),
            made => within(arith, a, b, made),
        }),
        NumberArithmetic::Divide => checked(&l, &r, |a, b| match a / b {
            _ if b == zero && !a.is_nan() => Err(by_zero()),
            made if made == zero && a != zero && b.is_finite() => Err(beyond(arith, a, b)),
            made => within(arith, a, b, made),
        }),
        NumberArithmetic::Remainder => checked(&l, &r, |a, b| match b == zero && !a.is_nan() {
            true => Err(by_zero()),
            false => within(arith, a, b, a % b),
        }),
    };
    made?.into_column(of)
}

/// The result of an operation on two floats; an error if it is infinite but neither operand is.
#[inline]
fn within<F: FloatCore + ToPrimitive>(arith: NumberArithmetic, a: F, b: F, made: F) -> Result<F, ArrowError> {
    match made.is_infinite() && a.is_finite() && b.is_finite() {
        true => Err(beyond(arith, a, b)),
        // Adding 0 replaces -0.0 by 0.0.
        false => Ok(made + num_traits::Zero::zero()),
    }
}

#[cold]
fn beyond<F: ToPrimitive>(arith: NumberArithmetic, a: F, b: F) -> ArrowError {
    let (a, b) = (a.to_f64().unwrap_or(f64::NAN), b.to_f64().unwrap_or(f64::NAN));
    let sign = arith.sign();
    wrong(format!(
        "could not compute {a:?} {sign} {b:?}: the result is beyond what a DOUBLE can be"
    ))
}
/// The double nearest to `sum / count`. `count` must be below 2^53.
pub(super) fn ratio(sum: i128, count: u64) -> f64 {
    let (most, of) = (1 << f64::MANTISSA_DIGITS, u128::from(count));
    let magnitude = sum.unsigned_abs();
    let mean = match magnitude < most {
        // Both are exact as doubles, so only the quotient is rounded.
        true => magnitude as f64 / count as f64,
        false => {
            // The quotient with 64 bits after the point. The last bit is set if more digits follow; it is far
            // beyond the precision of a double, so it only decides ties.
            let (whole, rest) = (magnitude / of, magnitude % of);
            let (behind, rest) = ((rest << 64) / of, (rest << 64) % of);
            let more = u128::from(rest != 0);
            match u64::try_from(whole) {
                Ok(whole) => (u128::from(whole) << 64 | behind | more) as f64 / 2f64.powi(64),
                Err(_) => (whole | more) as f64,
            }
        }
    };
    if sum < 0 { -mean } else { mean }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    /// The distance of a mean from `sum / count`, multiplied by `count * 2^64`.
    fn off(mean: f64, sum: i128, count: u64) -> BigInt {
        let scaled = BigInt::from((mean.abs() * 2f64.powi(64)) as u128);
        let scaled = if mean < 0.0 { -scaled } else { scaled };
        let off: BigInt = scaled * count - (BigInt::from(sum) << 64);
        if off < BigInt::ZERO { -off } else { off }
    }

    proptest! {
        #[test]
        fn no_double_is_nearer_to_a_mean(
            sum in prop_oneof![-(1i128 << 90)..1 << 90, -(1i128 << 63)..1 << 63, -100_000i128..100_000],
            count in prop_oneof![1u64..100, 1u64..1_000_000],
        ) {
            let mean = ratio(sum, count);
            // Smaller means have bits beyond those that are compared.
            prop_assume!(mean.abs() >= 1.0 / 256.0 && mean.abs() < 9.3e18);
            let nearest = off(mean, sum, count);
            prop_assert!(nearest <= off(mean.next_up(), sum, count) && nearest <= off(mean.next_down(), sum, count));
        }
    }

    #[test]
    fn means_of_few_and_great_numbers() {
        assert_eq!(ratio(-1, 2), -0.5);
        assert_eq!(ratio(0, 7), 0.0);
        assert_eq!(ratio(1, 3), 1.0 / 3.0);
        assert_eq!(ratio(i128::from(i64::MAX) * 3, 3), i64::MAX as f64);
    }
}
