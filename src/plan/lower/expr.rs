//! Lowers logical expressions to physical ones over a node's columns.
//!
//! A logical plan may give a column another type than the node has (nanoseconds, views). The column is then
//! cast back where it is read, so that the types on which DataFusion agreed still hold.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr as Logical, SortExpr};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::planner::create_physical_expr;

use crate::plan::error::{Planned, Refusal};
use crate::plan::{Expr, SortKey, now};
use crate::repr::normalise_type;

/// Lowers `expr` to an expression over rows of `actual`, whose columns have the names of `logical`. The result
/// has a normalised type.
pub(in crate::plan) fn physical(expr: &Logical, logical: &DFSchema, actual: &Schema) -> Planned<Expr> {
    let planned = untyped(expr, logical, actual)?;
    cast_to_normal(planned, actual)
}

/// As [`physical`], with the result cast to a type.
pub(super) fn physical_as(expr: &Logical, logical: &DFSchema, actual: &Schema, to: &DataType) -> Planned<Expr> {
    let planned = untyped(expr, logical, actual)?;
    cast_to(planned, actual, to)
}

fn untyped(expr: &Logical, logical: &DFSchema, actual: &Schema) -> Planned<Expr> {
    refuse_unplannable(expr)?;
    let props = ExecutionProps::new();
    let planned = create_physical_expr(expr, logical, &props, &PhysicalPlanningContext::default())?;
    let planned = planned
        .transform_up(|e| {
            let Some(column) = e.downcast_ref::<Column>() else {
                return Ok(Transformed::no(e));
            };
            let expected = logical.field(column.index()).data_type();
            if expected == actual.field(column.index()).data_type() {
                return Ok(Transformed::no(e));
            }
            let expected = expected.clone();
            Ok(Transformed::yes(
                Arc::new(CastExpr::new(e, expected, None)) as Arc<dyn PhysicalExpr>
            ))
        })
        .data()?;
    Ok(planned)
}

/// The column at a position.
pub(super) fn column(schema: &Schema, position: usize) -> Expr {
    Arc::new(Column::new(schema.field(position).name(), position))
}

/// `expr`, cast to `to` unless it has that type.
pub(super) fn cast_to(expr: Expr, input: &Schema, to: &DataType) -> Planned<Expr> {
    if &expr.data_type(input)? == to {
        Ok(expr)
    } else {
        Ok(Arc::new(CastExpr::new(expr, to.clone(), None)))
    }
}

/// `expr`, cast to its normalised type.
pub(super) fn cast_to_normal(expr: Expr, input: &Schema) -> Planned<Expr> {
    let to = normalise_type(&expr.data_type(input)?);
    cast_to(expr, input, &to)
}

/// Lowers the keys of an ORDER BY. A key that is repeated is kept once.
pub(super) fn sort_keys(order: &[SortExpr], logical: &DFSchema, actual: &Schema) -> Planned<Vec<SortKey>> {
    let mut keys: Vec<SortKey> = Vec::with_capacity(order.len());
    for sort in order {
        let expr = physical(&sort.expr, logical, actual)?;
        if !keys.iter().any(|k| k.expr.as_ref() == expr.as_ref()) {
            keys.push(SortKey {
                expr,
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            });
        }
    }
    Ok(keys)
}

/// Makes an order total by the input's remaining columns, ascending with nulls last.
pub(super) fn complete(order: &mut Vec<SortKey>, partition: &[Expr], schema: &Schema) {
    let present = |position: usize, order: &[SortKey]| {
        let is = |e: &Expr| e.downcast_ref::<Column>().is_some_and(|c| c.index() == position);
        order.iter().any(|k| is(&k.expr)) || partition.iter().any(is)
    };
    for position in 0..schema.fields().len() {
        if !present(position, order) {
            order.push(SortKey {
                expr: column(schema, position),
                descending: false,
                nulls_first: false,
            });
        }
    }
}

/// Refuses placeholders, and now() where its moments cannot be derived.
fn refuse_unplannable(expr: &Logical) -> Planned<()> {
    let mut refusal = None;
    expr.apply(|e| {
        refusal = match e {
            Logical::Placeholder(_) if now::mentions_now(e) => Some(now::misplaced()),
            Logical::Placeholder(p) => {
                Some(Refusal::new(format!("could not plan the parameter {}", p.id)).help("write the value itself"))
            }
            _ => None,
        };
        Ok(if refusal.is_some() {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    match refusal {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}
