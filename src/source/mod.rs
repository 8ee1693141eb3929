//! Feeds: where bytes come from.
//!
//! Every feed has reader threads (never timely's workers). A reader fetches bytes, has them decoded, and
//! hands [`Delivery`]s to a worker through a bounded channel: a worker that lags makes readers wait. A
//! feed is split into partitions (a file, a partition of the log); a partition's deliveries go to one worker, in order.

mod batch;
mod error;
mod fault;
mod files;
pub mod generate;
mod guard;
mod http;
mod kafka;
mod kept_open;
mod log;
mod names;
mod outlet;
mod passage;
mod postgres;
mod readers;
mod share;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use batch::payload_bytes;
pub use error::SourceError;
pub(crate) use files::{
    FileMark, LineDocuments, NamedFile, NamedFiles, Peeked, RECORD_SEPARATOR, SplitError, TextRecords, read_head,
    to_utf8, told_delimiter,
};
pub use files::{Originals, Reading, ReadingStart, SingleFile, archived_name, list_files, path_of, reads};
pub(crate) use files::{is_remote, local_path};
pub(crate) use guard::{Vetting, open_regular};
pub use kafka::{
    OffsetPublisher, RecordHeaders, TopicError, TopicRecord, TopicWriter, headers_of_json, publish_offsets,
};
pub(crate) use kafka::{ProducerQueue, configure_client, describe_client_error, put};
pub use log::{LogMark, LogRecord, LogWriter, parse_record};
pub use outlet::{Outlet, PartitionLag};
pub use passage::Reserved;
pub use postgres::{Misplaced, check as check_postgres};
pub use readers::{Clock, Decode, Decoders, FeedStatus, Held, ReaderOptions, Readers, start};
pub use share::Share;
pub use transactions::{OpenEpoch, Together};

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::decode::Decoded;
use crate::definition::{Charset, Input};
use crate::repr::Epoch;

/// What a reader hands to a worker: decoded records of one partition, and how far they reach.
pub struct Delivery {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// Index into `Input::feeds`.
    pub feed: usize,
    /// A file's path (relative to the glob's fixed part), a log's partition, or a topic and its partition's number
    /// (`orders-0`).
    pub partition: Arc<str>,
    /// Records and the changes they make. May be empty: then only progress is told.
    pub decoded: Decoded,
    /// How far this partition is read once these records are taken.
    pub position: Position,
    /// When its bytes were there.
    pub arrived: Instant,
    /// The epoch it belongs into with others, which stays open until all of them are taken ([`Together`]). None: whichever
    /// is open.
    pub epoch: Option<Epoch>,
    /// The room that it takes among all that is on its way, where that is bounded.
    pub room: Option<Reserved>,
}

/// How far a partition of a feed is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where to go on: a byte offset in a log, the number of the next record in a file, the offset of the next record in
    /// a topic.
    pub next: u64,
    /// A file that was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// A file that was not: a dead letter says what became of the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// What identifies a file's content: size and entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What a file held as far as it was read, where that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<FileContent>,
    /// How many bytes the last record of a text has, where the text ended before its line did: more of it may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_end: Option<u64>,
    /// How far a file's CSV is read: up to behind the last record, or up to it where that has an open end. So reading goes on
    /// at the same place when records are split otherwise than they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TextPlace>,
    /// The number of the file's first record, or of a log's first byte. Not 0 for one that was read again from its start: its
    /// records go on where those of its earlier version ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base: u64,
    /// What identifies a log as the one that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogMark>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPlace {
    /// Bytes before it, unpacked and in UTF-8.
    pub bytes: u64,
    /// What the text was read as.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub charset: Charset,
}

/// The bytes of a file, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileContent {
    /// How many.
    pub bytes: u64,
    /// XXH3 of 128 bits, hexadecimal.
    pub hash: String,
}

fn is_usual(charset: &Charset) -> bool {
    *charset == Charset::default()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Position {
    /// Where to go on in what has no end: a log, a topic.
    pub fn at(next: u64) -> Self {
        Position {
            next,
            ..Position::default()
        }
    }
}

/// A partition of a feed of an input, by name: what progress is kept for, over restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// Input's name.
    pub input: String,
    /// Feed's name.
    pub feed: String,
    /// See [`Delivery::partition`].
    pub partition: String,
}

/// How far every feed is read: part of every snapshot.
pub type Progress = std::collections::BTreeMap<PartitionId, Position>;

/// What no records decode to: progress alone.
pub fn no_records(input: &Input) -> Decoded {
    batch::nothing(input, None)
}

/// What a file that cannot be used as a whole decodes to: no records, and the reason.
pub fn rejected_file(input: &Input, reason: String) -> Decoded {
    batch::nothing(input, Some(reason))
}
