//! Plans one log entry of one table: the edits of its files, phase by phase. Numbers in brackets refer to the rules of
//! [`super::state`].
//!
//! [`plan`] lets each phase run once, in this order: files are added, files are removed, rows are removed, vectors are
//! packed, the entry is written. An error leaves the table half edited: it is a fault, behind which nothing is committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use roaring::RoaringTreemap;
use serde_json::json;
use uuid::Uuid;

use super::action::{Action, RemoveFile, engine_info};
use super::live::{Live, LiveTable};
use super::planned::{PlannedCommit, Redefinition, StateError, TableChange};
use super::vector;
use crate::repr::Epoch;
use crate::sink::relocation::Translated;
use crate::sink::{AddFile, ChangeFile};

/// A table whose entries are planned.
pub struct PlannedFiles {
    pub name: String,
    /// Whether its rows may be removed by deletion vectors.
    pub takes_vectors: bool,
    /// What the table's next entry with changed rows must add for its new definition.
    pub redefinition: Option<Redefinition>,
    pub live: LiveTable,
}

/// What an entry is for, by (5): a snapshot has at most one of each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// Rows move between files, and none comes or goes.
    Compaction,
    /// Rows come and go.
    Data,
}

impl StepKind {
    /// What a batch of a writer is for.
    pub fn of_batch(data_change: bool) -> StepKind {
        match data_change {
            true => StepKind::Data,
            false => StepKind::Compaction,
        }
    }

    /// What it appends to the application id of its transaction.
    pub fn suffix(self) -> &'static str {
        match self {
            StepKind::Compaction => ":compact",
            StepKind::Data => "",
        }
    }
}

/// The entry that is planned, apart from the table.
pub struct CommitStep {
    pub kind: StepKind,
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub now: i64,
    pub generation: u64,
    /// The application id of its transaction.
    pub app_id: String,
}

impl CommitStep {
    fn changes_data(&self) -> bool {
        self.kind == StepKind::Data
    }
}

/// The batches of all writers for one step of one table.
#[derive(Default)]
pub struct StepBatch {
    /// New data files.
    pub adds: Vec<AddFile>,
    /// Positions of rows to remove, by file, of each writer.
    pub deletes: BTreeMap<String, Vec<RoaringTreemap>>,
    /// By (8): files removed as a whole before a relocation, as positions in the files of now.
    pub sweeps: Vec<(String, RoaringTreemap)>,
    /// Data files to remove as a whole.
    pub removes: BTreeSet<String>,
    /// Files for the change data feed.
    pub changes: Vec<ChangeFile>,
}

impl StepBatch {
    /// Adds a writer's batch, translated to the files of now.
    pub fn take(&mut self, Translated { batch, sweeps }: Translated) {
        self.join(StepBatch {
            sweeps,
            adds: batch.adds,
            deletes: batch
                .deletes
                .into_iter()
                .map(|(file, rows)| (file, vec![rows]))
                .collect(),
            removes: batch.removes.into_iter().collect(),
            changes: batch.changes,
        });
    }

    /// Adds another batch.
    pub fn join(&mut self, other: StepBatch) {
        self.adds.extend(other.adds);
        for (file, parts) in other.deletes {
            self.deletes.entry(file).or_default().extend(parts);
        }
        self.removes.extend(other.removes);
        self.sweeps.extend(other.sweeps);
        self.changes.extend(other.changes);
    }

    /// Whether it leaves the table as it is.
    pub fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.deletes.is_empty() && self.removes.is_empty() && self.sweeps.is_empty()
    }
}

/// Plans the entry that `batch` makes of the table, adds it to `change`, and leaves the table as the entry does. Adds
/// nothing if all that came is gone again. `fresh` returns a name for a vector file.
pub fn plan(
    table: &mut PlannedFiles,
    mut batch: StepBatch,
    step: &CommitStep,
    fresh: &mut dyn FnMut() -> Uuid,
    change: &mut TableChange,
) -> Result<(), StateError> {
    let mut edits = TableEdits::new(table, step);
    edits.sweep(&mut batch);
    edits.add_files(batch.adds)?;
    edits.remove_files(&batch.removes)?;
    batch.deletes.retain(|path, _| !batch.removes.contains(path)); // The whole file is removed.
    edits.remove_rows(batch.deletes)?;
    if edits.is_empty() && batch.changes.is_empty() {
        return Ok(()); // All files that were added are gone again.
    }
    let summary = edits.summary();
    change.vectors.extend(edits.pack_vectors(fresh));
    let (commit, retired) = edits.into_commit(&summary, batch.changes);
    change.commits.push(commit);
    change.retired.extend(retired);
    Ok(())
}

