//! How a feed of kind `files` starts: a lister, and a few readers that it gives files to.

use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::content::KnownFiles;
use super::lister::{FinishedFile, Lister, ListerState};
use super::listing::{GlobLocation, Surroundings, is_remote};
use super::queue::{FileJob, FileQueue};
use super::reader::{FileEnd, FileReader};
use crate::definition::FileFeed;
use crate::repr::FeedPositions;
use crate::source::connector::Connector;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::Starter;

impl Connector for FileFeed {
    fn uses_store(&self) -> bool {
        is_remote(&self.path)
    }

    fn start(&self, starter: &mut Starter, handle: FeedHandle, resume: &FeedPositions) -> Result<(), SourceError> {
        let around = Surroundings::of_dataflow(&handle.dataflow, self.rules.follow_links, starter.runtime.clone());
        let place = GlobLocation::new(&handle.name(), &self.path, around)?;
        let known = KnownFiles::default();
        for (name, position) in handle.positions(resume) {
            if let Some(content) = &position.content {
                known.claim(content.clone(), &name.into());
            }
        }
        let positions = handle
            .positions(resume)
            .filter(|(name, _)| handle.reads(name))
            .map(|(name, position)| (name.into(), position.clone()))
            .collect();
        let options = starter.options.clone();
        let in_order = handle.input().goes_by_arrival();
        let file_queue = FileQueue::new((place.is_atomic(), in_order), options.settle, positions);
        let readers = if in_order { 1 } else { options.file_readers.max(1) };
        // The capacity equals the number of readers: the lister never blocks when it hands out a job, and few
        // files are read out of order.
        let (jobs, queue) = crossbeam_channel::bounded(readers);
        let (ends, ended) = crossbeam_channel::unbounded();
        for _ in 0..readers {
            let (place, options, decoders) = (place.clone(), options.clone(), starter.decoders.clone());
            let known = known.clone();
            let (queue, ends): (Receiver<FileJob>, Sender<FinishedFile>) = (queue.clone(), ends.clone());
            starter.spawn(&handle, move |handle| {
                let decode = decoders(handle.input, handle.feed);
                let mut reader = FileReader::new(handle, place, options, decode, known);
                // The channel closes when the lister ends.
                for job in queue {
                    let finish = reader.run(&job)?;
                    if matches!(finish, FileEnd::Done(_)) {
                        reader.handle.gauges.files_done.fetch_add(1, Ordering::Relaxed);
                    }
                    let partition = job.partition;
                    if ends.send(FinishedFile { partition, finish }).is_err() {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        let lister = Lister {
            place,
            path: self.path.clone(),
            order_decides: in_order,
            nothing_is_odd: !self.rules.may_be_empty,
            options,
            queue: file_queue,
            jobs,
            ended,
            free: readers,
            state: ListerState::default(),
        };
        starter.spawn(&handle, move |handle| lister.list(&handle))
    }
}
