//! Converts text and numbers to points in time: microseconds since 1970-01-01 00:00, without a zone (UTC if the text
//! has one), for the years 1 to 9999.
//!
//! In every format, a point finer than a microsecond is refused, unless the column's `format` says that it is
//! truncated ([`SubMicrosecondRule`]). PostgreSQL silently rounds it instead. That would be an unreported loss, could
//! merge two points into one, and would move .NET's last point, 9999-12-31 23:59:59.9999999, out of the calendar.

use chrono::NaiveDate;

use crate::decode::coerce::ParseFailure;
use crate::decode::target::{EpochUnit, SubMicrosecondRule, TextPattern};
use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

/// Microseconds in a day.
pub const DAY: i64 = 86_400_000_000;
/// chrono's day number of 1970-01-01.
const UNIX_DAY: i32 = 719_163;

/// Why a point that is finer than a microsecond is refused.
const TOO_FINE: ParseFailure = ParseFailure::Custom(
    "is finer than a microsecond; have the rest cut off by the column's `format = \"cut_to_us\"`, or declare VARCHAR",
);

/// A point in time before fractions of a microsecond are refused or truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreciseMoment {
    /// The point, rounded down to a microsecond.
    pub micros: i64,
    /// Whether the point lies behind that.
    pub is_finer: bool,
}

impl PreciseMoment {
    fn whole(micros: i64) -> PreciseMoment {
        PreciseMoment {
            micros,
            is_finer: false,
        }
    }

    /// The point in microseconds, if it lies in the years 1 to 9999 and loses nothing that must not be lost.
    fn to_micros(self, finer: SubMicrosecondRule) -> Result<i64, ParseFailure> {
        match (FIRST_MOMENT..=LAST_MOMENT).contains(&self.micros) {
            true if self.is_finer && finer == SubMicrosecondRule::Refused => Err(TOO_FINE),
            true => Ok(self.micros),
            false => Err(ParseFailure::Beyond),
        }
    }
}

/// Parses a point in time by the patterns, or as ISO 8601 if there are none. It is refused if two patterns read it
/// differently.
pub fn point(text: &str, patterns: &[TextPattern], finer: SubMicrosecondRule) -> Result<i64, ParseFailure> {
    if patterns.is_empty() {
        return match iso(text.as_bytes()) {
            Some(point) => point.to_micros(finer),
            None if has_long_year(text) => Err(ParseFailure::Beyond),
            None => Err(ParseFailure::Not),
        };
    }
    let mut outcome = Err(ParseFailure::Not);
    for pattern in patterns {
        match (
            by_pattern(text, pattern).and_then(|point| point.to_micros(finer)),
            outcome,
        ) {
            (Ok(point), Ok(before)) if point != before => return Err(super::AMBIGUOUS),
            (Ok(point), _) => outcome = Ok(point),
            (Err(why), Err(ParseFailure::Not)) => outcome = Err(why),
            (Err(_), _) => (),
        }
    }
    outcome
}

/// Whether a text has the form of a point by one of the patterns, or in ISO 8601 if there are none, and names a day that
/// its month does not have: `31.02.2026`.
pub fn names_no_day(text: &str, patterns: &[TextPattern]) -> bool {
    if patterns.is_empty() {
        let mut first = text.as_bytes().to_vec();
        if !number(&first, 8, 2).is_some_and(|day| (29..=31).contains(&day)) || iso(&first).is_some() {
            return false;
        }
        first[8..10].copy_from_slice(b"01");
        return iso(&first).is_some();
    }
    patterns.iter().any(|pattern| match pattern {
        TextPattern::Plain(_, written) | TextPattern::Written(written) => written.names_no_day(text),
        TextPattern::Epoch(_) => false,
    })
}

/// Whether a text is ISO 8601 except that its year has a sign or more than four digits: `+10000-01-01`.
fn has_long_year(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']);
    let year = unsigned.unwrap_or(text);
    let digits = year.bytes().take_while(u8::is_ascii_digit).count();
    let is_long = digits > 4 || (digits == 4 && unsigned.is_some());
    is_long && iso(format!("2000{}", &year[digits..]).as_bytes()).is_some()
}

fn by_pattern(text: &str, pattern: &TextPattern) -> Result<PreciseMoment, ParseFailure> {
    let written = match pattern {
        TextPattern::Epoch(unit) => return counted(text, *unit),
        TextPattern::Plain(joint, written) => {
            let bytes = text.as_bytes();
            if bytes.len() == 19
                && bytes[10] == *joint
                && bytes[16] == b':'
                && let Some(point) = iso(bytes)
            {
                return Ok(point);
            }
            written
        }
        TextPattern::Written(written) => written,
    };
    let point = written.point(text).ok_or(ParseFailure::Not)?;
    Ok(PreciseMoment {
        micros: point.timestamp_micros(),
        is_finer: !point.timestamp_subsec_nanos().is_multiple_of(1000),
    })
}

