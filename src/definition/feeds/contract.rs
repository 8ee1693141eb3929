//! The questions that can be asked about a feed, whatever its kind.
//!
//! Each question has a default answer: that of a feed of records that the source retains, with neither files nor
//! topics. A kind overrides the answers in which it differs.

use std::any::Any;
use std::fmt;
use std::path::Path;

use crate::definition::diagnostic::Diagnostic;
use crate::definition::http::Http;
use crate::definition::kafka_client::KafkaClient;
use crate::definition::{Format, Input};
use crate::repr::Position;

/// The half of a kind's contract that needs no reader. The settings of each kind implement it.
pub trait FeedContract: Any + fmt::Debug + Send + Sync {
    /// Where it reads from, as `check` lists it: `kafka orders at localhost:9092`.
    fn describe(&self, around: &FeedSurroundings<'_>) -> String;

    /// Mistakes that only show together with the rest of the definition.
    fn mistakes(&self, _around: &FeedSurroundings<'_>) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The formats that this feed accepts; none: those of its kind.
    fn formats(&self) -> Option<&'static [Format]> {
        None
    }

    /// The location of its files, if it reads whole files.
    fn files(&self) -> Option<DropFolder<'_>> {
        None
    }

    /// The folder or URL below which all its data lies; none if it reads no folder, or the root.
    fn folder(&self) -> Option<String> {
        None
    }

    /// The topics that it reads; a text that starts with `^` is a regular expression.
    fn topics(&self) -> &[String] {
        &[]
    }

    /// Its topic, if it reads exactly one, by name.
    fn topic(&self) -> Option<&str> {
        match self.topics() {
            [topic] if !topic.starts_with('^') => Some(topic),
            _ => None,
        }
    }

    /// Whether the timestamps of its records are their times of arrival; otherwise they come from the source.
    fn stamps_records(&self) -> bool {
        false
    }

    /// Whether a record is the `value` of an object on a line.
    fn wraps_records(&self) -> bool {
        false
    }

    /// Whether the meaning of numbers in its envelopes is known although they have no schema part.
    fn tells_meanings(&self) -> bool {
        false
    }

    /// Whether its records retract or replace earlier rows, whatever its format is.
    fn changes_rows(&self) -> bool {
        false
    }

    /// Whether it tells each change of a source transaction once, in order, and in one epoch with the others, so that
    /// an update may move a row to a key that another row leaves only later in the transaction.
    fn moves_rows(&self) -> bool {
        false
    }

    /// Which process reads a partition, if there are several processes.
    fn division(&self, _input: &Input) -> Division {
        Division::Partitions
    }

    /// Whether its source may have deleted what was read.
    fn forgets(&self) -> bool {
        false
    }

    /// Whether everything up to this position can be read again unchanged.
    fn repeats(&self, position: &Position) -> bool {
        // A file that replaced an earlier one (`base` > 0) does not contain the records before it.
        position.base == 0
    }

    /// Whether a partition contains records of the input.
    fn holds_records(&self, _partition: &str) -> bool {
        true
    }

    /// Where to write records so that this feed reads them.
    ///
    /// # Errors
    /// Nothing but its own source can write records for this feed.
    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable>;
}

/// A feed with the parts of its definition that answers depend on.
pub struct FeedSurroundings<'a> {
    /// The feed's input.
    pub input: &'a Input,
    /// Index into `Input::feeds`.
    pub feed: usize,
    /// The dataflow's HTTP settings, if it listens.
    pub http: Option<&'a Http>,
    /// See `Dataflow::lake`.
    pub lake: &'a str,
}

/// The location of the files that a feed reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropFolder<'a> {
    /// Absolute glob or URL with a glob in its path.
    pub path: &'a str,
    /// Whether links may lead out of the path's fixed part.
    pub follows_links: bool,
    /// Whether a file that changed after it was read is read again, as newer versions of its rows.
    pub corrects: bool,
}

/// How partitions of a feed are divided among processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// The first process, which opens epochs, reads all.
    First,
    /// One process reads all partitions of the input.
    OneOfInput,
    /// Each process reads its share.
    Partitions,
}

/// Where to write records so that a feed reads them.
#[derive(Clone, Copy, Debug)]
pub enum WriteTarget<'a> {
    /// To one of these topics.
    Topics {
        /// The settings for reaching the brokers.
        client: &'a KafkaClient,
        /// See [`FeedContract::topics`].
        topics: &'a [String],
    },
    /// To the embedded log in this folder.
    Log(&'a Path),
    /// To files that match this path.
    Files(&'a str),
}

/// Why nothing can be written for a feed to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable {
    /// What the feed does instead; completes a sentence such as "feed orders.live is posted to".
    pub reason: &'static str,
    /// What to do.
    pub help: &'static str,
}
