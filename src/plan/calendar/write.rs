//! `to_char(x, format)` writes dates and timestamps by PostgreSQL's template patterns, or by strftime if the
//! format has a `%`. A constant format that cannot be written is refused when the query is planned.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use chrono::format::{Fixed, Item, StrftimeItems};
use datafusion::common::{Result, exec_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::pattern::{Template, is_template};
use super::{answer, microseconds, rows_of};

/// The function `to_char`.
pub(super) fn to_char() -> ScalarUDF {
    ScalarUDF::from(ToChar {
        function: datetime::to_char(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    /// DataFusion's function.
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
        let format = args.scalar_arguments.get(1).copied().flatten();
        if let Some(Some(format)) = format.and_then(|it| it.try_as_str()) {
            check(format, args.arg_fields[0].data_type())?;
        }
        self.function.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !is_moment(&args.args[0].data_type()) {
            return self.function.inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let values = args.args[0].to_array(rows)?;
        let zone = matches!(values.data_type(), DataType::Timestamp(_, Some(_))).then_some("UTC");
        let points = microseconds(&values)?;
        let formats = cast(&args.args[1].to_array(rows)?, &DataType::Utf8)?;
        let formats = formats.as_string::<i32>();
        // Each format is parsed once, because most rows have the same.
        let mut known: HashMap<&str, WriteFormat> = HashMap::new();
        let mut texts = StringBuilder::new();
        for row in 0..points.len() {
            if points.is_null(row) || formats.is_null(row) {
                texts.append_null();
                continue;
            }
            let format = formats.value(row);
            if !known.contains_key(format) {
                check(format, values.data_type())?;
                known.insert(format, WriteFormat::new(format));
            }
            known[format].write(points.value(row), zone, &mut texts);
            texts.append_value("");
        }
        let texts: ArrayRef = Arc::new(texts.finish());
        answer(texts, &args.args)
    }
}

enum WriteFormat<'a> {
    Template(Template),
    Strftime(&'a str),
}

impl WriteFormat<'_> {
    fn new(format: &str) -> WriteFormat<'_> {
        match is_template(format) {
            true => WriteFormat::Template(Template::to_write(format)),
            false => WriteFormat::Strftime(format),
        }
    }

    fn write(&self, point: i64, zone: Option<&str>, out: &mut impl Write) {
        let written = match self {
            WriteFormat::Template(template) => template.write(point, zone, out),
            WriteFormat::Strftime(format) => match chrono::DateTime::from_timestamp_micros(point) {
                Some(at) if zone.is_none() => write!(out, "{}", at.naive_utc().format(format)),
                Some(at) => write!(out, "{}", at.format(format)),
                None => Ok(()),
            },
        };
        written.expect("a format that was checked can be written");
    }
}

fn is_moment(of: &DataType) -> bool {
    matches!(of, DataType::Date32 | DataType::Timestamp(..))
}

/// Refuses a format that cannot be written for values of this type.
fn check(format: &str, of: &DataType) -> Result<()> {
    if is_template(format) {
        return match is_moment(of) || matches!(of, DataType::Date64) {
            true => Ok(()),
            false => exec_err!(
                "to_char() cannot write a {of} by format {format:?}: PostgreSQL's patterns are for DATE and TIMESTAMP here; add it \
                 to a TIMESTAMP, or take its parts by EXTRACT"
            ),
        };
    }
    let has_zone = matches!(of, DataType::Timestamp(_, Some(_)));
    for item in StrftimeItems::new(format) {
        match item {
            Item::Error => return exec_err!("to_char() cannot write format {format:?}: it is not of strftime"),
            Item::Fixed(Fixed::TimezoneName) => {
                return exec_err!(
                    "to_char() cannot write format {format:?}: a point in time is in UTC and has no zone's name for %Z; write UTC \
                     instead of it"
                );
            }
            Item::Fixed(
                Fixed::TimezoneOffset
                | Fixed::TimezoneOffsetColon
                | Fixed::TimezoneOffsetDoubleColon
                | Fixed::TimezoneOffsetTripleColon
                | Fixed::TimezoneOffsetColonZ
                | Fixed::TimezoneOffsetZ
                | Fixed::RFC2822
                | Fixed::RFC3339,
            ) if !has_zone => {
                return exec_err!(
                    "to_char() cannot write format {format:?}: a TIMESTAMP has no offset; write +00:00 instead of it"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::common::ScalarValue;

    use super::*;

    /// Formerly `check` accepted the format, and each row was an error.
    #[test]
    fn a_format_that_writes_nothing_is_refused_before_there_are_rows() {
        let refused = |format: &str, of: DataType| {
            let of: FieldRef = Arc::new(Field::new("at", of, true));
            let text: FieldRef = Arc::new(Field::new("text", DataType::Utf8, true));
            let format = ScalarValue::from(format);
            let args = ReturnFieldArgs {
                arg_fields: &[of, text],
                scalar_arguments: &[None, Some(&format)],
            };
            to_char()
                .inner()
                .return_field_from_args(args)
                .err()
                .map(|why| why.to_string())
        };
        let at = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert_eq!(refused("%Y-%m-%d %H:%M:%S%.f", at.clone()), None);
        assert_eq!(refused("YYYY-MM-DD", at.clone()), None);
        assert!(refused("%H:%M %Z", at.clone()).is_some_and(|why| why.contains("write UTC instead")));
        assert!(refused("%Q", at.clone()).is_some_and(|why| why.contains("strftime")));
        assert!(refused("%H:%M %z", at).is_some_and(|why| why.contains("no offset")));
        let time = DataType::Time64(TimeUnit::Nanosecond);
        assert!(refused("HH24", time).is_some_and(|why| why.contains("EXTRACT")));
    }
}
