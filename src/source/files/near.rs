//! Explains why a glob matches no file, with what is found nearby, so that a feed without files is not just silent.

use std::collections::BTreeMap;
use std::path::Path;

use super::listing::GlobLocation;
use crate::definition::nearest;
use crate::shown::{shown, shown_path};

/// How many names of a folder are looked at.
const LOOKED_AT: usize = 10_000;
/// How many suffixes are listed.
const ENDINGS: usize = 4;

/// Why no file matches, and what to do.
pub(crate) fn why_nothing(place: &GlobLocation, path: &str) -> String {
    let path_shown = shown(path);
    let GlobLocation::Local { folder, glob, .. } = place else {
        return format!("{path_shown} names nothing in the store yet; what comes there is read");
    };
    if !folder.exists() {
        let above = folder.ancestors().skip(1).find(|above| above.exists());
        let above = above.map_or(String::new(), |above| format!(" (there is {})", shown_path(above)));
        return format!(
            "{path_shown} names nothing: folder {} does not exist{above}; what comes there is read",
            shown_path(folder)
        );
    }
    let names = FolderNames::read_folder(folder);
    if let Some(only) = glob.only_path() {
        let wanted = folder.join(only);
        if wanted.is_dir() {
            return format!("{path_shown} is a folder; write {path_shown}/* for the files in it");
        }
        let name = wanted.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let near = nearest(name, names.files.iter().map(String::as_str));
        let near = near.map_or(String::new(), |near| format!("; did you mean {}?", shown(near)));
        return format!("file {} does not exist{near}", shown_path(&wanted));
    }
    format!(
        "{path_shown} names nothing: {} {}",
        shown_path(folder),
        names.describe()
    )
}

/// A description of a folder's direct content, which continues a sentence about the folder.
pub(crate) fn what_is_in(folder: &Path) -> String {
    FolderNames::read_folder(folder).describe()
}

/// The names directly in a folder.
#[derive(Default)]
struct FolderNames {
    files: Vec<String>,
    folders: usize,
}

impl FolderNames {
    fn read_folder(folder: &Path) -> FolderNames {
        let mut names = FolderNames::default();
        for entry in std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .take(LOOKED_AT)
        {
            match entry.path().is_dir() {
                true => names.folders += 1,
                false => names.files.push(entry.file_name().to_string_lossy().into_owned()),
            }
        }
        names.files.sort();
        names
    }

    fn describe(&self) -> String {
        let folders = match self.folders {
            0 => String::new(),
            1 => "1 folder".to_string(),
            n => format!("{n} folders"),
        };
        if self.files.is_empty() {
            return match folders.as_str() {
                "" => "is empty; what comes there is read".to_string(),
                folders => format!("holds {folders} and no file; ** stands for any folders"),
            };
        }
        let mut endings: BTreeMap<&str, usize> = BTreeMap::new();
        self.files
            .iter()
            .for_each(|name| *endings.entry(ending(name)).or_default() += 1);
        let mut endings: Vec<_> = endings.into_iter().collect();
        endings.sort_by_key(|(ending, count)| (std::cmp::Reverse(*count), *ending));
        let counted = |(ending, count): &(&str, usize)| match *ending {
            "" => format!("{count} without an ending"),
            ending => format!("{count} of .{}", shown(ending)),
        };
        let endings: Vec<String> = endings.iter().take(ENDINGS).map(counted).collect();
        let files = match self.files.len() {
            1 => "1 other file".to_string(),
            n => format!("{n} other files"),
        };
        let folders = if folders.is_empty() {
            folders
        } else {
            format!(" and {folders}")
        };
        format!("holds {files}{folders} ({})", endings.join(", "))
    }
}

/// A name's suffix; for a compressed file, together with the suffix before it.
fn ending(name: &str) -> &str {
    let Some(last) = name.rfind('.').filter(|at| *at > 0) else {
        return "";
    };
    let is_packed = ["gz", "gzip", "zst", "zstd", "sz", "snappy", "bz2", "xz", "zip"].contains(&&name[last + 1..]);
    match name[..last].rfind('.').filter(|at| is_packed && *at > 0) {
        Some(before) => &name[before + 1..],
        None => &name[last + 1..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::FileGlob;

    fn why(path: &str) -> String {
        let (folder, rest) = FileGlob::split(path);
        let place = GlobLocation::Local {
            folder: folder.into(),
            glob: FileGlob::new(rest).unwrap(),
            follow_links: false,
            lake: None,
            vetting: None,
        };
        why_nothing(&place, path)
    }

    #[test]
    fn a_glob_that_names_nothing_is_told_with_what_is_near() {
        let folder = tempfile::tempdir().unwrap();
        let path = |below: &str| folder.path().join(below).display().to_string();
        assert!(why(&path("*.csv")).ends_with("is empty; what comes there is read"));
        for name in ["a.CSV", "b.CSV", "c.csv.gz", "README"] {
            std::fs::write(path(name), "x").unwrap();
        }
        std::fs::create_dir(path("2024.1")).unwrap();
        let message = why(&path("*.csv"));
        let end = "holds 4 other files and 1 folder (2 of .CSV, 1 without an ending, 1 of .csv.gz)";
        assert!(message.ends_with(end), "{message}");
        let message = why(&path("gone/below/*.csv"));
        assert!(
            message.contains("does not exist (there is ") && message.contains(&path("gone/below")),
            "{message}"
        );
        assert!(why(&path("a.csv")).ends_with("does not exist; did you mean a.CSV?"));
        assert!(why(&path("2024.1")).contains("is a folder; write "));
        std::fs::write(path("b[1].csv"), "x").unwrap();
        let message = why(&path("b[[]2[]].csv"));
        assert!(
            message.ends_with("b[2].csv does not exist; did you mean b[1].csv?"),
            "{message}"
        );
    }
}
