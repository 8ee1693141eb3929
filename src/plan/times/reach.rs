//! Computes when a moving moment reaches another one: `now()`, moved and truncated, is compared with a moment
//! of a row.
//!
//! Each step is monotonic, so there is one moment from which on a bound is reached. A shift by months is
//! monotonic only among moments with the same time of day: a month before March 30th at 23:00 is later than a
//! month before March 31st at 1:00.

use super::civil::{DAY, months_later};
use super::units::Unit;

/// A step that changes a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::plan) enum TimeShift {
    /// Adds microseconds.
    Micros(i64),
    /// Adds months to a moment whose time of day is always `time`, in microseconds.
    Months { months: i64, time: i64 },
    /// Truncates to a unit.
    Cut(Unit),
}

/// The first moment that, after all steps, is not before `bound`.
pub(super) fn reached(bound: i64, steps: &[TimeShift]) -> i64 {
    steps.iter().rev().fold(bound, |bound, step| match *step {
        TimeShift::Micros(micros) => bound.saturating_sub(micros),
        TimeShift::Cut(unit) => unit.next(bound),
        TimeShift::Months { months, time } => {
            // The first day whose moment at `time` is not before the bound.
            let day = -(time.saturating_sub(bound)).div_euclid(DAY);
            let mut first = months_later(day, -months);
            while months_later(first, months) < day {
                first += 1;
            }
            while months_later(first - 1, months) >= day {
                first -= 1;
            }
            first.saturating_mul(DAY).saturating_add(time)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(point: i64, steps: &[TimeShift]) -> i64 {
        steps.iter().fold(point, |point, step| match *step {
            TimeShift::Micros(micros) => point + micros,
            TimeShift::Cut(unit) => unit.start(point),
            TimeShift::Months { months, .. } => {
                months_later(point.div_euclid(DAY), months) * DAY + point.rem_euclid(DAY)
            }
        })
    }

    proptest! {
        #[test]
        fn the_bound_is_reached_then_and_not_before(
            bound in 1_600_000_000_000_000i64..1_800_000_000_000_000,
            before in -DAY..DAY,
            unit in prop::sample::select(vec!["day", "week", "month", "quarter", "year"]),
            months in -40i64..40,
            time in 0..DAY,
            is_cut_again in any::<bool>(),
        ) {
            let mut steps = vec![
                TimeShift::Micros(before),
                TimeShift::Cut(Unit::named(unit).unwrap()),
                TimeShift::Micros(time),
                TimeShift::Months { months, time },
            ];
            if is_cut_again {
                steps.push(TimeShift::Cut(Unit::Micros(3_600_000_000)));
            }
            let first = reached(bound, &steps);
            prop_assert!(done(first, &steps) >= bound);
            prop_assert!(done(first - 1, &steps) < bound);
        }
    }

    #[test]
    fn a_month_before_march_30th_and_31st_is_the_same_day() {
        let day = |month, day| super::super::civil::days_from_civil(2024, month, day) * DAY;
        let steps = [
            TimeShift::Cut(Unit::Micros(DAY)),
            TimeShift::Months { months: -1, time: 0 },
        ];
        assert_eq!(reached(day(2, 29), &steps), day(3, 29));
        assert_eq!(reached(day(2, 29) + 1, &steps), day(4, 1));
    }
}
