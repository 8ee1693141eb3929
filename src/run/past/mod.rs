//! A run over a lake that holds a snapshot first brings the graph to where it was: what the graph held is loaded, what was
//! not kept or means something else now is made again from Bronze or the feeds ([`sources`]).
//!
//! ```text
//! blueprint of the snapshot --> sources --+--> state tables, tables ---+
//! definition, plan ----------^            +--> Bronze, archived drops -+--> workers, all at one new epoch
//!                                         +--> feeds, dead letters ----+
//! ```
//! Versions of a key are ordered by the epoch they arrived in, which states and Bronze keep. Dead letters that nothing
//! says again are carried over ([`letters`]). When all of it is closed in the graph, the sinks compare what the graph says
//! with what the tables hold, and write the difference: the audit.

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

pub use self::blueprint::{Blueprint, ColumnForm, Standing};
pub use self::folders::ShiftedFolder;
pub use self::loads::Loads;
pub use self::report::{Part, PlanReport, plan};
pub use self::skips::skips;
pub use self::sources::{First, InputSource, Sources, Stored, TableSource};

use super::RunError;
use super::shared::Shared;
use super::wiring::Wiring;
use crate::definition::Input;
use crate::input::Reform;
use crate::plan::NodeId;
use crate::repr::{CodecError, Epoch, Row, RowCodec, SqlType};
use crate::serve::{Snapshot, history};
use crate::sink::{Lake, LiveFile, Restored, WriterConfig, scan, states, sums};
use crate::source::{Delivery, Position, Progress};

/// Rows that a worker is handed at once.
const ROWS: usize = 8192;

/// A piece of the past, for one worker.
pub enum Past {
    /// Records, and the epoch they first arrived in.
    Delivery(Epoch, Box<Delivery>),
    /// (key, state)s of an input.
    States(usize, Vec<(Row, Row)>),
    /// (key, accumulators) of an aggregate: by what its groups grew.
    Sums(NodeId, Vec<(Row, Row)>),
    /// Rows behind the inputs.
    Rows(Place, Vec<Row>),
    /// Dead letters that nothing else says again.
    Letters(Vec<Row>),
    /// That was all. A past that breaks off has none: the audit would take away what is missing of it.
    End,
}

/// Where rows are fed behind the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// As rows of a table of the graph.
    Table(usize),
    /// As errors of rows that an aggregate was made from.
    Errors(NodeId),
}

impl Past {
    /// How many rows or records it has; at least one.
    pub fn rows(&self) -> usize {
        let rows = match self {
            Past::Delivery(_, delivery) => delivery.decoded.raw.len(),
            Past::States(_, states) | Past::Sums(_, states) => states.len(),
            Past::Rows(_, rows) | Past::Letters(rows) => rows.len(),
            Past::End => 0,
        };
        rows.max(1)
    }
}

/// What was decided of the past.
#[derive(Default)]
pub struct Decided {
    /// What the run's snapshots are computed by.
    pub now: Blueprint,
    /// What the lake's newest was computed by, where that is known.
    pub then: Option<Blueprint>,
    /// Tables of the sink that are audited.
    pub audited: Vec<usize>,
}

/// Decides where the past comes from, and tells the wiring. `recompute`: nothing that the lake keeps of the graph is used.
pub fn decide(
    wiring: &mut Wiring,
    lake: &Lake,
    runtime: &Handle,
    restored: &Restored,
    recompute: bool,
) -> Result<Decided, RunError> {
    let kept = restored.plan.as_ref().filter(|_| !recompute);
    let Some(epoch) = restored.epoch else {
        return Ok(Decided {
            now: Blueprint::of(&wiring.dataflow, &wiring.graph, &wiring.first),
            ..Decided::default()
        });
    };
    let (now, then, sources) = choose(wiring, lake, runtime, epoch, kept, &restored.altered)?;
    if let Some(written) = known(restored.plan.as_ref()) {
        folders::refuse_shifted(&wiring.dataflow, (&written, &now), &restored.progress)?;
    }
    tracing::debug!(?sources, "where the past comes from");
    let audited = wiring.observe_past(sources);
    Ok(Decided { now, then, audited })
}

/// A blueprint as it was kept; none where it is not known, or was written by a version that wrote others.
fn known(plan: Option<&Bytes>) -> Option<Blueprint> {
    plan.and_then(|bytes| serde_json::from_slice(bytes).ok())
}

