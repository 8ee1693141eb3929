//! Reads timestamps from texts by a template pattern, as PostgreSQL's `DCH_from_char` and `do_to_timestamp` do.
//!
//! 1. Without `FX`, blanks before a field are skipped, and a separator of the pattern matches any separator of
//!    the text, or none.
//! 2. A number right before another number or a digit has exactly as many digits as its keyword; elsewhere it may
//!    have any number of digits.
//! 3. A field that the text lacks has its first value; the rest of the text after the pattern is ignored.

use std::iter::Peekable;
use std::str::Chars;

use super::keys::{PatternField, PatternKey, PatternNode, is_separator};
use super::{DAYS, MONTHS, ROMAN, Template, is_of_weeks};
use crate::plan::times::{DAY, SECOND, days_from_civil, days_of_month, in_calendar, is_leap, weekday};
use crate::repr::civil_from_days;

/// The fields that were read. A field that the text lacks is 0, as in PostgreSQL.
#[derive(Default)]
struct ReadFields {
    hour: i64,
    is_half_day: bool,
    is_afternoon: bool,
    minute: i64,
    second: i64,
    second_of_day: i64,
    millis: i64,
    micros: i64,
    /// The day of the week, where 1 is Sunday.
    week_day: i64,
    day: i64,
    day_of_year: i64,
    month: i64,
    year: i64,
    year_digits: u32,
    is_before_christ: bool,
    week: i64,
    week_of_month: i64,
    century: i64,
    julian: i64,
    is_west: bool,
    zone_hour: i64,
    zone_minute: i64,
    is_of_weeks: bool,
}

/// The rest of a text that is being read.
struct RemainingText<'a> {
    chars: Peekable<Chars<'a>>,
}

impl RemainingText<'_> {
    fn skip_blanks(&mut self) -> usize {
        let mut skipped = 0;
        while self.chars.next_if(char::is_ascii_whitespace).is_some() {
            skipped += 1;
        }
        skipped
    }

    /// An integer with its sign, of at most `most` characters, and how many characters it has.
    fn number(&mut self, most: usize) -> Option<(i64, usize)> {
        let mut text = String::new();
        while text.len() < most
            && let Some(c) = self
                .chars
                .next_if(|c| c.is_ascii_digit() || (text.is_empty() && matches!(c, '+' | '-')))
        {
            text.push(c);
        }
        let number = text.parse::<i32>().ok()?;
        Some((number.into(), text.len()))
    }

    /// The index of the name with which the rest begins, in any case of letters.
    fn name(&mut self, names: &[&str]) -> Option<usize> {
        let text: String = self.chars.clone().take(12).collect::<String>().to_ascii_lowercase();
        let number = names
            .iter()
            .position(|name| text.starts_with(&name.to_ascii_lowercase()))?;
        for _ in 0..names[number].len() {
            self.chars.next();
        }
        Some(number)
    }
}

impl Template {
    /// The timestamp that a text denotes, in microseconds. `None` if it is malformed or outside the years 1 to 9999.
    pub fn read(&self, text: &str) -> Option<i64> {
        let mut fields = ReadFields {
            is_of_weeks: self.fields().any(|field| is_of_weeks(field.key)),
            ..ReadFields::default()
        };
        let mut rest = RemainingText {
            chars: text.chars().peekable(),
        };
        let (mut is_exact, mut skipped) = (false, 0i64);
        for (n, node) in self.nodes.iter().enumerate() {
            if rest.chars.peek().is_none() {
                break;
            }
            let is_field = matches!(node, PatternNode::Field(field) if field.key != PatternKey::Exact);
            if !is_exact && (is_field || (n == 0 && !matches!(node, PatternNode::Field(_)))) {
                skipped += rest.skip_blanks() as i64;
            }
            match node {
                PatternNode::Field(field) if field.key == PatternKey::Exact => {
                    is_exact = true;
                    continue;
                }
                PatternNode::Field(field) => {
                    fields.read_field(field, self.nodes.get(n + 1), &mut rest)?;
                    if !is_exact {
                        skipped = rest.skip_blanks() as i64;
                    }
                }
                PatternNode::Separator(_) if !is_exact => {
                    skipped -= 1;
                    if rest
                        .chars
                        .next_if(|c| c.is_ascii_whitespace() || is_separator(*c))
                        .is_some()
                    {
                        skipped += 1;
                    }
                }
                // A blank that was skipped counts as this character, so that no character of a field is taken.
                PatternNode::Text(_) if !is_exact && skipped > 0 => skipped -= 1,
                _ => {
                    rest.chars.next();
                }
            }
        }
        fields.point()
    }
}

