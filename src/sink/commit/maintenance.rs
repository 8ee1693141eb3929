//! Maintenance keeps a lake fast and small, off the commit path: it flushes the table of snapshots, writes
//! checkpoints, cleans up logs and ledger, and deletes files that nothing refers to any more.
//!
//! One thread does one thing at a time, on a small runtime of its own: a checkpoint reads hundreds of log entries, and
//! commits should neither wait for that nor need more threads. The thread is notified of every commit and lists no
//! files: the log records which files were retired when, and the thread reads it once more when the retention has
//! passed, so its memory does not grow with the history. Only orphans need a listing ([`super::sweep`]), once per
//! retention; files that other writers retired are found among them. Ages are measured by the clock of commits, but
//! those of orphans by the machine's, because it is the store that dates their files. Correctness does not depend on
//! maintenance, so a failure is a warning, and the next tick tries again. It deletes
//! 1. a file only when the retention has passed since the commit of ours that retired it, and no live file had its
//!    name when the run started,
//! 2. a log entry only below a checkpoint that is itself older than the retention, and synced, and after (1) has read
//!    it,
//! 3. a ledger entry only when the table of snapshots holds its snapshot.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use deltalake::protocol::checkpoints::create_checkpoint;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use twox_hash::XxHash64;

use super::action::Action;
use super::history::{self, SnapshotHistory, SnapshotRecord};
use super::ledger;
use super::log;
use super::policy::LakePolicy;
use super::sweep;
use super::{CommitClock, CommitSettings};
use crate::contain;
use crate::lake::{Lake, disk, file_location};
use crate::runtime::io_runtime;

/// Number of waiting records that are flushed at once, without waiting for the tick.
const RECORDS: usize = 100;
/// Number of files that are read, written or deleted concurrently on a local disk.
const FILES: usize = 4;
/// Number of a table's log entries that one tick reads or deletes, at most.
const LOOKS: usize = 2000;
/// The least age of a file that may count as an orphan, and the least time between two searches for orphans.
const SWEEP: Duration = Duration::from_secs(3600);

/// A table that maintenance looks after.
pub struct MaintainedTable {
    /// The table's folder in the lake.
    pub path: String,
    /// The table's newest version.
    pub version: i64,
    /// The version of its oldest log entry.
    pub oldest: i64,
    /// The version of its newest checkpoint.
    pub checkpoint: Option<i64>,
    /// Hashes of the file names that were live at `version`; needed until (1) has read up to that version.
    pub spared: HashSet<u64>,
}

/// What maintenance needs to know of a snapshot.
pub struct CommittedSnapshot {
    /// The snapshot's record for the table of snapshots.
    pub record: SnapshotRecord,
    /// The tables that changed: index and new version.
    pub changed: Vec<(usize, i64)>,
    /// Ledger entries that may be deleted.
    pub expired: Vec<Path>,
}

/// The running thread.
pub struct Maintenance {
    notes: UnboundedSender<CommittedSnapshot>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    /// Starts the thread, with the policy and the clock of these settings. `tables` are in the order of the indices in
    /// [`CommittedSnapshot::changed`]; `snapshots` is the table of snapshots itself.
    pub fn start(
        lake: Lake,
        settings: &CommitSettings,
        history: SnapshotHistory,
        tables: Vec<MaintainedTable>,
        snapshots: MaintainedTable,
    ) -> io::Result<Maintenance> {
        let runtime = io_runtime("maintenance", 1, FILES)?;
        let (notes, inbox) = unbounded_channel();
        let clock = settings.clock.clone();
        let now = (clock.0)();
        let tables = tables.into_iter().chain([snapshots]);
        let keepers = tables.map(|table| TableKeeper::new(table, now)).collect();
        let worker = MaintenanceWorker {
            lake,
            policy: settings.policy,
            clock,
            history,
            keepers,
            expired: Vec::new(),
            swept: None,
            sweeping: 0,
        };
        let thread = thread::Builder::new().name("maintenance".into());
        let thread = thread.spawn(move || {
            // Without maintenance tables stay correct and only grow, so the run goes on.
            let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(worker.run(inbox))));
            if let Err(panic) = outcome {
                tracing::error!(
                    panic = contain::message(&*panic),
                    "maintenance of the lake ended, which is a bug: until the next start no checkpoints are written and nothing is cleaned up"
                );
            }
        })?;
        Ok(Maintenance { notes, thread })
    }

    /// Notifies the thread of a snapshot.
    pub fn observe(&self, note: CommittedSnapshot) {
        // The thread ends only by `finish` or by a panic, which it has logged itself.
        let _ = self.notes.send(note);
    }

    /// Has the thread flush the records that wait, and ends it.
    pub fn finish(self) {
        drop(self.notes);
        // The thread has logged its own panic.
        let _ = self.thread.join();
    }
}

struct MaintenanceWorker {
    lake: Lake,
    policy: LakePolicy,
    clock: CommitClock,
    history: SnapshotHistory,
    /// One for each table, the table of snapshots last.
    keepers: Vec<TableKeeper>,
    expired: Vec<Path>,
    /// When the last search for orphans began, and the index of the table that it looks at next (`sweeping`).
    swept: Option<Instant>,
    sweeping: usize,
}

