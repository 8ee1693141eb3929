//! Faults that keep a feed from reading all that is there: a folder or a file that cannot be read, a log that lost
//! bytes, brokers or a server that do not answer or lack the data to be read.
//!
//! Only the affected feed waits. It reports the cause, reads what it still can, tries again, and goes on by itself
//! once the cause is gone. A fault that has lasted as long as all retries would take counts as lasting: a run that
//! waits for the feed to be exhausted then stops waiting, and gets the cause reported.

use std::time::{Duration, Instant};

use super::feed_handle::{FeedHandle, Waiter};
use super::options::ReaderOptions;

/// The longest pause before trying again.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// The current fault of one reader of a feed, if any.
#[derive(Debug, Default)]
pub(crate) struct FeedFault {
    /// The reader's number within the feed.
    reader: usize,
    /// The cause, and the time from which it counts as lasting.
    cause: Option<(String, Instant)>,
}

impl FeedFault {
    /// The state of one reader of a feed that has several.
    pub fn of_reader(reader: usize) -> Self {
        FeedFault { reader, cause: None }
    }

    /// Records what keeps the feed from reading now (none: nothing does), and reports a new cause. The fault may
    /// pass by itself.
    pub fn observe(&mut self, handle: &FeedHandle, options: &ReaderOptions, cause: Option<String>) {
        self.set(handle, cause.map(|cause| (cause, Instant::now() + patience(options))));
    }

    /// Like [`Self::observe`], for a fault that has lasted long enough, or that does not pass until somebody
    /// repairs it.
    pub fn observe_lasting(&mut self, handle: &FeedHandle, cause: String) {
        self.set(handle, Some((cause, Instant::now())));
    }

    fn set(&mut self, handle: &FeedHandle, cause: Option<(String, Instant)>) {
        let earlier = self.cause.take();
        let is_new = cause.as_ref().map(|(cause, _)| cause) != earlier.as_ref().map(|(cause, _)| cause);
        // A cause that follows another without a pause continues the same fault, so the earlier deadline holds.
        self.cause = cause.map(|(cause, lasts)| (cause, earlier.map_or(lasts, |(_, earlier)| earlier.min(lasts))));
        if !is_new {
            return;
        }
        match &self.cause {
            Some((cause, _)) => {
                tracing::warn!(feed = handle.name(), "waits: {cause}");
                handle.gauges.set_error(cause.clone());
            }
            None => tracing::info!(feed = handle.name(), "waits no more"),
        }
        handle
            .gauges
            .set_waits_for(Waiter::Reader(self.reader), self.cause.clone());
    }

    pub fn is_there(&self) -> bool {
        self.cause.is_some()
    }

    /// Whether the fault counts as lasting.
    pub fn lasts(&self) -> bool {
        self.cause.as_ref().is_some_and(|(_, lasts)| *lasts <= Instant::now())
    }
}

/// How long to wait before the given attempt, counted from 1.
pub(crate) fn pause(options: &ReaderOptions, attempt: u32) -> Duration {
    options
        .back_off
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(LONGEST_BACK_OFF)
}

/// How long all retries take together.
pub(crate) fn patience(options: &ReaderOptions) -> Duration {
    (1..=options.retries).map(|attempt| pause(options, attempt)).sum()
}
