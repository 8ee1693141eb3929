//! Rebuilds a lake: sends the Bronze of one lake through the same graph into another lake, which is empty.
//!
//! ```text
//! old lake, one snapshot: bronze files, archived drops, dead letters, progress
//!        | copied                                                               \-> first snapshot of the new lake
//!        v                                                                                   |
//! new lake: a lake whose tables were lost --a restart without feeds: Bronze through the graph--> second snapshot
//! ```
//! Tables are computed in no second way: the first snapshot turns the new lake into one whose tables a restart has to
//! repair. That snapshot is one atomic commit. A rebuild that stops before it leaves unreferenced files, in a lake
//! that the next rebuild refuses as not empty; one that stops after it leaves a lake that any run continues. The
//! snapshot contains the progress, so feeds are resumed where the old lake stood. The old lake is only read, as of one
//! snapshot, which also works while a run writes to it.
//!
//! Two things are not taken over: the history of the old tables, and the Bronze of inputs that the definition no
//! longer has. An input without Bronze is read again from its feeds, as in any restart.

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

use super::{Options, RunError, RunOutcome, Wiring, runtime};
use crate::definition::Dataflow;
use crate::evolve;
use crate::lake::{Lake, LakeError, bronze_input, file_location};
use crate::repr::{Epoch, FeedPositions, Row};
use crate::serve::{self, LakeSnapshot, QueryError};
use crate::sink::{
    AddFile, CommitError, CommitSettings, Committer, LedgerError, LoadedWriter, LogError, Prepared, SinkWriter,
    TableBatch, TableSpec, WriterConfig, WriterError, WriterLimits, WriterMessage, log,
};

/// How many objects are copied at once.
const COPIES: usize = 4;
/// How often the progress of copying is reported, and how often it is checked whether copying has ended.
const TELL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// The result of a rebuild.
#[derive(Debug)]
pub struct Rebuilt {
    /// The snapshot of the old lake that was read.
    pub from: Epoch,
    /// How many objects were copied: Bronze files, archived files and schemas.
    pub copied: u64,
    /// The size of these objects in bytes.
    pub bytes: u64,
    /// How many dead letters were taken over.
    pub letters: u64,
    /// The outcome of the run that computed the tables. Its corrections count every row of them.
    pub outcome: RunOutcome,
}

