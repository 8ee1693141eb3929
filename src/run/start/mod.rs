//! Starts a run, in stages. A part starts after the parts that it sends to, so feeds are read last.
//!
//! ```text
//! Team::join -> OpenedRun: the lake, the past, -> WiredRun: writers, committer, -> Engine: workers, (others ready),
//!               columns, the wiring               channels to workers              past, readers, publisher, requests
//! ```
//! A stage that fails drops what it was given, which ends the threads of the stages before it.

mod opened;
mod presence;
mod process;
mod wired;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use tokio::runtime::Runtime;

use self::opened::OpenedRun;
use self::process::RunProcess;
use self::wired::WiredRun;
use self::workers::{WorkerContext, start_workers};
use super::board::{Board, RunEvent};
use super::conduct::pacer::Pacer;
use super::conduct::{Intake, Watches};
use super::engine::Engine;
use super::lines::{WorkerLines, WorkerSignals};
use super::past::{PastPiece, PastReplay};
use super::team::{FollowerHandles, Role, RunThreads, Team};
use super::watched::failure_of;
use super::worker::WorkerOptions;
use super::{Options, RunError, archive};
use crate::backfill::{BackfillChannel, Server, ServerContext};
use crate::decode::Decoder;
use crate::publish::{self, PublishError, Publisher};
use crate::registry::Registries;
use crate::source::{self, ReaderOptions, WorkerChannel};

pub use self::opened::RunDefinition;
pub use self::presence::{RunPresence, is_running};
pub use self::process::spawn_thread;

/// Starts all parts of a run.
pub fn start(definition: RunDefinition<'_>, options: &Options, runtime: &Runtime) -> Result<Engine, RunError> {
    let (events_in, events) = unbounded();
    // All processes agree on the definition; process 0 sends the columns that inputs take in addition to it.
    let mut team = Team::join(&definition.dataflow, &definition.graph, options, &events_in)?;
    let started = Instant::now();
    let process = RunProcess {
        options,
        runtime: runtime.handle(),
        share: team.share,
        workers: options.workers.max(1),
    };
    let running = OpenedRun::open(definition, &team, &events, &process)
        .and_then(|opened| opened.wire(&team, events_in, &process))
        .and_then(|wired| wired.run(&mut team, &events, &process));
    match running {
        Ok(running) => Ok(running.engine(team, events, started)),
        Err(error) => {
            team.fail(&error);
            Err(error)
        }
    }
}

/// A run whose parts have all started, except for the conductor.
struct Running {
    wired: WiredRun,
    threads: RunThreads,
    past: Option<JoinHandle<()>>,
    intake: Intake,
    publisher: Option<Publisher>,
    signals: Option<signal_hook::iterator::Handle>,
}

impl WiredRun {
    /// Starts the workers, waits for the other processes, and starts whatever reads.
    fn run(
        mut self,
        team: &mut Team,
        events: &Receiver<RunEvent>,
        process: &RunProcess<'_>,
    ) -> Result<Running, RunError> {
        let common = WorkerContext {
            options: WorkerOptions {
                one_by_one: process.options.one_by_one,
                panic_on: process.options.panic_on.clone(),
            },
            wiring: self.opened.wiring.clone(),
            board: self.board.clone(),
            latency: self.opened.latency.clone(),
        };
        let (running, threads) = start_workers(team, std::mem::take(&mut self.parts), common)?;
        self.lines.signals.threads = threads;
        let threads = RunThreads {
            writers: std::mem::take(&mut self.writers),
            ..running
        };
        // If anything below fails, this is dropped before the workers are joined, and stops them.
        let mut stopper = Stopper {
            board: self.board.clone(),
            workers: self.lines.signals.clone(),
            is_armed: true,
        };
        match &team.role {
            Role::Leads(peers) => peers.wait_until_ready(events, &self.board)?,
            Role::Follows(leader) => leader.ready(FollowerHandles {
                board: self.board.clone(),
                latency: self.opened.latency.clone(),
                workers: self.lines.signals.clone(),
            }),
        }
        let leads = team.peers().is_some();
        let past = self.start_past(leads, process)?;
        let readers = match process.options.without_feeds {
            true => None,
            false => Some(self.start_readers(process)?),
        };
        let offsets = match leads && readers.is_some() {
            true => source::publish_offsets(&self.opened.wiring.dataflow)?,
            false => None,
        };
        let publisher = match leads {
            true => self.start_publisher(process)?,
            false => None,
        };
        let server = match process.options.rebuilds || !leads {
            true => None,
            false => Some(self.serve_requests(process, readers.is_some())?),
        };
        let signals = listen(process.options, &self.board)?;
        tracing::info!(
            workers = process.workers,
            process = process.share.process,
            processes = process.share.processes,
            generation = self.opened.restored.generation,
            "started"
        );
        stopper.is_armed = false;
        Ok(Running {
            wired: self,
            threads,
            past,
            intake: Intake {
                readers,
                offsets,
                server,
            },
            publisher,
            signals,
        })
    }

