//! Text and numbers to points in time: microseconds since 1970-01-01 00:00, without a zone (UTC where the
//! text has one), from the year 0 to 9999. What is finer than a microsecond is cut off.

use chrono::format::{Parsed, parse};
use chrono::{NaiveDate, NaiveTime};

use super::Why;
use crate::decode::target::{Epoch, Pattern};

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// 0000-01-01 00:00 and the last microsecond of 9999-12-31: what a DATE and a TIMESTAMP hold, in every engine that reads them.
/// The year 0 is among them since Debezium tells 0001-01-01 by Java's old calendar, in which it is two days earlier.
const FIRST: i64 = -62_167_219_200_000_000;
const LAST: i64 = 253_402_300_799_999_999;
/// chrono's count of days at 1970-01-01.
const UNIX_DAY: i32 = 719_163;

/// A point in time from text, by the patterns, or ISO 8601 without any. Two patterns that read it as two points tell nothing.
pub fn point(text: &str, patterns: &[Pattern]) -> Result<i64, Why> {
    if patterns.is_empty() {
        return within(iso(text.as_bytes()).ok_or(Why::Not)?);
    }
    let mut found = Err(Why::Not);
    for pattern in patterns {
        match (by_pattern(text, pattern).and_then(within), found) {
            (Ok(point), Ok(before)) if point != before => return Err(super::AMBIGUOUS),
            (Ok(point), _) => found = Ok(point),
            (Err(why), Err(Why::Not)) => found = Err(why),
            (Err(_), _) => (),
        }
    }
    found
}

fn by_pattern(text: &str, pattern: &Pattern) -> Result<i64, Why> {
    let items = match pattern {
        Pattern::Epoch(unit) => return count(text, *unit),
        Pattern::Plain(joint, items) => {
            let bytes = text.as_bytes();
            if bytes.len() == 19
                && bytes[10] == *joint
                && bytes[16] == b':'
                && let Some(point) = iso(bytes)
            {
                return Ok(point);
            }
            items
        }
        Pattern::Items(items) => items,
    };
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, items.iter()).map_err(|_| Why::Not)?;
    // chrono takes fewer than four digits for a whole year: 24 as the year 24.
    if let Some(year) = parsed.year().filter(|year| (0..1000).contains(year))
        && !text.contains(&format!("{year:04}"))
    {
        return Err(Why::Not);
    }
    settle(&parsed).ok_or(Why::Not)
}

/// What was parsed as a point; a date alone is its midnight, an hour without minutes its start.
fn settle(parsed: &Parsed) -> Option<i64> {
    if let Ok(point) = parsed.to_datetime() {
        return Some(point.timestamp_micros());
    }
    let offset = i64::from(parsed.offset().unwrap_or(0)) * 1_000_000;
    if let Ok(point) = parsed.to_naive_datetime_with_offset(0) {
        return Some(point.and_utc().timestamp_micros());
    }
    let date = parsed.to_naive_date().ok()?;
    let time = match (parsed.hour_div_12(), parsed.hour_mod_12()) {
        (None, None) => NaiveTime::MIN,
        (Some(half), Some(hour)) => NaiveTime::from_hms_opt(half * 12 + hour, parsed.minute().unwrap_or(0), 0)?,
        _ => return None,
    };
    Some(date.and_time(time).and_utc().timestamp_micros() - offset)
}

/// A point from a number in text.
pub fn count(text: &str, unit: Epoch) -> Result<i64, Why> {
    match super::number::integer(text) {
        Ok(n) => scaled(n, unit),
        // Seconds with a fraction, as Python writes them.
        Err(Why::TooFine) => {
            let digits = match unit {
                Epoch::Seconds => 6,
                Epoch::Millis => 3,
                _ => return Err(Why::TooFine),
            };
            let cut = text.find('.').map_or(text, |p| &text[..text.len().min(p + 1 + digits)]);
            let micros = super::number::decimal(cut, 38, digits as i8)?;
            i64::try_from(micros).map_err(|_| Why::Beyond).and_then(within)
        }
        Err(why) => Err(why),
    }
}

/// A point between the years 0 and 9999.
fn within(point: i64) -> Result<i64, Why> {
    match (FIRST..=LAST).contains(&point) {
        true => Ok(point),
        false => Err(Why::Beyond),
    }
}

/// A point from nanoseconds, where it is a whole microsecond.
pub fn exact_nanos(n: i64) -> Result<i64, Why> {
    match n % 1000 {
        0 => scaled(n, Epoch::Nanos),
        _ => Err(Why::Custom(
            "has nanoseconds, and microseconds are held; cut them off by `format = \"epoch_ns\"`, or declare VARCHAR",
        )),
    }
}

/// A point from a number.
pub fn scaled(n: i64, unit: Epoch) -> Result<i64, Why> {
    let point = match unit {
        Epoch::Seconds => n.checked_mul(1_000_000),
        Epoch::Millis => n.checked_mul(1000),
        Epoch::Micros => Some(n),
        Epoch::Nanos => Some(n.div_euclid(1000)),
        Epoch::Days => n.checked_mul(DAY),
    };
    within(point.ok_or(Why::Beyond)?)
}

/// A day of a point, where it is a midnight.
pub fn day(point: i64) -> Result<i32, Why> {
    if point % DAY != 0 {
        return Err(Why::Custom("has a time of day; declare TIMESTAMP and cast in SQL"));
    }
    i32::try_from(point / DAY).map_err(|_| Why::Beyond)
}

