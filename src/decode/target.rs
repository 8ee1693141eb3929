//! A column as a decoder fills it: its type, and how text is converted to that type.

use arrow::datatypes::DataType;

use crate::decode::error::DecodeError;
use crate::definition::{Column, MomentPattern, NumberPattern, parse_flags};
use crate::repr::SqlType;

/// The unit of a number that counts from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochUnit {
    Seconds,
    Millis,
    Micros,
    Nanos,
    Days,
}

/// What to do with the part of a point in time below a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum SubMicrosecondRule {
    /// The value is refused.
    #[default]
    Refused,
    /// The part is truncated, as the column's format says.
    CutOff,
}

/// How text is parsed as DATE or TIMESTAMP.
#[derive(Clone, Debug)]
pub(super) enum TextPattern {
    /// `%Y-%m-%d` and `%H:%M:%S`, joined by this byte; a text of the right length is parsed by a fast path.
    Plain(u8, MomentPattern),
    /// Any other pattern.
    Written(MomentPattern),
    /// A number that counts this unit.
    Epoch(EpochUnit),
}

/// How a BINARY (and the unscaled bytes of a DECIMAL) is encoded in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    /// Not configured: base64, or hexadecimal after `\x`, for BINARY; for DECIMAL what the record's schema says, or
    /// digits.
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
    /// Whether it may be null; a column of the key may not.
    pub nullable: bool,
    /// Texts that stand for null.
    pub nulls: Vec<String>,
    /// The names of its field in payloads, in the order of precedence.
    pub from: Vec<String>,
    /// The patterns, which are tried in order; empty: ISO 8601.
    pub patterns: Vec<TextPattern>,
    /// For points in time.
    pub finer: SubMicrosecondRule,
    /// For bytes.
    pub encoding: Encoding,
    /// The patterns of numbers in text; empty: plain numbers.
    pub numbers: Vec<NumberPattern>,
    /// Whether its values are fields of CSV, and so may have passed through a spreadsheet.
    pub of_csv: bool,
    /// The texts for true and false; empty: the usual words.
    pub flags: Vec<(String, String)>,
}

impl Target {
    /// Parses the formats of a column; `context` names the input and feed.
    pub fn new(column: &Column, context: &str) -> Result<Self, DecodeError> {
        let mut target = Target {
            name: column.name.clone(),
            arrow: column.sql_type.arrow(),
            sql_type: column.sql_type.clone(),
            nullable: column.nullable,
            nulls: column.null.clone(),
            from: column.from.clone(),
            patterns: Vec::new(),
            finer: SubMicrosecondRule::Refused,
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
                SqlType::Date | SqlType::Timestamp if text == "cut_to_us" => target.finer = SubMicrosecondRule::CutOff,
                SqlType::Date | SqlType::Timestamp => {
                    let pattern = pattern(text).ok_or(wrong(
                        "strftime that says a day, or epoch_s, epoch_ms, epoch_us, epoch_ns or epoch_days, or cut_to_us",
                    ))?;
                    // Whoever declares that a number counts nanoseconds accepts that the column stores microseconds.
                    if matches!(pattern, TextPattern::Epoch(EpochUnit::Nanos)) {
                        target.finer = SubMicrosecondRule::CutOff;
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

    /// The target of a list's items, with the same rules.
    pub fn item(&self) -> Option<Target> {
        let SqlType::List(item) = &self.sql_type else {
            return None;
        };
        Some(Target {
            sql_type: (**item).clone(),
            arrow: item.arrow(),
            nullable: true,
            of_csv: false, // the items of a list are written as JSON
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

fn pattern(text: &str) -> Option<TextPattern> {
    Some(match text {
        "epoch_s" => TextPattern::Epoch(EpochUnit::Seconds),
        "epoch_ms" => TextPattern::Epoch(EpochUnit::Millis),
        "epoch_us" => TextPattern::Epoch(EpochUnit::Micros),
        "epoch_ns" => TextPattern::Epoch(EpochUnit::Nanos),
        "epoch_days" => TextPattern::Epoch(EpochUnit::Days),
        _ => {
            let pattern = MomentPattern::parse(text).ok()?;
            match text {
                "%Y-%m-%d %H:%M:%S" => TextPattern::Plain(b' ', pattern),
                "%Y-%m-%dT%H:%M:%S" => TextPattern::Plain(b'T', pattern),
                _ => TextPattern::Written(pattern),
            }
        }
    })
}
