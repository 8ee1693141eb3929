//! `as_json(text)`, which stands for `CAST(text AS JSON)`, and `as_jsonb(text)`, for `CAST(text AS JSONB)`.
//!
//! A JSON value is a text here, from which fields are read. A text that is not JSON is an error of its row.
//! `as_jsonb` writes the document as PostgreSQL does: keys are ordered by length and bytes, the last of equal
//! keys is kept, and numbers have no exponents. `as_json` keeps the document as it is. There too the last of
//! equal keys would count, but reading a field would find the first one; so a document with equal keys is an
//! error of its row.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::standard::row::{RowFunction, RowResult, RowType, RowValue};
use super::quoted;

/// The deepest nesting of a document, the same as in `as_json` (serde_json's) and in records: each level is a call.
const DEPTH: usize = 128;

/// The greatest exponent of a number that is written out without it.
const MOST_ZEROS: i64 = 1000;

pub(super) fn functions() -> [RowFunction; 2] {
    const ONE: &[&[RowType]] = &[&[RowType::Text]];
    [
        RowFunction::new("as_json", ONE, RowType::Text, |args| checked(args[0].text())),
        RowFunction::new("as_jsonb", ONE, RowType::Text, |args| canonical(args[0].text())),
    ]
}

fn checked(text: &str) -> RowResult {
    match serde_json::from_str::<Distinct>(text) {
        Ok(_) => Ok(RowValue::Text(text.to_string())),
        Err(why) => Err(format!("{} is no JSON to be read: {why}", shown(text))),
    }
}

fn canonical(text: &str) -> RowResult {
    let document: &RawValue = serde_json::from_str(text).map_err(|why| format!("{} is no JSON: {why}", shown(text)))?;
    let mut written = String::with_capacity(text.len());
    write(document, 0, &mut written)?;
    Ok(RowValue::Text(written))
}

fn shown(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    format!("'{start}'")
}

/// Deserialises a document, and fails if an object has a key twice.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Distinct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of JSON")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_unit<E>(self) -> Result<Distinct, E> {
                Ok(Distinct)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
                while items.next_element::<Distinct>()?.is_some() {}
                Ok(Distinct)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Distinct, A::Error> {
                let mut keys = HashSet::new();
                while let Some((key, _)) = fields.next_entry::<String, Distinct>()? {
                    if let Some(key) = keys.replace(key) {
                        return Err(serde::de::Error::custom(format!("an object has the key {key:?} twice")));
                    }
                }
                Ok(Distinct)
            }
        }
        from.deserialize_any(Values)
    }
}

/// Writes a value, which is below `depth` objects and lists, as PostgreSQL's JSONB is written.
fn write(value: &RawValue, depth: usize, written: &mut String) -> Result<(), String> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth == DEPTH => return Err(format!("it is nested deeper than {DEPTH} levels")),
        Some(b'{') => {
            let fields: BTreeMap<Key, &RawValue> = parsed(text)?;
            written.push('{');
            for (n, (key, value)) in fields.iter().enumerate() {
                written.push_str(if n > 0 { ", " } else { "" });
                written.push_str(&quoted(without_nul(&key.name)?));
                written.push_str(": ");
                write(value, depth + 1, written)?;
            }
            written.push('}');
        }
        Some(b'[') => {
            written.push('[');
            for (n, item) in parsed::<Vec<&RawValue>>(text)?.into_iter().enumerate() {
                written.push_str(if n > 0 { ", " } else { "" });
                write(item, depth + 1, written)?;
            }
            written.push(']');
        }
        Some(b'"') => written.push_str(&quoted(without_nul(&parsed::<String>(text)?)?)),
        Some(b'-' | b'0'..=b'9') => {
            written.push_str(&plain(text).ok_or_else(|| format!("the number {text} is too large"))?)
        }
        _ => written.push_str(text),
    }
    Ok(())
}

fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|why| why.to_string())
}

/// PostgreSQL has no text with this character.
fn without_nul(text: &str) -> Result<&str, String> {
    match text.contains('\0') {
        true => Err("a text has no \\u0000".to_string()),
        false => Ok(text),
    }
}

/// A key of an object, in the order of JSONB: by length in bytes, then by bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    length: usize,
    name: String,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Ok(Key {
            length: name.len(),
            name,
        })
    }
}

/// A JSON number written without an exponent; `None` if that would take too many digits.
fn plain(number: &str) -> Option<String> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok().filter(|e: &i64| e.abs() <= MOST_ZEROS)?;
    let all = format!("{whole}{part}");
    // The number of digits in front of the decimal point.
    let point = whole.len() as i64 + exponent;
    let (whole, part) = match usize::try_from(point) {
        Ok(point) if point >= all.len() => (format!("{all}{}", "0".repeat(point - all.len())), String::new()),
        Ok(point) => (all[..point].to_string(), all[point..].to_string()),
        Err(_) => (
            String::new(),
            format!("{}{all}", "0".repeat(point.unsigned_abs() as usize)),
        ),
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let is_zero = whole == "0" && part.bytes().all(|digit| digit == b'0');
    let sign = if is_zero { "" } else { sign };
    Some(match part.as_str() {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: RowResult) -> Result<String, String> {
        answer.map(|made| match made {
            RowValue::Text(text) => text,
            _ => unreachable!("it is a text"),
        })
    }

    #[test]
    fn jsonb_is_written_as_postgres_writes_it() {
        for (given, written) in [
            (
                r#"{"bb":1,"a":{"y":[1 , 2],"x":null},"a":"é\n\u0001"}"#,
                r#"{"a": "é\n\u0001", "bb": 1}"#,
            ),
            (
                "[1.50, 1e2, 1.50e1, 15e-4, -0, -0.0, 1.0E+2]",
                "[1.50, 100, 15.0, 0.0015, 0, 0.0, 100]",
            ),
            (" true ", "true"),
            ("[]", "[]"),
            ("{ }", "{}"),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(text(canonical(given)).as_deref(), Ok(written));
        }
        for given in ["", "{a: 1}", "[1,]", "1e99999", r#""\u0000""#, "{} x"] {
            assert!(text(canonical(given)).is_err(), "{given}");
        }
    }

    /// Two million levels, which fit into a record of 16 MiB, overflowed the stack, which ended the process.
    #[test]
    fn deep_nesting_is_an_error_of_the_row() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(text(canonical(&nested(DEPTH))), Ok(nested(DEPTH)));
        for levels in [DEPTH + 1, 3_000_000] {
            let why = text(canonical(&nested(levels))).unwrap_err();
            assert!(why.contains("deeper than 128 levels"), "{why}");
            assert!(text(checked(&nested(levels))).is_err());
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(text(canonical(&objects)).is_err());
    }

    #[test]
    fn json_is_kept_as_it_is_or_refused() {
        assert_eq!(
            text(checked(r#" {"b":1, "a": [ {} ]}"#)).as_deref(),
            Ok(r#" {"b":1, "a": [ {} ]}"#)
        );
        let why = text(checked(r#"[{"a":1,"a":2}]"#)).unwrap_err();
        assert!(why.contains("has the key \"a\" twice"), "{why}");
        assert!(text(checked("{a}")).is_err());
    }
}
