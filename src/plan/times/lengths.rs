//! INTERVALs of months, days and microseconds, computed and written as PostgreSQL does.

use std::fmt::{self, Display, Formatter};

use arrow::datatypes::IntervalMonthDayNano;

use super::civil::{DAY, SECOND, fraction, in_range, months_later};

/// Days in a month where intervals are compared.
const MONTH: i64 = 30;

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) struct TimeLength {
    pub months: i64,
    pub days: i64,
    pub micros: i64,
}

impl TimeLength {
    /// The difference of two timestamps, split into whole days and the rest.
    pub fn of_micros(micros: i64) -> TimeLength {
        TimeLength {
            months: 0,
            days: micros / DAY,
            micros: micros % DAY,
        }
    }

    /// Reads Arrow's interval. Nanoseconds are rounded half to even.
    pub fn from_interval(interval: IntervalMonthDayNano) -> TimeLength {
        TimeLength {
            months: interval.months.into(),
            days: interval.days.into(),
            micros: to_even(interval.nanoseconds),
        }
    }

    /// Arrow's interval; `None` if it does not fit.
    pub fn interval(self) -> Option<IntervalMonthDayNano> {
        Some(IntervalMonthDayNano::new(
            i32::try_from(self.months).ok()?,
            i32::try_from(self.days).ok()?,
            self.micros.checked_mul(1000)?,
        ))
    }

    /// The interval in microseconds for comparisons; `None` if it does not fit.
    pub fn total(self) -> Option<i64> {
        let days = self.months.checked_mul(MONTH)?.checked_add(self.days)?;
        days.checked_mul(DAY)?.checked_add(self.micros)
    }

    /// The timestamp `point` plus the interval: months first, then days, then the rest. `None` if it does not fit.
    pub fn behind(self, point: i64) -> Option<i64> {
        let (days, time) = (point.div_euclid(DAY), point.rem_euclid(DAY));
        let days = i128::from(months_later(days, self.months)) + i128::from(self.days);
        in_range(days * i128::from(DAY) + i128::from(time) + i128::from(self.micros))
    }

    pub fn negated(self) -> TimeLength {
        TimeLength {
            months: -self.months,
            days: -self.days,
            micros: -self.micros,
        }
    }

