//! The `log` feed: follows a folder with one append-only NDJSON file per partition.
//!
//! 1. A record's offset is the byte where its line starts; `Position::next` is the byte behind the last whole line
//!    that was handed over. A line without its end is waited for.
//! 2. Partitions take turns, a batch each, so that one with a backlog does not keep the others waiting.
//! 3. A line that is no record (broken, or an object without `value`) is handed on whole, as a value: its decoder
//!    takes it or rejects it with its bytes. `verify`, which sees payloads alone, then judges as the run did.
//! 4. What reading stopped at must still be there: a log that lost bytes ends the feed.
//! 5. A log is text. Of formats whose records may be none, keys and values are JSON strings of base64; what is no such
//!    string is taken as it is written.
//!
//! One thread per feed looks at every partition's size: often while records come, less often while none do.
//!
//! When a record arrived, only its writer knows. A look finds that bytes came since the look before; the file's own time
//! is that of the last write. So a line that came alone arrived at the file's time, and of several that came between
//! two looks each counts from the look before: latencies are overstated by at most the time between looks (5 ms while
//! records come, up to 50 ms after a pause), and never understated.

mod envelope;
mod writer;

pub use writer::{LogRecord, LogWriter};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memrchr};

use super::batch::{BatchBuilder, Record};
use super::outlet::{Ended, Hand};
use super::readers::{ReaderOptions, Starter};
use super::{Decode, Position, Progress, SourceError};
use envelope::Envelope;

/// Takes a line `{"key": ..., "value": ..., "ts_ms": ..., "headers": {...}}` apart. None: it is no such object.
pub fn parse_record(line: &[u8]) -> Option<LogRecord<'_>> {
    let Envelope {
        key,
        value,
        headers,
        ts_ms,
    } = envelope::parse(line)?;
    Some(LogRecord {
        key,
        value,
        headers,
        ts_ms,
    })
}

/// How many bytes one read asks for, at first; a longer line makes it grow.
const READ_BYTES: usize = 1 << 20;

/// Starts the feed's thread.
pub(crate) fn start(starter: &mut Starter, hand: Hand, folder: &Path, resume: &Progress) -> Result<(), SourceError> {
    let positions = hand
        .positions(resume)
        .filter(|(name, _)| hand.reads(name))
        .map(|(name, position)| (name.to_string(), position.next))
        .collect();
    let (options, decoders) = (starter.options.clone(), starter.decoders.clone());
    let folder = folder.to_path_buf();
    starter.spawn(&hand, move |hand| {
        let decode = decoders(hand.input, hand.feed);
        Follower {
            hand,
            options,
            folder,
            decode,
            positions,
            partitions: BTreeMap::new(),
            buffer: Vec::new(),
        }
        .follow()
    })
}

/// The bytes that stand as base64 in a JSON string, or what is written.
fn bytes_of(written: &[u8]) -> Cow<'_, [u8]> {
    let quoted = written.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let decoded = quoted.and_then(|text| STANDARD.decode(text).ok());
    decoded.map_or(Cow::Borrowed(written), Cow::Owned)
}

fn plain(written: &[u8], is_binary: bool) -> Cow<'_, [u8]> {
    match is_binary {
        true => bytes_of(written),
        false => Cow::Borrowed(written),
    }
}

/// A partition's file and how far it is read.
struct Partition {
    name: Arc<str>,
    path: PathBuf,
    file: File,
    next: u64,
    /// How long the file is, when it was looked at last.
    size: u64,
    /// When it was looked at last.
    looked: Instant,
    /// The bytes from here up to `size` came between the last two looks.
    fresh: u64,
    /// The look before the last: a record of those bytes arrived no earlier.
    seen: Instant,
    /// When the last of those bytes were written.
    written: Instant,
    /// An unfinished line is known to start at `next` and to reach to here.
    torn: u64,
}

struct Follower {
    hand: Hand,
    options: ReaderOptions,
    folder: PathBuf,
    decode: Decode,
    /// Of partitions not yet opened.
    positions: BTreeMap<String, u64>,
    partitions: BTreeMap<Arc<str>, Partition>,
    buffer: Vec<u8>,
}

