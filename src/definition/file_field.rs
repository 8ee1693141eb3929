//! The properties of a record's file that a column may take.

use std::fmt;

/// A property of a record's file that a column may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileField {
    /// `file.name`.
    Name,
    /// `file.path`: the path below the feed's folder.
    Path,
    /// `file.modified`: the modification time.
    Modified,
    /// `file.line`: the line on which the record begins, from 1; for a columnar file, the row.
    Line,
    /// `path.<name>`: the value of a folder `<name>=...` in the path.
    Folder(String),
}

impl FileField {
    /// The first of a column's names in `from` that refers to the file instead of the record.
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
