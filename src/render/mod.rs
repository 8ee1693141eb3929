//! The plan as differential operators: one file for each plan node, one match that dispatches.

pub mod aggregate;
pub mod arrange;
pub mod error;

pub use arrange::Rows;

/// A collection as it flows through the graph: rows that are fine, and errors made on the way.
#[derive(Clone)]
pub struct Collections<'scope> {
    /// Rows of the node's schema.
    pub oks: Rows<'scope>,
    /// Error rows ([`error::error_schema`]).
    pub errs: Rows<'scope>,
}
