//! A lake with tables of a key and a value, to which a test commits what it likes; and channels to made-up brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use crossbeam_channel::{Receiver, Sender, unbounded};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::runtime::Runtime;

use super::brokers::Cluster;
use crate::definition::{ClientOptions, Deletes, KafkaClient, Output, OutputFormat};
use crate::publish::channel::{Channel, Origin};
use crate::publish::{PublishError, Table};
use crate::registry::Registries;
use crate::repr::{Epoch, RowCodec};
use crate::sink::{
    Arrival, CommitError, CommitEvent, Committer, Lake, Limits, Prepared, Settings, TableSpec, Writer, WriterConfig,
    restore,
};

/// A column: name, type, and whether it may be null.
pub type Column = (&'static str, DataType, bool);

pub const ID: Column = ("id", DataType::Int64, false);
pub const STATE: Column = ("state", DataType::Utf8, true);

/// A table that goes to the topic of its name.
pub fn spec(name: &str, columns: &[Column]) -> TableSpec {
    let fields = columns
        .iter()
        .map(|(name, of_type, nullable)| Field::new(*name, of_type.clone(), *nullable));
    TableSpec {
        name: name.into(),
        path: name.replace('.', "/"),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        partition_by: vec![],
        append_only: false,
        fold: None,
        deletes: Deletes::Auto,
        change_data_feed: true,
        description: None,
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
pub enum Cell {
    Number(i64),
    Text(&'static str),
    Null,
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Self {
        Cell::Text(text)
    }
}

/// A row of these values: `row![1, "new"]`.
macro_rules! row {
    ($($value:expr),*) => { vec![$(crate::publish::tests::flow::Cell::from($value)),*] };
}
pub(super) use row;

/// A lake on the disk.
pub struct Flow {
    pub lake: Lake,
    pub runtime: Arc<Runtime>,
    _folder: tempfile::TempDir,
}

impl Flow {
    pub fn new() -> Flow {
        let folder = tempfile::tempdir().unwrap();
        Flow {
            lake: Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap(),
            runtime: Arc::new(Runtime::new().unwrap()),
            _folder: folder,
        }
    }

    /// A run of these tables, which goes on from the last.
    pub fn run(&self, specs: &[TableSpec]) -> Run {
        let mut settings = Settings::new("flow", 1, false);
        settings.full_progress_every = 1; // a test may forget any entry but the last
        let handle = self.runtime.handle().clone();
        let (committer, restored) =
            Committer::open(self.lake.clone(), specs.to_vec(), settings, handle.clone()).unwrap();
        let config = WriterConfig {
            writer: 0,
            writers: 1,
            generation: restored.generation,
            specs: Arc::new(specs.to_vec()),
            store: self.lake.store.clone(),
            root: Path::default(),
            local: self.lake.local.clone(),
            durable: false,
            runtime: handle,
            limits: Limits::default(),
            relocations: committer.relocations(),
        };
        let files = restored.tables.into_iter().enumerate().collect();
        let loaded = restore(&config, 0..1, files).unwrap().remove(0);
        let (parts, prepared) = unbounded();
        let (events, committed) = unbounded();
        Run {
            writer: Writer::new(config, loaded).unwrap(),
            specs: specs.to_vec(),
            generation: restored.generation,
            parts,
            committed,
            thread: std::thread::spawn(move || committer.run(prepared, events)),
        }
    }

    /// A channel of a run's tables to brokers.
    pub fn channel(&self, run: &Run, cluster: &Cluster) -> Channel<Cluster> {
        self.channel_of(&run.specs, run.generation, cluster)
    }

    pub fn channel_of(&self, specs: &[TableSpec], generation: u64, cluster: &Cluster) -> Channel<Cluster> {
        Channel::new(cluster.clone(), tables(specs, "nowhere:9092"), self.origin(generation))
    }

    pub fn origin(&self, generation: u64) -> Origin {
        Origin {
            lake: self.lake.clone(),
            runtime: self.runtime.handle().clone(),
            generation,
            history: Duration::from_secs(24 * 3600),
        }
    }

    /// Forgets the ledger's entries before the newest `keep`, as maintenance does. What a run that ended committed is
    /// recorded elsewhere.
    pub fn forget(&self, keep: usize) {
        self.runtime.block_on(async {
            let folder = Path::from("_alluvium/ledger");
            let mut entries: Vec<Path> = self
                .lake
                .store
                .list(Some(&folder))
                .map(|entry| entry.unwrap().location)
                .collect()
                .await;
            entries.sort();
            for entry in entries.iter().rev().skip(keep) {
                self.lake.store.delete(entry).await.unwrap();
            }
        });
    }

    /// Removes the files of a folder of the lake.
    pub fn remove_files(&self, folder: &str) {
        self.runtime.block_on(async {
            let files: Vec<Path> = self
                .lake
                .store
                .list(Some(&Path::from(folder)))
                .map(|file| file.unwrap().location)
                .collect()
                .await;
            assert!(!files.is_empty(), "{folder} has files");
            for file in files {
                self.lake.store.delete(&file).await.unwrap();
            }
        });
    }
}

/// Tables with the topics of their names, by their column `id`; dead letters have no key.
pub fn tables(specs: &[TableSpec], brokers: &str) -> Vec<Table> {
    let table = |spec: &TableSpec| {
        let is_letters = spec.name == "dead_letters";
        let output = Output {
            client: KafkaClient {
                brokers: brokers.into(),
                options: ClientOptions::default(),
            },
            topic: spec.name.clone(),
            key: if is_letters { vec![] } else { vec!["id".into()] },
            format: if is_letters {
                OutputFormat::AsItCame
            } else {
                OutputFormat::Json
            },
        };
        Table::new(spec, &output, &Registries::new(None)).unwrap()
    };
    specs.iter().map(table).collect()
}

/// A run: a writer and a committer.
pub struct Run {
    pub specs: Vec<TableSpec>,
    pub generation: u64,
    writer: Writer,
    parts: Sender<Prepared>,
    committed: Receiver<CommitEvent>,
    thread: JoinHandle<Result<(), CommitError>>,
}

impl Run {
    /// Commits a snapshot: by table, rows that come (1) and go (-1).
    pub fn commit(&mut self, epoch: Epoch, changes: &[(usize, Vec<Cell>, i64)]) -> Epoch {
        for (table, cells, diff) in changes {
            let row = encode(&self.specs[*table], cells);
            let updates = vec![(row, epoch, *diff)];
            let arrival = Arrival::Rows { table: *table, updates };
            assert!(self.writer.observe(arrival).unwrap().is_none());
        }
        let part = self.writer.observe(Arrival::Seal { epoch }).unwrap();
        self.parts.send(part.expect("a seal is answered")).unwrap();
        self.committed.recv().expect("it is committed");
        epoch
    }

    pub fn end(self) {
        drop(self.parts);
        self.thread.join().unwrap().unwrap();
    }
}

fn encode(spec: &TableSpec, cells: &[Cell]) -> crate::repr::Row {
    let codec = RowCodec::new(spec.schema.clone()).unwrap();
    let columns = cells.iter().zip(spec.schema.fields()).map(|(cell, field)| -> ArrayRef {
        match (cell, field.data_type()) {
            (Cell::Number(number), DataType::Int64) => Arc::new(Int64Array::from(vec![*number])),
            (Cell::Text(text), DataType::Binary) => Arc::new(arrow::array::BinaryArray::from(vec![text.as_bytes()])),
            (Cell::Text(text), _) => Arc::new(StringArray::from(vec![*text])),
            (Cell::Null, of_type) => arrow::array::new_null_array(of_type, 1),
            (Cell::Number(_), other) => panic!("a number as {other}"),
        }
    });
    codec.encode_rows(&columns.collect::<Vec<_>>(), 1).unwrap().remove(0)
}

/// Tries again while what fails may pass, so many times.
pub fn catch_up(channel: &mut Channel<Cluster>, upto: Epoch, tries: usize) -> Result<(), PublishError> {
    let mut done = channel.catch_up(upto);
    for _ in 1..tries {
        match &done {
            Err(error) if error.may_pass() => done = channel.catch_up(upto),
            _ => break,
        }
    }
    done
}
