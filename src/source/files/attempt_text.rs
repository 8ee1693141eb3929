//! Reads a text from a given record on: its bytes are unpacked, transcoded to UTF-8 and split into records, which are
//! delivered in batches. The steps of an attempt are in [`FileReader::attempt_text`].

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attempt::TRY_AGAIN;
use super::charset::{Peeked, as_utf8, to_utf8};
use super::content::ByteDigest;
use super::documents::LineDocuments;
use super::head::{FileHeading, HeadError, SAMPLE, read_head};
use super::magic::is_unmarked_utf16;
use super::open::{LastReadError, ReadBreak, StoredBytes, UnpackedFile, decompress};
use super::queue::FileJob;
use super::reader::FileReader;
use super::suspects::{SuspectRecords, VerifiedBytes};
use super::text::{MOST_BLANK, MOST_RECORD, SplitError, TextRecord, TextRecords};
use crate::decode::{RepeatedHeader, judge_header, repeated_header};
use crate::definition::{Column, Duplicates, TextDialect};
use crate::repr::{Charset, Position, TextPlace};
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::error::ReaderExit;
use crate::source::feed_handle::FeedHandle;

/// The advice for the case that a setting would suit this file but no other file of the feed.
const FOR_ONE: &str = "a setting holds for all files of the feed: where only this one needs it, repair the file, or move it to a \
     folder that another feed of the input reads with that setting; ";

/// How many bytes of a compressed file are still unpacked after its header was refused, to find out whether the
/// file is damaged. It is more than a block of bzip2, whose checksum comes at its end.
const CHECKED_BYTES: u64 = 4 << 20;

/// A file's bytes, whose reads fail once readers are to stop. A single record may be as long as the file, so
/// every read checks. It also notes whether the file has any content.
struct StopAware<R> {
    source: R,
    handle: FeedHandle,
    /// Whether any byte was read that is neither whitespace nor part of a byte order mark, nor the zero byte that
    /// UTF-16 puts beside each ASCII character.
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

/// A text that is being read.
struct OpenText {
    records: TextRecords<Box<dyn Read>>,
    csv: bool,
    dialect: TextDialect,
    /// The header of a CSV file, and how a repetition of it is recognised.
    header: Option<Arc<str>>,
    repeated: Option<RepeatedHeader>,
    /// The digest of the stored bytes that were read.
    digest: ByteDigest,
    /// See [`UnpackedFile`].
    was_packed: bool,
    /// How far checksums have confirmed the unpacked bytes; records behind that are named when a file turns out damaged.
    proven: Option<VerifiedBytes>,
    /// See [`StopAware`].
    holds: Arc<AtomicBool>,
    causes: BreakCauses,
}

/// Tells why a text could not be split further.
struct BreakCauses {
    handle: FeedHandle,
    trouble: LastReadError,
}

/// The records that are still to be delivered, and why there are no more.
struct LastRecords {
    batch: BatchBuilder,
    end: Result<(), ReadBreak>,
}

impl BreakCauses {
    fn explain(&self, error: SplitError) -> ReadBreak {
        match (self.handle.check(), error) {
            (Err(ended), SplitError::Io(_)) => ReadBreak::Ended(ended), // a stop, see `StopAware`
            (_, SplitError::Io(e)) => self.trouble.explain(e),
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
        }
    }
}

impl OpenText {
    /// A place in the text, for positions; none unless it is CSV.
    fn place(&self, bytes: u64) -> Option<TextPlace> {
        let charset = self.dialect.charset;
        self.csv.then_some(TextPlace { bytes, charset })
    }

    /// The place of the unread part.
    fn passed(&self) -> Option<TextPlace> {
        self.place(self.records.passed())
    }

    /// Takes in the header; the columns are the feed's. The records' dialect has the delimiter that the file declares.
    fn set_header(&mut self, header: Option<Arc<str>>, columns: &[Column]) {
        self.repeated = match (&header, self.records.dialect()) {
            (Some(header), Some(dialect)) if dialect.header => repeated_header(header, dialect, columns),
            _ => None,
        };
        self.header = header;
    }