/// The edits of a table's files by one entry, between their phases.
struct TableEdits<'a> {
    table: &'a mut PlannedFiles,
    step: &'a CommitStep,
    /// Files that the entry adds, by path.
    born: BTreeMap<String, Live>,
    /// Files as they were before, which the entry removes.
    removed: Vec<Live>,
    /// Files that the entry removes and adds again with a greater vector.
    covered: Vec<Live>,
    rows_deleted: u64,
    /// Files that no live file refers to any more.
    retired: Vec<String>,
}

impl<'a> TableEdits<'a> {
    fn new(table: &'a mut PlannedFiles, step: &'a CommitStep) -> TableEdits<'a> {
        TableEdits {
            table,
            step,
            born: BTreeMap::new(),
            removed: Vec::new(),
            covered: Vec::new(),
            rows_deleted: 0,
            retired: Vec::new(),
        }
    }

    fn refuse(&self, file: &str, reason: impl Into<String>) -> StateError {
        StateError::Batch {
            table: self.table.name.clone(),
            epoch: self.step.epoch,
            file: file.to_string(),
            reason: reason.into(),
        }
    }

    /// By (8): of a file that was to be removed before its rows moved, the rows that are still live.
    fn sweep(&self, batch: &mut StepBatch) {
        for (path, rows) in std::mem::take(&mut batch.sweeps) {
            if let Some(live) = self.table.live.get(&path) {
                let rows = rows - &live.deleted;
                batch.deletes.entry(path).or_default().push(rows);
            }
        }
    }

    fn add_files(&mut self, adds: Vec<AddFile>) -> Result<(), StateError> {
        for add in adds {
            let path = add.path.clone();
            let is_known = self.table.live.get(&path).is_some();
            let live = Live::new(add, RoaringTreemap::new());
            if is_known || self.born.insert(path.clone(), live).is_some() {
                return Err(self.refuse(&path, "it is to be added but is live already"));
            }
        }
        Ok(())
    }

    /// Removes whole files. One that the same entry adds never appears, by (6).
    fn remove_files(&mut self, paths: &BTreeSet<String>) -> Result<(), StateError> {
        for path in paths {
            if self.born.remove(path).is_some() {
                self.retired.push(path.clone());
            } else if let Some(live) = self.table.live.take(path, &mut self.retired) {
                self.removed.push(live);
            } else {
                return Err(self.refuse(path, "it is to be removed but is not live"));
            }
        }
        Ok(())
    }

    /// Removes rows, by file: the positions that each writer names.
    fn remove_rows(&mut self, deletes: BTreeMap<String, Vec<RoaringTreemap>>) -> Result<(), StateError> {
        for (path, parts) in deletes {
            let Some(live) = self.born.get(&path).or_else(|| self.table.live.get(&path)) else {
                return Err(self.refuse(&path, "rows of it are to be removed but it is not live"));
            };
            let (rows, before) = (live.rows(), live.deleted.len());
            let deleted = self.deleted_then(live, parts)?;
            if deleted.len() == before {
                continue;
            }
            self.rows_deleted += deleted.len() - before;
            let is_whole = rows == Some(deleted.len()); // By (3).
            if !is_whole && !self.table.takes_vectors {
                return Err(self.refuse(&path, "the table takes no deletion vectors"));
            }
            self.cover(path, deleted, is_whole);
        }
        Ok(())
    }

    /// The deleted rows of a file once these parts are, too. Each must name rows that the file has, and that are not
    /// deleted yet, by (2).
    fn deleted_then(&self, live: &Live, parts: Vec<RoaringTreemap>) -> Result<RoaringTreemap, StateError> {
        let mut deleted = live.deleted.clone();
        for rows in parts {
            let before = deleted.len();
            deleted |= &rows;
            if deleted.len() != before + rows.len() {
                return Err(self.refuse(&live.add.path, "a row of it is to be removed twice"));
            }
        }
        if let Some(rows) = live.rows()
            && deleted.max().is_some_and(|last| last >= rows)
        {
            let reason = format!("a row behind its {rows} rows is to be removed");
            return Err(self.refuse(&live.add.path, reason));
        }
        Ok(deleted)
    }

    /// Gives a file these deleted rows, which are all of its rows if it `is_whole`.
    fn cover(&mut self, path: String, deleted: RoaringTreemap, is_whole: bool) {
        match self.born.get_mut(&path) {
            Some(_) if is_whole => {
                self.born.remove(&path);
                self.retired.push(path);
            }
            Some(live) => live.lose(deleted),
            None => {
                let Some(old) = self.table.live.take(&path, &mut self.retired) else {
                    return; // It was looked up before.
                };
                if !is_whole {
                    let mut next = old.clone();
                    next.lose(deleted);
                    self.covered.push(next);
                    // The data file stays in use; only its old vector is retired.
                    self.retired.retain(|retired| retired != &path);
                }
                self.removed.push(old); // This `remove` cancels the old `add`, by (4).
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.born.is_empty()
    }

    fn summary(&self) -> Summary {
        Summary {
            added_files: self.born.len(),
            added_rows: self.born.values().filter_map(Live::rows).sum(),
            added_bytes: self.born.values().map(|live| live.add.size).sum(),
            removed_files: self.removed.len() - self.covered.len(),
            vectors: self.covered.len(),
            deleted_rows: self.rows_deleted,
        }
    }

    /// Packs the vectors of all files that have deleted rows into one file, by its name.
    fn pack_vectors(&mut self, fresh: &mut dyn FnMut() -> Uuid) -> Option<(String, Bytes)> {
        let mut vectored: Vec<&mut Live> = self.covered.iter_mut().collect();
        vectored.extend(self.born.values_mut().filter(|live| !live.deleted.is_empty()));
        if vectored.is_empty() {
            return None;
        }
        let id = fresh();
        let (bytes, descriptors) = vector::pack(id, vectored.iter().map(|live| &live.deleted));
        for (live, descriptor) in vectored.iter_mut().zip(descriptors) {
            live.add.deletion_vector = Some(descriptor);
        }
        Some((vector::file_name(id), bytes))
    }

    /// The entry, and the files that go out of use with it.
    fn into_commit(self, summary: &Summary, mut changes: Vec<ChangeFile>) -> (PlannedCommit, Vec<String>) {
        let (step, mut retired) = (self.step, self.retired);
        let vectors = retired.iter().filter(|name| name.ends_with(".bin"));
        let mut actions = vec![
            Action::commit_info(summary.commit_info(step, vectors.collect())),
            Action::txn(&step.app_id, step.epoch as i64, step.now),
        ];
        // By (9).
        if let Some(redefinition) = self.table.redefinition.take_if(|_| step.changes_data()) {
            let names_changes = redefinition.actions.iter().any(|action| action.cdc.is_some());
            if redefinition.replaces && !names_changes {
                retired.extend(changes.drain(..).map(|file| file.path));
            }
            actions.extend(redefinition.actions);
        }
        let data_change = step.changes_data();
        let removals = self.removed.into_iter();
        actions.extend(removals.map(|live| Action::remove(RemoveFile::of(live.add, Some(step.now), data_change))));
        for mut live in self.covered.into_iter().chain(self.born.into_values()) {
            live.add.data_change = data_change;
            actions.push(Action::add(live.add.clone()));
            self.table.live.insert(live);
        }
        actions.extend(changes.into_iter().map(Action::cdc));
        let commit = PlannedCommit {
            app_id: step.app_id.clone(),
            actions,
        };
        (commit, retired)
    }
}

/// Figures for people who read a table's history.
struct Summary {
    added_files: usize,
    added_rows: u64,
    added_bytes: u64,
    removed_files: usize,
    vectors: usize,
    deleted_rows: u64,
}

impl Summary {
    /// The `commitInfo` action. Metrics are strings, as Spark writes them, because readers of a history expect that.
    /// `retired`: vector files that no live file uses any more, which maintenance deletes later.
    fn commit_info(&self, step: &CommitStep, retired: Vec<&String>) -> serde_json::Value {
        let blind = step.changes_data() && self.removed_files == 0 && self.vectors == 0;
        json!({
            "timestamp": step.now,
            "operation": if step.changes_data() { "WRITE" } else { "OPTIMIZE" },
            "operationParameters": { "mode": "Append" },
            "isBlindAppend": blind,
            "engineInfo": engine_info(),
            "epoch": step.epoch,
            "generation": step.generation,
            "retiredVectors": retired,
            "operationMetrics": {
                "numFiles": self.added_files.to_string(),
                "numOutputRows": self.added_rows.to_string(),
                "numOutputBytes": self.added_bytes.to_string(),
                "numRemovedFiles": self.removed_files.to_string(),
                "numDeletionVectorsUpdated": self.vectors.to_string(),
                "numDeletedRows": self.deleted_rows.to_string(),
            },
        })
    }
}
