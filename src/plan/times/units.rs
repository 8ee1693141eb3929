//! Units of the calendar, as `date_trunc` defines them.

use super::civil::{DAY, SECOND, days_from_civil, weekday};
use crate::repr::civil_from_days;

/// A unit to which timestamps are truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::plan) enum Unit {
    /// Multiples of so many microseconds, counted from 1970-01-01.
    Micros(i64),
    Week,
    Months(i64),
    /// Centuries and millennia begin with years that end in 1, decades with years that end in 0.
    Years(i64),
}

impl Unit {
    /// The unit with this name, in singular or plural; `None` if there is none.
    pub fn named(name: &str) -> Option<Unit> {
        let name = name.to_ascii_lowercase();
        let one = name.strip_suffix('s').unwrap_or(&name);
        Some(match one {
            "microsecond" => Unit::Micros(1),
            "millisecond" => Unit::Micros(1000),
            "second" => Unit::Micros(SECOND),
            "minute" => Unit::Micros(60 * SECOND),
            "hour" => Unit::Micros(3600 * SECOND),
            "day" => Unit::Micros(DAY),
            "week" => Unit::Week,
            "month" => Unit::Months(1),
            "quarter" => Unit::Months(3),
            "year" => Unit::Years(1),
            "decade" => Unit::Years(10),
            "century" | "centurie" => Unit::Years(100),
            "millennium" | "millennia" => Unit::Years(1000),
            _ => return None,
        })
    }

    /// Whether the unit is a whole number of days.
    pub fn is_of_days(self) -> bool {
        !matches!(self, Unit::Micros(length) if length % DAY != 0)
    }

    /// The first microsecond of the unit (day, month, ...) in which a point lies.
    pub fn start(self, point: i64) -> i64 {
        self.start_behind(point, 0)
    }

    /// The first start of a unit at or after a point.
    pub fn next(self, point: i64) -> i64 {
        self.start_behind(point.saturating_sub(1), 1)
    }

    /// The start of the unit that is `units` after the one in which a point lies.
    fn start_behind(self, point: i64, units: i64) -> i64 {
        let days = point.div_euclid(DAY);
        let start = match self {
            Unit::Micros(length) => return point.div_euclid(length).saturating_add(units).saturating_mul(length),
            Unit::Week => days - weekday(days) + units * 7,
            Unit::Months(length) => {
                let (year, month, _) = civil_from_days(days);
                let months = (month - 1) / length * length + units * length;
                days_from_civil(year + months.div_euclid(12), months.rem_euclid(12) + 1, 1)
            }
            Unit::Years(length) => {
                let (year, ..) = civil_from_days(days);
                let first = i64::from(length > 10);
                days_from_civil(((year - first).div_euclid(length) + units) * length + first, 1, 1)
            }
        };
        start.saturating_mul(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;
    use proptest::prelude::*;

    use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    /// The expected starts are PostgreSQL's.
    #[test]
    fn units_begin_where_postgres_has_them_begin() {
        for (unit, at, start) in [
            ("week", "9999-12-31T23:59:59.999999", "9999-12-27T00:00:00"),
            ("month", "9999-12-31T23:59:59.999999", "9999-12-01T00:00:00"),
            ("QUARTER", "2263-05-05T01:00:00", "2263-04-01T00:00:00"),
            ("years", "0001-06-01T00:00:00", "0001-01-01T00:00:00"),
            ("decade", "1600-01-01T00:00:00", "1600-01-01T00:00:00"),
            ("decade", "2019-12-31T00:00:00", "2010-01-01T00:00:00"),
            ("century", "2000-02-29T00:00:00", "1901-01-01T00:00:00"),
            ("century", "2001-02-03T00:00:00", "2001-01-01T00:00:00"),
            ("millennium", "9999-12-31T00:00:00", "9001-01-01T00:00:00"),
            ("day", "1600-02-29T13:14:15.5", "1600-02-29T00:00:00"),
            ("hour", "1969-12-31T23:59:59.999999", "1969-12-31T23:00:00"),
            ("millisecond", "1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999"),
        ] {
            assert_eq!(
                Unit::named(unit).unwrap().start(micros(at)),
                micros(start),
                "{unit} of {at}"
            );
        }
        assert_eq!(Unit::named("fortnight"), None);
    }

    const NAMES: [&str; 9] = [
        "week",
        "month",
        "quarter",
        "year",
        "decade",
        "century",
        "day",
        "minute",
        "microsecond",
    ];

    proptest! {
        /// The calendar repeats after 400 years, which are a whole number of weeks.
        #[test]
        fn a_unit_begins_in_any_year_as_it_does_in_ours(
            at in 0i64..(400 * 365 * DAY),
            turns in -4i64..19,
            unit in prop::sample::select(NAMES.to_vec()),
        ) {
            const TURN: i64 = 146_097 * DAY;
            let unit = Unit::named(unit).unwrap();
            let here = unit.start(at);
            prop_assert!(here <= at);
            prop_assert_eq!(unit.start(at + turns * TURN), here + turns * TURN);
        }

        #[test]
        fn the_next_start_is_the_first_that_is_not_before(
            at in FIRST_MOMENT..=LAST_MOMENT,
            unit in prop::sample::select(NAMES.to_vec()),
        ) {
            let unit = Unit::named(unit).unwrap();
            let next = unit.next(at);
            prop_assert!(next >= at);
            prop_assert_eq!(unit.start(next), next);
            prop_assert!(next == at || unit.start(next - 1) < at);
            prop_assert_eq!(unit.next(next), next);
        }
    }
}
