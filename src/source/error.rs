//! The errors that end a feed. A bad record or a bad file is no such error: it is data, and goes to the dead
//! letters.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::decode::DecodeError;

/// An error after which a feed cannot go on, and which stops the run; a restart resumes at the last snapshot. A
/// fault that keeps one feed from being read and may be repaired is not here either: that feed waits and reports the
/// cause, while all others go on.
#[derive(Clone, Debug, Error)]
pub enum SourceError {
    /// The folder or store could not be listed.
    #[error("could not list the files of feed {feed} at {path:?}; check that it can be read")]
    List {
        /// `input.feed`.
        feed: String,
        /// The glob.
        path: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A file that somebody asked for by name could not be read, and the cause did not pass within the retry
    /// budget.
    #[error("could not read file {path} from record {record} on; ask again once it can be read")]
    Read {
        /// The file.
        path: String,
        /// The first record that is missing.
        record: u64,
        /// The last reason.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A URL whose scheme belongs to no known store, or a store that refuses its options.
    #[error("could not open the store of feed {feed} at {path:?}: {reason}")]
    Store {
        /// `input.feed`.
        feed: String,
        /// The URL.
        path: String,
        /// The error of the store's client.
        reason: String,
    },
    /// A glob that cannot be parsed.
    #[error("could not read the path {path:?} of feed {feed} as a glob: {reason}")]
    Glob {
        /// `input.feed`.
        feed: String,
        /// The glob.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The feed's settings do not give a valid Kafka client.
    #[error("could not set up the Kafka client of feed {feed}: {reason}; correct brokers or options")]
    KafkaOptions {
        /// `input.feed`.
        feed: String,
        /// librdkafka's message.
        reason: String,
    },
    /// librdkafka reported a fatal error.
    #[error("the Kafka client of feed {feed} cannot go on: {reason}; a restart resumes at the last snapshot")]
    KafkaFatal {
        /// `input.feed`.
        feed: String,
        /// librdkafka's message.
        reason: String,
    },
    /// A database did not answer.
    #[error("could not reach {url}: {reason}; check the address, and sslmode in it")]
    PostgresAway {
        /// The address, without its password.
        url: String,
        /// The last reason.
        reason: String,
    },
    /// A database whose configuration does not allow the feed to be read.
    #[error("could not read {url}: {reason}; {help}")]
    PostgresMisfit {
        /// The address, without its password.
        url: String,
        /// What does not fit.
        reason: String,
        /// The remedy, as SQL where there is one.
        help: String,
    },
    /// The database removed changes that were not read yet.
    #[error(
        "slot {slot:?} cannot go on at {reached}, where the newest snapshot is: {reason}; what was changed since is gone from it. Give the feeds another `slot` to begin with their tables' rows again, or start with a new lake"
    )]
    PostgresLost {
        /// The slot.
        slot: String,
        /// The LSN up to which it was read.
        reached: String,
        /// Why.
        reason: String,
    },
    /// A server sent bytes that are not a valid replication stream.
    #[error("the replication stream of {url} cannot be read: {reason}; a restart resumes at the last snapshot")]
    PostgresStream {
        /// The address, without its password.
        url: String,
        /// Why.
        reason: String,
    },
    /// The initial copy of tables was not finished.
    #[error(
        "the first rows of feed {feed} were not read to their end: {reason}; nothing of them is committed, and a restart begins with them again"
    )]
    PostgresFirstRows {
        /// `input.feed`.
        feed: String,
        /// Why.
        reason: String,
    },
    /// Readers were stopped in the middle of a transaction that is too large to be buffered and therefore passed
    /// on in parts.
    #[error(
        "a transaction of {topic} was being taken when the run was to end, and is larger than what can be kept back: nothing of it is committed; a restart resumes at the last snapshot"
    )]
    TransactionCut {
        /// The transaction topic.
        topic: String,
    },
    /// Transaction markers that the feed's format cannot decode.
    #[error("could not set up the transaction topic of feed {feed}")]
    Markers {
        /// `input.feed`.
        feed: String,
        /// Why.
        #[source]
        source: Arc<DecodeError>,
    },
    /// The HTTP server of a feed could not be set up.
    #[error("could not {what}: {reason}")]
    Requests {
        /// What was attempted.
        what: &'static str,
        /// Why it failed, and what to do.
        reason: String,
    },
    /// The log that stores HTTP requests could not be read or written.
    #[error("could not use the log of requests of feed {feed}; a restart goes on behind what it holds whole")]
    RequestLog {
        /// `input.feed`.
        feed: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A generator's name that is not in [`crate::definition::GENERATORS`].
    #[error("unknown generator {name:?}; known are {known}")]
    UnknownGenerator {
        /// The name.
        name: String,
        /// The known names.
        known: String,
    },
    /// A generator that has no CSV rendering was asked for CSV.
    #[error("generator {name:?} makes change envelopes, which have no CSV form; use format = \"debezium-json\"")]
    NoCsv {
        /// The name.
        name: String,
    },
    /// A worker stopped while its readers were still running.
    #[error("worker {worker} takes no more deliveries of feed {feed}; see the worker's own error")]
    Disconnected {
        /// `input.feed`.
        feed: String,
        /// The worker's index.
        worker: usize,
    },
    /// A thread could not be started.
    #[error("could not start a reader thread of feed {feed}")]
    Spawn {
        /// `input.feed`.
        feed: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A reader thread panicked, which is a bug in Alluvium.
    #[error("a reader of feed {feed} panicked: {message}; this is a fault in alluvium, please report it")]
    Panicked {
        /// `input.feed`.
        feed: String,
        /// The panic's message.
        message: String,
    },
}

/// Why a reader's work ended early.
#[derive(Debug)]
pub(crate) enum ReaderExit {
    /// The reader was asked to stop.
    Stopped,
    /// The feed cannot go on.
    Failed(SourceError),
    /// The file being decoded is no longer the version that was opened, or it cannot be read now. The file reader
    /// decides what follows.
    Unread(io::Error),
}

impl From<SourceError> for ReaderExit {
    fn from(error: SourceError) -> Self {
        ReaderExit::Failed(error)
    }
}
