//! `date_trunc(unit, t)`.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use arrow::temporal_conversions::as_datetime_with_timezone;
use chrono::{Datelike, NaiveDate, NaiveDateTime, Offset, TimeZone};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::logical_expr_common::signature::{Coercion, TypeSignatureClass};

use super::{DAY, answer, beyond, microseconds, rows_of};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc {
    signature: Signature,
    aliases: Vec<String>,
}

impl DateTrunc {
    pub fn new() -> Self {
        let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        let point = Coercion::new_implicit(
            TypeSignatureClass::Timestamp,
            vec![
                TypeSignatureClass::Native(logical_string()),
                TypeSignatureClass::Native(logical_date()),
            ],
            NativeType::Timestamp(TimeUnit::Microsecond, None),
        );
        let time = Coercion::new_exact(TypeSignatureClass::Time);
        let signature = Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![text(), point]),
                TypeSignature::Coercible(vec![text(), time]),
            ],
            Volatility::Immutable,
        );
        DateTrunc {
            signature,
            aliases: vec!["datetrunc".to_string()],
        }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the field that it returns is asked for instead")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = &args.arg_fields[1];
        let of = match field.data_type() {
            DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            of => of.clone(),
        };
        Ok(Arc::new(Field::new(self.name(), of, field.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = args.args[1].data_type();
        let zone = match &of {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => return date_trunc().inner().invoke_with_args(args),
            DataType::Timestamp(_, zone) => zone.clone(),
            DataType::Null => {
                return Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(None, None)));
            }
            _ => return date_trunc().inner().invoke_with_args(args),
        };
        let unit = match &args.args[0] {
            ColumnarValue::Scalar(unit) => unit.try_as_str().flatten(),
            ColumnarValue::Array(_) => None,
        };
        let Some(unit) = unit else {
            return exec_err!("date_trunc() takes its unit as a literal, as in date_trunc('month', t)");
        };
        let unit = Unit::named(unit)?;
        let points = microseconds(&args.args[1].to_array(rows_of(&args))?)?;
        let cut: PrimitiveArray<TimestampMicrosecondType> = match &zone {
            None => points.try_unary(|point| unit.start(point).ok_or_else(beyond))?,
            Some(name) => {
                let zone: Tz = name.parse()?;
                points.try_unary(|point| unit.start_in(zone, point).ok_or_else(beyond))?
            }
        };
        let cut: ArrayRef = Arc::new(cut.with_timezone_opt(zone));
        answer(cast(&cut, &of)?, &args.args)
    }
}

/// What is cut to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many microseconds, counted from midnight.
    Micros(i64),
    Week,
    Months(u32),
    /// Centuries and millennia begin with a year 1, decades with a year 0.
    Years(i32),
}

impl Unit {
    fn named(name: &str) -> Result<Unit> {
        let name = name.to_ascii_lowercase();
        let one = name.strip_suffix('s').unwrap_or(&name);
        Ok(match one {
            "microsecond" => Unit::Micros(1),
            "millisecond" => Unit::Micros(1000),
            "second" => Unit::Micros(1_000_000),
            "minute" => Unit::Micros(60_000_000),
            "hour" => Unit::Micros(3_600_000_000),
            "day" => Unit::Micros(DAY),
            "week" => Unit::Week,
            "month" => Unit::Months(1),
            "quarter" => Unit::Months(3),
            "year" => Unit::Years(1),
            "decade" => Unit::Years(10),
            "century" | "centurie" => Unit::Years(100),
            "millennium" | "millennia" => Unit::Years(1000),
            _ => {
                return exec_err!(
                    "date_trunc() knows no unit {name:?}; write microsecond, millisecond, second, minute, hour, day, week, \
                     month, quarter, year, decade, century or millennium"
                );
            }
        })
    }

