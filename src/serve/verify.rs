//! Every table recomputed from Bronze in batch, and compared with what the lake holds.
//!
//! ```text
//! bronze.x --decode, resolve--> x --DataFusion--> silver.y --DataFusion--> gold.z      compared with the tables,
//!                                       \-- expectations, key checks --/               row by row, as multisets
//! ```
//!
//! This is a user's audit and the tests' oracle. It shares decoders and the plan's SQL rewriting with the run, but no
//! operator: DataFusion runs the logical plans, and inputs are resolved by a simple batch implementation.
//! Where DataFusion fails as a whole or wraps around, and the run has dead letters, batch is made to leave the same rows out:
//! rows that do not evaluate ([`isolate`]), groups whose sums do not fit ([`sums`]) or whose gathered values are too large. A GROUP BY whose aggregates have
//! different orders, which it refuses, is written otherwise ([`orders`]).
//! All is read as of one snapshot, whose epoch is what `now()` means. Doubles are compared to nine significant digits: a sum of
//! doubles depends on its order in batch (ours does not).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use thiserror::Error;
use twox_hash::XxHash3_128;

use super::history::{self, HistoryError};
use super::isolate;
use super::orders;
use super::query::{self, QueryError, Snapshot};
use super::sums;
use crate::causes;
use crate::deep::{self, deep};
use crate::definition::{Dataflow, OnViolation, Retention};
use crate::evolve::{self, EvolveError};
use crate::input::{Arrived, Resolver};
use crate::plan::{self, Graph, OwnRows, PlannedTable};
use crate::repr::{CodecError, Epoch, Row, RowCodec, ValueTexts, normalise_batch, normalise_schema};
use crate::sink::{Lake, LakeError};

/// Of `memory_limit`, what a table's computation may hold before it goes to disk.
const SHARE: u64 = 4;
/// The same where there is no limit.
const USUAL: u64 = 1 << 30;

/// Rows of an input, or of a table in batch.
struct Relation {
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

/// A row on one side only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which table.
    pub table: String,
    /// Column names and values.
    pub row: String,
    /// How often the row is there in batch.
    pub expected: i64,
    /// How often the table has it.
    pub found: i64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}, found {}: {}",
            self.table, self.expected, self.found, self.row
        )
    }
}

/// What a verification found.
#[derive(Debug)]
pub struct Report {
    /// The snapshot.
    pub epoch: Epoch,
    /// By table: its name and how many rows it has.
    pub tables: Vec<(String, u64)>,
    /// Tables whose rows cannot be known from what the lake keeps, and why.
    pub skipped: Vec<(String, String)>,
    /// Tables whose SQL failed in batch, and how: whether their rows are right is not known. Tables that read them were recomputed
    /// from their rows in the lake.
    pub failed: Vec<(String, String)>,
    /// Rows that differ.
    pub differences: Vec<Difference>,
}

