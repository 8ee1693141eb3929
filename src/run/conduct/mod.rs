//! The conductor: one thread that closes epochs, has snapshots sealed, and ends a run. Plain values, which it feeds
//! with what it observes, decide when: [`pacer`] by time and load, [`course`] by what is left to do.

pub mod audit;
mod course;
mod follower;
pub mod memory;
pub mod pacer;
mod parts;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use self::audit::Audit;
use self::course::{Course, CourseStep, RunSurroundings};
use self::pacer::Pacer;
use super::board::{Board, RunEvent};
use super::clock::ClockWatch;
use super::lines::WorkerLines;
use super::team::Peers;
use super::{Options, RunError, lags};
use crate::backfill::Server;
use crate::causes;
use crate::evolve::NewSchemaFields;
use crate::latency::{Latency, LatencyFiles};
use crate::publish::{PublishError, Publisher};
use crate::render::error::{error_codec, read_error};
use crate::repr::Epoch;
use crate::sink::CommitEvent;
use crate::source::{FeedStatus, Readers};

pub use self::follower::Follower;
pub use self::parts::{Intake, Watches};
pub use self::status::{AboveStatus, StatusLine};

/// How often the run's progress is checked, if it ends with its feeds or is ending.
pub(super) const ASK: Duration = Duration::from_millis(20);

/// After how long a run that is ending logs what it waits for, and how often.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many characters of a row that violates an expectation are shown.
const EXAMPLE: usize = 300;

/// What a conductor works with.
pub struct Conducting<'a> {
    pub board: Arc<Board>,
    pub events: Receiver<RunEvent>,
    pub latency: Arc<Latency>,
    pub files: Option<LatencyFiles>,
    pub lines: &'a WorkerLines,
    /// The other processes of the run.
    pub peers: &'a Peers,
    pub intake: Intake,
    /// Publishes snapshots to topics; `None` if no table goes to a topic.
    pub publisher: Option<Publisher>,
    pub watches: Watches,
    pub options: &'a Options,
    pub status: StatusLine,
    pub pacer: Pacer,
    /// Whether rows appear or disappear by the passing of time alone.
    pub temporal: bool,
    pub commit: Duration,
}

/// See the module's header.
pub struct Conductor<'a> {
    run: Conducting<'a>,
    course: Course,
    /// Whether the epoch of the replayed past is closed. Live epochs follow once it is sealed.
    past_closed: bool,
    /// Notices when the clock falls behind the epochs.
    behind: ClockWatch,
    /// The result of the audit, once the first snapshot is committed.
    corrections: Option<Vec<(String, u64)>>,
    /// The newest snapshot with a change; 0 if there is none.
    newest: Epoch,
    /// The feeds that waited for something when everything else was caught up, each with its cause.
    unread: Vec<String>,
}

/// What [`Course`] looks at to decide.
struct CourseInputs<'a> {
    board: &'a Board,
    lines: &'a WorkerLines,
    peers: &'a Peers,
    intake: &'a Intake,
    pacer: &'a Pacer,
}

impl RunSurroundings for CourseInputs<'_> {
    fn is_live(&self) -> bool {
        self.board.epochs.live.load(Ordering::Acquire)
    }

    fn has_closed(&self) -> bool {
        if self.board.epochs.together.is_held() {
            return false;
        }
        let paused = self.board.epochs.paused.load(Ordering::Acquire);
        let closed = |readers: &Readers| readers.are_requests_answered() && (paused || readers.are_requests_read());
        self.intake.readers.as_ref().is_none_or(closed)
    }

    fn is_exhausted(&self) -> bool {
        self.intake.readers.as_ref().is_none_or(Readers::exhausted)
            && self.intake.server.as_ref().is_none_or(Server::is_idle)
    }

    fn are_queues_empty(&self) -> bool {
        self.lines.are_empty()
    }

    fn have_others_caught_up(&self) -> bool {
        self.peers.caught_up()
    }

    fn have_others_drained(&self) -> bool {
        self.peers.drained()
    }

    fn in_rounds(&self) -> Option<Epoch> {
        self.board.workers.rounds().map(|rounds| rounds.epoch)
    }

    fn is_settled(&self, fence: Epoch) -> bool {
        let epochs = &self.board.epochs;
        epochs.frontier() >= fence && epochs.taken.load(Ordering::Acquire) == 0 && self.pacer.all_committed()
    }
}

/// The status of the feeds of all processes.
fn feeds(readers: Option<&Readers>, peers: &Peers) -> Vec<FeedStatus> {
    let mut feeds = readers.map(Readers::statuses).unwrap_or_default();
    feeds.extend(peers.feeds());
    feeds
}

