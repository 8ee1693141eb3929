//! The lister of a feed: lists the files, reports what is left out, and gives files to readers.
//!
//! A file or folder that cannot be read becomes the feed's [`FeedFault`].

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::listing::{GlobLocation, Listing};
use super::near::why_nothing;
use super::notices::{ListingContext, ListingNotices};
use super::queue::{FileJob, FileQueue, TORN_PATIENCE};
use super::reader::FileEnd;
use super::walk::WhyLeftOut;
use crate::source::error::ReaderExit;
use crate::source::fault::{FeedFault, pause};
use crate::source::feed_handle::FeedHandle;
use crate::source::names::relative_path;
use crate::source::options::ReaderOptions;

/// After a listing, the lister pauses for at least this many times the time that the listing took.
const LISTING_SHARE: u32 = 50;
/// The least interval between listings of a store, because each listing is a paid request.
const REMOTE_POLL: Duration = Duration::from_secs(2);
/// The least interval between updates of the gauges while the feed reads.
const GAUGES_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait before a file that could not be read is tried again.
const STUCK: Duration = Duration::from_secs(1);

/// How a reader's job on a file ended.
pub(super) struct FinishedFile {
    pub partition: Arc<str>,
    pub finish: FileEnd,
}

pub(super) struct Lister {
    pub place: GlobLocation,
    /// The feed's path, as the definition has it.
    pub path: String,
    /// Whether the order in which files are read decides which version of a row counts.
    pub order_decides: bool,
    /// Whether to warn if no file exists.
    pub nothing_is_odd: bool,
    pub options: ReaderOptions,
    pub queue: FileQueue,
    pub jobs: Sender<FileJob>,
    pub ended: Receiver<FinishedFile>,
    /// The number of idle readers.
    pub free: usize,
    pub state: ListerState,
}

/// What the lister remembers of earlier listings.
#[derive(Default)]
pub(super) struct ListerState {
    notices: ListingNotices,
    /// Why the newest listing is incomplete.
    unseen: Option<String>,
    /// How many listings in a row failed.
    failures: u32,
    fault: FeedFault,
    /// When the gauges were last updated.
    gauges_updated: Option<Instant>,
}

impl Lister {
    pub fn list(mut self, handle: &FeedHandle) -> Result<(), ReaderExit> {
        let readers = self.free;
        loop {
            let next_listing = self.list_once(handle)?;
            loop {
                while self.free > 0 {
                    let Some(job) = self.queue.next_job() else { break };
                    self.free -= 1;
                    if self.jobs.send(job).is_err() {
                        return Err(ReaderExit::Stopped); // every reader failed, and recorded its error
                    }
                }
                let is_reading = self.free < readers;
                // An update visits all files, of which there may be a hundred thousand, so it is not done whenever
                // one of them ends.
                let is_due = !is_reading
                    || self
                        .state
                        .gauges_updated
                        .is_none_or(|updated| updated.elapsed() >= GAUGES_INTERVAL);
                let exhausted = is_due && self.update_gauges(handle) && !is_reading;
                handle.gauges.set_exhausted(exhausted);
                if exhausted && self.options.stop_at_end {
                    return Ok(());
                }
                select! {
                    recv(self.ended) -> end => match end {
                        Ok(end) => {
                            self.observe_end(end);
                            self.free += 1;
                        }
                        Err(_) => return Err(ReaderExit::Stopped), // every reader failed, and recorded its error
                    },
                    recv(handle.stop) -> _ => return Err(ReaderExit::Stopped),
                    recv(crossbeam_channel::at(next_listing)) -> _ => break,
                }
            }
        }
    }

    /// Updates the gauges. Returns whether nothing is left that can be read now, apart from files being read.
    fn update_gauges(&mut self, handle: &FeedHandle) -> bool {
        self.state.gauges_updated = Some(Instant::now());
        let (files, bytes) = self.queue.lag();
        handle.gauges.set_lag(files, bytes);
        self.observe_fault(handle, files);
        match self.state.fault.is_there() {
            false => files == 0,
            true => self.state.fault.lasts() && self.queue.is_at_rest(),
        }
    }

