//! Writes timestamps by a template pattern.

use std::fmt::{Error, Write};

use super::keys::{LetterCase, PatternField, PatternKey, PatternNode};
use super::{DAYS, MONTHS, ROMAN, Template};
use crate::plan::times::{DAY, SECOND, days_from_civil, iso_week, weekday};
use crate::repr::civil_from_days;

/// The parts of a timestamp.
struct TimestampParts {
    days: i64,
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    micros: i64,
}

impl Template {
    /// Writes a timestamp; `zone` is the name of its zone, if it has one.
    pub fn write(&self, point: i64, zone: Option<&str>, out: &mut impl Write) -> Result<(), Error> {
        let (days, time) = (point.div_euclid(DAY), point.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        let parts = TimestampParts {
            days,
            year,
            month,
            day,
            second_of_day: time / SECOND,
            micros: time % SECOND,
        };
        for node in &self.nodes {
            match node {
                PatternNode::Separator(c) | PatternNode::Text(c) => out.write_char(*c)?,
                PatternNode::Field(field) => parts.write(field, zone, out)?,
            }
        }
        Ok(())
    }
}

impl TimestampParts {
    fn write(&self, field: &PatternField, zone: Option<&str>, out: &mut impl Write) -> Result<(), Error> {
        let hour = self.second_of_day / 3600;
        let day_of_year = self.days - days_from_civil(self.year, 1, 1) + 1;
        let (iso_year, iso_week) = iso_week(self.days);
        let day_of_week = weekday(self.days);
        let (number, width) = match field.key {
            PatternKey::Meridiem { points } => {
                let text = match (hour >= 12, points) {
                    (true, true) => "P.M.",
                    (true, false) => "PM",
                    (false, true) => "A.M.",
                    (false, false) => "AM",
                };
                return out.write_str(&cased(text, field.letters));
            }
            PatternKey::Era { points } => {
                return out.write_str(&cased(if points { "A.D." } else { "AD" }, field.letters));
            }
            PatternKey::DayName | PatternKey::DayShort => {
                return name(DAYS[day_of_week as usize], PatternKey::DayShort, field, out);
            }
            PatternKey::MonthName | PatternKey::MonthShort => {
                return name(MONTHS[self.month as usize - 1], PatternKey::MonthShort, field, out);
            }
            PatternKey::MonthRoman => {
                let width = if field.fills { 0 } else { 4 };
                return write!(out, "{:<width$}", cased(ROMAN[self.month as usize - 1], field.letters));
            }
            PatternKey::ZoneName => {
                let name = zone.unwrap_or_default();
                return out.write_str(&match field.letters {
                    LetterCase::Lower => name.to_ascii_lowercase(),
                    _ => name.to_string(),
                });
            }
            PatternKey::ZoneHour => return out.write_str("+00"),
            PatternKey::ZoneMinute => return out.write_str("00"),
            PatternKey::ZoneOffset => return out.write_str(if field.fills { "+0" } else { "+00" }),
            PatternKey::Exact => return Ok(()),
            PatternKey::YearWithComma => {
                write!(out, "{},{:03}", self.year / 1000, self.year % 1000)?;
                return ordinal(self.year, field, out);
            }
            // Fractions always have all of their digits, even with FM.
            PatternKey::Millis => return fraction(self.micros / 1000, 3, field, out),
            PatternKey::Micros => return fraction(self.micros, 6, field, out),
            PatternKey::Fraction(digits) => {
                return fraction(self.micros / 10i64.pow(6 - digits), digits as usize, field, out);
            }
            PatternKey::Century => ((self.year + 99) / 100, 2),
            PatternKey::DayOfYear => (day_of_year, 3),
            PatternKey::IsoDayOfYear => ((iso_week - 1) * 7 + day_of_week + 1, 3),
            PatternKey::Day => (self.day, 2),
            PatternKey::WeekDay => ((day_of_week + 1) % 7 + 1, 1),
            PatternKey::IsoWeekDay => (day_of_week + 1, 1),
            PatternKey::Hour24 => (hour, 2),
            PatternKey::Hour12 => ((hour + 11) % 12 + 1, 2),
            PatternKey::Minute => (self.second_of_day / 60 % 60, 2),
            PatternKey::Second => (self.second_of_day % 60, 2),
            PatternKey::SecondOfDay => (self.second_of_day, 1),
            PatternKey::Month => (self.month, 2),
            PatternKey::Quarter => ((self.month - 1) / 3 + 1, 1),
            PatternKey::Week => ((day_of_year - 1) / 7 + 1, 2),
            PatternKey::IsoWeek => (iso_week, 2),
            PatternKey::WeekOfMonth => ((self.day - 1) / 7 + 1, 1),
            PatternKey::Julian => (self.days + 2_440_588, 1),
            PatternKey::Year(4) => (self.year, 4),
            PatternKey::IsoYear(4) => (iso_year, 4),
            PatternKey::Year(digits) => (self.year % 10i64.pow(digits), digits as usize),
            PatternKey::IsoYear(digits) => (iso_year % 10i64.pow(digits), digits as usize),
        };
        match field.fills {
            true => write!(out, "{number}")?,
            false => write!(out, "{number:0width$}")?,
        }
        ordinal(number, field, out)
    }
}

fn fraction(number: i64, digits: usize, field: &PatternField, out: &mut impl Write) -> Result<(), Error> {
    write!(out, "{number:0digits$}")?;
    ordinal(number, field, out)
}

/// Writes a name, or its first three letters. A full name is padded to nine characters unless `FM` forbids it.
fn name(name: &str, short: PatternKey, field: &PatternField, out: &mut impl Write) -> Result<(), Error> {
    match field.key == short {
        true => out.write_str(&cased(&name[..3], field.letters)),
        false if field.fills => out.write_str(&cased(name, field.letters)),
        false => write!(out, "{:<9}", cased(name, field.letters)),
    }
}

fn cased(text: &str, letters: LetterCase) -> String {
    match letters {
        LetterCase::Upper => text.to_ascii_uppercase(),
        LetterCase::Lower => text.to_ascii_lowercase(),
        LetterCase::Capital => text.to_string(),
    }
}

/// Writes the ending of an ordinal number, as in `1ST` or `11th`.
fn ordinal(number: i64, field: &PatternField, out: &mut impl Write) -> Result<(), Error> {
    let Some(letters) = field.ordinal else { return Ok(()) };
    let ending = match (number / 10 % 10, number % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    out.write_str(&cased(ending, letters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;

    fn written(at: &str, pattern: &str) -> String {
        let at = at.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros();
        let mut text = String::new();
        Template::to_write(pattern).write(at, None, &mut text).unwrap();
        text
    }

    /// The expected texts are PostgreSQL's.
    #[test]
    fn a_moment_is_written_as_postgres_writes_it() {
        let at = "2024-05-01T13:04:05.006789";
        for (pattern, text) in [
            ("YYYY-MM-DD HH24:MI:SS.US", "2024-05-01 13:04:05.006789"),
            ("yyyymmdd", "20240501"),
            ("FMMonth FMDDth, YYYY", "May 1st, 2024"),
            ("Month|DAY|dy", "May      |WEDNESDAY|wed"),
            ("HH12:MI am P.M.", "01:04 pm P.M."),
            ("Mon YY Q WW IW W D ID DDD", "May 24 2 18 18 1 4 3 122"),
            ("IYYY-IW-ID IDDD", "2024-18-3 122"),
            ("FF1 FF3 MS FMUS", "0 006 006 006789"),
            ("SSSS J CC RM|", "47045 2460432 21 V   |"),
            ("Y,YYY YYY Y BC", "2,024 024 4 AD"),
            ("\"it is \"HH24\"h\" \\\"", "it is 13h \""),
            ("OF TZH:TZM TZ", "+00 +00:00 "),
            ("at DD", "at 01"),
        ] {
            assert_eq!(written(at, pattern), text, "{pattern}");
        }
        assert_eq!(written("0001-01-01T00:00:00", "YYYY HH12 CC"), "0001 12 01");
        assert_eq!(written("9999-12-31T23:59:59", "IYYY IW"), "9999 52");
        assert_eq!(written("2024-05-11T00:00:00", "DDTH FMMMth"), "11TH 5th");
    }
}
