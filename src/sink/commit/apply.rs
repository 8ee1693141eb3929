//! Puts an intent's log entries behind the entries of other writers, so that each table ends in the state that the
//! intent describes.
//!
//! All commits of others since the intent's base are read, version by version:
//!
//! | the other writer's commit | our entry |
//! |---|---|
//! | appends rows | is put behind it unchanged |
//! | is an OPTIMIZE that fits | is *remapped*: it removes rows where they are in the new files, found by content |
//! | is an OPTIMIZE that does not fit | *undoes* it: the same entry brings the old files back |
//! | changes rows, schema or protocol | is not put: the run stops, and the restart *salvages* |
//!
//! An OPTIMIZE does not fit if it removed files that were no longer live (it ran beside a compaction of ours), if it
//! lost rows, or if the table has no deletion vectors.
//!
//! A restart cannot ask that a table is still in its old state: it redoes what still fits (new files, and removals of
//! files that are there unchanged), and its audit corrects the rest.
//!
//! 1. An entry is a function of the intent and of the log before it, nothing else. So everyone who redoes an intent,
//!    after a crash at any point or as a zombie, puts the same entry, and a deviation from the intent needs no ledger
//!    entry of its own. (Such a second ledger entry was the alternative: it would have to be put before the log entry,
//!    and be redone when another OPTIMIZE comes in between.) The name of a rebuilt vector file is derived from the
//!    same inputs.
//! 2. Every step of an intent puts an entry with its transaction, even if no action of the step is left.
//! 3. Before a rewrite is undone, its old files are checked for existence.
//! 4. A commit of a snapshot or a compaction has undone all misfit rewrites before it, whichever generation put it. So
//!    a zombie that still works through commits of others, while a later generation goes on, undoes nothing twice.
//! 5. An entry of [`Applying::recover`] has undone only rewrites that did not fit. Rewrites that did fit still wait
//!    for the step of an intent whose base is older than they are. So it counts as one of (4) for another recovery
//!    alone, and a recovery leaves rewrites that fit what is then live.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;
use twox_hash::XxHash3_128;
use uuid::Uuid;

use super::action::{self, Action, RemoveFile, engine_info};
use super::foreign::{CommitAuthor, Foreign, Rewrite};
use super::ledger::{Intent, TableCommit, TableIntent};
use super::live::{self, Live};
use super::log::{self, LogError};
use super::state;
use super::tables::TableCreation;
use super::{CommitError, TABLES, vector};
use crate::lake::{Lake, LakeLayer, Put, file_location};
use crate::sink::relocation::MovedRow;
use crate::sink::writer::{RowIdentifier, RowLocations};
use crate::sink::{AddFile, DeletionVector, LiveFile, Relocation, TableSpec};

/// Suffix of the application id in the transaction of a recovery.
const RECOVERY: &str = ":undo";

/// The inputs of applying an intent.
#[derive(Clone, Copy)]
pub struct Applying<'a> {
    /// The lake that holds the tables.
    pub lake: &'a Lake,
    /// The sink's tables. An intent may also name tables of an earlier definition, which are not among them.
    pub specs: &'a [TableSpec],
    /// The application id of the dataflow's transactions; its other application ids add a suffix after a colon.
    pub app_id: &'a str,
    /// How many writers there are.
    pub writers: usize,
    /// Whether to go on although others changed rows: only before a restart's audit, which corrects them.
    pub salvage: bool,
    /// Whether commits are recognised by their transactions: off only in simulations, which show that it matters.
    pub transactions: bool,
}

/// The outcome of an intent.
pub struct AppliedIntent {
    /// The version of every table after the intent.
    pub versions: BTreeMap<String, i64>,
    /// Tables whose rows other writers moved, with the files that hold these rows now.
    pub relocations: Vec<(Relocation, Vec<Live>)>,
}

