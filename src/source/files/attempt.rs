//! One attempt to read a file: from a given record on, its bytes become records or columns, which are delivered
//! in batches. Records of a text are read in [`super::attempt_text`].

use std::sync::Arc;

use super::bounded_batches::{CoalescedBatches, split_batch};
use super::columnar::{self, RowRange};
use super::magic::FileMark;
use super::open::{ReadBreak, instead};
use super::queue::FileJob;
use super::reader::FileReader;
use crate::decode::{FilePlace, Payloads, Raw, judge_columns, moment};
use crate::definition::Format;
use crate::repr::Position;
use crate::source::error::ReaderExit;

/// The end of a refusal's message: how the file is read once the cause is repaired.
pub(super) const TRY_AGAIN: &str = "then `alluvium dead-letters --replay` reads it";

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
    pub(super) fn hand_over(
        &mut self,
        job: &FileJob,
        mut raw: Raw,
        next: &mut u64,
        done: bool,
    ) -> Result<(), ReaderExit> {
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
