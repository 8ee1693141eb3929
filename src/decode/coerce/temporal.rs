//! Text and numbers to points in time: microseconds since 1970-01-01 00:00, without a zone (UTC where the text has one), from
//! the year 1 to 9999.
//!
//! One rule for what is finer than a microsecond, of every format: it is refused, unless the column's `format` says that it
//! is cut off ([`Finer`]). PostgreSQL rounds it instead, without a word. That would be a loss that nobody is told of, could
//! make one moment of two, and would carry .NET's last moment, 9999-12-31 23:59:59.9999999, out of the calendar.

use chrono::NaiveDate;

use super::Why;
use crate::decode::target::{Epoch, Finer, Pattern};
use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// chrono's count of days at 1970-01-01.
const UNIX_DAY: i32 = 719_163;

/// Why a point that is finer than a microsecond is refused.
const TOO_FINE: Why = Why::Custom(
    "is finer than a microsecond; have the rest cut off by the column's `format = \"cut_to_us\"`, or declare VARCHAR",
);

/// A point in time before it is decided what becomes of what is finer than a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fine {
    /// The microsecond that it lies in.
    pub micros: i64,
    /// Whether it lies behind the start of that.
    pub is_finer: bool,
}

impl Fine {
    fn whole(micros: i64) -> Fine {
        Fine {
            micros,
            is_finer: false,
        }
    }

    /// The point, if it lies between the years 1 and 9999, and nothing is lost that may not be.
    fn settle(self, finer: Finer) -> Result<i64, Why> {
        match (FIRST_MOMENT..=LAST_MOMENT).contains(&self.micros) {
            true if self.is_finer && finer == Finer::Refused => Err(TOO_FINE),
            true => Ok(self.micros),
            false => Err(Why::Beyond),
        }
    }
}

/// A point in time from text, by the patterns, or ISO 8601 without any. Two patterns that read it as two points tell nothing.
pub fn point(text: &str, patterns: &[Pattern], finer: Finer) -> Result<i64, Why> {
    if patterns.is_empty() {
        return iso(text.as_bytes()).ok_or(Why::Not)?.settle(finer);
    }
    let mut found = Err(Why::Not);
    for pattern in patterns {
        match (by_pattern(text, pattern).and_then(|point| point.settle(finer)), found) {
            (Ok(point), Ok(before)) if point != before => return Err(super::AMBIGUOUS),
            (Ok(point), _) => found = Ok(point),
            (Err(why), Err(Why::Not)) => found = Err(why),
            (Err(_), _) => (),
        }
    }
    found
}

