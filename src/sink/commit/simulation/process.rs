//! Simulates one run of the program: a committer and its writers, as a task that waits at every store operation.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use object_store::path::Path;
use tokio::runtime::Handle;
use url::Url;

use super::super::{CommitClock, CommitSettings, Committer, Safeguards};
use super::reader::{self, LogReplay};
use super::store::{SimStore, World};
use super::workload::{AUDITED, EVENTS, SimFeed, encode, specs};
use crate::lake::Lake;
use crate::repr::{Epoch, PartitionId, Position};
use crate::sink::writer::Compacting;
use crate::sink::{
    CommitEvent, Prepared, SinkWriter, TableBatch, WriterConfig, WriterLimits, WriterMessage, owner, restore,
};
use crate::store::{RetryPolicy, RetryingStore};

/// How many epochs may wait for the committer.
const AHEAD: usize = 3;

/// The inputs of a process.
pub struct ProcessStart {
    /// The process's number.
    pub process: usize,
    /// How many writers it has.
    pub writers: usize,
    /// The safeguards that are on.
    pub safeguards: Safeguards,
    /// The feed that it reads.
    pub feed: SimFeed,
    /// The runtime for the writers' threads, which are not simulated.
    pub runtime: Handle,
    /// The state shared by all processes.
    pub world: Arc<World>,
    /// Where the process reports.
    pub report: Arc<SimulatedReport>,
}

/// What a process reports to the simulation.
#[derive(Default)]
pub struct SimulatedReport {
    /// The process's generation, once it has fenced.
    pub generation: std::sync::atomic::AtomicU64,
    /// Published snapshots: epoch, and the version of each table.
    pub snapshots: std::sync::Mutex<Vec<(Epoch, Vec<i64>)>>,
    /// Counts of relocations that its writers followed, compactions that they finished, and rows of other writers that
    /// its audit removed.
    pub relocations: std::sync::atomic::AtomicU64,
    pub compactions: std::sync::atomic::AtomicU64,
    pub corrections: std::sync::atomic::AtomicU64,
}

/// Why a process ended.
#[derive(Debug)]
pub struct Stopped(pub String);