    /// Starts the thread that sends the past to the workers. Process 0 reads all of it.
    fn start_past(&mut self, leads: bool, process: &RunProcess<'_>) -> Result<Option<JoinHandle<()>>, RunError> {
        let pasts = std::mem::take(&mut self.pasts);
        let opened = &mut self.opened;
        let Some(epoch) = opened.restored.epoch else {
            return Ok(None);
        };
        if !leads {
            for past in pasts {
                let _ = past.send(PastPiece::End);
            }
            self.lines.signals.wake();
            return Ok(None);
        }
        let (runtime, lake) = (process.runtime.clone(), opened.lake.clone());
        let (wiring, board) = (opened.wiring.clone(), self.board.clone());
        let (workers, config) = (self.lines.signals.clone(), self.reading.clone());
        let (progress, files) = (opened.restored.progress.clone(), std::mem::take(&mut self.files));
        let versions = opened.restored.versions.clone();
        let then = opened.decided.then.take();
        let replay = spawn_thread("replay", "the replay", move || {
            let past = PastReplay {
                wiring: &wiring,
                lake: &lake,
                runtime: &runtime,
                board: &board,
                blueprint: then.as_ref(),
                config: &config,
                files: &files,
                versions: &versions,
                progress: &progress,
                epoch,
            };
            // The workers wait for the end of the past, and nothing else would report that it broke off.
            let failure = failure_of("the replay", || past.send_all(&pasts));
            workers.wake();
            if let Some(failure) = failure {
                board.events.tell(RunEvent::Failed(failure));
            }
        })?;
        Ok(Some(replay))
    }

    fn start_readers(&self, process: &RunProcess<'_>) -> Result<source::Readers, RunError> {
        let opened = &self.opened;
        let dataflow = &opened.wiring.dataflow;
        let registries = Arc::new(Registries::new(Some(opened.lake.clone())));
        for input in &dataflow.inputs {
            for feed in &input.feeds {
                Decoder::new(input, feed, &registries)?; // report undecodable feeds before anything starts
            }
        }
        let WorkerLines {
            deliveries,
            together,
            signals,
            ..
        } = &self.lines;
        let outlets = deliveries.iter().zip(together).zip(&signals.threads);
        let outlets = outlets.map(|((sender, together), worker)| WorkerChannel {
            sender: sender.clone(),
            together: together.clone(),
            wake: waking(worker),
        });
        let options = ReaderOptions {
            registries: registries.clone(),
            stop_at_end: opened.stop_at_end,
            takes_requests: !opened.stop_at_end,
            share: process.share,
            clock: process.options.clock.of_readers(),
            together: self.board.epochs.together.clone(),
            open_epoch: {
                let board = self.board.clone();
                Arc::new(move || board.epochs.live_epoch())
            },
            batch_rows: match process.options.one_by_one {
                true => 1,
                false => ReaderOptions::default().batch_rows,
            },
            ..ReaderOptions::default()
        };
        let decoders = archive::decoders(dataflow, &registries, &opened.lake, process.runtime, &self.board, true);
        let progress = &opened.restored.progress;
        Ok(source::start(
            dataflow.clone(),
            progress,
            decoders,
            outlets.collect(),
            options,
        )?)
    }

    fn start_publisher(&self, process: &RunProcess<'_>) -> Result<Option<Publisher>, RunError> {
        let opened = &self.opened;
        let board = self.board.clone();
        let failed = move |error: PublishError| board.events.tell(RunEvent::Failed(error.into()));
        let origin = publish::SnapshotSource {
            lake: opened.lake.clone(),
            runtime: process.runtime.clone(),
            generation: opened.restored.generation,
            history: opened.wiring.dataflow.history,
        };
        let newest = opened.restored.epoch.unwrap_or(0);
        let wiring = &opened.wiring;
        Ok(publish::start(
            &wiring.dataflow,
            &wiring.specs,
            &origin,
            newest,
            failed,
        )?)
    }

