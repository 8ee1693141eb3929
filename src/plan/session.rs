//! The DataFusion session that plans SQL and recomputes plans in batch.
//!
//! Both contexts have the same functions: DataFusion's, the JSON functions, and our own. The planning context
//! knows inputs and tables as empty relations, keeps text as Utf8, collects spans for diagnostics, and runs
//! only optimiser rules whose plans can be kept up to date incrementally.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Result, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{InvariantLevel, LogicalPlan};
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::{AnalyzerRule, Optimizer};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::guard::FunctionWrapper;
use super::{functions, now, numbers, optimise, sets};
use crate::definition::Layer;

/// Rows of a batch. A function refuses a batch whose values together take too many bytes; the graph then splits
/// the batch, but nothing does so in batch recomputation.
const BATCH_ROWS: usize = 1024;

/// A context that runs [`PlannedTable::logical`](super::PlannedTable::logical), once [`rebind`] has bound its
/// scans to data.
pub fn batch_context() -> SessionContext {
    let context = SessionContext::new_with_config(config().with_batch_size(BATCH_ROWS));
    complete_batch_context(&context)
}

/// Completes a context that runs plans in batch. The planner has already made common expressions columns;
/// DataFusion's rule would give new ones the same names, and read one for the other.
fn complete_batch_context(context: &SessionContext) -> SessionContext {
    let context = numbers::exact_numbers(context);
    context.remove_optimizer_rule("common_sub_expression_eliminate");
    functions::register(&context);
    context
}

/// As [`batch_context`], with a limit on memory in bytes. Sorts and aggregates spill to disk beyond it; an
/// operator that cannot spill fails.
///
/// # Errors
/// No directory for spilled data can be made.
pub fn batch_context_within(memory: u64) -> Result<SessionContext> {
    let pool = FairSpillPool::new(usize::try_from(memory).unwrap_or(usize::MAX));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
    let context = SessionContext::new_with_config_rt(config().with_batch_size(BATCH_ROWS), runtime);
    Ok(complete_batch_context(&context))
}

/// The plan in a form that DataFusion can run. Each table scan reads the table that `provider` returns for its
/// name (`order_lines`, `silver.order_lines`).
///
/// # Errors
/// `provider` has no table for a name.
pub fn rebind(logical: &LogicalPlan, provider: &dyn Fn(&str) -> Option<Arc<dyn TableProvider>>) -> Result<LogicalPlan> {
    sets::join_all_sets(logical.clone())?
        .transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                let name = source_name(&scan.table_name);
                let table = provider(&name).ok_or_else(|| {
                    datafusion::common::plan_datafusion_err!("could not read {name:?} in batch: nothing is bound to it")
                })?;
                scan.source = provider_as_source(table);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
}

/// The name of an input or table in SQL: `order_lines` or `silver.order_lines`.
pub(super) fn source_name(reference: &TableReference) -> String {
    match reference.schema() {
        Some(schema) if schema != "public" => format!("{schema}.{}", reference.table()),
        _ => reference.table().to_string(),
    }
}

/// The optimiser for one plan. If the plan uses now(), common expressions are not extracted: [`now::solve`]
/// could not look into a column that holds now().
pub(super) fn optimizer(plan: &LogicalPlan) -> Result<Optimizer> {
    let mut timed = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            timed |= now::mentions_now(expr);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let rules = optimise::rules().into_iter();
    let rules = rules.filter(|rule| !(timed && rule.name() == "common_sub_expression_eliminate"));
    Ok(Optimizer::with_rules(rules.collect()))
}

/// The plan with names resolved and types coerced. DataFusion's check of subqueries is left out, because more
/// subqueries can be planned here than it allows.
pub(super) fn analysed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.check_invariants(InvariantLevel::Always)?;
    let (analyzer, options) = (state.analyzer(), state.config_options());
    let functions = ApplyFunctionRewrites::new(analyzer.function_rewrites().to_vec());
    let plan = functions.analyze(plan, options)?;
    let mut rules = analyzer.rules.iter();
    rules.try_fold(plan, |plan, rule| {
        rule.analyze(plan, options).map_err(|error| error.context(rule.name()))
    })
}

/// The planning context; `max_value` is the most bytes that a value may take.
pub(super) fn planning_context(max_value: u64) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(config())
        .with_default_features()
        .build();
    let context = numbers::exact_numbers(&SessionContext::new_with_state(state));
    context.add_analyzer_rule(Arc::new(FunctionWrapper::new(max_value)));
    functions::register(&context);
    let catalog = context
        .catalog("datafusion")
        .expect("a session has its default catalog");
    for layer in [Layer::Silver, Layer::Gold] {
        catalog
            .register_schema(layer.name(), Arc::new(MemorySchemaProvider::new()))
            .expect("a memory catalog takes schemas");
    }
    context
}

/// Registers an empty relation of this schema under a name.
pub(super) fn register(context: &SessionContext, layer: Option<Layer>, name: &str, schema: SchemaRef) -> Result<()> {
    let reference = match layer {
        None => TableReference::bare(name),
        Some(layer) => TableReference::partial(layer.name(), name),
    };
    context.register_table(reference, Arc::new(EmptyTable::new(schema)))?;
    Ok(())
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.filter_null_join_keys = false;
    // The zone of TIMESTAMP WITH TIME ZONE.
    options.execution.time_zone = Some("UTC".to_string());
    numbers::read_decimals(&mut config);
    config
}
