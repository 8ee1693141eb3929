//! Text to numbers, exactly: what does not fit is refused, never rounded and never wrapped.

use super::Why;

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

/// A 64-bit integer; `17850.0` and `1e3` are integers too.
pub fn integer(text: &str) -> Result<i64, Why> {
    let bytes = text.as_bytes();
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
        return Ok(if digits.len() < bytes.len() { -value } else { value });
    }
    let value = decimal(text, 38, 0)?;
    i64::try_from(value).map_err(|_| Why::Beyond)
}

/// The number times 10 to `scale`, where it has at most `precision` digits and none are lost.
pub fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Why> {
    let bytes = text.as_bytes();
    let (negative, mut rest) = match bytes.first() {
        Some(b'-') => (true, &bytes[1..]),
        Some(b'+') => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    let mut digits: i128 = 0;
    // Zeros are only multiplied in when a digit follows them.
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
        return Err(Why::Not);
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").unwrap_or(exponent);
        let (minus, exponent) = match exponent {
            [b'-', tail @ ..] => (true, tail),
            _ => (false, exponent),
        };
        if exponent.is_empty() || !exponent.iter().all(u8::is_ascii_digit) {
            return Err(Why::Not);
        }
        let size = exponent.iter().fold(0i64, |n, d| {
            n.saturating_mul(10).saturating_add(i64::from(d - b'0')).min(1 << 40)
        });
        shift += if minus { -size } else { size };
    } else if !rest.is_empty() {
        return Err(Why::Not);
    }
    if overflow {
        return Err(Why::Beyond);
    }
    if digits == 0 {
        return Ok(0);
    }
    // The last digit is no zero now, so nothing can be divided away without loss.
    shift += zeros as i64;
    if shift < 0 {
        return Err(Why::TooFine);
    }
    let value = usize::try_from(shift)
        .ok()
        .and_then(|shift| POWERS.get(shift))
        .and_then(|power| digits.checked_mul(*power))
        .filter(|value| *value < POWERS[precision as usize])
        .ok_or(Why::Beyond)?;
    Ok(if negative { -value } else { value })
}

/// A value of `from` digits behind the point as one of `precision` and `scale`, exactly.
pub fn rescale(value: i128, from: i64, precision: u8, scale: i8) -> Result<i128, Why> {
    let shift = i64::from(scale) - from;
    let value = if shift >= 0 {
        match usize::try_from(shift).ok().and_then(|s| POWERS.get(s)) {
            Some(power) => value.checked_mul(*power).ok_or(Why::Beyond)?,
            None if value == 0 => 0,
            None => return Err(Why::Beyond),
        }
    } else {
        match usize::try_from(-shift).ok().and_then(|s| POWERS.get(s)) {
            Some(power) if value % power == 0 => value / power,
            None if value == 0 => 0,
            _ => return Err(Why::TooFine),
        }
    };
    if value.unsigned_abs() < POWERS[precision as usize].unsigned_abs() {
        Ok(value)
    } else {
        Err(Why::Beyond)
    }
}

/// A big-endian two's complement number.
pub fn big_endian(bytes: &[u8]) -> Result<i128, Why> {
    let Some(first) = bytes.first() else {
        return Err(Why::Not);
    };
    let fill = if first & 0x80 != 0 { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (sign, kept) = bytes.split_at(extra);
    if sign.iter().any(|b| *b != fill) || (extra > 0 && (kept[0] ^ fill) & 0x80 != 0) {
        return Err(Why::Beyond);
    }
    let mut wide = [fill; 16];
    wide[16 - kept.len()..].copy_from_slice(kept);
    Ok(i128::from_be_bytes(wide))
}

/// A 64-bit float; `inf`, `nan` and their longer forms in any case. A finite text beyond the range is refused.
pub fn double(text: &str) -> Result<f64, Why> {
    let value: f64 = text.parse().map_err(|_| Why::Not)?;
    let spelled = text.bytes().any(|b| matches!(b, b'i' | b'I'));
    if value.is_infinite() && !spelled {
        return Err(Why::Beyond);
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
        assert_eq!(decimal("1.005", 18, 2), Err(Why::TooFine));
        assert_eq!(decimal("1e-50", 18, 2), Err(Why::TooFine));
        assert_eq!(decimal("1000", 3, 0), Err(Why::Beyond));
        assert_eq!(decimal("1e40", 38, 0), Err(Why::Beyond));
        assert_eq!(decimal(&"9".repeat(38), 38, 0), Ok(POWERS[38] - 1));
        assert_eq!(decimal(&"9".repeat(60), 38, 0), Err(Why::Beyond));
        assert_eq!(decimal(&format!("0.5{}", "0".repeat(90)), 38, 1), Ok(5));
        for text in ["", ".", "-", "1e", "1e+", "1 ", "0x1", "1.2.3", "--1", "1,5", "e5"] {
            assert_eq!(decimal(text, 18, 2), Err(Why::Not), "{text}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        assert_eq!(integer("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775808"), Err(Why::Beyond));
        assert_eq!(integer("17850.0"), Ok(17850));
        assert_eq!(integer("17850.5"), Err(Why::TooFine));
    }

    #[test]
    fn doubles_know_infinity_but_do_not_overflow_into_it() {
        assert_eq!(double("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(double("NaN").is_ok_and(f64::is_nan));
        assert_eq!(double("1e999"), Err(Why::Beyond));
        assert_eq!(double("one"), Err(Why::Not));
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
