//! The conductor: one thread that decides when epochs close, when snapshots are sealed, and when a run ends.
//!
//! A run ends in four phases: `Running` until a reason to stop comes; `Closing` while requests under way are answered,
//! what they brought is read, and a transaction that goes on as it comes is read to its end, all for a while; `Draining`
//! while what readers handed over is taken, closed, sealed and committed; `Done`. With `until_caught_up` the reason is that
//! every feed is exhausted; readers go on until then. For a signal or a time limit readers are stopped first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::audit::Audit;
use super::clock::Behind;
use super::memory::Memory;
use super::pacer::Pacer;
use super::peers::Peers;
use super::shared::{Event, Shared};
use super::status::Status;
use super::{Options, RunError, lags};
use crate::backfill::{Portion, Server};
use crate::causes;
use crate::evolve::Met;
use crate::latency::{Latency, LatencyFiles};
use crate::publish::{PublishError, Publisher};
use crate::render::error::{error_codec, read_error};
use crate::repr::Epoch;
use crate::sink::CommitEvent;
use crate::source::{Delivery, FeedStatus, OffsetPublisher, Readers};

/// How often exhausted feeds are asked for.
pub(super) const ASK: Duration = Duration::from_millis(20);

/// How often a run that takes long to end says what it waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long what requests brought is read, once no more are taken: the next run reads the rest. As long a transaction that
/// goes on as it comes is waited for.
const CLOSING: Duration = Duration::from_secs(15);
/// Characters that are told of a row that breaks an expectation.
const EXAMPLE: usize = 300;

enum Phase {
    Running,
    /// Since then.
    Closing(Instant),
    Draining,
}

/// See the module's header.
pub struct Conductor<'a> {
    pub shared: Arc<Shared>,
    pub events: Receiver<Event>,
    pub latency: Arc<Latency>,
    pub files: Option<LatencyFiles>,
    pub workers: Vec<Thread>,
    /// The other processes of the run.
    pub peers: &'a Peers,
    /// To each worker: epochs to seal.
    pub seals: Vec<Sender<Epoch>>,
    /// The workers' queues, to see that they are empty.
    pub queues: Vec<Sender<Delivery>>,
    /// Those of requests, likewise.
    pub portions: Vec<Sender<Portion>>,
    /// Serves requests, until no more input is read.
    pub server: Option<Server>,
    pub readers: Option<Readers>,
    /// Tells consumer groups what is committed, where topics are read.
    pub offsets: Option<OffsetPublisher>,
    /// Publishes snapshots to topics, where tables go to some.
    pub publisher: Option<Publisher>,
    pub options: &'a Options,
    pub status: Status,
    pub pacer: Pacer,
    /// Whether rows enter or leave as time passes.
    pub temporal: bool,
    pub commit: Duration,
    /// Whether the epoch of the replayed past is closed; live epochs follow once it is sealed.
    pub past_closed: bool,
    /// Over a lake with a past.
    pub audit: Option<Audit>,
    /// Whether the clock is behind.
    pub behind: Behind,
    /// How much there is, and whether it lets feeds be read.
    pub memory: Memory,
    /// What it found.
    pub corrections: Option<Vec<(String, u64)>>,
    /// The newest snapshot that changed anything; 0: none.
    pub newest: Epoch,
    /// The epoch behind everything that was taken, once nothing more can come.
    pub fence: Option<Epoch>,
    /// Schemas with new fields that feeds hold records back for.
    pub met: Vec<Met>,
    /// Whether somebody wants the run to end.
    pub stopped: bool,
    /// What of the feeds could not be read when all else was.
    pub unread: Vec<String>,
}

/// How the feeds of all processes are doing.
fn feeds(readers: Option<&Readers>, peers: &Peers) -> Vec<FeedStatus> {
    let mut feeds = readers.map(Readers::statuses).unwrap_or_default();
    feeds.extend(peers.feeds());
    feeds
}

