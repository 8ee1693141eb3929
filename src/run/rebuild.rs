//! A rebuild: the Bronze of one lake goes through the same graph into another, empty one.
//!
//! ```text
//! old lake, one snapshot: bronze files, archived drops, dead letters, progress
//!        | copied                                                               \-> first snapshot of the new lake
//!        v                                                                                   |
//! new lake: a lake whose tables were lost --a restart without feeds: Bronze through the graph--> second snapshot
//! ```
//! There is no second way to compute a table: the first snapshot makes of the new lake one that a restart repairs. It is
//! one commit, of all or nothing: a rebuild that breaks off before it leaves files that nobody names, and a lake that is
//! refused as not empty; one that breaks off behind it leaves a lake that any run goes on with. Progress is in that snapshot, so feeds
//! are read on from where the old lake stood. The old lake is only read, as of one snapshot, also while a run writes to it.
//!
//! What stays behind: the history of the old tables, and Bronze of inputs that the definition has no more. An input without
//! Bronze is read again from its feeds, as by any restart.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use bytes::{Buf, Bytes};
use crossbeam_channel::bounded;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use thiserror::Error;
use tokio::runtime::Handle;

use super::{Options, Outcome, RunError, Wiring, runtime};
use crate::definition::Dataflow;
use crate::evolve;
use crate::repr::{Epoch, Row};
use crate::serve::{self, QueryError, Snapshot};
use crate::sink::{
    AddFile, Arrival, Batch, CommitError, Committer, Lake, LakeError, LedgerError, Limits, Loaded, LogError, Prepared,
    Settings, TableSpec, Writer, WriterConfig, WriterError, file_location, log,
};
use crate::source::Progress;

/// Objects that are copied at once.
const COPIES: usize = 4;
/// How often it is said how far copying is, and looked whether it has ended.
const TELL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// What a rebuild did.
#[derive(Debug)]
pub struct Rebuilt {
    /// The snapshot of the old lake.
    pub from: Epoch,
    /// Objects that were copied: Bronze and archived drops.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dead letters of the old lake.
    pub letters: u64,
    /// Of the run that made the tables: every row of them is in its corrections.
    pub outcome: Outcome,
}

