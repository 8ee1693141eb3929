//! A worker's writer gathers updates, and at each seal writes them as files and determines which rows to remove.
//!
//! ```text
//! WriterMessage --> mint: updates of the snapshot --> small | indexed | appended: places of rows --> Prepared
//!                  load: from live files --^              compact: in the background ----^
//! ```
//!
//! 1. When a `Prepared` is handed over, every file that it names is complete (and synced, in a durable lake).
//! 2. A writer's parts build on each other: the committer applies them in order. A [`Compaction`] names files of
//!    earlier parts, and precedes the changes of the next part, which may name the compaction's file.
//! 3. A file belongs to one writer, except for files from before a restart with another number of workers: of those a
//!    writer names only rows, and the committer notices when no row is left.
//! 4. A removed row must exist: otherwise it is a fault ([`WriterError::UnknownRow`]).
//!
//! Nothing here reads or writes a Delta log, and nothing decides when a snapshot is taken.

mod bounds;
mod compact;
mod departing;
mod error;
mod file;
mod file_store;
mod files;
mod hash;
mod identify;
mod index;
mod index_move;
mod indexed;
mod layout;
mod load;
mod mint;
mod scan;
mod small;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod thread;

pub use departing::DepartingRows;
pub use error::WriterError;
pub use file::is_named_by_us;
pub(in crate::sink) use hash::RowHash;
pub use hash::owner;
pub(in crate::sink) use identify::{RowIdentifier, RowLocations};
pub use load::{LoadedWriter, restore};
pub use scan::scan;
pub use stats::{TableStats, WriterStats};
pub use thread::{WriterThread, spawn};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;

use crate::lake::Lake;
use crate::repr::{Epoch, PartitionId, Position};
use crate::sink::{Prepared, Relocations, TableBatch, TableSpec, WriterMessage};
use compact::{CompactionJob, MergedFiles};
use file::FileNames;
use file_store::FileStore;
use table::{CompactionResult, TableWriter, WriterContext};

/// The settings of a writer.
#[derive(Clone)]
pub struct WriterConfig {
    /// This worker's index, over all processes.
    pub writer: usize,
    /// How many workers there are, over all processes.
    pub writers: usize,
    /// The run's generation, which is in file names, so that names of two generations never collide.
    pub generation: u64,
    /// The sink's tables; messages name them by index.
    pub specs: Arc<Vec<TableSpec>>,
    /// The lake that gets the files. In a durable lake, files survive a crash of the machine before they are handed
    /// over.
    pub lake: Lake,
    /// The runtime for uploads and compactions.
    pub runtime: Handle,
    /// Sizes that decide how rows are kept and files are merged.
    pub limits: WriterLimits,
    /// The board on which the committer posts moved rows (`Committer::relocations`).
    pub relocations: Relocations,
}

impl WriterConfig {
    fn file_store(&self) -> Arc<FileStore> {
        Arc::new(FileStore::new(self.lake.clone(), self.runtime.clone()))
    }
}

/// Sizes at which a writer changes how it keeps or writes a table; each applies per table and writer.
#[derive(Clone, Debug)]
pub struct WriterLimits {
    /// Up to this many rows, a table is kept in memory and rewritten; an indexed table returns to that below a quarter
    /// of them.
    pub small_rows: u64,
    /// The same limit for the bytes of rows.
    pub small_bytes: u64,
    /// The most rows of a data file.
    pub file_rows: usize,
    /// The most rows of a data file in a table whose removals rewrite files.
    pub rewrite_rows: usize,
    /// The number of files of similar size at which they are merged.
    pub merge_files: usize,
    /// About the most rows that a merge reads.
    pub merge_rows: usize,
    /// About the most bytes that a merge reads.
    pub merge_bytes: u64,
    /// The most rows of a partition of a log that is not split.
    pub fold_rows: usize,
    /// A file of whose rows more than this share is removed is rewritten.
    pub dead_share: f64,
}

impl Default for WriterLimits {
    fn default() -> Self {
        WriterLimits {
            small_rows: 4096,
            small_bytes: 256 << 10,
            file_rows: 1 << 18,
            rewrite_rows: 1 << 15,
            merge_files: 8,
            merge_rows: 1 << 17,
            merge_bytes: 32 << 20,
            fold_rows: 1 << 15,
            dead_share: 0.4,
        }
    }
}

