//! Time zones: local times of instants, and instants of local times.
//!
//! 1. A local time that clocks skip is read by the offset before the gap, one that they show twice by the offset behind it, as
//!    PostgreSQL reads them.
//! 2. The rules of zones are known for some decades. A year behind those has the rules of one that begins on the same day of the
//!    week and is as long.

use arrow::array::timezone::Tz;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::temporal_conversions::as_datetime_with_timezone;
use chrono::{DateTime, LocalResult, Offset, TimeDelta, TimeZone};

use super::civil::{DAY, SECOND, computed, days_from_civil, is_leap, weekday};
use crate::repr::civil_from_days;

/// A zone.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Zone {
    /// East of Greenwich, in microseconds.
    Fixed(i64),
    Named(Tz),
}

/// Years whose rules are known, and of which each kind of year is one. See (2).
const KNOWN: std::ops::Range<i64> = 2066..2094;

impl Zone {
    pub const UTC: Zone = Zone::Fixed(0);

    /// The zone of a name.
    ///
    /// # Errors
    /// What is wrong with the name, and what to write instead.
    pub fn named(name: &str) -> Result<Zone, String> {
        let upper = name.trim().to_ascii_uppercase();
        match upper.as_str() {
            "UTC" | "GMT" | "Z" | "ZULU" | "UCT" | "UNIVERSAL" | "GREENWICH" => return Ok(Zone::UTC),
            // An abbreviation is of one offset to PostgreSQL, and of summer time, too, to the zones' table.
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

    /// What clocks show at an instant; both in microseconds. None: there is no room.
    pub fn local(&self, instant: i64) -> Option<i64> {
        match self {
            Zone::Fixed(offset) => computed(i128::from(instant) + i128::from(*offset)),
            Zone::Named(zone) => {
                let (near, turned) = near(instant);
                let at = as_datetime_with_timezone::<TimestampMicrosecondType>(near, *zone)?;
                let offset = i64::from(at.offset().fix().local_minus_utc()) * SECOND;
                computed(i128::from(near) + i128::from(offset) + i128::from(turned))
            }
        }
    }

    /// The instant at which clocks show this. None: there is no room. See (1).
    pub fn instant(&self, local: i64) -> Option<i64> {
        match self {
            Zone::Fixed(offset) => computed(i128::from(local) - i128::from(*offset)),
            Zone::Named(zone) => {
                let (near, turned) = near(local);
                let naive = DateTime::from_timestamp_micros(near)?.naive_utc();
                let micros = match zone.from_local_datetime(&naive) {
                    LocalResult::Single(at) => at.timestamp_micros(),
                    LocalResult::Ambiguous(_, later) => later.timestamp_micros(),
                    LocalResult::None => {
                        // A day before, clocks had the offset from before the gap, which is of some hours at most.
                        let before = zone.from_local_datetime(&(naive - TimeDelta::days(1))).latest()?;
                        before.timestamp_micros() + DAY
                    }
                };
                computed(i128::from(micros) + i128::from(turned))
            }
        }
    }
}

/// `europe/berlin` as `Europe/Berlin`: PostgreSQL's names have no case.
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

/// The moment of a year whose rules are known, and how far that is from the one that was asked for.
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

    /// As PostgreSQL says.
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
            assert!(Zone::named(name).is_err_and(|told| told.contains(why)), "{name}");
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
        /// Twice a year a local time is no other's, or two others'.
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
