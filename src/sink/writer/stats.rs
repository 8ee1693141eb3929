//! What a writer has done and holds, readable from any thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Figures of one writer.
#[derive(Default, Debug)]
pub struct WriterStats {
    /// By table.
    pub tables: Vec<Arc<TableStats>>,
}

/// Figures of one table at one writer. The first group counts since the start; the second is now.
#[derive(Default, Debug)]
pub struct TableStats {
    /// Rows written, rewritten ones counted again.
    pub rows: AtomicU64,
    /// Bytes of files written for snapshots.
    pub bytes: AtomicU64,
    /// Files written for snapshots.
    pub files: AtomicU64,
    /// Compactions that took effect.
    pub compactions: AtomicU64,
    /// Rows by which audits found the published table to differ.
    pub corrections: AtomicU64,

    /// Rows this writer keeps in the table; of an append-only table those it wrote.
    pub live_rows: AtomicU64,
    /// Files they are in; 0 for a small table.
    pub live_files: AtomicU64,
    /// Bytes of memory that index or rows take.
    pub index_bytes: AtomicU64,
}
