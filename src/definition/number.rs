//! How people write numbers: `format = "#,##0.00"` of a numeric column.
//!
//! A pattern is written as in spreadsheets: `#` and `0` stand for digits; a separator between them groups digits, or
//! precedes the decimals, which are written as zeros. Text before and behind is a currency sign, `%` or `‰`; brackets
//! around it mean that bracketed numbers are negative. `#,##0.00`, `#.##0,00`, `# ##0,00 €`, `#'##0.00`,
//! `($#,##0.00)`, `0,00`, `0.0%`. A minus before or behind, as in `#.##0,00-`, shows where negative numbers have
//! theirs. They may have it at the other end, too.
//!
//! A number may lack its group separators, its currency sign and any of its decimals. Separators that are there must
//! be where the pattern has them: `1,5` is not 15.

use smallvec::SmallVec;

/// A pattern of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberPattern {
    group: Option<DigitGrouping>,
    decimal: Option<char>,
    before: String,
    behind: String,
    /// Whether brackets around a number make it negative.
    brackets: bool,
    /// The factor of `%` or `‰`, before or behind the number.
    multiplier: Option<Multiplier>,
}

/// The factor that a sign such as `%` applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Multiplier {
    exponent: &'static [u8],
    is_in_front: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DigitGrouping {
    separator: char,
    /// The number of digits of each group except the last, which has three.
    size: usize,
}

/// A number in machine form: sign, digits, decimal point, digits, and an exponent if it had `%` or `‰`.
pub type PlainNumber = SmallVec<[u8; 64]>;

impl NumberPattern {
    /// Parses a pattern; none if it is invalid or ambiguous.
    pub fn parse(text: &str) -> Option<NumberPattern> {
        // The second pattern of a spreadsheet, for negative numbers, only tells whether these are in brackets.
        let (first, negative) = text.split_once(';').unwrap_or((text, ""));
        let bracketed = |text: &str| text.contains('(') && text.contains(')');
        let signed = negative.trim().starts_with('-') || negative.trim().ends_with('-');
        if !negative.is_empty() && !bracketed(negative) && !signed {
            return None;
        }
        let is_digit = |c: char| matches!(c, '#' | '0');
        let start = first.find(is_digit)?;
        let end = first.rfind(is_digit)? + 1;
        // A sign in the pattern only shows where signs are; numbers need not have one.
        let is_outer = |c: char| c.is_whitespace() || is_minus(c) || c == '+';
        let plain = |text: &str| text.replace(['(', ')'], "").trim_matches(is_outer).to_string();
        let (before, behind) = (plain(&first[..start]), plain(&first[end..]));
        if [&before, &behind]
            .iter()
            .any(|sign| sign.contains(|c: char| c.is_ascii_digit() || is_group(c)))
        {
            return None;
        }
        // CR and DR name the side of an account, which may or may not make the amount negative.
        if [&before, &behind]
            .iter()
            .any(|sign| ["CR", "DR", "DB"].iter().any(|side| sign.eq_ignore_ascii_case(side)))
        {
            return None;
        }
        let multiplier = match (exponent(&before), exponent(&behind)) {
            (None, None) => None,
            (Some(_), Some(_)) => return None,
            (Some(exponent), None) => Some(Multiplier {
                exponent,
                is_in_front: true,
            }),
            (None, Some(exponent)) => Some(Multiplier {
                exponent,
                is_in_front: false,
            }),
        };
        let core = &first[start..end];
        let separators: Vec<(usize, char)> = core.char_indices().filter(|(_, c)| !is_digit(*c)).collect();
        if !separators.iter().all(|(_, c)| is_group(*c) || matches!(c, '.' | ',')) {
            return None;
        }
        let mut groups = &separators[..];
        let mut decimal = None;
        if let Some(((at, last), others)) = separators.split_last() {
            let decimals = &core[at + last.len_utf8()..];
            let is_last_alone = others.iter().all(|(_, other)| other != last);
            let as_zeros = decimals.starts_with('0') && decimals.trim_start_matches('0').trim_matches('#').is_empty();
            let is_decimal = as_zeros && is_last_alone && matches!(last, '.' | ',');
            if is_decimal && others.is_empty() && decimals.len() == 3 {
                return None; // `0,000` may mean a thousand, or three decimals
            }
            if is_decimal {
                decimal = Some(*last);
                groups = others;
            }
        }
        let whole = match decimal {
            Some(_) => &core[..separators.last()?.0],
            None => core,
        };
        let group = match groups {
            [] => None,
            [(_, separator), ..] => {
                let parts: Vec<&str> = whole.split(*separator).collect();
                let (last, inner) = (parts.last()?, parts.get(1..parts.len() - 1)?);
                let size = inner.first().map_or(3, |part| part.len());
                let fits = parts[0].len() <= size
                    && last.len() == 3
                    && matches!(size, 2 | 3)
                    && inner.iter().all(|part| part.len() == size)
                    && parts.iter().all(|part| part.chars().all(is_digit));
                fits.then_some(())?;
                Some(DigitGrouping {
                    separator: *separator,
                    size,
                })
            }
        };
        Some(NumberPattern {
            group,
            decimal,
            before,
            behind,
            brackets: bracketed(first) || bracketed(negative),
            multiplier,
        })
    }

