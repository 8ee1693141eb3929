//! What spreadsheets write into CSV in place of a value: they write what a cell shows.

use chrono::{Days, NaiveDate};
use memchr::memchr2;

use super::Why;
use crate::repr::SqlType;

/// How many digits of a whole number a cell shows. Of a longer one it shows six, and an exponent.
const SHOWN: i64 = 11;

/// Why a number is refused that lacks digits.
pub(super) const CUT: Why = Why::Custom(
    "is what a spreadsheet leaves of a number with more than 11 digits, and the others are lost; have the column exported as \
     text, or declare it DOUBLE if they do not matter",
);

/// What stands in a cell whose formula failed.
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

/// Whether a number's text lacks digits of the number: it has more than 11 in front of the point, and an exponent makes up zeros
/// for some of them, as in `4.68769E+17`.
///
/// Below that an exponent is taken: spreadsheets show such numbers in full, and Java (`1.0E7`) and R (`1e+05`) write round ones
/// so, which lack nothing. From there on nobody can tell a round number from one that was cut. (C's `%g` cuts from 7 digits
/// on. That cannot be told from Java's and R's round numbers.)
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
    // Digits in front of the point, once the exponent has moved it: from the first one on that is no zero.
    let zeros = whole
        .bytes()
        .chain(decimals.bytes())
        .take_while(|digit| *digit == b'0')
        .count();
    let is_zero = zeros == whole.len() + decimals.len();
    !is_zero && (whole.len() as i64 - zeros as i64).saturating_add(exponent) > SHOWN
}

/// Whether a text stands for an error of a spreadsheet, or for a number that its cell was too narrow for.
pub fn is_error(text: &str) -> bool {
    let is_narrow = text.len() > 1 && text.bytes().all(|byte| byte == b'#');
    let is_of_libre_office = || {
        text.strip_prefix("Err:")
            .is_some_and(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_narrow || ERRORS.contains(&text) || is_of_libre_office()
}

/// What a text of a CSV file is that is no value of a type, and what to do; none: no spreadsheet is known to write it.
pub(super) fn told(sql_type: &SqlType, text: &str) -> Option<String> {
    let text = text.trim();
    if is_error(text) {
        return Some(
            "it is a spreadsheet's error: mend the formula there, or list it in the column's `null`".to_string(),
        );
    }
    if !matches!(sql_type, SqlType::Date | SqlType::Timestamp) {
        return None;
    }
    let date = counted(text)?;
    Some(format!(
        "it may be how a spreadsheet counts days, then it is {date}: have the column exported as dates, or declare it DOUBLE and \
         count from DATE '1899-12-30' in SQL"
    ))
}

/// The day that a spreadsheet's number of five digits stands for, with or without a part of the day.
fn counted(text: &str) -> Option<NaiveDate> {
    let (days, part) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if days.len() != 5 || days.starts_with('0') || !is_digits(days) || !is_digits(part) {
        return None;
    }
    // Lotus 1-2-3 took 1900 for a leap year, so that what is behind that February counts from a day earlier.
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
            assert_eq!(counted(text).map(|day| day.to_string()).as_deref(), day, "{text}");
        }
    }
}
