//! A mistake in a definition: where it is, what is wrong, and what to do.

use std::fmt;
use std::path::PathBuf;

/// One mistake. Prints as `file:line:column: message` and, on a second line, the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, relative to the dataflow's folder.
    pub file: PathBuf,
    /// The line, from 1; 0 if the mistake concerns the whole file.
    pub line: usize,
    /// The column, from 1; 0 if the mistake concerns the whole line.
    pub column: usize,
    /// What is wrong, lower case.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// All mistakes, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The order of folders in which mistakes are reported, after those of `dataflow.toml`.
const FOLDERS: [&str; 4] = ["inputs", "silver", "gold", "tests"];

impl Diagnostics {
    /// Sorts by file and line, and removes duplicates.
    pub fn sorted(mut self) -> Self {
        let rank = |diagnostic: &Diagnostic| {
            FOLDERS
                .iter()
                .position(|folder| diagnostic.file.starts_with(folder))
                .map_or(0, |n| n + 1)
        };
        self.0
            .sort_by(|a, b| (rank(a), &a.file, a.line, a.column).cmp(&(rank(b), &b.file, b.line, b.column)));
        self.0.dedup();
        self
    }
}

/// The candidate that a mistyped word most likely stands for; none if no candidate is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let reach = |candidate: &str| match candidate.chars().count().max(word.chars().count()) {
        0..=4 => 1,
        5..=8 => 2,
        longer => longer / 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= reach(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}
