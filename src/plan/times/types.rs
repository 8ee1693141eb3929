//! Which type dates, moments and lengths of time meet in.
//!
//! 1. A moment has microseconds, whatever unit DataFusion gave it; one with a zone is an instant, and is kept in UTC.
//! 2. A DATE beside a TIMESTAMP is its midnight. A TIMESTAMP beside a TIMESTAMP WITH TIME ZONE is one of UTC.
//! 3. An INTERVAL has months, days and microseconds. The difference of two moments is a length: days and microseconds. Lengths
//!    and INTERVALs are compared as PostgreSQL compares them: a month is 30 days, a day 24 hours.
//! 4. A text that stands in the query is of the type of what it stands beside.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use super::super::numbers::Meeting;

/// TIMESTAMP.
pub(in crate::plan) const MOMENT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
/// The difference of two moments.
pub(super) const LENGTH: DataType = DataType::Duration(TimeUnit::Microsecond);
/// INTERVAL.
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// TIMESTAMP WITH TIME ZONE.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type that values of a type are computed in; none where it is no date, moment or length of time.
pub(super) fn held(of: &DataType) -> Option<DataType> {
    Some(match of {
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, None) => MOMENT,
        DataType::Timestamp(_, Some(_)) => instant(),
        DataType::Duration(_) => LENGTH,
        DataType::Interval(_) => INTERVAL,
        _ => return None,
    })
}

/// Whether values of a type are dates or moments.
pub(super) fn is_moment(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Timestamp(..))
}

/// Whether values of a type are lengths of time.
pub(in crate::plan) fn is_length(of: &DataType) -> bool {
    matches!(of, DataType::Duration(_) | DataType::Interval(_))
}

pub(super) fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type in which values of these types meet; none where they do not.
pub(in crate::plan) fn common(types: &[DataType], meeting: Meeting) -> Option<DataType> {
    let mut known = types.iter().filter(|of| !of.is_null()).peekable();
    known.peek()?;
    if known.clone().all(is_moment) {
        let is_of = |of: DataType| types.iter().any(|it| held(it).as_ref() == Some(&of));
        return Some(match () {
            () if is_of(instant()) => instant(),
            () if is_of(MOMENT) => MOMENT,
            () => DataType::Date32,
        });
    }
    if known.clone().all(is_length) {
        let is_interval = known.any(|of| matches!(of, DataType::Interval(_)));
        return Some(match is_interval && meeting == Meeting::Kept {
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
        let compared = |types: &[DataType]| common(types, Meeting::Compared);
        assert_eq!(compared(&[DataType::Date32, DataType::Null]), Some(DataType::Date32));
        assert_eq!(compared(&[DataType::Date32, nanos(None)]), Some(MOMENT));
        assert_eq!(compared(&[nanos(Some("Asia/Tokyo")), MOMENT]), Some(instant()));
        assert_eq!(compared(&[LENGTH, INTERVAL]), Some(LENGTH));
        assert_eq!(common(&[LENGTH, INTERVAL], Meeting::Kept), Some(INTERVAL));
        assert_eq!(compared(&[DataType::Date32, DataType::Int64]), None);
        assert_eq!(compared(&[MOMENT, INTERVAL]), None);
        assert_eq!(compared(&[DataType::Null]), None);
    }
}