impl<'a> Conductor<'a> {
    /// The conductor of a run that starts now.
    pub fn new(run: Conducting<'a>) -> Conductor<'a> {
        Conductor {
            course: Course::new(Instant::now(), run.options.duration, run.options.until_caught_up),
            run,
            past_closed: false,
            behind: ClockWatch::default(),
            corrections: None,
            newest: 0,
            unread: vec![],
        }
    }

    /// Conducts until the run is to end and everything that was taken is committed.
    pub fn conduct(mut self) -> Result<Conducted, RunError> {
        let started = Instant::now();
        let (mut last_tick, mut last_interval, mut last_warning) = (started, started, started);
        loop {
            let wait = self.wait(Instant::now());
            match self.run.events.recv_timeout(wait) {
                Ok(event) => self.observe(event, Instant::now())?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::WorkersGone),
            }
            let now = Instant::now();
            if let Some(error) = self.run.intake.readers.as_ref().and_then(Readers::failure) {
                return Err(error.into());
            }
            if self.go_on(now)? {
                return self.end();
            }
            // Behind the fence, ticks are no input any more: otherwise a run whose commits take longer than their
            // interval would never end.
            let is_fenced = self.course.fence().is_some();
            if self.run.temporal && !is_fenced && now.duration_since(last_tick) >= self.run.commit {
                last_tick = now;
                self.run.pacer.observe_tick();
            }
            self.look_at_memory(now);
            self.pace(now)?;
            if now.duration_since(last_interval) >= Duration::from_secs(1) {
                last_interval = now;
                self.write_interval();
            }
            self.update_status();
            if !is_fenced {
                last_warning = now;
            }
            if now.duration_since(last_warning) >= PATIENCE {
                last_warning = now;
                self.warn_of_delay();
            }
        }
    }

    fn observe(&mut self, event: RunEvent, now: Instant) -> Result<(), RunError> {
        match event {
            RunEvent::Progress => self.run.board.events.observe_look(),
            RunEvent::Commit(event) => self.observe_commit(event),
            RunEvent::Failed(error) => return Err(error),
            RunEvent::Report => {
                self.run.status.print(&self.run.latency.figures().to_string());
                self.run.status.print(&lags::report(&self.feeds()));
                self.run.watches.memory.ask(&self.run.board, now);
            }
            RunEvent::Stop => self.course.observe_stop(),
            RunEvent::Evolves(new_schema) => self.observe_met(new_schema),
            RunEvent::Committed(_) | RunEvent::Drain | RunEvent::End(_) => {} // sent only to other processes
        }
        Ok(())
    }

    /// Carries out the steps that the run's course decides on. Returns whether the run has ended.
    fn go_on(&mut self, now: Instant) -> Result<bool, RunError> {
        loop {
            let view = CourseInputs {
                board: &self.run.board,
                lines: self.run.lines,
                peers: self.run.peers,
                intake: &self.run.intake,
                pacer: &self.run.pacer,
            };
            match self.course.next(now, &view) {
                CourseStep::Stay => return Ok(false),
                CourseStep::End => return Ok(true),
                CourseStep::Leave => {
                    let rounds = self.run.board.workers.rounds();
                    let (query, round) = rounds.map_or(("a recursive query".into(), 0), |under_way| {
                        (under_way.query.to_string(), under_way.round)
                    });
                    return Err(RunError::InRounds { query, round });
                }
                // No more requests are accepted; those under way are read first.
                CourseStep::Close => {
                    if let Some(readers) = &self.run.intake.readers {
                        readers.close();
                    }
                }
                CourseStep::Drain { is_caught_up } => {
                    if is_caught_up {
                        self.unread = lags::waiting(&self.feeds());
                    }
                    self.drain()?;
                }
                CourseStep::OpenFence => match self.open_next(self.run.options.clock.millis(), now) {
                    Some(fence) => self.course.observe_fence(fence),
                    // A delivery that belongs into the open epoch is under way.
                    None => return Ok(false),
                },
            }
        }
    }

    fn look_at_memory(&mut self, now: Instant) {
        let memory = &mut self.run.watches.memory;
        if let Some((above, say)) = memory.look(now) {
            // A run that is ending has to take what is in its queues, whatever the memory.
            let paused = above && !self.course.is_draining();
            self.run.board.epochs.paused.store(paused, Ordering::Release);
            say.inspect(|say| self.run.status.print(say));
        }
        if let Some(report) = memory.report(&self.run.board, now) {
            self.run.status.print(&report);
        }
    }

