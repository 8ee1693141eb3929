//! What keeps a lake quick and small, off the commit path: the table of snapshots, checkpoints, clean-up of
//! logs and ledger, deletion of files that nothing names any more.
//!
//! One thread does one thing at a time, with a small runtime of its own: a checkpoint reads hundreds of log entries, and
//! commits neither wait behind those nor pay for as many threads. It is told of every commit and needs no listing: what was
//! retired when stands in the log, which it reads once more when the retention has passed, so its memory does not grow with
//! the history. Only orphans are listed ([`super::sweep`]), once in a retention; what others retired is among them. Nothing
//! it does is needed for correctness, so a failure is a warning, and tried again at the next tick. It deletes
//! 1. a file only when the retention has passed since the commit of ours that retired it, and no live file had its name
//!    when the run started,
//! 2. a log entry only below a checkpoint that is itself older than the retention, and synced, and when (1) has read it,
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
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use twox_hash::XxHash64;

use super::action::Action;
use super::history::{self, History, Record};
use super::ledger;
use super::log;
use super::sweep;
use crate::contain;
use crate::sink::disk;
use crate::sink::lake::{Lake, file_location};

/// Records that are flushed at once, even before a tick.
const RECORDS: usize = 100;
/// Files it reads, writes or deletes at once on a local disk.
const FILES: usize = 4;
/// Log entries it looks into or deletes of a table in one tick.
const LOOKS: usize = 2000;
/// Orphans are never looked for among files younger than this, and not more often.
const SWEEP: Duration = Duration::from_secs(3600);

/// A table to look after.
pub struct Kept {
    /// Its folder below the lake.
    pub path: String,
    /// Its version.
    pub version: i64,
    /// Its oldest log entry.
    pub oldest: i64,
    /// Its newest checkpoint.
    pub checkpoint: Option<i64>,
    /// Hashes of the names that were live at `version`, until (1) has read so far.
    pub spared: HashSet<u64>,
}

/// What a snapshot did.
pub struct Note {
    /// For the table of snapshots.
    pub record: Record,
    /// Tables that changed: index, new version.
    pub changed: Vec<(usize, i64)>,
    /// Ledger entries that may go.
    pub expired: Vec<Path>,
}

/// How often what is done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Commits of a table between its checkpoints.
    pub checkpoint_every: u64,
    /// And the time between them, at least: at a commit every 25 ms, counting alone would checkpoint all the time.
    pub checkpoint_pause: Duration,
    /// How long what nothing names any more is kept.
    pub retention: Duration,
    /// How often it looks.
    pub tick: Duration,
    /// Whether files are synced.
    pub durable: bool,
}

/// The running thread.
pub struct Maintenance {
    notes: UnboundedSender<Note>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    /// Starts it. `tables` are in the order of [`Note::changed`]'s indices; `snapshots` is the table of
    /// snapshots itself.
    pub fn start(
        lake: Lake,
        pace: Pace,
        history: History,
        tables: Vec<Kept>,
        snapshots: Kept,
    ) -> io::Result<Maintenance> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(FILES)
            .enable_all()
            .build()?;
        let (notes, inbox) = unbounded_channel();
        let mut keepers: Vec<Keeper> = tables.into_iter().map(Keeper::new).collect();
        keepers.push(Keeper::new(snapshots));
        let worker = Worker {
            lake,
            pace,
            history,
            keepers,
            expired: Vec::new(),
            swept: None,
            sweeping: 0,
        };
        let thread = thread::Builder::new().name("maintenance".into());
        let thread = thread.spawn(move || {
            // Tables stay right without it, and only grow: the run goes on.
            let kept = catch_unwind(AssertUnwindSafe(|| runtime.block_on(worker.run(inbox))));
            if let Err(panic) = kept {
                tracing::error!(
                    panic = contain::message(&*panic),
                    "maintenance of the lake ended, which is a bug: until the next start no checkpoints are written and nothing is cleaned up"
                );
            }
        })?;
        Ok(Maintenance { notes, thread })
    }

    /// Tells it of a snapshot.
    pub fn observe(&self, note: Note) {
        // The thread ends only by `finish`, or by a panic, which it has told.
        let _ = self.notes.send(note);
    }

    /// Flushes what must not be lost and ends it.
    pub fn finish(self) {
        drop(self.notes);
        // It has told a panic itself.
        let _ = self.thread.join();
    }
}

struct Worker {
    lake: Lake,
    pace: Pace,
    history: History,
    /// By table, the table of snapshots last.
    keepers: Vec<Keeper>,
    expired: Vec<Path>,
    /// When orphans were last looked for, and in which table (by index) the look stands.
    swept: Option<Instant>,
    sweeping: usize,
}

struct Keeper {
    table: Kept,
    /// Checkpoints made, and when (Unix ms).
    checkpoints: VecDeque<(i64, i64)>,
    /// The next entry that (1) reads, and the version that `spared` is of.
    next: i64,
    since: i64,
}

impl Keeper {
    fn new(table: Kept) -> Keeper {
        // When an old checkpoint was made is not known: its retention counts from now.
        let checkpoints = table
            .checkpoint
            .map(|v| (v, Utc::now().timestamp_millis()))
            .into_iter()
            .collect();
        let (next, since) = (table.oldest, table.version);
        Keeper {
            table,
            checkpoints,
            next,
            since,
        }
    }

