//! The plan as differential operators.

pub mod aggregate;

use differential_dataflow::VecCollection;

use crate::repr::{Diff, Epoch, Row};

/// What a node of the plan yields: its rows, and the rows it could not compute as error rows
/// (reason Utf8, payload Binary).
#[derive(Clone)]
pub struct Collections<'scope> {
    /// Rows of the node's schema.
    pub oks: VecCollection<'scope, Epoch, Row, Diff>,
    /// Error rows.
    pub errs: VecCollection<'scope, Epoch, Row, Diff>,
}
