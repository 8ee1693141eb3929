//! Backfill: files and history that somebody asks for, fed to a graph beside its live feeds.
//!
//! ```text
//! a command --Request--> <lake>/_alluvium/requests/ --listed by--> the run's server --BackfillBatch--> timely workers
//!     ^                                                                  |                            |
//!     '----------- status, then done/ <---------- once committed --------'<------- Receipt -----------'
//! ```
//! A request is an object in the lake: it outlives the command and the run. Whichever run is on the lake serves
//! requests, one at a time, oldest first; if there is none, the command runs the graph itself ([`crate::run`]). A
//! request stays until everything that it asked for is committed.
//!
//! 1. A portion goes into the graph as a whole, at one epoch, with its progress. So the records and the progress in a
//!    snapshot agree, and a request that is resumed continues behind them.
//! 2. New data (rows of files) arrives like a live record: at the open epoch, and Bronze stores it. Data that Bronze
//!    holds already (history) enters with the epoch, feed, partition and offset with which it first arrived, so that
//!    versions of a key are decided as before, and the tables stay what a batch computation over Bronze yields.
//! 3. Live deliveries have priority: a worker takes a portion when none of them waits, and portions get only a share
//!    of an epoch; while live records arrive, portions are also paced ([`pace::BackfillPace`]).
//! 4. A file is identified by its content (hash and length) and not by its name: under another name it is the same
//!    file. To read it again takes `again`, which gives it another identity.
//! 5. Others can write to the lake, so a request is not trusted: it may only name files that the definition allows
//!    ([`allowed`]), and a broken one is moved aside ([`board`]); none of them ends a run. The number of files that
//!    it names is bounded, and so is the size of its outcome. A request whose object is deleted ends, and the next
//!    one is served.

mod allowed;
mod board;
mod files;
mod history;
mod pace;
mod request;
mod requester;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::repr::{Epoch, PartitionId, Row};
use crate::source::Delivery;

pub use allowed::{Allowed, Forbidden};
pub use board::{NextRequest, RequestBoard};
pub(crate) use files::FEED;
pub use request::{
    BackfillOutcome, BackfillStatus, FileCounts, FileOutcome, FileState, LOWEST_RATE, MOST_FILES, Request, Work,
};
pub use requester::Requester;
pub use server::{BackfillChannel, Server, ServerContext};

/// The approximate number of records in a portion.
pub const PORTION: usize = 2048;

/// A portion: records that go into the graph together, with their progress.
pub struct BackfillBatch {
    /// The records and their changes; `position` is the value of `progress` behind them.
    pub delivery: Delivery,
    /// When they first arrived, if Bronze has them already; none: they arrive now.
    pub arrived: Option<Epoch>,
    /// Dead letters of these records, which are retracted. A record that is refused again gets a new one.
    pub letters: Vec<Row>,
    /// The id under which progress is stored; none if starting again does no harm.
    pub progress: Option<PartitionId>,
    /// How many records of portions a worker may take in an epoch.
    pub share: usize,
    /// Where the worker records that it took the portion.
    pub receipt: Arc<Receipt>,
}

/// What workers report about a request's portions.
#[derive(Debug, Default)]
pub struct Receipt {
    /// The number of portions taken.
    taken: AtomicU64,
    /// The newest epoch into which one was taken.
    epoch: AtomicU64,
    /// The number of their records that were refused; the next: of files that were.
    rejected: AtomicU64,
    rejected_files: AtomicU64,
}

impl Receipt {
    /// Records that a worker took a portion at `epoch`.
    pub fn record(&self, epoch: Epoch, (rejected, rejected_files): (u64, u64)) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.rejected_files.fetch_add(rejected_files, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::AcqRel); // last, so that whoever reads this number finds the rest
    }

    /// Whether `sent` portions are in a snapshot at or before `committed`.
    fn is_committed(&self, sent: u64, committed: Epoch) -> bool {
        self.taken.load(Ordering::Acquire) >= sent && self.epoch.load(Ordering::Acquire) <= committed
    }
}
