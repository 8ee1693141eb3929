//! Dates, timestamps and intervals, in microseconds of the proleptic Gregorian calendar; the years 1 to 9999.

use std::fmt::Write as _;

use super::trust::Unjudged;
use super::value::{IntervalLength, Scalar, ScalarType};
use crate::repr::{FIRST_MOMENT, LAST_MOMENT, civil_from_days};

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// The number of a date's day since 1970-01-01; none if the date does not exist.
pub fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=length_of(year, month)).contains(&day) {
        return None;
    }
    // The days before the month are computed in a year that begins in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn length_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Checks that a date or timestamp is in the supported years.
pub fn within(value: Scalar) -> Result<Scalar, Unjudged> {
    let micros = match &value {
        Scalar::Date(days) => i64::from(*days).saturating_mul(DAY),
        Scalar::Moment(micros) => *micros,
        _ => return Ok(value),
    };
    match (FIRST_MOMENT..=LAST_MOMENT).contains(&micros) {
        true => Ok(value),
        false => Err(Unjudged::row("a moment beyond the years 1 to 9999")),
    }
}

/// A date or timestamp as a timestamp, in Unix microseconds.
pub fn moment(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Date(days) => Some(i64::from(*days) * DAY),
        Scalar::Moment(micros) => Some(*micros),
        _ => None,
    }
}

/// Adds (`sign` 1) or subtracts (-1) an interval: first its months, then its days and microseconds.
pub fn moved(micros: i64, length: IntervalLength, sign: i64) -> Result<Scalar, Unjudged> {
    let (days, time) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    let months = year * 12 + month - 1 + sign * i64::from(length.months);
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    let day = day.min(length_of(year, month));
    let days = day_of(year, month, day).expect("a day within its month") + sign * i64::from(length.days);
    let micros = i128::from(days) * i128::from(DAY) + i128::from(time) + i128::from(sign) * i128::from(length.micros);
    let micros = i64::try_from(micros).map_err(|_| Unjudged::row("a moment beyond all years"))?;
    within(Scalar::Moment(micros))
}

/// The interval between two timestamps: days and microseconds of the same sign.
pub fn between(later: i64, earlier: i64) -> IntervalLength {
    let micros = later - earlier;
    IntervalLength {
        months: 0,
        days: (micros / DAY) as i32,
        micros: micros % DAY,
    }
}

/// The sum of two intervals (`sign` 1), or their difference (-1).
pub fn added(a: IntervalLength, b: IntervalLength, sign: i64) -> Result<Scalar, Unjudged> {
    let far = || Unjudged::row("an INTERVAL beyond all that there are");
    let part = |a: i32, b: i32| i32::try_from(i64::from(a) + sign * i64::from(b)).map_err(|_| far());
    let micros = b.micros.checked_mul(sign).and_then(|b| a.micros.checked_add(b));
    Ok(Scalar::Length(IntervalLength {
        months: part(a.months, b.months)?,
        days: part(a.days, b.days)?,
        micros: micros.ok_or_else(far)?,
    }))
}

/// Parses `2024-01-02`, or with a time `2024-01-02 03:04:05.678`.
pub fn parse(text: &str, of: &ScalarType) -> Result<Scalar, Unjudged> {
    let unread = || Unjudged::construct(format!("the text {text:?} as a {}", of.name()));
    let trimmed = text.trim();
    let (date, time) = match trimmed.split_once([' ', 'T']) {
        Some((date, time)) => (date, Some(time)),
        None => (trimmed, None),
    };
    let whole = |text: &str, length: std::ops::RangeInclusive<usize>| -> Option<i64> {
        let digits = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let day = || {
        let mut parts = date.split('-');
        let day = day_of(
            whole(parts.next()?, 4..=4)?,
            whole(parts.next()?, 1..=2)?,
            whole(parts.next()?, 1..=2)?,
        );
        day.filter(|_| parts.next().is_none())
    };
    let time = || {
        let Some(time) = time else { return Some(0) };
        let mut parts = time.split(':');
        let (hours, minutes) = (whole(parts.next()?, 1..=2)?, whole(parts.next()?, 2..=2)?);
        let (seconds, fraction) = match parts.next() {
            Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "0")),
            None => ("00", "0"),
        };
        let micros = whole(fraction, 1..=6)? * 10i64.pow(6 - fraction.len() as u32);
        let seconds = whole(seconds, 2..=2)?;
        let in_day = hours < 24 && minutes < 60 && seconds < 60 && parts.next().is_none();
        in_day.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
    };
    let (day, time) = (day().ok_or_else(unread)?, time().ok_or_else(unread)?);
    within(match of {
        ScalarType::Date => Scalar::Date(day as i32),
        _ => Scalar::Moment(day * DAY + time),
    })
}

