//! Decides the content of a snapshot's commits, without touching a store.
//!
//! [`State`] gathers the writers' parts of each epoch, and knows every table's live files. When all parts of the
//! oldest open epoch have arrived, [`State::next_snapshot`] turns them into log entries and updates the live files to
//! the state after them. It never takes that back: a snapshot that cannot be committed is a fault.
//!
//! 1. Snapshots come in epoch order, each made of exactly one part of every writer.
//! 2. A row is removed once: a position that is already gone, or that its file does not have, is a fault.
//! 3. A file whose rows are all gone is removed as a whole; no vector covers a whole file.
//! 4. A `remove` repeats the vector of the `add` that it cancels; an entry has at most one `add` per file.
//! 5. A compaction is an entry of its own, before the snapshot's entry: the writer lists it first.
//! 6. A file that a step adds may lose rows, or be removed, in the same step: several compactions between two
//!    snapshots build on each other, and rows may be removed while one runs. Such a file is added with its vector, or
//!    not at all.
//! 7. After a restart with another number of writers, several writers own rows of one file, and move them out at the
//!    same epoch, with or without other changes. In a table without deletion vectors, these moves become one entry, so
//!    that by (3) the file is removed.
//! 8. A part that names places from before a relocation is translated ([`crate::sink::relocation`]). A file that it
//!    removes as a whole then means all rows of that file that are still live, and nothing else in the files that hold
//!    them now.
//! 9. For the change data feed of a rebuilt table, writers report only the rows that come. The table's
//!    [`Redefinition`] holds the rows that go. If the old rows cannot be shown in the new schema, the entry has no
//!    change files at all: once an entry has any, readers of the feed use only those, and otherwise they derive both
//!    halves from the files that are removed and added.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::live::{Live, LiveTable};
use super::planned::{SnapshotCommit, StateError, TableChange, TableState};
use super::table_edits::{self, CommitStep, PlannedFiles, StepBatch, StepKind};
use crate::definition::Deletes;
use crate::repr::Epoch;
use crate::sink::relocation::Translated;
use crate::sink::{Prepared, Relocation, TableSpec};

/// Gathers parts and decides on snapshots.
pub struct State {
    app_id: String,
    generation: u64,
    writers: usize,
    committed: Option<Epoch>,
    open: BTreeMap<Epoch, BTreeMap<usize, Prepared>>,
    tables: Vec<PlannedFiles>,
    /// Relocations that some writer has not learned, and for each writer the newest one that it has, by (8).
    relocations: Vec<Arc<Relocation>>,
    learned: Vec<u64>,
}

impl State {
    /// `stored`: the state of each table as of `committed`, in the order of the specs.
    pub fn new(
        app_id: &str,
        generation: u64,
        writers: usize,
        committed: Option<Epoch>,
        specs: &[TableSpec],
        stored: Vec<TableState>,
    ) -> State {
        let tables = specs.iter().zip(stored).map(|(spec, stored)| {
            let mut live = LiveTable::default();
            stored.live.into_iter().for_each(|file| live.insert(file));
            PlannedFiles {
                name: spec.name.clone(),
                takes_vectors: takes_vectors(spec),
                redefinition: stored.redefinition,
                live,
            }
        });
        State {
            app_id: app_id.to_string(),
            generation,
            writers,
            committed,
            open: BTreeMap::new(),
            tables: tables.collect(),
            relocations: Vec::new(),
            learned: vec![0; writers],
        }
    }

    /// Takes a writer's part of an epoch.
    pub fn observe_prepared(&mut self, part: Prepared) -> Result<(), StateError> {
        let (writer, epoch) = (part.writer, part.epoch);
        let refuse = |reason| Err(StateError::Order { writer, epoch, reason });
        if writer >= self.writers {
            return refuse("there is no such writer");
        }
        if self.committed.is_some_and(|committed| epoch <= committed) {
            return refuse("that epoch is committed");
        }
        let parts = self.open.entry(epoch).or_default();
        if parts.contains_key(&writer) {
            return refuse("it did so twice");
        }
        parts.insert(writer, part);
        Ok(())
    }

    /// The paths of all files that a table refers to: live files and their vector files.
    pub fn live_paths(&self, table: usize) -> BTreeSet<String> {
        self.tables[table].live.referenced()
    }

