//! A feed's files as they lie there, for whoever keeps a copy of them.

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

    /// A file's bytes, as they come; `path` is as deliveries of columns name it. Not to be read inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store; `InvalidInput` for a file that is not one of the feed's.
    pub fn open(&self, path: &str) -> io::Result<impl Read> {
        let folder = self.place.display("");
        let partition = path
            .strip_prefix(&folder)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not in {folder}")))?;
        let opened = Source::open(&self.place, partition).map_err(refusal);
        opened.map(|(source, _)| source)
    }
}
