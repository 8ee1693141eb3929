//! Recognises texts that spreadsheets export to CSV instead of values, because they export what a cell shows.

use chrono::{Days, NaiveDate};
use memchr::memchr2;

use crate::decode::coerce::ParseFailure;
use crate::decode::target::Target;
use crate::repr::SqlType;

/// Up to this number of digits a cell shows an integer in full; a longer one is shown with six digits and an
/// exponent.
const SHOWN: i64 = 11;

/// Why a number that lost digits is refused.
pub(super) const CUT: ParseFailure = ParseFailure::Custom(
    "is what a spreadsheet leaves of a number with more than 11 digits, and the others are lost; have the column exported as \
     text, or declare it DOUBLE if they do not matter",
);

/// The texts of a cell whose formula failed.
const ERRORS: [&str; 16] = [
    "#N/A",
    "#VALUE!",
    "#REF!",
    "#DIV/0!",
    "#NAME?",
    "#NUM!",
    "#NULL!",
    "#SPILL!",
    "#CALC!",
    "#FIELD!",
    "#BLOCKED!",
    "#CONNECT!",
    "#UNKNOWN!",
    "#ERROR!",
    "#GETTING_DATA",
    "#BUSY!",
];

/// Whether a number's text lost digits of the number: it has more than 11 digits before the decimal point, and an
/// exponent stands for some of them, as in `4.68769E+17`.
///
/// A smaller exponent is accepted: spreadsheets show such numbers in full, and Java (`1.0E7`) and R (`1e+05`) write
/// round numbers like this, which lost nothing. Of larger numbers, round ones cannot be distinguished from those that
/// were cut. (C's `%g` cuts from 7 digits on, which cannot be distinguished from round numbers of Java and R.)
pub fn lacks_digits(text: &str) -> bool {
    let Some(at) = memchr2(b'e', b'E', text.as_bytes()) else {
        return false;
    };
    let (mantissa, exponent) = (&text[..at], &text[at + 1..]);
    let mantissa = mantissa.trim_ascii_start().trim_start_matches(['-', '+']);
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let Ok(exponent) = exponent.trim_ascii_end().parse::<i64>() else {
        return false;
    };
    if !is_digits(whole) || !is_digits(decimals) || exponent <= decimals.len() as i64 {
        return false;
    }
    // The number of digits before the point after the exponent has moved it, not counting leading zeros.
    let zeros = whole
        .bytes()
        .chain(decimals.bytes())
        .take_while(|digit| *digit == b'0')
        .count();
    let is_zero = zeros == whole.len() + decimals.len();
    !is_zero && (whole.len() as i64 - zeros as i64).saturating_add(exponent) > SHOWN
}

/// Whether a text is a spreadsheet's error, or stands for a number that was too wide for its cell.
pub fn is_error(text: &str) -> bool {
    let is_narrow = text.len() > 1 && text.bytes().all(|byte| byte == b'#');
    let is_of_libre_office = || {
        text.strip_prefix("Err:")
            .is_some_and(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_narrow || ERRORS.contains(&text) || is_of_libre_office()
}

/// What a text of a CSV file is if it is no valid value, and what to do; none if no spreadsheet is known to write it.
pub(super) fn explain(target: &Target, text: &str) -> Option<String> {
    let text = text.trim();
    if is_error(text) {
        let or_null = match target.nullable {
            true => ", or list it in the column's `null`",
            false => "",
        };
        return Some(format!("it is a spreadsheet's error: mend the formula there{or_null}"));
    }
    if !matches!(target.sql_type, SqlType::Date | SqlType::Timestamp) {
        return None;
    }
    let date = serial_day(text)?;
    Some(format!(
        "it may be how a spreadsheet counts days, then it is {date}: have the column exported as dates, or declare it DOUBLE and \
         count from DATE '1899-12-30' in SQL"
    ))
}

/// The day that a spreadsheet's five-digit serial number stands for, with or without a fraction of the day.
fn serial_day(text: &str) -> Option<NaiveDate> {
    let (days, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if days.len() != 5 || days.starts_with('0') || !is_digits(days) || !is_digits(part) {
        return None;
    }
    // Lotus 1-2-3 treated 1900 as a leap year, so days after that February count from one day earlier.
    NaiveDate::from_ymd_opt(1899, 12, 30)?.checked_add_days(Days::new(days.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lacks_digits_where_an_exponent_makes_them_up() {
        for text in [
            "4.68769E+17",
            "-4.68769E+17",
            " 1.23457E+11 ",
            "1E+11",
            "1.5e12",
            "4.68769123456789e+17",
            "123456.7E6",
            "0.5E12",
        ] {
            assert!(lacks_digits(text), "{text}");
        }
        for text in [
            "468769123456789012",
            "1e3",
            "1E+10",
            "1.0E7",
            "9.99E+10",
            "4.68769123456789012E+17",
            "1.234567000000000000e+06",
            "1.000000000000000000e+17",
            "0E+20",
            "0.00E+17",
            "1.5E-12",
            "1e",
            "1e+",
            "1x5e12",
            "2024-01-01",
            "1e999999999999999999999",
            "",
        ] {
            assert!(!lacks_digits(text), "{text}");
        }
    }

    #[test]
    fn errors_and_counted_days_are_known() {
        for text in ["#N/A", "#REF!", "#DIV/0!", "####", "Err:502"] {
            assert!(is_error(text), "{text}");
        }
        for text in ["#", "#1", "N/A", "Err:5", ""] {
            assert!(!is_error(text), "{text}");
        }
        for (text, day) in [
            ("45291", Some("2023-12-31")),
            ("45291.75", Some("2023-12-31")),
            ("2024", None),
            ("20240101", None),
            ("01234", None),
            ("4529x", None),
        ] {
            assert_eq!(serial_day(text).map(|day| day.to_string()).as_deref(), day, "{text}");
        }
    }
}
