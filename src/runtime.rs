//! Makes tokio's runtimes. Each part of a process that waits for a network or a store has its own runtime, so that no
//! part waits for another part's work.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::deep;

/// How many file operations on local disks a runtime runs at once, unless it is made with fewer. tokio would start up
/// to 512 threads for operations that wait, and each thread's allocator keeps what it has freed; a live run held more
/// than a gigabyte in this way.
pub const FILES: usize = 32;

/// Makes a runtime for work that mostly waits, with `threads` threads called `name`, and at most `files` file
/// operations at once.
///
/// # Errors
/// The system provides no thread.
pub fn io_runtime(name: &str, threads: usize, files: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(files)
        .thread_name(name)
        .enable_all()
        .build()
}

/// Makes a runtime for plans of SQL, which may be nested deeply: a thread for each core, with a large stack.
///
/// # Errors
/// The system provides no thread.
pub fn query_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_stack_size(deep::STACK)
        .thread_name("query")
        .enable_all()
        .build()
}

/// Ends a runtime whose tasks nobody waits for any more. It waits for the threads that have nothing to do, and at most
/// for `PATIENCE` for those that compute; they end by themselves later. It may be called from anywhere, within another
/// runtime too.
///
/// tokio's own `shutdown_background` detaches all threads while they end. With glibc 2.36 that can crash the
/// process (seen once), because `pthread_detach` reads the thread's stack, which the thread may have freed meanwhile
/// (<https://sourceware.org/bugzilla/show_bug.cgi?id=19951>). Large stacks, as those of [`query_runtime`], are freed at once.
pub fn end(runtime: Runtime) {
    const PATIENCE: Duration = Duration::from_millis(100);
    match Handle::try_current() {
        // A thread that serves a runtime must not block.
        Ok(_) => drop(thread::spawn(move || runtime.shutdown_timeout(PATIENCE))),
        Err(_) => runtime.shutdown_timeout(PATIENCE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crash that [`end`] avoids is too rare to show; this holds that a runtime can be ended from anywhere.
    #[test]
    fn a_runtime_ends_from_a_thread_and_from_within_another_one() {
        for _ in 0..10 {
            let runtime = query_runtime().unwrap();
            runtime.spawn(async {});
            end(runtime);
        }
        let outer = io_runtime("outer", 1, 1).unwrap();
        outer.block_on(async {
            let inner = query_runtime().unwrap();
            end(inner);
        });
    }
}
