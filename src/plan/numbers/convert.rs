//! Converts numbers between types, as PostgreSQL does.
//!
//! 1. To an integer, a decimal is rounded half away from zero, and a double half to even.
//! 2. To a double, a decimal becomes the nearest one. Arrow divides two doubles, each of which may be rounded.
//! 3. To a decimal, a double is taken with 15 significant digits, and then rounded half away from zero.
//! 4. To a decimal, a text is read digit by digit, with or without an exponent, and rounded half away from zero.
//! 5. [`texts`] reads texts as other numbers, and writes doubles.
//! 6. A value that does not fit is an error of its row.

use std::fmt::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Builder, PrimitiveArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion::common::Result;

use super::decimal::{power, rounded};
use super::kernels::wrong;
use super::texts;
use super::types::{MOST, is_number, shape};

/// Whether Arrow's cast keeps every value of a type, so that it can be used.
pub(super) fn is_lossless(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return true;
    }
    match (from, to) {
        (DataType::Null, _) | (DataType::Float32, DataType::Float64) => true,
        (_, DataType::Float64) => from.is_integer(), // to the nearest double
        (_, to) if to.is_decimal() => match (shape(from), shape(to)) {
            (Some((p, s)), Some((q, t))) => {
                s >= 0 && s <= t && i16::from(p) - i16::from(s) <= i16::from(q) - i16::from(t)
            }
            _ => false,
        },
        (_, to) if to.is_signed_integer() && from.is_integer() => {
            let bits = |of: &DataType| of.primitive_width().unwrap_or(0);
            bits(from) + usize::from(from.is_unsigned_integer()) <= bits(to)
        }
        _ => false,
    }
}

/// Whether a cast needs one of the conversions above.
pub(super) fn is_number_cast(from: &DataType, to: &DataType) -> bool {
    let text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let reads = |to: &DataType| {
        to.is_floating() || to.is_integer() || matches!(to, DataType::Decimal128(..) | DataType::Boolean)
    };
    (is_number(from) && is_number(to) && !is_lossless(from, to))
        || (text && reads(to))
        || (matches!(from, DataType::Float32 | DataType::Float64) && to == &DataType::Utf8)
}

