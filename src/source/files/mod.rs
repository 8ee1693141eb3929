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
//! 3. A failure that may pass is tried again from the next record on, which repeats nothing; when it does not pass the
//!    feed fails, for to go on would lose the file.

mod columnar;
mod listing;
mod open;
mod originals;
mod settle;
mod single;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::batch::{BatchBuilder, Record};
use super::outlet::{Ended, Hand};
use super::readers::{ReaderOptions, Starter};
use super::share::Share;
use super::{Decode, Position, Progress, SourceError};
use crate::decode::{Payloads, Raw};
use crate::definition::Format;

use columnar::Extent;
use listing::Place;
pub(crate) use listing::is_remote;
use open::{Break, Source, decompress};
pub use originals::{Originals, archived_name};
use settle::{Job, Settle, Task};
pub use single::{Reading, SingleFile, list_files, path_of, reads};
use text::{Records, SplitError};

/// Listing takes at most this part of a core.
const LISTING_SHARE: u32 = 50;
/// How often a store is listed, at most: each listing is a paid request.
const REMOTE_POLL: Duration = Duration::from_secs(2);
/// The longest pause before trying again.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// How a file ended: its last position, or none where it was gone before it was opened.
struct End {
    partition: Arc<str>,
    position: Option<Position>,
}

/// Starts the feed's threads.
pub(crate) fn start(starter: &mut Starter, hand: Hand, path: &str, resume: &Progress) -> Result<(), SourceError> {
    let place = Place::new(
        &hand.name(),
        path,
        &hand.dataflow.store_options,
        starter.runtime.clone(),
    )?;
    let positions = hand
        .positions(resume)
        .filter(|(name, _)| hand.reads(name))
        .map(|(name, position)| (name.into(), position.clone()))
        .collect();
    let options = starter.options.clone();
    let settle = Settle::new(place.is_atomic(), options.settle, positions);
    let readers = if Share::in_order(hand.input()) {
        1
    } else {
        options.file_readers.max(1)
    };
    // As many as readers: the lister never waits to hand out a job, and few files are taken out of their order.
    let (jobs, queue) = crossbeam_channel::bounded(readers);
    let (ends, ended) = crossbeam_channel::unbounded();
    for _ in 0..readers {
        let (place, options, decoders) = (place.clone(), options.clone(), starter.decoders.clone());
        let (queue, ends): (Receiver<Job>, Sender<End>) = (queue.clone(), ends.clone());
        starter.spawn(&hand, move |hand| {
            let decode = decoders(hand.input, hand.feed);
            let mut reader = FileReader {
                hand,
                place,
                options,
                decode,
            };
            // The queue closes when the lister ends.
            for job in queue {
                let position = reader.run(&job)?;
                if position.is_some() {
                    reader.hand.gauges.files_done.fetch_add(1, Ordering::Relaxed);
                }
                if ends
                    .send(End {
                        partition: job.partition,
                        position,
                    })
                    .is_err()
                {
                    break;
                }
            }
            Ok(())
        })?;
    }
    let lister = Lister {
        place,
        options,
        settle,
        jobs,
        ended,
        free: readers,
        failures: 0,
    };
    starter.spawn(&hand, move |hand| lister.list(&hand))
}

struct Lister {
    place: Place,
    options: ReaderOptions,
    settle: Settle,
    jobs: Sender<Job>,
    ended: Receiver<End>,
    /// Readers with nothing to do.
    free: usize,
    /// Listings that failed in a row.
    failures: u32,
}

