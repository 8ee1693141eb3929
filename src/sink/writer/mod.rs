//! A worker's writer: gathers updates, and at each seal writes them as files and says which rows go.
//!
//! ```text
//! Arrival --> mint: what is in the snapshot --> small | indexed | appended: where rows are --> Prepared
//!                  load: from live files --^            compact: in the background ----^
//! ```
//!
//! 1. When a `Prepared` is handed over, every file it names is complete (and
//!    synced, where durable).
//! 2. A writer's parts build on each other: the committer applies them in the order they come. A [`Compaction`] names
//!    files of earlier parts, and goes in front of the next one's changes, which may name its file.
//! 3. A file belongs to one writer, except files written before a restart with another number of
//!    workers: of those a writer names only rows, and the committer sees when none is left.
//! 4. A row that is removed must be there: anything else is a fault ([`WriterError::UnknownRow`]).
//!
//! Nothing here reads or writes a Delta log, and nothing decides when a snapshot is taken.

mod bounds;
mod compact;
mod departing;
mod error;
mod file;
mod files;
mod hash;
mod identify;
mod index;
mod indexed;
mod lake;
mod layout;
mod load;
mod mint;
mod scan;
mod settle;
mod small;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod thread;

pub use departing::Departing;
pub use error::WriterError;
pub use file::is_ours;
pub(in crate::sink) use hash::RowHash;
pub use hash::owner;
pub(in crate::sink) use identify::{Identify, Whereabouts};
pub use load::{Loaded, restore};
pub use scan::scan;
pub use stats::{TableStats, WriterStats};
pub use thread::{WriterThread, spawn};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::repr::Epoch;
use crate::sink::{Arrival, Batch, Prepared, Relocations, TableSpec};
use crate::source::{PartitionId, Position};
use compact::{Job, Merged};
use file::Names;
use lake::Lake;
use table::{Desk, Settled, Table};

/// What a writer is told once.
#[derive(Clone)]
pub struct WriterConfig {
    /// This worker's index, over all processes.
    pub writer: usize,
    /// How many workers there are, over all processes.
    pub writers: usize,
    /// Of the run: file names of two generations never meet.
    pub generation: u64,
    /// The sink's tables; arrivals name them by index.
    pub specs: Arc<Vec<TableSpec>>,
    /// Where the lake is.
    pub store: Arc<dyn ObjectStore>,
    /// The lake in the store.
    pub root: Path,
    /// The lake's folder, if it is on the local disk: then files are written there directly, not through the store.
    pub local: Option<PathBuf>,
    /// Whether files survive a crash of the machine before they are handed over (local disks; object stores
    /// always keep what they took).
    pub durable: bool,
    /// Runs uploads and compactions.
    pub runtime: Handle,
    /// Sizes.
    pub limits: Limits,
    /// Where the committer posts what others moved (`Committer::relocations`).
    pub relocations: Relocations,
}

impl WriterConfig {
    fn lake(&self) -> Arc<Lake> {
        Arc::new(Lake {
            store: self.store.clone(),
            root: self.root.clone(),
            local: self.local.clone(),
            durable: self.durable,
            runtime: self.runtime.clone(),
            folders: Mutex::default(),
        })
    }
}

/// Sizes at which a writer changes its ways, all per table and writer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Up to so many rows a table is kept in memory and rewritten; below a quarter it becomes so again.
    pub small_rows: u64,
    /// And up to so many bytes of rows.
    pub small_bytes: u64,
    /// Most rows of a data file.
    pub file_rows: usize,
    /// Most rows of a data file where removals rewrite files.
    pub rewrite_rows: usize,
    /// So many files of like size are merged.
    pub merge_files: usize,
    /// A merge reads about so many rows at most.
    pub merge_rows: usize,
    /// And so many bytes.
    pub merge_bytes: u64,
    /// Most rows of a part of a log that is not split.
    pub fold_rows: usize,
    /// A file with more than this share of its rows gone is written anew.
    pub dead_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
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

