//! Process 0's view of the other processes: what it commands them, and what it takes from their reports.
//!
//! A report becomes what a local worker would have done: counters and flags of [`Shared`], parts of snapshots for the
//! committer. So the conductor knows workers, and not where they are; a run of one process has no peers, and is
//! otherwise the same.
//!
//! Reports are taken on the links' threads. Nothing there waits: the committer's queue has room for every part that may be
//! under way, for the pacer bounds the snapshots in flight.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::control::{self, Command, Garbled, Progress, Report, Start};
use super::shared::{Event, Shared};
use super::{RunError, team};
use crate::cluster::{Heard, Link, Member, Peer};
use crate::latency::Latency;
use crate::repr::{Epoch, Row};
use crate::sink::{LiveFile, Prepared, Restored, TableSpec, WriterStats};
use crate::source::FeedStatus;

/// How long an ended process may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// The other processes; none in a run of one.
#[derive(Default)]
pub struct Peers {
    peers: Vec<Remote>,
}

struct Remote {
    state: Arc<State>,
    link: Link,
}

/// What is known of one process.
struct State {
    peer: Peer,
    /// Its place among the followers: where its frontier is in [`Shared`].
    follower: usize,
    ready: AtomicBool,
    caught_up: AtomicBool,
    drained: AtomicBool,
    done: AtomicBool,
    feeds: Mutex<Vec<FeedStatus>>,
    /// Of all its writers together; only corrections are told.
    stats: OnceLock<Arc<WriterStats>>,
    events: Sender<Event>,
    /// Where reports go, once there is a run.
    run: Mutex<Option<Run>>,
}

#[derive(Clone)]
struct Run {
    shared: Arc<Shared>,
    latency: Arc<Latency>,
    prepared: Sender<Prepared>,
}

impl Peers {
    /// Over the control sockets to every other process.
    pub fn start(
        member: &Member,
        control: Vec<Option<TcpStream>>,
        events: &Sender<Event>,
        ours: bool,
    ) -> Result<Peers, RunError> {
        let mut peers = Vec::new();
        for (process, socket) in control.into_iter().enumerate() {
            let Some(socket) = socket else { continue };
            let state = Arc::new(State {
                peer: member.peer(process),
                follower: process - 1,
                ready: AtomicBool::new(false),
                caught_up: AtomicBool::new(false),
                drained: AtomicBool::new(false),
                done: AtomicBool::new(false),
                feeds: Mutex::default(),
                stats: OnceLock::new(),
                events: events.clone(),
                run: Mutex::default(),
            });
            let hearing = state.clone();
            let link = Link::start(socket, &format!("process {process}"), move |heard| match heard {
                Heard::Message(message) => hearing.take(&message),
                Heard::Lost(loss) => {
                    *hearing.run() = None;
                    team::lost(&hearing.events, hearing.peer.clone(), loss, ours);
                }
            });
            let link = link.map_err(|source| RunError::Thread {
                what: "a link to another process",
                source,
            })?;
            peers.push(Remote { state, link });
        }
        Ok(Peers { peers })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Lets the others load their shares, and from then on takes their reports.
    pub fn begin(
        &self,
        shared: &Arc<Shared>,
        latency: &Arc<Latency>,
        prepared: &Sender<Prepared>,
        restored: &Restored,
        specs: &[TableSpec],
        start: impl Fn() -> Start,
    ) {
        let processes = self.peers.len() + 1;
        for (process, remote) in (1..).zip(&self.peers) {
            *remote.state.run() = Some(Run {
                shared: shared.clone(),
                latency: latency.clone(),
                prepared: prepared.clone(),
            });
            let tables = share(&restored.tables, specs, process, processes);
            remote.link.send(start().encode(&tables));
        }
    }

    /// Waits until every process has built its graph; fails when one fails.
    pub fn wait_until_ready(&self, events: &Receiver<Event>, shared: &Shared) -> Result<(), RunError> {
        let mut early = vec![];
        while !self.peers.iter().all(|r| r.state.ready.load(Ordering::Acquire)) {
            match events.recv() {
                Ok(Event::Failed(error)) => return Err(error),
                Ok(event @ (Event::Stop | Event::Evolves(_))) => early.push(event),
                Ok(Event::Progress) => shared.look(),
                Ok(_) => {}
                Err(_) => return Err(RunError::WorkersGone),
            }
        }
        early.into_iter().for_each(|event| shared.tell(event));
        // What was looked at here may be news to the conductor.
        shared.poke();
        Ok(())
    }

    fn command(&self, command: &Command) {
        for remote in &self.peers {
            remote.link.send(control::encode(command, &[]));
        }
    }

    /// An epoch is open.
    pub fn open(&self, epoch: Epoch) {
        self.command(&Command::Open(epoch));
    }

    /// A snapshot is to be prepared.
    pub fn seal(&self, epoch: Epoch) {
        self.command(&Command::Seal(epoch));
    }

    /// What is behind?
    pub fn ask(&self) {
        self.command(&Command::Ask);
    }

    /// Read no more.
    pub fn drain(&self) {
        self.command(&Command::Drain);
    }

    /// A snapshot is committed.
    pub fn committed(&self, epoch: Epoch) {
        self.command(&Command::Committed(epoch));
    }

    /// All is committed; `again`: the run begins anew.
    pub fn stop(&self, again: bool) {
        self.command(&Command::Stop { again });
    }

    /// The run failed.
    pub fn fail(&self, message: &str) {
        self.command(&Command::Failed(message.to_string()));
    }

    /// Whether every feed of the others is exhausted and taken.
    pub fn caught_up(&self) -> bool {
        self.peers.iter().all(|r| r.state.caught_up.load(Ordering::Acquire))
    }

    /// Whether the others read no more, and have taken all that they read.
    pub fn drained(&self) -> bool {
        self.peers.iter().all(|r| r.state.drained.load(Ordering::Acquire))
    }

    /// How the others' feeds are doing.
    pub fn feeds(&self) -> Vec<FeedStatus> {
        let of = |r: &Remote| r.state.feeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.peers.iter().flat_map(of).collect()
    }

    /// The others' writers; each entry stands for all of a process.
    pub fn stats(&self, tables: usize) -> Vec<Arc<WriterStats>> {
        let of = |r: &Remote| {
            let empty = || WriterStats {
                tables: (0..tables).map(|_| Arc::default()).collect(),
            };
            r.state.stats.get_or_init(|| Arc::new(empty())).clone()
        };
        self.peers.iter().map(of).collect()
    }

    /// Behind [`Peers::stop`]: waits until the others have ended, their figures are here, and good-byes are said.
    pub fn end(&mut self, events: &Receiver<Event>) -> Result<(), RunError> {
        while !self.peers.iter().all(|r| r.state.done.load(Ordering::Acquire)) {
            match events.recv() {
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Progress) => self.peers.iter().for_each(|r| r.state.look()),
                Ok(_) => {}
                Err(_) => return Err(RunError::WorkersGone),
            }
        }
        self.part();
        Ok(())
    }

