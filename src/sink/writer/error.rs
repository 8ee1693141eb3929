//! The errors of a writer: faults, not bad records. Each ends the writer thread, and a restart resumes from the last
//! snapshot.

use std::io;
use std::path::PathBuf;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::lake::remedy;
use crate::repr::{CodecError, Epoch};

/// Why a writer stopped.
#[derive(Debug, Error)]
pub enum WriterError {
    /// The writer panicked, which is a bug in Alluvium.
    #[error(
        "a writer failed at what it did not expect: {panic}; what is committed stays. Please report it with the last lines above"
    )]
    Panicked {
        /// The panic's message.
        panic: String,
    },
    /// A removal names a row that this writer does not hold.
    #[error(
        "could not apply epoch {epoch} to table {table:?}: {missing} removed row(s) are not in it, the first of them {row}; a restart compares the table with the graph and repairs it"
    )]
    UnknownRow {
        /// The table.
        table: String,
        /// The snapshot.
        epoch: Epoch,
        /// How many rows, counted with their multiplicities.
        missing: u64,
        /// One of these rows, as JSON.
        row: String,
    },
    /// A row is removed from a table that is append-only.
    #[error("could not apply epoch {epoch} to table {table:?}: it is append-only, but rows are removed")]
    Removal {
        /// The table.
        table: String,
        /// The snapshot.
        epoch: Epoch,
    },
    /// Rows could not be decoded, or columns could not be encoded.
    #[error("could not read or write rows of table {table:?}")]
    Codec {
        /// The table.
        table: String,
        /// The codec's error.
        #[source]
        source: CodecError,
    },
    /// An Arrow kernel failed on the table's columns.
    #[error("could not lay out columns of table {table:?}")]
    Arrow {
        /// The table.
        table: String,
        /// Arrow's error.
        #[source]
        source: ArrowError,
    },
    /// A data file could not be encoded or decoded.
    #[error("could not encode a data file of table {table:?}")]
    Parquet {
        /// The table.
        table: String,
        /// Parquet's error.
        #[source]
        source: ParquetError,
    },
    /// A data file does not have the content that was written.
    #[error(
        "could not read {file:?} of table {table:?}: it is cut off or damaged; put it back from a copy, or (a silver or gold table) remove the table's folder, and the next run rebuilds it"
    )]
    Damaged {
        /// The table.
        table: String,
        /// The file, below the lake or the table.
        file: String,
        /// Parquet's error.
        #[source]
        source: ParquetError,
    },
    /// A data file lacks a column that the table requires.
    #[error("could not read a data file of table {table:?}: it has no column {column:?}, which must not be null")]
    MissingColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The type of a partition column has no text form in Delta.
    #[error(
        "could not partition table {table:?} by {column:?}: {data_type} has no text form in Delta; choose another column"
    )]
    PartitionType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// The object store failed.
    #[error("could not {action} {path:?} in the lake; what is committed stays, and the next run goes on from there")]
    Store {
        /// The operation: `write`, `read`, `delete`.
        action: &'static str,
        /// The file's path in the lake.
        path: String,
        /// The store's error.
        #[source]
        source: object_store::Error,
    },
    /// The local disk failed.
    #[error("could not {action} {path:?}{}", remedy(source.kind()))]
    Disk {
        /// The operation: `write`, `sync`, `read`, `delete`, `create`.
        action: &'static str,
        /// The file's path on the disk.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A path in the log could not be decoded.
    #[error("could not understand the data file path {path:?} of table {table:?}: its percent-encoding is broken")]
    Path {
        /// The table.
        table: String,
        /// The path as in the log.
        path: String,
    },
    /// Rows that another writer's OPTIMIZE moved are not in their new places.
    #[error(
        "could not follow rows of table {table:?} that another writer moved: {lost} of them are in none of the files it wrote; a restart compares the table with the graph and repairs it"
    )]
    Relocated {
        /// The table.
        table: String,
        /// How many rows.
        lost: u64,
    },
    /// The committer is gone.
    #[error("could not hand over epoch {epoch}: the committer has stopped; its own error says why")]
    CommitterGone {
        /// The snapshot.
        epoch: Epoch,
    },
    /// A background task panicked.
    #[error("could not finish {task}: it panicked")]
    Task {
        /// What the task did.
        task: &'static str,
    },
}
