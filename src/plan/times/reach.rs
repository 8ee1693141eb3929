//! When a moving moment reaches another: `now()`, moved and cut, is compared with a moment of a row.
//!
//! Each step keeps the order of moments, so that there is one moment from which on a bound is reached. Months do so only among
//! moments of one time of day: a month before March 30th at 23:00 is later than one before March 31st at 1:00.

use super::civil::{DAY, months_later};
use super::units::Unit;

/// What is done to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::plan) enum Step {
    /// It is moved by microseconds.
    Micros(i64),
    /// It is moved by months; it is of this time of day, in microseconds.
    Months { months: i64, time: i64 },
    /// It is cut.
    Cut(Unit),
}

/// The first moment that is not before `bound` once all steps are done to it.
pub(super) fn reached(bound: i64, steps: &[Step]) -> i64 {
    steps.iter().rev().fold(bound, |bound, step| match *step {
        Step::Micros(micros) => bound.saturating_sub(micros),
        Step::Cut(unit) => unit.next(bound),
        Step::Months { months, time } => {
            // The day from which on all days reach this one.
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

    fn done(point: i64, steps: &[Step]) -> i64 {
        steps.iter().fold(point, |point, step| match *step {
            Step::Micros(micros) => point + micros,
            Step::Cut(unit) => unit.start(point),
            Step::Months { months, .. } => months_later(point.div_euclid(DAY), months) * DAY + point.rem_euclid(DAY),
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
                Step::Micros(before),
                Step::Cut(Unit::named(unit).unwrap()),
                Step::Micros(time),
                Step::Months { months, time },
            ];
            if is_cut_again {
                steps.push(Step::Cut(Unit::Micros(3_600_000_000)));
            }
            let first = reached(bound, &steps);
            prop_assert!(done(first, &steps) >= bound);
            prop_assert!(done(first - 1, &steps) < bound);
        }
    }

    #[test]
    fn a_month_before_march_30th_and_31st_is_the_same_day() {
        let day = |month, day| super::super::civil::days_from_civil(2024, month, day) * DAY;
        let steps = [Step::Cut(Unit::Micros(DAY)), Step::Months { months: -1, time: 0 }];
        assert_eq!(reached(day(2, 29), &steps), day(3, 29));
        assert_eq!(reached(day(2, 29) + 1, &steps), day(4, 1));
    }
}
