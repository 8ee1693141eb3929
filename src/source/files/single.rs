//! One file that somebody named, read to its end as the files of a feed are.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use twox_hash::XxHash3_128;

use super::content::{FileComparison, KnownFiles, compare};
use super::listing::{Found, Place, Surroundings, is_read};
use super::open::{Source, refusal};
use super::originals::Unchanged;
use super::reader::{FileEnd, FileReader, reached};
use super::settle::{Job, Task};
use crate::definition::{Dataflow, FeedKind, FileGlob};
use crate::source::batch::BatchLimits;
use crate::source::fault::patience;
use crate::source::guard::Vetting;
use crate::source::names::{partition_of, path_in};
use crate::source::outlet::{Ended, Gauges, Hand, Outlet};
use crate::source::passage::Passage;
use crate::source::readers::ReaderOptions;
use crate::source::{Decode, Delivery, FileContent, Position, Share, SourceError};

/// The files that a path names: a glob, or a file; absolute paths or URLs, by name.
///
/// # Errors
/// A path that names no store or is no glob; a folder or store that cannot be listed.
pub fn list_files(
    dataflow: &Dataflow,
    path: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<String>, SourceError> {
    // Somebody named these very files, be they the lake's.
    let around = Surroundings {
        lake: "",
        ..Surroundings::of(dataflow, true, Some(runtime.clone()))
    };
    let place = Place::new("backfill", path, around)?;
    let listed = place.list(&|| false).map_err(|source| SourceError::List {
        feed: "backfill".into(),
        path: path.to_string(),
        source: Arc::new(source),
    })?;
    let files = listed.files.iter();
    Ok(files.map(|found| place.display(&found.partition)).collect())
}

/// Whether a feed of this path reads a file by itself.
pub fn reads(feed_path: &str, file: &str) -> bool {
    let plain = |text: &str| text.strip_prefix("file://").unwrap_or(text).to_string();
    let (path, file) = (plain(feed_path), plain(file));
    let (fixed, rest) = FileGlob::split(&path);
    let below = file
        .strip_prefix(fixed.as_str())
        .and_then(|below| below.strip_prefix('/'));
    below.zip(FileGlob::new(rest).ok()).is_some_and(|(below, glob)| {
        let parts: Vec<&str> = below.split('/').collect();
        glob.names(&parts) && is_read(&parts)
    })
}

/// A local file's path, as files are named to people and in requests: that of a name that is not UTF-8 has escapes behind `/./`,
/// see [`crate::source::names`].
pub(crate) fn local_path(path: &str) -> PathBuf {
    let path = path.strip_prefix("file://").unwrap_or(path);
    match path.split_once("/./") {
        Some((folder, escaped)) => path_in(Path::new(folder), &format!("./{escaped}")),
        None => PathBuf::from(path),
    }
}

/// A file that is there.
pub struct SingleFile {
    place: Place,
    found: Found,
}

/// Where the reading of a file begins.
#[derive(Clone, Debug)]
pub enum ReadingStart {
    /// At this record (`base` is the number of its first one), of a file that is as it was where some of it was read.
    Record { next: u64, base: u64 },
    /// Behind what was read of it, if it begins with the bytes that were read. Of another file none is read: its end says so.
    Behind(Position),
    /// At its first record, which has this number: its rows are newer than those of an earlier version.
    Anew(u64),
}

/// What reading a file takes.
pub struct Reading<'a> {
    /// Its input and feed are the first ones.
    pub dataflow: Arc<Dataflow>,
    /// How the feed decodes.
    pub decode: Decode,
    /// What of the file is wanted.
    pub start: ReadingStart,
    /// Where deliveries go.
    pub deliveries: Sender<Delivery>,
    /// Disconnected when reading is to stop.
    pub stop: &'a Receiver<Infallible>,
    /// Sizes and retries.
    pub options: ReaderOptions,
}

impl SingleFile {
    /// The local file of this path, which is canonical and below `root`; none if it is not there. It is only ever opened
    /// below `root`, and if the vetting lets it be read: whatever is put in its place meanwhile is not.
    ///
    /// # Errors
    /// A file that cannot be looked at, or is none.
    pub(crate) fn below(root: &Path, path: &Path, vetting: Vetting) -> io::Result<Option<SingleFile>> {
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        let place = Place::Local {
            folder: root.to_path_buf(),
            glob: FileGlob::new("*").expect("a star is a glob"),
            follow_links: false,
            lake: None,
            vetting: Some(vetting),
        };
        Self::at(place, &partition_of(below.as_os_str().as_bytes()))
    }

    /// The file of this URL; none if it is not there.
    ///
    /// # Errors
    /// A URL that names no store; a file that cannot be looked at.
    pub fn stored(dataflow: &Dataflow, url: &str, runtime: &tokio::runtime::Handle) -> io::Result<Option<SingleFile>> {
        let around = Surroundings::of(dataflow, true, Some(runtime.clone()));
        let place = Place::new("backfill", url, around).map_err(io::Error::other)?;
        Self::at(place, url.rsplit('/').next().unwrap_or(url))
    }

