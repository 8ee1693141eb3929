//! Days, months and years of moments, all in whole numbers.

use std::fmt::{self, Display, Formatter};

use crate::repr::{FIRST_MOMENT, LAST_MOMENT, civil_from_days};

/// Microseconds of a second.
pub(in crate::plan) const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
pub(in crate::plan) const DAY: i64 = 86_400 * SECOND;

/// The day since 1970 of a date, whose month may be any number from 1 and whose day any number.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil: years begin in March.
pub(in crate::plan) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// How many days a month has.
pub(in crate::plan) fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

pub(in crate::plan) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The day so many months behind another; the last of its month where the month is too short.
pub(in crate::plan) fn months_later(days: i64, months: i64) -> i64 {
    if months == 0 {
        return days;
    }
    let (year, month, day) = civil_from_days(days);
    let all = year * 12 + month - 1 + months;
    let (year, month) = (all.div_euclid(12), all.rem_euclid(12) + 1);
    days_from_civil(year, month, day.min(days_of_month(year, month)))
}

/// The moment, if it is of the years 1 to 9999.
pub(in crate::plan) fn within(micros: i128) -> Option<i64> {
    let micros = i64::try_from(micros).ok()?;
    (FIRST_MOMENT..=LAST_MOMENT).contains(&micros).then_some(micros)
}

/// A moment on the way to another, or that is compared: it may be of any year that there is room for, as in PostgreSQL. What becomes
/// a value of a table is looked at there.
pub(in crate::plan) fn computed(micros: i128) -> Option<i64> {
    i64::try_from(micros).ok()
}

/// What is made of a moment, if it is of the years 1 to 9999 where that is.
pub(in crate::plan) fn kept(of: i64, micros: i128) -> Option<i64> {
    match within(of.into()) {
        Some(_) => within(micros),
        None => computed(micros),
    }
}

/// The day, if it is of the years 1 to 9999.
pub(in crate::plan) fn day_within(days: i64) -> Option<i32> {
    within(i128::from(days) * i128::from(DAY))?;
    i32::try_from(days).ok()
}

/// The day of the week: 0 is Monday.
pub(in crate::plan) fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// Year and number of the week by ISO 8601: the week of a Thursday.
pub(in crate::plan) fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days - weekday(days) + 3;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

/// A day as text, `2024-01-02`.
pub(in crate::plan) struct Day(pub i64);

impl Display for Day {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0);
        match year > 0 {
            true => write!(f, "{year:04}-{month:02}-{day:02}"),
            false => write!(f, "{:04}-{month:02}-{day:02} BC", 1 - year),
        }
    }
}

/// A moment as text, `2024-01-02 03:04:05.5`, as PostgreSQL writes it.
pub(in crate::plan) struct Moment(pub i64);

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (days, time) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        write!(f, "{} {}", Day(days), Clock(time))
    }
}

/// A time of day as text, `03:04:05.5`.
pub(in crate::plan) struct Clock(pub i64);

impl Display for Clock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, part) = (self.0 / SECOND, self.0 % SECOND);
        let (minutes, second) = (seconds / 60, seconds % 60);
        write!(f, "{:02}:{:02}:{second:02}", minutes / 60, minutes % 60)?;
        fraction(f, part)
    }
}

/// `.5` of 500000 microseconds; nothing of none.
pub(super) fn fraction(f: &mut Formatter<'_>, micros: i64) -> fmt::Result {
    if micros == 0 {
        return Ok(());
    }
    let digits = format!("{micros:06}");
    write!(f, ".{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Datelike, Months};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn days_months_weeks_and_texts_are_those_of_chrono(
            at in FIRST_MOMENT..=LAST_MOMENT,
            months in -119_988i64..=119_988,
        ) {
            let moment = DateTime::from_timestamp_micros(at).unwrap().naive_utc();
            let (days, date) = (at.div_euclid(DAY), moment.date());
            prop_assert_eq!(days_from_civil(date.year().into(), date.month().into(), date.day().into()), days);
            prop_assert_eq!(weekday(days), i64::from(date.weekday().num_days_from_monday()));
            let week = date.iso_week();
            prop_assert_eq!(iso_week(days), (week.year().into(), week.week().into()));
            let length = Months::new(u32::try_from(months.abs()).unwrap());
            let later = if months < 0 { date.checked_sub_months(length) } else { date.checked_add_months(length) };
            let later = later.unwrap().and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
            prop_assert_eq!(months_later(days, months) * DAY, later);
            let text = moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            let text = text.trim_end_matches('0').trim_end_matches('.');
            prop_assert_eq!(Moment(at).to_string(), text);
        }
    }

    #[test]
    fn a_moment_is_written_as_postgres_writes_it() {
        let text = |micros| Moment(micros).to_string();
        assert_eq!(text(0), "1970-01-01 00:00:00");
        assert_eq!(text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(text(LAST_MOMENT), "9999-12-31 23:59:59.999999");
        assert_eq!(text(FIRST_MOMENT + 500_000), "0001-01-01 00:00:00.5");
        assert_eq!(within(i128::from(LAST_MOMENT) + 1), None);
        assert_eq!(day_within(-719_163), None);
    }
}
