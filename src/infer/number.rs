//! What numbers a column's texts are.

use crate::definition::NumberPattern;
use crate::repr::SqlType;

/// Patterns of numbers that are tried, without a currency's sign: more usual ones first.
const PATTERNS: [&str; 6] = ["#,##0.00", "#.##0,00", "# ##0,00", "#'##0.00", "0,00", "0.00"];

/// Signs of currencies, and the letters that stand for some: other letters make a name of a number.
const SIGNS: [&str; 16] = [
    "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₪", "฿", "¢", "%", "R$", "US$", "A$",
];
const CODES: [&str; 30] = [
    "EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "AUD", "CAD",
    "NZD", "BRL", "MXN", "ZAR", "TRY", "KRW", "kr", "Kr", "kr.", "zł", "Kč", "Ft", "Rs", "Fr.",
];

/// What all numbers of a column have in common, written as programs write them.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    count: u64,
    /// Most digits in front of the point.
    before: usize,
    /// Most digits behind the point.
    scale: usize,
    /// Some digit behind a point is no zero.
    fractional: bool,
    /// Some have an exponent, or are no number or infinite.
    floating: bool,
    /// Some have a zero in front that a number would lose.
    leading_zero: bool,
    largest: u128,
}

impl Numbers {
    /// Takes a text; says whether it is a number.
    pub fn observe(&mut self, text: &str) -> bool {
        let is = |word: &&str| text.eq_ignore_ascii_case(word);
        if !text.ends_with(|c: char| c.is_ascii_digit())
            && ["nan", "inf", "-inf", "infinity", "-infinity"].iter().any(is)
        {
            self.floating = true;
            self.count += 1;
            return true;
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if !all_digits(whole) || !all_digits(decimals) || whole.len() + decimals.len() == 0 {
            return false;
        }
        if exponent.is_empty() || !all_digits(exponent) {
            return false;
        }
        self.count += 1;
        self.floating |= digits.len() > mantissa.len();
        self.leading_zero |= whole.len() > 1 && whole.starts_with('0');
        self.before = self.before.max(whole.len());
        self.scale = self.scale.max(decimals.len());
        self.fractional |= decimals.bytes().any(|byte| byte != b'0');
        self.largest = self.largest.max(whole.parse().unwrap_or(match whole {
            "" => 0,
            _ => u128::MAX,
        }));
        true
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The type that holds them all exactly, and some room beside; none: they are names written in digits.
    pub fn sql_type(&self) -> Option<SqlType> {
        /// Above this a DECIMAL is no amount of money but a measurement, of which the next may have more digits.
        const EXACT_SCALE: usize = 4;
        if self.leading_zero {
            return None;
        }
        if self.floating {
            return Some(SqlType::Double);
        }
        if !self.fractional {
            return match self.largest {
                ..100_000_000 => Some(SqlType::Int),
                100_000_000..9_000_000_000_000_000_000 => Some(SqlType::BigInt),
                _ if self.before <= 38 => Some(SqlType::Decimal(38, 0)),
                _ => None,
            };
        }
        if self.scale > EXACT_SCALE || self.before + self.scale > 36 {
            return Some(SqlType::Double);
        }
        let scale = self.scale.max(2);
        let precision = (self.before + scale + 2).clamp(18, 38);
        Some(SqlType::Decimal(precision as u8, scale as i8))
    }
}

/// Numbers as people write them, by the patterns that all of them have so far.
#[derive(Clone, Debug)]
pub(super) struct Written {
    candidates: Vec<Candidate>,
    /// Whether a text came that is no plain number.
    started: bool,
    /// Plain numbers that came before.
    plain: Vec<String>,
}

#[derive(Clone, Debug)]
struct Candidate {
    text: String,
    pattern: NumberPattern,
    numbers: Numbers,
    /// Hash of all that it read, to tell candidates apart that read differently.
    readings: u64,
}

impl Written {
    pub fn new() -> Self {
        Written {
            candidates: Vec::new(),
            started: false,
            plain: Vec::new(),
        }
    }

    /// Takes a number as programs write it, which may be another one as people do.
    pub fn observe_plain(&mut self, text: &str) {
        /// Enough to tell what a point is.
        const KEPT: usize = 100;
        if self.started {
            self.observe(text);
        } else if self.plain.len() < KEPT {
            self.plain.push(text.to_string());
        }
    }

    /// Takes a text.
    pub fn observe(&mut self, text: &str) {
        if !self.started {
            self.started = true;
            self.candidates = candidates(text);
            for plain in std::mem::take(&mut self.plain) {
                self.observe(&plain);
            }
        }
        if self.candidates.is_empty() {
            return;
        }
        self.candidates.retain_mut(|candidate| {
            let Some(plain) = candidate.pattern.plain(text) else {
                return false;
            };
            let plain = String::from_utf8_lossy(&plain);
            let read = canonical(&plain);
            candidate.readings = candidate.readings.rotate_left(5) ^ twox_hash::XxHash3_64::oneshot(read.as_bytes());
            candidate.numbers.observe(&plain)
        });
    }

    /// The pattern, and the type; none where there is none, or two that read differently.
    pub fn decided(&self) -> Option<(String, SqlType)> {
        let first = self.candidates.first()?;
        let agree = self.candidates.iter().all(|other| other.readings == first.readings);
        agree.then_some(())?;
        Some((first.text.clone(), first.numbers.sql_type()?))
    }

    /// The patterns of which one holds, where they read differently.
    pub fn ambiguous(&self) -> Option<String> {
        let first = self.candidates.first()?;
        let other = self.candidates.iter().find(|other| other.readings != first.readings)?;
        Some(format!("{:?} or {:?}", first.text, other.text))
    }
}

/// A number without what does not change it.
fn canonical(plain: &str) -> String {
    let (whole, decimals) = plain.split_once('.').unwrap_or((plain, ""));
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

/// Patterns that may fit a column whose first text this is: with the sign of currency that it has.
fn candidates(text: &str) -> Vec<Candidate> {
    // A telephone's number would lose its plus.
    if text.trim().starts_with('+') {
        return Vec::new();
    }
    let bare = text
        .trim()
        .trim_start_matches(['(', '-'])
        .trim_end_matches([')', '-'])
        .trim();
    let is_digit = |c: char| c.is_ascii_digit();
    let (Some(start), Some(end)) = (bare.find(is_digit), bare.rfind(is_digit)) else {
        return Vec::new();
    };
    let (before, behind) = (
        bare[..start].trim_end_matches(['.', ',', '-']).trim(),
        bare[end + 1..].trim(),
    );
    let is_sign = |sign: &str| sign.is_empty() || SIGNS.contains(&sign) || CODES.contains(&sign);
    if !is_sign(before) || !is_sign(behind) {
        return Vec::new();
    }
    let brackets = text.contains('(');
    let pattern = |core: &&str| {
        let blank = if behind.is_empty() || behind == "%" { "" } else { " " };
        let text = format!("{before}{core}{blank}{behind}");
        let text = if brackets { format!("({text})") } else { text };
        let pattern = NumberPattern::parse(&text)?;
        Some(Candidate {
            text,
            pattern,
            numbers: Numbers::default(),
            readings: 0,
        })
    };
    PATTERNS.iter().filter_map(pattern).collect()
}
