//! `date_part(field, x)` and `EXTRACT(field FROM x)`, of dates, timestamps, times of day and intervals.
//!
//! Whole fields are INTs. Seconds, milliseconds and seconds since 1970 are exact DECIMALs, as PostgreSQL's
//! EXTRACT yields numeric.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, Field as ArrowField, FieldRef, Int32Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{answer, beyond, is_text, microseconds, rows_of};
use crate::plan::times::{DAY, SECOND, TimeLength, days_from_civil, iso_week, weekday};
use crate::repr::civil_from_days;

const LENGTH: DataType = DataType::Duration(TimeUnit::Microsecond);
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const MOMENT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    signature: Signature,
    aliases: Vec<String>,
}

impl DatePart {
    pub fn new() -> Self {
        DatePart {
            signature: Signature::user_defined(Volatility::Immutable),
            aliases: vec!["datepart".to_string()],
        }
    }
}

/// The field to extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DateField {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Epoch,
    Julian,
}

/// The kind of value from which a field is extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    Date,
    Moment,
    Time,
    Length,
}

impl DateField {
    fn named(name: &str) -> Option<DateField> {
        Some(
            match name.trim().trim_matches(['\'', '"']).to_ascii_lowercase().as_str() {
                "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => {
                    DateField::Microseconds
                }
                "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => {
                    DateField::Milliseconds
                }
                "second" | "seconds" | "s" | "sec" | "secs" => DateField::Second,
                "minute" | "minutes" | "m" | "min" | "mins" => DateField::Minute,
                "hour" | "hours" | "h" | "hr" | "hrs" => DateField::Hour,
                "day" | "days" | "d" => DateField::Day,
                "week" | "weeks" | "w" => DateField::Week,
                "month" | "months" | "mon" | "mons" => DateField::Month,
                "quarter" | "qtr" => DateField::Quarter,
                "year" | "years" | "y" | "yr" | "yrs" => DateField::Year,
                "decade" | "decades" => DateField::Decade,
                "century" | "centuries" => DateField::Century,
                "millennium" | "millennia" => DateField::Millennium,
                "dow" => DateField::DayOfWeek,
                "isodow" => DateField::IsoDayOfWeek,
                "doy" => DateField::DayOfYear,
                "isoyear" => DateField::IsoYear,
                "epoch" => DateField::Epoch,
                "julian" => DateField::Julian,
                _ => return None,
            },
        )
    }

    fn is_of(self, of: ValueKind) -> bool {
        use DateField::*;
        match of {
            ValueKind::Date => true,
            ValueKind::Moment => self != Julian,
            ValueKind::Time => matches!(self, Microseconds | Milliseconds | Second | Minute | Hour | Epoch),
            ValueKind::Length => !matches!(self, Week | DayOfWeek | IsoDayOfWeek | DayOfYear | IsoYear | Julian),
        }
    }

    /// The precision and scale of a fractional field; `None` for a whole one.
    fn digits(self, of: ValueKind) -> Option<(u8, i8)> {
        match self {
            DateField::Second => Some((8, 6)),
            DateField::Milliseconds => Some((8, 3)),
            DateField::Epoch if of == ValueKind::Length => Some((22, 6)),
            DateField::Epoch => Some((18, 6)),
            _ => None,
        }
    }

    /// The field of a time of day, as an integer or in units of the field's last digit.
    fn of_time(self, micros: i64) -> i64 {
        let of_minute = micros % (60 * SECOND);
        match self {
            // As milliseconds have three digits after the point and seconds six, their units are microseconds.
            DateField::Microseconds | DateField::Milliseconds | DateField::Second => of_minute,
            DateField::Minute => micros / (60 * SECOND) % 60,
            DateField::Hour => micros / (3600 * SECOND),
            _ => micros,
        }
    }

    fn of_day(self, days: i64) -> i64 {
        let (year, month, day) = civil_from_days(days);
        match self {
            DateField::Day => day,
            DateField::Week => iso_week(days).1,
            DateField::Month => month,
            DateField::Quarter => (month - 1) / 3 + 1,
            DateField::Year => year,
            DateField::Decade => year.div_euclid(10),
            DateField::Century => (year + 99).div_euclid(100),
            DateField::Millennium => (year + 999).div_euclid(1000),
            DateField::DayOfWeek => (weekday(days) + 1) % 7,
            DateField::IsoDayOfWeek => weekday(days) + 1,
            DateField::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            DateField::IsoYear => iso_week(days).0,
            _ => days + 2_440_588, // the Julian day that began at noon
        }
    }

    fn of_moment(self, point: i64) -> i64 {
        match self {
            DateField::Epoch => point,
            part if part.is_of(ValueKind::Time) => part.of_time(point.rem_euclid(DAY)),
            part => part.of_day(point.div_euclid(DAY)),
        }
    }

    fn of_length(self, length: TimeLength) -> i128 {
        let (years, months) = (length.months / 12, length.months % 12);
        i128::from(match self {
            DateField::Day => length.days,
            DateField::Month => months,
            DateField::Quarter => months / 3 + 1,
            DateField::Year => years,
            DateField::Decade => years / 10,
            DateField::Century => years / 100,
            DateField::Millennium => years / 1000,
            DateField::Epoch => {
                // A year has 365.25 days here, and a month 30.
                let quarters = i128::from(years) * 1461 + i128::from(months * 120) + i128::from(length.days) * 4;
                return quarters * i128::from(DAY / 4) + i128::from(length.micros);
            }
            part => part.of_time(length.micros),
        })
    }
}

