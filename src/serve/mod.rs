//! Snapshots to people: queries over one, and the audit of one.

pub mod against;
pub mod cases;
pub mod history;
mod isolate;
mod letters;
mod orders;
mod progress;
mod query;
mod reader;
mod sums;
pub mod verify;
mod zeros;

pub use letters::Letters;
pub use progress::progress;
pub use query::{OutputFormat, QueryError, Snapshot, epochs, render};
pub use reader::Reader;
