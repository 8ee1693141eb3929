//! Why brokers do not answer, and why a partition is not read.

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::source::SourceError;
use crate::source::error::ReaderExit;

/// Why an answer of the brokers could not be obtained.
pub enum BrokerError {
    /// A failure that may pass.
    Passes(KafkaError),
    /// The answer shows that reading cannot go on. The feed waits, and asks again.
    Waits(TopicFault),
    /// Readers are to stop, or cannot go on.
    Ends(ReaderExit),
}

/// Why a feed waits, with one partition or with all of them.
#[derive(Clone, Debug, Error)]
pub enum TopicFault {
    /// No broker answered.
    #[error("could not reach brokers {brokers}: {reason}; check the address, and security.protocol in options")]
    Unreached { brokers: String, reason: String },
    /// Retention removed records before they were read.
    #[error(
        "partition {partition} was read up to offset {next}, but its topic begins at {first}: {} records are gone; bring them from elsewhere with backfill and set on_missing = \"earliest\", or start with a new lake",
        .first - .next
    )]
    Missing { partition: String, next: u64, first: u64 },
    /// The topic ends before the position up to which it was read.
    #[error(
        "partition {partition} was read up to offset {next}, but its topic ends at {end}: it was made anew, or lost records; restore it, or start with a new lake"
    )]
    Ends { partition: String, next: u64, end: u64 },
    /// Records whose checksum does not match.
    #[error(
        "could not read partition {partition} from offset {next} on: a batch of records does not match its checksum; restore the topic and start the run again, or leave out check.crcs to read it as it is"
    )]
    Damaged { partition: String, next: u64 },
    /// A transaction topic with several partitions, so that END markers have no order.
    #[error(
        "transaction topic {topic} has {partitions} partitions, so that its records have no order; make it anew with one"
    )]
    SeveralOfMarkers { topic: String, partitions: usize },
}

impl From<KafkaError> for BrokerError {
    fn from(error: KafkaError) -> Self {
        BrokerError::Passes(error)
    }
}

impl From<TopicFault> for BrokerError {
    fn from(fault: TopicFault) -> Self {
        BrokerError::Waits(fault)
    }
}

impl From<ReaderExit> for BrokerError {
    fn from(ended: ReaderExit) -> Self {
        BrokerError::Ends(ended)
    }
}

impl From<SourceError> for BrokerError {
    fn from(error: SourceError) -> Self {
        BrokerError::Ends(error.into())
    }
}
