//! Keeps source transactions whole: feeds whose records belong to transactions of one source wait here until all
//! records of a transaction are there, which then go to the workers in one epoch.
//!
//! ```text
//! readers of orders, lines, ...  --Delivery-->                 backlog per partition
//!                                              coordinator  <                       --Delivery{epoch}--> workers
//! reader of the transaction topic --BEGIN, END-->              queue: what may go on
//! ```
//!
//! 1. All feeds that name the same transaction topic share a coordinator, in one process (process 0, which opens
//!    epochs), because it must see all records of a transaction.
//! 2. [`queue::TransactionQueue`] decides what is released. A release goes into the epoch that is open then, which
//!    stays open until workers have taken all of it ([`OpenEpochDeliveries`]). A snapshot is taken of a closed epoch,
//!    so it holds all of it or nothing.
//! 3. Waiting records are not part of any snapshot's progress: a restart reads them again, and the ENDs for which
//!    they wait. The transaction topic's position is stored under the name of one of the feeds, whichever; the newest
//!    one counts.
//! 4. A partition with too much waiting is not read until less waits, nor is the transaction topic; other partitions
//!    are. So the total amount that waits is bounded, in whatever order partitions are read.
//! 5. A release that was begun is handed over completely, even if readers are to stop. One that is streamed in parts
//!    cannot be: then the run fails rather than commit half of a transaction.
//! 6. While workers take a release, the coordinator receives no messages. That time does not count towards any wait.
//!    No transaction is given up because of an earlier state of a partition's end: readers are asked when it matters,
//!    and a reader that does not answer (its broker is unreachable, or a record waits for its schema) may still have
//!    records.
//! 7. A run until all is caught up ends once everything that existed when its partitions were found and has an END is
//!    released, or once everything is read and no END waits. Transactions without an END are then reported.
//! 8. An epoch is given [`EPOCH_ROWS`] records, and the rest of a transaction that began in it; then the coordinator
//!    waits for the next epoch.
//! 9. The transaction topic has one partition, because otherwise ENDs would have no order; no feed of the group reads
//!    it as data.
//!
//! A transaction is delayed only until its last event arrives; there is no fixed delay.

mod coordinator;
mod handle;
mod marker;
mod queue;
#[cfg(test)]
mod tests;
mod together;

pub(crate) use coordinator::{SourceFeeds, run as run_coordinator};
pub(crate) use handle::{CoordinatedReader, CoordinatorHandle, CoordinatorInbox, OpenedPartition, coordinator_channel};
pub(crate) use marker::decoder as marker_decoder;
pub(crate) use queue::{EndObservation, ReadsTopic, SourceTopics, TransactionQueue};
pub(crate) use together::{EPOCH_ROWS, EpochShare};
pub use together::{OpenEpoch, OpenEpochDeliveries};

/// Limits on what may wait, by (4): records of each partition, payload bytes of all partitions together (decoded they
/// take about three times as much), and markers.
pub(crate) const LIMITS: queue::QueueLimits = queue::QueueLimits {
    records: 64 * 1024,
    bytes: 256 << 20,
    markers: 64 * 1024,
    release: EPOCH_ROWS as usize / 4,
};
