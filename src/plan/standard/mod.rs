//! Functions with PostgreSQL's meaning, in place of DataFusion's functions of the same names.

mod beside;
mod buckets;
mod codes;
mod joining;
mod lists;
mod numbers;
mod operators;
mod regexps;
pub(super) mod row;
mod series;
mod spelled;
mod texts;

use std::sync::Arc;

use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::SessionContext;

pub(super) use operators::{filtered, may_fail, operators, refuse};
pub use spelled::lengths;

/// Registers the functions in a session.
pub(super) fn register(context: &SessionContext) {
    let state = context.state();
    let subscripts: Arc<dyn ExprPlanner> = Arc::new(lists::Subscripts);
    // The first planner that supports an expression plans it.
    let planners = std::iter::once(subscripts)
        .chain(state.expr_planners().iter().cloned())
        .collect();
    let state = SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(planners)
        .build();
    *context.state_ref().write() = state;

    let rows = [regexps::functions(), texts::functions(), numbers::functions()];
    for function in rows.into_iter().flatten() {
        context.register_udf(function.udf());
    }
    for function in lists::functions() {
        context.register_udf(function);
    }
    for function in beside::functions() {
        context.register_udf(function);
    }
    context.register_udf(buckets::function());
    context.register_udf(series::function());
    context.register_udf(ScalarUDF::from(codes::ToHex::new()));
    context.register_udf(ScalarUDF::from(joining::Concat::new(false)));
    context.register_udf(ScalarUDF::from(joining::Concat::new(true)));
    context.register_udf(numbers::sign());
    for function in numbers::Whole::both() {
        context.register_udf(ScalarUDF::from(function));
    }
    if let Ok(ceil) = context.state().udf("ceil") {
        context.register_udf(ceil.as_ref().clone().with_aliases(["ceiling"]));
    }
}
