//! One committer serves all writers. It turns the parts that they prepare into Delta commits, all tables of a snapshot
//! together.
//!
//! ```text
//! Prepared x N --> State (decides) --> 1 vector files --> 2 intent in the ledger --> 3 log entries --> Committed
//!                                                                                                \--> maintenance
//! ```
//! It promises:
//! 1. A snapshot is committed once its intent is in the ledger, whatever happens then: a restart redoes it.
//! 2. Each log entry is put exactly once, in spite of crashes and zombies: its `txn` is looked for first.
//! 3. Snapshots are published in epoch order, each with the version of every table.
//!
//! The committer does not write data files, nor decide when a snapshot is due. Any error stops it for good: a restart
//! resumes from the ledger.

mod action;
mod apply;
mod checkpoint;
mod foreign;
pub(crate) mod history;
pub(crate) mod ledger;
mod live;
pub(crate) mod log;
mod maintenance;
mod planned;
mod policy;
mod schema;
mod state;
mod survey;
mod sweep;
mod table_edits;
mod tables;
mod vector;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use crossbeam_channel::{Receiver, Sender};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use thiserror::Error;
use tokio::runtime::Handle;
use uuid::Uuid;

pub use ledger::LedgerError;
pub use log::LogError;
pub use planned::StateError;
pub use schema::SchemaError;
pub use survey::{LakeSurvey, TableSurvey, survey};

use self::apply::{AppliedIntent, Applying};
use self::history::{SnapshotHistory, SnapshotRecord};
use self::ledger::{Intent, Ledger, LedgerEntry, TableCommit, TableIntent};
use self::live::Live;
use self::maintenance::{CommittedSnapshot, Maintenance};
use self::planned::{SnapshotCommit, TableState};
pub use self::policy::LakePolicy;
use self::state::State;
use self::tables::TableCreation;
use super::{AddFile, LiveFile, Prepared, Relocation, Relocations, TableSpec, WriterError, is_named_by_us};
use crate::lake::{Lake, LakeLayer};
use crate::repr::{Epoch, FeedPositions, PartitionId, Position};

/// Number of tables that are read or written concurrently.
const TABLES: usize = 16;

/// Settings of a committer.
#[derive(Clone, Debug)]
pub struct CommitSettings {
    /// The dataflow's name: the application id of its transactions.
    pub app_id: String,
    /// How many writers prepare each snapshot.
    pub writers: usize,
    /// How the lake is kept.
    pub policy: LakePolicy,
    /// The clock for all times in commits.
    pub(crate) clock: CommitClock,
    /// All on in production; a simulation switches one off, to show that it matters.
    pub(crate) safeguards: Safeguards,
}

/// Returns Unix milliseconds. The times in commits serve people and retention; nothing is ordered by them, so the
/// clock may step back: a snapshot then gets the time of the one before.
#[derive(Clone)]
pub(crate) struct CommitClock(pub(crate) Arc<dyn Fn() -> i64 + Send + Sync>);

impl Default for CommitClock {
    fn default() -> Self {
        CommitClock(Arc::new(|| Utc::now().timestamp_millis()))
    }
}

impl fmt::Debug for CommitClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", (self.0)())
    }
}

/// What makes a committer safe against crashes and zombies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Safeguards {
    /// A starting committer fences off earlier ones.
    pub(crate) fence: bool,
    /// Commits are recognised by their transactions.
    pub(crate) transactions: bool,
    /// A start redoes the snapshot whose application was cut off.
    pub(crate) redo: bool,
}

impl Default for Safeguards {
    fn default() -> Self {
        Safeguards {
            fence: true,
            transactions: true,
            redo: true,
        }
    }
}

/// The plan that snapshots are computed by, stored for the next one to open the lake.
#[derive(Clone, Debug, Default)]
pub struct StoredPlan {
    /// A name derived from the bytes: equal names mean equal bytes.
    pub name: String,
    /// The plan's bytes; the committer does not interpret them.
    pub bytes: Bytes,
}

