//! Casts of dates, timestamps and intervals.
//!
//! 1. A TIMESTAMP has microseconds; TIMESTAMP(3) is a TIMESTAMP that is rounded to milliseconds.
//! 2. A timestamp as a DATE is its day.
//! 3. Texts are written as PostgreSQL writes them, `2024-01-02 03:04:05.5`, with `+00` after it for a TIMESTAMP
//!    WITH TIME ZONE.
//! 4. Texts are read as ISO 8601, with a blank or a T before the time. A text with an offset or zone is that
//!    instant, in UTC.
//! 5. A text outside the years 1 to 9999 is an error of its row.

use std::fmt::{Display, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringBuilder};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, DurationMicrosecondType, Int64Type, IntervalMonthDayNanoType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use chrono::Utc;
use datafusion::common::Result;

use super::super::numbers::each;
use super::super::numbers::kernels::wrong;
use super::arith::fitting;
use super::civil::{
    DAY, DateText, SECOND, TimeText, TimestampText, day_within, in_calendar, in_calendar_like, in_range,
};
use super::lengths::TimeLength;
use super::types::{INTERVAL, LENGTH, MOMENT, computed_type, is_length, is_moment, is_text};

/// The type to which a value is cast.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CastTarget {
    /// A type that [`computed_type`] returns, or a text.
    pub of: DataType,
    /// How many digits of a second are kept, see (1).
    pub digits: u8,
}

/// The target of a cast; `None` if the cast is not one of those above.
pub(super) fn cast_of(from: &DataType, to: &DataType) -> Option<CastTarget> {
    let is_time_of_day = matches!(from, DataType::Time32(_) | DataType::Time64(_));
    let is_ours = match computed_type(to) {
        Some(computed) if is_moment(&computed) => {
            is_moment(from) || is_text(from) || (from.is_integer() && &computed != to)
        }
        Some(_) => is_length(from),
        None => is_text(to) && (is_moment(from) || is_length(from) || is_time_of_day),
    };
    is_ours.then(|| CastTarget {
        of: computed_type(to).unwrap_or_else(|| to.clone()),
        digits: match to {
            DataType::Timestamp(TimeUnit::Second, _) => 0,
            DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
            _ => 6,
        },
    })
}

/// SQL's name of the target.
pub(super) fn name_of(to: &CastTarget) -> String {
    let digits = match to.digits {
        6 => String::new(),
        digits => format!("({digits})"),
    };
    match &to.of {
        DataType::Date32 => "DATE".to_string(),
        DataType::Timestamp(_, None) => format!("TIMESTAMP{digits}"),
        DataType::Timestamp(_, Some(_)) => format!("TIMESTAMP{digits} WITH TIME ZONE"),
        DataType::Interval(_) => "INTERVAL".to_string(),
        DataType::Duration(_) => "length of time".to_string(),
        of if is_text(of) => "VARCHAR".to_string(),
        other => other.to_string(),
    }
}

