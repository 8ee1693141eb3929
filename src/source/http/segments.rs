//! The log of a feed's requests on a disk: segments of frames, named by the offset at which they begin.
//!
//! ```text
//! <folder>/lock                          held by the process that takes requests
//! <folder>/00000000000000000000.log      frames; offsets count the bytes of all segments
//! <folder>/00000000000000000000.keys     its idempotency keys, once it is full
//! <folder>/00000000000000000123.damaged  what was found at an offset where a frame was once: kept for people
//! ```
//!
//! 1. Offsets never begin anew: a segment begins where the one before it ended, or behind what the newest snapshot holds,
//!    whichever is further.
//! 2. A segment without a file of keys is looked through when the log is opened, and cut where a torn frame begins: that was
//!    answered to nobody. Then it gets its file of keys; a new segment begins with the next request. What is damaged was
//!    answered once, and stays where it is, so that offsets stay: the reader hands it to the dead letters.
//! 3. What readers see ([`Extent`]) is on the disk.
//! 4. A segment goes when a snapshot holds all of it, and Bronze with it; its keys stay until all of them are forgotten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::frame;
use super::keys::{Entry, Keys};

/// A segment that is longer is full.
const SEGMENT: u64 = 64 << 20;
/// How long a process that ends may hold the lock.
const LOCKED: Duration = Duration::from_secs(5);

/// What a log holds, as its readers see it.
#[derive(Default)]
pub(super) struct Extent {
    /// By first offset, the end of each segment.
    segments: Mutex<BTreeMap<u64, u64>>,
    /// Up to where it was handed over.
    pub taken: AtomicU64,
    /// What follows cannot be read now.
    pub is_stuck: AtomicBool,
}

impl Extent {
    fn segments(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first segment that holds anything from an offset on: where it begins and ends.
    pub fn behind(&self, offset: u64) -> Option<(u64, u64)> {
        let segments = self.segments();
        let mut whole = segments.iter().map(|(base, end)| (*base, *end));
        whole.find(|(_, end)| *end > offset)
    }

    /// Whether nothing is missing from the very first request on.
    pub fn is_whole(&self) -> bool {
        let segments = self.segments();
        let mut at = 0;
        segments
            .iter()
            .all(|(base, end)| *base == std::mem::replace(&mut at, *end))
    }

    /// Bytes that are there and not yet handed over.
    pub fn unread(&self) -> u64 {
        let taken = self.taken.load(Ordering::Acquire);
        let unread = |(base, end): (&u64, &u64)| end.saturating_sub(taken.max(*base));
        self.segments().iter().map(unread).sum()
    }

    /// Whether all that can be read was handed over.
    pub fn is_read_out(&self) -> bool {
        self.unread() == 0 || self.is_stuck.load(Ordering::Acquire)
    }
}

/// Where a segment's frames are.
pub(super) fn path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// Where damaged bytes of a segment are kept, once they were found at an offset.
pub(super) fn damaged_path(folder: &Path, at: u64) -> PathBuf {
    folder.join(format!("{at:020}.damaged"))
}

fn keys_path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.keys"))
}

/// The first offsets of the files with an ending. What is called so and is no file (a FIFO, a folder) is never opened.
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

/// What is there, for who reads alone: nothing is changed.
pub(super) fn look(folder: &Path) -> io::Result<Extent> {
    let extent = Extent::default();
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
    /// The log is as it was.
    Refused(io::Error),
    /// What is on the disk is not known any more.
    Lost(io::Error),
}

/// The log, for the one who writes it.
pub(super) struct Segments {
    folder: PathBuf,
    durable: bool,
    /// Segments that a snapshot holds may go.
    removes: bool,
    _lock: File,
    extent: Arc<Extent>,
    /// The segment that is written.
    open: Option<Open>,
    /// Where the next frame begins.
    end: u64,
    /// By segment that has a file of keys: when the newest of them came.
    filed: BTreeMap<u64, u64>,
}

struct Open {
    base: u64,
    file: File,
    entries: Vec<Entry>,
}

