//! The first stage of a start: opens the lake, or, in other processes than 0, receives from process 0 what it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::presence::RunPresence;
use super::process::RunProcess;
use crate::decode::skip::Skip;
use crate::definition::Dataflow;
use crate::evolve::{self, AcceptedColumns, NewSchemaFields};
use crate::lake::Lake;
use crate::latency::Latency;
use crate::plan::{self, Graph};
use crate::run::board::{Epochs, RunEvent};
use crate::run::past::{self, PastDecision, PastReplay};
use crate::run::team::{Role, StartCommand, Team};
use crate::run::worker::LOAD_ROWS;
use crate::run::{RunError, Wiring};
use crate::sink::{CommitSettings, Committer, LiveFile, Restored};

/// A definition, its plan, and what is taken over from a run that ended because of new fields.
pub struct RunDefinition<'a> {
    pub dataflow: Arc<Dataflow>,
    pub graph: Arc<Graph>,
    pub met: &'a [NewSchemaFields],
    pub latency: Option<Arc<Latency>>,
}

impl RunDefinition<'_> {
    /// In process 0: adds the columns that inputs take from schemas.
    fn lead(self, lake: &Lake, process: &RunProcess<'_>) -> Result<Self, RunError> {
        if !evolve::is_wanted(&self.dataflow) {
            return Ok(self);
        }
        if process.options.without_feeds {
            // No new schema can appear, because nothing new is read.
            let (dataflow, graph) = process.runtime.block_on(evolve::known(&self.dataflow, lake))?;
            return Ok(self.with(dataflow, graph));
        }
        let (dataflow, graph) = evolve::accept(&self.dataflow, lake, process.runtime, self.met)?;
        Ok(self.with(dataflow, graph))
    }

    /// In other processes: adds the columns that process 0 has sent.
    fn follow(self, taken: &AcceptedColumns) -> Result<Self, RunError> {
        if !evolve::is_wanted(&self.dataflow) {
            return Ok(self);
        }
        let dataflow = taken.apply(&self.dataflow);
        let graph = plan::compile(&dataflow).map_err(RunError::Definition)?;
        Ok(self.with(dataflow, graph))
    }

    fn with(self, dataflow: Dataflow, graph: Graph) -> Self {
        RunDefinition {
            dataflow: Arc::new(dataflow),
            graph: Arc::new(graph),
            ..self
        }
    }
}

/// What a process knows of its run before any thread has started.
pub struct OpenedRun {
    pub lake: Lake,
    /// Shows other processes that a run is on this lake.
    pub presence: RunPresence,
    pub wiring: Arc<Wiring>,
    pub latency: Arc<Latency>,
    /// In process 0 only.
    pub committer: Option<Committer>,
    /// The content of the newest snapshot.
    pub restored: Restored,
    /// How the past is restored.
    pub decided: PastDecision,
    pub epochs: Epochs,
    /// Rows of restored state that a worker takes into one epoch.
    pub load_rows: u64,
    pub stop_at_end: bool,
    /// Records to skip.
    pub skips: Vec<Skip>,
    /// How long opening took.
    pub took: Duration,
}

impl OpenedRun {
    /// Opens the lake in process 0; other processes wait for its start command.
    pub fn open(
        definition: RunDefinition<'_>,
        team: &Team,
        events: &Receiver<RunEvent>,
        process: &RunProcess<'_>,
    ) -> Result<OpenedRun, RunError> {
        let started = Instant::now();
        let written = &definition.dataflow;
        let lake = Lake::make(&written.lake, &written.store_options)?.with_durability(written.durable);
        let presence = match team.share.processes {
            1 => RunPresence::announce_single(&lake),
            // The other processes of a cluster are on the same lake.
            _ => RunPresence::announce(&lake),
        };
        let load_rows = process.options.load_rows.unwrap_or(LOAD_ROWS).max(1);
        let start = match &team.role {
            Role::Leads(_) => None,
            Role::Follows(leader) => Some(leader.wait_for_start(events)?),
        };
        let definition = match &start {
            None => definition.lead(&lake, process)?,
            Some((start, _)) => definition.follow(&start.taken)?,
        };
        let mut wiring = Wiring::new(definition.dataflow.clone(), definition.graph.clone());
        let known = match start {
            None => RunStart::of_lake(&mut wiring, &lake, process, load_rows)?,
            Some((start, tables)) => RunStart::of_leader(*start, tables, &mut wiring),
        };
        let latency = definition.latency;
        let latency = latency.unwrap_or_else(|| Arc::new(latency_of(&definition.dataflow, &definition.graph)));
        Ok(OpenedRun {
            lake,
            presence,
            wiring: Arc::new(wiring),
            latency,
            committer: known.committer,
            restored: known.restored,
            decided: known.decided,
            epochs: known.epochs,
            load_rows,
            stop_at_end: known.stop_at_end,
            skips: known.skips,
            took: started.elapsed(),
        })
    }

    /// Whether the lake has a past.
    pub fn replays(&self) -> bool {
        self.restored.epoch.is_some()
    }
}

/// What process 0 works out and sends to the other processes.
struct RunStart {
    committer: Option<Committer>,
    restored: Restored,
    decided: PastDecision,
    epochs: Epochs,
    stop_at_end: bool,
    skips: Vec<Skip>,
}

impl RunStart {
    fn of_lake(
        wiring: &mut Wiring,
        lake: &Lake,
        process: &RunProcess<'_>,
        load_rows: u64,
    ) -> Result<RunStart, RunError> {
        let RunProcess { options, runtime, .. } = *process;
        let dataflow = wiring.dataflow.clone();
        let mut settings = CommitSettings::new(&dataflow.name, process.all_workers());
        settings.policy.retention = dataflow.history;
        settings.policy.guard = dataflow.guard;
        settings.clock = options.clock.of_commits();
        let specs = wiring.specs.to_vec();
        let (mut committer, restored) = Committer::open(lake.clone(), specs, settings, runtime.clone())?;
        let (skips, unskipped) = past::skips(lake, runtime, &restored, &options.skip)?;
        // The lake's state contains the effect of a record that is skipped for the first time.
        let recompute = options.recompute || unskipped;
        let decided = past::decide(wiring, lake, runtime, &restored, recompute)?;
        committer.set_plan(decided.now.plan());
        let many = PastReplay::rows_to_load(wiring, &restored.tables) / load_rows;
        Ok(RunStart {
            committer: Some(committer),
            epochs: Epochs::new(restored.epoch, many, options.clock.millis()),
            restored,
            decided,
            stop_at_end: options.until_caught_up,
            skips,
        })
    }

    fn of_leader(start: StartCommand, tables: Vec<Vec<LiveFile>>, wiring: &mut Wiring) -> RunStart {
        let audited = start.sources.map(|sources| wiring.observe_past(sources));
        RunStart {
            committer: None,
            restored: Restored {
                epoch: start.epoch,
                generation: start.generation,
                progress: start.progress.into_iter().collect(),
                tables,
                altered: vec![],
                versions: vec![],
                plan: None,
            },
            decided: PastDecision {
                audited: audited.unwrap_or_default(),
                ..PastDecision::default()
            },
            epochs: start.epochs,
            stop_at_end: start.stop_at_end,
            skips: start.skips,
        }
    }
}

fn latency_of(dataflow: &Dataflow, graph: &Graph) -> Latency {
    let inputs = dataflow.inputs.iter().map(|input| input.name.clone());
    let tables = graph.tables.iter();
    let tables = tables.map(|table| (table.name.clone(), graph.inputs_of(table.node).into_iter().collect()));
    Latency::new(inputs.collect(), tables.collect())
}