impl Applying<'_> {
    /// Puts an intent's log entries, layer by layer, all tables of a layer concurrently: a reader who sees a table's
    /// new version also sees the new versions of the tables that it was computed from. Repeating it is safe while the
    /// intent is the newest one.
    pub async fn intent(&self, intent: &Intent) -> Result<AppliedIntent, CommitError> {
        let mut applied = AppliedIntent {
            versions: intent.versions.clone(),
            relocations: Vec::new(),
        };
        let layer = |change: &TableIntent| LakeLayer::of_table(&change.table);
        for group in intent.tables.chunk_by(|a, b| layer(a) == layer(b)) {
            let tables: Vec<_> = stream::iter(group)
                .map(|change| {
                    let base = intent.versions.get(&change.table).copied().unwrap_or(-1);
                    async move {
                        let done = self.table(intent, change, base, false).await?;
                        Ok::<_, CommitError>((change.table.clone(), done))
                    }
                })
                .buffer_unordered(TABLES)
                .try_collect()
                .await?;
            for (table, (version, relocation)) in tables {
                applied.versions.insert(table, version);
                applied.relocations.extend(relocation);
            }
        }
        Ok(applied)
    }

    /// Applies the newest intent if it was cut off, and returns the version of every table after it. A table whose log
    /// shows the intent's transaction is left alone, even if the entry itself has been cleaned up since.
    pub async fn redo(&self, intent: &Intent) -> Result<BTreeMap<String, i64>, CommitError> {
        let mut versions = intent.versions.clone();
        // The intent lists upstream tables first.
        for change in &intent.tables {
            let base = intent.versions.get(&change.table).copied().unwrap_or(-1);
            let loaded = log::load(self.lake, &change.path, None).await?;
            // Somebody removed the folder to have the table rebuilt; a run that got no further may have created it
            // anew since.
            let Some(loaded) = loaded.filter(|loaded| loaded.version >= base) else {
                tracing::warn!(table = change.table, "the table's folder is gone; the table is rebuilt");
                continue;
            };
            let is_done = |c: &TableCommit| loaded.txns.get(&c.app_id).is_some_and(|v| *v >= intent.epoch as i64);
            if self.transactions && change.commits.iter().all(is_done) {
                versions.insert(change.table.clone(), self.located(intent, change, base, &loaded).await?);
                continue;
            }
            let epoch = intent.epoch;
            tracing::info!(table = change.table, epoch, "redoing a commit that was cut off");
            // Another engine may have cleaned up entries behind the base: ours must not be put below those.
            let unknown = loaded.version > base && loaded.oldest > base + 1;
            let from = if unknown { loaded.version } else { base };
            let (version, _) = self.table(intent, change, from, unknown).await?;
            versions.insert(change.table.clone(), version);
        }
        Ok(versions)
    }

    /// Undoes rewrites of other writers between the newest snapshot's version of a table (`base`) and the loaded
    /// version, before the table's files are trusted: a rewrite of files that were no longer live leaves rows twice.
    /// Returns whether it undid one: then the table has to be loaded again.
    pub async fn recover(
        &self,
        spec: &TableSpec,
        (base, loaded): (i64, i64),
        making: TableCreation<'_>,
    ) -> Result<bool, CommitError> {
        let app_id = format!("{}{RECOVERY}", making.app_id);
        let change = TableIntent {
            table: spec.name.clone(),
            path: spec.path.clone(),
            commits: vec![],
        };
        let mut others = ForeignCommits {
            applying: self,
            change: &change,
            epoch: making.generation,
            table: None,
            moved: None,
            undone: None,
            salvaged: false,
            recovers: true,
        };
        for version in base + 1..=loaded {
            let Some(actions) = log::read(self.lake, &spec.path, version).await? else {
                continue; // Another engine cleaned the entry up.
            };
            match Foreign::from_actions(&actions) {
                Foreign::Rewrite(_) => others.observe(version, &actions).await?,
                _ if others.undone.is_some() => others.observe(version, &actions).await?,
                _ => {}
            }
        }
        if others.undone.is_none() {
            return Ok(false);
        }
        let info = serde_json::json!({
            "timestamp": making.now, "operation": "RESTORE", "operationParameters": {},
            "engineInfo": engine_info(), "generation": making.generation,
        });
        let undoing = TableCommit {
            actions: vec![
                Action::commit_info(info),
                Action::txn(&app_id, making.generation as i64, making.now),
            ],
            app_id,
        };
        others.put(&undoing, loaded).await?;
        Ok(true)
    }

    /// Whether a run of the dataflow, of any generation, put this commit. (A commit that only changes a definition
    /// does not count: it carries no data.)
    fn is_of_dataflow(&self, actions: &[Action]) -> bool {
        self.is_of(actions, &["", ":compact", RECOVERY])
    }

    /// Whether a commit was put by [`Applying::recover`], of any generation.
    fn is_recovery(&self, actions: &[Action]) -> bool {
        self.is_of(actions, &[RECOVERY])
    }

    /// Whether the commit's transaction has the dataflow's application id with one of these suffixes.
    fn is_of(&self, actions: &[Action], suffixes: &[&str]) -> bool {
        let mut ids = actions.iter().filter_map(|a| a.txn.as_ref()).map(|t| t.app_id.as_str());
        ids.any(|id| {
            id.strip_prefix(self.app_id)
                .is_some_and(|rest| suffixes.contains(&rest))
        })
    }

    /// The version of the last commit that an intent, known to be applied, made to a table.
    async fn located(
        &self,
        intent: &Intent,
        change: &TableIntent,
        base: i64,
        loaded: &log::LoadedTable,
    ) -> Result<i64, CommitError> {
        let last = change.commits.last().expect("a change has a commit");
        for version in base + 1..=loaded.version {
            match log::read(self.lake, &change.path, version).await? {
                Some(actions) if log::carries_transaction(&actions, &last.app_id, intent.epoch as i64) => {
                    return Ok(version);
                }
                _ => {}
            }
        }
        Ok(loaded.version)
    }

    /// Puts one table's entries behind `base`. `unknown`: others committed entries behind it that cannot be read any
    /// more.
    pub async fn table(
        &self,
        intent: &Intent,
        change: &TableIntent,
        base: i64,
        unknown: bool,
    ) -> Result<(i64, Option<(Relocation, Vec<Live>)>), CommitError> {
        let number = self.specs.iter().position(|spec| spec.name == change.table);
        let mut others = ForeignCommits {
            applying: self,
            change,
            epoch: intent.epoch,
            table: number,
            moved: None,
            undone: None,
            salvaged: unknown,
            recovers: false,
        };
        let mut version = base;
        for commit in &change.commits {
            version = others.put(commit, version).await?;
        }
        let relocation = match others.moved.take() {
            Some(relocation) => Some(others.refresh_files(relocation, version).await?),
            None => None,
        };
        Ok((version, relocation))
    }
}

