//! The input and output of decoders: raw records, and the changes decoded from them.

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use thiserror::Error;

use crate::registry::Unready;

/// Precedes a name in [`Decoded::ignored_fields`] if a column takes another field with that name.
pub const TWICE: &str = "(twice) ";

/// Records before decoding.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The records' bytes, or the columns of a file.
    pub payloads: Payloads,
    /// The position of each record in its partition (byte offset in a log, number of the record in a file, from 0).
    /// Strictly increasing.
    pub offsets: Vec<u64>,
    /// What is needed to decode the records besides their bytes: the header line of a CSV file.
    pub header: Option<Arc<str>>,
    /// Records longer than `max_record`, ascending. Only their first bytes are here, and they are never decoded.
    pub cut: Vec<CutRecord>,
    /// What is known of the records' place in their file.
    pub place: FilePlace,
}

/// A record that is longer than `max_record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// Index into [`Raw::offsets`].
    pub record: u32,
    /// The record's full length in bytes.
    pub length: u64,
}

/// The bytes of records.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one a batch, moved rarely")]
pub enum Payloads {
    /// One value per record; a null value is a tombstone.
    Records {
        /// Value bytes.
        values: BinaryArray,
        /// Key bytes, if the feed has keys.
        keys: Option<BinaryArray>,
        /// Headers as JSON objects, if the feed has headers.
        headers: Option<StringArray>,
        /// When the source wrote each record, in Unix milliseconds, if known.
        ts_ms: Vec<Option<i64>>,
    },
    /// Rows of a columnar file as Arrow columns; the file itself is archived instead of its rows.
    Columns {
        /// The columns as in the file.
        batch: RecordBatch,
        /// The file's path or URL.
        path: Arc<str>,
        /// The file's version: size, and entity tag or modification time. Empty if there is only one version.
        tag: Arc<str>,
    },
}

impl Raw {
    /// A batch without records.
    pub(crate) fn none() -> Self {
        Raw {
            payloads: Payloads::Records {
                values: BinaryArray::new_null(0),
                keys: None,
                headers: None,
                ts_ms: Vec::new(),
            },
            offsets: Vec::new(),
            header: None,
            cut: Vec::new(),
            place: FilePlace::default(),
        }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

/// The effect of a row on its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOp {
    /// With a key: the row is the key's newest version. Without: one more row.
    Upsert,
    /// With a key: the key is deleted (only key and `order_by` columns need values; the others may be null). Without:
    /// one row less.
    Delete,
    /// The input is emptied of everything that arrived before; all columns are null.
    Truncate,
}

/// Decoded records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The records that were decoded (Bronze stores them, including rejected ones).
    pub raw: Raw,
    /// One row for each change with the input's columns, in record order. Required columns of upserts are not null;
    /// deletes may have nulls in them, so that the schema is the input's with every field nullable.
    pub rows: RecordBatch,
    /// The operation of each row.
    pub ops: Vec<ChangeOp>,
    /// The record of `raw` from which each row was decoded (non-decreasing).
    pub record: Vec<u32>,
    /// When the source made each record's change, in Unix milliseconds, if known (one per record of `raw`).
    pub source_ms: Vec<Option<i64>>,
    /// Records that could not be decoded.
    pub rejects: Vec<Reject>,
    /// Names of fields that no column takes, with the number of records that have them.
    pub ignored_fields: Vec<(String, u64)>,
    /// For a keyed input, values that the source left out of a change because they did not change, as (index into
    /// `rows`, column), ascending. They are null in `rows`; the key's current row has them.
    pub unchanged: Vec<(u32, u32)>,
    /// The places of records in transactions of their source, ascending by record, including rejected records.
    pub transactions: Vec<RecordTransaction>,
}

/// Records whose schemas are unavailable because the registry does not answer.
#[derive(Debug, Error)]
#[error("{unready}")]
pub struct WaitingRecords {
    /// The records, untouched.
    pub raw: Raw,
    /// Why the schemas are unavailable.
    pub unready: Unready,
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index into `raw`; none for the whole file.
    pub record: Option<u32>,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// What is known of the records' place in their file; empty for records that are in no file.
#[derive(Clone, Debug, Default)]
pub struct FilePlace {
    /// The partition; see [`crate::source::Delivery::partition`].
    pub partition: Option<Arc<str>>,
    /// The file's modification time in ISO 8601, in UTC.
    pub modified: Option<Arc<str>>,
    /// The line on which each record begins, from 1; empty if unknown.
    pub lines: Vec<u64>,
    /// The number of the file's first record; see [`crate::repr::Position::base`].
    pub base: u64,
}

/// The place of a record in a transaction of its source (`provide.transaction.metadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordTransaction {
    /// The record's index in `raw`.
    pub record: u32,
    /// The transaction's id, as in its BEGIN and END.
    pub id: Arc<str>,
    /// The change's number within the transaction, from 1; 0 if unknown.
    pub total_order: u64,
    /// The change's number among those of the same table, from 1; 0 if unknown.
    pub collection_order: u64,
    /// The table, in the form in which the transaction's END counts it: `schema.table`, `database.table` or
    /// `database.schema.table`, depending on the connector.
    pub collection: Arc<str>,
}

impl Decoded {
    /// The result for no records; `rows` is the schema of decoded rows.
    pub(crate) fn none(rows: SchemaRef) -> Self {
        Decoded {
            raw: Raw::none(),
            rows: RecordBatch::new_empty(rows),
            ops: Vec::new(),
            record: Vec::new(),
            source_ms: Vec::new(),
            rejects: Vec::new(),
            ignored_fields: Vec::new(),
            unchanged: Vec::new(),
            transactions: Vec::new(),
        }
    }
}
