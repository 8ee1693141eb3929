//! State that the threads of a run share.
//!
//! ```text
//! readers, requests --> workers --> writers --> committer
//!                          |           |            |
//!                          +----- EventBus ---------+--> conductor
//! conductor --- EpochBoard, WorkerBoard ---> workers
//! ```
//!
//! 1. Values are atomics that have one writer or only grow, and maps behind a lock that is held only briefly.
//! 2. No thread blocks on the board. A thread that changes what another thread acts on wakes it: the conductor by the
//!    [`EventBus`], workers by unparking their threads.

mod counters;
mod epoch_board;
mod epochs;
mod event_bus;
mod suspects;
mod violations;
mod weight;
mod worker_board;

use crossbeam_channel::Sender;

pub use self::counters::{InputCounters, RunCounters};
pub use self::epoch_board::EpochBoard;
pub use self::epochs::Epochs;
pub use self::event_bus::{EventBus, RunEvent};
pub use self::suspects::{SkippableRecords, SuspectBoard};
pub use self::violations::Violations;
pub use self::weight::Weight;
pub use self::worker_board::{RoundsUnderWay, WorkerBoard};

use crate::decode::skip::Skips;

/// The size of a run, and the epochs at which it begins.
pub struct RunExtent {
    /// Workers of this process.
    pub workers: usize,
    /// Other processes that this one leads.
    pub followers: usize,
    /// Inputs of the dataflow.
    pub inputs: usize,
    /// The epochs at which the run begins.
    pub epochs: Epochs,
    /// Rows of restored state that a worker takes into one epoch.
    pub load_rows: u64,
    /// Whether the lake has a past.
    pub replays: bool,
    /// The dataflow's `memory_limit`.
    pub memory: Option<u64>,
    /// Records to skip.
    pub skips: Skips,
}

/// See the module's header.
pub struct Board {
    /// Epochs: open, closed, committed.
    pub epochs: EpochBoard,
    /// Questions to the workers, and their answers.
    pub workers: WorkerBoard,
    /// Counters for reports.
    pub counters: RunCounters,
    /// Rows that violate an expectation with `on_violation = "fail"`.
    pub violations: Violations,
    /// Bytes that were taken here and are in no snapshot yet.
    pub weight: Weight,
    /// Records to skip.
    pub skips: Skips,
    /// Sends events to the conductor.
    pub events: EventBus,
}

impl Board {
    /// The board at the beginning of a run.
    pub fn new(extent: RunExtent, events: Sender<RunEvent>) -> Board {
        Board {
            epochs: EpochBoard::new(&extent),
            workers: WorkerBoard::new(extent.workers),
            counters: RunCounters::new(extent.inputs),
            violations: Violations::default(),
            weight: Weight::of_limit(extent.memory),
            skips: extent.skips,
            events: EventBus::new(events),
        }
    }
}
