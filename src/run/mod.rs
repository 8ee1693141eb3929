//! A run: readers, workers, writers and the committer put together, and taken apart again in order.
//!
//! ```text
//! reader threads --Delivery--> timely workers --Arrival--> writer threads --Prepared--> committer thread
//!        ^  bounded                  ^  bounded                ^  bounded                    |
//!        |                           |                         |                            v
//!        +------------ conductor: epochs, seals, end <------- Event ----------------- CommitEvent
//! ```
//!
//! Every queue is bounded, so what is downstream slows what is upstream. A part that fails tells the
//! conductor, which stops the run; what was not committed is read again by the next one. A run over a lake
//! that holds a snapshot first replays Bronze through the same graph at one epoch, lets the sinks write only
//! what differs, and then resumes the feeds behind the snapshot's progress.

mod archive;
mod audit;
mod clock;
mod conductor;
mod control;
mod follower;
mod memory;
mod pacer;
mod past;
mod peers;
mod presence;
mod rebuild;
mod shared;
mod status;
mod team;
mod wiring;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use differential_dataflow::trace::ExertionLogic;
use thiserror::Error;
use tokio::runtime::Runtime;

use self::audit::Audit;
use self::clock::Behind;
use self::conductor::{Conducted, Conductor};
use self::control::Start;
use self::follower::{Follower, Hands, Told};
use self::memory::Memory;
use self::pacer::Pacer;
use self::past::{Bringing, Decided, Past};
use self::peers::Peers;
use self::presence::Presence;
use self::shared::{Event, Shared};
use self::status::Status;
use self::team::{Ended, Role, Team, Threads};
use self::worker::{LOAD_ROWS, Parts};
use crate::backfill::{Inlet, Portion, Server, Serving};
use crate::cluster::{ClusterError, Loss, Member, Peer};
use crate::decode::{DecodeError, Decoder};
use crate::definition::{Dataflow, Diagnostics};
use crate::latency::{Figures, Latency, LatencyFileError, LatencyFiles};
use crate::plan::{self, Graph};
use crate::repr::{CodecError, Epoch};
use crate::serve::QueryError;
use crate::serve::history::HistoryError;
use crate::sink::{
    Arrival, CommitError, Committer, Lake, LakeError, Limits, LiveFile, Prepared, Restored, Settings, TableSpec,
    WriterConfig, WriterError, restore, spawn,
};
use crate::source::{self, Delivery, Outlet, Progress, ReaderOptions, SourceError};

pub use clock::Clock;
pub use past::{Part, PlanReport, Standing, plan};
pub use presence::is_running;
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use status::AboveStatus;
pub use wiring::Wiring;

/// Deliveries that may wait for a worker.
const DELIVERIES: usize = 16;
/// Portions of requests that may wait for a worker.
const PORTIONS: usize = 2;
/// Arrivals that may wait for a writer.
const ARRIVALS: usize = 64;
/// Files of a local disk that are written or read at once. tokio would start a thread for each that waits, up to
/// 512, and each keeps what it has freed for itself: a live run held over a gigabyte that way.
const FILES: usize = 32;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Timely workers in this process; 0 counts as 1.
    pub workers: usize,
    /// End when every feed is exhausted and committed.
    pub until_caught_up: bool,
    /// End after so long.
    pub duration: Option<Duration>,
    /// End when this says so, or hangs up.
    pub stop: Option<Receiver<()>>,
    /// Where latency files go; none: no files.
    pub latency_folder: Option<PathBuf>,
    /// Whether Ctrl-C, SIGTERM and SIGUSR1 are ours to handle.
    pub signals: bool,
    /// Over a lake with a past: make all of it again from Bronze and the feeds, whatever the lake keeps of the graph.
    pub recompute: bool,
    /// Rows of what the graph held before that a worker takes into one epoch; none: as many as suits most.
    pub load_rows: Option<u64>,
    /// Whether a terminal shows a live status.
    pub live: bool,
    /// Sizes at which writers change their ways.
    pub limits: Limits,
    /// With several processes, which one this is. Process 0 says when all end; what others are told of that does not
    /// count.
    pub cluster: Option<Arc<Member>>,
    /// No feed is read: the run ends once the lake's past is in effect.
    pub without_feeds: bool,
    /// The lake's tables are made from its past: what the audit writes is no correction, and is not told as one.
    pub rebuilds: bool,
    /// What time it is.
    pub clock: Clock,
}

