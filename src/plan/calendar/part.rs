//! `date_part(field, x)` and `EXTRACT(field FROM x)`, of dates, moments, times of day and lengths of time.
//!
//! Whole numbers are INTs. Seconds, milliseconds and seconds since 1970 are exact DECIMALs, as PostgreSQL's EXTRACT is numeric.

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
use crate::plan::times::{DAY, Length, SECOND, days_from_civil, iso_week, weekday};
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

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
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

/// What it is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Date,
    Moment,
    Time,
    Length,
}

impl Part {
    fn named(name: &str) -> Option<Part> {
        Some(
            match name.trim().trim_matches(['\'', '"']).to_ascii_lowercase().as_str() {
                "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => Part::Microseconds,
                "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => Part::Milliseconds,
                "second" | "seconds" | "s" | "sec" | "secs" => Part::Second,
                "minute" | "minutes" | "m" | "min" | "mins" => Part::Minute,
                "hour" | "hours" | "h" | "hr" | "hrs" => Part::Hour,
                "day" | "days" | "d" => Part::Day,
                "week" | "weeks" | "w" => Part::Week,
                "month" | "months" | "mon" | "mons" => Part::Month,
                "quarter" | "qtr" => Part::Quarter,
                "year" | "years" | "y" | "yr" | "yrs" => Part::Year,
                "decade" | "decades" => Part::Decade,
                "century" | "centuries" => Part::Century,
                "millennium" | "millennia" => Part::Millennium,
                "dow" => Part::DayOfWeek,
                "isodow" => Part::IsoDayOfWeek,
                "doy" => Part::DayOfYear,
                "isoyear" => Part::IsoYear,
                "epoch" => Part::Epoch,
                "julian" => Part::Julian,
                _ => return None,
            },
        )
    }

    fn is_of(self, of: Of) -> bool {
        use Part::*;
        match of {
            Of::Date => true,
            Of::Moment => self != Julian,
            Of::Time => matches!(self, Microseconds | Milliseconds | Second | Minute | Hour | Epoch),
            Of::Length => !matches!(self, Week | DayOfWeek | IsoDayOfWeek | DayOfYear | IsoYear | Julian),
        }
    }

    /// The digits of all values, and those behind the point; none of a whole number.
    fn digits(self, of: Of) -> Option<(u8, i8)> {
        match self {
            Part::Second => Some((8, 6)),
            Part::Milliseconds => Some((8, 3)),
            Part::Epoch if of == Of::Length => Some((22, 6)),
            Part::Epoch => Some((18, 6)),
            _ => None,
        }
    }

    /// Of a time of day, in whole numbers or units of the last digit.
    fn of_time(self, micros: i64) -> i64 {
        let of_minute = micros % (60 * SECOND);
        match self {
            // A millisecond has three digits behind its point, and a second six.
            Part::Microseconds | Part::Milliseconds | Part::Second => of_minute,
            Part::Minute => micros / (60 * SECOND) % 60,
            Part::Hour => micros / (3600 * SECOND),
            _ => micros,
        }
    }

    fn of_day(self, days: i64) -> i64 {
        let (year, month, day) = civil_from_days(days);
        match self {
            Part::Day => day,
            Part::Week => iso_week(days).1,
            Part::Month => month,
            Part::Quarter => (month - 1) / 3 + 1,
            Part::Year => year,
            Part::Decade => year.div_euclid(10),
            Part::Century => (year + 99).div_euclid(100),
            Part::Millennium => (year + 999).div_euclid(1000),
            Part::DayOfWeek => (weekday(days) + 1) % 7,
            Part::IsoDayOfWeek => weekday(days) + 1,
            Part::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            Part::IsoYear => iso_week(days).0,
            _ => days + 2_440_588, // of the Julian day that began at noon
        }
    }

    fn of_moment(self, point: i64) -> i64 {
        match self {
            Part::Epoch => point,
            part if part.is_of(Of::Time) => part.of_time(point.rem_euclid(DAY)),
            part => part.of_day(point.div_euclid(DAY)),
        }
    }

    fn of_length(self, length: Length) -> i128 {
        let (years, months) = (length.months / 12, length.months % 12);
        i128::from(match self {
            Part::Day => length.days,
            Part::Month => months,
            Part::Quarter => months / 3 + 1,
            Part::Year => years,
            Part::Decade => years / 10,
            Part::Century => years / 100,
            Part::Millennium => years / 1000,
            Part::Epoch => {
                // A year has 365.25 days here, a month 30.
                let quarters = i128::from(years) * 1461 + i128::from(months * 120) + i128::from(length.days) * 4;
                return quarters * i128::from(DAY / 4) + i128::from(length.micros);
            }
            part => part.of_time(length.micros),
        })
    }
}

/// What values of a type are; none where there is nothing to take of them.
fn kind(of: &DataType) -> Option<Of> {
    Some(match of {
        DataType::Date32 | DataType::Date64 => Of::Date,
        DataType::Timestamp(..) | DataType::Null => Of::Moment,
        of if is_text(of) => Of::Moment,
        DataType::Time32(_) | DataType::Time64(_) => Of::Time,
        DataType::Duration(_) | DataType::Interval(_) => Of::Length,
        _ => return None,
    })
}

