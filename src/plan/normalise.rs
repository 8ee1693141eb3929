//! Rewrites the analysed plan before it is optimised: to types that rows can hold, and to exact percentiles.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_aggregate::percentile_cont::percentile_cont_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Distinct, DistinctOn, Expr, ExprSchemable, LogicalPlan, SortExpr, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::error::{Planned, Refusal};
use super::numbers::NumberCoercion;
use super::rewrite::rewrite;
use crate::repr::{MOST_NESTED, normalise_type};

/// Replaces approximate percentiles, which depend on the order of rows, by exact ones of the same type, and
/// `any_value` by the least value.
pub(super) fn exact_aggregates(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = &node else {
            return Ok(Transformed::no(node));
        };
        let input = aggregate.input.schema().clone();
        rewrite(node, |expr| {
            expr.transform_up(|e| {
                let Expr::AggregateFunction(call) = e else {
                    return Ok(Transformed::no(e));
                };
                let old = Expr::AggregateFunction(call.clone());
                let AggregateFunction { func, mut params } = call;
                let func = match func.name() {
                    "approx_percentile_cont" => {
                        // The third argument is the size of the sketch.
                        params.args.truncate(2);
                        if params.order_by.first().is_some_and(|order| !order.asc)
                            && let Expr::Literal(ScalarValue::Float64(Some(part)), _) = &params.args[1]
                        {
                            // For a descending order the part counts from the other end; rounding removes the
                            // error of the subtraction.
                            params.args[1] = lit(((1.0 - part) * 1e15).round() / 1e15);
                        }
                        params.order_by.clear();
                        percentile_cont_udaf()
                    }
                    "approx_median" => {
                        params.args.push(lit(0.5));
                        percentile_cont_udaf()
                    }
                    "any_value" => {
                        params.order_by.clear();
                        min_udaf()
                    }
                    _ => return Ok(Transformed::no(old)),
                };
                if func.name() == "percentile_cont" {
                    // percentile_cont interpolates, so integers are read as doubles.
                    let of = params.args[0].get_type(&input)?;
                    if of.is_integer() {
                        params.args[0] = cast(params.args[0].clone(), DataType::Float64);
                    }
                }
                Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction {
                    func,
                    params,
                })))
            })
        })
    });
    Ok(rewritten.data()?)
}

/// Casts the results of projections to types that rows can hold, and coerces types anew.
pub(super) fn types(plan: LogicalPlan, options: &ConfigOptions) -> Planned<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let schema = match &node {
            LogicalPlan::Projection(projection) => projection.input.schema().clone(),
            _ => return Ok(Transformed::no(node)),
        };
        rewrite(node, |expr| {
            let of = expr.get_type(&schema)?;
            let to = normalise_type(&of);
            Ok(if of == to {
                Transformed::no(expr)
            } else {
                Transformed::yes(cast(expr, to))
            })
        })
    })?;
    if rewritten.transformed {
        Ok(NumberCoercion.analyze(rewritten.data, options)?)
    } else {
        Ok(rewritten.data)
    }
}

/// How many lists and structs a type nests.
fn nesting(of: &DataType) -> usize {
    match of {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            1 + nesting(item.data_type())
        }
        DataType::Struct(fields) => 1 + fields.iter().map(|field| nesting(field.data_type())).max().unwrap_or(0),
        _ => 0,
    }
}

/// The type of a table's column, which must be one that Delta supports.
pub(super) fn table_type(name: &str, of: &DataType) -> Result<DataType, Refusal> {
    let column = name.split('.').next().unwrap_or(name);
    let refused = |what: &str, to: &str| {
        let help = match column == name {
            true => format!("cast it: CAST(... AS {to}) AS {name}"),
            false => format!("cast it where the struct is made: CAST(... AS {to})"),
        };
        Err(Refusal::new(format!("could not give column {name:?} a type: {what}"))
            .help(help)
            .near(column))
    };
    if nesting(of) > MOST_NESTED {
        return refused(
            &format!("lists and structs may be nested {MOST_NESTED} deep"),
            "VARCHAR",
        );
    }
    Ok(match normalise_type(of) {
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(p, s),
        DataType::Decimal256(_, s) if (0..=38).contains(&s) => DataType::Decimal128(38, s),
        DataType::Null => return refused("it is always NULL", "VARCHAR"),
        DataType::Interval(_) | DataType::Duration(_) => {
            return refused("a table cannot hold an interval", "VARCHAR");
        }
        DataType::Time32(_) | DataType::Time64(_) => return refused("a table cannot hold a time of day", "VARCHAR"),
        DataType::Union(_, _) => {
            return Err(Refusal::new(format!(
                "could not give column {name:?} a type: a JSON value may be of any type"
            ))
            .help("ask for one type: json_get_str, json_get_int, json_get_float, json_get_bool or json_get_json")
            .near(name));
        }
        DataType::Map(_, _) => {
            return Err(Refusal::new(format!(
                "could not give column {name:?} a type: a table cannot hold a map yet"
            ))
            .help("take what is needed of it: map_keys(...), map_values(...) or map_extract(..., key)")
            .near(name));
        }
        DataType::List(item) => {
            let item_type = table_type(name, item.data_type())?;
            DataType::List(std::sync::Arc::new(item.as_ref().clone().with_data_type(item_type)))
        }
        DataType::Struct(fields) => {
            let typed_field = |field: &FieldRef| {
                let field_type = table_type(&format!("{name}.{}", field.name()), field.data_type())?;
                Ok(field.as_ref().clone().with_data_type(field_type))
            };
            DataType::Struct(
                fields
                    .iter()
                    .map(typed_field)
                    .collect::<Result<Vec<_>, Refusal>>()?
                    .into(),
            )
        }
        other => other,
    })
}

/// Extends the order of DISTINCT ON by the selected columns, so that all columns of the result come from one
/// and the same row.
pub(super) fn distinct_on(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Distinct(Distinct::On(on)) = node else {
            return Ok(Transformed::no(node));
        };
        let mut order = on.sort_expr.clone().unwrap_or_default();
        if order.is_empty() {
            order.extend(on.on_expr.iter().map(|e| SortExpr::new(e.clone(), true, false)));
        }
        for e in &on.select_expr {
            let bare = e.clone().unalias_nested().data;
            if !order.iter().any(|o| o.expr == bare) {
                order.push(SortExpr::new(bare, true, false));
            }
        }
        let on = DistinctOn::try_new(on.on_expr, on.select_expr, Some(order), on.input)?;
        Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
    });
    Ok(rewritten.data()?)
}
