//! Positions: how far partitions of feeds were read. Every snapshot contains them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Charset;

/// How far a partition of a feed was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where reading continues: a byte offset in a log, the number of the next record in a file, or the offset of the
    /// next record in a topic.
    pub next: u64,
    /// Whether a file was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// Whether reading a file was given up; a dead letter stands for the rest of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// Identifies a file's content, by size and entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The content of a file as far as it was read, if that is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<FileContent>,
    /// The length in bytes of the last record of a text, if the text ended before the record's line did. More of the
    /// record may arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_end: Option<u64>,
    /// How far a CSV file was read: up to the end of the last record, or up to its start if that record has an open
    /// end. So reading continues at the same place even if records are then split in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<TextPlace>,
    /// The number of a file's first record, or of a log's first byte. It is not 0 if the file or log was read again
    /// from its start; its records are then numbered from where those of its earlier version ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base: u64,
    /// Identifies a log as the one that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogMark>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPlace {
    /// The number of bytes before it, decompressed and in UTF-8.
    pub bytes: u64,
    /// The charset by which the text was read.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub charset: Charset,
}

/// The stored bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileContent {
    /// The number of bytes.
    pub bytes: u64,
    /// The 128-bit XXH3 hash of the bytes, in hexadecimal.
    pub hash: String,
}

fn is_usual(charset: &Charset) -> bool {
    *charset == Charset::default()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Position {
    /// A position in a partition without an end: a log or a topic.
    pub fn at(next: u64) -> Self {
        Position {
            next,
            ..Position::default()
        }
    }
}

/// A partition of a feed of an input, by names; progress is kept by it across restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// The path of a file below the fixed part of its feed's path, the partition of a log, or a topic with the number
    /// of its partition.
    pub partition: String,
}

/// The positions of all feeds; part of every snapshot.
pub type FeedPositions = BTreeMap<PartitionId, Position>;

/// Identifies a log that was read up to some byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The 64-bit XXH3 hash, in hexadecimal, of the first 1024 bytes at most of what was read.
    pub head: String,
    /// The same hash of the last 256 bytes at most.
    pub tail: String,
}
