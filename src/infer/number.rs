//! Determines the format and type of a column's numbers.

use crate::definition::NumberPattern;
use crate::repr::SqlType;

/// The pattern of numbers with points as group separators.
const GROUPED_BY_POINTS: &str = "#.##0,00";

/// The patterns that are tried, without currency signs, the more usual ones first.
const PATTERNS: [&str; 6] = ["#,##0.00", GROUPED_BY_POINTS, "# ##0,00", "#'##0.00", "0,00", "0.00"];

/// The typographic minus sign, which may replace a hyphen.
const MINUS: char = '\u{2212}';

/// Currency signs, and letters used as such; with other letters a text is not a number but a name.
const SIGNS: [&str; 16] = [
    "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₪", "฿", "¢", "%", "R$", "US$", "A$",
];
const CODES: [&str; 30] = [
    "EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "AUD", "CAD",
    "NZD", "BRL", "MXN", "ZAR", "TRY", "KRW", "kr", "Kr", "kr.", "zł", "Kč", "Ft", "Rs", "Fr.",
];

/// Common properties of a column's numbers, in the notation of programs.
#[derive(Clone, Debug, Default)]
pub(super) struct NumberProfile {
    count: u64,
    /// The most digits before the point.
    before: usize,
    /// The most digits after the point.
    scale: usize,
    /// Whether a number has a non-zero digit after its point.
    fractional: bool,
    /// Whether a number has an exponent, is NaN or infinite.
    floating: bool,
    /// Whether a number is not whole, after applying its exponent.
    in_parts: bool,
    /// Whether a number has leading zeros, which a numeric type would lose.
    leading_zero: bool,
    largest: u128,
}

impl NumberProfile {
    /// Observes a text; returns whether it is a number.
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

