//! Runs a channel on a thread: decides when it publishes, and when it retries.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::PublishError;
use super::channel::{Brokers, Channel};
use crate::backoff::Backoff;
use crate::repr::Epoch;

/// How long a run that ends waits for its last snapshots to be published.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before a retry; it doubles, up to `LONGEST`.
const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Publishes committed snapshots.
pub struct PublishWorker<B> {
    channel: Channel<B>,
    /// The newest committed snapshot.
    newest: Epoch,
    /// When the run's end was noticed; no more snapshots come after that.
    ended: Option<Instant>,
    patience: Duration,
}

impl<B: Brokers> PublishWorker<B> {
    /// A worker for a channel; `newest` is the lake's newest snapshot.
    pub fn new(channel: Channel<B>, newest: Epoch) -> PublishWorker<B> {
        PublishWorker {
            channel,
            newest,
            ended: None,
            patience: PATIENCE,
        }
    }

    /// Shortens the wait for the last snapshots.
    #[cfg(test)]
    pub fn within(self, patience: Duration) -> PublishWorker<B> {
        PublishWorker { patience, ..self }
    }

    /// Publishes committed snapshots until the run has ended and all are published.
    pub fn publish(mut self, epochs: &Receiver<Epoch>) -> Result<(), PublishError> {
        let mut backoff = Backoff::new(BACK_OFF, LONGEST);
        loop {
            self.newest = epochs.try_iter().fold(self.newest, Epoch::max);
            let mut done = self.channel.catch_up(self.newest);
            let is_due = |due: Instant| due <= Instant::now();
            // A run that ends need not store epochs again.
            if done.is_ok() && self.ended.is_none() && self.channel.due().is_some_and(is_due) {
                done = self.channel.refresh();
            }
            match done {
                Ok(()) => {
                    backoff.reset();
                    if self.ended.is_some() && epochs.is_empty() {
                        return Ok(());
                    }
                    self.wait(epochs, self.channel.due());
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "snapshots wait for their topics"
                    );
                    if self.ended.is_some_and(|ended| ended.elapsed() > self.patience) {
                        return Err(PublishError::Behind {
                            published: self.channel.published(),
                            patience: self.patience,
                            source: Box::new(error),
                        });
                    }
                    self.pause(epochs, backoff.pause());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a committed snapshot, the end of the run, or the time `due`.
    fn wait(&mut self, epochs: &Receiver<Epoch>, due: Option<Instant>) {
        if self.ended.is_some() {
            return;
        }
        let came = match due {
            Some(due) => epochs.recv_deadline(due),
            None => epochs.recv().map_err(RecvTimeoutError::from),
        };
        self.observe(came);
    }

    /// Pauses for this time, and notes snapshots that are committed meanwhile.
    fn pause(&mut self, epochs: &Receiver<Epoch>, pause: Duration) {
        let until = Instant::now() + pause;
        while self.ended.is_none() {
            let came = epochs.recv_deadline(until);
            self.observe(came);
            if came == Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
        // At the end of the run the channel has hung up, so only the time remains to wait for.
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn observe(&mut self, came: Result<Epoch, RecvTimeoutError>) {
        match came {
            Ok(epoch) => self.newest = self.newest.max(epoch),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.ended = Some(Instant::now()),
        }
    }
}
