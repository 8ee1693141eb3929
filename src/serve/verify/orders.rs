//! Rewrites a GROUP BY whose aggregates have different orders, for batch.
//!
//! DataFusion sorts the rows of a GROUP BY once, and refuses a GROUP BY whose aggregates require different orders.
//! Only STRING_AGG and NTH_VALUE require an order; ARRAY_AGG sorts for itself if the rows come in another one. In the
//! graph, each aggregate has its own order, written or completed. So if orders differ, these two are rewritten with
//! ARRAY_AGG:
//!
//! ```text
//! string_agg(x, ',' ORDER BY o)   =>   array_to_string(array_agg(x ORDER BY o) FILTER (WHERE x IS NOT NULL), ',')
//! nth_value(x, n ORDER BY o)      =>   array_element(array_agg(x ORDER BY o), n)
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_nested::extract::array_element;
use datafusion::functions_nested::string::array_to_string;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, SortExpr, cast, lit};

/// Rewrites the plan so that no GROUP BY has aggregates that require different orders.
pub fn agreeing(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => agreeing_calls(aggregate),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn agreeing_calls(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let orders: Vec<Vec<SortExpr>> = aggregate.aggr_expr.iter().filter_map(order).collect();
    if orders.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    let mut made = Vec::new();
    for (n, call) in aggregate.aggr_expr.iter().enumerate() {
        match gathered(call) {
            Some((gathers, of_list)) => {
                calls.push(gathers.alias(format!("$list{n}")));
                made.push((n, of_list));
            }
            None => calls.push(call.clone()),
        }
    }
    let before = aggregate.schema.clone();
    let groups = before.fields().len() - aggregate.aggr_expr.len();
    let gathering = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
    let mut shown: Vec<Expr> = gathering.schema.columns().into_iter().map(Expr::Column).collect();
    for (n, of_list) in made {
        let (qualifier, field) = before.qualified_field(groups + n);
        let name = Column::from((qualifier, field));
        let list = shown[groups + n].clone();
        shown[groups + n] = cast(of_list(list), field.data_type().clone()).alias_qualified(name.relation, name.name);
    }
    let gathering = Arc::new(LogicalPlan::Aggregate(gathering));
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(
        shown, gathering,
    )?)))
}

/// The order that an aggregate requires, if any.
fn order(call: &Expr) -> Option<Vec<SortExpr>> {
    match call.clone().unalias_nested().data {
        Expr::AggregateFunction(call) => Some(call.params.order_by).filter(|order| !order.is_empty()),
        _ => None,
    }
}

type FromList = Box<dyn FnOnce(Expr) -> Expr>;

/// The ARRAY_AGG for an aggregate that requires an order, and the function that computes its value from the list.
fn gathered(call: &Expr) -> Option<(Expr, FromList)> {
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = call.clone().unalias_nested().data else {
        return None;
    };
    let argument = params.args.get(1)?.clone();
    let of_list: FromList = match func.name() {
        "string_agg" => {
            let not_null = params.args[0].clone().is_not_null();
            params.filter = Some(Box::new(match params.filter.take() {
                Some(filter) => filter.and(not_null),
                None => not_null,
            }));
            // STRING_AGG treats a null separator as empty.
            let separator = match argument {
                Expr::Literal(value, _) if value.is_null() => lit(ScalarValue::Utf8(Some(String::new()))),
                other => other,
            };
            Box::new(move |list| array_to_string(list, separator))
        }
        "nth_value" => {
            params.null_treatment = None;
            Box::new(move |list| array_element(list, argument))
        }
        _ => return None,
    };
    params.args.truncate(1);
    let func = array_agg_udaf();
    Some((Expr::AggregateFunction(AggregateFunction { func, params }), of_list))
}
