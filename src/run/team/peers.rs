//! Process 0's view of the other processes: the commands it sends them, and what it does with their reports.
//!
//! A report is translated into what local workers would have done: counters and flags of [`Board`], and parts of
//! snapshots for the committer. So the conductor does not need to know where workers run, and a run of one process
//! differs only in having no peers.
//!
//! Reports are handled on the links' threads, and nothing there blocks: the committer's queue has room for all parts
//! that may be under way, because the pacer bounds the number of snapshots in flight.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::control::{self, GarbledMessage, ProcessCommand, ProcessProgress, ProcessReport, StartCommand};
use super::loss;
use crate::cluster::{Link, LinkEvent, Member, Peer};
use crate::latency::Latency;
use crate::repr::{Epoch, Row};
use crate::run::RunError;
use crate::run::board::{Board, RunEvent};
use crate::sink::{LiveFile, Prepared, Restored, TableSpec, WriterStats};
use crate::source::FeedStatus;

/// How long to wait for the good-bye of a process that has ended.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// The other processes of the run; empty in a run of one process.
#[derive(Default)]
pub struct Peers {
    peers: Vec<Remote>,
}

struct Remote {
    state: Arc<RemoteState>,
    link: Link,
}

/// What is known of one process.
struct RemoteState {
    peer: Peer,
    /// Its index among the followers, which locates its elements in the vectors of [`Board`].
    follower: usize,
    ready: AtomicBool,
    caught_up: AtomicBool,
    drained: AtomicBool,
    done: AtomicBool,
    feeds: Mutex<Vec<FeedStatus>>,
    /// Stands for all writers of the process; only its corrections are filled in.
    stats: OnceLock<Arc<WriterStats>>,
    events: Sender<RunEvent>,
    /// Where reports go, once the run has begun.
    run: Mutex<Option<RunHandles>>,
}

#[derive(Clone)]
struct RunHandles {
    board: Arc<Board>,
    latency: Arc<Latency>,
    prepared: Sender<Prepared>,
}

