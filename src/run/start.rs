//! A run put together: what takes starts before what hands over to it, and only then is anything read.
//!
//! ```text
//! team -> lake, past -> writers -> committer -> workers -> (the others are ready) -> past, readers, requests
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use differential_dataflow::trace::ExertionLogic;
use tokio::runtime::{Handle, Runtime};

use super::audit::Audit;
use super::control::Start;
use super::engine::Engine;
use super::epochs::Epochs;
use super::follower::Hands;
use super::memory::Memory;
use super::pacer::Pacer;
use super::past::{self, Bringing, Decided, Past};
use super::peers::{self, Peers};
use super::presence::Presence;
use super::shared::{Event, Shared};
use super::team::{Role, Team, Threads};
use super::watched::failure_of;
use super::weight::Weight;
use super::worker::{self, LOAD_ROWS, Parts};
use super::{Options, RunError, Wiring, archive};
use crate::backfill::{Inlet, Portion, Server, Serving};
use crate::contain;
use crate::decode::Decoder;
use crate::decode::skip::Skip;
use crate::deep::deep;
use crate::definition::Dataflow;
use crate::evolve::{self, Met, Taken};
use crate::latency::Latency;
use crate::plan::{self, Graph};
use crate::publish::{self, PublishError};
use crate::registry::Registries;
use crate::repr::Epoch;
use crate::sink::{
    Arrival, Committer, Lake, LiveFile, Prepared, Relocations, Restored, Settings, WriterConfig, WriterError,
    WriterStats, restore, spawn,
};
use crate::source::{self, Delivery, Outlet, ReaderOptions, Share};

/// Deliveries that may wait for a worker.
pub const DELIVERIES: usize = 16;
/// Portions of requests that may wait for a worker.
const PORTIONS: usize = 2;
/// Arrivals that may wait for a writer.
const ARRIVALS: usize = 64;

/// A definition, its plan, and what is taken over from a run that ended for new fields.
pub struct Definition<'a> {
    pub dataflow: Arc<Dataflow>,
    pub graph: Arc<Graph>,
    pub met: &'a [Met],
    pub latency: Option<Arc<Latency>>,
}

/// Starts everything that runs.
pub fn start(definition: Definition<'_>, options: &Options, runtime: &Runtime) -> Result<Engine, RunError> {
    let (events_in, events) = unbounded();
    // All processes agree on what the definition says; what inputs take beside it, process 0 tells.
    let joined = Team::join(&definition.dataflow, &definition.graph, options, &events_in)?;
    let mut team = Some(joined);
    let engine = assemble(definition, options, runtime, (events_in, events), &mut team);
    if let (Err(error), Some(team)) = (&engine, team) {
        team.fail(error);
    }
    engine
}

