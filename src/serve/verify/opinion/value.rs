//! Values and their types, as in SQL.
//!
//! Decimals carry their scale, as in PostgreSQL, and are compared by their numeric value. NaN is greater than all
//! other doubles and equal to itself; the two zeros are equal.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

/// A value in a row.
#[derive(Clone, Debug)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// A decimal: so many units of 10^-scale.
    Number(i128, u8),
    Double(f64),
    Text(Arc<str>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01.
    Moment(i64),
    Length(IntervalLength),
    /// A value that is only passed on, or passed to functions.
    Arrow(Arc<ScalarValue>),
}

/// An interval: months, days and microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalLength {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

/// The type of a column or expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarType {
    /// The type of a bare NULL.
    Null,
    Bool,
    /// Whole numbers of so many bits.
    Int(u8),
    /// Decimals of this scale.
    Number(u8),
    Double,
    Text,
    Date,
    /// Timestamps; true: with time zone.
    Moment(bool),
    Length,
    /// An Arrow type whose values are only passed on.
    Arrow(DataType),
}

impl ScalarType {
    /// Whether its values are numbers.
    pub fn is_number(&self) -> bool {
        matches!(self, ScalarType::Int(_) | ScalarType::Number(_) | ScalarType::Double)
    }

    /// The type's name in SQL.
    pub fn name(&self) -> String {
        match self {
            ScalarType::Null => "NULL".into(),
            ScalarType::Bool => "BOOLEAN".into(),
            ScalarType::Int(16) => "SMALLINT".into(),
            ScalarType::Int(32) => "INT".into(),
            ScalarType::Int(_) => "BIGINT".into(),
            ScalarType::Number(scale) => format!("DECIMAL with {scale} digits behind the point"),
            ScalarType::Double => "DOUBLE".into(),
            ScalarType::Text => "VARCHAR".into(),
            ScalarType::Date => "DATE".into(),
            ScalarType::Moment(false) => "TIMESTAMP".into(),
            ScalarType::Moment(true) => "TIMESTAMP WITH TIME ZONE".into(),
            ScalarType::Length => "INTERVAL".into(),
            ScalarType::Arrow(of) => of.to_string(),
        }
    }
}

impl IntervalLength {
    /// The microseconds that a comparison uses: a month counts as 30 days, a day as 24 hours.
    pub fn total(self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * 86_400_000_000 + i128::from(self.micros)
    }
}

impl Scalar {
    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Scalar::Null)
    }

    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        matches!(self, Scalar::Bool(true))
    }

    /// Makes a text value.
    pub fn text(text: impl Into<Arc<str>>) -> Scalar {
        Scalar::Text(text.into())
    }

    /// Compares two values of the same kind; none if one is NULL.
    pub fn compare(&self, other: &Scalar) -> Option<Ordering> {
        Some(match (self, other) {
            (Scalar::Null, _) | (_, Scalar::Null) => return None,
            (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
            (Scalar::Text(a), Scalar::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Scalar::Date(a), Scalar::Date(b)) => a.cmp(b),
            (Scalar::Moment(a), Scalar::Moment(b)) => a.cmp(b),
            (Scalar::Length(a), Scalar::Length(b)) => a.total().cmp(&b.total()),
            (Scalar::Double(a), Scalar::Double(b)) => doubles(*a, *b),
            (Scalar::Arrow(a), Scalar::Arrow(b)) => a.partial_cmp(b)?,
            (a, b) => {
                let (a, b) = (a.as_number()?, b.as_number()?);
                numbers(a, b)
            }
        })
    }

    /// A whole number or decimal as units and scale.
    pub fn as_number(&self) -> Option<(i128, u8)> {
        match self {
            Scalar::Int(n) => Some((i128::from(*n), 0)),
            Scalar::Number(n, scale) => Some((*n, *scale)),
            _ => None,
        }
    }

    /// Appends bytes that are equal exactly for values of one kind that are not distinct.
    pub fn key(&self, out: &mut Vec<u8>) {
        let mut put = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Scalar::Null => put(0, &[]),
            Scalar::Bool(b) => put(1, &[u8::from(*b)]),
            Scalar::Int(_) | Scalar::Number(..) => {
                let (mut digits, mut scale) = self.as_number().expect("it is a number");
                while scale > 0 && digits % 10 == 0 {
                    (digits, scale) = (digits / 10, scale - 1);
                }
                put(2, &[&digits.to_le_bytes()[..], &[scale]].concat());
            }
            Scalar::Double(x) => {
                let one = match x {
                    x if x.is_nan() => f64::NAN,
                    x if *x == 0.0 => 0.0,
                    x => *x,
                };
                put(3, &one.to_bits().to_le_bytes());
            }
            Scalar::Text(text) => put(4, text.as_bytes()),
            Scalar::Date(days) => put(5, &days.to_le_bytes()),
            Scalar::Moment(micros) => put(6, &micros.to_le_bytes()),
            Scalar::Length(length) => put(7, &length.total().to_le_bytes()),
            Scalar::Arrow(value) => put(8, format!("{value:?}").as_bytes()),
        }
    }
}

/// The key bytes of several values.
pub fn key_of<'a>(values: impl IntoIterator<Item = &'a Scalar>) -> Vec<u8> {
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
