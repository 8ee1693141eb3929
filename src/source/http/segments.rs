//! The log of a feed's requests on a disk: segments of frames, named by the offset at which they begin.
//!
//! ```text
//! <folder>/lock                          held by the process that accepts requests
//! <folder>/00000000000000000000.log      frames; offsets count the bytes of all segments
//! <folder>/00000000000000000000.keys     the segment's idempotency keys, once it is full
//! <folder>/00000000000000000123.damaged  damaged bytes that were a frame at this offset, kept for people to examine
//! ```
//!
//! 1. Offsets only grow: a segment begins where the one before it ended, or at the offset up to which the newest
//!    snapshot holds the log, whichever is greater.
//! 2. When the log is opened, a segment without a file of keys is scanned, and truncated where a torn frame begins,
//!    because that request was never answered. Then its file of keys is written; the next request begins a new
//!    segment. Damaged frames were answered once, and stay in place so that offsets do not change: the reader hands
//!    them to the dead letters.
//! 3. Everything that readers see ([`LogExtent`]) is on the disk.
//! 4. A segment is removed when a snapshot and Bronze hold all of it; its file of keys stays until all keys have
//!    expired.
//!
//! **Why not a library for write-ahead logs**: of eight that were read (okaywal, raft-engine, commitlog, walrus-rust,
//! nano-wal, simple_wal, sharded-log, wal) none searches for the next valid frame behind damaged bytes. They stop, fail
//! or, like raft-engine, cut the file there, which would lose requests that were answered. And none has offsets that
//! stay valid when the log is cut at its front, which snapshots refer to.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::frame;
use super::keys::{IdempotencyKeys, KeyedRequest};

/// A segment with at least this number of bytes is full.
const SEGMENT: u64 = 64 << 20;
/// How long to wait for the lock of a process that is ending.
const LOCKED: Duration = Duration::from_secs(5);

/// The part of a log that its readers may read.
#[derive(Default)]
pub(super) struct LogExtent {
    /// By first offset, the end of each segment.
    segments: Mutex<BTreeMap<u64, u64>>,
    /// The offset up to which rows were handed over.
    pub taken: AtomicU64,
    /// Whether the rest cannot be read now.
    pub is_stuck: AtomicBool,
}

impl LogExtent {
    fn segments(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first segment that holds something at or behind an offset: where it begins and ends.
    pub fn behind(&self, offset: u64) -> Option<(u64, u64)> {
        let segments = self.segments();
        let mut whole = segments.iter().map(|(base, end)| (*base, *end));
        whole.find(|(_, end)| *end > offset)
    }

    /// Whether nothing is missing, from offset 0 on.
    pub fn is_whole(&self) -> bool {
        let segments = self.segments();
        let mut at = 0;
        segments
            .iter()
            .all(|(base, end)| *base == std::mem::replace(&mut at, *end))
    }

    /// How many bytes are there and not yet handed over.
    pub fn unread(&self) -> u64 {
        let taken = self.taken.load(Ordering::Acquire);
        let unread = |(base, end): (&u64, &u64)| end.saturating_sub(taken.max(*base));
        self.segments().iter().map(unread).sum()
    }

    /// Whether everything that can be read was handed over.
    pub fn is_read_out(&self) -> bool {
        self.unread() == 0 || self.is_stuck.load(Ordering::Acquire)
    }
}

/// The path of a segment's file.
pub(super) fn path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// The path of the copy of damaged bytes that were found at an offset.
pub(super) fn damaged_path(folder: &Path, at: u64) -> PathBuf {
    folder.join(format!("{at:020}.damaged"))
}

fn keys_path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.keys"))
}

/// The first offsets of the segments whose files have an ending. A FIFO or a folder with such a name is ignored, and
/// never opened.
fn bases(folder: &Path, ending: &str) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(ending));
        let Some(base) = base.and_then(|digits| digits.parse::<u64>().ok()) else {
            continue;
        };
        match entry.file_type()?.is_file() {
            true => bases.push(base),
            false => tracing::warn!(path = %entry.path().display(), "left out: it is no file"),
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// The extent of a log for a process that only reads; it changes nothing.
pub(super) fn look(folder: &Path) -> io::Result<LogExtent> {
    let extent = LogExtent::default();
    if !folder.is_dir() {
        return Ok(extent);
    }
    for base in bases(folder, ".log")? {
        let file = File::open(path(folder, base))?;
        let end = match keys_path(folder, base).exists() {
            true => file.metadata()?.len(),
            false => frame::scan(file)?.end,
        };
        extent.segments().insert(base, base + end);
    }
    Ok(extent)
}

/// Why rows were not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// The log is unchanged.
    Refused(io::Error),
    /// The state of the disk is unknown.
    Lost(io::Error),
}

