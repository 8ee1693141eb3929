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
mod near;
mod open;
mod originals;
mod portion;
mod settle;
mod single;
mod skim;
mod telling;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::batch::{BatchBuilder, Record};
use super::fault::pause;
use super::outlet::{Ended, Hand};
use super::readers::{ReaderOptions, Starter};
use super::share::Share;
use super::{Decode, FileContent, Position, Progress, SourceError, TextPlace};
use crate::decode::{FilePlace, Payloads, Raw, judge_columns, judge_header, moment};
use crate::definition::{Changed, Duplicates, FeedKind, FileRules, Format};
use crate::shown::shown;

use charset::as_utf8;
pub(crate) use charset::{Peeked, to_utf8};
use columnar::Extent;
use content::{FileComparison, KnownFiles, compare, content};
use documents::LineDocuments;
pub(crate) use head::read_head;
use head::{Head, HeadError, SAMPLE};
use headers::HeadersTold;
use lister::{End, Lister, ListerState};
pub(crate) use listing::is_remote;
use listing::{Place, Surroundings};
pub(crate) use magic::Mark as FileMark;
pub(crate) use near::what_is_in;
use open::{Break, Source, decompress, instead};
pub(crate) use open::{file_mark, open_text};
pub use originals::{Originals, archived_name};
use portion::Gathered;
use settle::{Job, Settle, Task};
pub(crate) use single::local_path;
pub use single::{Reading, SingleFile, list_files, path_of, reads};
pub(crate) use text::{Line, Records as TextRecords, SplitError};
use text::{MOST_BLANK, Records};

/// How a reader was done with a file.
#[derive(Debug)]
pub(crate) enum FileEnd {
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
            let mut reader = FileReader {
                hand,
                place,
                options,
                decode,
                known,
                current: CurrentFile::default(),
                headers: HeadersTold::default(),
            };
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

/// What to do once what a file was refused for is repaired.
const TRY_AGAIN: &str = "then `alluvium dead-letters --replay` reads it";

fn vanished(path: &str, next: u64) -> String {
    format!("file {path} vanished after {next} of its records were read; drop the others as a new file")
}

fn changed_halfway(path: &str, next: u64) -> String {
    format!("file {path} changed after {next} of its records were read; drop the other records as a new file")
}

/// Bytes of a file, which end with an error once readers are to stop: a record may be as long as the file is.
struct Heard<R> {
    source: R,
    hand: Hand,
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.hand.check() {
            Ok(()) => self.source.read(buffer),
            Err(_) => Err(io::Error::other("readers are to stop")),
        }
    }
}

struct FileReader {
    hand: Hand,
    place: Place,
    options: ReaderOptions,
    decode: Decode,
    known: KnownFiles,
    current: CurrentFile,
    headers: HeadersTold,
}

/// The first record that is to be read.
fn reached(task: &Task) -> u64 {
    match task {
        Task::Read { next, .. } | Task::ChangedHalfway { next } | Task::Vanished { next } => *next,
        Task::Changed(then) => then.next,
    }
}

/// What positions say of the file that is being read.
#[derive(Default)]
struct CurrentFile {
    /// See [`Position::base`].
    base: u64,
    /// What it holds, where that is asked before it is read; what is known of it already; what of it was read.
    content: Option<FileContent>,
    /// See [`Position::open_end`] and [`Position::at`].
    open_end: Option<u64>,
    at: Option<TextPlace>,
    /// When it was last written, once that is asked.
    modified: Option<Arc<str>>,
}

impl FileReader {
    /// Does a job to its end.
    fn run(&mut self, job: &Job) -> Result<FileEnd, Ended> {
        let path = self.place.shown(&job.partition);
        self.current = CurrentFile::default();
        match &job.task {
            Task::Read { next, base } => {
                self.current.base = *base;
                self.current.at = job.at;
                match self.rules().duplicates {
                    Duplicates::Read => self.read(job, *next, &path),
                    Duplicates::Skip => self.read_unless_known(job, *next, &path),
                }
            }
            Task::Changed(position) => self.read_changed(job, position, &path),
            Task::ChangedHalfway { next } => self
                .give_up(job, *next, changed_halfway(&path, *next))
                .map(FileEnd::Done),
            Task::Vanished { next } => self.give_up(job, *next, vanished(&path, *next)).map(FileEnd::Done),
        }
    }

