//! Patterns for points in time: `format = "%d.%m.%Y %H:%M"` of a DATE or TIMESTAMP column, and the formats of SQL's
//! `to_timestamp`.
//!
//! The specifiers are those of chrono's strftime. Four of them have the meaning of POSIX and Python here, because
//! chrono would read another point than the text means:
//!
//! - `%f` is a fraction of a second with any number of digits. For chrono it counts nanoseconds, so `.5` would be
//!   five of them.
//! - `%y` covers the years 1969 to 2068. For chrono 69 is 2069.
//! - Adjacent numbers must have all of their digits: `%Y%m%d` does not match `2024011`. `%Y` always has four digits.
//! - `%Z` is refused: chrono skips the name of a zone, and would take a time in Tokyo for one in Greenwich.
//!
//! A pattern is also refused if no text could give a point by it (`%H:%M` has no day), or if a part of the text would
//! have no effect (seconds without minutes).

use chrono::format::{Fixed, Item, Numeric, Pad, ParseErrorKind, Parsed, StrftimeItems, parse, parse_and_remainder};
use chrono::{DateTime, NaiveTime, TimeZone, Utc};

/// A pattern of points in time.
#[derive(Clone, Debug)]
pub struct MomentPattern {
    parts: Vec<ParseStep>,
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MomentFault {
    /// What is wrong with it; it follows "the pattern".
    pub what: &'static str,
    /// What to write instead.
    pub remedy: &'static str,
}

/// Consecutive items of a pattern that are parsed in the same way.
#[derive(Clone, Debug)]
enum ParseStep {
    /// Items that chrono parses.
    Items(Vec<Item<'static>>),
    /// A number of exactly this many digits.
    Digits(usize, [Item<'static>; 1]),
    /// A year within its century, of the calendar or of ISO weeks; of exactly two digits (`is_whole`), or of one or
    /// two.
    ShortYear { is_whole: bool, of_weeks: bool },
    /// The digits of a fraction of a second.
    Fraction,
    /// A decimal point and digits, or nothing.
    PointedFraction,
}

impl MomentFault {
    /// Whether it is not valid strftime at all.
    pub fn is_unknown(&self) -> bool {
        *self == UNKNOWN
    }
}

const UNKNOWN: MomentFault = MomentFault {
    what: "is not of strftime",
    remedy: "write it as in strftime, %Y-%m-%d %H:%M:%S",
};
const ZONE: MomentFault = MomentFault {
    what: "has %Z, and the name of a zone says no offset",
    remedy: "write %z for offsets as in +01:00; for texts that all end with UTC write UTC; for names as in Europe/Berlin declare VARCHAR, and write to_timestamp(text, '%Y-%m-%d %H:%M:%S %Z') in SQL",
};
const VARIABLE: MomentFault = MomentFault {
    what: "has a number of no fixed width in front of another number",
    remedy: "put a separator between them, or write fixed widths: %d for %-d, %3f, %6f or %9f for %f",
};
const NO_DAY: MomentFault = MomentFault {
    what: "says no day",
    remedy: "a point in time needs a year, month and day, as in %Y-%m-%d; declare VARCHAR, and complete the text in SQL, as in to_timestamp(month || '-01', '%Y-%m-%d')",
};
const HALF: MomentFault = MomentFault {
    what: "has hours of a half day without %p, or %p without hours",
    remedy: "write %I and %p, or %H",
};
const PASSED_OVER: MomentFault = MomentFault {
    what: "has a part of a time without the larger one: a fraction without seconds, seconds without minutes or minutes without hours",
    remedy: "write the whole time, as in %H:%M:%S%.f",
};

impl MomentPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Why it is no valid pattern, or could not give a point in time.
    pub fn parse(text: &str) -> Result<MomentPattern, MomentFault> {
        let items = StrftimeItems::new(text).parse_to_owned().map_err(|_| UNKNOWN)?;
        if !text.contains('%') {
            return Err(UNKNOWN);
        }
        check(text, &items)?;
        let number = |n: Option<usize>| match n.and_then(|n| items.get(n)) {
            Some(Item::Numeric(field, pad)) => Some((field, *pad)),
            _ => None,
        };
        let has_century = has(&items, &[Numeric::Year, Numeric::YearDiv100]);
        let has_week_century = has(&items, &[Numeric::IsoYear, Numeric::IsoYearDiv100]);
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let part = match item {
                Item::Fixed(Fixed::Nanosecond | Fixed::Nanosecond3 | Fixed::Nanosecond6 | Fixed::Nanosecond9) => {
                    ParseStep::PointedFraction
                }
                Item::Numeric(field, pad) => {
                    let is_followed = number(Some(n + 1)).is_some();
                    let touches = is_followed || number(n.checked_sub(1)).is_some();
                    let width = width(field).filter(|_| *pad != Pad::None);
                    if is_followed && width.is_none() {
                        return Err(VARIABLE);
                    }
                    match (field, width) {
                        (Numeric::Nanosecond, _) => ParseStep::Fraction,
                        (Numeric::YearMod100, _) if !has_century => ParseStep::ShortYear {
                            is_whole: touches,
                            of_weeks: false,
                        },
                        (Numeric::IsoYearMod100, _) if !has_week_century => ParseStep::ShortYear {
                            is_whole: touches,
                            of_weeks: true,
                        },
                        (Numeric::Year | Numeric::IsoYear, _) => ParseStep::Digits(4, [item.clone()]),
                        (_, Some(width)) if touches => ParseStep::Digits(width, [item.clone()]),
                        _ => {
                            plain.push(item.clone());
                            continue;
                        }
                    }
                }
                item => {
                    plain.push(item.clone());
                    continue;
                }
            };
            if !plain.is_empty() {
                parts.push(ParseStep::Items(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(ParseStep::Items(plain));
        }
        Ok(MomentPattern { parts })
    }

    /// Whether chrono alone would parse every text like this pattern.
    pub fn is_of_chrono(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, ParseStep::Items(_)))
    }

    /// The point that a text gives, in UTC unless it has an offset: a date alone means its midnight, an hour without
    /// minutes its start. A fraction finer than a nanosecond sets the lowest bit of the nanoseconds.
    pub fn point(&self, text: &str) -> Option<DateTime<Utc>> {
        instant_of(&self.fields(text)?)
    }

    /// Whether a text has the pattern's form, and names a day that its month does not have: `31.02.2026`.
    pub fn names_no_day(&self, text: &str) -> bool {
        let date = self.fields(text).map(|parsed| parsed.to_naive_date());
        matches!(date, Some(Err(why)) if why.kind() == ParseErrorKind::OutOfRange)
    }

    /// The point that a text gives in a zone; none if the local time does not exist there, or exists twice.
    pub fn point_in<Z: TimeZone>(&self, text: &str, zone: &Z) -> Option<DateTime<Utc>> {
        let point = self.fields(text)?.to_datetime_with_timezone(zone).ok()?;
        Some(point.to_utc())
    }

    fn fields(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        let mut rest = text;
        for part in &self.parts {
            rest = match part {
                ParseStep::Items(items) => parse_and_remainder(&mut parsed, rest, items.iter()).ok()?,
                ParseStep::Digits(width, item) => {
                    let rest = match item {
                        [Item::Numeric(Numeric::Year | Numeric::IsoYear, _)] => rest.trim_start(),
                        _ => rest,
                    };
                    let (number, behind) = rest.split_at_checked(*width)?;
                    let is_padded = matches!(item, [Item::Numeric(_, Pad::Space)]);
                    let digits = if is_padded {
                        number.trim_start_matches(' ')
                    } else {
                        number
                    };
                    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                        return None;
                    }
                    parse(&mut parsed, digits, item.iter()).ok()?;
                    behind
                }
                ParseStep::ShortYear { is_whole, of_weeks } => {
                    let rest = if *is_whole { rest } else { rest.trim_start() };
                    let (year, behind) = rest.split_at(digits(rest).min(2));
                    if year.len() < 1 + usize::from(*is_whole) {
                        return None;
                    }
                    let year: i64 = year.parse().ok()?;
                    let year = if year < 69 { 2000 + year } else { 1900 + year };
                    match of_weeks {
                        true => parsed.set_isoyear(year).ok()?,
                        false => parsed.set_year(year).ok()?,
                    };
                    behind
                }
                ParseStep::Fraction => fraction(&mut parsed, rest)?,
                ParseStep::PointedFraction => match rest.strip_prefix('.') {
                    Some(rest) => fraction(&mut parsed, rest)?,
                    None => rest,
                },
            };
        }
        rest.is_empty().then_some(parsed)
    }
}

/// How many digits a text begins with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Parses the digits of a fraction of a second at the start of a text; returns the rest.
fn fraction<'a>(parsed: &mut Parsed, text: &'a str) -> Option<&'a str> {
    let (digits, rest) = text.split_at(digits(text));
    if digits.is_empty() {
        return None;
    }
    let mut nanos = 0;
    let mut unit = 100_000_000;
    for digit in digits.bytes() {
        match unit {
            // Digits below a nanosecond set its lowest bit, so that the point still counts as finer than a
            // microsecond.
            0 => nanos |= i64::from(digit != b'0'),
            _ => nanos += i64::from(digit - b'0') * unit,
        }
        unit /= 10;
    }
    parsed.set_nanosecond(nanos).ok()?;
    Some(rest)
}

