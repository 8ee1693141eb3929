//! Source transactions stay whole: feeds whose records are in transactions of one source wait here, until what a
//! transaction has in all of them is there, and go on to the workers in one epoch.
//!
//! ```text
//! readers of orders, lines, ...  --Delivery-->            stash per partition
//!                                              keeper  <                       --Delivery{epoch}--> workers
//! reader of the transaction topic --BEGIN, END-->         gate: what may go on
//! ```
//!
//! 1. All feeds that name one transaction topic share a keeper, in one process (process 0, which opens epochs): what is
//!    kept together must be seen together.
//! 2. What goes on is decided by [`gate::Gate`]; it goes into the epoch that is open then, which stays open until workers
//!    have taken all of it ([`Together`]). A snapshot is of a closed epoch, so it holds all or nothing.
//! 3. What waits is not read as far as snapshots know: a restart reads it again, and the ENDs that it waits for.
//!    The marker topic's position is kept under the name of one of the feeds, whichever it is: the newest one counts.
//! 4. A partition that keeps much waiting is not read on until less waits, nor is the marker topic; the others are. What
//!    may wait in all is bounded, whatever is read first.
//! 5. A release that has begun is handed over to its end, even if readers are to stop. One that goes on as it comes cannot
//!    be: then the run fails rather than commit half of it.
//! 6. While workers take a release, nobody hears what readers have to say. That time is no part of any wait. Nothing is
//!    given up for where a partition ended at some earlier time: readers are asked when it matters, and who does not answer
//!    (its broker is away, or a record waits for its schema) has something to say still.
//! 7. A run until all is caught up ends once all that was there when its partitions were found has gone on, as far as it
//!    has an END, or all is read that is there and no END waits. What has no END then is named.
//! 8. An epoch is given [`EPOCH_ROWS`] records beside those of a transaction that has begun in it, then the next is waited
//!    for.
//! 9. The marker topic has one partition, else ENDs would have no order; no feed of the group reads it as data.
//!
//! The wait costs what a transaction's last event comes later than its first, no more: nothing is held for a time.

mod gate;
mod groups;
mod keeper;
mod line;
mod marker;
#[cfg(test)]
mod tests;
mod together;

pub(crate) use gate::Look;
pub(crate) use groups::Groups;
pub(crate) use line::Line;
pub(crate) use line::Opened;
pub(crate) use together::{EPOCH_ROWS, Given};
pub use together::{OpenEpoch, Together};

/// What may wait, by (4): of each partition as many records, of all together as many bytes of payload (decoded they are
/// about three times as many), and markers.
const LIMITS: gate::Limits = gate::Limits {
    records: 64 * 1024,
    bytes: 256 << 20,
    markers: 64 * 1024,
    release: EPOCH_ROWS as usize / 4,
};
