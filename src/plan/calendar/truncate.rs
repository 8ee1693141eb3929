//! `date_trunc(unit, t)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::{Result, exec_datafusion_err, internal_err, plan_err};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::logical_expr_common::signature::{Coercion, TypeSignatureClass};

use super::{DAY, answer, microseconds, rows_of, zoned};
use crate::plan::times::{MOMENT, Moment, days_from_civil, weekday, within};
use crate::repr::civil_from_days;

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

    /// Also refuses a unit that there is not, where it is known before there are rows.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(Some(unit)) = args.scalar_arguments[0].and_then(|unit| unit.try_as_str()) {
            Unit::named(unit)?;
        }
        let field = &args.arg_fields[1];
        let of = match field.data_type() {
            DataType::Null => MOMENT,
            of @ (DataType::Time32(_) | DataType::Time64(_)) => of.clone(),
            of => zoned(of),
        };
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), of, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = args.args[1].data_type();
        if !matches!(of, DataType::Timestamp(..) | DataType::Null) {
            return date_trunc().inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let units = cast(&args.args[0].to_array(rows)?, &DataType::Utf8)?;
        let units = units.as_string::<i32>();
        let points = match of {
            DataType::Null => PrimitiveArray::new_null(rows),
            _ => microseconds(&args.args[1].to_array(rows)?)?,
        };
        let mut cut = PrimitiveArray::<TimestampMicrosecondType>::builder(points.len());
        let mut known: Option<(&str, Unit)> = None;
        for row in 0..points.len() {
            if points.is_null(row) || units.is_null(row) {
                cut.append_null();
                continue;
            }
            let name = units.value(row);
            let unit = match known {
                Some((other, unit)) if other == name => unit,
                _ => Unit::named(name)?,
            };
            known = Some((name, unit));
            let point = points.value(row);
            cut.append_value(unit.start(point).ok_or_else(|| {
                exec_datafusion_err!(
                    "could not compute date_trunc('{name}', {}): the result is not of the years 1 to 9999",
                    Moment(point)
                )
            })?);
        }
        let cut: ArrayRef = Arc::new(cut.finish().with_data_type(zoned(&of)));
        answer(cut, &args.args)
    }
}

/// What is cut to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// So many microseconds, counted from midnight.
    Micros(i64),
    Week,
    Months(i64),
    /// Centuries and millennia begin with a year 1, decades with a year 0.
    Years(i64),
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
                return plan_err!(
                    "date_trunc() knows no unit {name:?}; write microsecond, millisecond, second, minute, hour, day, week, \
                     month, quarter, year, decade, century or millennium"
                );
            }
        })
    }

    /// The first microsecond of the unit (day, month, ...) that a point lies in. None: that is outside of the calendar.
    fn start(self, point: i64) -> Option<i64> {
        let days = point.div_euclid(DAY);
        let start = match self {
            Unit::Micros(length) => point - point.rem_euclid(length),
            Unit::Week => (days - weekday(days)) * DAY,
            Unit::Months(length) => {
                let (year, month, _) = civil_from_days(days);
                days_from_civil(year, (month - 1) / length * length + 1, 1) * DAY
            }
            Unit::Years(length) => {
                let (year, ..) = civil_from_days(days);
                let first = i64::from(length > 10);
                days_from_civil((year - first).div_euclid(length) * length + first, 1, 1) * DAY
            }
        };
        within(start.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;
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
            turns in -4i64..19,
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
