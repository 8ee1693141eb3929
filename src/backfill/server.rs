//! The thread of a run that serves requests, one at a time.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased};
use tokio::runtime::Handle;

use super::pace::BackfillPace;
use super::request::shortened;
use super::{
    Allowed, BackfillBatch, BackfillOutcome, BackfillStatus, NextRequest, PORTION, Receipt, Request, RequestBoard, Work,
};
use crate::contain;
use crate::definition::Dataflow;
use crate::lake::Lake;
use crate::repr::{Epoch, PartitionId, Row};
use crate::serve::{LakeSnapshot, QueryError};
use crate::source::Delivery;

/// The interval between updates of a request's status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often to check whether everything fed is committed.
const ASK: Duration = Duration::from_millis(10);
/// How many records of portions a worker may take in an epoch: while live records arrive, and otherwise.
const SHARES: (usize, usize) = (2 * PORTION, 32 * PORTION);
/// How often writing an outcome is tried; and after how many failed looks for requests in a row a run that ends by
/// itself stops waiting for requests.
const ATTEMPTS: u32 = 5;
/// Of failed looks for requests, one in this number is logged.
const TELL_EVERY: u32 = 100;

/// The channel to one worker, and the function that wakes it.
pub struct BackfillChannel {
    /// Bounded; the worker takes from it when no live delivery waits.
    pub portions: Sender<BackfillBatch>,
    /// Called after a send, so that a parked worker wakes.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// What a server needs.
pub struct ServerContext {
    /// The dataflow that runs.
    pub dataflow: Arc<Dataflow>,
    /// Its lake.
    pub lake: Lake,
    /// The runtime for the lake's store.
    pub runtime: Handle,
    /// The workers of this process.
    pub workers: Vec<BackfillChannel>,
    /// Returns the number of records from feeds so far.
    pub live: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Returns the epoch of this run's newest snapshot; 0 if there is none yet.
    pub committed: Arc<dyn Fn() -> Epoch + Send + Sync>,
    /// Returns whether the lake's past is in effect and committed; before that, the lake could change under a request
    /// that reads it.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the feeds of the definition are read as well.
    pub feeds: bool,
    /// Called with the reason if the server ends because of a failure.
    pub failed: Box<dyn FnOnce(String) + Send>,
    /// The rate while live records arrive, in records a second, for requests without a rate.
    pub rate: f64,
}

/// A running server. Dropping it stops it between two portions, and waits until it has stopped.
pub struct Server {
    /// Dropped to stop.
    stop: Option<Sender<Infallible>>,
    idle: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Why serving a request ended early.
#[derive(Debug)]
pub(super) enum RequestHalt {
    /// The run ends; the next run continues the request.
    Stopped,
    /// It cannot be done, or not completely.
    Failed(String),
    /// It was deleted, which cancels it.
    Withdrawn,
}

impl Server {
    /// Starts the server's thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(serving: ServerContext) -> std::io::Result<Server> {
        let (stop, stopped) = bounded(0);
        let idle = Arc::new(AtomicBool::new(false));
        let requests = RequestBoard::new(serving.lake.clone());
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

    /// Whether the server has looked for requests and found none.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has reported its own failure.
            let _ = thread.join();
        }
    }
}

pub(super) struct Service {
    pub serving: ServerContext,
    pub requests: RequestBoard,
    stopped: Receiver<Infallible>,
    idle: Arc<AtomicBool>,
}

impl Service {
    fn run(mut self) {
        let failed = std::mem::replace(&mut self.serving.failed, Box::new(|_| ()));
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        match served {
            Ok(Ok(()) | Err(RequestHalt::Stopped | RequestHalt::Withdrawn)) => {}
            Ok(Err(RequestHalt::Failed(reason))) => failed(reason),
            Err(panic) => failed(format!("it panicked: {}; this is a bug", contain::message(&*panic))),
        }
    }

