//! Operators of numbers, times and texts.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, ValueWithSpan};
use regex::{Regex, RegexBuilder};

use super::convert::converted;
use super::expr::{Bound, Ex};
use super::number::{self, Arith, to_double};
use super::time;
use super::trust::Unjudged;
use super::value::{Length, Type, Value};

/// `left op right`, of numbers or times.
pub fn arith(op: Arith, left: Bound, right: Bound) -> Result<Bound, Unjudged> {
    let (left, right) = beside(left, right)?;
    if left.of.is_number() && right.of.is_number() || left.of == Type::Null || right.of == Type::Null {
        let of = number::outcome(op, &left.of, &right.of)?;
        if !of.is_number() {
            return Err(Unjudged::Types(format!("arithmetic of NULL and a {}", of.name())));
        }
        let result = of.clone();
        let kernel = move |v: &[Value]| number::arith(op, &of, &v[0], &v[1]);
        return Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![left.ex, right.ex]), result));
    }
    of_times(op, left, right)
}

/// A text that stands beside something else is of its type.
fn beside(left: Bound, right: Bound) -> Result<(Bound, Bound), Unjudged> {
    let as_other = |text: Bound, of: &Type| -> Result<Bound, Unjudged> {
        match of {
            of if of.is_number() => Ok(Bound::new(converted(text, of)?, of.clone())),
            of => Err(Unjudged::construct(format!("arithmetic of a text and a {}", of.name()))),
        }
    };
    Ok(match (left.quoted, right.quoted) {
        (true, false) => (as_other(left, &right.of)?, right),
        (false, true) => {
            let right = as_other(right, &left.of)?;
            (left, right)
        }
        _ => (left, right),
    })
}

fn of_times(op: Arith, left: Bound, right: Bound) -> Result<Bound, Unjudged> {
    let sign = if op == Arith::Subtract { -1 } else { 1 };
    let strict = |kernel: fn(i64, &Value, &Value) -> Result<Value, Unjudged>, left: Ex, right: Ex, of: Type| {
        let kernel = move |v: &[Value]| kernel(sign, &v[0], &v[1]);
        Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![left, right]), of))
    };
    let (a, b) = (left.of.clone(), right.of.clone());
    match (op, &a, &b) {
        (Arith::Add | Arith::Subtract, Type::Date | Type::Moment(_), Type::Length) => {
            let of = Type::Moment(a == Type::Moment(true));
            strict(|sign, at, by| moved(at, by, sign), left.ex, right.ex, of)
        }
        (Arith::Add, Type::Length, Type::Date | Type::Moment(_)) => {
            let of = Type::Moment(b == Type::Moment(true));
            strict(|sign, by, at| moved(at, by, sign), left.ex, right.ex, of)
        }
        (Arith::Add | Arith::Subtract, Type::Date, Type::Int(_)) => strict(days_later, left.ex, right.ex, Type::Date),
        (Arith::Add, Type::Int(_), Type::Date) => {
            strict(|sign, by, at| days_later(sign, at, by), left.ex, right.ex, Type::Date)
        }
        (Arith::Subtract, Type::Date, Type::Date) => {
            let days = |_, a: &Value, b: &Value| match (a, b) {
                (Value::Date(a), Value::Date(b)) => Ok(Value::Int(i64::from(*a) - i64::from(*b))),
                _ => Ok(Value::Null),
            };
            strict(days, left.ex, right.ex, Type::Int(64))
        }
        (Arith::Subtract, Type::Date | Type::Moment(_), Type::Date | Type::Moment(_)) => {
            let between = |_, a: &Value, b: &Value| match (time::moment(a), time::moment(b)) {
                (Some(a), Some(b)) => Ok(Value::Length(time::between(a, b))),
                _ => Ok(Value::Null),
            };
            strict(between, left.ex, right.ex, Type::Length)
        }
        (Arith::Add | Arith::Subtract, Type::Length, Type::Length) => {
            let added = |sign, a: &Value, b: &Value| match (a, b) {
                (Value::Length(a), Value::Length(b)) => time::added(*a, *b, sign),
                _ => Ok(Value::Null),
            };
            strict(added, left.ex, right.ex, Type::Length)
        }
        (Arith::Multiply, Type::Length, Type::Int(_)) => strict(|_, a, n| times(a, n), left.ex, right.ex, Type::Length),
        (Arith::Multiply, Type::Int(_), Type::Length) => strict(|_, n, a| times(a, n), left.ex, right.ex, Type::Length),
        _ => Err(Unjudged::construct(format!(
            "arithmetic of a {} and a {}",
            a.name(),
            b.name()
        ))),
    }
}

