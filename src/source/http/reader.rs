//! The thread that reads the log of a feed's requests and hands the rows over.
//!
//! The offset of a record is that of its row's first byte; `Position::next` is the offset behind a row. If a position
//! lies within a request, the segment is read from its start, and rows before the position are skipped.
//!
//! If bytes of a segment are damaged, everything up to the next valid request becomes one record. No JSON decoder
//! accepts it, so it becomes a dead letter, and Bronze holds it. The bytes are also copied to a file beside the
//! segment, because segments are removed.
//!
//! If a segment cannot be read, or is missing although no snapshot holds it, the feed waits ([`FeedFault`]) while
//! requests are still accepted. A reader that rebuilds an input fails instead, because rows would be missing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use memchr::memchr;

use super::frame::{self, ParsedFrame};
use super::segments::{self, LogExtent};
use super::writer::millis;
use crate::repr::Position;
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::error::ReaderExit;
use crate::source::fault::FeedFault;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::ReaderOptions;
use crate::source::{Decode, SourceError};

/// How many bytes one read asks for, unless a request is longer.
const READ: u64 = 1 << 20;
/// The pause before a failed read is tried again.
const UNREAD: Duration = Duration::from_secs(1);

pub(super) struct HttpReader {
    handle: FeedHandle,
    decode: Decode,
    folder: PathBuf,
    extent: Arc<LogExtent>,
    partition: Arc<str>,
    /// The offset behind the last row that was handed over.
    next: u64,
    /// The segment being read, by its first offset; `at` is the offset of its next request.
    segment: Option<(u64, File)>,
    at: u64,
    buffer: Vec<u8>,
    wake: Receiver<()>,
    whole: bool,
    options: ReaderOptions,
    fault: FeedFault,
}

/// Why requests cannot be read now.
enum RequestsUnread {
    Ended(ReaderExit),
    /// They can be read once this cause is repaired.
    Waits(String),
}

impl From<ReaderExit> for RequestsUnread {
    fn from(ended: ReaderExit) -> Self {
        RequestsUnread::Ended(ended)
    }
}

/// The arguments of [`HttpReader::new`].
pub(super) struct HttpReaderSetup {
    pub folder: PathBuf,
    pub extent: Arc<LogExtent>,
    /// The position where it continues.
    pub next: u64,
    /// Receives a message when there is more to read.
    pub wake: Receiver<()>,
    /// Whether an input is being rebuilt, so that every row that ever arrived must be there.
    pub whole: bool,
    pub options: ReaderOptions,
}

impl HttpReader {
    pub fn new(handle: FeedHandle, decode: Decode, partition: Arc<str>, setup: HttpReaderSetup) -> HttpReader {
        let HttpReaderSetup {
            folder,
            extent,
            next,
            wake,
            whole,
            options,
        } = setup;
        HttpReader {
            handle,
            decode,
            folder,
            extent,
            partition,
            next,
            segment: None,
            at: 0,
            buffer: Vec::new(),
            wake,
            whole,
            options,
            fault: FeedFault::default(),
        }
    }

    pub fn read(mut self) -> Result<(), ReaderExit> {
        if self.whole && !self.extent.is_whole() {
            let missing = format!("segments are missing in {}: restore them", self.folder.display());
            return Err(self.failed(missing));
        }
        loop {
            let took = match self.turn() {
                Ok(took) => took,
                Err(RequestsUnread::Ended(ended)) => return Err(ended),
                Err(RequestsUnread::Waits(cause)) if self.whole => return Err(self.failed(cause)),
                Err(RequestsUnread::Waits(cause)) => {
                    self.segment = None;
                    self.observe_fault(Some(cause));
                    let lasts = self.fault.lasts();
                    self.handle.gauges.set_exhausted(lasts);
                    if lasts && self.options.stop_at_end {
                        return Ok(());
                    }
                    self.handle.sleep(UNREAD)?;
                    continue;
                }
            };
            self.observe_fault(None);
            self.handle.gauges.set_lag(0, self.extent.unread());
            if took {
                self.handle.check()?;
                continue;
            }
            self.handle.gauges.set_exhausted(true);
            if self.options.stop_at_end {
                return Ok(());
            }
            select! {
                recv(self.handle.stop) -> _ => return Err(ReaderExit::Stopped),
                recv(self.wake) -> woken => if woken.is_err() {
                    self.wake = never(); // the writer ended: one more look for its last rows
                },
            }
        }
    }

    /// Records why requests cannot be read now. A run that ends does not wait for them.
    fn observe_fault(&mut self, cause: Option<String>) {
        self.extent.is_stuck.store(cause.is_some(), Ordering::Release);
        self.fault.observe(&self.handle, &self.options, cause);
    }

    fn failed(&self, reason: String) -> ReaderExit {
        SourceError::RequestLog {
            feed: self.handle.name(),
            source: Arc::new(std::io::Error::other(reason)),
        }
        .into()
    }

