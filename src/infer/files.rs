//! Finds the files that a path names, and the order in which they are sampled.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use glob::Pattern;
use tokio::runtime::Handle;

use super::InferError;
use super::deadline::Deadline;
use crate::definition::pattern_of_file;
use crate::source::{NamedFile, NamedFiles, SourceError, is_remote};

/// The files of a path.
pub(super) struct SampleFiles {
    /// The glob by which a feed would read them; absolute.
    pub pattern: String,
    /// The files, alternately the next newest and the next oldest.
    pub files: Vec<NamedFile>,
    /// The extensions of the folder's files that the pattern leaves out, sorted, each once.
    pub others: Vec<String>,
    /// The character that the pattern has in brackets: without a wildcard, a feed would take a path without an
    /// extension for a folder.
    pub in_brackets: Option<char>,
}

/// The kinds of paths.
enum SamplePath {
    File(String),
    Glob(String),
    /// A folder without a trailing slash, escaped for use in a glob.
    Folder(String),
}

/// Lists the files that the path of a file, a folder or a glob names, or a URL.
///
/// # Errors
/// No file exists there, or the place cannot be listed.
pub(super) fn list(path: &Path, runtime: &Handle, clock: &Deadline) -> Result<SampleFiles, InferError> {
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
                // The user named this very file, so links are followed.
                SamplePath::File(pattern) => found(pattern, true)?,
                SamplePath::Glob(pattern) => found(pattern, false)?,
                SamplePath::Folder(folder) => found(&format!("{folder}/**/*"), false)?,
            };
            (named, files)
        }
        true if text.contains(['*', '?', '[']) => (SamplePath::Glob(text.to_string()), found(text, false)?),
        true => {
            let whole = text.trim_end_matches('/');
            let files = match whole == text {
                true => found(whole, false)?,
                false => Vec::new(),
            };
            match files.is_empty() {
                true => (
                    SamplePath::Folder(whole.to_string()),
                    found(&format!("{whole}/**/*"), false)?,
                ),
                false => (SamplePath::File(whole.to_string()), files),
            }
        }
    };
    if files.is_empty() {
        return Err(InferError::None(text.to_string()));
    }
    let mut others = Vec::new();
    let mut in_brackets = None;
    let pattern = match named {
        SamplePath::File(pattern) => {
            let (pattern, bracketed) = pattern_of_file(&pattern);
            in_brackets = bracketed;
            pattern
        }
        SamplePath::Glob(pattern) => pattern,
        SamplePath::Folder(folder) => {
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
    Ok(SampleFiles {
        pattern,
        files: from_both_ends(files),
        others,
        in_brackets,
    })
}

/// Classifies a local path.
fn local(text: &str) -> Result<SamplePath, InferError> {
    let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
    let whole = std::path::absolute(path).map_err(|source| InferError::Io(path.to_path_buf(), source))?;
    let whole = whole.to_string_lossy();
    Ok(match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => SamplePath::File(Pattern::escape(&whole)),
        Ok(meta) if meta.is_dir() => SamplePath::Folder(Pattern::escape(whole.trim_end_matches('/'))),
        _ => SamplePath::Glob(whole.into_owned()),
    })
}

/// A file's extension: its last part, or last two parts, if they are short.
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

/// The most frequent extension.
fn usual_ending(files: &[NamedFile]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::default();
    for file in files {
        *counts.entry(ending_of(file.partition())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(String::new(), |(ending, _)| ending)
}

/// Reorders: last, first, last but one, second and so on.
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