impl CommitSettings {
    /// The default settings for an application id and a number of writers.
    pub fn new(app_id: &str, writers: usize) -> CommitSettings {
        CommitSettings {
            app_id: app_id.to_string(),
            writers,
            policy: LakePolicy::default(),
            clock: CommitClock::default(),
            safeguards: Safeguards::default(),
        }
    }
}

/// What a lake held when the committer opened it.
#[derive(Debug)]
pub struct Restored {
    /// The epoch of the newest snapshot; none in a new lake.
    pub epoch: Option<Epoch>,
    /// The generation that this committer took.
    pub generation: u64,
    /// How far partitions have been read as of that epoch.
    pub progress: FeedPositions,
    /// The live files of each table; empty if the first snapshot replaces the table's rows.
    pub tables: Vec<Vec<LiveFile>>,
    /// For each table, whether its rows may differ from those of the newest snapshot: because the first snapshot
    /// replaces all of them, its log was lost, or it has files of other writers.
    pub altered: Vec<bool>,
    /// The version of each table.
    pub versions: Vec<i64>,
    /// The plan that computed the newest snapshot ([`StoredPlan::bytes`]); none if it was not kept.
    pub plan: Option<Bytes>,
}

/// What the committer reports.
#[derive(Clone, Debug)]
pub enum CommitEvent {
    /// A snapshot is published: every table's commit is in its log.
    Committed {
        /// The snapshot's epoch.
        epoch: Epoch,
        /// Whether anything changed. If not, nothing was written, and the previous snapshot is still the newest.
        changed: bool,
        /// The version of each table in the snapshot.
        versions: Arc<[i64]>,
        /// How far partitions have been read, for those that moved.
        progress: Vec<(PartitionId, Position)>,
        /// How long the commit took, from the moment when all parts were there.
        took: Duration,
    },
}

