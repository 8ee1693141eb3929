//! The audit of a snapshot: recomputes every table from Bronze in two ways, and compares both with the lake.
//!
//! ```text
//! bronze.x --decode, resolve--> x --batch.rs: the run's plan, by DataFusion--> silver.y ... -+-> compare.rs
//!                               \---opinion/: the SQL as it is written, step by step---------+   (multisets of rows)
//! ```
//!
//! It serves users as an audit, and the tests as an oracle.
//!
//! 1. Batch shares decoders and the plan's rewriting of SQL with the run, but no operator: DataFusion runs the logical
//!    plans, and a simple batch implementation resolves inputs. It judges every table exactly, including dead letters
//!    and unresolved orders.
//! 2. The independent opinion shares neither plan nor types with the run, so it detects a wrong rewriting that the run
//!    and batch share. It judges the tables whose SQL it supports, and gives a reason for each other table;
//!    [`Judgement`] says which is which. If the run and the opinion agree, and batch does not, the table is correct:
//!    DataFusion sorts by columns that it wrongly takes for constants beside an outer join, and has its own order of
//!    NaN and numbers.
//! 3. Rows come from Bronze, which holds what arrived, byte by byte. Both judgements take the rows as the run's
//!    decoders read them; [`reread`] compares those values with arrow's own readers, where arrow has a reader for the
//!    format.
//! 4. A table is judged over recomputed rows of the tables that it reads, or over their rows in the lake if
//!    recomputing them failed. A table that was not asked for is recomputed if one that was asked for reads it, and
//!    then cannot make the audit fail.
//!
//! Everything is read as of one snapshot; its epoch is the value of `now()`.

mod batch;
mod compare;
mod isolate;
mod opinion;
mod orders;
mod reread;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use futures::StreamExt;
use thiserror::Error;

use self::compare::{Hasher, LakeRows, compare};
use self::reread::Rereader;
use super::dead_letters::literal;
use super::history::{self, HistoryError};
use super::query::{self, LakeSnapshot, QueryError};
use crate::causes;
use crate::deep::deep;
use crate::definition::{Dataflow, Input};
use crate::evolve::{self, EvolveError};
use crate::input::{ArrivedRecords, Resolver};
use crate::lake::{Lake, LakeError, bronze_table};
use crate::plan::{Graph, Op, PlannedTable};
use crate::repr::{CodecError, Epoch, normalise_schema};
use crate::runtime::query_runtime;

pub use reread::{Misread, Reread};

pub(super) use compare::{differences, nullable, rounded};

/// Rows of an input, or recomputed rows of a table.
struct Relation {
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

/// A row whose multiplicity differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which table.
    pub table: String,
    /// Column names and values, for people.
    pub row: String,
    /// How often the row should occur.
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

/// The outcome of judging a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The run's plan in batch and the independent opinion agree with the table; both use these functions of the run.
    Independent(Vec<String>),
    /// The independent opinion agrees with the table, although the run's plan in batch fails or gives another result;
    /// the opinion uses these functions of the run.
    AgainstBatch(Vec<String>),
    /// The run's plan in batch agrees with the table; the opinion gives no judgement, for this reason.
    OwnPlan(String),
    /// The table differs from the run's plan in batch.
    DiffersFromPlan,
    /// The table agrees with the run's plan, but differs from the independent opinion: one of the two is wrong.
    DiffersFromOpinion,
}

/// The snapshot's epoch.
#[derive(Debug)]
pub struct VerifyReport {
    /// The snapshot.
    pub epoch: Epoch,
    /// For each input, how arrow's own readers read its records.
    pub inputs: Vec<(String, Reread)>,
    /// The tables that were compared: name, and number of rows.
    pub tables: Vec<(String, u64)>,
    /// The judgement on each of these tables.
    pub standings: BTreeMap<String, Judgement>,
    /// Tables whose rows cannot be computed from what the lake keeps, and why.
    pub skipped: Vec<(String, String)>,
    /// Tables whose SQL failed in batch, with the error: whether their rows are correct is not known. Tables that read
    /// them were recomputed from their rows in the lake.
    pub failed: Vec<(String, String)>,
    /// Rows that differ.
    pub differences: Vec<Difference>,
}

