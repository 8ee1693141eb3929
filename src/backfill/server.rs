//! The thread of a run that serves requests, one at a time.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased};
use tokio::runtime::Handle;

use super::pace::Pace;
use super::request::shortened;
use super::{Allowed, Look, Outcome, PORTION, Portion, Receipt, Request, Requests, Status, Work};
use crate::contain;
use crate::definition::Dataflow;
use crate::repr::{Epoch, Row};
use crate::serve::{QueryError, Snapshot};
use crate::sink::Lake;
use crate::source::{Delivery, PartitionId};

/// How often a status is told.
const TELL: Duration = Duration::from_secs(1);
/// How often it is asked whether what was fed is committed.
const ASK: Duration = Duration::from_millis(10);
/// Records that an epoch of a worker takes of portions: beside live records, and otherwise.
const SHARES: (usize, usize) = (2 * PORTION, 32 * PORTION);
/// How often noting the end of a request is tried, and how often looking for requests may fail in a row before a run that
/// ends by itself waits for none.
const ATTEMPTS: u32 = 5;
/// Every so many times that looking for requests fails, it is said.
const TELL_EVERY: u32 = 100;

/// A worker's end for portions.
pub struct Inlet {
    /// Bounded; the worker takes from it when nothing live waits.
    pub portions: Sender<Portion>,
    /// Called after a send, so that a parked worker wakes.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// What a server works with.
pub struct Serving {
    /// The dataflow that runs.
    pub dataflow: Arc<Dataflow>,
    /// Its lake.
    pub lake: Lake,
    /// Drives the lake's store.
    pub runtime: Handle,
    /// The workers of this process.
    pub workers: Vec<Inlet>,
    /// Records that came from feeds so far.
    pub live: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The newest snapshot of this run; 0: none yet.
    pub committed: Arc<dyn Fn() -> Epoch + Send + Sync>,
    /// Whether the lake's past is in effect and committed: what a request reads of the lake must not change below it.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the feeds of the definition are read beside.
    pub feeds: bool,
    /// Called with the reason if the server ends by itself.
    pub failed: Box<dyn FnOnce(String) + Send>,
    /// Records a second beside live ones, where a request names no rate.
    pub rate: f64,
}

/// A server. Dropping it stops it between two portions, and waits until it has.
pub struct Server {
    /// Dropped to stop.
    stop: Option<Sender<Infallible>>,
    idle: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Why a request was left.
#[derive(Debug)]
pub(super) enum Halt {
    /// The run ends: the next one goes on with it.
    Stopped,
    /// It cannot be done, or not to its end.
    Failed(String),
    /// It is deleted: nobody wants more of it.
    Withdrawn,
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(serving: Serving) -> std::io::Result<Server> {
        let (stop, stopped) = bounded(0);
        let idle = Arc::new(AtomicBool::new(false));
        let requests = Requests::new(serving.lake.clone(), serving.dataflow.durable);
        let service = Service {
            requests,
            stopped,
            idle: idle.clone(),
            serving,
        };
        let thread = std::thread::Builder::new()
            .name("backfill".into())
            .spawn(move || service.run())?;
        Ok(Server {
            stop: Some(stop),
            idle,
            thread: Some(thread),
        })
    }

    /// Whether there was no request when it last looked, and it did look.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told of its own failure.
            let _ = thread.join();
        }
    }
}

pub(super) struct Service {
    pub serving: Serving,
    pub requests: Requests,
    stopped: Receiver<Infallible>,
    idle: Arc<AtomicBool>,
}

impl Service {
    fn run(mut self) {
        let failed = std::mem::replace(&mut self.serving.failed, Box::new(|_| ()));
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        match served {
            Ok(Ok(()) | Err(Halt::Stopped | Halt::Withdrawn)) => {}
            Ok(Err(Halt::Failed(reason))) => failed(reason),
            Err(panic) => failed(format!("it panicked: {}; this is a bug", contain::message(&*panic))),
        }
    }

