//! Questions to the workers of this process, and their answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use super::SuspectBoard;
use crate::repr::Epoch;
use crate::repr::footprint::Footprints;

/// A recursive query whose rounds are not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundsUnderWay {
    /// The query's name in the plan.
    pub query: Arc<str>,
    /// The epoch whose rows it computes.
    pub epoch: Epoch,
    /// The round that it is in, from 0.
    pub round: u64,
}

/// See the module's header.
pub struct WorkerBoard {
    /// The number of workers.
    pub count: usize,
    /// Set when workers have to leave their loops.
    pub stop: AtomicBool,
    /// Workers wait here for each other once their dataflows are built.
    pub built: Barrier,
    /// By worker: whether it is asked to log which inputs and tables are behind.
    pub asked: Vec<AtomicBool>,
    /// The records that may have caused a panic of a worker.
    pub suspects: SuspectBoard,
    /// By worker: whether it is asked for the footprints of its operators.
    weighed: Vec<AtomicBool>,
    /// By worker: its answer, the footprint of each operator; `None` until it has answered.
    footprints: Mutex<Vec<Option<Footprints>>>,
    /// The recursive query of the oldest epoch that is in its rounds. Rounds end at all workers of all processes together,
    /// so only the first worker of each process reports them.
    rounds: Mutex<Option<RoundsUnderWay>>,
}

impl WorkerBoard {
    /// For this number of workers.
    pub fn new(count: usize) -> WorkerBoard {
        let flags = || (0..count).map(|_| AtomicBool::new(false)).collect();
        WorkerBoard {
            count,
            stop: AtomicBool::new(false),
            built: Barrier::new(count),
            asked: flags(),
            suspects: SuspectBoard::new(count),
            weighed: flags(),
            footprints: Mutex::new(vec![None; count]),
            rounds: Mutex::new(None),
        }
    }

    /// Sets the recursive query of the oldest epoch that is in its rounds.
    pub fn observe_rounds(&self, rounds: Option<RoundsUnderWay>) {
        *self.rounds.lock().unwrap_or_else(PoisonError::into_inner) = rounds;
    }

    /// The recursive query of the oldest epoch that is in its rounds, if there is one.
    pub fn rounds(&self) -> Option<RoundsUnderWay> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks all workers for the footprints of their operators. The caller wakes the workers.
    pub fn ask_footprints(&self) {
        let mut footprints = self.footprints.lock().unwrap_or_else(PoisonError::into_inner);
        footprints.fill(None);
        self.weighed
            .iter()
            .for_each(|weighed| weighed.store(true, Ordering::Release));
    }

    /// Stores a worker's answer if it was asked. Returns whether it was.
    pub fn answer_footprints(&self, worker: usize, measure: impl FnOnce() -> Footprints) -> bool {
        let is_asked = self.weighed[worker].swap(false, Ordering::AcqRel);
        if is_asked {
            let footprints = measure();
            self.footprints.lock().unwrap_or_else(PoisonError::into_inner)[worker] = Some(footprints);
        }
        is_asked
    }

    /// The sum of the answers by operator, and how many workers have not answered yet.
    pub fn footprints(&self) -> (Footprints, usize) {
        let answers = self.footprints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Footprints::new();
        for (operator, footprint) in answers.iter().flatten().flatten() {
            *all.entry(operator.clone()).or_default() += *footprint;
        }
        (all, answers.iter().filter(|answer| answer.is_none()).count())
    }
}
