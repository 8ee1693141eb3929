//! PostgreSQL's template patterns for dates and times, `YYYY-MM-DD HH24:MI:SS`, in `to_char`, `to_date` and `to_timestamp`.
//!
//! A format with a `%` is strftime's; any other is one of these. All keywords, `FM`, `TH`, `FX` and quoted text are known; names of
//! months and days are English. Not known are `TZ` and `OF` where a text is read.

mod keys;
mod read;
mod write;

use keys::{Field, Key, Node, nodes};

/// Whether a format is a template pattern, and none of strftime.
pub(super) fn is_template(format: &str) -> bool {
    !format.contains('%')
}

/// A template pattern.
#[derive(Clone, Debug)]
pub(super) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// The pattern, for writing.
    pub fn to_write(pattern: &str) -> Template {
        Template { nodes: nodes(pattern) }
    }

    /// The pattern, for reading.
    ///
    /// # Errors
    /// No text could be read by it: why, and what to do.
    pub fn to_read(pattern: &str) -> Result<Template, String> {
        let template = Template { nodes: nodes(pattern) };
        let keys: Vec<Key> = template.fields().map(|field| field.key).collect();
        let mut seen: Vec<Key> = Vec::new();
        for key in &keys {
            match key {
                Key::ZoneName | Key::ZoneOffset => {
                    return Err("it has TZ or OF, which are written only; write TZH:TZM for offsets".to_string());
                }
                Key::Exact => {}
                key if seen.iter().any(|other| means_same(*other, *key)) => {
                    return Err(
                        "it has a field twice, or a thing in two ways; MM is the month and MI the minute, in any letters".to_string(),
                    );
                }
                key => seen.push(*key),
            }
        }
        if keys.iter().any(|key| is_of_weeks(*key)) && keys.iter().any(|key| is_of_months(*key)) {
            return Err(
                "it mixes a day of ISO 8601's weeks with one of months; write IYYY-IW-ID or YYYY-MM-DD".to_string(),
            );
        }
        let has_year = |key: &Key| {
            matches!(
                key,
                Key::Year(_) | Key::IsoYear(_) | Key::YearWithComma | Key::Century | Key::Julian
            )
        };
        match keys.iter().any(has_year) {
            true => Ok(template),
            false => Err(
                "it says no year; write a pattern as in YYYY-MM-DD HH24:MI:SS, or one of strftime as in %Y-%m-%d %H:%M:%S".to_string(),
            ),
        }
    }

    fn fields(&self) -> impl Iterator<Item = &Field> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Field(field) => Some(field),
            _ => None,
        })
    }
}

/// Whether two keywords would give the same thing, perhaps another value of it.
fn means_same(one: Key, other: Key) -> bool {
    let group = |key: Key| match key {
        Key::Year(_) | Key::YearWithComma => 1,
        Key::Month | Key::MonthName | Key::MonthShort | Key::MonthRoman => 2,
        Key::Hour12 | Key::Hour24 => 3,
        Key::Micros | Key::Fraction(_) => 4,
        Key::Meridiem { .. } => 5,
        Key::Era { .. } => 6,
        Key::IsoYear(_) => 7,
        _ => 0,
    };
    one == other || (group(one) != 0 && group(one) == group(other))
}

fn is_of_weeks(key: Key) -> bool {
    matches!(
        key,
        Key::IsoYear(_) | Key::IsoWeek | Key::IsoWeekDay | Key::IsoDayOfYear
    )
}

fn is_of_months(key: Key) -> bool {
    matches!(
        key,
        Key::Year(_)
            | Key::YearWithComma
            | Key::Month
            | Key::MonthName
            | Key::MonthShort
            | Key::MonthRoman
            | Key::Day
            | Key::DayOfYear
            | Key::Week
            | Key::WeekOfMonth
    )
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_reads_nothing_is_refused() {
        for (pattern, why) in [
            ("HH24:MI", "no year"),
            ("soon", "no year"),
            ("yyyy-MM-dd HH:mm:ss", "twice"),
            ("YYYY-IW", "mixes"),
            ("YYYY-MM-DD TZ", "TZH"),
        ] {
            assert!(
                Template::to_read(pattern).is_err_and(|told| told.contains(why)),
                "{pattern}"
            );
        }
        for pattern in [
            "YYYY-MM-DD",
            "yyyymmdd",
            "IYYY-IW-ID",
            "J",
            "DD Mon YY",
            "YYYY-DDD",
            "FXYYYY/MM/DD",
        ] {
            assert!(Template::to_read(pattern).is_ok(), "{pattern}");
        }
        assert!(is_template("YYYY") && !is_template("%Y"));
    }
}