/// Converts values to a type. With `safe` a value that cannot be converted becomes null, otherwise it is an error.
pub(in crate::plan) fn convert(values: &ArrayRef, to: &DataType, safe: bool) -> Result<ArrayRef> {
    let from = values.data_type();
    let options = CastOptions {
        safe,
        ..CastOptions::default()
    };
    // Only sums and comparisons have decimals of 256 bits, and Arrow rounds those as this file does.
    if let (DataType::Decimal256(_, scale), false) = (from, to.is_decimal()) {
        let narrow = cast_with_options(values, &DataType::Decimal128(MOST, (*scale).min(MOST as i8)), &options)?;
        return convert(&narrow, to, safe);
    }
    if from.is_floating() && from != &DataType::Float64 && (to.is_integer() || to.is_decimal()) {
        return convert(&cast_with_options(values, &DataType::Float64, &options)?, to, safe);
    }
    Ok(match (from, to) {
        (DataType::Decimal128(_, scale), to) if to.is_integer() => {
            to_integer::<Decimal128Type>(values, to, safe, |v| {
                let whole = rounded(v, power(*scale as u32));
                (Some(whole), ShownNumber::Decimal(v, *scale))
            })?
        }
        (DataType::Float64, to) if to.is_integer() => to_integer::<Float64Type>(values, to, safe, |v| {
            let even = v.round_ties_even();
            let inside = even.is_finite() && even.abs() < 1e30;
            (inside.then_some(even as i128), ShownNumber::Double(v))
        })?,
        (DataType::Decimal128(_, scale), DataType::Float64) => {
            let divisor = 10f64.powi((*scale).into());
            let column = values.as_primitive::<Decimal128Type>();
            Arc::new(column.unary::<_, Float64Type>(|v| double(v, *scale, divisor)))
        }
        (DataType::Decimal128(..), DataType::Float32) => {
            let doubles = convert(values, &DataType::Float64, safe)?;
            cast_with_options(&doubles, to, &options)?
        }
        (DataType::Utf8, DataType::Decimal128(precision, scale)) => {
            let mut made = Decimal128Builder::with_capacity(values.len()).with_data_type(to.clone());
            for text in values.as_string::<i32>() {
                let value = match text.map(|text| (text, written(text, *precision, *scale))) {
                    None => None,
                    Some((_, Some(value))) => Some(value),
                    Some(_) if safe => None,
                    Some((text, None)) => {
                        let text: String = text.chars().take(60).collect();
                        return Err(wrong(format!("could not read '{text}' as a {}", name_of(to))).into());
                    }
                };
                made.append_option(value);
            }
            Arc::new(made.finish())
        }
        (DataType::LargeUtf8 | DataType::Utf8View, _) => {
            convert(&cast_with_options(values, &DataType::Utf8, &options)?, to, safe)?
        }
        (DataType::Utf8, to) if to.is_integer() || to.is_floating() || to == &DataType::Boolean => {
            texts::read(values.as_string::<i32>(), to, safe)?
        }
        (DataType::Float64, DataType::Float32) => {
            let column = values.as_primitive::<Float64Type>();
            Arc::new(each::<_, Float32Type>(column, safe, |v| {
                let near = v as f32 + 0.0;
                let fits = near.is_finite() == v.is_finite() && (near == 0.0) == (v == 0.0);
                fits.then_some(near).ok_or_else(|| beyond(ShownNumber::Double(v), to))
            })?)
        }
        (DataType::Float32 | DataType::Float64, DataType::Utf8) => Arc::new(texts::written(values)),
        (DataType::Float64, DataType::Decimal128(precision, scale)) => {
            let column = values.as_primitive::<Float64Type>();
            let made = each::<_, Decimal128Type>(column, safe, |v| {
                decimal(v, *precision, *scale).ok_or_else(|| beyond(ShownNumber::Double(v), to))
            })?;
            Arc::new(made.with_data_type(to.clone()))
        }
        _ => one_zero(cast_with_options(values, to, &options)?),
    })
}

/// The values with -0.0 replaced by 0.0.
pub(in crate::plan) fn one_zero(values: ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| v + 0.0),
        ),
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| v + 0.0),
        ),
        _ => values,
    }
}

/// A value as messages show it.
enum ShownNumber {
    Decimal(i128, i8),
    Double(f64),
}

#[cold]
fn beyond(value: ShownNumber, to: &DataType) -> ArrowError {
    let value = match value {
        ShownNumber::Decimal(units, scale) => Decimal128Type::format_decimal(units, MOST, scale),
        ShownNumber::Double(value) => format!("{value:?}"),
    };
    wrong(format!("could not cast {value}: it does not fit {}", name_of(to)))
}

/// SQL's name of a type.
pub fn name_of(of: &DataType) -> String {
    match of {
        DataType::Int8 => "TINYINT".to_string(),
        DataType::Int16 => "SMALLINT".to_string(),
        DataType::Int32 => "INT".to_string(),
        DataType::Int64 => "BIGINT".to_string(),
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Utf8 => "VARCHAR".to_string(),
        DataType::Float32 => "FLOAT".to_string(),
        DataType::Float64 => "DOUBLE".to_string(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("DECIMAL({p},{s})"),
        other => other.to_string(),
    }
}

/// Maps each value by `f`; with `safe`, a value for which `f` fails becomes null.
pub(in crate::plan) fn each<A: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    column: &PrimitiveArray<A>,
    safe: bool,
    f: impl Fn(A::Native) -> Result<O::Native, ArrowError>,
) -> Result<PrimitiveArray<O>, ArrowError> {
    match safe {
        true => Ok(column.unary_opt(|v| f(v).ok())),
        false => column.try_unary(f),
    }
}

