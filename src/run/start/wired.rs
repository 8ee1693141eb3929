//! The second stage of a start: makes the channels to the workers, and starts the writers and the committer, which
//! receive what workers will send. Nothing is read yet.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::opened::OpenedRun;
use super::process::{RunProcess, spawn_thread};
use crate::evolve::AcceptedColumns;
use crate::lake::Lake;
use crate::run::board::{Board, RunEvent, RunExtent};
use crate::run::conduct::audit::Audit;
use crate::run::conduct::memory::MemoryWatch;
use crate::run::lines::{self, WorkerLines};
use crate::run::past::{PastDecision, PastPiece};
use crate::run::team::{self, Peers, Role, StartCommand, Team};
use crate::run::watched::failure_of;
use crate::run::worker::WorkerParts;
use crate::run::{RunError, Wiring};
use crate::sink::{
    Committer, LiveFile, Prepared, Relocations, Restored, WriterConfig, WriterError, WriterMessage, WriterStats,
    restore, spawn,
};

/// Capacity of the channel to each writer, in messages.
const ARRIVALS: usize = 64;

/// A run whose writers and committer have started. Its workers have not, and nothing is read yet.
pub struct WiredRun {
    pub opened: OpenedRun,
    pub board: Arc<Board>,
    pub lines: WorkerLines,
    /// The channels for the past, indexed by worker.
    pub pasts: Vec<Sender<PastPiece>>,
    /// The channels of each worker.
    pub parts: Vec<WorkerParts>,
    pub writers: Vec<JoinHandle<()>>,
    pub committer: JoinHandle<()>,
    /// The configuration for reading the past from the lake's files.
    pub reading: WriterConfig,
    /// The files of the lake's tables when it was opened.
    pub files: Vec<Vec<LiveFile>>,
    pub memory: MemoryWatch,
    /// The audit, over a lake with a past.
    pub audit: Option<Audit>,
}

impl OpenedRun {
    /// Starts the writers and the committer, and has the other processes load their shares.
    pub fn wire(
        mut self,
        team: &Team,
        events: Sender<RunEvent>,
        process: &RunProcess<'_>,
    ) -> Result<WiredRun, RunError> {
        let replays = self.replays();
        let extent = RunExtent {
            workers: process.workers,
            followers: team.peers().map_or(0, Peers::count),
            inputs: self.wiring.dataflow.inputs.len(),
            epochs: self.epochs,
            load_rows: self.load_rows,
            replays,
            memory: self.wiring.dataflow.bounds.memory,
            skips: self.skips.iter().cloned().collect(),
        };
        let board = Arc::new(Board::new(extent, events));
        let (prepared_in, prepared) = bounded::<Prepared>(2 * process.all_workers());
        if let Some(peers) = team.peers() {
            let start = || {
                let mut start = StartCommand::new(
                    self.epochs,
                    &self.restored,
                    self.wiring.sources.clone(),
                    self.stop_at_end,
                );
                start.taken = AcceptedColumns::from_dataflow(&self.wiring.dataflow);
                start.skips = self.skips.clone();
                start
            };
            peers.begin(
                &board,
                &self.latency,
                &prepared_in,
                &self.restored,
                &self.wiring.specs,
                start,
            );
        }
        if replays {
            board.counters.observe_phase("open", self.took);
        }
        let files = std::mem::take(&mut self.restored.tables);
        let committer = self.committer.take();
        let relocations = committer.as_ref().map(Committer::relocations).unwrap_or_default();
        let writing = Writing {
            process,
            lake: &self.lake,
            wiring: &self.wiring,
            board: &board,
            restored: &self.restored,
            decided: &self.decided,
            relocations,
        };
        let Writers {
            threads: writers,
            mut stats,
            arrivals,
        } = writing.start(team, &files, prepared_in)?;
        let reading = writing.config(0);
        let memory = MemoryWatch::new(self.wiring.clone(), stats.clone());
        let committer = match &team.role {
            Role::Follows(leader) => start_forwarder(leader.forward(stats.clone()), prepared, &board)?,
            Role::Leads(peers) => {
                stats.extend(peers.stats(self.wiring.specs.len()));
                start_committer(committer.expect("who leads has opened the lake"), prepared, &board)?
            }
        };
        let audit = replays.then(|| Audit::new(self.wiring.clone(), stats, board.clone()));
        let (lines, pasts, parts) = lines::channels(arrivals);
        Ok(WiredRun {
            opened: self,
            board,
            lines,
            pasts,
            parts,
            writers,
            committer,
            reading,
            files,
            memory,
            audit,
        })
    }
}