/// What a run leaves to say.
#[derive(Debug)]
pub struct Outcome {
    /// The newest snapshot committed by this run; 0: nothing changed.
    pub snapshot: Epoch,
    /// Records taken from feeds.
    pub records: u64,
    /// Records of the lake's past that were replayed before; 0 in a new lake.
    pub replayed: u64,
    /// Rows of what the graph held before that were loaded; 0 in a new lake.
    pub loaded: u64,
    /// What the start over a lake with a past took, step by step; empty in a new lake.
    pub phases: Vec<(&'static str, Duration)>,
    /// Records that requests brought.
    pub backfilled: u64,
    /// Of the records taken from feeds, those that became dead letters.
    pub rejected: u64,
    /// Fields that no column takes, by input and name: how many records had them.
    pub ignored: BTreeMap<(usize, String), u64>,
    /// Over a lake with a past, what the audit found to differ from the stored tables and corrected: (table, rows),
    /// tables without a difference left out. None in a new lake, or where the run ended before its first snapshot.
    pub corrections: Option<Vec<(String, u64)>>,
    /// How long it took.
    pub elapsed: Duration,
    /// Latencies.
    pub figures: Figures,
}

/// Why a run could not start, or ended early. What was committed stays; the next run goes on from there.
#[derive(Debug, Error)]
pub enum RunError {
    /// The definition cannot be run.
    #[error("the definition has mistakes:\n{0}")]
    Definition(Diagnostics),
    /// The lake's address.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A snapshot could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A table's files could not be written.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// A feed could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A feed cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Rows could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The lake's tables could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Bronze could not be replayed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Latency files.
    #[error(transparent)]
    LatencyFiles(#[from] LatencyFileError),
    /// An input without Bronze whose feed does not hold its past any more.
    #[error(
        "could not resume: input {input} keeps no Bronze, and feed {feed} no longer holds {partition:?} as it was read, up to {next}; put it back, or use a new lake (bronze = true keeps what arrives)"
    )]
    NoBronze {
        /// Which input.
        input: String,
        /// Which feed.
        feed: String,
        /// The file, or the log's partition.
        partition: String,
        /// How far it was read.
        next: u64,
    },
    /// An expectation with `on_violation = "fail"`.
    #[error(
        "{violations} rows break an expectation that must hold ({example}); no snapshot holds them: repair the input or the expectation, then run again"
    )]
    Expectation {
        /// How many rows, as of the epoch that would have been committed.
        violations: i64,
        /// The reason of one of them.
        example: String,
    },
    /// What an input held is kept with a column of a type that this version does not know.
    #[error("could not read what input {input} held: column {column} has an unknown type; run once with --recompute")]
    StateForm {
        /// Which input.
        input: String,
        /// Which column.
        column: String,
    },
    /// A columnar file could not be archived.
    #[error("could not archive {file} in the lake")]
    Archive {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The processes of a cluster did not come together.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Another process of the cluster went away, or hangs.
    #[error("lost {peer}: {loss}; every process of the cluster ends, and a restart resumes from the last snapshot")]
    Lost {
        /// Which.
        peer: Peer,
        /// How.
        loss: Loss,
    },
    /// Another process of the cluster failed.
    #[error("{peer} failed: {message}")]
    Peer {
        /// Which.
        peer: Peer,
        /// What it says.
        message: String,
    },
    /// Another process sent what no process of ours sends.
    #[error("could not read a message of {peer}; this is a bug")]
    Garbled {
        /// Which.
        peer: Peer,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A thread could not be started.
    #[error("could not start {what}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// timely could not be started.
    #[error("could not start the workers: {0}")]
    Workers(String),
    /// All parts that could tell anything are gone.
    #[error("the workers ended without a word; this is a bug")]
    WorkersGone,
    /// A worker's writer ended; its own error says why.
    #[error("a writer ended before its worker")]
    WriterGone,
    /// Requests cannot be served.
    #[error("could not go on serving requests: {0}; a restart goes on with them")]
    Requests(String),
    /// A thread panicked.
    #[error("{0} panicked: {1}; this is a bug")]
    Panicked(&'static str, String),
}

/// Runs a dataflow until its options say so, or something fails.
pub fn run(dataflow: Arc<Dataflow>, options: &Options) -> Result<Outcome, RunError> {
    if options.signals {
        // Asked for a report before there is one, a process must not end: that is what the signal does by itself.
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::default()).map_err(|source| {
            RunError::Thread {
                what: "the signal handler",
                source,
            }
        })?;
    }
    let graph = Arc::new(plan::compile(&dataflow).map_err(RunError::Definition)?);
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    Engine::start(dataflow, graph, options, &runtime)?.run(options)
}

/// The runtime behind a run's writers and committer.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(FILES)
        .enable_all()
        .build()
}