    fn serve(&self) -> Result<(), Halt> {
        while !(self.serving.ready)() {
            self.rest(ASK)?;
        }
        if let Err(error) = self.wait_for(self.requests.forget(self.serving.dataflow.history)) {
            tracing::warn!(%error, "could not delete old outcomes of requests");
        }
        let mut failures = 0_u32;
        loop {
            match self.wait_for(self.requests.look()) {
                Ok(Look::Request(request)) => {
                    self.idle.store(false, Ordering::Release);
                    failures = 0;
                    self.perform(&request)?;
                    continue;
                }
                Ok(Look::Unsettled) => self.idle.store(false, Ordering::Release),
                Ok(Look::Nothing) => {
                    failures = 0;
                    self.idle.store(true, Ordering::Release);
                }
                // Feeds go on: if the lake is lost, what commits to it says so.
                Err(error) => {
                    if failures.is_multiple_of(TELL_EVERY) {
                        tracing::warn!(%error, "could not look for requests; none is served until that is possible");
                    }
                    failures = failures.saturating_add(1);
                    self.idle.store(failures > ATTEMPTS, Ordering::Release);
                }
            }
            self.rest(self.requests.poll())?;
        }
    }

    fn perform(&self, request: &Request) -> Result<(), Halt> {
        tracing::info!(id = request.id, input = request.input, "serving a request");
        let mut job = Job {
            service: self,
            request,
            input: 0,
            pace: Pace::new(request.rate, self.serving.rate),
            receipt: Arc::default(),
            sent: 0,
            status: Status::default(),
            told: None,
            is_untold: false,
            allowed: Allowed::of(&self.serving.dataflow),
            outcome: Outcome::default(),
        };
        // What a file or a record makes panic ends the request, not the run.
        let ran = catch_unwind(AssertUnwindSafe(|| job.run()));
        match ran.unwrap_or_else(|panic| {
            Err(Halt::Failed(format!(
                "serving it panicked: {}",
                contain::message(&*panic)
            )))
        }) {
            Err(Halt::Stopped) => return Err(Halt::Stopped),
            Err(Halt::Failed(reason)) => job.outcome.error = Some(shortened(reason)),
            Err(Halt::Withdrawn) => {
                job.outcome.error =
                    Some("the request was deleted before all of it was done; what was fed stays".to_string());
            }
            Ok(()) => {}
        }
        job.settle()?;
        let outcome = job.outcome;
        tracing::info!(
            id = request.id,
            records = outcome.records,
            rejected = outcome.rejected + outcome.rejected_files,
            error = outcome.error,
            "request done"
        );
        for _ in 0..ATTEMPTS {
            match self.wait_for(self.requests.finish(&request.id, &outcome)) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(id = request.id, %error, "could not note the end of a request"),
            }
            self.rest(self.requests.poll())?;
        }
        tracing::warn!(
            id = request.id,
            "a request that is done is passed by: its end could not be noted"
        );
        self.requests.pass_by(&request.id);
        Ok(())
    }

    /// Waits, unless the run ends.
    pub fn rest(&self, duration: Duration) -> Result<(), Halt> {
        match self.stopped.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Halt::Stopped),
        }
    }

    /// Where files look whether they are to go on.
    pub fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }

    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.serving.runtime.block_on(future)
    }
}

/// A request that is being served.
pub(super) struct Job<'a> {
    pub service: &'a Service,
    pub request: &'a Request,
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    pace: Pace,
    receipt: Arc<Receipt>,
    sent: u64,
    pub status: Status,
    told: Option<Instant>,
    /// Its status could not be told, which was said.
    is_untold: bool,
    /// Which files it may name.
    pub allowed: Allowed,
    pub outcome: Outcome,
}

/// What a portion is made of.
pub(super) struct Feeding {
    pub delivery: Delivery,
    pub arrived: Option<Epoch>,
    pub letters: Vec<Row>,
    pub progress: Option<PartitionId>,
}

