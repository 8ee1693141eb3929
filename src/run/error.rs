//! Why a run ends early.

use thiserror::Error;

use super::past::ShiftedFolder;
use super::suspects::Named;
use crate::cluster::{ClusterError, Loss, Peer};
use crate::decode::DecodeError;
use crate::definition::Diagnostics;
use crate::evolve::EvolveError;
use crate::latency::LatencyFileError;
use crate::publish::PublishError;
use crate::repr::CodecError;
use crate::serve::QueryError;
use crate::serve::history::HistoryError;
use crate::sink::{CommitError, LakeError, WriterError};
use crate::source::SourceError;

/// Why a run could not start, or ended early. What was committed stays; the next run goes on from there.
#[derive(Debug, Error)]
pub enum RunError {
    /// The definition cannot be run.
    #[error("the definition has mistakes:\n{0}")]
    Definition(Diagnostics),
    /// The lake's address.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A snapshot could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A table's files could not be written.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// Snapshots could not be published to topics.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A feed could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A feed cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Rows could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The lake's tables could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Bronze could not be replayed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Latency files.
    #[error(transparent)]
    LatencyFiles(#[from] LatencyFileError),
    /// An input without Bronze whose feed does not hold its past any more.
    #[error(
        "could not resume: input {input} keeps no Bronze, and feed {feed} no longer holds {partition:?} as it was read, up to {next}{causes}; put it back, or use a new lake (bronze = true keeps what arrives)"
    )]
    NoBronze {
        /// Which input.
        input: String,
        /// Which feed.
        feed: String,
        /// The file, or the log's partition.
        partition: String,
        /// How far it was read.
        next: u64,
        /// What its feeds wait for, in brackets, if they do.
        causes: String,
    },
    /// Files would be read a second time.
    #[error(transparent)]
    ShiftedFolder(#[from] ShiftedFolder),
    /// An expectation with `on_violation = "fail"`.
    #[error(
        "{reason}, which must hold, by {violations} row(s), such as {row}; no snapshot holds them: repair the input or the expectation, then run again"
    )]
    Expectation {
        /// How many rows, as of the epoch that would have been committed.
        violations: i64,
        /// The reason of one of them.
        reason: String,
        /// That row as JSON, or its beginning.
        row: String,
    },
    /// What an input held is kept with a column of a type that this version does not know.
    #[error("could not read what input {input} held: column {column} has an unknown type; run once with --recompute")]
    StateForm {
        /// Which input.
        input: String,
        /// Which column.
        column: String,
    },
    /// A columnar file could not be archived.
    #[error("could not archive {file} in the lake")]
    Archive {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The processes of a cluster did not come together.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Another process of the cluster went away, or hangs.
    #[error("lost {peer}: {loss}; every process of the cluster ends, and a restart resumes from the last snapshot")]
    Lost {
        /// Which.
        peer: Peer,
        /// How.
        loss: Loss,
    },
    /// Another process of the cluster failed.
    #[error("{peer} failed: {message}")]
    Peer {
        /// Which.
        peer: Peer,
        /// What it says.
        message: String,
    },
    /// Another process sent what no process of ours sends.
    #[error("could not read a message of {peer}; this is a bug")]
    Garbled {
        /// Which.
        peer: Peer,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What inputs take beside the definition's columns.
    #[error(transparent)]
    Evolve(#[from] EvolveError),
    /// A thread could not be started.
    #[error("could not start {what}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// timely could not be started.
    #[error("could not start the workers: {0}")]
    Workers(String),
    /// All parts that could tell anything are gone.
    #[error("the workers ended without a word; this is a bug")]
    WorkersGone,
    /// A worker's writer ended; its own error says why.
    #[error("a writer ended before its worker")]
    WriterGone,
    /// Requests cannot be served.
    #[error("could not go on serving requests: {0}; a restart goes on with them")]
    Requests(String),
    /// A worker panicked: a fault of ours, met by what it was given.
    #[error("a worker panicked ({message}), which is a bug, {named}")]
    Worker {
        /// What the panic says.
        message: String,
        /// Which records it may be about, and what to do.
        named: Named,
    },
    /// A thread panicked.
    #[error("{0} panicked: {1}; this is a bug")]
    Panicked(&'static str, String),
}
