//! What the threads of a run share: the open epoch, how far each worker's graph has closed, what is sealed, and
//! counters for people. Plain atomics: each value has one writer, or only ever grows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::decode::skip::Skips;
use crate::evolve::Met;
use crate::repr::footprint::Footprints;
use crate::repr::{Diff, Epoch, Row};
use crate::sink::CommitEvent;
use crate::source::Together;

use super::RunError;
use super::epochs::Epochs;
use super::suspects::Suspects;
use super::weight::Weight;
use super::worker::LOAD_ROWS;

/// What wakes the conductor.
pub enum Event {
    /// Something was taken, or a frontier moved: look at [`Shared`].
    Progress,
    /// The committer speaks.
    Commit(CommitEvent),
    /// A part of the run is gone; the run ends.
    Failed(RunError),
    /// Ctrl-C or SIGTERM: drain, commit, report.
    Stop,
    /// SIGUSR1: print the latency and memory reports.
    Report,
    /// Process 0 says, to another one: a snapshot is committed.
    Committed(Epoch),
    /// Process 0 says, to another one: read no more.
    Drain,
    /// A feed holds back records behind a schema with new fields.
    Evolves(Met),
    /// Process 0 says, to another one: all is committed, end; and whether to begin anew.
    End(bool),
}

/// Counters of one input.
#[derive(Default)]
pub struct InputCounters {
    /// Records taken from feeds.
    pub records: AtomicU64,
    /// Records of the past, replayed.
    pub replayed: AtomicU64,
    /// Rows that it held before, loaded.
    pub loaded: AtomicU64,
    /// Of the records taken from feeds, those that became dead letters.
    pub rejected: AtomicU64,
    /// Files of feeds that became dead letters as a whole, or from where they could not be read on.
    pub rejected_files: AtomicU64,
    /// Records that requests brought.
    pub backfilled: AtomicU64,
}

/// See the module's header.
pub struct Shared {
    /// Workers of this process. Where one value is kept by worker, process 0 keeps one for each other process behind them.
    pub workers: usize,
    /// The open epoch. Written by the conductor.
    pub open: AtomicU64,
    /// By worker: every epoch before it has closed there.
    pub frontiers: Vec<AtomicU64>,
    /// Where the run begins.
    pub epochs: Epochs,
    /// Rows of it that a worker takes into one epoch.
    pub load_rows: u64,
    /// The open epoch stays open until the past is over: from when on, see [`Shared::hold_epoch`].
    epoch_held: Mutex<bool>,
    /// The newest epoch that something was taken into.
    pub taken: AtomicU64,
    /// A worker's share of the open epoch is full.
    pub full: AtomicBool,
    /// By worker: the conductor asks what is behind.
    pub asked: Vec<AtomicBool>,
    /// By worker: the conductor asks what its operators hold.
    weighed: Vec<AtomicBool>,
    /// By worker: what it answered, by operator; none: it has not yet.
    footprints: Mutex<Vec<Option<Footprints>>>,
    /// Where workers meet once their dataflows are built.
    pub built: Barrier,
    /// What of source transactions is on its way to workers, into the open epoch.
    pub together: Arc<Together>,
    /// Workers take nothing that feeds or requests bring: the run is above its memory.
    pub held: AtomicBool,
    /// How much was taken here that no snapshot holds yet.
    pub weight: Weight,
    /// Another process has taken so much that a snapshot is due.
    pub heavy: AtomicBool,
    /// The newest committed snapshot of this run; 0 before.
    pub committed: AtomicU64,
    /// Workers leave their loops.
    pub stop: AtomicBool,
    /// By input.
    pub inputs: Vec<InputCounters>,
    /// Rows of what the graph held before that workers have taken.
    pub loaded: AtomicU64,
    /// What a start over a lake with a past took, step by step.
    phases: Mutex<Vec<(&'static str, Duration)>>,
    /// By worker: deliveries of the past still to be replayed are gone (true from the start without a past).
    pub replayed: Vec<AtomicBool>,
    /// Workers take what feeds bring. Not before the replayed past is sealed: its audit must meet nothing else.
    pub live: AtomicBool,
    /// Rows that break an expectation which must hold, by epoch: how many more, and one of them.
    violations: Mutex<BTreeMap<Epoch, (i64, Row)>>,
    /// Fields that no column takes, by input and name.
    ignored: Mutex<BTreeMap<(usize, String), u64>>,
    /// What a fault of a worker may be about.
    pub suspects: Suspects,
    /// Records that are passed by.
    pub skips: Skips,
    /// How many were.
    pub skipped: AtomicU64,
    /// Whether a [`Event::Progress`] is on its way, so that there is never more than one.
    poked: AtomicBool,
    events: Sender<Event>,
}

impl Shared {
    /// For so many workers, other processes and inputs, at the beginning.
    pub fn new(
        (workers, peers): (usize, usize),
        inputs: usize,
        epochs: Epochs,
        replay: bool,
        events: Sender<Event>,
    ) -> Self {
        Shared {
            workers,
            open: AtomicU64::new(epochs.first),
            frontiers: (0..workers + peers).map(|_| AtomicU64::new(0)).collect(),
            epochs,
            load_rows: LOAD_ROWS,
            epoch_held: Mutex::new(!replay),
            taken: AtomicU64::new(0),
            full: AtomicBool::new(false),
            asked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            weighed: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            footprints: Mutex::new(vec![None; workers]),
            built: Barrier::new(workers),
            together: Arc::default(),
            held: AtomicBool::new(false),
            weight: Weight::of_limit(None),
            heavy: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            inputs: (0..inputs).map(|_| InputCounters::default()).collect(),
            loaded: AtomicU64::new(0),
            phases: Mutex::default(),
            replayed: (0..workers + peers).map(|_| AtomicBool::new(!replay)).collect(),
            live: AtomicBool::new(!replay),
            violations: Mutex::default(),
            ignored: Mutex::default(),
            suspects: Suspects::new(workers),
            skips: Skips::default(),
            skipped: AtomicU64::new(0),
            poked: AtomicBool::new(false),
            events,
        }
    }

