//! Values and their types, as SQL has them.
//!
//! Numbers carry their scale with them, as PostgreSQL's do, and are compared by what they are worth. Doubles are in order with
//! NaN behind all others, and equal to itself; there is one zero.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

/// A value of a row.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// So many units of 10^-scale.
    Number(i128, u8),
    Double(f64),
    Text(Arc<str>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01.
    Moment(i64),
    Length(Length),
    /// What is only handed on, or given to functions.
    Whole(Arc<ScalarValue>),
}

/// A length of time: months, days and microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

/// The type of a column or expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Of NULL alone.
    Null,
    Bool,
    /// Of so many bits.
    Int(u8),
    /// With so many digits behind the point.
    Number(u8),
    Double,
    Text,
    Date,
    /// With or without a zone.
    Moment(bool),
    Length,
    Whole(DataType),
}

impl Type {
    /// Whether it is of numbers.
    pub fn is_number(&self) -> bool {
        matches!(self, Type::Int(_) | Type::Number(_) | Type::Double)
    }

    /// As SQL calls it.
    pub fn name(&self) -> String {
        match self {
            Type::Null => "NULL".into(),
            Type::Bool => "BOOLEAN".into(),
            Type::Int(16) => "SMALLINT".into(),
            Type::Int(32) => "INT".into(),
            Type::Int(_) => "BIGINT".into(),
            Type::Number(scale) => format!("DECIMAL with {scale} digits behind the point"),
            Type::Double => "DOUBLE".into(),
            Type::Text => "VARCHAR".into(),
            Type::Date => "DATE".into(),
            Type::Moment(false) => "TIMESTAMP".into(),
            Type::Moment(true) => "TIMESTAMP WITH TIME ZONE".into(),
            Type::Length => "INTERVAL".into(),
            Type::Whole(of) => of.to_string(),
        }
    }
}

impl Length {
    /// Its microseconds, where a month has 30 days and a day 24 hours, as comparisons take it.
    pub fn total(self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * 86_400_000_000 + i128::from(self.micros)
    }
}

impl Value {
    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// Which of two values of one kind comes first; none if one is NULL.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        Some(match (self, other) {
            (Value::Null, _) | (_, Value::Null) => return None,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Moment(a), Value::Moment(b)) => a.cmp(b),
            (Value::Length(a), Value::Length(b)) => a.total().cmp(&b.total()),
            (Value::Double(a), Value::Double(b)) => doubles(*a, *b),
            (Value::Whole(a), Value::Whole(b)) => a.partial_cmp(b)?,
            (a, b) => {
                let (a, b) = (a.as_number()?, b.as_number()?);
                numbers(a, b)
            }
        })
    }

    /// A whole number or decimal with its scale.
    pub fn as_number(&self) -> Option<(i128, u8)> {
        match self {
            Value::Int(n) => Some((i128::from(*n), 0)),
            Value::Number(n, scale) => Some((*n, *scale)),
            _ => None,
        }
    }

    /// Bytes that are equal where values of one kind are not distinct.
    pub fn key(&self, out: &mut Vec<u8>) {
        let mut put = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Value::Null => put(0, &[]),
            Value::Bool(b) => put(1, &[u8::from(*b)]),
            Value::Int(_) | Value::Number(..) => {
                let (mut digits, mut scale) = self.as_number().expect("it is a number");
                while scale > 0 && digits % 10 == 0 {
                    (digits, scale) = (digits / 10, scale - 1);
                }
                put(2, &[&digits.to_le_bytes()[..], &[scale]].concat());
            }
            Value::Double(x) => {
                let one = match x {
                    x if x.is_nan() => f64::NAN,
                    x if *x == 0.0 => 0.0,
                    x => *x,
                };
                put(3, &one.to_bits().to_le_bytes());
            }
            Value::Text(text) => put(4, text.as_bytes()),
            Value::Date(days) => put(5, &days.to_le_bytes()),
            Value::Moment(micros) => put(6, &micros.to_le_bytes()),
            Value::Length(length) => put(7, &length.total().to_le_bytes()),
            Value::Whole(value) => put(8, format!("{value:?}").as_bytes()),
        }
    }
}

/// The bytes of several values.
pub fn key_of<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<u8> {
    let mut key = Vec::new();
    values.into_iter().for_each(|value| value.key(&mut key));
    key
}

fn doubles(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).expect("both are numbers"),
    }
}

fn numbers((a, a_scale): (i128, u8), (b, b_scale): (i128, u8)) -> Ordering {
    if a_scale == b_scale {
        return a.cmp(&b);
    }
    let (a_unit, b_unit) = (10i128.pow(a_scale.into()), 10i128.pow(b_scale.into()));
    let most = a_scale.max(b_scale);
    let behind = |n: i128, unit: i128, scale: u8| n.rem_euclid(unit) * 10i128.pow((most - scale).into());
    let whole = a.div_euclid(a_unit).cmp(&b.div_euclid(b_unit));
    whole.then_with(|| behind(a, a_unit, a_scale).cmp(&behind(b, b_unit, b_scale)))
}
