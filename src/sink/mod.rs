//! The way out: updates of tables become Delta commits, all tables of a snapshot together, without MERGE.
//!
//! ```text
//! worker 0 graph --Arrival--> writer 0 --Prepared--\
//! worker 1 graph --Arrival--> writer 1 --Prepared---> committer --> _alluvium/ledger, <table>/_delta_log
//! ```
//!
//! Each worker has a writer thread. It gathers updates (`Arrival`), and at `Seal { epoch }` mints one batch per
//! table: everything with a time at most `epoch` and not in an earlier batch. It writes the batch's data files and
//! names the rows that go, and hands them to the one committer, which waits for all workers, then commits
//! every table.
//!
//! Others may write to our tables meanwhile: what that means is decided where log entries are put (`commit::apply`), and
//! writers learn of rows that were moved from the board of [`Relocations`].

pub mod bronze;
mod commit;
pub mod dead_letters;
mod disk;
mod fold;
mod lake;
mod prepared;
mod relocation;
pub mod states;
pub mod sums;
mod writer;

pub(crate) use commit::{Clock, history, ledger, log};
pub use commit::{
    CommitError, CommitEvent, Committer, Found, LedgerError, LogError, Plan, Restored, SchemaError, Settings,
    StateError, Survey, survey,
};
pub use fold::Fold;
pub(crate) use lake::file_location;
pub use lake::{Lake, LakeError, Put};
pub use prepared::{AddFile, Batch, ChangeFile, DeletionVector, LiveFile, Prepared};
pub use relocation::{Relocation, Relocations};
pub use writer::{
    Compaction, Departing, Limits, Loaded, TableStats, Writer, WriterConfig, WriterError, WriterStats, WriterThread,
    is_ours, owner, restore, scan, spawn,
};

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::definition::Deletes;
use crate::repr::{Epoch, Update};
use crate::source::{PartitionId, Position};

/// A table the sink keeps.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// `silver.order_lines`, `bronze.order_lines`, `dead_letters`.
    pub name: String,
    /// Folder below the lake: `silver/order_lines`.
    pub path: String,
    /// Its columns; types are normalised (`repr::normalise_schema`).
    pub schema: SchemaRef,
    /// Positions of partition columns.
    pub partition_by: Vec<usize>,
    /// No row is ever removed: no index is kept.
    pub append_only: bool,
    /// Of an append-only table: its rows add up where files are merged, and those of one commit.
    pub fold: Option<Arc<dyn Fold>>,
    /// How removed rows are written.
    pub deletes: Deletes,
    /// Whether Delta's change data feed is written.
    pub change_data_feed: bool,
    /// For people.
    pub description: Option<String>,
}

/// What a worker hands to its writer. Tables are indices into the sink's list of [`TableSpec`]s.
pub enum Arrival {
    /// Updates of a table; rows are encoded with the codec of its schema, and come to the worker that
    /// their hash names (so that additions and removals of a row meet at one writer).
    Rows {
        /// Which table.
        table: usize,
        /// Not necessarily consolidated, in any order.
        updates: Vec<Update>,
    },
    /// Rows appended to an append-only table.
    Columns {
        /// Which table.
        table: usize,
        /// When.
        epoch: Epoch,
        /// Of the table's schema.
        batch: RecordBatch,
    },
    /// How far a partition is read, as of an epoch.
    Progress {
        /// When.
        epoch: Epoch,
        /// Which partition.
        partition: PartitionId,
        /// How far.
        position: Position,
    },
    /// Everything with a time at most `epoch` has been handed over: prepare the snapshot.
    Seal {
        /// The snapshot's epoch.
        epoch: Epoch,
    },
}