    /// Converts a text to a plain number; none if it does not match the pattern.
    pub fn plain(&self, text: &str) -> Option<PlainNumber> {
        let mut rest = text.trim();
        let mut negative = false;
        if self.brackets
            && let Some(inner) = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        {
            negative = true;
            rest = inner.trim();
        }
        let mut signed = negative;
        let mut sign = |rest: &mut &str, at_end: bool| {
            let stripped = match at_end {
                false => rest.strip_prefix(|c: char| is_minus(c) || c == '+'),
                true => rest.strip_suffix(is_minus),
            };
            if let Some(stripped) = stripped.filter(|_| !signed) {
                negative = at_end || !rest.starts_with('+');
                signed = true;
                *rest = stripped.trim();
            }
        };
        sign(&mut rest, false);
        sign(&mut rest, true);
        // A percentage without its sign might be meant as the plain number, a hundred times as much, so the sign is
        // required.
        let is_needed = |is_in_front: bool| self.multiplier.is_some_and(|sign| sign.is_in_front == is_in_front);
        if !self.before.is_empty() {
            match rest.strip_prefix(self.before.as_str()) {
                Some(behind) => {
                    rest = behind.trim_start();
                    sign(&mut rest, false);
                }
                None if is_needed(true) => return None,
                None => (),
            }
        }
        if !self.behind.is_empty() {
            match rest.strip_suffix(self.behind.as_str()) {
                Some(front) => {
                    rest = front.trim_end();
                    sign(&mut rest, true);
                }
                None if is_needed(false) => return None,
                None => (),
            }
        }
        let (whole, decimals) = match self.decimal.and_then(|decimal| rest.split_once(decimal)) {
            Some((whole, decimals)) => (whole, Some(decimals)),
            None => (rest, None),
        };
        let mut plain = PlainNumber::new();
        if negative {
            plain.push(b'-');
        }
        let before = plain.len();
        self.push_whole(whole, &mut plain)?;
        if let Some(decimals) = decimals {
            if !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            plain.push(b'.');
            plain.extend_from_slice(decimals.as_bytes());
        }
        if !plain[before..].iter().any(u8::is_ascii_digit) {
            return None;
        }
        if let Some(multiplier) = self.multiplier {
            plain.extend_from_slice(multiplier.exponent);
        }
        Some(plain)
    }

