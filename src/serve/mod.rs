//! Snapshots to people: queries over one, and the audit of one.

pub mod cases;
pub mod history;
mod isolate;
mod orders;
mod query;
mod reader;
mod sums;
pub mod verify;

pub use query::{OutputFormat, QueryError, Snapshot, epochs, render};
pub use reader::Reader;
