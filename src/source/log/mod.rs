//! The `log` feed: follows a folder with one append-only NDJSON file per partition.
//!
//! 1. A record's offset is the byte where its line starts; `Position::next` is the byte behind the last complete line
//!    that was handed over. A line without a line end is not read yet.
//! 2. Partitions take turns, one batch each, so that one with a backlog does not keep the others waiting.
//! 3. A line that is no record (broken, or an object without `value`) is handed over whole, as a value: its decoder
//!    accepts it or rejects it with its bytes. So `verify`, which sees only payloads, decides as the run did.
//! 4. The part that was read must still be there. A partition that lost bytes, was rewritten or is gone is not read
//!    until that part is restored, nor is one that cannot be read; other partitions are read, and the feed waits
//!    ([`FeedFault`]). A file that replaces another is opened, and checked in the same way. With `on_missing =
//!    "earliest"` the present file is read from its beginning instead: its offsets continue where the earlier ones
//!    ended ([`Position::base`](super::Position::base)), and a dead letter reports it. A log is recognised by its
//!    length and by the first and last bytes that were read ([`mark`]). This is checked when it is opened, when it
//!    changed without growing, and after each read.
//! 5. A log is text. If a format's records may be binary, keys and values are JSON strings of base64; anything else
//!    is taken literally.
//! 6. Only regular files are opened, and links may lead out of the folder only if the feed allows it. Files that are
//!    left out are reported, whatever the reason.
//! 7. A line above `max_record` is a dead letter with its first bytes. It is skipped in pieces and never buffered as
//!    a whole.
//!
//! One thread per feed polls the size of every partition: often while records arrive, less often while none do.
//!
//! Only the writer knows when a record arrived. A poll shows that bytes were added since the poll before, and the
//! file's modification time is that of the last write. So a line that arrived alone counts from the modification
//! time, and several lines that arrived between two polls count from the earlier poll: latencies are overstated by at
//! most the interval of polls (5 ms while records arrive, up to 50 ms after a pause), and never understated.

mod connector;
mod envelope;
mod mark;
mod partition;
mod renamed;
mod writer;

pub use crate::repr::LogMark;
pub use writer::{LogRecord, LogWriter};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memrchr};

use super::Decode;
use super::batch::{BatchBuilder, SourceRecord};
use super::error::ReaderExit;
use super::fault::FeedFault;
use super::feed_handle::FeedHandle;
use super::files::what_is_in;
use super::guard::open_regular;
use super::kept_open::KeptOpen;
use super::names::partition_of;
use super::options::ReaderOptions;
use crate::decode::FIRST_BYTES;
use crate::definition::{LogRules, OnMissing};
use crate::repr::Position;
use crate::shown::shown_path;
use envelope::LogEnvelope;
use mark::HeldBytes;
use partition::Partition;

