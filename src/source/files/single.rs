//! One file that somebody named, read to its end as the files of a feed are.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use twox_hash::XxHash3_128;

use super::listing::{Found, MATCHING, Place, is_remote};
use super::open::{Break, Source};
use super::originals::Unchanged;
use super::settle::{Job, Task};
use super::{FileReader, ReaderOptions};
use crate::definition::{Dataflow, FeedKind};
use crate::source::batch::BatchLimits;
use crate::source::outlet::{Ended, Gauges, Hand, Outlet};
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
    let place = Place::new("backfill", path, &dataflow.store_options, Some(runtime.clone()))?;
    let listed = place.list().map_err(|source| SourceError::List {
        feed: "backfill".into(),
        path: path.to_string(),
        attempts: 1,
        source: Arc::new(source),
    })?;
    Ok(listed.iter().map(|found| place.display(&found.partition)).collect())
}

/// Whether a feed of this path reads a file by itself.
pub fn reads(feed_path: &str, file: &str) -> bool {
    let plain = |text: &str| text.strip_prefix("file://").unwrap_or(text).to_string();
    let (pattern, file) = (plain(feed_path), plain(file));
    glob::Pattern::new(&pattern).is_ok_and(|pattern| pattern.matches_with(&file, MATCHING))
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
        let place = if is_remote(path) {
            Place::new("backfill", path, &dataflow.store_options, Some(runtime.clone())).map_err(io::Error::other)?
        } else {
            let path = std::path::Path::new(path.strip_prefix("file://").unwrap_or(path));
            Place::Local {
                folder: path.parent().unwrap_or(path).to_path_buf(),
                glob: glob::Pattern::escape(&path.to_string_lossy()),
            }
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let found = place.found(name)?;
        Ok(found.map(|found| SingleFile { place, found }))
    }

    /// Its name, without folders.
    pub fn name(&self) -> &str {
        &self.found.partition
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
        let opened = Source::open(&self.place, &self.found.partition).map_err(|broken| match broken {
            Break::Passing(error) => error,
            Break::Spoilt(reason) => io::Error::new(io::ErrorKind::InvalidInput, reason),
            Break::Vanished => io::Error::from(io::ErrorKind::NotFound),
            Break::Ended(_) => io::Error::from(io::ErrorKind::Interrupted),
            Break::Changed => io::Error::from(io::ErrorKind::StaleNetworkFileHandle),
        });
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
        };
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
                share: Share::default(),
            },
            place: self.place.clone(),
            options: reading.options,
            decode: reading.decode,
        };
        let job = Job {
            partition: self.found.partition.clone(),
            tag: self.found.tag.clone(),
            size: self.found.size,
            seen: Instant::now(),
            task: Task::Read { next: reading.next },
        };
        match reader.run(&job) {
            Ok(position) => Ok(position),
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
    let place = Place::new("backfill", feed_path, &dataflow.store_options, Some(runtime.clone()))?;
    Ok(place.display(partition))
}
