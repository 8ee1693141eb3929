//! Decides what a snapshot's commits say; touches no store.
//!
//! [`State`] gathers the writers' parts of each epoch and knows every table's live files. When all parts of
//! the oldest open epoch are there, [`State::next_snapshot`] turns them into log entries, and from then on
//! holds the files as they are behind them: a snapshot that cannot be committed is a fault, never undone.
//!
//! 1. Snapshots come in epoch order, each holding exactly one part of every writer.
//! 2. A row is removed once: positions that are gone already, or that a file does not have, are a fault.
//! 3. A file whose rows are all gone goes as a whole; no vector covers a whole file.
//! 4. A `remove` repeats the vector of the `add` it undoes; a file has at most one `add` per entry.
//! 5. Compaction is an entry of its own, before the snapshot's: a writer lists it so.
//! 6. What a step adds may lose rows, or go, in the same step: several compactions between two snapshots build on
//!    each other, and rows vanish while one runs. Such a file is added with its vector, or never appears.
//! 7. Behind a restart with another number of writers several own rows of one file, and move them out at the same epoch,
//!    each on its own or with changes. In a table that takes no vectors these moves are one entry, so by (3) the file goes.
//! 8. A part that speaks of places from before a relocation is translated ([`crate::sink::relocation`]); what it removes as a
//!    whole file is then whatever of that file's rows is still live, and nothing else of the files they are in now.
//! 9. Writers tell the change data feed of a table that is rebuilt only what comes. What goes is told by its redefinition; where
//!    the old rows have no form by the new definition, the entry names no changes at all: once it names any, readers
//!    of the feed see those alone, and otherwise make both halves of the files that go and come.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringTreemap;
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use super::action::{Action, RemoveFile};
use super::vector;
use crate::definition::Deletes;
use crate::repr::Epoch;
use crate::sink::relocation::Translated;
use crate::sink::{AddFile, ChangeFile, Prepared, Relocation, TableSpec};
use crate::source::{PartitionId, Position};