    pub fn plus(self, other: TimeLength) -> Option<TimeLength> {
        Some(TimeLength {
            months: self.months + other.months,
            days: self.days + other.days,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// The interval times a factor. Fractions of months become days, and fractions of days become time, as in
    /// PostgreSQL's `interval_mul`. `None` if the result does not fit.
    pub fn times(self, factor: f64) -> Option<TimeLength> {
        self.scaled(|part| part * factor)
    }

    /// The interval divided by a divisor, which must not be zero.
    pub fn over(self, divisor: f64) -> Option<TimeLength> {
        self.scaled(|part| part / divisor)
    }

    fn scaled(self, scale: impl Fn(f64) -> f64) -> Option<TimeLength> {
        let rounded = |x: f64| (x * SECOND as f64).round_ties_even() / SECOND as f64;
        let whole = |x: f64| (x.is_finite() && x.abs() < i32::MAX.into()).then_some(x as i64);
        let (months, days) = (scale(self.months as f64), scale(self.days as f64));
        let (all_months, mut all_days) = (whole(months)?, whole(days)?);
        let more_days = rounded((months - all_months as f64) * MONTH as f64);
        let mut seconds = rounded((days - all_days as f64 + more_days - more_days.trunc()) * 86_400.0);
        if seconds.abs() >= 86_400.0 {
            let carried = (seconds / 86_400.0).trunc();
            all_days += carried as i64;
            seconds -= carried * 86_400.0;
        }
        all_days += more_days as i64;
        let micros = (scale(self.micros as f64) + seconds * SECOND as f64).round_ties_even();
        Some(TimeLength {
            months: all_months,
            days: all_days,
            micros: (micros.is_finite() && micros.abs() < 9.2e18).then_some(micros as i64)?,
        })
    }
}

/// Nanoseconds rounded half to even to microseconds.
fn to_even(nanos: i64) -> i64 {
    let (whole, rest) = (nanos.div_euclid(1000), nanos.rem_euclid(1000));
    match rest {
        501.. => whole + 1,
        500 => whole + (whole & 1),
        _ => whole,
    }
}

impl Display for TimeLength {
    /// Such as `1 year 2 mons -3 days +04:05:06.7`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (mut is_first, mut was_negative) = (true, false);
        let parts = [
            (self.months / 12, "year"),
            (self.months % 12, "mon"),
            (self.days, "day"),
        ];
        for (value, unit) in parts {
            if value == 0 {
                continue;
            }
            let space = if is_first { "" } else { " " };
            let plus = if was_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            write!(f, "{space}{plus}{value} {unit}{plural}")?;
            (is_first, was_negative) = (false, value < 0);
        }
        if self.micros == 0 && !is_first {
            return Ok(());
        }
        let space = if is_first { "" } else { " " };
        let sign = match (self.micros < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let micros = self.micros.unsigned_abs() as i64;
        let (seconds, part) = (micros / SECOND, micros % SECOND);
        let (hours, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{space}{sign}{hours:02}:{minute:02}:{second:02}")?;
        fraction(f, part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn length(months: i64, days: i64, micros: i64) -> TimeLength {
        TimeLength { months, days, micros }
    }

    /// The expected texts are PostgreSQL's.
    #[test]
    fn lengths_are_written_as_postgres_writes_them() {
        for (of, text) in [
            (length(0, 0, 0), "00:00:00"),
            (length(14, 3, 14_706_700_000), "1 year 2 mons 3 days 04:05:06.7"),
            (length(-14, 3, -1), "-1 years -2 mons +3 days -00:00:00.000001"),
            (length(0, -1, 7_200_000_000), "-1 days +02:00:00"),
            (length(0, 1, 0), "1 day"),
            (length(0, 0, 360_000 * SECOND), "100:00:00"),
            (length(12, 0, 0), "1 year"),
        ] {
            assert_eq!(of.to_string(), text);
        }
    }

    /// The expected values are PostgreSQL's, for `INTERVAL '1 month' * 0.5` and similar expressions.
    #[test]
    fn parts_of_months_are_days_and_parts_of_days_are_time() {
        assert_eq!(length(1, 0, 0).times(0.5), Some(length(0, 15, 0)));
        assert_eq!(length(1, 0, 0).over(7.0), Some(length(0, 4, 24_685_689_600)));
        assert_eq!(length(0, 1, 0).times(1.5), Some(length(0, 1, DAY / 2)));
        assert_eq!(
            length(0, 1, 3_600_000_000).times(-2.0),
            Some(length(0, -2, -7_200_000_000))
        );
        assert_eq!(length(1, 0, 0).times(f64::NAN), None);
        assert_eq!(length(1, 0, 0).times(1e300), None);
    }

    #[test]
    fn a_length_is_added_by_months_then_days_then_time() {
        let at = |year, month, day| super::super::civil::days_from_civil(year, month, day) * DAY;
        assert_eq!(length(1, 1, -1).behind(at(2024, 1, 31)), Some(at(2024, 3, 1) - 1));
        assert_eq!(length(12, 0, 0).behind(at(9999, 1, 1)), Some(at(10_000, 1, 1)));
        assert_eq!(length(0, i32::MAX.into(), 0).behind(at(1, 1, 31)), None);
        assert_eq!(length(-1, 0, 0).behind(at(2024, 3, 31)), Some(at(2024, 2, 29)));
        assert_eq!(length(1, 1, 1).total(), Some(31 * DAY + 1));
        assert_eq!(
            (to_even(1500), to_even(2500), to_even(-1500), to_even(1501)),
            (2, 2, -2, 2)
        );
    }
}
