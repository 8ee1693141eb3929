//! How a feed of kind `files` treats what it finds.

use std::fmt;

use super::kafka::{OnMissing, read_on_missing};
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
    /// Whether nothing is said where no file is there. No setting: feeds of tests have it.
    pub may_be_empty: bool,
}

/// Settings of a feed that follows a log, beside its folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRules {
    /// Whether links may lead out of the feed's folder.
    pub follow_links: bool,
    /// What happens to a log that holds no more what was read of it.
    pub on_missing: OnMissing,
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
        may_be_empty: false,
        follow_links: follow_links?,
        duplicates: duplicates?,
        changed: changed?,
    })
}

/// Reads those of a log; none: mistakes were reported.
pub(super) fn read_log_rules(settings: &mut Settings<'_>) -> Option<LogRules> {
    let (follow_links, on_missing) = (read_follow_links(settings), read_on_missing(settings));
    Some(LogRules {
        follow_links: follow_links?,
        on_missing: on_missing?,
    })
}

fn read_follow_links(settings: &mut Settings<'_>) -> Option<bool> {
    match settings.take("follow_links", "true") {
        None => Some(false),
        Some(value) => value.boolean(),
    }
}

/// What a column may take of the file that its record is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileField {
    /// `file.name`.
    Name,
    /// `file.path`: below the feed's folder.
    Path,
    /// `file.modified`: when it was last written.
    Modified,
    /// `file.line`: the line that the record begins on, from 1; of a columnar file, its row.
    Line,
    /// `path.<name>`: what a folder `<name>=...` of its path says.
    Folder(String),
}

impl FileField {
    /// The first of a column's names in `from` that tells of the file rather than of its record.
    pub fn among(names: &[String]) -> Option<FileField> {
        names.iter().find_map(|name| FileField::named(name))
    }

    fn named(name: &str) -> Option<FileField> {
        match name {
            "file.name" => Some(FileField::Name),
            "file.path" => Some(FileField::Path),
            "file.modified" => Some(FileField::Modified),
            "file.line" => Some(FileField::Line),
            _ => name
                .strip_prefix("path.")
                .map(|folder| FileField::Folder(folder.to_string())),
        }
    }
}

impl fmt::Display for FileField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileField::Name => f.write_str("file.name"),
            FileField::Path => f.write_str("file.path"),
            FileField::Modified => f.write_str("file.modified"),
            FileField::Line => f.write_str("file.line"),
            FileField::Folder(name) => write!(f, "path.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_inside_of_an_object_that_is_called_file_is_none_of_the_file() {
        let among = |names: &[&str]| FileField::among(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(among(&["size", "file.size"]), None);
        assert_eq!(among(&["size", "file.name"]), Some(FileField::Name));
        assert_eq!(among(&["path.day"]), Some(FileField::Folder("day".to_string())));
    }
}
