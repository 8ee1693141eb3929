//! `timezone(zone, t)`, which `t AT TIME ZONE zone` becomes. Of a TIMESTAMP it is the instant at which clocks
//! in the zone show it; of a TIMESTAMP WITH TIME ZONE it is what clocks in the zone show then. A DATE is the
//! instant of its midnight in UTC, as in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{answer, is_text, microseconds, rows_of};
use crate::plan::times::{DAY, MOMENT, TimeLength, TimestampText, Zone};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Timezone {
    signature: Signature,
}

impl Timezone {
    pub fn new() -> Self {
        Timezone {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [zone, of] = types else {
            return plan_err!("AT TIME ZONE takes a TIMESTAMP and a zone");
        };
        let zone = match zone {
            DataType::Interval(_) => INTERVAL,
            of if is_text(of) || of.is_null() => DataType::Utf8,
            other => return plan_err!("AT TIME ZONE takes the name of a zone or an INTERVAL, not a {other}"),
        };
        let of = match of {
            DataType::Timestamp(_, None) => MOMENT,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Null => instant(),
            of if is_text(of) => instant(),
            other => return plan_err!("AT TIME ZONE takes a TIMESTAMP, not a {other}"),
        };
        Ok(vec![zone, of])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types[1] {
            DataType::Timestamp(_, None) => instant(),
            _ => MOMENT,
        })
    }

    /// Also refuses a constant zone that does not exist.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(zone) = args.scalar_arguments[0].filter(|zone| !zone.is_null()) {
            Zones::default().of(&zone.to_array()?, 0)?;
        }
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = rows_of(&args);
        let (zones, points) = (&args.args[0], args.args[1].to_array(rows)?);
        let is_local = matches!(points.data_type(), DataType::Timestamp(_, None));
        let points = microseconds(&points)?;
        let (zones, is_constant) = match zones {
            ColumnarValue::Scalar(zone) => (zone.to_array()?, true),
            ColumnarValue::Array(zones) => (zones.clone(), false),
        };
        let mut known = Zones::default();
        let mut made = PrimitiveArray::<TimestampMicrosecondType>::builder(points.len());
        for row in 0..points.len() {
            let of = if is_constant { 0 } else { row };
            if points.is_null(row) || zones.is_null(of) {
                made.append_null();
                continue;
            }
            let (point, zone) = (points.value(row), known.of(&zones, of)?);
            let turned = if is_local {
                zone.instant(point)
            } else {
                zone.local(point)
            };
            made.append_value(turned.ok_or_else(|| {
                exec_datafusion_err!(
                    "could not turn {} by AT TIME ZONE: the result is beyond what a TIMESTAMP can be",
                    TimestampText(point)
                )
            })?);
        }
        let to = if is_local { instant() } else { MOMENT };
        let made: ArrayRef = Arc::new(made.finish().with_data_type(to));
        answer(made, &args.args)
    }
}

/// Zones by name, each of which is looked up once.
#[derive(Default)]
struct Zones(HashMap<String, Zone>);

impl Zones {
    fn of(&mut self, zones: &ArrayRef, row: usize) -> Result<Zone> {
        if let Some(intervals) = zones.as_primitive_opt::<IntervalMonthDayNanoType>() {
            let length = TimeLength::from_interval(intervals.value(row));
            return match length.months == 0 && length.days == 0 && length.micros.abs() < DAY {
                true => Ok(Zone::Fixed(length.micros)),
                false => plan_err!("AT TIME ZONE takes an INTERVAL of less than a day, not '{length}'"),
            };
        }
        let zones = cast(zones, &DataType::Utf8)?;
        let name = zones.as_string::<i32>().value(row);
        if let Some(zone) = self.0.get(name) {
            return Ok(zone.clone());
        }
        match Zone::named(name) {
            Ok(zone) => Ok(self.0.entry(name.to_string()).or_insert(zone).clone()),
            Err(why) => plan_err!("AT TIME ZONE: {why}"),
        }
    }
}

/// Whether a constant is a name of UTC.
pub(in crate::plan) fn is_utc(zone: &ScalarValue) -> bool {
    let name = zone.try_as_str().flatten();
    name.is_some_and(|name| matches!(Zone::named(name), Ok(Zone::Fixed(0))))
}