impl ReadFields {
    fn read_field(&mut self, field: &PatternField, next: Option<&PatternNode>, rest: &mut RemainingText) -> Option<()> {
        let is_free = field.fills
            || field.ordinal.is_some()
            || match next {
                None => true,
                Some(PatternNode::Field(next)) => !next.key.is_number(),
                Some(PatternNode::Text(c) | PatternNode::Separator(c)) => !c.is_ascii_digit(),
            };
        // Takes a number as (2) demands.
        let mut number = |width: usize| {
            rest.skip_blanks();
            let (number, digits) = rest.number(if is_free { usize::MAX } else { width })?;
            (is_free || digits == width).then_some((number, digits))
        };
        let of_second = |(number, digits): (i64, usize), all: u32| {
            let lacking = all.saturating_sub(u32::try_from(digits).unwrap_or(all));
            number.checked_mul(10i64.pow(lacking))
        };
        match field.key {
            PatternKey::Meridiem { points } => {
                let names = if points { ["a.m.", "p.m."] } else { ["am", "pm"] };
                self.is_afternoon = rest.name(&names)? == 1;
                self.is_half_day = true;
            }
            PatternKey::Era { points } => {
                let names = if points { ["a.d.", "b.c."] } else { ["ad", "bc"] };
                self.is_before_christ = rest.name(&names)? == 1;
            }
            PatternKey::Hour12 => (self.hour, self.is_half_day) = (number(2)?.0, true),
            PatternKey::Hour24 => self.hour = number(2)?.0,
            PatternKey::Minute => self.minute = number(2)?.0,
            PatternKey::Second => self.second = number(2)?.0,
            PatternKey::SecondOfDay => self.second_of_day = number(field.width)?.0,
            PatternKey::Millis => self.millis = of_second(number(3)?, 3)?,
            PatternKey::Micros => self.micros = of_second(number(6)?, 6)?,
            PatternKey::Fraction(digits) => self.micros = of_second(number(digits as usize)?, 6)?,
            PatternKey::MonthName => self.month = rest.name(&MONTHS)? as i64 + 1,
            PatternKey::MonthShort => self.month = rest.name(&MONTHS.map(|name| &name[..3]))? as i64 + 1,
            PatternKey::Month => self.month = number(2)?.0,
            PatternKey::MonthRoman => {
                // Longer names are tried first, because VIII begins with V.
                let mut names: Vec<(usize, &str)> = ROMAN.iter().copied().enumerate().collect();
                names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
                let texts: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
                self.month = names[rest.name(&texts)?].0 as i64 + 1;
            }
            PatternKey::DayName => self.week_day = (rest.name(&DAYS)? as i64 + 1) % 7 + 1,
            PatternKey::DayShort => self.week_day = (rest.name(&DAYS.map(|name| &name[..3]))? as i64 + 1) % 7 + 1,
            PatternKey::DayOfYear | PatternKey::IsoDayOfYear => self.day_of_year = number(3)?.0,
            PatternKey::Day => self.day = number(2)?.0,
            PatternKey::WeekDay => self.week_day = number(1)?.0,
            // A number above 6 is Sunday, as in PostgreSQL.
            PatternKey::IsoWeekDay => self.week_day = Some(number(1)?.0 + 1).filter(|day| *day <= 7).unwrap_or(1),
            PatternKey::Week | PatternKey::IsoWeek => self.week = number(2)?.0,
            PatternKey::WeekOfMonth => self.week_of_month = number(1)?.0,
            PatternKey::Quarter => {
                number(1)?;
            }
            PatternKey::Century => self.century = number(2)?.0,
            PatternKey::Julian => self.julian = number(1)?.0,
            PatternKey::YearWithComma => {
                let (thousands, _) = rest.number(usize::MAX)?;
                rest.chars.next_if_eq(&',')?;
                let (years, _) = rest.number(3)?;
                (self.year, self.year_digits) = (thousands * 1000 + years, 4);
            }
            PatternKey::Year(digits) | PatternKey::IsoYear(digits) => {
                let (year, read) = number(digits as usize)?;
                self.year = if digits < 4 && read < 4 { near_2020(year) } else { year };
                self.year_digits = digits;
            }
            PatternKey::ZoneHour => {
                let sign = rest.chars.next_if(|c| matches!(c, '+' | '-' | ' '));
                self.is_west = sign == Some('-');
                rest.skip_blanks();
                let (hour, _) = rest.number(2)?;
                self.zone_hour = hour;
            }
            PatternKey::ZoneMinute => self.zone_minute = number(2)?.0,
            PatternKey::ZoneName | PatternKey::ZoneOffset | PatternKey::Exact => {}
        }
        if field.ordinal.is_some() {
            for _ in 0..2 {
                rest.chars.next();
            }
        }
        Some(())
    }

