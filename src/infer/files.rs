//! Which files a path names, and which of them are looked at first.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use glob::Pattern;
use tokio::runtime::Handle;

use super::InferError;
use super::clock::Clock;
use crate::definition::pattern_of_file;
use crate::source::{NamedFile, NamedFiles, SourceError, is_remote};

/// The files of a path.
pub(super) struct Listed {
    /// The glob that a feed reads them by; absolute.
    pub pattern: String,
    /// Newest, oldest, the next newest and so on.
    pub files: Vec<NamedFile>,
    /// By how their names end, those of the folder that are not of the pattern.
    pub others: Vec<String>,
    /// The character that stands in brackets in the pattern, for a feed would take it for a folder otherwise.
    pub in_brackets: Option<char>,
}

/// What a path is.
enum Named {
    File(String),
    Glob(String),
    /// Without a slash at its end, and as a part of a glob.
    Folder(String),
}

/// The files that a file's, a folder's or a glob's path names, or a URL.
///
/// # Errors
/// There is none.
pub(super) fn list(path: &Path, runtime: &Handle, clock: &Clock) -> Result<Listed, InferError> {
    let text = path.to_str().ok_or_else(|| InferError::NotText(path.to_path_buf()))?;
    let found = |pattern: &str, follow_links: bool| {
        let files = NamedFiles::at(pattern, follow_links, runtime.clone());
        let files = files.map_err(|error| match error {
            SourceError::Store { reason, .. } | SourceError::Glob { reason, .. } => {
                InferError::Place(text.to_string(), reason)
            }
            other => InferError::Place(text.to_string(), other.to_string()),
        })?;
        let listed = files.list(&|| clock.is_over());
        listed.map_err(|source| InferError::Io(path.to_path_buf(), source))
    };
    let (named, mut files) = match is_remote(text) {
        false => {
            let named = local(text)?;
            let files = match &named {
                // Somebody named this very file, wherever it leads.
                Named::File(pattern) => found(pattern, true)?,
                Named::Glob(pattern) => found(pattern, false)?,
                Named::Folder(folder) => found(&format!("{folder}/**/*"), false)?,
            };
            (named, files)
        }
        true if text.contains(['*', '?', '[']) => (Named::Glob(text.to_string()), found(text, false)?),
        true => {
            let whole = text.trim_end_matches('/');
            let files = match whole == text {
                true => found(whole, false)?,
                false => Vec::new(),
            };
            match files.is_empty() {
                true => (
                    Named::Folder(whole.to_string()),
                    found(&format!("{whole}/**/*"), false)?,
                ),
                false => (Named::File(whole.to_string()), files),
            }
        }
    };
    if files.is_empty() {
        return Err(InferError::None(text.to_string()));
    }
    let mut others = Vec::new();
    let mut in_brackets = None;
    let pattern = match named {
        Named::File(pattern) => {
            let (pattern, bracketed) = pattern_of_file(&pattern);
            in_brackets = bracketed;
            pattern
        }
        Named::Glob(pattern) => pattern,
        Named::Folder(folder) => {
            let ending = usual_ending(&files);
            let is_other = |file: &&NamedFile| ending_of(file.partition()) != ending;
            others = files
                .iter()
                .filter(is_other)
                .map(|file| ending_of(file.partition()))
                .collect();
            others.sort();
            others.dedup();
            files.retain(|file| !is_other(&file));
            let is_flat = files.iter().all(|file| !file.partition().contains('/'));
            format!("{folder}/{}*{ending}", if is_flat { "" } else { "**/" })
        }
    };
    files.sort_by(|a, b| (a.modified(), a.partition()).cmp(&(b.modified(), b.partition())));
    Ok(Listed {
        pattern,
        files: from_both_ends(files),
        others,
        in_brackets,
    })
}

/// What a local path is.
fn local(text: &str) -> Result<Named, InferError> {
    let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
    let whole = std::path::absolute(path).map_err(|source| InferError::Io(path.to_path_buf(), source))?;
    let whole = whole.to_string_lossy();
    Ok(match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Named::File(Pattern::escape(&whole)),
        Ok(meta) if meta.is_dir() => Named::Folder(Pattern::escape(whole.trim_end_matches('/'))),
        _ => Named::Glob(whole.into_owned()),
    })
}

/// How a file's name ends: from its first point on, where that is short.
fn ending_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or_default();
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
fn usual_ending(files: &[NamedFile]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::default();
    for file in files {
        *counts.entry(ending_of(file.partition())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(String::new(), |(ending, _)| ending)
}

/// Last, first, last but one, second and so on.
fn from_both_ends<T>(mut files: Vec<T>) -> Vec<T> {
    let mut order = Vec::with_capacity(files.len());
    files.reverse();
    let mut queue: VecDeque<T> = files.into();
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
            ("folder.d/data", ""),
            ("x.parquet", ".parquet"),
        ] {
            assert_eq!(ending_of(name), ending, "{name}");
        }
        assert_eq!(from_both_ends(vec!["1", "2", "3", "4"]), ["4", "1", "3", "2"]);
    }
}