fn moved(at: &Value, by: &Value, sign: i64) -> Result<Value, Unjudged> {
    match (time::moment(at), by) {
        (Some(at), Value::Length(by)) => time::moved(at, *by, sign),
        _ => Ok(Value::Null),
    }
}

fn days_later(sign: i64, at: &Value, by: &Value) -> Result<Value, Unjudged> {
    match (at, by) {
        (Value::Date(at), Value::Int(by)) => {
            let days = by.checked_mul(sign).and_then(|by| by.checked_add(i64::from(*at)));
            let days = days.and_then(|days| i32::try_from(days).ok());
            time::within(Value::Date(
                days.ok_or_else(|| Unjudged::row("a DATE beyond all years"))?,
            ))
        }
        _ => Ok(Value::Null),
    }
}

fn times(length: &Value, n: &Value) -> Result<Value, Unjudged> {
    let (Value::Length(length), Value::Int(n)) = (length, n) else {
        return Ok(Value::Null);
    };
    let far = || Unjudged::row("an INTERVAL beyond all that there are");
    let part = |part: i32| -> Result<i32, Unjudged> {
        let part = i64::from(part).checked_mul(*n).ok_or_else(far)?;
        i32::try_from(part).map_err(|_| far())
    };
    Ok(Value::Length(Length {
        months: part(length.months)?,
        days: part(length.days)?,
        micros: length.micros.checked_mul(*n).ok_or_else(far)?,
    }))
}

/// `-x`.
pub fn negated(bound: Bound) -> Result<Bound, Unjudged> {
    let of = bound.of.clone();
    match &of {
        Type::Length => arith(
            Arith::Multiply,
            bound,
            Bound::new(Ex::Const(Value::Int(-1)), Type::Int(64)),
        ),
        Type::Int(bits) => {
            let bits = *bits;
            let kernel = move |v: &[Value]| match &v[0] {
                Value::Int(n) => number::fitting(-i128::from(*n), bits),
                other => Ok(other.clone()),
            };
            Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![bound.ex]), of))
        }
        Type::Number(_) | Type::Double => {
            let kernel = |v: &[Value]| {
                Ok(match &v[0] {
                    Value::Number(n, scale) => Value::Number(-n, *scale),
                    Value::Double(x) => Value::Double(0.0 - x),
                    other => other.clone(),
                })
            };
            Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![bound.ex]), of))
        }
        of => Err(Unjudged::construct(format!("the negative of a {}", of.name()))),
    }
}

/// `a || b`.
pub fn joined(left: Bound, right: Bound) -> Result<Bound, Unjudged> {
    let text = |bound: Bound| match &bound.of {
        Type::Text | Type::Null | Type::Int(_) => converted(bound, &Type::Text),
        of => Err(Unjudged::construct(format!("a {} in ||", of.name()))),
    };
    if left.of != Type::Text && right.of != Type::Text {
        return Err(Unjudged::construct("|| without a text"));
    }
    let kernel = |v: &[Value]| match (&v[0], &v[1]) {
        (Value::Text(a), Value::Text(b)) => Ok(Value::text(format!("{a}{b}"))),
        _ => Ok(Value::Null),
    };
    Ok(Bound::new(
        Ex::Strict(Rc::new(kernel), vec![text(left)?, text(right)?]),
        Type::Text,
    ))
}

/// `a ^ b`, of doubles.
pub fn power(left: Bound, right: Bound) -> Result<Bound, Unjudged> {
    let double = |bound: Bound| match bound.of.is_number() {
        true => converted(bound, &Type::Double),
        false => Err(Unjudged::construct("a power of what is no number")),
    };
    let kernel = |v: &[Value]| {
        let (a, b) = (to_double(&v[0])?, to_double(&v[1])?);
        let x = a.powf(b);
        match a.is_finite() && b.is_finite() && (!x.is_finite() || x == 0.0 && a != 0.0) {
            true => Err(Unjudged::row("a power that there is not")),
            false => Ok(Value::Double(x)),
        }
    };
    Ok(Bound::new(
        Ex::Strict(Rc::new(kernel), vec![double(left)?, double(right)?]),
        Type::Double,
    ))
}

