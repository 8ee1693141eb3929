//! Reads one file after another, as the jobs say, and decides what happens to a file whose reading breaks off or that
//! has changed. [`super::attempt`] turns its bytes into records.

use std::io;
use std::sync::Arc;

use super::content::{FileComparison, KnownFiles, compare, content};
use super::headers::HeaderNotices;
use super::listing::GlobLocation;
use super::open::{ReadBreak, StoredBytes};
use super::queue::{FileJob, FileTask, TORN_PATIENCE};
use crate::definition::{Changed, Duplicates, FileFeed, FileRules, Format};
use crate::repr::{FileContent, Position, TextPlace};
use crate::shown::shown;
use crate::source::Decode;
use crate::source::error::ReaderExit;
use crate::source::fault::pause;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::ReaderOptions;

/// How a job on a file ended.
#[derive(Debug)]
pub(crate) enum FileEnd {
    /// It was read to its end, or reading was given up; with the last position.
    Done(Position),
    /// It was deleted before anything was read.
    Gone,
    /// It changed or vanished before the job read a record; the next listing decides again.
    Changed,
    /// It cannot be read now. `position` is none if the job read no record.
    Stuck {
        position: Option<Position>,
        cause: io::Error,
    },
}

pub(super) struct FileReader {
    pub handle: FeedHandle,
    pub place: GlobLocation,
    pub options: ReaderOptions,
    pub decode: Decode,
    pub known: KnownFiles,
    pub current: CurrentFile,
    pub headers: HeaderNotices,
}

/// The state of the file being read. It goes into positions, except what serves messages or Bronze.
#[derive(Default)]
pub(super) struct CurrentFile {
    /// See [`Position::base`].
    pub base: u64,
    /// A digest of the file's bytes. If duplicates are skipped or columns corrected, it covers the whole file; while
    /// reading continues behind an earlier version, it covers that version; at the end it covers what was read.
    pub content: Option<FileContent>,
    /// See [`Position::open_end`] and [`Position::at`].
    pub open_end: Option<u64>,
    pub at: Option<TextPlace>,
    /// The line on which the newest record begins, if the format has lines.
    pub line: Option<u64>,
    /// The number of blank rows since they were last reported.
    pub blank_rows: u64,
    /// When the file was last written; filled on first use.
    pub modified: Option<Arc<str>>,
}

impl FileReader {
    /// A reader that has read nothing yet; `known` is shared by all readers of its feed.
    pub fn new(
        handle: FeedHandle,
        place: GlobLocation,
        options: ReaderOptions,
        decode: Decode,
        known: KnownFiles,
    ) -> FileReader {
        FileReader {
            handle,
            place,
            options,
            decode,
            known,
            current: CurrentFile::default(),
            headers: HeaderNotices::default(),
        }
    }

    /// Executes a job to its end.
    pub fn run(&mut self, job: &FileJob) -> Result<FileEnd, ReaderExit> {
        let path = self.place.shown(&job.partition);
        self.current = CurrentFile::default();
        match &job.task {
            FileTask::Read { next, base } => {
                self.current.base = *base;
                self.current.at = job.at;
                match self.rules().duplicates {
                    Duplicates::Read => self.read(job, *next, &path),
                    Duplicates::Skip => self.read_unless_known(job, *next, &path),
                }
            }
            FileTask::Changed(position) => self.read_changed(job, position, &path),
            FileTask::ChangedHalfway { next } => self
                .give_up(job, *next, changed_halfway(&path, *next))
                .map(FileEnd::Done),
            FileTask::Vanished { next } => self.give_up(job, *next, vanished(&path, *next)).map(FileEnd::Done),
        }
    }

    pub(super) fn rules(&self) -> FileRules {
        let feed = self.handle.feed().kind.settings_of::<FileFeed>();
        feed.map(|feed| feed.rules.clone()).unwrap_or_default()
    }

