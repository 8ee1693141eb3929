//! Kind `files`: files in a drop folder, and how a feed treats them.

use std::path::Path;

use super::contract::{Division, DropFolder, FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use super::shared::{read_follow_links, read_path};
use crate::definition::file_glob::FileGlob;
use crate::definition::location::files_location;
use crate::definition::settings::Settings;
use crate::definition::{Format, Input};

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "files",
    formats: &[
        Format::Csv,
        Format::Ndjson,
        Format::Json,
        Format::Parquet,
        Format::Avro,
        Format::DebeziumJson,
    ],
    settings: &["path", "follow_links", "duplicates", "changed"],
    reads_files: true,
    ..KindOfFeed::OF_RECORDS
};

/// Settings of a `files` feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFeed {
    /// Absolute glob or URL with a glob in its path.
    pub path: String,
    /// How it treats files.
    pub rules: FileRules,
}

/// Settings of a `files` feed besides its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    /// Whether links may lead out of the feed's folder, which is the part of its path without wildcards.
    pub follow_links: bool,
    /// What to do with a file whose content was read before.
    pub duplicates: Duplicates,
    /// What to do with a file that changed after it was read.
    pub changed: Changed,
    /// Whether to be silent if no file exists. This is no setting; feeds of tests use it.
    pub may_be_empty: bool,
}

/// What to do with a file whose content was read before, under whatever name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// It is read like any other.
    #[default]
    Read,
    /// It is skipped, which is reported.
    Skip,
}

/// What to do with a file that changed after it was read. (Appended data is always read.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    /// It becomes a dead letter.
    #[default]
    Refuse,
    /// It is read again, as newer versions of its rows.
    Correct,
}

impl FeedContract for FileFeed {
    fn describe(&self, _: &FeedSurroundings<'_>) -> String {
        format!("files {}", self.path)
    }

    fn files(&self) -> Option<DropFolder<'_>> {
        Some(DropFolder {
            path: &self.path,
            follows_links: self.rules.follow_links,
            corrects: self.rules.changed == Changed::Correct,
        })
    }

    fn folder(&self) -> Option<String> {
        let path = self.path.strip_prefix("file://").unwrap_or(&self.path);
        // Everything is below the root, so that says nothing.
        Some(FileGlob::split(path).0).filter(|folder| folder != "/")
    }

    fn division(&self, input: &Input) -> Division {
        // To recognise duplicates, one process must see all files.
        match input.goes_by_arrival() || self.rules.duplicates == Duplicates::Skip {
            true => Division::OneOfInput,
            false => Division::Partitions,
        }
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Ok(WriteTarget::Files(&self.path))
    }
}

/// Reads the settings; none if mistakes were reported.
pub(super) fn read(settings: &mut Settings<'_>, base: &Path) -> Option<FileFeed> {
    let path = read_path(settings)?;
    let rules = read_rules(settings)?;
    let path = path.located(|text| files_location(text, base))?;
    Some(FileFeed { path, rules })
}

/// Reads how files are treated; none if mistakes were reported.
fn read_rules(settings: &mut Settings<'_>) -> Option<FileRules> {
    let follow_links = read_follow_links(settings);
    let duplicates = match settings.setting("duplicates", "\"skip\"") {
        None => Some(Duplicates::Read),
        Some(value) => value.choice(&[("read", Duplicates::Read), ("skip", Duplicates::Skip)]),
    };
    let changed = match settings.setting("changed", "\"correct\"") {
        None => Some(Changed::Refuse),
        Some(value) => value.choice(&[("refuse", Changed::Refuse), ("correct", Changed::Correct)]),
    };
    Some(FileRules {
        may_be_empty: false,
        follow_links: follow_links?,
        duplicates: duplicates?,
        changed: changed?,
    })
}