/// Starts everything but the team; takes that where it succeeds.
fn assemble(
    definition: Definition<'_>,
    options: &Options,
    runtime: &Runtime,
    (events_in, events): (Sender<Event>, Receiver<Event>),
    joined: &mut Option<Team>,
) -> Result<Engine, RunError> {
    let started = Instant::now();
    let workers = options.workers.max(1);
    let team = joined.as_mut().expect("the team has come together");
    let share = team.share;
    let all = workers * share.processes;
    let written = &definition.dataflow;
    let lake = Lake::make(&written.lake, &written.store_options)?;
    let presence = match share.processes {
        1 => Presence::announce_single(&lake),
        // They are all on it.
        _ => Presence::announce(&lake),
    };
    let told = match &team.role {
        Role::Leads(_) => None,
        Role::Follows(leader) => Some(leader.wait_for_start(&events)?),
    };
    let Definition {
        dataflow,
        graph,
        latency,
        ..
    } = match &told {
        None => definition.lead(&lake, runtime.handle(), options)?,
        Some((start, _)) => definition.follow(&start.taken)?,
    };
    let mut wiring = Wiring::new(dataflow.clone(), graph.clone());
    let Opened {
        committer,
        mut restored,
        decided,
        epochs,
        stop_at_end,
        skips,
    } = match told {
        None => Opened::first(&mut wiring, &lake, options, all, runtime.handle())?,
        Some(told) => Opened::of(told, &mut wiring),
    };
    let opened = started.elapsed();
    let wiring = Arc::new(wiring);
    let load_rows = options.load_rows.unwrap_or(LOAD_ROWS).max(1);
    let epochs = epochs.unwrap_or_else(|| {
        let many = Bringing::rows_to_load(&wiring, &restored.tables) / load_rows;
        Epochs::new(restored.epoch, many, options.clock.millis())
    });
    let replays = restored.epoch.is_some();
    let others = team.peers().map_or(0, Peers::count);
    let inputs = dataflow.inputs.len();
    let mut shared = Shared::new((workers, others), inputs, epochs, replays, events_in);
    shared.load_rows = load_rows;
    shared.weight = Weight::of_limit(dataflow.bounds.memory);
    shared.skips = skips.iter().cloned().collect();
    let shared = Arc::new(shared);
    let latency = latency.unwrap_or_else(|| Arc::new(latency_of(&dataflow, &graph)));
    let (prepared_in, prepared) = bounded::<Prepared>(2 * all);
    if let Some(peers) = team.peers() {
        let start = || {
            let mut start = Start::new(epochs, &restored, wiring.sources.clone(), stop_at_end);
            start.taken = Taken::of(&dataflow);
            start.skips = skips.clone();
            start
        };
        peers.begin(&shared, &latency, &prepared_in, &restored, &wiring.specs, start);
    }
    let files = std::mem::take(&mut restored.tables);
    let setup = Setup {
        options,
        runtime: runtime.handle(),
        lake: &lake,
        wiring: &wiring,
        shared: &shared,
        share,
        workers,
        restored: &restored,
        relocations: committer.as_ref().map(Committer::relocations).unwrap_or_default(),
    };
    if replays {
        shared.observe_phase("open", opened);
    }
    let Writers {
        threads: writers,
        mut stats,
        arrivals,
    } = setup.start_writers(team, &files, (&decided, epochs.past_until), prepared_in)?;
    let memory = Memory::new(wiring.clone(), stats.clone());
    let committer = setup.start_committer(team, committer, prepared, &mut stats)?;
    let audit = replays.then(|| Audit::new(wiring.clone(), stats, shared.clone()));

    let Lines {
        queues,
        together,
        portions,
        pasts,
        seals,
        parts,
    } = Lines::of(arrivals);
    let ways = worker::Ways {
        one_by_one: options.one_by_one,
        panic_on: options.panic_on.clone(),
    };
    let (running, threads) = start_workers(team, (parts, ways), &wiring, &shared, &latency)?;
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
    let leads = team.peers().is_some();
    let past = match replays {
        true => setup.start_past(leads, (decided, files), pasts, &threads)?,
        false => None,
    };
    let readers = match options.without_feeds {
        true => None,
        false => Some(setup.start_readers((&queues, &together), &threads, stop_at_end)?),
    };
    let offsets = match leads && readers.is_some() {
        true => source::publish_offsets(&dataflow)?,
        false => None,
    };
    let publisher = match leads {
        true => {
            let fail = shared.clone();
            let failed = move |error: PublishError| fail.tell(Event::Failed(error.into()));
            let origin = publish::Origin {
                lake: lake.clone(),
                runtime: runtime.handle().clone(),
                generation: restored.generation,
                history: dataflow.history,
            };
            let newest = restored.epoch.unwrap_or(0);
            publish::start(&dataflow, &wiring.specs, &origin, newest, failed)?
        }
        false => None,
    };
    let server = match options.rebuilds || !leads {
        true => None,
        false => Some(setup.serve_requests((&portions, &threads), readers.is_some())?),
    };
    let signals = listen(options, &shared)?;
    tracing::info!(
        workers,
        process = share.process,
        processes = share.processes,
        generation = restored.generation,
        "started"
    );
    let pacer = Pacer::new(dataflow.epoch, dataflow.commit, epochs.first, Instant::now());
    stopper.armed = false;
    Ok(Engine {
        shared,
        wiring,
        latency,
        events,
        pacer,
        readers,
        offsets,
        publisher,
        queues: [queues, together].concat(),
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

impl Definition<'_> {
    /// With the columns that inputs take, by process 0.
    fn lead(self, lake: &Lake, runtime: &Handle, options: &Options) -> Result<Self, RunError> {
        if !evolve::is_wanted(&self.dataflow) {
            return Ok(self);
        }
        if options.without_feeds {
            // Nothing new is read.
            let (dataflow, graph) = runtime.block_on(evolve::known(&self.dataflow, lake))?;
            return Ok(self.with(dataflow, graph));
        }
        let (dataflow, graph) = evolve::take(&self.dataflow, lake, runtime, self.met)?;
        Ok(self.with(dataflow, graph))
    }

    fn with(self, dataflow: Dataflow, graph: Graph) -> Self {
        Definition {
            dataflow: Arc::new(dataflow),
            graph: Arc::new(graph),
            ..self
        }
    }

    /// With the columns that process 0 says.
    fn follow(self, taken: &Taken) -> Result<Self, RunError> {
        if !evolve::is_wanted(&self.dataflow) {
            return Ok(self);
        }
        let dataflow = taken.apply(&self.dataflow);
        let graph = plan::compile(&dataflow).map_err(RunError::Definition)?;
        Ok(self.with(dataflow, graph))
    }
}

fn latency_of(dataflow: &Dataflow, graph: &Graph) -> Latency {
    let inputs = dataflow.inputs.iter().map(|input| input.name.clone());
    let tables = graph.tables.iter();
    let tables = tables.map(|table| (table.name.clone(), graph.inputs_of(table.node).into_iter().collect()));
    Latency::new(inputs.collect(), tables.collect())
}

/// What a process knows of the lake.
struct Opened {
    /// Of process 0 only.
    committer: Option<Committer>,
    restored: Restored,
    decided: Decided,
    /// Process 0 works them out.
    epochs: Option<Epochs>,
    stop_at_end: bool,
    /// Records that are passed by.
    skips: Vec<Skip>,
}

impl Opened {
    /// By process 0, for `writers` in all processes.
    fn first(
        wiring: &mut Wiring,
        lake: &Lake,
        options: &Options,
        writers: usize,
        runtime: &Handle,
    ) -> Result<Opened, RunError> {
        let dataflow = wiring.dataflow.clone();
        let settings = Settings {
            retention: dataflow.history,
            guard: dataflow.guard,
            clock: options.clock.of_commits(),
            ..Settings::new(&dataflow.name, writers, dataflow.durable)
        };
        let specs = wiring.specs.to_vec();
        let (mut committer, restored) = Committer::open(lake.clone(), specs, settings, runtime.clone())?;
        let (skips, unskipped) = past::skips(lake, runtime, &restored, &options.skip)?;
        // What the lake keeps of the graph has what such a record did.
        let recompute = options.recompute || unskipped;
        let decided = past::decide(wiring, lake, runtime, &restored, recompute)?;
        committer.set_plan(decided.now.plan());
        Ok(Opened {
            committer: Some(committer),
            epochs: None,
            restored,
            decided,
            stop_at_end: options.until_caught_up,
            skips,
        })
    }

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
            epochs: Some(start.epochs),
            stop_at_end: start.stop_at_end,
            skips: start.skips,
        }
    }
}