/// A point from the text of a number that counts units.
pub fn count(text: &str, unit: EpochUnit, finer: SubMicrosecondRule) -> Result<i64, ParseFailure> {
    counted(text, unit)?.to_micros(finer)
}

fn counted(text: &str, unit: EpochUnit) -> Result<PreciseMoment, ParseFailure> {
    match super::number::integer(text) {
        Ok(n) => whole(n, unit),
        // A number of seconds may have a fraction, as Python writes it.
        Err(ParseFailure::TooFine) => {
            let digits = match unit {
                EpochUnit::Seconds => 6,
                EpochUnit::Millis => 3,
                EpochUnit::Micros => 0,
                EpochUnit::Nanos | EpochUnit::Days => return Err(ParseFailure::TooFine),
            };
            let (micros, is_finer) = match super::number::decimal(text, 38, digits) {
                Err(ParseFailure::TooFine) => {
                    let end = text.find('.').map_or(text.len(), |point| point + 1 + digits as usize);
                    let cut = super::number::decimal(&text[..end.min(text.len())], 38, digits)?;
                    // For a negative number the truncated part lies before the point.
                    (cut - i128::from(text.starts_with('-')), true)
                }
                read => (read?, false),
            };
            let micros = i64::try_from(micros).map_err(|_| ParseFailure::Beyond)?;
            Ok(PreciseMoment { micros, is_finer })
        }
        Err(why) => Err(why),
    }
}

/// A point from a number that counts units.
pub fn scaled(n: i64, unit: EpochUnit, finer: SubMicrosecondRule) -> Result<i64, ParseFailure> {
    whole(n, unit)?.to_micros(finer)
}

fn whole(n: i64, unit: EpochUnit) -> Result<PreciseMoment, ParseFailure> {
    let point = match unit {
        EpochUnit::Seconds => n.checked_mul(1_000_000),
        EpochUnit::Millis => n.checked_mul(1000),
        EpochUnit::Micros => Some(n),
        EpochUnit::Nanos => return nanos(i128::from(n)),
        EpochUnit::Days => n.checked_mul(DAY),
    };
    point.map(PreciseMoment::whole).ok_or(ParseFailure::Beyond)
}

fn nanos(n: i128) -> Result<PreciseMoment, ParseFailure> {
    let micros = i64::try_from(n.div_euclid(1000)).map_err(|_| ParseFailure::Beyond)?;
    Ok(PreciseMoment {
        micros,
        is_finer: n % 1000 != 0,
    })
}

/// A point from a number of nanoseconds of any size.
pub fn wide(n: i128, finer: SubMicrosecondRule) -> Result<i64, ParseFailure> {
    nanos(n)?.to_micros(finer)
}

/// The day of a point, if that is a midnight.
pub fn day(point: i64) -> Result<i32, ParseFailure> {
    if point % DAY != 0 {
        return Err(ParseFailure::Custom(
            "has a time of day; declare TIMESTAMP and cast in SQL",
        ));
    }
    i32::try_from(point / DAY).map_err(|_| ParseFailure::Beyond)
}

/// Parses `2011-12-09` or `2011-12-09Z`, or the former followed by `T` or a blank, by `12:50`, `12:50:00` or
/// `12:50:00.123456789`, and optionally by `Z`, `+01`, `+0100` or `+01:00`. Also the basic form `20111209T125000Z`
/// with a time.
pub fn iso(text: &[u8]) -> Option<PreciseMoment> {
    if text.get(8).is_some_and(|joint| matches!(joint, b'T' | b't')) {
        return basic(text);
    }
    let year = number(text, 0, 4)?;
    let month = number(text, 5, 2)?;
    let day = number(text, 8, 2)?;
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32)?;
    let days = i64::from(chrono::Datelike::num_days_from_ce(&date) - UNIX_DAY);
    if text.len() == 10 {
        return Some(PreciseMoment::whole(days * DAY));
    }
    if text[10] == b'Z' {
        // `2011-12-09Z`, as Debezium's `isostring` writes dates.
        return (text.len() == 11).then_some(PreciseMoment::whole(days * DAY));
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
    let mut is_finer = false;
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
            is_finer = tail[digits.min(6)..digits].iter().any(|digit| *digit != b'0');
            rest = &tail[digits..];
        }
    }
    Some(PreciseMoment {
        micros: micros - zone(rest)? * 1_000_000,
        is_finer,
    })
}

