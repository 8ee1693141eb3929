//! A run under way: conducted until its options say so or something fails, and taken apart in the order in which parts
//! feed each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use super::audit::Audit;
use super::clock::Behind;
use super::conductor::{Conducted, Conductor};
use super::follower::{Follower, Told};
use super::memory::Memory;
use super::pacer::Pacer;
use super::presence::Presence;
use super::shared::{self, Event, Shared};
use super::status::Status;
use super::team::{Ended, Role, Team, Threads};
use super::{Options, Outcome, RunError, Wiring};
use crate::backfill::{Portion, Server};
use crate::contain;
use crate::definition::{Dataflow, Evolved};
use crate::evolve::Met;
use crate::latency::{Latency, LatencyFiles};
use crate::publish::Publisher;
use crate::repr::Epoch;
use crate::source::{self, Delivery, SourceError};

/// How long a process that failed keeps its connections.
const LINGER: Duration = Duration::from_millis(250);

/// What a run takes over from the one before it, whose feeds met schemas with new fields.
pub struct Again {
    /// Those.
    pub met: Vec<Met>,
    pub latency: Arc<Latency>,
    pub files: Option<LatencyFiles>,
}

/// Everything that runs. Fields in the order in which they are taken apart.
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) latency: Arc<Latency>,
    pub(super) events: Receiver<Event>,
    pub(super) pacer: Pacer,
    pub(super) readers: Option<source::Readers>,
    pub(super) offsets: Option<source::OffsetPublisher>,
    pub(super) publisher: Option<Publisher>,
    pub(super) queues: Vec<Sender<Delivery>>,
    pub(super) portions: Vec<Sender<Portion>>,
    pub(super) server: Option<Server>,
    /// Says to others that a run is on the lake.
    pub(super) _presence: Presence,
    pub(super) seals: Vec<Sender<Epoch>>,
    pub(super) past: Option<JoinHandle<()>>,
    pub(super) running: Threads,
    pub(super) threads: Vec<thread::Thread>,
    pub(super) audit: Option<Audit>,
    pub(super) memory: Option<Memory>,
    pub(super) committer: JoinHandle<()>,
    pub(super) signals: Option<signal_hook::iterator::Handle>,
    pub(super) team: Team,
    pub(super) stop_at_end: bool,
    pub(super) started: Instant,
}

impl Engine {
    /// Runs, ends, and says what came of it; and what a run that begins anew takes over.
    pub fn run(mut self, options: &Options, files: Option<LatencyFiles>) -> Result<(Outcome, Option<Again>), RunError> {
        // Threads wait for the conductor: what unwound past here would wait for them.
        let conducted = catch_unwind(AssertUnwindSafe(|| self.conduct(options, files)));
        let conducted = conducted.unwrap_or_else(|panic| Err(RunError::Panicked("the conductor", message(panic))));
        let (conducted, mut told) = match conducted {
            Ok(conducted) => conducted,
            Err(error) => return Err(self.part(error)),
        };
        // Workers first, then what they feed: each ends when its senders are gone.
        if let Some(peers) = self.team.peers() {
            peers.stop(conducted.again.is_some());
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
        let Conducted {
            snapshot,
            corrections,
            unread,
            again,
            files,
        } = conducted;
        let again = again.map(|met| Again {
            met,
            latency: self.latency.clone(),
            files,
        });
        let sum = |count: fn(&shared::InputCounters) -> u64| self.shared.inputs.iter().map(count).sum();
        let outcome = Outcome {
            snapshot,
            records: sum(|c| c.records.load(Ordering::Relaxed)),
            replayed: sum(|c| c.replayed.load(Ordering::Relaxed)),
            backfilled: sum(|c| c.backfilled.load(Ordering::Relaxed)),
            loaded: self.shared.loaded.load(Ordering::Relaxed),
            phases: self.shared.phases(),
            rejected: sum(|c| c.rejected.load(Ordering::Relaxed)),
            rejected_files: sum(|c| c.rejected_files.load(Ordering::Relaxed)),
            ignored: self.shared.ignored(),
            corrections,
            unread,
            skipped: self.shared.skipped.load(Ordering::Relaxed),
            elapsed: self.started.elapsed(),
            evolved: evolved(&self.wiring.dataflow),
            figures: self.latency.figures(),
        };
        Ok((outcome, again))
    }

    /// Runs until all is committed, or something fails.
    fn conduct(&mut self, options: &Options, files: Option<LatencyFiles>) -> Result<(Conducted, Told), RunError> {
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
            Some(_) if files.is_some() => files,
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
            offsets: self.offsets.take(),
            publisher: self.publisher.take(),
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
            newest: 0,
            fence: None,
            met: vec![],
            stopped: false,
            unread: vec![],
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
        let error = match follows(&error) {
            true => first_fault(&self.events).unwrap_or(error),
            false => error,
        };
        self.team.tell(&error);
        if self.team.share.processes > 1 {
            // The others hear why before they see a connection close; and a process that goes because it has lost
            // another is not taken for the lost one.
            thread::sleep(LINGER);
        }
        self.stop();
        let mut ended = self.running.part();
        let fallen = ended
            .as_mut()
            .and_then(|ended| ended.writers.drain(..).find_map(Result::err));
        let error = match (error, fallen) {
            (RunError::WriterGone, Some(panic)) => RunError::Panicked("a writer", message(panic)),
            (error, _) => error,
        };
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

/// Whether a failure says no more than that another thread ended, which tells its own.
fn follows(error: &RunError) -> bool {
    matches!(
        error,
        RunError::WriterGone | RunError::Source(SourceError::Disconnected { .. })
    )
}

/// The failure that another one followed from. A worker that panics lets go of its channels before it tells why, so this
/// waits for a moment.
fn first_fault(events: &Receiver<Event>) -> Option<RunError> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match events.recv_deadline(until) {
            Ok(Event::Failed(error)) if !follows(&error) => return Some(error),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// What a panic says.
pub fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    contain::message(&*panic)
}
