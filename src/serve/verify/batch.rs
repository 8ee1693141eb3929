//! A table's rows in batch: the run's own logical plan, by DataFusion.
//!
//! Where DataFusion fails as a whole or wraps around, and the run has dead letters, batch is made to leave the same rows out: rows
//! that do not evaluate ([`isolate`]), groups whose sums do not fit ([`sums`]) or whose gathered values are too large. A GROUP BY
//! whose aggregates have different orders, which it refuses, is written otherwise ([`orders`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use twox_hash::XxHash3_128;

use super::compare::nullable;
use super::{Relation, VerifyError, isolate, orders, sums};
use crate::definition::{Dataflow, OnViolation, Retention};
use crate::plan::{self, OwnRows, PlannedTable};
use crate::repr::{Epoch, RowCodec, normalise_batch};

/// Of `memory_limit`, what a table's computation may hold before it goes to disk.
const SHARE: u64 = 4;
/// The same where there is no limit.
const USUAL: u64 = 1 << 30;

/// How many bytes a table's computation may hold.
pub fn memory(dataflow: &Dataflow) -> u64 {
    dataflow.bounds.memory.map_or(USUAL, |limit| limit / SHARE)
}

/// The rows of a table in batch; or the relation it reads that is not known.
pub async fn recompute(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    epoch: Epoch,
    relations: &HashMap<String, Relation>,
) -> Result<Result<Vec<RecordBatch>, String>, VerifyError> {
    let batch = |source| VerifyError::Batch {
        table: planned.name.clone(),
        source,
    };
    let memory = memory(dataflow);
    let missing = std::cell::RefCell::new(None);
    let rows = async |logical: &LogicalPlan, schema: &SchemaRef, own: &OwnRows| {
        let provider = |name: &str| -> Option<Arc<dyn TableProvider>> {
            let known = relations.get(name).map(|known| (&known.schema, &known.rows));
            let Some((schema, rows)) = own.get(name).map(|(schema, rows)| (schema, rows)).or(known) else {
                missing.replace(Some(name.to_string()));
                return None;
            };
            let table = MemTable::try_new(schema.clone(), vec![rows.clone()]);
            Some(Arc::new(table.expect("a relation's rows are of its schema")))
        };
        let logical = plan::bind_now(plan::rebind(logical, &provider)?, epoch);
        let logical = plan::without_large_values(logical, dataflow.bounds.max_value)?;
        let logical = sums::fitting(orders::agreeing(logical)?)?;
        run(schema, logical, memory).await
    };
    let computed = match plan::own_rows(&planned.recursions, rows).await {
        Ok(own) => rows(&planned.logical, &planned.schema, &own).await,
        Err(error) => Err(error),
    };
    if let Some(missing) = missing.into_inner() {
        return Ok(Err(missing));
    }
    let rows = computed.map_err(batch)?;
    let table = &dataflow.tables[planned.table];
    Ok(Ok(checked(planned, table.retention.as_ref(), epoch, rows)?))
}

/// Runs a plan; rows that fail to evaluate are left out, as they are dead letters of the run. What it holds goes to disk above
/// `memory`; a plan that needs more, or has rows that fail, is run again in memory.
async fn run(schema: &SchemaRef, logical: LogicalPlan, memory: u64) -> Result<Vec<RecordBatch>, DataFusionError> {
    let rows = match isolate::execute_whole(&plan::batch_context_within(memory)?, &logical).await {
        Ok(rows) => rows,
        Err(_) => isolate::collect(&plan::batch_context(), &logical).await?,
    };
    let schema = nullable(schema);
    let normal = rows.iter().map(|rows| normalise_batch(&schema, rows));
    normal
        .collect::<Result<_, _>>()
        .map_err(|e| DataFusionError::External(Box::new(e)))
}

/// The table's rows: what its SELECT yields, less what retention, expectations and the key check take away.
fn checked(
    planned: &PlannedTable,
    retention: Option<&Retention>,
    epoch: Epoch,
    rows: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>, VerifyError> {
    let rows = rows.into_iter().map(|rows| expected(planned, rows));
    let rows = rows.collect::<Result<Vec<RecordBatch>, VerifyError>>()?;
    bounded(planned, retention, epoch, rows)
}

/// The rows that expectations leave.
fn expected(planned: &PlannedTable, rows: RecordBatch) -> Result<RecordBatch, VerifyError> {
    let mut rows = rows;
    let dropping = planned
        .expectations
        .iter()
        .filter(|e| e.on_violation == OnViolation::Drop);
    for expectation in dropping {
        let verdict = expectation
            .check
            .evaluate(&rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|source| VerifyError::Batch {
                table: planned.name.clone(),
                source,
            })?;
        let verdict = verdict.as_boolean().iter();
        let fine: BooleanArray = verdict.map(|fine| Some(fine != Some(false))).collect();
        rows = filter_record_batch(&rows, &fine).map_err(|source| failed(planned, source))?;
    }
    Ok(rows)
}

/// The rows that retention and the key check leave.
pub fn bounded(
    planned: &PlannedTable,
    retention: Option<&Retention>,
    epoch: Epoch,
    mut rows: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>, VerifyError> {
    let failed = |source| failed(planned, source);
    if let Some(retention) = retention {
        for rows in &mut rows {
            let kept = kept(rows, retention, epoch).map_err(failed)?;
            *rows = filter_record_batch(rows, &kept).map_err(failed)?;
        }
    }
    if planned.key.is_empty() {
        return Ok(rows);
    }
    let hashes = |rows: &RecordBatch| -> Result<Vec<u128>, VerifyError> {
        let keys = rows.project(&planned.key).map_err(failed)?;
        let encoded = RowCodec::new(keys.schema())?.encode(keys.columns())?;
        Ok(encoded.iter().map(|key| XxHash3_128::oneshot(key.as_ref())).collect())
    };
    let mut counts: HashMap<u128, usize> = HashMap::new();
    for rows in &rows {
        for key in hashes(rows)? {
            *counts.entry(key).or_default() += 1;
        }
    }
    for rows in &mut rows {
        let unique: BooleanArray = hashes(rows)?.iter().map(|key| Some(counts[key] == 1)).collect();
        *rows = filter_record_batch(rows, &unique).map_err(failed)?;
    }
    Ok(rows)
}

fn failed(planned: &PlannedTable, source: ArrowError) -> VerifyError {
    VerifyError::Check {
        table: planned.name.clone(),
        source,
    }
}

fn kept(rows: &RecordBatch, retention: &Retention, epoch: Epoch) -> Result<BooleanArray, ArrowError> {
    let column = rows.column(rows.schema().index_of(&retention.column)?);
    let micros = arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let (now, keep) = ((epoch as i64).saturating_mul(1000), retention.keep.as_micros() as i64);
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    Ok(micros
        .iter()
        .map(|at| Some(at.is_none_or(|at| at.saturating_add(keep) > now)))
        .collect())
}