    fn is_due(&self, pace: &Pace, now: i64) -> bool {
        let (version, at) = self.checkpoints.back().copied().unwrap_or((-1, i64::MIN));
        self.table.version - version >= pace.checkpoint_every as i64
            && now.saturating_sub(at) >= pace.checkpoint_pause.as_millis() as i64
    }

    /// Log entries and checkpoints that may go, by (2).
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
        let gone = (self.table.oldest..base).flat_map(|version| {
            [
                log::entry_path(&self.table.path, version),
                Path::from(format!("{folder}/{version:020}.checkpoint.parquet")),
            ]
        });
        let gone = gone.collect();
        self.table.oldest = self.table.oldest.max(base);
        gone
    }

    /// Files that may go, by (1).
    async fn next_expired_files(&mut self, lake: &Lake, cutoff: i64) -> Result<Vec<Path>, log::LogError> {
        let mut gone = Vec::new();
        let (table, end) = (self.table.path.clone(), self.table.version);
        let mut entries = stream::iter(self.next..=end.min(self.next + LOOKS as i64))
            .map(|version| log::read(lake, &table, version))
            .buffered(FILES);
        while let Some(actions) = entries.try_next().await? {
            // An entry that is gone was cleaned up by another engine, and its files are by the next sweep.
            if let Some(actions) = actions {
                match retired(&actions) {
                    Some((at, _)) if at > cutoff => break,
                    Some((_, names)) => {
                        for name in names {
                            if self.next <= self.since && self.table.spared.contains(&hash(&name)) {
                                continue;
                            }
                            match file_location(&table, &name) {
                                Ok(location) => gone.push(location),
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
        Ok(gone)
    }
}

/// When an entry of ours was put (Unix ms), and the files that nothing names since: data files that it removes, and the
/// vector files that it says; none if it is not ours.
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

impl Worker {
    async fn run(mut self, mut inbox: UnboundedReceiver<Note>) {
        let mut tick = tokio::time::interval(self.pace.tick);
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

    fn observe(&mut self, note: Note) {
        for (table, version) in note.changed {
            self.keepers[table].table.version = version;
        }
        self.history.observe(note.record);
        self.expired.extend(note.expired);
    }

    async fn flush(&mut self) {
        if self.history.pending() > 0 {
            match self.history.flush(Utc::now().timestamp_millis()).await {
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

    fn snapshots(&mut self) -> &mut Kept {
        let last = self.keepers.last_mut();
        &mut last.expect("the table of snapshots is the last keeper").table
    }

    /// The table of snapshots, merged and cut off a step at a time.
    async fn tidy(&mut self, cutoff: i64) {
        let now = Utc::now().timestamp_millis();
        match self.history.tidy(cutoff, now).await {
            Ok(Some(version)) => self.snapshots().version = version,
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "could not tidy the table of snapshots yet"),
        }
    }

    async fn keep(&mut self) {
        let cutoff = Utc::now().timestamp_millis() - self.pace.retention.as_millis() as i64;
        self.tidy(cutoff).await;
        for keeper in &mut self.keepers {
            if keeper.is_due(&self.pace, Utc::now().timestamp_millis()) {
                let (path, version) = (keeper.table.path.clone(), keeper.table.version);
                match checkpoint(&self.lake, &path, version, self.pace.durable).await {
                    Ok(()) => keeper.checkpoints.push_back((version, Utc::now().timestamp_millis())),
                    Err(e) => tracing::warn!(
                        table = path,
                        version,
                        error = format!("{e:#}"),
                        "could not checkpoint yet"
                    ),
                }
            }
            let gone = match keeper.next_expired_files(&self.lake, cutoff).await {
                Ok(gone) => gone,
                Err(e) => {
                    tracing::warn!(table = keeper.table.path, error = %e, "could not look for old files; they stay");
                    continue;
                }
            };
            delete(&self.lake, gone).await;
            // By (2): an entry outlives the files that it retired.
            delete(&self.lake, keeper.next_expired_log(cutoff)).await;
        }
        self.sweep().await;
    }

    /// One table a tick, all tables once in a retention.
    async fn sweep(&mut self) {
        let age = self.pace.retention.max(SWEEP);
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

/// Writes a checkpoint of a version with a fresh handle (a kept one slows with every commit).
pub async fn checkpoint(lake: &Lake, table: &str, version: i64, durable: bool) -> anyhow::Result<()> {
    let mut handle = lake.delta_table(table);
    handle.load_version(version as u64).await?;
    create_checkpoint(&handle, None).await?;
    if let (true, Some(folder)) = (durable, lake.local.clone()) {
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

async fn delete(lake: &Lake, gone: Vec<Path>) {
    let mut deletions = stream::iter(gone)
        .map(|path| async move { (lake.store.delete(&path).await, path) })
        .buffer_unordered(16);
    while let Some((outcome, path)) = deletions.next().await {
        match outcome {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => tracing::warn!(%path, error = %e, "could not delete an old file; it stays"),
        }
    }
}

/// What a table needs to be looked after.
pub fn kept(path: &str, loaded: &log::Loaded, live: &BTreeSet<String>) -> Kept {
    Kept {
        path: path.to_string(),
        version: loaded.version,
        oldest: loaded.oldest,
        checkpoint: loaded.checkpoint,
        spared: live.iter().map(|name| hash(name)).collect(),
    }
}

/// The table of snapshots as a kept table.
pub fn kept_snapshots(loaded: &log::Loaded) -> Kept {
    kept(history::PATH, loaded, &loaded.files.keys().cloned().collect())
}
