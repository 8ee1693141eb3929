//! The thread that writes the requests of one feed to the disk.
//!
//! 1. All waiting requests are written together and synced once: the longer a sync takes, the more requests share the
//!    next one.
//! 2. One thread checks keys, in the order in which requests are written. Of two requests with one key, the second
//!    finds the first even if both are waiting, and is answered when the first is on the disk.
//! 3. The thread ends when no more requests can be submitted, after it has written and answered all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, never, select};
use tokio::sync::oneshot;

use super::frame::{self, FrameHead, IdempotencyRecord};
use super::keys::{IdempotencyKeys, KeyedRequest};
use super::segments::{Segments, Unwritten};
use crate::source::SourceError;
use crate::source::error::ReaderExit;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::WallClock;

/// How many bytes are written at once; the last request may exceed it.
const BATCH: usize = 4 << 20;
/// The least interval between two warnings that keys are forgotten early.
const SAY: Duration = Duration::from_secs(60);

/// A request whose rows are to be written.
pub(super) struct Submission {
    /// One row per line.
    pub lines: Vec<u8>,
    pub rows: u64,
    pub keyed: Option<IdempotencyRecord>,
    pub answer: oneshot::Sender<SubmissionOutcome>,
}

/// The result of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubmissionOutcome {
    /// Its rows are on the disk. `again` means that an earlier request with this key wrote them.
    Taken { rows: u64, again: bool },
    /// Its key was used before with another body.
    OtherBody,
    /// Nothing of it was written.
    Unwritten(String),
}

/// How far snapshots hold the log; others update it.
#[derive(Clone)]
pub(super) struct Committed {
    pub next: Arc<AtomicU64>,
    pub notified: Receiver<()>,
}

pub(super) struct SegmentWriter {
    pub handle: FeedHandle,
    pub log: Segments,
    pub keys: IdempotencyKeys,
    pub submissions: Receiver<Submission>,
    pub committed: Committed,
    /// Wakes the log's reader.
    pub wake: Sender<()>,
    /// Set once nothing more will be written.
    pub ended: Arc<AtomicBool>,
    pub clock: WallClock,
}

/// Unix milliseconds.
pub(super) fn millis(clock: &WallClock) -> u64 {
    let since = clock().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl SegmentWriter {
    pub fn write(mut self) -> Result<(), ReaderExit> {
        let mut said: Option<Instant> = None;
        let mut frames = Vec::new();
        loop {
            select! {
                recv(self.submissions) -> first => match first {
                    Ok(first) => self.take(first, &mut frames, &mut said)?,
                    Err(_) => break,
                },
                recv(self.committed.notified) -> notified => match notified {
                    Ok(()) => self.clean(),
                    Err(_) => self.committed.notified = never(),
                },
            }
        }
        self.log.close().map_err(|error| self.failed(error))?;
        self.ended.store(true, Ordering::Release);
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> SourceError {
        SourceError::RequestLog {
            feed: self.handle.name(),
            source: Arc::new(error),
        }
    }

    /// Writes a request together with those that wait behind it, and answers them.
    fn take(&mut self, first: Submission, frames: &mut Vec<u8>, said: &mut Option<Instant>) -> Result<(), ReaderExit> {
        frames.clear();
        let now = millis(&self.clock);
        self.keys.forget_old(now);
        let mut answers: Vec<(oneshot::Sender<SubmissionOutcome>, SubmissionOutcome)> = Vec::new();
        let mut entries: Vec<KeyedRequest> = Vec::new();
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
                Some((true, rows)) => SubmissionOutcome::Taken { rows, again: true },
                Some((false, _)) => SubmissionOutcome::OtherBody,
                None => SubmissionOutcome::Taken { rows, again: false },
            };
            if known.is_none() && (rows > 0 || keyed.is_some()) {
                let head = FrameHead {
                    rows,
                    bytes: lines.len() as u64,
                    at: now,
                    keyed,
                };
                frame::write(&head, &lines, frames);
                if let Some(entry) = KeyedRequest::from_head(&head) {
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
                feed = self.handle.name(),
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
                    self.handle.gauges.set_exhausted(false);
                    let _ = self.wake.try_send(()); // full: the reader will look anyway
                }
                for (answer, decided) in answers {
                    let _ = answer.send(decided); // the client may be gone
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        for entry in entries.iter().rev() {
            self.keys.take_back(&entry.keyed.key);
        }
        match failure {
            // Some requests may be complete on the disk, and the next run reads them. Their clients are told that
            // the outcome is unknown.
            Unwritten::Lost(error) => Err(self.failed(error).into()),
            Unwritten::Refused(error) => {
                let reason = error.to_string();
                for (answer, _) in answers {
                    let _ = answer.send(SubmissionOutcome::Unwritten(reason.clone()));
                }
                let feed = self.handle.name();
                tracing::error!(feed, %error, "requests could not be written, and were refused");
                self.handle
                    .gauges
                    .set_error(format!("requests could not be written: {reason}"));
                Ok(())
            }
        }
    }

    /// Removes segments that a snapshot holds, and expired keys.
    fn clean(&mut self) {
        let removed = self.log.remove_until(self.committed.next.load(Ordering::Acquire));
        let before = self.keys.horizon(millis(&self.clock));
        if let Err(error) = removed.and_then(|()| self.log.forget(before)) {
            // The next snapshot triggers another attempt.
            tracing::warn!(feed = self.handle.name(), %error, "could not remove what snapshots hold of the log of requests");
        }
    }
}
