//! The types and literals that SQL names.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, CharacterLength, DataType, ExactNumberInfo, Expr, TimezoneInfo};

use super::convert::converted;
use super::expr::{Bound, Ex};
use super::number;
use super::time;
use super::trust::Unjudged;
use super::value::{Length, Type, Value};

/// A type as a cast names it.
pub struct Named {
    pub of: Type,
    /// The most digits of a DECIMAL.
    digits: Option<u32>,
    /// The most characters of a VARCHAR.
    characters: Option<usize>,
}

/// The type that SQL names so.
pub fn of(named: &DataType) -> Result<Named, Unjudged> {
    let plain = |of| {
        Ok(Named {
            of,
            digits: None,
            characters: None,
        })
    };
    match named {
        DataType::SmallInt(None) | DataType::Int2(None) => plain(Type::Int(16)),
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => plain(Type::Int(32)),
        DataType::BigInt(None) | DataType::Int8(None) => plain(Type::Int(64)),
        DataType::Double(ExactNumberInfo::None) | DataType::DoublePrecision | DataType::Float8 => plain(Type::Double),
        DataType::Boolean | DataType::Bool => plain(Type::Bool),
        DataType::Text | DataType::String(None) | DataType::Varchar(None) | DataType::CharacterVarying(None) => {
            plain(Type::Text)
        }
        DataType::Varchar(Some(CharacterLength::IntegerLength { length, unit: None })) => Ok(Named {
            of: Type::Text,
            digits: None,
            characters: usize::try_from(*length).ok(),
        }),
        DataType::Date => plain(Type::Date),
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => plain(Type::Moment(false)),
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => plain(Type::Moment(true)),
        DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => {
            let (digits, scale) = match info {
                ExactNumberInfo::PrecisionAndScale(digits, scale) => (*digits, u8::try_from(*scale).ok()),
                ExactNumberInfo::Precision(digits) => (*digits, Some(0)),
                ExactNumberInfo::None => return Err(Unjudged::construct("a DECIMAL without its digits")),
            };
            match (u32::try_from(digits), scale) {
                (Ok(digits @ 1..=38), Some(scale)) => Ok(Named {
                    of: Type::Number(scale),
                    digits: Some(digits),
                    characters: None,
                }),
                _ => Err(Unjudged::construct(format!("the type {named}"))),
            }
        }
        other => Err(Unjudged::construct(format!("the type {other}"))),
    }
}

/// A value as one of a type that is named.
pub fn cast(bound: Bound, to: &Named) -> Result<Bound, Unjudged> {
    let ex = converted(bound, &to.of)?;
    let ex = match (to.digits, to.characters) {
        (Some(digits), _) => {
            let most = 10u128.pow(digits);
            let within = move |v: &[Value]| match &v[0] {
                Value::Number(n, _) if n.unsigned_abs() >= most => {
                    Err(Unjudged::row("a number does not fit its DECIMAL"))
                }
                value => Ok(value.clone()),
            };
            Ex::Strict(Rc::new(within), vec![ex])
        }
        (None, Some(most)) => {
            let cut = move |v: &[Value]| match &v[0] {
                Value::Text(text) => Ok(Value::text(text.chars().take(most).collect::<String>())),
                value => Ok(value.clone()),
            };
            Ex::Strict(Rc::new(cut), vec![ex])
        }
        (None, None) => ex,
    };
    Ok(Bound::new(ex, to.of.clone()))
}

/// A value that stands in SQL.
pub fn literal(value: &ast::Value) -> Result<Bound, Unjudged> {
    let (value, of) = match value {
        ast::Value::Number(text, false) => number::literal(text)?,
        ast::Value::SingleQuotedString(text) => {
            return Ok(Bound {
                ex: Ex::Const(Value::text(text.as_str())),
                of: Type::Text,
                quoted: true,
            });
        }
        ast::Value::Boolean(b) => (Value::Bool(*b), Type::Bool),
        ast::Value::Null => (Value::Null, Type::Null),
        other => return Err(Unjudged::construct(format!("the literal {other}"))),
    };
    Ok(Bound::new(Ex::Const(value), of))
}

/// A length of time that stands in SQL.
pub fn interval(interval: &ast::Interval) -> Result<Length, Unjudged> {
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

/// What a column is called that has no name; no SQL asks for it.
pub const NAMELESS: &str = "?column?";
