//! One attempt to read a file: from a given record on, its bytes become records or columns, which are delivered
//! in batches.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bounded_batches::{CoalescedBatches, split_batch};
use super::charset::{Peeked, as_utf8, to_utf8};
use super::columnar::{self, RowRange};
use super::documents::LineDocuments;
use super::head::{FileHeading, HeadError, SAMPLE, read_head};
use super::magic::{FileMark, is_unmarked_utf16};
use super::open::{ReadBreak, StoredBytes, UnpackedFile, decompress, instead};
use super::queue::FileJob;
use super::reader::FileReader;
use super::suspects::SuspectRecords;
use super::text::{MOST_BLANK, MOST_RECORD, SplitError, TextRecord, TextRecords};
use crate::decode::{FilePlace, HeaderRepeat, Payloads, Raw, judge_columns, judge_header, moment, repeated_header};
use crate::definition::{Duplicates, Format};
use crate::repr::{Charset, Position, TextPlace};
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::error::ReaderExit;
use crate::source::feed_handle::FeedHandle;

/// The end of a refusal's message: how the file is read once the cause is repaired.
const TRY_AGAIN: &str = "then `alluvium dead-letters --replay` reads it";

/// The advice for the case that a setting would suit this file but no other file of the feed.
const FOR_ONE: &str = "a setting holds for all files of the feed: where only this one needs it, repair the file, or move it to a \
     folder that another feed of the input reads with that setting; ";

/// How many bytes of a compressed file are still unpacked after its header was refused, to find out whether the
/// file is damaged. It is more than a block of bzip2, whose checksum comes at its end.
const CHECKED_BYTES: u64 = 4 << 20;

/// A file's bytes, whose reads fail once readers are to stop. A single record may be as long as the file, so
/// every read checks.
struct StopAware<R> {
    source: R,
    handle: FeedHandle,
    /// Whether any byte was read that is neither whitespace nor part of a byte order mark.
    holds: Arc<AtomicBool>,
}

impl<R: Read> Read for StopAware<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.handle.check() {
            Ok(()) => {
                let read = self.source.read(buffer)?;
                let is_something = |byte: &u8| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf\0".contains(byte);
                if !self.holds.load(Ordering::Relaxed) && buffer[..read].iter().any(is_something) {
                    self.holds.store(true, Ordering::Relaxed);
                }
                Ok(read)
            }
            Err(_) => Err(io::Error::other("readers are to stop")),
        }
    }
}

