//! How people write numbers: `format = "#,##0.00"` of a numeric column.
//!
//! A pattern is what spreadsheets have: `#` and `0` stand for digits, a separator between them groups digits or comes before
//! the decimals, which are written as zeros. What is in front and behind is a sign of currency or `%`; brackets around it
//! say that bracketed numbers are negative. `#,##0.00`, `#.##0,00`, `# ##0,00 €`, `#'##0.00`, `($#,##0.00)`, `0,00`, `0.0%`.
//!
//! A number may leave out its groups, its sign of currency and any of its decimals. Groups that are there must be where the
//! pattern has them: `1,5` is not 15.

use smallvec::SmallVec;

/// A pattern of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberPattern {
    group: Option<Group>,
    decimal: Option<char>,
    before: String,
    behind: String,
    /// Whether brackets make a number negative.
    brackets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    separator: char,
    /// Digits of the groups in front of the last, which has three.
    size: usize,
}

/// A number as programs write it: a sign, digits, a point, digits, and an exponent where it was of a hundred.
pub type PlainNumber = SmallVec<[u8; 64]>;

impl NumberPattern {
    /// Reads a pattern; none: it is not one, or says two things.
    pub fn parse(text: &str) -> Option<NumberPattern> {
        // A spreadsheet's second pattern, of negative numbers, only tells whether they are in brackets.
        let (first, negative) = text.split_once(';').unwrap_or((text, ""));
        let bracketed = |text: &str| text.contains('(') && text.contains(')');
        if !negative.is_empty() && !bracketed(negative) && !negative.trim_start().starts_with('-') {
            return None;
        }
        let is_digit = |c: char| matches!(c, '#' | '0');
        let start = first.find(is_digit)?;
        let end = first.rfind(is_digit)? + 1;
        let plain = |text: &str| text.replace(['(', ')'], "").trim().to_string();
        let (before, behind) = (plain(&first[..start]), plain(&first[end..]));
        if [&before, &behind]
            .iter()
            .any(|sign| sign.contains(|c: char| c.is_ascii_digit() || is_group(c)))
        {
            return None;
        }
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
                return None; // `0,000` is a thousand to some, and three decimals to others
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
                Some(Group {
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
        })
    }

    /// A text of this pattern as a plain number; none: it is not of the pattern.
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
        let mut sign = |rest: &mut &str| {
            for (mark, is_minus) in [('-', true), ('\u{2212}', true), ('+', false)] {
                if let Some(behind) = rest.strip_prefix(mark).filter(|_| !signed) {
                    (signed, negative, *rest) = (true, is_minus, behind.trim_start());
                }
            }
        };
        sign(&mut rest);
        if !self.before.is_empty()
            && let Some(behind) = rest.strip_prefix(self.before.as_str())
        {
            rest = behind.trim_start();
            sign(&mut rest);
        }
        let mut hundredth = false;
        if !self.behind.is_empty()
            && let Some(front) = rest.strip_suffix(self.behind.as_str())
        {
            rest = front.trim_end();
            hundredth = self.behind == "%";
        } else if self.behind == "%" {
            return None; // without its sign it may be a hundred times as much
        }
        if let Some(front) = rest.strip_suffix('-').filter(|_| !signed) {
            (negative, rest) = (true, front.trim_end());
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
        if hundredth {
            plain.extend_from_slice(b"e-2");
        }
        Some(plain)
    }

    /// The digits in front of the decimals, without their groups.
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

/// What may stand between groups of digits.
fn is_group(c: char) -> bool {
    matches!(
        c,
        ',' | '.' | '\'' | '\u{2019}' | ' ' | '\u{a0}' | '\u{2009}' | '\u{202f}' | '_'
    )
}

/// Whether two separators of groups are written for each other: blanks of any width, apostrophes of any form.
fn is_same(one: char, other: char) -> bool {
    let kind = |c: char| match c {
        '\u{a0}' | '\u{2009}' | '\u{202f}' => ' ',
        '\u{2019}' => '\'',
        other => other,
    };
    kind(one) == kind(other)
}

/// The two texts of a boolean column's format, `Y|N`: what is true, and what is false.
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
        ] {
            assert_eq!(read(pattern, text).as_deref(), Some(plain), "{text} of {pattern}");
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
