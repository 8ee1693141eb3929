//! What the threads of a run share: the open epoch, how far each worker's graph has closed, what is sealed, and
//! counters for people. Plain atomics: each value has one writer, or only ever grows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};

use crossbeam_channel::Sender;

use crate::repr::{Diff, Epoch, Row};
use crate::sink::CommitEvent;

use super::RunError;

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
    /// SIGUSR1: print the latency report.
    Report,
}

/// Counters of one input.
#[derive(Default)]
pub struct InputCounters {
    /// Records taken from feeds.
    pub records: AtomicU64,
    /// Records of the past, replayed.
    pub replayed: AtomicU64,
    /// Of the records taken from feeds, those that became dead letters.
    pub rejected: AtomicU64,
    /// Records that requests brought.
    pub backfilled: AtomicU64,
}

/// See the module's header.
pub struct Shared {
    /// The open epoch. Written by the conductor.
    pub open: AtomicU64,
    /// By worker: every epoch before it has closed there.
    pub frontiers: Vec<AtomicU64>,
    /// The newest epoch that something was taken into.
    pub taken: AtomicU64,
    /// A worker's share of the open epoch is full.
    pub full: AtomicBool,
    /// By worker: the conductor asks what is behind.
    pub asked: Vec<AtomicBool>,
    /// Where workers meet once their dataflows are built.
    pub built: Barrier,
    /// Workers take nothing that feeds or requests bring: the run is above its memory.
    pub held: AtomicBool,
    /// The newest committed snapshot of this run; 0 before.
    pub committed: AtomicU64,
    /// Workers leave their loops.
    pub stop: AtomicBool,
    /// By input.
    pub inputs: Vec<InputCounters>,
    /// By worker: deliveries of the past still to be replayed are gone (true from the start without a past).
    pub replayed: Vec<AtomicBool>,
    /// Workers take what feeds bring. Not before the replayed past is sealed: its audit must meet nothing else.
    pub live: AtomicBool,
    /// Rows that break an expectation which must hold, by epoch: how many more, and one of them.
    violations: Mutex<BTreeMap<Epoch, (i64, Row)>>,
    /// Fields that no column takes, by input and name.
    ignored: Mutex<BTreeMap<(usize, String), u64>>,
    /// Whether a [`Event::Progress`] is on its way, so that there is never more than one.
    poked: AtomicBool,
    events: Sender<Event>,
}

impl Shared {
    /// For so many workers and inputs, with `first` open.
    pub fn new(workers: usize, inputs: usize, first: Epoch, replay: bool, events: Sender<Event>) -> Self {
        Shared {
            open: AtomicU64::new(first),
            frontiers: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            taken: AtomicU64::new(0),
            full: AtomicBool::new(false),
            asked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            built: Barrier::new(workers),
            held: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            inputs: (0..inputs).map(|_| InputCounters::default()).collect(),
            replayed: (0..workers).map(|_| AtomicBool::new(!replay)).collect(),
            live: AtomicBool::new(!replay),
            violations: Mutex::default(),
            ignored: Mutex::default(),
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

    /// `diff` more rows break an expectation which must hold, from `epoch` on.
    pub fn observe_violation(&self, error: &Row, epoch: Epoch, diff: Diff) {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let at = violations.entry(epoch).or_insert_with(|| (0, error.clone()));
        at.0 += diff;
        if diff > 0 {
            at.1 = error.clone();
        }
    }

    /// How many rows break an expectation which must hold as of a closed epoch, and one of them.
    pub fn violations(&self, epoch: Epoch) -> Option<(i64, Row)> {
        let violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let upto = violations.range(..=epoch);
        let (count, example) = upto.fold((0, None), |(n, _), (_, (more, row))| (n + more, Some(row)));
        example.filter(|_| count > 0).map(|row| (count, row.clone()))
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
