//! One file that somebody named, read to its end as the files of a feed are.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use twox_hash::XxHash3_128;

use super::content::KnownFiles;
use super::headers::HeadersTold;
use super::listing::{Found, Place, Surroundings, is_read, is_remote};
use super::open::{Source, refusal};
use super::originals::Unchanged;
use super::settle::{Job, Task};
use super::{CurrentFile, FileEnd, FileReader, ReaderOptions};
use crate::definition::{Dataflow, FeedKind, FileGlob};
use crate::source::batch::BatchLimits;
use crate::source::outlet::{Ended, Gauges, Hand, Outlet};
use crate::source::passage::Passage;
use crate::source::{Decode, Delivery, Position, Share, SourceError};

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
    let below = file.strip_prefix(fixed).and_then(|below| below.strip_prefix('/'));
    below.zip(FileGlob::new(rest).ok()).is_some_and(|(below, glob)| {
        let parts: Vec<&str> = below.split('/').collect();
        glob.names(&parts) && is_read(&parts)
    })
}

/// A file that is there.
pub struct SingleFile {
    place: Place,
    found: Found,
}

/// What reading a file takes.
pub struct Reading<'a> {
    /// Its input and feed are the first ones.
    pub dataflow: Arc<Dataflow>,
    /// How the feed decodes.
    pub decode: Decode,
    /// The first record that is wanted.
    pub next: u64,
    /// Where deliveries go.
    pub deliveries: Sender<Delivery>,
    /// Disconnected when reading is to stop.
    pub stop: &'a Receiver<Infallible>,
    /// Sizes and retries.
    pub options: ReaderOptions,
}

impl SingleFile {
    /// The file of this path, an absolute one or a URL; none if it is not there.
    ///
    /// # Errors
    /// A URL that names no store; a file that cannot be looked at.
    pub fn find(dataflow: &Dataflow, path: &str, runtime: &tokio::runtime::Handle) -> io::Result<Option<SingleFile>> {
        // The listing's names of files that are not UTF-8 begin with "./" below their folder.
        let (folder, name) = match (path.split_once("/./"), path.rsplit_once('/')) {
            (Some((folder, escaped)), _) => (folder, format!("./{escaped}")),
            (None, Some((folder, name))) => (folder, name.to_string()),
            (None, None) => (".", path.to_string()),
        };
        let place = if is_remote(path) {
            let around = Surroundings::of(dataflow, true, Some(runtime.clone()));
            Place::new("backfill", path, around).map_err(io::Error::other)?
        } else {
            let folder = folder.strip_prefix("file://").unwrap_or(folder);
            Place::Local {
                folder: if folder.is_empty() { "/" } else { folder }.into(),
                glob: FileGlob::new("*").expect("a star is a glob"),
                // Somebody named this very file.
                follow_links: true,
                lake: None,
            }
        };
        let found = place.found(&name)?;
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
        let limits = BatchLimits {
            rows: reading.options.batch_rows.max(1),
            bytes: reading.options.batch_bytes.max(1),
            record: reading.options.record_bytes,
        };
        let room = Passage::of_limit(reading.dataflow.bounds.memory);
        let mut reader = FileReader {
            hand: Hand {
                dataflow: reading.dataflow,
                input: 0,
                feed: 0,
                outlets: [outlet].into(),
                stop: reading.stop.clone(),
                gauges: Arc::new(Gauges::default()),
                line: None,
                limits,
                room,
                share: Share::default(),
            },
            place: self.place.clone(),
            options: reading.options,
            decode: reading.decode,
            known: KnownFiles::default(),
            current: CurrentFile::default(),
            headers: HeadersTold::default(),
        };
        let job = Job {
            partition: self.found.partition.clone(),
            tag: self.found.tag.clone(),
            size: self.found.size,
            modified: self.found.modified,
            seen: Instant::now(),
            task: Task::Read {
                next: reading.next,
                base: 0,
            },
        };
        match reader.run(&job) {
            Ok(FileEnd::Done(position)) => Ok(Some(position)),
            Ok(FileEnd::Gone) => Ok(None),
            Ok(FileEnd::Stuck { position, cause }) => Err(SourceError::Read {
                path: self.place.shown(&job.partition),
                record: position.map_or(reading.next, |position| position.next),
                source: Arc::new(cause),
            }),
            Err(Ended::Failed(SourceError::Disconnected { .. }) | Ended::Stopped | Ended::Changed) => Ok(None),
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
