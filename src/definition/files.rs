//! How a feed of kind `files` treats what it finds.

use super::settings::Settings;

/// Settings of a feed that reads files, beside its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    /// Whether links may lead out of the feed's folder, which is the part of its path without wildcards.
    pub follow_links: bool,
}

/// Reads them; none: mistakes were reported.
pub(super) fn read_rules(settings: &mut Settings<'_>) -> Option<FileRules> {
    let follow_links = read_follow_links(settings);
    Some(FileRules {
        follow_links: follow_links?,
    })
}

/// Reads `follow_links` alone; none: mistakes were reported.
pub(super) fn read_follow_links(settings: &mut Settings<'_>) -> Option<bool> {
    match settings.take("follow_links", "true") {
        None => Some(false),
        Some(value) => value.boolean(),
    }
}
