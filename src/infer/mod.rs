//! Samples files, and writes an input's TOML as a starting point: columns, types, formats, and text dialect.
//!
//! ```text
//! path --files--> sample --sample_files--> columns observed --print--> TOML
//!                    |                    '--keys
//!                    '--form, dialect (by a file's beginning)
//! ```
//! The format is inferred from a file's first bytes and its beginning, not from its name. The oldest and newest files
//! are sampled first, so that changes over time are seen. Time, records and memory are bounded, and the TOML says how
//! much was sampled. A type is chosen only if it holds every sampled value exactly; values that can be read in two
//! ways stay text, with a note on both.

mod column;
mod columnar;
mod columns;
mod deadline;
mod dialect;
mod files;
mod form;
mod keys;
mod moment;
mod number;
mod print;
mod sample;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::contain::contain;
use crate::deep;
use crate::runtime::{FILES, io_runtime};
use crate::shown::shown;
use deadline::Deadline;

/// How long an inference may take after its time is over.
const GRACE: Duration = Duration::from_secs(5);

/// The limits of a sample.
#[derive(Clone, Copy, Debug)]
pub struct SampleLimits {
    /// The most files.
    pub files: usize,
    /// The most records, over all files.
    pub records: u64,
    /// The most time.
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

/// Why nothing could be inferred.
#[derive(Debug, Error)]
pub enum InferError {
    /// No file exists there, or all are empty.
    #[error(
        "there is no file with something in it at {0}; name a file, a folder or a glob, in quotes where a shell would expand it"
    )]
    None(String),
    /// The URL names no store, or the pattern is invalid.
    #[error("could not open {0}: {1}")]
    Place(String, String),
    /// The path is not UTF-8, so no definition can contain it.
    #[error("{0:?} is no text, and a definition is one; rename it")]
    NotText(PathBuf),
    /// A file or folder cannot be read.
    #[error("could not look at {0:?}")]
    Io(PathBuf, #[source] io::Error),
    /// None of the files can be used.
    #[error("could not read {path}: {reason}")]
    Unreadable {
        /// The first file that was tried.
        path: String,
        /// The reason and the remedy.
        reason: String,
    },
}

/// The result of an inference.
#[derive(Clone, Debug)]
pub struct InferredInput {
    /// The TOML of an input.
    pub toml: String,
    /// Files that this TOML does not read correctly, each with the reason and the remedy.
    pub misfits: Vec<String>,
}

/// Infers an input that reads the files of a path: of a file, a folder or a glob, or of a URL of an object store,
/// whose settings come from the environment.
///
/// # Errors
/// No file exists there, or none can be read.
pub fn infer(path: &Path, limits: &SampleLimits) -> Result<InferredInput, InferError> {
    let unreadable = |reason: String| InferError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let (say, answer) = channel();
    let (named, given) = (path.to_path_buf(), *limits);
    // The work runs on a thread of its own, so that this function returns whatever a file does to the reader.
    let looking = thread::Builder::new().name("infer".to_string()).stack_size(deep::STACK);
    let looking = looking.spawn(move || say.send(contain(|| inferred(&named, &given))));
    looking.map_err(|source| InferError::Io(path.to_path_buf(), source))?;
    match answer.recv_timeout(limits.time.saturating_add(GRACE)) {
        Ok(Ok(inferred)) => inferred,
        Ok(Err(panic)) => Err(unreadable(format!(
            "its reader met something that it did not expect ({panic})"
        ))),
        Err(_) => Err(unreadable(format!(
            "there was no answer within {} s; name fewer files, or give it more --time",
            limits.time.as_secs()
        ))),
    }
}

fn inferred(path: &Path, limits: &SampleLimits) -> Result<InferredInput, InferError> {
    let io = |source| InferError::Io(path.to_path_buf(), source);
    let runtime = io_runtime("files", 1, FILES).map_err(io)?;
    let clock = Deadline::new(limits.time);
    let listed = files::list(path, runtime.handle(), &clock)?;
    let looked = sample::sample_files(&listed, limits, clock)?;
    let misfits = looked.passed.iter();
    Ok(InferredInput {
        toml: print::toml(&listed, &looked),
        misfits: misfits
            .map(|(file, reason)| format!("{}: {}", print::name(file), shown(reason)))
            .collect(),
    })
}
