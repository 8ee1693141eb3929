//! Which type values meet in, and values of one type as values of another.
//!
//! A text that stands in the query is of the type of what it stands beside. A decimal is rounded half away from zero, a double half
//! to even where it becomes a whole number, and taken by its 15 digits where it becomes a decimal. What does not fit is a row that
//! does not evaluate.

use std::rc::Rc;

use super::expr::{Bound, Ex, Kernel};
use super::number::{fitting, number, parse, rescaled, to_double, written};
use super::time::{self, DAY};
use super::trust::Unjudged;
use super::value::{Type, Value};

/// The type in which values meet.
pub fn meet<'a>(all: impl IntoIterator<Item = &'a Bound>) -> Result<Type, Unjudged> {
    let all: Vec<&Bound> = all.into_iter().filter(|bound| bound.of != Type::Null).collect();
    let typed = || all.iter().filter(|bound| !bound.quoted).map(|bound| &bound.of);
    let Some(first) = typed().next() else {
        return Ok(if all.is_empty() { Type::Null } else { Type::Text });
    };
    typed().try_fold(first.clone(), |met, of| pair(&met, of))
}

/// The type in which values of two types meet.
pub fn pair(a: &Type, b: &Type) -> Result<Type, Unjudged> {
    Ok(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (Type::Int(a), Type::Int(b)) => Type::Int(*a.max(b)),
        (a, b) if a.is_number() && b.is_number() => match (a, b) {
            (Type::Double, _) | (_, Type::Double) => Type::Double,
            (Type::Number(a), Type::Number(b)) => Type::Number(*a.max(b)),
            (Type::Number(scale), _) | (_, Type::Number(scale)) => Type::Number(*scale),
            _ => unreachable!("two whole numbers were met before"),
        },
        (Type::Date, Type::Moment(zone)) | (Type::Moment(zone), Type::Date) => Type::Moment(*zone),
        (Type::Moment(_), Type::Moment(_)) => Type::Moment(true),
        (a, b) => return Err(Unjudged::Types(format!("a {} beside a {}", a.name(), b.name()))),
    })
}

/// The expression as one of this type.
pub fn converted(bound: Bound, to: &Type) -> Result<Ex, Unjudged> {
    if bound.of == *to || bound.of == Type::Null || *to == Type::Null {
        return Ok(bound.ex);
    }
    let kernel = conversion(&bound.of, to)?;
    match bound.ex {
        Ex::Const(value) if bound.quoted => Ok(Ex::Const(kernel(&[value])?)),
        ex => Ok(Ex::Strict(kernel, vec![ex])),
    }
}

/// The same where values are compared: whole numbers and decimals are compared as they are.
pub fn comparable(bound: Bound, to: &Type) -> Result<Ex, Unjudged> {
    match (&bound.of, to) {
        (Type::Int(_) | Type::Number(_), Type::Int(_) | Type::Number(_)) => Ok(bound.ex),
        _ => converted(bound, to),
    }
}

/// What makes a value of a type one of another type; none of them is NULL.
pub fn conversion(from: &Type, to: &Type) -> Result<Kernel, Unjudged> {
    let kernel: Kernel = match (from.clone(), to.clone()) {
        (from, to) if from == to => Rc::new(|v| Ok(v[0].clone())),
        (Type::Null, _) => Rc::new(|_| Ok(Value::Null)),
        (Type::Int(_) | Type::Number(_), Type::Int(bits)) => Rc::new(move |v| whole(&v[0], bits)),
        (Type::Double, Type::Int(bits)) => Rc::new(move |v| match v[0] {
            Value::Double(x) if x.is_finite() && x.abs() < 1e19 => fitting(x.round_ties_even() as i128, bits),
            Value::Double(_) => Err(Unjudged::row("a DOUBLE does not fit a whole number")),
            _ => Ok(Value::Null),
        }),
        (Type::Int(_) | Type::Number(_), Type::Number(scale)) => Rc::new(move |v| match v[0].as_number() {
            Some(n) => number(rescaled(n, scale).ok_or(Unjudged::Digits)?, scale),
            None => Ok(Value::Null),
        }),
        (Type::Double, Type::Number(scale)) => Rc::new(move |v| match v[0] {
            Value::Double(x) => {
                let digits = parse(&format!("{x:.14e}")).and_then(|n| rescaled(n, scale));
                number(
                    digits.ok_or_else(|| Unjudged::row("a DOUBLE does not fit a DECIMAL"))?,
                    scale,
                )
            }
            _ => Ok(Value::Null),
        }),
        (from, Type::Double) if from.is_number() => Rc::new(|v| match &v[0] {
            Value::Null => Ok(Value::Null),
            value => to_double(value).map(Value::Double),
        }),
        (Type::Date, Type::Moment(_)) => Rc::new(|v| Ok(time::moment(&v[0]).map_or(Value::Null, Value::Moment))),
        (Type::Moment(_), Type::Moment(_)) => Rc::new(|v| Ok(v[0].clone())),
        (Type::Moment(_), Type::Date) => Rc::new(|v| {
            let day = |micros: i64| Value::Date(micros.div_euclid(DAY) as i32);
            Ok(time::moment(&v[0]).map_or(Value::Null, day))
        }),
        (Type::Text, to) => from_text(to)?,
        (from, Type::Text) => to_text(&from)?,
        (from, to) => {
            let (from, to) = (from.name(), to.name());
            return Err(Unjudged::construct(format!("a cast of a {from} to a {to}")));
        }
    };
    Ok(kernel)
}

