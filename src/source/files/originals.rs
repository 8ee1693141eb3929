//! The original files of a feed, for archiving. A copy either holds exactly the bytes that were decoded, or fails.

use std::io::{self, Read};

use super::listing::{GlobLocation, Surroundings, is_remote};
use super::open::{StoredBytes, refusal};
use crate::definition::{Dataflow, FileFeed};
use crate::source::SourceError;

/// The files of one feed.
pub struct Originals {
    place: GlobLocation,
}

impl Originals {
    /// The files of a feed, by index into `Dataflow::inputs` and `Input::feeds`; none for a feed of another kind.
    ///
    /// # Errors
    /// The path belongs to no known store, or is no valid glob.
    pub fn of_feed(
        dataflow: &Dataflow,
        (input, feed): (usize, usize),
        runtime: tokio::runtime::Handle,
    ) -> Result<Option<Originals>, SourceError> {
        let input = &dataflow.inputs[input];
        let feed = &input.feeds[feed];
        let Some(FileFeed { path, rules }) = feed.kind.settings_of() else {
            return Ok(None);
        };
        let name = format!("{}.{}", input.name, feed.name);
        let remote = is_remote(path).then_some(runtime);
        let place = GlobLocation::new(
            &name,
            path,
            Surroundings::of_dataflow(dataflow, rules.follow_links, remote),
        )?;
        Ok(Some(Originals { place }))
    }

    /// A stream of a file's bytes; `path` and `tag` are as in deliveries of columns. It blocks, so do not read it
    /// inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store; `InvalidInput` for a file that does not belong to the feed. The stream ends
    /// with `StaleNetworkFileHandle` if its bytes may belong to another version than `tag`.
    pub fn open(&self, path: &str, tag: &str) -> io::Result<impl Read + use<>> {
        let folder = self.place.display("");
        let partition = path
            .strip_prefix(&folder)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not in {folder}")))?;
        let opened = StoredBytes::open(&self.place, partition).map_err(refusal);
        let (source, _) = opened?;
        Ok(UnchangedBytes {
            source,
            place: self.place.clone(),
            partition: partition.to_string(),
            tag: tag.to_string(),
        })
    }
}

/// A file's bytes. The stream ends without an error only if the file still has its tag then, so that a reader that
/// opened it before had the same bytes.
pub(super) struct UnchangedBytes {
    pub source: StoredBytes,
    pub place: GlobLocation,
    pub partition: String,
    pub tag: String,
}

impl Read for UnchangedBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.place.tag(&self.partition)?.as_ref() != Some(&self.tag) {
            let kind = io::ErrorKind::StaleNetworkFileHandle;
            return Err(io::Error::new(kind, "it changed while it was read"));
        }
        Ok(read)
    }
}

/// How many characters of a file's name are kept: file systems allow names of 255 bytes, and a hash is put before it.
const NAME: usize = 200;

/// The end of a file's name, which shows its format, with only characters that every file system allows.
pub fn archived_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ".-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    let skipped = name.chars().count().saturating_sub(NAME);
    name.chars().skip(skipped).map(plain).collect()
}