    /// Reads a file, unless a file with the same bytes was or is being read.
    fn read_unless_known(&mut self, job: &FileJob, next: u64, path: &str) -> Result<FileEnd, ReaderExit> {
        let content = match self.content(job) {
            Ok(content) => content,
            Err(broke) => return self.finish(job, next, path, broke),
        };
        let Some(holder) = self.known.claim(content.clone(), &job.partition) else {
            self.current.content = Some(content);
            return self.read(job, next, path);
        };
        let feed = self.handle.name();
        let holder = shown(&holder);
        tracing::warn!(
            feed,
            "{path} holds the same bytes as {holder}, which was read: it is skipped"
        );
        let position = self.position(job, next, true);
        self.handle.conclude(&job.partition, position.clone(), None, job.seen)?;
        Ok(FileEnd::Done(position))
    }

    /// The length and digest of the file's present bytes.
    pub(super) fn content(&self, job: &FileJob) -> Result<FileContent, ReadBreak> {
        let stops = || self.handle.check().is_err();
        let content = StoredBytes::open(&self.place, &job.partition)
            .and_then(|(source, _)| content(source, &stops).map_err(ReadBreak::from_io));
        self.handle.check()?;
        content
    }

    /// Whether the feed reads a changed file again, as a correction.
    pub(super) fn corrects(&self) -> bool {
        self.rules().changed == Changed::Correct
    }

