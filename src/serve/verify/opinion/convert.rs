//! Finds the common type of values, and converts values between types.
//!
//! A quoted text in the query takes the type of the value that it is compared or combined with. A decimal is rounded
//! half away from zero. A double is rounded half to even when it becomes a whole number, and taken by its 15 digits
//! when it becomes a decimal. A value that does not fit is a row that does not evaluate.

use std::rc::Rc;

use super::expr::{ScalarKernel, Term, TypedTerm};
use super::number::{fitting, number, parse, rescaled, to_double, written};
use super::time::{self, DAY};
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType};

/// The common type of several expressions.
pub fn meet<'a>(all: impl IntoIterator<Item = &'a TypedTerm>) -> Result<ScalarType, Unjudged> {
    let all: Vec<&TypedTerm> = all.into_iter().filter(|bound| bound.of != ScalarType::Null).collect();
    let typed = || all.iter().filter(|bound| !bound.quoted).map(|bound| &bound.of);
    let Some(first) = typed().next() else {
        return Ok(if all.is_empty() {
            ScalarType::Null
        } else {
            ScalarType::Text
        });
    };
    typed().try_fold(first.clone(), |common, of| pair(&common, of))
}

/// The common type of two types.
pub fn pair(a: &ScalarType, b: &ScalarType) -> Result<ScalarType, Unjudged> {
    Ok(match (a, b) {
        (a, b) if a == b => a.clone(),
        (ScalarType::Null, other) | (other, ScalarType::Null) => other.clone(),
        (ScalarType::Int(a), ScalarType::Int(b)) => ScalarType::Int(*a.max(b)),
        (a, b) if a.is_number() && b.is_number() => match (a, b) {
            (ScalarType::Double, _) | (_, ScalarType::Double) => ScalarType::Double,
            (ScalarType::Number(a), ScalarType::Number(b)) => ScalarType::Number(*a.max(b)),
            (ScalarType::Number(scale), _) | (_, ScalarType::Number(scale)) => ScalarType::Number(*scale),
            _ => unreachable!("two whole numbers were met before"),
        },
        (ScalarType::Date, ScalarType::Moment(zone)) | (ScalarType::Moment(zone), ScalarType::Date) => {
            ScalarType::Moment(*zone)
        }
        (ScalarType::Moment(_), ScalarType::Moment(_)) => ScalarType::Moment(true),
        (a, b) => return Err(Unjudged::Types(format!("a {} beside a {}", a.name(), b.name()))),
    })
}

/// Converts an expression to a type.
pub fn converted(bound: TypedTerm, to: &ScalarType) -> Result<Term, Unjudged> {
    if bound.of == *to || bound.of == ScalarType::Null || *to == ScalarType::Null {
        return Ok(bound.ex);
    }
    let kernel = conversion(&bound.of, to)?;
    match bound.ex {
        Term::Const(value) if bound.quoted => Ok(Term::Const(kernel(&[value])?)),
        ex => Ok(Term::Strict(kernel, vec![ex])),
    }
}

/// Converts an expression for a comparison: whole numbers and decimals are compared without conversion.
pub fn comparable(bound: TypedTerm, to: &ScalarType) -> Result<Term, Unjudged> {
    match (&bound.of, to) {
        (ScalarType::Int(_) | ScalarType::Number(_), ScalarType::Int(_) | ScalarType::Number(_)) => Ok(bound.ex),
        _ => converted(bound, to),
    }
}

/// The kernel that converts values of one type to another; its arguments are not NULL.
pub fn conversion(from: &ScalarType, to: &ScalarType) -> Result<ScalarKernel, Unjudged> {
    let kernel: ScalarKernel = match (from.clone(), to.clone()) {
        (from, to) if from == to => Rc::new(|v| Ok(v[0].clone())),
        (ScalarType::Null, _) => Rc::new(|_| Ok(Scalar::Null)),
        (ScalarType::Int(_) | ScalarType::Number(_), ScalarType::Int(bits)) => Rc::new(move |v| whole(&v[0], bits)),
        (ScalarType::Double, ScalarType::Int(bits)) => Rc::new(move |v| match v[0] {
            Scalar::Double(x) if x.is_finite() && x.abs() < 1e19 => fitting(x.round_ties_even() as i128, bits),
            Scalar::Double(_) => Err(Unjudged::row("a DOUBLE does not fit a whole number")),
            _ => Ok(Scalar::Null),
        }),
        (ScalarType::Int(_) | ScalarType::Number(_), ScalarType::Number(scale)) => {
            Rc::new(move |v| match v[0].as_number() {
                Some(n) => number(rescaled(n, scale).ok_or(Unjudged::Digits)?, scale),
                None => Ok(Scalar::Null),
            })
        }
        (ScalarType::Double, ScalarType::Number(scale)) => Rc::new(move |v| match v[0] {
            Scalar::Double(x) => {
                let digits = parse(&format!("{x:.14e}")).and_then(|n| rescaled(n, scale));
                number(
                    digits.ok_or_else(|| Unjudged::row("a DOUBLE does not fit a DECIMAL"))?,
                    scale,
                )
            }
            _ => Ok(Scalar::Null),
        }),
        (from, ScalarType::Double) if from.is_number() => Rc::new(|v| match &v[0] {
            Scalar::Null => Ok(Scalar::Null),
            value => to_double(value).map(Scalar::Double),
        }),
        (ScalarType::Date, ScalarType::Moment(_)) => {
            Rc::new(|v| Ok(time::moment(&v[0]).map_or(Scalar::Null, Scalar::Moment)))
        }
        (ScalarType::Moment(_), ScalarType::Moment(_)) => Rc::new(|v| Ok(v[0].clone())),
        (ScalarType::Moment(_), ScalarType::Date) => Rc::new(|v| {
            let day = |micros: i64| Scalar::Date(micros.div_euclid(DAY) as i32);
            Ok(time::moment(&v[0]).map_or(Scalar::Null, day))
        }),
        (ScalarType::Text, to) => from_text(to)?,
        (from, ScalarType::Text) => to_text(&from)?,
        (from, to) => {
            let (from, to) = (from.name(), to.name());
            return Err(Unjudged::construct(format!("a cast of a {from} to a {to}")));
        }
    };
    Ok(kernel)
}