/// Everything that runs. Fields in the order in which they are taken apart.
struct Engine {
    shared: Arc<Shared>,
    wiring: Arc<Wiring>,
    latency: Arc<Latency>,
    events: Receiver<Event>,
    pacer: Pacer,
    readers: Option<source::Readers>,
    queues: Vec<Sender<Delivery>>,
    portions: Vec<Sender<Portion>>,
    server: Option<Server>,
    /// Says to others that a run is on the lake.
    _presence: Presence,
    seals: Vec<Sender<Epoch>>,
    past: Option<JoinHandle<()>>,
    running: Threads,
    threads: Vec<thread::Thread>,
    audit: Option<Audit>,
    memory: Option<Memory>,
    committer: JoinHandle<()>,
    signals: Option<signal_hook::iterator::Handle>,
    team: Team,
    stop_at_end: bool,
    started: Instant,
}

impl Engine {
    fn start(
        dataflow: Arc<Dataflow>,
        graph: Arc<Graph>,
        options: &Options,
        runtime: &Runtime,
    ) -> Result<Engine, RunError> {
        let (events_in, events) = unbounded();
        let mut team = Some(Team::join(&dataflow, &graph, options, &events_in)?);
        let engine = Engine::assemble(dataflow, graph, options, runtime, (events_in, events), &mut team);
        if let (Err(error), Some(team)) = (&engine, team) {
            team.fail(error);
        }
        engine
    }