/// Files of one table, rewritten without a change of rows. It must be committed after the same writer's earlier
/// `Prepared`s and before its later ones, together with other compactions if there are any. `deletes` may name the
/// added file: for rows that were removed while it was written.
#[derive(Debug)]
pub struct Compaction {
    /// Which writer.
    pub writer: usize,
    /// Which table.
    pub table: usize,
    /// The batch, with `data_change: false`.
    pub batch: TableBatch,
}

/// A compaction that has been run, but not taken over.
#[cfg(test)]
pub(in crate::sink) struct Compacting(MergedFiles);

/// A writer without its thread: it takes messages one by one.
pub struct SinkWriter {
    config: WriterConfig,
    context: WriterContext,
    tables: Vec<TableWriter>,
    progress: HashMap<PartitionId, Vec<(Epoch, Position)>>,
    sealed: Option<Epoch>,
    /// The table at which the search for the next compaction starts, so that every table has its turn.
    turn: usize,
    /// The table whose index entries are moving slice by slice.
    moving: Option<usize>,
    /// The newest relocation that the writer has learned.
    learned: u64,
    stats: Arc<WriterStats>,
}

impl SinkWriter {
    /// Starts a writer from `restored` ([`restore`]; the default if the lake is new).
    pub fn new(config: WriterConfig, mut restored: LoadedWriter) -> Result<Self, WriterError> {
        let stats: Vec<Arc<TableStats>> = config.specs.iter().map(|_| Arc::default()).collect();
        let stats = Arc::new(WriterStats { tables: stats });
        let tables: Result<Vec<TableWriter>, WriterError> = config
            .specs
            .iter()
            .enumerate()
            .map(|(i, spec)| TableWriter::new(spec.clone(), restored.tables.remove(&i), stats.tables[i].clone()))
            .collect();
        let mut tables = tables?;
        let audited = restored
            .audits
            .iter()
            .filter(|(table, _)| !config.specs[*table].append_only);
        audited.for_each(|(table, upto)| tables[*table].audit_next(*upto));
        restored.anew.iter().for_each(|table| tables[*table].start_anew());
        let names = FileNames::new(config.writer, config.generation);
        let context = WriterContext {
            store: config.file_store(),
            names,
            limits: config.limits.clone(),
        };
        Ok(SinkWriter {
            config,
            context,
            tables,
            progress: HashMap::new(),
            sealed: None,
            turn: 0,
            moving: None,
            learned: 0,
            stats,
        })
    }

    /// The writer's counters.
    pub fn stats(&self) -> Arc<WriterStats> {
        self.stats.clone()
    }

    /// Takes a message. A seal returns the snapshot's part, of which all files are stored.
    pub fn observe(&mut self, arrival: WriterMessage) -> Result<Option<Prepared>, WriterError> {
        match arrival {
            WriterMessage::Rows { table, updates } => self.tables[table].observe_rows(updates),
            WriterMessage::Columns { table, epoch, batch } => self.tables[table].observe_columns(epoch, batch)?,
            WriterMessage::Progress {
                epoch,
                partition,
                position,
            } => {
                self.progress.entry(partition).or_default().push((epoch, position));
            }
            WriterMessage::Seal { epoch } => return self.seal(epoch).map(Some),
        }
        Ok(None)
    }

