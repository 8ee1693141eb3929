//! The thread that reads the log of a feed's requests, and hands it over.
//!
//! A record's offset is that of its row's first byte; `Position::next` is the one behind a row. Where a position lies within
//! a request, the segment is read from its start, and rows before the position are passed over.
//!
//! Where bytes of a segment are damaged, all that stands before the next whole request becomes one record, which no decoder
//! of JSON takes: it is a dead letter, and Bronze keeps it. The bytes are kept in a file beside the segment, too, for segments go.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use memchr::memchr;

use super::frame::{self, Found};
use super::segments::{self, Extent};
use super::writer::millis;
use crate::source::batch::{BatchBuilder, Record};
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::Clock;
use crate::source::{Decode, Position, SourceError};

/// How many bytes one read asks for; a longer request makes it more.
const READ: u64 = 1 << 20;

pub(super) struct Reader {
    hand: Hand,
    decode: Decode,
    folder: PathBuf,
    extent: Arc<Extent>,
    partition: Arc<str>,
    /// Behind the last row that was handed over.
    next: u64,
    /// The segment that is read: where it begins, and where its next request does.
    segment: Option<(u64, File)>,
    at: u64,
    buffer: Vec<u8>,
    wake: Receiver<()>,
    whole: bool,
    stop_at_end: bool,
    clock: Clock,
}

/// How a reader is set up.
pub(super) struct Setup {
    pub folder: PathBuf,
    pub extent: Arc<Extent>,
    /// Where it goes on.
    pub next: u64,
    /// Told when more is there.
    pub wake: Receiver<()>,
    /// An input is made again: all that ever came must be there.
    pub whole: bool,
    pub stop_at_end: bool,
    pub clock: Clock,
}

impl Reader {
    pub fn new(hand: Hand, decode: Decode, partition: Arc<str>, setup: Setup) -> Reader {
        let Setup {
            folder,
            extent,
            next,
            wake,
            whole,
            stop_at_end,
            clock,
        } = setup;
        Reader {
            hand,
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
            stop_at_end,
            clock,
        }
    }

    pub fn read(mut self) -> Result<(), Ended> {
        if let Some(start) = self.extent.start().filter(|start| self.next > 0 && *start > self.next) {
            return Err(SourceError::RequestsGone {
                feed: self.hand.name(),
                folder: self.folder.clone(),
                next: self.next,
                start,
            }
            .into());
        }
        if self.whole && !self.extent.is_whole() {
            let missing = format!("segments are missing in {}: restore them", self.folder.display());
            return Err(self.failed(std::io::Error::other(missing)));
        }
        loop {
            let took = self.turn()?;
            self.hand.gauges.set_lag(0, self.extent.unread());
            if took {
                self.hand.check()?;
                continue;
            }
            self.hand.gauges.set_exhausted(true);
            if self.stop_at_end {
                return Ok(());
            }
            select! {
                recv(self.hand.stop) -> _ => return Err(Ended::Stopped),
                recv(self.wake) -> woken => if woken.is_err() {
                    self.wake = never(); // and what it wrote last is looked at once more
                },
            }
        }
    }

    fn failed(&self, error: std::io::Error) -> Ended {
        SourceError::RequestLog {
            feed: self.hand.name(),
            source: Arc::new(error),
        }
        .into()
    }

    /// Hands over some requests; says whether there were any.
    fn turn(&mut self) -> Result<bool, Ended> {
        let Some((base, end)) = self.extent.behind(self.next) else {
            return Ok(false);
        };
        self.hand.gauges.set_exhausted(false);
        if self.segment.as_ref().is_none_or(|(open, _)| *open != base) {
            let file = File::open(segments::path(&self.folder, base)).map_err(|error| self.failed(error))?;
            self.segment = Some((base, file));
            self.at = base;
        }
        let mut ask = READ.min(end - self.at);
        let damaged = loop {
            self.fill(base, ask)?;
            match frame::read(&self.buffer) {
                Found::Whole(..) => break None,
                Found::Short(length) if length as u64 <= end - self.at => ask = length as u64,
                Found::Short(_) | Found::Broken => {
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
        // A request may be large, and what is damaged is read with all that follows.
        if buffer.len() as u64 <= 2 * READ {
            self.buffer = buffer;
        }
        handed.map(|()| true)
    }

    /// Reads so many bytes from where the reader is.
    fn fill(&mut self, base: u64, bytes: u64) -> Result<(), Ended> {
        let (_, file) = self.segment.as_ref().expect("a segment is opened before it is read");
        self.buffer.resize(bytes as usize, 0);
        let read = file.read_exact_at(&mut self.buffer, self.at - base);
        read.map_err(|error| self.failed(error))
    }

    /// Hands over bytes that are no request, and were once, as one record.
    fn hand_over_damaged(&mut self, base: u64, bytes: &[u8]) -> Result<(), Ended> {
        let (at, behind) = (self.at, self.at + bytes.len() as u64);
        if behind > self.next {
            let segment = segments::path(&self.folder, base);
            let aside = segments::damaged_path(&self.folder, at);
            let kept = std::fs::write(&aside, bytes);
            let wrong = format!(
                "the log of posted rows {} is damaged at byte {}: {} bytes that were acknowledged are a dead letter, and are \
                 kept in {}; look at the disk, and post their rows again, under a new key",
                segment.display(),
                at - base,
                bytes.len(),
                aside.display()
            );
            let kept = kept.err().map(|error| error.to_string());
            tracing::error!(feed = self.hand.name(), not_kept = kept, "{wrong}");
            self.hand.gauges.set_error(wrong);
            let mut batch = BatchBuilder::new(self.hand.limits);
            batch.push(Record {
                // Rows of it may have been handed over before it was damaged.
                offset: at.max(self.next),
                value: Some(bytes),
                ..Record::default()
            });
            self.deliver(&mut batch, behind, Instant::now())?;
        }
        self.at = behind;
        Ok(())
    }

    /// Hands over the whole requests in a buffer, which begins with one.
    fn hand_over(&mut self, buffer: &[u8]) -> Result<(), Ended> {
        let mut batch = BatchBuilder::new(self.hand.limits);
        let mut arrived = Instant::now();
        let mut rest = buffer;
        while let Found::Whole(head, lines, length) = frame::read(rest) {
            let mut offset = self.at + (length - lines.len()) as u64;
            let mut lines = lines;
            while let Some(end) = memchr(b'\n', lines) {
                let behind = offset + end as u64 + 1;
                if offset >= self.next {
                    if batch.is_empty() {
                        arrived = self.arrived(head.at);
                    }
                    batch.push(Record {
                        offset,
                        value: Some(&lines[..end]),
                        ts_ms: i64::try_from(head.at).ok(),
                        ..Record::default()
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
        // Also over requests without rows.
        self.next = self.next.max(self.at);
        self.extent.taken.store(self.next, Ordering::Release);
        Ok(())
    }

    fn deliver(&mut self, batch: &mut BatchBuilder, next: u64, arrived: Instant) -> Result<(), Ended> {
        let position = Position {
            next,
            done: false,
            tag: None,
            ..Position::default()
        };
        let raw = batch.take(None);
        self.hand
            .deliver(&mut self.decode, &self.partition, raw, position, arrived)?;
        self.next = next;
        self.extent.taken.store(next, Ordering::Release);
        Ok(())
    }

    /// When a request was there, by this machine's clock.
    fn arrived(&self, at: u64) -> Instant {
        let now = Instant::now();
        let age = Duration::from_millis(millis(&self.clock).saturating_sub(at));
        now.checked_sub(age).unwrap_or(now)
    }
}