/// Parses an interval like `1 day 2 hours`, numbers with units; `unit` is the unit that follows the text.
pub fn length(text: &str, unit: Option<&str>) -> Result<IntervalLength, Unjudged> {
    let unread = || Unjudged::construct(format!("the INTERVAL {text:?}"));
    let spaced = match unit {
        Some(unit) => format!("{text} {unit}"),
        None => text.to_string(),
    };
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(unread());
    }
    let (mut months, mut days, mut micros) = (0i64, 0i64, 0i64);
    for pair in words.chunks(2) {
        let n: i64 = pair[0].parse().map_err(|_| unread())?;
        let unit = pair[1].to_ascii_lowercase();
        let unit = if unit.len() > 2 {
            unit.trim_end_matches('s')
        } else {
            &unit
        };
        let (to, by) = match unit {
            "century" | "centurie" => (&mut months, 1200),
            "decade" => (&mut months, 120),
            "year" => (&mut months, 12),
            "quarter" => (&mut months, 3),
            "month" | "mon" => (&mut months, 1),
            "week" => (&mut days, 7),
            "day" => (&mut days, 1),
            "hour" => (&mut micros, 3_600_000_000),
            "minute" | "min" => (&mut micros, 60_000_000),
            "second" | "sec" => (&mut micros, 1_000_000),
            "millisecond" => (&mut micros, 1_000),
            "microsecond" => (&mut micros, 1),
            _ => return Err(unread()),
        };
        *to = n.checked_mul(by).and_then(|n| to.checked_add(n)).ok_or_else(unread)?;
    }
    let part = |n: i64| i32::try_from(n).map_err(|_| unread());
    Ok(IntervalLength {
        months: part(months)?,
        days: part(days)?,
        micros,
    })
}

/// The beginning of the unit that contains a timestamp.
pub fn truncated(unit: &str, micros: i64) -> Option<i64> {
    let step = |length: i64| Some(micros.div_euclid(length) * length);
    let days = micros.div_euclid(DAY);
    let (year, month, _) = civil_from_days(days);
    let first = |year: i64, month: i64| day_of(year, month, 1).map(|day| day * DAY);
    match unit.to_ascii_lowercase().as_str() {
        "microsecond" | "microseconds" => Some(micros),
        "millisecond" | "milliseconds" => step(1_000),
        "second" => step(1_000_000),
        "minute" => step(60_000_000),
        "hour" => step(3_600_000_000),
        "day" => step(DAY),
        "week" => Some((days - weekday(days) + 1) * DAY),
        "month" => first(year, month),
        "quarter" => first(year, (month - 1) / 3 * 3 + 1),
        "year" => first(year, 1),
        "decade" => first(year.div_euclid(10) * 10, 1),
        "century" => first((year - 1).div_euclid(100) * 100 + 1, 1),
        "millennium" => first((year - 1).div_euclid(1000) * 1000 + 1, 1),
        _ => None,
    }
}

/// The day of the week, from 1 for Monday to 7.
fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

/// The types of the fields of EXTRACT that are supported here.
pub fn field_type(field: &str) -> Option<ScalarType> {
    Some(match field {
        "second" | "seconds" | "epoch" => ScalarType::Number(6),
        "milliseconds" | "millisecond" => ScalarType::Number(3),
        "year" | "month" | "day" | "hour" | "minute" | "dow" | "isodow" | "doy" | "quarter" | "week" => {
            ScalarType::Int(32)
        }
        _ => return None,
    })
}

/// The value of a timestamp's field.
pub fn field(field: &str, micros: i64) -> Option<Scalar> {
    let (days, time) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    Some(match field {
        "second" | "seconds" => Scalar::Number((time % 60_000_000).into(), 6),
        "milliseconds" | "millisecond" => Scalar::Number((time % 60_000_000).into(), 3),
        "epoch" => Scalar::Number(micros.into(), 6),
        "year" => Scalar::Int(year),
        "month" => Scalar::Int(month),
        "day" => Scalar::Int(day),
        "hour" => Scalar::Int(time / 3_600_000_000),
        "minute" => Scalar::Int(time / 60_000_000 % 60),
        "dow" => Scalar::Int(weekday(days) % 7),
        "isodow" => Scalar::Int(weekday(days)),
        "doy" => Scalar::Int(days - day_of(year, 1, 1)? + 1),
        "quarter" => Scalar::Int((month - 1) / 3 + 1),
        "week" => {
            // A week belongs to the year of its Thursday.
            let thursday = days - weekday(days) + 4;
            let (year, _, _) = civil_from_days(thursday);
            Scalar::Int((thursday - day_of(year, 1, 1)?) / 7 + 1)
        }
        _ => return None,
    })
}

/// A date or timestamp as text.
pub fn written(value: &Scalar, zone: bool) -> String {
    let mut text = String::new();
    let mut date = |days: i64| {
        let (year, month, day) = civil_from_days(days);
        let _ = write!(text, "{year:04}-{month:02}-{day:02}"); // A String takes all.
    };
    match value {
        Scalar::Date(days) => date(i64::from(*days)),
        Scalar::Moment(micros) => {
            date(micros.div_euclid(DAY));
            let (seconds, fraction) = (micros.rem_euclid(DAY) / 1_000_000, micros.rem_euclid(1_000_000));
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let _ = write!(text, " {hours:02}:{minutes:02}:{:02}", seconds % 60);
            if fraction > 0 {
                let _ = write!(text, ".{}", format!("{fraction:06}").trim_end_matches('0'));
            }
            if zone {
                text.push_str("+00");
            }
        }
        _ => {}
    }
    text
}
