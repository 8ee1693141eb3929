//! Looks at files, and writes an input's TOML to start from: columns, types, formats, how the text is written.
//!
//! ```text
//! path --files--> sample --look--> columns observed --print--> TOML
//!                    |                    '--keys
//!                    '--form, dialect (by a file's beginning)
//! ```
//! What a file is, its first bytes and its beginning say, not its name. Files are looked at from both ends of their age, so
//! that what changed over time is met; time, records and memory are bounded, and the text says how much was looked at. A type
//! is one that held every value seen exactly; what can be read in two ways stays text, with both of them beside it.

mod clock;
mod column;
mod columnar;
mod columns;
mod dialect;
mod files;
mod form;
mod keys;
mod look;
mod moment;
mod number;
mod print;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::contain::contain;
use crate::deep;
use crate::shown::shown;
use clock::Clock;

/// How long after its time is over a look may still take.
const GRACE: Duration = Duration::from_secs(5);

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
    /// A URL of no store, or a pattern that is none.
    #[error("could not open {0}: {1}")]
    Place(String, String),
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

/// What was found out.
#[derive(Clone, Debug)]
pub struct InferredInput {
    /// The TOML of an input.
    pub toml: String,
    /// Files that it does not read rightly, each with the reason and the remedy.
    pub misfits: Vec<String>,
}

/// The TOML of an input that reads the files of a path: a file, a folder or a glob, or a URL of an object store, whose settings
/// are in the environment.
///
/// # Errors
/// No file is there, or none can be read.
pub fn infer(path: &Path, limits: &SampleLimits) -> Result<InferredInput, InferError> {
    let unreadable = |reason: String| InferError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let (say, told) = channel();
    let (named, given) = (path.to_path_buf(), *limits);
    // Apart, so that whatever a file does to it, this ends.
    let looking = thread::Builder::new().name("infer".to_string()).stack_size(deep::STACK);
    let looking = looking.spawn(move || say.send(contain(|| inferred(&named, &given))));
    looking.map_err(|source| InferError::Io(path.to_path_buf(), source))?;
    match told.recv_timeout(limits.time.saturating_add(GRACE)) {
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(io)?;
    let clock = Clock::new(limits.time);
    let listed = files::list(path, runtime.handle(), &clock)?;
    let looked = look::look(&listed, limits, clock)?;
    let misfits = looked.passed.iter();
    Ok(InferredInput {
        toml: print::toml(&listed, &looked),
        misfits: misfits
            .map(|(file, reason)| format!("{}: {}", print::name(file), shown(reason)))
            .collect(),
    })
}