    /// Appends the digits before the decimals, without group separators; none if the groups are wrong.
    fn push_whole(&self, whole: &str, plain: &mut PlainNumber) -> Option<()> {
        let grouped = |c: char| self.group.is_some_and(|group| is_same(group.separator, c));
        let separators = whole.chars().filter(|c| grouped(*c)).count();
        for (n, part) in whole.split(grouped).enumerate() {
            if !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let size = self.group.map_or(0, |group| group.size);
            let fits = match n {
                _ if separators == 0 => true,
                0 => (1..=size).contains(&part.len()),
                _ if n == separators => part.len() == 3,
                _ => part.len() == size,
            };
            fits.then_some(())?;
            plain.extend_from_slice(part.as_bytes());
        }
        Some(())
    }
}

fn is_minus(c: char) -> bool {
    matches!(c, '-' | '\u{2212}')
}

/// The exponent that a sign beside a number applies, if it is `%` or the like.
fn exponent(text: &str) -> Option<&'static [u8]> {
    text.chars().find_map(|c| match c {
        '%' | '\u{66a}' | '\u{ff05}' => Some(&b"e-2"[..]),
        '\u{2030}' => Some(&b"e-3"[..]),
        '\u{2031}' => Some(&b"e-4"[..]),
        _ => None,
    })
}

/// Whether a character may separate groups of digits.
fn is_group(c: char) -> bool {
    matches!(
        c,
        ',' | '.' | '\'' | '\u{2019}' | ' ' | '\u{a0}' | '\u{2009}' | '\u{202f}' | '_'
    )
}

/// Whether two group separators are interchangeable: blanks of any width, apostrophes of any form.
fn is_same(one: char, other: char) -> bool {
    let kind = |c: char| match c {
        '\u{a0}' | '\u{2009}' | '\u{202f}' => ' ',
        '\u{2019}' => '\'',
        other => other,
    };
    kind(one) == kind(other)
}

