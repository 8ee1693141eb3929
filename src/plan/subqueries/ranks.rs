//! Unnests window functions, LIMIT and DISTINCT ON for each binding, by adding the bindings to PARTITION BY.
//!
//! ORDER BY ... LIMIT n OFFSET m becomes a filter on row_number() over the binding's rows, which the graph
//! keeps as a top-k.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Filter, Limit, LogicalPlan, Sort, SortExpr, Window, WindowFrame,
    WindowFunctionDefinition, lit,
};

use super::super::error::{Planned, Refusal};
use super::super::lower::unordered;
use super::Unnesting;
use super::nodes::{NodeInput, in_order, named};
use super::rows::{Bindings, NodeRows, project};
use super::single::at_most_one;

impl Unnesting<'_> {
    pub(super) fn window(&mut self, window: &Window, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let NodeInput { rows, exprs } = self.node(&window.input, window.window_expr.clone(), outer)?;
        let own = window.input.schema().fields().len();
        let bound: Vec<Expr> = rows.bound().iter().cloned().map(Expr::Column).collect();
        let functions = exprs.into_iter().map(|expr| partitioned(expr, &bound)).collect();
        let functions = named(functions, &window.schema, own);
        let plan = match rows.bindings {
            Some(_) => rows.plan,
            None if rows.plan.schema().fields().len() == own => in_order(rows.plan, window.input.schema())?,
            None => rows.plan,
        };
        let windowed = NodeRows {
            plan: LogicalPlan::Window(Window::try_new(functions, Arc::new(plan))?),
            bindings: rows.bindings,
        };
        windowed.only(&window.schema)
    }

    pub(super) fn limit(&mut self, limit: &Limit, outer: Option<&Bindings>) -> Planned<NodeRows> {
        if outer.is_none() {
            let rows = self.rows(&limit.input, None)?;
            let plan = in_order(rows.plan, limit.input.schema())?;
            return Ok(NodeRows::from_plan(LogicalPlan::Limit(Limit {
                input: Arc::new(plan),
                ..limit.clone()
            })));
        }
        let bounds = bounds(limit).ok_or_else(|| {
            Refusal::new("could not plan a LIMIT or OFFSET that is not a whole number")
                .help("write the number itself")
                .near("LIMIT")
        })?;
        self.first_rows(&limit.input, bounds, outer)
    }

    /// The first rows for each binding. Projections and aliases keep each row, so the rows are taken below these.
    fn first_rows(
        &mut self,
        plan: &LogicalPlan,
        bounds: (u64, Option<u64>),
        outer: Option<&Bindings>,
    ) -> Planned<NodeRows> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let Ranked { rows, rank } = self.ranked(sort, outer)?;
                let (skip, fetch) = bounds;
                let behind = (skip > 0).then(|| rank.clone().gt(lit(skip)));
                let last = fetch.map(|fetch| rank.lt_eq(lit(skip.saturating_add(fetch))));
                let NodeRows { mut plan, bindings } = rows;
                if let Some(condition) = conjunction(behind.into_iter().chain(last)) {
                    plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
                }
                NodeRows { plan, bindings }.only(sort.input.schema())
            }
            LogicalPlan::Subquery(subquery) => self.first_rows(&subquery.subquery, bounds, outer),
            // A projection or alias of the sorted rows may be applied after the first rows are taken.
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
                let below = plan.inputs()[0];
                let limited = LogicalPlan::Limit(Limit {
                    skip: Some(Box::new(lit(i64::try_from(bounds.0).unwrap_or(i64::MAX)))),
                    fetch: bounds
                        .1
                        .map(|fetch| Box::new(lit(i64::try_from(fetch).unwrap_or(i64::MAX)))),
                    input: Arc::new(below.clone()),
                });
                let above = plan.with_new_exprs(plan.expressions(), vec![limited])?;
                self.rows(&above, outer)
            }
            other if at_most_one(other, self.keys) && bounds.0 == 0 && bounds.1 != Some(0) => self.rows(other, outer),
            _ => Err(unordered().into()),
        }
    }

    /// The input of a sort, with each row's number in its order.
    fn ranked(&mut self, sort: &Sort, outer: Option<&Bindings>) -> Planned<Ranked> {
        let exprs = sort.expr.iter().map(|e| e.expr.clone()).collect();
        let NodeInput { mut rows, exprs } = self.node(&sort.input, exprs, outer)?;
        if let Some(bindings) = outer {
            rows = self.bound(rows, bindings)?;
        }
        let order = sort.expr.iter().zip(exprs);
        let order = order
            .map(|(e, expr)| SortExpr::new(expr, e.asc, e.nulls_first))
            .collect();
        let partition = rows.bound().iter().cloned().map(Expr::Column).collect();
        self.numbered(rows, partition, order)
    }

    fn numbered(&mut self, rows: NodeRows, partition: Vec<Expr>, order: Vec<SortExpr>) -> Planned<Ranked> {
        let name = format!("__rank_{}", self.number());
        let function = WindowFunction {
            fun: WindowFunctionDefinition::WindowUDF(row_number_udwf()),
            params: WindowFunctionParams {
                args: vec![],
                partition_by: partition,
                order_by: order,
                window_frame: WindowFrame::new(Some(false)),
                filter: None,
                null_treatment: None,
                distinct: false,
            },
        };
        let function = Expr::WindowFunction(Box::new(function)).alias(&name);
        let plan = LogicalPlan::Window(Window::try_new(vec![function], Arc::new(rows.plan))?);
        Ok(Ranked {
            rows: NodeRows {
                plan,
                bindings: rows.bindings,
            },
            rank: Expr::Column(Column::new_unqualified(name)),
        })
    }

    pub(super) fn distinct_on(&mut self, on: &DistinctOn, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let order = on.sort_expr.clone().unwrap_or_default();
        let (first, shown) = (on.on_expr.len(), on.select_expr.len());
        let all = on.on_expr.iter().chain(&on.select_expr);
        let all = all.cloned().chain(order.iter().map(|o| o.expr.clone())).collect();
        let NodeInput { mut rows, exprs } = self.node(&on.input, all, outer)?;
        let (partition, rest) = exprs.split_at(first);
        let (select, sorted) = rest.split_at(shown);
        let order = order.iter().zip(sorted);
        let order: Vec<SortExpr> = order
            .map(|(o, expr)| SortExpr::new(expr.clone(), o.asc, o.nulls_first))
            .collect();
        let select = named(select.to_vec(), &on.schema, 0);
        let Some(bindings) = outer else {
            let order = (!order.is_empty()).then_some(order);
            let made = DistinctOn::try_new(partition.to_vec(), select, order, Arc::new(rows.plan))?;
            return Ok(NodeRows::from_plan(LogicalPlan::Distinct(Distinct::On(made))));
        };
        rows = self.bound(rows, bindings)?;
        let bound: Vec<Expr> = rows.bound().iter().cloned().map(Expr::Column).collect();
        let partition = bound.iter().cloned().chain(partition.iter().cloned()).collect();
        let Ranked { rows, rank } = self.numbered(rows, partition, order)?;
        let plan = LogicalPlan::Filter(Filter::try_new(rank.eq(lit(1u64)), Arc::new(rows.plan))?);
        let exprs = select.into_iter().chain(bound).collect();
        Ok(NodeRows {
            plan: project(exprs, plan)?,
            bindings: rows.bindings,
        })
    }
}

