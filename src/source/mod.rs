//! Feeds: where bytes come from.
//!
//! Every feed has reader threads (never timely's workers). A reader fetches bytes, has them decoded, and
//! hands [`Delivery`]s to a worker through a bounded channel: a worker that lags makes readers wait. A
//! feed is split into partitions (a file, a partition of the log); a partition's deliveries go to one worker, in order.
//!
//! Each kind of feed has a folder here, with its half of the contract ([`connector`]) and its reader. `connector_of` below is
//! the table of kinds; that of their settings is [`crate::definition::feeds`].

mod batch;
mod connector;
mod error;
mod fault;
mod feed_handle;
mod files;
pub mod generate;
mod guard;
mod http;
mod in_flight;
mod kafka;
mod kept_open;
mod log;
mod names;
mod options;
mod postgres;
mod readers;
mod share;
mod starter;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use batch::payload_bytes;
pub use connector::FeedMisfit;
pub use error::SourceError;
pub use feed_handle::{PartitionLag, WorkerChannel};
pub(crate) use files::{
    FileMark, LineDocuments, NamedFile, NamedFiles, Peeked, RECORD_SEPARATOR, SplitError, TextRecords,
    declared_delimiter, read_head, to_utf8,
};
pub use files::{Originals, ReadingStart, SingleFile, SingleFileReading, archived_name, list_files, path_of, reads};
pub(crate) use files::{is_remote, local_path};
pub(crate) use guard::{Vetting, open_regular};
pub use in_flight::InFlightReservation;
pub use kafka::{
    OffsetPublisher, RecordHeaders, TopicError, TopicRecord, TopicWriter, headers_of_json, publish_offsets,
};
pub(crate) use kafka::{ProducerQueue, configure_client, describe_client_error, put};
pub use log::{LogRecord, LogWriter, parse_record};
pub use options::{Decode, Decoders, ReaderOptions, Undecoded, WallClock};
pub use readers::{FeedStatus, Readers, start};
pub use share::Share;
pub use transactions::{OpenEpoch, OpenEpochDeliveries};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decode::Decoded;
use crate::definition::{Dataflow, FeedKind, Input};
use crate::repr::{Epoch, Position};

/// The connector of a kind of feed; each is implemented in the kind's folder.
fn connector_of(kind: &FeedKind) -> &dyn connector::Connector {
    match kind {
        FeedKind::Files(settings) => settings,
        FeedKind::Log(settings) => settings,
        FeedKind::Kafka(settings) => settings,
        FeedKind::Http(settings) => settings,
        FeedKind::Postgres(settings) => settings,
        FeedKind::Generate(settings) => settings,
    }
}

/// Checks before a run whether the source of each feed fits it. A source that does not answer within `patience` is
/// reported and skipped.
pub fn check(dataflow: &Dataflow, patience: Duration) -> Vec<FeedMisfit> {
    let inputs = dataflow.inputs.iter().enumerate();
    let feeds = inputs.flat_map(|(i, input)| input.feeds.iter().enumerate().map(move |(f, feed)| ((i, f), feed)));
    feeds
        .flat_map(|(place, feed)| connector_of(&feed.kind).check(dataflow, place, patience))
        .collect()
}

/// What a reader hands to a worker: decoded records of one partition, and how far they reach.
pub struct Delivery {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// Index into `Input::feeds`.
    pub feed: usize,
    /// A file's path (relative to the glob's fixed part), a log's partition, or a topic and its partition's number
    /// (`orders-0`).
    pub partition: Arc<str>,
    /// The records and the changes they make. May be empty, if only progress is delivered.
    pub decoded: Decoded,
    /// The partition's position behind these records.
    pub position: Position,
    /// When the bytes arrived.
    pub arrived: Instant,
    /// The epoch that must take this delivery together with others; it stays open until all of them are in
    /// ([`OpenEpochDeliveries`]). None: any open epoch.
    pub epoch: Option<Epoch>,
    /// The reservation in the budget of bytes in flight, if there is such a budget.
    pub room: Option<InFlightReservation>,
}

/// A delivery without records, which carries only progress.
pub fn no_records(input: &Input) -> Decoded {
    batch::nothing(input, None)
}

/// The result of decoding a file that cannot be used as a whole: no records, and the reason.
pub fn rejected_file(input: &Input, reason: String) -> Decoded {
    batch::nothing(input, Some(reason))
}