fn by_pattern(text: &str, pattern: &Pattern) -> Result<Fine, Why> {
    let written = match pattern {
        Pattern::Epoch(unit) => return counted(text, *unit),
        Pattern::Plain(joint, written) => {
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
        Pattern::Written(written) => written,
    };
    let point = written.point(text).ok_or(Why::Not)?;
    Ok(Fine {
        micros: point.timestamp_micros(),
        is_finer: !point.timestamp_subsec_nanos().is_multiple_of(1000),
    })
}

/// A point from a number in text.
pub fn count(text: &str, unit: Epoch, finer: Finer) -> Result<i64, Why> {
    counted(text, unit)?.settle(finer)
}

fn counted(text: &str, unit: Epoch) -> Result<Fine, Why> {
    match super::number::integer(text) {
        Ok(n) => whole(n, unit),
        // Seconds with a fraction, as Python writes them.
        Err(Why::TooFine) => {
            let digits = match unit {
                Epoch::Seconds => 6,
                Epoch::Millis => 3,
                Epoch::Micros => 0,
                Epoch::Nanos | Epoch::Days => return Err(Why::TooFine),
            };
            let (micros, is_finer) = match super::number::decimal(text, 38, digits) {
                Err(Why::TooFine) => {
                    let end = text.find('.').map_or(text.len(), |point| point + 1 + digits as usize);
                    let cut = super::number::decimal(&text[..end.min(text.len())], 38, digits)?;
                    // Of a negative number, what was cut off lies before.
                    (cut - i128::from(text.starts_with('-')), true)
                }
                read => (read?, false),
            };
            let micros = i64::try_from(micros).map_err(|_| Why::Beyond)?;
            Ok(Fine { micros, is_finer })
        }
        Err(why) => Err(why),
    }
}

/// A point from a number.
pub fn scaled(n: i64, unit: Epoch, finer: Finer) -> Result<i64, Why> {
    whole(n, unit)?.settle(finer)
}

fn whole(n: i64, unit: Epoch) -> Result<Fine, Why> {
    let point = match unit {
        Epoch::Seconds => n.checked_mul(1_000_000),
        Epoch::Millis => n.checked_mul(1000),
        Epoch::Micros => Some(n),
        Epoch::Nanos => return nanos(i128::from(n)),
        Epoch::Days => n.checked_mul(DAY),
    };
    point.map(Fine::whole).ok_or(Why::Beyond)
}

fn nanos(n: i128) -> Result<Fine, Why> {
    let micros = i64::try_from(n.div_euclid(1000)).map_err(|_| Why::Beyond)?;
    Ok(Fine {
        micros,
        is_finer: n % 1000 != 0,
    })
}

/// A point from a number of nanoseconds of any size.
pub fn wide(n: i128, finer: Finer) -> Result<i64, Why> {
    nanos(n)?.settle(finer)
}

/// A day of a point, where it is a midnight.
pub fn day(point: i64) -> Result<i32, Why> {
    if point % DAY != 0 {
        return Err(Why::Custom("has a time of day; declare TIMESTAMP and cast in SQL"));
    }
    i32::try_from(point / DAY).map_err(|_| Why::Beyond)
}

/// `2011-12-09` or `2011-12-09Z`, or the former and `T` or a blank and `12:50`, `12:50:00`, `12:50:00.123456789`, then optionally
/// `Z`, `+01`, `+0100` or `+01:00`. Also the basic form, `20111209T125000Z`, where it has a time.
pub fn iso(text: &[u8]) -> Option<Fine> {
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
        return Some(Fine::whole(days * DAY));
    }
    if text[10] == b'Z' {
        // Debezium's `isostring` dates.
        return (text.len() == 11).then_some(Fine::whole(days * DAY));
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
    Some(Fine {
        micros: micros - zone(rest)? * 1_000_000,
        is_finer,
    })
}

/// The basic form, by way of the other.
fn basic(text: &[u8]) -> Option<Fine> {
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
    use proptest::prelude::*;

    use super::*;
    use crate::definition::MomentPattern;

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
            assert_eq!(iso(text.as_bytes()), Some(Fine::whole(micros)), "{text}");
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

    /// Digits behind the sixth were cut off without a word.
    #[test]
    fn what_is_finer_than_a_microsecond_is_refused_or_cut_off_whatever_it_is_written_as() {
        let written = [pattern("%d.%m.%Y %H:%M:%S%.f")];
        let iso = |text: &str, finer| point(text, &[], finer);
        let by_pattern = |text: &str, finer| point(text, &written, finer);
        let nanos = |n: i64, finer| scaled(n, Epoch::Nanos, finer);
        let seconds = |text: &str, finer| count(text, Epoch::Seconds, finer);
        type Read<'a> = Box<dyn Fn(Finer) -> Result<i64, Why> + 'a>;
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
            assert_eq!(read(Finer::Refused), Err(TOO_FINE), "the read {n}");
            assert_eq!(read(Finer::CutOff), Ok(*cut), "the read {n}");
        }
        assert_eq!(iso("1970-01-01T00:00:00.123456000Z", Finer::Refused), Ok(123_456));
        assert_eq!(seconds("-1.5", Finer::Refused), Ok(-1_500_000));
        assert_eq!(nanos(-1_000, Finer::Refused), Ok(-1));
    }

    #[test]
    fn points_lie_between_the_years_1_and_9999() {
        for text in ["0000-12-31", "0000-01-01T00:00:00", "0001-01-01T00:00:00+01:00"] {
            assert_eq!(point(text, &[], Finer::CutOff), Err(Why::Beyond), "{text}");
        }
        for (n, unit) in [
            (-719_163, Epoch::Days),
            (FIRST_MOMENT / 1000 - 1, Epoch::Millis),
            (2_932_897, Epoch::Days),
        ] {
            assert_eq!(scaled(n, unit, Finer::CutOff), Err(Why::Beyond), "{n}");
        }
        assert_eq!(point("0001-01-01", &[], Finer::Refused), Ok(FIRST_MOMENT));
        assert_eq!(
            point("9999-12-31T23:59:59.999999", &[], Finer::Refused),
            Ok(LAST_MOMENT)
        );
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::Written(MomentPattern::parse(text).expect("a pattern"))
    }

    /// A day was silently what the first of two patterns read.
    #[test]
    fn a_text_that_two_patterns_read_differently_is_refused() {
        let day_or_month = [pattern("%d/%m/%Y"), pattern("%m/%d/%Y")];
        assert_eq!(
            point("03/04/2024", &day_or_month, Finer::Refused),
            Err(super::super::AMBIGUOUS)
        );
        assert_eq!(
            point("13/04/2024", &day_or_month, Finer::Refused),
            point("04/13/2024", &day_or_month, Finer::Refused)
        );
        assert_eq!(
            point("04/04/2024", &day_or_month, Finer::Refused),
            Ok(19_817 * DAY),
            "both read the same"
        );
        let count_or_day = [Pattern::Epoch(Epoch::Seconds), pattern("%Y%m%d %H")];
        assert_eq!(point("20240101", &count_or_day, Finer::Refused), Ok(20_240_101_000_000));
        assert_eq!(point("20240101 00", &count_or_day, Finer::Refused), Ok(19_723 * DAY));
        let usual = MomentPattern::parse("%Y-%m-%d %H:%M:%S").expect("a pattern");
        let plain = [Pattern::Plain(b' ', usual), pattern("%Y-%d-%m %H:%M:%S")];
        assert_eq!(
            point("2024-03-04 00:00:00", &plain, Finer::Refused),
            Err(super::super::AMBIGUOUS)
        );
    }

    /// `%Y` took 24 for the year 24.
    #[test]
    fn a_whole_year_has_four_digits() {
        let whole = [pattern("%m/%d/%Y")];
        assert_eq!(point("1/31/17", &whole, Finer::Refused), Err(Why::Not));
        assert!(point("01/31/0017", &whole, Finer::Refused).is_ok());
        let both = [pattern("%m/%d/%Y"), pattern("%m/%d/%y")];
        assert_eq!(
            point("1/31/17", &both, Finer::Refused),
            point("1/31/2017", &both, Finer::Refused)
        );
        assert!(point("1/31/17", &both, Finer::Refused).is_ok());
    }

    proptest! {
        #[test]
        fn every_microsecond_of_four_millennia_reads_back(micros in -62_135_596_800_000_000i64..64_092_211_200_000_000) {
            let point = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
            let text = point.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(iso(text.as_bytes()), Some(Fine::whole(micros)));
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = iso(&bytes);
        }
    }
}
