//! Functions within bounds: whatever one of them is given, it ends, it takes no more memory than it may, it does not
//! panic, and it returns the type that the plan counts on.
//!
//! [`Settled`], a rule of the analyzer, wraps every scalar function of a plan into a [`Guarded`] one, before anything is
//! computed: the constants that the optimizer folds go through it as rows do, in the graph, in `verify` and in `query`.
//!
//! 1. What a row needs is computed before the kernel allocates it ([`lengths`]); a row above `max_value` is refused, and
//!    so is a batch whose rows together need more than [`MOST_AT_ONCE`]. Whoever evaluates splits a batch that fails.
//! 2. A kernel may expand an argument that is the same for all rows to a column: it is given as few rows at once as that
//!    allows. One that looks at its batch as a whole is given a row at once: what a row yields depends on that row alone.
//! 3. A panic is an error of the batch. See [`crate::contain`] for why this is sound.
//! 4. What the kernel returns is cast to the promised type where that loses nothing, and refused where it would; a zero has no
//!    sign.
//! 5. `a || b` is such a function, too ([`joined`]); aggregates that gather values are bounded in [`gathered`].

mod gathered;
mod joined;
mod lengths;
mod settle;
mod sizes;

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
pub(super) use settle::{Settled, settle};
pub use sizes::shown as shown_bytes;

/// Keeps the functions of a session's statements within bounds, where a value may take `max_value` bytes.
pub fn keep_within_bounds(context: &SessionContext, max_value: u64) {
    context.add_analyzer_rule(Arc::new(Settled::new(max_value)));
}

/// The bytes that the values of one batch may need together, where a function yields more than it is given; more only where
/// one value may take more. It is below what the offsets of a column can tell.
const MOST_AT_ONCE: u64 = 256 << 20;

/// Whether a function's kernel lets a row's value depend on the other rows of its batch: it is given one row at once.
fn looks_at_others(function: &str, args: &[ColumnarValue]) -> bool {
    let is_column = |value: &ColumnarValue| matches!(value, ColumnarValue::Array(_));
    match function {
        // A null among the lists, or types of one batch, decide for all.
        "array_has_any" | "array_has_all" | "map" => true,
        "array_concat" => args.iter().any(|arg| arg.data_type() != args[0].data_type()),
        // The first row says how all are sorted, or written.
        "array_sort" | "to_char" => args[1..].iter().any(is_column),
        _ => false,
    }
}

/// A function within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guarded {
    function: Arc<ScalarUDF>,
    /// What it returns, once the plan's types are agreed on.
    returns: DataType,
    /// The most bytes that one value may take.
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

    /// The limit, where a row's outcome depends on it in more than the greatest values.
    pub(super) fn limit_of(function: &ScalarUDF) -> Option<u64> {
        let guarded = function.inner().downcast_ref::<Guarded>()?;
        lengths::rule(function.name()).map(|_| guarded.max_value)
    }

    /// Refuses what would take too much. See (1).
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
                    // A slice still holds its neighbours.
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

    /// See (3).
    fn invoke_contained(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        crate::contain::contain(|| self.function.inner().invoke_with_args(args))
            .unwrap_or_else(|panic| exec_err!("could not compute {}(): {panic}", self.name()))
    }

    /// The outcome as what was promised. See (4).
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

/// The bytes of all arguments over so many rows.
fn given(args: &[ColumnarValue], rows: usize) -> u64 {
    let bytes = |value: &ColumnarValue| match value {
        ColumnarValue::Array(values) => sizes::bytes(values, 0, values.len()),
        ColumnarValue::Scalar(value) => (value.size() as u64).saturating_mul(rows as u64),
    };
    args.iter().map(bytes).fold(0, u64::saturating_add)
}

/// A length without negative numbers: to PostgreSQL those are 0, and the kernel panics over one.
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
            // The rows will tell.
            Err(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let expr = settle(expr, info.schema().as_ref(), self.max_value)?;
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
