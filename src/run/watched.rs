//! Threads beside the workers, whose end always reaches the conductor, even when they panic. The conductor waits for
//! their messages, so one that died silently would leave the run waiting forever.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::RunError;
use crate::contain;

/// Runs the body of the thread `what`. Returns its failure or its panic, if any.
///
/// Unwind safety is asserted: a failure ends the run, so nobody sees a value that the body left half changed.
pub fn failure_of<E: Into<RunError>>(what: &'static str, body: impl FnOnce() -> Result<(), E>) -> Option<RunError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.into()),
        Err(panic) => Some(RunError::Panicked(what, contain::message(&*panic))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_has_failed_as_one_that_gives_an_error_has() {
        let failed = |body: fn() -> Result<(), RunError>| failure_of("the committer", body).map(|e| e.to_string());
        assert_eq!(failed(|| Ok(())), None);
        assert_eq!(
            failed(|| Err(RunError::WriterGone)),
            Some(RunError::WriterGone.to_string())
        );
        let message = failed(|| panic!("no such snapshot")).unwrap();
        assert!(
            message.contains("the committer") && message.contains("no such snapshot"),
            "{message}"
        );
    }
}
