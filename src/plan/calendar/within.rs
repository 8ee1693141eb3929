//! What a text is read as lies between the years 1 and 9999, as what a decoder reads does. Arrow takes the year 0, too, which
//! PostgreSQL refuses: there is none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{DAY, rows_of};
use crate::repr::{FIRST_MOMENT, LAST_MOMENT};

const NAME: &str = "of_the_calendar";

/// Functions that read texts or numbers as one.
const READING: [&str; 7] = [
    "to_date",
    "make_date",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "from_unixtime",
];

/// What reads a DATE or TIMESTAMP, a cast of a text above all, with its outcome looked at; once, however often it comes here.
pub(in crate::plan) fn looked_at(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_calendar = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if call.name() == NAME);
    let reads = match &expr {
        Expr::Cast(cast) => is_time(cast.field.data_type()) && is_text(&cast.expr.get_type(schema)?),
        Expr::ScalarFunction(call) => READING.contains(&call.name()),
        _ => false,
    };
    match expr {
        read if reads => {
            let function = Arc::new(ScalarUDF::from(OfTheCalendar::new()));
            let call = ScalarFunction::new_udf(function, vec![read]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::ScalarFunction(mut call) if call.name() == NAME && call.args.first().is_some_and(is_calendar) => {
            Ok(Transformed::no(call.args.swap_remove(0)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Nanoseconds do not reach the year 0, and are made microseconds by `moments`, which looks at what they are made of.
fn is_time(of: &DataType) -> bool {
    let is_nanos = matches!(of, DataType::Timestamp(TimeUnit::Nanosecond, _));
    matches!(of, DataType::Date32 | DataType::Timestamp(..)) && !is_nanos
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfTheCalendar {
    signature: Signature,
}

impl OfTheCalendar {
    fn new() -> Self {
        OfTheCalendar {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for OfTheCalendar {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(&args.args[0].to_array(rows_of(&args))?)?;
        Ok(args.args.swap_remove(0))
    }
}

fn check(values: &ArrayRef) -> Result<()> {
    let (numbers, unit) = match values.data_type() {
        DataType::Date32 => (cast(&cast(values, &DataType::Int32)?, &DataType::Int64)?, DAY),
        DataType::Timestamp(unit, _) => {
            let length = match unit {
                TimeUnit::Second => 1_000_000,
                TimeUnit::Millisecond => 1000,
                TimeUnit::Microsecond => 1,
                TimeUnit::Nanosecond => return Ok(()), // they do not reach so far
            };
            (cast(values, &DataType::Int64)?, length)
        }
        _ => return Ok(()),
    };
    let numbers = numbers.as_primitive::<Int64Type>();
    let is_within = |number: i64| (FIRST_MOMENT..=LAST_MOMENT).contains(&number.saturating_mul(unit));
    match min(numbers).into_iter().chain(max(numbers)).all(is_within) {
        true => Ok(()),
        false => exec_err!("a DATE or TIMESTAMP is of the years 1 to 9999, and this is of another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, TimestampMicrosecondArray};

    #[test]
    fn the_year_0_is_refused_as_postgres_does() {
        let days = |days: &[i32]| check(&(Arc::new(Date32Array::from(days.to_vec())) as ArrayRef)).is_ok();
        assert!(days(&[-719_162, 0, 2_932_896]));
        assert!(!days(&[0, -719_163]) && !days(&[2_932_897]));
        let micros =
            |micros: i64| check(&(Arc::new(TimestampMicrosecondArray::from(vec![micros])) as ArrayRef)).is_ok();
        assert!(micros(FIRST_MOMENT) && micros(LAST_MOMENT) && !micros(FIRST_MOMENT - 1) && !micros(LAST_MOMENT + 1));
    }
}
