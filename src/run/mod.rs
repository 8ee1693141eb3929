//! Runs a dataflow: starts readers, workers, writers and the committer, and takes them down again in order.
//!
//! ```text
//! reader threads --Delivery--> timely workers --WriterMessage--> writer threads --Prepared--> committer thread
//!        ^  bounded                  ^  bounded                ^  bounded                    |
//!        |                           |                         |                            v
//!        +------------ conductor: epochs, seals, end <---- RunEvent ----------------- CommitEvent
//! ```
//!
//! Every queue is bounded, so a slow consumer slows its producers. A part that fails reports to the conductor, which
//! stops the run; the next run reads again what was not committed. A run over a lake that holds a snapshot first
//! restores the graph to the state of that snapshot ([`past`]), has the sinks write only what differs, and then
//! resumes the feeds behind the snapshot's progress.

mod again;
mod archive;
mod clock;
mod conduct;
mod engine;

mod board;
mod error;
mod lags;
mod lines;
mod past;
mod rebuild;
mod start;

mod team;
mod watched;

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
use crate::runtime::{FILES, io_runtime};
use crate::sink::WriterLimits;

pub use clock::RunClock;
pub use conduct::AboveStatus;
pub use error::RunError;
pub use past::{PartStanding, PlanReport, PlannedChange, plan};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use start::is_running;
pub use wiring::Wiring;

/// The options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Timely workers in this process; 0 counts as 1.
    pub workers: usize,
    /// End once every feed is exhausted and all of its records are committed.
    pub until_caught_up: bool,
    /// End after this time.
    pub duration: Option<Duration>,
    /// End when a message arrives on this channel, or when its sender is dropped.
    pub stop: Option<Receiver<()>>,
    /// The folder for latency files; with `None`, no files are written.
    pub latency_folder: Option<PathBuf>,
    /// Whether the run installs handlers for Ctrl-C, SIGTERM and SIGUSR1.
    pub signals: bool,
    /// Over a lake with a past, compute everything again from Bronze and the feeds, and do not load the state tables.
    pub recompute: bool,
    /// How many rows of restored state a worker takes into one epoch; `None` means the default.
    pub load_rows: Option<u64>,
    /// Whether to draw a live status on the terminal.
    pub live: bool,
    /// The sizes at which writers rewrite, split and merge files.
    pub limits: WriterLimits,
    /// In a run of several processes, which one this is. Process 0 decides when all of them end; the options of the
    /// others about the end are ignored.
    pub cluster: Option<Arc<Member>>,
    /// Read no feed: the run ends once the lake's past has gone through the graph.
    pub without_feeds: bool,
    /// The run makes the lake's tables from its past (a rebuild), so what the audit writes is not reported as
    /// corrections.
    pub rebuilds: bool,
    /// The clock, which tests replace.
    pub clock: RunClock,
    /// Records that are kept out of the graph and become dead letters instead, besides those that the lake's dead
    /// letters already mark as skipped.
    pub skip: Vec<Skip>,
    /// Take records of feeds one at a time, so that the error of a worker that panics names the record that caused it.
    /// Slow.
    pub one_by_one: bool,
    /// For tests of faults: an operator behind the inputs panics when a row contains these bytes.
    #[doc(hidden)]
    pub panic_on: Option<Vec<u8>>,
}

/// The result of a run.
#[derive(Debug)]
pub struct RunOutcome {
    /// The newest snapshot of this run that changed something; 0 if none did.
    pub snapshot: Epoch,
    /// Records taken from feeds.
    pub records: u64,
    /// Records that were replayed from the lake's past at the start; 0 in a new lake.
    pub replayed: u64,
    /// Rows of the graph's state that were loaded at the start; 0 in a new lake.
    pub loaded: u64,
    /// How long each step of the start over a lake with a past took; empty in a new lake.
    pub phases: Vec<(&'static str, Duration)>,
    /// Records that backfills, replays and repairs fed.
    pub backfilled: u64,
    /// How many of `records` became dead letters.
    pub rejected: u64,
    /// Files of feeds that became dead letters, either whole or from the place where reading failed.
    pub rejected_files: u64,
    /// How many records had fields that no column takes, by input and name of the field.
    pub ignored: BTreeMap<(usize, String), u64>,
    /// Expectations with `on_violation = "warn"` that rows violate, as (table, expectation, rows). Of the rows that this
    /// process computed, those that were not removed since count.
    pub warnings: Vec<(String, String, u64)>,
    /// Over a lake with a past, how many rows of each stored table the audit corrected; tables without a difference
    /// are left out. `None` in a new lake, or where the run ended before its first snapshot.
    pub corrections: Option<Vec<(String, u64)>>,
    /// In a run with `until_caught_up`: the feeds that could not read all that is there, each with its cause. The
    /// snapshot holds what they could read.
    pub unread: Vec<String>,
    /// Records that were skipped, including those of the past.
    pub skipped: u64,
    /// How long the run took.
    pub elapsed: Duration,
    /// Columns that inputs took from schemas in addition to the definition's, as (input, column).
    pub evolved: Vec<(String, Evolved)>,
    /// How long records took.
    pub figures: Figures,
}

/// Runs a dataflow until its options end it or a part fails.
pub fn run(dataflow: Arc<Dataflow>, options: &Options) -> Result<RunOutcome, RunError> {
    let graph = Arc::new(plan::compile(&dataflow).map_err(RunError::Definition)?);
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    again::until_over(dataflow, graph, options, &runtime)
}

/// Creates the tokio runtime on which a run's writers and committer do their I/O.
pub fn runtime() -> io::Result<Runtime> {
    io_runtime("lake", 2, FILES)
}