fn to_integer<A: ArrowPrimitiveType>(
    values: &ArrayRef,
    to: &DataType,
    safe: bool,
    whole: impl Fn(A::Native) -> (Option<i128>, ShownNumber),
) -> Result<ArrayRef, ArrowError> {
    let column = values.as_primitive::<A>();
    macro_rules! made {
        ($integer:ty) => {
            Arc::new(each::<A, $integer>(column, safe, |v| {
                let (whole, shown) = whole(v);
                whole
                    .and_then(|v| v.try_into().ok())
                    .ok_or_else(|| beyond(shown, to))
            })?)
        };
    }
    Ok(match to {
        DataType::Int8 => made!(Int8Type),
        DataType::Int16 => made!(Int16Type),
        DataType::Int32 => made!(Int32Type),
        DataType::Int64 => made!(Int64Type),
        DataType::UInt8 => made!(UInt8Type),
        DataType::UInt16 => made!(UInt16Type),
        DataType::UInt32 => made!(UInt32Type),
        _ => made!(UInt64Type),
    })
}

/// The text of a number in a buffer on the stack.
struct Digits {
    bytes: [u8; 64],
    length: usize,
}

impl Digits {
    fn of(number: fmt::Arguments<'_>) -> Digits {
        let mut digits = Digits {
            bytes: [0; 64],
            length: 0,
        };
        digits.write_fmt(number).expect("a number takes at most 50 bytes");
        digits
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("digits are text")
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The double nearest to a decimal of `units` at `scale`; `divisor` is 10 to the power of the scale.
#[inline]
pub(super) fn double(units: i128, scale: i8, divisor: f64) -> f64 {
    // Both numbers are exact as doubles, so only the quotient is rounded.
    if units.unsigned_abs() <= 1 << 53 && (0..=22).contains(&scale) {
        return units as f64 / divisor;
    }
    let written = Digits::of(format_args!("{units}e{}", -i32::from(scale)));
    written.text().parse().expect("digits with an exponent are a double")
}

/// The unscaled decimal of a double that is rounded to 15 significant digits; `None` if it does not fit the
/// precision.
fn decimal(value: f64, precision: u8, scale: i8) -> Option<i128> {
    if !value.is_finite() {
        return None;
    }
    let written = Digits::of(format_args!("{value:.14e}"));
    let (mantissa, exponent) = written.text().split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let mut units: i128 = 0;
    for byte in mantissa.bytes().filter(u8::is_ascii_digit) {
        units = units * 10 + i128::from(byte - b'0');
    }
    // The mantissa has 14 digits after its point.
    let shift = exponent - 14 + i32::from(scale);
    let units = match shift {
        0.. if units == 0 => 0,
        0.. => units.checked_mul(10i128.checked_pow(shift as u32)?)?,
        -38..0 => rounded(units, power(shift.unsigned_abs())),
        _ => 0,
    };
    (units < power(precision.into())).then_some(if value < 0.0 { -units } else { units })
}

/// The unscaled decimal that a text denotes; `None` if it is not a number or does not fit the precision.
fn written(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + behind.len() == 0 || !whole.bytes().chain(behind.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The number of digits, counted from the first one, that the units hold. The digit after them decides the
    // rounding.
    let last = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let mut units: i128 = 0;
    let mut digits = whole.bytes().chain(behind.bytes()).map(|b| i128::from(b - b'0'));
    let given = (whole.len() + behind.len()) as i64;
    for _ in 0..last.clamp(0, given) {
        units = units.checked_mul(10)?.checked_add(digits.next()?)?;
    }
    if last >= 0 && last < given && digits.next()? >= 5 {
        units += 1;
    }
    if last > given && units != 0 {
        units = units.checked_mul(10i128.checked_pow(u32::try_from(last - given).ok()?)?)?;
    }
    (units < power(precision.into())).then_some(if negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn to(values: ArrayRef, to: DataType) -> Result<ArrayRef> {
        convert(&values, &to, false)
    }

    #[test]
    fn whole_numbers_are_rounded_as_postgresql_rounds() {
        let decimals = Decimal128Array::from(vec![25, -25, 5, -5, 4, 15])
            .with_precision_and_scale(3, 1)
            .unwrap();
        let made = to(Arc::new(decimals), DataType::Int64).unwrap();
        assert_eq!(
            made.as_primitive::<Int64Type>(),
            &Int64Array::from(vec![3, -3, 1, -1, 0, 2])
        );
        let doubles = Float64Array::from(vec![2.5, -2.5, 0.5, -0.5, 3.5, 1.4]);
        let made = to(Arc::new(doubles), DataType::Int32).unwrap();
        assert_eq!(
            made.as_primitive::<Int32Type>(),
            &Int32Array::from(vec![2, -2, 0, 0, 4, 1])
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_it_or_null() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1e10, f64::NAN, 1.0]));
        let message = convert(&doubles, &DataType::Int32, false).unwrap_err().to_string();
        assert!(
            message.contains("could not cast 10000000000.0: it does not fit INT"),
            "{message}"
        );
        let made = convert(&doubles, &DataType::Int32, true).unwrap();
        assert_eq!(
            made.as_primitive::<Int32Type>(),
            &Int32Array::from(vec![None, None, Some(1)])
        );
        let message = convert(&doubles, &DataType::Decimal128(5, 2), false)
            .unwrap_err()
            .to_string();
        assert!(message.contains("does not fit DECIMAL(5,2)"), "{message}");
    }

    #[test]
    fn a_double_has_fifteen_digits_as_a_decimal() {
        let doubles = Float64Array::from(vec![0.1 + 0.2, 2.675, -1.005, 1e-30, 123456789012345680.0]);
        let made = to(Arc::new(doubles), DataType::Decimal128(30, 2)).unwrap();
        assert_eq!(
            made.as_primitive::<Decimal128Type>().values(),
            &[30, 268, -101, 0, 12345678901234600000]
        );
    }

    #[test]
    fn a_text_of_minus_zero_is_zero() {
        let made = to(Arc::new(StringArray::from(vec!["-0", "1.5"])), DataType::Float64).unwrap();
        assert_eq!(made.as_primitive::<Float64Type>().value(0).to_bits(), 0);
    }

    #[test]
    fn a_text_is_read_by_its_digits() {
        let read = |text: &str| written(text, 20, 2);
        for (text, units) in [
            ("1.005", 101),
            ("-1.005", -101),
            (" +12 ", 1200),
            (".5", 50),
            ("5.", 500),
            ("1e3", 100_000),
            ("123456e-3", 12_346),
            ("0.004", 0),
            ("0.005", 1),
            ("4e-3", 0),
            ("5e-3", 1),
            ("5e-4", 0),
            ("99e-1", 990),
            ("0e500", 0),
            ("12345678901234567.89", 1_234_567_890_123_456_789),
        ] {
            assert_eq!(read(text), Some(units), "{text}");
        }
        for text in [
            "",
            "-",
            ".",
            "1.2.3",
            "1e",
            "NaN",
            "Infinity",
            "0x10",
            "1 2",
            "1e30",
            "999999999999999999.995",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn casts_that_lose_nothing_are_plain_ones() {
        use DataType::*;
        for (from, to) in [
            (Int32, Int64),
            (Int64, Decimal128(19, 0)),
            (Decimal128(10, 2), Decimal128(12, 4)),
            (UInt32, Int64),
        ] {
            assert!(is_lossless(&from, &to), "{from} {to}");
        }
        for (from, to) in [
            (Int64, Int32),
            (Int64, Decimal128(18, 0)),
            (Decimal128(10, 2), Decimal128(11, 4)),
            (Decimal128(10, 2), Decimal128(10, 1)),
            (UInt64, Int64),
            (Decimal128(10, 2), Float64),
        ] {
            assert!(is_number_cast(&from, &to), "{from} {to}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_is_the_nearest_double(units in prop_oneof![any::<i128>(), any::<i64>().prop_map(i128::from)], scale in 0i8..=38) {
            let units = units % power(38);
            let text = Decimal128Type::format_decimal(units, MOST, scale);
            prop_assert_eq!(double(units, scale, 10f64.powi(scale.into())), text.parse::<f64>().unwrap());
        }
    }
}
