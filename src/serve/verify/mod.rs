//! The audit of a snapshot: every table worked out anew from Bronze, twice, and compared with what the lake holds.
//!
//! ```text
//! bronze.x --decode, resolve--> x --batch.rs: the run's plan, by DataFusion--> silver.y ... -+-> compare.rs: the table's rows,
//!                               \---opinion/: the SQL as it is written, step by step---------+   as multisets
//! ```
//!
//! This is a user's audit and the tests' oracle.
//!
//! 1. Batch shares decoders and the plan's rewriting of SQL with the run, but no operator: DataFusion runs the logical plans, and
//!    inputs are resolved by a simple batch implementation. It judges every table exactly, dead letters and open orders included.
//! 2. The independent opinion shares neither plan nor types with the run, so it finds a rewriting that is wrong in both the run
//!    and its batch. It judges the tables whose SQL it knows, and says why it does not judge the others; [`Standing`] tells
//!    which is which.
//!    Where the run and the opinion agree, and batch does not, the table is right: DataFusion sorts by what it takes for a constant
//!    beside an outer join, and has its own idea of the least of NaN and a number.
//! 3. Rows come from Bronze, by the run's decoders, in both. Bronze holds what arrived, byte by byte, and files may be gone by
//!    then, so that no reader of files is asked again.
//! 4. A table is judged over the rows of the tables that it reads as they were worked out, or as the lake has them where that
//!    failed. A table that is not asked for is worked out where one that is asked for reads it, and fails nothing.
//!
//! All is read as of one snapshot, whose epoch is what `now()` means.

mod batch;
mod compare;
mod isolate;
mod opinion;
mod orders;
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

use self::compare::{Hasher, Stored, compare};
use super::history::{self, HistoryError};
use super::letters::literal;
use super::query::{self, QueryError, Snapshot};
use crate::causes;
use crate::deep::{self, deep};
use crate::definition::{Dataflow, Input};
use crate::evolve::{self, EvolveError};
use crate::input::{Arrived, Resolver};
use crate::plan::{Graph, Op, PlannedTable};
use crate::repr::{CodecError, Epoch, normalise_schema};
use crate::sink::{Lake, LakeError};

pub(super) use compare::{differences, nullable, rounded};

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
    /// How often the row should be there.
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

/// What a table was judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// By the run's plan in batch and by the independent opinion, which agree; these functions are the run's in both.
    Independent(Vec<String>),
    /// By the independent opinion, against DataFusion, which fails the run's plan in batch or answers it otherwise; these functions
    /// are the run's.
    AgainstBatch(Vec<String>),
    /// By the run's plan in batch alone, and why the opinion says nothing.
    OwnPlan(String),
    /// It differs from the run's plan in batch.
    DiffersFromPlan,
    /// It is what the run's plan says, and differs from the independent opinion: the plan is wrong, or the opinion.
    DiffersFromOpinion,
}