/// Why a lake could not be rebuilt. The old lake is unchanged in any case.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// The new lake's folder is not empty.
    #[error("could not rebuild into {lake}: it is not empty; name a new folder, or delete what is there")]
    NotEmpty {
        /// The new lake.
        lake: String,
    },
    /// A Bronze file has a deletion vector, because another writer deleted rows.
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
        /// Its path relative to the lake.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A lake could not be listed.
    #[error("could not list {lake}")]
    List {
        /// Which lake.
        lake: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A lake could not be opened.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The old lake's tables could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The log of an old table could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The old lake's ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The first snapshot could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The files of the first snapshot could not be written.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The run that computes the tables failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Rebuilds the tables of `dataflow`, whose lake is the old one, in a new lake at `into`. Calls `say` with a line of
/// text for each step.
pub fn rebuild(
    dataflow: &Dataflow,
    into: &str,
    options: Options,
    mut say: impl FnMut(String),
) -> Result<Rebuilt, RebuildError> {
    let runtime = runtime().map_err(|source| RunError::Thread {
        what: "the runtime",
        source,
    })?;
    let from = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let target = Lake::make(into, &dataflow.store_options)?.with_durability(dataflow.durable);
    let mut new = dataflow.clone();
    new.lake = into.to_string();
    let (known, graph) = runtime.block_on(evolve::known(&new, &from)).map_err(RunError::from)?;
    let first_object = runtime.block_on(target.store.list(None).next());
    match first_object {
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
    let copy = ObjectCopier {
        from,
        to: target,
        runtime: runtime.handle().clone(),
        copied: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let past = runtime.block_on(OldLake::read(&copy.from, &wiring))?;
    say(format!("snapshot {} of {}", past.epoch, dataflow.lake));
    copy.copy_all(&past.objects, &mut say)?;
    let (copied, bytes) = (copy.copied.load(Ordering::Relaxed), copy.bytes.load(Ordering::Relaxed));
    let letters = past.letters.len() as u64;
    say(format!(
        "copied {copied} objects of Bronze and archived drops, {bytes} bytes; {letters} dead letters"
    ));
    let from = past.epoch;
    seed(&new, &wiring, past, &copy.to, runtime.handle())?;
    say("the past goes through the graph".to_string());
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

/// What is read of the old lake: the content of the first snapshot of the new one.
struct OldLake {
    epoch: Epoch,
    progress: FeedPositions,
    /// The files of each Bronze table, with the table's index into the specs.
    bronze: Vec<(usize, Vec<AddFile>)>,
    letters: Vec<Row>,
    /// The objects to copy, by their paths relative to the lake.
    objects: Vec<Path>,
}

impl OldLake {
    async fn read(lake: &Lake, wiring: &Wiring) -> Result<OldLake, RebuildError> {
        let snapshot = LakeSnapshot::open(lake, None).await?;
        let mut past = OldLake {
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
        // Schemas: decoding Bronze needs them, and they decide which columns inputs have.
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

    /// Adds the archived files that a Bronze table refers to.
    async fn take_archived(&mut self, snapshot: &LakeSnapshot, table: &str) -> Result<(), QueryError> {
        let input = bronze_input(table).expect("it is called with Bronze tables alone");
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

/// Copies objects from one lake to another under the same names.
struct ObjectCopier {
    from: Lake,
    to: Lake,
    runtime: Handle,
    copied: AtomicU64,
    bytes: AtomicU64,
}

impl ObjectCopier {
    fn copy_all(&self, objects: &[Path], say: &mut impl FnMut(String)) -> Result<(), RebuildError> {
        let next = AtomicU64::new(0);
        let copy = || {
            while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                self.copy_one(object).map_err(|source| RebuildError::Copy {
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
                    say(format!("copied {copied} of {} objects", objects.len()));
                }
            }
            let mut copies = copies.into_iter();
            copies.try_for_each(|copy| copy.join().expect("a copy returns its failure"))
        })
    }

    fn copy_one(&self, object: &Path) -> io::Result<()> {
        let stored = self.runtime.block_on(self.from.store.get(object))?;
        let size = stored.meta.size;
        let mut bytes = ObjectReader {
            runtime: self.runtime.clone(),
            stream: stored.into_stream(),
            chunk: Bytes::new(),
        };
        self.to.put_stream(object, &mut bytes, &self.runtime)?;
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

/// A stored object as a blocking reader.
struct ObjectReader {
    runtime: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for ObjectReader {
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
fn seed(
    dataflow: &Dataflow,
    wiring: &Wiring,
    past: OldLake,
    lake: &Lake,
    runtime: &Handle,
) -> Result<(), RebuildError> {
    let specs: Vec<TableSpec> = wiring.specs[..wiring.first_table].to_vec();
    let mut settings = CommitSettings::new(&dataflow.name, 1);
    settings.policy.retention = dataflow.history;
    settings.policy.guard = dataflow.guard;
    let (committer, restored) = Committer::open(lake.clone(), specs.clone(), settings, runtime.clone())?;
    let mut writer = SinkWriter::new(
        WriterConfig {
            writer: 0,
            writers: 1,
            generation: restored.generation,
            specs: Arc::new(specs),
            lake: lake.clone(),
            runtime: runtime.clone(),
            limits: WriterLimits::default(),
            relocations: committer.relocations(),
        },
        LoadedWriter::default(),
    )?;
    let epoch = past.epoch;
    writer.observe(WriterMessage::Rows {
        table: wiring.dead_letters,
        updates: past.letters.into_iter().map(|letter| (letter, epoch, 1)).collect(),
    })?;
    let prepared = writer.observe(WriterMessage::Seal { epoch })?;
    let mut prepared = prepared.expect("a seal is answered");
    let bronze = past.bronze.into_iter().map(|(table, files)| {
        let adds = files.into_iter().map(|file| AddFile {
            data_change: true,
            ..file
        });
        let batch = TableBatch {
            adds: adds.collect(),
            data_change: true,
            ..TableBatch::default()
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
