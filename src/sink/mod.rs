//! The sink turns updates of tables into Delta commits, all tables of a snapshot together, without MERGE.
//!
//! ```text
//! worker 0 graph --WriterMessage--> writer 0 --Prepared--\
//! worker 1 graph --WriterMessage--> writer 1 --Prepared---> committer --> _alluvium/ledger, <table>/_delta_log
//! ```
//!
//! Each worker has a writer thread. It gathers updates (`WriterMessage`), and at `Seal { epoch }` mints one batch per
//! table: all updates with a time up to `epoch` that are in no earlier batch. It writes the batch's data files,
//! determines the places of the rows to remove, and hands both to the committer, which waits for all workers and then
//! commits every table.
//!
//! Other engines may write to our tables in the meantime. `commit::apply` decides what their commits mean for the
//! entries that we put, and writers learn of moved rows through [`Relocations`].

pub mod bronze;
mod commit;
pub mod dead_letters;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod durability;
mod prepared;
mod relocation;
pub mod states;
mod summation;
pub mod sums;
mod writer;

pub(crate) use commit::{CommitClock, history, ledger, log};
pub use commit::{
    CommitError, CommitEvent, CommitSettings, Committer, LakeSurvey, LedgerError, LogError, Restored, SchemaError,
    StateError, StoredPlan, TableSurvey, survey,
};
pub use prepared::{AddFile, ChangeFile, DeletionVector, LiveFile, Prepared, TableBatch};
pub use relocation::{Relocation, Relocations};
pub use summation::LogSummation;
pub use writer::{
    Compaction, DepartingRows, LoadedWriter, SinkWriter, TableStats, WriterConfig, WriterError, WriterLimits,
    WriterStats, WriterThread, is_named_by_us, owner, restore, scan, spawn,
};

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::definition::Deletes;
use crate::repr::{Epoch, PartitionId, Position, Update};

/// A table the sink keeps.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The name: `silver.order_lines`, `bronze.order_lines`, `dead_letters`.
    pub name: String,
    /// Folder below the lake: `silver/order_lines`.
    pub path: String,
    /// The columns; types are normalised (`repr::normalise_schema`).
    pub schema: SchemaRef,
    /// Positions of the partition columns in `schema`.
    pub partition_by: Vec<usize>,
    /// Whether rows are only ever added; then no index is kept.
    pub append_only: bool,
    /// For a log (append-only): how its rows add up, within a commit and when files are merged.
    pub summation: Option<Arc<dyn LogSummation>>,
    /// How removed rows are written.
    pub deletes: Deletes,
    /// Whether Delta's change data feed is written.
    pub change_data_feed: bool,
    /// A description for people.
    pub description: Option<String>,
}

/// A message of a worker to its writer. Tables are indices into the sink's list of [`TableSpec`]s.
pub enum WriterMessage {
    /// Updates of a table. Rows are encoded with the codec of its schema, and each goes to the worker that its hash
    /// names, so that additions and removals of a row meet at one writer.
    Rows {
        /// Which table.
        table: usize,
        /// The updates, in any order, not necessarily consolidated.
        updates: Vec<Update>,
    },
    /// Rows appended to an append-only table.
    Columns {
        /// Which table.
        table: usize,
        /// The epoch of the rows.
        epoch: Epoch,
        /// The rows, in the table's schema.
        batch: RecordBatch,
    },
    /// How far a partition has been read, as of an epoch.
    Progress {
        /// The epoch.
        epoch: Epoch,
        /// Which partition.
        partition: PartitionId,
        /// The position.
        position: Position,
    },
    /// All updates with a time up to `epoch` have been handed over: the writer prepares the snapshot.
    Seal {
        /// The snapshot's epoch.
        epoch: Epoch,
    },
}
