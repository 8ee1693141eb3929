//! Arithmetic of numbers: exact, or a row that does not evaluate.
//!
//! The rules are those of `docs/sql.md`, worked out on single values: a whole number fits its type; a sum of decimals has the
//! digits of the one that has more, a product those of both, a quotient 16 behind the point at least; a double that is infinite,
//! or 0, though its operands are not, is no answer.

use super::trust::Unjudged;
use super::value::{Type, Value};

/// Digits that a quotient has behind the point, at least.
const BEHIND: u8 = 16;
/// Digits that a decimal has at most.
const MOST: u32 = 38;

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arith {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// The type of `left op right`.
pub fn outcome(op: Arith, left: &Type, right: &Type) -> Result<Type, Unjudged> {
    Ok(match (left, right) {
        (Type::Double, _) | (_, Type::Double) => Type::Double,
        (Type::Null, Type::Null) => return Err(Unjudged::Types("arithmetic of NULLs".into())),
        (Type::Null, other) | (other, Type::Null) => match other {
            // Which digits a NULL has is not said.
            Type::Number(_) => return Err(Unjudged::Types("arithmetic of NULL and a DECIMAL".into())),
            other => other.clone(),
        },
        (Type::Int(a), Type::Int(b)) => Type::Int(*a.max(b)),
        (left, right) => {
            let scale = |of: &Type| match of {
                Type::Number(scale) => *scale,
                _ => 0,
            };
            let (a, b) = (scale(left), scale(right));
            let scale = match op {
                Arith::Add | Arith::Subtract | Arith::Remainder => a.max(b),
                Arith::Multiply => a + b,
                Arith::Divide => a.max(b).max(BEHIND),
            };
            // Products with more digits may be rounded, by what is in front of the point.
            if scale > BEHIND && matches!(op, Arith::Multiply | Arith::Divide) {
                return Err(Unjudged::Digits);
            }
            Type::Number(scale)
        }
    })
}

/// Computes `left op right`, both not NULL.
pub fn arith(op: Arith, of: &Type, left: &Value, right: &Value) -> Result<Value, Unjudged> {
    match of {
        Type::Int(bits) => match (left, right) {
            (Value::Int(a), Value::Int(b)) => whole(op, *bits, *a, *b),
            _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
        },
        Type::Double => double(op, to_double(left)?, to_double(right)?),
        Type::Number(scale) => decimal(op, *scale, left, right),
        _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
    }
}

fn whole(op: Arith, bits: u8, a: i64, b: i64) -> Result<Value, Unjudged> {
    let (a, b) = (i128::from(a), i128::from(b));
    if b == 0 && matches!(op, Arith::Divide | Arith::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let n = match op {
        Arith::Add => a + b,
        Arith::Subtract => a - b,
        Arith::Multiply => a * b,
        Arith::Divide => a / b,
        Arith::Remainder => a % b,
    };
    fitting(n, bits)
}

/// A whole number of so many bits.
pub fn fitting(n: i128, bits: u8) -> Result<Value, Unjudged> {
    let most = (1i128 << (bits - 1)) - 1;
    match (-most - 1..=most).contains(&n) {
        true => Ok(Value::Int(n as i64)),
        false => Err(Unjudged::row("a whole number does not fit its type")),
    }
}

fn double(op: Arith, a: f64, b: f64) -> Result<Value, Unjudged> {
    if b == 0.0 && matches!(op, Arith::Divide | Arith::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let x = match op {
        Arith::Add => a + b,
        Arith::Subtract => a - b,
        Arith::Multiply => a * b,
        Arith::Divide => a / b,
        Arith::Remainder => a % b,
    };
    let lost = x == 0.0 && a != 0.0 && b != 0.0 && matches!(op, Arith::Multiply)
        || x == 0.0 && a != 0.0 && b.is_finite() && matches!(op, Arith::Divide);
    match lost || (x.is_infinite() && a.is_finite() && b.is_finite()) {
        true => Err(Unjudged::row("a DOUBLE beyond all that there are")),
        false => Ok(Value::Double(x + 0.0)),
    }
}

fn decimal(op: Arith, scale: u8, left: &Value, right: &Value) -> Result<Value, Unjudged> {
    let not = || Unjudged::Types("arithmetic of what are no numbers".into());
    let (a, b) = (left.as_number().ok_or_else(not)?, right.as_number().ok_or_else(not)?);
    if b.0 == 0 && matches!(op, Arith::Divide | Arith::Remainder) {
        return Err(Unjudged::row("a division by zero"));
    }
    let exact = || -> Option<i128> {
        Some(match op {
            Arith::Add => rescaled(a, scale)?.checked_add(rescaled(b, scale)?)?,
            Arith::Subtract => rescaled(a, scale)?.checked_sub(rescaled(b, scale)?)?,
            Arith::Remainder => rescaled(a, scale)?.checked_rem(rescaled(b, scale)?)?,
            Arith::Multiply => rescaled((a.0.checked_mul(b.0)?, a.1 + b.1), scale)?,
            Arith::Divide => {
                let up = 10i128.checked_pow(u32::from(scale) + u32::from(b.1))?;
                let down = 10i128.checked_pow(u32::from(a.1))?;
                halfway(a.0.checked_mul(up)?, b.0.checked_mul(down)?)
            }
        })
    };
    number(exact().ok_or(Unjudged::Digits)?, scale)
}

/// A decimal that has not more digits than there may be.
pub fn number(digits: i128, scale: u8) -> Result<Value, Unjudged> {
    match digits.unsigned_abs() < 10u128.pow(MOST) {
        true => Ok(Value::Number(digits, scale)),
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

/// A number as a double, by its digits.
pub fn to_double(value: &Value) -> Result<f64, Unjudged> {
    match value {
        Value::Double(x) => Ok(*x),
        Value::Int(n) => Ok(*n as f64),
        Value::Number(..) => Ok(written(value).parse().expect("digits are a number")),
        _ => Err(Unjudged::Types("arithmetic of what are no numbers".into())),
    }
}

/// A whole number or decimal in digits.
pub fn written(value: &Value) -> String {
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

/// A number as it stands in SQL: whole, a decimal of its digits, or a double where those are too many.
pub fn literal(text: &str) -> Result<(Value, Type), Unjudged> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok((Value::Int(n), Type::Int(64)));
    }
    match (parse(text), text.parse::<f64>()) {
        (Some((digits, scale)), _) => Ok((Value::Number(digits, scale), Type::Number(scale))),
        (None, Ok(x)) if x.is_finite() => Ok((Value::Double(x), Type::Double)),
        _ => Err(Unjudged::Digits),
    }
}

/// Digits and scale of `-12.50` or `1.25e3`.
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
