//! One attempt to read a file: from a given record on its bytes become records or columns, which are handed over in batches.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::charset::{Peeked, as_utf8, to_utf8};
use super::columnar::{self, Extent};
use super::documents::LineDocuments;
use super::head::{Head, HeadError, SAMPLE, read_head};
use super::magic::{Mark, is_unmarked_utf16};
use super::open::{Break, Source, Unpacked, decompress, instead};
use super::portion::{self, Gathered};
use super::reader::FileReader;
use super::settle::Job;
use super::suspects::Suspects;
use super::text::{Line, MOST_BLANK, MOST_RECORD, Records, SplitError};
use crate::decode::{FilePlace, HeaderRepeat, Payloads, Raw, judge_columns, judge_header, moment, repeated_header};
use crate::definition::{Charset, Duplicates, Format};
use crate::source::batch::{BatchBuilder, Record};
use crate::source::outlet::{Ended, Hand};
use crate::source::{Position, TextPlace};

/// How a refused file is read once the cause is mended.
const TRY_AGAIN: &str = "then `alluvium dead-letters --replay` reads it";

/// What to do where a setting would fit one file and none of the others.
const FOR_ONE: &str = "a setting holds for all files of the feed: where only this one needs it, repair the file, or move it to a \
     folder that another feed of the input reads with that setting; ";

/// Bytes of a packed file whose header is refused that are unpacked all the same, to find damage: a block of bzip2 has fewer.
const CHECKED_BYTES: u64 = 4 << 20;

/// Bytes of a file that fail once readers are to stop. A single record may be as long as the file, so it is asked at every read.
struct StopAware<R> {
    source: R,
    hand: Hand,
    /// Whether there was a byte that is no blank and no part of a byte order mark.
    holds: Arc<AtomicBool>,
}

