//! This process of a run, and a helper to start its threads.

use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;

use crate::run::{Options, RunError};
use crate::source::Share;

/// What is known of a process before anything is opened.
pub struct RunProcess<'a> {
    pub options: &'a Options,
    pub runtime: &'a Handle,
    pub share: Share,
    /// The number of workers in this process.
    pub workers: usize,
}

impl RunProcess<'_> {
    /// The number of workers in all processes.
    pub fn all_workers(&self) -> usize {
        self.workers * self.share.processes
    }
}

/// Starts a thread `name`; errors call it `what`.
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    what: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map_err(|source| RunError::Thread { what, source })
}
