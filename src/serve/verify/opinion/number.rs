//! Arithmetic of numbers: the result is exact, or the row does not evaluate.
//!
//! The rules are those of `docs/src/sql/supported.md`, for single values. A whole number must fit its type. A sum of
//! decimals has the larger scale of its operands, a product the sum of both scales, a quotient a scale of at least 16.
//! A double that becomes infinite, or 0, is an error unless an operand was.

use super::trust::Unjudged;
use super::value::{Scalar, ScalarType};

/// The least scale of a quotient.
const BEHIND: u8 = 16;
/// The most digits of a decimal.
const MOST: u32 = 38;

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// The type of `left op right`.
pub fn outcome(op: ArithmeticOp, left: &ScalarType, right: &ScalarType) -> Result<ScalarType, Unjudged> {
    Ok(match (left, right) {
        (ScalarType::Double, _) | (_, ScalarType::Double) => ScalarType::Double,
        (ScalarType::Null, ScalarType::Null) => return Err(Unjudged::Types("arithmetic of NULLs".into())),
        (ScalarType::Null, other) | (other, ScalarType::Null) => match other {
            // The scale of a NULL is not defined.
            ScalarType::Number(_) => return Err(Unjudged::Types("arithmetic of NULL and a DECIMAL".into())),
            other => other.clone(),
        },
        (ScalarType::Int(a), ScalarType::Int(b)) => ScalarType::Int(*a.max(b)),
        (left, right) => {
            let scale = |of: &ScalarType| match of {
                ScalarType::Number(scale) => *scale,
                _ => 0,
            };
            let (a, b) = (scale(left), scale(right));
            let scale = match op {
                ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Remainder => a.max(b),
                ArithmeticOp::Multiply => a + b,
                ArithmeticOp::Divide => a.max(b).max(BEHIND),
            };
            // The run may round products with a larger scale, depending on the digits before the point.
            if scale > BEHIND && matches!(op, ArithmeticOp::Multiply | ArithmeticOp::Divide) {
                return Err(Unjudged::Digits);
            }
            ScalarType::Number(scale)
        }
    })
}

/// Computes `left op right`, both not NULL.
pub fn arith(op: ArithmeticOp, of: &ScalarType, left: &Scalar, right: &Scalar) -> Result<Scalar, Unjudged> {
    match of {
        ScalarType::Int(bits) => match (left, right) {
            (Scalar::Int(a), Scalar::Int(b)) => whole(op, *bits, *a, *b),
            _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
        },
        ScalarType::Double => double(op, to_double(left)?, to_double(right)?),
        ScalarType::Number(scale) => decimal(op, *scale, left, right),
        _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
    }
}

