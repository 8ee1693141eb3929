//! Reads literals with a point or an exponent as exact decimals, as PostgreSQL does.
//!
//! DataFusion can do so if the session asks for it, but supports neither exponents nor more than 76 digits. So
//! exponents are written out here, and a number of more than 38 digits becomes the nearest DOUBLE.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, VisitorMut};

use super::types::MOST;

/// Rewrites the numbers of a statement, query or expression.
pub fn decimals(sql: &mut impl VisitMut) {
    struct Numbers;
    impl VisitorMut for Numbers {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && let Value::Number(number, _) = &mut value.value
            {
                match written(number) {
                    Some(Written::Decimal(plain)) => *number = plain,
                    Some(Written::Double) => {
                        let text = Value::SingleQuotedString(number.replace('_', ""));
                        let inner = Expr::Value(text.with_span(value.span));
                        *expr = Expr::Cast {
                            kind: CastKind::Cast,
                            expr: Box::new(inner),
                            data_type: DataType::Double(ExactNumberInfo::None),
                            array: false,
                            format: None,
                        };
                    }
                    None => {}
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Numbers);
}

/// The precision and scale of the decimal type that holds a number exactly, which is given as a text; `None` if no
/// decimal type does, or if the text has other characters than a number.
pub(super) fn decimal_digits(text: &str) -> Option<(u8, i8)> {
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = match written(number) {
        None => number.to_string(),
        Some(Written::Decimal(plain)) => plain,
        Some(Written::Double) => return None,
    };
    let (whole, behind) = plain.split_once('.').unwrap_or((&plain, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + behind.len() == 0 || !is_digits(whole) || !is_digits(behind) {
        return None;
    }
    let digits = whole.trim_start_matches('0').len() + behind.len();
    let precision = u8::try_from(digits.max(1)).ok().filter(|p| *p <= MOST)?;
    Some((precision, i8::try_from(behind.len()).ok()?))
}

#[derive(Debug, PartialEq)]
enum Written {
    /// The number in digits, without an exponent.
    Decimal(String),
    /// The number has too many digits for a decimal.
    Double,
}

/// How a number is to be written; `None` if it stays as it is.
fn written(number: &str) -> Option<Written> {
    let number = number.replace('_', "");
    let lower = number.to_ascii_lowercase();
    if !lower
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-'))
    {
        return None; // hexadecimal
    }
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let digits = format!("{whole}{behind}");
    // The position of the decimal point, counted from the first digit.
    let Some(point) = exponent
        .parse::<i64>()
        .ok()
        .and_then(|e| e.checked_add(whole.len() as i64))
    else {
        return Some(Written::Double);
    };
    let (front, back) = (point.max(0), (digits.len() as i64 - point).max(0));
    let is_zero = digits.bytes().all(|b| b == b'0');
    if !is_zero && front.saturating_add(back) > MOST.into() {
        // Leading zeros do not count.
        let leading = digits.bytes().take_while(|b| *b == b'0').count() as i64;
        if back > MOST.into() || (front - leading).max(0) + back > MOST.into() {
            return Some(Written::Double);
        }
    }
    if !lower.contains('e') {
        return None;
    }
    if is_zero {
        return Some(Written::Decimal("0.0".to_string()));
    }
    let digit = |at: i64| {
        usize::try_from(at)
            .ok()
            .and_then(|at| digits.as_bytes().get(at))
            .copied()
    };
    let mut plain: String = (0..front).map(|at| digit(at).unwrap_or(b'0') as char).collect();
    if plain.is_empty() {
        plain.push('0');
    }
    plain.push('.');
    plain.extend((point..digits.len() as i64).map(|at| digit(at).unwrap_or(b'0') as char));
    if plain.ends_with('.') {
        // A number with an exponent is a decimal even if it is whole. An integer literal of more than 19 digits
        // is one anyway.
        match front < i64::from(MOST) {
            true => plain.push('0'),
            false => drop(plain.pop()),
        }
    }
    Some(Written::Decimal(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_written_out_and_what_is_too_long_is_a_double() {
        let decimal = |text: &str| Some(Written::Decimal(text.to_string()));
        assert_eq!(written("12"), None);
        assert_eq!(written("12.50"), None);
        assert_eq!(written(".5"), None);
        assert_eq!(written("1e3"), decimal("1000.0"));
        assert_eq!(written("1.5E-3"), decimal("0.0015"));
        assert_eq!(written("12.5e1"), decimal("125.0"));
        assert_eq!(written("12.345e1"), decimal("123.45"));
        assert_eq!(written("0.0e9"), decimal("0.0"));
        assert_eq!(written("1e37"), decimal("10000000000000000000000000000000000000"));
        assert_eq!(written("1e300"), Some(Written::Double));
        assert_eq!(written("1e-300"), Some(Written::Double));
        assert_eq!(
            written("0.1234567890123456789012345678901234567890"),
            Some(Written::Double)
        );
        assert_eq!(written("0.12345678901234567890123456789012345678"), None);
        assert_eq!(written("123456789012345678901234567890"), None);
    }
}
