//! Restores the graph at the start of a run over a lake that holds a snapshot. State that the lake keeps is loaded;
//! what it does not keep, or what means something else now, is computed again from Bronze or the feeds ([`sources`]).
//!
//! ```text
//! blueprint of the snapshot --> sources --+--> state tables, tables ---+
//! definition, plan ----------^            +--> Bronze, archived drops -+--> workers, up to its epoch
//!                                         +--> feeds, dead letters ----+
//! ```
//! Versions of a key are ordered by the epoch in which they arrived, which state tables and Bronze record. Dead
//! letters that nothing would produce again are carried over ([`letters`]). Once all of this has closed in the graph,
//! the sinks compare the graph's tables with the stored ones and write the difference: the audit.

mod blueprint;
mod folders;
mod letters;
mod loads;
mod report;
mod reread;
mod skips;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::runtime::Handle;

pub use self::blueprint::{Blueprint, ColumnForm, PartStanding};
pub use self::folders::ShiftedFolder;
pub use self::loads::LoadedParts;
pub use self::report::{PlanReport, PlannedChange, plan};
pub use self::skips::skips;
pub use self::sources::{InputSource, PastSources, StatefulParts, StoredState, TableSource};

use super::RunError;
use super::board::Board;
use super::wiring::Wiring;
use crate::definition::Input;
use crate::input::Reform;
use crate::lake::{Lake, bronze_input, bronze_table};
use crate::plan::NodeId;
use crate::repr::{CodecError, Epoch, FeedPositions, Position, Row, RowCodec, SqlType};
use crate::serve::{LakeSnapshot, history};
use crate::sink::{LiveFile, Restored, WriterConfig, scan, states, sums};
use crate::source::Delivery;

/// How many rows at most are sent to a worker in one piece.
const ROWS: usize = 8192;

/// A piece of the past, sent to one worker.
pub enum PastPiece {
    /// Records, and the epoch in which they first arrived.
    Delivery(Epoch, Box<Delivery>),
    /// The state of an input, as (key, state) pairs; the input is an index into the definition.
    States(usize, Vec<(Row, Row)>),
    /// Accumulators of an aggregate, as (key, growth) pairs.
    Sums(NodeId, Vec<(Row, Row)>),
    /// Rows that are fed behind the inputs.
    Rows(FeedPoint, Vec<Row>),
    /// Dead letters that are carried over.
    Letters(Vec<Row>),
    /// The past is complete. A past that broke off sends none: the audit would delete the rows that are missing from
    /// it.
    End,
}

/// The place in the graph, behind the inputs, where rows are fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeedPoint {
    /// The rows of a table of the graph.
    Table(usize),
    /// The errors of rows that an aggregate was computed from.
    Errors(NodeId),
}

impl PastPiece {
    /// How many rows or records it counts for; at least one.
    pub fn rows(&self) -> usize {
        let rows = match self {
            PastPiece::Delivery(_, delivery) => delivery.decoded.raw.len(),
            PastPiece::States(_, states) | PastPiece::Sums(_, states) => states.len(),
            PastPiece::Rows(_, rows) | PastPiece::Letters(rows) => rows.len(),
            PastPiece::End => 0,
        };
        rows.max(1)
    }
}

/// How the past is restored.
#[derive(Default)]
pub struct PastDecision {
    /// The blueprint of the run's snapshots.
    pub now: Blueprint,
    /// The blueprint of the lake's newest snapshot, where that is known.
    pub then: Option<Blueprint>,
    /// The sink's tables that are audited.
    pub audited: Vec<usize>,
}

/// Decides how the past is restored, and updates the wiring accordingly. With `recompute`, no state that the lake
/// keeps is used.
pub fn decide(
    wiring: &mut Wiring,
    lake: &Lake,
    runtime: &Handle,
    restored: &Restored,
    recompute: bool,
) -> Result<PastDecision, RunError> {
    let past_plan = restored.plan.as_ref().filter(|_| !recompute);
    let Some(epoch) = restored.epoch else {
        return Ok(PastDecision {
            now: Blueprint::from_dataflow(&wiring.dataflow, &wiring.graph, &wiring.first),
            ..PastDecision::default()
        });
    };
    let (now, then, sources) = choose(wiring, lake, runtime, epoch, past_plan, &restored.altered)?;
    if then.as_ref().is_some_and(|then| !then.is_readable()) {
        tracing::info!(
            "the lake was written by a version that writes plans and states otherwise: all is computed again from Bronze, once"
        );
    }
    if let Some(written) = known(restored.plan.as_ref()) {
        folders::refuse_shifted(&wiring.dataflow, (&written, &now), &restored.progress)?;
    }
    tracing::debug!(?sources, "where the past comes from");
    let audited = wiring.observe_past(sources);
    Ok(PastDecision { now, then, audited })
}