/// `a LIKE pattern`.
pub fn like(of: Bound, pattern: Bound, escape: Option<&ValueWithSpan>, ignores: bool) -> Result<Ex, Unjudged> {
    if of.of != Type::Text || pattern.of != Type::Text {
        return Err(Unjudged::Types("LIKE of what are no texts".into()));
    }
    let escape = match escape.map(|escape| &escape.value) {
        None => Some('\\'),
        Some(ast::Value::SingleQuotedString(text)) if text.chars().count() <= 1 => text.chars().next(),
        Some(other) => return Err(Unjudged::construct(format!("ESCAPE {other}"))),
    };
    let kernel = move |v: &[Value]| {
        let (Value::Text(text), Value::Text(pattern)) = (&v[0], &v[1]) else {
            return Ok(Value::Null);
        };
        let (text, pattern) = match ignores {
            true => (text.to_lowercase(), pattern.to_lowercase()),
            false => (text.to_string(), pattern.to_string()),
        };
        let pattern = steps(&pattern, escape).ok_or_else(|| Unjudged::row("a pattern ends with its escape"))?;
        Ok(Value::Bool(fits(&text.chars().collect::<Vec<_>>(), &pattern)))
    };
    Ok(Ex::Strict(Rc::new(kernel), vec![of.ex, pattern.ex]))
}

enum Step {
    Any,
    One,
    Is(char),
}

fn steps(pattern: &str, escape: Option<char>) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        steps.push(match char {
            char if Some(char) == escape => Step::Is(chars.next()?),
            '%' => Step::Any,
            '_' => Step::One,
            char => Step::Is(char),
        });
    }
    Some(steps)
}

/// Whether a text fits a pattern: from each `%` on, the rest is tried at one place behind the other.
fn fits(text: &[char], pattern: &[Step]) -> bool {
    let (mut at, mut step) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while at < text.len() {
        match (pattern.get(step), again) {
            (Some(Step::Any), _) => {
                again = Some((at, step));
                step += 1;
            }
            (Some(Step::One), _) => (at, step) = (at + 1, step + 1),
            (Some(Step::Is(char)), _) if *char == text[at] => (at, step) = (at + 1, step + 1),
            (_, Some((tried, any))) => {
                again = Some((tried + 1, any));
                (at, step) = (tried + 1, any + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[step..].iter().all(|step| matches!(step, Step::Any))
}

/// `a ~ pattern`, of patterns that mean the same to all who read regular expressions; which match is taken does not matter.
pub fn regex(of: Bound, pattern: Bound, ignores: bool) -> Result<Ex, Unjudged> {
    let Ex::Const(Value::Text(pattern)) = &pattern.ex else {
        return Err(Unjudged::construct("a regular expression that is computed"));
    };
    let plain = pattern
        .chars()
        .all(|c| c.is_alphanumeric() || " _.*+^$|@%,-[](){}?".contains(c));
    let plain = plain
        && !["(?", "{,", "[]", "[^]", "**", "[."]
            .iter()
            .any(|odd| pattern.contains(odd));
    let unknown = || Unjudged::construct(format!("the regular expression {pattern:?}"));
    let made = RegexBuilder::new(pattern)
        .case_insensitive(ignores)
        .dot_matches_new_line(true)
        .build();
    let made: Regex = made.ok().filter(|_| plain && of.of == Type::Text).ok_or_else(unknown)?;
    let kernel = move |v: &[Value]| match &v[0] {
        Value::Text(text) => Ok(Value::Bool(made.is_match(text))),
        _ => Ok(Value::Null),
    };
    Ok(Ex::Strict(Rc::new(kernel), vec![of.ex]))
}

/// `EXTRACT(field FROM x)`.
pub fn extract(field: &str, of: Bound) -> Result<Bound, Unjudged> {
    let field = field.to_lowercase();
    let field = field.trim_matches('\'').to_string();
    let unknown = || Unjudged::construct(format!("EXTRACT({field} FROM ...) of a {}", of.of.name()));
    let returns = time::field_type(&field).ok_or_else(unknown)?;
    match of.of {
        Type::Date | Type::Moment(_) => {
            let at = converted(of, &Type::Moment(false))?;
            let kernel = move |v: &[Value]| {
                Ok(time::moment(&v[0])
                    .and_then(|at| time::field(&field, at))
                    .unwrap_or(Value::Null))
            };
            Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![at]), returns))
        }
        Type::Length if field == "epoch" => {
            let kernel = |v: &[Value]| match v[0] {
                Value::Length(Length {
                    months: 0,
                    days,
                    micros,
                }) => Ok(Value::Number(
                    i128::from(days) * i128::from(time::DAY) + i128::from(micros),
                    6,
                )),
                Value::Length(_) => Err(Unjudged::construct("the seconds of months")),
                _ => Ok(Value::Null),
            };
            Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![of.ex]), returns))
        }
        _ => Err(unknown()),
    }
}