/// The texts for true and false in a boolean column's format, `Y|N`.
pub fn parse_flags(text: &str) -> Option<(&str, &str)> {
    let (yes, no) = text.split_once('|')?;
    let is_plain = |text: &str| !text.trim().is_empty() && !text.contains('|');
    (is_plain(yes) && is_plain(no) && !yes.eq_ignore_ascii_case(no)).then(|| (yes.trim(), no.trim()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn read(pattern: &str, text: &str) -> Option<String> {
        let pattern = NumberPattern::parse(pattern).unwrap_or_else(|| panic!("{pattern} is a pattern"));
        pattern
            .plain(text)
            .map(|plain| String::from_utf8(plain.to_vec()).unwrap())
    }

    #[test]
    fn numbers_of_many_countries_become_plain_ones() {
        for (pattern, text, plain) in [
            ("#,##0.00", "1,234,567.50", "1234567.50"),
            ("#,##0.00", "1234567.5", "1234567.5"),
            ("#,##0.00", "-0.5", "-0.5"),
            ("#,##0.00", ".5", ".5"),
            ("#,##0.00", " 12 ", "12"),
            ("#.##0,00", "1.234.567,50", "1234567.50"),
            ("#.##0,00", "1.234", "1234"),
            ("0,00", "1234,5", "1234.5"),
            ("# ##0,00 €", "1\u{202f}234,50\u{a0}€", "1234.50"),
            ("# ##0,00 €", "1 234,50", "1234.50"),
            ("#'##0.00", "CHF 1’234.50".trim_start_matches("CHF "), "1234.50"),
            ("$#,##0.00", "-$1,234.50", "-1234.50"),
            ("$#,##0.00", "$-1,234.50", "-1234.50"),
            ("($#,##0.00)", "($1,234.50)", "-1234.50"),
            ("#,##0.00;(#,##0.00)", "(1,234.50)", "-1234.50"),
            ("#,##0", "1,234-", "-1234"),
            ("#,##,##0.00", "12,34,567.00", "1234567.00"),
            ("0.0%", "12.5 %", "12.5e-2"),
            ("#,##0.000", "1,234.567", "1234.567"),
            ("0.0%", "12.5%", "12.5e-2"),
            ("0.0%", "-12.5%", "-12.5e-2"),
            ("0.0%", "12.5-%", "-12.5e-2"),
        ] {
            assert_eq!(read(pattern, text).as_deref(), Some(plain), "{text} of {pattern}");
        }
    }

    /// `1.234,50-` was read as 1234.50, and 5‰ as 5 by `0‰`, because the pattern's own text was removed first.
    #[test]
    fn signs_in_a_pattern_are_signs_of_its_numbers() {
        for (pattern, text, plain) in [
            ("#.##0,00-", "1.234,50-", Some("-1234.50")),
            ("#.##0,00-", "12,00", Some("12.00")),
            ("#.##0,00-", "-5,00", Some("-5.00")),
            ("#.##0,00-", "7,00\u{2212}", Some("-7.00")),
            ("#.##0,00-", "--5,00", None),
            ("#.##0,00-", "-5,00-", None),
            ("#.##0,00-", "5,00--", None),
            ("#,##0.00 -", "5.00 -", Some("-5.00")),
            ("#.##0,00-€", "5,00-€", Some("-5.00")),
            ("#.##0,00-€", "5,00 €-", Some("-5.00")),
            ("#.##0,00-€", "5,00 €", Some("5.00")),
            ("-#,##0.00", "-5.00", Some("-5.00")),
            ("-#,##0.00", "5.00", Some("5.00")),
            ("-#,##0.00", "--5.00", None),
            ("-$#,##0.00", "-$5.00", Some("-5.00")),
            ("+#,##0.00", "+5.00", Some("5.00")),
            ("#,##0.00;#,##0.00-", "5.00-", Some("-5.00")),
            ("#,##0.00", "+5.00-", None),
            ("0‰", "5‰", Some("5e-3")),
            ("0‰", "5", None),
            ("0.0 %pa", "5.0 %pa", Some("5.0e-2")),
            ("0.0 %pa", "5.0", None),
            ("%0", "%50", Some("50e-2")),
            ("%0", "-%50", Some("-50e-2")),
            ("%0", "50", None),
            ("0%-", "5%-", Some("-5e-2")),
        ] {
            assert_eq!(read(pattern, text).as_deref(), plain, "{text} of {pattern}");
        }
        for pattern in ["#,##0.00 CR", "DR #,##0.00", "%0%"] {
            assert_eq!(NumberPattern::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_of_the_pattern_is_no_number() {
        for (pattern, text) in [
            ("#,##0.00", "1,5"),
            ("#,##0.00", "1,23,456"),
            ("#,##0.00", "12345,678"),
            ("#,##0.00", ",123"),
            ("#,##0.00", "1.234,50"),
            ("#,##0.00", "1.2.3"),
            ("#,##0.00", "1e3"),
            ("#,##0.00", ""),
            ("#,##0.00", "-"),
            ("#,##0.00", "."),
            ("#,##0.00", "(5)"),
            ("#,##0.00", "--5"),
            ("#,##0.00", "-5-"),
            ("$#,##0.00", "€5"),
            ("($#,##0.00)", "(-5)"),
            ("#.##0,00", "1234.5"),
            ("#,##0", "1.5"),
            ("0,00", "1.234,5"),
            ("0.0%", "12.5"),
        ] {
            assert_eq!(read(pattern, text), None, "{text} of {pattern}");
        }
    }

    #[test]
    fn patterns_that_say_two_things_or_nothing_are_none() {
        for pattern in [
            "0,000",
            "#,#0",
            "#,####0",
            "$",
            "",
            "1,234.00",
            "#.##0.00",
            "#,##0.00.00",
            "#;##0",
            "#,##0:00",
            "%Y",
        ] {
            assert_eq!(NumberPattern::parse(pattern), None, "{pattern}");
        }
        assert_eq!(parse_flags("Y|N"), Some(("Y", "N")));
        for flags in ["Y", "Y|", "Y|y", "a|b|c"] {
            assert_eq!(parse_flags(flags), None, "{flags}");
        }
    }
}
