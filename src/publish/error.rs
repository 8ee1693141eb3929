//! Why snapshots could not be published, and whether a retry may succeed.

use std::time::Duration;

use thiserror::Error;

use super::changes::ChangesError;
use super::encode::EncodeError;
use super::refusal::RefusedRecord;
use crate::repr::Epoch;
use crate::serve::QueryError;
use crate::sink::LedgerError;

/// Why snapshots could not be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// See [`ProduceError`].
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// See [`EncodeError`].
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// See [`ChangesError`].
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A snapshot that topics are based on could not be read.
    #[error("could not read snapshot {epoch}, which topics were written up to; write them anew under other names")]
    Lost {
        /// The snapshot's epoch.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<QueryError>,
    },
    /// A snapshot that should be published could not be read; a newer one may be readable.
    #[error("could not read snapshot {epoch} for its topics")]
    Newest {
        /// The snapshot's epoch.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<QueryError>,
    },
    /// A newer run has taken over.
    #[error(
        "could not publish snapshots: another run of this dataflow (generation {theirs}, ours is {ours}) has taken over this lake, and publishes them"
    )]
    Superseded {
        /// Our generation.
        ours: u64,
        /// The newest generation.
        theirs: u64,
    },
    /// The thread could not be started.
    #[error("could not start the thread that publishes snapshots")]
    Spawn(#[source] std::io::Error),
    /// Topics had not taken the last snapshots when the run ended.
    #[error(
        "snapshots behind {published} are not published yet: their topics did not take them within {patience:?}; the next run publishes them"
    )]
    Behind {
        /// The newest published epoch.
        published: Epoch,
        /// How long the run waited.
        patience: Duration,
        /// Why.
        #[source]
        source: Box<PublishError>,
    },
    /// The thread panicked.
    #[error("the thread that publishes snapshots panicked; this is a fault in alluvium, please report it")]
    Panicked,
}

impl PublishError {
    /// Whether the same may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            PublishError::Produce(error) => error.may_pass(),
            PublishError::Encode(error) => error.may_pass(),
            PublishError::Newest { .. } => true,
            _ => false,
        }
    }
}

/// Why records could not be produced.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// The options do not make a valid client.
    #[error("could not set up a Kafka producer for {brokers}: {reason}; correct brokers or options")]
    Options {
        /// The brokers.
        brokers: String,
        /// Why.
        reason: String,
    },
    /// Two channels publish to the same cluster, and would fence each other.
    #[error(
        "could not publish to {brokers} and to {others}: both are one cluster; write the same brokers for all tables that go there"
    )]
    SameCluster {
        /// The brokers.
        brokers: String,
        /// The other channel's name for the same brokers.
        others: String,
    },
    /// Brokers did not do what was asked.
    #[error("could not {doing} at {brokers}: {reason}")]
    Brokers {
        /// The brokers.
        brokers: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        reason: String,
        /// Whether a retry may succeed.
        passes: bool,
    },
    /// Another producer with this transactional id has started.
    #[error(
        "could not {doing} at {brokers}: another run of a dataflow of this name publishes there; end one of the two, or name it otherwise"
    )]
    Fenced {
        /// The brokers.
        brokers: String,
        /// What was tried.
        doing: &'static str,
    },
    /// Brokers allow no transactions of this length.
    #[error(
        "could not start transactions at {brokers}, which allow none of {timeout:?}; set options.\"transaction.timeout.ms\" to their transaction.max.timeout.ms or less"
    )]
    TooLong {
        /// The brokers.
        brokers: String,
        /// The length that was asked for.
        timeout: Duration,
    },
    /// Brokers have aborted a transaction, because it took too long.
    #[error(
        "could not publish a snapshot within {timeout:?}, behind which brokers {brokers} end a transaction ({reason}); raise options.\"transaction.timeout.ms\", and their transaction.max.timeout.ms with it"
    )]
    Slow {
        /// The brokers.
        brokers: String,
        /// The most time for a transaction.
        timeout: Duration,
        /// The brokers' reason.
        reason: String,
    },
    /// Brokers refuse a record.
    #[error(
        "brokers {brokers} do not take the record of topic {} with key {} ({} bytes): {}; {}",
        .refusal.topic, .refusal.key, .refusal.size, .refusal.reason, .refusal.remedy()
    )]
    Refused {
        /// The brokers.
        brokers: String,
        /// The record, and the reason.
        refusal: RefusedRecord,
    },
}

impl ProduceError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            ProduceError::Brokers { passes, .. } => *passes,
            // A topic's limits and the brokers' speed can change while the run goes on.
            ProduceError::Refused { .. } | ProduceError::Slow { .. } => true,
            ProduceError::Options { .. }
            | ProduceError::SameCluster { .. }
            | ProduceError::Fenced { .. }
            | ProduceError::TooLong { .. } => false,
        }
    }
}
