//! Which files a path names, and which of them are looked at first.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::InferError;

/// Files that are listed at most: a look at a folder of millions must end.
const LISTED: usize = 100_000;

/// The files of a path.
pub(super) struct Listed {
    /// The glob that a feed reads them by; absolute.
    pub pattern: String,
    /// Newest, oldest, the next newest and so on.
    pub files: Vec<PathBuf>,
    /// By how their names end, those of the folder that are not of the pattern.
    pub others: Vec<String>,
}

/// The files that a file's, a folder's or a glob's path names.
///
/// # Errors
/// There is none.
pub(super) fn list(path: &Path) -> Result<Listed, InferError> {
    let text = path.to_str().ok_or_else(|| InferError::NotText(path.to_path_buf()))?;
    if text.contains("://") {
        return Err(InferError::Url(text.to_string()));
    }
    let missing = || InferError::None(text.to_string());
    let meta = std::fs::metadata(path).ok();
    if meta.as_ref().is_some_and(|meta| meta.is_file()) {
        let whole = std::path::absolute(path).map_err(|source| InferError::Io(path.to_path_buf(), source))?;
        return Ok(Listed {
            pattern: glob::Pattern::escape(&whole.to_string_lossy()),
            files: vec![whole],
            others: vec![],
        });
    }
    let (pattern, is_folder) = match meta {
        Some(_) => (path.join("**/*"), true),
        None => (path.to_path_buf(), false),
    };
    let pattern = std::path::absolute(&pattern).map_err(|source| InferError::Io(path.to_path_buf(), source))?;
    let pattern = pattern.to_string_lossy().into_owned();
    let found = glob::glob(&pattern).map_err(|_| missing())?;
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for found in found.flatten().take(LISTED) {
        let hidden = found
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with(['.', '_']));
        let Ok(meta) = found.metadata() else { continue };
        if meta.is_file() && !hidden && meta.len() > 0 {
            files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), found));
        }
    }
    if files.is_empty() {
        return Err(missing());
    }
    let (mut pattern, mut others) = (pattern, Vec::new());
    if is_folder {
        let ending = usual_ending(&files);
        let folder = std::path::absolute(path).map_err(|source| InferError::Io(path.to_path_buf(), source))?;
        let flat = |file: &Path| file.parent() == Some(&folder);
        others = files
            .iter()
            .filter(|(_, file)| ending_of(file) != ending)
            .map(|(_, file)| ending_of(file))
            .collect();
        others.sort();
        others.dedup();
        files.retain(|(_, file)| ending_of(file) == ending);
        let depth = if files.iter().all(|(_, file)| flat(file)) {
            ""
        } else {
            "**/"
        };
        let escaped = glob::Pattern::escape(&folder.to_string_lossy());
        pattern = format!("{escaped}/{depth}*{ending}");
    }
    files.sort();
    Ok(Listed {
        pattern,
        files: from_both_ends(files.into_iter().map(|(_, file)| file).collect()),
        others,
    })
}

/// How a file's name ends: from its first point on, where that is short.
fn ending_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut at = None;
    for (n, _) in name.match_indices('.').collect::<Vec<_>>().into_iter().rev().take(2) {
        let part = name[n + 1..].split('.').next().unwrap_or_default();
        let is_ending = (1..=8).contains(&part.len()) && part.chars().any(|c| c.is_ascii_alphabetic());
        match is_ending {
            true => at = Some(n),
            false => break,
        }
    }
    at.map_or(String::new(), |n| name[n..].to_string())
}

/// The ending that most files have.
fn usual_ending(files: &[(SystemTime, PathBuf)]) -> String {
    let mut counts: std::collections::BTreeMap<String, usize> = Default::default();
    for (_, file) in files {
        *counts.entry(ending_of(file)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(String::new(), |(ending, _)| ending)
}

/// Last, first, last but one, second and so on.
fn from_both_ends(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut order = Vec::with_capacity(files.len());
    files.reverse();
    let mut queue: std::collections::VecDeque<PathBuf> = files.into();
    while let Some(newest) = queue.pop_front() {
        order.push(newest);
        order.extend(queue.pop_back());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_keep_what_a_file_is_packed_by_and_no_dates() {
        for (name, ending) in [
            ("2010-12-01.csv.gz", ".csv.gz"),
            ("a.b.csv", ".b.csv"),
            ("v1.2.csv", ".csv"),
            ("data", ""),
            ("x.parquet", ".parquet"),
        ] {
            assert_eq!(ending_of(Path::new(name)), ending, "{name}");
        }
        let files = ["1", "2", "3", "4"].map(PathBuf::from).to_vec();
        assert_eq!(from_both_ends(files), ["4", "1", "3", "2"].map(PathBuf::from));
    }
}