    /// Looks for damage behind a header that does not fit the feed: damaged compressed bytes unpack to something that
    /// is no header, and the checksum behind them tells damage from a wrong header.
    fn find_damage(&mut self) -> Option<ReadBreak> {
        if !self.was_packed {
            return None;
        }
        let behind = self.records.passed() + CHECKED_BYTES;
        let Err(error @ SplitError::Io(_)) = self.records.skip_to(behind) else {
            return None;
        };
        Some(match self.causes.explain(error) {
            ReadBreak::Spoilt(reason) => ReadBreak::Spoilt(format!("its compressed bytes are damaged: {reason}")),
            broke => broke,
        })
    }
}

/// What is wrong with a record that is a header with other fields than its file's; none for any other record.
fn other_header(repeated: Option<&RepeatedHeader>, bytes: &[u8]) -> Option<String> {
    let repeated = repeated.filter(|repeated| repeated.may_be(bytes))?;
    let record = std::str::from_utf8(bytes).ok()?;
    let record = record.strip_prefix('\u{feff}').unwrap_or(record);
    repeated.find(record).fault(record)
}

impl FileReader {
    /// Reads a text from record `next` on, and advances `next` with each delivery.
    pub(super) fn attempt_text(&mut self, job: &FileJob, next: &mut u64, csv: bool) -> Result<Position, ReadBreak> {
        let is_first = *next == self.current.base;
        let mut text = self.open_text(job, is_first, csv)?;
        if csv {
            self.read_header(job, is_first, &mut text)?;
        }
        self.pass_known(job, *next, &mut text)?;
        if self.rules().duplicates != Duplicates::Skip {
            self.current.content = None; // the digest of the earlier attempt covers only the bytes that it read
        }
        let last = self.deliver_records(job, next, &mut text)?;
        self.finish_text(job, next, text, last)
    }

    /// Opens a file as a text in UTF-8.
    fn open_text(&self, job: &FileJob, is_first: bool, csv: bool) -> Result<OpenText, ReadBreak> {
        let dialect = self.handle.feed().wire.text;
        let (mut source, trouble) = StoredBytes::open_version(&self.place, &job.partition, &job.tag)?;
        let digest = source.digested();
        let UnpackedFile {
            source,
            was_packed,
            proven,
        } = decompress(source, &trouble, &job.partition)?;
        let source = self.check_charset(job, is_first, source)?;
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
        Ok(OpenText {
            records: TextRecords::new(plain, csv.then_some(dialect), self.handle.limits.record),
            csv,
            dialect,
            header: None,
            repeated: None,
            digest,
            was_packed,
            proven,
            holds,
            causes: BreakCauses {
                handle: self.handle.clone(),
                trouble,
            },
        })
    }

    /// Compares the beginning of a text with the feed's encoding; returns the whole text. Refuses what looks UTF-16
    /// where UTF-8 is expected.
    fn check_charset(&self, job: &FileJob, is_first: bool, source: Box<dyn Read>) -> Result<Box<dyn Read>, ReadBreak> {
        let charset = self.handle.feed().wire.text.charset;
        if !charset.is_single_byte() && charset != Charset::Utf8 {
            return Ok(source);
        }
        let peeked = Peeked::new(source, SAMPLE);
        if charset.is_single_byte() {
            self.warn_utf8(job, is_first, &peeked.head);
        } else if is_unmarked_utf16(&peeked.head) {
            return Err(ReadBreak::Refused(format!(
                "it looks UTF-16, without a byte order mark: set `encoding = \"utf-16\"`; {FOR_ONE}{TRY_AGAIN}"
            )));
        }
        Ok(Box::new(peeked))
    }

    /// Reads what precedes the records of a CSV file. Fails if it does not fit the feed.
    fn read_header(&mut self, job: &FileJob, is_first: bool, text: &mut OpenText) -> Result<(), ReadBreak> {
        let refused = match read_head(&mut text.records) {
            Err(HeadError::Split(error)) => return Err(text.causes.explain(error)),
            Err(HeadError::Refused(reason)) => ReadBreak::Refused(format!("{reason}; {TRY_AGAIN}")),
            Ok(head) => match self.judge(job, &head, is_first) {
                Ok(()) => {
                    text.set_header(head.header, &self.handle.feed().columns);
                    return Ok(());
                }
                Err(broke) if text.records.open_end().is_some() => ReadBreak::torn(broke),
                Err(broke) => broke,
            },
        };
        Err(text.find_damage().unwrap_or(refused))
    }