/// The log as its only writer sees it.
pub(super) struct Segments {
    folder: PathBuf,
    durable: bool,
    /// Whether segments that a snapshot holds are removed.
    removes: bool,
    _lock: File,
    extent: Arc<LogExtent>,
    /// The segment being written.
    open: Option<OpenSegment>,
    /// The offset at which the next frame begins.
    end: u64,
    /// For each segment that has a file of keys, the time of its newest key.
    filed: BTreeMap<u64, u64>,
}

struct OpenSegment {
    base: u64,
    file: File,
    entries: Vec<KeyedRequest>,
}

impl Segments {
    /// Opens the log, and reads its keys into `keys`. `next` is the offset up to which the newest snapshot holds the
    /// log.
    pub fn open(
        folder: &Path,
        next: u64,
        durable: bool,
        removes: bool,
        keys: &mut IdempotencyKeys,
    ) -> io::Result<Segments> {
        make_folder(folder, durable)?;
        let lock = lock(&folder.join("lock"))?;
        let mut log = Segments {
            folder: folder.to_path_buf(),
            durable,
            removes,
            _lock: lock,
            extent: Arc::default(),
            open: None,
            end: next,
            filed: BTreeMap::new(),
        };
        let filed = bases(folder, ".keys")?;
        let segments = bases(folder, ".log")?;
        let mut all: Vec<u64> = filed.iter().chain(&segments).copied().collect();
        all.sort_unstable();
        all.dedup();
        for base in all {
            let entries = match filed.contains(&base) {
                true => log.read_entries(base, segments.contains(&base))?,
                false => log.close_earlier(base)?,
            };
            for entry in &entries {
                keys.insert(entry);
            }
            log.filed
                .insert(base, entries.iter().map(|entry| entry.at).max().unwrap_or(0));
            if segments.contains(&base) {
                let end = base + path(folder, base).metadata()?.len();
                if end == base {
                    // It was created but never written; the next segment begins at the same offset.
                    fs::remove_file(path(folder, base))?;
                    fs::remove_file(keys_path(folder, base))?;
                    log.filed.remove(&base);
                    continue;
                }
                log.extent.segments().insert(base, end);
                log.end = log.end.max(end);
            }
        }
        log.extent.taken.store(next, Ordering::Release);
        log.remove_until(next)?;
        Ok(log)
    }

    pub fn extent(&self) -> Arc<LogExtent> {
        self.extent.clone()
    }

    /// Truncates a torn frame, and writes the file of keys, by (2).
    fn close_earlier(&self, base: u64) -> io::Result<Vec<KeyedRequest>> {
        let path = path(&self.folder, base);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let frame::FrameScan { heads, end, .. } = frame::scan(&file)?;
        let length = file.metadata()?.len();
        if length > end {
            tracing::info!(path = %path.display(), bytes = length - end, "cut off a request that was never answered");
            file.set_len(end)?;
        }
        if self.durable {
            file.sync_all()?; // perhaps it was written by a run without syncs
        }
        let entries: Vec<KeyedRequest> = heads.iter().filter_map(KeyedRequest::from_head).collect();
        self.file_entries(base, &entries)?;
        Ok(entries)
    }

    /// The keys in a segment's file of keys. If that is damaged, it is rewritten from the segment; if the segment is
    /// gone, only the readable keys remain.
    fn read_entries(&self, base: u64, is_there: bool) -> io::Result<Vec<KeyedRequest>> {
        let path = keys_path(&self.folder, base);
        let mut entries = Vec::new();
        let mut damage = None;
        for line in BufReader::new(File::open(&path)?).split(b'\n') {
            match serde_json::from_slice(&line?) {
                Ok(entry) => entries.push(entry),
                Err(error) => damage = Some(error),
            }
        }
        let Some(error) = damage else { return Ok(entries) };
        if is_there {
            tracing::warn!(path = %path.display(), %error, "a file of idempotency keys is damaged: it is made anew");
            let scan = frame::scan(File::open(self::path(&self.folder, base))?)?;
            entries = scan.heads.iter().filter_map(KeyedRequest::from_head).collect();
        } else {
            let kept = entries.len();
            tracing::warn!(path = %path.display(), %error, kept, "a file of idempotency keys is damaged: the others are forgotten");
        }
        self.file_entries(base, &entries)?;
        Ok(entries)
    }

