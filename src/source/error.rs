//! What ends a feed. A bad record or a bad file is not here: those are data, and flow to the dead letters.

use std::sync::Arc;

use thiserror::Error;

use crate::decode::DecodeError;

/// A feed that cannot go on, and stops the run with it; a restart resumes at the last snapshot. What keeps one feed from being
/// read, and may be mended, is not here either: that feed waits with its cause, and no other.
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
    /// A file that somebody named could not be read for a reason that may pass, and did not pass within the budget.
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
    /// A URL that names no store we know, or a store that refuses its options.
    #[error("could not open the store of feed {feed} at {path:?}: {reason}")]
    Store {
        /// `input.feed`.
        feed: String,
        /// The URL.
        path: String,
        /// What the store's client says.
        reason: String,
    },
    /// A glob that does not parse.
    #[error("could not read the path {path:?} of feed {feed} as a glob: {reason}")]
    Glob {
        /// `input.feed`.
        feed: String,
        /// The glob.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A client that cannot be made of its settings.
    #[error("could not set up the Kafka client of feed {feed}: {reason}; correct brokers or options")]
    KafkaOptions {
        /// `input.feed`.
        feed: String,
        /// What librdkafka says.
        reason: String,
    },
    /// librdkafka cannot go on.
    #[error("the Kafka client of feed {feed} cannot go on: {reason}; a restart resumes at the last snapshot")]
    KafkaFatal {
        /// `input.feed`.
        feed: String,
        /// What it says.
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
    /// A database that cannot be read as it is set up.
    #[error("could not read {url}: {reason}; {help}")]
    PostgresMisfit {
        /// The address, without its password.
        url: String,
        /// What does not fit.
        reason: String,
        /// What to do, in SQL where it is that.
        help: String,
    },
    /// Changes that were not read are gone.
    #[error(
        "slot {slot:?} cannot go on at {reached}, where the newest snapshot is: {reason}; what was changed since is gone from it. Give the feeds another `slot` to begin with their tables' rows again, or start with a new lake"
    )]
    PostgresLost {
        /// The slot.
        slot: String,
        /// How far it was read.
        reached: String,
        /// Why.
        reason: String,
    },
    /// A server says what is no replication stream.
    #[error("the replication stream of {url} cannot be read: {reason}; a restart resumes at the last snapshot")]
    PostgresStream {
        /// The address, without its password.
        url: String,
        /// Why.
        reason: String,
    },
    /// The first rows of tables were not read to their end.
    #[error(
        "the first rows of feed {feed} were not read to their end: {reason}; nothing of them is committed, and a restart begins with them again"
    )]
    PostgresFirstRows {
        /// `input.feed`.
        feed: String,
        /// Why.
        reason: String,
    },
    /// Readers were stopped within a transaction that goes on as it comes.
    #[error(
        "a transaction of {topic} was being taken when the run was to end, and is larger than what can be kept back: nothing of it is committed; a restart resumes at the last snapshot"
    )]
    TransactionCut {
        /// The transaction topic.
        topic: String,
    },
    /// Markers of transactions that cannot be read as the feed's records are.
    #[error("could not set up the transaction topic of feed {feed}")]
    Markers {
        /// `input.feed`.
        feed: String,
        /// Why.
        #[source]
        source: Arc<DecodeError>,
    },
    /// What takes requests could not be set up.
    #[error("could not {what}: {reason}")]
    Requests {
        /// What was attempted.
        what: &'static str,
        /// Why it failed, and what to do.
        reason: String,
    },
    /// The log of requests could not be read or written.
    #[error("could not use the log of requests of feed {feed}; a restart goes on behind what it holds whole")]
    RequestLog {
        /// `input.feed`.
        feed: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A generator's name that is none of [`crate::definition::GENERATORS`].
    #[error("unknown generator {name:?}; known are {known}")]
    UnknownGenerator {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A generator that has no CSV rendering was asked for CSV.
    #[error("generator {name:?} makes change envelopes, which have no CSV form; use format = \"debezium-json\"")]
    NoCsv {
        /// The name.
        name: String,
    },
    /// A worker went away while its readers were at work.
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
    /// A reader thread panicked: a fault of ours.
    #[error("a reader of feed {feed} panicked: {message}; this is a fault in alluvium, please report it")]
    Panicked {
        /// `input.feed`.
        feed: String,
        /// The panic's message.
        message: String,
    },
}