/// Parses a stored blueprint. `None` if there is none, or if another version wrote it in a form that cannot be parsed.
fn known(plan: Option<&Bytes>) -> Option<Blueprint> {
    plan.and_then(|bytes| serde_json::from_slice(bytes).ok())
}

/// Returns the blueprint of the run's snapshots, that of the lake's newest snapshot, where it is known, and how the
/// past is restored. `is_altered` is indexed by the sink's tables, see [`Restored::altered`].
fn choose(
    wiring: &Wiring,
    lake: &Lake,
    runtime: &Handle,
    epoch: Epoch,
    plan: Option<&Bytes>,
    is_altered: &[bool],
) -> Result<(Blueprint, Option<Blueprint>, PastSources), RunError> {
    let (dataflow, graph) = (&wiring.dataflow, &wiring.graph);
    let mut now = Blueprint::from_dataflow(dataflow, graph, &wiring.first);
    let then = known(plan);
    let keyed = graph
        .tables
        .iter()
        .enumerate()
        .filter(|(_, table)| !table.key.is_empty());
    let keyed: Vec<(usize, &str)> = keyed.map(|(index, table)| (index, table.name.as_str())).collect();
    let mut unfit: BTreeSet<usize> = match keyed.is_empty() || then.is_none() {
        true => BTreeSet::new(),
        false => runtime
            .block_on(async { letters::clashing(&open(lake, epoch, |_| false).await?, &keyed).await })?
            .into_iter()
            .collect(),
    };
    let own = |table: &usize| is_altered[wiring.first_table + graph.tables[*table].table];
    unfit.extend((0..graph.tables.len()).filter(own));
    let inputs = wiring.states.inputs.iter();
    let unfit_inputs = inputs.filter(|(_, table)| is_altered[*table]);
    let stored = StoredState {
        blueprint: then.as_ref(),
        unfit,
        unfit_inputs: unfit_inputs.map(|(input, _)| *input).collect(),
        unfit_sums: wiring.states.sums.is_some_and(|log| is_altered[log]),
    };
    let sources = PastSources::decide(dataflow, graph, &wiring.first, &now, (epoch, &stored));
    for (node, since) in &sources.since {
        now.keep_sums_since(wiring.first.meanings[*node], *since);
    }
    for (input, source) in dataflow.inputs.iter().zip(&sources.inputs) {
        if let (InputSource::State { .. }, Some(then)) = (source, &then) {
            now.take_over(&input.name, then);
        }
    }
    Ok((now, then, sources))
}

/// Opens the dead letters of a snapshot and the tables that are `wanted`. Other tables may be lost, and are computed
/// again.
async fn open(lake: &Lake, epoch: Epoch, wanted: impl Fn(&str) -> bool) -> Result<LakeSnapshot, RunError> {
    Ok(LakeSnapshot::open_tables(lake, Some(epoch), |table| table == "dead_letters" || wanted(table)).await?)
}

/// Reads a snapshot of the lake and sends it to the workers.
pub struct PastReplay<'a> {
    pub wiring: &'a Wiring,
    pub lake: &'a Lake,
    pub runtime: &'a Handle,
    pub board: &'a Arc<Board>,
    /// The snapshot's blueprint, where it is known.
    pub blueprint: Option<&'a Blueprint>,
    /// The configuration for reading the lake's files.
    pub config: &'a WriterConfig,
    /// The live files of each of the sink's tables.
    pub files: &'a [Vec<LiveFile>],
    /// The version of each of the sink's tables.
    pub versions: &'a [i64],
    /// How far feeds were read as of the snapshot.
    pub progress: &'a FeedPositions,
    /// The snapshot.
    pub epoch: Epoch,
}

/// Sends pieces to the workers in turn.
struct WorkerTurns<'a> {
    workers: &'a [Sender<PastPiece>],
    next: usize,
}

impl WorkerTurns<'_> {
    /// Blocks while the worker's queue is full, which is fine on a thread that does nothing else. A worker that is
    /// gone has reported why.
    fn send(&mut self, piece: PastPiece) {
        self.next += 1;
        let _ = self.workers[self.next % self.workers.len()].send(piece);
    }
}

