//! Wraps a plan's functions, and so fixes the types that they return.
//!
//! The type may depend on the value of an argument: `round(x, 1)` of a DECIMAL(12,2) is a DECIMAL(12,1) if the
//! 1 is known to be constant, and a DECIMAL(13,2) if it is not (yet). The types of a comparison, join or UNION
//! are coerced while the argument is still `CAST(1 AS INT)`, which the optimizer folds later; so decimals of
//! two scales were compared as if they had one. Therefore a constant argument on which a type depends is folded
//! first, the type is kept with the function whatever becomes of the arguments, and the plan's types are
//! coerced anew.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF, Union, Volatility};
use datafusion::optimizer::AnalyzerRule;

use super::super::numbers;
use super::super::optimise::constant;
use super::super::rewrite::rewrite;
use super::super::standard;
use super::super::times;
use super::Guarded;
use super::joined::joined;

/// The most rounds of coercion: one for each level of nested functions.
const ROUNDS: usize = 8;

/// Functions that DataFusion must recognise, so they are not wrapped. They neither panic nor allocate.
const BARE: [&str; 3] = ["get_field", "input_file_name", "file_row_index"];

/// The rule that wraps every function of a plan, and fixes what it returns.
#[derive(Debug)]
pub(in crate::plan) struct FunctionWrapper {
    max_value: u64,
}

impl FunctionWrapper {
    /// `max_value` is the most bytes that a value may take.
    pub fn new(max_value: u64) -> FunctionWrapper {
        FunctionWrapper { max_value }
    }
}

impl AnalyzerRule for FunctionWrapper {
    fn name(&self) -> &str {
        "function_wrapper"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut plan = plan;
        for _ in 0..ROUNDS {
            let mut changed = false;
            plan = self.round(plan, &mut changed)?;
            if !changed {
                break;
            }
            plan = numbers::NumberCoercion.analyze(plan, config)?;
        }
        Ok(plan)
    }
}

impl FunctionWrapper {
    /// Wraps the plan's functions. Sets `changed` if one of them now returns another type.
    fn round(&self, plan: LogicalPlan, changed: &mut bool) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let wrapped = rewrite(node, |expr| {
                expr.transform_up(|e| {
                    let wrapped = match e {
                        Expr::ScalarFunction(call) => match bare(&call) {
                            Some(function) => guarded(function, call, &schema, self.max_value, changed)?,
                            None => Transformed::no(Expr::ScalarFunction(call)),
                        },
                        e => joined(e, &schema, self.max_value)?,
                    };
                    wrapped
                        .transform_data(|e| Ok(standard::filtered(e)))?
                        .transform_data(|e| standard::operators(e, &schema))
                })
            })?;
            // A child may now return other types even if no expression of this node has changed.
            match *changed {
                true => wrapped.map_data(|node| match node {
                    // recompute_schema would keep the types that the inputs had, and cast them back.
                    LogicalPlan::Union(union) => Ok(LogicalPlan::Union(
                        Union::try_new(union.inputs.clone()).unwrap_or(union),
                    )),
                    node => node.recompute_schema(),
                }),
                false => Ok(wrapped),
            }
        })
        .data()
    }
}

/// Wraps the functions of an expression. Functions that are wrapped already keep what they return.
pub(in crate::plan) fn wrap_functions(expr: Expr, schema: &DFSchema, max_value: u64) -> Result<Expr> {
    expr.transform_up(|e| {
        let Expr::ScalarFunction(call) = e else {
            return joined(e, schema, max_value)?.transform_data(|e| standard::operators(e, schema));
        };
        match bare(&call) {
            Some(function) if !call.func.inner().is::<Guarded>() => {
                guarded(function, call, schema, max_value, &mut false)
            }
            _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
        }
    })
    .data()
}

/// The function to wrap, or the one inside a wrapper; `None` if it stays bare.
fn bare(call: &ScalarFunction) -> Option<Arc<ScalarUDF>> {
    if BARE.contains(&call.func.name())
        || numbers::is_number_function(&call.func)
        || times::is_time_function(&call.func)
    {
        return None;
    }
    let known = call.func.inner().downcast_ref::<Guarded>();
    Some(known.map_or_else(|| call.func.clone(), |known| known.function.clone()))
}

fn guarded(
    function: Arc<ScalarUDF>,
    call: ScalarFunction,
    schema: &DFSchema,
    max_value: u64,
    changed: &mut bool,
) -> Result<Transformed<Expr>> {
    let before = call
        .func
        .inner()
        .downcast_ref::<Guarded>()
        .map(|known| known.returns.clone());
    let returns_of =
        |args: &[Expr]| Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), args.to_vec())).get_type(schema);
    let unfolded = returns_of(&call.args)?;
    let constant = folded(&call.args, schema).and_then(|args| {
        let returns = returns_of(&args).ok()?;
        (returns != unfolded).then_some((args, returns))
    });
    let folds = constant.is_some();
    let (args, returns) = constant.unwrap_or_else(|| (call.args, unfolded.clone()));
    if before.as_ref() == Some(&returns) && !folds {
        return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction::new_udf(
            call.func, args,
        ))));
    }
    *changed |= before.unwrap_or(unfolded) != returns;
    let func = Arc::new(ScalarUDF::from(Guarded::new(function, returns, max_value)));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
        func, args,
    ))))
}

/// The arguments with their constants folded; `None` if there is nothing to fold.
fn folded(args: &[Expr], schema: &DFSchema) -> Option<Vec<Expr>> {
    if !args.iter().any(is_computed_constant) {
        return None;
    }
    let fold = |arg: &Expr| match is_computed_constant(arg) {
        // An error in a constant is reported where the constant is evaluated.
        true => constant(arg.clone(), schema)
            .ok()
            .filter(|folded| matches!(folded, Expr::Literal(..)))
            .unwrap_or_else(|| arg.clone()),
        false => arg.clone(),
    };
    Some(args.iter().map(fold).collect())
}

/// Whether an expression consists of literals, and is not itself a literal.
fn is_computed_constant(expr: &Expr) -> bool {
    !matches!(expr, Expr::Literal(..))
        && !expr
            .exists(|e| {
                Ok(match e {
                    Expr::Literal(..) | Expr::Cast(_) | Expr::TryCast(_) | Expr::BinaryExpr(_) | Expr::Negative(_) => {
                        false
                    }
                    Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
                    _ => true,
                })
            })
            .unwrap_or(true)
}
