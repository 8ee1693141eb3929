//! A channel's thread: when it publishes, and when it tries again.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::PublishError;
use super::channel::{Brokers, Channel};
use crate::repr::Epoch;

/// How long a run that ends waits until its last snapshots are published.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before a channel is tried again; it doubles, up to the longest.
const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Publishes what is committed.
pub struct Worker<B> {
    channel: Channel<B>,
    /// The newest snapshot that is committed.
    newest: Epoch,
    /// Since when nothing more will be.
    ended: Option<Instant>,
    patience: Duration,
}

impl<B: Brokers> Worker<B> {
    /// Of a channel, with the newest snapshot there is.
    pub fn new(channel: Channel<B>, newest: Epoch) -> Worker<B> {
        Worker {
            channel,
            newest,
            ended: None,
            patience: PATIENCE,
        }
    }

    /// One that waits less long for the last snapshots.
    #[cfg(test)]
    pub fn within(self, patience: Duration) -> Worker<B> {
        Worker { patience, ..self }
    }

    /// Publishes what is committed, until nothing more will be.
    pub fn publish(mut self, epochs: &Receiver<Epoch>) -> Result<(), PublishError> {
        let mut pause = BACK_OFF;
        loop {
            self.newest = epochs.try_iter().fold(self.newest, Epoch::max);
            let mut done = self.channel.catch_up(self.newest);
            let is_due = |due: Instant| due <= Instant::now();
            // Who ends has told what there was to tell.
            if done.is_ok() && self.ended.is_none() && self.channel.due().is_some_and(is_due) {
                done = self.channel.refresh();
            }
            match done {
                Ok(()) => {
                    pause = BACK_OFF;
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
                    self.pause(epochs, pause);
                    pause = (pause * 2).min(LONGEST);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Until a snapshot is committed, or none will be, or it is time.
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

    /// For so long, whatever is committed meanwhile.
    fn pause(&mut self, epochs: &Receiver<Epoch>, pause: Duration) {
        let until = Instant::now() + pause;
        while self.ended.is_none() {
            let came = epochs.recv_deadline(until);
            self.observe(came);
            if came == Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
        // Whoever ends the run hangs up, and is not waited for.
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