impl<E: std::error::Error> From<E> for Stopped {
    fn from(error: E) -> Self {
        Stopped(crate::causes::chain(&error))
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn patient(store: SimStore) -> Arc<RetryingStore> {
    let sleep = store.sleep();
    Arc::new(RetryingStore::new(Arc::new(store), RetryPolicy::default()).sleeping(Arc::new(sleep)))
}

fn partition() -> PartitionId {
    PartitionId {
        input: "e".into(),
        feed: "f".into(),
        partition: "0".into(),
    }
}

/// Runs until all events have been read and committed.
pub async fn run(start: ProcessStart) -> Result<(), Stopped> {
    let ProcessStart {
        process,
        writers: count,
        safeguards,
        feed,
        runtime,
        world,
        report,
    } = start;
    let store = |immediate| SimStore {
        world: world.clone(),
        process,
        immediate,
    };
    let lake = |immediate| {
        let root = Url::parse("memory:///").unwrap();
        Lake::over(patient(store(immediate)), Path::default(), root)
    };
    let clock = {
        let world = world.clone();
        // The simulated clock steps back and forth.
        CommitClock(Arc::new(move || 1_000_000 + world.random().below(1000) as i64))
    };
    let mut settings = CommitSettings::new("flow", count);
    settings.policy.full_progress_every = 3;
    settings.safeguards = safeguards;
    settings.clock = clock;
    let specs = specs();
    let opening = Committer::open_async(lake(false), specs.clone(), settings, runtime.clone());
    let (mut committer, restored, _) = Box::pin(opening).await?;
    report.generation.store(restored.generation, Relaxed);
    let mut offset = restored.progress.values().next().map_or(0, |p| p.next);
    let mut epoch = restored.epoch.unwrap_or(0);
    let config = |writer| WriterConfig {
        writer,
        writers: count,
        generation: restored.generation,
        specs: Arc::new(specs.clone()),
        lake: lake(true),
        runtime: runtime.clone(),
        limits: WriterLimits {
            small_rows: 5,
            small_bytes: 1000,
            file_rows: 8,
            rewrite_rows: 4,
            merge_files: 2,
            merge_rows: 64,
            ..WriterLimits::default()
        },
        relocations: committer.relocations(),
    };
    let tables = restored.tables.iter().cloned().enumerate().collect();
    let audits = restored.epoch.is_some();
    let mut writers = Vec::new();
    for (writer, mut loaded) in restore(&config(0), 0..count, tables)?.into_iter().enumerate() {
        if audits {
            AUDITED.for_each(|table| loaded.audit_next(table, Epoch::MAX));
        }
        writers.push(SinkWriter::new(config(writer), loaded)?);
    }
    let mut parts: VecDeque<Prepared> = VecDeque::new();
    if audits {
        let mut expected = Vec::new();
        for table in AUDITED {
            let mut walk = LogReplay::new(reader::lake(&world.objects), &specs[table].path);
            expected.push(walk.rows(restored.versions[table]).map_err(Stopped)?.1 as u64);
        }
        epoch += 1;
        let tables = feed.tables(offset);
        for table in AUDITED {
            let rows = tables[table].iter().map(|(row, n)| (*row, *n));
            send(&mut writers, table, rows, epoch)?;
        }
        for writer in &mut writers {
            parts.extend(writer.observe(WriterMessage::Seal { epoch })?);
        }
        let of = |table: usize| {
            writers
                .iter()
                .map(move |w| w.stats().tables[table].corrections.load(Relaxed))
        };
        let corrected: Vec<u64> = AUDITED.map(|table| of(table).sum()).collect();
        if corrected != expected {
            return Err(Stopped(format!(
                "AUDIT: {corrected:?} rows were corrected at epoch {epoch}, and others had appended {expected:?} (versions {:?}, event {offset})",
                restored.versions
            )));
        }
        report.corrections.fetch_add(corrected.iter().sum(), Relaxed);
    }
    let mut compacting: Vec<Option<Compacting>> = (0..count).map(|_| None).collect();
    let mut compacted: Vec<Vec<(usize, TableBatch)>> = (0..count).map(|_| Vec::new()).collect();
    loop {
        world.gate(process, "turn".into()).await;
        if offset >= EVENTS && parts.is_empty() {
            return Ok(());
        }
        let seal = parts.len() < AHEAD * count && offset < EVENTS && world.random().chance(500);
        if !seal && !parts.is_empty() {
            committer
                .state
                .observe_prepared(parts.pop_front().expect("there is one"))?;
            while let Some(CommitEvent::Committed { epoch, versions, .. }) = Box::pin(committer.commit_next()).await? {
                report.snapshots.lock().unwrap().push((epoch, versions.to_vec()));
                report.relocations.store(committer.relocated, Relaxed);
            }
            continue;
        }
        epoch += 1 + world.random().below(3);
        let next = (offset + world.random().below(6)).min(EVENTS);
        for (table, changes) in feed.changes(offset, next).into_iter().enumerate() {
            send(&mut writers, table, changes, epoch)?;
        }
        if next > offset {
            offset = next;
            let position = Position {
                next,
                done: false,
                tag: None,
                ..Position::default()
            };
            let partition = partition();
            writers[0].observe(WriterMessage::Progress {
                epoch,
                partition,
                position,
            })?;
        }
        for (number, writer) in writers.iter_mut().enumerate() {
            if world.random().chance(500)
                && let Some(merged) = compacting[number].take()
            {
                let done = writer.end_compaction(merged)?;
                report.compactions.fetch_add(u64::from(done.is_some()), Relaxed);
                compacted[number].extend(done.map(|c| (c.table, c.batch)));
            }
            if compacting[number].is_none() && world.random().chance(500) {
                compacting[number] = writer.start_compaction()?;
            }
            if let Some(mut part) = writer.observe(WriterMessage::Seal { epoch })? {
                part.tables.splice(0..0, compacted[number].drain(..));
                parts.push_back(part);
            }
            // Writers may learn of a relocation late.
            if world.random().chance(700) {
                writer.relocate()?;
            }
        }
    }
}

fn send(
    writers: &mut [SinkWriter],
    table: usize,
    rows: impl IntoIterator<Item = ((i64, i64), i64)>,
    epoch: Epoch,
) -> Result<(), Stopped> {
    let (rows, diffs): (Vec<(i64, i64)>, Vec<i64>) = rows.into_iter().unzip();
    let count = writers.len();
    for (row, diff) in encode(&rows).into_iter().zip(diffs) {
        let writer = &mut writers[owner(row.bytes(), count)];
        writer.observe(WriterMessage::Rows {
            table,
            updates: vec![(row, epoch, diff)],
        })?;
    }
    Ok(())
}