    /// Starts everything that runs; takes the team where that succeeds.
    fn assemble(
        dataflow: Arc<Dataflow>,
        graph: Arc<Graph>,
        options: &Options,
        runtime: &Runtime,
        (events_in, events): (Sender<Event>, Receiver<Event>),
        joined: &mut Option<Team>,
    ) -> Result<Engine, RunError> {
        let started = Instant::now();
        let workers = options.workers.max(1);
        let team = joined.as_mut().expect("the team has come together");
        let share = team.share;
        let (all, first_worker) = (workers * share.processes, workers * share.process);
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
        let presence = Presence::announce(&lake);
        let mut wiring = Wiring::new(dataflow.clone(), graph.clone());
        let handle = runtime.handle().clone();
        let Opened {
            committer,
            restored,
            decided,
            first,
            past_until,
            stop_at_end,
        } = match &team.role {
            Role::Leads(_) => {
                let settings = Settings {
                    retention: dataflow.history,
                    guard: dataflow.guard,
                    clock: options.clock.of_commits(),
                    ..Settings::new(&dataflow.name, all, dataflow.durable)
                };
                let specs: Vec<TableSpec> = wiring.specs.to_vec();
                let (mut committer, restored) = Committer::open(lake.clone(), specs, settings, handle.clone())?;
                let decided = past::decide(&mut wiring, &lake, &handle, &restored, options.recompute)?;
                committer.set_plan(decided.now.plan());
                Opened {
                    committer: Some(committer),
                    first: options.clock.millis().max(restored.epoch.map_or(0, |epoch| epoch + 1)),
                    past_until: None,
                    restored,
                    decided,
                    stop_at_end: options.until_caught_up,
                }
            }
            Role::Follows(leader) => Opened::of(leader.wait_for_start(&events)?, &mut wiring),
        };
        let opened = started.elapsed();
        let wiring = Arc::new(wiring);
        let load_rows = options.load_rows.unwrap_or(LOAD_ROWS).max(1);
        let past_until =
            past_until.unwrap_or_else(|| first + Bringing::rows_to_load(&wiring, &restored.tables) / load_rows);

        let replays = restored.epoch.is_some();
        let inputs = dataflow.inputs.len();
        let others = team.peers().map_or(0, Peers::count);
        let mut shared = Shared::new((workers, others), inputs, (first, past_until), replays, events_in);
        shared.load_rows = load_rows;
        let shared = Arc::new(shared);
        let latency = Arc::new(Latency::new(
            dataflow.inputs.iter().map(|input| input.name.clone()).collect(),
            graph
                .tables
                .iter()
                .map(|t| (t.name.clone(), graph.inputs_of(t.node).into_iter().collect()))
                .collect(),
        ));

        let relocations = committer.as_ref().map(Committer::relocations).unwrap_or_default();
        let (prepared_in, prepared) = bounded::<Prepared>(2 * all);
        if let Some(peers) = team.peers() {
            let start = || Start::new((first, past_until), &restored, wiring.sources.clone(), stop_at_end);
            peers.begin(&shared, &latency, &prepared_in, &restored, &wiring.specs, start);
        }
        let config = |writer: usize| WriterConfig {
            writer,
            writers: all,
            generation: restored.generation,
            specs: wiring.specs.clone(),
            store: lake.store.clone(),
            root: object_store::path::Path::default(),
            local: lake.local.clone(),
            durable: dataflow.durable,
            runtime: handle.clone(),
            limits: options.limits.clone(),
            relocations: relocations.clone(),
        };
        // To another process its share was sent.
        let own = match &team.role {
            Role::Leads(_) => peers::share(&restored.tables, &wiring.specs, 0, share.processes),
            Role::Follows(_) => restored.tables.clone(),
        };
        let indexing = Instant::now();
        let mut loaded = restore(
            &config(first_worker),
            first_worker..first_worker + workers,
            own.into_iter().enumerate().collect(),
        )?;
        if replays {
            shared.observe_phase("open", opened);
            shared.observe_phase("index", indexing.elapsed());
        }
        let mut arrivals = Vec::new();
        let (mut writers, mut stats) = (Vec::new(), Vec::new());
        for (index, mut restored) in loaded.drain(..).enumerate() {
            decided
                .audited
                .iter()
                .for_each(|table| restored.audit_next(*table, past_until));
            let (arrivals_in, arrivals_out) = bounded::<Arrival>(ARRIVALS);
            let writer = spawn(
                config(first_worker + index),
                restored,
                arrivals_out,
                prepared_in.clone(),
                writer_failed(&shared),
            )?;
            writers.push(writer.handle);
            stats.push(writer.stats);
            arrivals.push(arrivals_in);
        }
        drop(prepared_in);
        let committer = match (&team.role, committer) {
            (Role::Follows(leader), _) => {
                let forward = leader.forward(stats.clone());
                named("forwarder", "the way to the committer", move || forward(prepared))?
            }
            (Role::Leads(peers), committer) => {
                stats.extend(peers.stats(wiring.specs.len()));
                let committer = committer.expect("who leads has opened the lake");
                let shared = shared.clone();
                named("committer", "the committer", move || {
                    commit(committer, prepared, &shared)
                })?
            }
        };
        let memory = Memory::new(wiring.clone(), stats[..workers].to_vec());
        let audit = replays.then(|| Audit::new(wiring.clone(), stats, shared.clone()));

        let mut queues = Vec::new();
        let mut portions = Vec::new();
        let mut pasts = Vec::new();
        let mut seals = Vec::new();
        let mut parts = Vec::new();
        for (index, writer) in arrivals.into_iter().enumerate() {
            let (deliveries_in, deliveries) = bounded::<Delivery>(DELIVERIES);
            let (past_in, past) = bounded::<Past>(DELIVERIES);
            // Few wait at a time: the pacer bounds snapshots in flight.
            let (seals_in, seals_out) = unbounded();
            let (portions_in, portions_out) = bounded::<Portion>(PORTIONS);
            queues.push(deliveries_in);
            portions.push(portions_in);
            seals.push(seals_in);
            pasts.push(past_in);
            parts.push(std::sync::Mutex::new(Some(Parts {
                index,
                deliveries,
                past,
                portions: portions_out,
                seals: seals_out,
                writer,
            })));
        }
        let (running, threads) = start_workers(team, parts, &wiring, &shared, &latency)?;
        let running = Threads { writers, ..running };
        // Dropped before the workers are waited for, should anything below fail.
        let mut stopper = Stopper {
            shared: shared.clone(),
            threads: threads.clone(),
            armed: true,
        };
        match &team.role {
            Role::Leads(peers) => peers.wait_until_ready(&events, &shared)?,
            Role::Follows(leader) => leader.ready(Hands {
                shared: shared.clone(),
                latency: latency.clone(),
                seals: seals.clone(),
                workers: threads.clone(),
            }),
        }

        let past = if replays && team.peers().is_none() {
            // Process 0 has all of the past.
            for past in pasts {
                let _ = past.send(Past::End);
            }
            threads.iter().for_each(thread::Thread::unpark);
            None
        } else if replays {
            let (handle, lake, wiring, shared) = (handle.clone(), lake.clone(), wiring.clone(), shared.clone());
            let (threads, config) = (threads.clone(), config(0));
            let (progress, files) = (restored.progress.clone(), restored.tables);
            let epoch = restored.epoch.unwrap_or_default();
            Some(named("replay", "the replay", move || {
                let past = Bringing {
                    wiring: &wiring,
                    lake: &lake,
                    runtime: &handle,
                    shared: &shared,
                    blueprint: decided.then.as_ref(),
                    config: &config,
                    files: &files,
                    progress: &progress,
                    epoch,
                };
                // Nobody else would tell that a past broke off, and the workers wait for its end.
                let brought = catch_unwind(AssertUnwindSafe(|| past.bring(&pasts)))
                    .unwrap_or_else(|panic| Err(RunError::Panicked("the replay", message(panic))));
                threads.iter().for_each(thread::Thread::unpark);
                if let Err(error) = brought {
                    shared.tell(Event::Failed(error));
                }
            })?)
        } else {
            drop(pasts);
            None
        };
        let outlets = queues.iter().zip(&threads).map(|(sender, thread)| {
            let thread = thread.clone();
            Outlet {
                sender: sender.clone(),
                wake: Arc::new(move || thread.unpark()),
            }
        });
        let progress = &restored.progress;
        let options_of_readers = ReaderOptions {
            stop_at_end,
            share,
            clock: options.clock.of_readers(),
            ..ReaderOptions::default()
        };
        let outlets = outlets.collect();
        let readers = match options.without_feeds {
            true => None,
            false => Some(start_readers(
                &dataflow,
                progress,
                &lake,
                outlets,
                options_of_readers,
                &handle,
                &shared,
            )?),
        };
        let server = match options.rebuilds || team.peers().is_none() {
            true => None,
            false => Some(serve_requests(
                &dataflow,
                &lake,
                &handle,
                &shared,
                (&portions, &threads),
                (replays, readers.is_some()),
            )?),
        };
        let signals = listen(options, &shared)?;
        tracing::info!(
            workers,
            process = share.process,
            processes = share.processes,
            generation = restored.generation,
            "started"
        );
        let pacer = Pacer::new(dataflow.epoch, dataflow.commit, first, Instant::now());
        stopper.armed = false;
        Ok(Engine {
            shared,
            wiring,
            latency,
            events,
            pacer,
            readers,
            queues,
            portions,
            server,
            _presence: presence,
            seals,
            past,
            running,
            threads,
            audit,
            memory: Some(memory),
            committer,
            signals,
            team: joined.take().expect("the team is here until now"),
            stop_at_end,
            started,
        })
    }