/// The kind of a type's values; `None` if they have no fields.
fn value_kind(of: &DataType) -> Option<ValueKind> {
    Some(match of {
        DataType::Date32 | DataType::Date64 => ValueKind::Date,
        DataType::Timestamp(..) | DataType::Null => ValueKind::Moment,
        of if is_text(of) => ValueKind::Moment,
        DataType::Time32(_) | DataType::Time64(_) => ValueKind::Time,
        DataType::Duration(_) | DataType::Interval(_) => ValueKind::Length,
        _ => return None,
    })
}

fn field_and_kind(name: Option<&ScalarValue>, of: &DataType) -> Result<(DateField, ValueKind)> {
    let Some(Some(name)) = name.and_then(|name| name.try_as_str()) else {
        return plan_err!("date_part() takes its field as a literal, as in date_part('month', t)");
    };
    let (Some(part), Some(of)) = (DateField::named(name), value_kind(of)) else {
        return plan_err!(
            "date_part() knows no field {name:?}; write microseconds, milliseconds, second, minute, hour, day, week, month, \
             quarter, year, decade, century, millennium, dow, isodow, doy, isoyear or epoch"
        );
    };
    match part.is_of(of) {
        true => Ok((part, of)),
        false => {
            let (what, instead) = match of {
                ValueKind::Length => ("an INTERVAL", "take it of the moments themselves"),
                ValueKind::Time => ("a time of day", "take it of the moment"),
                _ => ("a TIMESTAMP", "take it of CAST(... AS DATE)"),
            };
            plan_err!("date_part() cannot take the field {name:?} of {what}; {instead}")
        }
    }
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        "date_part"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [name, of] = types else {
            return plan_err!("date_part() takes a field and a TIMESTAMP, DATE or INTERVAL");
        };
        let of = match of {
            DataType::Date64 | DataType::Null => MOMENT,
            of if is_text(of) => MOMENT,
            of if value_kind(of).is_some() => of.clone(),
            other => return plan_err!("date_part() takes a TIMESTAMP, DATE or INTERVAL, not a {other}"),
        };
        Ok(vec![if name.is_null() { DataType::Utf8 } else { name.clone() }, of])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("the field that it returns is asked for instead")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let of = args.arg_fields[1].data_type();
        let (part, of) = field_and_kind(args.scalar_arguments[0], of)?;
        let returned = match part.digits(of) {
            Some((precision, scale)) => DataType::Decimal128(precision, scale),
            None => DataType::Int32,
        };
        let nullable = args.arg_fields[1].is_nullable();
        Ok(Arc::new(ArrowField::new(self.name(), returned, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match &args.args[0] {
            ColumnarValue::Scalar(name) => Some(name),
            ColumnarValue::Array(_) => None,
        };
        let (part, of) = field_and_kind(name, &args.args[1].data_type())?;
        let values = args.args[1].to_array(rows_of(&args))?;
        answer(extract_field(part, of, &values)?, &args.args)
    }

    /// Makes `date_part('year', t) = 2024` a range of t.
    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let [Expr::Literal(name, _), of] = args else {
            return Ok(PreimageResult::None);
        };
        let of_type = info.get_data_type(of)?;
        let (Ok((DateField::Year, _)), Some(ScalarValue::Int32(Some(year)))) =
            (field_and_kind(Some(name), &of_type), literal.as_literal())
        else {
            return Ok(PreimageResult::None);
        };
        let start = |year: i32| {
            let days = days_from_civil(year.into(), 1, 1);
            Some(match &of_type {
                DataType::Date32 => ScalarValue::Date32(i32::try_from(days).ok()),
                DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                    ScalarValue::TimestampMicrosecond(Some(days.checked_mul(DAY)?), zone.clone())
                }
                _ => return None,
            })
        };
        let next = year
            .checked_add(1)
            .filter(|_| (1..=9999).contains(year))
            .and_then(start);
        Ok(match (start(*year), next) {
            (Some(lower), Some(upper)) => PreimageResult::Range {
                expr: of.clone(),
                interval: Box::new(Interval::try_new(lower, upper)?),
            },
            _ => PreimageResult::None,
        })
    }
}

