//! Operators on numbers, times and texts.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, ValueWithSpan};
use regex::{Regex, RegexBuilder};

use super::convert::converted;
use super::expr::{Term, TypedTerm};
use super::number::{self, ArithmeticOp, to_double};
use super::time;
use super::trust::Unjudged;
use super::value::{IntervalLength, Scalar, ScalarType};

/// `left op right`, on numbers or times.
pub fn arith(op: ArithmeticOp, left: TypedTerm, right: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let (left, right) = beside(left, right)?;
    if left.of.is_number() && right.of.is_number() || left.of == ScalarType::Null || right.of == ScalarType::Null {
        let of = number::outcome(op, &left.of, &right.of)?;
        if !of.is_number() {
            return Err(Unjudged::Types(format!("arithmetic of NULL and a {}", of.name())));
        }
        let result = of.clone();
        let kernel = move |v: &[Scalar]| number::arith(op, &of, &v[0], &v[1]);
        return Ok(TypedTerm::new(
            Term::Strict(Rc::new(kernel), vec![left.ex, right.ex]),
            result,
        ));
    }
    of_times(op, left, right)
}

/// Converts a quoted text to the type of the other operand.
fn beside(left: TypedTerm, right: TypedTerm) -> Result<(TypedTerm, TypedTerm), Unjudged> {
    let as_other = |text: TypedTerm, of: &ScalarType| -> Result<TypedTerm, Unjudged> {
        match of {
            of if of.is_number() => Ok(TypedTerm::new(converted(text, of)?, of.clone())),
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

fn of_times(op: ArithmeticOp, left: TypedTerm, right: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let sign = if op == ArithmeticOp::Subtract { -1 } else { 1 };
    let strict =
        |kernel: fn(i64, &Scalar, &Scalar) -> Result<Scalar, Unjudged>, left: Term, right: Term, of: ScalarType| {
            let kernel = move |v: &[Scalar]| kernel(sign, &v[0], &v[1]);
            Ok(TypedTerm::new(Term::Strict(Rc::new(kernel), vec![left, right]), of))
        };
    let (a, b) = (left.of.clone(), right.of.clone());
    match (op, &a, &b) {
        (ArithmeticOp::Add | ArithmeticOp::Subtract, ScalarType::Date | ScalarType::Moment(_), ScalarType::Length) => {
            let of = ScalarType::Moment(a == ScalarType::Moment(true));
            strict(|sign, at, by| moved(at, by, sign), left.ex, right.ex, of)
        }
        (ArithmeticOp::Add, ScalarType::Length, ScalarType::Date | ScalarType::Moment(_)) => {
            let of = ScalarType::Moment(b == ScalarType::Moment(true));
            strict(|sign, by, at| moved(at, by, sign), left.ex, right.ex, of)
        }
        (ArithmeticOp::Add | ArithmeticOp::Subtract, ScalarType::Date, ScalarType::Int(_)) => {
            strict(days_later, left.ex, right.ex, ScalarType::Date)
        }
        (ArithmeticOp::Add, ScalarType::Int(_), ScalarType::Date) => strict(
            |sign, by, at| days_later(sign, at, by),
            left.ex,
            right.ex,
            ScalarType::Date,
        ),
        (ArithmeticOp::Subtract, ScalarType::Date, ScalarType::Date) => {
            let days = |_, a: &Scalar, b: &Scalar| match (a, b) {
                (Scalar::Date(a), Scalar::Date(b)) => Ok(Scalar::Int(i64::from(*a) - i64::from(*b))),
                _ => Ok(Scalar::Null),
            };
            strict(days, left.ex, right.ex, ScalarType::Int(64))
        }
        (
            ArithmeticOp::Subtract,
            ScalarType::Date | ScalarType::Moment(_),
            ScalarType::Date | ScalarType::Moment(_),
        ) => {
            let between = |_, a: &Scalar, b: &Scalar| match (time::moment(a), time::moment(b)) {
                (Some(a), Some(b)) => Ok(Scalar::Length(time::between(a, b))),
                _ => Ok(Scalar::Null),
            };
            strict(between, left.ex, right.ex, ScalarType::Length)
        }
        (ArithmeticOp::Add | ArithmeticOp::Subtract, ScalarType::Length, ScalarType::Length) => {
            let added = |sign, a: &Scalar, b: &Scalar| match (a, b) {
                (Scalar::Length(a), Scalar::Length(b)) => time::added(*a, *b, sign),
                _ => Ok(Scalar::Null),
            };
            strict(added, left.ex, right.ex, ScalarType::Length)
        }
        (ArithmeticOp::Multiply, ScalarType::Length, ScalarType::Int(_)) => {
            strict(|_, a, n| times(a, n), left.ex, right.ex, ScalarType::Length)
        }
        (ArithmeticOp::Multiply, ScalarType::Int(_), ScalarType::Length) => {
            strict(|_, n, a| times(a, n), left.ex, right.ex, ScalarType::Length)
        }
        _ => Err(Unjudged::construct(format!(
            "arithmetic of a {} and a {}",
            a.name(),
            b.name()
        ))),
    }
}

fn moved(at: &Scalar, by: &Scalar, sign: i64) -> Result<Scalar, Unjudged> {
    match (time::moment(at), by) {
        (Some(at), Scalar::Length(by)) => time::moved(at, *by, sign),
        _ => Ok(Scalar::Null),
    }
}

fn days_later(sign: i64, at: &Scalar, by: &Scalar) -> Result<Scalar, Unjudged> {
    match (at, by) {
        (Scalar::Date(at), Scalar::Int(by)) => {
            let days = by.checked_mul(sign).and_then(|by| by.checked_add(i64::from(*at)));
            let days = days.and_then(|days| i32::try_from(days).ok());
            time::within(Scalar::Date(
                days.ok_or_else(|| Unjudged::row("a DATE beyond all years"))?,
            ))
        }
        _ => Ok(Scalar::Null),
    }
}

fn times(length: &Scalar, n: &Scalar) -> Result<Scalar, Unjudged> {
    let (Scalar::Length(length), Scalar::Int(n)) = (length, n) else {
        return Ok(Scalar::Null);
    };
    let far = || Unjudged::row("an INTERVAL beyond all that there are");
    let part = |part: i32| -> Result<i32, Unjudged> {
        let part = i64::from(part).checked_mul(*n).ok_or_else(far)?;
        i32::try_from(part).map_err(|_| far())
    };
    Ok(Scalar::Length(IntervalLength {
        months: part(length.months)?,
        days: part(length.days)?,
        micros: length.micros.checked_mul(*n).ok_or_else(far)?,
    }))
}

/// `-x`.
pub fn negated(bound: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let of = bound.of.clone();
    match &of {
        ScalarType::Length => arith(
            ArithmeticOp::Multiply,
            bound,
            TypedTerm::new(Term::Const(Scalar::Int(-1)), ScalarType::Int(64)),
        ),
        ScalarType::Int(bits) => {
            let bits = *bits;
            let kernel = move |v: &[Scalar]| match &v[0] {
                Scalar::Int(n) => number::fitting(-i128::from(*n), bits),
                other => Ok(other.clone()),
            };
            Ok(TypedTerm::new(Term::Strict(Rc::new(kernel), vec![bound.ex]), of))
        }
        ScalarType::Number(_) | ScalarType::Double => {
            let kernel = |v: &[Scalar]| {
                Ok(match &v[0] {
                    Scalar::Number(n, scale) => Scalar::Number(-n, *scale),
                    Scalar::Double(x) => Scalar::Double(0.0 - x),
                    other => other.clone(),
                })
            };
            Ok(TypedTerm::new(Term::Strict(Rc::new(kernel), vec![bound.ex]), of))
        }
        of => Err(Unjudged::construct(format!("the negative of a {}", of.name()))),
    }
}

/// `a || b`.
pub fn joined(left: TypedTerm, right: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let text = |bound: TypedTerm| match &bound.of {
        ScalarType::Text | ScalarType::Null | ScalarType::Int(_) => converted(bound, &ScalarType::Text),
        of => Err(Unjudged::construct(format!("a {} in ||", of.name()))),
    };
    if left.of != ScalarType::Text && right.of != ScalarType::Text {
        return Err(Unjudged::construct("|| without a text"));
    }
    let kernel = |v: &[Scalar]| match (&v[0], &v[1]) {
        (Scalar::Text(a), Scalar::Text(b)) => Ok(Scalar::text(format!("{a}{b}"))),
        _ => Ok(Scalar::Null),
    };
    Ok(TypedTerm::new(
        Term::Strict(Rc::new(kernel), vec![text(left)?, text(right)?]),
        ScalarType::Text,
    ))
}

/// `a ^ b`, on doubles.
pub fn power(left: TypedTerm, right: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let double = |bound: TypedTerm| match bound.of.is_number() {
        true => converted(bound, &ScalarType::Double),
        false => Err(Unjudged::construct("a power of what is no number")),
    };
    let kernel = |v: &[Scalar]| {
        let (a, b) = (to_double(&v[0])?, to_double(&v[1])?);
        let x = a.powf(b);
        match a.is_finite() && b.is_finite() && (!x.is_finite() || x == 0.0 && a != 0.0) {
            true => Err(Unjudged::row("a power that there is not")),
            false => Ok(Scalar::Double(x)),
        }
    };
    Ok(TypedTerm::new(
        Term::Strict(Rc::new(kernel), vec![double(left)?, double(right)?]),
        ScalarType::Double,
    ))
}

/// `a LIKE pattern`.
pub fn like(
    of: TypedTerm,
    pattern: TypedTerm,
    escape: Option<&ValueWithSpan>,
    ignores: bool,
) -> Result<Term, Unjudged> {
    if of.of != ScalarType::Text || pattern.of != ScalarType::Text {
        return Err(Unjudged::Types("LIKE of what are no texts".into()));
    }
    let escape = match escape.map(|escape| &escape.value) {
        None => Some('\\'),
        Some(ast::Value::SingleQuotedString(text)) if text.chars().count() <= 1 => text.chars().next(),
        Some(other) => return Err(Unjudged::construct(format!("ESCAPE {other}"))),
    };
    let kernel = move |v: &[Scalar]| {
        let (Scalar::Text(text), Scalar::Text(pattern)) = (&v[0], &v[1]) else {
            return Ok(Scalar::Null);
        };
        let (text, pattern) = match ignores {
            true => (text.to_lowercase(), pattern.to_lowercase()),
            false => (text.to_string(), pattern.to_string()),
        };
        let pattern = steps(&pattern, escape).ok_or_else(|| Unjudged::row("a pattern ends with its escape"))?;
        Ok(Scalar::Bool(fits(&text.chars().collect::<Vec<_>>(), &pattern)))
    };
    Ok(Term::Strict(Rc::new(kernel), vec![of.ex, pattern.ex]))
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

/// Whether a text matches a pattern: after each `%`, the rest is tried at one position after another.
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

/// `a ~ pattern`, for patterns that mean the same in all regular expression dialects. Which of several matches is
/// found does not matter.
pub fn regex(of: TypedTerm, pattern: TypedTerm, ignores: bool) -> Result<Term, Unjudged> {
    let Term::Const(Scalar::Text(pattern)) = &pattern.ex else {
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
    let made: Regex = made
        .ok()
        .filter(|_| plain && of.of == ScalarType::Text)
        .ok_or_else(unknown)?;
    let kernel = move |v: &[Scalar]| match &v[0] {
        Scalar::Text(text) => Ok(Scalar::Bool(made.is_match(text))),
        _ => Ok(Scalar::Null),
    };
    Ok(Term::Strict(Rc::new(kernel), vec![of.ex]))
}

/// `EXTRACT(field FROM x)`.
pub fn extract(field: &str, of: TypedTerm) -> Result<TypedTerm, Unjudged> {
    let field = field.to_lowercase();
    let field = field.trim_matches('\'').to_string();
    let unknown = || Unjudged::construct(format!("EXTRACT({field} FROM ...) of a {}", of.of.name()));
    let returns = time::field_type(&field).ok_or_else(unknown)?;
    match of.of {
        ScalarType::Date | ScalarType::Moment(_) => {
            let at = converted(of, &ScalarType::Moment(false))?;
            let kernel = move |v: &[Scalar]| {
                Ok(time::moment(&v[0])
                    .and_then(|at| time::field(&field, at))
                    .unwrap_or(Scalar::Null))
            };
            Ok(TypedTerm::new(Term::Strict(Rc::new(kernel), vec![at]), returns))
        }
        ScalarType::Length if field == "epoch" => {
            let kernel = |v: &[Scalar]| match v[0] {
                Scalar::Length(IntervalLength {
                    months: 0,
                    days,
                    micros,
                }) => Ok(Scalar::Number(
                    i128::from(days) * i128::from(time::DAY) + i128::from(micros),
                    6,
                )),
                Scalar::Length(_) => Err(Unjudged::construct("the seconds of months")),
                _ => Ok(Scalar::Null),
            };
            Ok(TypedTerm::new(Term::Strict(Rc::new(kernel), vec![of.ex]), returns))
        }
        _ => Err(unknown()),
    }
}