    fn run(mut self, options: &Options) -> Result<Outcome, RunError> {
        let (conducted, mut told) = match self.conduct(options) {
            Ok(conducted) => conducted,
            Err(error) => return Err(self.part(error)),
        };
        // Workers first, then what they feed: each ends when its senders are gone.
        if let Some(peers) = self.team.peers() {
            peers.stop();
        }
        self.stop();
        let Ended { workers, writers } = self.running.join();
        if let Some(past) = self.past {
            // Its failure, if any, has been told.
            let _ = past.join();
        }
        if let Role::Leads(peers) = &mut self.team.role {
            peers.end(&self.events)?;
        }
        let committer = self.committer.join();
        if let Some(signals) = self.signals {
            signals.close();
        }
        if let Some(panic) = workers {
            return Err(RunError::Panicked("a worker", panic));
        }
        for writer in writers {
            writer.map_err(|panic| RunError::Panicked("a writer", message(panic)))?;
        }
        committer.map_err(|panic| RunError::Panicked("the committer", message(panic)))?;
        if let Role::Follows(leader) = self.team.role {
            leader.end(told.figures(&self.shared), &self.latency);
        }
        let Conducted { snapshot, corrections } = conducted;
        let sum = |count: fn(&shared::InputCounters) -> u64| self.shared.inputs.iter().map(count).sum();
        Ok(Outcome {
            snapshot,
            records: sum(|c| c.records.load(Ordering::Relaxed)),
            replayed: sum(|c| c.replayed.load(Ordering::Relaxed)),
            backfilled: sum(|c| c.backfilled.load(Ordering::Relaxed)),
            loaded: self.shared.loaded.load(Ordering::Relaxed),
            phases: self.shared.phases(),
            rejected: sum(|c| c.rejected.load(Ordering::Relaxed)),
            ignored: self.shared.ignored(),
            corrections,
            elapsed: self.started.elapsed(),
            figures: self.latency.figures(),
        })
    }