    /// Handles a file that changed after all or part of it was read: reads what was appended, reads it all again as a
    /// correction, or reports that it changed.
    fn read_changed(&mut self, job: &FileJob, then: &Position, path: &str) -> Result<FileEnd, ReaderExit> {
        let (feed, next) = (self.handle.name(), then.next);
        self.current.base = then.base;
        let handle = self.handle.clone();
        let stops = || handle.check().is_err();
        let compared = match &then.content {
            None => Ok(FileComparison::Other), // without a digest, what changed is unknown
            Some(earlier) => StoredBytes::open(&self.place, &job.partition)
                .and_then(|(source, _)| compare(source, earlier, &stops).map_err(ReadBreak::from_io)),
        };
        self.handle.check()?;
        match compared {
            Err(ReadBreak::Vanished) if then.done => Ok(FileEnd::Done(then.clone())), // nothing is lost
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
                self.handle.conclude(&job.partition, position.clone(), None, job.seen)?;
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
                let remedy = match !self.handle.input().key.is_empty() {
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

    /// Whether the feed's format stores records in sequence, so that more can be appended.
    fn appends(&self) -> bool {
        self.handle.feed().format != Format::Parquet
    }

    fn read(&mut self, job: &FileJob, mut next: u64, path: &str) -> Result<FileEnd, ReaderExit> {
        let (mut attempts, mut arrived_at) = (0, next);
        loop {
            let broke = match self.attempt(job, &mut next) {
                Ok(position) => return Ok(FileEnd::Done(position)),
                Err(broke) => broke,
            };
            let ReadBreak::Passing(cause) = broke else {
                return self.finish(job, next, path, broke);
            };
            attempts = if next > arrived_at { 1 } else { attempts + 1 };
            arrived_at = next;
            tracing::warn!(feed = self.handle.name(), path, record = next, error = %cause, attempts, "reading again");
            self.handle.gauges.set_error(format!("could not read {path}: {cause}"));
            if attempts > self.options.retries {
                return self.finish(job, next, path, ReadBreak::Passing(cause));
            }
            self.handle.sleep(pause(&self.options, attempts))?;
        }
    }

    /// Decides how the file ends after a break that retries did not cure. `next` is the number of the next record.
    fn finish(&mut self, job: &FileJob, next: u64, path: &str, broke: ReadBreak) -> Result<FileEnd, ReaderExit> {
        match broke {
            ReadBreak::Ended(ended) => Err(ended),
            ReadBreak::Torn(broke) if self.may_grow(job) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause: match *broke {
                    ReadBreak::Passing(cause) => cause,
                    _ => io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it ends where more must come, and may still be written",
                    ),
                },
            }),
            ReadBreak::Torn(broke) => self.finish(job, next, path, *broke),
            ReadBreak::Spoilt(reason) => {
                let behind = self.behind(next);
                let reason =
                    format!("file {path} could not be read{behind}: {reason}; drop what is missing as a new file");
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            ReadBreak::Refused(reason) => {
                let behind = self.behind(next);
                let reason = format!("file {path} was not read{behind}: {reason}");
                self.refuse(job, next, reason).map(FileEnd::Done)
            }
            ReadBreak::Vanished if next == 0 => {
                tracing::warn!(feed = self.handle.name(), path, "file vanished before it was read");
                Ok(FileEnd::Gone)
            }
            ReadBreak::Changed | ReadBreak::Vanished if next == reached(&job.task) => {
                tracing::warn!(
                    feed = self.handle.name(),
                    path,
                    "file changed before it was read; the next look takes it as it is then"
                );
                Ok(FileEnd::Changed)
            }
            ReadBreak::Changed => (self.give_up(job, next, changed_halfway(path, next))).map(FileEnd::Done),
            ReadBreak::Vanished => self.give_up(job, next, vanished(path, next)).map(FileEnd::Done),
            ReadBreak::Denied(cause) | ReadBreak::Passing(cause) => Ok(FileEnd::Stuck {
                position: (next > reached(&job.task)).then(|| self.position(job, next, false)),
                cause,
            }),
        }
    }

    /// The place, for messages, where reading broke off before record `next`: by line, or by record for columns.
    fn behind(&self, next: u64) -> String {
        match (next - self.current.base.min(next), self.current.line) {
            (0, _) => String::new(),
            (_, Some(line)) => format!(" behind the record of its line {line}"),
            (records, None) => format!(" behind its first {records} records"),
        }
    }

    /// Whether the file may still be growing. A run that ends when it is caught up does not wait for that.
    pub(super) fn may_grow(&self, job: &FileJob) -> bool {
        let age = (self.options.clock)().duration_since(job.modified).unwrap_or_default();
        // The modification time may lie in the future, because of another machine's clock or time zone.
        let age = age.max(job.seen.elapsed());
        !self.options.stop_at_end && !self.place.is_atomic() && age < self.options.settle * TORN_PATIENCE
    }

    /// Ends this version of the file as a dead letter, by (2) of the folder's module. A later version is still read:
    /// wholly if no record of this one was delivered, otherwise only what was appended.
    fn refuse(&mut self, job: &FileJob, next: u64, reason: String) -> Result<Position, ReaderExit> {
        if next > self.current.base && (self.current.content.is_none() || !self.appends()) {
            return self.give_up(job, next, reason);
        }
        // The position has the tag that was read, so that a later version differs from it.
        let position = self.position(job, next, true);
        self.handle
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }

    /// Ends the file for good as a dead letter; no later version of it is read.
    fn give_up(&mut self, job: &FileJob, next: u64, reason: String) -> Result<Position, ReaderExit> {
        // The position gets the present tag, so that a later listing does not report another change.
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
        self.handle
            .conclude(&job.partition, position.clone(), Some(reason), job.seen)?;
        Ok(position)
    }
    pub(super) fn position(&self, job: &FileJob, next: u64, done: bool) -> Position {
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

/// The record at which a job begins.
pub(super) fn reached(task: &FileTask) -> u64 {
    match task {
        FileTask::Read { next, .. } | FileTask::ChangedHalfway { next } | FileTask::Vanished { next } => *next,
        FileTask::Changed(then) => then.next,
    }
}

fn vanished(path: &str, next: u64) -> String {
    format!("file {path} vanished after {next} of its records were read; drop the others as a new file")
}

fn changed_halfway(path: &str, next: u64) -> String {
    format!("file {path} changed after {next} of its records were read; drop the other records as a new file")
}