    /// Starts the server of backfills and other requests. `feeds` says whether feeds are read as well.
    fn serve_requests(&self, process: &RunProcess<'_>, feeds: bool) -> Result<Server, RunError> {
        let opened = &self.opened;
        let inlets = self.lines.portions.iter().zip(&self.lines.signals.threads);
        let inlets = inlets.map(|(sender, worker)| BackfillChannel {
            portions: sender.clone(),
            wake: waking(worker),
        });
        let replays = opened.replays();
        let [live, committed, ready, failed] = std::array::from_fn(|_| self.board.clone());
        let serving = ServerContext {
            dataflow: opened.wiring.dataflow.clone(),
            lake: opened.lake.clone(),
            runtime: process.runtime.clone(),
            workers: inlets.collect(),
            live: Arc::new(move || {
                let inputs = live.counters.inputs.iter();
                inputs.map(|input| input.records.load(Ordering::Relaxed)).sum()
            }),
            committed: Arc::new(move || committed.epochs.committed.load(Ordering::Acquire)),
            // The first snapshot after a replay may still add dead letters and remove some.
            ready: Arc::new(move || !replays || ready.epochs.committed.load(Ordering::Acquire) > 0),
            feeds,
            failed: Box::new(move |reason| failed.events.tell(RunEvent::Failed(RunError::Requests(reason)))),
            rate: opened.wiring.dataflow.bounds.backfill_rate,
        };
        Server::start(serving).map_err(|source| RunError::Thread {
            what: "the server of requests",
            source,
        })
    }
}

impl Running {
    fn engine(self, team: Team, events: Receiver<RunEvent>, started: Instant) -> Engine {
        let WiredRun {
            opened,
            board,
            lines,
            committer,
            memory,
            audit,
            ..
        } = self.wired;
        let dataflow = &opened.wiring.dataflow;
        let pacer = Pacer::new(dataflow.epoch, dataflow.commit, opened.epochs.first, Instant::now());
        Engine {
            board,
            wiring: opened.wiring,
            latency: opened.latency,
            events,
            pacer,
            intake: self.intake,
            publisher: self.publisher,
            lines,
            _presence: opened.presence,
            watches: Some(Watches { audit, memory }),
            past: self.past,
            running: self.threads,
            committer,
            signals: self.signals,
            team,
            stop_at_end: opened.stop_at_end,
            started,
        }
    }
}

fn waking(worker: &Thread) -> Arc<dyn Fn() + Send + Sync> {
    let worker = worker.clone();
    Arc::new(move || worker.unpark())
}

/// Stops the workers of a run that could not be started completely, when dropped.
struct Stopper {
    board: Arc<Board>,
    workers: WorkerSignals,
    is_armed: bool,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        if self.is_armed {
            self.board.workers.stop.store(true, Ordering::Release);
            self.workers.wake();
        }
    }
}

/// A second signal to end counts only this long after the first, because whatever forwards signals may send one twice.
const SECOND: Duration = Duration::from_secs(1);

/// Turns signals, and the stop of [`Options`], into events. A second signal to end kills the process at once, which loses
/// nothing, as any crash.
fn listen(options: &Options, board: &Arc<Board>) -> Result<Option<signal_hook::iterator::Handle>, RunError> {
    if let Some(stop) = options.stop.clone() {
        let board = board.clone();
        spawn_thread("stop", "the stop listener", move || {
            let _ = stop.recv(); // a sender that hangs up is a stop, too
            board.events.tell(RunEvent::Stop);
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
    let board = board.clone();
    spawn_thread("signals", "the signal handler", move || {
        let mut asked: Option<Instant> = None;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                board.events.tell(RunEvent::Report);
            } else if asked.is_some_and(|since| since.elapsed() >= SECOND) {
                tracing::warn!(
                    "asked a second time: the run ends at once; the next one reads again what is not committed"
                );
                signal_hook::low_level::exit(128 + signal);
            } else {
                asked.get_or_insert_with(Instant::now);
                board.events.tell(RunEvent::Stop);
            }
        }
    })?;
    Ok(Some(handle))
}
