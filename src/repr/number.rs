//! Questions about a number that its text answers.

/// Whether the text of a number, which may have an exponent, denotes a number other than 0: true for `1e-400`, false
/// for `0.0e5`. If it does and the parsed double is 0, the number was out of range.
pub fn has_nonzero_digit(number: &str) -> bool {
    let mut mantissa = number.bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
    mantissa.any(|byte| matches!(byte, b'1'..=b'9'))
}
