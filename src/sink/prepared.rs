//! What a writer hands to the committer for one snapshot: files that are already stored, and the places of rows to
//! remove.
//!
//! Writers own rows and know their places; the committer owns each table's live files with their deletion vectors, and
//! the log entries. So a writer names the rows to remove by file and position, and only the committer makes deletion
//! vectors of them: two writers may remove rows of one file in one snapshot (after a restart with another number of
//! workers).

use std::collections::BTreeMap;

use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

use crate::repr::{Epoch, PartitionId, Position};

/// One writer's part of a snapshot.
#[derive(Debug)]
pub struct Prepared {
    /// The writer: the worker's index.
    pub writer: usize,
    /// The snapshot's epoch.
    pub epoch: Epoch,
    /// The changed tables: index into the sink's specs, and the batch.
    pub tables: Vec<(usize, TableBatch)>,
    /// How far partitions have been read as of `epoch`, only for those that moved.
    pub progress: Vec<(PartitionId, Position)>,
    /// The newest relocation that the writer has learned: the part names places as of that relocation.
    pub learned: u64,
}

/// One writer's change of one table.
#[derive(Debug, Default)]
pub struct TableBatch {
    /// New data files, written and complete.
    pub adds: Vec<AddFile>,
    /// Rows to remove: the file's path as in its `AddFile`, and row positions in it (Parquet row order).
    pub deletes: Vec<(String, RoaringTreemap)>,
    /// Files to remove as a whole: their live rows are in `adds`, or removed too.
    pub removes: Vec<String>,
    /// Change data files, where the table keeps a change data feed.
    pub changes: Vec<ChangeFile>,
    /// Whether rows change; false for a compaction. (A batch is one or the other.)
    pub data_change: bool,
}

impl TableBatch {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.deletes.is_empty() && self.removes.is_empty()
    }
}

/// Delta's `add` action (protocol, "Add File and Remove File").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddFile {
    /// Relative to the table, URL-encoded as the protocol wants it.
    pub path: String,
    /// Partition column to value in Delta's text form; null for null.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// Unix milliseconds.
    pub modification_time: i64,
    /// False for compaction.
    pub data_change: bool,
    /// JSON: numRecords (physical rows, exact), minValues, maxValues, nullCount, tightBounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// Rows of the file that are gone; only the committer sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

/// Delta's deletion vector descriptor (protocol, "Deletion Vector Descriptor Schema").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionVector {
    /// `u`: a file beside the data; `i`: inline; `p`: an absolute path.
    pub storage_type: String,
    /// z85 of the UUID (with a prefix), or of the bitmap.
    pub path_or_inline_dv: String,
    /// Where the vector starts in its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// Bytes of the serialised bitmap.
    pub size_in_bytes: i32,
    /// Rows that are gone.
    pub cardinality: i64,
}

/// Delta's `cdc` action: a file of `_change_data/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeFile {
    /// Relative to the table.
    pub path: String,
    /// As in [`AddFile`].
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// Always false.
    pub data_change: bool,
}

/// A live file of a table as its log has it.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// `add.path`.
    pub path: String,
    /// `add.partitionValues`.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// `add.size`.
    pub size: u64,
    /// Physical rows, deleted or not: `numRecords` of `add.stats`, or 0 if the statistics are missing (then compaction
    /// leaves an append-only file alone).
    pub rows: u64,
    /// The positions in the file's deletion vector.
    pub deleted: RoaringTreemap,
}
