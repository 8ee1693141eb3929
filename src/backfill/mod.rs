//! Backfill: files and history that somebody asks for, fed to a graph beside its live feeds.
//!
//! ```text
//! a command --Request--> <lake>/_alluvium/requests/ --listed by--> the run's server --Portion--> timely workers
//!     ^                                                                  |                            |
//!     '----------- status, then done/ <---------- once committed --------'<------- Receipt -----------'
//! ```
//! A request is an object in the lake: it outlives the command and the run. Whichever run is on the lake serves it, one
//! request at a time, oldest first; where there is none, the command runs the graph itself ([`crate::run`]). It stays until
//! everything it asked for is committed.
//!
//! 1. A portion goes into the graph whole, at one epoch, with its progress; so what a snapshot holds of a request and what the
//!    snapshot says of it agree, and a request that is taken up again goes on behind that.
//! 2. What is new (rows of files) arrives like a live record: at the epoch that is open, and Bronze keeps it. What Bronze
//!    holds already (history) goes in with the epoch, feed, partition and offset it first arrived with, so that versions of a
//!    key are decided as they were, and the tables stay what batch makes of Bronze.
//! 3. Live deliveries go first: a worker takes a portion when none of them waits, and not more than a share of an epoch;
//!    and while live records come, portions are paced ([`pace::Pace`]).
//! 4. A file is known by its bytes (their hash and number), not by its name: the same file under another name is the same.
//!    Reading it again takes `again`, which gives it another identity.
//! 5. Others can write to the lake. A request is not trusted: it names only files that the definition allows ([`allowed`]), and
//!    one that is broken is moved aside ([`board`]); none of them ends a run. What it names is bounded, and so is what is kept
//!    of how it ended. One whose object is deleted ends, and the next one's turn comes.

mod allowed;
mod asker;
mod board;
mod files;
mod history;
mod pace;
mod request;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::repr::{Epoch, Row};
use crate::source::{Delivery, PartitionId};

pub use allowed::{Allowed, Forbidden};
pub use asker::Asker;
pub use board::{Look, Requests};
pub(crate) use files::FEED;
pub use request::{FileCounts, FileOutcome, FileState, LOWEST_RATE, MOST_FILES, Outcome, Request, Status, Work};
pub use server::{Inlet, Server, Serving};

/// Records of a portion, about.
pub const PORTION: usize = 2048;

/// Records that go into the graph together, with their progress.
pub struct Portion {
    /// Records and what they change; `position` is how far `progress` is then.
    pub delivery: Delivery,
    /// When they first arrived, where Bronze holds them already; none: they arrive now.
    pub arrived: Option<Epoch>,
    /// Dead letters that go: those of these records. A record that is refused again gets a new one.
    pub letters: Vec<Row>,
    /// What progress is kept under; none: what is begun again does no harm.
    pub progress: Option<PartitionId>,
    /// Records that an epoch of a worker may take of portions.
    pub share: usize,
    /// What became of it.
    pub receipt: Arc<Receipt>,
}

/// What workers tell of a request's portions.
#[derive(Debug, Default)]
pub struct Receipt {
    /// How many were taken.
    taken: AtomicU64,
    /// The newest epoch that took one.
    epoch: AtomicU64,
    /// Records of them that were refused, and files.
    rejected: AtomicU64,
    rejected_files: AtomicU64,
}

impl Receipt {
    /// A worker took a portion at `epoch`.
    pub fn take(&self, epoch: Epoch, (rejected, rejected_files): (u64, u64)) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.rejected_files.fetch_add(rejected_files, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::AcqRel); // last: who reads the number finds the rest
    }

    /// Whether `sent` portions are in a snapshot at or before `committed`.
    fn is_committed(&self, sent: u64, committed: Epoch) -> bool {
        self.taken.load(Ordering::Acquire) >= sent && self.epoch.load(Ordering::Acquire) <= committed
    }
}