/// `2011-12-09` or `2011-12-09Z`, or the former and `T` or a blank and `12:50`, `12:50:00`, `12:50:00.123456789`, then optionally
/// `Z`, `+01`, `+0100` or `+01:00`.
pub fn iso(text: &[u8]) -> Option<i64> {
    let year = number(text, 0, 4)?;
    let month = number(text, 5, 2)?;
    let day = number(text, 8, 2)?;
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32)?;
    let days = i64::from(chrono::Datelike::num_days_from_ce(&date) - UNIX_DAY);
    if text.len() == 10 {
        return Some(days * DAY);
    }
    if text[10] == b'Z' {
        // Debezium's `isostring` dates.
        return (text.len() == 11).then_some(days * DAY);
    }
    if !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let hour = number(text, 11, 2)?;
    let minute = number(text, 14, 2)?;
    if text[13] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut micros = days * DAY + (hour * 3600 + minute * 60) * 1_000_000;
    let mut rest = &text[16..];
    if let [b':', tail @ ..] = rest {
        let second = number(tail, 0, 2)?;
        if second > 59 {
            return None;
        }
        micros += second * 1_000_000;
        rest = &tail[2..];
        if let [b'.' | b',', tail @ ..] = rest {
            let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 || digits > 18 {
                return None;
            }
            let mut unit = 100_000;
            for digit in &tail[..digits.min(6)] {
                micros += i64::from(digit - b'0') * unit;
                unit /= 10;
            }
            rest = &tail[digits..];
        }
    }
    Some(micros - zone(rest)? * 1_000_000)
}

/// Seconds east of Greenwich.
fn zone(mut text: &[u8]) -> Option<i64> {
    while let [b' ', tail @ ..] = text {
        text = tail;
    }
    let (sign, text) = match text {
        [] | [b'Z' | b'z'] | b"UTC" => return Some(0),
        [b'+', tail @ ..] => (1, tail),
        [b'-', tail @ ..] => (-1, tail),
        _ => return None,
    };
    let minutes = match text.len() {
        2 => 0,
        4 => number(text, 2, 2)?,
        5 if text[2] == b':' => number(text, 3, 2)?,
        _ => return None,
    };
    let hours = number(text, 0, 2)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(text: &[u8], at: usize, length: usize) -> Option<i64> {
    text.get(at..at + length)?
        .iter()
        .try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use chrono::format::StrftimeItems;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn iso_texts_of_every_shape_are_read_as_utc() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-02T00:00:01Z", DAY + 1_000_000),
            ("1970-01-02Z", DAY),
            ("1970-01-01 00:00:00.1", 100_000),
            ("1970-01-01 00:00:00.123456789", 123_456),
            ("1970-01-01T01:00+01:00", 0),
            ("1970-01-01T00:00:00-0130", 5_400_000_000),
            ("1969-12-31 23:59:59.999999", -1),
            ("2011-12-09 12:50:00 +00", 1_323_435_000_000_000),
        ] {
            assert_eq!(iso(text.as_bytes()), Some(micros), "{text}");
        }
        for text in [
            "",
            "2011",
            "2011-02-30",
            "2011-12-09X12:50",
            "2011-12-09 24:00",
            "2011-12-09 12:50:00.",
            "2011/12/09",
        ] {
            assert_eq!(iso(text.as_bytes()), None, "{text}");
        }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::Items(StrftimeItems::new(text).parse_to_owned().expect("a pattern"))
    }

    /// A day was silently what the first of two patterns read.
    #[test]
    fn a_text_that_two_patterns_read_differently_is_refused() {
        let day_or_month = [pattern("%d/%m/%Y"), pattern("%m/%d/%Y")];
        assert_eq!(point("03/04/2024", &day_or_month), Err(super::super::AMBIGUOUS));
        assert_eq!(point("13/04/2024", &day_or_month), point("04/13/2024", &day_or_month));
        assert_eq!(
            point("04/04/2024", &day_or_month),
            Ok(19_817 * DAY),
            "both read the same"
        );
        let count_or_day = [Pattern::Epoch(Epoch::Seconds), pattern("%Y%m%d %H")];
        assert_eq!(point("20240101", &count_or_day), Ok(20_240_101_000_000));
        assert_eq!(point("20240101 00", &count_or_day), Ok(19_723 * DAY));
        let plain = [Pattern::Plain(b' ', vec![]), pattern("%Y-%d-%m %H:%M:%S")];
        assert_eq!(point("2024-03-04 00:00:00", &plain), Err(super::super::AMBIGUOUS));
    }

    /// `%Y` took 24 for the year 24.
    #[test]
    fn a_whole_year_has_four_digits() {
        let whole = [pattern("%m/%d/%Y")];
        assert_eq!(point("1/31/17", &whole), Err(Why::Not));
        assert!(point("01/31/0017", &whole).is_ok());
        let both = [pattern("%m/%d/%Y"), pattern("%m/%d/%y")];
        assert_eq!(point("1/31/17", &both), point("1/31/2017", &both));
        assert!(point("1/31/17", &both).is_ok());
    }

    proptest! {
        #[test]
        fn every_microsecond_of_four_millennia_reads_back(micros in -62_135_596_800_000_000i64..64_092_211_200_000_000) {
            let point = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
            prop_assert_eq!(iso(point.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().as_bytes()), Some(micros));
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = iso(&bytes);
        }
    }
}