    /// Hands over some requests; returns whether there were any.
    fn turn(&mut self) -> Result<bool, RequestsUnread> {
        let Some((base, end)) = self.extent.behind(self.next) else {
            return Ok(false);
        };
        if self.next > 0 && base > self.next {
            return Err(RequestsUnread::Waits(format!(
                "the log of posted rows in {} goes on at {base}, and was read up to {}: what lies between is gone; restore the \
                 folder and start the run again, or start with a new lake",
                self.folder.display(),
                self.next
            )));
        }
        self.handle.gauges.set_exhausted(false);
        if self.segment.as_ref().is_none_or(|(open, _)| *open != base) {
            let file = File::open(segments::path(&self.folder, base)).map_err(|error| self.waits(base, &error))?;
            self.segment = Some((base, file));
            self.at = base;
        }
        let mut ask = READ.min(end - self.at);
        let damaged = loop {
            self.fill(base, ask)?;
            match frame::read(&self.buffer) {
                ParsedFrame::Whole(..) => break None,
                ParsedFrame::Short(length) if length as u64 <= end - self.at => ask = length as u64,
                ParsedFrame::Short(_) | ParsedFrame::Broken => {
                    self.fill(base, end - self.at)?;
                    break Some(frame::next_whole(&self.buffer).unwrap_or(self.buffer.len()));
                }
            }
        };
        let buffer = std::mem::take(&mut self.buffer);
        let handed = match damaged {
            None => self.hand_over(&buffer),
            Some(length) => self.hand_over_damaged(base, &buffer[..length]),
        };
        // A buffer that grew for a large request or for damaged bytes is not kept.
        if buffer.len() as u64 <= 2 * READ {
            self.buffer = buffer;
        }
        handed?;
        Ok(true)
    }

    /// Reads this number of bytes at the reader's offset.
    fn fill(&mut self, base: u64, bytes: u64) -> Result<(), RequestsUnread> {
        let (_, file) = self.segment.as_ref().expect("a segment is opened before it is read");
        self.buffer.resize(bytes as usize, 0);
        let read = file.read_exact_at(&mut self.buffer, self.at - base);
        read.map_err(|error| self.waits(base, &error))
    }

    fn waits(&self, base: u64, error: &std::io::Error) -> RequestsUnread {
        let segment = segments::path(&self.folder, base);
        RequestsUnread::Waits(format!(
            "could not read {} of posted rows: {error}; let it be read, or restore it",
            segment.display()
        ))
    }

    /// Hands over damaged bytes, which were a request once, as one record.
    fn hand_over_damaged(&mut self, base: u64, bytes: &[u8]) -> Result<(), ReaderExit> {
        let (at, behind) = (self.at, self.at + bytes.len() as u64);
        if behind > self.next {
            let segment = segments::path(&self.folder, base);
            let aside = segments::damaged_path(&self.folder, at);
            let saved = std::fs::write(&aside, bytes);
            let wrong = format!(
                "the log of posted rows {} is damaged at byte {}: {} bytes that were acknowledged are a dead letter, and are \
                 kept in {}; look at the disk, and post their rows again, under a new key",
                segment.display(),
                at - base,
                bytes.len(),
                aside.display()
            );
            let saved = saved.err().map(|error| error.to_string());
            tracing::error!(feed = self.handle.name(), not_kept = saved, "{wrong}");
            self.handle.gauges.set_error(wrong);
            let mut batch = BatchBuilder::new(self.handle.limits);
            batch.push(SourceRecord {
                // Rows of the request may have been handed over before it was damaged.
                offset: at.max(self.next),
                value: Some(bytes),
                ..SourceRecord::default()
            });
            self.deliver(&mut batch, behind, Instant::now())?;
        }
        self.at = behind;
        Ok(())
    }

    /// Hands over the complete requests at the start of `buffer`.
    fn hand_over(&mut self, buffer: &[u8]) -> Result<(), ReaderExit> {
        let mut batch = BatchBuilder::new(self.handle.limits);
        let mut arrived = Instant::now();
        let mut rest = buffer;
        while let ParsedFrame::Whole(head, lines, length) = frame::read(rest) {
            let mut offset = self.at + (length - lines.len()) as u64;
            let mut lines = lines;
            while let Some(end) = memchr(b'\n', lines) {
                let behind = offset + end as u64 + 1;
                if offset >= self.next {
                    if batch.is_empty() {
                        arrived = self.arrived(head.at);
                    }
                    batch.push(SourceRecord {
                        offset,
                        value: Some(&lines[..end]),
                        ts_ms: i64::try_from(head.at).ok(),
                        ..SourceRecord::default()
                    });
                    if batch.is_full() {
                        self.deliver(&mut batch, behind, arrived)?;
                    }
                }
                offset = behind;
                lines = &lines[end + 1..];
            }
            self.at += length as u64;
            rest = &rest[length..];
        }
        if !batch.is_empty() {
            self.deliver(&mut batch, self.at, arrived)?;
        }
        // Requests without rows also move the position.
        self.next = self.next.max(self.at);
        self.extent.taken.store(self.next, Ordering::Release);
        Ok(())
    }