impl Lister {
    fn list(mut self, hand: &Hand) -> Result<(), Ended> {
        let readers = self.free;
        loop {
            let (next_listing, fresh) = self.look(hand)?;
            loop {
                while self.free > 0 {
                    let Some(job) = self.settle.next_job() else { break };
                    self.free -= 1;
                    if self.jobs.send(job).is_err() {
                        return Err(Ended::Stopped); // every reader failed, and said why
                    }
                }
                let (files, bytes) = self.settle.lag();
                hand.gauges.set_lag(files, bytes);
                let exhausted = fresh && files == 0 && self.free == readers;
                hand.gauges.set_exhausted(exhausted);
                if exhausted && self.options.stop_at_end {
                    return Ok(());
                }
                select! {
                    recv(self.ended) -> end => match end {
                        Ok(end) => {
                            self.settle.observe_end(&end.partition, end.position);
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

    /// Lists; says when to list again and whether this listing told anything.
    fn look(&mut self, hand: &Hand) -> Result<(Instant, bool), Ended> {
        let start = Instant::now();
        let poll = if self.place.is_atomic() {
            self.options.poll.max(REMOTE_POLL)
        } else {
            self.options.poll
        };
        match self.place.list() {
            Ok(mut listing) => {
                self.failures = 0;
                let there = !listing.is_empty() || self.place.is_there();
                listing.retain(|found| hand.reads(&found.partition));
                let listing = there.then_some(listing);
                self.settle.observe(listing, start, (self.options.clock)());
                let end = Instant::now();
                Ok((end + poll.max((end - start) * LISTING_SHARE), true))
            }
            Err(error) => {
                self.failures += 1;
                tracing::warn!(feed = hand.name(), error = %error, attempt = self.failures, "could not list files");
                hand.gauges.set_error(format!("could not list files: {error}"));
                if self.failures > self.options.retries {
                    return Err(SourceError::List {
                        feed: hand.name(),
                        path: self.place.display(""),
                        attempts: self.failures,
                        source: Arc::new(error),
                    }
                    .into());
                }
                Ok((Instant::now() + pause(&self.options, self.failures).max(poll), false))
            }
        }
    }
}

fn pause(options: &ReaderOptions, attempt: u32) -> Duration {
    options
        .back_off
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(LONGEST_BACK_OFF)
}

fn vanished(path: &str, next: u64) -> String {
    format!("file {path} vanished after {next} of its records were read; drop the others as a new file")
}

fn changed_halfway(path: &str, next: u64) -> String {
    format!("file {path} changed after {next} of its records were read; drop the other records as a new file")
}

struct FileReader {
    hand: Hand,
    place: Place,
    options: ReaderOptions,
    decode: Decode,
}

impl FileReader {
    /// Does a job to its end, and returns the file's last position; none if it was gone before anything was read.
    fn run(&mut self, job: &Job) -> Result<Option<Position>, Ended> {
        let path = self.place.display(&job.partition);
        match job.task {
            Task::Changed { next } => {
                let reason = format!(
                    "file {path} changed after it was read: it was already read; drop corrected rows as a new file"
                );
                self.give_up(job, next, reason).map(Some)
            }
            Task::ChangedHalfway { next } => {
                let reason = changed_halfway(&path, next);
                self.give_up(job, next, reason).map(Some)
            }
            Task::Vanished { next } => {
                let reason = vanished(&path, next);
                self.give_up(job, next, reason).map(Some)
            }
            Task::Read { next } => self.read(job, next, &path),
        }
    }

    fn read(&mut self, job: &Job, mut next: u64, path: &str) -> Result<Option<Position>, Ended> {
        let (mut attempts, mut reached) = (0, next);
        loop {
            let broke = match self.attempt(job, &mut next) {
                Ok(position) => return Ok(Some(position)),
                Err(broke) => broke,
            };
            match broke {
                Break::Ended(ended) => return Err(ended),
                Break::Spoilt(reason) => {
                    let reason = format!(
                        "file {path} could not be read behind its record {next}: {reason}; drop what is missing as a new file"
                    );
                    return self.give_up(job, next, reason).map(Some);
                }
                Break::Changed if next == 0 => {
                    tracing::warn!(
                        feed = self.hand.name(),
                        path,
                        "file changed before it was read; the next look takes it as it is then"
                    );
                    return Ok(None);
                }
                Break::Changed => {
                    let reason = changed_halfway(path, next);
                    return self.give_up(job, next, reason).map(Some);
                }
                Break::Vanished if next == 0 => {
                    tracing::warn!(feed = self.hand.name(), path, "file vanished before it was read");
                    return Ok(None);
                }
                Break::Vanished => {
                    let reason = vanished(path, next);
                    return self.give_up(job, next, reason).map(Some);
                }
                Break::Passing(error) => {
                    attempts = if next > reached { 1 } else { attempts + 1 };
                    reached = next;
                    tracing::warn!(feed = self.hand.name(), path, record = next, error = %error, attempts, "reading again");
                    self.hand.gauges.set_error(format!("could not read {path}: {error}"));
                    if attempts > self.options.retries {
                        return Err(SourceError::Read {
                            feed: self.hand.name(),
                            path: path.to_string(),
                            record: next,
                            attempts,
                            source: Arc::new(error),
                        }
                        .into());
                    }
                    self.hand.sleep(pause(&self.options, attempts))?;
                }
            }
        }
    }

    /// The file is done, and a dead letter, by (2).
    fn give_up(&mut self, job: &Job, next: u64, reason: String) -> Result<Position, Ended> {
        // Its tag as of now: a later look must not take it for another change.
        let tag = self
            .place
            .tag(&job.partition)
            .ok()
            .flatten()
            .unwrap_or_else(|| job.tag.clone());
        let position = Position {
            next,
            done: true,
            tag: Some(tag),
        };
        self.hand
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }

    /// Reads a file from record `next` on, and moves `next` with each delivery.
    fn attempt(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
        match self.hand.feed().format {
            Format::Parquet | Format::Avro => self.attempt_columnar(job, next),
            Format::Csv => self.attempt_text(job, next, true),
            _ => self.attempt_text(job, next, false),
        }
    }

    fn attempt_text(&mut self, job: &Job, next: &mut u64, csv: bool) -> Result<Position, Break> {
        let (source, trouble) = Source::open(&self.place, &job.partition)?;
        let plain = decompress(source, &job.partition).map_err(|e| trouble.explain(e))?;
        let mut records = Records::new(plain, csv, self.options.record_bytes);
        let broken = |error: SplitError| match error {
            SplitError::Io(e) => trouble.explain(e),
            SplitError::TooLong { limit } => Break::Spoilt(format!(
                "it has a record of more than {limit} bytes; perhaps a quote is never closed"
            )),
            SplitError::OpenQuote => Break::Spoilt("a quote in the record behind it is never closed".into()),
        };
        let mut header = None;
        if csv && let Some(line) = records.next().map_err(broken)? {
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            header = Some(Arc::from(String::from_utf8_lossy(line)));
        }
        for _ in 0..*next {
            records.next().map_err(broken)?;
        }
        let mut batch = BatchBuilder::new(self.hand.limits);
        let mut at = *next;
        let end = loop {
            match records.next() {
                Ok(Some(record)) => {
                    batch.push(Record {
                        offset: at,
                        value: Some(record),
                        ..Record::default()
                    });
                    at += 1;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(broken(error)),
            }
            if batch.is_full() {
                self.hand_over(job, batch.take(header.clone()), next, false)?;
            }
        };
        let end = end.and_then(|()| self.check_unchanged(job));
        if end.is_ok() || !batch.is_empty() {
            self.hand_over(job, batch.take(header), next, end.is_ok())?;
        }
        end.map(|()| self.position(job, *next, true))
    }

    fn attempt_columnar(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
        let extent = Extent {
            size: job.size,
            next: *next,
            rows: self.hand.limits.rows,
            tag: &job.tag,
        };
        let batches = match self.hand.feed().format {
            Format::Parquet => columnar::parquet(&self.place, &job.partition, extent)?,
            _ => columnar::avro(&self.place, &job.partition, extent)?,
        };
        let path: Arc<str> = self.place.display(&job.partition).into();
        let tag: Arc<str> = job.tag.as_str().into();
        let mut is_first = true;
        for batch in batches {
            let batch = batch?;
            // Its rows are those of the file that Bronze comes to refer to. A store gives bytes of the object that was opened,
            // or none; a file may be written to while it is read.
            if (is_first || !self.place.is_atomic()) && self.is_changed(job)? {
                return Err(Break::Changed);
            }
            is_first = false;
            let offsets = (*next..*next + batch.num_rows() as u64).collect();
            let raw = Raw {
                payloads: Payloads::Columns {
                    batch,
                    path: path.clone(),
                    tag: tag.clone(),
                },
                offsets,
                header: None,
            };
            self.hand_over(job, raw, next, false)?;
        }
        self.check_unchanged(job)?;
        let position = self.position(job, *next, true);
        self.hand.conclude(&job.partition, position.clone(), None, job.seen)?;
        Ok(position)
    }

    fn position(&self, job: &Job, next: u64, done: bool) -> Position {
        Position {
            next,
            done,
            tag: Some(job.tag.clone()),
        }
    }

    /// Hands over a batch that starts at record `next`.
    fn hand_over(&mut self, job: &Job, raw: Raw, next: &mut u64, done: bool) -> Result<(), Ended> {
        let behind = raw.offsets.last().map_or(*next, |last| last + 1);
        let position = self.position(job, behind, done);
        match raw.is_empty() {
            true => self.hand.conclude(&job.partition, position, None, job.seen)?,
            false => self
                .hand
                .deliver(&mut self.decode, &job.partition, raw, position, job.seen)?,
        }
        *next = behind;
        Ok(())
    }

    /// A file that was read to its end must still be the file that was opened. One that is gone was whole.
    fn check_unchanged(&self, job: &Job) -> Result<(), Break> {
        match self.is_changed(job)? {
            true => Err(Break::Spoilt("it changed while it was read".into())),
            false => Ok(()),
        }
    }

    /// Whether another file has its name now. One that is gone was whole.
    fn is_changed(&self, job: &Job) -> Result<bool, Break> {
        let tag = self.place.tag(&job.partition).map_err(Break::from_io)?;
        Ok(tag.is_some_and(|tag| tag != job.tag))
    }
}
