//! `json_get_float` and `json_get_int` for JSON numbers that do not fit their types.
//!
//! The library reads `1e400` as infinity and `1e-400` as 0. Here a number outside the range of a double is an
//! error of its row, as in PostgreSQL's cast of a JSON text. A number that is not whole is null to
//! `json_get_int`, as it is to the library.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{cast, filter, nullif};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ExpressionPlacement, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;
use datafusion_functions_json::udfs::{json_as_text_udf, json_get_float_udf, json_get_int_udf};

use crate::repr::has_nonzero_digit;

/// Registers these functions in place of the library's.
pub fn register(context: &SessionContext) {
    for library in [json_get_float_udf(), json_get_int_udf()] {
        context.register_udf(ScalarUDF::from(JsonNumber { library }));
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonNumber {
    library: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for JsonNumber {
    fn name(&self) -> &str {
        self.library.name()
    }

    fn signature(&self) -> &Signature {
        self.library.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.library.return_type(arguments)
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.library.placement(arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let numbers = self.library.invoke_with_args(args.clone())?;
        let found = numbers.to_array(rows)?;
        // The values that a number out of range becomes. The text decides, since most such values are genuine.
        let odd: BooleanArray = match found.data_type() {
            DataType::Float64 => {
                let found = found.as_primitive::<Float64Type>().iter();
                found
                    .map(|v| Some(v.is_some_and(|v| v == 0.0 || v.is_infinite())))
                    .collect()
            }
            _ => {
                let found = found.as_primitive::<Int64Type>().iter();
                found.map(|v| Some(v == Some(0))).collect()
            }
        };
        if odd.true_count() == 0 {
            return Ok(numbers);
        }
        let texts = texts(args, &odd)?;
        let mut texts = texts.as_string::<i32>().iter();
        let mut is_none = Vec::with_capacity(rows);
        for is_odd in odd.values() {
            let text = if is_odd { texts.next().flatten() } else { None };
            let is_other = text.is_some_and(has_nonzero_digit);
            match text {
                Some(text) if is_other && *found.data_type() == DataType::Float64 => {
                    let text: String = text.chars().take(60).collect();
                    return exec_err!("could not read '{text}' as a DOUBLE: it is out of range");
                }
                _ => is_none.push(Some(is_other)),
            }
        }
        Ok(ColumnarValue::Array(nullif(&found, &BooleanArray::from(is_none))?))
    }
}

/// The numbers of these rows as the JSON text has them.
fn texts(args: ScalarFunctionArgs, odd: &BooleanArray) -> Result<Arc<dyn Array>> {
    let argument = |value: &ColumnarValue| -> Result<ColumnarValue> {
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(filter(array, odd)?),
            scalar => scalar.clone(),
        })
    };
    let number_rows = odd.true_count();
    let args = ScalarFunctionArgs {
        args: args.args.iter().map(argument).collect::<Result<_>>()?,
        number_rows,
        ..args
    };
    let texts = json_as_text_udf().invoke_with_args(args)?.to_array(number_rows)?;
    Ok(cast(&texts, &DataType::Utf8)?)
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    /// Formerly `1e400` became infinity, and `1e-400` became 0.
    #[test]
    fn json_numbers_that_do_not_fit_are_errors_of_their_rows_or_null() {
        let mut context = SessionContext::new();
        datafusion_functions_json::register_all(&mut context).unwrap();
        register(&context);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |function: &str, numbers: &[&str]| -> Result<String> {
            let rows: Vec<String> = numbers.iter().map(|n| format!("('{{\"a\": {n}}}')")).collect();
            let sql = format!("SELECT {function}(column1, 'a') AS v FROM (VALUES {})", rows.join(", "));
            let batches = runtime.block_on(async { context.sql(&sql).await?.collect().await })?;
            let printed = pretty_format_batches(&batches)?.to_string();
            let lines = printed.lines().filter(|line| line.starts_with("| ")).skip(1);
            let values: Vec<String> = lines.map(|line| line.trim_matches(['|', ' ']).to_string()).collect();
            Ok(values.join(" "))
        };
        let sound = [
            "0",
            "1.5",
            "\"0\"",
            "1e-320",
            "-1e308",
            "0.0e-999",
            "null",
            "\"Infinity\"",
        ];
        assert_eq!(
            ask("json_get_float", &sound).unwrap(),
            "0.0 1.5 0.0 1e-320 -1e308 0.0  inf"
        );
        for number in ["1e400", "-1e400", "1e-400", "\"1e-400\""] {
            let message = ask("json_get_float", &["7", number]).unwrap_err().to_string();
            assert!(message.contains("as a DOUBLE: it is out of range"), "{message}");
        }
        assert_eq!(
            ask("json_get_int", &["0", "12", "1e-400", "0.0", "1.5"]).unwrap(),
            "0 12  0 "
        );
    }
}