fn whole(value: &Value, bits: u8) -> Result<Value, Unjudged> {
    match value.as_number() {
        Some(n) => fitting(rescaled(n, 0).expect("fewer digits fit"), bits),
        None => Ok(Value::Null),
    }
}

fn from_text(to: Type) -> Result<Kernel, Unjudged> {
    let unread = |text: &str| Unjudged::row(format!("the text {text:?} is of another type"));
    let read = move |text: &str| -> Result<Value, Unjudged> {
        let trimmed = text.trim();
        let plain = trimmed.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        Ok(match &to {
            Type::Int(bits) => fitting(trimmed.parse().map_err(|_| unread(text))?, *bits)?,
            Type::Number(scale) => {
                let digits = parse(trimmed).ok_or_else(|| unread(text))?;
                number(rescaled(digits, *scale).ok_or(Unjudged::Digits)?, *scale)?
            }
            Type::Double
                if ["inf", "infinity", "+infinity"]
                    .iter()
                    .any(|name| trimmed.eq_ignore_ascii_case(name)) =>
            {
                Value::Double(f64::INFINITY)
            }
            Type::Double
                if ["-inf", "-infinity"]
                    .iter()
                    .any(|name| trimmed.eq_ignore_ascii_case(name)) =>
            {
                Value::Double(f64::NEG_INFINITY)
            }
            Type::Double if trimmed.eq_ignore_ascii_case("nan") => Value::Double(f64::NAN),
            Type::Double if plain => Value::Double(trimmed.parse::<f64>().map_err(|_| unread(text))? + 0.0),
            Type::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "tru" | "tr" | "t" | "yes" | "ye" | "y" | "on" | "1" => Value::Bool(true),
                "false" | "fals" | "fal" | "fa" | "f" | "no" | "n" | "off" | "of" | "0" => Value::Bool(false),
                _ => return Err(unread(text)),
            },
            Type::Date | Type::Moment(false) => time::parse(text, &to)?,
            to => return Err(Unjudged::construct(format!("a text as a {}", to.name()))),
        })
    };
    Ok(Rc::new(move |v| match &v[0] {
        Value::Text(text) => read(text),
        _ => Ok(Value::Null),
    }))
}

fn to_text(from: &Type) -> Result<Kernel, Unjudged> {
    let zone = *from == Type::Moment(true);
    if !matches!(
        from,
        Type::Int(_) | Type::Number(_) | Type::Bool | Type::Date | Type::Moment(_)
    ) {
        return Err(Unjudged::construct(format!("a {} as a text", from.name())));
    }
    Ok(Rc::new(move |v| {
        Ok(match &v[0] {
            Value::Bool(b) => Value::text(if *b { "true" } else { "false" }),
            value @ (Value::Int(_) | Value::Number(..)) => Value::text(written(value)),
            value @ (Value::Date(_) | Value::Moment(_)) => {
                Value::text(time::written(&time::within(value.clone())?, zone))
            }
            other => other.clone(),
        })
    }))
}