impl Follower {
    fn follow(mut self) -> Result<(), Ended> {
        self.find_partitions()?;
        // Progress without a file: the log lost all of its bytes.
        if let Some((name, position)) = self.positions.iter().find(|(_, next)| **next > 0) {
            let path = self.folder.join(format!("{name}.ndjson"));
            return Err(SourceError::LogShrank {
                feed: self.hand.name(),
                path,
                size: 0,
                position: *position,
            }
            .into());
        }
        let mut pause = self.options.log_poll;
        let mut looked_for_partitions = Instant::now();
        loop {
            let mut took = 0;
            let names: Vec<Arc<str>> = self.partitions.keys().cloned().collect();
            for name in &names {
                took += self.turn(name)?;
            }
            self.report_lag();
            if took > 0 {
                pause = self.options.log_poll;
                self.hand.check()?;
                continue;
            }
            if looked_for_partitions.elapsed() >= self.options.log_idle_poll {
                looked_for_partitions = Instant::now();
                if self.find_partitions()? {
                    continue;
                }
            }
            self.hand.gauges.set_exhausted(true);
            if self.options.stop_at_end {
                return Ok(());
            }
            self.hand.sleep(pause)?;
            pause = (pause * 2).min(self.options.log_idle_poll.max(self.options.log_poll));
        }
    }

    fn error(&self, path: &Path, error: std::io::Error) -> Ended {
        SourceError::Log {
            feed: self.hand.name(),
            path: path.to_path_buf(),
            source: Arc::new(error),
        }
        .into()
    }

    /// Opens partitions that are new. A folder that is not there yet has none.
    fn find_partitions(&mut self) -> Result<bool, Ended> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(|e| self.error(&self.folder, e))?,
        };
        let mut found = false;
        for entry in entries {
            let path = entry.map_err(|e| self.error(&self.folder, e))?.path();
            let Some(name) = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.strip_suffix(".ndjson"))
            else {
                continue;
            };
            if name.starts_with(['.', '_']) || self.partitions.contains_key(name) || !self.hand.reads(name) {
                continue;
            }
            let partition = self.open(name, &path)?;
            self.positions.remove(name);
            self.partitions.insert(partition.name.clone(), partition);
            found = true;
        }
        Ok(found)
    }

    fn open(&self, name: &str, path: &Path) -> Result<Partition, Ended> {
        let mut file = File::open(path).map_err(|e| self.error(path, e))?;
        let next = self.positions.get(name).copied().unwrap_or(0);
        let size = file.metadata().map_err(|e| self.error(path, e))?.len();
        let (feed, path) = (self.hand.name(), path.to_path_buf());
        if size < next {
            return Err(SourceError::LogShrank {
                feed,
                path,
                size,
                position: next,
            }
            .into());
        }
        if next > 0 {
            let mut last = [0];
            let read = file
                .seek(SeekFrom::Start(next - 1))
                .and_then(|_| file.read_exact(&mut last));
            read.map_err(|e| self.error(&path, e))?;
            if last != *b"\n" {
                return Err(SourceError::LogRewritten {
                    feed,
                    path,
                    position: next,
                }
                .into());
            }
        }
        let now = Instant::now();
        Ok(Partition {
            name: name.into(),
            path,
            file,
            next,
            size: next,
            looked: now,
            fresh: next,
            seen: now,
            written: now,
            torn: next,
        })
    }

    fn report_lag(&self) {
        let lag = self.partitions.values().map(|p| p.size - p.next).sum();
        self.hand.gauges.set_lag(0, lag);
    }

    /// Hands over one batch of a partition, if whole lines are there; returns how many bytes it took.
    fn turn(&mut self, name: &Arc<str>) -> Result<u64, Ended> {
        let mut partition = self.partitions.remove(name).expect("named from the map's own keys");
        let took = self.take_batch(&mut partition);
        self.partitions.insert(name.clone(), partition);
        took
    }

    fn take_batch(&mut self, partition: &mut Partition) -> Result<u64, Ended> {
        // By the bytes of the last look, before a new one moves `seen`.
        if partition.size == partition.torn.max(partition.next) {
            self.look(partition)?;
            if partition.size == partition.torn.max(partition.next) {
                return Ok(0);
            }
        }
        self.hand.gauges.set_exhausted(false);
        let mut ask = READ_BYTES;
        let lines = loop {
            let length = ask.min((partition.size - partition.next) as usize);
            self.buffer.resize(length, 0);
            let read = partition.file.seek(SeekFrom::Start(partition.next));
            let read = read.and_then(|_| partition.file.read_exact(&mut self.buffer));
            read.map_err(|e| self.error(&partition.path, e))?;
            if let Some(end) = memrchr(b'\n', &self.buffer) {
                break end + 1;
            }
            if partition.next + length as u64 == partition.size && length <= self.options.record_bytes {
                partition.torn = partition.size; // by (1)
                return Ok(0);
            }
            if length > self.options.record_bytes {
                return Err(SourceError::LineTooLong {
                    feed: self.hand.name(),
                    path: partition.path.clone(),
                    position: partition.next,
                    limit: self.options.record_bytes,
                }
                .into());
            }
            ask *= 4;
        };
        let (mut at, start) = (0, partition.next);
        let arrived = partition.arrived(&self.buffer[..lines]);
        let mut batch = BatchBuilder::new(self.hand.limits);
        let is_binary = self.hand.feed().format.is_binary();
        while at < lines {
            let length = memchr(b'\n', &self.buffer[at..lines]).expect("by the loop above a line's end is last");
            let line = self.buffer[at..at + length].trim_ascii();
            if !line.is_empty() {
                let parsed = envelope::parse(line);
                let is_binary = is_binary && parsed.is_some(); // by (3) and (5)
                let e = parsed.unwrap_or(Envelope {
                    value: Some(line),
                    ..Envelope::default()
                });
                let key = e.key.map(|key| plain(key, is_binary));
                let value = e.value.map(|value| plain(value, is_binary));
                batch.push(Record {
                    offset: start + at as u64,
                    key: key.as_deref(),
                    value: value.as_deref(),
                    headers: e.headers.and_then(|headers| std::str::from_utf8(headers).ok()),
                    ts_ms: e.ts_ms,
                    cut_from: None,
                });
            }
            at += length + 1;
            if batch.is_full() || (at == lines && !batch.is_empty()) {
                let position = Position {
                    next: start + at as u64,
                    done: false,
                    tag: None,
                };
                let (name, raw) = (&partition.name, batch.take(None));
                self.hand.deliver(&mut self.decode, name, raw, position, arrived)?;
            }
        }
        partition.next = start + lines as u64;
        partition.torn = partition.next;
        Ok(lines as u64)
    }

    /// Looks how long a partition's file is, and when it was written last.
    fn look(&self, partition: &mut Partition) -> Result<(), Ended> {
        let metadata = match std::fs::metadata(&partition.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            metadata => Some(metadata.map_err(|e| self.error(&partition.path, e))?),
        };
        let size = metadata.as_ref().map_or(0, |m| m.len());
        let now = Instant::now();
        if size < partition.next {
            let (feed, path) = (self.hand.name(), partition.path.clone());
            return Err(SourceError::LogShrank {
                feed,
                path,
                size,
                position: partition.next,
            }
            .into());
        }
        let written = metadata
            .and_then(|m| m.modified().ok())
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        let written = written.and_then(|age| now.checked_sub(age));
        partition.written = written.map_or(partition.looked, |at| at.clamp(partition.looked, now));
        partition.seen = std::mem::replace(&mut partition.looked, now);
        partition.fresh = std::mem::replace(&mut partition.size, size);
        Ok(())
    }
}

