//! A run: readers, workers, writers and the committer put together, and taken apart again in order.
//!
//! ```text
//! reader threads --Delivery--> timely workers --Arrival--> writer threads --Prepared--> committer thread
//!        ^  bounded                  ^  bounded                ^  bounded                    |
//!        |                           |                         |                            v
//!        +------------ conductor: epochs, seals, end <------- Event ----------------- CommitEvent
//! ```
//!
//! Every queue is bounded, so what is downstream slows what is upstream. A part that fails tells the
//! conductor, which stops the run; what was not committed is read again by the next one. A run over a lake
//! that holds a snapshot first replays Bronze through the same graph at one epoch, lets the sinks write only
//! what differs, and then resumes the feeds behind the snapshot's progress.

mod conductor;
mod pacer;
mod replay;
mod shared;
mod status;
mod wiring;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::definition::{Dataflow, Diagnostics};
use crate::latency::{Figures, Latency, LatencyFiles};
use crate::repr::{CodecError, Epoch};

pub use wiring::Wiring;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Timely workers in this process; at least 1.
    pub workers: usize,
    /// End when every feed is exhausted and committed.
    pub until_caught_up: bool,
    /// End after so long.
    pub duration: Option<Duration>,
    /// Where latency files go; none: no files.
    pub latency_folder: Option<PathBuf>,
    /// Whether Ctrl-C, SIGTERM and SIGUSR1 are ours to handle.
    pub signals: bool,
}

/// What a run leaves to say.
#[derive(Debug)]
pub struct Outcome {
    /// The newest snapshot committed by this run; 0: nothing changed.
    pub snapshot: Epoch,
    /// Records taken.
    pub records: u64,
    /// Records that became dead letters.
    pub rejected: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Latencies.
    pub figures: Figures,
}