impl Conductor<'_> {
    /// Conducts until everything that was taken is committed and the run is to end.
    pub fn conduct(mut self) -> Result<Conducted, RunError> {
        let started = Instant::now();
        let mut phase = Phase::Running;
        let mut last_tick = started;
        let mut last_interval = started;
        let mut last_warning = started;
        loop {
            let now = Instant::now();
            let wait = self.wait(&phase, now, started);
            match self.events.recv_timeout(wait) {
                Ok(Event::Progress) => self.shared.look(),
                Ok(Event::Commit(event)) => self.observe_commit(event),
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Report) => {
                    self.status.print(&self.latency.figures().to_string());
                    self.status
                        .print(&lags::report(&feeds(self.readers.as_ref(), self.peers)));
                    self.memory.ask(&self.shared, now);
                }
                Ok(Event::Stop) => {
                    self.stopped = true;
                    self.begin_close(&mut phase, now);
                }
                Ok(Event::Evolves(met)) => self.observe_met(met, &mut phase, now),
                Ok(Event::Committed(_) | Event::Drain | Event::End(_)) => {} // told to other processes
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::WorkersGone),
            }
            let now = Instant::now();
            if self
                .options
                .duration
                .is_some_and(|limit| now.duration_since(started) >= limit)
            {
                self.stopped = true;
                self.begin_close(&mut phase, now);
            }
            if let Phase::Closing(since) = phase
                && (self.has_closed() || now.duration_since(since) >= CLOSING)
            {
                self.begin_drain(&mut phase)?;
            }
            if let Some(error) = self.readers.as_ref().and_then(Readers::failure) {
                return Err(error.into());
            }
            // Behind the fence nothing counts any more: a run whose commits take longer than their interval would not end.
            if self.temporal && self.fence.is_none() && now.duration_since(last_tick) >= self.commit {
                last_tick = now;
                self.pacer.observe_tick();
            }
            let draining = matches!(phase, Phase::Draining);
            if let Some((above, say)) = self.memory.look(now) {
                // What is in the queues of a run that ends is taken.
                self.shared.held.store(above && !draining, Ordering::Release);
                say.inspect(|say| self.status.print(say));
            }
            if let Some(report) = self.memory.report(&self.shared, now) {
                self.status.print(&report);
            }
            self.pace(now, draining)?;
            if now.duration_since(last_interval) >= Duration::from_secs(1) {
                last_interval = now;
                if let Some(files) = &mut self.files
                    && let Err(error) = files.write_interval(&self.latency, SystemTime::now())
                {
                    tracing::warn!(error = &error as &dyn std::error::Error, "latency log given up");
                    self.files = None;
                }
            }
            let (readers, peers) = (&self.readers, self.peers);
            self.status.update(&self.shared, &self.pacer, &self.latency, || {
                feeds(readers.as_ref(), peers)
            });
            if self.fence.is_none() {
                last_warning = now;
            }
            if now.duration_since(last_warning) >= PATIENCE {
                last_warning = now;
                self.warn_of_delay();
            }
            if self.finished(&mut phase)? {
                return self.end();
            }
        }
    }

    /// How long nothing needs to be decided.
    fn wait(&self, phase: &Phase, now: Instant, started: Instant) -> Duration {
        let mut wait = self
            .pacer
            .patience(now)
            .filter(|_| self.shared.live.load(Ordering::Acquire)) // the past tells when it is time
            .unwrap_or(Duration::from_secs(1))
            .min(self.status.period());
        if self.options.until_caught_up || !matches!(phase, Phase::Running) {
            wait = wait.min(ASK);
        }
        if self.temporal {
            wait = wait.min(self.commit);
        }
        if let Some(limit) = self.options.duration {
            wait = wait.min((started + limit).saturating_duration_since(now));
        }
        // An epoch that is due stays open while something is on its way into it; workers say when that is taken.
        match self.shared.together.waits() {
            true => wait.max(Duration::from_millis(1)),
            false => wait,
        }
    }

    fn observe_commit(&mut self, event: CommitEvent) {
        let CommitEvent::Committed {
            epoch,
            changed,
            progress,
            ..
        } = event;
        if let Some(offsets) = &self.offsets {
            offsets.publish(&progress);
        }
        if let Some(readers) = &self.readers {
            readers.observe_committed(&progress);
        }
        if changed {
            self.newest = epoch;
            if let Some(publisher) = &self.publisher {
                publisher.observe_committed(epoch);
            }
        }
        self.latency.observe_committed(epoch, Instant::now(), SystemTime::now());
        self.pacer.observe_committed(epoch);
        self.shared.committed.fetch_max(epoch, Ordering::AcqRel);
        if self.shared.weight.observe_committed(epoch) {
            self.wake();
        }
        self.status.observe_committed(epoch);
        self.peers.committed(epoch);
        if let Some(audit) = self.audit.take() {
            let corrections = audit.finish();
            if !self.options.rebuilds {
                self.status.observe_audit(&corrections, &self.shared.phases());
            }
            self.corrections = Some(corrections);
        }
    }

    /// What was read before is committed; then the run begins anew, with the fields that the schema has.
    fn observe_met(&mut self, met: Met, phase: &mut Phase, now: Instant) {
        let Met { input, feed, schema } = &met;
        self.status.print(&format!(
            "{input}: schema {schema} of feed {feed} has new fields; what was read before is committed, then they are taken"
        ));
        self.met.push(met);
        self.begin_close(phase, now);
    }

    /// Opens epochs and seals snapshots as the pacer decides.
    fn pace(&mut self, now: Instant, draining: bool) -> Result<(), RunError> {
        self.pacer.observe_closed(self.shared.frontier());
        let taken = self.shared.taken.swap(0, Ordering::AcqRel);
        if taken > 0 {
            self.pacer.observe_taken(taken);
        }
        if self.shared.full.swap(false, Ordering::AcqRel) {
            self.pacer.observe_full();
        }
        self.latency
            .observe_closed(self.shared.frontier(), now, SystemTime::now());
        // The audit compares all of the past at once, and what feeds bring comes later.
        let live = self.shared.live.load(Ordering::Acquire);
        if !live && !self.shared.replayed() {
            self.pace_past(now);
            return Ok(());
        }
        if !live && !std::mem::replace(&mut self.past_closed, true) {
            self.audit.iter_mut().for_each(Audit::observe_handed_over);
            // The past ends with an epoch that is committed: the next is the first that can be sealed.
            let first = self.shared.epochs.live_from;
            self.open_next(first, now);
            self.pacer.observe_tick();
            let wall = self.options.clock.millis();
            self.open_next(wall.max(first + 1), now);
        }
        if live && self.pacer.is_due(now) {
            let wall = self.options.clock.millis();
            self.open_next(wall, now);
        }
        if !live && self.shared.frontier() <= self.shared.epochs.live_from {
            return Ok(());
        }
        let heavy = self.shared.heavy.swap(false, Ordering::AcqRel) || self.shared.weight.is_due();
        if let Some(epoch) = self.pacer.next_seal(now, draining || !live || heavy) {
            if let Some((violations, row)) = self.shared.violations(epoch) {
                let (reason, row) = read_error(&error_codec(), &row)?;
                let row = String::from_utf8_lossy(&row).chars().take(EXAMPLE).collect();
                return Err(RunError::Expectation {
                    violations,
                    reason,
                    row,
                });
            }
            self.peers.seal(epoch);
            self.shared.weight.observe_sealed(epoch);
            for worker in &self.seals {
                // A worker that is gone has told why.
                let _ = worker.send(epoch);
            }
            self.shared.live.store(true, Ordering::Release);
            self.wake();
        }
        Ok(())
    }

    /// What the graph held before is loaded epoch by epoch, each closed before the next but one is open.
    fn pace_past(&mut self, now: Instant) {
        if self.pacer.open() < self.shared.epochs.past_until && self.pacer.is_due(now) && self.pacer.is_full() {
            let (pacer, peers) = (&mut self.pacer, self.peers);
            self.shared.open_unless_held(|| {
                let epoch = pacer.open_next(0, now);
                peers.open(epoch);
                epoch
            });
            self.wake();
        }
    }

    fn warn_of_delay(&self) {
        let frontiers = self.shared.frontiers.iter().map(|f| f.load(Ordering::Acquire));
        tracing::warn!(
            fence = self.fence,
            closed = frontiers.min(),
            open = self.pacer.open(),
            waiting = %self.pacer.unfinished(),
            requests = self.server.as_ref().is_some_and(|server| !server.is_idle()),
            "still waiting for the end"
        );
        self.shared
            .asked
            .iter()
            .for_each(|asked| asked.store(true, Ordering::Release));
        self.peers.ask();
        self.wake();
    }

    /// Opens the next epoch, unless something is on its way that belongs into the one that is open.
    fn open_next(&mut self, wall: u64, now: Instant) -> Option<Epoch> {
        let shared = self.shared.clone();
        shared.together.unless_waiting(|| {
            let epoch = self.pacer.open_next(wall, now);
            if let Some(say) = self.behind.observe(epoch, self.options.clock.millis()) {
                tracing::warn!("{say}");
            }
            self.peers.open(epoch);
            self.shared.open.store(epoch, Ordering::Release);
            self.wake();
            epoch
        })
    }

    fn wake(&self) {
        for worker in &self.workers {
            worker.unpark();
        }
    }

    /// No more requests are taken; what they brought is read first.
    fn begin_close(&mut self, phase: &mut Phase, now: Instant) {
        if matches!(phase, Phase::Running) {
            if let Some(readers) = &self.readers {
                readers.close();
            }
            *phase = Phase::Closing(now);
        }
    }

    /// Whether requests are answered, and what they brought is read as far as it will be; and no transaction goes on as it
    /// comes, which could not be ended amid it.
    fn has_closed(&self) -> bool {
        if self.shared.together.is_held() {
            return false;
        }
        let held = self.shared.held.load(Ordering::Acquire);
        let closed = |readers: &Readers| readers.are_requests_answered() && (held || readers.are_requests_read());
        self.readers.as_ref().is_none_or(closed)
    }

    fn begin_drain(&mut self, phase: &mut Phase) -> Result<(), RunError> {
        if !matches!(phase, Phase::Draining) {
            self.status.observe_draining();
            self.peers.drain();
            drop(self.server.take());
            if let Some(readers) = self.readers.take() {
                readers.stop()?;
            }
            *phase = Phase::Draining;
            self.shared.held.store(false, Ordering::Release);
            self.wake();
        }
        Ok(())
    }

    /// Whether the run is over: nothing more to come, nothing waiting, everything committed.
    fn finished(&mut self, phase: &mut Phase) -> Result<bool, RunError> {
        if !self.shared.live.load(Ordering::Acquire) {
            return Ok(false);
        }
        if matches!(phase, Phase::Running) {
            // Asked in this order: readers that are exhausted have nothing left to put into the queues.
            let exhausted = self.options.until_caught_up
                && self.readers.as_ref().is_none_or(Readers::exhausted)
                && self.server.as_ref().is_none_or(Server::is_idle);
            if !(exhausted && self.are_queues_empty() && self.peers.caught_up()) {
                return Ok(false);
            }
            self.unread = lags::waiting(&feeds(self.readers.as_ref(), self.peers));
            self.begin_drain(phase)?;
        }
        if matches!(phase, Phase::Closing(_)) {
            return Ok(false);
        }
        if !(self.are_queues_empty() && self.peers.drained()) {
            return Ok(false);
        }
        // A delivery that has left its queue is taken before its worker's inputs advance again; so one more
        // epoch, opened after the queues were empty and closed at every worker, has seen them all.
        match self.fence {
            None => {
                self.fence = self.open_next(self.options.clock.millis(), Instant::now());
                Ok(false)
            }
            Some(fence) => {
                let closed = self.shared.frontier() >= fence;
                Ok(closed && self.shared.taken.load(Ordering::Acquire) == 0 && self.pacer.settled())
            }
        }
    }

    fn are_queues_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.is_empty()) && self.portions.iter().all(|queue| queue.is_empty())
    }

    fn end(mut self) -> Result<Conducted, RunError> {
        match self.publisher.take().map(Publisher::finish) {
            None => {}
            // What it failed by in the end it has told, and nobody else listens any more.
            Some(Ok(())) => {
                let told = self.events.try_iter().find_map(|event| match event {
                    Event::Failed(error) => Some(error),
                    _ => None,
                });
                told.map_or(Ok(()), Err)?;
            }
            // The lake is as it should be.
            Some(Err(error @ PublishError::Behind { .. })) => self.status.print(&causes::chain(&error)),
            Some(Err(error)) => return Err(error.into()),
        }
        let again = (!self.stopped && !self.met.is_empty()).then_some(self.met);
        if again.is_none()
            && let Some(files) = self.files.take()
            && let Err(error) = files.finish(&self.latency, SystemTime::now())
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "latency files are incomplete");
        }
        self.status.finish();
        Ok(Conducted {
            snapshot: self.newest,
            corrections: self.corrections,
            unread: self.unread,
            again,
            files: self.files,
        })
    }
}

/// How a run ended.
pub struct Conducted {
    /// The newest snapshot of this run; 0 where nothing was committed.
    pub snapshot: Epoch,
    /// See [`super::Outcome::corrections`].
    pub corrections: Option<Vec<(String, u64)>>,
    /// See [`super::Outcome::unread`].
    pub unread: Vec<String>,
    /// The run begins anew, for these schemas with new fields (known to process 0).
    pub again: Option<Vec<Met>>,
    /// Of a run that begins anew.
    pub files: Option<LatencyFiles>,
}
