//! Converts text to numbers, exactly: a value that does not fit is refused, and never rounded or wrapped.

use crate::decode::coerce::ParseFailure;
use crate::repr::has_nonzero_digit;

/// 10 to the power of each index.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut n = 1;
    while n < 39 {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

/// Parses a 64-bit integer; `17850.0` and `1e3` are integers, too.
pub fn integer(text: &str) -> Result<i64, ParseFailure> {
    let bytes = text.as_bytes();
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
        return Ok(if digits.len() < bytes.len() { -value } else { value });
    }
    let value = decimal(text, 38, 0)?;
    i64::try_from(value).map_err(|_| ParseFailure::Beyond)
}

/// Parses a number, and returns it times 10 to the power of `scale`, if it has at most `precision` digits and loses
/// none.
pub fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, ParseFailure> {
    let bytes = text.as_bytes();
    let (negative, mut rest) = match bytes.first() {
        Some(b'-') => (true, &bytes[1..]),
        Some(b'+') => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    let mut digits: i128 = 0;
    // Zeros are counted, and only multiplied in when another digit follows.
    let mut zeros: usize = 0;
    let mut shift: i64 = i64::from(scale);
    let (mut any, mut point, mut overflow) = (false, false, false);
    while let [byte, tail @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                any = true;
                shift -= i64::from(point);
                if *byte == b'0' {
                    zeros += usize::from(digits != 0);
                } else {
                    let power = POWERS.get(zeros + 1);
                    let next = power
                        .and_then(|p| digits.checked_mul(*p))
                        .and_then(|d| d.checked_add(i128::from(byte - b'0')));
                    match next {
                        Some(next) => digits = next,
                        None => overflow = true,
                    }
                    zeros = 0;
                }
            }
            b'.' if !point => point = true,
            _ => break,
        }
        rest = tail;
    }
    if !any {
        return Err(ParseFailure::Not);
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").unwrap_or(exponent);
        let (minus, exponent) = match exponent {
            [b'-', tail @ ..] => (true, tail),
            _ => (false, exponent),
        };
        if exponent.is_empty() || !exponent.iter().all(u8::is_ascii_digit) {
            return Err(ParseFailure::Not);
        }
        let size = exponent.iter().fold(0i64, |n, d| {
            n.saturating_mul(10).saturating_add(i64::from(d - b'0')).min(1 << 40)
        });
        shift += if minus { -size } else { size };
    } else if !rest.is_empty() {
        return Err(ParseFailure::Not);
    }
    if overflow {
        return Err(ParseFailure::Beyond);
    }
    if digits == 0 {
        return Ok(0);
    }
    // The last digit is not zero now, so dividing would lose digits.
    shift += zeros as i64;
    if shift < 0 {
        return Err(ParseFailure::TooFine);
    }
    let value = usize::try_from(shift)
        .ok()
        .and_then(|shift| POWERS.get(shift))
        .and_then(|power| digits.checked_mul(*power))
        .filter(|value| *value < POWERS[precision as usize])
        .ok_or(ParseFailure::Beyond)?;
    Ok(if negative { -value } else { value })
}

/// Converts a value with `from` decimals to `precision` and `scale`, exactly.
pub fn rescale(value: i128, from: i64, precision: u8, scale: i8) -> Result<i128, ParseFailure> {
    let shift = i64::from(scale) - from;
    let value = if shift >= 0 {
        match usize::try_from(shift).ok().and_then(|s| POWERS.get(s)) {
            Some(power) => value.checked_mul(*power).ok_or(ParseFailure::Beyond)?,
            None if value == 0 => 0,
            None => return Err(ParseFailure::Beyond),
        }
    } else {
        match usize::try_from(-shift).ok().and_then(|s| POWERS.get(s)) {
            Some(power) if value % power == 0 => value / power,
            None if value == 0 => 0,
            _ => return Err(ParseFailure::TooFine),
        }
    };
    if value.unsigned_abs() < POWERS[precision as usize].unsigned_abs() {
        Ok(value)
    } else {
        Err(ParseFailure::Beyond)
    }
}