    /// Appends frames, all or none; `entries` are the requests among them that have keys. When it returns without an
    /// error, the frames are on the disk and readers see them.
    pub fn append(&mut self, frames: &[u8], entries: &[KeyedRequest]) -> Result<(), Unwritten> {
        if self.open.is_none() {
            let base = self.end;
            let opened = || {
                let path = path(&self.folder, base);
                // The file may exist already, if it was created but its folder could not be synced.
                let file = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&path)?;
                if file.metadata()?.len() > 0 {
                    return Err(io::Error::other(format!("{} is in the way", path.display())));
                }
                self.sync_folder()?;
                Ok(file)
            };
            let file = opened().map_err(Unwritten::Refused)?;
            self.open = Some(OpenSegment {
                base,
                file,
                entries: vec![],
            });
        }
        let durable = self.durable;
        let open = self.open.as_mut().expect("opened just above");
        if let Err(error) = open.file.write_all(frames) {
            // If the disk is full, everything written before is still intact.
            let whole = self.end - open.base;
            let cut = open.file.set_len(whole);
            cut.and_then(|()| open.file.seek(SeekFrom::Start(whole)))
                .map_err(Unwritten::Lost)?;
            return Err(Unwritten::Refused(error));
        }
        if durable {
            // After a failed sync, a later sync may report success although data is lost.
            open.file.sync_data().map_err(Unwritten::Lost)?;
        }
        open.entries.extend_from_slice(entries);
        self.end += frames.len() as u64;
        self.extent.segments().insert(open.base, self.end);
        if self.end - open.base >= SEGMENT
            && let Err(error) = self.close()
        {
            // The frames are on the disk; the segment stays open, and closing is tried again after the next
            // append.
            tracing::warn!(folder = %self.folder.display(), %error, "a segment of the log of requests could not be closed");
        }
        Ok(())
    }

    /// Closes the open segment, because it is full or the run ends.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        if self.end == open.base {
            fs::remove_file(path(&self.folder, open.base))?; // the segment is empty
        } else {
            self.file_entries(open.base, &open.entries)?;
            let newest = open.entries.iter().map(|entry| entry.at).max();
            self.filed.insert(open.base, newest.unwrap_or(0));
        }
        self.open = None;
        Ok(())
    }

    /// Removes segments that lie wholly before an offset up to which a snapshot holds the log.
    pub fn remove_until(&mut self, next: u64) -> io::Result<()> {
        if !self.removes {
            return Ok(());
        }
        let mut segments = self.extent.segments();
        let removable: Vec<u64> = segments
            .iter()
            .filter(|(base, end)| **end <= next && self.filed.contains_key(base))
            .map(|(base, _)| *base)
            .collect();
        for base in removable {
            fs::remove_file(path(&self.folder, base))?;
            segments.remove(&base);
        }
        Ok(())
    }

    /// Removes files whose keys have all expired. If the segment still exists, an empty file stays, by (2).
    pub fn forget(&mut self, before: u64) -> io::Result<()> {
        let segments = self.extent.segments();
        let old = self.filed.iter().filter(|(_, newest)| **newest < before);
        let old: Vec<(u64, u64)> = old.map(|(base, newest)| (*base, *newest)).collect();
        for (base, newest) in old {
            let path = keys_path(&self.folder, base);
            if !segments.contains_key(&base) {
                fs::remove_file(path)?;
                self.filed.remove(&base);
            } else if newest > 0 {
                File::create(path)?;
                self.filed.insert(base, 0);
            }
        }
        Ok(())
    }

    fn file_entries(&self, base: u64, entries: &[KeyedRequest]) -> io::Result<()> {
        let path = keys_path(&self.folder, base);
        let unfinished = path.with_extension("keys.unfinished");
        let mut file = BufWriter::new(File::create(&unfinished)?);
        for entry in entries {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if self.durable {
            file.sync_all()?;
        }
        fs::rename(unfinished, path)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        match self.durable {
            true => File::open(&self.folder)?.sync_all(),
            false => Ok(()),
        }
    }
}

/// Creates a folder and its parents, and syncs each parent so that the new entry is durable.
fn make_folder(folder: &Path, durable: bool) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above, durable)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        if durable {
            File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}

