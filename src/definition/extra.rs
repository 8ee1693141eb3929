//! Feeds that are in no definition: a backfill uses them for files that none of an input's feeds reads.
//!
//! Each input has one for each format, with the input's own columns. Their indices follow those of the definition's
//! feeds, but when versions of a key tie they rank like the first feed: history must not outrank what a feed
//! delivers.

use std::borrow::Cow;

use super::{Bounds, Feed, FeedKind, FileFeed, Format, Input, Wire};

/// The values of a backfill's `--format`: those of files feeds. Two of them mean the same format.
pub const EXTRA_FORMAT_NAMES: [&str; 6] = ["csv", "ndjson", "json", "parquet", "avro", "debezium-json"];

/// The formats of extra feeds, with their names for `--format`.
const EXTRA_FORMATS: [(&str, Format); 5] = [
    ("csv", Format::Csv),
    ("ndjson", Format::Ndjson),
    ("parquet", Format::Parquet),
    ("avro", Format::Avro),
    ("debezium-json", Format::DebeziumJson),
];

/// The names of extra feeds in Bronze and in progress. They contain a colon, which names in a definition must not.
const NAMES: [&str; 5] = [
    "backfill:csv",
    "backfill:ndjson",
    "backfill:parquet",
    "backfill:avro",
    "backfill:debezium-json",
];

impl Input {
    /// A feed by index, including extra feeds.
    pub fn feed(&self, index: usize) -> Cow<'_, Feed> {
        match index.checked_sub(self.feeds.len()) {
            None => Cow::Borrowed(&self.feeds[index]),
            Some(extra) => Cow::Owned(Feed {
                name: NAMES[extra].to_string(),
                kind: FeedKind::Files(FileFeed::default()),
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

    /// The extra feed that reads files of this format.
    pub fn extra_feed(&self, format: &str) -> Option<usize> {
        // Both formats are read in the same way, whatever separates the objects.
        let format = if format == "json" { "ndjson" } else { format };
        let extra = EXTRA_FORMATS.iter().position(|(name, _)| *name == format)?;
        Some(self.feeds.len() + extra)
    }

    /// A feed's rank when versions of a key tie: the higher rank wins.
    pub fn feed_rank(&self, index: usize) -> usize {
        if index < self.feeds.len() { index } else { 0 }
    }
}