    fn deliver(&mut self, batch: &mut BatchBuilder, next: u64, arrived: Instant) -> Result<(), ReaderExit> {
        let position = Position {
            next,
            done: false,
            tag: None,
            ..Position::default()
        };
        let raw = batch.finish(None);
        self.handle
            .deliver(&mut self.decode, &self.partition, raw, position, arrived)?;
        self.next = next;
        self.extent.taken.store(next, Ordering::Release);
        Ok(())
    }

    /// When a request arrived, by this machine's clock. `at` is in Unix milliseconds.
    fn arrived(&self, at: u64) -> Instant {
        let now = Instant::now();
        let age = Duration::from_millis(millis(&self.options.clock).saturating_sub(at));
        now.checked_sub(age).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHead;
    use super::super::keys::IdempotencyKeys;
    use super::super::segments::Segments;
    use super::*;
    use crate::definition::{FeedKind, Format, HttpFeed};
    use crate::source::batch::{BatchLimits, nothing};
    use crate::source::feed_handle::WorkerChannel;
    use crate::source::in_flight::InFlightBudget;
    use crate::source::tests::{dataflow, input};
    use crate::source::{Delivery, Share};

    /// Writes a segment with one row.
    fn segment(folder: &std::path::Path, row: &str) {
        let mut keys = IdempotencyKeys::new(Duration::from_secs(1000), 1000);
        let mut log = Segments::open(folder, 0, false, false, &mut keys).unwrap();
        let head = FrameHead {
            rows: 1,
            bytes: row.len() as u64 + 1,
            at: 0,
            keyed: None,
        };
        let mut bytes = Vec::new();
        frame::write(&head, format!("{row}\n").as_bytes(), &mut bytes);
        log.append(&bytes, &[]).unwrap();
        log.close().unwrap();
    }

    /// Reads the log to its end; returns the number of rows and the fault for which the feed waits.
    fn read(folder: &std::path::Path, next: u64) -> (usize, Option<String>) {
        let flow = dataflow(vec![input("i", vec![("f", FeedKind::Http(HttpFeed), Format::Json)])]);
        let (sender, deliveries) = crossbeam_channel::unbounded();
        let (_stop, stopped) = crossbeam_channel::bounded(0);
        let handle = FeedHandle {
            dataflow: flow.clone(),
            input: 0,
            feed: 0,
            channels: [WorkerChannel {
                together: sender.clone(),
                sender,
                wake: Arc::new(|| {}),
            }]
            .into(),
            stop: stopped,
            gauges: Arc::default(),
            coordinator: None,
            limits: BatchLimits {
                rows: 100,
                bytes: 1000,
                record: 1000,
            },
            patience: Duration::ZERO,
            room: InFlightBudget::of_limit(None),
            share: Share::default(),
        };
        let gauges = handle.gauges.clone();
        let decode: Decode = Box::new(move |raw| {
            let mut decoded = nothing(&flow.inputs[0], None);
            decoded.raw = raw;
            Ok(decoded)
        });
        let (_wake, woken) = crossbeam_channel::bounded(1);
        let setup = HttpReaderSetup {
            folder: folder.to_path_buf(),
            extent: Arc::new(segments::look(folder).unwrap()),
            next,
            wake: woken,
            whole: false,
            options: ReaderOptions {
                stop_at_end: true,
                retries: 0,
                ..ReaderOptions::default()
            },
        };
        let ended = HttpReader::new(handle, decode, "0".into(), setup).read();
        assert!(ended.is_ok() && gauges.exhausted(), "{ended:?}");
        let rows = |delivery: Delivery| delivery.decoded.raw.len();
        (deliveries.try_iter().map(rows).sum(), gauges.waits_for())
    }

    /// A segment missing from the middle of the log was silently skipped; one missing from its start ended the run.
    #[test]
    fn a_segment_of_posted_rows_that_is_gone_makes_its_feed_wait() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for row in ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"] {
            segment(folder, row);
        }
        let length = std::fs::metadata(segments::path(folder, 0)).unwrap().len();
        assert_eq!(read(folder, 0), (3, None));
        for (lost, came) in [(0, 0), (length, 1)] {
            let path = segments::path(folder, lost);
            let aside = path.with_extension("aside");
            std::fs::rename(&path, &aside).unwrap();
            let (rows, cause) = read(folder, 1);
            assert_eq!(rows, came, "{lost}");
            assert!(cause.is_some_and(|cause| cause.contains("what lies between is gone")));
            std::fs::rename(&aside, &path).unwrap();
            assert_eq!(read(folder, 1), (3, None));
        }
    }
}
