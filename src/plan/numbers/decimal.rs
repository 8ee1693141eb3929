//! Arithmetic of decimals: exact, or rounded half away from zero if the result type has too few digits. A
//! result that does not fit is an error of its row.
//!
//! Values are unscaled integers of 128 bits. An intermediate result that does not fit is computed in 256 bits;
//! with the usual types (about 18 digits) that never happens, and nothing is checked if the types leave room.

use arrow::datatypes::{DataType, Decimal128Type, DecimalType, i256};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;

use super::kernels::{KernelOperand, by_zero, checked, plain, wrong};
use super::types::{MOST, NumberArithmetic};

/// The precision and scale of a decimal type.
type DecimalShape = (u8, i8);

/// An operation with the types of its operands and its result.
struct DecimalOperation {
    arith: NumberArithmetic,
    left: DecimalShape,
    right: DecimalShape,
    to: DecimalShape,
    /// Ten to the power of the result type's precision: unscaled results must be smaller than this.
    bound: i128,
}

/// `left arith right`, where both sides are decimals of these shapes and the result is of the shape `to`.
pub(super) fn compute(
    arith: NumberArithmetic,
    left: (&ColumnarValue, DecimalShape),
    right: (&ColumnarValue, DecimalShape),
    to: DecimalShape,
) -> Result<ColumnarValue> {
    let (l, r) = (
        KernelOperand::<Decimal128Type>::new(left.0)?,
        KernelOperand::<Decimal128Type>::new(right.0)?,
    );
    let operation = DecimalOperation {
        arith,
        left: left.1,
        right: right.1,
        to,
        bound: power(to.0.into()),
    };
    let made = match arith {
        NumberArithmetic::Add | NumberArithmetic::Subtract => operation.sum(&l, &r)?,
        NumberArithmetic::Multiply => operation.product(&l, &r)?,
        NumberArithmetic::Divide => operation.quotient(&l, &r)?,
        NumberArithmetic::Remainder => operation.remainder(&l, &r)?,
    };
    made.into_column(&DataType::Decimal128(to.0, to.1))
}

type DecimalOperand = KernelOperand<Decimal128Type>;
type DecimalResult = super::kernels::KernelResult<Decimal128Type>;

impl DecimalOperation {
    /// The factors that bring the units of both sides to this scale.
    fn factors(&self, scale: i8) -> (i128, i128) {
        (
            power((scale - self.left.1) as u32),
            power((scale - self.right.1) as u32),
        )
    }

    fn sum(&self, l: &DecimalOperand, r: &DecimalOperand) -> Result<DecimalResult> {
        let (f, g) = self.factors(self.to.1);
        let sign = if self.arith == NumberArithmetic::Subtract {
            -1
        } else {
            1
        };
        let before = |(p, s): DecimalShape| i16::from(p) - i16::from(s);
        let needed = before(self.left).max(before(self.right)) + 1 + i16::from(self.to.1);
        if needed <= i16::from(MOST) {
            // Both operands are below 10^37 in these units, so nothing can overflow.
            return plain(l, r, |a: i128, b: i128| {
                a.wrapping_mul(f).wrapping_add(b.wrapping_mul(g * sign))
            });
        }
        checked(l, r, |a: i128, b: i128| {
            let small = || a.checked_mul(f)?.checked_add(b.checked_mul(g)?.checked_mul(sign)?);
            let value = match small() {
                Some(value) => Some(value),
                None => {
                    let wide = |x: i128, factor: i128| i256::from_i128(x).wrapping_mul(i256::from_i128(factor));
                    wide(a, f)
                        .wrapping_add(wide(b, g).wrapping_mul(i256::from_i128(sign)))
                        .to_i128()
                }
            };
            self.fitting(value, a, b)
        })
    }

    fn product(&self, l: &DecimalOperand, r: &DecimalOperand) -> Result<DecimalResult> {
        let dropped = (self.left.1 + self.right.1 - self.to.1) as u32;
        if dropped == 0 && u32::from(self.left.0) + u32::from(self.right.0) <= u32::from(MOST) {
            return plain(l, r, |a: i128, b: i128| a.wrapping_mul(b));
        }
        let small = (dropped <= MOST.into()).then(|| power(dropped));
        let divisor = wide_power(dropped);
        checked(l, r, |a: i128, b: i128| {
            let value = match (a.checked_mul(b), small) {
                (Some(product), Some(small)) => Some(rounded(product, small)),
                _ => {
                    let product = i256::from_i128(a).wrapping_mul(i256::from_i128(b)); // the product is below 10^76
                    wide_rounded(product, divisor).to_i128()
                }
            };
            self.fitting(value, a, b)
        })
    }

    fn quotient(&self, l: &DecimalOperand, r: &DecimalOperand) -> Result<DecimalResult> {
        let more = (self.to.1 - self.left.1 + self.right.1) as u32;
        let small = (more <= MOST.into()).then(|| power(more));
        let factor = wide_power(more);
        checked(l, r, |a: i128, b: i128| {
            if b == 0 {
                return Err(by_zero());
            }
            let value = match small.and_then(|small| a.checked_mul(small)) {
                Some(dividend) => Some(rounded(dividend, b)),
                // A dividend beyond 256 bits gives a quotient of more than 38 digits, whatever the divisor.
                None => (i256::from_i128(a).checked_mul(factor))
                    .and_then(|dividend| wide_rounded(dividend, i256::from_i128(b)).to_i128()),
            };
            self.fitting(value, a, b)
        })
    }

