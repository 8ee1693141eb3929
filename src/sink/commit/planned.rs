//! What the commits of a snapshot are planned from, and what is planned: values without a decision.

use bytes::Bytes;
use thiserror::Error;

use super::action::Action;
use super::live::Live;
use crate::repr::{Epoch, PartitionId, Position};

/// A mistake in the writers' parts: a fault of the program, never of the data.
#[derive(Debug, Error, PartialEq)]
pub enum StateError {
    /// A part breaks (1).
    #[error("writer {writer} prepared epoch {epoch} out of order: {reason}")]
    Order {
        /// Which writer.
        writer: usize,
        /// Which epoch.
        epoch: Epoch,
        /// What is out of order.
        reason: &'static str,
    },
    /// A batch names a file or row that does not exist, or names it twice.
    #[error("could not plan the commit of table {table} at epoch {epoch}: {reason} (file {file})")]
    Batch {
        /// Which table.
        table: String,
        /// Which epoch.
        epoch: Epoch,
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// The state of a table at the start.
#[derive(Debug, Default)]
pub struct TableState {
    /// The table's live files.
    pub live: Vec<Live>,
    /// How the table is evolved to its definition, if that needs changed rows.
    pub redefinition: Option<Redefinition>,
}

impl TableState {
    /// Whether the first snapshot removes all of the table's rows.
    pub fn is_replaced(&self) -> bool {
        self.redefinition
            .as_ref()
            .is_some_and(|redefinition| redefinition.replaces)
    }
}

/// Actions that evolve a table to its definition, in one entry with rows.
#[derive(Clone, Debug)]
pub struct Redefinition {
    /// New protocol and metadata, and change files with the rows that go.
    pub actions: Vec<Action>,
    /// Whether the existing rows do not fit the new definition: then the first snapshot removes them. Otherwise they
    /// stay, and the actions are committed with the next rows that change.
    pub replaces: bool,
}

/// The content of one snapshot.
#[derive(Debug)]
pub struct SnapshotCommit {
    /// Its epoch.
    pub epoch: Epoch,
    /// The progress of the partitions that moved.
    pub progress: Vec<(PartitionId, Position)>,
    /// The tables that change.
    pub tables: Vec<TableChange>,
}

/// The content of one snapshot for one table.
#[derive(Debug)]
pub struct TableChange {
    /// The table's index in the specs.
    pub table: usize,
    /// Vector files to write before the entries, by name relative to the table.
    pub vectors: Vec<(String, Bytes)>,
    /// Log entries, in order.
    pub commits: Vec<PlannedCommit>,
    /// Files (paths relative to the table, URL-encoded) that no live file refers to any more.
    pub retired: Vec<String>,
}

/// One log entry.
#[derive(Debug)]
pub struct PlannedCommit {
    /// The application id of its `txn`.
    pub app_id: String,
    /// The entry's actions, one per line.
    pub actions: Vec<Action>,
}
