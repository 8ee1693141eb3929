//! Why brokers' answer is not to be had, and why a partition is not read.

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::source::SourceError;
use crate::source::outlet::Ended;

/// Why brokers' answer is not to be had.
pub enum Trouble {
    /// It may be, later.
    Passes(KafkaError),
    /// What they say cannot be read on. The feed waits, and looks again.
    Waits(TopicFault),
    /// Readers are to stop, or cannot go on.
    Ends(Ended),
}

/// Why a feed waits with a partition, or with all of them.
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
    /// A topic that ends before what was read of it.
    #[error(
        "partition {partition} was read up to offset {next}, but its topic ends at {end}: it was made anew, or lost records; restore it, or start with a new lake"
    )]
    Ends { partition: String, next: u64, end: u64 },
    /// Records that are not as they were written.
    #[error(
        "could not read partition {partition} from offset {next} on: a batch of records does not match its checksum; restore the topic and start the run again, or leave out check.crcs to read it as it is"
    )]
    Damaged { partition: String, next: u64 },
    /// ENDs of several partitions have no order.
    #[error(
        "transaction topic {topic} has {partitions} partitions, so that its records have no order; make it anew with one"
    )]
    SeveralOfMarkers { topic: String, partitions: usize },
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        Trouble::Passes(error)
    }
}

impl From<TopicFault> for Trouble {
    fn from(fault: TopicFault) -> Self {
        Trouble::Waits(fault)
    }
}

impl From<Ended> for Trouble {
    fn from(ended: Ended) -> Self {
        Trouble::Ends(ended)
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Trouble::Ends(error.into())
    }
}