/// What it takes to start writers.
struct Writing<'a> {
    process: &'a RunProcess<'a>,
    lake: &'a Lake,
    wiring: &'a Wiring,
    board: &'a Arc<Board>,
    /// The content of the newest snapshot, except for the tables' files.
    restored: &'a Restored,
    decided: &'a PastDecision,
    relocations: Relocations,
}

/// The writers of this process.
struct Writers {
    threads: Vec<JoinHandle<()>>,
    stats: Vec<Arc<WriterStats>>,
    /// The channels to the writers, indexed by worker.
    arrivals: Vec<Sender<WriterMessage>>,
}

impl Writing<'_> {
    /// The configuration of a writer, which is numbered over all processes.
    fn config(&self, writer: usize) -> WriterConfig {
        WriterConfig {
            writer,
            writers: self.process.all_workers(),
            generation: self.restored.generation,
            specs: self.wiring.specs.clone(),
            lake: self.lake.clone(),
            runtime: self.process.runtime.clone(),
            limits: self.process.options.limits.clone(),
            relocations: self.relocations.clone(),
        }
    }

    /// Reads the lake's tables to build the writers' indexes, and starts the writers.
    fn start(&self, team: &Team, files: &[Vec<LiveFile>], prepared: Sender<Prepared>) -> Result<Writers, RunError> {
        let share = self.process.share;
        // Process 0 has sent only its share of the files to each other process.
        let own = match &team.role {
            Role::Leads(_) => team::share(files, &self.wiring.specs, 0, share.processes),
            Role::Follows(_) => files.to_vec(),
        };
        let indexing = Instant::now();
        let first = self.process.workers * share.process;
        let range = first..first + self.process.workers;
        let loaded = restore(&self.config(first), range, own.into_iter().enumerate().collect())?;
        if self.restored.epoch.is_some() {
            self.board.counters.observe_phase("index", indexing.elapsed());
        }
        let mut writers = Writers {
            threads: vec![],
            stats: vec![],
            arrivals: vec![],
        };
        let past_until = self.board.epochs.plan.past_until;
        for (index, mut restored) in loaded.into_iter().enumerate() {
            let audited = self.decided.audited.iter();
            audited.for_each(|table| restored.audit_next(*table, past_until));
            self.wiring
                .void_log()
                .into_iter()
                .for_each(|log| restored.start_anew(log));
            let (arrivals_in, arrivals) = bounded::<WriterMessage>(ARRIVALS);
            let failed = writer_failed(self.board);
            let writer = spawn(self.config(first + index), restored, arrivals, prepared.clone(), failed)?;
            writers.threads.push(writer.handle);
            writers.stats.push(writer.stats);
            writers.arrivals.push(arrivals_in);
        }
        Ok(writers)
    }
}

/// Reports a writer's error to the conductor, except that the committer is gone, which reports its own.
fn writer_failed(board: &Arc<Board>) -> impl FnOnce(WriterError) + Send + 'static {
    let board = board.clone();
    move |error| match error {
        WriterError::CommitterGone { .. } => {}
        error => board.events.tell(RunEvent::Failed(error.into())),
    }
}

/// Starts the thread that forwards batches to the committer of process 0.
fn start_forwarder(
    forward: impl FnOnce(Receiver<Prepared>) + Send + 'static,
    prepared: Receiver<Prepared>,
    board: &Arc<Board>,
) -> Result<JoinHandle<()>, RunError> {
    let board = board.clone();
    spawn_thread("forwarder", "the way to the committer", move || {
        let forwarded = || {
            forward(prepared);
            Ok::<(), RunError>(())
        };
        if let Some(failure) = failure_of("the way to the committer", forwarded) {
            board.events.tell(RunEvent::Failed(failure));
        }
    })
}

fn start_committer(
    committer: Committer,
    prepared: Receiver<Prepared>,
    board: &Arc<Board>,
) -> Result<JoinHandle<()>, RunError> {
    let board = board.clone();
    spawn_thread("committer", "the committer", move || {
        let (events_in, events) = bounded(4);
        let relay = {
            let board = board.clone();
            std::thread::spawn(move || {
                events
                    .into_iter()
                    .for_each(|event| board.events.tell(RunEvent::Commit(event)));
            })
        };
        if let Some(failure) = failure_of("the committer", || committer.run(prepared, events_in)) {
            board.events.tell(RunEvent::Failed(failure));
        }
        let _ = relay.join();
    })
}