struct TableKeeper {
    table: MaintainedTable,
    /// Checkpoints that exist: version, and when each was made (Unix milliseconds).
    checkpoints: VecDeque<(i64, i64)>,
    /// `next`: the next log entry that (1) reads. `since`: the version for which `spared` holds.
    next: i64,
    since: i64,
}

impl TableKeeper {
    fn new(table: MaintainedTable, now: i64) -> TableKeeper {
        // The age of an existing checkpoint is not known: its retention starts now.
        let checkpoints = table.checkpoint.map(|v| (v, now)).into_iter().collect();
        let (next, since) = (table.oldest, table.version);
        TableKeeper {
            table,
            checkpoints,
            next,
            since,
        }
    }

    fn is_due(&self, policy: &LakePolicy, now: i64) -> bool {
        let (version, at) = self.checkpoints.back().copied().unwrap_or((-1, i64::MIN));
        self.table.version - version >= policy.checkpoint_every as i64
            && now.saturating_sub(at) >= policy.checkpoint_pause.as_millis() as i64
    }

    /// Log entries and checkpoints that may be deleted, by (2).
    fn next_expired_log(&mut self, cutoff: i64) -> Vec<Path> {
        let mut base = None;
        while self.checkpoints.get(1).is_some_and(|(_, at)| *at <= cutoff) {
            self.checkpoints.pop_front();
        }
        if let Some((version, at)) = self.checkpoints.front()
            && *at <= cutoff
        {
            base = Some(*version);
        }
        let Some(base) = base.map(|base: i64| base.min(self.next).min(self.table.oldest + LOOKS as i64)) else {
            return Vec::new();
        };
        let folder = format!("{}/_delta_log", self.table.path);
        let expired = (self.table.oldest..base).flat_map(|version| {
            [
                log::entry_path(&self.table.path, version),
                Path::from(format!("{folder}/{version:020}.checkpoint.parquet")),
            ]
        });
        let expired = expired.collect();
        self.table.oldest = self.table.oldest.max(base);
        expired
    }

    /// Files that may be deleted, by (1).
    async fn next_expired_files(&mut self, lake: &Lake, cutoff: i64) -> Result<Vec<Path>, log::LogError> {
        let mut expired = Vec::new();
        let (table, end) = (self.table.path.clone(), self.table.version);
        let mut entries = stream::iter(self.next..=end.min(self.next + LOOKS as i64))
            .map(|version| log::read(lake, &table, version))
            .buffered(FILES);
        while let Some(actions) = entries.try_next().await? {
            // Another engine cleaned up the missing entry; the next sweep finds the files that it retired.
            if let Some(actions) = actions {
                match retired(&actions) {
                    Some((at, _)) if at > cutoff => break,
                    Some((_, names)) => {
                        for name in names {
                            if self.next <= self.since && self.table.spared.contains(&hash(&name)) {
                                continue;
                            }
                            match file_location(&table, &name) {
                                Ok(location) => expired.push(location),
                                Err(e) => tracing::warn!(table, name, error = %e, "left a file with an odd name"),
                            }
                        }
                    }
                    None => {}
                }
            }
            self.next += 1;
            if self.next > self.since {
                self.table.spared = HashSet::new();
            }
        }
        Ok(expired)
    }
}

/// When one of our entries was put (Unix milliseconds), and the files that it retired: data files that it removes and
/// does not add again, and the vector files listed in its `commitInfo`. None if the entry is not ours.
fn retired(actions: &[Action]) -> Option<(i64, Vec<String>)> {
    let info = actions.iter().find_map(|a| a.commit_info.as_ref())?;
    if !info.get("engineInfo")?.as_str()?.starts_with("alluvium/") {
        return None;
    }
    let again: HashSet<&str> = (actions.iter().filter_map(|a| a.add.as_ref()))
        .map(|add| add.path.as_str())
        .collect();
    let removed = actions.iter().filter_map(|a| a.remove.as_ref());
    let files = removed
        .filter(|r| !again.contains(r.path.as_str()))
        .map(|r| r.path.clone());
    let vectors = info.get("retiredVectors").and_then(|v| v.as_array());
    let vectors = vectors
        .into_iter()
        .flatten()
        .filter_map(|v| Some(v.as_str()?.to_string()));
    Some((info.get("timestamp")?.as_i64()?, files.chain(vectors).collect()))
}

fn hash(name: &str) -> u64 {
    XxHash64::oneshot(0, name.as_bytes())
}

