//! A feed's files as they lie there, for whoever keeps a copy of them: a copy holds the bytes that were decoded, or is none.

use std::io::{self, Read};

use super::listing::{Place, Surroundings, is_remote};
use super::open::{Source, refusal};
use crate::definition::{Dataflow, FeedKind};
use crate::source::SourceError;

/// The files of one feed.
pub struct Originals {
    place: Place,
}

impl Originals {
    /// The files of a feed, by index into `Dataflow::inputs` and `Input::feeds`; none for a feed of another kind.
    ///
    /// # Errors
    /// A path that names no store, or no glob.
    pub fn of(
        dataflow: &Dataflow,
        (input, feed): (usize, usize),
        runtime: tokio::runtime::Handle,
    ) -> Result<Option<Originals>, SourceError> {
        let input = &dataflow.inputs[input];
        let feed = &input.feeds[feed];
        let FeedKind::Files { path, rules } = &feed.kind else {
            return Ok(None);
        };
        let name = format!("{}.{}", input.name, feed.name);
        let remote = is_remote(path).then_some(runtime);
        let place = Place::new(&name, path, Surroundings::of(dataflow, rules.follow_links, remote))?;
        Ok(Some(Originals { place }))
    }

    /// A file's bytes, as they come; `path` and `tag` are as deliveries of columns name it. Not to be read inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store; `InvalidInput` for a file that is not one of the feed's; at the end of its bytes
    /// `StaleNetworkFileHandle` where they may be of other content than `tag` names.
    pub fn open(&self, path: &str, tag: &str) -> io::Result<impl Read + use<>> {
        let folder = self.place.display("");
        let partition = path
            .strip_prefix(&folder)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not in {folder}")))?;
        let opened = Source::open(&self.place, partition).map_err(refusal);
        let (source, _) = opened?;
        Ok(Unchanged {
            source,
            place: self.place.clone(),
            partition: partition.to_string(),
            tag: tag.to_string(),
        })
    }
}

/// A file's bytes, which end well only if the file is the same one then: a reader that opened it before had the same bytes.
pub(super) struct Unchanged {
    pub source: Source,
    pub place: Place,
    pub partition: String,
    pub tag: String,
}

impl Read for Unchanged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.place.tag(&self.partition)?.as_ref() != Some(&self.tag) {
            let kind = io::ErrorKind::StaleNetworkFileHandle;
            return Err(io::Error::new(kind, "it changed while it was read"));
        }
        Ok(read)
    }
}

/// Characters that are kept of a file's name: file systems take names of 255 bytes, and a hash comes before.
const NAME: usize = 200;

/// The end of a file's name, which tells its format, as any file system takes it behind a hash.
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