    fn observe_end(&mut self, end: FinishedFile) {
        match end.finish {
            FileEnd::Done(position) => self.queue.observe_end(&end.partition, Some(position)),
            FileEnd::Gone => self.queue.observe_end(&end.partition, None),
            FileEnd::Changed => self.queue.observe_changed(&end.partition),
            FileEnd::Stuck { position, cause } => {
                // A file that may still be growing is read once it is longer, or once it has not changed for long.
                let pause = match cause.kind() {
                    ErrorKind::UnexpectedEof => self.options.settle * TORN_PATIENCE,
                    _ => STUCK,
                };
                let cause = format!("could not read {}: {cause}", self.place.shown(&end.partition));
                self.queue
                    .observe_stuck(&end.partition, position, cause, Instant::now() + pause);
            }
        }
    }

    /// Records the feed's fault. `open` is the number of files that are not done.
    fn observe_fault(&mut self, handle: &FeedHandle, open: u64) {
        let is_removed = matches!(&self.place, GlobLocation::Local { folder, .. } if open > 0 && !folder.is_dir());
        let cause = match (&self.state.unseen, self.queue.stuck()) {
            (Some(unseen), _) => Some(unseen.clone()),
            (None, Some(stuck)) => Some(stuck.to_string()),
            (None, None) => is_removed.then(|| {
                let folder = self.place.shown("");
                format!("folder {folder} is gone, and {open} of its files are not read to their end")
            }),
        };
        self.state.fault.observe(handle, &self.options, cause);
    }

    /// Lists the files; returns when to list again.
    fn list_once(&mut self, handle: &FeedHandle) -> Result<Instant, ReaderExit> {
        let start = Instant::now();
        let poll = match self.place.is_atomic() {
            true => self.options.poll.max(REMOTE_POLL),
            false => self.options.poll,
        };
        match self.place.list(&|| handle.check().is_err()) {
            Ok(listing) => {
                self.state.failures = 0;
                self.observe_listing(handle, listing, start);
                let end = Instant::now();
                Ok(end + poll.max((end - start) * LISTING_SHARE))
            }
            Err(error) => {
                handle.check()?;
                self.state.failures += 1;
                self.state.unseen = Some(match error.kind() {
                    ErrorKind::NotADirectory => self.place.not_a_folder_message(),
                    _ => format!("could not list {}: {error}", self.place.shown("")),
                });
                self.queue.observe(None, &|_| true, start, (self.options.clock)());
                Ok(Instant::now() + pause(&self.options, self.state.failures).max(poll))
            }
        }
    }

    fn observe_listing(&mut self, handle: &FeedHandle, listing: Listing, now: Instant) {
        let occasion = ListingContext {
            now: (self.options.clock)(),
            order_decides: self.order_decides,
            nothing_is_odd: self.nothing_is_odd,
        };
        let why_nothing = || why_nothing(&self.place, &self.path);
        let messages = self.state.notices.observe(&listing, &self.place, occasion, why_nothing);
        let feed = handle.name();
        messages.warnings.iter().for_each(|text| tracing::warn!(feed, "{text}"));
        messages.passed.iter().for_each(|text| tracing::info!(feed, "{text}"));
        self.state.unseen = listing.left_out.iter().find_map(|left| match &left.why {
            WhyLeftOut::Unreadable(reason) => Some(format!(
                "could not read {}: {reason}",
                self.place.shown_below(&left.path)
            )),
            _ => None,
        });
        let left_out: HashSet<PathBuf> = listing.left_out.into_iter().map(|left| left.path).collect();
        let is_unseen = |partition: &str| {
            let path = relative_path(partition);
            !left_out.is_empty() && path.ancestors().any(|above| left_out.contains(above))
        };
        let mut files = listing.files;
        files.retain(|found| handle.reads(&found.partition));
        let files = listing.is_there.then_some(files);
        self.queue.observe(files, &is_unseen, now, (self.options.clock)());
    }
}