/// Why a verification could not be made.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The lake's address.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake's tables.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Bronze.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Rows.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A table's SQL in batch.
    #[error("could not recompute {table} in batch")]
    Batch {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: DataFusionError,
    },
    /// A table's checks in batch.
    #[error("could not check {table} in batch")]
    Check {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// The definition, or the columns that the lake's inputs take.
    #[error(transparent)]
    Evolve(#[from] EvolveError),
    /// No runtime.
    #[error("could not start a runtime")]
    Runtime(#[source] std::io::Error),
}

/// The epochs of all snapshots that the lake still names, ascending.
pub fn snapshots(dataflow: &Dataflow) -> Result<Vec<Epoch>, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    Ok(runtime()?.block_on(query::epochs(&lake))?)
}

/// Recomputes every table at a snapshot (the newest, if none is named) and compares.
pub fn verify(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<Report, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let verified = async {
        let (dataflow, graph) = evolve::known(dataflow, &lake).await?;
        verify_in(&dataflow, &graph, &lake, epoch).await
    };
    deep(|| runtime()?.block_on(verified))
}

/// A 128-bit fingerprint of every Silver and Gold table's rows, independent of their order: equal fingerprints, equal tables.
pub fn fingerprints(dataflow: &Dataflow) -> Result<BTreeMap<String, u128>, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    runtime()?.block_on(async {
        let (_, graph) = evolve::known(dataflow, &lake).await?;
        let snapshot = Snapshot::open(&lake, None).await?;
        let mut fingerprints = BTreeMap::new();
        for planned in &graph.tables {
            let hasher = Hasher::new(&planned.schema)?;
            let mut stored = Stored::open(&snapshot, &planned.name, &planned.schema).await?;
            let mut sum = 0u128;
            while let Some(rows) = stored.next().await? {
                let hashes = hasher.hashes(&rows)?;
                sum = hashes.into_iter().fold(sum, u128::wrapping_add);
            }
            fingerprints.insert(planned.name.clone(), sum);
        }
        Ok(fingerprints)
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, VerifyError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(deep::STACK)
        .build()
        .map_err(VerifyError::Runtime)
}

/// Recomputes from the lake's Bronze and compares with its tables.
async fn verify_in(
    dataflow: &Dataflow,
    graph: &Graph,
    lake: &Lake,
    epoch: Option<Epoch>,
) -> Result<Report, VerifyError> {
    let snapshot = Snapshot::open(lake, epoch).await?;
    let mut report = Report {
        epoch: snapshot.epoch(),
        tables: vec![],
        skipped: vec![],
        failed: vec![],
        differences: vec![],
    };
    let mut relations: HashMap<String, Relation> = HashMap::new();
    for input in &dataflow.inputs {
        if input.bronze && snapshot.has(&format!("bronze.{}", input.name)) {
            let mut resolver = Resolver::new(input)?;
            let mut outcome = Ok(());
            history::replay(&snapshot, lake, input, async |past| {
                let arrived = Arrived {
                    epoch: past.epoch,
                    feed: input.feed_rank(past.feed),
                    partition: &past.partition,
                    decoded: &past.decoded,
                };
                if outcome.is_ok() {
                    outcome = resolver.add(arrived);
                }
            })
            .await?;
            outcome?;
            let relation = Relation {
                schema: input.schema(),
                rows: resolver.finish(Some(snapshot.epoch()))?,
            };
            relations.insert(input.name.clone(), relation);
        }
    }
    for planned in &graph.tables {
        let name = planned.name.clone();
        let schema = nullable(&normalise_schema(&planned.schema));
        match recompute(dataflow, planned, snapshot.epoch(), &relations).await {
            Ok(Ok(rows)) => {
                let (found, differing) = compare(&snapshot, planned, &rows).await?;
                report.tables.push((name.clone(), found));
                report.differences.extend(differing);
                relations.insert(name, Relation { schema, rows });
            }
            Ok(Err(missing)) => {
                report
                    .skipped
                    .push((name, format!("it reads {missing}, which keeps no Bronze")));
            }
            Err(VerifyError::Batch { source, .. }) => {
                report.failed.push((name.clone(), causes::chain(&source)));
                let mut stored = Stored::open(&snapshot, &name, &planned.schema).await?;
                let mut rows = vec![];
                while let Some(batch) = stored.next().await? {
                    rows.push(batch);
                }
                relations.insert(name, Relation { schema, rows });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// The rows of a table in batch; or the relation it reads that is not known.
async fn recompute(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    epoch: Epoch,
    relations: &HashMap<String, Relation>,
) -> Result<Result<Vec<RecordBatch>, String>, VerifyError> {
    let batch = |source| VerifyError::Batch {
        table: planned.name.clone(),
        source,
    };
    let memory = dataflow.bounds.memory.map_or(USUAL, |limit| limit / SHARE);
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
    let failed = |source| VerifyError::Check {
        table: planned.name.clone(),
        source,
    };
    let fine = rows.into_iter().map(|rows| fine(planned, retention, epoch, rows));
    let mut rows = fine.collect::<Result<Vec<RecordBatch>, VerifyError>>()?;
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

/// The rows that retention and expectations leave.
fn fine(
    planned: &PlannedTable,
    retention: Option<&Retention>,
    epoch: Epoch,
    rows: RecordBatch,
) -> Result<RecordBatch, VerifyError> {
    let failed = |source| VerifyError::Check {
        table: planned.name.clone(),
        source,
    };
    let mut rows = match retention {
        Some(retention) => {
            filter_record_batch(&rows, &kept(&rows, retention, epoch).map_err(failed)?).map_err(failed)?
        }
        None => rows,
    };
    for expectation in planned
        .expectations
        .iter()
        .filter(|e| e.on_violation == OnViolation::Drop)
    {
        let verdict = expectation
            .check
            .evaluate(&rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|source| VerifyError::Batch {
                table: planned.name.clone(),
                source,
            })?;
        let fine: BooleanArray = verdict
            .as_boolean()
            .iter()
            .map(|fine| Some(fine != Some(false)))
            .collect();
        rows = filter_record_batch(&rows, &fine).map_err(failed)?;
    }
    Ok(rows)
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

/// How many rows a table has in the lake, and those that differ from what batch made.
async fn compare(
    snapshot: &Snapshot,
    planned: &PlannedTable,
    made: &[RecordBatch],
) -> Result<(u64, Vec<Difference>), VerifyError> {
    let hasher = Hasher::new(&planned.schema)?;
    let mut surplus: HashMap<u128, i64> = HashMap::new();
    for rows in made {
        for hash in hasher.hashes(rows)? {
            *surplus.entry(hash).or_default() += 1;
        }
    }
    let mut found = 0;
    let mut stored = Stored::open(snapshot, &planned.name, &planned.schema).await?;
    while let Some(rows) = stored.next().await? {
        found += rows.num_rows() as u64;
        for hash in hasher.hashes(&rows)? {
            *surplus.entry(hash).or_default() -= 1;
        }
    }
    surplus.retain(|_, count| *count != 0);
    if surplus.is_empty() {
        return Ok((found, vec![]));
    }
    let differing = |rows: &RecordBatch| -> Result<RecordBatch, VerifyError> {
        let hashes = hasher.hashes(rows)?;
        let mask: BooleanArray = hashes.iter().map(|hash| Some(surplus.contains_key(hash))).collect();
        Ok(filter_record_batch(rows, &mask).expect("the mask was made from the batch"))
    };
    let ours = made.iter().map(differing).collect::<Result<Vec<_>, _>>()?;
    let mut theirs = vec![];
    let mut stored = Stored::open(snapshot, &planned.name, &planned.schema).await?;
    while let Some(rows) = stored.next().await? {
        theirs.push(differing(&rows)?);
    }
    let schema = nullable(&normalise_schema(&planned.schema));
    let [ours, theirs] = [ours, theirs].map(|rows| concat_batches(&schema, &rows));
    let failed = |source| VerifyError::Check {
        table: planned.name.clone(),
        source,
    };
    let (ours, theirs) = (ours.map_err(failed)?, theirs.map_err(failed)?);
    let differences = differences(&planned.name, &planned.schema, &ours, &theirs)?;
    Ok((found, differences))
}

/// Hashes rows, of doubles nine digits.
struct Hasher(RowCodec);

impl Hasher {
    fn new(schema: &SchemaRef) -> Result<Hasher, CodecError> {
        Ok(Hasher(RowCodec::new(nullable(&normalise_schema(schema)))?))
    }

    fn hashes(&self, rows: &RecordBatch) -> Result<Vec<u128>, CodecError> {
        if rows.num_columns() == 0 {
            return Ok(vec![0; rows.num_rows()]);
        }
        let columns: Vec<ArrayRef> = rows.columns().iter().map(rounded).collect();
        let encoded = self.0.encode(&columns)?;
        Ok(encoded.iter().map(|row| XxHash3_128::oneshot(row.as_ref())).collect())
    }
}

/// A table's rows in the lake, as they are read, in the plan's types.
struct Stored {
    name: String,
    schema: SchemaRef,
    rows: SendableRecordBatchStream,
}

impl Stored {
    async fn open(snapshot: &Snapshot, name: &str, schema: &SchemaRef) -> Result<Stored, VerifyError> {
        Ok(Stored {
            name: name.to_string(),
            schema: normalise_schema(schema),
            rows: snapshot.stream(name).await?,
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, VerifyError> {
        let Some(batch) = self.rows.next().await else {
            return Ok(None);
        };
        let batch = batch.map_err(QueryError::from)?;
        // By name: a column that was added later stands behind the others, wherever the definition has it, and comes with the
        // first rows that change.
        let fields = self
            .schema
            .fields()
            .iter()
            .map(|field| match batch.schema().field_with_name(field.name()) {
                Ok(stored) => stored.clone(),
                Err(_) => field.as_ref().clone().with_nullable(true),
            });
        let fields: Vec<Field> = fields.collect();
        let columns = fields.iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        let columns = columns.collect();
        let batch =
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|source| VerifyError::Check {
                table: self.name.clone(),
                source,
            })?;
        Ok(Some(relaxed(&normalise_batch(&nullable(&self.schema), &batch)?)))
    }
}

pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect::<Vec<Field>>(),
    ))
}

fn relaxed(batch: &RecordBatch) -> RecordBatch {
    RecordBatch::try_new(nullable(&batch.schema()), batch.columns().to_vec())
        .expect("a nullable field takes any column")
}

/// Rows as bytes with how often they occur; doubles to nine digits.
fn counted(rows: &RecordBatch) -> Result<BTreeMap<Row, i64>, CodecError> {
    let columns: Vec<ArrayRef> = rows.columns().iter().map(rounded).collect();
    let codec = RowCodec::new(rows.schema())?;
    let mut counts = BTreeMap::new();
    for row in codec.encode_rows(&columns, rows.num_rows())? {
        *counts.entry(row).or_default() += 1;
    }
    Ok(counts)
}

/// Doubles rounded to nine significant digits. Two values that are equal but for their last bits may still fall
/// on two sides of a boundary; [`differences`] forgives that.
pub(super) fn rounded(column: &ArrayRef) -> ArrayRef {
    match column.as_any().downcast_ref::<Float64Array>() {
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(|x| {
            if x == 0.0 || !x.is_finite() {
                return x;
            }
            let scale = 10f64.powi(8 - x.abs().log10().floor() as i32);
            if scale.is_finite() && scale > 0.0 {
                (x * scale).round() / scale
            } else {
                x
            }
        })),
        None => column.clone(),
    }
}

/// The rows that differ between two batches of a table, but for the last digits of doubles.
pub(super) fn differences(
    table: &str,
    schema: &SchemaRef,
    expected: &RecordBatch,
    found: &RecordBatch,
) -> Result<Vec<Difference>, VerifyError> {
    let mut differing: BTreeMap<Row, (i64, i64)> = BTreeMap::new();
    for (row, count) in counted(expected)? {
        differing.entry(row).or_default().0 = count;
    }
    for (row, count) in counted(found)? {
        differing.entry(row).or_default().1 = count;
    }
    differing.retain(|_, (expected, found)| expected != found);
    if differing.is_empty() {
        return Ok(vec![]);
    }
    let codec = RowCodec::new(nullable(schema))?;
    let rows = codec.decode(differing.keys().map(Row::bytes))?;
    let counts: Vec<(i64, i64)> = differing.into_values().collect();
    let open = forgive(&rows, &counts);
    let names: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    let columns = rows.columns().iter().zip(&names);
    let columns: Vec<_> = columns
        .map(|(column, name)| {
            let values = ValueTexts::new(column.as_ref()).expect("every type of a table can be shown");
            (name, column, values)
        })
        .collect();
    let text = |row: usize| {
        columns
            .iter()
            .map(|(name, column, values)| match column.is_null(row) {
                true => format!("{name}=null"),
                false => format!("{name}={}", values.text(row)),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(open
        .into_iter()
        .map(|row| Difference {
            table: table.to_string(),
            row: text(row),
            expected: counts[row].0,
            found: counts[row].1,
        })
        .collect())
}

/// The rows that differ by more than the last digits of a double: pairs that are equal but for close doubles are left out.
fn forgive(rows: &RecordBatch, counts: &[(i64, i64)]) -> Vec<usize> {
    let doubles: Vec<&Float64Array> = rows
        .columns()
        .iter()
        .filter_map(|c| c.as_primitive_opt::<Float64Type>())
        .collect();
    let exact: Vec<usize> = (0..rows.num_columns())
        .filter(|&c| rows.column(c).data_type() != &DataType::Float64)
        .collect();
    let keys = rows.project(&exact).expect("positions are of the batch");
    let keys = RowCodec::new(keys.schema()).and_then(|codec| codec.encode_rows(keys.columns(), rows.num_rows()));
    let keys = keys.expect("the rows were encoded before");
    let close = |a: usize, b: usize| {
        doubles.iter().all(|d| match (d.is_null(a), d.is_null(b)) {
            (false, false) => {
                let (x, y) = (d.value(a), d.value(b));
                x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-8 * x.abs().max(y.abs())
            }
            (one, other) => one == other,
        })
    };
    let mut open: Vec<usize> = Vec::new();
    for row in 0..rows.num_rows() {
        let surplus = counts[row].0 - counts[row].1;
        let twin = open.iter().position(|&other| {
            keys[other] == keys[row] && counts[other].0 - counts[other].1 == -surplus && close(other, row)
        });
        match twin {
            Some(twin) => drop(open.remove(twin)),
            None => open.push(row),
        }
    }
    open
}