    fn write_interval(&mut self) {
        if let Some(files) = &mut self.run.files
            && let Err(error) = files.write_interval(&self.run.latency, SystemTime::now())
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "latency log given up");
            self.run.files = None;
        }
    }

    fn update_status(&mut self) {
        let Conducting {
            status,
            board,
            pacer,
            latency,
            intake,
            peers,
            ..
        } = &mut self.run;
        status.update(board, pacer, latency, || feeds(intake.readers.as_ref(), peers));
    }

    fn feeds(&self) -> Vec<FeedStatus> {
        feeds(self.run.intake.readers.as_ref(), self.run.peers)
    }

    /// How long the conductor can wait for an event before it has something to decide.
    fn wait(&self, now: Instant) -> Duration {
        let epochs = &self.run.board.epochs;
        let mut wait = self
            .run
            .pacer
            .patience(now)
            .filter(|_| epochs.live.load(Ordering::Acquire)) // while the past is fed, events say when to look
            .unwrap_or(Duration::from_secs(1))
            .min(self.run.status.period());
        if self.run.options.until_caught_up || !self.course.is_running() {
            wait = wait.min(ASK);
        }
        if self.run.temporal {
            wait = wait.min(self.run.commit);
        }
        wait = self.course.left(now).map_or(wait, |left| wait.min(left));
        // An epoch that is due stays open while deliveries for it are under way; workers report when they have taken
        // them.
        match epochs.together.waits() {
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
        if let Some(offsets) = &self.run.intake.offsets {
            offsets.publish(&progress);
        }
        if let Some(readers) = &self.run.intake.readers {
            readers.observe_committed(&progress);
        }
        if changed {
            self.newest = epoch;
            if let Some(publisher) = &self.run.publisher {
                publisher.observe_committed(epoch);
            }
        }
        self.run
            .latency
            .observe_committed(epoch, Instant::now(), SystemTime::now());
        self.run.pacer.observe_committed(epoch);
        self.run.board.epochs.committed.fetch_max(epoch, Ordering::AcqRel);
        if self.run.board.weight.observe_committed(epoch) {
            self.run.lines.signals.wake();
        }
        self.run.status.observe_committed(epoch);
        self.run.peers.committed(epoch);
        if let Some(audit) = self.run.watches.audit.take() {
            let corrections = audit.finish();
            if !self.run.options.rebuilds {
                self.run
                    .status
                    .observe_audit(&corrections, &self.run.board.counters.phases());
            }
            self.corrections = Some(corrections);
        }
    }

    /// Has the run commit what was read before, and then begin anew with the new fields of the schema.
    fn observe_met(&mut self, new_schema: NewSchemaFields) {
        let NewSchemaFields { input, feed, schema } = &new_schema;
        self.run.status.print(&format!(
            "{input}: schema {schema} of feed {feed} has new fields; what was read before is committed, then they are taken"
        ));
        self.course.observe_met(new_schema);
    }

    /// Opens epochs and seals snapshots as the pacer decides.
    fn pace(&mut self, now: Instant) -> Result<(), RunError> {
        self.run.pacer.observe_closed(self.run.board.epochs.frontier());
        let taken = self.run.board.epochs.taken.swap(0, Ordering::AcqRel);
        if taken > 0 {
            self.run.pacer.observe_taken(taken);
        }
        if self.run.board.epochs.full.swap(false, Ordering::AcqRel) {
            self.run.pacer.observe_full();
        }
        self.run
            .latency
            .observe_closed(self.run.board.epochs.frontier(), now, SystemTime::now());
        // The audit compares all of the past at once, so nothing that feeds bring may come before it is over.
        let live = self.run.board.epochs.live.load(Ordering::Acquire);
        if !live && !self.run.board.epochs.is_past_over() {
            self.pace_past(now);
            return Ok(());
        }
        if !live && !std::mem::replace(&mut self.past_closed, true) {
            self.run.watches.audit.iter_mut().for_each(Audit::observe_handed_over);
            // The past ends with an epoch that is committed; `live_from` is the first epoch that can be sealed.
            let first = self.run.board.epochs.plan.live_from;
            self.open_next(first, now);
            self.run.pacer.observe_tick();
            let wall = self.run.options.clock.millis();
            self.open_next(wall.max(first + 1), now);
        }
        if live && self.run.pacer.is_due(now) {
            let wall = self.run.options.clock.millis();
            self.open_next(wall, now);
        }
        if !live && self.run.board.epochs.frontier() <= self.run.board.epochs.plan.live_from {
            return Ok(());
        }
        let heavy = self.run.board.epochs.heavy.swap(false, Ordering::AcqRel) || self.run.board.weight.is_due();
        if let Some(epoch) = self
            .run
            .pacer
            .next_seal(now, self.course.is_draining() || !live || heavy)
        {
            if let Some((violations, row)) = self.run.board.violations.as_of(epoch) {
                let (reason, row) = read_error(&error_codec(), &row)?;
                let row = String::from_utf8_lossy(&row).chars().take(EXAMPLE).collect();
                return Err(RunError::Expectation {
                    violations,
                    reason,
                    row,
                });
            }
            self.run.peers.seal(epoch);
            self.run.board.weight.observe_sealed(epoch);
            self.run.lines.signals.seal(epoch);
            self.run.board.epochs.live.store(true, Ordering::Release);
            self.run.lines.signals.wake();
        }
        Ok(())
    }

    /// Opens the next epoch of the past once the open one is full and all earlier ones have closed.
    fn pace_past(&mut self, now: Instant) {
        if self.run.pacer.open() < self.run.board.epochs.plan.past_until
            && self.run.pacer.is_due(now)
            && self.run.pacer.is_full()
        {
            let (pacer, peers) = (&mut self.run.pacer, self.run.peers);
            self.run.board.epochs.open_unless_held(|| {
                let epoch = pacer.open_next(0, now);
                peers.open(epoch);
                epoch
            });
            self.run.lines.signals.wake();
        }
    }

    fn warn_of_delay(&self) {
        let frontiers = self
            .run
            .board
            .epochs
            .frontiers
            .iter()
            .map(|f| f.load(Ordering::Acquire));
        tracing::warn!(
            fence = self.course.fence(),
            closed = frontiers.min(),
            open = self.run.pacer.open(),
            waiting = %self.run.pacer.unfinished(),
            requests = self.run.intake.server.as_ref().is_some_and(|server| !server.is_idle()),
            "still waiting for the end"
        );
        if self.course.is_stopped() && self.run.options.signals {
            tracing::warn!(
                "what was read is computed and committed first; a second SIGTERM or Ctrl-C ends the run at once, and the next one reads \
                 again what is not committed"
            );
        }
        self.run
            .board
            .workers
            .asked
            .iter()
            .for_each(|asked| asked.store(true, Ordering::Release));
        self.run.peers.ask();
        self.run.lines.signals.wake();
    }

    /// Opens the next epoch, unless deliveries are under way that belong into the open one.
    fn open_next(&mut self, wall: u64, now: Instant) -> Option<Epoch> {
        let board = self.run.board.clone();
        board.epochs.together.unless_waiting(|| {
            let epoch = self.run.pacer.open_next(wall, now);
            if let Some(say) = self.behind.observe(epoch, self.run.options.clock.millis()) {
                tracing::warn!("{say}");
            }
            self.run.peers.open(epoch);
            self.run.board.epochs.open.store(epoch, Ordering::Release);
            self.run.lines.signals.wake();
            epoch
        })
    }

    /// Stops readers and requests.
    fn drain(&mut self) -> Result<(), RunError> {
        self.run.status.observe_draining();
        self.run.peers.drain();
        drop(self.run.intake.server.take());
        if let Some(readers) = self.run.intake.readers.take() {
            readers.stop()?;
        }
        self.run.board.epochs.paused.store(false, Ordering::Release);
        self.run.lines.signals.wake();
        Ok(())
    }

    fn end(mut self) -> Result<Conducted, RunError> {
        match self.run.publisher.take().map(Publisher::finish) {
            None => {}
            // The publisher reports its last failure as an event, and nothing else receives events any more.
            Some(Ok(())) => {
                let failure = self.run.events.try_iter().find_map(|event| match event {
                    RunEvent::Failed(error) => Some(error),
                    _ => None,
                });
                failure.map_or(Ok(()), Err)?;
            }
            // Topics lag behind, but the lake is complete.
            Some(Err(error @ PublishError::Behind { .. })) => self.run.status.print(&causes::chain(&error)),
            Some(Err(error)) => return Err(error.into()),
        }
        let again = self.course.into_met();
        if again.is_none()
            && let Some(files) = self.run.files.take()
            && let Err(error) = files.finish(&self.run.latency, SystemTime::now())
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "latency files are incomplete");
        }
        self.run.status.finish();
        Ok(Conducted {
            snapshot: self.newest,
            corrections: self.corrections,
            unread: self.unread,
            again,
            files: self.run.files,
        })
    }
}

/// The result of conducting a run.
pub struct Conducted {
    /// The newest snapshot with a change; 0 if there is none.
    pub snapshot: Epoch,
    /// See [`super::RunOutcome::corrections`].
    pub corrections: Option<Vec<(String, u64)>>,
    /// See [`super::RunOutcome::unread`].
    pub unread: Vec<String>,
    /// If the run is to begin anew, the schemas with new fields that it begins anew for (only process 0 knows them; in
    /// other processes the list is empty).
    pub again: Option<Vec<NewSchemaFields>>,
    /// The latency files, which a run that begins anew goes on writing.
    pub files: Option<LatencyFiles>,
}
