//! What keeps a feed from reading all that is there: a folder or a file that cannot be read.
//!
//! Such a feed waits. It tells the cause, reads what else it can, looks again, and goes on by itself once the cause is
//! gone. A fault that has lasted as long as all retries take counts as one that will last: whoever waits for the feed to
//! be exhausted waits no more, and is told what was not read.

use std::time::{Duration, Instant};

use super::outlet::Hand;
use super::readers::ReaderOptions;

/// The longest pause before trying again.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// The fault that a feed has, if it has one.
#[derive(Debug, Default)]
pub(crate) struct FeedFault {
    /// And since when there has been one.
    cause: Option<(String, Instant)>,
}

impl FeedFault {
    /// Takes in what keeps the feed from reading on now, and tells it where that is new.
    pub fn observe(&mut self, hand: &Hand, cause: Option<String>) {
        if cause.as_ref() == self.cause.as_ref().map(|(cause, _)| cause) {
            return;
        }
        match &cause {
            Some(cause) => {
                tracing::warn!(feed = hand.name(), "waits: {cause}");
                hand.gauges.set_error(cause.clone());
            }
            None => tracing::info!(feed = hand.name(), "waits no more"),
        }
        hand.gauges.set_waits_for(cause.clone());
        let since = self.cause.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        self.cause = cause.map(|cause| (cause, since));
    }

    pub fn is_there(&self) -> bool {
        self.cause.is_some()
    }

    /// Whether it has lasted as long as all retries take.
    pub fn lasts(&self, options: &ReaderOptions) -> bool {
        let patience: Duration = (1..=options.retries).map(|attempt| pause(options, attempt)).sum();
        self.cause
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= patience)
    }
}

/// How long to wait before an attempt after so many that failed.
pub(crate) fn pause(options: &ReaderOptions, attempt: u32) -> Duration {
    options
        .back_off
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(LONGEST_BACK_OFF)
}