    /// Runs until all is committed, or something fails.
    fn conduct(&mut self, options: &Options) -> Result<(Conducted, Told), RunError> {
        let dataflow = self.wiring.dataflow.clone();
        let peers = match &self.team.role {
            Role::Leads(peers) => peers,
            Role::Follows(leader) => {
                let follower = Follower {
                    leader,
                    shared: self.shared.clone(),
                    events: self.events.clone(),
                    latency: self.latency.clone(),
                    queues: self.queues.clone(),
                    readers: self.readers.take(),
                    memory: self.memory.take().expect("a run is conducted once"),
                    until_caught_up: self.stop_at_end,
                    told: Told::default(),
                };
                return follower.follow();
            }
        };
        let files = match &options.latency_folder {
            Some(folder) => Some(LatencyFiles::create(folder, SystemTime::now())?),
            None => None,
        };
        let names = dataflow.inputs.iter().map(|input| input.name.clone()).collect();
        let conductor = Conductor {
            shared: self.shared.clone(),
            events: self.events.clone(),
            latency: self.latency.clone(),
            files,
            workers: self.threads.clone(),
            peers,
            queues: self.queues.clone(),
            portions: self.portions.clone(),
            server: self.server.take(),
            seals: std::mem::take(&mut self.seals),
            readers: self.readers.take(),
            options,
            status: Status::new(names, options.live),
            pacer: self.pacer.clone(),
            temporal: self.wiring.temporal(),
            past_closed: false,
            audit: self.audit.take(),
            behind: Behind::default(),
            memory: self.memory.take().expect("a run is conducted once"),
            corrections: None,
            commit: dataflow.commit,
            fence: None,
        };
        Ok((conductor.conduct()?, Told::default()))
    }

    fn stop(&mut self) {
        self.seals.clear();
        self.shared.stop.store(true, Ordering::Release);
        self.threads.iter().for_each(thread::Thread::unpark);
        self.queues.clear();
        self.portions.clear();
    }

