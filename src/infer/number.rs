//! What numbers a column's texts are.

use crate::definition::NumberPattern;
use crate::repr::SqlType;

/// The pattern of numbers whose groups of digits points separate.
const GROUPED_BY_POINTS: &str = "#.##0,00";

/// Patterns of numbers that are tried, without a currency's sign: more usual ones first.
const PATTERNS: [&str; 6] = ["#,##0.00", GROUPED_BY_POINTS, "# ##0,00", "#'##0.00", "0,00", "0.00"];

/// What typesetting has for a hyphen.
const MINUS: char = '\u{2212}';

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
    /// Some are not whole, once their exponent has moved the point.
    in_parts: bool,
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
            (self.floating, self.in_parts) = (true, true);
            self.count += 1;
            return true;
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let shift = exponent.parse::<i64>().unwrap_or(i64::MAX);
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if !all_digits(whole) || !all_digits(decimals) || whole.len() + decimals.len() == 0 {
            return false;
        }
        if exponent.is_empty() || !all_digits(exponent) {
            return false;
        }
        self.count += 1;
        self.floating |= digits.len() > mantissa.len();
        self.in_parts |= decimals.trim_end_matches('0').len() as i64 > shift;
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

    /// What these and others have in common.
    fn with(&self, others: &Numbers) -> Numbers {
        Numbers {
            count: self.count + others.count,
            before: self.before.max(others.before),
            scale: self.scale.max(others.scale),
            fractional: self.fractional || others.fractional,
            floating: self.floating || others.floating,
            in_parts: self.in_parts || others.in_parts,
            leading_zero: self.leading_zero || others.leading_zero,
            largest: self.largest.max(others.largest),
        }
    }

    /// Whether all are whole, be they written with an exponent.
    pub fn are_whole(&self) -> bool {
        !self.in_parts
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

/// What stands in front of the decimals. One writer has one of them in all columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecimalMark {
    Point,
    Comma,
}

impl DecimalMark {
    pub fn word(self) -> &'static str {
        match self {
            DecimalMark::Point => "points",
            DecimalMark::Comma => "commas",
        }
    }
}

/// Numbers as programs write them, by what they are to someone who separates groups of digits by points.
#[derive(Clone, Debug, Default)]
struct Plain {
    /// Those without a point, and those of JSON, whose point is always that of decimals.
    told: Numbers,
    /// Those with a point, as programs read them.
    pointed: Numbers,
    /// The same as whole numbers, as far as the point may separate groups: `1.152`.
    grouped: Numbers,
    /// The first of them.
    first: Option<String>,
    /// Some number has a point that separates no groups.
    decimal: bool,
    /// Some number has an exponent, or is none: no pattern has such.
    unwritten: bool,
}

impl Plain {
    fn observe(&mut self, text: &str) {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let Some((whole, behind)) = digits.split_once('.') else {
            self.unwritten |= !digits.bytes().all(|byte| byte.is_ascii_digit());
            self.told.observe(text);
            return;
        };
        self.unwritten |= !behind.bytes().all(|byte| byte.is_ascii_digit());
        self.pointed.observe(text);
        match (1..=3).contains(&whole.len()) && !whole.starts_with('0') && behind.len() == 3 && !self.unwritten {
            true => {
                self.grouped.observe(&text.replace('.', ""));
                if self.first.is_none() {
                    self.first = Some(text.to_string());
                }
            }
            false => self.decimal = true,
        }
    }

    /// What they come to, read by a pattern; none: the pattern does not read them all.
    fn read(&self, mark: DecimalMark, has_groups_of_points: bool) -> Option<Numbers> {
        let read = match mark {
            _ if self.unwritten => return None,
            _ if self.pointed.count == 0 => self.told.clone(),
            DecimalMark::Point => self.told.with(&self.pointed),
            DecimalMark::Comma if has_groups_of_points && !self.decimal => self.told.with(&self.grouped),
            DecimalMark::Comma => return None,
        };
        Some(read)
    }
}

/// Numbers as people write them, by the patterns that all of them have so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    candidates: Vec<Candidate>,
    /// Whether a text came that is no plain number, and the first of them.
    first: Option<String>,
    /// Whether some had a point or a comma in it.
    marked: bool,
    plain: Plain,
}

#[derive(Clone, Debug)]
struct Candidate {
    text: String,
    pattern: NumberPattern,
    mark: DecimalMark,
    /// Whether points separate groups of its digits.
    has_groups_of_points: bool,
    numbers: Numbers,
    /// Hash of all that it read, to tell candidates apart that read differently.
    readings: u64,
}

