//! Runs a batch plan in which single rows fail to evaluate.
//!
//! DataFusion fails a whole query when one row divides by zero; in the graph, that row becomes a dead letter and the
//! others go on. To compare the two, a plan that fails is run again operator by operator, each over the materialised
//! rows of its inputs. If an operator with one input fails, it is run over the rows that do not fail when they are
//! evaluated alone. A group with a row that fails has no result, as in the graph.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::common::exec_err;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Aggregate, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::contain;

/// The rows of a plan, computed without the input rows that fail to evaluate.
pub async fn collect(context: &SessionContext, plan: &LogicalPlan) -> Result<Vec<RecordBatch>, DataFusionError> {
    match execute(context, plan.clone()).await {
        Ok((_, rows)) => Ok(rows),
        Err(_) => Ok(vec![step(context, plan).await?]),
    }
}

/// The rows of a plan; fails if any row fails.
pub async fn execute_whole(context: &SessionContext, plan: &LogicalPlan) -> Result<Vec<RecordBatch>, DataFusionError> {
    Ok(execute(context, plan.clone()).await?.1)
}

/// Like [`collect`], but as one batch.
async fn gather(context: &SessionContext, plan: &LogicalPlan) -> Result<RecordBatch, DataFusionError> {
    match execute(context, plan.clone()).await {
        Ok((schema, rows)) => Ok(concat_batches(&schema, &rows)?),
        Err(_) => step(context, plan).await,
    }
}

fn step<'a>(context: &'a SessionContext, plan: &'a LogicalPlan) -> BoxFuture<'a, Result<RecordBatch, DataFusionError>> {
    Box::pin(async move {
        let children = plan.inputs();
        let mut inputs = Vec::new();
        for child in &children {
            inputs.push(vec![gather(context, child).await?]);
        }
        let over = |rows: &[Vec<RecordBatch>]| -> Result<LogicalPlan, DataFusionError> {
            let scans: Result<Vec<LogicalPlan>, _> = children
                .iter()
                .zip(rows)
                .map(|(child, rows)| standing_for(child, rows))
                .collect();
            plan.with_new_exprs(plan.expressions(), scans?)
        };
        match (execute(context, over(&inputs)?).await, inputs.as_slice()) {
            (Err(_), [rows]) => {
                let rows = &rows[0];
                let (mut fine, mut failed) = (Vec::new(), Vec::new());
                let mut pending = vec![(0, rows.num_rows())];
                while let Some((start, length)) = pending.pop() {
                    let slice = rows.slice(start, length);
                    if length == 0 || execute(context, over(&[vec![slice.clone()]])?).await.is_ok() {
                        fine.push(slice);
                    } else if length > 1 {
                        pending.push((start + length / 2, length - length / 2));
                        pending.push((start, length / 2));
                    } else {
                        failed.push(slice);
                    }
                }
                if fine.is_empty() {
                    fine.push(rows.slice(0, 0));
                }
                // The batches stay separate, as they were evaluated: what is too much for one evaluation stays in
                // several.
                let (schema, rows) = execute(context, over(&[fine])?).await?;
                let rows = concat_batches(&schema, &rows)?;
                match plan {
                    LogicalPlan::Aggregate(aggregate) if !failed.is_empty() && !aggregate.aggr_expr.is_empty() => {
                        whole_groups(context, aggregate, rows, &failed).await
                    }
                    _ => Ok(rows),
                }
            }
            (outcome, _) => {
                let (schema, rows) = outcome?;
                Ok(concat_batches(&schema, &rows)?)
            }
        }
    })
}

/// The groups, without the groups of rows that failed, if the groups of these can be computed.
async fn whole_groups(
    context: &SessionContext,
    aggregate: &Aggregate,
    groups: RecordBatch,
    failed: &[RecordBatch],
) -> Result<RecordBatch, DataFusionError> {
    let keys = groups.num_columns() - aggregate.aggr_expr.len();
    if keys == 0 {
        return Ok(groups.slice(0, 0));
    }
    let types = groups.columns()[..keys].iter().map(|key| key.data_type().clone());
    let converter = RowConverter::new(types.map(SortField::new).collect())?;
    let mut lacking = HashSet::new();
    for row in failed {
        let input = Arc::new(standing_for(&aggregate.input, std::slice::from_ref(row))?);
        let group = Aggregate::try_new(input, aggregate.group_expr.clone(), vec![])?;
        let Ok((_, batches)) = execute(context, LogicalPlan::Aggregate(group)).await else {
            continue;
        };
        for batch in &batches {
            let key_rows = converter.convert_columns(&batch.columns()[..keys])?;
            lacking.extend(key_rows.iter().map(|key| key.owned()));
        }
    }
    let key_rows = converter.convert_columns(&groups.columns()[..keys])?;
    let whole: BooleanArray = key_rows
        .iter()
        .map(|key| Some(!lacking.contains(&key.owned())))
        .collect();
    Ok(filter_record_batch(&groups, &whole)?)
}

/// A scan of these rows (at least one batch), with the columns and qualifiers of the plan that they replace.
fn standing_for(plan: &LogicalPlan, rows: &[RecordBatch]) -> Result<LogicalPlan, DataFusionError> {
    // Columns with different qualifiers may share a name: so the scan names them by position, and a projection renames
    // them.
    let fields: Vec<_> = rows[0]
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(n, field)| field.as_ref().clone().with_name(format!("c{n}")))
        .collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let rows = rows
        .iter()
        .map(|rows| RecordBatch::try_new(schema.clone(), rows.columns().to_vec()));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let source = provider_as_source(Arc::new(MemTable::try_new(schema, vec![rows])?));
    let renamed = plan.schema().iter().enumerate().map(|(n, (qualifier, field))| {
        let column = datafusion::prelude::ident(format!("c{n}"));
        match qualifier {
            Some(qualifier) => column.alias_qualified(Some(qualifier.clone()), field.name()),
            None => column.alias(field.name()),
        }
    });
    LogicalPlanBuilder::scan("rows", source, None)?
        .project(renamed.collect::<Vec<_>>())?
        .build()
}

async fn execute(
    context: &SessionContext,
    plan: LogicalPlan,
) -> Result<(SchemaRef, Vec<RecordBatch>), DataFusionError> {
    debug_assert!(
        !plan.exists(|node| Ok(matches!(node, LogicalPlan::Extension(_))))?,
        "our plans have no extensions"
    );
    let frame = context.execute_logical_plan(plan).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    // A kernel that panics fails the batch; its partial results are dropped, and the tables that it read do not
    // change.
    let collected = AssertUnwindSafe(frame.collect()).catch_unwind().await;
    let batches = collected.unwrap_or_else(|panic| exec_err!("{}", contain::message(panic.as_ref())))?;
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok((schema, batches))
}
