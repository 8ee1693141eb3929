//! `generate_series(first, last[, step])` as a list of integers, or of timestamps that are an INTERVAL apart,
//! stepping as PostgreSQL does. The guard computes the length of a list before it is made.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{
    DataType, Field, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::super::times::TimeLength;
use crate::words::sql_types;

const MOMENT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const LENGTH: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Series {
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Series {
    signature: Signature,
}

fn is_day_or_moment(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        "generate_series"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let whole = |of: &DataType| of.is_integer() || of.is_null();
        // A literal text takes the type of the argument beside it.
        let moment = |of: &DataType| is_day_or_moment(of) || of.is_null() || of == &DataType::Utf8;
        let length = |of: &DataType| matches!(of, DataType::Interval(_) | DataType::Utf8) || of.is_null();
        match types {
            [first, last] if whole(first) && whole(last) => Ok(vec![DataType::Int64; 2]),
            [first, last, step] if whole(first) && whole(last) && whole(step) => Ok(vec![DataType::Int64; 3]),
            [first, last, step]
                if moment(first)
                    && moment(last)
                    && length(step)
                    && (is_day_or_moment(first) || is_day_or_moment(last)) =>
            {
                Ok(vec![MOMENT, MOMENT, LENGTH])
            }
            given => {
                let given: Vec<String> = given.iter().map(|of| sql_types(&of.to_string())).collect();
                plan_err!(
                    "could not plan generate_series({}): it is generate_series(BIGINT, BIGINT) or \
                     generate_series(BIGINT, BIGINT, BIGINT) or generate_series(TIMESTAMP, TIMESTAMP, INTERVAL)",
                    given.join(", ")
                )
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let item = match types.first() {
            Some(&MOMENT) => MOMENT,
            _ => DataType::Int64,
        };
        Ok(DataType::List(Arc::new(Field::new_list_field(item, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns: Vec<ArrayRef> = ColumnarValue::values_to_arrays(&args.args)?;
        let lists = match columns[0].data_type() {
            &MOMENT => moments(&columns),
            _ => numbers(&columns),
        }?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?),
            false => ColumnarValue::Array(lists),
        })
    }
}

fn no_step() -> datafusion::error::DataFusionError {
    exec_datafusion_err!("could not compute generate_series(): a step of nothing has no end")
}

fn numbers(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns: Vec<_> = columns
        .iter()
        .map(|column| column.as_primitive::<Int64Type>())
        .collect();
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..columns[0].len() {
        if columns.iter().any(|column| column.is_null(row)) {
            lists.append_null();
            continue;
        }
        let (first, last) = (columns[0].value(row), columns[1].value(row));
        let step = columns.get(2).map_or(1, |step| step.value(row));
        if step == 0 {
            return Err(no_step());
        }
        let mut next = Some(first);
        while let Some(number) = next.filter(|n| if step > 0 { *n <= last } else { *n >= last }) {
            lists.values().append_value(number);
            next = number.checked_add(step);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn moments(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [first, last] = [0, 1].map(|n| columns[n].as_primitive::<TimestampMicrosecondType>());
    let steps = columns[2].as_primitive::<IntervalMonthDayNanoType>();
    let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new());
    for row in 0..first.len() {
        if first.is_null(row) || last.is_null(row) || steps.is_null(row) {
            lists.append_null();
            continue;
        }
        let step = TimeLength::from_interval(steps.value(row));
        let forward = match step.total() {
            Some(0) | None => return Err(no_step()),
            Some(total) => total > 0,
        };
        let last = last.value(row);
        let mut next = Some(first.value(row));
        while let Some(moment) = next.filter(|m| if forward { *m <= last } else { *m >= last }) {
            lists.values().append_value(moment);
            next = step.behind(moment);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
