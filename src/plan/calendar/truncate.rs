//! `date_trunc(unit, t)` for timestamps of microseconds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::{Result, exec_datafusion_err, internal_err, plan_err};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::logical_expr_common::signature::{Coercion, TypeSignatureClass};

use super::{answer, microseconds, rows_of, zoned};
use crate::plan::times::{MOMENT, TimestampText, Unit, in_calendar_like};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc {
    signature: Signature,
    aliases: Vec<String>,
}

impl DateTrunc {
    pub fn new() -> Self {
        let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        let point = Coercion::new_implicit(
            TypeSignatureClass::Timestamp,
            vec![
                TypeSignatureClass::Native(logical_string()),
                TypeSignatureClass::Native(logical_date()),
            ],
            NativeType::Timestamp(TimeUnit::Microsecond, None),
        );
        let time = Coercion::new_exact(TypeSignatureClass::Time);
        let signature = Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![text(), point]),
                TypeSignature::Coercible(vec![text(), time]),
            ],
            Volatility::Immutable,
        );
        DateTrunc {
            signature,
            aliases: vec!["datetrunc".to_string()],
        }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the field that it returns is asked for instead")
    }

    /// Also refuses a constant unit that does not exist.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(Some(unit)) = args.scalar_arguments[0].and_then(|unit| unit.try_as_str()) {
            named(unit)?;
        }
        let field = &args.arg_fields[1];
        let of = match field.data_type() {
            DataType::Null => MOMENT,
            of @ (DataType::Time32(_) | DataType::Time64(_)) => of.clone(),
            of => zoned(of),
        };
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), of, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = args.args[1].data_type();
        if !matches!(of, DataType::Timestamp(..) | DataType::Null) {
            return date_trunc().inner().invoke_with_args(args);
        }
        let rows = rows_of(&args);
        let units = cast(&args.args[0].to_array(rows)?, &DataType::Utf8)?;
        let units = units.as_string::<i32>();
        let points = match of {
            DataType::Null => PrimitiveArray::new_null(rows),
            _ => microseconds(&args.args[1].to_array(rows)?)?,
        };
        let mut cut = PrimitiveArray::<TimestampMicrosecondType>::builder(points.len());
        let mut known: Option<(&str, Unit)> = None;
        for row in 0..points.len() {
            if points.is_null(row) || units.is_null(row) {
                cut.append_null();
                continue;
            }
            let name = units.value(row);
            let unit = match known {
                Some((other, unit)) if other == name => unit,
                _ => named(name)?,
            };
            known = Some((name, unit));
            let point = points.value(row);
            cut.append_value(in_calendar_like(point, unit.start(point).into()).ok_or_else(|| {
                exec_datafusion_err!(
                    "could not compute date_trunc('{name}', {}): the result is not of the years 1 to 9999",
                    TimestampText(point)
                )
            })?);
        }
        let cut: ArrayRef = Arc::new(cut.finish().with_data_type(zoned(&of)));
        answer(cut, &args.args)
    }
}

/// The unit with this name.
fn named(name: &str) -> Result<Unit> {
    Unit::named(name).map_or_else(
        || {
            plan_err!(
                "date_trunc() knows no unit {name:?}; write microsecond, millisecond, second, minute, hour, day, week, month, \
                 quarter, year, decade, century or millennium"
            )
        },
        Ok,
    )
}