impl MaintenanceWorker {
    async fn run(mut self, mut inbox: UnboundedReceiver<CommittedSnapshot>) {
        let mut tick = tokio::time::interval(self.policy.maintenance_tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                note = inbox.recv() => match note {
                    Some(note) => {
                        self.observe(note);
                        if self.history.pending() >= RECORDS {
                            self.flush().await;
                        }
                    }
                    None => break,
                },
                _ = tick.tick() => {
                    self.flush().await;
                    self.keep().await;
                }
            }
        }
        self.flush().await;
    }

    fn observe(&mut self, note: CommittedSnapshot) {
        for (table, version) in note.changed {
            self.keepers[table].table.version = version;
        }
        self.history.observe(note.record);
        self.expired.extend(note.expired);
    }

    async fn flush(&mut self) {
        if self.history.pending() > 0 {
            let now = self.now();
            match self.history.flush(now).await {
                Ok(version) => self.snapshots().version = version,
                Err(e) => {
                    tracing::warn!(error = %e, "could not record snapshots yet");
                    return;
                }
            }
        }
        if !self.expired.is_empty()
            && let Err(e) = ledger::delete(&self.lake, std::mem::take(&mut self.expired)).await
        {
            tracing::warn!(error = %e, "could not delete old ledger entries; they stay");
        }
    }

    /// The time of the clock of commits, in Unix milliseconds.
    fn now(&self) -> i64 {
        (self.clock.0)()
    }

    fn snapshots(&mut self) -> &mut MaintainedTable {
        let last = self.keepers.last_mut();
        &mut last.expect("the table of snapshots is the last keeper").table
    }

    /// Does one step of merging and trimming the table of snapshots.
    async fn tidy(&mut self, cutoff: i64) {
        let now = self.now();
        match self.history.tidy(cutoff, now).await {
            Ok(Some(version)) => self.snapshots().version = version,
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "could not tidy the table of snapshots yet"),
        }
    }

    async fn keep(&mut self) {
        let cutoff = self.now() - self.policy.retention.as_millis() as i64;
        self.tidy(cutoff).await;
        for keeper in &mut self.keepers {
            if keeper.is_due(&self.policy, (self.clock.0)()) {
                let (path, version) = (keeper.table.path.clone(), keeper.table.version);
                match checkpoint(&self.lake, &path, version).await {
                    Ok(()) => keeper.checkpoints.push_back((version, (self.clock.0)())),
                    Err(e) => tracing::warn!(
                        table = path,
                        version,
                        error = format!("{e:#}"),
                        "could not checkpoint yet"
                    ),
                }
            }
            let expired = match keeper.next_expired_files(&self.lake, cutoff).await {
                Ok(expired) => expired,
                Err(e) => {
                    tracing::warn!(table = keeper.table.path, error = %e, "could not look for old files; they stay");
                    continue;
                }
            };
            delete(&self.lake, expired).await;
            // By (2), an entry outlives the files that it retired.
            delete(&self.lake, keeper.next_expired_log(cutoff)).await;
        }
        self.sweep().await;
    }

    /// Searches one table for orphans per tick, and all tables once per retention.
    async fn sweep(&mut self) {
        let age = self.policy.retention.max(SWEEP);
        if self.sweeping == 0 && self.swept.is_some_and(|swept| swept.elapsed() < age) {
            return;
        }
        let table = self.keepers[self.sweeping].table.path.clone();
        let cutoff = Utc::now().timestamp_millis() - age.as_millis() as i64;
        match sweep::orphans(&self.lake, &table, cutoff).await {
            Ok(orphans) if orphans.is_empty() => {}
            Ok(orphans) => {
                tracing::info!(table, files = orphans.len(), "deleting files that no log names");
                delete(&self.lake, orphans).await;
            }
            Err(e) => tracing::warn!(table, error = %e, "could not look for orphans"),
        }
        self.sweeping = (self.sweeping + 1) % self.keepers.len();
        if self.sweeping == 0 {
            self.swept = Some(Instant::now());
        }
    }
}

/// Writes a checkpoint of a version, with a fresh table handle: a handle that is kept becomes slower with every
/// commit.
pub async fn checkpoint(lake: &Lake, table: &str, version: i64) -> anyhow::Result<()> {
    let mut handle = lake.delta_table(table);
    handle.load_version(version as u64).await?;
    create_checkpoint(&handle, None).await?;
    if let (true, Some(folder)) = (lake.is_durable(), lake.local.clone()) {
        let log = folder.join(table).join("_delta_log");
        tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let file = log.join(format!("{version:020}.checkpoint.parquet"));
            disk::sync_file(&File::open(&file)?, &file)?;
            disk::sync_folder(&log)
        })
        .await??;
    }
    Ok(())
}

async fn delete(lake: &Lake, paths: Vec<Path>) {
    let mut deletions = stream::iter(paths)
        .map(|path| async move { (lake.store.delete(&path).await, path) })
        .buffer_unordered(16);
    while let Some((outcome, path)) = deletions.next().await {
        match outcome {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => tracing::warn!(%path, error = %e, "could not delete an old file; it stays"),
        }
    }
}

/// What maintenance starts from for a table.
pub fn kept(path: &str, loaded: &log::LoadedTable, live: &BTreeSet<String>) -> MaintainedTable {
    MaintainedTable {
        path: path.to_string(),
        version: loaded.version,
        oldest: loaded.oldest,
        checkpoint: loaded.checkpoint,
        spared: live.iter().map(|name| hash(name)).collect(),
    }
}

/// What maintenance starts from for the table of snapshots.
pub fn kept_snapshots(loaded: &log::LoadedTable) -> MaintainedTable {
    kept(history::PATH, loaded, &loaded.files.keys().cloned().collect())
}
