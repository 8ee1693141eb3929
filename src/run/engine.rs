//! A run under way: conducts it to its end or its failure, then takes its parts down in the order in which they feed
//! each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;

use super::board::{Board, InputCounters, RunEvent};
use super::conduct::pacer::Pacer;
use super::conduct::{Conducted, Conducting, Conductor, Follower, Intake, StatusLine, Watches};
use super::lines::WorkerLines;
use super::start::RunPresence;
use super::team::{EndedThreads, ReportedState, Role, RunThreads, Team};
use super::{Options, RunError, RunOutcome, Wiring};
use crate::contain;
use crate::definition::{Dataflow, Evolved};
use crate::evolve::NewSchemaFields;
use crate::latency::{Latency, LatencyFiles};
use crate::publish::Publisher;
use crate::source::SourceError;

/// How long a process that failed keeps its connections open.
const LINGER: Duration = Duration::from_millis(250);

/// What a run hands over to the next one in the same process, when its feeds have encountered schemas with new fields.
pub struct NextRun {
    /// The new fields.
    pub met: Vec<NewSchemaFields>,
    pub latency: Arc<Latency>,
    pub files: Option<LatencyFiles>,
}

/// All parts of a run, in the order in which they are taken down.
pub struct Engine {
    pub(super) board: Arc<Board>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) latency: Arc<Latency>,
    pub(super) events: Receiver<RunEvent>,
    pub(super) pacer: Pacer,
    pub(super) intake: Intake,
    pub(super) publisher: Option<Publisher>,
    pub(super) lines: WorkerLines,
    /// Shows other processes that a run is on this lake.
    pub(super) _presence: RunPresence,
    pub(super) past: Option<JoinHandle<()>>,
    pub(super) running: RunThreads,
    /// `None` once the run is being conducted.
    pub(super) watches: Option<Watches>,
    pub(super) committer: JoinHandle<()>,
    pub(super) signals: Option<signal_hook::iterator::Handle>,
    pub(super) team: Team,
    pub(super) stop_at_end: bool,
    pub(super) started: Instant,
}

impl Engine {
    /// Runs to the end. Returns the outcome and, if the run is to begin anew, what the next one takes over.
    pub fn run(
        mut self,
        options: &Options,
        files: Option<LatencyFiles>,
    ) -> Result<(RunOutcome, Option<NextRun>), RunError> {
        // Threads wait for the conductor, so a panic that unwound past this point would leave them waiting forever.
        let conducted = catch_unwind(AssertUnwindSafe(|| self.conduct(options, files)));
        let conducted = conducted.unwrap_or_else(|panic| Err(RunError::Panicked("the conductor", message(panic))));
        let (conducted, mut reported) = match conducted {
            Ok(conducted) => conducted,
            Err(error) => return Err(self.take_down(error)),
        };
        // Workers are joined first, then the threads they feed: each thread ends when its senders are gone.
        if let Some(peers) = self.team.peers() {
            peers.stop(conducted.again.is_some());
        }
        self.stop();
        let EndedThreads { workers, writers } = self.running.join();
        if let Some(past) = self.past {
            // A failure of this thread has already been reported as an event.
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
            leader.end(reported.figures(&self.board), &self.latency);
        }
        let Conducted {
            snapshot,
            corrections,
            unread,
            again,
            files,
        } = conducted;
        let again = again.map(|met| NextRun {
            met,
            latency: self.latency.clone(),
            files,
        });
        let sum = |count: fn(&InputCounters) -> u64| self.board.counters.inputs.iter().map(count).sum();
        let outcome = RunOutcome {
            snapshot,
            records: sum(|c| c.records.load(Ordering::Relaxed)),
            replayed: sum(|c| c.replayed.load(Ordering::Relaxed)),
            backfilled: sum(|c| c.backfilled.load(Ordering::Relaxed)),
            loaded: self.board.counters.loaded.load(Ordering::Relaxed),
            phases: self.board.counters.phases(),
            rejected: sum(|c| c.rejected.load(Ordering::Relaxed)),
            rejected_files: sum(|c| c.rejected_files.load(Ordering::Relaxed)),
            ignored: self.board.counters.ignored(),
            warnings: self.wiring.warnings(),
            corrections,
            unread,
            skipped: self.board.counters.skipped.load(Ordering::Relaxed),
            elapsed: self.started.elapsed(),
            evolved: evolved(&self.wiring.dataflow),
            figures: self.latency.figures(),
        };
        Ok((outcome, again))
    }

