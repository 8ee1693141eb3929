//! Reads one file after the other, each as its job says, and decides what becomes of a file that breaks off or has changed.
//! How its bytes become records is in [`super::attempt`].

use std::io;
use std::sync::Arc;

use super::TORN_PATIENCE;
use super::content::{FileComparison, KnownFiles, compare, content};
use super::headers::HeadersTold;
use super::listing::Place;
use super::open::{Break, Source};
use super::settle::{Job, Task};
use crate::definition::{Changed, Duplicates, FeedKind, FileRules, Format};
use crate::shown::shown;
use crate::source::fault::pause;
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::ReaderOptions;
use crate::source::{Decode, FileContent, Position, TextPlace};

/// How a job on a file ended.
#[derive(Debug)]
pub(crate) enum FileEnd {
    /// Read to its end or given up: its last position.
    Done(Position),
    /// Gone before anything of it was read.
    Gone,
    /// The file changed or vanished before the job read a record of it: the next listing decides again.
    Changed,
    /// It cannot be read now. None: the job read no record of it.
    Stuck {
        position: Option<Position>,
        cause: io::Error,
    },
}

pub(super) struct FileReader {
    pub hand: Hand,
    pub place: Place,
    pub options: ReaderOptions,
    pub decode: Decode,
    pub known: KnownFiles,
    pub current: CurrentFile,
    pub headers: HeadersTold,
}

/// The file that is being read. What is not of messages or of Bronze goes into its positions.
#[derive(Default)]
pub(super) struct CurrentFile {
    /// See [`Position::base`].
    pub base: u64,
    /// The digest of its bytes: of all of them where duplicates are skipped or columns corrected, of the earlier ones while reading goes
    /// on behind those, and of what was read at the end.
    pub content: Option<FileContent>,
    /// See [`Position::open_end`] and [`Position::at`].
    pub open_end: Option<u64>,
    pub at: Option<TextPlace>,
    /// The line that the record begins on which was read last, where files have lines.
    pub line: Option<u64>,
    /// Rows that hold nothing, since that was told last.
    pub blank_rows: u64,
    /// When it was last written, once that is asked.
    pub modified: Option<Arc<str>>,
}

impl FileReader {
    /// A reader that has read nothing yet; `known` is shared by all readers of its feed.
    pub fn new(hand: Hand, place: Place, options: ReaderOptions, decode: Decode, known: KnownFiles) -> FileReader {
        FileReader {
            hand,
            place,
            options,
            decode,
            known,
            current: CurrentFile::default(),
            headers: HeadersTold::default(),
        }
    }

