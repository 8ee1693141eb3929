//! Rewrites the expressions of a plan's nodes.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Puts each expression of a node through `with`, as a whole. Columns keep their names even if their
/// expressions change, and the node's schema follows the new types.
pub(super) fn rewrite(
    node: LogicalPlan,
    mut with: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expr| {
        let name = names.save(&expr);
        let new = with(expr)?;
        Ok(if new.transformed {
            new.update_data(|e| name.restore(e))
        } else {
            new
        })
    })?;
    if rewritten.transformed {
        rewritten.map_data(|node| node.recompute_schema())
    } else {
        Ok(rewritten)
    }
}