impl<R: Read> Read for StopAware<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.hand.check() {
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

/// Whether a text is a JSON value that has an end of its own.
fn is_json(text: &[u8]) -> bool {
    text.ends_with(b"}") && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

impl FileReader {
    /// Reads a file from record `next` on, and moves `next` with each delivery.
    pub(super) fn attempt(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
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
        let (mut source, trouble) = Source::open_version(&self.place, &job.partition, &job.tag)?;
        let digest = source.digested();
        let Unpacked {
            mut source,
            was_packed,
            proven,
        } = decompress(source, &trouble, &job.partition)?;
        if dialect.charset.is_single_byte() {
            let peeked = Peeked::new(source, SAMPLE);
            self.tell_utf8(job, *next == self.current.base, &peeked.head);
            source = Box::new(peeked);
        }
        if dialect.charset == Charset::Utf8 {
            let peeked = Peeked::new(source, SAMPLE);
            if is_unmarked_utf16(&peeked.head) {
                return Err(Break::Refused(format!(
                    "it looks UTF-16, without a byte order mark: set `encoding = \"utf-16\"`; {FOR_ONE}{TRY_AGAIN}"
                )));
            }
            source = Box::new(peeked);
        }
        let holds = Arc::new(AtomicBool::new(false));
        let plain = StopAware {
            source: to_utf8(source, dialect.charset),
            hand: self.hand.clone(),
            holds: holds.clone(),
        };
        let plain: Box<dyn Read> = match csv {
            true => Box::new(plain),
            false => Box::new(LineDocuments::new(plain)),
        };
        let mut records = Records::new(plain, csv.then_some(dialect), self.hand.limits.record);
        let hand = self.hand.clone();
        let broken = |error: SplitError| match (hand.check(), error) {
            (Err(ended), SplitError::Io(_)) => Break::Ended(ended), // see `StopAware`
            (_, SplitError::Io(e)) => trouble.explain(e),
            (_, SplitError::OpenQuote(line)) => Break::torn(Break::Spoilt(format!(
                "a quote in the record that begins on line {line} is never closed"
            ))),
            (_, SplitError::Blank) => Break::Spoilt(format!(
                "there are more than {} MiB of blank lines in a row",
                MOST_BLANK >> 20
            )),
            (_, SplitError::Endless) => Break::Spoilt(format!(
                "a record there has more than {} GiB and no end",
                MOST_RECORD >> 30
            )),
        };
        let mut header = None;
        if csv {
            let refused = match read_head(&mut records) {
                Err(HeadError::Split(error)) => return Err(broken(error)),
                Err(HeadError::Refused(reason)) => Some(Break::Refused(format!("{reason}; {TRY_AGAIN}"))),
                Ok(head) => {
                    let judged = self.judge(job, &head, *next == self.current.base);
                    header = head.header;
                    judged.err().map(|broke| match records.open_end() {
                        Some(_) => Break::torn(broke),
                        None => broke,
                    })
                }
            };
            if let Some(refused) = refused {
                // What damaged bytes become is no header, and a checksum behind them says so.
                let behind = records.passed() + CHECKED_BYTES;
                if was_packed && let Err(error @ SplitError::Io(_)) = records.skip_to(behind) {
                    return Err(match broken(error) {
                        Break::Spoilt(reason) => Break::Spoilt(format!("its compressed bytes are damaged: {reason}")),
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
            // The last record of then was not whole: it has another length now.
            if last_length != Some(length) {
                self.refuse_torn(job, *next)?;
            }
        }
        if self.rules().duplicates != Duplicates::Skip {
            self.current.content = None; // that digest is of the earlier bytes alone
        }
        let mut batch = BatchBuilder::new(self.hand.limits);
        let mut at = *next;
        // By bytes of the text: unpacked ones are the same in UTF-8 alone.
        let mut suspects = proven.map(|proven| Suspects::new(proven, csv && dialect.charset == Charset::Utf8));
        // Of a packed file its own end tells that it is whole.
        let waits_for_line_end = !was_packed && self.may_grow(job);
        let end = loop {
            let before = records.passed();
            match records.next() {
                Ok(Some(Line {
                    bytes, is_open: true, ..
                })) if waits_for_line_end && (csv || !is_json(bytes)) => {
                    self.current.at = place(before);
                    let cause = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "its last line has no end, and may still be written",
                    );
                    break Err(Break::torn(Break::Passing(cause)));
                }
                Ok(Some(Line {
                    bytes,
                    cut_from: None,
                    number,
                    ..
                })) if let Some(what) = reordered(bytes) => {
                    self.current.at = place(before);
                    break Err(Break::Spoilt(format!("its line {number} is no record: {what}")));
                }
                Ok(Some(Line {
                    bytes,
                    cut_from,
                    number,
                    ..
                })) => {
                    batch.push(Record {
                        offset: at,
                        value: Some(bytes),
                        cut_from,
                        line: Some(number),
                        ..Record::default()
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
                    break Err(match (broken(error), suspects.and_then(|suspects| suspects.told(at))) {
                        (Break::Spoilt(reason), Some(told)) => Break::Spoilt(format!("{reason}: {told}")),
                        (broke, _) => broke,
                    });
                }
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
        let blank = std::mem::take(&mut self.current.blank_rows);
        self.headers
            .tell_blank_rows(&self.hand, &self.place.shown(&job.partition), blank);
        if end.is_ok() && !holds.load(Ordering::Relaxed) {
            self.headers
                .tell_empty(&self.hand.name(), &self.place.shown(&job.partition));
        }
        end.map(|()| self.position(job, *next, true))
    }

    /// Warns of a file that looks like UTF-8 and is read by another encoding, which would give other text without a word.
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

    /// Makes a dead letter of the record that was taken last: it was delivered before its line was complete.
    fn refuse_torn(&self, job: &Job, next: u64) -> Result<(), Ended> {
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
        self.hand.conclude(&job.partition, position, Some(reason), job.seen)
    }

    /// Refuses a file whose header is not the feed's. What else the header has otherwise than the columns is warned of once a file.
    fn judge(&mut self, job: &Job, head: &Head, is_first: bool) -> Result<(), Break> {
        let (input, feed) = (self.hand.input(), self.hand.feed());
        if head.header.is_none() && feed.wire.text.header {
            return Ok(()); // an empty file
        }
        let notes = judge_header(input, feed, head.header.as_deref(), &head.sample).map_err(|reason| {
            // What is to be set may fit this file alone.
            let for_one = if reason.contains("set `") { FOR_ONE } else { "" };
            Break::Refused(format!("{reason}; {for_one}{TRY_AGAIN}"))
        })?;
        if is_first {
            self.headers
                .tell(&self.hand.name(), &self.place.shown(&job.partition), notes);
        }
        Ok(())
    }

    fn attempt_columnar(&mut self, job: &Job, next: &mut u64) -> Result<Position, Break> {
        if self.corrects() && self.current.content.is_none() {
            // A later version with the same bytes is told by it from another one.
            self.current.content = Some(self.content(job)?);
        }
        let extent = Extent {
            size: job.size,
            next: *next - self.current.base,
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
        let mut is_first = *next == self.current.base;
        let mut is_checked = false;
        for batch in Gathered::new(batches, self.hand.limits) {
            if let (Err(Break::Spoilt(_) | Break::Torn(_)), Some(digest)) = (&batch, &digest) {
                self.current.content = Some(digest.content());
            }
            let batch = batch?;
            self.hand.check()?;
            // Bronze refers to this version, so it must still be there. A store gives bytes of the object that was opened, or
            // none; a local file may be written to while it is read.
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

    /// Says why a columnar file failed: it may be of another format.
    fn explain(&self, job: &Job, next: u64, broke: Break) -> Break {
        let wanted = match self.hand.feed().format {
            Format::Parquet => Mark::Parquet,
            _ => Mark::Avro,
        };
        match broke {
            Break::Spoilt(reason) => match instead(&self.place, &job.partition, wanted) {
                Some(what) => Break::Refused(what),
                // Its end may be missing; a Parquet file gives no row without it.
                None if wanted == Mark::Avro || next == 0 => Break::torn(Break::Spoilt(reason)),
                None => Break::Spoilt(reason),
            },
            other => other,
        }
    }

    /// Hands over a batch that starts at record `next`.
    fn hand_over(&mut self, job: &Job, mut raw: Raw, next: &mut u64, done: bool) -> Result<(), Ended> {
        let modified = self.current.modified.get_or_insert_with(|| moment(job.modified));
        raw.place.modified = Some(modified.clone());
        raw.place.base = self.current.base;
        let behind = raw.offsets.last().map_or(*next, |last| last + 1);
        let position = self.position(job, behind, done);
        match raw.is_empty() {
            true => self.hand.conclude(&job.partition, position, None, job.seen)?,
            false => {
                self.current.blank_rows +=
                    self.hand
                        .deliver(&mut self.decode, &job.partition, raw, position, job.seen)?;
            }
        }
        *next = behind;
        Ok(())
    }

    /// A file that was read to its end must still be the file that was opened. One that was deleted meanwhile counts as unchanged.
    fn check_unchanged(&self, job: &Job) -> Result<(), Break> {
        match self.is_changed(job)? {
            true => Err(Break::Spoilt("it changed while it was read".into())),
            false => Ok(()),
        }
    }

    /// Whether the file's tag is another than the job's. One that was deleted meanwhile counts as unchanged.
    fn is_changed(&self, job: &Job) -> Result<bool, Break> {
        let tag = self.place.tag(&job.partition).map_err(Break::from_io)?;
        Ok(tag.is_some_and(|tag| tag != job.tag))
    }
}
