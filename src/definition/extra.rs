//! Feeds that no definition writes: what a backfill brings where none of an input's feeds reads such files.
//!
//! Each input has one for each format, with the input's own columns. They stand behind the feeds of the definition by index,
//! but rank with the first of them when versions of a key tie: history does not outrank what a feed says.

use std::borrow::Cow;

use super::{Bounds, Feed, FeedKind, Format, Input, Wire};

/// The names that a backfill may give for `--format`: those that feeds of files take, of which two are one format.
pub const EXTRA_FORMAT_NAMES: [&str; 6] = ["csv", "ndjson", "json", "parquet", "avro", "debezium-json"];

/// Formats of files that a backfill may name, as in `--format`.
const EXTRA_FORMATS: [(&str, Format); 5] = [
    ("csv", Format::Csv),
    ("ndjson", Format::Ndjson),
    ("parquet", Format::Parquet),
    ("avro", Format::Avro),
    ("debezium-json", Format::DebeziumJson),
];

/// Their names in Bronze and in progress. No feed of a definition can be called so: a colon is not allowed there.
const NAMES: [&str; 5] = [
    "backfill:csv",
    "backfill:ndjson",
    "backfill:parquet",
    "backfill:avro",
    "backfill:debezium-json",
];

impl Input {
    /// A feed by index, those of no definition too.
    pub fn feed(&self, index: usize) -> Cow<'_, Feed> {
        match index.checked_sub(self.feeds.len()) {
            None => Cow::Borrowed(&self.feeds[index]),
            Some(extra) => Cow::Owned(Feed {
                name: NAMES[extra].to_string(),
                kind: FeedKind::Files {
                    path: String::new(),
                    rules: Default::default(),
                },
                format: EXTRA_FORMATS[extra].1,
                wire: Wire::default(),
                columns: self.columns.clone(),
                max_record: Bounds::default().max_record,
            }),
        }
    }

    /// A feed's name by index.
    pub fn feed_name(&self, index: usize) -> &str {
        match index.checked_sub(self.feeds.len()) {
            None => &self.feeds[index].name,
            Some(extra) => NAMES[extra],
        }
    }

    /// A feed's index by name.
    pub fn feed_index(&self, name: &str) -> Option<usize> {
        let declared = self.feeds.iter().position(|feed| feed.name == name);
        let extra = || NAMES.iter().position(|extra| *extra == name);
        declared.or_else(|| extra().map(|extra| self.feeds.len() + extra))
    }

    /// The feed of no definition that reads files of this format.
    pub fn extra_feed(&self, format: &str) -> Option<usize> {
        // Files of both are read alike, whatever stands between objects.
        let format = if format == "json" { "ndjson" } else { format };
        let extra = EXTRA_FORMATS.iter().position(|(name, _)| *name == format)?;
        Some(self.feeds.len() + extra)
    }

    /// Which feed wins where versions of a key tie: a later one.
    pub fn feed_rank(&self, index: usize) -> usize {
        if index < self.feeds.len() { index } else { 0 }
    }
}