    /// Does a job to its end.
    pub fn run(&mut self, job: &Job) -> Result<FileEnd, Ended> {
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

    pub(super) fn rules(&self) -> FileRules {
        match &self.hand.feed().kind {
            FeedKind::Files { rules, .. } => rules.clone(),
            _ => FileRules::default(),
        }
    }

    /// Reads a file, unless another one with the same bytes was read or is being read.
    fn read_unless_known(&mut self, job: &Job, next: u64, path: &str) -> Result<FileEnd, Ended> {
        let content = match self.content(job) {
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

    /// What the file holds now.
    pub(super) fn content(&self, job: &Job) -> Result<FileContent, Break> {
        let stops = || self.hand.check().is_err();
        let content = Source::open(&self.place, &job.partition)
            .and_then(|(source, _)| content(source, &stops).map_err(Break::from_io));
        self.hand.check()?;
        content
    }

    /// Whether a file that changed is read again.
    pub(super) fn corrects(&self) -> bool {
        self.rules().changed == Changed::Correct
    }

    /// Takes a file that changed after all or some of it was read: reads what was added to it, or all of it as a correction, or says
    /// that it changed.
    fn read_changed(&mut self, job: &Job, then: &Position, path: &str) -> Result<FileEnd, Ended> {
        let (feed, next) = (self.hand.name(), then.next);
        self.current.base = then.base;
        let hand = self.hand.clone();
        let stops = || hand.check().is_err();
        let compared = match &then.content {
            None => Ok(FileComparison::Other), // without a digest nobody can tell what changed
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
            Ok(_) if self.corrects() => {
                tracing::warn!(
                    feed,
                    "{path} changed after it was read: it is read again, as newer versions of its rows; rows that it no longer holds stay"
                );
                self.current.base = next;
                self.read(job, next, path)
            }
            Ok(_) => {
                let remedy = match !self.hand.input().key.is_empty() {
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

    /// Turns a break that retries did not mend into the file's end, where the next record would be `next`.
    fn finish(&mut self, job: &Job, next: u64, path: &str, broke: Break) -> Result<FileEnd, Ended> {
        match broke {
            Break::Ended(ended) => Err(ended),
            Break::Torn(broke) if self.may_grow(job) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause: match *broke {
                    Break::Passing(cause) => cause,
                    _ => io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it ends where more must come, and may still be written",
                    ),
                },
            }),
            Break::Torn(broke) => self.finish(job, next, path, *broke),
            Break::Spoilt(reason) => {
                let behind = self.behind(next);
                let reason =
                    format!("file {path} could not be read{behind}: {reason}; drop what is missing as a new file");
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            Break::Refused(reason) => {
                let behind = self.behind(next);
                let reason = format!("file {path} was not read{behind}: {reason}");
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            Break::Vanished if next == 0 => {
                tracing::warn!(feed = self.hand.name(), path, "file vanished before it was read");
                Ok(FileEnd::Gone)
            }
            Break::Changed | Break::Vanished if next == reached(&job.task) => {
                tracing::warn!(
                    feed = self.hand.name(),
                    path,
                    "file changed before it was read; the next look takes it as it is then"
                );
                Ok(FileEnd::Changed)
            }
            Break::Changed => (self.give_up(job, next, changed_halfway(path, next))).map(FileEnd::Done),
            Break::Vanished => self.give_up(job, next, vanished(path, next)).map(FileEnd::Done),
            Break::Denied(cause) | Break::Passing(cause) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause,
            }),
        }
    }

    /// Behind which record a file broke off, where the next one would be `next`: by its line, or of columns by its row.
    fn behind(&self, next: u64) -> String {
        match (next - self.current.base.min(next), self.current.line) {
            (0, _) => String::new(),
            (_, Some(line)) => format!(" behind the record of its line {line}"),
            (records, None) => format!(" behind its first {records} records"),
        }
    }

    /// Whether a file may still be written. A run that ends when it is caught up waits for no file.
    pub(super) fn may_grow(&self, job: &Job) -> bool {
        let age = (self.options.clock)().duration_since(job.modified).unwrap_or_default();
        !self.options.stop_at_end && !self.place.is_atomic() && age < self.options.settle * TORN_PATIENCE
    }

    /// This version of the file is done, and a dead letter, by (2) of the folder's module. A later version is read: as a whole where no
    /// record was taken, and otherwise what was added.
    fn refuse(&mut self, job: &Job, next: u64, reason: String) -> Result<Position, Ended> {
        if next > self.current.base && (self.current.content.is_none() || !self.appends()) {
            return self.give_up(job, next, reason);
        }
        // With the tag that was read: a later version is told from it.
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
            given_up: true,
            tag: Some(tag),
            base: self.current.base,
            ..Position::default()
        };
        self.hand
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }
    pub(super) fn position(&self, job: &Job, next: u64, done: bool) -> Position {
        Position {
            next,
            done,
            tag: Some(job.tag.clone()),
            base: self.current.base,
            content: self.current.content.clone(),
            open_end: self.current.open_end,
            at: self.current.at,
            given_up: false,
            log: None,
        }
    }
}

/// The record that a job begins at.
pub(super) fn reached(task: &Task) -> u64 {
    match task {
        Task::Read { next, .. } | Task::ChangedHalfway { next } | Task::Vanished { next } => *next,
        Task::Changed(then) => then.next,
    }
}

fn vanished(path: &str, next: u64) -> String {
    format!("file {path} vanished after {next} of its records were read; drop the others as a new file")
}

fn changed_halfway(path: &str, next: u64) -> String {
    format!("file {path} changed after {next} of its records were read; drop the other records as a new file")
}