/// What is known once the lake is open: enough to start each part.
struct Setup<'a> {
    options: &'a Options,
    runtime: &'a Handle,
    lake: &'a Lake,
    wiring: &'a Arc<Wiring>,
    shared: &'a Arc<Shared>,
    share: Share,
    /// Of this process.
    workers: usize,
    /// But for the tables' files.
    restored: &'a Restored,
    relocations: Relocations,
}

/// This process's writers.
struct Writers {
    threads: Vec<JoinHandle<()>>,
    stats: Vec<Arc<WriterStats>>,
    /// By worker: the way to its writer.
    arrivals: Vec<Sender<Arrival>>,
}

impl Setup<'_> {
    /// By number of a writer, over all processes.
    fn writer(&self, writer: usize) -> WriterConfig {
        WriterConfig {
            writer,
            writers: self.workers * self.share.processes,
            generation: self.restored.generation,
            specs: self.wiring.specs.clone(),
            store: self.lake.store.clone(),
            root: object_store::path::Path::default(),
            local: self.lake.local.clone(),
            durable: self.wiring.dataflow.durable,
            runtime: self.runtime.clone(),
            limits: self.options.limits.clone(),
            relocations: self.relocations.clone(),
        }
    }

    /// Rebuilds what writers know of the lake's tables, and starts them.
    fn start_writers(
        &self,
        team: &Team,
        files: &[Vec<LiveFile>],
        (decided, past_until): (&Decided, Epoch),
        prepared: Sender<Prepared>,
    ) -> Result<Writers, RunError> {
        // To another process its share was sent.
        let own = match &team.role {
            Role::Leads(_) => peers::share(files, &self.wiring.specs, 0, self.share.processes),
            Role::Follows(_) => files.to_vec(),
        };
        let indexing = Instant::now();
        let first = self.workers * self.share.process;
        let range = first..first + self.workers;
        let loaded = restore(&self.writer(first), range, own.into_iter().enumerate().collect())?;
        if self.restored.epoch.is_some() {
            self.shared.observe_phase("index", indexing.elapsed());
        }
        let mut writers = Writers {
            threads: vec![],
            stats: vec![],
            arrivals: vec![],
        };
        for (index, mut restored) in loaded.into_iter().enumerate() {
            let audited = decided.audited.iter();
            audited.for_each(|table| restored.audit_next(*table, past_until));
            self.wiring
                .void_log()
                .into_iter()
                .for_each(|log| restored.start_anew(log));
            let (arrivals_in, arrivals) = bounded::<Arrival>(ARRIVALS);
            let failed = writer_failed(self.shared);
            let writer = spawn(self.writer(first + index), restored, arrivals, prepared.clone(), failed)?;
            writers.threads.push(writer.handle);
            writers.stats.push(writer.stats);
            writers.arrivals.push(arrivals_in);
        }
        Ok(writers)
    }

    /// Starts the committer, or the way to that of process 0; `stats` come to hold the figures of all writers that it
    /// knows.
    fn start_committer(
        &self,
        team: &Team,
        committer: Option<Committer>,
        prepared: Receiver<Prepared>,
        stats: &mut Vec<Arc<WriterStats>>,
    ) -> Result<JoinHandle<()>, RunError> {
        match (&team.role, committer) {
            (Role::Follows(leader), _) => {
                let forward = leader.forward(stats.clone());
                let shared = self.shared.clone();
                named("forwarder", "the way to the committer", move || {
                    let forwarded = || {
                        forward(prepared);
                        Ok::<(), RunError>(())
                    };
                    if let Some(failure) = failure_of("the way to the committer", forwarded) {
                        shared.tell(Event::Failed(failure));
                    }
                })
            }
            (Role::Leads(peers), committer) => {
                stats.extend(peers.stats(self.wiring.specs.len()));
                let committer = committer.expect("who leads has opened the lake");
                let shared = self.shared.clone();
                named("committer", "the committer", move || {
                    commit(committer, prepared, &shared)
                })
            }
        }
    }

    /// Starts to hand the past to the workers. Process 0 has all of it.
    fn start_past(
        &self,
        leads: bool,
        (decided, files): (Decided, Vec<Vec<LiveFile>>),
        pasts: Vec<Sender<Past>>,
        workers: &[thread::Thread],
    ) -> Result<Option<JoinHandle<()>>, RunError> {
        if !leads {
            for past in pasts {
                let _ = past.send(Past::End);
            }
            workers.iter().for_each(thread::Thread::unpark);
            return Ok(None);
        }
        let (runtime, lake) = (self.runtime.clone(), self.lake.clone());
        let (wiring, shared) = (self.wiring.clone(), self.shared.clone());
        let (workers, config) = (workers.to_vec(), self.writer(0));
        let (progress, epoch) = (self.restored.progress.clone(), self.restored.epoch.unwrap_or_default());
        let replay = named("replay", "the replay", move || {
            let past = Bringing {
                wiring: &wiring,
                lake: &lake,
                runtime: &runtime,
                shared: &shared,
                blueprint: decided.then.as_ref(),
                config: &config,
                files: &files,
                progress: &progress,
                epoch,
            };
            // Nobody else would tell that a past broke off, and the workers wait for its end.
            let failure = failure_of("the replay", || past.bring(&pasts));
            workers.iter().for_each(thread::Thread::unpark);
            if let Some(failure) = failure {
                shared.tell(Event::Failed(failure));
            }
        })?;
        Ok(Some(replay))
    }

    fn start_readers(
        &self,
        (queues, together): (&[Sender<Delivery>], &[Sender<Delivery>]),
        workers: &[thread::Thread],
        stop_at_end: bool,
    ) -> Result<source::Readers, RunError> {
        let dataflow = &self.wiring.dataflow;
        let registries = Arc::new(Registries::new(Some(self.lake.clone())));
        for input in &dataflow.inputs {
            for feed in &input.feeds {
                Decoder::new(input, feed, &registries)?; // a feed that cannot be decoded is told before anything starts
            }
        }
        let outlets = queues.iter().zip(together).zip(workers);
        let outlets = outlets.map(|((sender, together), worker)| Outlet {
            sender: sender.clone(),
            together: together.clone(),
            wake: waking(worker),
        });
        let options = ReaderOptions {
            registries: registries.clone(),
            stop_at_end,
            takes_requests: !stop_at_end,
            share: self.share,
            clock: self.options.clock.of_readers(),
            together: self.shared.together.clone(),
            open_epoch: {
                let shared = self.shared.clone();
                Arc::new(move || shared.live_epoch())
            },
            batch_rows: match self.options.one_by_one {
                true => 1,
                false => ReaderOptions::default().batch_rows,
            },
            ..ReaderOptions::default()
        };
        let decoders = archive::decoders(dataflow, &registries, self.lake, self.runtime, self.shared, true);
        let progress = &self.restored.progress;
        Ok(source::start(
            dataflow.clone(),
            progress,
            decoders,
            outlets.collect(),
            options,
        )?)
    }

    /// Starts what serves backfills and other requests. `feeds`: whether feeds are read beside it.
    fn serve_requests(
        &self,
        (portions, workers): (&[Sender<Portion>], &[thread::Thread]),
        feeds: bool,
    ) -> Result<Server, RunError> {
        let inlets = portions.iter().zip(workers).map(|(sender, worker)| Inlet {
            portions: sender.clone(),
            wake: waking(worker),
        });
        let replays = self.restored.epoch.is_some();
        let [live, committed, ready, failed] = std::array::from_fn(|_| self.shared.clone());
        let serving = Serving {
            dataflow: self.wiring.dataflow.clone(),
            lake: self.lake.clone(),
            runtime: self.runtime.clone(),
            workers: inlets.collect(),
            live: Arc::new(move || {
                let inputs = live.inputs.iter();
                inputs.map(|input| input.records.load(Ordering::Relaxed)).sum()
            }),
            committed: Arc::new(move || committed.committed.load(Ordering::Acquire)),
            // The snapshot of a past that was replayed may write letters, and take some away.
            ready: Arc::new(move || !replays || ready.committed.load(Ordering::Acquire) > 0),
            feeds,
            failed: Box::new(move |reason| failed.tell(Event::Failed(RunError::Requests(reason)))),
            rate: self.wiring.dataflow.bounds.backfill_rate,
        };
        Server::start(serving).map_err(|source| RunError::Thread {
            what: "the server of requests",
            source,
        })
    }
}