/// What the writers did wrong: a fault of ours, never of the data.
#[derive(Debug, Error, PartialEq)]
pub enum StateError {
    /// By (1).
    #[error("writer {writer} prepared epoch {epoch} out of order: {reason}")]
    Order {
        /// Which writer.
        writer: usize,
        /// Which epoch.
        epoch: Epoch,
        /// How.
        reason: &'static str,
    },
    /// A batch names what is not there, or names it twice.
    #[error("could not plan the commit of table {table} at epoch {epoch}: {reason} (file {file})")]
    Batch {
        /// Which table.
        table: String,
        /// Which epoch.
        epoch: Epoch,
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// A data file as it is now.
#[derive(Clone, Debug)]
pub struct Live {
    /// As in the log, with its vector.
    pub add: AddFile,
    /// The rows its vector names.
    pub deleted: RoaringTreemap,
    /// Physical rows, where its statistics tell.
    rows: Option<u64>,
}

impl Live {
    /// A file with its vector's rows.
    pub fn new(add: AddFile, deleted: RoaringTreemap) -> Live {
        let rows = add.stats.as_deref().and_then(physical_rows);
        Live { add, deleted, rows }
    }

    /// Physical rows, where they are known.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// The same, of a file whose rows were counted.
    pub fn counted(add: AddFile, deleted: RoaringTreemap, rows: u64) -> Live {
        let rows = Some(rows);
        Live { add, deleted, rows }
    }

    /// Only these rows are gone now.
    fn lose(&mut self, deleted: RoaringTreemap) {
        self.deleted = deleted;
        self.add.stats = self.add.stats.as_deref().map(loosen_bounds);
    }
}

/// A table as its log has it.
#[derive(Debug, Default)]
pub struct Stored {
    /// Its live files.
    pub live: Vec<Live>,
    /// Where it has not come to its definition yet.
    pub redefinition: Option<Redefinition>,
}

impl Stored {
    /// Whether all of its rows go with the first snapshot.
    pub fn is_replaced(&self) -> bool {
        self.redefinition
            .as_ref()
            .is_some_and(|redefinition| redefinition.replaces)
    }
}

/// What brings a table to its definition together with rows.
#[derive(Clone, Debug)]
pub struct Redefinition {
    /// Protocol and metadata, and what the change data feed tells of rows that go.
    pub actions: Vec<Action>,
    /// Whether the rows there are do not fit the definition any more: they go with the first snapshot. Else they stay, and
    /// the actions go with the next rows that change.
    pub replaces: bool,
}

/// What one snapshot commits.
#[derive(Debug)]
pub struct Snapshot {
    /// Its epoch.
    pub epoch: Epoch,
    /// Partitions that moved.
    pub progress: Vec<(PartitionId, Position)>,
    /// Tables that change.
    pub tables: Vec<TableChange>,
}

/// What one snapshot commits of one table.
#[derive(Debug)]
pub struct TableChange {
    /// Index into the specs.
    pub table: usize,
    /// Vector files to write first, by name relative to the table.
    pub vectors: Vec<(String, Bytes)>,
    /// Log entries, in order.
    pub commits: Vec<PlannedCommit>,
    /// Files (relative to the table, URL-encoded) that nothing live names any more.
    pub retired: Vec<String>,
}

/// One log entry.
#[derive(Debug)]
pub struct PlannedCommit {
    /// The application id of its `txn`.
    pub app_id: String,
    /// Its lines.
    pub actions: Vec<Action>,
}

/// Gathers and decides.
pub struct State {
    app_id: String,
    generation: u64,
    writers: usize,
    committed: Option<Epoch>,
    open: BTreeMap<Epoch, BTreeMap<usize, Prepared>>,
    tables: Vec<Table>,
    /// By (8): those that some writer has not learned, and how far each has.
    relocations: Vec<Arc<Relocation>>,
    learned: Vec<u64>,
}

struct Table {
    name: String,
    takes_vectors: bool,
    /// What its next entry of changed rows says of its schema.
    redefinition: Option<Redefinition>,
    files: HashMap<String, Live>,
    /// How many live files have their vector in a file.
    vector_files: HashMap<String, usize>,
}

/// The steps of a snapshot of one table, by (5): what its transactions append to the application's id.
const STEPS: [&str; 2] = [":compact", ""];

impl State {
    /// `stored`: by table, as of `committed`.
    pub fn new(
        app_id: &str,
        generation: u64,
        writers: usize,
        committed: Option<Epoch>,
        specs: &[TableSpec],
        stored: Vec<Stored>,
    ) -> State {
        let tables = specs.iter().zip(stored).map(|(spec, stored)| {
            let mut table = Table {
                name: spec.name.clone(),
                takes_vectors: takes_vectors(spec),
                redefinition: stored.redefinition,
                files: HashMap::new(),
                vector_files: HashMap::new(),
            };
            for file in stored.live {
                table.insert(file);
            }
            table
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

    /// Takes a writer's part.
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

    /// The live files of a table.
    pub fn live_paths(&self, table: usize) -> BTreeSet<String> {
        self.tables[table].referenced()
    }

    /// Rows of a table were moved by others, behind the newest snapshot: `came` are the files that hold them now.
    pub fn relocate(&mut self, relocation: Arc<Relocation>, came: Vec<Live>) {
        let table = &mut self.tables[relocation.table];
        for path in &relocation.gone {
            // What nothing names any more is found in the log, where another writer has removed it.
            table.take(path, &mut Vec::new());
        }
        came.into_iter().for_each(|live| table.insert(live));
        self.relocations.push(relocation);
    }

    /// The newest relocation that all writers have learned, as of the newest snapshot.
    pub fn learned(&self) -> u64 {
        self.learned.iter().copied().min().unwrap_or_default()
    }

    /// The oldest open epoch's commits, once all writers have prepared it. `fresh` names vector files; `now`
    /// is Unix milliseconds.
    pub fn next_snapshot(&mut self, fresh: &mut dyn FnMut() -> Uuid, now: i64) -> Result<Option<Snapshot>, StateError> {
        let Some(oldest) = self.open.first_entry().filter(|e| e.get().len() == self.writers) else {
            return Ok(None);
        };
        let epoch = *oldest.key();
        let parts = oldest.remove();
        self.committed = Some(epoch);
        let mut progress = Vec::new();
        let mut merged: BTreeMap<usize, [Merged; 2]> = BTreeMap::new();
        for (writer, part) in parts {
            progress.extend(part.progress);
            self.learned[writer] = part.learned;
            let behind: Vec<&Arc<Relocation>> = self.relocations.iter().filter(|r| r.seq > part.learned).collect();
            let mut reached: HashMap<usize, usize> = HashMap::new();
            for (table, batch) in part.tables {
                let step = usize::from(batch.data_change);
                if std::mem::replace(reached.entry(table).or_default(), step) > step {
                    let reason = "a compaction follows changed rows";
                    return Err(StateError::Order { writer, epoch, reason });
                }
                let relocations = behind.iter().filter(|r| r.table == table);
                merged.entry(table).or_default()[step].take(
                    relocations.fold(Translated::plain(batch), |translated, relocation| {
                        translated.again(relocation)
                    }),
                );
            }
        }
        let learned = self.learned();
        self.relocations.retain(|r| r.seq > learned);
        let replaced = |table: &Table| {
            table
                .redefinition
                .as_ref()
                .is_some_and(|redefinition| redefinition.replaces)
        };
        for (table, state) in self.tables.iter().enumerate().filter(|(_, table)| replaced(table)) {
            merged.entry(table).or_default()[1]
                .removes
                .extend(state.files.keys().cloned());
        }
        let mut tables = Vec::new();
        for (table, steps) in merged {
            let mut change = TableChange {
                table,
                vectors: vec![],
                commits: vec![],
                retired: vec![],
            };
            let [mut compaction, mut data] = steps;
            // By (7).
            if !self.tables[table].takes_vectors && !compaction.deletes.is_empty() && !data.is_empty() {
                data.join(std::mem::take(&mut compaction));
            }
            for (step, batch) in [compaction, data].into_iter().enumerate() {
                if batch.is_empty() {
                    continue;
                }
                let context = Planning {
                    epoch,
                    now,
                    data_change: step == 1,
                    generation: self.generation,
                    app_id: format!("{}{}", self.app_id, STEPS[step]),
                };
                self.tables[table].plan(batch, &context, fresh, &mut change)?;
            }
            if !change.commits.is_empty() {
                tables.push(change);
            }
        }
        Ok(Some(Snapshot {
            epoch,
            progress,
            tables,
        }))
    }
}

/// One step of one table, of all writers.
#[derive(Default)]
struct Merged {
    adds: Vec<AddFile>,
    deletes: BTreeMap<String, Vec<RoaringTreemap>>,
    /// By (8).
    sweeps: Vec<(String, RoaringTreemap)>,
    removes: BTreeSet<String>,
    changes: Vec<ChangeFile>,
}

impl Merged {
    fn take(&mut self, Translated { batch, sweeps }: Translated) {
        self.join(Merged {
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

    fn join(&mut self, other: Merged) {
        self.adds.extend(other.adds);
        for (file, parts) in other.deletes {
            self.deletes.entry(file).or_default().extend(parts);
        }
        self.removes.extend(other.removes);
        self.sweeps.extend(other.sweeps);
        self.changes.extend(other.changes);
    }

    fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.deletes.is_empty() && self.removes.is_empty() && self.sweeps.is_empty()
    }
}

struct Planning {
    epoch: Epoch,
    now: i64,
    data_change: bool,
    generation: u64,
    app_id: String,
}

impl Table {
    fn plan(
        &mut self,
        mut batch: Merged,
        planning: &Planning,
        fresh: &mut dyn FnMut() -> Uuid,
        change: &mut TableChange,
    ) -> Result<(), StateError> {
        let retired_before = change.retired.len();
        let name = self.name.clone();
        let refuse = |file: &str, reason: String| {
            Err(StateError::Batch {
                table: name.clone(),
                epoch: planning.epoch,
                file: file.to_string(),
                reason,
            })
        };
        // By (8).
        for (path, rows) in std::mem::take(&mut batch.sweeps) {
            if let Some(live) = self.files.get(&path) {
                let rows = rows - &live.deleted;
                batch.deletes.entry(path).or_default().push(rows);
            }
        }
        // By (6).
        let mut born: BTreeMap<String, Live> = BTreeMap::new();
        for add in batch.adds {
            let path = add.path.clone();
            let known = self.files.contains_key(&path);
            if known
                || born
                    .insert(path.clone(), Live::new(add, RoaringTreemap::new()))
                    .is_some()
            {
                return refuse(&path, "it is to be added but is live already".into());
            }
        }
        let mut gone: Vec<Live> = Vec::new();
        for path in &batch.removes {
            if born.remove(path).is_some() {
                change.retired.push(path.clone());
            } else if let Some(live) = self.take(path, &mut change.retired) {
                gone.push(live);
            } else {
                return refuse(path, "it is to be removed but is not live".into());
            }
        }
        let mut rows_deleted = 0;
        let mut covered: Vec<Live> = Vec::new();
        for (path, parts) in batch.deletes {
            if batch.removes.contains(&path) {
                continue; // The whole file goes.
            }
            let Some(live) = born.get(&path).or_else(|| self.files.get(&path)) else {
                return refuse(&path, "rows of it are to be removed but it is not live".into());
            };
            let mut deleted = live.deleted.clone();
            for rows in parts {
                let before = deleted.len();
                deleted |= &rows;
                if deleted.len() != before + rows.len() {
                    return refuse(&path, "a row of it is to be removed twice".into()); // By (2).
                }
                rows_deleted += rows.len();
            }
            if deleted.len() == live.deleted.len() {
                continue;
            }
            if let Some(rows) = live.rows
                && deleted.max().is_some_and(|last| last >= rows)
            {
                return refuse(&path, format!("a row behind its {rows} rows is to be removed"));
            }
            let whole = live.rows == Some(deleted.len()); // By (3).
            if !whole && !self.takes_vectors {
                return refuse(&path, "the table takes no deletion vectors".into());
            }
            match born.get_mut(&path) {
                Some(_) if whole => {
                    born.remove(&path);
                    change.retired.push(path);
                }
                Some(live) => live.lose(deleted),
                None => {
                    let old = self.take(&path, &mut change.retired).expect("it was looked up above");
                    if !whole {
                        let mut next = old.clone();
                        next.lose(deleted);
                        covered.push(next);
                        // Its data stays: only its vector goes out of use.
                        change.retired.retain(|retired| retired != &path);
                    }
                    gone.push(old); // The undoing half of (4).
                }
            }
        }
        if gone.is_empty() && born.is_empty() && batch.changes.is_empty() {
            return Ok(()); // All that was added is gone again.
        }
        let summary = Summary {
            added_files: born.len(),
            added_rows: born.values().filter_map(|live| live.rows).sum(),
            added_bytes: born.values().map(|live| live.add.size).sum(),
            removed_files: gone.len() - covered.len(),
            vectors: covered.len(),
            deleted_rows: rows_deleted,
        };
        let mut vectored: Vec<&mut Live> = covered.iter_mut().collect();
        vectored.extend(born.values_mut().filter(|live| !live.deleted.is_empty()));
        if !vectored.is_empty() {
            let id = fresh();
            let (bytes, descriptors) = vector::pack(id, vectored.iter().map(|live| &live.deleted));
            change.vectors.push((vector::file_name(id), bytes));
            for (live, descriptor) in vectored.iter_mut().zip(descriptors) {
                live.add.deletion_vector = Some(descriptor);
            }
        }
        let retired = change.retired.get(retired_before..).unwrap_or_default();
        let vectors = retired.iter().filter(|name| name.ends_with(".bin"));
        let mut actions = vec![
            Action::commit_info(summary.commit_info(planning, vectors.collect())),
            Action::txn(&planning.app_id, planning.epoch as i64, planning.now),
        ];
        // By (9).
        let redefinition = self.redefinition.take_if(|_| planning.data_change);
        let mut changes = batch.changes;
        if let Some(Redefinition {
            actions: definition,
            replaces,
        }) = redefinition
        {
            if replaces && !definition.iter().any(|action| action.cdc.is_some()) {
                change.retired.extend(changes.drain(..).map(|file| file.path));
            }
            actions.extend(definition);
        }
        actions.extend(gone.into_iter().map(|live| Action::remove(removal(live.add, planning))));
        for mut live in covered.into_iter().chain(born.into_values()) {
            live.add.data_change = planning.data_change;
            actions.push(Action::add(live.add.clone()));
            self.insert(live);
        }
        actions.extend(changes.into_iter().map(Action::cdc));
        change.commits.push(PlannedCommit {
            app_id: planning.app_id.clone(),
            actions,
        });
        Ok(())
    }

    fn insert(&mut self, live: Live) {
        if let Some(file) = vector_file(&live.add) {
            *self.vector_files.entry(file).or_default() += 1;
        }
        self.files.insert(live.add.path.clone(), live);
    }

    /// Takes a file out, noting what nothing names any more.
    fn take(&mut self, path: &str, retired: &mut Vec<String>) -> Option<Live> {
        let live = self.files.remove(path)?;
        retired.push(path.to_string());
        if let Some(file) = vector_file(&live.add) {
            let uses = self
                .vector_files
                .get_mut(&file)
                .expect("a live file's vector is counted");
            *uses -= 1;
            if *uses == 0 {
                self.vector_files.remove(&file);
                retired.push(file);
            }
        }
        Some(live)
    }

    fn referenced(&self) -> BTreeSet<String> {
        self.files.keys().chain(self.vector_files.keys()).cloned().collect()
    }
}

/// Whether rows of its files may go by deletion vectors.
pub fn takes_vectors(spec: &TableSpec) -> bool {
    spec.deletes != Deletes::Rewrite && !spec.append_only
}

fn vector_file(add: &AddFile) -> Option<String> {
    add.deletion_vector
        .as_ref()
        .and_then(|v| vector::file_of(v).ok().flatten())
}

fn removal(add: AddFile, planning: &Planning) -> RemoveFile {
    RemoveFile {
        path: add.path,
        deletion_timestamp: Some(planning.now),
        data_change: planning.data_change,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values),
        size: Some(add.size),
        deletion_vector: add.deletion_vector,
    }
}

/// For people who read a table's history.
struct Summary {
    added_files: usize,
    added_rows: u64,
    added_bytes: u64,
    removed_files: usize,
    vectors: usize,
    deleted_rows: u64,
}

impl Summary {
    /// Metrics are strings, as Spark writes them: that is what readers of a history expect.
    /// `retired`: vector files that no live file names any more, for maintenance.
    fn commit_info(&self, planning: &Planning, retired: Vec<&String>) -> serde_json::Value {
        let blind = planning.data_change && self.removed_files == 0 && self.vectors == 0;
        json!({
            "timestamp": planning.now,
            "operation": if planning.data_change { "WRITE" } else { "OPTIMIZE" },
            "operationParameters": { "mode": "Append" },
            "isBlindAppend": blind,
            "engineInfo": engine_info(),
            "epoch": planning.epoch,
            "generation": planning.generation,
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

/// Who we are in a table's history.
pub fn engine_info() -> String {
    format!("alluvium/{}", env!("CARGO_PKG_VERSION"))
}

pub fn physical_rows(stats: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Count {
        num_records: u64,
    }
    serde_json::from_str::<Count>(stats).ok().map(|c| c.num_records)
}

/// Statistics with `tightBounds` false: minima and maxima may belong to rows that are gone. The text is
/// edited where it stands, because parsing it would round long decimals.
pub fn loosen_bounds(stats: &str) -> String {
    const KEY: &str = "\"tightBounds\"";
    let mut depth = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (i, byte) in stats.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                if !quoted && depth == 1 && stats[i..].starts_with(KEY) {
                    let value = &stats[i + KEY.len()..];
                    let end = value.find([',', '}']).unwrap_or(value.len());
                    return format!("{}{KEY}:false{}", &stats[..i], &value[end..]);
                }
                quoted = !quoted;
            }
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    stats.replacen('{', &format!("{{{KEY}:false,"), 1)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
