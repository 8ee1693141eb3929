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
//! 3. A failure that may pass is tried again from the next record on, which repeats nothing. When it does not pass, and
//!    where a file may not be read, the file waits, and the feed with it where the order of arrival decides.

mod columnar;
mod lister;
mod listing;
mod near;
mod open;
mod originals;
mod settle;
mod single;
mod telling;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::batch::{BatchBuilder, Record};
use super::fault::pause;
use super::outlet::{Ended, Hand};
use super::readers::{ReaderOptions, Starter};
use super::share::Share;
use super::{Decode, Position, Progress, SourceError};
use crate::decode::{Payloads, Raw};
use crate::definition::{FileRules, Format};

use columnar::Extent;
use lister::{End, Lister, Look, reached};
pub(crate) use listing::is_remote;
use listing::{Place, Surroundings};
pub(crate) use near::what_is_in;
use open::{Break, Source, decompress};
pub use originals::Originals;
use settle::{Job, Settle, Task};
pub use single::{Reading, SingleFile, list_files, path_of, reads};
use text::{Records, SplitError};

/// How a reader was done with a file.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Read to its end or given up: its last position.
    Done(Position),
    /// Gone before anything of it was read.
    Gone,
    /// It cannot be read now; how far it was read, if anything of it was.
    Stuck {
        position: Option<Position>,
        cause: io::Error,
    },
}

/// Starts the feed's threads.
pub(crate) fn start(
    starter: &mut Starter,
    hand: Hand,
    (path, rules): (&str, &FileRules),
    resume: &Progress,
) -> Result<(), SourceError> {
    let around = Surroundings::of(&hand.dataflow, rules.follow_links, starter.runtime.clone());
    let place = Place::new(&hand.name(), path, around)?;
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
                let finish = reader.run(&job)?;
                if matches!(finish, Finish::Done(_)) {
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
        options,
        settle,
        jobs,
        ended,
        free: readers,
        look: Look::default(),
    };
    starter.spawn(&hand, move |hand| lister.list(&hand))
}

fn vanished(path: &str, next: u64) -> String {
    format!("file {path} vanished after {next} of its records were read; drop the others as a new file")
}

struct FileReader {
    hand: Hand,
    place: Place,
    options: ReaderOptions,
    decode: Decode,
}

impl FileReader {
    /// Does a job to its end.
    fn run(&mut self, job: &Job) -> Result<Finish, Ended> {
        let path = self.place.shown(&job.partition);
        let reason = match job.task {
            Task::Read { next } => return self.read(job, next, &path),
            Task::Changed { .. } => {
                format!("file {path} changed after it was read: it was already read; drop corrected rows as a new file")
            }
            Task::ChangedHalfway { next } => {
                format!(
                    "file {path} changed after {next} of its records were read; drop the other records as a new file"
                )
            }
            Task::Vanished { next } => vanished(&path, next),
        };
        let (Task::Changed { next } | Task::ChangedHalfway { next } | Task::Vanished { next } | Task::Read { next }) =
            job.task;
        self.give_up(job, next, reason).map(Finish::Done)
    }

    fn read(&mut self, job: &Job, mut next: u64, path: &str) -> Result<Finish, Ended> {
        let (mut attempts, mut arrived_at) = (0, next);
        loop {
            let broke = match self.attempt(job, &mut next) {
                Ok(position) => return Ok(Finish::Done(position)),
                Err(broke) => broke,
            };
            match broke {
                Break::Ended(ended) => return Err(ended),
                Break::Spoilt(reason) => {
                    let reason = format!(
                        "file {path} could not be read behind its record {next}: {reason}; drop what is missing as a new file"
                    );
                    return self.give_up(job, next, reason).map(Finish::Done);
                }
                Break::Vanished if next == 0 => {
                    tracing::warn!(feed = self.hand.name(), path, "file vanished before it was read");
                    return Ok(Finish::Gone);
                }
                Break::Vanished => {
                    let reason = vanished(path, next);
                    return self.give_up(job, next, reason).map(Finish::Done);
                }
                Break::Denied(cause) => {
                    return Ok(Finish::Stuck {
                        position: reached(next, &job.tag),
                        cause,
                    });
                }
                Break::Passing(cause) => {
                    attempts = if next > arrived_at { 1 } else { attempts + 1 };
                    arrived_at = next;
                    tracing::warn!(feed = self.hand.name(), path, record = next, error = %cause, attempts, "reading again");
                    self.hand.gauges.set_error(format!("could not read {path}: {cause}"));
                    if attempts > self.options.retries {
                        return Ok(Finish::Stuck {
                            position: reached(next, &job.tag),
                            cause,
                        });
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
        };
        let batches = match self.hand.feed().format {
            Format::Parquet => columnar::parquet(&self.place, &job.partition, extent)?,
            _ => columnar::avro(&self.place, &job.partition, extent)?,
        };
        let path: Arc<str> = self.place.display(&job.partition).into();
        for batch in batches {
            let batch = batch?;
            let offsets = (*next..*next + batch.num_rows() as u64).collect();
            let raw = Raw {
                payloads: Payloads::Columns {
                    batch,
                    path: path.clone(),
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
        match self.place.tag(&job.partition).map_err(Break::from_io)? {
            Some(tag) if tag != job.tag => Err(Break::Spoilt("it changed while it was read".into())),
            _ => Ok(()),
        }
    }
}
