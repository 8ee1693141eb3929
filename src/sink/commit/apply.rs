//! Puts an intent's log entries behind what others have put, so that each table comes to what the intent says.
//!
//! What others did since the intent's base is read version by version, none is skipped:
//!
//! | their commit | ours |
//! |---|---|
//! | appends | is put behind it as it is |
//! | an OPTIMIZE of files that were live as it saw them | is *remapped*: the rows that go are found by content in the new files, and go there |
//! | an OPTIMIZE that took away what was not live any more (it ran beside a compaction of ours), or lost rows, or of a table without deletion vectors | *undoes* it: the old files come back, in the same entry |
//! | changes of rows, schema or protocol | is not put: the run stops; the restart *salvages* |
//!
//! A restart cannot wait for a table to be as it was: its redo puts what still fits (new files, removals of what is still
//! there unchanged), and its audit corrects the rest.
//!
//! 1. The entry that is put is a function of the intent and of the log before it, nothing else. So whoever redoes an
//!    intent, after a crash at any point or as a zombie, puts the same entry, and what differs from the intent needs no
//!    ledger entry of its own. (A second entry was the alternative: it would itself have to be put before the log's, and
//!    redone when another OPTIMIZE comes between.) The name of a rebuilt vector file stands for its content.
//! 2. Every step of an intent puts an entry with its transaction, also where nothing of it is left to do.
//! 3. Undoing needs the old files: they are looked for first.
//! 4. A commit of a snapshot or a compaction has undone what is to be undone before it, whichever generation put it. So a
//!    zombie that still looks at what others did, while a later generation goes on, undoes nothing twice.
//! 5. What [`Applying::recover`] puts has undone only rewrites that did not fit. Those that did fit still wait for the
//!    step of an intent whose base is older than they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;
use twox_hash::XxHash3_128;
use uuid::Uuid;

use super::action::{self, Action, RemoveFile};
use super::foreign::{By, Foreign, Rewrite};
use super::ledger::{Intent, TableCommit, TableIntent};
use super::log::{self, LogError};
use super::state::{self, Live};
use super::tables::Making;
use super::{CommitError, TABLES, layer, vector};
use crate::sink::lake::{Lake, Put, file_location};
use crate::sink::relocation::Moved;
use crate::sink::writer::{Identify, Whereabouts};
use crate::sink::{AddFile, DeletionVector, LiveFile, Relocation, TableSpec};

/// What the application id of a recovery's transaction ends with.
const RECOVERY: &str = ":undo";

/// What applying takes.
#[derive(Clone, Copy)]
pub struct Applying<'a> {
    /// Where.
    pub lake: &'a Lake,
    /// The sink's tables. An intent may name others, of an earlier definition.
    pub specs: &'a [TableSpec],
    /// The application id of the dataflow's transactions; others of it have a suffix behind a colon.
    pub app_id: &'a str,
    /// How many writers there are.
    pub writers: usize,
    /// Whether entries and vectors are synced.
    pub durable: bool,
    /// Whether to go on where others changed rows: only before a restart's audit.
    pub salvage: bool,
    /// Whether commits are recognised by their transactions: off in simulations alone, to show that it matters.
    pub transactions: bool,
}

/// What became of an intent.
pub struct Applied {
    /// Every table's version behind it.
    pub versions: BTreeMap<String, i64>,
    /// Tables whose rows others had moved, and their files that hold those now.
    pub relocations: Vec<(Relocation, Vec<Live>)>,
}