fn whole(op: ArithmeticOp, bits: u8, a: i64, b: i64) -> Result<Scalar, Unjudged> {
    let (a, b) = (i128::from(a), i128::from(b));
    if b == 0 && matches!(op, ArithmeticOp::Divide | ArithmeticOp::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let n = match op {
        ArithmeticOp::Add => a + b,
        ArithmeticOp::Subtract => a - b,
        ArithmeticOp::Multiply => a * b,
        ArithmeticOp::Divide => a / b,
        ArithmeticOp::Remainder => a % b,
    };
    fitting(n, bits)
}

/// A whole number that must fit so many bits.
pub fn fitting(n: i128, bits: u8) -> Result<Scalar, Unjudged> {
    let most = (1i128 << (bits - 1)) - 1;
    match (-most - 1..=most).contains(&n) {
        true => Ok(Scalar::Int(n as i64)),
        false => Err(Unjudged::row("a whole number does not fit its type")),
    }
}

fn double(op: ArithmeticOp, a: f64, b: f64) -> Result<Scalar, Unjudged> {
    if b == 0.0 && matches!(op, ArithmeticOp::Divide | ArithmeticOp::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let x = match op {
        ArithmeticOp::Add => a + b,
        ArithmeticOp::Subtract => a - b,
        ArithmeticOp::Multiply => a * b,
        ArithmeticOp::Divide => a / b,
        ArithmeticOp::Remainder => a % b,
    };
    let lost = x == 0.0 && a != 0.0 && b != 0.0 && matches!(op, ArithmeticOp::Multiply)
        || x == 0.0 && a != 0.0 && b.is_finite() && matches!(op, ArithmeticOp::Divide);
    match lost || (x.is_infinite() && a.is_finite() && b.is_finite()) {
        true => Err(Unjudged::row("a DOUBLE beyond all that there are")),
        false => Ok(Scalar::Double(x + 0.0)),
    }
}

fn decimal(op: ArithmeticOp, scale: u8, left: &Scalar, right: &Scalar) -> Result<Scalar, Unjudged> {
    let not = || Unjudged::Types("arithmetic of what are no numbers".into());
    let (a, b) = (left.as_number().ok_or_else(not)?, right.as_number().ok_or_else(not)?);
    if b.0 == 0 && matches!(op, ArithmeticOp::Divide | ArithmeticOp::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let exact = || -> Option<i128> {
        Some(match op {
            ArithmeticOp::Add => rescaled(a, scale)?.checked_add(rescaled(b, scale)?)?,
            ArithmeticOp::Subtract => rescaled(a, scale)?.checked_sub(rescaled(b, scale)?)?,
            ArithmeticOp::Remainder => rescaled(a, scale)?.checked_rem(rescaled(b, scale)?)?,
            ArithmeticOp::Multiply => rescaled((a.0.checked_mul(b.0)?, a.1 + b.1), scale)?,
            ArithmeticOp::Divide => {
                let up = 10i128.checked_pow(u32::from(scale) + u32::from(b.1))?;
                let down = 10i128.checked_pow(u32::from(a.1))?;
                halfway(a.0.checked_mul(up)?, b.0.checked_mul(down)?)
            }
        })
    };
    number(exact().ok_or(Unjudged::Digits)?, scale)
}

/// A decimal that must not have more than the most digits.
pub fn number(digits: i128, scale: u8) -> Result<Scalar, Unjudged> {
    match digits.unsigned_abs() < 10u128.pow(MOST) {
        true => Ok(Scalar::Number(digits, scale)),
        false => Err(Unjudged::Digits),
    }
}

/// The digits at another scale, rounded half away from zero; none if they do not fit.
pub fn rescaled((digits, scale): (i128, u8), to: u8) -> Option<i128> {
    match to >= scale {
        true => digits.checked_mul(10i128.checked_pow(u32::from(to - scale))?),
        false => Some(halfway(digits, 10i128.checked_pow(u32::from(scale - to))?)),
    }
}

/// `a / b`, rounded half away from zero.
pub fn halfway(a: i128, b: i128) -> i128 {
    let (quotient, rest) = (a / b, a % b);
    let away = rest.unsigned_abs() >= b.unsigned_abs() - rest.unsigned_abs();
    match away && rest != 0 {
        true => quotient + if (a < 0) == (b < 0) { 1 } else { -1 },
        false => quotient,
    }
}

/// A number as a double, converted from its decimal digits.
pub fn to_double(value: &Scalar) -> Result<f64, Unjudged> {
    match value {
        Scalar::Double(x) => Ok(*x),
        Scalar::Int(n) => Ok(*n as f64),
        Scalar::Number(..) => Ok(written(value).parse().expect("digits are a number")),
        _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
    }
}

/// A whole number or decimal as text.
pub fn written(value: &Scalar) -> String {
    let Some((digits, scale)) = value.as_number() else {
        return String::new();
    };
    let scale = usize::from(scale);
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (before, behind) = text.split_at(text.len() - scale);
    let sign = if digits < 0 { "-" } else { "" };
    match scale {
        0 => format!("{sign}{before}"),
        _ => format!("{sign}{before}.{behind}"),
    }
}

/// A number literal: a whole number, a decimal with the literal's digits, or a double if those are too many.
pub fn literal(text: &str) -> Result<(Scalar, ScalarType), Unjudged> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok((Scalar::Int(n), ScalarType::Int(64)));
    }
    match (parse(text), text.parse::<f64>()) {
        (Some((digits, scale)), _) => Ok((Scalar::Number(digits, scale), ScalarType::Number(scale))),
        (None, Ok(x)) if x.is_finite() => Ok((Scalar::Double(x), ScalarType::Double)),
        _ => Err(Unjudged::Digits),
    }
}

/// Digits and scale of a text like `-12.50` or `1.25e3`.
pub fn parse(text: &str) -> Option<(i128, u8)> {
    let lower = text.trim().to_ascii_lowercase();
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (lower.as_str(), 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{before}{behind}");
    if !behind.bytes().all(|b| b.is_ascii_digit()) || all.trim_start_matches(['-', '+']).is_empty() {
        return None;
    }
    let digits: i128 = all.parse().ok()?;
    let scale = i32::try_from(behind.len()).ok()? - exponent;
    let (digits, scale) = match scale < 0 {
        true => (digits.checked_mul(10i128.checked_pow(scale.unsigned_abs())?)?, 0),
        false => (digits, scale),
    };
    (scale <= MOST as i32 && digits.unsigned_abs() < 10u128.pow(MOST)).then_some((digits, scale as u8))
}