    fn at(place: Place, partition: &str) -> io::Result<Option<SingleFile>> {
        let found = place.found(partition)?;
        Ok(found.map(|found| SingleFile { place, found }))
    }

    /// Its name, without folders.
    pub fn name(&self) -> &str {
        self.found.partition.rsplit('/').next().unwrap_or_default()
    }

    /// Its path or URL.
    pub fn path(&self) -> String {
        self.place.display(&self.found.partition)
    }

    /// Bytes, as stored.
    pub fn size(&self) -> u64 {
        self.found.size
    }

    /// Its size, and entity tag or time of change.
    pub fn tag(&self) -> &str {
        &self.found.tag
    }

    /// A hash of its bytes, as stored.
    ///
    /// # Errors
    /// Failures of the disk or the store.
    pub fn hash(&self) -> io::Result<u128> {
        let mut bytes = self.open()?;
        let (mut hash, mut buffer) = (XxHash3_128::new(), vec![0; 256 << 10]);
        loop {
            match bytes.read(&mut buffer)? {
                0 => return Ok(hash.finish_128()),
                read => hash.write(&buffer[..read]),
            }
        }
    }

    /// Whether its first bytes are all the bytes of an earlier version.
    ///
    /// # Errors
    /// Failures of the disk or the store.
    pub fn begins_with(&self, earlier: &FileContent) -> io::Result<bool> {
        let compared = compare(self.open()?, earlier, &|| false)?;
        Ok(compared != FileComparison::Other)
    }

    /// Its bytes, as stored. Not to be read inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store; at the end of the bytes, that they are not those of the file as it was found.
    pub fn open(&self) -> io::Result<impl Read + use<>> {
        let opened = Source::open(&self.place, &self.found.partition).map_err(refusal);
        let (source, _) = opened?;
        Ok(Unchanged {
            source,
            place: self.place.clone(),
            partition: self.found.partition.to_string(),
            tag: self.found.tag.clone(),
        })
    }

    /// Reads it to its end, or to where it breaks: that is said by the last delivery, as a feed says it. None: it was
    /// gone before it was opened, or reading was stopped.
    ///
    /// # Errors
    /// A failure that may pass, and did not within the retries.
    pub fn read(&self, reading: Reading<'_>) -> Result<Option<Position>, SourceError> {
        debug_assert!(matches!(
            reading.dataflow.inputs[0].feeds[0].kind,
            FeedKind::Files { .. }
        ));
        let outlet = Outlet {
            together: reading.deliveries.clone(),
            sender: reading.deliveries,
            wake: Arc::new(|| {}),
        };
        let limits = BatchLimits::new(&reading.options, &reading.dataflow.inputs[0].feeds[0]);
        let room = Passage::of_limit(reading.dataflow.bounds.memory);
        let hand = Hand {
            dataflow: reading.dataflow,
            input: 0,
            feed: 0,
            outlets: [outlet].into(),
            stop: reading.stop.clone(),
            gauges: Arc::new(Gauges::default()),
            line: None,
            limits,
            patience: patience(&reading.options),
            room,
            share: Share::default(),
        };
        // Whoever named the file says that it is whole.
        let options = ReaderOptions {
            stop_at_end: true,
            ..reading.options
        };
        let known = KnownFiles::default();
        let mut reader = FileReader::new(hand, self.place.clone(), options, reading.decode, known);
        let job = Job {
            partition: self.found.partition.clone(),
            tag: self.found.tag.clone(),
            size: self.found.size,
            modified: self.found.modified,
            seen: Instant::now(),
            at: None,
            task: match reading.start {
                ReadingStart::Record { next, base } => Task::Read { next, base },
                ReadingStart::Anew(next) => Task::Read { next, base: next },
                ReadingStart::Behind(position) => Task::Changed(Position {
                    done: false,
                    ..position
                }),
            },
        };
        let first = reached(&job.task);
        match reader.run(&job) {
            Ok(FileEnd::Done(position)) => Ok(Some(position)),
            Ok(FileEnd::Gone | FileEnd::Changed) => Ok(None),
            Ok(FileEnd::Stuck { position, cause }) => Err(SourceError::Read {
                path: self.place.shown(&job.partition),
                record: position.map_or(first, |position| position.next),
                source: Arc::new(cause),
            }),
            Err(Ended::Failed(SourceError::Disconnected { .. }) | Ended::Stopped | Ended::Unread(_)) => Ok(None),
            Err(Ended::Failed(error)) => Err(error),
        }
    }
}

/// The path or URL of a feed's file, by its partition.
///
/// # Errors
/// A path that names no store, or no glob.
pub fn path_of(
    dataflow: &Dataflow,
    feed_path: &str,
    partition: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<String, SourceError> {
    let place = Place::new(
        "backfill",
        feed_path,
        Surroundings::of(dataflow, true, Some(runtime.clone())),
    )?;
    Ok(place.display(partition))
}