/// Splits a line `{"key": ..., "value": ..., "ts_ms": ..., "headers": {...}}`. Returns none if it is no such object.
pub fn parse_record(line: &[u8]) -> Option<LogRecord<'_>> {
    let LogEnvelope {
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

/// How many bytes one read asks for at first; longer lines make it grow.
const READ_BYTES: usize = 1 << 20;
/// How many bytes of a line above `max_record` are skipped before another partition has its turn.
const PASSED_BYTES: u64 = 8 << 20;
/// How long a last line may lack its end before that is reported.
const TORN_PATIENCE: Duration = Duration::from_secs(10);
/// The advice for a log that no longer holds what was read.
const RESTORE: &str =
    "restore it, or set on_missing = \"earliest\" in the feed, which reads what it holds now from its beginning";
/// The longest pause between two attempts of a feed that waits.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The decoded bytes of a JSON string of base64, or else the text itself.
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

/// Why a part of the log is not read now.
enum LogUnread {
    Ended(ReaderExit),
    /// It can be read once this cause is repaired.
    Waits(String),
    /// The log no longer holds what was read.
    Lost(String),
}

impl From<ReaderExit> for LogUnread {
    fn from(ended: ReaderExit) -> Self {
        LogUnread::Ended(ended)
    }
}

fn waits(path: &Path, error: std::io::Error) -> LogUnread {
    LogUnread::Waits(format!("could not read {}: {error}", shown_path(path)))
}

/// The error for a log that ends before the position up to which it was read.
fn shrank(path: &Path, size: u64, next: u64) -> LogUnread {
    LogUnread::Lost(format!(
        "log {} is {size} bytes long, but was read up to byte {next}, and a log must only grow",
        shown_path(path)
    ))
}

/// How far a partition was read.
#[derive(Clone, Debug, Default)]
struct LogPlace {
    /// The next byte to read.
    next: u64,
    /// The offset of the file's first byte.
    base: u64,
    /// None if nothing of the file was read, or if the position was stored before marks were introduced.
    mark: Option<LogMark>,
}

impl LogPlace {
    fn from_position(position: &Position) -> LogPlace {
        LogPlace {
            next: position.next,
            base: position.base,
            mark: position.log.clone(),
        }
    }

    fn position(&self) -> Position {
        Position {
            base: self.base,
            log: self.mark.clone(),
            ..Position::at(self.next)
        }
    }
}

/// The partition of a file in the folder; none if its name is not that of a partition.
fn partition_file(path: &Path) -> Option<Arc<str>> {
    let stem = path.file_name()?.as_bytes().strip_suffix(b".ndjson")?;
    (!matches!(stem.first(), Some(b'.' | b'_'))).then(|| partition_of(stem))
}

/// Whether a file's name would be a log's in another case of letters, or without a compression suffix.
fn is_nearly_log(path: &Path) -> bool {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let packed = [".gz", ".zst", ".bz2", ".xz"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    !name.starts_with(['.', '_']) && packed.unwrap_or(&name).ends_with(".ndjson")
}

/// What was reported already.
#[derive(Default)]
struct ReportedNotices {
    /// The files reported as left out.
    left_out: BTreeSet<PathBuf>,
    hidden: bool,
    nearly: bool,
    nothing: bool,
}

struct Follower {
    handle: FeedHandle,
    options: ReaderOptions,
    folder: PathBuf,
    rules: LogRules,
    decode: Decode,
    /// The positions of partitions that are not open yet.
    positions: BTreeMap<String, LogPlace>,
    partitions: BTreeMap<Arc<str>, Partition>,
    buffer: Vec<u8>,
    fault: FeedFault,
    /// Why the newest look into the folder did not show everything.
    unseen: Option<String>,
    reported: ReportedNotices,
    /// Whether a renamed log was found and still has to be opened.
    has_claimed: bool,
}

impl Follower {
    fn follow(mut self) -> Result<(), ReaderExit> {
        self.look_into_folder()?;
        let mut pause = self.options.log_poll;
        let mut looked = Instant::now();
        loop {
            let (mut took, mut unread) = (0, None);
            let names: Vec<Arc<str>> = self.partitions.keys().cloned().collect();
            for name in &names {
                match self.hand_over_batch(name) {
                    Ok(bytes) => took += bytes,
                    Err(LogUnread::Ended(ended)) => return Err(ended),
                    Err(LogUnread::Waits(cause) | LogUnread::Lost(cause)) => unread = unread.or(Some(cause)),
                }
            }
            self.report_lag();
            if took > 0 {
                pause = self.options.log_poll;
                self.handle.check()?;
                continue;
            }
            if std::mem::take(&mut self.has_claimed) || looked.elapsed() >= self.options.log_idle_poll {
                looked = Instant::now();
                if self.look_into_folder()? {
                    continue;
                }
            }
            let cause = self.unseen.clone().or(unread);
            self.fault.observe(&self.handle, &self.options, cause);
            let exhausted = !self.fault.is_there() || self.fault.lasts();
            self.handle.gauges.set_exhausted(exhausted);
            let ends = exhausted && self.options.stop_at_end;
            self.warn_torn(if ends { Duration::ZERO } else { TORN_PATIENCE });
            if ends {
                return Ok(());
            }
            self.handle.sleep(pause)?;
            let longest = match self.fault.is_there() {
                true => LONGEST_WAIT,
                false => self.options.log_idle_poll.max(self.options.log_poll),
            };
            pause = (pause * 2).min(longest);
        }
    }

    /// Opens new partitions; returns whether there were any.
    fn look_into_folder(&mut self) -> Result<bool, ReaderExit> {
        match self.find_partitions() {
            Ok(found) => {
                self.unseen = None;
                Ok(found)
            }
            Err(LogUnread::Waits(cause) | LogUnread::Lost(cause)) => {
                self.unseen = Some(cause);
                Ok(false)
            }
            Err(LogUnread::Ended(ended)) => Err(ended),
        }
    }

    /// Opens new partitions. A folder that does not exist yet has none.
    fn find_partitions(&mut self) -> Result<bool, LogUnread> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.warn_nothing("does not exist; what comes there is read");
                return match self.was_read() {
                    false => Ok(false),
                    true => Err(LogUnread::Waits(format!(
                        "folder {} is gone, and was read before",
                        shown_path(&self.folder)
                    ))),
                };
            }
            entries => entries.map_err(|e| waits(&self.folder, e))?,
        };
        let (mut found, mut waiting, mut hidden) = (false, None, 0);
        let (mut files, mut nearly) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(|e| waits(&self.folder, e))?.path();
            match partition_file(&path) {
                Some(name) if self.partitions.contains_key(&name) || !self.handle.reads(&name) => {}
                Some(name) => files.push((name, path)),
                None if is_nearly_log(&path) => nearly.push(path),
                None => hidden += usize::from(path.extension().is_some_and(|ending| ending == "ndjson")),
            }
        }
        self.order(&mut files);
        if files.iter().any(|(name, _)| !self.positions.contains_key(&**name)) {
            self.claim_gone()?;
        }
        let mut lost = None;
        for (name, path) in files {
            if !self.positions.contains_key(&*name) {
                if lost.is_none() {
                    lost = Some(self.lost()?);
                }
                let renamed = self.renamed(&path, lost.as_deref().unwrap_or_default())?;
                if renamed.is_some() {
                    waiting = renamed;
                    continue;
                }
            }
            match self.open(&name, &path) {
                Ok(Some(partition)) => {
                    self.reported.left_out.remove(&path);
                    self.positions.remove(&*name);
                    self.partitions.insert(name, partition);
                    found = true;
                }
                Ok(None) => {}
                Err(LogUnread::Waits(cause)) => waiting = Some(cause),
                Err(ended) => return Err(ended),
            }
        }
        self.warn_hidden(hidden);
        self.warn_nearly(nearly);
        if let Some(cause) = waiting {
            return Err(LogUnread::Waits(cause));
        }
        // By (4), a position whose file is missing.
        let waits = self.rules.on_missing == OnMissing::Stop;
        let is_read = |place: &LogPlace| place.next > place.base;
        if let Some((name, place)) = self.positions.iter().find(|(_, place)| waits && is_read(place)) {
            let path = self.folder.join(format!("{name}.ndjson"));
            return Err(LogUnread::Waits(format!(
                "log {} is gone, and was read up to byte {}: {RESTORE}",
                shown_path(&path),
                place.next - place.base
            )));
        }
        if self.partitions.is_empty() {
            let contents = what_is_in(&self.folder);
            self.warn_nothing(&format!("has no <partition>.ndjson: it {contents}"));
        }
        Ok(found)
    }

    fn was_read(&self) -> bool {
        !self.partitions.is_empty() || self.positions.values().any(|place| place.next > place.base)
    }

    /// Opens a partition; none if it is left out, which is reported.
    fn open(&mut self, name: &Arc<str>, path: &Path) -> Result<Option<Partition>, LogUnread> {
        let within = self.within()?;
        let permit = KeptOpen::acquire().map_err(|error| waits(path, error))?;
        let file = match open_regular(path, within.as_deref()) {
            Ok(file) => file,
            Err(error) if is_left_out(&error) && !self.positions.contains_key(&**name) => {
                if self.reported.left_out.insert(path.to_path_buf()) {
                    let path = shown_path(path);
                    tracing::warn!(feed = self.handle.name(), "{path} is left out of the log: {error}");
                }
                return Ok(None);
            }
            Err(error) => return Err(waits(path, error)),
        };
        let place = self.positions.get(&**name).cloned().unwrap_or_default();
        let (file, place_of_file) = ((file, permit), (place.next, place.base));
        let mut partition = Partition::new(name.clone(), path.to_path_buf(), file, place_of_file);
        match check_read(&mut partition, place.mark.as_ref()) {
            Ok(()) if place.mark.is_none() && place.next > place.base => {
                let position = partition.position(partition.next);
                self.handle.conclude(name, position, None, Instant::now())?;
            }
            Ok(()) => {}
            Err(unread) => self.handle_lost(&mut partition, place.mark, unread)?,
        }
        Ok(Some(partition))
    }

    /// Handles a partition that lost what was read of it, by (4).
    fn handle_lost(
        &mut self,
        partition: &mut Partition,
        mark: Option<LogMark>,
        unread: LogUnread,
    ) -> Result<(), LogUnread> {
        match (unread, self.rules.on_missing) {
            (LogUnread::Lost(what), OnMissing::Earliest) => {
                if let Some(mark) = mark {
                    self.claim_renamed(&partition.name, partition.next - partition.base, &mark)?;
                }
                partition.begin_anew();
                let reason = format!("{what}: what it holds now is read from its beginning");
                let position = partition.position(partition.next);
                self.handle
                    .conclude(&partition.name, position, Some(reason), Instant::now())?;
                Ok(())
            }
            (LogUnread::Lost(what), OnMissing::Stop) => Err(LogUnread::Waits(format!("{what}: {RESTORE}"))),
            (unread, _) => Err(unread),
        }
    }

    /// The folder that links must not leave, if there is one.
    fn within(&self) -> Result<Option<PathBuf>, LogUnread> {
        match self.rules.follow_links {
            true => Ok(None),
            false => {
                let folder = self.folder.canonicalize();
                folder.map(Some).map_err(|error| waits(&self.folder, error))
            }
        }
    }

    fn warn_nothing(&mut self, what: &str) {
        if !std::mem::replace(&mut self.reported.nothing, true) {
            tracing::warn!(feed = self.handle.name(), "folder {} {what}", shown_path(&self.folder));
        }
    }

    fn warn_hidden(&mut self, count: usize) {
        if count > 0 && !std::mem::replace(&mut self.reported.hidden, true) {
            let folder = shown_path(&self.folder);
            tracing::warn!(
                feed = self.handle.name(),
                "{count} files of {folder} begin with _ or . and are left out of the log; rename what is to be read"
            );
        }
    }

    fn warn_nearly(&mut self, nearly: Vec<PathBuf>) {
        let count = nearly.len();
        if let Some(first) = nearly.into_iter().min()
            && !std::mem::replace(&mut self.reported.nearly, true)
        {
            tracing::warn!(
                feed = self.handle.name(),
                "{count} of the files differ from <partition>.ndjson in the case of letters, or are packed, and are left out of the \
                 log, such as {}; rename or unpack what is to be read",
                shown_path(&first)
            );
        }
    }

    /// Reports last lines that have lacked their end for this long.
    fn warn_torn(&mut self, patience: Duration) {
        let feed = self.handle.name();
        for partition in self.partitions.values_mut() {
            if let Some(since) = partition.observe_patience(patience) {
                let (path, bytes) = (shown_path(&partition.path), partition.torn - partition.next);
                tracing::warn!(
                    feed,
                    "the last line of {path}, at byte {}, has no newline and waits: {bytes} bytes for {:.0} s; end it with a newline",
                    partition.next - partition.base,
                    since.as_secs_f64()
                );
            }
        }
    }

    fn report_lag(&self) {
        let lag = self.partitions.values().map(|p| p.size - p.next).sum();
        self.handle.gauges.set_lag(0, lag);
    }

    /// Hands over one batch of a partition, if it has complete lines; returns how many bytes the batch covers.
    fn hand_over_batch(&mut self, name: &Arc<str>) -> Result<u64, LogUnread> {
        let mut partition = self.partitions.remove(name).expect("named from the map's own keys");
        let took = self.take_batch(&mut partition);
        self.partitions.insert(name.clone(), partition);
        took
    }

    fn take_batch(&mut self, partition: &mut Partition) -> Result<u64, LogUnread> {
        // Bytes known from the newest look are read first, because a new look would move `seen` forward.
        if partition.is_doubtful || partition.size == partition.torn.max(partition.next) {
            self.check_file(partition)?;
            if partition.size == partition.torn.max(partition.next) {
                return Ok(0);
            }
        }
        self.handle.gauges.set_exhausted(false);
        if partition.passed > partition.next {
            return self.pass_over(partition);
        }
        let mut ask = READ_BYTES;
        let lines = loop {
            let length = ask.min((partition.size - partition.next) as usize);
            self.buffer.resize(length, 0);
            if let Err(error) = partition.read(partition.next, &mut self.buffer) {
                return self.observe_unread(partition, error);
            }
            if let Some(end) = memrchr(b'\n', &self.buffer) {
                break end + 1;
            }
            if length > self.handle.limits.record {
                return self.pass_over(partition);
            }
            if partition.next + length as u64 == partition.size {
                partition.observe_torn(); // by (1)
                return Ok(0);
            }
            ask = (ask * 4).min(self.handle.limits.record.saturating_add(1));
        };
        if !partition.holds_what_was_read() {
            return self.recheck(partition);
        }
        let (mut at, start, mut observed) = (0, partition.next, 0);
        let arrived = partition.arrived(&self.buffer[..lines]);
        let mut batch = BatchBuilder::new(self.handle.limits);
        let is_binary = self.handle.feed().format.is_binary();
        while at < lines {
            let length = memchr(b'\n', &self.buffer[at..lines]).expect("by the loop above a line's end is last");
            let line = self.buffer[at..at + length].trim_ascii();
            if length > self.handle.limits.record {
                batch.push(cut(start + at as u64, &self.buffer[at..at + length], length as u64));
            } else if !line.is_empty() {
                let parsed = envelope::parse(line);
                let is_binary = is_binary && parsed.is_some(); // by (3) and (5)
                let e = parsed.unwrap_or(LogEnvelope {
                    value: Some(line),
                    ..LogEnvelope::default()
                });
                let key = e.key.map(|key| plain(key, is_binary));
                let value = e.value.map(|value| plain(value, is_binary));
                batch.push(SourceRecord {
                    offset: start + at as u64,
                    key: key.as_deref(),
                    value: value.as_deref(),
                    headers: e.headers.and_then(|headers| std::str::from_utf8(headers).ok()),
                    ts_ms: e.ts_ms,
                    ..SourceRecord::default()
                });
            }
            at += length + 1;
            if batch.is_full() || (at == lines && !batch.is_empty()) {
                partition.held.observe(&self.buffer[observed..at]);
                observed = at;
                let position = partition.position(start + at as u64);
                let (name, raw) = (&partition.name, batch.finish(None));
                self.handle.deliver(&mut self.decode, name, raw, position, arrived)?;
            }
        }
        partition.held.observe(&self.buffer[observed..lines]);
        partition.next = start + lines as u64;
        partition.torn = partition.next;
        Ok(lines as u64)
    }

    /// Skips a line above the limit, by (7), and hands over its first bytes once its end is found.
    fn pass_over(&mut self, partition: &mut Partition) -> Result<u64, LogUnread> {
        let start = partition.next;
        let first = FIRST_BYTES.min((partition.size - start) as usize);
        let mut first = vec![0; first];
        if let Err(error) = partition.read(start, &mut first) {
            return self.observe_unread(partition, error);
        }
        let from = partition.passed.max(start);
        let mut at = from;
        loop {
            self.handle.check()?;
            partition.passed = at;
            if at - from >= PASSED_BYTES {
                return Ok(at - from); // by (2)
            }
            if at == partition.size {
                partition.observe_torn();
                return Ok(0);
            }
            self.buffer.resize(READ_BYTES.min((partition.size - at) as usize), 0);
            if let Err(error) = partition.read(at, &mut self.buffer) {
                return self.observe_unread(partition, error);
            }
            let Some(end) = memchr(b'\n', &self.buffer) else {
                at += self.buffer.len() as u64;
                continue;
            };
            let end = at + end as u64;
            if !partition.holds_what_was_read() {
                return self.recheck(partition);
            }
            let bytes = HeldBytes::read_from(&partition.file, end + 1 - partition.base);
            partition.held = bytes.map_err(|e| waits(&partition.path, e))?;
            let mut batch = BatchBuilder::new(self.handle.limits);
            batch.push(cut(start, &first, end - start));
            let (name, position) = (&partition.name, partition.position(end + 1));
            let raw = batch.finish(None);
            self.handle
                .deliver(&mut self.decode, name, raw, position, Instant::now())?;
            partition.next = end + 1;
            partition.torn = partition.next;
            partition.passed = partition.next;
            return Ok(partition.next - start);
        }
    }

    /// Handles a failed read: perhaps the file is shorter than at the last look.
    fn observe_unread(&mut self, partition: &mut Partition, error: std::io::Error) -> Result<u64, LogUnread> {
        match error.kind() {
            ErrorKind::UnexpectedEof => self.check_file(partition).map(|()| 0),
            _ => Err(waits(&partition.path, error)),
        }
    }

    /// Handles a file that no longer holds what was read; returns 1 if there is more to read now, and 0 otherwise.
    fn recheck(&mut self, partition: &mut Partition) -> Result<u64, LogUnread> {
        partition.is_doubtful = true;
        self.check_file(partition)?;
        Ok(u64::from(partition.size > partition.next))
    }

    /// Checks a partition's length and modification time, and by (4) whether it is still the log that was read.
    fn check_file(&mut self, partition: &mut Partition) -> Result<(), LogUnread> {
        let mut metadata = match std::fs::metadata(&partition.path) {
            Err(e) if e.kind() == ErrorKind::NotFound && self.folder.is_dir() => None,
            metadata => Some(metadata.map_err(|e| waits(&partition.path, e))?),
        };
        let read = partition.next - partition.base;
        match &metadata {
            None if read > 0 => {
                partition.is_doubtful = true;
                let lost = shrank(&partition.path, 0, read);
                let mark = partition.held.mark();
                self.handle_lost(partition, mark, lost)?;
            }
            None => {}
            Some(looked_at) => {
                let is_other = partition.is_doubtful || !partition.is_of(looked_at);
                if is_other || partition.has_changed(looked_at) {
                    partition.is_doubtful = true;
                    if is_other {
                        let within = self.within()?;
                        let opened = open_regular(&partition.path, within.as_deref());
                        partition.file = opened.map_err(|e| waits(&partition.path, e))?;
                    }
                    let mark = partition.held.mark();
                    if let Err(unread) = check_read(partition, mark.as_ref()) {
                        self.handle_lost(partition, mark, unread)?;
                    }
                    partition.is_doubtful = false;
                    // The metadata as of the check.
                    let checked = partition.file.metadata();
                    metadata = Some(checked.map_err(|e| waits(&partition.path, e))?);
                }
            }
        }
        let size = partition.base + metadata.as_ref().map_or(0, |m| m.len());
        let modified = metadata.and_then(|m| m.modified().ok());
        partition.observe_size(size.max(partition.next), modified);
        Ok(())
    }
}

