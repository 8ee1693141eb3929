//! Kind `log`: the embedded log.

use std::path::{Path, PathBuf};

use super::contract::{FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use super::shared::{OnMissing, read_follow_links, read_on_missing, read_path};
use crate::definition::location::folder_location;
use crate::definition::settings::Settings;

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "log",
    settings: &["path", "follow_links", "on_missing"],
    ..KindOfFeed::OF_RECORDS
};

/// Settings of a `log` feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFeed {
    /// The folder.
    pub path: PathBuf,
    /// How it treats files of the log.
    pub rules: LogRules,
}

/// Settings of a `log` feed besides its folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRules {
    /// Whether links may lead out of the feed's folder.
    pub follow_links: bool,
    /// What to do with a log that no longer holds what was read.
    pub on_missing: OnMissing,
}

impl FeedContract for LogFeed {
    fn describe(&self, _: &FeedSurroundings<'_>) -> String {
        format!("log {}", self.path.display())
    }

    fn folder(&self) -> Option<String> {
        Some(self.path.to_string_lossy().into_owned())
    }

    fn wraps_records(&self) -> bool {
        true
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Ok(WriteTarget::Log(&self.path))
    }
}

/// Reads the settings; none if mistakes were reported.
pub(super) fn read(settings: &mut Settings<'_>, base: &Path) -> Option<LogFeed> {
    let path = read_path(settings)?;
    let rules = read_rules(settings)?;
    let path = path.located(|text| folder_location(text, base))?;
    Some(LogFeed { path, rules })
}

/// Reads how the log is treated; none if mistakes were reported.
fn read_rules(settings: &mut Settings<'_>) -> Option<LogRules> {
    let (follow_links, on_missing) = (read_follow_links(settings), read_on_missing(settings));
    Some(LogRules {
        follow_links: follow_links?,
        on_missing: on_missing?,
    })
}