impl Job<'_> {
    fn run(&mut self) -> Result<(), Halt> {
        let dataflow = &self.service.serving.dataflow;
        let input = dataflow
            .inputs
            .iter()
            .position(|input| input.name == self.request.input);
        self.input = input.ok_or_else(|| {
            Halt::Failed(format!(
                "the dataflow that runs has no input {}; restart it",
                self.request.input
            ))
        })?;
        if !dataflow.inputs[self.input].bronze {
            return Err(Halt::Failed(format!(
                "input {} keeps no Bronze (bronze = false), from which its rows could be made again",
                self.request.input
            )));
        }
        self.tell()?;
        match &self.request.work {
            Work::Files { feed, files, again } => self.feed_files(feed, files, *again),
            Work::Bronze { since, until } => self.feed_bronze(*since, *until),
            Work::Letters => self.feed_letters(),
        }
    }

    /// Hands a portion to its worker, as fast as it may go.
    pub fn feed(&mut self, feeding: Feeding) -> Result<(), Halt> {
        let serving = &self.service.serving;
        loop {
            let now = Instant::now();
            self.pace.observe_live((serving.live)(), now);
            let wait = self.pace.wait(now);
            if wait.is_zero() {
                break;
            }
            self.service.rest(wait.min(TELL))?;
            self.tell()?;
        }
        let records = feeding.delivery.decoded.raw.len();
        let now = Instant::now();
        let share = if self.pace.is_live(now) { SHARES.0 } else { SHARES.1 };
        // One partition, one worker: its positions come in order.
        let name = feeding
            .progress
            .as_ref()
            .map_or(&*feeding.delivery.partition, |id| &id.partition);
        let worker = twox_hash::XxHash64::oneshot(0, name.as_bytes()) % serving.workers.len() as u64;
        let Inlet { portions, wake } = &serving.workers[worker as usize];
        let portion = Portion {
            delivery: feeding.delivery,
            arrived: feeding.arrived,
            letters: feeding.letters,
            progress: feeding.progress,
            share,
            receipt: self.receipt.clone(),
        };
        select_biased! {
            recv(self.service.stopped) -> _ => return Err(Halt::Stopped),
            send(portions, portion) -> sent => sent.map_err(|_| Halt::Stopped)?,
        }
        wake();
        self.sent += 1;
        self.pace.observe_sent(records, now);
        self.outcome.records += records as u64;
        self.status.records = self.outcome.records;
        self.tell()
    }

    /// Says how far it is, now and then. A request that is deleted meanwhile ends: who deletes it wants no more of it.
    pub fn tell(&mut self) -> Result<(), Halt> {
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let told = self.service.requests.tell(&self.request.id, &self.status);
        // Whoever waits sees the next one.
        if let Err(error) = self.service.wait_for(told)
            && !std::mem::replace(&mut self.is_untold, true)
        {
            tracing::warn!(id = self.request.id, %error, "could not tell how far a request is");
        }
        let is_deleted = self.service.requests.is_deleted(&self.request.id);
        match !self.status.committing && self.service.wait_for(is_deleted) {
            true => Err(Halt::Withdrawn),
            false => Ok(()),
        }
    }

    /// Waits until everything that was fed is committed.
    fn settle(&mut self) -> Result<(), Halt> {
        self.status.committing = true;
        while !self.receipt.is_committed(self.sent, (self.service.serving.committed)()) {
            self.service.rest(ASK)?;
            self.tell()?;
        }
        self.outcome.rejected = self.receipt.rejected.load(Ordering::Acquire);
        self.outcome.rejected_files = self.receipt.rejected_files.load(Ordering::Acquire);
        self.outcome.snapshot = self.receipt.epoch.load(Ordering::Acquire);
        if self.outcome.snapshot > 0 {
            // What changes nothing makes no snapshot, though its epoch is committed.
            let lake = &self.service.serving.lake;
            let newest = self.service.wait_for(Snapshot::open(lake, None));
            self.outcome.snapshot = match newest.map(|newest| newest.epoch()) {
                Ok(newest) if newest >= self.outcome.snapshot => newest.min((self.service.serving.committed)()),
                Ok(_) | Err(QueryError::Empty(_)) => 0,
                Err(error) => return Err(Halt::Failed(format!("could not look at the newest snapshot: {error}"))),
            };
        }
        Ok(())
    }
}