impl PastReplay<'_> {
    /// Sends all of the past to the workers, followed by its end.
    pub fn send_all(&self, workers: &[Sender<PastPiece>]) -> Result<(), RunError> {
        let mut worker_turns = WorkerTurns { workers, next: 0 };
        let Some(sources) = &self.wiring.sources else {
            unreachable!("a run over a lake with a past has decided where it comes from")
        };
        self.load(sources, &mut worker_turns)?;
        // Versions of a key are ordered by their arrival, and the graph can tell that order only within one epoch.
        self.board.epochs.hold();
        self.replay(sources, &mut worker_turns)?;
        for worker in workers {
            let _ = worker.send(PastPiece::End);
        }
        Ok(())
    }

    /// An upper bound of the rows that [`PastReplay::send_all`] loads from state tables and tables.
    pub fn rows_to_load(wiring: &Wiring, files: &[Vec<LiveFile>]) -> u64 {
        let Some(sources) = &wiring.sources else { return 0 };
        let states = &wiring.states;
        let inputs = states.inputs.iter();
        let inputs = inputs.filter(|(input, _)| matches!(sources.inputs[*input], InputSource::State { .. }));
        let inputs = inputs.map(|(_, table)| *table);
        let sums = states.sums.filter(|_| !sources.sums.is_empty());
        let tables = wiring.graph.tables.iter().zip(&sources.tables);
        let tables = tables.filter(|(_, source)| **source == TableSource::Itself { fed: true });
        let tables = tables.map(|(table, _)| wiring.first_table + table.table);
        let states = inputs.chain(sums).chain(states.errors);
        let all = states.chain(tables);
        all.flat_map(|table| &files[table]).map(|file| file.rows).sum()
    }

    /// Loads the state that the lake keeps.
    fn load(&self, sources: &PastSources, worker_turns: &mut WorkerTurns<'_>) -> Result<(), RunError> {
        let started = Instant::now();
        let mut rows = 0;
        let Wiring {
            first, states: places, ..
        } = self.wiring;
        for (input, table) in &places.inputs {
            let definition = &self.wiring.dataflow.inputs[*input];
            let reform = match sources.inputs[*input] {
                InputSource::State { reformed: true } => Some(self.reform(definition)?),
                InputSource::State { reformed: false } => None,
                _ => continue,
            };
            rows += self.scan(*table, |batch| {
                let states = states::states(batch);
                let states = reform.iter().fold(states, |states, reform| reform.apply(states));
                worker_turns.send(PastPiece::States(*input, states));
                Ok(())
            })?;
        }
        if let Some(log) = places.sums.filter(|_| !sources.sums.is_empty()) {
            let loaded = places.numbers.iter().filter(|(node, _)| sources.sums.contains(node));
            let nodes: HashMap<i64, NodeId> = loaded.map(|(node, number)| (*number, *node)).collect();
            rows += self.scan(log, |batch| {
                let mut sums: BTreeMap<NodeId, Vec<(Row, Row)>> = BTreeMap::new();
                let mut passed = 0;
                for (number, key, grew) in sums::rows(batch) {
                    match nodes.get(&number) {
                        Some(node) => sums.entry(*node).or_default().push((key, grew)),
                        None => passed += 1,
                    }
                }
                self.board.counters.loaded.fetch_add(passed, Ordering::Relaxed);
                sums.into_iter()
                    .for_each(|(node, sums)| worker_turns.send(PastPiece::Sums(node, sums)));
                Ok(())
            })?;
        }
        if let Some(table) = places.errors {
            rows += self.scan(table, |batch| {
                let errors = states::errors(batch)?;
                for node in &sources.sums {
                    let own = errors.iter().filter(|(of, _)| *of == first.meanings[*node]);
                    let own: Vec<Row> = own.map(|(_, error)| error.clone()).collect();
                    if !own.is_empty() {
                        worker_turns.send(PastPiece::Rows(FeedPoint::Errors(*node), own));
                    }
                }
                Ok(())
            })?;
        }
        for (table, source) in sources.tables.iter().enumerate() {
            if *source != (TableSource::Itself { fed: true }) {
                continue;
            }
            let planned = &self.wiring.graph.tables[table];
            let codec = RowCodec::new(planned.schema.clone())?;
            rows += self.scan(self.wiring.first_table + planned.table, |batch| {
                let rows = codec.encode_rows(batch.columns(), batch.num_rows())?;
                worker_turns.send(PastPiece::Rows(FeedPoint::Table(table), rows));
                Ok(())
            })?;
        }
        if rows > 0 {
            tracing::info!(
                rows,
                seconds = started.elapsed().as_secs_f64(),
                "loaded what the graph held"
            );
            self.board.counters.observe_phase("load", started.elapsed());
        }
        Ok(())
    }

    /// Converts the stored rows of an input from the columns of the snapshot to those of the definition.
    fn reform(&self, input: &Input) -> Result<Reform, RunError> {
        let then = self.blueprint.map_or(&[][..], |blueprint| blueprint.form(&input.name));
        let field = |column: &ColumnForm| {
            let sql_type: SqlType = column.sql_type.parse().map_err(|_| RunError::StateForm {
                input: input.name.clone(),
                column: column.name.clone(),
            })?;
            Ok(Field::new(&column.name, sql_type.arrow(), true))
        };
        let fields: Vec<Field> = then.iter().map(field).collect::<Result<_, RunError>>()?;
        Ok(Reform::new(Arc::new(Schema::new(fields)), input.schema())?)
    }

    /// Calls `each` with the rows of a table, in pieces. Returns how many rows there were.
    fn scan(
        &self,
        table: usize,
        mut each: impl FnMut(&RecordBatch) -> Result<(), CodecError>,
    ) -> Result<u64, RunError> {
        let mut given = Ok(());
        let rows = scan(self.config, table, &self.files[table], |batch| {
            let starts = (0..batch.num_rows()).step_by(ROWS);
            let mut pieces = starts.map(|start| batch.slice(start, ROWS.min(batch.num_rows() - start)));
            if given.is_ok() {
                given = pieces.try_for_each(|piece| each(&piece));
            }
        })?;
        given?;
        Ok(rows)
    }

    /// Adds the Bronze tables of replayed inputs that were not in the definition as of the snapshot, and have records
    /// of an earlier time: the feeds of such an input go on from where they were, so its past is in Bronze alone.
    async fn add_returned(
        &self,
        snapshot: &mut LakeSnapshot,
        replayed: impl Fn(usize) -> bool,
    ) -> Result<(), RunError> {
        for (index, input) in self.wiring.dataflow.inputs.iter().enumerate() {
            let name = bronze_table(&input.name);
            if let Some(table) = self.wiring.bronze[index]
                && replayed(index)
                && !snapshot.has(&name)
                && !self.files[table].is_empty()
            {
                snapshot.add_table(self.lake, &name, self.versions[table]).await?;
            }
        }
        Ok(())
    }

    /// Feeds the records that are computed again, and the dead letters that are carried over.
    fn replay(&self, sources: &PastSources, worker_turns: &mut WorkerTurns<'_>) -> Result<(), RunError> {
        let started = Instant::now();
        let dataflow = &self.wiring.dataflow;
        let mut records = self.runtime.block_on(async {
            let replayed = |input: usize| sources.inputs[input] == InputSource::Bronze;
            let bronze = |table: &str| {
                let named = |input: &Input| bronze_input(table) == Some(input.name.as_str());
                dataflow.inputs.iter().position(named).is_some_and(replayed)
            };
            let mut snapshot = open(self.lake, self.epoch, bronze).await?;
            self.add_returned(&mut snapshot, replayed).await?;
            let mut records = 0;
            for (index, input) in dataflow.inputs.iter().enumerate() {
                if !replayed(index) || !snapshot.has(&bronze_table(&input.name)) {
                    continue;
                }
                records += history::replay(&snapshot, self.lake, input, async |past| {
                    let delivery = Delivery {
                        input: index,
                        feed: past.feed,
                        partition: past.partition,
                        decoded: past.decoded,
                        position: Position::default(),
                        arrived: started,
                        epoch: None,
                        room: None,
                    };
                    worker_turns.send(PastPiece::Delivery(past.epoch, Box::new(delivery)));
                })
                .await?;
            }
            letters::carry(&snapshot, self.wiring, sources, self.board, |letters| {
                worker_turns.send(PastPiece::Letters(letters));
            })
            .await?;
            Ok::<u64, RunError>(records)
        })?;
        records += reread::read(self, sources, worker_turns)?;
        if records > 0 {
            tracing::info!(records, seconds = started.elapsed().as_secs_f64(), "replayed the past");
            self.board.counters.observe_phase("replay", started.elapsed());
        }
        Ok(())
    }
}
