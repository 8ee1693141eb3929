//! One run of the program: a committer and its writers, as tasks that wait at every store operation.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use object_store::path::Path;
use tokio::runtime::Handle;
use url::Url;

use super::super::{Clock, Committer, Safeguards, Settings};
use super::reader::{self, Walk};
use super::store::{SimStore, World};
use super::workload::{AUDITED, EVENTS, Feed, encode, specs};
use crate::repr::Epoch;
use crate::sink::writer::Compacting;
use crate::sink::{Arrival, Batch, CommitEvent, Lake, Limits, Prepared, Writer, WriterConfig, owner, restore};
use crate::source::{PartitionId, Position};
use crate::store::{Patience, Patient};

/// Epochs whose parts wait for the committer, at most.
const AHEAD: usize = 3;

/// What a process is started with.
pub struct Start {
    /// Its number.
    pub process: usize,
    /// How many writers it has.
    pub writers: usize,
    /// What makes it safe.
    pub safeguards: Safeguards,
    /// What it reads.
    pub feed: Feed,
    /// The threads of writers, which are not simulated.
    pub runtime: Handle,
    /// What it shares.
    pub world: Arc<World>,
    /// What it tells.
    pub told: Arc<Told>,
}

/// What a process tells.
#[derive(Default)]
pub struct Told {
    /// Its generation, once fenced.
    pub generation: std::sync::atomic::AtomicU64,
    /// Snapshots: epoch, tables' versions.
    pub snapshots: std::sync::Mutex<Vec<(Epoch, Vec<i64>)>>,
    /// Relocations it followed, compactions it settled, rows of others that its audit removed.
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

fn patient(store: SimStore) -> Arc<Patient> {
    let sleep = store.sleep();
    Arc::new(Patient::new(Arc::new(store), Patience::default()).sleeping(Arc::new(sleep)))
}

fn partition() -> PartitionId {
    PartitionId {
        input: "e".into(),
        feed: "f".into(),
        partition: "0".into(),
    }
}

/// Runs until it has read all events, and committed them.
pub async fn run(start: Start) -> Result<(), Stopped> {
    let Start {
        process,
        writers: count,
        safeguards,
        feed,
        runtime,
        world,
        told,
    } = start;
    let store = |immediate| SimStore {
        world: world.clone(),
        process,
        immediate,
    };
    let lake = Lake::over(
        patient(store(false)),
        Path::default(),
        Url::parse("memory:///").unwrap(),
    );
    let clock = {
        let world = world.clone();
        // It steps back and forth.
        Clock(Arc::new(move || 1_000_000 + world.random().below(1000) as i64))
    };
    let settings = Settings {
        safeguards,
        clock,
        full_progress_every: 3,
        ..Settings::new("flow", count, false)
    };
    let specs = specs();
    let opening = Committer::open_async(lake, specs.clone(), settings, runtime.clone());
    let (mut committer, restored, _) = Box::pin(opening).await?;
    told.generation.store(restored.generation, Relaxed);
    let mut offset = restored.progress.values().next().map_or(0, |p| p.next);
    let mut epoch = restored.epoch.unwrap_or(0);
    let config = |writer| WriterConfig {
        writer,
        writers: count,
        generation: restored.generation,
        specs: Arc::new(specs.clone()),
        store: patient(store(true)),
        root: Path::default(),
        local: None,
        durable: false,
        runtime: runtime.clone(),
        limits: Limits {
            small_rows: 5,
            small_bytes: 1000,
            file_rows: 8,
            rewrite_rows: 4,
            merge_files: 2,
            merge_rows: 64,
            ..Limits::default()
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
        writers.push(Writer::new(config(writer), loaded)?);
    }
    let mut parts: VecDeque<Prepared> = VecDeque::new();
    if audits {
        let mut expected = Vec::new();
        for table in AUDITED {
            let mut walk = Walk::new(reader::lake(&world.objects), &specs[table].path);
            expected.push(walk.rows(restored.versions[table]).map_err(Stopped)?.1 as u64);
        }
        epoch += 1;
        let tables = feed.tables(offset);
        for table in AUDITED {
            let rows = tables[table].iter().map(|(row, n)| (*row, *n));
            send(&mut writers, table, rows, epoch)?;
        }
        for writer in &mut writers {
            parts.extend(writer.observe(Arrival::Seal { epoch })?);
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
        told.corrections.fetch_add(corrected.iter().sum(), Relaxed);
    }
    let mut compacting: Vec<Option<Compacting>> = (0..count).map(|_| None).collect();
    let mut compacted: Vec<Vec<(usize, Batch)>> = (0..count).map(|_| Vec::new()).collect();
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
                told.snapshots.lock().unwrap().push((epoch, versions.to_vec()));
                told.relocations.store(committer.relocated, Relaxed);
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
            writers[0].observe(Arrival::Progress {
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
                told.compactions.fetch_add(u64::from(done.is_some()), Relaxed);
                compacted[number].extend(done.map(|c| (c.table, c.batch)));
            }
            if compacting[number].is_none() && world.random().chance(500) {
                compacting[number] = writer.start_compaction()?;
            }
            if let Some(mut part) = writer.observe(Arrival::Seal { epoch })? {
                part.tables.splice(0..0, compacted[number].drain(..));
                parts.push_back(part);
            }
            // Writers may be late.
            if world.random().chance(700) {
                writer.relocate()?;
            }
        }
    }
}

fn send(
    writers: &mut [Writer],
    table: usize,
    rows: impl IntoIterator<Item = ((i64, i64), i64)>,
    epoch: Epoch,
) -> Result<(), Stopped> {
    let (rows, diffs): (Vec<(i64, i64)>, Vec<i64>) = rows.into_iter().unzip();
    let count = writers.len();
    for (row, diff) in encode(&rows).into_iter().zip(diffs) {
        let writer = &mut writers[owner(row.bytes(), count)];
        writer.observe(Arrival::Rows {
            table,
            updates: vec![(row, epoch, diff)],
        })?;
    }
    Ok(())
}