/// Reads a big-endian two's complement number.
pub fn big_endian(bytes: &[u8]) -> Result<i128, ParseFailure> {
    let Some(first) = bytes.first() else {
        return Err(ParseFailure::Not);
    };
    let fill = if first & 0x80 != 0 { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (sign, digits) = bytes.split_at(extra);
    if sign.iter().any(|b| *b != fill) || (extra > 0 && (digits[0] ^ fill) & 0x80 != 0) {
        return Err(ParseFailure::Beyond);
    }
    let mut wide = [fill; 16];
    wide[16 - digits.len()..].copy_from_slice(digits);
    Ok(i128::from_be_bytes(wide))
}

/// Parses a 64-bit float, including `inf`, `nan` and their longer forms in any case. Like in PostgreSQL, a finite
/// text beyond the range is refused, and so is one that would be rounded to 0.
pub fn double(text: &str) -> Result<f64, ParseFailure> {
    let value: f64 = text.parse().map_err(|_| ParseFailure::Not)?;
    let is_beyond = match value {
        0.0 => has_nonzero_digit(text),
        _ => value.is_infinite() && !text.bytes().any(|b| matches!(b, b'i' | b'I')),
    };
    if is_beyond {
        return Err(ParseFailure::Beyond);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("9747747.934", 18, 3), Ok(9_747_747_934));
        assert_eq!(decimal("-0.10", 3, 1), Ok(-1));
        assert_eq!(decimal("1.5e3", 18, 0), Ok(1500));
        assert_eq!(decimal("1500e-2", 18, 0), Ok(15));
        assert_eq!(decimal("0e999999999999999999999", 18, 2), Ok(0));
        assert_eq!(decimal("000.000", 1, 0), Ok(0));
        assert_eq!(decimal("1.005", 18, 2), Err(ParseFailure::TooFine));
        assert_eq!(decimal("1e-50", 18, 2), Err(ParseFailure::TooFine));
        assert_eq!(decimal("1000", 3, 0), Err(ParseFailure::Beyond));
        assert_eq!(decimal("1e40", 38, 0), Err(ParseFailure::Beyond));
        assert_eq!(decimal(&"9".repeat(38), 38, 0), Ok(POWERS[38] - 1));
        assert_eq!(decimal(&"9".repeat(60), 38, 0), Err(ParseFailure::Beyond));
        assert_eq!(decimal(&format!("0.5{}", "0".repeat(90)), 38, 1), Ok(5));
        for text in ["", ".", "-", "1e", "1e+", "1 ", "0x1", "1.2.3", "--1", "1,5", "e5"] {
            assert_eq!(decimal(text, 18, 2), Err(ParseFailure::Not), "{text}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        assert_eq!(integer("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775808"), Err(ParseFailure::Beyond));
        assert_eq!(integer("17850.0"), Ok(17850));
        assert_eq!(integer("17850.5"), Err(ParseFailure::TooFine));
    }

    #[test]
    fn doubles_know_infinity_but_do_not_overflow_into_it() {
        assert_eq!(double("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(double("NaN").is_ok_and(f64::is_nan));
        assert_eq!(double("1e999"), Err(ParseFailure::Beyond));
        assert_eq!(double("one"), Err(ParseFailure::Not));
    }

    /// `1e-400` silently became 0.0.
    #[test]
    fn doubles_do_not_underflow_into_zero() {
        for text in ["1e-400", "-1e-324", "0.00001E-320", "2.4703282292062327e-324"] {
            assert_eq!(double(text), Err(ParseFailure::Beyond), "{text}");
        }
        assert_eq!(double("1e-320"), Ok(1e-320));
        assert_eq!(double("2.4703282292062328e-324"), Ok(f64::from_bits(1)));
        for text in ["0", "-0.0", "0e-999", "0.000e5", ".0"] {
            assert_eq!(double(text).map(f64::abs), Ok(0.0), "{text}");
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(n in any::<i64>()) {
            prop_assert_eq!(integer(&n.to_string()), Ok(n));
        }

        #[test]
        fn decimals_of_any_scale_read_back(n in any::<i64>(), scale in 0i8..19) {
            let magnitude = format!("{:0>20}", n.unsigned_abs());
            let (whole, fraction) = magnitude.split_at(20 - scale as usize);
            let text = format!("{}{whole}.{fraction}", if n < 0 { "-" } else { "" });
            prop_assert_eq!(decimal(&text, 38, scale), Ok(i128::from(n)));
            prop_assert_eq!(rescale(i128::from(n), i64::from(scale), 38, scale), Ok(i128::from(n)));
        }

        #[test]
        fn two_s_complement_reads_back_with_any_padding(n in any::<i128>(), pad in 0usize..6) {
            let mut bytes = vec![if n < 0 { 0xff } else { 0 }; pad];
            bytes.extend(n.to_be_bytes());
            prop_assert_eq!(big_endian(&bytes), Ok(n));
        }
    }
}
