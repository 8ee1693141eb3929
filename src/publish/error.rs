//! Why snapshots do not come to their topics, and whether they may later.

use std::time::Duration;

use thiserror::Error;

use super::changes::ChangesError;
use super::encode::EncodeError;
use super::refusal::Refusal;
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
    /// A snapshot that topics have could not be read.
    #[error("could not read snapshot {epoch}, which topics were written up to; write them anew under other names")]
    Lost {
        /// Which.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<QueryError>,
    },
    /// A snapshot that is to go to topics could not be read: a newer one may be.
    #[error("could not read snapshot {epoch} for its topics")]
    Newest {
        /// Which.
        epoch: Epoch,
        /// Why.
        #[source]
        source: Box<QueryError>,
    },
    /// A newer run has begun.
    #[error(
        "could not publish snapshots: another run of this dataflow (generation {theirs}, ours is {ours}) has taken over this lake, and publishes them"
    )]
    Superseded {
        /// Our generation.
        ours: u64,
        /// The newest.
        theirs: u64,
    },
    /// The thread could not be started.
    #[error("could not start the thread that publishes snapshots")]
    Spawn(#[source] std::io::Error),
    /// Topics did not take the last snapshots in time.
    #[error(
        "snapshots behind {published} are not published yet: their topics did not take them within {patience:?}; the next run publishes them"
    )]
    Behind {
        /// The newest that is published.
        published: Epoch,
        /// How long it was waited.
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
    /// A client that cannot be made of its settings.
    #[error("could not set up a Kafka producer for {brokers}: {reason}; correct brokers or options")]
    Options {
        /// Where.
        brokers: String,
        /// Why.
        reason: String,
    },
    /// Two channels that would fence each other.
    #[error(
        "could not publish to {brokers} and to {others}: both are one cluster; write the same brokers for all tables that go there"
    )]
    SameCluster {
        /// Where.
        brokers: String,
        /// How others write it.
        others: String,
    },
    /// Brokers that do not do what they are asked.
    #[error("could not {doing} at {brokers}: {reason}")]
    Brokers {
        /// Where.
        brokers: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        reason: String,
        /// Whether the same may succeed later.
        passes: bool,
    },
    /// Another producer of this id has begun.
    #[error(
        "could not {doing} at {brokers}: another run of a dataflow of this name publishes there; end one of the two, or name it otherwise"
    )]
    Fenced {
        /// Where.
        brokers: String,
        /// What was tried.
        doing: &'static str,
    },
    /// Brokers allow no transactions of this length.
    #[error(
        "could not start transactions at {brokers}, which allow none of {timeout:?}; set options.\"transaction.timeout.ms\" to their transaction.max.timeout.ms or less"
    )]
    TooLong {
        /// Where.
        brokers: String,
        /// How long it was to be.
        timeout: Duration,
    },
    /// Brokers have ended a transaction.
    #[error(
        "could not publish a snapshot within {timeout:?}, behind which brokers {brokers} end a transaction ({reason}); raise options.\"transaction.timeout.ms\", and their transaction.max.timeout.ms with it"
    )]
    Slow {
        /// Where.
        brokers: String,
        /// How long a transaction may take.
        timeout: Duration,
        /// What they said.
        reason: String,
    },
    /// A record that brokers do not take.
    #[error(
        "brokers {brokers} do not take the record of topic {} with key {} ({} bytes): {}; {}",
        .refusal.topic, .refusal.key, .refusal.size, .refusal.reason, .refusal.remedy()
    )]
    Refused {
        /// Where.
        brokers: String,
        /// Which, and why.
        refusal: Refusal,
    },
}

impl ProduceError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            ProduceError::Brokers { passes, .. } => *passes,
            // A topic's limits and brokers' speed change while we run.
            ProduceError::Refused { .. } | ProduceError::Slow { .. } => true,
            ProduceError::Options { .. }
            | ProduceError::SameCluster { .. }
            | ProduceError::Fenced { .. }
            | ProduceError::TooLong { .. } => false,
        }
    }
}