    fn serve(&self) -> Result<(), RequestHalt> {
        while !(self.serving.ready)() {
            self.rest(ASK)?;
        }
        if let Err(error) = self.wait_for(self.requests.forget(self.serving.dataflow.history)) {
            tracing::warn!(%error, "could not delete old outcomes of requests");
        }
        let mut failures = 0_u32;
        loop {
            match self.wait_for(self.requests.next_request()) {
                Ok(NextRequest::Request(request)) => {
                    self.idle.store(false, Ordering::Release);
                    failures = 0;
                    self.perform(&request)?;
                    continue;
                }
                Ok(NextRequest::Unsettled) => self.idle.store(false, Ordering::Release),
                Ok(NextRequest::Nothing) => {
                    failures = 0;
                    self.idle.store(true, Ordering::Release);
                }
                // Feeds go on; if the lake is lost, the next commit reports that.
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

    fn perform(&self, request: &Request) -> Result<(), RequestHalt> {
        tracing::info!(id = request.id, input = request.input, "serving a request");
        let mut job = BackfillJob {
            service: self,
            request,
            input: 0,
            pace: BackfillPace::new(request.rate, self.serving.rate),
            receipt: Arc::default(),
            sent: 0,
            status: BackfillStatus::default(),
            status_written: None,
            is_failure_logged: false,
            allowed: Allowed::from_dataflow(&self.serving.dataflow),
            outcome: BackfillOutcome::default(),
        };
        // A panic because of a file or a record ends the request and not the run.
        let ran = catch_unwind(AssertUnwindSafe(|| job.run()));
        match ran.unwrap_or_else(|panic| {
            Err(RequestHalt::Failed(format!(
                "serving it panicked: {}",
                contain::message(&*panic)
            )))
        }) {
            Err(RequestHalt::Stopped) => return Err(RequestHalt::Stopped),
            Err(RequestHalt::Failed(reason)) => job.outcome.error = Some(shortened(reason)),
            Err(RequestHalt::Withdrawn) => {
                job.outcome.error =
                    Some("the request was deleted before all of it was done; what was fed stays".to_string());
            }
            Ok(()) => {}
        }
        job.wait_until_committed()?;
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

    /// Sleeps; fails if the run ends.
    pub fn rest(&self, duration: Duration) -> Result<(), RequestHalt> {
        match self.stopped.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(RequestHalt::Stopped),
        }
    }

    /// The receiver by which the reading of files notices a stop.
    pub fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }

    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.serving.runtime.block_on(future)
    }
}

/// A request that is being served.
pub(super) struct BackfillJob<'a> {
    pub service: &'a Service,
    pub request: &'a Request,
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    pace: BackfillPace,
    receipt: Arc<Receipt>,
    sent: u64,
    pub status: BackfillStatus,
    status_written: Option<Instant>,
    /// Whether its status could not be written, which was logged.
    is_failure_logged: bool,
    /// The files that it may name.
    pub allowed: Allowed,
    pub outcome: BackfillOutcome,
}

/// The contents of a portion.
pub(super) struct BatchContents {
    pub delivery: Delivery,
    pub arrived: Option<Epoch>,
    pub letters: Vec<Row>,
    pub progress: Option<PartitionId>,
}