    /// Ends a run that failed; says why it did.
    fn part(mut self, error: RunError) -> RunError {
        let error = match error {
            RunError::WriterGone => first_fault(self.events.try_iter()).unwrap_or(RunError::WriterGone),
            other => other,
        };
        self.team.tell(&error);
        self.stop();
        let ended = self.running.part();
        // What waits for a lost peer is left behind.
        let alone = self.team.share.processes == 1;
        match (self.team.peers().is_some(), ended) {
            (_, None) => self.team.part(),
            // The committer ends when no peer can hand over any more; a forwarder has to, to let go of its link.
            (true, Some(_)) => {
                self.team.part();
                let _ = self.committer.join();
            }
            (false, Some(_)) => {
                let _ = self.committer.join();
                self.team.part();
            }
        }
        if let Some(past) = self.past.filter(|_| alone) {
            let _ = past.join();
        }
        if let Some(signals) = self.signals {
            signals.close();
        }
        error
    }
}

/// Ends workers of a run that could not be put together.
struct Stopper {
    shared: Arc<Shared>,
    threads: Vec<thread::Thread>,
    armed: bool,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        if self.armed {
            self.shared.stop.store(true, Ordering::Release);
            self.threads.iter().for_each(thread::Thread::unpark);
        }
    }
}

/// What a process knows of the lake.
struct Opened {
    /// Of process 0 only.
    committer: Option<Committer>,
    restored: Restored,
    decided: Decided,
    first: Epoch,
    /// Process 0 works it out.
    past_until: Option<Epoch>,
    stop_at_end: bool,
}

impl Opened {
    /// As process 0 says.
    fn of((start, tables): (Box<Start>, Vec<Vec<LiveFile>>), wiring: &mut Wiring) -> Opened {
        let audited = start.sources.map(|sources| wiring.observe_past(sources));
        Opened {
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
            decided: Decided {
                audited: audited.unwrap_or_default(),
                ..Decided::default()
            },
            first: start.first,
            past_until: Some(start.past_until),
            stop_at_end: start.stop_at_end,
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The failure that another one followed from, if it was told.
fn first_fault(mut events: impl Iterator<Item = Event>) -> Option<RunError> {
    events.find_map(|event| match event {
        Event::Failed(error) if !matches!(error, RunError::WriterGone) => Some(error),
        _ => None,
    })
}

fn named<T: Send + 'static>(
    name: &str,
    what: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map_err(|source| RunError::Thread { what, source })
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_string()
}

/// Tells the conductor of a writer's fault; that the committer is gone that one tells itself.
fn writer_failed(shared: &Arc<Shared>) -> impl FnOnce(WriterError) + Send + 'static {
    let shared = shared.clone();
    move |error| match error {
        WriterError::CommitterGone { .. } => {}
        error => shared.tell(Event::Failed(error.into())),
    }
}

fn commit(committer: Committer, prepared: Receiver<Prepared>, shared: &Arc<Shared>) {
    let (events_in, events) = bounded(4);
    let relay = {
        let shared = shared.clone();
        thread::spawn(move || events.into_iter().for_each(|event| shared.tell(Event::Commit(event))))
    };
    if let Err(error) = committer.run(prepared, events_in) {
        shared.tell(Event::Failed(error.into()));
    }
    let _ = relay.join();
}

/// Tells the conductor when a worker ends other than asked to.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.tell(Event::Failed(RunError::Panicked(
                "a worker",
                "see the message above".into(),
            )));
        }
    }
}