    fn rules(&self) -> FileRules {
        match &self.hand.feed().kind {
            FeedKind::Files { rules, .. } => rules.clone(),
            _ => FileRules::default(),
        }
    }

    /// Reads a file whose bytes no other file had that is read or being read.
    fn read_unless_known(&mut self, job: &Job, next: u64, path: &str) -> Result<FileEnd, Ended> {
        let hand = self.hand.clone();
        let stops = || hand.check().is_err();
        let content = Source::open(&self.place, &job.partition)
            .and_then(|(source, _)| content(source, &stops).map_err(Break::from_io));
        self.hand.check()?;
        let content = match content {
            Ok(content) => content,
            Err(broke) => return self.finish(job, next, path, broke),
        };
        let Some(holder) = self.known.claim(content.clone(), &job.partition) else {
            self.current.content = Some(content);
            return self.read(job, next, path);
        };
        let feed = self.hand.name();
        let holder = shown(&holder);
        tracing::warn!(
            feed,
            "{path} holds the same bytes as {holder}, which was read: it is skipped"
        );
        let position = self.position(job, next, true);
        self.hand.conclude(&job.partition, position.clone(), None, job.seen)?;
        Ok(FileEnd::Done(position))
    }

    /// Reads on in a file that was read to its end and then changed: what was added to it, or all of it as a correction.
    fn read_changed(&mut self, job: &Job, then: &Position, path: &str) -> Result<FileEnd, Ended> {
        let (feed, next) = (self.hand.name(), then.next);
        self.current.base = then.base;
        let hand = self.hand.clone();
        let stops = || hand.check().is_err();
        let compared = match &then.content {
            None => Ok(FileComparison::Other),
            Some(earlier) => Source::open(&self.place, &job.partition)
                .and_then(|(source, _)| compare(source, earlier, &stops).map_err(Break::from_io)),
        };
        self.hand.check()?;
        match compared {
            Err(Break::Vanished) if then.done => Ok(FileEnd::Done(then.clone())), // it was read to its end
            Err(broke) => self.finish(job, next, path, broke),
            Ok(FileComparison::Same) if !then.done => {
                self.current.at = then.at;
                self.read(job, next, path)
            }
            Ok(FileComparison::Same) => {
                tracing::info!(feed, "{path} was written anew with the bytes that were read");
                self.current.content.clone_from(&then.content);
                (self.current.open_end, self.current.at) = (then.open_end, then.at);
                let position = self.position(job, next, true);
                self.hand.conclude(&job.partition, position.clone(), None, job.seen)?;
                Ok(FileEnd::Done(position))
            }
            Ok(FileComparison::Appended) if self.appends() => {
                tracing::info!(feed, "{path} goes on behind what was read: its next records are read");
                self.current.content.clone_from(&then.content);
                (self.current.open_end, self.current.at) = (then.open_end, then.at);
                self.read(job, next, path)
            }
            Ok(_) if !then.done => (self.give_up(job, next, changed_halfway(path, next))).map(FileEnd::Done),
            Ok(_) if self.rules().changed == Changed::Correct => {
                tracing::warn!(
                    feed,
                    "{path} changed after it was read: it is read again, as newer versions of its rows; rows that it no longer holds stay"
                );
                self.current.base = next;
                self.read(job, next, path)
            }
            Ok(_) => {
                let is_text = self.appends() && self.hand.feed().format != Format::Avro;
                let keyed = !self.hand.input().key.is_empty() && is_text;
                let remedy = match keyed {
                    true => {
                        "drop corrected rows as a new file, or set changed = \"correct\" in the feed for changes to come"
                    }
                    false => "drop corrected rows as a new file",
                };
                let reason = format!("file {path} changed after it was read: it was already read; {remedy}");
                self.give_up(job, next, reason).map(FileEnd::Done)
            }
        }
    }

    /// Whether files of the feed hold their records one after the other, so that more can come behind them.
    fn appends(&self) -> bool {
        self.hand.feed().format != Format::Parquet
    }