/// Casts values. With `safe` a value that cannot be cast becomes null, otherwise it is an error.
pub(super) fn convert(values: &ArrayRef, to: &CastTarget, safe: bool) -> Result<ArrayRef> {
    let from = values.data_type();
    if is_text(&to.of) {
        let texts = written(values)?;
        return Ok(plain(&texts, &to.of)?);
    }
    Ok(match (from, &to.of) {
        (from, DataType::Date32 | DataType::Timestamp(..)) if is_text(from) => {
            let texts = plain(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            match to.of {
                DataType::Date32 => Arc::new(read::<Date32Type>(texts, to, safe, day_of)?),
                _ => {
                    let points = read::<TimestampMicrosecondType>(texts, to, safe, point_of)?;
                    of_digits(points, to, safe)?
                }
            }
        }
        (DataType::Date32, DataType::Date32) => values.clone(),
        (DataType::Date32, DataType::Timestamp(..)) => {
            let days = values.as_primitive::<Date32Type>();
            let points = each::<_, TimestampMicrosecondType>(days, safe, |day| {
                in_range(i128::from(day) * i128::from(DAY)).ok_or_else(|| outside(DateText(day.into()), to))
            })?;
            Arc::new(points.with_data_type(to.of.clone()))
        }
        (DataType::Timestamp(..), DataType::Date32) => {
            let points = micros(values, safe)?;
            Arc::new(each::<_, Date32Type>(&points, safe, |point| {
                i32::try_from(point.div_euclid(DAY)).map_err(|_| outside(TimestampText(point), to))
            })?)
        }
        (from, DataType::Timestamp(..)) if from.is_integer() => {
            of_digits(micros(&plain(values, &MOMENT)?, safe)?, to, safe)?
        }
        (_, DataType::Timestamp(..)) => of_digits(micros(values, safe)?, to, safe)?,
        (DataType::Duration(_), DataType::Duration(_)) => plain(values, &LENGTH)?,
        (DataType::Duration(_), DataType::Interval(_)) => {
            let lengths = plain(values, &LENGTH)?;
            let lengths = lengths.as_primitive::<DurationMicrosecondType>();
            Arc::new(each::<_, IntervalMonthDayNanoType>(lengths, safe, |micros| {
                fitting(Some(TimeLength::of_micros(micros)))
            })?)
        }
        (DataType::Interval(_), DataType::Duration(_)) => {
            let lengths = plain(values, &INTERVAL)?;
            let lengths = lengths.as_primitive::<IntervalMonthDayNanoType>();
            Arc::new(each::<_, DurationMicrosecondType>(lengths, safe, |interval| {
                let length = TimeLength::from_interval(interval);
                length
                    .total()
                    .ok_or_else(|| wrong(format!("could not compare INTERVAL '{length}': it is too long")))
            })?)
        }
        (_, of) => plain(values, of)?,
    })
}

/// Arrow's cast, where a value that does not fit is an error.
fn plain(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if values.data_type() == to {
        return Ok(values.clone());
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(values, to, &strict)
}

/// Timestamps of any unit in microseconds; finer ones are rounded down.
pub(super) fn micros(values: &ArrayRef, safe: bool) -> Result<PrimitiveArray<TimestampMicrosecondType>, ArrowError> {
    let unit = match values.data_type() {
        DataType::Timestamp(unit, _) => *unit,
        other => return Err(wrong(format!("a {other} is no moment"))),
    };
    let counts = plain(values, &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    each::<_, TimestampMicrosecondType>(counts, safe, |count| {
        let count = i128::from(count);
        let micros = match unit {
            TimeUnit::Second => count * i128::from(SECOND),
            TimeUnit::Millisecond => count * 1000,
            TimeUnit::Microsecond => count,
            TimeUnit::Nanosecond => count.div_euclid(1000),
        };
        in_range(micros).ok_or_else(|| wrong("a moment is beyond what a TIMESTAMP can be".to_string()))
    })
}

/// Timestamps rounded to the target's digits of a second. Halves are rounded away from 2000-01-01, as
/// PostgreSQL does.
fn of_digits(
    points: PrimitiveArray<TimestampMicrosecondType>,
    to: &CastTarget,
    safe: bool,
) -> Result<ArrayRef, ArrowError> {
    const ORIGIN: i64 = 946_684_800 * SECOND;
    let unit = 10i64.pow(6 - u32::from(to.digits.min(6)));
    let rounded = match unit {
        1 => points,
        unit => each::<_, TimestampMicrosecondType>(&points, safe, |point| {
            let from = point.saturating_sub(ORIGIN);
            let units = from.saturating_abs().saturating_add(unit / 2) / unit * from.signum();
            // The last timestamps of 9999 may round up to the year 10000, which is an error.
            in_calendar_like(point, i128::from(units) * i128::from(unit) + i128::from(ORIGIN))
                .ok_or_else(|| outside(TimestampText(point), to))
        })?,
    };
    Ok(Arc::new(rounded.with_data_type(to.of.clone())))
}

fn read<O: ArrowPrimitiveType>(
    texts: &arrow::array::StringArray,
    to: &CastTarget,
    safe: bool,
    f: impl Fn(&str) -> Option<O::Native>,
) -> Result<PrimitiveArray<O>, ArrowError> {
    let mut made = PrimitiveArray::<O>::builder(texts.len());
    for text in texts {
        let value = text.map(|text| (text, f(text.trim())));
        match value {
            None => made.append_null(),
            Some((_, Some(value))) => made.append_value(value),
            Some(_) if safe => made.append_null(),
            Some((text, None)) => return Err(unread(text, to)),
        }
    }
    Ok(made.finish())
}

/// The timestamp that a text denotes, see (4).
pub(in crate::plan) fn point_of(text: &str) -> Option<i64> {
    let at = string_to_datetime(&Utc, text)
        .or_else(|why| string_to_datetime(&Utc, &with_seconds(text).ok_or(why)?))
        .ok()?;
    // Digits beyond microseconds are rounded half to even, as in PostgreSQL.
    let nanos = i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos());
    let (micros, rest) = (nanos.div_euclid(1000), nanos.rem_euclid(1000));
    in_calendar(micros + i128::from(rest > 500 || (rest == 500 && micros & 1 == 1)))
}

/// The text of a timestamp such as `2024-01-31 12:30`, perhaps with a zone, completed by seconds; `None` if it
/// has another form.
fn with_seconds(text: &str) -> Option<String> {
    let (minutes, zone) = text.split_at_checked(16)?;
    let bytes = minutes.as_bytes();
    let is_so = bytes[13] == b':' && bytes[14..].iter().all(u8::is_ascii_digit);
    (is_so && !zone.starts_with([':', '.'])).then(|| format!("{minutes}:00{zone}"))
}

/// The day that a text denotes; a time after it is ignored.
fn day_of(text: &str) -> Option<i32> {
    let day = <Date32Type as Parser>::parse(text).map(i64::from);
    day.or_else(|| point_of(text).map(|point| point.div_euclid(DAY)))
        .and_then(day_within)
}

/// Values as texts, see (3).
fn written(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let zone = if matches!(values.data_type(), DataType::Timestamp(_, Some(_))) {
        "+00"
    } else {
        ""
    };
    Ok(match values.data_type() {
        DataType::Date32 => texts(values.as_primitive::<Date32Type>(), |day| DateText(day.into())),
        DataType::Timestamp(..) => texts(&micros(values, false)?, |point| WithZone(TimestampText(point), zone)),
        DataType::Time32(_) | DataType::Time64(_) => {
            let times = plain(values, &DataType::Time64(TimeUnit::Nanosecond))?;
            texts(times.as_primitive::<Time64NanosecondType>(), |nanos| {
                TimeText(nanos / 1000)
            })
        }
        DataType::Duration(_) => {
            let lengths = plain(values, &LENGTH)?;
            texts(lengths.as_primitive::<DurationMicrosecondType>(), TimeLength::of_micros)
        }
        DataType::Interval(_) => {
            let lengths = plain(values, &INTERVAL)?;
            texts(
                lengths.as_primitive::<IntervalMonthDayNanoType>(),
                TimeLength::from_interval,
            )
        }
        other => return Err(wrong(format!("could not write a {other} as a text"))),
    })
}

struct WithZone(TimestampText, &'static str);

impl Display for WithZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

fn texts<T: ArrowPrimitiveType, D: Display>(column: &PrimitiveArray<T>, shown: impl Fn(T::Native) -> D) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 20);
    for value in column {
        match value {
            Some(value) => {
                write!(texts, "{}", shown(value)).expect("a builder of texts takes them");
                texts.append_value("");
            }
            None => texts.append_null(),
        }
    }
    Arc::new(texts.finish())
}

#[cold]
fn outside(value: impl Display, to: &CastTarget) -> ArrowError {
    wrong(format!(
        "could not cast {value} to {}: it is beyond what one can be",
        name_of(to)
    ))
}

#[cold]
fn unread(text: &str, to: &CastTarget) -> ArrowError {
    let shown: String = text.chars().take(60).collect();
    let name = name_of(to);
    wrong(format!(
        "could not read '{shown}' as a {name}: one of the years 1 to 9999 is written as in 2024-01-31{}",
        if to.of == DataType::Date32 { "" } else { " 12:30:00.5" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{StringArray, TimestampMicrosecondArray, TimestampNanosecondArray};
    use proptest::prelude::*;

    use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

    fn to(of: &DataType) -> CastTarget {
        CastTarget {
            of: of.clone(),
            digits: 6,
        }
    }

    fn texts_of(values: ArrayRef) -> Vec<String> {
        let made = convert(&values, &to(&DataType::Utf8), false).unwrap();
        made.as_string::<i32>()
            .iter()
            .map(|text| text.unwrap().to_string())
            .collect()
    }

    proptest! {
        #[test]
        fn a_moment_is_read_again_as_it_was_written(points in prop::collection::vec(FIRST_MOMENT..=LAST_MOMENT, 1..20)) {
            let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(points.clone()));
            let texts: ArrayRef = Arc::new(StringArray::from(texts_of(moments.clone())));
            prop_assert_eq!(&convert(&texts, &to(&MOMENT), false).unwrap(), &moments);
            let days = convert(&moments, &to(&DataType::Date32), false).unwrap();
            let of_texts: ArrayRef = Arc::new(StringArray::from(texts_of(days.clone())));
            prop_assert_eq!(&convert(&of_texts, &to(&DataType::Date32), false).unwrap(), &days);
            let midnights = convert(&days, &to(&MOMENT), false).unwrap();
            for (midnight, point) in midnights.as_primitive::<TimestampMicrosecondType>().values().iter().zip(&points) {
                prop_assert_eq!(*midnight, point - point.rem_euclid(DAY));
            }
        }
    }

    #[test]
    fn what_is_of_no_year_that_there_is_fails_and_names_itself() {
        for text in ["0000-01-01", "10000-01-01", "2024-02-30", "soon", ""] {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
            for of in [MOMENT, DataType::Date32] {
                let why = convert(&texts, &to(&of), false).unwrap_err().to_string();
                assert!(why.contains(&format!("'{text}'")), "{why}");
                assert_eq!(convert(&texts, &to(&of), true).unwrap().null_count(), 1);
            }
        }
    }

    #[test]
    fn finer_moments_are_of_the_microsecond_they_lie_in_and_texts_round() {
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1999]));
        let made = convert(&nanos, &to(&MOMENT), false).unwrap();
        assert_eq!(
            made.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
            [-1, 1]
        );
        assert_eq!(point_of("1970-01-01 00:00:00.0000015"), Some(2));
        assert_eq!(point_of("1970-01-01T02:00:00+02:00"), Some(0));
        assert_eq!(point_of("1970-01-01 00:02"), Some(120_000_000));
        assert_eq!(point_of("1970-01-01T02:00+02:00"), Some(0));
        assert_eq!(point_of("1970-01-01 02:0"), None);
        let millis = CastTarget { of: MOMENT, digits: 3 };
        let points: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1, -500, 1_000_000_000_000_500]));
        let made = convert(&points, &millis, false).unwrap();
        let made = made.as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(made, [0, -1000, 1_000_000_000_001_000]);
        let last: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![LAST_MOMENT, LAST_MOMENT - 500]));
        assert!(convert(&last.slice(0, 1), &millis, false).is_err());
        let made = convert(&last, &millis, true).unwrap();
        let made = made.as_primitive::<TimestampMicrosecondType>();
        assert_eq!((made.is_null(0), made.value(1)), (true, LAST_MOMENT - 999));
    }
}