/// Why a verification failed.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The lake cannot be opened.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A table of the lake cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Bronze cannot be replayed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Rows cannot be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A table's SQL failed in batch.
    #[error("could not recompute {table} in batch")]
    Batch {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: DataFusionError,
    },
    /// A table's checks failed in batch.
    #[error("could not check {table} in batch")]
    Check {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// The definition, or the columns that inputs take from the lake, could not be determined.
    #[error(transparent)]
    Evolve(#[from] EvolveError),
    /// The runtime could not be started.
    #[error("could not start a runtime")]
    Runtime(#[source] std::io::Error),
}

/// The epochs of all snapshots that the lake still has, ascending.
pub fn snapshots(dataflow: &Dataflow) -> Result<Vec<Epoch>, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    Ok(runtime()?.block_on(query::epochs(&lake))?)
}

/// Recomputes every table at a snapshot (by default the newest) and compares.
pub fn verify(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<VerifyReport, VerifyError> {
    verify_tables(dataflow, epoch, &[])
}

/// Like [`verify`], for these tables, by their names in SQL; for all tables if the list is empty.
pub fn verify_tables(
    dataflow: &Dataflow,
    epoch: Option<Epoch>,
    tables: &[String],
) -> Result<VerifyReport, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let verified = async {
        let (dataflow, graph) = evolve::known(dataflow, &lake).await?;
        verify_in(&dataflow, &graph, &lake, epoch, tables).await
    };
    deep(|| runtime()?.block_on(verified))
}

/// A 128-bit fingerprint of each Silver and Gold table's rows, independent of their order: equal tables have equal
/// fingerprints.
pub fn fingerprints(dataflow: &Dataflow) -> Result<BTreeMap<String, u128>, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    runtime()?.block_on(async {
        let (_, graph) = evolve::known(dataflow, &lake).await?;
        let snapshot = LakeSnapshot::open(&lake, None).await?;
        let mut fingerprints = BTreeMap::new();
        for planned in &graph.tables {
            let hasher = Hasher::new(&planned.schema)?;
            let mut stored = LakeRows::open(&snapshot, &planned.name, &planned.schema).await?;
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
    query_runtime().map_err(VerifyError::Runtime)
}

/// The tables and inputs to recompute, by their indices in the graph and in the dataflow.
struct WantedRelations {
    tables: BTreeSet<usize>,
    inputs: BTreeSet<usize>,
}

impl WantedRelations {
    /// These tables (all if none is named), and everything that they read.
    fn new(dataflow: &Dataflow, graph: &Graph, names: &[String]) -> WantedRelations {
        if names.is_empty() {
            return WantedRelations {
                tables: (0..graph.tables.len()).collect(),
                inputs: (0..dataflow.inputs.len()).collect(),
            };
        }
        let asked = graph
            .tables
            .iter()
            .enumerate()
            .filter(|(_, table)| names.contains(&table.name));
        let mut wanted = WantedRelations {
            tables: BTreeSet::new(),
            inputs: BTreeSet::new(),
        };
        let mut pending = vec![];
        for (position, table) in asked {
            wanted.tables.insert(position);
            pending.push(table.node);
        }
        let mut seen = BTreeSet::new();
        while let Some(node) = pending.pop() {
            if seen.insert(node) {
                match graph.nodes[node].op {
                    Op::Input(input) => drop(wanted.inputs.insert(input)),
                    Op::Table(table) => drop(wanted.tables.insert(table)),
                    _ => {}
                }
                pending.extend(&graph.nodes[node].inputs);
            }
        }
        wanted
    }
}

/// Recomputes tables from the lake's Bronze and compares.
async fn verify_in(
    dataflow: &Dataflow,
    graph: &Graph,
    lake: &Lake,
    epoch: Option<Epoch>,
    names: &[String],
) -> Result<VerifyReport, VerifyError> {
    let snapshot = LakeSnapshot::open(lake, epoch).await?;
    let wanted = WantedRelations::new(dataflow, graph, names);
    let mut report = VerifyReport {
        epoch: snapshot.epoch(),
        inputs: vec![],
        tables: vec![],
        standings: BTreeMap::new(),
        skipped: vec![],
        failed: vec![],
        differences: vec![],
    };
    let mut relations: HashMap<String, Relation> = HashMap::new();
    for (_, input) in dataflow
        .inputs
        .iter()
        .enumerate()
        .filter(|(n, _)| wanted.inputs.contains(n))
    {
        if input.bronze && snapshot.has(&bronze_table(&input.name)) {
            let (relation, reread) = current(&snapshot, lake, input).await?;
            report.differences.extend(misread(&input.name, &reread));
            report.inputs.push((input.name.clone(), reread));
            relations.insert(input.name.clone(), relation);
        }
    }
    for (_, planned) in graph
        .tables
        .iter()
        .enumerate()
        .filter(|(n, _)| wanted.tables.contains(n))
    {
        let name = planned.name.clone();
        let is_asked = names.is_empty() || names.contains(&name);
        let schema = nullable(&normalise_schema(&planned.schema));
        match judge(dataflow, planned, &snapshot, &relations, is_asked).await {
            Ok(TableOutcome::Rows(rows, verdict)) => {
                if let Some(verdict) = verdict {
                    report.tables.push((name.clone(), verdict.found));
                    report.standings.insert(name.clone(), verdict.standing);
                    report.differences.extend(verdict.differences);
                }
                relations.insert(name, Relation { schema, rows });
            }
            Ok(TableOutcome::Missing(missing)) if is_asked => {
                report
                    .skipped
                    .push((name, format!("it reads {missing}, which keeps no Bronze")));
            }
            Ok(TableOutcome::Missing(_)) => {}
            Err(error) => {
                if is_asked {
                    report.failed.push((name.clone(), causes::chain(&error)));
                }
                let mut stored = LakeRows::open(&snapshot, &name, &planned.schema).await?;
                let mut rows = vec![];
                while let Some(batch) = stored.next().await? {
                    rows.push(batch);
                }
                relations.insert(name, Relation { schema, rows });
            }
        }
    }
    Ok(report)
}

/// The values of an input that arrow reads differently, as differences of its Bronze table.
fn misread(input: &str, reread: &Reread) -> Vec<Difference> {
    let misread = reread.misread.iter().map(|value| Difference {
        table: bronze_table(input),
        row: value.to_string(),
        expected: 1,
        found: 0,
    });
    misread.collect()
}

/// The rows of an input as of the snapshot, and how arrow's readers read its records.
async fn current(snapshot: &LakeSnapshot, lake: &Lake, input: &Input) -> Result<(Relation, Reread), VerifyError> {
    let mut resolver = Resolver::new(input)?;
    let mut rereader = Rereader::new(input, lake);
    let mut outcome = Ok(());
    history::replay(snapshot, lake, input, async |past| {
        let arrived = ArrivedRecords {
            epoch: past.epoch,
            feed: input.feed_rank(past.feed),
            partition: &past.partition,
            decoded: &past.decoded,
        };
        if outcome.is_ok() {
            outcome = resolver.add(arrived);
        }
        rereader.compare(&past).await;
    })
    .await?;
    outcome?;
    let relation = Relation {
        schema: input.schema(),
        rows: resolver.finish(Some(snapshot.epoch()))?,
    };
    Ok((relation, rereader.finish()))
}

/// The outcome for a table.
enum TableOutcome {
    /// Its recomputed rows, and the verdict on the lake's rows if the table was asked for.
    Rows(Vec<RecordBatch>, Option<Verdict>),
    /// A relation that it reads, whose rows are not known.
    Missing(String),
}

/// The verdict on a table in the lake.
struct Verdict {
    /// The number of rows in the lake.
    found: u64,
    standing: Judgement,
    differences: Vec<Difference>,
}

async fn judge(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    snapshot: &LakeSnapshot,
    relations: &HashMap<String, Relation>,
    is_asked: bool,
) -> Result<TableOutcome, VerifyError> {
    let first = match batch::recompute(dataflow, planned, snapshot.epoch(), relations).await {
        Ok(Err(missing)) => return Ok(TableOutcome::Missing(missing)),
        Ok(Ok(rows)) => Ok(rows),
        Err(error) => Err(error),
    };
    if !is_asked {
        return first.map(|rows| TableOutcome::Rows(rows, None));
    }
    let first = match first {
        Ok(rows) => Ok((compare(snapshot, planned, &rows).await?, rows)),
        Err(error) => Err(error),
    };
    let second = match second(dataflow, planned, snapshot, relations).await? {
        // The opinion does not apply limits on values, and such a limit may be the reason of the letter.
        OpinionResult::Differs(_) if has_letters(snapshot, &planned.name).await? => {
            OpinionResult::Unjudged("rows of it are dead letters".to_string())
        }
        second => second,
    };
    let verdict = |found, standing, differences| Verdict {
        found,
        standing,
        differences,
    };
    Ok(match (first, second) {
        (Ok(((found, none), rows)), second) if none.is_empty() => {
            let (standing, differences) = match second {
                OpinionResult::Equal(shared, _) => (Judgement::Independent(shared), vec![]),
                OpinionResult::Differs(differences) => (Judgement::DiffersFromOpinion, differences),
                OpinionResult::Unjudged(why) => (Judgement::OwnPlan(why), vec![]),
            };
            TableOutcome::Rows(rows, Some(verdict(found, standing, differences)))
        }
        // The run and the opinion agree: DataFusion fails on its plan, or answers it wrongly.
        (_, OpinionResult::Equal(shared, rows)) => {
            let found = rows.iter().map(|rows| rows.num_rows() as u64).sum();
            TableOutcome::Rows(rows, Some(verdict(found, Judgement::AgainstBatch(shared), vec![])))
        }
        (Ok(((found, differences), rows)), _) => {
            TableOutcome::Rows(rows, Some(verdict(found, Judgement::DiffersFromPlan, differences)))
        }
        (Err(error), _) => return Err(error),
    })
}

/// Whether rows or groups of a table are dead letters.
async fn has_letters(snapshot: &LakeSnapshot, table: &str) -> Result<bool, VerifyError> {
    let condition = format!("kind = 'row' AND table_name = {}", literal(table));
    Ok(snapshot.letters(&condition).await?.next().await.transpose()?.is_some())
}

/// The result of the independent opinion.
enum OpinionResult {
    /// The table holds what its SQL yields, which are these rows; these functions are the run's.
    Equal(Vec<String>, Vec<RecordBatch>),
    Differs(Vec<Difference>),
    /// The opinion gives no judgement, for this reason.
    Unjudged(String),
}

async fn second(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    snapshot: &LakeSnapshot,
    relations: &HashMap<String, Relation>,
) -> Result<OpinionResult, VerifyError> {
    let table = &dataflow.tables[planned.table];
    let schema = nullable(&normalise_schema(&planned.schema));
    let question = opinion::Question {
        table,
        schema: &schema,
        epoch: snapshot.epoch(),
        memory: batch::memory(dataflow),
        relation: &|name| relations.get(name),
    };
    let opinion = match question.answer() {
        Ok(opinion) => opinion,
        Err(why) => return Ok(OpinionResult::Unjudged(why.to_string())),
    };
    if !opinion.types.is_empty() {
        let typed = opinion.types.into_iter().map(|(column, of)| Difference {
            table: planned.name.clone(),
            row: format!("column {column} as {of}"),
            expected: 1,
            found: 0,
        });
        return Ok(OpinionResult::Differs(typed.collect()));
    }
    let rows = batch::bounded(planned, table.retention.as_ref(), snapshot.epoch(), vec![opinion.rows])?;
    let (_, differences) = compare(snapshot, planned, &rows).await?;
    Ok(match differences.is_empty() {
        true => OpinionResult::Equal(opinion.shared, rows),
        false => OpinionResult::Differs(differences),
    })
}