impl Written {
    /// Takes a number as programs write it, which may be another one as people do.
    pub fn observe_plain(&mut self, text: &str) {
        self.plain.observe(text);
    }

    /// Takes a number of JSON, which is what it is.
    pub fn observe_told(&mut self, text: &str) {
        self.plain.told.observe(text);
    }

    /// Takes a text.
    pub fn observe(&mut self, text: &str) {
        if self.first.is_none() {
            self.first = Some(text.to_string());
            self.candidates = candidates(text);
        }
        if self.candidates.is_empty() {
            return;
        }
        self.marked |= text.contains(['.', ',']);
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

    /// The patterns that read all texts and all plain numbers, with what they come to; of one decimal mark, where that is known
    /// and some are of it.
    fn fitting(&self, mark: Option<DecimalMark>) -> Vec<(&Candidate, Numbers)> {
        let fits = |candidate: &'_ Candidate| {
            let plain = self.plain.read(candidate.mark, candidate.has_groups_of_points)?;
            // Without its sign it may be a hundred times as much.
            let is_whole = !candidate.text.contains('%') || plain.count == 0;
            is_whole.then(|| candidate.numbers.with(&plain))
        };
        let all: Vec<_> = self
            .candidates
            .iter()
            .filter_map(|one| Some((one, fits(one)?)))
            .collect();
        let of_mark = |(one, _): &&(&Candidate, Numbers)| mark.is_none_or(|mark| one.mark == mark);
        match all.iter().any(|one| of_mark(&one)) {
            true => all.iter().filter(of_mark).cloned().collect(),
            false => all,
        }
    }

    /// Whether two patterns read something differently.
    fn differ(&self, one: &Candidate, other: &Candidate) -> bool {
        one.readings != other.readings || self.plain.pointed.count > 0 && one.mark != other.mark
    }

    /// The decimal mark that the numbers themselves show.
    pub fn shows(&self) -> Option<DecimalMark> {
        let fitting = self.fitting(None);
        let (first, _) = fitting.first()?;
        let agree = fitting.iter().all(|(other, _)| other.mark == first.mark);
        ((self.marked || self.plain.pointed.count > 0) && agree).then_some(first.mark)
    }

    /// The pattern, and the type; none where there is none, or two that read differently.
    pub fn decided(&self, mark: Option<DecimalMark>) -> Option<(String, SqlType)> {
        let fitting = self.fitting(mark);
        let (first, numbers) = fitting.first()?;
        let agree = fitting.iter().all(|(other, _)| !self.differ(first, other));
        agree.then_some(())?;
        Some((first.text.clone(), numbers.sql_type()?))
    }

    /// The patterns of which one holds, where they read differently.
    pub fn ambiguous(&self, mark: Option<DecimalMark>) -> Option<String> {
        let fitting = self.fitting(mark);
        let (first, _) = fitting.first()?;
        let (other, _) = fitting.iter().find(|(other, _)| self.differ(first, other))?;
        Some(format!("{:?} or {:?}", first.text, other.text))
    }

    /// Its first text.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// The decimal mark that plain numbers show; none: their points may all separate groups, or there are none.
    pub fn plain_shows(&self) -> Option<DecimalMark> {
        self.plain.decimal.then_some(DecimalMark::Point)
    }

    /// Of plain numbers whose points may all separate groups: the first, and the pattern and type of them as such.
    pub fn grouped(&self) -> Option<(&str, &'static str, SqlType)> {
        let first = self.plain.first.as_deref()?;
        let numbers = self.plain.read(DecimalMark::Comma, true)?;
        Some((first, GROUPED_BY_POINTS, numbers.sql_type()?))
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
        .trim_start_matches(['(', '-', MINUS])
        .trim_end_matches([')', '-'])
        .trim();
    let is_digit = |c: char| c.is_ascii_digit();
    let (Some(start), Some(end)) = (bare.find(is_digit), bare.rfind(is_digit)) else {
        return Vec::new();
    };
    let (before, behind) = (
        bare[..start].trim_end_matches(['.', ',', '-', MINUS]).trim(),
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
            mark: match core.ends_with(",00") {
                true => DecimalMark::Comma,
                false => DecimalMark::Point,
            },
            has_groups_of_points: *core == GROUPED_BY_POINTS,
            numbers: Numbers::default(),
            readings: 0,
        })
    };
    PATTERNS.iter().filter_map(pattern).collect()
}
