//! Looks at files, and writes an input's TOML to start from: columns, types, formats, how the text is written.
//!
//! ```text
//! path --files--> sample --look--> columns observed --print--> TOML
//!                    '--dialect (first file)
//! ```
//! What a file is, its first bytes and its beginning say, not its name. Files are looked at from both ends of their age, so
//! that what changed over time is met; time, records and memory are bounded, and the text says how much was looked at. A type
//! is one that held every value seen exactly; what can be read in two ways stays text, with both of them beside it.

mod column;
mod columnar;
mod columns;
mod dialect;
mod files;
mod look;
mod moment;
mod number;
mod print;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// How much is looked at, at most.
#[derive(Clone, Copy, Debug)]
pub struct SampleLimits {
    /// Files.
    pub files: usize,
    /// Records of all files.
    pub records: u64,
    /// How long it may take.
    pub time: Duration,
}

impl Default for SampleLimits {
    fn default() -> Self {
        SampleLimits {
            files: 500,
            records: 1_000_000,
            time: Duration::from_secs(20),
        }
    }
}

/// Files that nothing can be said of.
#[derive(Debug, Error)]
pub enum InferError {
    /// Nothing is there.
    #[error(
        "there is no file with something in it at {0}; name a file, a folder or a glob, in quotes where a shell would expand it"
    )]
    None(String),
    /// A URL.
    #[error("{0} is a URL, and only local files are looked at; copy one of its files here")]
    Url(String),
    /// A path that no definition can hold.
    #[error("{0:?} is no text, and a definition is one; rename it")]
    NotText(PathBuf),
    /// A file or folder that cannot be looked at.
    #[error("could not look at {0:?}")]
    Io(PathBuf, #[source] io::Error),
    /// None of the files can be used.
    #[error("could not read {path}: {reason}")]
    Unreadable {
        /// The first that was tried.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// The TOML of an input that reads the files of a path: a file, a folder, or a glob.
///
/// # Errors
/// No file is there, or none can be read.
pub fn infer(path: &Path, limits: &SampleLimits) -> Result<String, InferError> {
    let listed = files::list(path)?;
    let looked = look::look(&listed, limits)?;
    Ok(print::toml(&listed, &looked))
}
