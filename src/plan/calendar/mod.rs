//! Functions of points in time, by the microsecond.
//!
//! DataFusion computes `date_trunc`, `date_bin` and `to_timestamp` in nanoseconds, which reach from the year 1677 to 2262, and
//! takes whole numbers out of seconds. A TIMESTAMP here is of the years 1 to 9999, so these take the places of DataFusion's by
//! their names, and mean what PostgreSQL means by them. A field, unit, zone or pattern that there is not is refused when it is
//! planned, where it is a constant.

mod bin;
mod make;
mod parse;
mod part;
mod pattern;
mod truncate;
mod write;
mod zone;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use datafusion::prelude::SessionContext;

use super::times::{self, DAY};

use bin::date_bin;
pub(super) use zone::is_utc;

/// Has a session compute by these.
pub fn register(context: &SessionContext) {
    times::register(context);
    context.register_udf(ScalarUDF::from(truncate::DateTrunc::new()));
    context.register_udf(ScalarUDF::from(part::DatePart::new()));
    context.register_udf(ScalarUDF::from(zone::Timezone::new()));
    context.register_udf(ScalarUDF::from(make::Make::date()));
    context.register_udf(ScalarUDF::from(make::Make::timestamp()));
    context.register_udf(date_bin().as_ref().clone());
    context.register_udf(write::to_char());
    for function in parse::functions() {
        context.register_udf(function);
    }
}

/// A column of microseconds, with a zone or without.
fn microseconds(array: &ArrayRef) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    if micros.null_count() > array.null_count() {
        return Err(beyond());
    }
    Ok(micros.as_primitive::<TimestampMicrosecondType>().clone())
}

/// How many rows arguments are to be computed for: of constants alone, one.
fn rows_of(args: &ScalarFunctionArgs) -> usize {
    match args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_))) {
        true => args.number_rows,
        false => 1,
    }
}

/// The values that are made of as many rows, as one where the arguments are.
fn answer(values: ArrayRef, args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let is_one = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    Ok(match is_one {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

/// The zone of a type, without nanoseconds.
fn zoned(of: &DataType) -> DataType {
    let zone: Option<Arc<str>> = match of {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    DataType::Timestamp(TimeUnit::Microsecond, zone)
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn beyond() -> DataFusionError {
    exec_datafusion_err!("a point in time is beyond the calendar")
}
