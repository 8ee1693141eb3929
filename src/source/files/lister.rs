//! The lister of a feed: looks what is there, says what is left out, and hands files to readers.
//!
//! A file or folder that cannot be read is the feed's [`FeedFault`].

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::TORN_PATIENCE;
use super::listing::{Listing, Place};
use super::near::why_nothing;
use super::reader::FileEnd;
use super::settle::{Job, Settle};
use super::telling::{Occasion, Telling};
use super::walk::WhyLeftOut;
use crate::source::fault::{FeedFault, pause};
use crate::source::names::relative_path;
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::ReaderOptions;

/// Listing takes at most this part of a core.
const LISTING_SHARE: u32 = 50;
/// How often a store is listed, at most: each listing is a paid request.
const REMOTE_POLL: Duration = Duration::from_secs(2);
/// How often it is told how far a feed is that reads.
const TELLING: Duration = Duration::from_millis(100);
/// How long a file that cannot be read is left alone.
const STUCK: Duration = Duration::from_secs(1);

/// How a file ended.
pub(super) struct End {
    pub partition: Arc<str>,
    pub finish: FileEnd,
}

pub(super) struct Lister {
    pub place: Place,
    /// As the feed has it.
    pub path: String,
    /// Whether the order in which files are read decides which row counts.
    pub order_decides: bool,
    /// Whether it is worth a word that no file is there.
    pub nothing_is_odd: bool,
    pub options: ReaderOptions,
    pub settle: Settle,
    pub jobs: Sender<Job>,
    pub ended: Receiver<End>,
    /// Readers with nothing to do.
    pub free: usize,
    pub look: ListerState,
}

/// What looks came to.
#[derive(Default)]
pub(super) struct ListerState {
    telling: Telling,
    /// Why the last listing does not show all that is there.
    unseen: Option<String>,
    /// Listings that failed in a row.
    failures: u32,
    fault: FeedFault,
    /// When it was told last how far the feed is.
    told: Option<Instant>,
}

impl Lister {
    pub fn list(mut self, hand: &Hand) -> Result<(), Ended> {
        let readers = self.free;
        loop {
            let next_listing = self.look(hand)?;
            loop {
                while self.free > 0 {
                    let Some(job) = self.settle.next_job() else { break };
                    self.free -= 1;
                    if self.jobs.send(job).is_err() {
                        return Err(Ended::Stopped); // every reader failed, and said why
                    }
                }
                let is_reading = self.free < readers;
                // To tell goes through all files, and there may be a hundred thousand: not whenever one of them ends.
                let is_due = !is_reading || self.look.told.is_none_or(|told| told.elapsed() >= TELLING);
                let exhausted = is_due && self.tell(hand) && !is_reading;
                hand.gauges.set_exhausted(exhausted);
                if exhausted && self.options.stop_at_end {
                    return Ok(());
                }
                select! {
                    recv(self.ended) -> end => match end {
                        Ok(end) => {
                            self.observe_end(end);
                            self.free += 1;
                        }
                        Err(_) => return Err(Ended::Stopped), // every reader failed, and said why
                    },
                    recv(hand.stop) -> _ => return Err(Ended::Stopped),
                    recv(crossbeam_channel::at(next_listing)) -> _ => break,
                }
            }
        }
    }

    /// Tells how far the feed is. Whether nothing is left that can be read now, but for what is being read.
    fn tell(&mut self, hand: &Hand) -> bool {
        self.look.told = Some(Instant::now());
        let (files, bytes) = self.settle.lag();
        hand.gauges.set_lag(files, bytes);
        self.observe_fault(hand, files);
        match self.look.fault.is_there() {
            false => files == 0,
            true => self.look.fault.lasts() && self.settle.is_at_rest(),
        }
    }

    fn observe_end(&mut self, end: End) {
        match end.finish {
            FileEnd::Done(position) => self.settle.observe_end(&end.partition, Some(position)),
            FileEnd::Gone => self.settle.observe_end(&end.partition, None),
            FileEnd::Changed => self.settle.observe_changed(&end.partition),
            FileEnd::Stuck { position, cause } => {
                // What may still be written is read once it is longer, or once it has been left alone for long.
                let pause = match cause.kind() {
                    ErrorKind::UnexpectedEof => self.options.settle * TORN_PATIENCE,
                    _ => STUCK,
                };
                let cause = format!("could not read {}: {cause}", self.place.shown(&end.partition));
                self.settle
                    .observe_stuck(&end.partition, position, cause, Instant::now() + pause);
            }
        }
    }

    /// Tells what the feed waits for. `open`: files that are not done.
    fn observe_fault(&mut self, hand: &Hand, open: u64) {
        let gone = matches!(&self.place, Place::Local { folder, .. } if open > 0 && !folder.is_dir());
        let cause = match (&self.look.unseen, self.settle.stuck()) {
            (Some(unseen), _) => Some(unseen.clone()),
            (None, Some(stuck)) => Some(stuck.to_string()),
            (None, None) => gone.then(|| {
                let folder = self.place.shown("");
                format!("folder {folder} is gone, and {open} of its files are not read to their end")
            }),
        };
        self.look.fault.observe(hand, &self.options, cause);
    }

    /// Lists; says when to list again.
    fn look(&mut self, hand: &Hand) -> Result<Instant, Ended> {
        let start = Instant::now();
        let poll = match self.place.is_atomic() {
            true => self.options.poll.max(REMOTE_POLL),
            false => self.options.poll,
        };
        match self.place.list(&|| hand.check().is_err()) {
            Ok(listing) => {
                self.look.failures = 0;
                self.observe_listing(hand, listing, start);
                let end = Instant::now();
                Ok(end + poll.max((end - start) * LISTING_SHARE))
            }
            Err(error) => {
                hand.check()?;
                self.look.failures += 1;
                self.look.unseen = Some(match error.kind() {
                    ErrorKind::NotADirectory => self.place.told_as_file(),
                    _ => format!("could not list {}: {error}", self.place.shown("")),
                });
                self.settle.observe(None, &|_| true, start, (self.options.clock)());
                Ok(Instant::now() + pause(&self.options, self.look.failures).max(poll))
            }
        }
    }

    fn observe_listing(&mut self, hand: &Hand, listing: Listing, now: Instant) {
        let occasion = Occasion {
            now: (self.options.clock)(),
            order_decides: self.order_decides,
            nothing_is_odd: self.nothing_is_odd,
        };
        let why_nothing = || why_nothing(&self.place, &self.path);
        let said = self.look.telling.observe(&listing, &self.place, occasion, why_nothing);
        let feed = hand.name();
        said.warnings.iter().for_each(|text| tracing::warn!(feed, "{text}"));
        said.passed.iter().for_each(|text| tracing::info!(feed, "{text}"));
        self.look.unseen = listing.left_out.iter().find_map(|left| match &left.why {
            WhyLeftOut::Unreadable(reason) => Some(format!(
                "could not read {}: {reason}",
                self.place.shown_below(&left.path)
            )),
            _ => None,
        });
        let left_out: Vec<PathBuf> = listing.left_out.into_iter().map(|left| left.path).collect();
        let is_unseen = |partition: &str| {
            !left_out.is_empty() && left_out.iter().any(|left| relative_path(partition).starts_with(left))
        };
        let mut files = listing.files;
        files.retain(|found| hand.reads(&found.partition));
        let files = listing.is_there.then_some(files);
        self.settle.observe(files, &is_unseen, now, (self.options.clock)());
    }
}