/// Rows with their number in an order.
struct Ranked {
    rows: NodeRows,
    rank: Expr,
}

/// The window function with the bindings prepended to its PARTITION BY.
fn partitioned(expr: Expr, bound: &[Expr]) -> Expr {
    match expr {
        Expr::WindowFunction(mut call) => {
            call.params.partition_by.splice(0..0, bound.iter().cloned());
            Expr::WindowFunction(call)
        }
        Expr::Alias(mut alias) => {
            *alias.expr = partitioned(*alias.expr, bound);
            Expr::Alias(alias)
        }
        other => other,
    }
}

/// How many rows a limit skips and keeps; `None` if these are not literal numbers.
pub(super) fn bounds(limit: &Limit) -> Option<(u64, Option<u64>)> {
    let skip = limit
        .skip
        .as_deref()
        .map_or(Some(0), |e| Some(number(e)?.unwrap_or(0)))?;
    let fetch = limit.fetch.as_deref().map_or(Some(None), number)?;
    Some((skip, fetch))
}

/// A literal number. A null is `Some(None)`, as it limits nothing.
pub(super) fn number(expr: &Expr) -> Option<Option<u64>> {
    let Expr::Literal(value, _) = expr else { return None };
    if value.is_null() {
        return Some(None);
    }
    match value.cast_to(&arrow::datatypes::DataType::UInt64).ok()? {
        ScalarValue::UInt64(Some(n)) => Some(Some(n)),
        _ => None,
    }
}