    /// The first microsecond of the unit (day, month, ...) that a point lies in. None: that is outside of the calendar.
    fn start(self, point: i64) -> Option<i64> {
        let days = point.div_euclid(DAY);
        match self {
            Unit::Micros(length) => point.checked_sub(point.rem_euclid(length)),
            // 1970-01-01 was a Thursday.
            Unit::Week => (days - (days + 3).rem_euclid(7)).checked_mul(DAY),
            Unit::Months(_) | Unit::Years(_) => {
                const FIRST: i64 = 719_163; // chrono's count of days at 1970-01-01
                let date = NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + FIRST).ok()?)?;
                let (year, month) = match self {
                    Unit::Months(length) => (date.year(), date.month0() / length * length + 1),
                    Unit::Years(length) => {
                        let first = i32::from(length > 10);
                        ((date.year() - first).div_euclid(length) * length + first, 1)
                    }
                    _ => (date.year(), 1),
                };
                let start = NaiveDate::from_ymd_opt(year, month, 1)?;
                (i64::from(start.num_days_from_ce()) - FIRST).checked_mul(DAY)
            }
        }
    }

    /// The same by the clocks and the calendar of a zone.
    fn start_in(self, zone: Tz, point: i64) -> Option<i64> {
        let at = as_datetime_with_timezone::<TimestampMicrosecondType>(point, zone)?;
        let local = self.start(at.naive_local().and_utc().timestamp_micros())?;
        let local: NaiveDateTime = chrono::DateTime::from_timestamp_micros(local)?.naive_utc();
        // Where clocks show a time twice, the one with the point's own offset; where never, the one before.
        let offset = at.offset().fix();
        let starts = zone.from_local_datetime(&local);
        let (earliest, latest) = (starts.earliest(), starts.latest());
        let mut same = earliest.into_iter().chain(latest);
        let same = same.find(|start| start.offset().fix() == offset).or(earliest);
        Some(match same {
            Some(start) => start.timestamp_micros(),
            None => local.and_utc().timestamp_micros() - i64::from(offset.local_minus_utc()) * 1_000_000,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    /// As PostgreSQL says.
    #[test]
    fn units_begin_where_postgres_has_them_begin() {
        for (unit, at, start) in [
            ("week", "9999-12-31T23:59:59.999999", "9999-12-27T00:00:00"),
            ("month", "9999-12-31T23:59:59.999999", "9999-12-01T00:00:00"),
            ("QUARTER", "2263-05-05T01:00:00", "2263-04-01T00:00:00"),
            ("years", "0001-06-01T00:00:00", "0001-01-01T00:00:00"),
            ("decade", "1600-01-01T00:00:00", "1600-01-01T00:00:00"),
            ("decade", "2019-12-31T00:00:00", "2010-01-01T00:00:00"),
            ("century", "2000-02-29T00:00:00", "1901-01-01T00:00:00"),
            ("century", "2001-02-03T00:00:00", "2001-01-01T00:00:00"),
            ("millennium", "9999-12-31T00:00:00", "9001-01-01T00:00:00"),
            ("day", "1600-02-29T13:14:15.5", "1600-02-29T00:00:00"),
            ("hour", "1969-12-31T23:59:59.999999", "1969-12-31T23:00:00"),
            ("millisecond", "1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999"),
        ] {
            assert_eq!(
                Unit::named(unit).unwrap().start(micros(at)),
                Some(micros(start)),
                "{unit} of {at}"
            );
        }
        assert!(Unit::named("fortnight").is_err());
    }

    proptest! {
        /// The calendar comes again after 400 years, in which the week ends, too.
        #[test]
        fn a_unit_begins_in_any_year_as_it_does_in_ours(
            at in 0i64..(400 * 365 * DAY),
            turns in -5i64..20,
            unit in prop::sample::select(vec!["week", "month", "quarter", "year", "decade", "day", "minute"]),
        ) {
            const TURN: i64 = 146_097 * DAY;
            let unit = Unit::named(unit).unwrap();
            let here = unit.start(at).unwrap();
            prop_assert!(here <= at);
            prop_assert_eq!(unit.start(at + turns * TURN), Some(here + turns * TURN));
        }
    }
}