/// What the run's snapshots are computed by, what the lake's newest was, where that is known, and where the past comes
/// from. `is_altered`: by table of the sink, see [`Restored::altered`].
fn choose(
    wiring: &Wiring,
    lake: &Lake,
    runtime: &Handle,
    epoch: Epoch,
    plan: Option<&Bytes>,
    is_altered: &[bool],
) -> Result<(Blueprint, Option<Blueprint>, Sources), RunError> {
    let (dataflow, graph) = (&wiring.dataflow, &wiring.graph);
    let mut now = Blueprint::of(dataflow, graph, &wiring.first);
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
    let stored = Stored {
        blueprint: then.as_ref(),
        unfit,
        unfit_inputs: unfit_inputs.map(|(input, _)| *input).collect(),
        unfit_sums: wiring.states.sums.is_some_and(|log| is_altered[log]),
    };
    let sources = Sources::of(dataflow, graph, &wiring.first, &now, (epoch, &stored));
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

/// The dead letters of a snapshot, and these tables: others may be lost, and are made again.
async fn open(lake: &Lake, epoch: Epoch, wanted: impl Fn(&str) -> bool) -> Result<Snapshot, RunError> {
    Ok(Snapshot::open_tables(lake, Some(epoch), |table| table == "dead_letters" || wanted(table)).await?)
}

/// What a lake's snapshot holds, and where it goes.
pub struct Bringing<'a> {
    pub wiring: &'a Wiring,
    pub lake: &'a Lake,
    pub runtime: &'a Handle,
    pub shared: &'a Arc<Shared>,
    /// What the snapshot was computed by, where that is known.
    pub blueprint: Option<&'a Blueprint>,
    /// How the lake's files are read.
    pub config: &'a WriterConfig,
    /// By table of the sink: its live files.
    pub files: &'a [Vec<LiveFile>],
    /// How far feeds are read as of the snapshot.
    pub progress: &'a Progress,
    /// The snapshot.
    pub epoch: Epoch,
}

/// Hands pieces to the workers in turn.
struct Hands<'a> {
    workers: &'a [Sender<Past>],
    next: usize,
}

impl Hands<'_> {
    /// May wait: the thread is the past's alone. A worker that is gone has told the conductor why.
    fn give(&mut self, piece: Past) {
        self.next += 1;
        let _ = self.workers[self.next % self.workers.len()].send(piece);
    }
}

impl Bringing<'_> {
    /// Hands all of the past to the workers, and at last its end.
    pub fn bring(&self, workers: &[Sender<Past>]) -> Result<(), RunError> {
        let mut hands = Hands { workers, next: 0 };
        let Some(sources) = &self.wiring.sources else {
            unreachable!("a run over a lake with a past has decided where it comes from")
        };
        self.load(sources, &mut hands)?;
        // Changes of a key count in the order of their arrival, which the graph keeps within an epoch only.
        self.shared.hold_epoch();
        self.replay(sources, &mut hands)?;
        for worker in workers {
            let _ = worker.send(Past::End);
        }
        Ok(())
    }

    /// Rows that [`Bringing::bring`] loads from what the lake keeps, at most.
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

    /// What is kept.
    fn load(&self, sources: &Sources, hands: &mut Hands<'_>) -> Result<(), RunError> {
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
                hands.give(Past::States(*input, states));
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
                self.shared.loaded.fetch_add(passed, Ordering::Relaxed);
                sums.into_iter()
                    .for_each(|(node, sums)| hands.give(Past::Sums(node, sums)));
                Ok(())
            })?;
        }
        if let Some(table) = places.errors {
            rows += self.scan(table, |batch| {
                let found = states::errors(batch)?;
                for node in &sources.sums {
                    let own = found.iter().filter(|(of, _)| *of == first.meanings[*node]);
                    let own: Vec<Row> = own.map(|(_, error)| error.clone()).collect();
                    if !own.is_empty() {
                        hands.give(Past::Rows(Place::Errors(*node), own));
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
                hands.give(Past::Rows(Place::Table(table), rows));
                Ok(())
            })?;
        }
        if rows > 0 {
            tracing::info!(
                rows,
                seconds = started.elapsed().as_secs_f64(),
                "loaded what the graph held"
            );
            self.shared.observe_phase("load", started.elapsed());
        }
        Ok(())
    }

    /// From the form of an input's rows in the lake to that of now.
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

    /// Gives a table's rows in pieces to `each`; says how many there were.
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

    /// What is made again, and the letters that are not.
    fn replay(&self, sources: &Sources, hands: &mut Hands<'_>) -> Result<(), RunError> {
        let started = Instant::now();
        let dataflow = &self.wiring.dataflow;
        let mut records = self.runtime.block_on(async {
            let replayed = |input: usize| sources.inputs[input] == InputSource::Bronze;
            let bronze = |table: &str| {
                let named = |input: &Input| table.strip_prefix("bronze.") == Some(input.name.as_str());
                dataflow.inputs.iter().position(named).is_some_and(replayed)
            };
            let snapshot = open(self.lake, self.epoch, bronze).await?;
            let mut records = 0;
            for (index, input) in dataflow.inputs.iter().enumerate() {
                if !replayed(index) || !snapshot.has(&format!("bronze.{}", input.name)) {
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
                    hands.give(Past::Delivery(past.epoch, Box::new(delivery)));
                })
                .await?;
            }
            letters::carry(&snapshot, self.wiring, sources, self.shared, |letters| {
                hands.give(Past::Letters(letters));
            })
            .await?;
            Ok::<u64, RunError>(records)
        })?;
        records += reread::read(self, sources, hands)?;
        if records > 0 {
            tracing::info!(records, seconds = started.elapsed().as_secs_f64(), "replayed the past");
            self.shared.observe_phase("replay", started.elapsed());
        }
        Ok(())
    }
}