fn start_workers(
    team: &mut Team,
    parts: Vec<std::sync::Mutex<Option<Parts>>>,
    wiring: &Arc<Wiring>,
    shared: &Arc<Shared>,
    latency: &Arc<Latency>,
) -> Result<(Threads, Vec<thread::Thread>), RunError> {
    let workers = parts.len();
    let (threads_in, threads_out) = unbounded();
    let mut config = timely::WorkerConfig::default();
    // An idle worker goes on with merges that are under way, and starts none: differential's own `idle_merge_effort`
    // merges whatever there is into one batch, so that a live load pays for all of its state at each epoch.
    let exert: ExertionLogic = Arc::new(|layers| layers.iter().any(|(_, batches, _)| *batches > 1).then_some(1000));
    config.set("differential/default_exert_logic".to_string(), exert);
    let (wiring, shared, latency) = (wiring.clone(), shared.clone(), latency.clone());
    let (builders, network) = team.allocators(workers)?;
    let first = team.share.process * workers;
    let guards = timely::execute::execute_from(builders, Box::new(()), config, move |worker| {
        let _alarm = Alarm(shared.clone());
        let index = worker.index() - first;
        let _ = threads_in.send((index, thread::current()));
        let part = parts[index].lock().ok().and_then(|mut part| part.take());
        let part = part.expect("each worker takes its part once");
        if let Err(error) = worker::work(worker, part, &wiring, &shared, &latency) {
            shared.tell(Event::Failed(error));
        }
    })
    .map_err(RunError::Workers)?;
    let mut threads: Vec<(usize, thread::Thread)> = threads_out.iter().take(workers).collect();
    threads.sort_by_key(|(index, _)| *index);
    let running = Threads {
        workers: guards,
        network,
        writers: vec![],
    };
    Ok((running, threads.into_iter().map(|(_, thread)| thread).collect()))
}

fn start_readers(
    dataflow: &Arc<Dataflow>,
    progress: &Progress,
    lake: &Lake,
    outlets: Vec<Outlet>,
    options: ReaderOptions,
    runtime: &tokio::runtime::Handle,
    shared: &Arc<Shared>,
) -> Result<source::Readers, RunError> {
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            Decoder::new(input, feed)?; // a feed that cannot be decoded is told before anything starts
        }
    }
    let decoders = archive::decoders(dataflow, lake, runtime, shared);
    Ok(source::start(dataflow.clone(), progress, decoders, outlets, options)?)
}

/// Starts what serves backfills and other requests.
fn serve_requests(
    dataflow: &Arc<Dataflow>,
    lake: &Lake,
    runtime: &tokio::runtime::Handle,
    shared: &Arc<Shared>,
    (portions, threads): (&[Sender<Portion>], &[thread::Thread]),
    (replays, feeds): (bool, bool),
) -> Result<Server, RunError> {
    let workers = portions.iter().zip(threads).map(|(sender, thread)| {
        let thread = thread.clone();
        Inlet {
            portions: sender.clone(),
            wake: Arc::new(move || thread.unpark()),
        }
    });
    let [live, committed, ready, failed] = std::array::from_fn(|_| shared.clone());
    let serving = Serving {
        dataflow: dataflow.clone(),
        lake: lake.clone(),
        runtime: runtime.clone(),
        workers: workers.collect(),
        live: Arc::new(move || {
            live.inputs
                .iter()
                .map(|input| input.records.load(Ordering::Relaxed))
                .sum()
        }),
        committed: Arc::new(move || committed.committed.load(Ordering::Acquire)),
        // The snapshot of a past that was replayed may write letters, and take some away.
        ready: Arc::new(move || !replays || ready.committed.load(Ordering::Acquire) > 0),
        feeds,
        failed: Box::new(move |reason| failed.tell(Event::Failed(RunError::Requests(reason)))),
        rate: dataflow.bounds.backfill_rate,
    };
    Server::start(serving).map_err(|source| RunError::Thread {
        what: "the server of requests",
        source,
    })
}

/// Signals become events.
fn listen(options: &Options, shared: &Arc<Shared>) -> Result<Option<signal_hook::iterator::Handle>, RunError> {
    if let Some(stop) = options.stop.clone() {
        let shared = shared.clone();
        named("stop", "the stop listener", move || {
            let _ = stop.recv(); // hanging up is a stop too
            shared.tell(Event::Stop);
        })?;
    }
    if !options.signals {
        return Ok(None);
    }
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    let failed = |source| RunError::Thread {
        what: "the signal handler",
        source,
    };
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(failed)?;
    let handle = signals.handle();
    let shared = shared.clone();
    named("signals", "the signal handler", move || {
        for signal in signals.forever() {
            shared.tell(if signal == SIGUSR1 { Event::Report } else { Event::Stop });
        }
    })?;
    Ok(Some(handle))
}
