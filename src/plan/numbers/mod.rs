//! Numbers mean what PostgreSQL and the standard mean by them: exact, or an error of the row that holds them.
//!
//! DataFusion compares a decimal with a literal as a double that was cut off, lets whole numbers run over, cuts quotients off
//! and casts by cutting. So before it agrees on types, numbers agree on theirs here ([`types`] has the rules), and arithmetic of
//! numbers becomes functions that compute exactly or fail ([`functions`]). The graph, batch and the questions that are asked
//! live all plan by [`Agreed`]. Where dates, moments and lengths of time meet, `times` is asked.

mod agree;
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
pub(super) use convert::{convert, each, name_of, one_zero};
pub(super) use functions::{as_operator, is_ours};
pub use literals::decimals;
pub(super) use nodes::{grouped_names, with_grouped_names, with_types};
pub(super) use texts::written;
pub(super) use types::{Meeting, is_number};

/// The rule that agrees on types.
#[derive(Debug)]
pub(super) struct Agreed;

impl AnalyzerRule for Agreed {
    /// DataFusion's rule, which this one holds.
    fn name(&self) -> &str {
        "type_coercion"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = TypeCoercion::new().analyze(agreed_plan(plan)?, options)?;
        // What arguments of functions have been cast to.
        agreed_plan(plan)
    }
}

/// The expression, its numbers agreed on.
pub(super) fn agreed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    agree::agreed(expr, schema).data()
}

/// The plan, its numbers agreed on.
pub(super) fn agreed_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    nodes::agreed_within(plan, &DFSchema::empty())
}

/// Reads literals with a point as decimals.
pub fn read_decimals(config: &mut SessionConfig) {
    config.options_mut().sql_parser.parse_float_as_decimal = true;
}

/// The session, with [`Agreed`] in the place of DataFusion's rule, and the rules that [`optimise`] lists.
pub fn exact_numbers(context: &SessionContext) -> SessionContext {
    let state = SessionStateBuilder::new_from_existing(context.state())
        .with_analyzer_rules(vec![Arc::new(ResolveGroupingFunction::new()), Arc::new(Agreed)])
        .with_optimizer_rules(optimise::rules())
        .build();
    SessionContext::new_with_state(state)
}
