//! Pushes filters down.
//!
//! DataFusion's rule pushes a filter below an aggregate if it only reads group columns. That includes a filter
//! that reads no column. But a group without columns (`SELECT count(*) FROM t`, the total of a ROLLUP) exists
//! even over no rows, so such a filter must stay above it.
//!
//! The rule also takes conditions on one column for contradictory if they are written differently, as in `1 = k
//! AND k = 1`; so conditions are normalised first.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::fold::folded;

/// DataFusion's rule, except for filters over groups that always exist.
#[derive(Debug)]
pub(super) struct Filters(pub PushDownFilter);

impl OptimizerRule for Filters {
    fn name(&self) -> &str {
        "filters"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(mut filter) = plan else {
            return self.0.rewrite(plan, config);
        };
        let folded = folded(std::mem::take(&mut filter.predicate), filter.input.schema())?;
        let changed = folded.transformed;
        filter.predicate = folded.data;
        if let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref()
            && matches!(aggregate.group_expr.as_slice(), [] | [Expr::GroupingSet(_), ..])
        {
            return Ok(Transformed::new_transformed(LogicalPlan::Filter(filter), changed));
        }
        let mut pushed = self.0.rewrite(LogicalPlan::Filter(filter), config)?;
        pushed.transformed |= changed;
        Ok(pushed)
    }
}
