//! Reads numbers and booleans from texts, and writes doubles, as PostgreSQL does.
//!
//! Blanks around a value are ignored. An integer has no point and no exponent. A double may be infinity or NaN;
//! a number outside the range of doubles, or too near to zero for them, is an error. A boolean may be
//! abbreviated as long as it is unambiguous.

use std::ops::Add;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::Result;

use super::convert::name_of;
use super::kernels::wrong;
use crate::repr::has_nonzero_digit;

/// Reads texts as values of a type: an integer, a float or a boolean. With `safe` a text that cannot be read
/// becomes null, otherwise it is an error.
pub(super) fn read(texts: &StringArray, to: &DataType, safe: bool) -> Result<ArrayRef> {
    macro_rules! whole {
        ($integer:ty) => {
            Arc::new(each::<$integer>(texts, to, safe, |text| text.parse().ok())?)
        };
    }
    Ok(match to {
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::Float32 => Arc::new(each::<Float32Type>(texts, to, safe, float)?),
        DataType::Boolean => {
            let mut made = Vec::with_capacity(texts.len());
            for text in texts {
                made.push(match text.map(|text| (text, truth(trimmed(text)))) {
                    None => None,
                    Some((_, Some(yes))) => Some(yes),
                    Some(_) if safe => None,
                    Some((text, None)) => return Err(unread(text, to)),
                });
            }
            Arc::new(BooleanArray::from(made))
        }
        _ => Arc::new(each::<Float64Type>(texts, to, safe, float)?),
    })
}

fn each<T: ArrowPrimitiveType>(
    texts: &StringArray,
    to: &DataType,
    safe: bool,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let mut made = PrimitiveArray::<T>::builder(texts.len());
    for text in texts {
        match text.map(|text| (text, read(trimmed(text)))) {
            None => made.append_null(),
            Some((_, Some(value))) => made.append_value(value),
            Some(_) if safe => made.append_null(),
            Some((text, None)) => return Err(unread(text, to)),
        }
    }
    Ok(made.finish())
}

#[cold]
fn unread(text: &str, to: &DataType) -> datafusion::error::DataFusionError {
    let number = trimmed(text);
    let is_beyond = match to {
        DataType::Float32 | DataType::Float64 => is_number(number) && number.parse::<f64>().is_ok(),
        _ => {
            let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
            to.is_integer() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        }
    };
    let why = if is_beyond { ": it is out of range" } else { "" };
    let text: String = text.chars().take(60).collect();
    wrong(format!("could not read '{text}' as a {}{why}", name_of(to))).into()
}

/// The text without ASCII blanks around it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r'))
}

/// Whether a text is written in digits, rather than as a word such as `infinity`.
fn is_number(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
}

/// A float of 32 or 64 bits, which is rounded once; `None` if it is out of range.
fn float<T: FromStr + Copy + Default + Add<Output = T> + Into<f64>>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let wide: f64 = value.into();
    let fits = match is_number(text) {
        true => wide.is_finite() && (wide != 0.0 || !has_nonzero_digit(text)),
        // NaN has no sign.
        false => wide.is_infinite() || !text.starts_with(['-', '+']),
    };
    // Adding 0 replaces -0.0 by 0.0.
    fits.then(|| value + T::default())
}

fn truth(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    match text.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ if begins("true", 1) || begins("yes", 1) || text == "on" => Some(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        _ => None,
    }
}

/// Floats as texts.
pub(in crate::plan) fn written(values: &ArrayRef) -> StringArray {
    match values.data_type() {
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>().iter();
            floats
                .map(|v| v.map(|v| plain(v.into(), &format!("{v:e}"), 6)))
                .collect()
        }
        _ => {
            let doubles = values.as_primitive::<Float64Type>().iter();
            doubles.map(|v| v.map(|v| plain(v, &format!("{v:e}"), 15))).collect()
        }
    }
}

/// A number with the fewest digits that identify it. It has no exponent if the exponent would be at least -4
/// and below `most`.
fn plain(value: f64, digits: &str, most: i32) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    if value == 0.0 {
        return "0".to_string();
    }
    let (mantissa, exponent) = digits.split_once('e').expect("it is written with an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    if exponent < -4 || exponent >= most {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let point = exponent + 1;
    if point <= 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize));
    }
    let point = point as usize;
    match digits.len() <= point {
        true => format!("{sign}{digits}{}", "0".repeat(point - digits.len())),
        false => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_are_written_as_postgresql_writes_them() {
        let values = [
            1.0,
            1e300,
            1e15,
            123456789012345.0,
            0.0001,
            0.00001,
            -2.5,
            -0.0,
            5e-324,
            f64::NAN,
            f64::NEG_INFINITY,
        ];
        let doubles: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let texts = [
            "1",
            "1e+300",
            "1e+15",
            "123456789012345",
            "0.0001",
            "1e-05",
            "-2.5",
            "0",
            "5e-324",
            "NaN",
            "-Infinity",
        ];
        assert_eq!(written(&doubles), StringArray::from(texts.to_vec()));
    }

    #[test]
    fn what_is_no_number_is_told() {
        for (text, to) in [
            ("1e3", DataType::Int32),
            ("12.5", DataType::Int64),
            ("", DataType::Int64),
            ("2147483648", DataType::Int32),
            ("1e400", DataType::Float64),
            ("1e-400", DataType::Float64),
            ("-nan", DataType::Float64),
            // Formerly the first two were read as 0, and the last, rounded to a double first, as infinity.
            ("1e-46", DataType::Float32),
            ("1e-320", DataType::Float32),
            ("3.4028236e38", DataType::Float32),
            ("o", DataType::Boolean),
            ("truee", DataType::Boolean),
        ] {
            let texts = StringArray::from(vec![text]);
            let message = read(&texts, &to, false).unwrap_err().to_string();
            assert!(message.contains(&format!("could not read '{text}' as a")), "{message}");
            let is_beyond = text.contains(|c: char| c.is_ascii_digit())
                && (text.contains("e") == to.is_floating() && text != "12.5");
            assert_eq!(message.contains("out of range"), is_beyond, "{message}");
            assert_eq!(read(&texts, &to, true).unwrap().null_count(), 1, "{text}");
        }
    }

    /// Formerly a float was rounded twice, to a double first.
    #[test]
    fn floats_are_rounded_once() {
        let texts = StringArray::from(vec![
            "1.00000017881393432617187499",
            " -0.0 ",
            "1e-45",
            "-INFINITY",
            "Nan",
        ]);
        let floats = read(&texts, &DataType::Float32, false).unwrap();
        let floats = floats.as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(floats[0].to_bits(), 1.0000001f32.to_bits());
        assert_eq!((floats[1].to_bits(), floats[2].to_bits()), (0, 1));
        assert!(floats[3] == f32::NEG_INFINITY && floats[4].is_nan());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_double(value in any::<f64>()) {
            let doubles: ArrayRef = Arc::new(Float64Array::from(vec![value]));
            let back = read(&written(&doubles), &DataType::Float64, false).unwrap();
            let back = back.as_primitive::<Float64Type>().value(0);
            prop_assert!(back == value || back.is_nan() && value.is_nan());
        }
    }
}
