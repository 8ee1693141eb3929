//! How a feed of kind `files` treats what it finds.

use super::settings::Settings;

/// Settings of a feed that reads files, beside its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    /// Whether links may lead out of the feed's folder, which is the part of its path without wildcards.
    pub follow_links: bool,
    /// What happens to a file with the bytes of one that was read.
    pub duplicates: Duplicates,
    /// What happens to a file that was read and then holds other bytes.
    pub changed: Changed,
}

/// What happens to a file with the bytes of one that was read, whatever it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// It is read as any other.
    #[default]
    Read,
    /// It is not read, and that is said.
    Skip,
}

/// What happens to a file that was read and then holds other bytes. (More of them behind the old ones are always read.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    /// It is a dead letter.
    #[default]
    Refuse,
    /// It is read again, as newer versions of its rows.
    Correct,
}

/// Reads them; none: mistakes were reported.
pub(super) fn read_rules(settings: &mut Settings<'_>) -> Option<FileRules> {
    let follow_links = read_follow_links(settings);
    let duplicates = match settings.take("duplicates", "\"skip\"") {
        None => Some(Duplicates::Read),
        Some(value) => value.choice(&[("read", Duplicates::Read), ("skip", Duplicates::Skip)]),
    };
    let changed = match settings.take("changed", "\"correct\"") {
        None => Some(Changed::Refuse),
        Some(value) => value.choice(&[("refuse", Changed::Refuse), ("correct", Changed::Correct)]),
    };
    Some(FileRules {
        follow_links: follow_links?,
        duplicates: duplicates?,
        changed: changed?,
    })
}

/// Reads `follow_links` alone; none: mistakes were reported.
pub(super) fn read_follow_links(settings: &mut Settings<'_>) -> Option<bool> {
    match settings.take("follow_links", "true") {
        None => Some(false),
        Some(value) => value.boolean(),
    }
}
