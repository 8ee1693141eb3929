//! Snapshots to people.

mod query;

pub use query::{OutputFormat, QueryError, Snapshot, render};