    /// Records of an input had fields that no column takes.
    pub fn observe_ignored(&self, input: usize, fields: &[(String, u64)]) {
        if fields.is_empty() {
            return;
        }
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, records) in fields {
            *ignored.entry((input, name.clone())).or_default() += records;
        }
    }

    /// Fields that no column takes, by input and name: how many records had them.
    pub fn ignored(&self) -> BTreeMap<(usize, String), u64> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks this process's workers what their operators hold.
    pub fn ask_footprints(&self) {
        let mut footprints = self.footprints.lock().unwrap_or_else(PoisonError::into_inner);
        footprints.fill(None);
        self.weighed
            .iter()
            .for_each(|weighed| weighed.store(true, Ordering::Release));
    }

    /// A worker answers, if it is asked.
    pub fn answer_footprints(&self, worker: usize, held: impl FnOnce() -> Footprints) {
        if self.weighed[worker].swap(false, Ordering::AcqRel) {
            let held = held();
            self.footprints.lock().unwrap_or_else(PoisonError::into_inner)[worker] = Some(held);
            self.poke();
        }
    }

    /// What workers answered, added up by operator; and how many have not answered yet.
    pub fn footprints(&self) -> (Footprints, usize) {
        let answers = self.footprints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Footprints::new();
        for (operator, footprint) in answers.iter().flatten().flatten() {
            *all.entry(operator.clone()).or_default() += *footprint;
        }
        (all, answers.iter().filter(|answer| answer.is_none()).count())
    }

    /// A step of the start is over.
    pub fn observe_phase(&self, phase: &'static str, took: Duration) {
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((phase, took));
    }

    /// What a start over a lake with a past took, step by step.
    pub fn phases(&self) -> Vec<(&'static str, Duration)> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `diff` more rows break an expectation which must hold, from `epoch` on.
    pub fn observe_violation(&self, error: &Row, epoch: Epoch, diff: Diff) {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let at = violations.entry(epoch).or_insert_with(|| (0, error.clone()));
        at.0 += diff;
        if diff > 0 {
            at.1 = error.clone();
        }
    }

    /// Takes what [`Shared::observe_violation`] was told, for process 0.
    pub fn take_violations(&self) -> Vec<(Epoch, i64, Vec<u8>)> {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *violations).into_iter();
        taken
            .map(|(epoch, (diff, row))| (epoch, diff, row.bytes().to_vec()))
            .collect()
    }

    /// How many rows break an expectation which must hold as of a closed epoch, and one of them.
    pub fn violations(&self, epoch: Epoch) -> Option<(i64, Row)> {
        let violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let upto = violations.range(..=epoch);
        let (count, example) = upto.fold((0, None), |(n, _), (_, (more, row))| (n + more, Some(row)));
        example.filter(|_| count > 0).map(|row| (count, row.clone()))
    }

    /// The past is fed at one epoch from now on: what comes then counts in the order in which it arrived once.
    pub fn hold_epoch(&self) {
        *self.epoch_held.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether the open epoch stays open until the past is over.
    pub fn holds_epoch(&self) -> bool {
        *self.epoch_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open epoch, once workers take what feeds bring into it.
    pub fn live_epoch(&self) -> Option<Epoch> {
        let live = self.live.load(Ordering::Acquire) && !self.held.load(Ordering::Acquire);
        live.then(|| self.open.load(Ordering::Acquire))
    }

    /// Opens an epoch that `next` names, unless the open one is held.
    pub fn open_unless_held(&self, next: impl FnOnce() -> Epoch) {
        let held = self.epoch_held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*held {
            self.open.store(next(), Ordering::Release);
        }
    }

    /// Every epoch before this has closed at every worker.
    pub fn frontier(&self) -> Epoch {
        self.frontiers
            .iter()
            .map(|f| f.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    /// Wakes the conductor to look here.
    pub fn poke(&self) {
        if !self.poked.swap(true, Ordering::AcqRel) {
            // A conductor that is gone needs no waking.
            let _ = self.events.send(Event::Progress);
        }
    }

    /// The conductor looks: later pokes are events again.
    pub fn look(&self) {
        self.poked.store(false, Ordering::Release);
    }

    /// Tells the conductor something.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Whether every worker has replayed what the lake's past holds.
    pub fn replayed(&self) -> bool {
        self.replayed.iter().all(|r| r.load(Ordering::Acquire))
    }
}