    /// Conducts until everything is committed, or a part fails.
    fn conduct(
        &mut self,
        options: &Options,
        files: Option<LatencyFiles>,
    ) -> Result<(Conducted, ReportedState), RunError> {
        let dataflow = self.wiring.dataflow.clone();
        let watches = self.watches.take().expect("a run is conducted once");
        let intake = std::mem::take(&mut self.intake);
        let peers = match &self.team.role {
            Role::Leads(peers) => peers,
            Role::Follows(leader) => {
                let follower = Follower {
                    leader,
                    board: self.board.clone(),
                    events: self.events.clone(),
                    latency: self.latency.clone(),
                    lines: &self.lines,
                    readers: intake.readers,
                    memory: watches.memory,
                    until_caught_up: self.stop_at_end,
                    reported: ReportedState::default(),
                };
                return follower.follow();
            }
        };
        let files = match &options.latency_folder {
            Some(_) if files.is_some() => files,
            Some(folder) => Some(LatencyFiles::create(folder, SystemTime::now())?),
            None => None,
        };
        let names = dataflow.inputs.iter().map(|input| input.name.clone()).collect();
        let conductor = Conductor::new(Conducting {
            board: self.board.clone(),
            events: self.events.clone(),
            latency: self.latency.clone(),
            files,
            lines: &self.lines,
            peers,
            intake,
            publisher: self.publisher.take(),
            watches,
            options,
            status: StatusLine::new(names, options.live),
            pacer: self.pacer.clone(),
            temporal: self.wiring.temporal(),
            commit: dataflow.commit,
        });
        Ok((conductor.conduct()?, ReportedState::default()))
    }

    fn stop(&mut self) {
        self.lines.signals.close();
        self.board.workers.stop.store(true, Ordering::Release);
        self.lines.signals.wake();
        self.lines.close();
    }

    /// Takes down a run that failed. Returns the original error.
    fn take_down(mut self, error: RunError) -> RunError {
        let error = match follows(&error) {
            true => first_fault(&self.events).unwrap_or(error),
            false => error,
        };
        self.team.tell(&error);
        if self.team.share.processes > 1 {
            // The other processes receive the error before they see a connection close. And a process that ends
            // because it lost a peer must not look like the lost one itself.
            thread::sleep(LINGER);
        }
        self.stop();
        let mut ended = self
            .running
            .join_after_failure(matches!(error, RunError::InRounds { .. }));
        let are_over = ended.is_some();
        let fallen = ended
            .as_mut()
            .and_then(|ended| ended.writers.drain(..).find_map(Result::err));
        let error = match (error, fallen) {
            (RunError::WriterGone, Some(panic)) => RunError::Panicked("a writer", message(panic)),
            (error, _) => error,
        };
        // In a cluster, threads that wait for a lost peer are not joined.
        let alone = self.team.share.processes == 1;
        match (self.team.peers().is_some(), ended) {
            (_, None) => self.team.say_good_bye(),
            // The committer ends when no peer can send to it any more; a forwarder must end before its link is
            // released.
            (true, Some(_)) => {
                self.team.say_good_bye();
                let _ = self.committer.join();
            }
            (false, Some(_)) => {
                let _ = self.committer.join();
                self.team.say_good_bye();
            }
        }
        if let Some(past) = self.past.filter(|_| alone && are_over) {
            let _ = past.join();
        }
        if let Some(signals) = self.signals {
            signals.close();
        }
        error
    }
}

fn evolved(dataflow: &Dataflow) -> Vec<(String, Evolved)> {
    let inputs = dataflow.inputs.iter();
    inputs
        .flat_map(|input| {
            input
                .evolved
                .iter()
                .map(|evolved| (input.name.clone(), evolved.clone()))
        })
        .collect()
}

/// Whether an error only says that another thread ended, which reports its own error.
fn follows(error: &RunError) -> bool {
    matches!(
        error,
        RunError::WriterGone | RunError::Source(SourceError::Disconnected { .. })
    )
}

/// The error that the others followed from. A worker that panics drops its channels before it reports, so this waits
/// up to a second.
fn first_fault(events: &Receiver<RunEvent>) -> Option<RunError> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match events.recv_deadline(until) {
            Ok(RunEvent::Failed(error)) if !follows(&error) => return Some(error),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// The message of a panic.
pub fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    contain::message(&*panic)
}
