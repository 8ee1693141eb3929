//! The `files` feed: a drop folder, local or in an object store.
//!
//! ```text
//! lister --Job--> reader 0 --Delivery--> worker of the file
//!    ^  `-------> reader 1 --Delivery--> worker of the file
//!    `----End-------'
//! ```
//! The lister lists, decides with [`settle::Settle`] which file is next, and hands it to a reader that has nothing to do.
//!
//! 1. Each file is read exactly once, records in order, by one reader. Its progress is the number of the next record,
//!    and its tag: size and entity tag or time.
//! 2. A file that cannot be read is a dead letter as a whole: what came before the break is delivered, the file is
//!    done, and the feed goes on.
//!    What was added to it meanwhile or is added later is read: nothing of it was taken, or all of its first bytes were.
//!    A file that ends where more must come waits first, for as long as it may still be written.
//! 3. A failure that may pass is tried again from the next record on, which repeats nothing. When it does not pass, and
//!    where a file may not be read, the file waits, and the feed with it where the order of arrival decides.

mod attempt;
mod charset;
mod columnar;
mod content;
mod documents;
mod head;
mod headers;
mod line_number;
mod lister;
mod listing;
mod magic;
mod named;
mod near;
mod open;
mod originals;
mod portion;
mod reader;
mod settle;
mod single;
mod skim;
mod suspects;
mod telling;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::outlet::Hand;
use super::readers::Starter;
use super::share::Share;
use super::{Progress, SourceError};
use crate::definition::FileRules;

pub(crate) use charset::{Peeked, to_utf8};
use content::KnownFiles;
pub(crate) use documents::LineDocuments;
pub(crate) use head::{read_head, told_delimiter};
use lister::{End, Lister, ListerState};
pub(crate) use listing::is_remote;
use listing::{Place, Surroundings};
pub(crate) use magic::Mark as FileMark;
pub(crate) use named::{NamedFile, NamedFiles};
pub(crate) use near::what_is_in;
pub use originals::{Originals, archived_name};
use reader::{FileEnd, FileReader};
use settle::{Job, Settle};
pub(crate) use single::local_path;
pub use single::{Reading, ReadingStart, SingleFile, list_files, path_of, reads};
pub(crate) use text::{RECORD_SEPARATOR, Records as TextRecords, SplitError};

/// Starts the feed's threads.
pub(crate) fn start(
    starter: &mut Starter,
    hand: Hand,
    (path, rules): (&str, &FileRules),
    resume: &Progress,
) -> Result<(), SourceError> {
    let around = Surroundings::of(&hand.dataflow, rules.follow_links, starter.runtime.clone());
    let place = Place::new(&hand.name(), path, around)?;
    let known = KnownFiles::default();
    for (name, position) in hand.positions(resume) {
        if let Some(content) = &position.content {
            known.claim(content.clone(), &name.into());
        }
    }
    let positions = hand
        .positions(resume)
        .filter(|(name, _)| hand.reads(name))
        .map(|(name, position)| (name.into(), position.clone()))
        .collect();
    let options = starter.options.clone();
    let in_order = Share::in_order(hand.input());
    let settle = Settle::new((place.is_atomic(), in_order), options.settle, positions);
    let readers = if in_order { 1 } else { options.file_readers.max(1) };
    // As many as readers: the lister never waits to hand out a job, and few files are taken out of their order.
    let (jobs, queue) = crossbeam_channel::bounded(readers);
    let (ends, ended) = crossbeam_channel::unbounded();
    for _ in 0..readers {
        let (place, options, decoders) = (place.clone(), options.clone(), starter.decoders.clone());
        let known = known.clone();
        let (queue, ends): (Receiver<Job>, Sender<End>) = (queue.clone(), ends.clone());
        starter.spawn(&hand, move |hand| {
            let decode = decoders(hand.input, hand.feed);
            let mut reader = FileReader::new(hand, place, options, decode, known);
            // The queue closes when the lister ends.
            for job in queue {
                let finish = reader.run(&job)?;
                if matches!(finish, FileEnd::Done(_)) {
                    reader.hand.gauges.files_done.fetch_add(1, Ordering::Relaxed);
                }
                let partition = job.partition;
                if ends.send(End { partition, finish }).is_err() {
                    break;
                }
            }
            Ok(())
        })?;
    }
    let lister = Lister {
        place,
        path: path.to_string(),
        order_decides: in_order,
        nothing_is_odd: !rules.may_be_empty,
        options,
        settle,
        jobs,
        ended,
        free: readers,
        look: ListerState::default(),
    };
    starter.spawn(&hand, move |hand| lister.list(&hand))
}

/// How many times `settle` a file must have been left alone that ends where more must come.
const TORN_PATIENCE: u32 = 20;
