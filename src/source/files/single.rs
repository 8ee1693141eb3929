//! Reads one file, which somebody named, to its end, in the way a feed reads its files.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use twox_hash::XxHash3_128;

use super::content::{FileComparison, KnownFiles, compare};
use super::listing::{GlobLocation, ListedFile, Surroundings, is_read};
use super::open::{StoredBytes, refusal};
use super::originals::UnchangedBytes;
use super::queue::{FileJob, FileTask};
use super::reader::{FileEnd, FileReader, reached};
use crate::definition::{Dataflow, FileGlob};
use crate::repr::{FileContent, Position};
use crate::source::batch::BatchLimits;
use crate::source::error::ReaderExit;
use crate::source::fault::patience;
use crate::source::feed_handle::{FeedHandle, Gauges, WorkerChannel};
use crate::source::guard::Vetting;
use crate::source::in_flight::InFlightBudget;
use crate::source::names::{partition_of, path_in};
use crate::source::options::ReaderOptions;
use crate::source::{Decode, Delivery, Share, SourceError};

/// The files that a path names: a glob, or a file; absolute paths or URLs, by name.
///
/// # Errors
/// The path belongs to no known store or is no valid glob; the folder or store cannot be listed.
pub fn list_files(
    dataflow: &Dataflow,
    path: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<String>, SourceError> {
    // Files of the lake are not excluded, because somebody named these files explicitly.
    let around = Surroundings {
        lake: "",
        ..Surroundings::of_dataflow(dataflow, true, Some(runtime.clone()))
    };
    let place = GlobLocation::new("backfill", path, around)?;
    let listed = place.list(&|| false).map_err(|source| SourceError::List {
        feed: "backfill".into(),
        path: path.to_string(),
        source: Arc::new(source),
    })?;
    let files = listed.files.iter();
    Ok(files.map(|found| place.display(&found.partition)).collect())
}

/// Whether a feed with this path reads a file by itself.
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

/// The local path of a file, from its name in messages and requests. A name that is not UTF-8 is escaped behind
/// `/./`; see [`crate::source::names`].
pub(crate) fn local_path(path: &str) -> PathBuf {
    let path = path.strip_prefix("file://").unwrap_or(path);
    match path.split_once("/./") {
        Some((folder, escaped)) => path_in(Path::new(folder), &format!("./{escaped}")),
        None => PathBuf::from(path),
    }
}

/// A file that exists.
pub struct SingleFile {
    place: GlobLocation,
    listed: ListedFile,
}

/// Where to begin reading a file.
#[derive(Clone, Debug)]
pub enum ReadingStart {
    /// At this record, of a file that is unchanged since it was read in part; `base` is the number of its first
    /// record.
    Record { next: u64, base: u64 },
    /// Behind what was read, if the file begins with the bytes that were read. Otherwise nothing is read, and the end
    /// says so.
    Behind(Position),
    /// At its first record, which gets this number, so that its rows are newer than those of an earlier version.
    Anew(u64),
}

/// The arguments of [`SingleFile::read`].
pub struct SingleFileReading<'a> {
    /// A dataflow whose first input has the feed as its first.
    pub dataflow: Arc<Dataflow>,
    /// How the feed decodes.
    pub decode: Decode,
    /// Where reading begins.
    pub start: ReadingStart,
    /// Where deliveries go.
    pub deliveries: Sender<Delivery>,
    /// Disconnected to stop the reading.
    pub stop: &'a Receiver<Infallible>,
    /// Sizes of batches, and the retry policy.
    pub options: ReaderOptions,
}

