//! Reads columnar files that the lake archives; Bronze refers to their rows by number.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::decode::parquet;
use crate::decode::read_container;
use crate::definition::Format;
use crate::lake::Lake;

/// The most rows, and about the most bytes, of an archived file that are read at once.
const ROWS: usize = 1024;
const BYTES: u64 = 8 << 20;

/// Batches of a file's rows, in order.
pub(super) type ArchivedRows = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Why an archived file cannot be read.
pub(super) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Opens a file's rows from a number on, in batches of at most so many rows.
pub(super) type OpenRows = fn(Format, Bytes, u64, usize) -> Result<ArchivedRows, Unreadable>;

/// The most archived files that are open at once: as many as are usually read concurrently. Each is held in memory.
const OPEN_FILES: usize = 4;

/// Reads rows of archived files. Callers ask for a file's rows in order, so its reader stays open in between.
pub(super) struct Archive<'a> {
    lake: &'a Lake,
    open: OpenRows,
    /// Open files by reference, the most recently used last.
    files: Vec<(String, OpenFile)>,
}

struct OpenFile {
    next: u64,
    batches: ArchivedRows,
    /// The unread part of the batch that was read last.
    rest: Option<RecordBatch>,
}

impl<'a> Archive<'a> {
    /// An archive over a lake, whose files `open` reads.
    pub fn new(lake: &'a Lake, open: OpenRows) -> Archive<'a> {
        Archive {
            lake,
            open,
            files: vec![],
        }
    }

    /// Returns rows of a file, and goes on reading if the file is open. A batch may contain damage behind the wanted
    /// rows; so if it fails, exactly these rows are read again, as they were when the file was archived.
    ///
    /// # Errors
    /// The file is gone, or does not have these rows.
    pub async fn rows(
        &mut self,
        format: Format,
        reference: &str,
        first: u64,
        records: u64,
    ) -> Result<RecordBatch, Unreadable> {
        let records = records as usize;
        if let Ok(rows) = self.next_rows(format, reference, first, records).await {
            return Ok(rows);
        }
        self.files.retain(|(open, _)| open != reference);
        let bytes = self.lake.store.get(&Path::from(reference)).await?.bytes().await?;
        let mut alone = OpenFile {
            next: first,
            batches: (self.open)(format, bytes, first, records)?,
            rest: None,
        };
        alone.rows(first, records)
    }

    async fn next_rows(
        &mut self,
        format: Format,
        reference: &str,
        first: u64,
        records: usize,
    ) -> Result<RecordBatch, Unreadable> {
        let known = self.files.iter().position(|(open, _)| open == reference);
        let known = known
            .map(|at| self.files.remove(at))
            .filter(|(_, file)| file.next <= first);
        let mut file = match known {
            Some((_, file)) => file,
            None => {
                if self.files.len() >= OPEN_FILES {
                    self.files.remove(0);
                }
                let bytes = self.lake.store.get(&Path::from(reference)).await?.bytes().await?;
                OpenFile {
                    next: first,
                    batches: (self.open)(format, bytes, first, ROWS)?,
                    rest: None,
                }
            }
        };
        let rows = file.rows(first, records)?;
        self.files.push((reference.to_string(), file));
        Ok(rows)
    }
}

impl OpenFile {
    /// Reads rows at or after the current position.
    fn rows(&mut self, first: u64, records: usize) -> Result<RecordBatch, Unreadable> {
        let mut taken: Vec<RecordBatch> = Vec::new();
        let mut wanted = records;
        while wanted > 0 {
            let batch = match self.rest.take() {
                Some(rest) => Some(rest),
                None => self.batches.next().transpose()?,
            };
            let Some(batch) = batch else {
                return Err(format!("it has {} rows, {} were archived", self.next, first + records as u64).into());
            };
            let skip = (first.saturating_sub(self.next) as usize).min(batch.num_rows());
            let take = wanted.min(batch.num_rows() - skip);
            if take > 0 {
                taken.push(batch.slice(skip, take));
                wanted -= take;
            }
            self.next += (skip + take) as u64;
            if skip + take < batch.num_rows() {
                self.rest = Some(batch.slice(skip + take, batch.num_rows() - skip - take));
            }
        }
        let schema = taken.first().map(RecordBatch::schema).ok_or("no rows were asked for")?;
        Ok(arrow::compute::concat_batches(&schema, &taken)?)
    }
}

/// Rows of an archived file from row `next` on, read by the rules of its feed.
pub(super) fn archived_rows(format: Format, bytes: Bytes, next: u64, rows: usize) -> Result<ArchivedRows, Unreadable> {
    // The format comes from the feed, as when the file was first read: damage may have changed the bytes that would
    // show it.
    if format == Format::Parquet {
        return Ok(Box::new(parquet::batches(
            move || Ok(bytes.clone()),
            next,
            (rows, BYTES),
        )?));
    }
    Ok(Box::new(read_container(bytes.reader(), next, rows)?))
}
