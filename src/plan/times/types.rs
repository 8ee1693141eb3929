//! The common types of dates, timestamps and intervals.
//!
//! 1. A timestamp has microseconds, whatever unit DataFusion chose. One with a zone is an instant, and is kept
//!    in UTC.
//! 2. Beside a TIMESTAMP, a DATE is its midnight. Beside a TIMESTAMP WITH TIME ZONE, a TIMESTAMP is in UTC.
//! 3. An INTERVAL has months, days and microseconds. The difference of two timestamps is a length of days and
//!    microseconds. Lengths and INTERVALs are compared as in PostgreSQL: a month is 30 days, and a day 24
//!    hours.
//! 4. A literal text has the type of the operand beside it.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use super::super::numbers::CommonTypeUse;

/// TIMESTAMP.
pub(in crate::plan) const MOMENT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
/// The type of a difference of two timestamps.
pub(super) const LENGTH: DataType = DataType::Duration(TimeUnit::Microsecond);
/// INTERVAL.
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// TIMESTAMP WITH TIME ZONE.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type in which values of a type are computed; `None` if it is not a date, timestamp or interval.
pub(super) fn computed_type(of: &DataType) -> Option<DataType> {
    Some(match of {
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, None) => MOMENT,
        DataType::Timestamp(_, Some(_)) => instant(),
        DataType::Duration(_) => LENGTH,
        DataType::Interval(_) => INTERVAL,
        _ => return None,
    })
}

/// Whether a type is a date or a timestamp.
pub(super) fn is_moment(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Timestamp(..))
}

/// Whether a type is an interval or a difference of timestamps.
pub(in crate::plan) fn is_length(of: &DataType) -> bool {
    matches!(of, DataType::Duration(_) | DataType::Interval(_))
}

pub(super) fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The common type of these types; `None` if there is none.
pub(in crate::plan) fn common(types: &[DataType], meeting: CommonTypeUse) -> Option<DataType> {
    let mut known = types.iter().filter(|of| !of.is_null()).peekable();
    known.peek()?;
    if known.clone().all(is_moment) {
        let is_of = |of: DataType| types.iter().any(|it| computed_type(it).as_ref() == Some(&of));
        return Some(match () {
            () if is_of(instant()) => instant(),
            () if is_of(MOMENT) => MOMENT,
            () => DataType::Date32,
        });
    }
    if known.clone().all(is_length) {
        let is_interval = known.any(|of| matches!(of, DataType::Interval(_)));
        return Some(match is_interval && meeting == CommonTypeUse::Kept {
            true => INTERVAL,
            false => LENGTH,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_moments_and_lengths_meet_in_microseconds() {
        let nanos = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Nanosecond, zone.map(Into::into));
        let compared = |types: &[DataType]| common(types, CommonTypeUse::Compared);
        assert_eq!(compared(&[DataType::Date32, DataType::Null]), Some(DataType::Date32));
        assert_eq!(compared(&[DataType::Date32, nanos(None)]), Some(MOMENT));
        assert_eq!(compared(&[nanos(Some("Asia/Tokyo")), MOMENT]), Some(instant()));
        assert_eq!(compared(&[LENGTH, INTERVAL]), Some(LENGTH));
        assert_eq!(common(&[LENGTH, INTERVAL], CommonTypeUse::Kept), Some(INTERVAL));
        assert_eq!(compared(&[DataType::Date32, DataType::Int64]), None);
        assert_eq!(compared(&[MOMENT, INTERVAL]), None);
        assert_eq!(compared(&[DataType::Null]), None);
    }
}
