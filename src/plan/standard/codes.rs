//! `to_hex` writes the bits of an integer in hexadecimal; a negative one has all digits of its type.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// `to_hex(x)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToHex {
    signature: Signature,
}

impl ToHex {
    pub fn new() -> ToHex {
        ToHex {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for ToHex {
    fn name(&self) -> &str {
        "to_hex"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [of] if of.is_integer()
                && of.primitive_width().is_some_and(|bytes| bytes <= 4)
                && of != &DataType::UInt32 =>
            {
                Ok(vec![DataType::Int32])
            }
            [of] if of.is_integer() || of.is_null() => Ok(vec![DataType::Int64]),
            [of] => plan_err!("could not plan to_hex({of}): it takes a whole number"),
            _ => plan_err!("could not plan to_hex(): it takes one whole number"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match &args.args[0] {
            ColumnarValue::Array(values) => ColumnarValue::Array(digits(values)?),
            ColumnarValue::Scalar(value) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&digits(&value.to_array()?)?, 0)?)
            }
        })
    }
}

fn digits(values: &ArrayRef) -> Result<ArrayRef> {
    let texts: StringArray = match values.data_type() {
        DataType::Int32 => {
            let values = values.as_primitive::<Int32Type>();
            values.iter().map(|v| v.map(|v| format!("{v:x}"))).collect()
        }
        _ => {
            let values = cast(values, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            values.iter().map(|v| v.map(|v| format!("{v:x}"))).collect()
        }
    };
    Ok(Arc::new(texts))
}
