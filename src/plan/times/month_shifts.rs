//! Computes the stretches of time in which `now()`, moved by months, compares as wanted with a moment of a row.
//!
//! Adding months is not monotonic where a month lacks days: a month before March 29th at 15:00 is later than a
//! month before March 30th at 12:00. So `now() - INTERVAL '1 month' >= TIMESTAMP '2024-02-29 13:00'` becomes
//! true on March 29th at 13:00, is false again on the 30th and on the 31st, on each until 13:00, and stays true
//! from then on. Thus a comparison is true in up to four stretches of time.

use std::sync::Arc;

use arrow::array::{AsArray, ListBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::civil::{DAY, days_from_civil, months_later};
use super::lengths::TimeLength;
use super::types::MOMENT;

/// Which moments satisfy the comparison after they are moved by months.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::plan) struct MonthShift {
    pub months: i64,
    /// Those after the row's moment; otherwise those before it.
    pub behind: bool,
    /// Also the row's moment itself.
    pub inclusive: bool,
}

impl MonthShift {
    /// Two lists for the values of now(): the moments at which stretches begin, and those at which they have
    /// ended. `before` microseconds are added to now() before it is moved by months.
    pub fn lists(self, bound: Expr, before: i64) -> (Expr, Expr) {
        let list = |end| ScalarUDF::from(Stretches::new(self, end, before)).call(vec![bound.clone()]);
        (list(StretchEnd::From), list(StretchEnd::To))
    }

    /// The stretches within the calendar, each with an exclusive end.
    fn stretches(self, bound: i64) -> Vec<(i64, i64)> {
        let first_of_all = days_from_civil(1, 1, 1) * DAY;
        let end_of_all = days_from_civil(10_000, 1, 1) * DAY;
        // `before` gets the moments that are before this bound when moved; the others are after or at it.
        let bound = bound.saturating_add(i64::from(self.behind != self.inclusive));
        let (day, time) = (bound.div_euclid(DAY), bound.rem_euclid(DAY));
        let moved = |from: i64| months_later(from, self.months);
        let mut from = months_later(day, -self.months);
        while moved(from) < day {
            from += 1;
        }
        while moved(from - 1) >= day {
            from -= 1;
        }
        let mut before = vec![(i64::MIN, from.saturating_mul(DAY))];
        while moved(from) == day {
            let begins = from.saturating_mul(DAY);
            match before.last_mut() {
                Some((_, to)) if *to == begins => *to += time,
                _ if time > 0 => before.push((begins, begins + time)),
                _ => {}
            }
            from += 1;
        }
        let meant = match self.behind {
            false => before,
            true => {
                let ends = before.iter().map(|(_, to)| *to);
                let begins = before.iter().skip(1).map(|(from, _)| *from).chain([i64::MAX]);
                ends.zip(begins).collect()
            }
        };
        let within = meant
            .into_iter()
            .map(|(from, to)| (from.max(first_of_all), to.min(end_of_all)));
        within.filter(|(from, to)| from < to).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum StretchEnd {
    From,
    To,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Stretches {
    stay: MonthShift,
    end: StretchEnd,
    before: i64,
    /// The name includes the comparison, so that nodes with different stretches have different hashes.
    name: String,
    signature: Signature,
}

impl Stretches {
    fn new(stay: MonthShift, end: StretchEnd, before: i64) -> Stretches {
        let MonthShift {
            months,
            behind,
            inclusive,
        } = stay;
        let op = match (behind, inclusive) {
            (false, false) => "<",
            (false, true) => "<=",
            (true, false) => ">",
            (true, true) => ">=",
        };
        let before_that = match before {
            0 => String::new(),
            micros => format!(" + {}", TimeLength::of_micros(micros)),
        };
        let what = match end {
            StretchEnd::From => "when begins",
            StretchEnd::To => "when ends",
        };
        Stretches {
            stay,
            end,
            before,
            name: format!("{what} now(){before_that} by {months} months {op}"),
            signature: Signature::exact(vec![MOMENT], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Stretches {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(MOMENT, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bounds = args.args[0].to_array(args.number_rows)?;
        let bounds = bounds.as_primitive::<TimestampMicrosecondType>();
        let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new());
        for bound in bounds {
            let Some(bound) = bound else {
                lists.append_null();
                continue;
            };
            for (from, to) in self.stay.stretches(bound) {
                let end = match self.end {
                    StretchEnd::From => from,
                    StretchEnd::To => to,
                };
                lists.values().append_value(end.saturating_sub(self.before));
            }
            lists.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Moments are taken around the ends of stretches and of months.
        #[test]
        fn a_moment_is_in_a_stretch_exactly_if_it_compares_so(
            bound in 1_640_000_000_000_000i64..1_740_000_000_000_000,
            months in -14i64..14,
            behind in any::<bool>(),
            inclusive in any::<bool>(),
            near in -4i64 * DAY..4 * DAY,
            whole in any::<bool>(),
        ) {
            let bound = if whole { bound / DAY * DAY } else { bound };
            let stay = MonthShift { months, behind, inclusive };
            let stretches = stay.stretches(bound);
            let around = months_later(bound.div_euclid(DAY), -months) * DAY + bound.rem_euclid(DAY) + near;
            let ends = stretches.iter().flat_map(|(from, to)| [*from, *to]).filter(|at| (at - bound).abs() < 1000 * DAY);
            for at in ends.flat_map(|end| [end - 1, end]).chain([around]).collect::<Vec<_>>() {
                let moved = months_later(at.div_euclid(DAY), months) * DAY + at.rem_euclid(DAY);
                let right = match (behind, inclusive) {
                    (false, false) => moved < bound,
                    (false, true) => moved <= bound,
                    (true, false) => moved > bound,
                    (true, true) => moved >= bound,
                };
                prop_assert_eq!(stretches.iter().any(|(from, to)| (*from..*to).contains(&at)), right, "{}", at);
            }
        }
    }

    #[test]
    fn there_are_four_stretches_where_three_days_are_missing() {
        let at = |month, day, hour| days_from_civil(2023, month, day) * DAY + hour * DAY / 24;
        let before = |behind| MonthShift {
            months: -1,
            behind,
            inclusive: false,
        };
        let left: Vec<(i64, i64)> = before(false).stretches(at(2, 28, 13)).split_off(1);
        assert_eq!(left, [29, 30, 31].map(|day| (at(3, day, 0), at(3, day, 13))));
        assert_eq!(before(true).stretches(at(2, 28, 13)).len(), 4);
        assert_eq!(before(false).stretches(at(3, 10, 13)).len(), 1);
        // Adding a month moves no day of another month than March to March 31st.
        let on = MonthShift {
            months: 1,
            behind: true,
            inclusive: true,
        };
        assert_eq!(
            on.stretches(at(3, 31, 13)).first().map(|(from, _)| *from),
            Some(at(3, 1, 0))
        );
    }
}
