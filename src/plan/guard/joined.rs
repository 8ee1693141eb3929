//! Makes `a || b` a function, so that it is kept within bounds as other functions are.
//!
//! A chain of them becomes one call, `||(a, b, c)`, so that each value is checked and copied once.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::kernels::concat_elements::{concat_elements_dyn, concat_elements_utf8_many};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};

use super::Guarded;

/// The name of the function.
pub(super) const NAME: &str = "||";

/// Turns `a || b` into a call of the function; returns other expressions as they are. Types must have been coerced.
pub(super) fn joined(expr: Expr, schema: &DFSchema, max_value: u64) -> Result<Transformed<Expr>> {
    let returns = match &expr {
        Expr::BinaryExpr(operation) if operation.op == Operator::StringConcat => expr.get_type(schema)?,
        _ => return Ok(Transformed::no(expr)),
    };
    let sides = match expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) if is_joinable(&returns) => [*left, *right],
        expr => return Ok(Transformed::no(expr)),
    };
    let mut args = Vec::new();
    for side in sides {
        match side {
            Expr::ScalarFunction(call) if call.name() == NAME && is_of(&call, &returns) => args.extend(call.args),
            side if side.get_type(schema)? == returns => args.push(side),
            side => args.push(cast(side, returns.clone())),
        }
    }
    let function = Arc::new(ScalarUDF::from(Joined::new()));
    let func = Arc::new(ScalarUDF::from(Guarded::new(function, returns, max_value)));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
        func, args,
    ))))
}

fn is_of(call: &ScalarFunction, returns: &DataType) -> bool {
    let guarded = call.func.inner().downcast_ref::<Guarded>();
    guarded.is_some_and(|guarded| guarded.returns == *returns)
}

fn is_joinable(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}

/// `||(a, b, ...)`: concatenates texts or bytes of one type; null if one of them is null.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined {
    signature: Signature,
}

impl Joined {
    fn new() -> Joined {
        Joined {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        NAME
    }

    /// The name of the operation that the call replaces, so that columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let returns = args.arg_fields[0].data_type().clone();
        Ok(Arc::new(Field::new(NAME, returns, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let joined = join(&arrays)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?),
            false => ColumnarValue::Array(joined),
        })
    }
}

fn join(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    if arrays.iter().all(|array| array.data_type() == &DataType::Utf8) {
        let texts: Vec<&StringArray> = arrays.iter().map(|array| array.as_string::<i32>()).collect();
        return Ok(Arc::new(concat_elements_utf8_many(&texts)?));
    }
    let mut joined = arrays[0].clone();
    for array in &arrays[1..] {
        joined = concat_elements_dyn(&joined, array)?;
    }
    Ok(joined)
}
