//! Determines which of the usual formats read a column's texts as dates or timestamps.

use std::collections::HashMap;

use chrono::{Datelike, NaiveDate, NaiveDateTime};

use crate::decode::iso_point;
use crate::repr::SqlType;

const DATES: [&str; 14] = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%b %d, %Y",
];
const TIMES: [&str; 5] = ["", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"];

/// Plausible years: others result from reading two digits as four, or a number as a date.
const YEARS: std::ops::RangeInclusive<i32> = 1600..=2200;

/// The bits of ISO 8601 in a mask, for a date alone and with a time; the other bits are the combinations of [`DATES`]
/// and [`TIMES`].
const ISO_DATE: u128 = 1 << 126;
const ISO_TIME: u128 = 1 << 127;

/// The forms of ISO 8601 timestamps besides [`ISO_DATE`], by the format that must be named if a column has several
/// formats.
const ISO_WRITTEN: [&str; 5] = [
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
];

/// The formats that read the texts of a column; each is a bit of a mask.
#[derive(Clone, Debug, Default)]
pub(super) struct MomentReadings {
    /// For each set of formats, how many texts can be read by exactly these.
    masks: HashMap<u128, u64>,
    /// For each of [`ISO_WRITTEN`], whether a text has that form and no earlier one.
    iso: [bool; ISO_WRITTEN.len()],
    /// Whether some text is an ISO 8601 timestamp in none of these forms.
    iso_otherwise: bool,
    /// Whether some text can be read by no format.
    failed: bool,
    /// Whether some text has a precision finer than a microsecond.
    finer: bool,
}

impl MomentReadings {
    /// Observes a text.
    pub fn observe(&mut self, text: &str) {
        if self.failed {
            return;
        }
        match mask(text) {
            0 => self.failed = true,
            mask => {
                if mask == ISO_TIME {
                    self.observe_iso(text);
                }
                *self.masks.entry(mask).or_default() += 1;
            }
        }
        self.finer |= iso_point(text).is_some_and(|(_, is_finer)| is_finer);
    }

    fn observe_iso(&mut self, text: &str) {
        let is_written = |format: &&str| NaiveDateTime::parse_from_str(text, format).is_ok();
        match ISO_WRITTEN.iter().position(is_written) {
            Some(written) => self.iso[written] = true,
            None => self.iso_otherwise = true,
        }
    }

    /// If every text is a timestamp, but some are finer than a microsecond, which TIMESTAMP would refuse: the formats
    /// that truncate them.
    pub fn too_fine(&self) -> Option<Vec<String>> {
        if !self.finer {
            return None;
        }
        let chosen = self.cover()?;
        if chosen.iter().any(|bit| self.is_open(*bit, &chosen)) {
            return None;
        }
        let cut = ["cut_to_us".to_string()];
        Some(self.formats(&chosen)?.into_iter().chain(cut).collect())
    }

    /// The type, and the formats that together read every text; none if there are no such formats, or if days and
    /// months may be swapped.
    pub fn decided(&self) -> Option<(SqlType, Vec<String>)> {
        let chosen = self.cover().filter(|_| !self.finer)?;
        if chosen.iter().any(|bit| self.is_open(*bit, &chosen)) {
            return None;
        }
        let has_time = chosen
            .iter()
            .any(|bit| *bit == ISO_TIME || *bit != ISO_DATE && time(*bit) != 0);
        let sql_type = if has_time { SqlType::Timestamp } else { SqlType::Date };
        Some((sql_type, self.formats(&chosen)?))
    }

    /// If days may be months: two lists of formats, one with the month first and one with the day first, each of which
    /// reads every text. A single list if it contains both orders.
    pub fn ambiguous(&self) -> Option<Vec<Vec<String>>> {
        let chosen = self.cover().filter(|_| !self.finer)?;
        if !chosen.iter().any(|bit| self.is_open(*bit, &chosen)) {
            return None;
        }
        let by = |month_first: bool| {
            let one = |bit: &u128| match swapped(*bit).filter(|_| self.is_open(*bit, &chosen)) {
                Some(other) if !chosen.contains(&other) && format(*bit).starts_with("%m") != month_first => other,
                _ => *bit,
            };
            self.formats(&chosen.iter().map(one).collect::<Vec<_>>())
        };
        let mut lists = vec![by(true)?, by(false)?];
        lists.dedup();
        Some(lists)
    }

    /// A small set of formats that together read every text; none if there is no such set.
    fn cover(&self) -> Option<Vec<u128>> {
        if self.failed || self.masks.is_empty() {
            return None;
        }
        let mut left: Vec<u128> = self.masks.keys().copied().collect();
        let mut chosen = Vec::new();
        while !left.is_empty() {
            let best = bits().max_by_key(|bit| left.iter().filter(|mask| *mask & bit != 0).count())?;
            left.retain(|mask| mask & best == 0);
            chosen.push(best);
            if chosen.len() > 4 {
                return None;
            }
        }
        chosen.sort_unstable();
        Some(chosen)
    }

    /// Whether texts that this format reads may be other days: because another chosen format reads some of them, or a
    /// format that was not chosen reads all of them.
    fn is_open(&self, bit: u128, chosen: &[u128]) -> bool {
        let mut own = self.masks.keys().filter(|mask| *mask & bit != 0);
        swapped(bit).is_some_and(|other| match chosen.contains(&other) {
            true => own.any(|mask| mask & other != 0),
            false => own.all(|mask| mask & other != 0),
        })
    }

    /// The names of these formats; empty if all are ISO 8601, which needs none. None if some text has a form that no
    /// named format reads.
    fn formats(&self, chosen: &[u128]) -> Option<Vec<String>> {
        if chosen.iter().all(|bit| matches!(*bit, ISO_DATE | ISO_TIME)) {
            return Some(Vec::new());
        }
        let mut formats = Vec::new();
        for bit in chosen {
            match *bit {
                ISO_TIME if self.iso_otherwise => return None,
                // The format with a fraction also reads texts without one.
                ISO_TIME => formats.extend((0..ISO_WRITTEN.len()).filter_map(|n| {
                    let is_needed = self.iso[n] && !(n == 0 && self.iso[1]);
                    is_needed.then(|| ISO_WRITTEN[n].to_string())
                })),
                bit => formats.push(format(bit)),
            }
        }
        Some(formats)
    }
}

fn bits() -> impl Iterator<Item = u128> {
    let formats = (0..DATES.len() * TIMES.len()).map(|n| 1 << n);
    [ISO_TIME, ISO_DATE].into_iter().chain(formats)
}

fn time(bit: u128) -> usize {
    bit.trailing_zeros() as usize % TIMES.len()
}

fn format(bit: u128) -> String {
    match bit {
        ISO_DATE => "%Y-%m-%d".to_string(),
        bit => {
            let n = bit.trailing_zeros() as usize;
            format!("{}{}", DATES[n / TIMES.len()], TIMES[n % TIMES.len()])
        }
    }
}

/// The format with day and month swapped, if it has both as numbers.
fn swapped(bit: u128) -> Option<u128> {
    if matches!(bit, ISO_DATE | ISO_TIME) {
        return None;
    }
    let n = bit.trailing_zeros() as usize;
    let (date, time) = (n / TIMES.len(), n % TIMES.len());
    let other = match DATES[date] {
        "%m/%d/%Y" => "%d/%m/%Y",
        "%d/%m/%Y" => "%m/%d/%Y",
        "%m/%d/%y" => "%d/%m/%y",
        "%d/%m/%y" => "%m/%d/%y",
        "%d-%m-%Y" => "%m-%d-%Y",
        "%m-%d-%Y" => "%d-%m-%Y",
        _ => return None,
    };
    let date = DATES.iter().position(|known| *known == other)?;
    Some(1 << (date * TIMES.len() + time))
}

/// The formats that can read a text.
fn mask(text: &str) -> u128 {
    let text = text.trim();
    let may_be = (6..=40).contains(&text.len())
        && text.contains(['-', '/', '.', ' '])
        && text.bytes().filter(u8::is_ascii_digit).count() >= 3;
    if !may_be {
        return 0;
    }
    let of_now = |date: NaiveDate| YEARS.contains(&date.year());
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && text.as_bytes().get(4) == Some(&b'-')
        && iso_point(text).is_some_and(|(point, _)| {
            chrono::DateTime::from_timestamp_micros(point).is_some_and(|at| of_now(at.date_naive()))
        })
    {
        return if text.len() <= 10 { ISO_DATE } else { ISO_TIME };
    }
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    let halves = text.ends_with(['m', 'M']);
    let t = match (colons, halves) {
        (0, false) => 0,
        (1, false) => 1,
        (2, false) => 2,
        (1, true) => 3,
        (2, true) => 4,
        _ => return 0,
    };
    let joint = |text: &str| text.bytes().find(|byte| b"/.- ".contains(byte));
    let mut mask = 0;
    for (d, date) in DATES.iter().enumerate().filter(|(_, date)| joint(date) == joint(text)) {
        let read = match TIMES[t] {
            "" => NaiveDate::parse_from_str(text, date).ok(),
            time => NaiveDateTime::parse_from_str(text, &format!("{date}{time}"))
                .ok()
                .map(|at| at.date()),
        };
        if read.is_some_and(of_now) {
            mask |= 1 << (d * TIMES.len() + t);
        }
    }
    mask
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> MomentReadings {
        let mut moments = MomentReadings::default();
        texts.iter().for_each(|text| moments.observe(text));
        moments
    }

    #[test]
    fn days_and_months_are_told_apart_by_a_day_above_twelve_or_not_at_all() {
        let clear = of(&["1/2/17 0:21", "1/31/17 23:59"]);
        assert_eq!(
            clear.decided(),
            Some((SqlType::Timestamp, vec!["%m/%d/%y %H:%M".to_string()]))
        );
        let unclear = of(&["01/02/2017", "12/11/2017"]);
        assert_eq!(unclear.decided(), None);
        assert_eq!(unclear.ambiguous().unwrap(), [["%m/%d/%Y"], ["%d/%m/%Y"]]);
        let both = of(&["01/31/2017", "31/01/2017", "02/03/2017"]);
        assert_eq!(both.decided(), None, "the last one is two days");
        assert_eq!(both.ambiguous().unwrap(), [["%m/%d/%Y", "%d/%m/%Y"]]);
    }

    /// A second format in the files suppressed the note on the first one.
    #[test]
    fn days_that_may_be_months_are_told_beside_other_formats_too() {
        let mixed = of(&["1/2/17 0:21", "2018-01-01 00:00:01"]);
        assert_eq!(mixed.decided(), None);
        assert_eq!(
            mixed.ambiguous().unwrap(),
            [
                ["%m/%d/%y %H:%M", "%Y-%m-%d %H:%M:%S"],
                ["%d/%m/%y %H:%M", "%Y-%m-%d %H:%M:%S"]
            ]
        );
        let two = of(&["1/2/17", "3/4/2017"]);
        assert_eq!(
            two.ambiguous().unwrap(),
            [["%m/%d/%Y", "%m/%d/%y"], ["%d/%m/%Y", "%d/%m/%y"]]
        );
        let clear = of(&["1/22/17 0:21", "2018-01-01 00:00:01"]);
        assert!(clear.decided().is_some() && clear.ambiguous().is_none());
    }

    #[test]
    fn iso_needs_no_format_and_two_ways_need_two() {
        assert_eq!(of(&["2017-01-31"]).decided(), Some((SqlType::Date, vec![])));
        let zoned = of(&["2017-01-31T10:00:00Z", "2017-01-31 10:00:00.5"]);
        assert_eq!(zoned.decided(), Some((SqlType::Timestamp, vec![])));
        let both = of(&["2017-11-01 00:04:26", "1/31/17 0:21"]);
        let (sql_type, mut formats) = both.decided().unwrap();
        formats.sort();
        assert_eq!(
            (sql_type, formats),
            (
                SqlType::Timestamp,
                vec!["%Y-%m-%d %H:%M:%S".to_string(), "%m/%d/%y %H:%M".to_string()]
            )
        );
        let fine = of(&["2017-01-31T10:00:00.1234567Z", "2017-01-31T10:00:00Z"]);
        assert_eq!(
            (fine.decided(), fine.too_fine().unwrap()),
            (None, vec!["cut_to_us".to_string()])
        );
        let fine = of(&["2017-01-31T10:00:00.1234567", "31.01.2017"]);
        assert_eq!(
            fine.too_fine().unwrap(),
            ["%d.%m.%Y", "%Y-%m-%dT%H:%M:%S%.f", "cut_to_us"]
        );
        let fractions = of(&[
            "2017-11-01 00:04:26.5",
            "2017-11-01 00:04:26",
            "2017-11-01T00:04",
            "1/31/17 0:21",
        ]);
        assert_eq!(
            fractions.decided().unwrap().1,
            ["%m/%d/%y %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        );
        let zoned = of(&["2017-11-01T00:04:26+02:00", "1/31/17 0:21"]);
        assert_eq!(zoned.decided(), None, "no format of a list reads it");
        assert_eq!(of(&["10.12.2017", "soon"]).decided(), None);
        assert_eq!(of(&["40.71458404"]).decided(), None);
    }
}
