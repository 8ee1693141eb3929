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
//! that holds a snapshot first brings the graph to where it was ([`past`]), lets the sinks write only
//! what differs, and then resumes the feeds behind the snapshot's progress.

mod again;
mod archive;
mod audit;
mod clock;
mod conductor;
mod control;
mod engine;
mod epochs;
mod error;
mod follower;
mod lags;
mod memory;
mod pacer;
mod past;
mod peers;
mod presence;
mod rebuild;
mod shared;
mod start;
mod status;
mod suspects;
mod team;
mod watched;
mod weight;
mod wiring;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tokio::runtime::Runtime;

use crate::cluster::Member;
use crate::decode::skip::Skip;
use crate::definition::{Dataflow, Evolved};
use crate::latency::Figures;
use crate::plan;
use crate::repr::Epoch;
use crate::sink::Limits;

pub use clock::Clock;
pub use error::RunError;
pub use past::{Part, PlanReport, Standing, plan};
pub use presence::is_running;
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use status::AboveStatus;
pub use wiring::Wiring;

/// Files of a local disk that are written or read at once. tokio would start a thread for each that waits, up to
/// 512, and each keeps what it has freed for itself: a live run held over a gigabyte that way.
const FILES: usize = 32;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Timely workers in this process; 0 counts as 1.
    pub workers: usize,
    /// End when every feed is exhausted and committed.
    pub until_caught_up: bool,
    /// End after so long.
    pub duration: Option<Duration>,
    /// End when this says so, or hangs up.
    pub stop: Option<Receiver<()>>,
    /// Where latency files go; none: no files.
    pub latency_folder: Option<PathBuf>,
    /// Whether Ctrl-C, SIGTERM and SIGUSR1 are ours to handle.
    pub signals: bool,
    /// Over a lake with a past: make all of it again from Bronze and the feeds, whatever the lake keeps of the graph.
    pub recompute: bool,
    /// Rows of what the graph held before that a worker takes into one epoch; none: as many as suits most.
    pub load_rows: Option<u64>,
    /// Whether a terminal shows a live status.
    pub live: bool,
    /// Sizes at which writers change their ways.
    pub limits: Limits,
    /// With several processes, which one this is. Process 0 says when all end; what others are told of that does not
    /// count.
    pub cluster: Option<Arc<Member>>,
    /// No feed is read: the run ends once the lake's past is in effect.
    pub without_feeds: bool,
    /// The lake's tables are made from its past: what the audit writes is no correction, and is not told as one.
    pub rebuilds: bool,
    /// What time it is.
    pub clock: Clock,
    /// Records that are passed by and become dead letters. Those that the lake's dead letters name as skipped are, too.
    pub skip: Vec<Skip>,
    /// Feeds' records are taken one at a time, so that a fault of a worker names the one that it is about. Slow.
    pub one_by_one: bool,
    /// For tests of what a fault does: an operator behind the inputs panics where a row holds these bytes.
    #[doc(hidden)]
    pub panic_on: Option<Vec<u8>>,
}

/// What a run leaves to say.
#[derive(Debug)]
pub struct Outcome {
    /// The newest snapshot committed by this run; 0: nothing changed.
    pub snapshot: Epoch,
    /// Records taken from feeds.
    pub records: u64,
    /// Records of the lake's past that were replayed before; 0 in a new lake.
    pub replayed: u64,
    /// Rows of what the graph held before that were loaded; 0 in a new lake.
    pub loaded: u64,
    /// What the start over a lake with a past took, step by step; empty in a new lake.
    pub phases: Vec<(&'static str, Duration)>,
    /// Records that requests brought.
    pub backfilled: u64,
    /// Of the records taken from feeds, those that became dead letters.
    pub rejected: u64,
    /// Files of feeds that became dead letters as a whole, or from where they could not be read on.
    pub rejected_files: u64,
    /// Fields that no column takes, by input and name: how many records had them.
    pub ignored: BTreeMap<(usize, String), u64>,
    /// Over a lake with a past, what the audit found to differ from the stored tables and corrected: (table, rows),
    /// tables without a difference left out. None in a new lake, or where the run ended before its first snapshot.
    pub corrections: Option<Vec<(String, u64)>>,
    /// Of a run until all is caught up: the feeds that could not read all that is there, each with its cause; the
    /// snapshot holds what they could read. Empty: it holds all.
    pub unread: Vec<String>,
    /// Records that were skipped, those of the past too.
    pub skipped: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Columns that inputs had beside the definition's, by input.
    pub evolved: Vec<(String, Evolved)>,
    /// Latencies.
    pub figures: Figures,
}

/// Runs a dataflow until its options say so, or something fails.
pub fn run(dataflow: Arc<Dataflow>, options: &Options) -> Result<Outcome, RunError> {
    let graph = Arc::new(plan::compile(&dataflow).map_err(RunError::Definition)?);
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    again::until_over(dataflow, graph, options, &runtime)
}

/// The runtime behind a run's writers and committer.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(FILES)
        .enable_all()
        .build()
}
