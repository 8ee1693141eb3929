//! Makes orders total that SQL leaves open. This happens in the logical plan, so that the graph and a batch
//! recomputation keep the same rows.
//!
//! 1. ORDER BY ... LIMIT: the remaining columns of the sorted rows follow the user's.
//! 2. ROW_NUMBER, LAG, LEAD, NTILE, and functions over ROWS frames: the remaining columns of the window's input
//!    follow. RANK and similar functions give tied rows one value and stay as they are; so do sums over RANGE
//!    frames, which end with the last tied row.
//! 3. array_agg, string_agg, first_value, last_value, nth_value: their argument follows.
//!
//! This runs between two optimisations. The first one drops the columns that nobody reads, so that only columns
//! decide that a user can see.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SortExpr, Window, WindowFrameBound, WindowFrameUnits};

use super::error::{Planned, Refusal};
use super::rewrite::rewrite;

/// The plan with total orders. Sorts that no limit reads are removed.
pub(super) fn complete(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let plan = drop_sorts(plan, false)?;
    let mut refusal = None;
    let completed = plan
        .transform_up_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Sort(mut sort) => {
                    let before = sort.expr.len();
                    extend(&mut sort.expr, &[], &sort.input);
                    let changed = sort.expr.len() > before;
                    Transformed::new_transformed(LogicalPlan::Sort(sort), changed)
                }
                LogicalPlan::Aggregate(_) => aggregate(node)?,
                LogicalPlan::Window(window) => match windows(window) {
                    Ok(plan) => plan,
                    Err(Completion::Refused(r)) => {
                        refusal = Some(r);
                        return datafusion::common::plan_err!("refused");
                    }
                    Err(Completion::DataFusion(e)) => return Err(e),
                },
                other => Transformed::no(other),
            })
        })
        .data();
    match refusal {
        Some(refusal) => Err((*refusal).into()),
        None => Ok(completed?),
    }
}

/// Removes sorts, except those that a limit reads.
fn drop_sorts(plan: LogicalPlan, limited: bool) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) if !limited => drop_sorts(Arc::unwrap_or_clone(sort.input), false),
        other => {
            let passes_on = match &other {
                LogicalPlan::Limit(_) => true,
                LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => limited,
                _ => false,
            };
            other
                .map_children(|child| Ok(Transformed::yes(drop_sorts(child, passes_on)?)))
                .data()
        }
    }
}

/// Appends the input's remaining columns to an order.
fn extend(order: &mut Vec<SortExpr>, partition: &[Expr], input: &LogicalPlan) {
    for column in input.schema().columns() {
        let column = Expr::Column(column);
        if !order.iter().any(|o| o.expr == column) && !partition.contains(&column) {
            order.push(SortExpr::new(column, true, false));
        }
    }
}

fn aggregate(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    rewrite(node, |expr| {
        expr.transform_up(|e| {
            let Expr::AggregateFunction(AggregateFunction { func, mut params }) = e else {
                return Ok(Transformed::no(e));
            };
            let ordered = matches!(
                func.name(),
                "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value"
            );
            let mut changed = false;
            if ordered
                && let Some(argument) = params.args.first().cloned()
                && !matches!(argument, Expr::Literal(..))
                && !params.order_by.iter().any(|o| o.expr == argument)
            {
                params.order_by.push(SortExpr::new(argument, true, false));
                changed = true;
            }
            let call = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(Transformed::new_transformed(call, changed))
        })
    })
}

enum Completion {
    Refused(Box<Refusal>),
    DataFusion(datafusion::common::DataFusionError),
}

impl From<datafusion::common::DataFusionError> for Completion {
    fn from(error: datafusion::common::DataFusionError) -> Self {
        Completion::DataFusion(error)
    }
}

/// Completes the orders of a window's functions. If the orders then differ, each order gets a window node of
/// its own.
fn windows(window: Window) -> std::result::Result<Transformed<LogicalPlan>, Completion> {
    let mut changed = false;
    let mut functions: Vec<Expr> = Vec::with_capacity(window.window_expr.len());
    for expr in &window.window_expr {
        let (function, alias) = split(expr.clone());
        let mut function = function;
        if let Expr::WindowFunction(call) = &mut function
            && needs_order(call)?
        {
            let before = call.params.order_by.len();
            let partition = call.params.partition_by.clone();
            extend(&mut call.params.order_by, &partition, &window.input);
            changed |= call.params.order_by.len() > before;
        }
        functions.push(function.alias_qualified(alias.relation, alias.name));
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let mut groups: Vec<Vec<Expr>> = Vec::new();
    for function in functions {
        match groups.iter_mut().find(|g| same_order(&g[0], &function)) {
            Some(group) => group.push(function),
            None => groups.push(vec![function]),
        }
    }
    let mut plan = Arc::unwrap_or_clone(window.input);
    for group in groups {
        plan = LogicalPlan::Window(Window::try_new(group, Arc::new(plan))?);
    }
    if plan.schema().columns() == window.schema.columns() {
        return Ok(Transformed::yes(plan));
    }
    let columns: Vec<Expr> = window.schema.columns().into_iter().map(Expr::Column).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
    Ok(Transformed::yes(plan))
}

/// A window expression without its aliases, and the column that it makes.
fn split(expr: Expr) -> (Expr, Column) {
    let (relation, name) = expr.qualified_name();
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = *alias.expr;
    }
    (expr, Column::new(relation, name))
}

fn same_order(a: &Expr, b: &Expr) -> bool {
    let of = |e: &Expr| match split(e.clone()).0 {
        Expr::WindowFunction(w) => Some((w.params.partition_by, w.params.order_by)),
        _ => None,
    };
    of(a) == of(b)
}

/// Whether a function's result depends on the order of tied rows.
fn needs_order(call: &WindowFunction) -> std::result::Result<bool, Completion> {
    let frame = &call.params.window_frame;
    let whole = frame.start_bound.is_unbounded() && is_unbounded_following(&frame.end_bound);
    let rows = frame.units == WindowFrameUnits::Rows;
    Ok(match call.fun.name() {
        "row_number" | "lag" | "lead" | "ntile" => true,
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "session_start" | "session_end" => false,
        "first_value" if frame.start_bound.is_unbounded() => true,
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" => {
            if !rows && !whole {
                let refusal = Refusal::new(format!(
                    "could not decide what {} yields over ties: its frame ends with all rows of the same order",
                    call.fun.name()
                ))
                .help("write the frame in rows: OVER (... ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
                .near(call.fun.name());
                return Err(Completion::Refused(Box::new(refusal)));
            }
            true
        }
        _ => rows && !whole,
    })
}

fn is_unbounded_following(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::Following(value) if value.is_null())
}
