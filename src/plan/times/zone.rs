//! Time zones: converts between instants and local times.
//!
//! 1. A local time that the clocks skip is read with the offset before the gap; one that they show twice, with
//!    the later offset. PostgreSQL does the same.
//! 2. The library knows the rules of zones for some decades. A later year gets the rules of a known year that
//!    begins on the same day of the week and has the same length.

use arrow::array::timezone::Tz;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::temporal_conversions::as_datetime_with_timezone;
use chrono::{DateTime, LocalResult, Offset, TimeDelta, TimeZone};

use super::civil::{DAY, SECOND, days_from_civil, in_range, is_leap, weekday};
use crate::repr::civil_from_days;

/// A time zone.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Zone {
    /// A fixed offset east of Greenwich, in microseconds.
    Fixed(i64),
    Named(Tz),
}

/// Known years that include each kind of year, see (2).
const KNOWN: std::ops::Range<i64> = 2066..2094;

impl Zone {
    pub const UTC: Zone = Zone::Fixed(0);

    /// The zone with this name.
    ///
    /// # Errors
    /// What is wrong with the name, and what to write instead.
    pub fn named(name: &str) -> Result<Zone, String> {
        let upper = name.trim().to_ascii_uppercase();
        match upper.as_str() {
            "UTC" | "GMT" | "Z" | "ZULU" | "UCT" | "UNIVERSAL" | "GREENWICH" => return Ok(Zone::UTC),
            // In PostgreSQL these abbreviations have one offset, but in the zone database they have summer time too.
            "CET" | "EET" | "MET" | "WET" => {
                return Err(format!(
                    "{name:?} is the name of an offset and of a zone with summer time; write the zone of a city, as in Europe/Berlin, \
                     or an INTERVAL"
                ));
            }
            _ => {}
        }
        if upper.starts_with(['+', '-']) || upper.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "{name:?} is west of Greenwich by POSIX and PostgreSQL, and east of it by ISO 8601; write an INTERVAL, which is \
                 east: AT TIME ZONE INTERVAL '2 hours'"
            ));
        }
        let known = name.trim().parse::<Tz>().ok();
        known
            .or_else(|| in_other_case(name.trim()).parse::<Tz>().ok())
            .map(Zone::Named)
            .ok_or_else(|| format!("there is no zone {name:?}; write one as in Europe/Berlin, or an INTERVAL"))
    }

    /// The local time of an instant, both in microseconds; `None` if it does not fit.
    pub fn local(&self, instant: i64) -> Option<i64> {
        match self {
            Zone::Fixed(offset) => in_range(i128::from(instant) + i128::from(*offset)),
            Zone::Named(zone) => {
                let (near, turned) = near(instant);
                let at = as_datetime_with_timezone::<TimestampMicrosecondType>(near, *zone)?;
                let offset = i64::from(at.offset().fix().local_minus_utc()) * SECOND;
                in_range(i128::from(near) + i128::from(offset) + i128::from(turned))
            }
        }
    }

    /// The instant of a local time, both in microseconds, see (1); `None` if it does not fit.
    pub fn instant(&self, local: i64) -> Option<i64> {
        match self {
            Zone::Fixed(offset) => in_range(i128::from(local) - i128::from(*offset)),
            Zone::Named(zone) => {
                let (near, turned) = near(local);
                let naive = DateTime::from_timestamp_micros(near)?.naive_utc();
                let micros = match zone.from_local_datetime(&naive) {
                    LocalResult::Single(at) => at.timestamp_micros(),
                    LocalResult::Ambiguous(_, later) => later.timestamp_micros(),
                    LocalResult::None => {
                        // A gap is at most some hours long, so a day earlier the clocks had the offset before it.
                        let before = zone.from_local_datetime(&(naive - TimeDelta::days(1))).latest()?;
                        before.timestamp_micros() + DAY
                    }
                };
                in_range(i128::from(micros) + i128::from(turned))
            }
        }
    }
}

/// `europe/berlin` as `Europe/Berlin`: names of zones have no case in PostgreSQL.
fn in_other_case(name: &str) -> String {
    let mut is_start = true;
    let cased = name.chars().map(|c| {
        let cased = if is_start {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        };
        is_start = !c.is_ascii_alphabetic();
        cased
    });
    cased.collect()
}

/// The same point in a year whose rules are known, and its distance from the given point, see (2).
fn near(point: i64) -> (i64, i64) {
    let (year, ..) = civil_from_days(point.div_euclid(DAY));
    if year < KNOWN.end {
        return (point, 0);
    }
    let first = days_from_civil(year, 1, 1);
    let alike =
        |other: &i64| is_leap(*other) == is_leap(year) && weekday(days_from_civil(*other, 1, 1)) == weekday(first);
    let other = KNOWN.rev().find(alike).unwrap_or(KNOWN.start);
    let turned = (first - days_from_civil(other, 1, 1)) * DAY;
    (point - turned, turned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;
    use proptest::prelude::*;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    /// The expected values are PostgreSQL's.
    #[test]
    fn gaps_and_doubles_are_read_as_postgres_reads_them() {
        let york = Zone::named("America/New_York").unwrap();
        for (local, instant, shown) in [
            ("2024-03-10T02:30:00", "2024-03-10T07:30:00", "2024-03-10T03:30:00"),
            ("2024-11-03T01:30:00", "2024-11-03T06:30:00", "2024-11-03T01:30:00"),
            ("2024-07-01T12:00:00", "2024-07-01T16:00:00", "2024-07-01T12:00:00"),
            ("2300-07-01T12:00:00", "2300-07-01T16:00:00", "2300-07-01T12:00:00"),
            ("9999-01-01T12:00:00", "9999-01-01T17:00:00", "9999-01-01T12:00:00"),
        ] {
            let at = york.instant(micros(local)).unwrap();
            assert_eq!(at, micros(instant), "{local}");
            assert_eq!(york.local(at), Some(micros(shown)), "{local}");
        }
        assert_eq!(Zone::Fixed(-SECOND).local(i64::MIN), None);
    }

    #[test]
    fn a_zone_that_cannot_be_told_is_refused() {
        for (name, why) in [
            ("Mars/Base", "no zone"),
            ("+02:00", "INTERVAL"),
            ("CET", "summer time"),
            ("", "no zone"),
        ] {
            assert!(Zone::named(name).is_err_and(|message| message.contains(why)), "{name}");
        }
        for name in [
            "utc",
            "europe/berlin",
            "America/New_York",
            "america/new_york",
            "Asia/Kolkata",
            "EST",
            "Japan",
        ] {
            assert!(Zone::named(name).is_ok(), "{name}");
        }
    }

    proptest! {
        /// Twice a year some local times belong to no instant, or to two.
        #[test]
        fn an_instant_comes_back_or_was_the_first_of_two(
            at in micros("1980-01-01T00:00:00")..micros("9990-01-01T00:00:00"),
            name in prop::sample::select(vec!["Europe/Berlin", "Asia/Kolkata", "America/New_York", "Pacific/Auckland"]),
        ) {
            let zone = Zone::named(name).unwrap();
            let back = zone.instant(zone.local(at).unwrap()).unwrap();
            prop_assert!(back == at || back == at + 3_600_000_000, "{} {}", at, back);
        }
    }
}
