//! Dates, moments and lengths of time mean what PostgreSQL means by them: microseconds, exact. What is read or becomes a value of a
//! table is of the years 1 to 9999, or an error of its row (`partitions`); what is compared may be of any.
//!
//! DataFusion takes what meets for nanoseconds, which reach from 1677 to 2262, and keeps a DATE to which hours are added a DATE.
//! So before it agrees on types, times agree on theirs here ([`types`] has the rules), and casts and arithmetic of times become
//! functions that compute by the microsecond or fail ([`functions`]). They are part of `numbers::Agreed`, so that the graph,
//! batch and the questions that are asked live all see the same. Functions with names of SQL's are in `calendar`.

mod agree;
mod arith;
mod civil;
mod convert;
mod functions;
mod lengths;
mod planner;
mod reach;
mod stays;
mod types;
mod units;
mod zone;

pub(super) use agree::{arithmetic, cast, converted, is_time, meet, negated};
pub(super) use civil::{
    DAY, Moment, SECOND, day_within, days_from_civil, days_of_month, is_leap, iso_week, kept, months_later, weekday,
    within,
};
pub(super) use convert::point_of;
pub(super) use functions::{Part, as_operator, is_ours, later, part, when_reached};
pub(super) use lengths::Length;
pub(super) use planner::register;
pub(super) use reach::Step;
pub(super) use stays::Stay;
pub(super) use types::{MOMENT, common, is_length};
pub(super) use units::Unit;
pub(super) use zone::Zone;