/// Files of one table written anew, without a change of rows. To be committed after the same writer's earlier
/// `Prepared`s and before its later ones, together with other compactions if there are any. `deletes` may name the
/// added file: rows that went while it was written.
#[derive(Debug)]
pub struct Compaction {
    /// Which writer.
    pub writer: usize,
    /// Which table.
    pub table: usize,
    /// With `data_change: false`.
    pub batch: Batch,
}

/// A compaction under way.
#[cfg(test)]
pub(in crate::sink) struct Compacting(Merged);

/// A writer without its thread: takes arrivals one by one.
pub struct Writer {
    config: WriterConfig,
    desk: Desk,
    tables: Vec<Table>,
    progress: HashMap<PartitionId, Vec<(Epoch, Position)>>,
    sealed: Option<Epoch>,
    /// Where to look for the next compaction, so that every table has its turn.
    turn: usize,
    /// The table whose compaction is settled slice by slice.
    settling: Option<usize>,
    /// The newest relocation it knows.
    learned: u64,
    stats: Arc<WriterStats>,
}

impl Writer {
    /// A writer that goes on from `restored` ([`restore`]; its default where the lake is new).
    pub fn new(config: WriterConfig, mut restored: Loaded) -> Result<Self, WriterError> {
        let stats: Vec<Arc<TableStats>> = config.specs.iter().map(|_| Arc::default()).collect();
        let stats = Arc::new(WriterStats { tables: stats });
        let tables: Result<Vec<Table>, WriterError> = config
            .specs
            .iter()
            .enumerate()
            .map(|(i, spec)| Table::new(spec.clone(), restored.tables.remove(&i), stats.tables[i].clone()))
            .collect();
        let mut tables = tables?;
        let audited = restored
            .audits
            .iter()
            .filter(|(table, _)| !config.specs[*table].append_only);
        audited.for_each(|(table, upto)| tables[*table].audit_next(*upto));
        restored.anew.iter().for_each(|table| tables[*table].start_anew());
        let names = Names::new(config.writer, config.generation);
        let desk = Desk {
            lake: config.lake(),
            names,
            limits: config.limits.clone(),
        };
        Ok(Writer {
            config,
            desk,
            tables,
            progress: HashMap::new(),
            sealed: None,
            turn: 0,
            settling: None,
            learned: 0,
            stats,
        })
    }

    /// Its figures.
    pub fn stats(&self) -> Arc<WriterStats> {
        self.stats.clone()
    }

    /// Takes an arrival; a seal answers with the snapshot's part, all of its files stored.
    pub fn observe(&mut self, arrival: Arrival) -> Result<Option<Prepared>, WriterError> {
        match arrival {
            Arrival::Rows { table, updates } => self.tables[table].observe_rows(updates),
            Arrival::Columns { table, epoch, batch } => self.tables[table].observe_columns(epoch, batch)?,
            Arrival::Progress {
                epoch,
                partition,
                position,
            } => {
                self.progress.entry(partition).or_default().push((epoch, position));
            }
            Arrival::Seal { epoch } => return self.seal(epoch).map(Some),
        }
        Ok(None)
    }

