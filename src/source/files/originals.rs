//! A feed's files as they lie there, for whoever keeps a copy of them.

use std::io;

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::listing::{Place, is_remote, store_error};
use crate::definition::{Dataflow, FeedKind};
use crate::source::SourceError;

/// The files of one feed.
pub struct Originals {
    place: Place,
    runtime: tokio::runtime::Handle,
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
        let FeedKind::Files { path } = &feed.kind else {
            return Ok(None);
        };
        let name = format!("{}.{}", input.name, feed.name);
        let remote = is_remote(path).then(|| runtime.clone());
        let place = Place::new(&name, path, &dataflow.store_options, remote)?;
        Ok(Some(Originals { place, runtime }))
    }

    /// A file's bytes; `path` is as deliveries of columns name it. Not to be called from inside the runtime.
    ///
    /// # Errors
    /// Failures of the disk or the store; `InvalidInput` for a file that is not one of the feed's.
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        match &self.place {
            Place::Local { .. } => std::fs::read(path).map(Bytes::from),
            Place::Remote { store, .. } => {
                let folder = self.place.display("");
                let partition = path
                    .strip_prefix(&folder)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not in {folder}")))?;
                let location = self.place.location(partition);
                let read = async { store.get(&location).await?.bytes().await };
                self.runtime.block_on(read).map_err(store_error)
            }
        }
    }
}
