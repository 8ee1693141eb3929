//! The thread that puts requests of one feed on the disk.
//!
//! 1. Whatever waits is written at once and synced once: the longer a sync takes, the more requests share the next one.
//! 2. One thread decides about keys, in the order in which requests are written: of two with one key the second finds the
//!    first, also where both wait. It is answered when the first is on the disk.
//! 3. Ends when nobody can submit any more, with everything that was submitted written and answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, never, select};
use tokio::sync::oneshot;

use super::frame::{self, Head, Keyed};
use super::keys::{Entry, Keys};
use super::segments::{Segments, Unwritten};
use crate::source::SourceError;
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::Clock;

/// Bytes that are written at once, but for the last request among them.
const BATCH: usize = 4 << 20;
/// How often it is said that keys are forgotten early.
const SAY: Duration = Duration::from_secs(60);

/// A request whose rows are to be kept.
pub(super) struct Submission {
    /// One a line.
    pub lines: Vec<u8>,
    pub rows: u64,
    pub keyed: Option<Keyed>,
    pub answer: oneshot::Sender<Answer>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its rows are on the disk. `again`: since an earlier request with this key.
    Taken { rows: u64, again: bool },
    /// Its key came with another body.
    OtherBody,
    /// Nothing of it was taken.
    Unwritten(String),
}

/// What a snapshot holds of the log, told by others.
#[derive(Clone)]
pub(super) struct Committed {
    pub next: Arc<AtomicU64>,
    pub told: Receiver<()>,
}

pub(super) struct Writer {
    pub hand: Hand,
    pub log: Segments,
    pub keys: Keys,
    pub submissions: Receiver<Submission>,
    pub committed: Committed,
    /// Wakes the reader.
    pub wake: Sender<()>,
    /// Set when all is written that ever will be.
    pub ended: Arc<AtomicBool>,
    pub clock: Clock,
}

/// Unix milliseconds.
pub(super) fn millis(clock: &Clock) -> u64 {
    let since = clock().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Writer {
    pub fn write(mut self) -> Result<(), Ended> {
        let mut said: Option<Instant> = None;
        let mut frames = Vec::new();
        loop {
            select! {
                recv(self.submissions) -> first => match first {
                    Ok(first) => self.take(first, &mut frames, &mut said)?,
                    Err(_) => break,
                },
                recv(self.committed.told) -> told => match told {
                    Ok(()) => self.clean(),
                    Err(_) => self.committed.told = never(),
                },
            }
        }
        self.log.close().map_err(|error| self.failed(error))?;
        self.ended.store(true, Ordering::Release);
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> SourceError {
        SourceError::RequestLog {
            feed: self.hand.name(),
            source: Arc::new(error),
        }
    }

    /// Writes a request and those that wait behind it, and answers them.
    fn take(&mut self, first: Submission, frames: &mut Vec<u8>, said: &mut Option<Instant>) -> Result<(), Ended> {
        frames.clear();
        let now = millis(&self.clock);
        self.keys.forget_old(now);
        let mut answers: Vec<(oneshot::Sender<Answer>, Answer)> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut evicted = false;
        let mut next = Some(first);
        while let Some(Submission {
            lines,
            rows,
            keyed,
            answer,
        }) = next
        {
            let known =
                keyed.and_then(|keyed| self.keys.get(&keyed.key).map(|(body, rows)| (body == keyed.body, rows)));
            let decided = match known {
                Some((true, rows)) => Answer::Taken { rows, again: true },
                Some((false, _)) => Answer::OtherBody,
                None => Answer::Taken { rows, again: false },
            };
            if known.is_none() && (rows > 0 || keyed.is_some()) {
                let head = Head {
                    rows,
                    bytes: lines.len() as u64,
                    at: now,
                    keyed,
                };
                frame::write(&head, &lines, frames);
                if let Some(entry) = Entry::of(&head) {
                    evicted |= self.keys.insert(&entry);
                    entries.push(entry);
                }
            }
            answers.push((answer, decided));
            next = match frames.len() < BATCH {
                true => self.submissions.try_recv().ok(),
                false => None,
            };
        }
        if evicted && said.is_none_or(|said| said.elapsed() >= SAY) {
            *said = Some(Instant::now());
            tracing::warn!(
                feed = self.hand.name(),
                "more idempotency keys came than [http] remember_most keeps: the oldest are forgotten early"
            );
        }
        let written = match frames.is_empty() {
            true => Ok(()),
            false => self.log.append(frames, &entries),
        };
        let failure = match written {
            Ok(()) => {
                if !frames.is_empty() {
                    self.hand.gauges.set_exhausted(false);
                    let _ = self.wake.try_send(()); // full: it is awake
                }
                for (answer, decided) in answers {
                    let _ = answer.send(decided); // who asked may have gone
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        for entry in entries.iter().rev() {
            self.keys.take_back(&entry.keyed.key);
        }
        match failure {
            // Some may be on the disk whole, and are taken by the next run: who asked is told that it is not known.
            Unwritten::Lost(error) => Err(self.failed(error).into()),
            Unwritten::Refused(error) => {
                let reason = error.to_string();
                for (answer, _) in answers {
                    let _ = answer.send(Answer::Unwritten(reason.clone()));
                }
                let feed = self.hand.name();
                tracing::error!(feed, %error, "requests could not be written, and were refused");
                self.hand
                    .gauges
                    .set_error(format!("requests could not be written: {reason}"));
                Ok(())
            }
        }
    }

    /// Removes what a snapshot holds, and what is forgotten.
    fn clean(&mut self) {
        let removed = self.log.remove_until(self.committed.next.load(Ordering::Acquire));
        let before = self.keys.horizon(millis(&self.clock));
        if let Err(error) = removed.and_then(|()| self.log.forget(before)) {
            // Tried again behind the next snapshot.
            tracing::warn!(feed = self.hand.name(), %error, "could not remove what snapshots hold of the log of requests");
        }
    }
}
