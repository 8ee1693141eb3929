//! Sums in batch that do not fit their type.
//!
//! DataFusion's SUM wraps around without a word; in the graph a group whose sum does not fit is a dead letter and has no
//! row. For the two to be compared, each sum of a plan is taken in a wider type, and groups whose sum
//! does not fit are filtered out right above their GROUP BY:
//!
//! ```text
//! Aggregate k, sum(v)   =>   Projection k, CAST(wide AS BIGINT) AS sum(v)
//!                              Filter wide BETWEEN least AND greatest OR wide IS NULL
//!                                Aggregate k, sum(CAST(v AS DECIMAL(38,0))) AS wide
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, i256};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, Projection, cast, lit};

/// The plan in which a group exists only if all its sums fit.
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
        match widened(call, &of, &format!("$wide{n}"))? {
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

/// A sum in a wider type, under this name, and the least and greatest that fit its own type; none if it is no
/// sum, or cannot wrap around.
fn widened(call: &Expr, of: &DataType, name: &str) -> Result<Option<(Expr, (ScalarValue, ScalarValue))>> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = call.clone().unalias_nested().data else {
        return Ok(None);
    };
    if func.name() != "sum" {
        return Ok(None);
    }
    let whole = |value: i128| ScalarValue::Decimal128(Some(value), 38, 0);
    let (to, range) = match of {
        DataType::Int64 => (
            DataType::Decimal128(38, 0),
            (whole(i64::MIN.into()), whole(i64::MAX.into())),
        ),
        DataType::UInt64 => (DataType::Decimal128(38, 0), (whole(0), whole(u64::MAX.into()))),
        // Below the greatest precision a sum has ten digits more than what it adds up.
        DataType::Decimal128(38, scale) => {
            let most = i256::from_i128(10i128.pow(38) - 1);
            let value = |value: i256| ScalarValue::Decimal256(Some(value), 76, *scale);
            (DataType::Decimal256(76, *scale), (value(-most), value(most)))
        }
        _ => return Ok(None),
    };
    let mut params = params;
    params.args[0] = cast(params.args[0].clone(), to);
    let call = Expr::AggregateFunction(AggregateFunction { func, params });
    Ok(Some((call.alias(name), range)))
}