    /// Passes over the records before `next`, which were delivered earlier.
    fn pass_known(&mut self, job: &FileJob, next: u64, text: &mut OpenText) -> Result<(), ReadBreak> {
        let mut known_records = self.current.base..next;
        let known = self.current.at;
        let known = known.filter(|at| text.csv && at.charset == text.dialect.charset);
        if let (Some(at), false) = (known, known_records.is_empty()) {
            let passed = text.records.skip_to(at.bytes);
            passed.map_err(|error| text.causes.explain(error))?;
            // A record that was delivered without a line end is read again, to compare its length.
            let open = u64::from(self.current.open_end.is_some());
            known_records = next - open..next;
        }
        let mut last_length = None;
        for _ in known_records {
            let record = text.records.next().map_err(|error| text.causes.explain(error))?;
            if let Some(line) = record {
                (last_length, self.current.line) = (Some(line.length()), Some(line.number));
            }
        }
        if let Some(length) = self.current.open_end.take() {
            self.current.at = text.passed();
            // The last record was incomplete when it was delivered: its length has changed since.
            if last_length != Some(length) {
                self.refuse_torn(job, next)?;
            }
        }
        Ok(())
    }

    /// Delivers full batches of records, until the text ends or breaks off.
    fn deliver_records(
        &mut self,
        job: &FileJob,
        next: &mut u64,
        text: &mut OpenText,
    ) -> Result<LastRecords, ReaderExit> {
        let mut batch = BatchBuilder::new(self.handle.limits);
        let mut at = *next;
        // Suspect records are found by offsets in the text. These equal offsets in the unpacked bytes only for
        // UTF-8.
        let has_places = text.csv && text.dialect.charset == Charset::Utf8;
        let proven = text.proven.take();
        let mut suspects = proven.map(|proven| SuspectRecords::new(proven, has_places));
        // A compressed file ends with a mark of its own, which proves that it is complete.
        let waits_for_line_end = !text.was_packed && self.may_grow(job);
        let end = loop {
            let before = text.passed();
            match text.records.next() {
                Ok(Some(TextRecord {
                    bytes, is_open: true, ..
                })) if waits_for_line_end && (text.csv || !is_json(bytes)) => {
                    self.current.at = before;
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
                })) if let Some(what) = other_header(text.repeated.as_ref(), bytes) => {
                    self.current.at = before;
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
                        suspects.observe(text.records.passed(), at, number);
                    }
                    at += 1;
                    self.current.line = Some(number);
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    self.current.at = before;
                    let suspects = suspects.filter(|_| matches!(error, SplitError::Io(_)));
                    let broke = text.causes.explain(error);
                    let told = suspects.and_then(|suspects| suspects.describe(at));
                    break Err(match (broke, told) {
                        (ReadBreak::Spoilt(reason), Some(told)) => ReadBreak::Spoilt(format!("{reason}: {told}")),
                        (broke, _) => broke,
                    });
                }
            }
            if batch.is_full() {
                self.current.at = text.passed();
                self.hand_over(job, batch.finish(text.header.clone()), next, false)?;
            }
        };
        Ok(LastRecords { batch, end })
    }

    /// Delivers the last records with the state in which the file was left.
    fn finish_text(
        &mut self,
        job: &FileJob,
        next: &mut u64,
        text: OpenText,
        last: LastRecords,
    ) -> Result<Position, ReadBreak> {
        let LastRecords { mut batch, end } = last;
        if matches!(
            end,
            Ok(()) | Err(ReadBreak::Spoilt(_) | ReadBreak::Refused(_) | ReadBreak::Torn(_))
        ) {
            // The digest of what was read. If the file has changed since, the next listing finds that.
            self.current.content = Some(text.digest.content());
        }
        if end.is_ok() {
            self.current.open_end = text.records.open_end();
            self.current.at = text.place(text.records.reached());
            if self.rules().duplicates == Duplicates::Skip {
                self.known.claim(text.digest.content(), &job.partition);
            }
        }
        if end.is_ok() || !batch.is_empty() {
            self.hand_over(job, batch.finish(text.header), next, end.is_ok())?;
        }
        let blank = std::mem::take(&mut self.current.blank_rows);
        self.headers
            .report_blank_rows(&self.handle, &self.place.shown(&job.partition), blank);
        if end.is_ok() && !text.holds.load(Ordering::Relaxed) {
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
}