/// Why a lake could not be rebuilt. The old one is as it was.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// Something is there.
    #[error("could not rebuild into {lake}: it is not empty; name a new folder, or delete what is there")]
    NotEmpty {
        /// The new lake.
        lake: String,
    },
    /// Somebody took rows out of Bronze with deletion vectors.
    #[error(
        "could not copy {table}: its file {file} has a deletion vector; let `OPTIMIZE` rewrite it, then rebuild again"
    )]
    Vectors {
        /// Which table.
        table: String,
        /// Which file.
        file: String,
    },
    /// An object could not be copied.
    #[error("could not copy {object} into the new lake; delete the new lake, then rebuild again")]
    Copy {
        /// Relative to the lake.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new lake could not be listed.
    #[error("could not list {lake}")]
    List {
        /// The new lake.
        lake: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// See [`LakeError`].
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The old lake's tables.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The old lake's logs.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The old lake's ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The first snapshot.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The first snapshot's files.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The run behind it, or what runs and rebuilds share.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Rebuilds the tables of a dataflow, whose lake is the old one, in `into`. `told` gets a line for each step.
pub fn rebuild(
    dataflow: &Dataflow,
    into: &str,
    options: Options,
    mut told: impl FnMut(String),
) -> Result<Rebuilt, RebuildError> {
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    let from = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let target = Lake::make(into, &dataflow.store_options)?;
    let mut new = dataflow.clone();
    new.lake = into.to_string();
    let (known, graph) = runtime.block_on(evolve::known(&new, &from)).map_err(RunError::from)?;
    let there = runtime.block_on(target.store.list(None).next());
    match there {
        None => {}
        Some(Ok(_)) => return Err(RebuildError::NotEmpty { lake: into.to_string() }),
        Some(Err(source)) => {
            return Err(RebuildError::List {
                lake: into.to_string(),
                source,
            });
        }
    }
    let wiring = Wiring::new(Arc::new(known), Arc::new(graph));
    let copy = Copy {
        from,
        to: target,
        durable: dataflow.durable,
        runtime: runtime.handle().clone(),
        copied: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let past = runtime.block_on(Past::read(&copy.from, &wiring))?;
    told(format!("snapshot {} of {}", past.epoch, dataflow.lake));
    copy.all(&past.objects, &mut told)?;
    let (copied, bytes) = (copy.copied.load(Ordering::Relaxed), copy.bytes.load(Ordering::Relaxed));
    let letters = past.letters.len() as u64;
    told(format!(
        "copied {copied} objects of Bronze and archived drops, {bytes} bytes; {letters} dead letters"
    ));
    let from = past.epoch;
    seed(&new, &wiring, past, &copy.to, runtime.handle())?;
    told("the past goes through the graph".to_string());
    drop(runtime);
    let options = Options {
        until_caught_up: true,
        without_feeds: true,
        rebuilds: true,
        ..options
    };
    let outcome = super::run(Arc::new(new), &options)?;
    Ok(Rebuilt {
        from,
        copied,
        bytes,
        letters,
        outcome,
    })
}

/// What the first snapshot of the new lake holds.
struct Past {
    epoch: Epoch,
    progress: Progress,
    /// By Bronze table (index into the specs): its files.
    bronze: Vec<(usize, Vec<AddFile>)>,
    letters: Vec<Row>,
    /// What is copied, by its path below the lake.
    objects: Vec<Path>,
}

impl Past {
    async fn read(lake: &Lake, wiring: &Wiring) -> Result<Past, RebuildError> {
        let snapshot = Snapshot::open(lake, None).await?;
        let mut past = Past {
            epoch: snapshot.epoch(),
            progress: serve::progress(lake, Some(snapshot.epoch())).await?,
            bronze: vec![],
            letters: vec![],
            objects: vec![],
        };
        for index in wiring.bronze.iter().flatten() {
            let spec = &wiring.specs[*index];
            if let Some(version) = snapshot.versions().get(&spec.name) {
                past.take_bronze(lake, (*index, spec), *version).await?;
                past.take_archived(&snapshot, &spec.name).await?;
            }
        }
        // What records are decoded by, and the columns that inputs take.
        let mut schemas = lake.store.list(Some(&Path::from("_alluvium/schemas")));
        while let Some(schema) = schemas.next().await {
            let listed = schema.map_err(|source| RebuildError::List {
                lake: lake.root.to_string(),
                source,
            })?;
            past.objects.push(listed.location);
        }
        let mut letters = snapshot.letters("true").await?;
        while let Some(letters) = letters.try_next().await? {
            past.letters.extend(letters.rows);
        }
        Ok(past)
    }

    async fn take_bronze(&mut self, lake: &Lake, of: (usize, &TableSpec), version: i64) -> Result<(), RebuildError> {
        let (index, spec) = of;
        let loaded = log::load(lake, &spec.path, Some(version)).await?;
        let loaded = loaded.expect("a table whose version a snapshot names has a log");
        for file in loaded.files.values() {
            if file.deletion_vector.is_some() {
                return Err(RebuildError::Vectors {
                    table: spec.name.clone(),
                    file: file.path.clone(),
                });
            }
            let location = file_location(&spec.path, &file.path).map_err(|source| RebuildError::Copy {
                object: file.path.clone(),
                source: io::Error::other(source),
            })?;
            self.objects.push(location);
        }
        self.bronze.push((index, loaded.files.into_values().collect()));
        Ok(())
    }

    /// The archived drops that a Bronze table refers to.
    async fn take_archived(&mut self, snapshot: &Snapshot, table: &str) -> Result<(), QueryError> {
        let (_, input) = table.split_once('.').expect("a Bronze table is called bronze.<input>");
        let sql = format!(
            "SELECT DISTINCT arrow_cast(reference, 'Utf8') FROM bronze.\"{input}\" WHERE reference IS NOT NULL"
        );
        for batch in snapshot.query(&sql).await?.1 {
            let references = batch.column(0).as_string::<i32>().iter().flatten();
            self.objects.extend(references.map(Path::from));
        }
        Ok(())
    }
}

/// Copies objects from lake to lake under their names.
struct Copy {
    from: Lake,
    to: Lake,
    durable: bool,
    runtime: Handle,
    copied: AtomicU64,
    bytes: AtomicU64,
}

impl Copy {
    fn all(&self, objects: &[Path], told: &mut impl FnMut(String)) -> Result<(), RebuildError> {
        let next = AtomicU64::new(0);
        let copy = || {
            while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                self.one(object).map_err(|source| RebuildError::Copy {
                    object: object.to_string(),
                    source,
                })?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let copies: Vec<_> = (0..COPIES).map(|_| scope.spawn(copy)).collect();
            let mut last = Instant::now();
            while !copies.iter().all(ScopedJoinHandle::is_finished) {
                std::thread::sleep(LOOK);
                if last.elapsed() >= TELL {
                    last = Instant::now();
                    let copied = self.copied.load(Ordering::Relaxed);
                    told(format!("copied {copied} of {} objects", objects.len()));
                }
            }
            let mut copies = copies.into_iter();
            copies.try_for_each(|copy| copy.join().expect("a copy returns its failure"))
        })
    }

    fn one(&self, object: &Path) -> io::Result<()> {
        let found = self.runtime.block_on(self.from.store.get(object))?;
        let size = found.meta.size;
        let mut bytes = Stored {
            runtime: self.runtime.clone(),
            stream: found.into_stream(),
            chunk: Bytes::new(),
        };
        self.to.put_stream(object, &mut bytes, self.durable, &self.runtime)?;
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

/// An object's bytes as they come.
struct Stored {
    runtime: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.try_next())? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let n = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// Commits the first snapshot of the new lake.
fn seed(dataflow: &Dataflow, wiring: &Wiring, past: Past, lake: &Lake, runtime: &Handle) -> Result<(), RebuildError> {
    let specs: Vec<TableSpec> = wiring.specs[..wiring.first_table].to_vec();
    let settings = Settings {
        retention: dataflow.history,
        guard: dataflow.guard,
        ..Settings::new(&dataflow.name, 1, dataflow.durable)
    };
    let (committer, restored) = Committer::open(lake.clone(), specs.clone(), settings, runtime.clone())?;
    let mut writer = Writer::new(
        WriterConfig {
            writer: 0,
            writers: 1,
            generation: restored.generation,
            specs: Arc::new(specs),
            store: lake.store.clone(),
            root: Path::default(),
            local: lake.local.clone(),
            durable: dataflow.durable,
            runtime: runtime.clone(),
            limits: Limits::default(),
            relocations: committer.relocations(),
        },
        Loaded::default(),
    )?;
    let epoch = past.epoch;
    writer.observe(Arrival::Rows {
        table: wiring.dead_letters,
        updates: past.letters.into_iter().map(|letter| (letter, epoch, 1)).collect(),
    })?;
    let prepared = writer.observe(Arrival::Seal { epoch })?;
    let mut prepared = prepared.expect("a seal is answered");
    let bronze = past.bronze.into_iter().map(|(table, files)| {
        let adds = files.into_iter().map(|file| AddFile {
            data_change: true,
            ..file
        });
        let batch = Batch {
            adds: adds.collect(),
            data_change: true,
            ..Batch::default()
        };
        (table, batch)
    });
    prepared
        .tables
        .extend(bronze.filter(|(_, batch)| !batch.adds.is_empty()));
    prepared.progress = past.progress.into_iter().collect();
    let (parts, waiting) = bounded::<Prepared>(1);
    let (events, _committed) = bounded(4);
    parts.send(prepared).expect("the receiver is here");
    drop(parts);
    Ok(committer.run(waiting, events)?)
}