/// Whether a text is a complete JSON object, which cannot continue.
fn is_json(text: &[u8]) -> bool {
    text.ends_with(b"}") && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

impl FileReader {
    /// Reads a file from record `next` on, and advances `next` with each delivery.
    pub(super) fn attempt(&mut self, job: &FileJob, next: &mut u64) -> Result<Position, ReadBreak> {
        match self.handle.feed().format {
            Format::Parquet | Format::Avro => self
                .attempt_columnar(job, next)
                .map_err(|broke| self.explain(job, *next, broke)),
            Format::Csv => self.attempt_text(job, next, true),
            _ => self.attempt_text(job, next, false),
        }
    }

    fn attempt_text(&mut self, job: &FileJob, next: &mut u64, csv: bool) -> Result<Position, ReadBreak> {
        let dialect = self.handle.feed().wire.text;
        let (mut source, trouble) = StoredBytes::open_version(&self.place, &job.partition, &job.tag)?;
        let digest = source.digested();
        let UnpackedFile {
            mut source,
            was_packed,
            proven,
        } = decompress(source, &trouble, &job.partition)?;
        if dialect.charset.is_single_byte() {
            let peeked = Peeked::new(source, SAMPLE);
            self.warn_utf8(job, *next == self.current.base, &peeked.head);
            source = Box::new(peeked);
        }
        if dialect.charset == Charset::Utf8 {
            let peeked = Peeked::new(source, SAMPLE);
            if is_unmarked_utf16(&peeked.head) {
                return Err(ReadBreak::Refused(format!(
                    "it looks UTF-16, without a byte order mark: set `encoding = \"utf-16\"`; {FOR_ONE}{TRY_AGAIN}"
                )));
            }
            source = Box::new(peeked);
        }
        let holds = Arc::new(AtomicBool::new(false));
        let plain = StopAware {
            source: to_utf8(source, dialect.charset),
            handle: self.handle.clone(),
            holds: holds.clone(),
        };
        let plain: Box<dyn Read> = match csv {
            true => Box::new(plain),
            false => Box::new(LineDocuments::new(plain)),
        };
        let mut records = TextRecords::new(plain, csv.then_some(dialect), self.handle.limits.record);
        let handle = self.handle.clone();
        let broken = |error: SplitError| match (handle.check(), error) {
            (Err(ended), SplitError::Io(_)) => ReadBreak::Ended(ended), // a stop, see `StopAware`
            (_, SplitError::Io(e)) => trouble.explain(e),
            (_, SplitError::OpenQuote(line)) => ReadBreak::torn(ReadBreak::Spoilt(format!(
                "a quote in the record that begins on line {line} is never closed"
            ))),
            (_, SplitError::Blank) => ReadBreak::Spoilt(format!(
                "there are more than {} MiB of blank lines in a row",
                MOST_BLANK >> 20
            )),
            (_, SplitError::Endless) => ReadBreak::Spoilt(format!(
                "a record there has more than {} GiB and no end",
                MOST_RECORD >> 30
            )),
        };
        let mut header = None;
        if csv {
            let refused = match read_head(&mut records) {
                Err(HeadError::Split(error)) => return Err(broken(error)),
                Err(HeadError::Refused(reason)) => Some(ReadBreak::Refused(format!("{reason}; {TRY_AGAIN}"))),
                Ok(head) => {
                    let judged = self.judge(job, &head, *next == self.current.base);
                    header = head.header;
                    judged.err().map(|broke| match records.open_end() {
                        Some(_) => ReadBreak::torn(broke),
                        None => broke,
                    })
                }
            };
            if let Some(refused) = refused {
                // Damaged compressed bytes unpack to something that is no header. The checksum behind them tells
                // damage from a wrong header.
                let behind = records.passed() + CHECKED_BYTES;
                if was_packed && let Err(error @ SplitError::Io(_)) = records.skip_to(behind) {
                    return Err(match broken(error) {
                        ReadBreak::Spoilt(reason) => {
                            ReadBreak::Spoilt(format!("its compressed bytes are damaged: {reason}"))
                        }
                        broke => broke,
                    });
                }
                return Err(refused);
            }
        }
        let repeated = match (&header, records.dialect()) {
            (Some(header), Some(dialect)) if dialect.header => repeated_header(header, dialect),
            _ => None,
        };
        let reordered = |bytes: &[u8]| {
            let repeated = repeated.as_ref().filter(|repeated| repeated.may_be(bytes))?;
            let record = std::str::from_utf8(bytes).ok()?;
            let record = record.strip_prefix('\u{feff}').unwrap_or(record);
            (repeated.find(record) == HeaderRepeat::Reordered).then(|| repeated.reordered(record))
        };
        let charset = dialect.charset;
        let place = |bytes: u64| csv.then_some(TextPlace { bytes, charset });
        let mut known_records = self.current.base..*next;
        let known = self.current.at.filter(|at| csv && at.charset == charset);
        if let (Some(at), false) = (known, known_records.is_empty()) {
            records.skip_to(at.bytes).map_err(broken)?;
            let open = u64::from(self.current.open_end.is_some());
            known_records = *next - open..*next;
        }
        let mut last_length = None;
        for _ in known_records {
            if let Some(line) = records.next().map_err(broken)? {
                (last_length, self.current.line) = (Some(line.length()), Some(line.number));
            }
        }
        if let Some(length) = self.current.open_end.take() {
            self.current.at = place(records.passed());
            // The last record was incomplete when it was delivered: its length has changed since.
            if last_length != Some(length) {
                self.refuse_torn(job, *next)?;
            }
        }
        if self.rules().duplicates != Duplicates::Skip {
            self.current.content = None; // that digest covers only the earlier bytes
        }
        let mut batch = BatchBuilder::new(self.handle.limits);
        let mut at = *next;
        // Suspect records are found by offsets in the text. These equal offsets in the unpacked bytes only for
        // UTF-8.
        let mut suspects = proven.map(|proven| SuspectRecords::new(proven, csv && dialect.charset == Charset::Utf8));
        // A compressed file ends with a mark of its own, which proves that it is complete.
        let waits_for_line_end = !was_packed && self.may_grow(job);
        let end = loop {
            let before = records.passed();
            match records.next() {
                Ok(Some(TextRecord {
                    bytes, is_open: true, ..
                })) if waits_for_line_end && (csv || !is_json(bytes)) => {
                    self.current.at = place(before);
                    let cause = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "its last line has no end, and may still be written",
                    );
                    break Err(ReadBreak::torn(ReadBreak::Passing(cause)));
                }
                Ok(Some(TextRecord {
                    bytes,
                    cut_from: None,
                    number,
                    ..
                })) if let Some(what) = reordered(bytes) => {
                    self.current.at = place(before);
                    break Err(ReadBreak::Spoilt(format!("its line {number} is no record: {what}")));
                }
                Ok(Some(TextRecord {
                    bytes,
                    cut_from,
                    number,
                    ..
                })) => {
                    batch.push(SourceRecord {
                        offset: at,
                        value: Some(bytes),
                        cut_from,
                        line: Some(number),
                        ..SourceRecord::default()
                    });
                    if let Some(suspects) = &mut suspects {
                        suspects.observe(records.passed(), at, number);
                    }
                    at += 1;
                    self.current.line = Some(number);
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    self.current.at = place(before);
                    let suspects = suspects.filter(|_| matches!(error, SplitError::Io(_)));
                    break Err(
                        match (broken(error), suspects.and_then(|suspects| suspects.describe(at))) {
                            (ReadBreak::Spoilt(reason), Some(suspects)) => {
                                ReadBreak::Spoilt(format!("{reason}: {suspects}"))
                            }
                            (broke, _) => broke,
                        },
                    );
                }
            }
            if batch.is_full() {
                self.current.at = place(records.passed());
                self.hand_over(job, batch.finish(header.clone()), next, false)?;
            }
        };
        if matches!(
            end,
            Ok(()) | Err(ReadBreak::Spoilt(_) | ReadBreak::Refused(_) | ReadBreak::Torn(_))
        ) {
            // The digest of what was read. If the file has changed since, the next listing finds that.
            self.current.content = Some(digest.content());
        }
        if end.is_ok() {
            self.current.open_end = records.open_end();
            self.current.at = place(records.reached());
            if self.rules().duplicates == Duplicates::Skip {
                self.known.claim(digest.content(), &job.partition);
            }
        }
        if end.is_ok() || !batch.is_empty() {
            self.hand_over(job, batch.finish(header), next, end.is_ok())?;
        }
        let blank = std::mem::take(&mut self.current.blank_rows);
        self.headers
            .report_blank_rows(&self.handle, &self.place.shown(&job.partition), blank);
        if end.is_ok() && !holds.load(Ordering::Relaxed) {
            self.headers
                .warn_empty(&self.handle.name(), &self.place.shown(&job.partition));
        }
        end.map(|()| self.position(job, *next, true))
    }

    /// Warns if a file looks like UTF-8 but is read in another encoding, which would silently give other text.
    fn warn_utf8(&self, job: &FileJob, is_first: bool, head: &[u8]) {
        if let (true, Some(text)) = (is_first, as_utf8(head)) {
            let first = text.char_indices().find(|(_, c)| !c.is_ascii()).map_or(0, |(at, _)| at);
            let from = text[..first].char_indices().rev().nth(9).map_or(0, |(at, _)| at);
            let shown: String = text[from..].chars().take(20).collect();
            tracing::warn!(
                feed = self.handle.name(),
                file = self.place.shown(&job.partition),
                "the file is read as {}, and looks like UTF-8 at {shown:?}; if it is, set `encoding = \"utf-8\"`",
                self.handle.feed().wire.text.charset.name(),
            );
        }
    }

    /// Makes a dead letter of the newest delivered record, because it was delivered before its line was complete.
    fn refuse_torn(&self, job: &FileJob, next: u64) -> Result<(), ReaderExit> {
        let path = self.place.shown(&job.partition);
        let last = self
            .current
            .line
            .map(|line| format!(" of line {line}"))
            .unwrap_or_default();
        let reason = format!(
            "file {path} was read while it was being written: its record{last} was taken half; drop that record \
             as a new file, and rename files into the folder once they are whole"
        );
        let position = self.position(job, next, false);
        self.handle.conclude(&job.partition, position, Some(reason), job.seen)
    }

    /// Refuses a file whose header does not fit the feed. Lesser differences from the columns are warned of once
    /// for each file.
    fn judge(&mut self, job: &FileJob, head: &FileHeading, is_first: bool) -> Result<(), ReadBreak> {
        let (input, feed) = (self.handle.input(), self.handle.feed());
        if head.header.is_none() && feed.wire.text.header {
            return Ok(()); // an empty file
        }
        let notes = judge_header(input, feed, head.header.as_deref(), &head.sample).map_err(|reason| {
            // A setting that the reason proposes may fit only this file.
            let for_one = if reason.contains("set `") { FOR_ONE } else { "" };
            ReadBreak::Refused(format!("{reason}; {for_one}{TRY_AGAIN}"))
        })?;
        if is_first {
            self.headers
                .warn(&self.handle.name(), &self.place.shown(&job.partition), notes);
        }
        Ok(())
    }

    fn attempt_columnar(&mut self, job: &FileJob, next: &mut u64) -> Result<Position, ReadBreak> {
        if self.corrects() && self.current.content.is_none() {
            // The digest later tells whether a new version has the same bytes.
            self.current.content = Some(self.content(job)?);
        }
        let extent = RowRange {
            size: job.size,
            next: *next - self.current.base,
            rows: self.handle.limits.rows,
            bytes: self.handle.limits.bytes as u64,
            tag: &job.tag,
        };
        let (batches, digest) = match self.handle.feed().format {
            Format::Parquet => (columnar::parquet(&self.place, &job.partition, extent)?, None),
            _ => columnar::avro(&self.place, &job.partition, extent)?,
        };
        let path: Arc<str> = self.place.display(&job.partition).into();
        let tag: Arc<str> = job.tag.as_str().into();
        let mut is_first = *next == self.current.base;
        let mut is_checked = false;
        for batch in CoalescedBatches::new(batches, self.handle.limits) {
            if let (Err(ReadBreak::Spoilt(_) | ReadBreak::Torn(_)), Some(digest)) = (&batch, &digest) {
                self.current.content = Some(digest.content());
            }
            let batch = batch?;
            self.handle.check()?;
            // Bronze refers to this version of the file, so it must still exist. A store returns bytes of the
            // object that was opened or fails; but a local file may be written to while it is read.
            if !(is_checked && self.place.is_atomic()) && self.is_changed(job)? {
                return Err(ReadBreak::Changed);
            }
            is_checked = true;
            if std::mem::take(&mut is_first) {
                let notes = judge_columns(self.handle.input(), self.handle.feed(), &batch)
                    .map_err(|reason| ReadBreak::Refused(format!("{reason}; {TRY_AGAIN}")))?;
                self.headers
                    .warn(&self.handle.name(), &self.place.shown(&job.partition), notes);
            }
            for (batch, cut) in split_batch(&batch, self.handle.limits) {
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
        self.handle.conclude(&job.partition, position.clone(), None, job.seen)?;
        Ok(position)
    }

    /// Explains why a columnar file failed: it may have another format.
    fn explain(&self, job: &FileJob, next: u64, broke: ReadBreak) -> ReadBreak {
        let wanted = match self.handle.feed().format {
            Format::Parquet => FileMark::Parquet,
            _ => FileMark::Avro,
        };
        match broke {
            ReadBreak::Spoilt(reason) => match instead(&self.place, &job.partition, wanted) {
                Some(what) => ReadBreak::Refused(what),
                // The end of the file may be missing. A Parquet file without its end yields no row at all.
                None if wanted == FileMark::Avro || next == 0 => ReadBreak::torn(ReadBreak::Spoilt(reason)),
                None => ReadBreak::Spoilt(reason),
            },
            other => other,
        }
    }

    /// Delivers a batch that starts at record `next`, and advances `next`.
    fn hand_over(&mut self, job: &FileJob, mut raw: Raw, next: &mut u64, done: bool) -> Result<(), ReaderExit> {
        let modified = self.current.modified.get_or_insert_with(|| moment(job.modified));
        raw.place.modified = Some(modified.clone());
        raw.place.base = self.current.base;
        let behind = raw.offsets.last().map_or(*next, |last| last + 1);
        let position = self.position(job, behind, done);
        match raw.is_empty() {
            true => self.handle.conclude(&job.partition, position, None, job.seen)?,
            false => {
                self.current.blank_rows +=
                    self.handle
                        .deliver(&mut self.decode, &job.partition, raw, position, job.seen)?;
            }
        }
        *next = behind;
        Ok(())
    }

    /// Fails if a file that was read to its end is no longer the one that was opened. A file deleted meanwhile
    /// counts as unchanged.
    fn check_unchanged(&self, job: &FileJob) -> Result<(), ReadBreak> {
        match self.is_changed(job)? {
            true => Err(ReadBreak::Spoilt("it changed while it was read".into())),
            false => Ok(()),
        }
    }

    /// Whether the file's tag differs from that of the job. A file deleted meanwhile counts as unchanged.
    fn is_changed(&self, job: &FileJob) -> Result<bool, ReadBreak> {
        let tag = self.place.tag(&job.partition).map_err(ReadBreak::from_io)?;
        Ok(tag.is_some_and(|tag| tag != job.tag))
    }
}
