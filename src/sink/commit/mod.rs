//! The committer: one for all writers. It turns what they prepared into Delta commits, all tables of a
//! snapshot together.
//!
//! ```text
//! Prepared x N --> State (decides) --> 1 vector files --> 2 intent in the ledger --> 3 log entries --> Committed
//!                                                                                                \--> maintenance
//! ```
//! It promises
//! 1. a snapshot is committed once its intent is in the ledger, whatever happens then: a restart redoes it,
//! 2. each log entry is put exactly once, over crashes and zombies: its `txn` is looked for before,
//! 3. snapshots are published in epoch order, each with every table at its version.
//!
//! It does not write data files, nor decide when a snapshot is due. Any error stops it for good: a restart
//! resumes from the ledger.

mod action;
mod apply;
mod checkpoint;
mod foreign;
pub(crate) mod history;
pub(crate) mod ledger;
pub(crate) mod log;
mod maintenance;
mod schema;
mod state;
mod survey;
mod sweep;
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
pub use schema::SchemaError;
use schema::Terms;
pub use state::StateError;
pub use survey::{Found, Survey, survey};

use self::apply::{Applied, Applying};
use self::history::{History, Record};
use self::ledger::{Entry, Intent, Ledger, TableCommit, TableIntent};
use self::maintenance::{Maintenance, Note, Pace};
use self::state::{Live, Snapshot, State, Stored};
use self::tables::Making;
use super::lake::Lake;
use super::{AddFile, LiveFile, Prepared, Relocation, Relocations, TableSpec, WriterError, is_ours};
use crate::repr::Epoch;
use crate::source::{PartitionId, Position, Progress};

/// Tables read or written at once.
const TABLES: usize = 16;

/// How a committer works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The dataflow's name: the application id of its transactions.
    pub app_id: String,
    /// How many writers prepare each snapshot.
    pub writers: usize,
    /// Whether files are synced before anything names them.
    pub durable: bool,
    /// Commits of a table between its checkpoints.
    pub checkpoint_every: u64,
    /// Time between checkpoints of a table, at least.
    pub checkpoint_pause: Duration,
    /// How long files and log entries are kept that the newest snapshot does not need: how far back readers
    /// can travel.
    pub retention: Duration,
    /// Whether other writers are kept out of the tables.
    pub guard: bool,
    /// Ledger entries kept, at least.
    pub ledger_keep: u64,
    /// Intents between those that name the progress of every partition.
    pub full_progress_every: u64,
    /// How often maintenance looks.
    pub maintenance_tick: Duration,
    /// What time it is.
    pub(crate) clock: Clock,
    /// Always all of them; a simulation leaves one out, to show that it matters.
    pub(crate) safeguards: Safeguards,
}

/// Tells Unix milliseconds. What is committed carries times for people and for retention; nothing is ordered by them, so a
/// clock may step back: a snapshot's time is then that of the one before.
#[derive(Clone)]
pub(crate) struct Clock(pub(crate) Arc<dyn Fn() -> i64 + Send + Sync>);

impl Default for Clock {
    fn default() -> Self {
        Clock(Arc::new(|| Utc::now().timestamp_millis()))
    }
}

impl fmt::Debug for Clock {
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
    /// What was cut off is redone.
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

/// What snapshots are computed by, as whoever opens the lake next wants to know it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Names the bytes: equal name, equal bytes.
    pub name: String,
    /// Kept as they are.
    pub bytes: Bytes,
}

impl Settings {
    /// The usual ones.
    pub fn new(app_id: &str, writers: usize, durable: bool) -> Settings {
        Settings {
            app_id: app_id.to_string(),
            writers,
            durable,
            checkpoint_every: 100,
            checkpoint_pause: Duration::from_secs(30),
            retention: Duration::from_secs(24 * 3600),
            guard: false,
            ledger_keep: 1000,
            full_progress_every: 100,
            maintenance_tick: Duration::from_secs(1),
            clock: Clock::default(),
            safeguards: Safeguards::default(),
        }
    }
}

/// What a lake held when the committer opened it.
#[derive(Debug)]
pub struct Restored {
    /// The newest snapshot; none in a new lake.
    pub epoch: Option<Epoch>,
    /// Ours.
    pub generation: u64,
    /// How far feeds are read as of it.
    pub progress: Progress,
    /// By table, its live files; none of a table whose rows the first snapshot replaces.
    pub tables: Vec<Vec<LiveFile>>,
    /// By table, whether its rows may be others than the newest snapshot's: the first snapshot replaces all of them, its
    /// log was lost, or it has files of other writers.
    pub altered: Vec<bool>,
    /// By table, its version.
    pub versions: Vec<i64>,
    /// What the newest snapshot was computed by ([`Plan::bytes`]); none: that was not kept.
    pub plan: Option<Bytes>,
}

