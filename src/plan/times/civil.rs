//! Days, months and years of timestamps, computed with integers.

use std::fmt::{self, Display, Formatter};

use crate::repr::{FIRST_MOMENT, LAST_MOMENT, civil_from_days};

/// Microseconds in a second.
pub(in crate::plan) const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub(in crate::plan) const DAY: i64 = 86_400 * SECOND;

/// The number of days from 1970-01-01 to a date. The month may be any number from 1, and the day any number.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil: years begin in March.
pub(in crate::plan) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The number of days in a month.
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

/// The day that is so many months later, or the last day of that month if the month is too short.
pub(in crate::plan) fn months_later(days: i64, months: i64) -> i64 {
    if months == 0 {
        return days;
    }
    let (year, month, day) = civil_from_days(days);
    let all = year * 12 + month - 1 + months;
    let (year, month) = (all.div_euclid(12), all.rem_euclid(12) + 1);
    days_from_civil(year, month, day.min(days_of_month(year, month)))
}

/// The timestamp, if it is in the years 1 to 9999.
pub(in crate::plan) fn in_calendar(micros: i128) -> Option<i64> {
    let micros = i64::try_from(micros).ok()?;
    (FIRST_MOMENT..=LAST_MOMENT).contains(&micros).then_some(micros)
}

/// An intermediate or compared timestamp, which may be of any year for which there is room, as in PostgreSQL.
/// Values that get into a table are checked there.
pub(in crate::plan) fn in_range(micros: i128) -> Option<i64> {
    i64::try_from(micros).ok()
}

/// A timestamp that is computed from `of`: it must be in the years 1 to 9999 if `of` is.
pub(in crate::plan) fn in_calendar_like(of: i64, micros: i128) -> Option<i64> {
    match in_calendar(of.into()) {
        Some(_) => in_calendar(micros),
        None => in_range(micros),
    }
}

/// The day, if it is in the years 1 to 9999.
pub(in crate::plan) fn day_within(days: i64) -> Option<i32> {
    in_calendar(i128::from(days) * i128::from(DAY))?;
    i32::try_from(days).ok()
}

/// The day of the week, where 0 is Monday.
pub(in crate::plan) fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// The ISO 8601 year and number of a week; a week belongs to the year of its Thursday.
pub(in crate::plan) fn iso_week(days: i64) -> (i64, i64) {
    let thursday = days - weekday(days) + 3;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

/// Displays a day since 1970 as `2024-01-02`, before the year 1 as `0044-03-15 BC`.
pub(in crate::plan) struct DateText(pub i64);

impl Display for DateText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let era = date(f, self.0)?;
        f.write_str(era)
    }
}

/// Writes the year, month and day; returns what marks a date before the year 1, which stands at the end.
fn date(f: &mut Formatter<'_>, days: i64) -> Result<&'static str, fmt::Error> {
    let (year, month, day) = civil_from_days(days);
    let (year, era) = match year > 0 {
        true => (year, ""),
        false => (1 - year, " BC"),
    };
    write!(f, "{year:04}-{month:02}-{day:02}")?;
    Ok(era)
}

/// Displays a timestamp in microseconds as PostgreSQL does: `2024-01-02 03:04:05.5`, `0044-03-15 12:00:00 BC`.
pub(in crate::plan) struct TimestampText(pub i64);

impl Display for TimestampText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (days, time) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let era = date(f, days)?;
        write!(f, " {}{era}", TimeText(time))
    }
}

/// Displays a time of day in microseconds as `03:04:05.5`.
pub(in crate::plan) struct TimeText(pub i64);

impl Display for TimeText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, part) = (self.0 / SECOND, self.0 % SECOND);
        let (minutes, second) = (seconds / 60, seconds % 60);
        write!(f, "{:02}:{:02}:{second:02}", minutes / 60, minutes % 60)?;
        fraction(f, part)
    }
}

/// Writes the fraction of a second: `.5` for 500000 microseconds, nothing for 0.
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
            prop_assert_eq!(TimestampText(at).to_string(), text);
        }
    }

    #[test]
    fn a_moment_is_written_as_postgres_writes_it() {
        let text = |micros| TimestampText(micros).to_string();
        assert_eq!(text(0), "1970-01-01 00:00:00");
        assert_eq!(text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(text(LAST_MOMENT), "9999-12-31 23:59:59.999999");
        assert_eq!(text(FIRST_MOMENT + 500_000), "0001-01-01 00:00:00.5");
        assert_eq!(text(FIRST_MOMENT - 500_000), "0001-12-31 23:59:59.5 BC");
        assert_eq!(in_calendar(i128::from(LAST_MOMENT) + 1), None);
        assert_eq!(day_within(-719_163), None);
    }
}
