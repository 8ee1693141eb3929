//! Gives numbers the meaning that they have in PostgreSQL and the standard: results are exact, or an error of
//! their row.
//!
//! DataFusion compares a decimal with a literal as a truncated double, lets integers wrap around, and truncates
//! in quotients and casts. So before it coerces types, numbers are coerced here ([`types`] has the rules), and
//! arithmetic of numbers becomes functions that compute exactly or fail ([`functions`]). The graph, batch plans
//! and live queries all use [`NumberCoercion`]. `times` does the same for dates, timestamps and intervals.

mod agree;
mod compared_texts;
mod convert;
mod decimal;
mod framed;
mod functions;
pub(super) mod kernels;
mod literals;
mod nodes;
mod texts;
mod types;
mod whole;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TransformedResult;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::optimise;

pub(super) use agree::converted;
pub use convert::name_of;
pub(super) use convert::{convert, each, one_zero};
pub(super) use functions::{as_operator, is_number_function};
pub use literals::decimals;
pub(super) use nodes::{grouped_names, with_grouped_names, with_types};
pub(super) use texts::written;
pub(super) use types::{CommonTypeUse, is_number};

/// The analyzer rule that coerces types.
#[derive(Debug)]
pub(super) struct NumberCoercion;

impl AnalyzerRule for NumberCoercion {
    /// The name of DataFusion's rule, which this one includes.
    fn name(&self) -> &str {
        "type_coercion"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = TypeCoercion::new().analyze(agreed_plan(plan)?, options)?;
        // DataFusion's rule has cast arguments of functions; those casts become ours.
        agreed_plan(plan)
    }
}

/// The expression with its numbers and times coerced.
pub(super) fn agreed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    agree::agreed(expr, schema).data()
}

/// The plan with its numbers and times coerced.
pub(super) fn agreed_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    nodes::agreed_within(plan, &DFSchema::empty())
}

/// Makes a session read literals with a point as decimals.
pub fn read_decimals(config: &mut SessionConfig) {
    config.options_mut().sql_parser.parse_float_as_decimal = true;
}

/// The session with [`NumberCoercion`] in place of DataFusion's rule, and with the rules that [`optimise`] lists.
pub fn exact_numbers(context: &SessionContext) -> SessionContext {
    let state = SessionStateBuilder::new_from_existing(context.state())
        .with_analyzer_rules(vec![Arc::new(ResolveGroupingFunction::new()), Arc::new(NumberCoercion)])
        .with_optimizer_rules(optimise::rules())
        .build();
    SessionContext::new_with_state(state)
}
