//! The SQL types a user writes for a column, and the Arrow types they stand for.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, Field, TimeUnit};
use thiserror::Error;

/// The type of a column as a definition names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// True or false.
    Boolean,
    /// A 32-bit signed integer.
    Int,
    /// A 64-bit signed integer.
    BigInt,
    /// A 64-bit IEEE 754 float.
    Double,
    /// An exact decimal: the number of all digits (1 to 38), and of those behind the point.
    Decimal(u8, i8),
    /// UTF-8 text.
    Varchar,
    /// Bytes.
    Binary,
    /// A date, in days since 1970-01-01.
    Date,
    /// A timestamp, in microseconds since 1970-01-01 00:00, without a time zone.
    Timestamp,
    /// A list of values of one type.
    List(Box<SqlType>),
}

/// How deep lists and structs may be nested: Delta's schema is JSON, whose readers bound its depth.
pub const MOST_NESTED: usize = 16;

/// A type name that is not known.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "unknown type {0:?}; known are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), VARCHAR, BINARY, DATE, TIMESTAMP, and T[] of these"
)]
pub struct TypeError(pub String);

impl SqlType {
    /// The Arrow type that stores it.
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::Int => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Double => DataType::Float64,
            SqlType::Decimal(p, s) => DataType::Decimal128(*p, *s),
            SqlType::Varchar => DataType::Utf8,
            SqlType::Binary => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::List(item) => DataType::List(Field::new("item", item.arrow(), true).into()),
        }
    }
}

impl FromStr for SqlType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let upper = text.trim().to_ascii_uppercase();
        if upper.len() - upper.trim_end_matches("[]").len() > 2 * MOST_NESTED {
            return Err(TypeError(text.to_string()));
        }
        if let Some(item) = upper.strip_suffix("[]") {
            return Ok(SqlType::List(Box::new(item.parse()?)));
        }
        if let Some(arguments) = upper.strip_prefix("DECIMAL").map(str::trim) {
            let parsed = arguments
                .strip_prefix('(')
                .and_then(|a| a.strip_suffix(')'))
                .and_then(|a| {
                    let (precision, scale) = a.split_once(',').unwrap_or((a, "0"));
                    let precision: u8 = precision.trim().parse().ok()?;
                    let scale: i8 = scale.trim().parse().ok()?;
                    let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
                    fits.then_some(SqlType::Decimal(precision, scale))
                });
            return parsed.ok_or_else(|| TypeError(text.to_string()));
        }
        Ok(match upper.as_str() {
            "BOOLEAN" => SqlType::Boolean,
            "INT" => SqlType::Int,
            "BIGINT" => SqlType::BigInt,
            "DOUBLE" => SqlType::Double,
            "VARCHAR" => SqlType::Varchar,
            "BINARY" => SqlType::Binary,
            "DATE" => SqlType::Date,
            "TIMESTAMP" => SqlType::Timestamp,
            _ => return Err(TypeError(text.to_string())),
        })
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlType::Boolean => write!(f, "BOOLEAN"),
            SqlType::Int => write!(f, "INT"),
            SqlType::BigInt => write!(f, "BIGINT"),
            SqlType::Double => write!(f, "DOUBLE"),
            SqlType::Decimal(p, s) => write!(f, "DECIMAL({p},{s})"),
            SqlType::Varchar => write!(f, "VARCHAR"),
            SqlType::Binary => write!(f, "BINARY"),
            SqlType::Date => write!(f, "DATE"),
            SqlType::Timestamp => write!(f, "TIMESTAMP"),
            SqlType::List(item) => write!(f, "{item}[]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_what_it_prints() {
        for text in [
            "BOOLEAN",
            "INT",
            "BIGINT",
            "DOUBLE",
            "DECIMAL(18,4)",
            "VARCHAR",
            "BINARY",
            "DATE",
            "TIMESTAMP",
            "VARCHAR[]",
            "DECIMAL(38,0)[][]",
        ] {
            assert_eq!(text.parse::<SqlType>().expect("a known type").to_string(), text);
        }
    }

    #[test]
    fn impossible_decimals_and_foreign_names_are_refused() {
        let deep = |levels: usize| format!("BIGINT{}", "[]".repeat(levels));
        assert!(deep(MOST_NESTED).parse::<SqlType>().is_ok());
        for text in [
            "DECIMAL",
            "DECIMAL(39,2)",
            "DECIMAL(4,5)",
            "STRING",
            "",
            &deep(MOST_NESTED + 1),
        ] {
            assert!(text.parse::<SqlType>().is_err(), "{text} was taken");
        }
    }
}
