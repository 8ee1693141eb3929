//! What keeps a feed from reading all that is there: a folder or a file that cannot be read, a log that lost bytes, brokers
//! or a server that do not answer, or lack what is to be read.
//!
//! Such a feed waits, and no other. It tells the cause, reads what else it can, looks again, and goes on by itself once the cause is
//! gone. A fault that has lasted as long as all retries take counts as one that will last: whoever waits for the feed to
//! be exhausted waits no more, and is told what was not read.

use std::time::{Duration, Instant};

use super::outlet::{Hand, Waiter};
use super::readers::ReaderOptions;

/// The longest pause before trying again.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// The fault that a reader of a feed has, if it has one.
#[derive(Debug, Default)]
pub(crate) struct FeedFault {
    /// Which of the feed's readers it is.
    reader: usize,
    /// And from when on it counts as one that will last.
    cause: Option<(String, Instant)>,
}

impl FeedFault {
    /// Of one of several readers of a feed.
    pub fn of_reader(reader: usize) -> Self {
        FeedFault { reader, cause: None }
    }

    /// Takes in what keeps the feed from reading on now, and tells it where that is new. It may pass by itself.
    pub fn observe(&mut self, hand: &Hand, options: &ReaderOptions, cause: Option<String>) {
        self.set(hand, cause.map(|cause| (cause, Instant::now() + patience(options))));
    }

    /// The same of what was waited for long enough, or does not pass unless somebody mends it.
    pub fn observe_lasting(&mut self, hand: &Hand, cause: String) {
        self.set(hand, Some((cause, Instant::now())));
    }

    fn set(&mut self, hand: &Hand, cause: Option<(String, Instant)>) {
        let earlier = self.cause.take();
        let is_new = cause.as_ref().map(|(cause, _)| cause) != earlier.as_ref().map(|(cause, _)| cause);
        // One cause after another is one fault.
        self.cause = cause.map(|(cause, lasts)| (cause, earlier.map_or(lasts, |(_, earlier)| earlier.min(lasts))));
        if !is_new {
            return;
        }
        match &self.cause {
            Some((cause, _)) => {
                tracing::warn!(feed = hand.name(), "waits: {cause}");
                hand.gauges.set_error(cause.clone());
            }
            None => tracing::info!(feed = hand.name(), "waits no more"),
        }
        hand.gauges
            .set_waits_for(Waiter::Reader(self.reader), self.cause.clone());
    }

    pub fn is_there(&self) -> bool {
        self.cause.is_some()
    }

    /// Whether it has lasted as long as all retries take, or is of those that last.
    pub fn lasts(&self) -> bool {
        self.cause.as_ref().is_some_and(|(_, lasts)| *lasts <= Instant::now())
    }
}

/// How long to wait before an attempt after so many that failed.
pub(crate) fn pause(options: &ReaderOptions, attempt: u32) -> Duration {
    options
        .back_off
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(LONGEST_BACK_OFF)
}

/// How long all attempts take.
pub(crate) fn patience(options: &ReaderOptions) -> Duration {
    (1..=options.retries).map(|attempt| pause(options, attempt)).sum()
}