impl Applying<'_> {
    /// Puts an intent's log entries, layer by layer, the tables of a layer at once. Repeating it is safe while it is the
    /// newest intent.
    pub async fn intent(&self, intent: &Intent) -> Result<Applied, CommitError> {
        let mut applied = Applied {
            versions: intent.versions.clone(),
            relocations: Vec::new(),
        };
        for group in intent.tables.chunk_by(|a, b| layer(&a.table) == layer(&b.table)) {
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

    /// Applies the newest intent where that was cut off, and says every table's version behind it. A table whose log shows
    /// the intent's transaction is left alone, even if the entry itself is cleaned up since.
    pub async fn redo(&self, intent: &Intent) -> Result<BTreeMap<String, i64>, CommitError> {
        let mut versions = intent.versions.clone();
        // Upstream tables first, as they stand in the intent.
        for change in &intent.tables {
            let base = intent.versions.get(&change.table).copied().unwrap_or(-1);
            let loaded = log::load(self.lake, &change.path, None).await?;
            // Removed by somebody who wants it rebuilt; perhaps made anew since, by a run that came no further.
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
            // Another engine may have cleaned up what was put behind the base: no entry must come below those.
            let unknown = loaded.version > base && loaded.oldest > base + 1;
            let from = if unknown { loaded.version } else { base };
            let (version, _) = self.table(intent, change, from, unknown).await?;
            versions.insert(change.table.clone(), version);
        }
        Ok(versions)
    }

    /// Looks at what others have put behind the version that the newest snapshot has of a table, up to the one that was
    /// loaded, before its files are taken for what they are: a rewrite that took away what was not live leaves rows twice,
    /// and is undone. Says whether it was: then the table is to be loaded again.
    pub async fn recover(
        &self,
        spec: &TableSpec,
        (base, loaded): (i64, i64),
        making: Making<'_>,
    ) -> Result<bool, CommitError> {
        let app_id = format!("{}{RECOVERY}", making.app_id);
        let change = TableIntent {
            table: spec.name.clone(),
            path: spec.path.clone(),
            commits: vec![],
        };
        let mut others = Others {
            applying: self,
            change: &change,
            epoch: making.generation,
            table: None,
            moved: None,
            undone: None,
            salvaged: false,
        };
        for version in base + 1..=loaded {
            let Some(actions) = log::read(self.lake, &spec.path, version).await? else {
                continue; // Cleaned up by another engine.
            };
            match Foreign::of(&actions) {
                _ if self.is_recovery(&actions) => others.undone = None,
                _ if self.is_ours(&actions) => others.observe(version, &actions).await?,
                Foreign::Rewrite(rewrite) if others.undone.is_none() => {
                    let before = others.files_before(version).await?;
                    if !rewrite.fits(&before) {
                        others.observe(version, &actions).await?;
                    }
                }
                _ if others.undone.is_some() => others.observe(version, &actions).await?,
                _ => {}
            }
        }
        if others.undone.is_none() {
            return Ok(false);
        }
        let info = serde_json::json!({
            "timestamp": making.now, "operation": "RESTORE", "operationParameters": {},
            "engineInfo": state::engine_info(), "generation": making.generation,
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

    /// Whether a commit is the dataflow's, of any generation. (A changed definition says nothing of data.)
    fn is_ours(&self, actions: &[Action]) -> bool {
        self.is_of(actions, &["", ":compact", RECOVERY])
    }

    /// Whether a commit was put by [`Applying::recover`], of any generation.
    fn is_recovery(&self, actions: &[Action]) -> bool {
        self.is_of(actions, &[RECOVERY])
    }

    /// Whether a commit's transaction is the dataflow's with one of these suffixes.
    fn is_of(&self, actions: &[Action], suffixes: &[&str]) -> bool {
        let mut ids = actions.iter().filter_map(|a| a.txn.as_ref()).map(|t| t.app_id.as_str());
        ids.any(|id| {
            id.strip_prefix(self.app_id)
                .is_some_and(|rest| suffixes.contains(&rest))
        })
    }

    /// The version of a table's last commit of an intent that is known to be applied.
    async fn located(
        &self,
        intent: &Intent,
        change: &TableIntent,
        base: i64,
        loaded: &log::Loaded,
    ) -> Result<i64, CommitError> {
        let last = change.commits.last().expect("a change has a commit");
        for version in base + 1..=loaded.version {
            match log::read(self.lake, &change.path, version).await? {
                Some(actions) if log::is_ours(&actions, &last.app_id, intent.epoch as i64) => return Ok(version),
                _ => {}
            }
        }
        Ok(loaded.version)
    }

    /// Puts one table's entries behind `base`. `unknown`: others have done there what cannot be read any more.
    pub async fn table(
        &self,
        intent: &Intent,
        change: &TableIntent,
        base: i64,
        unknown: bool,
    ) -> Result<(i64, Option<(Relocation, Vec<Live>)>), CommitError> {
        let number = self.specs.iter().position(|spec| spec.name == change.table);
        let mut others = Others {
            applying: self,
            change,
            epoch: intent.epoch,
            table: number,
            moved: None,
            undone: None,
            salvaged: unknown,
        };
        let mut version = base;
        for commit in &change.commits {
            version = others.put(commit, version).await?;
        }
        let relocation = match others.moved.take() {
            Some(relocation) => Some(others.settle(relocation, version).await?),
            None => None,
        };
        Ok((version, relocation))
    }
}

/// What others did to one table behind an intent's base.
struct Others<'a> {
    applying: &'a Applying<'a>,
    change: &'a TableIntent,
    epoch: u64,
    table: Option<usize>,
    /// Where rows are that they moved.
    moved: Option<Relocation>,
    /// What our next entry undoes.
    undone: Option<Undone>,
    /// Whether our entries say only what still fits.
    salvaged: bool,
}

/// Rewrites that cannot stay.
struct Undone {
    /// Live files before the first of them, and those appended since.
    before: BTreeMap<String, AddFile>,
    /// Files that they brought.
    brought: BTreeSet<String>,
}

impl Others<'_> {
    /// Puts an entry at the first free version behind `base`, and says which that is. An entry with the same transaction
    /// counts as this one.
    async fn put(&mut self, commit: &TableCommit, base: i64) -> Result<i64, CommitError> {
        let (lake, path) = (self.applying.lake, &self.change.path);
        let mut version = base + 1;
        loop {
            let bytes = Bytes::from(match self.is_clean() {
                true => action::to_lines(&commit.actions),
                false => action::to_lines(&self.reconciled(commit, version).await?),
            });
            let put = lake
                .put_new(&log::entry_path(path, version), bytes, self.applying.durable)
                .await;
            let put = put.map_err(|source| log::store_error(path, format!("put version {version}"), source))?;
            if put == Put::Written {
                break;
            }
            let there = log::read(lake, path, version).await?.ok_or(LogError::Gap {
                table: path.clone(),
                version,
            })?;
            if self.applying.transactions && log::is_ours(&there, &commit.app_id, self.epoch as i64) {
                break;
            }
            self.observe(version, &there).await?;
            version += 1;
        }
        self.undone = None; // Our entry has done it.
        Ok(version)
    }

    fn is_clean(&self) -> bool {
        self.moved.is_none() && self.undone.is_none() && !self.salvaged
    }

    /// Takes notice of another writer's commit.
    async fn observe(&mut self, version: i64, actions: &[Action]) -> Result<(), CommitError> {
        let (table, by) = (&self.change.path, By(actions));
        let changes = actions
            .iter()
            .any(|a| a.add.as_ref().is_some_and(|f| f.data_change) || a.remove.as_ref().is_some_and(|f| f.data_change));
        if self.applying.is_ours(actions) && (self.applying.salvage || !changes) {
            if !self.applying.is_recovery(actions) {
                self.undone = None; // By (4); by (5), a recovery is none of those.
            }
            return Ok(());
        }
        match Foreign::of(actions) {
            Foreign::Append(files) => {
                tracing::info!(table, version, %by, "passed by a commit that touches nothing of ours");
                if let Some(undone) = &mut self.undone {
                    undone.before.extend(files.into_iter().map(|f| (f.path.clone(), f)));
                }
            }
            Foreign::Rewrite(rewrite) => {
                let before = self.files_before(version).await?;
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
                    let gone = rewrite.removed.iter().filter_map(|gone| before.get(&gone.path));
                    if let Err(missing) = self.check_there(gone).await {
                        let error: &dyn std::error::Error = &missing;
                        tracing::warn!(table, version, %by, error, "keeping a rewrite of files that cannot be undone");
                        self.salvaged = true;
                        return Ok(());
                    }
                }
                tracing::warn!(table, version, %by, "undoing a rewrite of files that does not fit this table");
                let undone = self.undone.get_or_insert_with(|| Undone {
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

    /// Where a rewrite put every row; none where it does not fit what was live, or the table takes no vectors.
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
        let mut gone: Vec<AddFile> = rewrite.removed.iter().map(|r| before[&r.path].clone()).collect();
        gone.sort_by(|a, b| a.path.cmp(&b.path));
        let mut added = rewrite.added.clone();
        added.sort_by(|a, b| a.path.cmp(&b.path));
        let identify = Identify::new(spec.clone()).map_err(CommitError::Rows)?;
        let mut whereabouts = Whereabouts::new();
        let mut came = Vec::new();
        for (number, file) in added.iter().enumerate() {
            let mut rows = 0u32;
            let Some(bytes) = self.data(file).await? else {
                return Ok(None);
            };
            let told = identify.rows(
                (&file.path, bytes),
                &file.partition_values,
                self.applying.writers,
                |hash, _| {
                    whereabouts.insert(hash, (number as u32, rows));
                    rows += 1;
                },
            );
            if told.is_err() {
                return Ok(None); // What does not read as this table's rows does not stay.
            }
            came.push(LiveFile {
                path: file.path.clone(),
                partition_values: file.partition_values.clone(),
                size: file.size,
                rows: u64::from(rows),
                deleted: RoaringTreemap::new(),
            });
        }
        let vectors = log::vectors(self.applying.lake, &self.change.path, &gone).await?;
        let mut moved = Vec::new();
        for (file, deleted) in gone.iter().zip(vectors) {
            let Some(bytes) = self.data(file).await? else {
                return Ok(None);
            };
            let (mut position, mut lost) = (0u32, 0u32);
            let mut rows = Vec::new();
            let told = identify.rows(
                (&file.path, bytes),
                &file.partition_values,
                self.applying.writers,
                |hash, owner| {
                    if !deleted.contains(u64::from(position)) {
                        match whereabouts.take(hash) {
                            None => lost += 1,
                            Some((file, to)) => rows.push(Moved {
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
            told.map_err(CommitError::Rows)?;
            if lost > 0 {
                return Ok(None);
            }
            moved.push(rows);
        }
        Ok(Some(Relocation {
            seq: 0,
            table: self.table.unwrap_or_default(),
            gone: gone.into_iter().map(|file| file.path).collect(),
            came,
            moved,
        }))
    }

    /// A data file's bytes; none if it is gone.
    async fn data(&self, file: &AddFile) -> Result<Option<Bytes>, CommitError> {
        let table = &self.change.path;
        let Ok(location) = file_location(table, &file.path) else {
            return Ok(None);
        };
        let found = self.applying.lake.get(&location).await;
        Ok(found.map_err(|e| log::store_error(table, format!("read {}", file.path), e))?)
    }

    /// A step's actions behind what others did.
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
            // What the step removes does not come back, or as the step says. (Its removal stays: where a rewrite removed a
            // file with another vector, the file is still there.)
            for remove in actions.iter().filter_map(|a| a.remove.as_ref()) {
                restored.remove(&remove.path);
            }
            let back = restored.into_values().map(|file| {
                Action::add(AddFile {
                    data_change: false,
                    ..file
                })
            });
            let away = surplus.into_iter().map(|file| Action::remove(removal(file, at, false)));
            actions.extend(away.chain(back));
        }
        Ok(actions)
    }

    /// By (3).
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

    /// A step's actions with the rows that it removes where they are now.
    async fn remapped(
        &self,
        actions: Vec<Action>,
        moved: &Relocation,
        live: &BTreeMap<String, AddFile>,
        (commit, version): (&TableCommit, i64),
    ) -> Result<Vec<Action>, CommitError> {
        let (lake, table) = (self.applying.lake, &self.change.path);
        let rows_of: HashMap<&str, &Vec<Moved>> = moved.gone.iter().map(String::as_str).zip(&moved.moved).collect();
        let again: HashMap<&str, Option<&DeletionVector>> = (actions.iter().filter_map(|a| a.add.as_ref()))
            .map(|add| (add.path.as_str(), add.deletion_vector.as_ref()))
            .collect();
        let mut gone: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
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
                    gone.entry(row.file).or_default().insert(u64::from(row.to));
                }
            }
        }
        // A new shape has no room for rows of the old one, whoever wrote them.
        if actions.iter().any(|a| a.meta_data.is_some()) {
            for (number, file) in moved
                .came
                .iter()
                .enumerate()
                .filter(|(_, f)| live.contains_key(&f.path))
            {
                gone.insert(number as u32, (0..file.rows).collect());
            }
        }
        let is_elsewhere = |a: &Action| {
            let path = (a.add.as_ref().map(|f| &f.path)).or(a.remove.as_ref().map(|f| &f.path));
            path.is_some_and(|path| rows_of.contains_key(path.as_str()))
        };
        let mut kept: Vec<Action> = actions.iter().filter(|a| !is_elsewhere(a)).cloned().collect();
        let mut vectored: Vec<(AddFile, RoaringTreemap)> = Vec::new();
        for (number, rows) in gone {
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
            kept.push(Action::remove(removal(current.clone(), at, data_change)));
            if deleted.len() < file.rows {
                vectored.push((current.clone(), deleted));
            }
        }
        if !vectored.is_empty() {
            // By (1).
            let name = format!("{table}\n{}\n{}\n{version}", commit.app_id, self.epoch);
            let id = Uuid::from_u128(XxHash3_128::oneshot(name.as_bytes()));
            let (bytes, descriptors) = vector::pack(id, vectored.iter().map(|(_, deleted)| deleted));
            let place = Path::from(format!("{table}/{}", vector::file_name(id)));
            let put = lake.put_new(&place, bytes, self.applying.durable).await;
            put.map_err(|source| CommitError::Write {
                what: "deletion vectors".into(),
                table: self.change.table.clone(),
                source,
            })?;
            for ((mut file, _), descriptor) in vectored.into_iter().zip(descriptors) {
                file.stats = file.stats.as_deref().map(state::loosen_bounds);
                file.deletion_vector = Some(descriptor);
                file.data_change = data_change;
                kept.push(Action::add(file));
            }
        }
        Ok(kept)
    }

    /// The relocation with its files as they are behind our last entry.
    async fn settle(&self, mut moved: Relocation, version: i64) -> Result<(Relocation, Vec<Live>), CommitError> {
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

/// What of a step still fits the files there are: a file that went, or lost other rows, is left as it is. A compaction fits
/// as a whole or not at all.
fn salvaged(actions: Vec<Action>, live: &BTreeMap<String, AddFile>) -> Vec<Action> {
    let removes = actions.iter().filter_map(|a| a.remove.as_ref());
    let unfit: HashSet<String> = removes
        .filter(|r| live.get(&r.path).is_none_or(|f| f.deletion_vector != r.deletion_vector))
        .map(|r| r.path.clone())
        .collect();
    let is_compaction = !actions
        .iter()
        .any(|a| a.add.as_ref().is_some_and(|f| f.data_change) || a.remove.as_ref().is_some_and(|f| f.data_change));
    let all = is_compaction && !unfit.is_empty();
    let fits = |path: &str| !all && !unfit.contains(path);
    let mut actions = actions;
    // What the step was to retire may be live.
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

fn removal(file: AddFile, at: Option<i64>, data_change: bool) -> RemoveFile {
    RemoveFile {
        path: file.path,
        deletion_timestamp: at,
        data_change,
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition_values),
        size: Some(file.size),
        deletion_vector: file.deletion_vector,
    }
}
