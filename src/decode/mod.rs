//! Bytes to changes of an input.
//!
//! A [`Raw`] batch of records of one feed becomes a [`Decoded`]: Arrow columns of the input's schema, one
//! operation per row, and a [`Reject`] for each record that does not decode. Decoding is vectorised; a
//! record that fails never takes its neighbours with it. `verify` decodes Bronze through the same door.

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch};

/// Records as they came.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The records' bytes, or where they are archived.
    pub payloads: Payloads,
    /// Of each record: where it is in its partition (byte offset in a log, number of the record in a file,
    /// from 0). Strictly increasing.
    pub offsets: Vec<u64>,
    /// What is needed to read the records besides their bytes: the header line of a CSV file.
    pub header: Option<Arc<str>>,
}

/// The bytes of records.
#[derive(Clone, Debug)]
pub enum Payloads {
    /// One value per record; a null value is a tombstone.
    Records {
        /// Value bytes.
        values: BinaryArray,
        /// Key bytes, where the feed has keys.
        keys: Option<BinaryArray>,
        /// When the source wrote it, Unix milliseconds, where it says so.
        ts_ms: Vec<Option<i64>>,
    },
    /// Rows of a columnar file: Arrow columns as read; the file itself is archived, not its rows.
    Columns {
        /// As the file has them.
        batch: RecordBatch,
        /// The file.
        path: Arc<str>,
    },
}

impl Raw {
    /// How many records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

/// What a row does to its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// With a key: this is the key's newest row. Without: one more row.
    Upsert,
    /// With a key: the key is gone (only key and `order_by` columns need hold values; the others may be
    /// null). Without: one row less.
    Delete,
    /// The input is emptied of everything that arrived before; all columns null.
    Truncate,
}

/// Decoded records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The records it came from (Bronze keeps them, rejected ones too).
    pub raw: Raw,
    /// The input's columns, a row for each change, in record order. Nullability of required columns is
    /// already enforced for upserts; for deletes fields are nullable, so the schema here is the input's
    /// with every field nullable.
    pub rows: RecordBatch,
    /// What each row does.
    pub ops: Vec<Op>,
    /// Which record of `raw` each row came from (non-decreasing).
    pub record: Vec<u32>,
    /// When the source made each record's change, Unix milliseconds, where it says so (one per record of `raw`).
    pub source_ms: Vec<Option<i64>>,
    /// Records that did not decode.
    pub rejects: Vec<Reject>,
    /// Fields that no column takes, counted by name.
    pub ignored_fields: Vec<(String, u64)>,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index into `raw`; none: the file as a whole.
    pub record: Option<u32>,
    /// What is wrong with it, and what to do.
    pub reason: String,
}