impl Partition {
    /// When whole lines that start at `next` arrived: with the last write if it is one line, and the last; otherwise as
    /// early as they may have.
    fn arrived(&self, lines: &[u8]) -> Instant {
        let last = self.next + lines.len() as u64 == self.size;
        let fresh = &lines[(self.fresh.saturating_sub(self.next) as usize).min(lines.len())..];
        let alone = memchr(b'\n', fresh).is_some_and(|end| end + 1 == fresh.len());
        let old = lines.len() - fresh.len();
        let whole_before = memchr(b'\n', &lines[..old]).is_some();
        if last && alone && !whole_before {
            self.written
        } else {
            self.seen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Of two records that came between two looks, the first seemed to have arrived with the second: what the report said of
    /// a stream's latency was too good by half the time between looks.
    #[test]
    fn no_record_counts_as_arrived_later_than_it_may_have() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let partition = |next: u64, fresh: u64, size: u64| Partition {
            name: "0".into(),
            path: PathBuf::new(),
            file: tempfile::tempfile().expect("a file"),
            next,
            size,
            looked: at(50),
            fresh,
            seen: at(0),
            written: at(40),
            torn: next,
        };
        // One line, whole or begun before the look before.
        assert_eq!(partition(10, 10, 14).arrived(b"one\n"), at(40));
        assert_eq!(partition(10, 12, 14).arrived(b"one\n"), at(40));
        // The last write may have been of the second, or of what follows.
        assert_eq!(partition(10, 10, 18).arrived(b"one\ntwo\n"), at(0));
        assert_eq!(partition(10, 10, 16).arrived(b"one\n"), at(0));
        // Part of a backlog.
        assert_eq!(partition(10, 14, 18).arrived(b"one\ntwo\n"), at(0));
    }
}