impl BackfillJob<'_> {
    fn run(&mut self) -> Result<(), RequestHalt> {
        let dataflow = &self.service.serving.dataflow;
        let input = dataflow
            .inputs
            .iter()
            .position(|input| input.name == self.request.input);
        self.input = input.ok_or_else(|| {
            RequestHalt::Failed(format!(
                "the dataflow that runs has no input {}; restart it",
                self.request.input
            ))
        })?;
        if !dataflow.inputs[self.input].bronze {
            return Err(RequestHalt::Failed(format!(
                "input {} keeps no Bronze (bronze = false), from which its rows could be made again",
                self.request.input
            )));
        }
        self.update_status()?;
        match &self.request.work {
            Work::Files { feed, files, again } => self.feed_files(feed, files, *again),
            Work::Bronze { since, until } => self.feed_bronze(*since, *until),
            Work::Letters => self.feed_letters(),
        }
    }

    /// Sends a portion to its worker, when its pace allows.
    pub fn feed(&mut self, feeding: BatchContents) -> Result<(), RequestHalt> {
        let serving = &self.service.serving;
        loop {
            let now = Instant::now();
            self.pace.observe_live((serving.live)(), now);
            let wait = self.pace.wait(now);
            if wait.is_zero() {
                break;
            }
            self.service.rest(wait.min(STATUS_INTERVAL))?;
            self.update_status()?;
        }
        let records = feeding.delivery.decoded.raw.len();
        let now = Instant::now();
        let share = if self.pace.is_live(now) { SHARES.0 } else { SHARES.1 };
        // All portions of one progress go to one worker, so that their positions arrive in order.
        let name = feeding
            .progress
            .as_ref()
            .map_or(&*feeding.delivery.partition, |id| &id.partition);
        let worker = twox_hash::XxHash64::oneshot(0, name.as_bytes()) % serving.workers.len() as u64;
        let BackfillChannel { portions, wake } = &serving.workers[worker as usize];
        let portion = BackfillBatch {
            delivery: feeding.delivery,
            arrived: feeding.arrived,
            letters: feeding.letters,
            progress: feeding.progress,
            share,
            receipt: self.receipt.clone(),
        };
        select_biased! {
            recv(self.service.stopped) -> _ => return Err(RequestHalt::Stopped),
            send(portions, portion) -> sent => sent.map_err(|_| RequestHalt::Stopped)?,
        }
        wake();
        self.sent += 1;
        self.pace.observe_sent(records, now);
        self.outcome.records += records as u64;
        self.status.records = self.outcome.records;
        self.update_status()
    }

    /// Writes the status from time to time. A request that was deleted meanwhile is cancelled.
    pub fn update_status(&mut self) -> Result<(), RequestHalt> {
        if self
            .status_written
            .is_some_and(|written| written.elapsed() < STATUS_INTERVAL)
        {
            return Ok(());
        }
        self.status_written = Some(Instant::now());
        let written = self.service.requests.write_status(&self.request.id, &self.status);
        // A failure is not critical, because the next status follows soon.
        if let Err(error) = self.service.wait_for(written)
            && !std::mem::replace(&mut self.is_failure_logged, true)
        {
            tracing::warn!(id = self.request.id, %error, "could not tell how far a request is");
        }
        let is_deleted = self.service.requests.is_deleted(&self.request.id);
        match !self.status.committing && self.service.wait_for(is_deleted) {
            true => Err(RequestHalt::Withdrawn),
            false => Ok(()),
        }
    }

    /// Waits until everything that was fed is committed.
    fn wait_until_committed(&mut self) -> Result<(), RequestHalt> {
        self.status.committing = true;
        while !self.receipt.is_committed(self.sent, (self.service.serving.committed)()) {
            self.service.rest(ASK)?;
            self.update_status()?;
        }
        self.outcome.rejected = self.receipt.rejected.load(Ordering::Acquire);
        self.outcome.rejected_files = self.receipt.rejected_files.load(Ordering::Acquire);
        self.outcome.snapshot = self.receipt.epoch.load(Ordering::Acquire);
        if self.outcome.snapshot > 0 {
            // If nothing changed there is no new snapshot, although the epoch is committed.
            let lake = &self.service.serving.lake;
            let newest = self.service.wait_for(LakeSnapshot::open(lake, None));
            self.outcome.snapshot = match newest.map(|newest| newest.epoch()) {
                Ok(newest) if newest >= self.outcome.snapshot => newest.min((self.service.serving.committed)()),
                Ok(_) | Err(QueryError::Empty(_)) => 0,
                Err(error) => {
                    return Err(RequestHalt::Failed(format!(
                        "could not look at the newest snapshot: {error}"
                    )));
                }
            };
        }
        Ok(())
    }
}
