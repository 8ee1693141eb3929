//! The types of a plan's functions, settled once and for all.
//!
//! What a function returns may depend on the value of an argument: `round(x, 1)` of a DECIMAL(12,2) is a DECIMAL(12,1)
//! where the 1 is seen to be a constant, and a DECIMAL(13,2) where it is not (yet). The types of a comparison, a join
//! or a UNION are agreed on while it still stands there as `CAST(1 AS INT)`, which the optimizer then folds: decimals of
//! two scales were compared as if they had one. So a constant argument on which the type depends is folded before, the
//! type is kept with the function whatever becomes of the arguments, and the plan agrees on types anew.

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

/// How often types may have to be agreed on anew: once for each function inside another, at most.
const ROUNDS: usize = 8;

/// Functions that DataFusion looks for by what they are, and that neither panic nor allocate.
const BARE: [&str; 3] = ["get_field", "input_file_name", "file_row_index"];

/// Wraps every function of a plan, and settles what it returns.
#[derive(Debug)]
pub(in crate::plan) struct Settled {
    max_value: u64,
}

impl Settled {
    /// Where a value may take so many bytes.
    pub fn new(max_value: u64) -> Settled {
        Settled { max_value }
    }
}

impl AnalyzerRule for Settled {
    fn name(&self) -> &str {
        "settled_functions"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut plan = plan;
        for _ in 0..ROUNDS {
            let mut changed = false;
            plan = self.round(plan, &mut changed)?;
            if !changed {
                break;
            }
            plan = numbers::Agreed.analyze(plan, config)?;
        }
        Ok(plan)
    }
}

impl Settled {
    /// The plan with its functions wrapped; `changed`: whether one of them returns something else than before.
    fn round(&self, plan: LogicalPlan, changed: &mut bool) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let settled = rewrite(node, |expr| {
                expr.transform_up(|e| {
                    let settled = match e {
                        Expr::ScalarFunction(call) => match bare(&call) {
                            Some(function) => guarded(function, call, &schema, self.max_value, changed)?,
                            None => Transformed::no(Expr::ScalarFunction(call)),
                        },
                        e => joined(e, &schema, self.max_value)?,
                    };
                    settled
                        .transform_data(|e| Ok(standard::filtered(e)))?
                        .transform_data(|e| standard::operators(e, &schema))
                })
            })?;
            // What a node below returns may have changed, and no expression of this one.
            match *changed {
                true => settled.map_data(|node| match node {
                    // It keeps the types that its inputs had, and would have them cast back.
                    LogicalPlan::Union(union) => Ok(LogicalPlan::Union(
                        Union::try_new(union.inputs.clone()).unwrap_or(union),
                    )),
                    node => node.recompute_schema(),
                }),
                false => Ok(settled),
            }
        })
        .data()
    }
}

/// An expression with its functions wrapped; those that are keep what they return.
pub(in crate::plan) fn settle(expr: Expr, schema: &DFSchema, max_value: u64) -> Result<Expr> {
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

/// The function that is to be wrapped, or that is.
fn bare(call: &ScalarFunction) -> Option<Arc<ScalarUDF>> {
    if BARE.contains(&call.func.name()) || numbers::is_ours(&call.func) || times::is_ours(&call.func) {
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

/// The arguments with constants computed; none if there is nothing to compute.
fn folded(args: &[Expr], schema: &DFSchema) -> Option<Vec<Expr>> {
    if !args.iter().any(is_computed_constant) {
        return None;
    }
    let fold = |arg: &Expr| match is_computed_constant(arg) {
        // One that cannot be computed is told where it is evaluated.
        true => constant(arg.clone(), schema)
            .ok()
            .filter(|folded| matches!(folded, Expr::Literal(..)))
            .unwrap_or_else(|| arg.clone()),
        false => arg.clone(),
    };
    Some(args.iter().map(fold).collect())
}

/// Whether an expression is made of literals alone, and of more than one.
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
