//! Keeps functions within bounds: whatever its arguments are, a function ends, takes no more memory than it
//! may, does not panic, and returns the type that the plan expects.
//!
//! [`FunctionWrapper`], a rule of the analyzer, wraps every scalar function of a plan in a [`Guarded`] one
//! before anything is computed. So the same bounds hold for rows and for constants that the optimizer folds, in
//! the graph, in `verify` and in `query`.
//!
//! 1. The need of a row is computed before the kernel allocates ([`lengths`]). A row that needs more than
//!    `max_value` is refused, and so is a batch whose rows together need more than [`MOST_AT_ONCE`]. The caller
//!    splits a batch that fails.
//! 2. A kernel may expand a constant argument to a column, so it is given only as many rows at once as that
//!    allows. A kernel whose result for one row depends on other rows of the batch is given one row at once.
//! 3. A panic is an error of the batch. [`crate::contain`] explains why this is sound.
//! 4. The result is cast to the promised type if no value is lost, and refused otherwise. Negative zero becomes
//!    zero.
//! 5. `a || b` is such a function too ([`joined`]). Aggregates that gather values are bounded in [`gathered`].

mod gathered;
mod joined;
mod lengths;
mod sizes;
mod wrap;

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

use super::numbers::one_zero;

pub use gathered::{gathers, too_long, value_above, without_large_values};
pub use sizes::shown as shown_bytes;
pub(super) use wrap::{FunctionWrapper, wrap_functions};

/// Keeps the functions of a session's statements within bounds; `max_value` is the most bytes that a value may take.
pub fn keep_within_bounds(context: &SessionContext, max_value: u64) {
    context.add_analyzer_rule(Arc::new(FunctionWrapper::new(max_value)));
}

/// The most bytes that the values of one batch may need together, if a function yields more than it is given;
/// one value alone may take more. It is below the range of a column's offsets.
const MOST_AT_ONCE: u64 = 256 << 20;

/// Whether a kernel's result for one row depends on other rows of the batch.
fn looks_at_others(function: &str, args: &[ColumnarValue]) -> bool {
    let is_column = |value: &ColumnarValue| matches!(value, ColumnarValue::Array(_));
    match function {
        // These take one type for all rows of a batch.
        "map" => true,
        "array_concat" => args.iter().any(|arg| arg.data_type() != args[0].data_type()),
        // These take the sort options or the format of the first row for all rows.
        "array_sort" | "to_char" => args[1..].iter().any(is_column),
        _ => false,
    }
}

/// A function that is kept within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guarded {
    function: Arc<ScalarUDF>,
    /// The type that it returns, fixed once the plan's types are coerced.
    returns: DataType,
    /// The most bytes that a value may take.
    max_value: u64,
}

impl Guarded {
    fn new(function: Arc<ScalarUDF>, returns: DataType, max_value: u64) -> Guarded {
        Guarded {
            function,
            returns,
            max_value,
        }
    }

    /// The limit, if the function has a rule of [`lengths`]: then it affects also rows whose value is below it.
    pub(super) fn limit_of(function: &ScalarUDF) -> Option<u64> {
        let guarded = function.inner().downcast_ref::<Guarded>()?;
        lengths::rule(function.name()).map(|_| guarded.max_value)
    }

    /// Refuses arguments that need too much, see (1).
    fn admit(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let Some(rule) = lengths::rule(self.name()) else {
            return Ok(());
        };
        let rows = match args.args.iter().any(|value| matches!(value, ColumnarValue::Array(_))) {
            true => args.number_rows,
            false => 1,
        };
        if lengths::adds_up(self.name()) && given(&args.args, rows) <= self.max_value.min(MOST_AT_ONCE) {
            return Ok(());
        }
        let arguments: Vec<lengths::Argument> = args.args.iter().map(lengths::Argument::new).collect::<Result<_>>()?;
        let mut together = 0u64;
        for row in 0..rows {
            match rule(&arguments, row) {
                lengths::Need::Bytes(bytes) if bytes > self.max_value => return Err(self.too_long(bytes)),
                lengths::Need::Bytes(bytes) => together = together.saturating_add(bytes),
                lengths::Need::TooLong(why) => return exec_err!("could not compute {}(): {why}", self.name()),
            }
        }
        if rows > 1 && together > MOST_AT_ONCE {
            return exec_err!(
                "could not compute {}() of {rows} rows at once: their values take {} together, more than {}",
                self.name(),
                sizes::shown(together),
                sizes::shown(MOST_AT_ONCE)
            );
        }
        Ok(())
    }

    fn too_long(&self, bytes: u64) -> datafusion::error::DataFusionError {
        exec_datafusion_err!("{}", too_long(self.name(), bytes, self.max_value))
    }

