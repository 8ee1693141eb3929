//! Binds the types and literals that SQL names.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, CharacterLength, DataType, ExactNumberInfo, Expr, TimezoneInfo};

use super::convert::converted;
use super::expr::{Term, TypedTerm};
use super::number;
use super::time;
use super::trust::Unjudged;
use super::value::{IntervalLength, Scalar, ScalarType};

/// A type as a cast names it.
pub struct CastType {
    pub of: ScalarType,
    /// The most digits of a DECIMAL.
    digits: Option<u32>,
    /// The most characters of a VARCHAR.
    characters: Option<usize>,
}

/// The type that this SQL names.
pub fn cast_type(named: &DataType) -> Result<CastType, Unjudged> {
    let plain = |of| {
        Ok(CastType {
            of,
            digits: None,
            characters: None,
        })
    };
    match named {
        DataType::SmallInt(None) | DataType::Int2(None) => plain(ScalarType::Int(16)),
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => plain(ScalarType::Int(32)),
        DataType::BigInt(None) | DataType::Int8(None) => plain(ScalarType::Int(64)),
        DataType::Double(ExactNumberInfo::None) | DataType::DoublePrecision | DataType::Float8 => {
            plain(ScalarType::Double)
        }
        DataType::Boolean | DataType::Bool => plain(ScalarType::Bool),
        DataType::Text | DataType::String(None) | DataType::Varchar(None) | DataType::CharacterVarying(None) => {
            plain(ScalarType::Text)
        }
        DataType::Varchar(Some(CharacterLength::IntegerLength { length, unit: None })) => Ok(CastType {
            of: ScalarType::Text,
            digits: None,
            characters: usize::try_from(*length).ok(),
        }),
        DataType::Date => plain(ScalarType::Date),
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain(ScalarType::Moment(false))
        }
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => plain(ScalarType::Moment(true)),
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => {
            let (digits, scale) = match info {
                ExactNumberInfo::PrecisionAndScale(digits, scale) => (*digits, u8::try_from(*scale).ok()),
                ExactNumberInfo::Precision(digits) => (*digits, Some(0)),
                ExactNumberInfo::None => return Err(Unjudged::construct("a DECIMAL without its digits")),
            };
            match (u32::try_from(digits), scale) {
                (Ok(digits @ 1..=38), Some(scale)) => Ok(CastType {
                    of: ScalarType::Number(scale),
                    digits: Some(digits),
                    characters: None,
                }),
                _ => Err(Unjudged::construct(format!("the type {named}"))),
            }
        }
        other => Err(Unjudged::construct(format!("the type {other}"))),
    }
}

/// Casts a value to a named type.
pub fn cast(bound: TypedTerm, to: &CastType) -> Result<TypedTerm, Unjudged> {
    let ex = converted(bound, &to.of)?;
    let ex = match (to.digits, to.characters) {
        (Some(digits), _) => {
            let most = 10u128.pow(digits);
            let within = move |v: &[Scalar]| match &v[0] {
                Scalar::Number(n, _) if n.unsigned_abs() >= most => {
                    Err(Unjudged::row("a number does not fit its DECIMAL"))
                }
                value => Ok(value.clone()),
            };
            Term::Strict(Rc::new(within), vec![ex])
        }
        (None, Some(most)) => {
            let cut = move |v: &[Scalar]| match &v[0] {
                Scalar::Text(text) => Ok(Scalar::text(text.chars().take(most).collect::<String>())),
                value => Ok(value.clone()),
            };
            Term::Strict(Rc::new(cut), vec![ex])
        }
        (None, None) => ex,
    };
    Ok(TypedTerm::new(ex, to.of.clone()))
}

/// Binds a literal.
pub fn literal(value: &ast::Value) -> Result<TypedTerm, Unjudged> {
    let (value, of) = match value {
        ast::Value::Number(text, false) => number::literal(text)?,
        ast::Value::SingleQuotedString(text) => {
            return Ok(TypedTerm {
                ex: Term::Const(Scalar::text(text.as_str())),
                of: ScalarType::Text,
                quoted: true,
            });
        }
        ast::Value::Boolean(b) => (Scalar::Bool(*b), ScalarType::Bool),
        ast::Value::Null => (Scalar::Null, ScalarType::Null),
        other => return Err(Unjudged::construct(format!("the literal {other}"))),
    };
    Ok(TypedTerm::new(Term::Const(value), of))
}

/// Parses an interval literal.
pub fn interval(interval: &ast::Interval) -> Result<IntervalLength, Unjudged> {
    let unknown = || Unjudged::construct(format!("the literal {interval}"));
    let Expr::Value(value) = interval.value.as_ref() else {
        return Err(unknown());
    };
    if interval.last_field.is_some() || interval.leading_precision.is_some() {
        return Err(unknown());
    }
    let text = match &value.value {
        ast::Value::SingleQuotedString(text) | ast::Value::Number(text, false) => text,
        _ => return Err(unknown()),
    };
    let unit = interval.leading_field.as_ref().map(ToString::to_string);
    time::length(text, unit.as_deref())
}

/// The name of an unnamed column; SQL cannot refer to it.
pub const NAMELESS: &str = "?column?";