    /// The common properties of both sets of numbers.
    fn with(&self, others: &NumberProfile) -> NumberProfile {
        NumberProfile {
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

    /// Whether all numbers are whole, even if written with an exponent.
    pub fn are_whole(&self) -> bool {
        !self.in_parts
    }

    /// How many numbers were observed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The type that holds all numbers exactly, with some reserve; none if they are identifiers written in digits.
    pub fn sql_type(&self) -> Option<SqlType> {
        /// With more decimals than this, a number is probably a measurement, and later ones may have even more digits.
        const EXACT_SCALE: usize = 4;
        if self.leading_zero {
            return None;
        }
        if self.floating {
            return Some(SqlType::Double);
        }
        // A program writes a whole number as 5.0 at most; where 5.00 stands, 5.25 may come.
        if !self.fractional && self.scale < 2 {
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

/// The decimal separator. A writer uses the same one in all columns.
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

/// Plain numbers, profiled under both meanings of a point: decimal separator or group separator.
#[derive(Clone, Debug, Default)]
struct PlainNumbers {
    /// Numbers without a point, and those of JSON, whose point is always a decimal separator.
    unambiguous: NumberProfile,
    /// Numbers with a point, read with the point as decimal separator.
    pointed: NumberProfile,
    /// The same numbers read as whole numbers, as far as the point may be a group separator: `1.152`.
    grouped: NumberProfile,
    /// The first of these.
    first: Option<String>,
    /// Whether some number has a point that cannot be a group separator.
    decimal: bool,
    /// Whether some number has an exponent, or is not finite: no pattern describes these.
    unwritten: bool,
}

impl PlainNumbers {
    fn observe(&mut self, text: &str) {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let Some((whole, behind)) = digits.split_once('.') else {
            self.unwritten |= !digits.bytes().all(|byte| byte.is_ascii_digit());
            self.unambiguous.observe(text);
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

    /// The profile of the numbers under a pattern; none if the pattern does not read them all.
    fn read(&self, mark: DecimalMark, has_groups_of_points: bool) -> Option<NumberProfile> {
        let read = match mark {
            _ if self.unwritten => return None,
            _ if self.pointed.count == 0 => self.unambiguous.clone(),
            DecimalMark::Point => self.unambiguous.with(&self.pointed),
            DecimalMark::Comma if has_groups_of_points && !self.decimal => self.unambiguous.with(&self.grouped),
            DecimalMark::Comma => return None,
        };
        Some(read)
    }
}

/// Numbers with separators, currency signs and the like, with the patterns that still read all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenNumbers {
    candidates: Vec<PatternCandidate>,
    /// The first text that is not a plain number, if one has come.
    first: Option<String>,
    /// Whether some text contains a point or a comma.
    marked: bool,
    plain: PlainNumbers,
}

#[derive(Clone, Debug)]
struct PatternCandidate {
    text: String,
    pattern: NumberPattern,
    mark: DecimalMark,
    /// Whether the pattern has points as group separators.
    has_groups_of_points: bool,
    numbers: NumberProfile,
    /// A hash of all values that it read, to detect candidates that read differently.
    readings: u64,
}

impl WrittenNumbers {
    /// Observes a number in the notation of programs, which a pattern may read differently.
    pub fn observe_plain(&mut self, text: &str) {
        self.plain.observe(text);
    }

    /// Observes a JSON number, whose meaning is certain.
    pub fn observe_told(&mut self, text: &str) {
        self.plain.unambiguous.observe(text);
    }

    /// Observes a text that is not a plain number.
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

    /// The patterns that read all texts and all plain numbers, each with the resulting profile; if the decimal mark is
    /// known and some patterns have it, only these.
    fn fitting(&self, mark: Option<DecimalMark>) -> Vec<(&PatternCandidate, NumberProfile)> {
        let fits = |candidate: &'_ PatternCandidate| {
            let plain = self.plain.read(candidate.mark, candidate.has_groups_of_points)?;
            // A pattern with a percent sign must not read plain numbers: without the sign, the value may mean a
            // hundred times as much.
            let is_whole = !candidate.text.contains('%') || plain.count == 0;
            is_whole.then(|| candidate.numbers.with(&plain))
        };
        let all: Vec<_> = self
            .candidates
            .iter()
            .filter_map(|one| Some((one, fits(one)?)))
            .collect();
        let of_mark = |(one, _): &&(&PatternCandidate, NumberProfile)| mark.is_none_or(|mark| one.mark == mark);
        match all.iter().any(|one| of_mark(&one)) {
            true => all.iter().filter(of_mark).cloned().collect(),
            false => all,
        }
    }

    /// Whether two patterns read something differently.
    fn differ(&self, one: &PatternCandidate, other: &PatternCandidate) -> bool {
        one.readings != other.readings || self.plain.pointed.count > 0 && one.mark != other.mark
    }

    /// The decimal mark that the numbers themselves show.
    pub fn shows(&self) -> Option<DecimalMark> {
        let fitting = self.fitting(None);
        let (first, _) = fitting.first()?;
        let agree = fitting.iter().all(|(other, _)| other.mark == first.mark);
        ((self.marked || self.plain.pointed.count > 0) && agree).then_some(first.mark)
    }

    /// The pattern and the type; none if no pattern fits, or if two read differently.
    pub fn decided(&self, mark: Option<DecimalMark>) -> Option<(String, SqlType)> {
        let fitting = self.fitting(mark);
        let (first, numbers) = fitting.first()?;
        let agree = fitting.iter().all(|(other, _)| !self.differ(first, other));
        agree.then_some(())?;
        Some((first.text.clone(), numbers.sql_type()?))
    }

    /// Two fitting patterns that read differently, for a note.
    pub fn ambiguous(&self, mark: Option<DecimalMark>) -> Option<String> {
        let fitting = self.fitting(mark);
        let (first, _) = fitting.first()?;
        let (other, _) = fitting.iter().find(|(other, _)| self.differ(first, other))?;
        Some(format!("{:?} or {:?}", first.text, other.text))
    }

    /// The first text.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// The decimal mark that plain numbers show; none if all their points may be group separators, or if there are no
    /// points.
    pub fn plain_shows(&self) -> Option<DecimalMark> {
        self.plain.decimal.then_some(DecimalMark::Point)
    }

    /// If all points of the plain numbers may be group separators: the first such number, and the pattern and type
    /// under that reading.
    pub fn grouped(&self) -> Option<(&str, &'static str, SqlType)> {
        let first = self.plain.first.as_deref()?;
        let numbers = self.plain.read(DecimalMark::Comma, true)?;
        Some((first, GROUPED_BY_POINTS, numbers.sql_type()?))
    }
}

/// The number without trailing zeros after the point.
fn canonical(plain: &str) -> String {
    let (whole, decimals) = plain.split_once('.').unwrap_or((plain, ""));
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

/// The patterns that may fit a column whose first text this is, with the text's currency sign.
fn candidates(text: &str) -> Vec<PatternCandidate> {
    // A phone number would lose its plus.
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
        Some(PatternCandidate {
            text,
            pattern,
            mark: match core.ends_with(",00") {
                true => DecimalMark::Comma,
                false => DecimalMark::Point,
            },
            has_groups_of_points: *core == GROUPED_BY_POINTS,
            numbers: NumberProfile::default(),
            readings: 0,
        })
    };
    PATTERNS.iter().filter_map(pattern).collect()
}