fn lock(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        let reason = format!("{} is no file; remove it", path.display());
        return Err(io::Error::other(reason));
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCKED => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "another process takes requests into it; end that one first",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Digest, FrameHead, IdempotencyRecord, ParsedFrame};
    use super::*;

    fn keys() -> IdempotencyKeys {
        IdempotencyKeys::new(Duration::from_secs(1 << 30), 1000)
    }

    fn framed(text: &str, key: Option<u8>, at: u64) -> (Vec<u8>, Vec<KeyedRequest>) {
        let head = FrameHead {
            rows: 1,
            bytes: text.len() as u64 + 1,
            at,
            keyed: key.map(|key| IdempotencyRecord {
                key: Digest([key; 16]),
                body: Digest([0; 16]),
            }),
        };
        let mut bytes = Vec::new();
        frame::write(&head, format!("{text}\n").as_bytes(), &mut bytes);
        (bytes, KeyedRequest::from_head(&head).into_iter().collect())
    }

    fn rows(folder: &Path, extent: &LogExtent) -> Vec<String> {
        let mut rows = Vec::new();
        let mut at = 0;
        while let Some((base, end)) = extent.behind(at) {
            let bytes = fs::read(path(folder, base)).unwrap();
            let mut rest = &bytes[..(end - base) as usize];
            while !rest.is_empty() {
                let ParsedFrame::Whole(_, lines, length) = frame::read(rest) else {
                    panic!("{base}")
                };
                rows.extend(std::str::from_utf8(lines).unwrap().lines().map(String::from));
                rest = &rest[length..];
            }
            at = end;
        }
        rows
    }

    #[test]
    fn a_torn_request_is_cut_off_and_what_was_answered_stays_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("a/b");
        let mut log = Segments::open(folder, 0, true, true, &mut keys()).unwrap();
        let (one, entries) = framed("1", Some(1), 5);
        log.append(&one, &entries).unwrap();
        let (two, _) = framed("2", None, 5);
        log.append(&two, &[]).unwrap();
        let end = log.end;
        drop(log); // as after a kill
        for tail in [&framed("3", Some(3), 5).0[..30], &[0; 4096], b"x"] {
            let mut file = OpenOptions::new().append(true).open(path(folder, 0)).unwrap();
            fs::remove_file(keys_path(folder, 0)).ok();
            file.write_all(tail).unwrap();
            let looked = look(folder).unwrap();
            assert_eq!(rows(folder, &looked), ["1", "2"], "by who reads alone");
            let mut remembered = keys();
            let log = Segments::open(folder, 0, true, true, &mut remembered).unwrap();
            assert_eq!(log.end, end);
            assert_eq!(rows(folder, &log.extent), ["1", "2"]);
            assert_eq!(remembered.get(&Digest([1; 16])), Some((Digest([0; 16]), 1)));
            assert_eq!(remembered.get(&Digest([3; 16])), None);
        }
    }

    #[test]
    fn segments_go_when_a_snapshot_holds_them_and_keys_when_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut ends = Vec::new();
        for n in 0..3u8 {
            let mut log = Segments::open(folder, 0, false, true, &mut keys()).unwrap();
            let (bytes, entries) = framed(&n.to_string(), Some(n), u64::from(n) + 10);
            log.append(&bytes, &entries).unwrap();
            ends.push(log.end);
        }
        let mut segments = Segments::open(folder, ends[1], false, false, &mut keys()).unwrap();
        segments.remove_until(ends[2]).unwrap();
        assert_eq!(
            rows(folder, &segments.extent),
            ["0", "1", "2"],
            "without Bronze nothing goes"
        );
        assert_eq!(segments.extent.unread(), ends[2] - ends[1]);
        drop(segments);
        let mut remembered = keys();
        let mut log = Segments::open(folder, ends[1], false, true, &mut remembered).unwrap();
        assert_eq!(rows(folder, &log.extent), ["2"]);
        assert!(
            (0..3).all(|n| remembered.get(&Digest([n; 16])).is_some()),
            "keys outlive rows"
        );
        log.forget(11).unwrap();
        log.forget(12).unwrap();
        drop(log);
        let mut remembered = keys();
        // All of the log is gone, and offsets continue.
        let mut log = Segments::open(folder, ends[2] + 7, false, true, &mut remembered).unwrap();
        assert!(rows(folder, &log.extent).is_empty());
        assert_eq!(remembered.get(&Digest([1; 16])), None);
        assert!(remembered.get(&Digest([2; 16])).is_some());
        log.append(&framed("3", None, 1).0, &[]).unwrap();
        assert_eq!(log.extent.behind(0).map(|(base, _)| base), Some(ends[2] + 7));
    }

    #[test]
    fn what_could_not_be_written_leaves_the_log_as_it_was() {
        let above = tempfile::tempdir().unwrap();
        let (folder, away) = (above.path().join("log"), above.path().join("away"));
        let mut log = Segments::open(&folder, 0, true, true, &mut keys()).unwrap();
        fs::rename(&folder, &away).unwrap();
        let refused = log.append(&framed("1", None, 0).0, &[]);
        assert!(matches!(refused, Err(Unwritten::Refused(_))), "{refused:?}");
        fs::rename(&away, &folder).unwrap();
        log.append(&framed("2", None, 0).0, &[]).unwrap();
        assert_eq!(rows(&folder, &log.extent), ["2"]);
        assert!(log.extent.is_whole());
        log.close().unwrap();
        log.append(&framed("3", None, 0).0, &[]).unwrap();
        log.close().unwrap();
        assert!(look(&folder).unwrap().is_whole());
        fs::remove_file(path(&folder, 0)).unwrap();
        assert!(!look(&folder).unwrap().is_whole());
    }

    /// The client was told that nothing was taken, posted again, and its rows came twice.
    #[test]
    fn a_segment_that_cannot_be_closed_has_taken_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Segments::open(folder.path(), 0, true, true, &mut keys()).unwrap();
        let in_the_way = keys_path(folder.path(), 0).with_extension("keys.unfinished");
        fs::create_dir(&in_the_way).unwrap();
        let large = "x".repeat(SEGMENT as usize);
        log.append(&framed(&large, Some(1), 0).0, &[]).unwrap();
        log.append(&framed("2", None, 0).0, &[]).unwrap();
        assert_eq!(rows(folder.path(), &log.extent), [&large, "2"]);
        fs::remove_dir(&in_the_way).unwrap();
        log.append(&framed("3", None, 0).0, &[]).unwrap();
        let closed = log.end;
        log.append(&framed("4", None, 0).0, &[]).unwrap();
        assert!(path(folder.path(), closed).exists(), "the next one is open");
        assert_eq!(rows(folder.path(), &log.extent), [&large, "2", "3", "4"]);
    }

    /// With a damaged file of keys no start succeeded, and rows that had been answered were out of reach.
    #[test]
    fn damaged_keys_are_made_anew_of_their_segment() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut log = Segments::open(folder, 0, true, true, &mut keys()).unwrap();
        for n in 1..=3u8 {
            let (bytes, entries) = framed(&n.to_string(), Some(n), 5);
            log.append(&bytes, &entries).unwrap();
        }
        log.close().unwrap();
        let end = log.end;
        drop(log);
        let filed = fs::read(keys_path(folder, 0)).unwrap();
        let known = |next: u64| {
            let mut remembered = keys();
            let log = Segments::open(folder, next, true, true, &mut remembered).unwrap();
            let known = (1..=3).filter(|n| remembered.get(&Digest([*n; 16])).is_some());
            (known.collect::<Vec<u8>>(), rows(folder, &log.extent))
        };
        let all = ["1", "2", "3"].map(String::from).to_vec();
        let mut flipped = filed.clone();
        flipped[3] = 0xff;
        for damaged in [&filed[..filed.len() - 20], &flipped, b"\n"] {
            fs::write(keys_path(folder, 0), damaged).unwrap();
            assert_eq!(known(0), (vec![1, 2, 3], all.clone()));
            assert_eq!(fs::read(keys_path(folder, 0)).unwrap(), filed);
        }
        // After a snapshot holds the segment, the segment is gone but its keys are not.
        known(end);
        fs::write(keys_path(folder, 0), &filed[..filed.len() - 20]).unwrap();
        assert_eq!(known(end), (vec![1, 2], vec![]));
    }

    #[test]
    fn what_is_called_like_a_segment_and_is_no_file_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (bytes, entries) = framed("1", Some(1), 5);
        let mut log = Segments::open(folder, 0, true, true, &mut keys()).unwrap();
        log.append(&bytes, &entries).unwrap();
        log.close().unwrap();
        drop(log);
        fs::create_dir(path(folder, 9999)).unwrap();
        for fifo in [path(folder, 99_999), keys_path(folder, 99_999)] {
            let made = std::process::Command::new("mkfifo").arg(fifo).status();
            assert!(made.is_ok_and(|status| status.success()));
        }
        let log = Segments::open(folder, 0, true, true, &mut keys()).unwrap();
        assert_eq!(rows(folder, &log.extent), ["1"]);
        assert_eq!(rows(folder, &look(folder).unwrap()), ["1"]);
    }

    #[test]
    fn one_process_at_a_time_writes() {
        let folder = tempfile::tempdir().unwrap();
        let first = Segments::open(folder.path(), 0, false, true, &mut keys()).unwrap();
        let Err(refused) = Segments::open(folder.path(), 0, false, true, &mut keys()) else {
            panic!("two writers")
        };
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(first);
        Segments::open(folder.path(), 0, false, true, &mut keys()).unwrap();
    }
}