    /// The timestamp of the fields.
    fn point(self) -> Option<i64> {
        let days = self.days()?;
        let mut hour = self.hour;
        if self.is_half_day {
            if !(1..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + if self.is_afternoon { 12 } else { 0 };
        }
        let (mut minute, mut second) = (self.minute, self.second);
        if self.second_of_day != 0 {
            let of_day = self.second_of_day;
            (hour, minute, second) = (
                of_day / 3600,
                of_day / 60 % 60,
                if second == 0 { of_day % 60 } else { second },
            );
        }
        let micros = self.millis * 1000 + self.micros;
        let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
        let is_zone = (0..=15).contains(&self.zone_hour) && (0..60).contains(&self.zone_minute);
        if !is_time || !is_zone || !(0..SECOND).contains(&micros) {
            return None;
        }
        let east = (self.zone_hour * 60 + self.zone_minute) * if self.is_west { -1 } else { 1 };
        let seconds = (hour * 60 + minute - east) * 60 + second;
        in_calendar(i128::from(days) * i128::from(DAY) + i128::from(seconds * SECOND + micros))
    }

    fn days(&self) -> Option<i64> {
        let mut year = match (self.year, self.century) {
            (0, 0) => 0,
            (0, century) => (century - 1) * 100 + 1,
            // A century with the last two digits of a year.
            (year, century) if century != 0 && self.year_digits <= 2 => match year % 100 {
                0 => century * 100,
                year => (century - 1) * 100 + year,
            },
            (year, _) => year,
        };
        let (mut month, mut day) = (1, 1);
        let mut day_of_year = self.day_of_year;
        if self.is_before_christ {
            return None;
        }
        if self.julian != 0 {
            (year, month, day) = civil_from_days(self.julian - 2_440_588);
        }
        if self.week != 0 {
            if self.is_of_weeks {
                // Sunday is the last day of its week.
                let day_of_week = if self.week_day == 0 { 0 } else { (self.week_day + 5) % 7 };
                let monday = first_monday(year) + (self.week - 1) * 7;
                (year, month, day) = civil_from_days(monday + day_of_week);
            } else {
                day_of_year = (self.week - 1) * 7 + 1;
            }
        }
        if self.week_of_month != 0 {
            day = (self.week_of_month - 1) * 7 + 1;
        }
        if self.day != 0 {
            day = self.day;
        }
        if self.month != 0 {
            month = self.month;
        }
        if day_of_year != 0 && (month <= 1 || day <= 1) {
            let first = match self.is_of_weeks {
                true => first_monday(year),
                false if !(1..=365 + i64::from(is_leap(year))).contains(&day_of_year) => return None,
                false => days_from_civil(year, 1, 1),
            };
            let (of_year, of_month, of) = civil_from_days(first + day_of_year - 1);
            if self.is_of_weeks {
                year = of_year;
            }
            month = if month <= 1 { of_month } else { month };
            day = if day <= 1 { of } else { day };
        }
        let is_there = (1..=9999).contains(&year) && (1..=12).contains(&month);
        (is_there && (1..=days_of_month(year, month)).contains(&day)).then(|| days_from_civil(year, month, day))
    }
}

/// The Monday of a year's first ISO 8601 week, which contains January 4th.
fn first_monday(year: i64) -> i64 {
    let fourth = days_from_civil(year, 1, 4);
    fourth - weekday(fourth)
}

/// A year with fewer than four digits is completed to the year nearest to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        year => year,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::times::TimestampText;
    use crate::repr::{FIRST_MOMENT, LAST_MOMENT};
    use proptest::prelude::*;

    fn read(text: &str, pattern: &str) -> Option<String> {
        let template = Template::to_read(pattern).unwrap();
        template.read(text).map(|point| TimestampText(point).to_string())
    }

