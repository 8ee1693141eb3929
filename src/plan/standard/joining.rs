//! `concat` and `concat_ws` concatenate texts. They skip NULLs, and write booleans as `t` or `f`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// `concat` or `concat_ws`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concat {
    /// Whether the first argument is a separator.
    separated: bool,
    signature: Signature,
}

impl Concat {
    pub fn new(separated: bool) -> Concat {
        Concat {
            separated,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        if self.separated { "concat_ws" } else { "concat" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() < 1 + usize::from(self.separated) {
            return plan_err!("could not plan {}(): it takes more arguments", self.name());
        }
        let coerced = |of: &DataType| match of {
            DataType::Boolean => Ok(DataType::Boolean),
            of if of.is_nested() => plan_err!("could not plan {}() of a {of}: write it as a text first", self.name()),
            _ => Ok(DataType::Utf8),
        };
        types.iter().map(coerced).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = self.separated && args.arg_fields[0].is_nullable();
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let columns: Vec<StringArray> = args
            .args
            .iter()
            .map(|arg| Ok(texts(&arg.to_array(rows)?)))
            .collect::<Result<_>>()?;
        let (between, columns) = match self.separated {
            true => (Some(&columns[0]), &columns[1..]),
            false => (None, &columns[..]),
        };
        let mut made = StringBuilder::new();
        let mut text = String::new();
        for row in 0..rows {
            if between.is_some_and(|between| between.is_null(row)) {
                made.append_null();
                continue;
            }
            text.clear();
            let mut first = true;
            for column in columns.iter().filter(|column| column.is_valid(row)) {
                if let Some(between) = between
                    && !first
                {
                    text.push_str(between.value(row));
                }
                first = false;
                text.push_str(column.value(row));
            }
            made.append_value(&text);
        }
        let made: ArrayRef = Arc::new(made.finish());
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

fn texts(values: &ArrayRef) -> StringArray {
    match values.data_type() {
        DataType::Boolean => {
            let letters = values
                .as_boolean()
                .iter()
                .map(|yes| yes.map(|yes| if yes { "t" } else { "f" }));
            letters.collect()
        }
        _ => values.as_string::<i32>().clone(),
    }
}