/// What other writers committed to one table behind an intent's base.
struct ForeignCommits<'a> {
    applying: &'a Applying<'a>,
    change: &'a TableIntent,
    epoch: u64,
    table: Option<usize>,
    /// Rows that they moved, with their new places.
    moved: Option<Relocation>,
    /// Rewrites that our next entry undoes.
    undone: Option<RewritesToUndo>,
    /// Whether our entries are reduced to the actions that still fit.
    salvaged: bool,
    /// Whether our entry is that of [`Applying::recover`].
    recovers: bool,
}

/// Rewrites that must be undone.
struct RewritesToUndo {
    /// The files that were live before the first of these rewrites, and those appended since.
    before: BTreeMap<String, AddFile>,
    /// Paths of the files that these rewrites added.
    brought: BTreeSet<String>,
}

impl ForeignCommits<'_> {
    /// Puts an entry at the first free version behind `base`, and returns that version. An entry with the same
    /// transaction counts as this one.
    async fn put(&mut self, commit: &TableCommit, base: i64) -> Result<i64, CommitError> {
        let (lake, path) = (self.applying.lake, &self.change.path);
        let mut version = base + 1;
        loop {
            let bytes = Bytes::from(match self.is_clean() {
                true => action::to_lines(&commit.actions),
                false => action::to_lines(&self.reconciled(commit, version).await?),
            });
            let put = lake.put_new(&log::entry_path(path, version), bytes).await;
            let put = put.map_err(|source| log::store_error(path, format!("put version {version}"), source))?;
            if put == Put::Written {
                break;
            }
            let actions = log::read(lake, path, version).await?.ok_or(LogError::Gap {
                table: path.clone(),
                version,
            })?;
            if self.applying.transactions && log::carries_transaction(&actions, &commit.app_id, self.epoch as i64) {
                break;
            }
            self.observe(version, &actions).await?;
            version += 1;
        }
        self.undone = None; // Our entry has undone it.
        Ok(version)
    }

    fn is_clean(&self) -> bool {
        self.moved.is_none() && self.undone.is_none() && !self.salvaged
    }

    /// Takes another writer's commit into account.
    async fn observe(&mut self, version: i64, actions: &[Action]) -> Result<(), CommitError> {
        let (table, by) = (&self.change.path, CommitAuthor(actions));
        let changes = actions.iter().any(Action::changes_data);
        if self.applying.is_of_dataflow(actions) && (self.applying.salvage || !changes) {
            if self.recovers || !self.applying.is_recovery(actions) {
                self.undone = None; // by (4) and (5)
            }
            return Ok(());
        }
        match Foreign::from_actions(actions) {
            Foreign::Append(files) => {
                tracing::info!(table, version, %by, "passed by a commit that touches nothing of ours");
                if let Some(undone) = &mut self.undone {
                    undone.before.extend(files.into_iter().map(|f| (f.path.clone(), f)));
                }
            }
            Foreign::Rewrite(rewrite) => {
                let before = self.files_before(version).await?;
                if self.recovers && self.undone.is_none() && rewrite.fits(&before) {
                    return Ok(());
                }
                if self.undone.is_none()
                    && let Some(next) = self.follow(&rewrite, &before).await?
                {
                    tracing::info!(table, version, %by, "following rows to the files that another writer moved them to");
                    self.moved = Some(match self.moved.take() {
                        Some(moved) => moved.then(next),
                        None => next,
                    });
                    return Ok(());
                }
                if self.applying.salvage {
                    let removed = rewrite.removed.iter().filter_map(|removed| before.get(&removed.path));
                    if let Err(missing) = self.check_there(removed).await {
                        let error: &dyn std::error::Error = &missing;
                        tracing::warn!(table, version, %by, error, "keeping a rewrite of files that cannot be undone");
                        self.salvaged = true;
                        return Ok(());
                    }
                }
                tracing::warn!(table, version, %by, "undoing a rewrite of files that does not fit this table");
                let undone = self.undone.get_or_insert_with(|| RewritesToUndo {
                    before,
                    brought: BTreeSet::new(),
                });
                undone.brought.extend(rewrite.added.into_iter().map(|f| f.path));
            }
            Foreign::Change(what) if self.applying.salvage => {
                tracing::warn!(table, version, %by, what, "another writer changed a table of ours; the audit corrects it");
                self.salvaged = true;
            }
            Foreign::Change(what) => {
                return Err(LogError::Foreign {
                    table: table.clone(),
                    version,
                    by: by.to_string(),
                    what,
                }
                .into());
            }
        }
        Ok(())
    }

    /// The table's files just before a version.
    async fn files_before(&self, version: i64) -> Result<BTreeMap<String, AddFile>, CommitError> {
        let loaded = log::load(self.applying.lake, &self.change.path, Some(version - 1)).await?;
        Ok(loaded.map(|loaded| loaded.files).unwrap_or_default())
    }

    /// Maps every row that a rewrite moved. None if the rewrite does not fit the files that were live, or the table
    /// takes no deletion vectors.
    async fn follow(
        &self,
        rewrite: &Rewrite,
        before: &BTreeMap<String, AddFile>,
    ) -> Result<Option<Relocation>, CommitError> {
        let Some(spec) = self.table.map(|table| &self.applying.specs[table]) else {
            return Ok(None);
        };
        let plain = rewrite.added.iter().all(|come| come.deletion_vector.is_none());
        if !state::takes_vectors(spec) || !plain || !rewrite.fits(before) {
            return Ok(None);
        }
        let mut removed: Vec<AddFile> = rewrite.removed.iter().map(|r| before[&r.path].clone()).collect();
        removed.sort_by(|a, b| a.path.cmp(&b.path));
        let mut added = rewrite.added.clone();
        added.sort_by(|a, b| a.path.cmp(&b.path));
        let identify = RowIdentifier::new(spec.clone()).map_err(CommitError::Rows)?;
        let mut whereabouts = RowLocations::new();
        let mut came = Vec::new();
        for (number, file) in added.iter().enumerate() {
            let mut rows = 0u32;
            let Some(bytes) = self.data(file).await? else {
                return Ok(None);
            };
            let read = identify.rows(
                (&file.path, bytes),
                &file.partition_values,
                self.applying.writers,
                |hash, _| {
                    whereabouts.insert(hash, (number as u32, rows));
                    rows += 1;
                },
            );
            if read.is_err() {
                return Ok(None); // A file that does not decode as rows of this table makes the rewrite unfit.
            }
            came.push(LiveFile {
                path: file.path.clone(),
                partition_values: file.partition_values.clone(),
                size: file.size,
                rows: u64::from(rows),
                deleted: RoaringTreemap::new(),
            });
        }
        let vectors = log::vectors(self.applying.lake, &self.change.path, &removed).await?;
        let mut moved = Vec::new();
        for (file, deleted) in removed.iter().zip(vectors) {
            let Some(bytes) = self.data(file).await? else {
                return Ok(None);
            };
            let (mut position, mut lost) = (0u32, 0u32);
            let mut rows = Vec::new();
            let read = identify.rows(
                (&file.path, bytes),
                &file.partition_values,
                self.applying.writers,
                |hash, owner| {
                    if !deleted.contains(u64::from(position)) {
                        match whereabouts.remove(hash) {
                            None => lost += 1,
                            Some((file, to)) => rows.push(MovedRow {
                                position,
                                hash,
                                owner: owner as u32,
                                file,
                                to,
                            }),
                        }
                    }
                    position += 1;
                },
            );
            read.map_err(CommitError::Rows)?;
            if lost > 0 {
                return Ok(None);
            }
            moved.push(rows);
        }
        Ok(Some(Relocation {
            seq: 0,
            table: self.table.unwrap_or_default(),
            gone: removed.into_iter().map(|file| file.path).collect(),
            came,
            moved,
        }))
    }

    /// A data file's bytes; none if the file is gone.
    async fn data(&self, file: &AddFile) -> Result<Option<Bytes>, CommitError> {
        let table = &self.change.path;
        let Ok(location) = file_location(table, &file.path) else {
            return Ok(None);
        };
        let bytes = self.applying.lake.get(&location).await;
        Ok(bytes.map_err(|e| log::store_error(table, format!("read {}", file.path), e))?)
    }

    /// A step's actions, adapted to what others committed before `version`.
    async fn reconciled(&self, commit: &TableCommit, version: i64) -> Result<Vec<Action>, CommitError> {
        let mut live = self.files_before(version).await?;
        let mut restored = BTreeMap::new();
        let mut surplus = Vec::new();
        if let Some(undone) = &self.undone {
            for (path, file) in &undone.before {
                if live.get(path).map(|f| &f.deletion_vector) != Some(&file.deletion_vector) {
                    surplus.extend(live.insert(path.clone(), file.clone()));
                    restored.insert(path.clone(), file.clone());
                }
            }
            for path in undone.brought.iter().filter(|path| !undone.before.contains_key(*path)) {
                surplus.extend(live.remove(path));
            }
            self.check_there(restored.values()).await?;
        }
        let mut actions = commit.actions.clone();
        if self.salvaged {
            actions = salvaged(actions, &live);
        }
        if let Some(moved) = &self.moved {
            actions = self.remapped(actions, moved, &live, (commit, version)).await?;
        }
        if self.undone.is_some() {
            let at = actions.iter().find_map(|a| a.txn.as_ref()).and_then(|t| t.last_updated);
            // A file that the step removes is not restored, or only as the step itself adds it. (The step's `remove`
            // stays: if a rewrite removed the file with another vector, the file is still live.)
            for remove in actions.iter().filter_map(|a| a.remove.as_ref()) {
                restored.remove(&remove.path);
            }
            let back = restored.into_values().map(|file| {
                Action::add(AddFile {
                    data_change: false,
                    ..file
                })
            });
            let away = surplus
                .into_iter()
                .map(|file| Action::remove(RemoveFile::of(file, at, false)));
            actions.extend(away.chain(back));
        }
        Ok(actions)
    }

    /// Fails unless all of these files and their vector files exist, by (3).
    async fn check_there(&self, files: impl Iterator<Item = &AddFile>) -> Result<(), CommitError> {
        let table = &self.change.path;
        for file in files {
            let mut names = vec![file.path.clone()];
            names.extend(
                file.deletion_vector
                    .as_ref()
                    .and_then(|v| vector::file_of(v).ok().flatten()),
            );
            for name in names {
                let Ok(location) = file_location(table, &name) else {
                    continue;
                };
                match self.applying.lake.store.head(&location).await {
                    Ok(_) => {}
                    Err(object_store::Error::NotFound { .. }) => {
                        return Err(LogError::Vacuumed {
                            table: table.clone(),
                            file: name,
                        }
                        .into());
                    }
                    Err(e) => return Err(log::store_error(table, format!("look for {name}"), e).into()),
                }
            }
        }
        Ok(())
    }

    /// A step's actions, with the removed rows named at their present places.
    async fn remapped(
        &self,
        actions: Vec<Action>,
        moved: &Relocation,
        live: &BTreeMap<String, AddFile>,
        (commit, version): (&TableCommit, i64),
    ) -> Result<Vec<Action>, CommitError> {
        let (lake, table) = (self.applying.lake, &self.change.path);
        let rows_of: HashMap<&str, &Vec<MovedRow>> = moved.gone.iter().map(String::as_str).zip(&moved.moved).collect();
        let again: HashMap<&str, Option<&DeletionVector>> = (actions.iter().filter_map(|a| a.add.as_ref()))
            .map(|add| (add.path.as_str(), add.deletion_vector.as_ref()))
            .collect();
        let mut deleted_rows: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
        let (mut at, mut data_change) = (None, true);
        for remove in actions.iter().filter_map(|a| a.remove.as_ref()) {
            let Some(rows) = rows_of.get(remove.path.as_str()) else {
                continue;
            };
            (at, data_change) = (remove.deletion_timestamp, remove.data_change);
            let before = log::bitmap(lake, table, remove.deletion_vector.as_ref()).await?;
            let after = match again.get(remove.path.as_str()) {
                Some(vector) => Some(log::bitmap(lake, table, *vector).await?),
                None => None,
            };
            for row in *rows {
                let position = u64::from(row.position);
                if !before.contains(position) && after.as_ref().is_none_or(|after| after.contains(position)) {
                    deleted_rows.entry(row.file).or_default().insert(u64::from(row.to));
                }
            }
        }
        // Rows of the old schema must not stay under a new one, whoever wrote them.
        if actions.iter().any(|a| a.meta_data.is_some()) {
            for (number, file) in moved
                .came
                .iter()
                .enumerate()
                .filter(|(_, f)| live.contains_key(&f.path))
            {
                deleted_rows.insert(number as u32, (0..file.rows).collect());
            }
        }
        let is_elsewhere = |a: &Action| {
            let path = (a.add.as_ref().map(|f| &f.path)).or(a.remove.as_ref().map(|f| &f.path));
            path.is_some_and(|path| rows_of.contains_key(path.as_str()))
        };
        let mut translated: Vec<Action> = actions.iter().filter(|a| !is_elsewhere(a)).cloned().collect();
        let mut vectored: Vec<(AddFile, RoaringTreemap)> = Vec::new();
        for (number, rows) in deleted_rows {
            let file = &moved.came[number as usize];
            let Some(current) = live.get(&file.path) else {
                return Err(LogError::Damaged {
                    table: table.clone(),
                    file: format!("{:020}.json", version - 1),
                    reason: format!("{} is not live behind it", file.path),
                }
                .into());
            };
            let deleted = log::bitmap(lake, table, current.deletion_vector.as_ref()).await? | rows;
            translated.push(Action::remove(RemoveFile::of(current.clone(), at, data_change)));
            if deleted.len() < file.rows {
                vectored.push((current.clone(), deleted));
            }
        }
        if !vectored.is_empty() {
            // By (1), the name must not depend on who puts the entry.
            let name = format!("{table}\n{}\n{}\n{version}", commit.app_id, self.epoch);
            let id = Uuid::from_u128(XxHash3_128::oneshot(name.as_bytes()));
            let (bytes, descriptors) = vector::pack(id, vectored.iter().map(|(_, deleted)| deleted));
            let place = Path::from(format!("{table}/{}", vector::file_name(id)));
            let put = lake.put_new(&place, bytes).await;
            put.map_err(|source| CommitError::Write {
                what: "deletion vectors".into(),
                table: self.change.table.clone(),
                source,
            })?;
            for ((mut file, _), descriptor) in vectored.into_iter().zip(descriptors) {
                file.stats = file.stats.as_deref().map(live::loosen_bounds);
                file.deletion_vector = Some(descriptor);
                file.data_change = data_change;
                translated.push(Action::add(file));
            }
        }
        Ok(translated)
    }

    /// Brings the relocation's files to their state after our last entry.
    async fn refresh_files(&self, mut moved: Relocation, version: i64) -> Result<(Relocation, Vec<Live>), CommitError> {
        let files = self.files_before(version + 1).await?;
        let mut live = Vec::new();
        for file in &mut moved.came {
            let Some(add) = files.get(&file.path) else {
                file.deleted = (0..file.rows).collect();
                continue;
            };
            let deleted = log::bitmap(self.applying.lake, &self.change.path, add.deletion_vector.as_ref()).await?;
            file.deleted = deleted.clone();
            live.push(Live::counted(add.clone(), deleted, file.rows));
        }
        Ok((moved, live))
    }
}

/// The actions of a step that still fit the live files: a file that is gone or has another vector by now is left as it
/// is. A compaction fits as a whole or not at all.
fn salvaged(actions: Vec<Action>, live: &BTreeMap<String, AddFile>) -> Vec<Action> {
    let removes = actions.iter().filter_map(|a| a.remove.as_ref());
    let unfit: HashSet<String> = removes
        .filter(|r| live.get(&r.path).is_none_or(|f| f.deletion_vector != r.deletion_vector))
        .map(|r| r.path.clone())
        .collect();
    let is_compaction = !actions.iter().any(Action::changes_data);
    let all = is_compaction && !unfit.is_empty();
    let fits = |path: &str| !all && !unfit.contains(path);
    let mut actions = actions;
    // Vector files that the step was to retire may still be in use.
    let infos = actions
        .iter_mut()
        .filter_map(|a| a.commit_info.as_mut()?.as_object_mut());
    infos.for_each(|info| drop(info.remove("retiredVectors")));
    actions.retain(|a| {
        let path = (a.add.as_ref().map(|f| &f.path)).or(a.remove.as_ref().map(|f| &f.path));
        path.is_none_or(|path| fits(path))
    });
    actions
}