    fn seal(&mut self, epoch: Epoch) -> Result<Prepared, WriterError> {
        let (mut tables, mut files) = (Vec::new(), Vec::new());
        for (i, table) in self.tables.iter_mut().enumerate() {
            if let Some(mut written) = table.seal(&self.desk, epoch)? {
                tables.push((i, written.batch));
                files.append(&mut written.files);
            }
        }
        self.desk.lake.put_all(files)?;
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

    /// Whether rows were moved by others that it does not know of yet.
    fn is_behind(&self) -> bool {
        self.config.relocations.is_behind(self.learned)
    }

    /// Learns where others moved rows. To be called between two parts, when every compaction that is settled has gone with
    /// one: a part is to speak of places as of one time. (One that is still being settled makes it wait.)
    pub fn relocate(&mut self) -> Result<(), WriterError> {
        // An audit that is under way has noted places of rows.
        if self.is_settling() || self.tables.iter().any(Table::is_audited) {
            return Ok(());
        }
        for relocation in self.config.relocations.behind(self.learned) {
            self.tables[relocation.table].relocate(&relocation, self.config.writer)?;
            self.learned = relocation.seq;
        }
        Ok(())
    }

    /// The next compaction worth doing. At most one is under way, and none before the first seal.
    fn compaction(&mut self) -> Option<Job> {
        let epoch = self.sealed.filter(|_| !self.is_behind())?;
        for step in 0..self.tables.len() {
            let table = (self.turn + step) % self.tables.len();
            if let Some(job) = self.tables[table].compaction(table, &self.desk, epoch) {
                self.turn = table + 1;
                return Some(job);
            }
        }
        None
    }

    /// Takes what a compaction made. Where index entries are to move, [`Writer::settle`] does that.
    fn begin_settling(&mut self, merged: Merged) -> Result<Option<Compaction>, WriterError> {
        let table = merged.table;
        match self.tables[table].begin_settling(merged) {
            Some(settled) => self.settled(table, settled),
            None => {
                self.settling = Some(table);
                Ok(None)
            }
        }
    }

    /// Whether a compaction is to be settled.
    fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Moves up to `moves` index entries to a compaction's file; the compaction, once all have moved and unless it
    /// came too late.
    fn settle(&mut self, moves: usize) -> Result<Option<Compaction>, WriterError> {
        let Some(table) = self.settling else {
            return Ok(None);
        };
        match self.tables[table].settle(moves) {
            Some(settled) => {
                self.settling = None;
                self.settled(table, settled)
            }
            None => Ok(None),
        }
    }

    fn settled(&self, table: usize, settled: Settled) -> Result<Option<Compaction>, WriterError> {
        match settled {
            Settled::Done(batch) => Ok(Some(Compaction {
                writer: self.config.writer,
                table,
                batch,
            })),
            Settled::Void(merged) => self.discard(merged).map(|()| None),
        }
    }

    /// Ends without what is not settled.
    fn give_up(&mut self) -> Result<(), WriterError> {
        let merged = self.settling.take().and_then(|table| self.tables[table].give_up());
        merged.map_or(Ok(()), |merged| self.discard(merged))
    }

    /// Deletes what a compaction made in vain.
    fn discard(&self, merged: Merged) -> Result<(), WriterError> {
        let mut files = merged.files.iter();
        files.try_for_each(|file| self.desk.lake.delete(&file.physical))
    }

    /// One compaction from start to end, on this thread; none if nothing is worth it. For tools and
    /// tests; a [`WriterThread`] compacts in the background by itself.
    pub fn compact_now(&mut self) -> Result<Option<Compaction>, WriterError> {
        match self.compaction() {
            Some(job) => {
                let merged = job.run()?;
                let settled = self.begin_settling(merged)?;
                Ok(settled.or(self.settle(usize::MAX)?))
            }
            None => Ok(None),
        }
    }

    /// The two ends of a compaction, with whatever happens between.
    #[cfg(test)]
    pub(in crate::sink) fn start_compaction(&mut self) -> Result<Option<Compacting>, WriterError> {
        let job = self.compaction();
        job.map(|job| job.run().map(Compacting)).transpose()
    }

    /// See [`Writer::start_compaction`].
    #[cfg(test)]
    pub(in crate::sink) fn end_compaction(&mut self, merged: Compacting) -> Result<Option<Compaction>, WriterError> {
        let settled = self.begin_settling(merged.0)?;
        Ok(settled.or(self.settle(usize::MAX)?))
    }

    /// Bytes of memory of all indexes and rows held.
    pub fn memory(&self) -> u64 {
        self.stats.tables.iter().map(|t| t.index_bytes.load(Relaxed)).sum()
    }
}
