//! Why a run ends early.

use thiserror::Error;

use super::board::SkippableRecords;
use super::past::ShiftedFolder;
use crate::cluster::{ClusterError, Loss, Peer};
use crate::decode::DecodeError;
use crate::definition::Diagnostics;
use crate::evolve::EvolveError;
use crate::lake::LakeError;
use crate::latency::LatencyFileError;
use crate::publish::PublishError;
use crate::repr::CodecError;
use crate::serve::QueryError;
use crate::serve::history::HistoryError;
use crate::sink::{CommitError, WriterError};
use crate::source::SourceError;

/// Why a run could not start, or ended early. What was committed stays; the next run goes on from there.
#[derive(Debug, Error)]
pub enum RunError {
    /// The definition cannot be run.
    #[error("the definition has mistakes:\n{0}")]
    Definition(Diagnostics),
    /// The lake could not be opened.
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
    /// Latency files could not be written.
    #[error(transparent)]
    LatencyFiles(#[from] LatencyFileError),
    /// The input keeps no Bronze, and its feed no longer holds the records that the lake's tables were computed from.
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
        /// The offset up to which it was read.
        next: u64,
        /// What the input's feeds wait for, in parentheses; empty if they wait for nothing.
        causes: String,
    },
    /// A folder's paths changed, so that its files would be read a second time.
    #[error(transparent)]
    ShiftedFolder(#[from] ShiftedFolder),
    /// Rows violate an expectation with `on_violation = "fail"`.
    #[error(
        "{reason}, which must hold, by {violations} row(s), such as {row}; no snapshot holds them: repair the input or the expectation, then run again"
    )]
    Expectation {
        /// How many rows violate it, as of the epoch that would have been committed.
        violations: i64,
        /// The reason that one of them gives.
        reason: String,
        /// That row as JSON, truncated.
        row: String,
    },
    /// A run that was asked to end left a recursive query in its rounds.
    #[error(
        "ended in round {round} of {query}, which was not over: what was read since the last snapshot is not committed, and the next run reads it again; bound the query by a condition, or lower max_rounds"
    )]
    InRounds {
        /// The recursive query.
        query: String,
        /// The round that it was in.
        round: u64,
    },
    /// The state table of an input has a column of a type that this version does not know.
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
        /// Which process.
        peer: Peer,
        /// How it was lost.
        loss: Loss,
    },
    /// Another process of the cluster failed.
    #[error("{peer} failed: {message}")]
    Peer {
        /// Which process.
        peer: Peer,
        /// The error that it reported.
        message: String,
    },
    /// Another process sent a message that cannot be parsed.
    #[error("could not read a message of {peer}; this is a bug")]
    Garbled {
        /// Which process.
        peer: Peer,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The columns that inputs take from schemas could not be settled.
    #[error(transparent)]
    Evolve(#[from] EvolveError),
    /// A thread could not be started.
    #[error("could not start {what}")]
    Thread {
        /// Which thread.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The timely workers could not be started.
    #[error("could not start the workers: {0}")]
    Workers(String),
    /// All senders of events are gone, and none has reported an error.
    #[error("the workers ended without a word; this is a bug")]
    WorkersGone,
    /// A writer ended before its worker; the writer reports its own error.
    #[error("a writer ended before its worker")]
    WriterGone,
    /// Requests (backfill, replay, repair) cannot be served any more.
    #[error("could not go on serving requests: {0}; a restart goes on with them")]
    Requests(String),
    /// A worker panicked because of a bug, which some record may have triggered.
    #[error("a worker panicked ({message}), which is a bug, {named}")]
    Worker {
        /// The panic's message.
        message: String,
        /// The records that may have triggered it, and what to do.
        named: SkippableRecords,
    },
    /// Another thread panicked.
    #[error("{0} panicked: {1}; this is a bug")]
    Panicked(&'static str, String),
}
