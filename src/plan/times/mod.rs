//! Gives dates, timestamps and intervals PostgreSQL's meaning: they have microseconds and are exact. A value
//! that is read, or that gets into a table, must be in the years 1 to 9999; otherwise it is an error of its row
//! (`partitions`). A value that is only compared may be of any year.
//!
//! DataFusion coerces times to nanoseconds, which reach from 1677 to 2262, and takes the sum of a DATE and
//! hours for a DATE. So before it coerces types, times are coerced here ([`types`] has the rules), and casts
//! and arithmetic of times become functions that compute in microseconds or fail ([`functions`]). These rules
//! are part of `numbers::NumberCoercion`, so the graph, batch plans and live queries share them. SQL's named
//! functions of times are in `calendar`.

mod agree;
mod arith;
mod civil;
mod convert;
mod functions;
mod lengths;
mod month_shifts;
mod planner;
mod reach;
mod types;
mod units;
mod zone;

pub(super) use agree::{arithmetic, cast, coerce_to_common, converted, is_time, negated};
pub(super) use civil::{
    DAY, SECOND, TimestampText, day_within, days_from_civil, days_of_month, in_calendar, in_calendar_like, is_leap,
    iso_week, months_later, weekday,
};
pub(super) use convert::point_of;
pub(super) use functions::{TimeOperation, as_operator, is_time_function, later, operation_of, when_reached};
pub(super) use lengths::TimeLength;
pub(super) use month_shifts::MonthShift;
pub(super) use planner::register;
pub(super) use reach::TimeShift;
pub(super) use types::{MOMENT, common, is_length};
pub(super) use units::Unit;
pub(super) use zone::Zone;