    /// Takes over that other writers moved rows after the newest snapshot: `came` are the files that hold them now.
    pub fn relocate(&mut self, relocation: Arc<Relocation>, came: Vec<Live>) {
        let live = &mut self.tables[relocation.table].live;
        for path in &relocation.gone {
            // Nothing is retired here: the other writer's entry removed these files, and the sweep finds them.
            live.take(path, &mut Vec::new());
        }
        came.into_iter().for_each(|file| live.insert(file));
        self.relocations.push(relocation);
    }

    /// The newest relocation that every writer has learned, as of the newest snapshot.
    pub fn learned(&self) -> u64 {
        self.learned.iter().copied().min().unwrap_or_default()
    }

    /// The commits of the oldest open epoch, once all writers have prepared it. `fresh` returns names for vector
    /// files; `now` is in Unix milliseconds.
    pub fn next_snapshot(
        &mut self,
        fresh: &mut dyn FnMut() -> Uuid,
        now: i64,
    ) -> Result<Option<SnapshotCommit>, StateError> {
        let Some(oldest) = self.open.first_entry().filter(|e| e.get().len() == self.writers) else {
            return Ok(None);
        };
        let epoch = *oldest.key();
        let parts = oldest.remove();
        self.committed = Some(epoch);
        let mut progress = Vec::new();
        let mut batches: BTreeMap<usize, BTreeMap<StepKind, StepBatch>> = BTreeMap::new();
        for (writer, part) in parts {
            progress.extend(part.progress);
            self.learned[writer] = part.learned;
            let behind: Vec<&Arc<Relocation>> = self.relocations.iter().filter(|r| r.seq > part.learned).collect();
            let mut reached: HashMap<usize, StepKind> = HashMap::new();
            for (table, batch) in part.tables {
                let kind = StepKind::of_batch(batch.data_change);
                if reached.insert(table, kind).is_some_and(|before| before > kind) {
                    let reason = "a compaction follows changed rows";
                    return Err(StateError::Order { writer, epoch, reason });
                }
                let relocations = behind.iter().filter(|r| r.table == table);
                let translated = relocations.fold(Translated::plain(batch), |translated, relocation| {
                    translated.again(relocation)
                });
                let of_table = batches.entry(table).or_default();
                of_table.entry(kind).or_default().take(translated);
            }
        }
        let learned = self.learned();
        self.relocations.retain(|r| r.seq > learned);
        for (table, files) in self.tables.iter().enumerate() {
            if files.redefinition.as_ref().is_some_and(|made| made.replaces) {
                let data = batches.entry(table).or_default().entry(StepKind::Data).or_default();
                data.removes.extend(files.live.paths().cloned());
            }
        }
        let mut tables = Vec::new();
        for (table, steps) in batches {
            let change = self.table_change(table, steps, (epoch, now), fresh)?;
            if !change.commits.is_empty() {
                tables.push(change);
            }
        }
        Ok(Some(SnapshotCommit {
            epoch,
            progress,
            tables,
        }))
    }

    /// The entries of one table, which these steps make.
    fn table_change(
        &mut self,
        table: usize,
        mut steps: BTreeMap<StepKind, StepBatch>,
        (epoch, now): (Epoch, i64),
        fresh: &mut dyn FnMut() -> Uuid,
    ) -> Result<TableChange, StateError> {
        let mut change = TableChange {
            table,
            vectors: vec![],
            commits: vec![],
            retired: vec![],
        };
        let files = &mut self.tables[table];
        // By (7).
        let moves = |steps: &BTreeMap<_, StepBatch>| {
            steps
                .get(&StepKind::Compaction)
                .is_some_and(|batch| !batch.deletes.is_empty())
                && steps.get(&StepKind::Data).is_some_and(|batch| !batch.is_empty())
        };
        if !files.takes_vectors
            && moves(&steps)
            && let Some(compaction) = steps.remove(&StepKind::Compaction)
        {
            steps.entry(StepKind::Data).or_default().join(compaction);
        }
        for (kind, batch) in steps.into_iter().filter(|(_, batch)| !batch.is_empty()) {
            let step = CommitStep {
                kind,
                epoch,
                now,
                generation: self.generation,
                app_id: format!("{}{}", self.app_id, kind.suffix()),
            };
            table_edits::plan(files, batch, &step, fresh, &mut change)?;
        }
        Ok(change)
    }
}

/// Whether the table's rows may be removed by deletion vectors.
pub fn takes_vectors(spec: &TableSpec) -> bool {
    spec.deletes != Deletes::Rewrite && !spec.append_only
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