fn waking(worker: &thread::Thread) -> Arc<dyn Fn() + Send + Sync> {
    let worker = worker.clone();
    Arc::new(move || worker.unpark())
}

/// The ways to the workers, and what each worker gets.
struct Lines {
    queues: Vec<Sender<Delivery>>,
    /// See [`Outlet::together`].
    together: Vec<Sender<Delivery>>,
    portions: Vec<Sender<Portion>>,
    pasts: Vec<Sender<Past>>,
    seals: Vec<Sender<Epoch>>,
    parts: Vec<Mutex<Option<Parts>>>,
}

impl Lines {
    /// One for each writer.
    fn of(arrivals: Vec<Sender<Arrival>>) -> Lines {
        let mut lines = Lines {
            queues: vec![],
            together: vec![],
            portions: vec![],
            pasts: vec![],
            seals: vec![],
            parts: vec![],
        };
        for (index, writer) in arrivals.into_iter().enumerate() {
            let (deliveries_in, deliveries) = bounded(DELIVERIES);
            let (together_in, together) = bounded(DELIVERIES);
            let (past_in, past) = bounded(DELIVERIES);
            // Few wait at a time: the pacer bounds snapshots in flight.
            let (seals_in, seals) = unbounded();
            let (portions_in, portions) = bounded(PORTIONS);
            lines.queues.push(deliveries_in);
            lines.together.push(together_in);
            lines.portions.push(portions_in);
            lines.pasts.push(past_in);
            lines.seals.push(seals_in);
            lines.parts.push(Mutex::new(Some(Parts {
                index,
                deliveries,
                together,
                past,
                portions,
                seals,
                writer,
            })));
        }
        lines
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
    if let Some(failure) = failure_of("the committer", || committer.run(prepared, events_in)) {
        shared.tell(Event::Failed(failure));
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
    (parts, ways): (Vec<Mutex<Option<Parts>>>, worker::Ways),
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
        let worked = catch_unwind(AssertUnwindSafe(|| {
            // Expressions that are deep are evaluated on this thread.
            deep(|| worker::work(worker, (part, &ways), &wiring, &shared, &latency))
        }));
        match worked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.tell(Event::Failed(error)),
            Err(panic) => {
                shared.tell(Event::Failed(RunError::Worker {
                    message: contain::message(&*panic),
                    named: shared.suspects.named(index, &wiring.dataflow),
                }));
                // Its dataflow is in pieces: timely must not go on with it.
                resume_unwind(panic);
            }
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