/// Checks by (4) that a partition's file still holds what was read, and has a line end where reading stopped. Without
/// a mark it is assumed to be the same log.
fn check_read(partition: &mut Partition, mark: Option<&LogMark>) -> Result<(), LogUnread> {
    let (path, next) = (partition.path.clone(), partition.next - partition.base);
    let size = partition.file.metadata().map_err(|e| waits(&path, e))?.len();
    if size < next {
        return Err(shrank(&path, size, next));
    }
    if next > 0 {
        let mut last = [0];
        partition
            .read(partition.next - 1, &mut last)
            .map_err(|e| waits(&path, e))?;
        if last != *b"\n" {
            return Err(LogUnread::Lost(format!(
                "log {} has no line's end before byte {next}, up to which it was read, so it was written anew",
                shown_path(&path)
            )));
        }
    }
    let bytes = HeldBytes::read_from(&partition.file, next).map_err(|e| waits(&path, e))?;
    if mark.is_some() && bytes.mark().as_ref() != mark {
        return Err(LogUnread::Lost(format!(
            "log {} holds other bytes than were read of it, up to byte {next}, so it was written anew",
            shown_path(&path)
        )));
    }
    partition.held = bytes;
    Ok(())
}

/// A record of which only the first bytes are kept, because its length exceeds the limit.
fn cut(offset: u64, first: &[u8], length: u64) -> SourceRecord<'_> {
    SourceRecord {
        offset,
        value: Some(&first[..first.len().min(FIRST_BYTES)]),
        cut_from: Some(length),
        ..SourceRecord::default()
    }
}

/// Whether a file that could not be opened, for this reason, does not belong to the log.
fn is_left_out(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
        || matches!(
            error.kind(),
            ErrorKind::InvalidInput | ErrorKind::IsADirectory | ErrorKind::NotFound
        )
}