    fn remainder(&self, l: &DecimalOperand, r: &DecimalOperand) -> Result<DecimalResult> {
        let (f, g) = self.factors(self.to.1);
        checked(l, r, |a: i128, b: i128| {
            if b == 0 {
                return Err(by_zero());
            }
            let value = match (a.checked_mul(f), b.checked_mul(g)) {
                (Some(a), Some(b)) => Some(a % b),
                _ => {
                    let wide = |x: i128, factor: i128| i256::from_i128(x).wrapping_mul(i256::from_i128(factor));
                    wide(a, f).wrapping_rem(wide(b, g)).to_i128()
                }
            };
            self.fitting(value, a, b)
        })
    }

    #[inline]
    fn fitting(&self, value: Option<i128>, a: i128, b: i128) -> Result<i128, ArrowError> {
        match value {
            Some(value) if -self.bound < value && value < self.bound => Ok(value),
            _ => Err(self.beyond(a, b)),
        }
    }

    #[cold]
    fn beyond(&self, a: i128, b: i128) -> ArrowError {
        wrong(format!(
            "could not compute {} {} {}: the result does not fit DECIMAL({},{})",
            Decimal128Type::format_decimal(a, MOST, self.left.1),
            self.arith.sign(),
            Decimal128Type::format_decimal(b, MOST, self.right.1),
            self.to.0,
            self.to.1
        ))
    }
}

/// 10^n, for n up to 38.
pub(super) fn power(n: u32) -> i128 {
    10i128.pow(n)
}

/// 10^n, for n up to 76.
fn wide_power(n: u32) -> i256 {
    let first = n.min(MOST.into());
    i256::from_i128(power(first)).wrapping_mul(i256::from_i128(power(n - first)))
}

/// A quotient that is rounded half away from zero. The divisor must not be zero.
#[inline]
pub(super) fn rounded(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let is_half = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
    match is_half && rest != 0 {
        true if (dividend < 0) == (divisor < 0) => quotient + 1,
        true => quotient - 1,
        false => quotient,
    }
}

/// As [`rounded`], in 256 bits. The divisor must be below 10^76.
fn wide_rounded(dividend: i256, divisor: i256) -> i256 {
    let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    let is_half = rest.wrapping_abs() >= divisor.wrapping_abs().wrapping_sub(rest.wrapping_abs());
    match is_half && rest != i256::ZERO {
        true if dividend.is_negative() == divisor.is_negative() => quotient.wrapping_add(i256::ONE),
        true => quotient.wrapping_sub(i256::ONE),
        false => quotient,
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use num_traits::{Signed, Zero};
    use proptest::prelude::*;

    use super::super::types::outcome;
    use super::*;
    use datafusion::common::ScalarValue;

    fn any_shape() -> impl Strategy<Value = DecimalShape> {
        (1u8..=38).prop_flat_map(|p| (Just(p), 0..=p as i8))
    }

    fn any_value() -> impl Strategy<Value = (DecimalShape, i128)> {
        any_shape().prop_flat_map(|(p, s)| {
            let most = power(p.into()) - 1;
            let value = prop_oneof![Just(most), Just(-most), Just(0), Just(1), -most..=most, -1000i128..1000];
            (Just((p, s)), value.prop_map(move |v| v.clamp(-most, most)))
        })
    }

    /// The same quotient, computed with numbers of any size.
    fn reference(dividend: BigInt, divisor: BigInt) -> BigInt {
        let doubled: BigInt = dividend.abs() * 2 + divisor.abs();
        let magnitude = doubled / (divisor.abs() * 2);
        if dividend.is_negative() == divisor.is_negative() {
            magnitude
        } else {
            -magnitude
        }
    }

    fn ten(n: i32) -> BigInt {
        BigInt::from(10).pow(u32::try_from(n).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn arithmetic_is_exact_or_an_error(
            (left, a) in any_value(), (right, b) in any_value(),
            arith in prop_oneof![
                Just(NumberArithmetic::Add), Just(NumberArithmetic::Subtract), Just(NumberArithmetic::Multiply), Just(NumberArithmetic::Divide), Just(NumberArithmetic::Remainder)
            ],
        ) {
            let to = outcome(arith, left, right);
            let (s1, s2, s) = (i32::from(left.1), i32::from(right.1), i32::from(to.1));
            let (x, y) = (BigInt::from(a), BigInt::from(b));
            let exact = match arith {
                NumberArithmetic::Add => Some(&x * ten(s - s1) + &y * ten(s - s2)),
                NumberArithmetic::Subtract => Some(&x * ten(s - s1) - &y * ten(s - s2)),
                NumberArithmetic::Multiply => Some(reference(&x * &y, ten(s1 + s2 - s))),
                _ if y.is_zero() => None,
                NumberArithmetic::Divide => Some(reference(&x * ten(s - s1 + s2), y.clone())),
                NumberArithmetic::Remainder => Some((&x * ten(s - s1)) % (&y * ten(s - s2))),
            };
            let expected = exact.filter(|value| value.abs() < ten(to.0.into()));
            let scalar = |value, (p, s): DecimalShape| ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), p, s));
            let made = compute(arith, (&scalar(a, left), left), (&scalar(b, right), right), to);
            match (made, expected) {
                (Ok(ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), p, s))), Some(expected)) => {
                    prop_assert_eq!((p, s), to);
                    prop_assert_eq!(BigInt::from(value), expected);
                }
                (Err(_), None) => {}
                (made, expected) => prop_assert!(false, "{made:?} is not {expected:?}"),
            }
        }
    }
}