    fn read(&mut self, job: &Job, mut next: u64, path: &str) -> Result<FileEnd, Ended> {
        let (mut attempts, mut arrived_at) = (0, next);
        loop {
            let broke = match self.attempt(job, &mut next) {
                Ok(position) => return Ok(FileEnd::Done(position)),
                Err(broke) => broke,
            };
            let Break::Passing(cause) = broke else {
                return self.finish(job, next, path, broke);
            };
            attempts = if next > arrived_at { 1 } else { attempts + 1 };
            arrived_at = next;
            tracing::warn!(feed = self.hand.name(), path, record = next, error = %cause, attempts, "reading again");
            self.hand.gauges.set_error(format!("could not read {path}: {cause}"));
            if attempts > self.options.retries {
                return self.finish(job, next, path, Break::Passing(cause));
            }
            self.hand.sleep(pause(&self.options, attempts))?;
        }
    }

    /// What a break that was not overcome makes of a file of which `next` records were read.
    fn finish(&mut self, job: &Job, next: u64, path: &str, broke: Break) -> Result<FileEnd, Ended> {
        match broke {
            Break::Ended(ended) => Err(ended),
            Break::Torn(_) if self.may_grow(job) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause: io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ends where more must come, and may still be written",
                ),
            }),
            Break::Torn(broke) => self.finish(job, next, path, *broke),
            Break::Spoilt(reason) => {
                let reason = format!(
                    "file {path} could not be read behind its record {next}: {reason}; drop what is missing as a new file"
                );
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            Break::Refused(reason) => {
                let behind = match next > 0 {
                    true => format!(" behind its record {next}"),
                    false => String::new(),
                };
                let reason = format!("file {path} was not read{behind}: {reason}");
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            Break::Changed if next == 0 => {
                tracing::warn!(
                    feed = self.hand.name(),
                    path,
                    "file changed before it was read; the next look takes it as it is then"
                );
                Ok(FileEnd::Gone)
            }
            Break::Changed => (self.give_up(job, next, changed_halfway(path, next))).map(FileEnd::Done),
            Break::Vanished if next == 0 => {
                tracing::warn!(feed = self.hand.name(), path, "file vanished before it was read");
                Ok(FileEnd::Gone)
            }
            Break::Vanished => self.give_up(job, next, vanished(path, next)).map(FileEnd::Done),
            Break::Denied(cause) | Break::Passing(cause) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause,
            }),
        }
    }

    /// Whether a file may still be written: whoever waits for the feed's end waits for none.
    fn may_grow(&self, job: &Job) -> bool {
        let age = (self.options.clock)().duration_since(job.modified).unwrap_or_default();
        !self.options.stop_at_end && !self.place.is_atomic() && age < self.options.settle * TORN_PATIENCE
    }

    /// The file as it is now is done, and a dead letter, by (2). What it may become is read: all of it where no record was
    /// taken, and otherwise what is added to it.
    fn refuse(&mut self, job: &Job, next: u64, reason: String) -> Result<Position, Ended> {
        if next > self.current.base && (self.current.content.is_none() || !self.appends()) {
            return self.give_up(job, next, reason);
        }
        // Whatever it became meanwhile is a change.
        let position = self.position(job, next, true);
        self.hand
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }

    /// The file is done for good, and a dead letter.
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
            base: self.current.base,
            content: None,
            open_end: None,
            at: None,
        };
        self.hand
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }

    /// Reads a file from record `next` on, and moves `next` with each delivery.
    fn attempt(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
        match self.hand.feed().format {
            Format::Parquet | Format::Avro => self
                .attempt_columnar(job, next)
                .map_err(|broke| self.explain(job, *next, broke)),
            Format::Csv => self.attempt_text(job, next, true),
            _ => self.attempt_text(job, next, false),
        }
    }

    fn attempt_text(&mut self, job: &Job, next: &mut u64, csv: bool) -> Result<Position, Break> {
        let dialect = self.hand.feed().wire.text;
        let (mut source, trouble) = Source::open(&self.place, &job.partition)?;
        let digest = source.digested();
        let mut source = decompress(source, &trouble, &job.partition)?;
        if dialect.charset.is_single_byte() {
            let peeked = Peeked::new(source, SAMPLE);
            self.tell_utf8(job, *next == 0, &peeked.head);
            source = Box::new(peeked);
        }
        let plain = Heard {
            source: to_utf8(source, dialect.charset),
            hand: self.hand.clone(),
        };
        let plain: Box<dyn Read> = match csv {
            true => Box::new(plain),
            false => Box::new(LineDocuments::new(plain)),
        };
        let mut records = Records::new(plain, csv.then_some(dialect), self.options.record_bytes);
        let hand = self.hand.clone();
        let broken = |error: SplitError| match (hand.check(), error) {
            (Err(ended), SplitError::Io(_)) => Break::Ended(ended), // see `Heard`
            (_, SplitError::Io(e)) => trouble.explain(e),
            (_, SplitError::OpenQuote) => {
                Break::torn(Break::Spoilt("a quote in the record behind it is never closed".into()))
            }
            (_, SplitError::Blank) => Break::Spoilt(format!(
                "behind it are more than {} MiB of blank lines in a row",
                MOST_BLANK >> 20
            )),
        };
        let mut header = None;
        if csv {
            let head = read_head(&mut records).map_err(|error| match error {
                HeadError::Split(error) => broken(error),
                HeadError::Refused(reason) => Break::Refused(format!("{reason}; {TRY_AGAIN}")),
            })?;
            self.judge(job, &head, *next == 0)
                .map_err(|broke| match records.open_end() {
                    Some(_) => Break::torn(broke),
                    None => broke,
                })?;
            header = head.header;
        }
        let charset = dialect.charset;
        let place = |bytes: u64| csv.then_some(TextPlace { bytes, charset });
        let mut passed = self.current.base..*next;
        let known = self.current.at.filter(|at| csv && at.charset == charset);
        if let (Some(at), false) = (known, passed.is_empty()) {
            records.skip_to(at.bytes).map_err(broken)?;
            let open = u64::from(self.current.open_end.is_some());
            passed = *next - open..*next;
        }
        let mut last_length = None;
        for _ in passed {
            last_length = records.next().map_err(broken)?.map(|line| line.length());
        }
        if let Some(length) = self.current.open_end.take() {
            self.current.at = place(records.passed());
            if last_length != Some(length) {
                self.tell_torn(job, *next)?;
            }
        }
        if self.rules().duplicates != Duplicates::Skip {
            self.current.content = None; // it is of what was read before
        }
        let mut batch = BatchBuilder::new(self.hand.limits);
        let mut at = *next;
        let end = loop {
            match records.next() {
                Ok(Some(Line {
                    bytes,
                    cut_from,
                    number,
                })) => {
                    batch.push(Record {
                        offset: at,
                        value: Some(bytes),
                        cut_from,
                        line: Some(number),
                        ..Record::default()
                    });
                    at += 1;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(broken(error)),
            }
            if batch.is_full() {
                self.current.at = place(records.passed());
                self.hand_over(job, batch.take(header.clone()), next, false)?;
            }
        };
        if matches!(end, Ok(()) | Err(Break::Spoilt(_) | Break::Torn(_))) {
            // As it was read: a change since then is found by the next listing.
            self.current.content = Some(digest.content());
        }
        self.current.at = place(records.passed());
        if end.is_ok() {
            self.current.open_end = records.open_end();
            self.current.at = place(records.reached());
            if self.rules().duplicates == Duplicates::Skip {
                self.known.claim(digest.content(), &job.partition);
            }
        }
        if end.is_ok() || !batch.is_empty() {
            self.hand_over(job, batch.take(header), next, end.is_ok())?;
        }
        end.map(|()| self.position(job, *next, true))
    }

    /// Says that a file looks as if its encoding were another than the feed's: its text would be another, without a word.
    fn tell_utf8(&self, job: &Job, is_first: bool, head: &[u8]) {
        if let (true, Some(text)) = (is_first, as_utf8(head)) {
            let first = text.char_indices().find(|(_, c)| !c.is_ascii()).map_or(0, |(at, _)| at);
            let from = text[..first].char_indices().rev().nth(9).map_or(0, |(at, _)| at);
            let shown: String = text[from..].chars().take(20).collect();
            tracing::warn!(
                feed = self.hand.name(),
                file = self.place.shown(&job.partition),
                "the file is read as {}, and looks like UTF-8 at {shown:?}; if it is, set `encoding = \"utf-8\"`",
                self.hand.feed().wire.text.charset.name(),
            );
        }
    }

    /// What was taken as the last record of a file that was read while it was being written was only the first part of it.
    fn tell_torn(&self, job: &Job, next: u64) -> Result<(), Ended> {
        let path = self.place.shown(&job.partition);
        let last = next.saturating_sub(1);
        let reason = format!(
            "file {path} was read while it was being written: its record {last} was taken half; drop that record \
             as a new file, and rename files into the folder once they are whole"
        );
        let position = self.position(job, next, false);
        self.hand.conclude(&job.partition, position, Some(reason), job.seen)
    }

    /// Whether a file with this head is one of the feed's. What of it is not as the columns have it is told, once a file.
    fn judge(&mut self, job: &Job, head: &Head, is_first: bool) -> Result<(), Break> {
        let (input, feed) = (self.hand.input(), self.hand.feed());
        if head.header.is_none() && feed.wire.text.header {
            return Ok(()); // an empty file
        }
        let notes = judge_header(input, feed, head.header.as_deref(), &head.sample)
            .map_err(|reason| Break::Refused(format!("{reason}; {TRY_AGAIN}")))?;
        if is_first {
            self.headers
                .tell(&self.hand.name(), &self.place.shown(&job.partition), notes);
        }
        Ok(())
    }

    fn attempt_columnar(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
        let extent = Extent {
            size: job.size,
            next: *next,
            rows: self.hand.limits.rows,
            bytes: self.hand.limits.bytes as u64,
            tag: &job.tag,
        };
        let (batches, digest) = match self.hand.feed().format {
            Format::Parquet => (columnar::parquet(&self.place, &job.partition, extent)?, None),
            _ => columnar::avro(&self.place, &job.partition, extent)?,
        };
        let path: Arc<str> = self.place.display(&job.partition).into();
        let tag: Arc<str> = job.tag.as_str().into();
        let mut is_first = *next == 0;
        let mut is_checked = false;
        for batch in Gathered::new(batches, self.hand.limits) {
            if let (Err(Break::Spoilt(_) | Break::Torn(_)), Some(digest)) = (&batch, &digest) {
                self.current.content = Some(digest.content());
            }
            let batch = batch?;
            self.hand.check()?;
            // Its rows are those of the file that Bronze comes to refer to. A store gives bytes of the object that was opened,
            // or none; a file may be written to while it is read.
            if !(is_checked && self.place.is_atomic()) && self.is_changed(job)? {
                return Err(Break::Changed);
            }
            is_checked = true;
            if std::mem::take(&mut is_first) {
                let notes = judge_columns(self.hand.input(), self.hand.feed(), &batch)
                    .map_err(|reason| Break::Refused(format!("{reason}; {TRY_AGAIN}")))?;
                self.headers
                    .tell(&self.hand.name(), &self.place.shown(&job.partition), notes);
            }
            for (batch, cut) in portion::portions(&batch, self.hand.limits) {
                let offsets = (*next..*next + batch.num_rows() as u64).collect();
                let raw = Raw {
                    payloads: Payloads::Columns {
                        batch,
                        path: path.clone(),
                        tag: tag.clone(),
                    },
                    offsets,
                    header: None,
                    cut: cut.into_iter().collect(),
                    place: FilePlace::default(),
                };
                self.hand_over(job, raw, next, false)?;
            }
        }
        self.check_unchanged(job)?;
        if let Some(digest) = digest {
            self.current.content = Some(digest.content());
        }
        let position = self.position(job, *next, true);
        self.hand.conclude(&job.partition, position.clone(), None, job.seen)?;
        Ok(position)
    }

    /// What broke the reading of a columnar file: perhaps it is none.
    fn explain(&self, job: &Job, next: u64, broke: Break) -> Break {
        let wanted = match self.hand.feed().format {
            Format::Parquet => FileMark::Parquet,
            _ => FileMark::Avro,
        };
        match broke {
            Break::Spoilt(reason) => match instead(&self.place, &job.partition, wanted) {
                Some(what) => Break::Refused(what),
                // The end of either may be missing; a Parquet file without it has no rows.
                None if wanted == FileMark::Avro || next == 0 => Break::torn(Break::Spoilt(reason)),
                None => Break::Spoilt(reason),
            },
            other => other,
        }
    }

    fn position(&self, job: &Job, next: u64, done: bool) -> Position {
        Position {
            next,
            done,
            tag: Some(job.tag.clone()),
            base: self.current.base,
            content: self.current.content.clone(),
            open_end: self.current.open_end,
            at: self.current.at,
        }
    }

    /// Hands over a batch that starts at record `next`.
    fn hand_over(&mut self, job: &Job, mut raw: Raw, next: &mut u64, done: bool) -> Result<(), Ended> {
        let modified = self.current.modified.get_or_insert_with(|| moment(job.modified));
        raw.place.modified = Some(modified.clone());
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