fn whole(value: &Scalar, bits: u8) -> Result<Scalar, Unjudged> {
    match value.as_number() {
        Some(n) => fitting(rescaled(n, 0).expect("fewer digits fit"), bits),
        None => Ok(Scalar::Null),
    }
}

fn from_text(to: ScalarType) -> Result<ScalarKernel, Unjudged> {
    let unread = |text: &str| Unjudged::row(format!("the text {text:?} is of another type"));
    let read = move |text: &str| -> Result<Scalar, Unjudged> {
        let trimmed = text.trim();
        let plain = trimmed.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        Ok(match &to {
            ScalarType::Int(bits) => fitting(trimmed.parse().map_err(|_| unread(text))?, *bits)?,
            ScalarType::Number(scale) => {
                let digits = parse(trimmed).ok_or_else(|| unread(text))?;
                number(rescaled(digits, *scale).ok_or(Unjudged::Digits)?, *scale)?
            }
            ScalarType::Double
                if ["inf", "infinity", "+infinity"]
                    .iter()
                    .any(|name| trimmed.eq_ignore_ascii_case(name)) =>
            {
                Scalar::Double(f64::INFINITY)
            }
            ScalarType::Double
                if ["-inf", "-infinity"]
                    .iter()
                    .any(|name| trimmed.eq_ignore_ascii_case(name)) =>
            {
                Scalar::Double(f64::NEG_INFINITY)
            }
            ScalarType::Double if trimmed.eq_ignore_ascii_case("nan") => Scalar::Double(f64::NAN),
            ScalarType::Double if plain => {
                let value = trimmed.parse::<f64>().map_err(|_| unread(text))?;
                let mantissa = trimmed.split(['e', 'E']).next().unwrap_or_default();
                let is_zero = !mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
                if value.is_infinite() || (value == 0.0 && !is_zero) {
                    return Err(unread(text)); // out of range
                }
                Scalar::Double(value + 0.0)
            }
            ScalarType::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "tru" | "tr" | "t" | "yes" | "ye" | "y" | "on" | "1" => Scalar::Bool(true),
                "false" | "fals" | "fal" | "fa" | "f" | "no" | "n" | "off" | "of" | "0" => Scalar::Bool(false),
                _ => return Err(unread(text)),
            },
            ScalarType::Date | ScalarType::Moment(false) => time::parse(text, &to)?,
            to => return Err(Unjudged::construct(format!("a text as a {}", to.name()))),
        })
    };
    Ok(Rc::new(move |v| match &v[0] {
        Scalar::Text(text) => read(text),
        _ => Ok(Scalar::Null),
    }))
}

fn to_text(from: &ScalarType) -> Result<ScalarKernel, Unjudged> {
    let zone = *from == ScalarType::Moment(true);
    if !matches!(
        from,
        ScalarType::Int(_) | ScalarType::Number(_) | ScalarType::Bool | ScalarType::Date | ScalarType::Moment(_)
    ) {
        return Err(Unjudged::construct(format!("a {} as a text", from.name())));
    }
    Ok(Rc::new(move |v| {
        Ok(match &v[0] {
            Scalar::Bool(b) => Scalar::text(if *b { "true" } else { "false" }),
            value @ (Scalar::Int(_) | Scalar::Number(..)) => Scalar::text(written(value)),
            value @ (Scalar::Date(_) | Scalar::Moment(_)) => {
                Scalar::text(time::written(&time::within(value.clone())?, zone))
            }
            other => other.clone(),
        })
    }))
}