/// Why a committer stopped.
#[derive(Debug, Error)]
pub enum CommitError {
    /// See [`LedgerError`].
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
    /// See [`SchemaError`].
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// A table is rebuilt, and the rows that it loses could not be written to its change data feed.
    #[error("could not write the rows of table {table} that go into its change data feed; a restart tries again")]
    Departing {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The plan of the snapshots could not be stored or read.
    #[error("could not {doing} _alluvium/plans/{name}.json; a restart tries again")]
    Plan {
        /// What was attempted.
        doing: &'static str,
        /// The plan's name.
        name: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// Files that hold rows moved by another writer could not be read.
    #[error("could not read rows that another writer has moved")]
    Rows(#[source] WriterError),
    /// The maintenance thread could not be started.
    #[error("could not start the maintenance of the lake")]
    Maintenance {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tables hold rows, and no snapshot says which of them are current.
    #[error(
        "table {table} of the lake holds rows, but the lake's snapshots, which are in its folder _alluvium, are gone: \
         put that folder back, or run over a new lake; to begin anew in this place, remove the lake as a whole"
    )]
    NoLedger {
        /// One of these tables.
        table: String,
    },
    /// A file could not be written.
    #[error("could not write {what} of table {table}; a restart resumes from the last snapshot")]
    Write {
        /// What.
        what: String,
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

/// The state from which maintenance starts.
struct Upkeep {
    history: SnapshotHistory,
    tables: Vec<maintenance::MaintainedTable>,
    snapshots: maintenance::MaintainedTable,
}

/// Commits snapshots; see the module.
pub struct Committer {
    lake: Lake,
    specs: Vec<TableSpec>,
    settings: CommitSettings,
    runtime: Handle,
    ledger: Ledger,
    state: State,
    progress: FeedPositions,
    versions: Vec<i64>,
    plan: StoredPlan,
    intents: u64,
    /// None in a simulation.
    maintenance: Option<Maintenance>,
    relocations: Relocations,
    /// How many relocations this run has posted.
    relocated: u64,
    /// When the newest snapshot was committed, Unix milliseconds.
    newest_at: i64,
    /// Whether the newest snapshot lacks a table of the definition. The next snapshot is then committed even if it
    /// changes no row: a table that was in the lake before, and comes back, may hold what it has to hold.
    is_incomplete: bool,
}

impl Committer {
    /// Fences off earlier runs, redoes the last snapshot if it was cut off, creates or evolves every table as its spec
    /// wants it, and reads what the tables hold. `runtime` must be multi-threaded; do not call this from inside it.
    pub fn open(
        lake: Lake,
        specs: Vec<TableSpec>,
        settings: CommitSettings,
        runtime: Handle,
    ) -> Result<(Committer, Restored), CommitError> {
        let opening = Committer::open_async(lake.clone(), specs, settings.clone(), runtime.clone());
        let (mut committer, restored, upkeep) = runtime.block_on(opening)?;
        let maintenance = Maintenance::start(lake, &settings, upkeep.history, upkeep.tables, upkeep.snapshots);
        committer.maintenance = Some(maintenance.map_err(|source| CommitError::Maintenance { source })?);
        Ok((committer, restored))
    }

    async fn open_async(
        lake: Lake,
        specs: Vec<TableSpec>,
        settings: CommitSettings,
        runtime: Handle,
    ) -> Result<(Committer, Restored, Upkeep), CommitError> {
        let now = (settings.clock.0)();
        let (ledger, found) = Ledger::fence(&lake, &settings.app_id, now, settings.safeguards.fence).await?;
        let generation = ledger.generation();
        let last = match &found.newest {
            Some(intent) if settings.safeguards.redo => {
                Some(applying(&lake, &specs, &settings, true).redo(intent).await?)
            }
            Some(intent) => Some(intent.versions.clone()),
            None => None,
        };
        let making = TableCreation {
            app_id: &settings.app_id,
            generation,
            policy: settings.policy,
            now,
        };
        let (lake_ref, bases) = (&lake, last.as_ref());
        let applying = &applying(&lake, &specs, &settings, true);
        let loaded: Vec<(log::LoadedTable, TableState)> = stream::iter(&specs)
            .map(|spec| async move {
                let (mut loaded, mut redefinition) = tables::ensure(lake_ref, spec, making).await?;
                if let Some(base) = bases.and_then(|versions| versions.get(&spec.name)) {
                    while applying.recover(spec, (*base, loaded.version), making).await? {
                        (loaded, redefinition) = tables::ensure(lake_ref, spec, making).await?;
                    }
                }
                let files: Vec<AddFile> = loaded.files.values().cloned().collect();
                let vectors = log::vectors(lake_ref, &spec.path, &files).await?;
                let live = stream::iter(files.into_iter().zip(vectors))
                    .map(|(add, deleted)| tables::counted(lake_ref, spec, add, deleted))
                    .buffered(TABLES)
                    .try_collect()
                    .await?;
                Ok::<_, CommitError>((loaded, TableState { live, redefinition }))
            })
            .buffered(TABLES)
            .try_collect()
            .await?;
        if let Some(newest) = &found.newest {
            refuse_newer(&settings, &ledger, newest.epoch, (&specs, &loaded)).await?;
        }
        let altered = specs.iter().zip(&loaded).map(|(spec, (log, stored))| {
            let base = last.as_ref().and_then(|versions| versions.get(&spec.name));
            let lost = base.is_some_and(|base| log.version < *base);
            lost || stored.is_replaced() || log.files.keys().any(|file| !is_named_by_us(file))
        });
        let altered = altered.collect();
        let is_incomplete = last
            .as_ref()
            .is_some_and(|versions| specs.iter().any(|spec| !versions.contains_key(&spec.name)));
        // Other writers may have appended to a table whose first snapshot never came.
        let holds_our_rows = |log: &log::LoadedTable| log.files.keys().any(|file| is_named_by_us(file));
        if last.is_none()
            && let Some((spec, _)) = specs.iter().zip(&loaded).find(|(_, (log, _))| holds_our_rows(log))
        {
            return Err(CommitError::NoLedger {
                table: spec.name.clone(),
            });
        }
        let (mut history, snapshots) = SnapshotHistory::open(&lake, making).await?;
        if let (Some(versions), Some(newest)) = (last, &found.newest) {
            recover_history(&lake, &mut history, newest, versions).await?;
        }
        let (loaded, stored): (Vec<log::LoadedTable>, Vec<TableState>) = loaded.into_iter().unzip();
        let epoch = found.newest.as_ref().map(|intent| intent.epoch);
        let newest_at = found.newest.as_ref().map_or(0, |intent| intent.at);
        let restored = Restored {
            epoch,
            generation,
            progress: found.progress.clone(),
            tables: stored
                .iter()
                .map(|table| match table.is_replaced() {
                    false => table.live.iter().map(live_file).collect(),
                    true => vec![], // The first snapshot removes these files.
                })
                .collect(),
            altered,
            versions: loaded.iter().map(|l| l.version).collect(),
            plan: match &found.newest {
                Some(intent) => read_plan(&lake, &intent.plan).await?,
                None => None,
            },
        };
        let state = State::new(&settings.app_id, generation, settings.writers, epoch, &specs, stored);
        let kept = loaded.iter().zip(&specs).enumerate();
        let kept = kept.map(|(i, (loaded, spec))| maintenance::kept(&spec.path, loaded, &state.live_paths(i)));
        let upkeep = Upkeep {
            history,
            tables: kept.collect(),
            snapshots: maintenance::kept_snapshots(&snapshots),
        };
        let versions = restored.versions.clone();
        let progress = found.progress;
        let committer = Committer {
            lake,
            specs,
            settings,
            runtime,
            ledger,
            state,
            progress,
            versions,
            plan: StoredPlan::default(),
            intents: 0,
            maintenance: None,
            relocations: Relocations::default(),
            relocated: 0,
            newest_at,
            is_incomplete,
        };
        Ok((committer, restored, upkeep))
    }

    /// Sets the plan that is stored with the next snapshots.
    pub fn set_plan(&mut self, plan: StoredPlan) {
        self.plan = plan;
    }

    /// The board on which writers learn which rows others have moved.
    pub fn relocations(&self) -> Relocations {
        self.relocations.clone()
    }

    /// Commits the parts that writers prepare until all writers have hung up; meant for a thread of its own. A
    /// snapshot of which some writer's part is then missing is dropped: it was never decided on.
    pub fn run(mut self, prepared: Receiver<Prepared>, events: Sender<CommitEvent>) -> Result<(), CommitError> {
        let outcome = self.serve(&prepared, &events);
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.finish();
        }
        outcome
    }

    fn serve(&mut self, prepared: &Receiver<Prepared>, events: &Sender<CommitEvent>) -> Result<(), CommitError> {
        for part in prepared {
            self.state.observe_prepared(part)?;
            let runtime = self.runtime.clone();
            while let Some(event) = runtime.block_on(self.commit_next())? {
                // A missing listener is no reason to stop committing.
                let _ = events.send(event);
            }
        }
        Ok(())
    }

    /// Commits the oldest snapshot of which all parts are there; returns none if there is no such snapshot.
    async fn commit_next(&mut self) -> Result<Option<CommitEvent>, CommitError> {
        let started = Instant::now();
        self.newest_at = self.newest_at.max((self.settings.clock.0)());
        let now = self.newest_at;
        let Some(snapshot) = self.state.next_snapshot(&mut Uuid::new_v4, now)? else {
            return Ok(None);
        };
        let epoch = snapshot.epoch;
        let changed = !(snapshot.tables.is_empty() && snapshot.progress.is_empty()) || self.is_incomplete;
        let progress = snapshot.progress.clone();
        if changed {
            self.commit(snapshot, now).await?;
            self.is_incomplete = false;
        }
        Ok(Some(CommitEvent::Committed {
            epoch,
            changed,
            progress,
            versions: self.versions.clone().into(),
            took: started.elapsed(),
        }))
    }

    async fn commit(&mut self, snapshot: SnapshotCommit, now: i64) -> Result<(), CommitError> {
        self.write_vectors(&snapshot).await?;
        if self.intents == 0 && !self.plan.name.is_empty() {
            self.write_plan().await?;
        }
        let epoch = snapshot.epoch;
        let changed: Vec<usize> = snapshot.tables.iter().map(|t| t.table).collect();
        let intent = self.intent(snapshot, now);
        let entry = LedgerEntry::Intent(intent);
        self.ledger.append(&entry).await?;
        self.intents += 1;
        let LedgerEntry::Intent(intent) = entry else {
            unreachable!("an intent was put")
        };
        let AppliedIntent { versions, relocations } = applying(&self.lake, &self.specs, &self.settings, false)
            .intent(&intent)
            .await?;
        for (spec, version) in self.specs.iter().zip(&mut self.versions) {
            *version = versions[&spec.name];
        }
        self.relocations.forget(self.state.learned());
        for (relocation, came) in relocations {
            self.relocated += 1;
            let seq = self.relocated;
            let relocation = Arc::new(Relocation { seq, ..relocation });
            self.state.relocate(relocation.clone(), came);
            self.relocations.post(relocation);
        }
        let changed = changed.into_iter().map(|table| (table, self.versions[table]));
        let expired = self.ledger.expired(self.settings.policy.ledger_keep);
        let Some(maintenance) = &self.maintenance else {
            return Ok(());
        };
        maintenance.observe(CommittedSnapshot {
            record: SnapshotRecord {
                epoch,
                at: now,
                versions,
            },
            changed: changed.collect(),
            expired,
        });
        Ok(())
    }

    /// Stores the plan before the first intent that names it.
    async fn write_plan(&self) -> Result<(), CommitError> {
        let StoredPlan { name, bytes } = &self.plan;
        let path = plan_path(name);
        let put = self.lake.put_new(&path, bytes.clone()).await;
        put.map(|_| ()).map_err(|source| CommitError::Plan {
            doing: "write",
            name: name.clone(),
            source,
        })
    }

    async fn write_vectors(&self, snapshot: &SnapshotCommit) -> Result<(), CommitError> {
        let files = snapshot.tables.iter().flat_map(|change| {
            let spec = &self.specs[change.table];
            change
                .vectors
                .iter()
                .map(move |(name, bytes)| (spec, name, bytes.clone()))
        });
        stream::iter(files)
            .map(|(spec, name, bytes)| async move {
                let path = Path::from(format!("{}/{name}", spec.path));
                let put = self.lake.put_new(&path, bytes).await;
                put.map(|_| ()).map_err(|source| CommitError::Write {
                    what: "deletion vectors".into(),
                    table: spec.name.clone(),
                    source,
                })
            })
            .buffer_unordered(TABLES)
            .try_collect()
            .await
    }

    fn intent(&mut self, snapshot: SnapshotCommit, now: i64) -> Intent {
        self.progress.extend(snapshot.progress.iter().cloned());
        let full = self
            .intents
            .is_multiple_of(self.settings.policy.full_progress_every.max(1));
        let tables = snapshot.tables.into_iter().map(|change| {
            let spec = &self.specs[change.table];
            let commits = change.commits.into_iter();
            TableIntent {
                table: spec.name.clone(),
                path: spec.path.clone(),
                commits: commits
                    .map(|c| TableCommit {
                        app_id: c.app_id,
                        actions: c.actions,
                    })
                    .collect(),
            }
        });
        let mut tables: Vec<TableIntent> = tables.collect();
        tables.sort_by_key(|t| LakeLayer::of_table(&t.table));
        Intent {
            seq: self.ledger.next_seq(),
            generation: self.ledger.generation(),
            dataflow: self.ledger.dataflow().to_string(),
            epoch: snapshot.epoch,
            at: now,
            plan: self.plan.name.clone(),
            versions: self
                .specs
                .iter()
                .map(|s| s.name.clone())
                .zip(self.versions.iter().copied())
                .collect(),
            full,
            progress: match full {
                true => self
                    .progress
                    .iter()
                    .map(|(id, position)| (id.clone(), position.clone()))
                    .collect(),
                false => snapshot.progress,
            },
            tables,
        }
    }
}

fn plan_path(name: &str) -> Path {
    Path::from(format!("_alluvium/plans/{name}.json"))
}

/// Reads a plan's bytes. None if the snapshot names no plan, or if the file is gone: then nothing is known of how the
/// past was computed.
async fn read_plan(lake: &Lake, name: &str) -> Result<Option<Bytes>, CommitError> {
    if name.is_empty() {
        return Ok(None);
    }
    lake.get(&plan_path(name)).await.map_err(|source| CommitError::Plan {
        doing: "read",
        name: name.to_string(),
        source,
    })
}

/// Refuses a lake whose ledger lost its newest entries: an intent always exists before any table shows its snapshot.
/// If another run has overtaken this one, tables may show that run's snapshots; then this run learns of it when it
/// writes.
async fn refuse_newer(
    settings: &CommitSettings,
    ledger: &Ledger,
    newest: Epoch,
    (specs, loaded): (&[TableSpec], &[(log::LoadedTable, TableState)]),
) -> Result<(), CommitError> {
    for (spec, (loaded, _)) in specs.iter().zip(loaded) {
        let shown = loaded.txns.get(&settings.app_id).map_or(0, |epoch| *epoch as Epoch);
        if shown > newest && settings.safeguards.fence && !ledger.is_overtaken().await? {
            return Err(LedgerError::Behind {
                table: spec.name.clone(),
                epoch: shown,
                newest,
            }
            .into());
        }
    }
    Ok(())
}

fn applying<'a>(lake: &'a Lake, specs: &'a [TableSpec], settings: &'a CommitSettings, salvage: bool) -> Applying<'a> {
    Applying {
        lake,
        specs,
        app_id: &settings.app_id,
        writers: settings.writers,
        salvage,
        transactions: settings.safeguards.transactions,
    }
}

fn live_file(live: &Live) -> LiveFile {
    LiveFile {
        path: live.add.path.clone(),
        partition_values: live.add.partition_values.clone(),
        size: live.add.size,
        deleted: live.deleted.clone(),
        rows: live.rows().unwrap_or(0),
    }
}

/// Adds to the table of snapshots the records that the ledger has and the table lacks.
async fn recover_history(
    lake: &Lake,
    history: &mut SnapshotHistory,
    newest: &Intent,
    versions: BTreeMap<String, i64>,
) -> Result<(), CommitError> {
    let mut missing = vec![SnapshotRecord {
        epoch: newest.epoch,
        at: newest.at,
        versions,
    }];
    let mut behind = newest.versions.clone();
    for seq in ledger::list(lake)
        .await?
        .into_iter()
        .rev()
        .filter(|seq| *seq < newest.seq)
    {
        if let Some(LedgerEntry::Intent(intent)) = ledger::read(lake, seq).await? {
            if history.upto().is_some_and(|upto| intent.epoch <= upto) {
                break;
            }
            // An intent's `versions` are those after the previous intent.
            missing.push(SnapshotRecord {
                epoch: intent.epoch,
                at: intent.at,
                versions: behind,
            });
            behind = intent.versions;
        }
    }
    missing.into_iter().rev().for_each(|record| history.observe(record));
    Ok(())
}

#[cfg(test)]
pub(in crate::sink) fn vector_file(vector: &crate::sink::DeletionVector) -> String {
    vector::file_of(vector).unwrap().unwrap()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
