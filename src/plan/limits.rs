//! Removes a LIMIT that cannot change the result: in EXISTS, and of an aggregate without GROUP BY, which has
//! one row. Without the LIMIT such a query needs no ORDER BY.

use std::ops::ControlFlow;

use datafusion::execution::FunctionRegistry;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, GroupByExpr, LimitClause, ObjectNamePart, Query, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
    visit_expressions,
};

use super::laterals::TABLE_FUNCTIONS;

/// Removes each LIMIT that cannot change the result.
pub(super) fn remove_needless(query: &mut Query, context: &SessionContext) {
    struct Limits<'a>(&'a SessionContext);
    impl VisitorMut for Limits<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            if keeps_one(query) && is_ungrouped_aggregate(query, self.0) {
                unlimited(query);
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Exists { subquery, .. } = expr
                && keeps_one(subquery)
            {
                unlimited(subquery);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Limits(context));
}

fn unlimited(query: &mut Query) {
    (query.limit_clause, query.fetch, query.order_by) = (None, None, None);
}

/// Whether a query has a limit that keeps at least its first row.
fn keeps_one(query: &Query) -> bool {
    let is_positive = |of: &Expr| match of {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<u64>().is_ok_and(|n| n > 0),
            _ => false,
        },
        _ => false,
    };
    match (&query.limit_clause, &query.fetch) {
        (
            Some(LimitClause::LimitOffset {
                limit: Some(limit),
                offset: None,
                limit_by,
            }),
            None,
        ) => limit_by.is_empty() && is_positive(limit),
        (None, Some(fetch)) => !fetch.percent && fetch.quantity.as_ref().is_none_or(is_positive),
        _ => false,
    }
}

/// Whether a query is an aggregate over all rows, and so has one row.
fn is_ungrouped_aggregate(query: &Query, context: &SessionContext) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return false;
    };
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty());
    let name = |call: &Function| match call.name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] if call.over.is_none() => Some(name.value.to_lowercase()),
        _ => None,
    };
    let is_aggregate = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Function(call))
        | SelectItem::ExprWithAlias {
            expr: Expr::Function(call),
            ..
        } => name(call).is_some_and(|name| context.udaf(&name).is_ok()),
        _ => false,
    };
    // A function that yields several rows would make several of the aggregate's one row.
    let makes_rows = |expr: &Expr| match expr {
        Expr::Function(call) if name(call).is_some_and(|name| TABLE_FUNCTIONS.contains(&name.as_str())) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    // Only calls at the top of an item count: one deeper in an expression may belong to a subquery.
    !is_grouped
        && select.distinct.is_none()
        && select.projection.iter().any(is_aggregate)
        && visit_expressions(&select.projection, makes_rows).is_continue()
}