    /// Says good-bye, and takes no more reports.
    pub fn part(&mut self) {
        self.peers.iter_mut().for_each(|r| r.link.finish());
        for remote in &self.peers {
            remote.link.wait(GOOD_BYE);
            *remote.state.run() = None;
        }
    }
}

/// The live files that a process loads: those whose rows may be its own, and its share of those that are not read.
pub fn share(tables: &[Vec<LiveFile>], specs: &[TableSpec], process: usize, processes: usize) -> Vec<Vec<LiveFile>> {
    let of_table = |(files, spec): (&Vec<LiveFile>, &TableSpec)| match spec.append_only {
        true => files.iter().skip(process).step_by(processes).cloned().collect(),
        false => files.clone(),
    };
    tables.iter().zip(specs).map(of_table).collect()
}

impl State {
    fn run(&self) -> std::sync::MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        if let Some(run) = &*self.run() {
            run.shared.look();
        }
    }

    fn take(&self, message: &[u8]) {
        if let Err(reason) = self.try_take(message) {
            let _ = self.events.send(Event::Failed(RunError::Garbled {
                peer: self.peer.clone(),
                source: reason,
            }));
        }
    }

    fn try_take(&self, message: &[u8]) -> Result<(), Garbled> {
        let (report, more) = control::decode::<Report>(message)?;
        let event = |event| {
            let _ = self.events.send(event);
        };
        if let Report::Failed(message) = report {
            let peer = self.peer.clone();
            event(Event::Failed(RunError::Peer { peer, message }));
            return Ok(());
        }
        // Reports follow the start; after a failure of our own nobody wants them.
        let Some(run) = self.run().clone() else { return Ok(()) };
        let shared = &run.shared;
        let set = |flag: &AtomicBool, value| {
            flag.store(value, Ordering::Release);
            shared.poke();
        };
        match report {
            Report::Ready => set(&self.ready, true),
            Report::Progress(progress) => self.progress(progress, shared),
            Report::Prepared(head) => {
                let (part, corrections) = head.decode(more)?;
                for (stats, corrected) in self.stats.get().iter().flat_map(|s| s.tables.iter().zip(&corrections)) {
                    stats.corrections.store(*corrected, Ordering::Release);
                }
                // A committer that is gone has told why.
                let _ = run.prepared.send(part);
            }
            Report::CaughtUp(caught_up) => set(&self.caught_up, caught_up),
            Report::Drained => set(&self.drained, true),
            Report::Stop => event(Event::Stop),
            Report::Evolves(met) => event(Event::Evolves(met)),
            Report::Figures(figures) => {
                for part in figures.latencies(more)? {
                    run.latency.absorb(&part);
                }
                for (counters, [records, replayed, rejected, rejected_files]) in
                    shared.inputs.iter().zip(&figures.inputs)
                {
                    counters.records.fetch_add(*records, Ordering::Relaxed);
                    counters.replayed.fetch_add(*replayed, Ordering::Relaxed);
                    counters.rejected.fetch_add(*rejected, Ordering::Relaxed);
                    counters.rejected_files.fetch_add(*rejected_files, Ordering::Relaxed);
                }
                for (input, field, records) in figures.ignored {
                    shared.observe_ignored(input, &[(field, records)]);
                }
                *self.feeds.lock().unwrap_or_else(PoisonError::into_inner) = figures.feeds;
            }
            Report::Done => set(&self.done, true),
            Report::Failed(_) => unreachable!("taken above"),
        }
        Ok(())
    }

    /// Everything of an epoch before the frontier behind it: the conductor looks at the frontier first.
    fn progress(&self, progress: Progress, shared: &Shared) {
        for (epoch, diff, row) in progress.violations {
            shared.observe_violation(&Row::new(&row), epoch, diff);
        }
        shared.taken.fetch_max(progress.taken, Ordering::AcqRel);
        if progress.full {
            shared.full.store(true, Ordering::Release);
        }
        if progress.heavy {
            shared.heavy.store(true, Ordering::Release);
        }
        if progress.replayed {
            shared.replayed[shared.workers + self.follower].store(true, Ordering::Release);
        }
        shared.frontiers[shared.workers + self.follower].store(progress.frontier, Ordering::Release);
        shared.poke();
    }
}
