//! Logs: tables that only grow, whose rows become fewer when their files are merged, without a change of what they say
//! together. They are read as a whole, in any order, by those who know how to add them up.

use std::fmt;

use arrow::array::RecordBatch;

/// How the rows of a log add up.
pub trait Fold: fmt::Debug + Send + Sync {
    /// Rows that say together what these say, which are of one partition. Where more than `most` are left, they are
    /// spread over several: parts of the one they come from.
    fn fold(&self, batches: &[RecordBatch], most: usize) -> Vec<RecordBatch>;
}
