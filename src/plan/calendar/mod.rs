//! Functions of dates and timestamps, in microseconds.
//!
//! DataFusion computes `date_trunc`, `date_bin` and `to_timestamp` in nanoseconds, which reach from 1677 to
//! 2262, and extracts only integers. A TIMESTAMP here is in the years 1 to 9999. So these functions replace
//! DataFusion's of the same names, and mean what PostgreSQL means by them. A constant field, unit, zone or
//! pattern that does not exist is refused when the query is planned.

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

/// Registers the functions in a session.
pub fn register(context: &SessionContext) {
    times::register(context);
    context.register_udf(ScalarUDF::from(truncate::DateTrunc::new()));
    context.register_udf(ScalarUDF::from(part::DatePart::new()));
    context.register_udf(ScalarUDF::from(zone::Timezone::new()));
    context.register_udf(ScalarUDF::from(make::MakeFunction::date()));
    context.register_udf(ScalarUDF::from(make::MakeFunction::timestamp()));
    context.register_udf(date_bin().as_ref().clone());
    context.register_udf(write::to_char());
    for function in parse::functions() {
        context.register_udf(function);
    }
}

/// A column of timestamps or dates in microseconds, with its zone if it has one.
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

/// For how many rows arguments are computed: one if all are constants.
fn rows_of(args: &ScalarFunctionArgs) -> usize {
    match args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_))) {
        true => args.number_rows,
        false => 1,
    }
}

/// The result as a column, or as a single value if all arguments are constants.
fn answer(values: ArrayRef, args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let is_one = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    Ok(match is_one {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

/// The type with microseconds, and with its zone if it has one.
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
