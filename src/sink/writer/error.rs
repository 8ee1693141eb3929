//! What a writer cannot do: faults, not bad records. Each ends the writer thread; a restart resumes from
//! the last snapshot.

use std::io;
use std::path::PathBuf;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::repr::{CodecError, Epoch};
use crate::sink::lake::remedy;

/// Why a writer stopped.
#[derive(Debug, Error)]
pub enum WriterError {
    /// The writer panicked, which is a bug of ours.
    #[error(
        "a writer failed at what it did not expect: {panic}; what is committed stays. Please report it with the last lines above"
    )]
    Panicked {
        /// What it said.
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
        /// How many, duplicates counted.
        missing: u64,
        /// One of them, as JSON.
        row: String,
    },
    /// A removal from a table that is append-only.
    #[error("could not apply epoch {epoch} to table {table:?}: it is append-only, but rows are removed")]
    Removal {
        /// The table.
        table: String,
        /// The snapshot.
        epoch: Epoch,
    },
    /// Rows do not decode, or columns do not encode.
    #[error("could not read or write rows of table {table:?}")]
    Codec {
        /// The table.
        table: String,
        /// What the codec says.
        #[source]
        source: CodecError,
    },
    /// A kernel refused columns.
    #[error("could not lay out columns of table {table:?}")]
    Arrow {
        /// The table.
        table: String,
        /// What arrow says.
        #[source]
        source: ArrowError,
    },
    /// A data file does not encode or decode.
    #[error("could not encode a data file of table {table:?}")]
    Parquet {
        /// The table.
        table: String,
        /// What parquet says.
        #[source]
        source: ParquetError,
    },
    /// A data file is not what was written.
    #[error(
        "could not read {file:?} of table {table:?}: it is cut off or damaged; put it back from a copy, or (a silver or gold table) remove the table's folder, and the next run rebuilds it"
    )]
    Damaged {
        /// The table.
        table: String,
        /// The file, below the lake or the table.
        file: String,
        /// What parquet says.
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
    /// A type that cannot partition a Delta table.
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
        /// `write`, `read`, `delete`.
        action: &'static str,
        /// Below the lake.
        path: String,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
    /// The local disk failed.
    #[error("could not {action} {path:?}{}", remedy(source.kind()))]
    Disk {
        /// `write`, `sync`, `read`, `delete`, `create`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A log path that is no path.
    #[error("could not understand the data file path {path:?} of table {table:?}: its percent-encoding is broken")]
    Path {
        /// The table.
        table: String,
        /// As the log has it.
        path: String,
    },
    /// Rows that another writer's OPTIMIZE moved are not where it put them.
    #[error(
        "could not follow rows of table {table:?} that another writer moved: {lost} of them are in none of the files it wrote; a restart compares the table with the graph and repairs it"
    )]
    Relocated {
        /// The table.
        table: String,
        /// How many.
        lost: u64,
    },
    /// The committer is gone.
    #[error("could not hand over epoch {epoch}: the committer has stopped; its own error says why")]
    CommitterGone {
        /// The snapshot.
        epoch: Epoch,
    },
    /// A background task died.
    #[error("could not finish {task}: it panicked")]
    Task {
        /// What it did.
        task: &'static str,
    },
}