fn known(name: Option<&ScalarValue>, of: &DataType) -> Result<(Part, Of)> {
    let Some(Some(name)) = name.and_then(|name| name.try_as_str()) else {
        return plan_err!("date_part() takes its field as a literal, as in date_part('month', t)");
    };
    let (Some(part), Some(of)) = (Part::named(name), kind(of)) else {
        return plan_err!(
            "date_part() knows no field {name:?}; write microseconds, milliseconds, second, minute, hour, day, week, month, \
             quarter, year, decade, century, millennium, dow, isodow, doy, isoyear or epoch"
        );
    };
    match part.is_of(of) {
        true => Ok((part, of)),
        false => {
            let (what, instead) = match of {
                Of::Length => ("an INTERVAL", "take it of the moments themselves"),
                Of::Time => ("a time of day", "take it of the moment"),
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
            of if kind(of).is_some() => of.clone(),
            other => return plan_err!("date_part() takes a TIMESTAMP, DATE or INTERVAL, not a {other}"),
        };
        Ok(vec![if name.is_null() { DataType::Utf8 } else { name.clone() }, of])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("the field that it returns is asked for instead")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let of = args.arg_fields[1].data_type();
        let (part, of) = known(args.scalar_arguments[0], of)?;
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
        let (part, of) = known(name, &args.args[1].data_type())?;
        let values = args.args[1].to_array(rows_of(&args))?;
        answer(taken(part, of, &values)?, &args.args)
    }

    /// `date_part('year', t) = 2024` is a range of t.
    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let [Expr::Literal(name, _), of] = args else {
            return Ok(PreimageResult::None);
        };
        let of_type = info.get_data_type(of)?;
        let (Ok((Part::Year, _)), Some(ScalarValue::Int32(Some(year)))) =
            (known(Some(name), &of_type), literal.as_literal())
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

fn taken(part: Part, of: Of, values: &ArrayRef) -> Result<ArrayRef> {
    match of {
        Of::Date => {
            let days = cast(values, &DataType::Date32)?;
            let days = days.as_primitive::<Date32Type>().clone();
            made(part, of, &days, |day| part.of_moment(i64::from(day) * DAY).into())
        }
        Of::Moment => made(part, of, &microseconds(values)?, |point| part.of_moment(point).into()),
        Of::Time => {
            let times = cast(values, &TIME)?;
            made(part, of, times.as_primitive::<Time64MicrosecondType>(), |time| {
                part.of_time(time).into()
            })
        }
        Of::Length if matches!(values.data_type(), DataType::Duration(_)) => {
            let lengths = cast(values, &LENGTH)?;
            made(part, of, lengths.as_primitive::<DurationMicrosecondType>(), |micros| {
                part.of_length(Length::of_micros(micros))
            })
        }
        Of::Length => {
            let lengths = cast(values, &INTERVAL)?;
            made(part, of, lengths.as_primitive::<IntervalMonthDayNanoType>(), |length| {
                part.of_length(Length::of(length))
            })
        }
    }
}

fn made<T: arrow::datatypes::ArrowPrimitiveType>(
    part: Part,
    of: Of,
    values: &PrimitiveArray<T>,
    taken: impl Fn(T::Native) -> i128,
) -> Result<ArrayRef> {
    // What stands in the place of a null is no value.
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
                (Part::Microseconds, second),
                (Part::Milliseconds, second),
                (Part::Second, second),
                (Part::Minute, moment.minute().into()),
                (Part::Hour, moment.hour().into()),
                (Part::Day, moment.day().into()),
                (Part::Week, moment.iso_week().week().into()),
                (Part::Month, moment.month().into()),
                (Part::Quarter, moment.quarter().into()),
                (Part::Year, year.into()),
                (Part::DayOfWeek, moment.weekday().num_days_from_sunday().into()),
                (Part::IsoDayOfWeek, moment.weekday().number_from_monday().into()),
                (Part::DayOfYear, moment.ordinal().into()),
                (Part::IsoYear, moment.iso_week().year().into()),
                (Part::Epoch, at),
            ] {
                prop_assert_eq!(part.of_moment(at), value, "{:?}", part);
            }
        }
    }

    /// As PostgreSQL says.
    #[test]
    fn centuries_and_fields_of_intervals_are_postgres() {
        let year = |year| days_from_civil(year, 6, 1);
        for (part, at, value) in [
            (Part::Century, 2000, 20),
            (Part::Century, 2001, 21),
            (Part::Century, 1, 1),
            (Part::Millennium, 2000, 2),
            (Part::Millennium, 9999, 10),
            (Part::Decade, 9, 0),
            (Part::Decade, 2019, 201),
        ] {
            assert_eq!(part.of_day(year(at)), value, "{part:?} {at}");
        }
        assert_eq!(Part::Julian.of_day(0), 2_440_588);
        let length = Length {
            months: -14,
            days: 3,
            micros: 90_000_500_000,
        };
        for (part, value) in [
            (Part::Year, -1),
            (Part::Month, -2),
            (Part::Quarter, 1),
            (Part::Day, 3),
            (Part::Hour, 25),
            (Part::Minute, 0),
            (Part::Second, 500_000),
            (
                Part::Epoch,
                (-31_557_600 - 60 * 86_400 + 3 * 86_400 + 90_000) * 1_000_000 + 500_000,
            ),
        ] {
            assert_eq!(part.of_length(length), value, "{part:?}");
        }
    }

    #[test]
    fn a_field_that_is_none_is_refused() {
        let refused =
            |name: &str, of: DataType| known(Some(&ScalarValue::from(name)), &of).err().map(|e| e.to_string());
        assert!(refused("fortnight", MOMENT).is_some_and(|why| why.contains("no field")));
        assert!(refused("dow", LENGTH).is_some_and(|why| why.contains("INTERVAL")));
        assert!(refused("julian", MOMENT).is_some_and(|why| why.contains("AS DATE")));
        assert_eq!(refused("ISODOW", DataType::Date32), None);
    }
}
