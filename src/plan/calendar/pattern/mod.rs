//! PostgreSQL's template patterns for dates and times, such as `YYYY-MM-DD HH24:MI:SS`, for `to_char`,
//! `to_date` and `to_timestamp`.
//!
//! A format with a `%` is strftime's; any other is a template pattern. All keywords, `FM`, `TH`, `FX` and
//! quoted text are supported; names of months and days are English. `TZ` and `OF` are only supported for
//! writing.

mod keys;
mod read;
mod write;

use keys::{PatternField, PatternKey, PatternNode, nodes};

/// Whether a format is a template pattern, rather than strftime's.
pub(super) fn is_template(format: &str) -> bool {
    !format.contains('%')
}

/// A parsed template pattern.
#[derive(Clone, Debug)]
pub(super) struct Template {
    nodes: Vec<PatternNode>,
}

impl Template {
    /// Parses a pattern for writing.
    pub fn to_write(pattern: &str) -> Template {
        Template { nodes: nodes(pattern) }
    }

    /// Parses a pattern for reading.
    ///
    /// # Errors
    /// No text could be read by the pattern. Says why, and what to write instead.
    pub fn to_read(pattern: &str) -> Result<Template, String> {
        let template = Template { nodes: nodes(pattern) };
        let keys: Vec<PatternKey> = template.fields().map(|field| field.key).collect();
        let mut seen: Vec<PatternKey> = Vec::new();
        for key in &keys {
            match key {
                PatternKey::ZoneName | PatternKey::ZoneOffset => {
                    return Err("it has TZ or OF, which are written only; write TZH:TZM for offsets".to_string());
                }
                PatternKey::Exact => {}
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
        let has_year = |key: &PatternKey| {
            matches!(
                key,
                PatternKey::Year(_)
                    | PatternKey::IsoYear(_)
                    | PatternKey::YearWithComma
                    | PatternKey::Century
                    | PatternKey::Julian
            )
        };
        match keys.iter().any(has_year) {
            true => Ok(template),
            false => Err(
                "it says no year; write a pattern as in YYYY-MM-DD HH24:MI:SS, or one of strftime as in %Y-%m-%d %H:%M:%S".to_string(),
            ),
        }
    }

    fn fields(&self) -> impl Iterator<Item = &PatternField> {
        self.nodes.iter().filter_map(|node| match node {
            PatternNode::Field(field) => Some(field),
            _ => None,
        })
    }
}

/// Whether two keywords set the same field.
fn means_same(one: PatternKey, other: PatternKey) -> bool {
    let group = |key: PatternKey| match key {
        PatternKey::Year(_) | PatternKey::YearWithComma => 1,
        PatternKey::Month | PatternKey::MonthName | PatternKey::MonthShort | PatternKey::MonthRoman => 2,
        PatternKey::Hour12 | PatternKey::Hour24 => 3,
        PatternKey::Micros | PatternKey::Fraction(_) => 4,
        PatternKey::Meridiem { .. } => 5,
        PatternKey::Era { .. } => 6,
        PatternKey::IsoYear(_) => 7,
        _ => 0,
    };
    one == other || (group(one) != 0 && group(one) == group(other))
}

fn is_of_weeks(key: PatternKey) -> bool {
    matches!(
        key,
        PatternKey::IsoYear(_) | PatternKey::IsoWeek | PatternKey::IsoWeekDay | PatternKey::IsoDayOfYear
    )
}

fn is_of_months(key: PatternKey) -> bool {
    matches!(
        key,
        PatternKey::Year(_)
            | PatternKey::YearWithComma
            | PatternKey::Month
            | PatternKey::MonthName
            | PatternKey::MonthShort
            | PatternKey::MonthRoman
            | PatternKey::Day
            | PatternKey::DayOfYear
            | PatternKey::Week
            | PatternKey::WeekOfMonth
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
                Template::to_read(pattern).is_err_and(|reason| reason.contains(why)),
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
