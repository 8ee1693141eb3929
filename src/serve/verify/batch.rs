//! Recomputes a table's rows in batch: DataFusion runs the run's own logical plan.
//!
//! In some cases DataFusion fails as a whole or wraps around, while the run writes dead letters. Batch then omits the
//! same rows: rows that do not evaluate ([`isolate`]), groups whose sums do not fit ([`sums`]), and groups whose
//! gathered values are too large. DataFusion refuses a GROUP BY whose aggregates have different orders, so its plan is
//! rewritten ([`orders`]).

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

/// The share of `memory_limit` (one in so many) that a table's computation may hold before it spills to disk.
const SHARE: u64 = 4;
/// The bytes that it may hold if there is no limit.
const USUAL: u64 = 1 << 30;

/// The bytes that a table's computation may hold before it spills to disk.
pub fn memory(dataflow: &Dataflow) -> u64 {
    dataflow.bounds.memory.map_or(USUAL, |limit| limit / SHARE)
}

/// Recomputes the rows of a table in batch. The inner error names a relation that the table reads and whose rows are
/// not known.
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

/// Runs a plan. Rows that fail to evaluate are left out, because the run made dead letters of them. The computation
/// spills to disk above `memory`; a plan that needs more memory, or has rows that fail, is run again without that
/// limit.
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

/// Removes the rows that retention, expectations and the key check remove from the SELECT's result.
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

/// The rows that expectations keep.
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

/// The rows that retention and the key check keep.
pub fn bounded(
    planned: &PlannedTable,
    retention: Option<&Retention>,
    epoch: Epoch,
    mut rows: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>, VerifyError> {
    let failed = |source| failed(planned, source);
    if let Some(retention) = retention {
        for rows in &mut rows {
            let mask = retained_mask(rows, retention, epoch).map_err(failed)?;
            *rows = filter_record_batch(rows, &mask).map_err(failed)?;
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

fn retained_mask(rows: &RecordBatch, retention: &Retention, epoch: Epoch) -> Result<BooleanArray, ArrowError> {
    let column = rows.column(rows.schema().index_of(&retention.column)?);
    let micros = arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let (now, keep) = ((epoch as i64).saturating_mul(1000), retention.keep.as_micros() as i64);
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    Ok(micros
        .iter()
        .map(|at| Some(at.is_none_or(|at| at.saturating_add(keep) > now)))
        .collect())
}
