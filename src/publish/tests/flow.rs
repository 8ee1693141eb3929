//! A lake of tables with a key and a value, to which a test commits freely, and channels to brokers in memory.

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
use crate::definition::{ClientOptions, Deletes, KafkaClient, Output, TopicFormat};
use crate::lake::Lake;
use crate::publish::channel::{Channel, SnapshotSource};
use crate::publish::{ChannelTable, PublishError};
use crate::registry::Registries;
use crate::repr::{Epoch, RowCodec};
use crate::sink::{
    CommitError, CommitEvent, CommitSettings, Committer, Prepared, SinkWriter, TableSpec, WriterConfig, WriterLimits,
    WriterMessage, restore,
};

/// A column: name, type, and whether it may be null.
pub type RecordColumn = (&'static str, DataType, bool);

pub const ID: RecordColumn = ("id", DataType::Int64, false);
pub const STATE: RecordColumn = ("state", DataType::Utf8, true);

/// A table that is published to the topic of its name.
pub fn spec(name: &str, columns: &[RecordColumn]) -> TableSpec {
    let fields = columns
        .iter()
        .map(|(name, of_type, nullable)| Field::new(*name, of_type.clone(), *nullable));
    TableSpec {
        name: name.into(),
        path: name.replace('.', "/"),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        partition_by: vec![],
        append_only: false,
        summation: None,
        deletes: Deletes::Auto,
        change_data_feed: true,
        description: None,
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
pub enum RecordValue {
    Number(i64),
    Text(&'static str),
    Null,
}

impl From<i64> for RecordValue {
    fn from(number: i64) -> Self {
        RecordValue::Number(number)
    }
}

impl From<&'static str> for RecordValue {
    fn from(text: &'static str) -> Self {
        RecordValue::Text(text)
    }
}

/// A row of these values: `row![1, "new"]`.
macro_rules! row {
    ($($value:expr),*) => { vec![$(crate::publish::tests::flow::RecordValue::from($value)),*] };
}
pub(super) use row;

/// A lake on the local disk.
pub struct PublishFlow {
    pub lake: Lake,
    pub runtime: Arc<Runtime>,
    _folder: tempfile::TempDir,
}

impl PublishFlow {
    pub fn new() -> PublishFlow {
        let folder = tempfile::tempdir().unwrap();
        PublishFlow {
            lake: Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap(),
            runtime: Arc::new(Runtime::new().unwrap()),
            _folder: folder,
        }
    }

    /// Starts a run of these tables, which continues from the last one.
    pub fn run(&self, specs: &[TableSpec]) -> Run {
        let mut settings = CommitSettings::new("flow", 1);
        settings.policy.full_progress_every = 1; // a test may forget any entry but the last
        let handle = self.runtime.handle().clone();
        let (committer, restored) =
            Committer::open(self.lake.clone(), specs.to_vec(), settings, handle.clone()).unwrap();
        let config = WriterConfig {
            writer: 0,
            writers: 1,
            generation: restored.generation,
            specs: Arc::new(specs.to_vec()),
            lake: self.lake.clone(),
            runtime: handle,
            limits: WriterLimits::default(),
            relocations: committer.relocations(),
        };
        let files = restored.tables.into_iter().enumerate().collect();
        let loaded = restore(&config, 0..1, files).unwrap().remove(0);
        let (parts, prepared) = unbounded();
        let (events, committed) = unbounded();
        Run {
            writer: SinkWriter::new(config, loaded).unwrap(),
            specs: specs.to_vec(),
            generation: restored.generation,
            parts,
            committed,
            thread: std::thread::spawn(move || committer.run(prepared, events)),
        }
    }

    /// A channel from a run's tables to brokers.
    pub fn channel(&self, run: &Run, cluster: &Cluster) -> Channel<Cluster> {
        self.channel_of(&run.specs, run.generation, cluster)
    }

    pub fn channel_of(&self, specs: &[TableSpec], generation: u64, cluster: &Cluster) -> Channel<Cluster> {
        Channel::new(cluster.clone(), tables(specs, "nowhere:9092"), self.origin(generation))
    }

    pub fn origin(&self, generation: u64) -> SnapshotSource {
        SnapshotSource {
            lake: self.lake.clone(),
            runtime: self.runtime.handle().clone(),
            generation,
            history: Duration::from_secs(24 * 3600),
        }
    }

    /// Deletes all but the newest `keep` entries of the ledger, as maintenance does.
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

    /// Deletes the files in a folder of the lake.
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

/// The tables with the topics of their names, keyed by column `id`; dead letters have no key.
pub fn tables(specs: &[TableSpec], brokers: &str) -> Vec<ChannelTable> {
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
                TopicFormat::AsItCame
            } else {
                TopicFormat::Json
            },
        };
        ChannelTable::new(spec, &output, &Registries::new(None)).unwrap()
    };
    specs.iter().map(table).collect()
}

/// A run: one writer and a committer.
pub struct Run {
    pub specs: Vec<TableSpec>,
    pub generation: u64,
    writer: SinkWriter,
    parts: Sender<Prepared>,
    committed: Receiver<CommitEvent>,
    thread: JoinHandle<Result<(), CommitError>>,
}

impl Run {
    /// Commits a snapshot with these changes: table, row, and 1 for an added or -1 for a removed row.
    pub fn commit(&mut self, epoch: Epoch, changes: &[(usize, Vec<RecordValue>, i64)]) -> Epoch {
        for (table, cells, diff) in changes {
            let row = encode(&self.specs[*table], cells);
            let updates = vec![(row, epoch, *diff)];
            let arrival = WriterMessage::Rows { table: *table, updates };
            assert!(self.writer.observe(arrival).unwrap().is_none());
        }
        let part = self.writer.observe(WriterMessage::Seal { epoch }).unwrap();
        self.parts.send(part.expect("a seal is answered")).unwrap();
        self.committed.recv().expect("it is committed");
        epoch
    }

    pub fn end(self) {
        drop(self.parts);
        self.thread.join().unwrap().unwrap();
    }
}

fn encode(spec: &TableSpec, cells: &[RecordValue]) -> crate::repr::Row {
    let codec = RowCodec::new(spec.schema.clone()).unwrap();
    let columns = cells.iter().zip(spec.schema.fields()).map(|(cell, field)| -> ArrayRef {
        match (cell, field.data_type()) {
            (RecordValue::Number(number), DataType::Int64) => Arc::new(Int64Array::from(vec![*number])),
            (RecordValue::Text(text), DataType::Binary) => {
                Arc::new(arrow::array::BinaryArray::from(vec![text.as_bytes()]))
            }
            (RecordValue::Text(text), _) => Arc::new(StringArray::from(vec![*text])),
            (RecordValue::Null, of_type) => arrow::array::new_null_array(of_type, 1),
            (RecordValue::Number(_), other) => panic!("a number as {other}"),
        }
    });
    codec.encode_rows(&columns.collect::<Vec<_>>(), 1).unwrap().remove(0)
}

/// Retries, up to `tries` times, while the error may pass.
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
