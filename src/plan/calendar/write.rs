//! `to_char(x, format)`: DataFusion's, but that a format with the name of a zone is refused before there are rows. A point in
//! time is in UTC and has none, so that every row would be an error.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use chrono::format::{Fixed, Item, StrftimeItems};
use datafusion::common::{Result, exec_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The function.
pub(super) fn to_char() -> ScalarUDF {
    ScalarUDF::from(ToChar {
        function: datetime::to_char(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    /// DataFusion's.
    function: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(Some(format)) = args
            .scalar_arguments
            .get(1)
            .copied()
            .flatten()
            .and_then(|it| it.try_as_str())
            && StrftimeItems::new(format).any(|item| item == Item::Fixed(Fixed::TimezoneName))
        {
            return exec_err!(
                "to_char() cannot write format {format:?}: a point in time is in UTC and has no zone's name for %Z; write UTC instead of it"
            );
        }
        self.function.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.inner().invoke_with_args(args)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::common::ScalarValue;

    use super::*;

    /// `check` took the format, and each row was an error.
    #[test]
    fn a_format_with_the_name_of_a_zone_is_refused_before_there_are_rows() {
        let at: FieldRef = Arc::new(Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true));
        let text: FieldRef = Arc::new(Field::new("text", DataType::Utf8, true));
        let refused = |format: &str| {
            let format = ScalarValue::from(format);
            let args = ReturnFieldArgs {
                arg_fields: &[at.clone(), text.clone()],
                scalar_arguments: &[None, Some(&format)],
            };
            to_char()
                .inner()
                .return_field_from_args(args)
                .err()
                .map(|why| why.to_string())
        };
        assert_eq!(refused("%Y-%m-%d %H:%M:%S%.f"), None);
        assert!(refused("%H:%M %Z").is_some_and(|why| why.contains("write UTC instead")));
    }
}