    /// The expected values are PostgreSQL's.
    #[test]
    fn texts_are_read_as_postgres_reads_them() {
        for (text, pattern, at) in [
            ("2024-05-01", "YYYY-MM-DD", "2024-05-01 00:00:00"),
            ("  2024 /5/ 1", "YYYY-MM-DD", "2024-05-01 00:00:00"),
            ("20240501130405", "YYYYMMDDHH24MISS", "2024-05-01 13:04:05"),
            ("2024-05-01T13:04", "YYYY-MM-DD\"T\"HH24:MI", "2024-05-01 13:04:00"),
            ("01 May 24 01:04 PM", "DD Mon YY HH12:MI AM", "2024-05-01 13:04:00"),
            ("1st september 1999", "FMDDth FMMonth YYYY", "1999-09-01 00:00:00"),
            ("2024-05", "YYYY-MM-DD", "2024-05-01 00:00:00"),
            ("2024-05-01 and more", "YYYY-MM-DD", "2024-05-01 00:00:00"),
            ("2024-122", "YYYY-DDD", "2024-05-01 00:00:00"),
            ("2024-18-3", "IYYY-IW-ID", "2024-05-01 00:00:00"),
            ("2024-18", "IYYY-IW", "2024-04-29 00:00:00"),
            ("24-12-31", "IYYY-IW-ID", "0024-03-24 00:00:00"),
            ("2024-18", "YYYY-WW", "2024-04-29 00:00:00"),
            (
                "2024-05-01 00:00:12.5",
                "YYYY-MM-DD HH24:MI:SS.MS",
                "2024-05-01 00:00:12.5",
            ),
            (
                "2024-05-01 00:00:12.000789",
                "YYYY-MM-DD HH24:MI:SS.US",
                "2024-05-01 00:00:12.000789",
            ),
            (
                "2024-05-01 02:00 +02:00",
                "YYYY-MM-DD HH24:MI TZH:TZM",
                "2024-05-01 00:00:00",
            ),
            ("VIII 2024", "RM YYYY", "2024-08-01 00:00:00"),
            ("2,024", "Y,YYY", "2024-01-01 00:00:00"),
            ("69", "YY", "2069-01-01 00:00:00"),
            ("70", "YY", "1970-01-01 00:00:00"),
            ("2460432", "J", "2024-05-01 00:00:00"),
            ("9999-12-31", "YYYY-MM-DD", "9999-12-31 00:00:00"),
            ("2024-05-01 47045", "YYYY-MM-DD SSSSS", "2024-05-01 13:04:05"),
        ] {
            assert_eq!(read(text, pattern).as_deref(), Some(at), "{text} {pattern}");
        }
        for (text, pattern) in [
            ("2024-13-01", "YYYY-MM-DD"),
            ("2024-02-30", "YYYY-MM-DD"),
            ("2024-05-01 25:00", "YYYY-MM-DD HH24:MI"),
            ("2024-05-01 13:00", "YYYY-MM-DD HH12:MI"),
            ("soon", "YYYY-MM-DD"),
            ("2024 Mai", "YYYY Mon"),
            ("2024051", "YYYYMMDDHH24"),
            ("0044-01-01 BC", "YYYY-MM-DD BC"),
            ("2023-366", "YYYY-DDD"),
            ("", "YYYY"),
        ] {
            assert_eq!(read(text, pattern), None, "{text} {pattern}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_by_a_pattern_is_read_by_it(
            at in FIRST_MOMENT..=LAST_MOMENT,
            pattern in prop::sample::select(vec![
                "YYYY-MM-DD HH24:MI:SS.US", "YYYYMMDDHH24MISSUS", "FMDDth Month YYYY, HH12:MI:SS.FF6 p.m.",
                "IYYY-IW-ID SSSSS.US", "Day, DD Mon YYYY HH24:MI:SS.US", "J HH24:MI:SS.FF6", "YYYY-DDD HH24:MI:SS.US",
                "Y,YYY RM DD AM HH:MI:SS.US", "FMYYYY-FMMM-FMDD FMHH24:FMMI:FMSS.US",
            ]),
        ) {
            let mut text = String::new();
            Template::to_write(pattern).write(at, None, &mut text).unwrap();
            prop_assert_eq!(Template::to_read(pattern).unwrap().read(&text), Some(at), "{}", text);
        }
    }
}
