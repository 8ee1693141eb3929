//! Rewrites sums and means that do not fit their type, for batch.
//!
//! DataFusion's SUM wraps around silently, and its AVG of decimals fails the query; in the graph, a group whose sum or
//! mean does not fit becomes a dead letter and has no row. To make the two comparable, each sum or mean is computed in
//! a wider type, and groups in which one does not fit are filtered out directly above their GROUP BY. (The plan itself
//! widens those of window functions, for the graph too.)
//!
//! ```text
//! Aggregate k, sum(v)   =>   Projection k, CAST(wide AS BIGINT) AS sum(v)
//!                              Filter wide BETWEEN least AND greatest OR wide IS NULL
//!                                Aggregate k, sum(CAST(v AS DECIMAL(38,0))) AS wide
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, i256};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, Projection, cast, lit};

use crate::plan;

/// Rewrites the plan so that a group exists only if all its sums and means fit.
pub fn fitting(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => fitting_groups(aggregate),
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn fitting_groups(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = aggregate.input.schema();
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    let mut wide = Vec::new();
    for (n, call) in aggregate.aggr_expr.iter().enumerate() {
        let of = call.get_type(input)?;
        match widened(call, &of, input, &format!("$wide{n}"))? {
            Some((call, range)) => {
                calls.push(call);
                wide.push((n, range));
            }
            None => calls.push(call.clone()),
        }
    }
    if wide.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let before = aggregate.schema.clone();
    let groups = before.fields().len() - aggregate.aggr_expr.len();
    let widened = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
    let columns: Vec<Expr> = widened.schema.columns().into_iter().map(Expr::Column).collect();
    let mut shown: Vec<Expr> = columns.clone();
    let mut plan = LogicalPlan::Aggregate(widened);
    for (n, range) in wide {
        let column = columns[groups + n].clone();
        let fits = column.clone().between(lit(range.0), lit(range.1));
        plan = LogicalPlan::Filter(Filter::try_new(fits.or(column.clone().is_null()), Arc::new(plan))?);
        let (qualifier, field) = before.qualified_field(groups + n);
        let name = Column::from((qualifier, field));
        shown[groups + n] = cast(column, field.data_type().clone()).alias_qualified(name.relation, name.name);
    }
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(
        shown,
        Arc::new(plan),
    )?)))
}

/// A sum or mean in a wider type, under this name, and the least and greatest value that fit its own type. None if the
/// call is neither, or always fits.
fn widened(
    call: &Expr,
    of: &DataType,
    input: &DFSchema,
    name: &str,
) -> Result<Option<(Expr, (ScalarValue, ScalarValue))>> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = call.clone().unalias_nested().data else {
        return Ok(None);
    };
    let Some(argument) = params.args.first() else {
        return Ok(None);
    };
    let Some(to) = plan::wider(func.name(), &argument.get_type(input)?, of) else {
        return Ok(None);
    };
    let range = match of {
        DataType::Int64 => whole(i64::MIN.into(), i64::MAX.into()),
        DataType::UInt64 => whole(0, u64::MAX.into()),
        DataType::Decimal128(precision, scale) => {
            let most = i256::from_i128(10i128.pow(u32::from(*precision)) - 1);
            let value = |value: i256| ScalarValue::Decimal256(Some(value), 76, *scale);
            (value(-most), value(most))
        }
        _ => return Ok(None),
    };
    let mut params = params;
    params.args[0] = cast(params.args[0].clone(), to);
    let call = Expr::AggregateFunction(AggregateFunction { func, params });
    Ok(Some((call.alias(name), range)))
}

fn whole(least: i128, most: i128) -> (ScalarValue, ScalarValue) {
    let value = |value: i128| ScalarValue::Decimal128(Some(value), 38, 0);
    (value(least), value(most))
}
