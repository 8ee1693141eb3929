//! Filters on their way down.
//!
//! DataFusion's rule lets a filter pass an aggregate where it reads group columns alone. A filter that reads no column does
//! so, too; but groups without columns (`SELECT count(*) FROM t`, the total of a ROLLUP) are there over no rows, so that
//! such a filter decides over them only from above.
//!
//! The rule also takes conditions on one column for contradictory that are not written alike, `1 = k AND k = 1`, so they are
//! written alike first.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::fold::folded;

/// DataFusion's rule, but for filters over groups that are always there.
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
