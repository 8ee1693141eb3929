//! Functions that write JSON as PostgreSQL does: `to_json(x)` writes a value, `json_key(x)` the key of an
//! object, and `json_item(x)` an item of `json_agg`, where a list begins on a line of its own. `shorthands`
//! rewrites the functions that build objects and arrays in terms of these.
//!
//! Numbers have all of their digits, and dates and times are ISO 8601. Values of types that JSON lacks are
//! texts; so are NaN and infinity. A null yields null (within an object or list it is `null`), and a null as a
//! key is an error of its row. The functions that casts to JSON and JSONB call are in [`documents`].

pub(super) mod documents;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;

use super::numbers;

/// Registers the functions in a session.
pub(super) fn register(context: &SessionContext) {
    for which in [JsonPart::Value, JsonPart::Key, JsonPart::Item] {
        context.register_udf(ScalarUDF::from(ToJson {
            which,
            signature: Signature::any(1, Volatility::Immutable),
        }));
    }
    for function in documents::functions() {
        context.register_udf(function.udf());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum JsonPart {
    Value,
    Key,
    Item,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    which: JsonPart,
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        match self.which {
            JsonPart::Value => "to_json",
            JsonPart::Key => "json_key",
            JsonPart::Item => "json_item",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.which, &arguments[0]) {
            (_, of) if !has_json(of) => plan_err!("{}() knows no JSON of a {of}", self.name()),
            (JsonPart::Key, of) if of.is_nested() => plan_err!("a key of a JSON object cannot be a {of}"),
            _ => Ok(DataType::Utf8),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        if self.which == JsonPart::Key && values.logical_null_count() > 0 {
            return exec_err!("a key of a JSON object must not be null");
        }
        let write = writer(&values)?;
        let mut texts = StringBuilder::new();
        let mut text = String::new();
        for row in 0..values.len() {
            if values.is_null(row) || *values.data_type() == DataType::Null {
                texts.append_null();
                continue;
            }
            text.clear();
            if self.which == JsonPart::Item && values.data_type().is_nested() {
                text.push_str("\n ");
            }
            write(row, &mut text)?;
            match self.which == JsonPart::Key && !text.starts_with('"') {
                true => texts.append_value(format!("\"{text}\"")),
                false => texts.append_value(&text),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

fn has_json(of: &DataType) -> bool {
    match of {
        DataType::List(item) | DataType::LargeList(item) => has_json(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| has_json(field.data_type())),
        DataType::Interval(_) | DataType::Duration(_) | DataType::Map(..) | DataType::Union(..) => false,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => false,
        _ => true,
    }
}

type Writer<'a> = Box<dyn Fn(usize, &mut String) -> Result<()> + 'a>;

/// A function that writes the JSON of the value in a row, which must not be null.
fn writer(values: &ArrayRef) -> Result<Writer<'_>> {
    Ok(match values.data_type() {
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let write = writer(lists.values())?;
            Box::new(move |row, text| {
                let (start, end) = (
                    lists.value_offsets()[row] as usize,
                    lists.value_offsets()[row + 1] as usize,
                );
                text.push('[');
                for item in start..end {
                    text.push_str(if item > start { "," } else { "" });
                    or_null(lists.values(), item, &write, text)?;
                }
                text.push(']');
                Ok(())
            })
        }
        DataType::Struct(fields) => {
            let structs = values.as_struct();
            let writers: Vec<Writer<'_>> = structs.columns().iter().map(writer).collect::<Result<_>>()?;
            let names: Vec<String> = fields.iter().map(|field| quoted(field.name())).collect();
            Box::new(move |row, text| {
                text.push('{');
                for (n, write) in writers.iter().enumerate() {
                    text.push_str(if n > 0 { "," } else { "" });
                    text.push_str(&names[n]);
                    text.push(':');
                    or_null(structs.column(n), row, write, text)?;
                }
                text.push('}');
                Ok(())
            })
        }
        DataType::Float64 | DataType::Float32 => {
            let texts = numbers::written(values);
            Box::new(move |row, text| {
                match texts.value(row) {
                    // JSON has no numbers for these.
                    odd @ ("NaN" | "Infinity" | "-Infinity") => text.push_str(&quoted(odd)),
                    number => text.push_str(number),
                }
                Ok(())
            })
        }
        of => {
            let (is_plain, is_moment) = (of.is_numeric() || *of == DataType::Boolean, of.is_temporal());
            let options = FormatOptions::default()
                .with_display_error(false)
                .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"));
            let formatter = ArrayFormatter::try_new(values.as_ref(), &options)?;
            Box::new(move |row, text| {
                let value = formatter.value(row).try_to_string()?;
                match is_plain {
                    true => text.push_str(&value),
                    false if is_moment => text.push_str(&quoted(trimmed(&value))),
                    false => text.push_str(&quoted(&value)),
                }
                Ok(())
            })
        }
    })
}

fn or_null(values: &ArrayRef, row: usize, write: &Writer<'_>, text: &mut String) -> Result<()> {
    match values.is_null(row) {
        true => {
            text.push_str("null");
            Ok(())
        }
        false => write(row, text),
    }
}

/// A date or time without trailing zeros in its fraction.
fn trimmed(moment: &str) -> &str {
    match moment.contains('.') {
        true => moment.trim_end_matches('0'),
        false => moment,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float64Array;

    #[test]
    fn numbers_that_json_has_not_are_texts() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -2.5, 1e300, f64::NAN, f64::NEG_INFINITY]));
        let write = writer(&values).unwrap();
        let mut text = String::new();
        for row in 0..values.len() {
            write(row, &mut text).unwrap();
            text.push(' ');
        }
        assert_eq!(text, "1 -2.5 1e+300 \"NaN\" \"-Infinity\" ");
    }
}