/// What a verification found.
#[derive(Debug)]
pub struct Report {
    /// The snapshot.
    pub epoch: Epoch,
    /// By table: its name and how many rows it has.
    pub tables: Vec<(String, u64)>,
    /// What each of these was judged by.
    pub standings: BTreeMap<String, Standing>,
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

/// Works every table out at a snapshot (the newest, if none is named) and compares.
pub fn verify(dataflow: &Dataflow, epoch: Option<Epoch>) -> Result<Report, VerifyError> {
    verify_tables(dataflow, epoch, &[])
}

/// The same of these tables, by their names in SQL; of all, if none is named.
pub fn verify_tables(dataflow: &Dataflow, epoch: Option<Epoch>, tables: &[String]) -> Result<Report, VerifyError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let verified = async {
        let (dataflow, graph) = evolve::known(dataflow, &lake).await?;
        verify_in(&dataflow, &graph, &lake, epoch, tables).await
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

/// What is to be worked out: tables and inputs, as the graph and the dataflow number them.
struct Wanted {
    tables: BTreeSet<usize>,
    inputs: BTreeSet<usize>,
}

impl Wanted {
    /// These tables, or all, with what they read.
    fn new(dataflow: &Dataflow, graph: &Graph, names: &[String]) -> Wanted {
        if names.is_empty() {
            return Wanted {
                tables: (0..graph.tables.len()).collect(),
                inputs: (0..dataflow.inputs.len()).collect(),
            };
        }
        let asked = graph
            .tables
            .iter()
            .enumerate()
            .filter(|(_, table)| names.contains(&table.name));
        let mut wanted = Wanted {
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

/// Works tables out from the lake's Bronze and compares.
async fn verify_in(
    dataflow: &Dataflow,
    graph: &Graph,
    lake: &Lake,
    epoch: Option<Epoch>,
    names: &[String],
) -> Result<Report, VerifyError> {
    let snapshot = Snapshot::open(lake, epoch).await?;
    let wanted = Wanted::new(dataflow, graph, names);
    let mut report = Report {
        epoch: snapshot.epoch(),
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
        if input.bronze && snapshot.has(&format!("bronze.{}", input.name)) {
            relations.insert(input.name.clone(), current(&snapshot, lake, input).await?);
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
            Ok(Judged::Rows(rows, verdict)) => {
                if let Some(verdict) = verdict {
                    report.tables.push((name.clone(), verdict.found));
                    report.standings.insert(name.clone(), verdict.standing);
                    report.differences.extend(verdict.differences);
                }
                relations.insert(name, Relation { schema, rows });
            }
            Ok(Judged::Missing(missing)) if is_asked => {
                report
                    .skipped
                    .push((name, format!("it reads {missing}, which keeps no Bronze")));
            }
            Ok(Judged::Missing(_)) => {}
            Err(error) => {
                if is_asked {
                    report.failed.push((name.clone(), causes::chain(&error)));
                }
                let mut stored = Stored::open(&snapshot, &name, &planned.schema).await?;
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

/// The rows of an input as of the snapshot.
async fn current(snapshot: &Snapshot, lake: &Lake, input: &Input) -> Result<Relation, VerifyError> {
    let mut resolver = Resolver::new(input)?;
    let mut outcome = Ok(());
    history::replay(snapshot, lake, input, async |past| {
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
    Ok(Relation {
        schema: input.schema(),
        rows: resolver.finish(Some(snapshot.epoch()))?,
    })
}

/// What became of a table.
enum Judged {
    /// Its rows in batch, and the verdict on the lake's, where it was asked for.
    Rows(Vec<RecordBatch>, Option<Verdict>),
    /// What it reads is not known.
    Missing(String),
}

/// What is said of a table.
struct Verdict {
    /// How many rows it has.
    found: u64,
    standing: Standing,
    differences: Vec<Difference>,
}

async fn judge(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    snapshot: &Snapshot,
    relations: &HashMap<String, Relation>,
    is_asked: bool,
) -> Result<Judged, VerifyError> {
    let first = match batch::recompute(dataflow, planned, snapshot.epoch(), relations).await {
        Ok(Err(missing)) => return Ok(Judged::Missing(missing)),
        Ok(Ok(rows)) => Ok(rows),
        Err(error) => Err(error),
    };
    if !is_asked {
        return first.map(|rows| Judged::Rows(rows, None));
    }
    let first = match first {
        Ok(rows) => Ok((compare(snapshot, planned, &rows).await?, rows)),
        Err(error) => Err(error),
    };
    let second = match second(dataflow, planned, snapshot, relations).await? {
        // The opinion has no bounds of values, of which such a letter may tell.
        Second::Differs(_) if has_letters(snapshot, &planned.name).await? => {
            Second::Unjudged("rows of it are dead letters".to_string())
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
                Second::Equal(shared, _) => (Standing::Independent(shared), vec![]),
                Second::Differs(differences) => (Standing::DiffersFromOpinion, differences),
                Second::Unjudged(why) => (Standing::OwnPlan(why), vec![]),
            };
            Judged::Rows(rows, Some(verdict(found, standing, differences)))
        }
        // The run and the SQL as it is written agree: DataFusion fails its plan, or answers it wrongly.
        (_, Second::Equal(shared, rows)) => {
            let found = rows.iter().map(|rows| rows.num_rows() as u64).sum();
            Judged::Rows(rows, Some(verdict(found, Standing::AgainstBatch(shared), vec![])))
        }
        (Ok(((found, differences), rows)), _) => {
            Judged::Rows(rows, Some(verdict(found, Standing::DiffersFromPlan, differences)))
        }
        (Err(error), _) => return Err(error),
    })
}

/// Whether rows or groups of a table are dead letters.
async fn has_letters(snapshot: &Snapshot, table: &str) -> Result<bool, VerifyError> {
    let condition = format!("kind = 'row' AND table_name = {}", literal(table));
    Ok(snapshot.letters(&condition).await?.next().await.transpose()?.is_some())
}

/// What the independent opinion says.
enum Second {
    /// The table is what its SQL yields: these rows, with these functions of the run's.
    Equal(Vec<String>, Vec<RecordBatch>),
    Differs(Vec<Difference>),
    /// Nothing, and why.
    Unjudged(String),
}

async fn second(
    dataflow: &Dataflow,
    planned: &PlannedTable,
    snapshot: &Snapshot,
    relations: &HashMap<String, Relation>,
) -> Result<Second, VerifyError> {
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
        Err(why) => return Ok(Second::Unjudged(why.to_string())),
    };
    if !opinion.types.is_empty() {
        let typed = opinion.types.into_iter().map(|(column, of)| Difference {
            table: planned.name.clone(),
            row: format!("column {column} as {of}"),
            expected: 1,
            found: 0,
        });
        return Ok(Second::Differs(typed.collect()));
    }
    let rows = batch::bounded(planned, table.retention.as_ref(), snapshot.epoch(), vec![opinion.rows])?;
    let (_, differences) = compare(snapshot, planned, &rows).await?;
    Ok(match differences.is_empty() {
        true => Second::Equal(opinion.shared, rows),
        false => Second::Differs(differences),
    })
}
