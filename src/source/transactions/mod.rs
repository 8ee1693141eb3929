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
//! 4. A partition that keeps much waiting is not read on until less waits; the others are.
//! 5. A release that has begun is handed over to its end, even if readers are to stop. One that goes on as it comes cannot
//!    be: then the run fails rather than commit half of it.
//! 6. While workers take a release, nobody hears what readers have to say. That time is no part of any wait: what the gate
//!    knows of partitions' ends is from before it.
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

pub(crate) use groups::Groups;
pub(crate) use line::Line;
pub use together::{OpenEpoch, Together};

/// Records that a partition may keep waiting.
const STASH: usize = 64 * 1024;