impl SingleFile {
    /// The local file at this path, which is canonical and below `root`; none if it does not exist. It is opened only
    /// if it is below `root` and `vetting` permits it, so that a file that replaces it meanwhile is not read.
    ///
    /// # Errors
    /// The path is no regular file, or its metadata cannot be read.
    pub(crate) fn below(root: &Path, path: &Path, vetting: Vetting) -> io::Result<Option<SingleFile>> {
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        let place = GlobLocation::Local {
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
    /// The URL belongs to no known store, or the object's metadata cannot be read.
    pub fn stored(dataflow: &Dataflow, url: &str, runtime: &tokio::runtime::Handle) -> io::Result<Option<SingleFile>> {
        let around = Surroundings::of_dataflow(dataflow, true, Some(runtime.clone()));
        let place = GlobLocation::new("backfill", url, around).map_err(io::Error::other)?;
        Self::at(place, url.rsplit('/').next().unwrap_or(url))
    }

    fn at(place: GlobLocation, partition: &str) -> io::Result<Option<SingleFile>> {
        let listed = place.find(partition)?;
        Ok(listed.map(|listed| SingleFile { place, listed }))
    }

    /// Its name, without folders.
    pub fn name(&self) -> &str {
        self.listed.partition.rsplit('/').next().unwrap_or_default()
    }

    /// Its path or URL.
    pub fn path(&self) -> String {
        self.place.display(&self.listed.partition)
    }

    /// Bytes, as stored.
    pub fn size(&self) -> u64 {
        self.listed.size
    }

    /// Its version: the size, and the entity tag or the modification time.
    pub fn tag(&self) -> &str {
        &self.listed.tag
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

    /// Whether the file begins with all bytes of an earlier version.
    ///
    /// # Errors
    /// Failures of the disk or the store.
    pub fn begins_with(&self, earlier: &FileContent) -> io::Result<bool> {
        let compared = compare(self.open()?, earlier, &|| false)?;
        Ok(compared != FileComparison::Other)
    }

    /// Its bytes, as stored. The stream blocks, so do not read it inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store. The stream ends with an error if the file is no longer the version that was
    /// found.
    pub fn open(&self) -> io::Result<impl Read + use<>> {
        let opened = StoredBytes::open(&self.place, &self.listed.partition).map_err(refusal);
        let (source, _) = opened?;
        Ok(UnchangedBytes {
            source,
            place: self.place.clone(),
            partition: self.listed.partition.to_string(),
            tag: self.listed.tag.clone(),
        })
    }

    /// Reads it to its end, or to where reading breaks off, which the last delivery reports as a feed does. Returns
    /// none if the file was deleted before it was opened, or if reading was stopped.
    ///
    /// # Errors
    /// A transient failure that did not pass within the retries.
    pub fn read(&self, reading: SingleFileReading<'_>) -> Result<Option<Position>, SourceError> {
        debug_assert!(reading.dataflow.inputs[0].feeds[0].kind.contract().files().is_some());
        let channel = WorkerChannel {
            together: reading.deliveries.clone(),
            sender: reading.deliveries,
            wake: Arc::new(|| {}),
        };
        let limits = BatchLimits::new(&reading.options, &reading.dataflow.inputs[0].feeds[0]);
        let room = InFlightBudget::of_limit(reading.dataflow.bounds.memory);
        let handle = FeedHandle {
            dataflow: reading.dataflow,
            input: 0,
            feed: 0,
            channels: [channel].into(),
            stop: reading.stop.clone(),
            gauges: Arc::new(Gauges::default()),
            coordinator: None,
            limits,
            patience: patience(&reading.options),
            room,
            share: Share::default(),
        };
        // Whoever named the file asserts that it is complete.
        let options = ReaderOptions {
            stop_at_end: true,
            ..reading.options
        };
        let known = KnownFiles::default();
        let mut reader = FileReader::new(handle, self.place.clone(), options, reading.decode, known);
        let job = FileJob {
            partition: self.listed.partition.clone(),
            tag: self.listed.tag.clone(),
            size: self.listed.size,
            modified: self.listed.modified,
            seen: Instant::now(),
            at: None,
            task: match reading.start {
                ReadingStart::Record { next, base } => FileTask::Read { next, base },
                ReadingStart::Anew(next) => FileTask::Read { next, base: next },
                ReadingStart::Behind(position) => FileTask::Changed(Position {
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
            Err(ReaderExit::Failed(SourceError::Disconnected { .. }) | ReaderExit::Stopped | ReaderExit::Unread(_)) => {
                Ok(None)
            }
            Err(ReaderExit::Failed(error)) => Err(error),
        }
    }
}

/// The path or URL of a feed's file, by its partition.
///
/// # Errors
/// The path belongs to no known store, or is no valid glob.
pub fn path_of(
    dataflow: &Dataflow,
    feed_path: &str,
    partition: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<String, SourceError> {
    let place = GlobLocation::new(
        "backfill",
        feed_path,
        Surroundings::of_dataflow(dataflow, true, Some(runtime.clone())),
    )?;
    Ok(place.display(partition))
}