/// Parses the basic form by converting it to the extended one.
fn basic(text: &[u8]) -> Option<PreciseMoment> {
    let mut long = [0; 64];
    let mut length = 0;
    let mut push = |part: &[u8]| {
        long.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
        Some(())
    };
    for (at, digits, behind) in [(0, 4, "-"), (4, 2, "-"), (6, 2, "T"), (9, 2, ":"), (11, 2, "")] {
        number(text, at, digits)?;
        push(&text[at..at + digits])?;
        push(behind.as_bytes())?;
    }
    if text.get(13).is_some_and(u8::is_ascii_digit) {
        push(b":")?;
    }
    push(&text[13..])?;
    iso(&long[..length])
}

/// Parses an offset, in seconds east of Greenwich.
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
    use proptest::prelude::*;

    use super::*;
    use crate::definition::MomentPattern;

    /// `2026-02-31` was told to be written in ISO 8601, in which it is.
    #[test]
    fn a_day_that_its_month_does_not_have_is_told_from_a_text_of_another_form() {
        for (text, is_no_day) in [
            ("2026-02-31", true),
            ("2026-04-31T10:00:00Z", true),
            ("2026-02-28", false),
            ("2026-13-31", false),
            ("31.02.2026", false),
            ("", false),
        ] {
            assert_eq!(names_no_day(text, &[]), is_no_day, "{text}");
        }
    }

    #[test]
    fn iso_texts_of_every_shape_are_read_as_utc() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-02T00:00:01Z", DAY + 1_000_000),
            ("1970-01-02Z", DAY),
            ("1970-01-01 00:00:00.1", 100_000),
            ("1970-01-01 00:00:00.123456000", 123_456),
            ("1970-01-01T01:00+01:00", 0),
            ("1970-01-01T00:00:00-0130", 5_400_000_000),
            ("1969-12-31 23:59:59.999999", -1),
            ("2011-12-09 12:50:00 +00", 1_323_435_000_000_000),
            ("20111209T125000Z", 1_323_435_000_000_000),
            ("20111209T1250", 1_323_435_000_000_000),
            ("20111209T135000.5+0100", 1_323_435_000_500_000),
        ] {
            assert_eq!(iso(text.as_bytes()), Some(PreciseMoment::whole(micros)), "{text}");
        }
        for text in [
            "",
            "2011",
            "2011-02-30",
            "2011-12-09X12:50",
            "2011-12-09 24:00",
            "2011-12-09 12:50:00.",
            "2011/12/09",
            "20111209",
            "20111209 125000",
            "20111209T12500",
            "20111209T12:50:00",
            "20111209T12",
        ] {
            assert_eq!(iso(text.as_bytes()), None, "{text}");
        }
    }

    /// Digits behind the sixth were silently cut off.
    #[test]
    fn what_is_finer_than_a_microsecond_is_refused_or_cut_off_whatever_it_is_written_as() {
        let written = [pattern("%d.%m.%Y %H:%M:%S%.f")];
        let iso = |text: &str, finer| point(text, &[], finer);
        let by_pattern = |text: &str, finer| point(text, &written, finer);
        let nanos = |n: i64, finer| scaled(n, EpochUnit::Nanos, finer);
        let seconds = |text: &str, finer| count(text, EpochUnit::Seconds, finer);
        type Read<'a> = Box<dyn Fn(SubMicrosecondRule) -> Result<i64, ParseFailure> + 'a>;
        let reads: [(Read<'_>, i64); 9] = [
            (Box::new(|finer| iso("1970-01-01T00:00:00.1234567Z", finer)), 123_456),
            (Box::new(|finer| iso("1969-12-31 23:59:59.999999999", finer)), -1),
            (
                Box::new(|finer| iso("9999-12-31T23:59:59.9999999", finer)),
                253_402_300_799_999_999,
            ),
            (
                Box::new(|finer| by_pattern("01.01.1970 00:00:00.1234567", finer)),
                123_456,
            ),
            (Box::new(|finer| nanos(1_500, finer)), 1),
            (Box::new(|finer| nanos(-1, finer)), -1),
            (
                Box::new(|finer| wide(-62_135_596_800_000_000_000 + 1, finer)),
                FIRST_MOMENT,
            ),
            (Box::new(|finer| seconds("1.0000009", finer)), 1_000_000),
            (Box::new(|finer| seconds("-1.0000009", finer)), -1_000_001),
        ];
        for (n, (read, cut)) in reads.iter().enumerate() {
            assert_eq!(read(SubMicrosecondRule::Refused), Err(TOO_FINE), "the read {n}");
            assert_eq!(read(SubMicrosecondRule::CutOff), Ok(*cut), "the read {n}");
        }
        assert_eq!(
            iso("1970-01-01T00:00:00.123456000Z", SubMicrosecondRule::Refused),
            Ok(123_456)
        );
        assert_eq!(seconds("-1.5", SubMicrosecondRule::Refused), Ok(-1_500_000));
        assert_eq!(nanos(-1_000, SubMicrosecondRule::Refused), Ok(-1));
    }

    #[test]
    fn points_lie_between_the_years_1_and_9999() {
        for text in ["0000-12-31", "0000-01-01T00:00:00", "0001-01-01T00:00:00+01:00"] {
            assert_eq!(
                point(text, &[], SubMicrosecondRule::CutOff),
                Err(ParseFailure::Beyond),
                "{text}"
            );
        }
        for (n, unit) in [
            (-719_163, EpochUnit::Days),
            (FIRST_MOMENT / 1000 - 1, EpochUnit::Millis),
            (2_932_897, EpochUnit::Days),
        ] {
            assert_eq!(
                scaled(n, unit, SubMicrosecondRule::CutOff),
                Err(ParseFailure::Beyond),
                "{n}"
            );
        }
        for text in [
            "+10000-01-01",
            "10000-01-01T00:00:00Z",
            "-0044-03-15",
            "294276-12-31 23:59:59.9",
        ] {
            assert_eq!(
                point(text, &[], SubMicrosecondRule::CutOff),
                Err(ParseFailure::Beyond),
                "{text}"
            );
        }
        for text in ["10000-01", "+2024-13-01", "20240101", "-1", "+1-01-01", "1234567890"] {
            assert_eq!(
                point(text, &[], SubMicrosecondRule::CutOff),
                Err(ParseFailure::Not),
                "{text}"
            );
        }
        assert_eq!(point("0001-01-01", &[], SubMicrosecondRule::Refused), Ok(FIRST_MOMENT));
        assert_eq!(
            point("9999-12-31T23:59:59.999999", &[], SubMicrosecondRule::Refused),
            Ok(LAST_MOMENT)
        );
    }

    fn pattern(text: &str) -> TextPattern {
        TextPattern::Written(MomentPattern::parse(text).expect("a pattern"))
    }

    /// A text was silently read by the first of two patterns that read it differently.
    #[test]
    fn a_text_that_two_patterns_read_differently_is_refused() {
        let day_or_month = [pattern("%d/%m/%Y"), pattern("%m/%d/%Y")];
        assert_eq!(
            point("03/04/2024", &day_or_month, SubMicrosecondRule::Refused),
            Err(super::super::AMBIGUOUS)
        );
        assert_eq!(
            point("13/04/2024", &day_or_month, SubMicrosecondRule::Refused),
            point("04/13/2024", &day_or_month, SubMicrosecondRule::Refused)
        );
        assert_eq!(
            point("04/04/2024", &day_or_month, SubMicrosecondRule::Refused),
            Ok(19_817 * DAY),
            "both read the same"
        );
        let count_or_day = [TextPattern::Epoch(EpochUnit::Seconds), pattern("%Y%m%d %H")];
        assert_eq!(
            point("20240101", &count_or_day, SubMicrosecondRule::Refused),
            Ok(20_240_101_000_000)
        );
        assert_eq!(
            point("20240101 00", &count_or_day, SubMicrosecondRule::Refused),
            Ok(19_723 * DAY)
        );
        let usual = MomentPattern::parse("%Y-%m-%d %H:%M:%S").expect("a pattern");
        let plain = [TextPattern::Plain(b' ', usual), pattern("%Y-%d-%m %H:%M:%S")];
        assert_eq!(
            point("2024-03-04 00:00:00", &plain, SubMicrosecondRule::Refused),
            Err(super::super::AMBIGUOUS)
        );
    }

    /// `%Y` read 24 as the year 24.
    #[test]
    fn a_whole_year_has_four_digits() {
        let whole = [pattern("%m/%d/%Y")];
        assert_eq!(
            point("1/31/17", &whole, SubMicrosecondRule::Refused),
            Err(ParseFailure::Not)
        );
        assert!(point("01/31/0017", &whole, SubMicrosecondRule::Refused).is_ok());
        let both = [pattern("%m/%d/%Y"), pattern("%m/%d/%y")];
        assert_eq!(
            point("1/31/17", &both, SubMicrosecondRule::Refused),
            point("1/31/2017", &both, SubMicrosecondRule::Refused)
        );
        assert!(point("1/31/17", &both, SubMicrosecondRule::Refused).is_ok());
    }

    proptest! {
        #[test]
        fn every_microsecond_of_four_millennia_reads_back(micros in -62_135_596_800_000_000i64..64_092_211_200_000_000) {
            let point = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
            let text = point.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(iso(text.as_bytes()), Some(PreciseMoment::whole(micros)));
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = iso(&bytes);
        }
    }
}