fn extract_field(part: DateField, of: ValueKind, values: &ArrayRef) -> Result<ArrayRef> {
    match of {
        ValueKind::Date => {
            let days = cast(values, &DataType::Date32)?;
            let days = days.as_primitive::<Date32Type>().clone();
            map_values(part, of, &days, |day| part.of_moment(i64::from(day) * DAY).into())
        }
        ValueKind::Moment => map_values(part, of, &microseconds(values)?, |point| part.of_moment(point).into()),
        ValueKind::Time => {
            let times = cast(values, &TIME)?;
            map_values(part, of, times.as_primitive::<Time64MicrosecondType>(), |time| {
                part.of_time(time).into()
            })
        }
        ValueKind::Length if matches!(values.data_type(), DataType::Duration(_)) => {
            let lengths = cast(values, &LENGTH)?;
            map_values(part, of, lengths.as_primitive::<DurationMicrosecondType>(), |micros| {
                part.of_length(TimeLength::of_micros(micros))
            })
        }
        ValueKind::Length => {
            let lengths = cast(values, &INTERVAL)?;
            map_values(part, of, lengths.as_primitive::<IntervalMonthDayNanoType>(), |length| {
                part.of_length(TimeLength::from_interval(length))
            })
        }
    }
}

fn map_values<T: arrow::datatypes::ArrowPrimitiveType>(
    part: DateField,
    of: ValueKind,
    values: &PrimitiveArray<T>,
    taken: impl Fn(T::Native) -> i128,
) -> Result<ArrayRef> {
    // The slot of a null has no meaningful value, so it is not converted.
    let taken = values.iter().map(|value| value.map(&taken));
    Ok(match part.digits(of) {
        Some((precision, scale)) => {
            let made: PrimitiveArray<Decimal128Type> = taken.collect();
            Arc::new(made.with_precision_and_scale(precision, scale)?)
        }
        None => {
            let whole = |value: i128| i32::try_from(value).map_err(|_| beyond());
            let made: PrimitiveArray<Int32Type> =
                taken.map(|value| value.map(whole).transpose()).collect::<Result<_>>()?;
            Arc::new(made)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Datelike, Timelike};
    use proptest::prelude::*;

    use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

    proptest! {
        #[test]
        fn fields_of_moments_are_those_of_chrono(at in FIRST_MOMENT..=LAST_MOMENT) {
            let moment = DateTime::from_timestamp_micros(at).unwrap().naive_utc();
            let second = i64::from(moment.second()) * SECOND + i64::from(moment.and_utc().timestamp_subsec_micros());
            let year = moment.year();
            for (part, value) in [
                (DateField::Microseconds, second),
                (DateField::Milliseconds, second),
                (DateField::Second, second),
                (DateField::Minute, moment.minute().into()),
                (DateField::Hour, moment.hour().into()),
                (DateField::Day, moment.day().into()),
                (DateField::Week, moment.iso_week().week().into()),
                (DateField::Month, moment.month().into()),
                (DateField::Quarter, moment.quarter().into()),
                (DateField::Year, year.into()),
                (DateField::DayOfWeek, moment.weekday().num_days_from_sunday().into()),
                (DateField::IsoDayOfWeek, moment.weekday().number_from_monday().into()),
                (DateField::DayOfYear, moment.ordinal().into()),
                (DateField::IsoYear, moment.iso_week().year().into()),
                (DateField::Epoch, at),
            ] {
                prop_assert_eq!(part.of_moment(at), value, "{:?}", part);
            }
        }
    }

    /// The expected values are PostgreSQL's.
    #[test]
    fn centuries_and_fields_of_intervals_are_postgres() {
        let year = |year| days_from_civil(year, 6, 1);
        for (part, at, value) in [
            (DateField::Century, 2000, 20),
            (DateField::Century, 2001, 21),
            (DateField::Century, 1, 1),
            (DateField::Millennium, 2000, 2),
            (DateField::Millennium, 9999, 10),
            (DateField::Decade, 9, 0),
            (DateField::Decade, 2019, 201),
        ] {
            assert_eq!(part.of_day(year(at)), value, "{part:?} {at}");
        }
        assert_eq!(DateField::Julian.of_day(0), 2_440_588);
        let length = TimeLength {
            months: -14,
            days: 3,
            micros: 90_000_500_000,
        };
        for (part, value) in [
            (DateField::Year, -1),
            (DateField::Month, -2),
            (DateField::Quarter, 1),
            (DateField::Day, 3),
            (DateField::Hour, 25),
            (DateField::Minute, 0),
            (DateField::Second, 500_000),
            (
                DateField::Epoch,
                (-31_557_600 - 60 * 86_400 + 3 * 86_400 + 90_000) * 1_000_000 + 500_000,
            ),
        ] {
            assert_eq!(part.of_length(length), value, "{part:?}");
        }
    }

    #[test]
    fn a_field_that_is_none_is_refused() {
        let refused = |name: &str, of: DataType| {
            field_and_kind(Some(&ScalarValue::from(name)), &of)
                .err()
                .map(|e| e.to_string())
        };
        assert!(refused("fortnight", MOMENT).is_some_and(|why| why.contains("no field")));
        assert!(refused("dow", LENGTH).is_some_and(|why| why.contains("INTERVAL")));
        assert!(refused("julian", MOMENT).is_some_and(|why| why.contains("AS DATE")));
        assert_eq!(refused("ISODOW", DataType::Date32), None);
    }
}