impl Peers {
    /// Starts the links over the control sockets to all other processes.
    pub fn start(
        member: &Member,
        control: Vec<Option<TcpStream>>,
        events: &Sender<RunEvent>,
        ours: bool,
    ) -> Result<Peers, RunError> {
        let mut peers = Vec::new();
        for (process, socket) in control.into_iter().enumerate() {
            let Some(socket) = socket else { continue };
            let state = Arc::new(RemoteState {
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
                LinkEvent::Message(message) => hearing.take(&message),
                LinkEvent::Lost(loss) => {
                    *hearing.run() = None;
                    loss::lost(&hearing.events, hearing.peer.clone(), loss, ours);
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

    /// The number of other processes.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Has the other processes load their shares, and handles their reports from now on.
    pub fn begin(
        &self,
        board: &Arc<Board>,
        latency: &Arc<Latency>,
        prepared: &Sender<Prepared>,
        restored: &Restored,
        specs: &[TableSpec],
        start: impl Fn() -> StartCommand,
    ) {
        let processes = self.peers.len() + 1;
        for (process, remote) in (1..).zip(&self.peers) {
            *remote.state.run() = Some(RunHandles {
                board: board.clone(),
                latency: latency.clone(),
                prepared: prepared.clone(),
            });
            let tables = share(&restored.tables, specs, process, processes);
            remote.link.send(start().encode(&tables));
        }
    }

    /// Waits until every process has built its graph. Fails when one of them fails.
    pub fn wait_until_ready(&self, events: &Receiver<RunEvent>, board: &Board) -> Result<(), RunError> {
        let mut early = vec![];
        while !self.peers.iter().all(|r| r.state.ready.load(Ordering::Acquire)) {
            match events.recv() {
                Ok(RunEvent::Failed(error)) => return Err(error),
                Ok(event @ (RunEvent::Stop | RunEvent::Evolves(_))) => early.push(event),
                Ok(RunEvent::Progress) => board.events.observe_look(),
                Ok(_) => {}
                Err(_) => return Err(RunError::WorkersGone),
            }
        }
        early.into_iter().for_each(|event| board.events.tell(event));
        // Events that were consumed here may be news to the conductor.
        board.events.poke();
        Ok(())
    }

    fn command(&self, command: &ProcessCommand) {
        for remote in &self.peers {
            remote.link.send(control::encode(command, &[]));
        }
    }

    /// Announces that an epoch is open.
    pub fn open(&self, epoch: Epoch) {
        self.command(&ProcessCommand::Open(epoch));
    }

    /// Asks for the parts of a snapshot.
    pub fn seal(&self, epoch: Epoch) {
        self.command(&ProcessCommand::Seal(epoch));
    }

    /// Asks to log which inputs and tables are behind.
    pub fn ask(&self) {
        self.command(&ProcessCommand::Ask);
    }

    /// Asks to read no more.
    pub fn drain(&self) {
        self.command(&ProcessCommand::Drain);
    }

    /// Announces that a snapshot is committed.
    pub fn committed(&self, epoch: Epoch) {
        self.command(&ProcessCommand::Committed(epoch));
    }

    /// Announces that everything is committed. `again` says whether the run begins anew.
    pub fn stop(&self, again: bool) {
        self.command(&ProcessCommand::Stop { again });
    }

    /// Announces that the run failed.
    pub fn fail(&self, message: &str) {
        self.command(&ProcessCommand::Failed(message.to_string()));
    }

    /// Whether in all other processes every feed is exhausted and everything it delivered is taken.
    pub fn caught_up(&self) -> bool {
        self.peers.iter().all(|r| r.state.caught_up.load(Ordering::Acquire))
    }

    /// Whether all other processes have stopped reading, and have taken everything that they had read.
    pub fn drained(&self) -> bool {
        self.peers.iter().all(|r| r.state.drained.load(Ordering::Acquire))
    }

    /// The status of the feeds of the other processes.
    pub fn feeds(&self) -> Vec<FeedStatus> {
        let of = |r: &Remote| r.state.feeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.peers.iter().flat_map(of).collect()
    }

    /// Counters of the other processes' writers; each entry stands for all writers of a process.
    pub fn stats(&self, tables: usize) -> Vec<Arc<WriterStats>> {
        let of = |r: &Remote| {
            let empty = || WriterStats {
                tables: (0..tables).map(|_| Arc::default()).collect(),
            };
            r.state.stats.get_or_init(|| Arc::new(empty())).clone()
        };
        self.peers.iter().map(of).collect()
    }

    /// After [`Peers::stop`]: waits until the other processes have ended, their last figures have arrived, and the
    /// links are closed.
    pub fn end(&mut self, events: &Receiver<RunEvent>) -> Result<(), RunError> {
        while !self.peers.iter().all(|r| r.state.done.load(Ordering::Acquire)) {
            match events.recv() {
                Ok(RunEvent::Failed(error)) => return Err(error),
                Ok(RunEvent::Progress) => self.peers.iter().for_each(|r| r.state.look()),
                Ok(_) => {}
                Err(_) => return Err(RunError::WorkersGone),
            }
        }
        self.say_good_bye();
        Ok(())
    }

    /// Closes the links with a good-bye, and handles no more reports.
    pub fn say_good_bye(&mut self) {
        self.peers.iter_mut().for_each(|r| r.link.finish());
        for remote in &self.peers {
            remote.link.wait(GOOD_BYE);
            *remote.state.run() = None;
        }
    }
}

/// The live files that a process loads. Of an append-only table, whose files are not read, it is a share of the files;
/// of any other table, all of them, because any file may hold rows that the process owns.
pub fn share(tables: &[Vec<LiveFile>], specs: &[TableSpec], process: usize, processes: usize) -> Vec<Vec<LiveFile>> {
    let of_table = |(files, spec): (&Vec<LiveFile>, &TableSpec)| match spec.append_only {
        true => files.iter().skip(process).step_by(processes).cloned().collect(),
        false => files.clone(),
    };
    tables.iter().zip(specs).map(of_table).collect()
}

impl RemoteState {
    fn run(&self) -> std::sync::MutexGuard<'_, Option<RunHandles>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        if let Some(run) = &*self.run() {
            run.board.events.observe_look();
        }
    }

    fn take(&self, message: &[u8]) {
        if let Err(reason) = self.try_take(message) {
            let _ = self.events.send(RunEvent::Failed(RunError::Garbled {
                peer: self.peer.clone(),
                source: reason,
            }));
        }
    }

    fn try_take(&self, message: &[u8]) -> Result<(), GarbledMessage> {
        let (report, more) = control::decode::<ProcessReport>(message)?;
        let event = |event| {
            let _ = self.events.send(event);
        };
        if let ProcessReport::Failed(message) = report {
            let peer = self.peer.clone();
            event(RunEvent::Failed(RunError::Peer { peer, message }));
            return Ok(());
        }
        // Reports follow the start, and after a failure of this process they are ignored.
        let Some(run) = self.run().clone() else { return Ok(()) };
        let board = &run.board;
        let set = |flag: &AtomicBool, value| {
            flag.store(value, Ordering::Release);
            board.events.poke();
        };
        match report {
            ProcessReport::Ready => set(&self.ready, true),
            ProcessReport::Progress(progress) => self.progress(progress, board),
            ProcessReport::Prepared(head) => {
                let (part, corrections) = head.decode(more)?;
                for (stats, corrected) in self.stats.get().iter().flat_map(|s| s.tables.iter().zip(&corrections)) {
                    stats.corrections.store(*corrected, Ordering::Release);
                }
                // A committer that is gone has reported why.
                let _ = run.prepared.send(part);
            }
            ProcessReport::CaughtUp(caught_up) => set(&self.caught_up, caught_up),
            ProcessReport::Drained => set(&self.drained, true),
            ProcessReport::Stop => event(RunEvent::Stop),
            ProcessReport::Evolves(new_schema) => event(RunEvent::Evolves(new_schema)),
            ProcessReport::Figures(figures) => {
                for part in figures.latencies(more)? {
                    run.latency.absorb(&part);
                }
                for (counters, [records, replayed, rejected, rejected_files]) in
                    board.counters.inputs.iter().zip(&figures.inputs)
                {
                    counters.records.fetch_add(*records, Ordering::Relaxed);
                    counters.replayed.fetch_add(*replayed, Ordering::Relaxed);
                    counters.rejected.fetch_add(*rejected, Ordering::Relaxed);
                    counters.rejected_files.fetch_add(*rejected_files, Ordering::Relaxed);
                }
                for (input, field, records) in figures.ignored {
                    board.counters.observe_ignored(input, &[(field, records)]);
                }
                *self.feeds.lock().unwrap_or_else(PoisonError::into_inner) = figures.feeds;
            }
            ProcessReport::Done => set(&self.done, true),
            ProcessReport::Failed(_) => unreachable!("taken above"),
        }
        Ok(())
    }

    /// Stores everything of an epoch before the frontier behind it, because the conductor reads the frontier first.
    fn progress(&self, progress: ProcessProgress, board: &Board) {
        for (epoch, diff, row) in progress.violations {
            board.violations.observe(&Row::new(&row), epoch, diff);
        }
        board.epochs.taken.fetch_max(progress.taken, Ordering::AcqRel);
        if progress.full {
            board.epochs.full.store(true, Ordering::Release);
        }
        if progress.heavy {
            board.epochs.heavy.store(true, Ordering::Release);
        }
        if progress.replayed {
            board.epochs.replayed[board.workers.count + self.follower].store(true, Ordering::Release);
        }
        board.epochs.frontiers[board.workers.count + self.follower].store(progress.frontier, Ordering::Release);
        board.events.poke();
    }
}