/// What the committer tells.
#[derive(Clone, Debug)]
pub enum CommitEvent {
    /// A snapshot is published: every table's commit is in its log.
    Committed {
        /// Its epoch.
        epoch: Epoch,
        /// Whether anything changed; otherwise nothing was written, and the snapshot before is the newest still.
        changed: bool,
        /// By table, its version in the snapshot.
        versions: Arc<[i64]>,
        /// How far partitions are read that were read on.
        progress: Vec<(PartitionId, Position)>,
        /// From the last writer's part to here.
        took: Duration,
    },
}

/// A committer that stopped.
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
    /// The change data feed of a table that is rebuilt could not tell of the rows that go.
    #[error("could not write the rows of table {table} that go into its change data feed; a restart tries again")]
    Departing {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What snapshots are computed by could not be kept, or read.
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
    /// Rows that another writer has moved do not read.
    #[error("could not read rows that another writer has moved")]
    Rows(#[source] WriterError),
    /// The thread beside the commits.
    #[error("could not start the maintenance of the lake")]
    Maintenance {
        /// Why.
        #[source]
        source: std::io::Error,
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

/// What maintenance starts from.
struct Upkeep {
    history: History,
    tables: Vec<maintenance::Kept>,
    snapshots: maintenance::Kept,
}

/// Commits snapshots; see the module.
pub struct Committer {
    lake: Lake,
    specs: Vec<TableSpec>,
    settings: Settings,
    runtime: Handle,
    ledger: Ledger,
    state: State,
    progress: Progress,
    versions: Vec<i64>,
    plan: Plan,
    intents: u64,
    /// None in a simulation.
    maintenance: Option<Maintenance>,
    relocations: Relocations,
    /// How many there were.
    relocated: u64,
    /// When the newest snapshot was committed, Unix milliseconds.
    newest_at: i64,
}

impl Committer {
    /// Fences off earlier runs, redoes the last snapshot where it was cut off, makes every table exist as
    /// its spec wants it, and reads what they hold. `runtime` must be multi-threaded; not to be called
    /// from inside it.
    pub fn open(
        lake: Lake,
        specs: Vec<TableSpec>,
        settings: Settings,
        runtime: Handle,
    ) -> Result<(Committer, Restored), CommitError> {
        let opening = Committer::open_async(lake.clone(), specs, settings.clone(), runtime.clone());
        let (mut committer, restored, upkeep) = runtime.block_on(opening)?;
        let pace = Pace {
            checkpoint_every: settings.checkpoint_every,
            checkpoint_pause: settings.checkpoint_pause,
            retention: settings.retention,
            tick: settings.maintenance_tick,
            durable: settings.durable,
        };
        let maintenance = Maintenance::start(lake, pace, upkeep.history, upkeep.tables, upkeep.snapshots);
        committer.maintenance = Some(maintenance.map_err(|source| CommitError::Maintenance { source })?);
        Ok((committer, restored))
    }

    async fn open_async(
        lake: Lake,
        specs: Vec<TableSpec>,
        settings: Settings,
        runtime: Handle,
    ) -> Result<(Committer, Restored, Upkeep), CommitError> {
        let now = (settings.clock.0)();
        let (ledger, found) = Ledger::fence(&lake, settings.durable, now, settings.safeguards.fence).await?;
        let generation = ledger.generation();
        let last = match &found.newest {
            Some(intent) if settings.safeguards.redo => {
                Some(applying(&lake, &specs, &settings, true).redo(intent).await?)
            }
            Some(intent) => Some(intent.versions.clone()),
            None => None,
        };
        let making = Making {
            app_id: &settings.app_id,
            generation,
            durable: settings.durable,
            terms: Terms {
                retention: settings.retention,
                guard: settings.guard,
            },
            now,
        };
        let (lake_ref, bases) = (&lake, last.as_ref());
        let applying = &applying(&lake, &specs, &settings, true);
        let loaded: Vec<(log::Loaded, Stored)> = stream::iter(&specs)
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
                Ok::<_, CommitError>((loaded, Stored { live, redefinition }))
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
            lost || stored.is_replaced() || log.files.keys().any(|file| !is_ours(file))
        });
        let altered = altered.collect();
        let (mut history, snapshots) = History::open(&lake, making).await?;
        if let (Some(versions), Some(newest)) = (last, &found.newest) {
            recover_history(&lake, &mut history, newest, versions).await?;
        }
        let (loaded, stored): (Vec<log::Loaded>, Vec<Stored>) = loaded.into_iter().unzip();
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
                    true => vec![], // they go with the first snapshot
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
            plan: Plan::default(),
            intents: 0,
            maintenance: None,
            relocations: Relocations::default(),
            relocated: 0,
            newest_at,
        };
        Ok((committer, restored, upkeep))
    }

    /// What the snapshots to come are computed by.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Where writers learn which rows others have moved.
    pub fn relocations(&self) -> Relocations {
        self.relocations.clone()
    }

    /// Commits what writers prepare until they hang up; meant for a thread of its own. A snapshot that some
    /// writer has not prepared by then is dropped: it was never decided on.
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
                // Nobody listening is no reason to stop committing.
                let _ = events.send(event);
            }
        }
        Ok(())
    }

    /// Commits the oldest snapshot whose parts are all there; none if there is none.
    async fn commit_next(&mut self) -> Result<Option<CommitEvent>, CommitError> {
        let started = Instant::now();
        self.newest_at = self.newest_at.max((self.settings.clock.0)());
        let now = self.newest_at;
        let Some(snapshot) = self.state.next_snapshot(&mut Uuid::new_v4, now)? else {
            return Ok(None);
        };
        let epoch = snapshot.epoch;
        let changed = !(snapshot.tables.is_empty() && snapshot.progress.is_empty());
        let progress = snapshot.progress.clone();
        if changed {
            self.commit(snapshot, now).await?;
        }
        Ok(Some(CommitEvent::Committed {
            epoch,
            changed,
            progress,
            versions: self.versions.clone().into(),
            took: started.elapsed(),
        }))
    }

    async fn commit(&mut self, snapshot: Snapshot, now: i64) -> Result<(), CommitError> {
        self.write_vectors(&snapshot).await?;
        if self.intents == 0 && !self.plan.name.is_empty() {
            self.write_plan().await?;
        }
        let epoch = snapshot.epoch;
        let changed: Vec<usize> = snapshot.tables.iter().map(|t| t.table).collect();
        let intent = self.intent(snapshot, now);
        let entry = Entry::Intent(intent);
        self.ledger.append(&entry).await?;
        self.intents += 1;
        let Entry::Intent(intent) = entry else {
            unreachable!("an intent was put")
        };
        let Applied { versions, relocations } = applying(&self.lake, &self.specs, &self.settings, false)
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
        let expired = self.ledger.expired(self.settings.ledger_keep);
        let Some(maintenance) = &self.maintenance else {
            return Ok(());
        };
        maintenance.observe(Note {
            record: Record {
                epoch,
                at: now,
                versions,
            },
            changed: changed.collect(),
            expired,
        });
        Ok(())
    }

    /// So that the first intent that names it finds it there.
    async fn write_plan(&self) -> Result<(), CommitError> {
        let Plan { name, bytes } = &self.plan;
        let path = plan_path(name);
        let put = self.lake.put_new(&path, bytes.clone(), self.settings.durable).await;
        put.map(|_| ()).map_err(|source| CommitError::Plan {
            doing: "write",
            name: name.clone(),
            source,
        })
    }

    async fn write_vectors(&self, snapshot: &Snapshot) -> Result<(), CommitError> {
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
                let put = self.lake.put_new(&path, bytes, self.settings.durable).await;
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

    fn intent(&mut self, snapshot: Snapshot, now: i64) -> Intent {
        self.progress.extend(snapshot.progress.iter().cloned());
        let full = self.intents.is_multiple_of(self.settings.full_progress_every.max(1));
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
        tables.sort_by_key(|t| layer(&t.table));
        Intent {
            seq: self.ledger.next_seq(),
            generation: self.ledger.generation(),
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

/// A plan's bytes; none where a snapshot names none, or it is gone: then nothing is known of the past.
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

/// Refuses a lake whose ledger lost its newest entries: an intent is there before any table shows its snapshot. A run that was
/// overtaken meanwhile sees snapshots of the one that took over, and is told when it writes.
async fn refuse_newer(
    settings: &Settings,
    ledger: &Ledger,
    newest: Epoch,
    (specs, loaded): (&[TableSpec], &[(log::Loaded, Stored)]),
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

fn applying<'a>(lake: &'a Lake, specs: &'a [TableSpec], settings: &'a Settings, salvage: bool) -> Applying<'a> {
    Applying {
        lake,
        specs,
        app_id: &settings.app_id,
        writers: settings.writers,
        durable: settings.durable,
        salvage,
        transactions: settings.safeguards.transactions,
    }
}

/// What reads what: upstream tables are applied first, so that a reader who sees a table new sees those it
/// was made of new too.
fn layer(table: &str) -> u8 {
    match table.split('.').next() {
        Some("silver") => 1,
        Some("gold") => 2,
        _ => 0,
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

/// Tells the table of snapshots what the ledger knows and it does not.
async fn recover_history(
    lake: &Lake,
    history: &mut History,
    newest: &Intent,
    versions: BTreeMap<String, i64>,
) -> Result<(), CommitError> {
    let mut missing = vec![Record {
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
        if let Some(Entry::Intent(intent)) = ledger::read(lake, seq).await? {
            if history.upto().is_some_and(|upto| intent.epoch <= upto) {
                break;
            }
            // An intent's versions are those behind the intent before it.
            missing.push(Record {
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
