//! Counters of a writer, readable from any thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Counters of one writer.
#[derive(Default, Debug)]
pub struct WriterStats {
    /// By table.
    pub tables: Vec<Arc<TableStats>>,
}

/// Counters of one table at one writer. The first group counts from the start; the second is the present state.
#[derive(Default, Debug)]
pub struct TableStats {
    /// Rows written, with rewritten ones counted again.
    pub rows: AtomicU64,
    /// Bytes of files written for snapshots.
    pub bytes: AtomicU64,
    /// Files written for snapshots.
    pub files: AtomicU64,
    /// Compactions that took effect.
    pub compactions: AtomicU64,
    /// Rows by which audits found the published table to differ.
    pub corrections: AtomicU64,

    /// Rows that this writer keeps in the table; for an append-only table, the rows that it wrote.
    pub live_rows: AtomicU64,
    /// Files that hold these rows; 0 for a small table.
    pub live_files: AtomicU64,
    /// Bytes of memory of the index, or of the rows.
    pub index_bytes: AtomicU64,
}