    fn seal(&mut self, epoch: Epoch) -> Result<Prepared, WriterError> {
        let (mut tables, mut files) = (Vec::new(), Vec::new());
        for (i, table) in self.tables.iter_mut().enumerate() {
            if let Some(mut written) = table.seal(&self.context, epoch)? {
                tables.push((i, written.batch));
                files.append(&mut written.files);
            }
        }
        self.context.store.put_all(files)?;
        self.sealed = Some(epoch);
        let mut progress = Vec::new();
        self.progress.retain(|partition, steps| {
            let newest = steps
                .iter()
                .filter(|(time, _)| *time <= epoch)
                .max_by_key(|(time, p)| (*time, p.next));
            progress.extend(newest.map(|(_, position)| (partition.clone(), position.clone())));
            steps.retain(|(time, _)| *time > epoch);
            !steps.is_empty()
        });
        progress.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Prepared {
            writer: self.config.writer,
            epoch,
            tables,
            progress,
            learned: self.learned,
        })
    }

    /// Whether other writers moved rows, and this one has not learned of that yet.
    fn is_behind(&self) -> bool {
        self.config.relocations.is_behind(self.learned)
    }

    /// Learns where other writers moved rows. Call it between two parts, when every finished compaction has gone with
    /// one, because all places of a part must be as of one time. (While index entries are moving, it does nothing; a
    /// later call learns.)
    pub fn relocate(&mut self) -> Result<(), WriterError> {
        // An audit that is under way has noted places of rows.
        if self.is_moving_entries() || self.tables.iter().any(TableWriter::is_audited) {
            return Ok(());
        }
        for relocation in self.config.relocations.behind(self.learned) {
            self.tables[relocation.table].relocate(&relocation, self.config.writer)?;
            self.learned = relocation.seq;
        }
        Ok(())
    }

    /// The next compaction that is worth its cost. At most one is under way, and none before the first seal.
    fn compaction(&mut self) -> Option<CompactionJob> {
        let epoch = self.sealed.filter(|_| !self.is_behind())?;
        for step in 0..self.tables.len() {
            let table = (self.turn + step) % self.tables.len();
            if let Some(job) = self.tables[table].compaction(table, &self.context, epoch) {
                self.turn = table + 1;
                return Some(job);
            }
        }
        None
    }

    /// Takes over the outcome of a compaction. If index entries have to move, [`SinkWriter::move_entries`] moves them.
    fn begin_move(&mut self, merged: MergedFiles) -> Result<Option<Compaction>, WriterError> {
        let table = merged.table;
        match self.tables[table].begin_move(merged) {
            Some(result) => self.publishable(table, result),
            None => {
                self.moving = Some(table);
                Ok(None)
            }
        }
    }

    /// Whether index entries are moving to a compaction's file.
    fn is_moving_entries(&self) -> bool {
        self.moving.is_some()
    }

    /// Moves up to `moves` index entries to a compaction's file. Returns the compaction after the last one, unless it
    /// came too late.
    fn move_entries(&mut self, moves: usize) -> Result<Option<Compaction>, WriterError> {
        let Some(table) = self.moving else {
            return Ok(None);
        };
        match self.tables[table].move_entries(moves) {
            Some(result) => {
                self.moving = None;
                self.publishable(table, result)
            }
            None => Ok(None),
        }
    }

    fn publishable(&self, table: usize, result: CompactionResult) -> Result<Option<Compaction>, WriterError> {
        match result {
            CompactionResult::Done(batch) => Ok(Some(Compaction {
                writer: self.config.writer,
                table,
                batch,
            })),
            CompactionResult::Void(merged) => self.discard(merged).map(|()| None),
        }
    }

    /// Ends without the compaction whose entries are moving.
    fn give_up(&mut self) -> Result<(), WriterError> {
        let merged = self.moving.take().and_then(|table| self.tables[table].give_up());
        merged.map_or(Ok(()), |merged| self.discard(merged))
    }

    /// Deletes the files of a compaction that came too late.
    fn discard(&self, merged: MergedFiles) -> Result<(), WriterError> {
        let mut files = merged.files.iter();
        files.try_for_each(|file| self.context.store.delete(&file.physical))
    }

    /// Runs one compaction from start to end, on this thread; returns none if none is worth its cost. For tools and
    /// tests; a [`WriterThread`] compacts in the background by itself.
    pub fn compact_now(&mut self) -> Result<Option<Compaction>, WriterError> {
        match self.compaction() {
            Some(job) => {
                let merged = job.run()?;
                let finished = self.begin_move(merged)?;
                Ok(finished.or(self.move_entries(usize::MAX)?))
            }
            None => Ok(None),
        }
    }

    /// Runs a compaction without taking it over, so that a test can do something in between.
    #[cfg(test)]
    pub(in crate::sink) fn start_compaction(&mut self) -> Result<Option<Compacting>, WriterError> {
        let job = self.compaction();
        job.map(|job| job.run().map(Compacting)).transpose()
    }

    /// Takes over the compaction of [`SinkWriter::start_compaction`].
    #[cfg(test)]
    pub(in crate::sink) fn end_compaction(&mut self, merged: Compacting) -> Result<Option<Compaction>, WriterError> {
        let finished = self.begin_move(merged.0)?;
        Ok(finished.or(self.move_entries(usize::MAX)?))
    }

    /// Bytes of memory in all indexes and in rows held.
    pub fn memory(&self) -> u64 {
        self.stats.tables.iter().map(|t| t.index_bytes.load(Relaxed)).sum()
    }
}