impl Segments {
    /// Opens the log and remembers its keys. `next`: the newest snapshot holds what lies before it.
    pub fn open(folder: &Path, next: u64, durable: bool, removes: bool, keys: &mut Keys) -> io::Result<Segments> {
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
                false => log.settle(base)?,
            };
            for entry in &entries {
                keys.insert(entry);
            }
            log.filed
                .insert(base, entries.iter().map(|entry| entry.at).max().unwrap_or(0));
            if segments.contains(&base) {
                let end = base + path(folder, base).metadata()?.len();
                if end == base {
                    // Begun and never written: the next segment begins here.
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

    pub fn extent(&self) -> Arc<Extent> {
        self.extent.clone()
    }

    /// By (2): cuts off a torn frame, and files the keys.
    fn settle(&self, base: u64) -> io::Result<Vec<Entry>> {
        let path = path(&self.folder, base);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let frame::Scan { heads, end, .. } = frame::scan(&file)?;
        let length = file.metadata()?.len();
        if length > end {
            tracing::info!(path = %path.display(), bytes = length - end, "cut off a request that was never answered");
            file.set_len(end)?;
        }
        if self.durable {
            file.sync_all()?; // written without, perhaps
        }
        let entries: Vec<Entry> = heads.iter().filter_map(Entry::of).collect();
        self.file_entries(base, &entries)?;
        Ok(entries)
    }

    /// The keys that were filed of a segment. Where their file is damaged they are made anew of the segment; of one that is gone,
    /// those that read are all there is.
    fn read_entries(&self, base: u64, is_there: bool) -> io::Result<Vec<Entry>> {
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
            entries = scan.heads.iter().filter_map(Entry::of).collect();
        } else {
            let kept = entries.len();
            tracing::warn!(path = %path.display(), %error, kept, "a file of idempotency keys is damaged: the others are forgotten");
        }
        self.file_entries(base, &entries)?;
        Ok(entries)
    }

    /// Writes frames, all or none. `entries`: of those with keys. Once it returns they are on the disk, and readers see them.
    pub fn append(&mut self, frames: &[u8], entries: &[Entry]) -> Result<(), Unwritten> {
        if self.open.is_none() {
            let base = self.end;
            let opened = || {
                let path = path(&self.folder, base);
                // One that was made, and whose folder could not be synced, is there already.
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
            self.open = Some(Open {
                base,
                file,
                entries: vec![],
            });
        }
        let durable = self.durable;
        let open = self.open.as_mut().expect("opened just above");
        if let Err(error) = open.file.write_all(frames) {
            // A full disk: what was there before is still whole.
            let whole = self.end - open.base;
            let cut = open.file.set_len(whole);
            cut.and_then(|()| open.file.seek(SeekFrom::Start(whole)))
                .map_err(Unwritten::Lost)?;
            return Err(Unwritten::Refused(error));
        }
        if durable {
            // A disk that failed to sync may say later that all is well.
            open.file.sync_data().map_err(Unwritten::Lost)?;
        }
        open.entries.extend_from_slice(entries);
        self.end += frames.len() as u64;
        self.extent.segments().insert(open.base, self.end);
        if self.end - open.base >= SEGMENT
            && let Err(error) = self.close()
        {
            // The frames are on the disk; it stays open, and is closed behind the next ones.
            tracing::warn!(folder = %self.folder.display(), %error, "a segment of the log of requests could not be closed");
        }
        Ok(())
    }

    /// The open segment is full, or the last of this run.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        if self.end == open.base {
            fs::remove_file(path(&self.folder, open.base))?; // nothing was written
        } else {
            self.file_entries(open.base, &open.entries)?;
            let newest = open.entries.iter().map(|entry| entry.at).max();
            self.filed.insert(open.base, newest.unwrap_or(0));
        }
        self.open = None;
        Ok(())
    }

    /// A snapshot holds what lies before an offset.
    pub fn remove_until(&mut self, next: u64) -> io::Result<()> {
        if !self.removes {
            return Ok(());
        }
        let mut segments = self.extent.segments();
        let held: Vec<u64> = segments
            .iter()
            .filter(|(base, end)| **end <= next && self.filed.contains_key(base))
            .map(|(base, _)| *base)
            .collect();
        for base in held {
            fs::remove_file(path(&self.folder, base))?;
            segments.remove(&base);
        }
        Ok(())
    }

    /// Removes keys that are all forgotten, by file. Of a segment that is still there an empty file stays, by (2).
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

    fn file_entries(&self, base: u64, entries: &[Entry]) -> io::Result<()> {
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

/// Makes a folder and those above it, each known to the one above it.
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
    use super::super::frame::{Digest, Found, Head, Keyed};
    use super::*;

    fn keys() -> Keys {
        Keys::new(Duration::from_secs(1 << 30), 1000)
    }

    fn framed(text: &str, key: Option<u8>, at: u64) -> (Vec<u8>, Vec<Entry>) {
        let head = Head {
            rows: 1,
            bytes: text.len() as u64 + 1,
            at,
            keyed: key.map(|key| Keyed {
                key: Digest([key; 16]),
                body: Digest([0; 16]),
            }),
        };
        let mut bytes = Vec::new();
        frame::write(&head, format!("{text}\n").as_bytes(), &mut bytes);
        (bytes, Entry::of(&head).into_iter().collect())
    }

    fn rows(folder: &Path, extent: &Extent) -> Vec<String> {
        let mut rows = Vec::new();
        let mut at = 0;
        while let Some((base, end)) = extent.behind(at) {
            let bytes = fs::read(path(folder, base)).unwrap();
            let mut rest = &bytes[..(end - base) as usize];
            while !rest.is_empty() {
                let Found::Whole(_, lines, length) = frame::read(rest) else {
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
        drop(log); // as a kill would
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
        let mut kept = Segments::open(folder, ends[1], false, false, &mut keys()).unwrap();
        kept.remove_until(ends[2]).unwrap();
        assert_eq!(
            rows(folder, &kept.extent),
            ["0", "1", "2"],
            "without Bronze nothing goes"
        );
        assert_eq!(kept.extent.unread(), ends[2] - ends[1]);
        drop(kept);
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
        // Nothing is left of the log, and offsets go on.
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

    /// Who asked was told that nothing was taken, posted again, and had the rows twice.
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

    /// No start came behind a damaged file of keys, and rows that were answered were out of reach.
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
        // Behind a snapshot that holds the segment it is gone, and its keys are not.
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