    /// Evaluates as many rows at once as (2) allows.
    fn invoke(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if matches!(self.name(), "lpad" | "rpad")
            && let Some(length) = args.args.get_mut(1)
        {
            *length = not_negative(length)?;
        }
        let constants: u64 = args
            .args
            .iter()
            .map(|value| match value {
                ColumnarValue::Scalar(value) => value.size() as u64,
                ColumnarValue::Array(_) => 0,
            })
            .sum();
        let rows = args.number_rows;
        let alone = looks_at_others(self.name(), &args.args);
        let at_once = match alone {
            true => 1,
            false => (MOST_AT_ONCE / constants.max(1)).max(1) as usize,
        };
        let columns = args.args.iter().any(|value| matches!(value, ColumnarValue::Array(_)));
        if (rows <= at_once && !alone) || !columns || rows == 0 {
            return self.invoke_contained(args);
        }
        let mut parts = Vec::new();
        for start in (0..rows).step_by(at_once) {
            let length = at_once.min(rows - start);
            let part = |value: &ColumnarValue| {
                Ok(match value {
                    // A slice would still hold the other rows.
                    ColumnarValue::Array(values) if alone => {
                        ColumnarValue::Array(take(values, &UInt32Array::from(vec![start as u32]), None)?)
                    }
                    ColumnarValue::Array(values) => ColumnarValue::Array(values.slice(start, length)),
                    ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
                })
            };
            let part = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect::<Result<_>>()?,
                number_rows: length,
                ..args.clone()
            };
            parts.push(self.invoke_contained(part)?.into_array(length)?);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    /// Evaluates the function and contains its panics, see (3).
    fn invoke_contained(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        crate::contain::contain(|| self.function.inner().invoke_with_args(args))
            .unwrap_or_else(|panic| exec_err!("could not compute {}(): {panic}", self.name()))
    }

    /// The result in the promised type, see (4).
    fn promised(&self, values: ArrayRef) -> Result<ArrayRef> {
        let values = one_zero(values);
        if let Some((_, bytes)) = sizes::above(&values, self.max_value) {
            return Err(self.too_long(bytes));
        }
        let of = values.data_type().clone();
        if of == self.returns {
            return Ok(values);
        }
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let other = || {
            exec_datafusion_err!(
                "could not take a {of} from {}(), which was to return a {}: cast its arguments",
                self.name(),
                self.returns
            )
        };
        let cast = cast_with_options(&values, &self.returns, &strict)?;
        let back = cast_with_options(&cast, &of, &strict).map_err(|_| other())?;
        match back.to_data() == values.to_data() {
            true => Ok(cast),
            false => Err(other()),
        }
    }
}

/// The bytes of all arguments over `rows` rows.
fn given(args: &[ColumnarValue], rows: usize) -> u64 {
    let bytes = |value: &ColumnarValue| match value {
        ColumnarValue::Array(values) => sizes::bytes(values, 0, values.len()),
        ColumnarValue::Scalar(value) => (value.size() as u64).saturating_mul(rows as u64),
    };
    args.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Replaces negative lengths by 0, as PostgreSQL does; the kernel panics for some.
fn not_negative(length: &ColumnarValue) -> Result<ColumnarValue> {
    Ok(match length {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(n))) => {
            ColumnarValue::Scalar(ScalarValue::Int64(Some(*n.max(&0))))
        }
        ColumnarValue::Array(lengths) => match lengths.as_primitive_opt::<Int64Type>() {
            Some(lengths) => ColumnarValue::Array(Arc::new(lengths.unary::<_, Int64Type>(|n| n.max(0)))),
            None => length.clone(),
        },
        _ => length.clone(),
    })
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let function = Arc::new(self.function.inner().with_updated_config(config)?);
        Some(ScalarUDF::from(Guarded {
            function,
            ..self.clone()
        }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.function.return_field_from_args(args)?;
        Ok(match field.data_type() == &self.returns {
            true => field,
            false => Arc::new(field.as_ref().clone().with_data_type(self.returns.clone())),
        })
    }

    fn is_strict(&self) -> bool {
        self.function.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.admit(&args)?;
        Ok(match self.invoke(args)? {
            ColumnarValue::Array(values) => ColumnarValue::Array(self.promised(values)?),
            ColumnarValue::Scalar(value) => {
                let values = self.promised(value.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)
            }
        })
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let simplified = crate::contain::contain(|| self.function.simplify(args.clone(), info));
        let expr = match simplified {
            Ok(Ok(ExprSimplifyResult::Simplified(expr))) => expr,
            Ok(other) => return other,
            // The error will be reported by the rows that are evaluated.
            Err(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let expr = wrap_functions(expr, info.schema().as_ref(), self.max_value)?;
        Ok(ExprSimplifyResult::Simplified(
            match info.get_data_type(&expr)? == self.returns {
                true => expr,
                false => datafusion::logical_expr::cast(expr, self.returns.clone()),
            },
        ))
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        crate::contain::contain(|| self.function.preimage(args, literal, info)).unwrap_or(Ok(PreimageResult::None))
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.function.evaluate_bounds(inputs)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.function.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.function.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.function.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.function.strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.function.placement(args)
    }
}
