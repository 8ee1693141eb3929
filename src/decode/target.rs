//! A column as a decoder fills it: its type, and how text becomes that type.

use arrow::datatypes::DataType;

use super::DecodeError;
use crate::definition::{Column, MomentPattern, NumberPattern, parse_flags};
use crate::repr::SqlType;

/// The unit of a number that counts from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    Seconds,
    Millis,
    Micros,
    Nanos,
    Days,
}

/// What becomes of the part of a point in time that is finer than a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Finer {
    /// The value is refused for it.
    #[default]
    Refused,
    /// It is dropped, as the column's format says.
    CutOff,
}

/// How text is read as DATE or TIMESTAMP.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// `%Y-%m-%d` and `%H:%M:%S`, joined by this byte: what the quick reader takes when the length is right.
    Plain(u8, MomentPattern),
    /// As people write them.
    Written(MomentPattern),
    /// A number.
    Epoch(Epoch),
}

/// How BINARY (and a DECIMAL's unscaled bytes) are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    /// Not said: base64, or hexadecimal after `\x`, for BINARY; for DECIMAL what the record says, or digits.
    #[default]
    Usual,
    /// Always digits.
    Digits,
    /// Always base64.
    Base64,
    /// Always hexadecimal.
    Hex,
    /// The text's own bytes.
    Utf8,
}

/// A column of the input as a feed's decoder fills it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    pub sql_type: SqlType,
    pub arrow: DataType,
    pub nullable: bool,
    /// Texts that stand for null.
    pub nulls: Vec<String>,
    /// Names in the payload, most wanted first.
    pub from: Vec<String>,
    /// Each is tried; empty: ISO 8601.
    pub patterns: Vec<Pattern>,
    /// Of points in time.
    pub finer: Finer,
    /// Of bytes.
    pub encoding: Encoding,
    /// How numbers are written as text; empty: as programs write them.
    pub numbers: Vec<NumberPattern>,
    /// Whether its values may have come through a spreadsheet: they are fields of CSV.
    pub of_csv: bool,
    /// What is true, and what is false; empty: the usual words.
    pub flags: Vec<(String, String)>,
}

impl Target {
    /// Reads the formats of a column; `context` names the input and feed.
    pub fn new(column: &Column, context: &str) -> Result<Self, DecodeError> {
        let mut target = Target {
            name: column.name.clone(),
            arrow: column.sql_type.arrow(),
            sql_type: column.sql_type.clone(),
            nullable: column.nullable,
            nulls: column.null.clone(),
            from: column.from.clone(),
            patterns: Vec::new(),
            finer: Finer::Refused,
            encoding: Encoding::Usual,
            numbers: Vec::new(),
            of_csv: false,
            flags: Vec::new(),
        };
        if target.from.is_empty() {
            target.from.push(column.name.clone());
        }
        let scalar = innermost(&column.sql_type);
        for text in &column.format {
            let wrong = |expected| DecodeError::Format {
                context: context.to_string(),
                column: column.name.clone(),
                format: text.clone(),
                expected,
            };
            match scalar {
                SqlType::Date | SqlType::Timestamp if text == "cut_to_us" => target.finer = Finer::CutOff,
                SqlType::Date | SqlType::Timestamp => {
                    let pattern = pattern(text).ok_or(wrong(
                        "strftime that says a day, or epoch_s, epoch_ms, epoch_us, epoch_ns or epoch_days, or cut_to_us",
                    ))?;
                    // Who says that a number counts nanoseconds knows that the column has microseconds.
                    if matches!(pattern, Pattern::Epoch(Epoch::Nanos)) {
                        target.finer = Finer::CutOff;
                    }
                    target.patterns.push(pattern);
                }
                SqlType::Binary => {
                    target.encoding = match text.as_str() {
                        "base64" => Encoding::Base64,
                        "hex" => Encoding::Hex,
                        "utf8" => Encoding::Utf8,
                        _ => return Err(wrong("base64, hex or utf8")),
                    }
                }
                SqlType::Decimal(..) if text == "base64" => target.encoding = Encoding::Base64,
                SqlType::Decimal(..) if text == "digits" => target.encoding = Encoding::Digits,
                SqlType::Decimal(..) | SqlType::Int | SqlType::BigInt | SqlType::Double => {
                    let pattern = NumberPattern::parse(text);
                    target.numbers.push(pattern.ok_or(wrong(
                        "a pattern of numbers, as in #,##0.00; or for DECIMAL base64 (big-endian unscaled bytes) or digits",
                    ))?);
                }
                SqlType::Boolean => {
                    let (yes, no) = parse_flags(text).ok_or(wrong("what is true and what is false, as in Y|N"))?;
                    target.flags.push((yes.to_string(), no.to_string()));
                }
                SqlType::Varchar | SqlType::List(_) => return Err(wrong("no format: VARCHAR is the text as it is")),
            }
        }
        Ok(target)
    }

    /// The same rules for a list's values.
    pub fn item(&self) -> Option<Target> {
        let SqlType::List(item) = &self.sql_type else {
            return None;
        };
        Some(Target {
            sql_type: (**item).clone(),
            arrow: item.arrow(),
            nullable: true,
            of_csv: false, // the values of a list are written as JSON
            ..self.clone()
        })
    }
}

fn innermost(sql_type: &SqlType) -> &SqlType {
    match sql_type {
        SqlType::List(item) => innermost(item),
        other => other,
    }
}

fn pattern(text: &str) -> Option<Pattern> {
    Some(match text {
        "epoch_s" => Pattern::Epoch(Epoch::Seconds),
        "epoch_ms" => Pattern::Epoch(Epoch::Millis),
        "epoch_us" => Pattern::Epoch(Epoch::Micros),
        "epoch_ns" => Pattern::Epoch(Epoch::Nanos),
        "epoch_days" => Pattern::Epoch(Epoch::Days),
        _ => {
            let pattern = MomentPattern::parse(text).ok()?;
            match text {
                "%Y-%m-%d %H:%M:%S" => Pattern::Plain(b' ', pattern),
                "%Y-%m-%dT%H:%M:%S" => Pattern::Plain(b'T', pattern),
                _ => Pattern::Written(pattern),
            }
        }
    })
}
