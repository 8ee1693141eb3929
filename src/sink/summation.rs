//! Logs are tables that only grow. Merging their files reduces the number of rows without changing what the rows say
//! in total. Readers read a log as a whole, in any order, and must know how to add its rows up.

use std::fmt;

use arrow::array::RecordBatch;

/// Adds up the rows of a log.
pub trait LogSummation: fmt::Debug + Send + Sync {
    /// Returns rows that say in total what `batches` say, all of which are of one partition. If more than `most` rows
    /// remain, they are spread over several partitions, each a part of the original one.
    fn add_up(&self, batches: &[RecordBatch], most: usize) -> Vec<RecordBatch>;
}