/// How many digits a number must have; none: any number.
fn width(field: &Numeric) -> Option<usize> {
    match field {
        Numeric::Year | Numeric::IsoYear => Some(4),
        Numeric::Ordinal => Some(3),
        Numeric::Quarter | Numeric::NumDaysFromSun | Numeric::WeekdayFromMon => Some(1),
        Numeric::YearDiv100
        | Numeric::YearMod100
        | Numeric::IsoYearDiv100
        | Numeric::IsoYearMod100
        | Numeric::Month
        | Numeric::Day
        | Numeric::WeekFromSun
        | Numeric::WeekFromMon
        | Numeric::IsoWeek
        | Numeric::Hour
        | Numeric::Hour12
        | Numeric::Minute
        | Numeric::Second => Some(2),
        _ => None,
    }
}

fn has(items: &[Item<'_>], any: &[Numeric]) -> bool {
    items
        .iter()
        .any(|item| matches!(item, Item::Numeric(field, _) if any.contains(field)))
}

/// Refuses items that give no point in time.
fn check(text: &str, items: &[Item<'_>]) -> Result<(), MomentFault> {
    let has = |any: &[Numeric]| has(items, any);
    let is = |any: &[Fixed]| {
        items
            .iter()
            .any(|item| matches!(item, Item::Fixed(fixed) if any.contains(fixed)))
    };
    if is(&[Fixed::TimezoneName]) {
        return Err(ZONE);
    }
    let complete = has(&[Numeric::Timestamp]) || is(&[Fixed::RFC3339, Fixed::RFC2822]);
    let month = has(&[Numeric::Month]) || is(&[Fixed::ShortMonthName, Fixed::LongMonthName]);
    let weekday = has(&[Numeric::NumDaysFromSun, Numeric::WeekdayFromMon])
        || is(&[Fixed::ShortWeekdayName, Fixed::LongWeekdayName]);
    let year = has(&[Numeric::Year, Numeric::YearMod100]);
    let of_year = month && has(&[Numeric::Day])
        || has(&[Numeric::Ordinal])
        || has(&[Numeric::WeekFromSun, Numeric::WeekFromMon]) && weekday;
    let of_weeks = has(&[Numeric::IsoYear, Numeric::IsoYearMod100]) && has(&[Numeric::IsoWeek]) && weekday;
    if !(complete || year && of_year || of_weeks) {
        return Err(NO_DAY);
    }
    let half = is(&[Fixed::LowerAmPm, Fixed::UpperAmPm]);
    let hour = has(&[Numeric::Hour]) || half && has(&[Numeric::Hour12]);
    if !hour && (half || has(&[Numeric::Hour12])) {
        return Err(HALF);
    }
    let (minute, second) = (has(&[Numeric::Minute]), has(&[Numeric::Second]));
    let fraction = has(&[Numeric::Nanosecond])
        || ["%3f", "%6f", "%9f"].iter().any(|digits| text.contains(digits))
        || is(&[
            Fixed::Nanosecond,
            Fixed::Nanosecond3,
            Fixed::Nanosecond6,
            Fixed::Nanosecond9,
        ]);
    if minute && !hour || second && !minute || fraction && !second && !complete {
        return Err(PASSED_OVER);
    }
    Ok(())
}

/// The point that the parsed fields give.
fn instant_of(parsed: &Parsed) -> Option<DateTime<Utc>> {
    if let Ok(point) = parsed.to_datetime() {
        return Some(point.to_utc());
    }
    if let Ok(point) = parsed.to_naive_datetime_with_offset(0) {
        return Some(point.and_utc());
    }
    let date = parsed.to_naive_date().ok()?;
    let time = match (parsed.hour_div_12(), parsed.hour_mod_12()) {
        (None, None) => NaiveTime::MIN,
        (Some(half), Some(hour)) => NaiveTime::from_hms_opt(half * 12 + hour, parsed.minute().unwrap_or(0), 0)?,
        _ => return None,
    };
    let offset = chrono::TimeDelta::seconds(i64::from(parsed.offset().unwrap_or(0)));
    date.and_time(time).and_utc().checked_sub_signed(offset)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn read(pattern: &str, text: &str) -> Option<String> {
        let pattern = MomentPattern::parse(pattern).unwrap_or_else(|fault| panic!("{pattern} {}", fault.what));
        let point = pattern.point(text)?;
        Some(point.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
    }

    /// Of `31.02.2026` it was said that its pattern is missing.
    #[test]
    fn a_day_that_its_month_does_not_have_is_told_from_a_text_of_another_form() {
        let pattern = MomentPattern::parse("%d.%m.%Y").unwrap();
        for (text, is_no_day) in [
            ("31.02.2026", true),
            ("29.02.2025", true),
            ("29.02.2024", false),
            ("2026-02-31", false),
            ("yesterday", false),
        ] {
            assert_eq!(pattern.names_no_day(text), is_no_day, "{text}");
        }
    }

    /// `.500000` became half a millisecond, because chrono's `%f` counts nanoseconds.
    #[test]
    fn digits_behind_a_second_are_a_fraction_of_it() {
        for (pattern, text, point) in [
            ("%Y-%m-%d %H:%M:%S.%f", "2024-01-01 10:00:00.500000", "10:00:00.500"),
            ("%Y-%m-%d %H:%M:%S.%f", "2024-01-01 10:00:00.5", "10:00:00.500"),
            ("%Y-%m-%d %H:%M:%S,%f", "2024-01-01 10:00:00,123", "10:00:00.123"),
            ("%Y-%m-%d %T.%f%z", "2024-01-01 11:00:00.25+01:00", "10:00:00.250"),
            ("%Y-%m-%d %H:%M:%S:%f", "2024-01-01 10:00:00:007", "10:00:00.007"),
            ("%Y-%m-%d %H:%M:%S%.3f", "2024-01-01 10:00:00.5", "10:00:00.500"),
            ("%Y-%m-%d %H:%M:%S%.f", "2024-01-01 10:00:00", "10:00:00"),
            ("%Y-%m-%d %H:%M:%S.%3f", "2024-01-01 10:00:00.050", "10:00:00.050"),
            ("%Y-%m-%d %H%M%S%f", "2024-01-01 10000004", "10:00:00.040"),
            // A tenth digit used to have no effect.
            (
                "%Y-%m-%d %H:%M:%S%.f",
                "2024-01-01 10:00:00.1000000001",
                "10:00:00.100000001",
            ),
            ("%s.%f", "1704103200.5", "10:00:00.500"),
        ] {
            let expected = Some(format!("2024-01-01T{point}"));
            assert_eq!(read(pattern, text), expected, "{text} by {pattern}");
        }
        for text in ["2024-01-01 10:00:00", "2024-01-01 10:00:00.", "2024-01-01 10:00:00.5x"] {
            assert_eq!(read("%Y-%m-%d %H:%M:%S.%f", text), None, "{text}");
        }
    }

    /// `2024011` was read as the first of January.
    #[test]
    fn numbers_that_touch_have_all_of_their_digits() {
        for (pattern, text, is_read) in [
            ("%Y%m%d", "20240101", true),
            ("%Y%m%d", "2024011", false),
            ("%Y%m%d", "020240101", false),
            ("%Y%m%d", "2024 1 1", false),
            ("%Y%m%d", "2024-1-1", false),
            ("%Y%m%d%H%M%S", "20240101103000", true),
            ("%Y%m%d%H%M%S", "2024010110300", false),
            ("%Y%m%dT%H%M%S", "20240101T10300", false),
            ("%y%m%d", "240101", true),
            ("%y%m%d", "24101", false),
            ("%Y%j", "2024001", true),
            ("%Y%j", "202401", false),
            ("%Y%m%e", "202401 1", true),
            ("%Y%m%e", "202401  ", false),
            ("%Y%m%-d", "2024011", true),
            // If numbers are not adjacent, leading zeros may be missing.
            ("%m/%d/%Y %H:%M", "1/2/2024 3:04", true),
            ("%d%b%Y", "1Jan2024", true),
            ("%Y-%m-%d", "24-01-01", false),
            ("%Y-%m-%d", "12024-01-01", false),
            ("%Y%m%d", "2024é01", false),
        ] {
            assert_eq!(read(pattern, text).is_some(), is_read, "{text} by {pattern}");
        }
    }

    /// 69 was read as 2069.
    #[test]
    fn years_of_two_digits_are_those_of_posix() {
        for (text, year) in [
            ("69", "1969"),
            ("68", "2068"),
            ("00", "2000"),
            ("99", "1999"),
            ("70", "1970"),
        ] {
            let point = read("%m/%d/%y", &format!("1/2/{text}")).unwrap();
            assert_eq!(&point[..4], year, "{text}");
            let week = read("%g-W%V-%u", &format!("{text}-W20-1")).unwrap();
            assert_eq!(&week[..4], year, "{text}");
        }
        assert_eq!(read("%C%y-%m-%d", "2069-01-02").as_deref(), Some("2069-01-02T00:00:00"));
    }

    #[test]
    fn patterns_that_give_no_point_or_pass_over_text_are_refused_with_the_reason() {
        for (pattern, fault) in [
            ("yyyy-MM-dd", UNKNOWN),
            ("%Q", UNKNOWN),
            ("%Y-%m-%d %H:%M:%S %Z", ZONE),
            ("%Y-%m", NO_DAY),
            ("%Y", NO_DAY),
            ("%H:%M", NO_DAY),
            ("%d.%m.", NO_DAY),
            ("%G-W%V", NO_DAY),
            ("%a %Y", NO_DAY),
            ("%Y-%m-%d %I:%M", HALF),
            ("%Y-%m-%d %p", HALF),
            ("%Y-%m-%d %H %S", PASSED_OVER),
            ("%Y-%m-%d %M:%S", PASSED_OVER),
            ("%Y-%m-%d %H:%M.%f", PASSED_OVER),
            ("%Y-%m-%d.%3f", PASSED_OVER),
            ("%Y%-m%-d", VARIABLE),
            ("%H%M%S%f%Y%m%d", VARIABLE),
            ("%s%f", VARIABLE),
        ] {
            assert_eq!(MomentPattern::parse(pattern).err(), Some(fault), "{pattern}");
        }
        for pattern in ["%Y-%m-%d", "%Y%j", "%D", "%c", "%+"] {
            assert!(MomentPattern::parse(pattern).is_ok(), "{pattern}");
        }
    }
}
