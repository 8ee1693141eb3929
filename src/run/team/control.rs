//! The messages between the processes of a run: commands from process 0, and reports from the others.
//!
//! A message consists of a `u32` length, JSON of that length, and the bitmaps and histograms that the JSON refers to,
//! in its order. Reports of one process arrive in order: `taken` and violations of an epoch no later than the frontier
//! behind it, and a writer's part of a snapshot after its part of the snapshot before.

use std::collections::BTreeMap;
use std::io::{self, Read};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use roaring::RoaringTreemap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decode::skip::Skip;
use crate::evolve::{AcceptedColumns, NewSchemaFields};
use crate::latency::{InputLatency, Stage};
use crate::repr::{Epoch, PartitionId, Position};
use crate::run::board::Epochs;
use crate::run::past::PastSources;
use crate::sink::{AddFile, ChangeFile, LiveFile, Prepared, Restored, TableBatch};
use crate::source::FeedStatus;

/// A command from process 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProcessCommand {
    /// Load this past, build the graph, and report [`ProcessReport::Ready`].
    Start(Box<StartCommand>),
    /// An epoch was opened.
    Open(Epoch),
    /// Prepare the snapshot at this epoch. From the first one on, workers take what feeds bring.
    Seal(Epoch),
    /// Log which inputs and tables are behind.
    Ask,
    /// Read no more.
    Drain,
    /// A snapshot was committed.
    Committed(Epoch),
    /// Everything is committed: end.
    Stop {
        /// Whether the run begins anew.
        again: bool,
    },
    /// The run failed with this error: end.
    Failed(String),
}

/// What another process needs to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartCommand {
    /// The epochs at which the run begins.
    pub epochs: Epochs,
    /// The generation of the run.
    pub generation: u64,
    /// The newest snapshot.
    pub epoch: Option<Epoch>,
    /// How the past is restored, if there is one.
    pub sources: Option<PastSources>,
    /// How far feeds were read as of the newest snapshot.
    pub progress: Vec<(PartitionId, Position)>,
    /// The live files of each table.
    tables: Vec<Vec<FileHead>>,
    /// Whether feeds end once they have delivered everything that exists.
    pub stop_at_end: bool,
    /// The columns that inputs take from schemas in addition to the definition's.
    pub taken: AcceptedColumns,
    /// Records to skip.
    pub skips: Vec<Skip>,
}

/// A [`LiveFile`] without its bitmap.
#[derive(Debug, Serialize, Deserialize)]
struct FileHead {
    path: String,
    partition_values: BTreeMap<String, Option<String>>,
    size: u64,
    rows: u64,
}

/// A report to process 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProcessReport {
    /// The graph is built.
    Ready,
    /// What changed since the last report.
    Progress(ProcessProgress),
    /// A writer's part of a snapshot.
    Prepared(Box<PreparedHead>),
    /// Whether every feed of this process is exhausted and everything it delivered is taken.
    CaughtUp(bool),
    /// No feed is read any more, and everything that was read is taken.
    Drained,
    /// Somebody asked this process to stop.
    Stop,
    /// A feed of this process holds records back at a schema with new fields.
    Evolves(NewSchemaFields),
    /// Figures for people.
    Figures(Box<FiguresHead>),
    /// All threads of this process have ended.
    Done,
    /// This process failed with this error.
    Failed(String),
}

/// The part of [`crate::run::board::Board`] that process 0 needs.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessProgress {
    /// The frontier over the workers of this process.
    pub frontier: Epoch,
    /// The newest epoch that something was taken into since the last report; 0 if nothing was.
    pub taken: Epoch,
    /// Whether a worker has taken as much into the open epoch as it may.
    pub full: bool,
    /// Whether so much was taken here that a snapshot is due.
    pub heavy: bool,
    /// Whether the workers of this process have taken the whole past.
    pub replayed: bool,
    /// Rows that violate an expectation with `on_violation = "fail"`: the epoch, how many more, and one of them.
    pub violations: Vec<(Epoch, i64, Vec<u8>)>,
}

/// A [`Prepared`] without its bitmaps.
#[derive(Debug, Serialize, Deserialize)]
pub struct PreparedHead {
    writer: usize,
    epoch: Epoch,
    tables: Vec<(usize, BatchHead)>,
    progress: Vec<(PartitionId, Position)>,
    /// By table, how many rows the audits of this process's writers have corrected so far.
    corrections: Vec<u64>,
    /// See [`Prepared::learned`].
    learned: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct BatchHead {
    adds: Vec<AddFile>,
    deletes: Vec<String>,
    removes: Vec<String>,
    changes: Vec<ChangeFile>,
    data_change: bool,
}

/// What a process adds to the figures of the run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FiguresHead {
    /// For each input the numbers of records, replayed records, rejected records and rejected files since the last
    /// figures.
    pub inputs: Vec<[u64; 4]>,
    /// Fields that no column takes, since the last figures, as (input, name, records).
    pub ignored: Vec<(usize, String, u64)>,
    /// The status of the feeds.
    pub feeds: Vec<FeedStatus>,
    /// Latencies since the last figures, as (input, values out of scale, length in bytes of each stage's histogram).
    pub latencies: Vec<(usize, u64, [u32; Stage::COUNT])>,
}

/// Why a message could not be parsed. No process of the same version sends such a message.
pub type GarbledMessage = Box<dyn std::error::Error + Send + Sync>;

/// Encodes a message, and appends the bytes that its JSON refers to.
pub fn encode(message: &impl Serialize, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data, written to memory");
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(more);
    bytes
}

/// Decodes the JSON of a message, and returns it with the bytes behind it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), GarbledMessage> {
    let (length, rest) = bytes.split_first_chunk().ok_or("no length")?;
    let length = u32::from_be_bytes(*length) as usize;
    let (json, more) = rest.split_at_checked(length).ok_or("too short")?;
    Ok((serde_json::from_slice(json)?, more))
}

fn put(bitmap: &RoaringTreemap, more: &mut Vec<u8>) {
    bitmap.serialize_into(more).expect("memory takes all");
}

impl StartCommand {
    /// Encodes the message, with the live files of the `tables` that the receiving process needs.
    pub fn encode(mut self, tables: &[Vec<LiveFile>]) -> Vec<u8> {
        let mut more = Vec::new();
        let head = |file: &LiveFile, more: &mut Vec<u8>| {
            put(&file.deleted, more);
            FileHead {
                path: file.path.clone(),
                partition_values: file.partition_values.clone(),
                size: file.size,
                rows: file.rows,
            }
        };
        self.tables = tables
            .iter()
            .map(|files| files.iter().map(|file| head(file, &mut more)).collect())
            .collect();
        encode(&ProcessCommand::Start(Box::new(self)), &more)
    }

    /// Makes a command without tables.
    pub fn new(epochs: Epochs, restored: &Restored, sources: Option<PastSources>, stop_at_end: bool) -> Self {
        let progress = restored.progress.iter();
        StartCommand {
            epochs,
            generation: restored.generation,
            epoch: restored.epoch,
            sources,
            progress: progress.map(|(id, position)| (id.clone(), position.clone())).collect(),
            tables: vec![],
            stop_at_end,
            taken: AcceptedColumns::default(),
            skips: vec![],
        }
    }

    /// Takes the live files of the tables out of the command; `more` is what followed the JSON.
    pub fn tables(&mut self, mut more: &[u8]) -> io::Result<Vec<Vec<LiveFile>>> {
        let tables = std::mem::take(&mut self.tables).into_iter();
        tables
            .map(|files| {
                let files = files.into_iter().map(|file| {
                    Ok(LiveFile {
                        path: file.path,
                        partition_values: file.partition_values,
                        size: file.size,
                        rows: file.rows,
                        deleted: RoaringTreemap::deserialize_from(&mut more)?,
                    })
                });
                files.collect()
            })
            .collect()
    }
}

impl PreparedHead {
    /// Encodes the message.
    pub fn encode(part: Prepared, corrections: Vec<u64>) -> Vec<u8> {
        let mut more = Vec::new();
        let Prepared {
            writer,
            epoch,
            tables,
            progress,
            learned,
        } = part;
        let mut head = |batch: TableBatch| {
            let TableBatch {
                adds,
                deletes,
                removes,
                changes,
                data_change,
            } = batch;
            let named = deletes.into_iter().map(|(path, rows)| {
                put(&rows, &mut more);
                path
            });
            BatchHead {
                deletes: named.collect(),
                adds,
                removes,
                changes,
                data_change,
            }
        };
        let head = PreparedHead {
            writer,
            epoch,
            tables: tables.into_iter().map(|(table, batch)| (table, head(batch))).collect(),
            progress,
            learned,
            corrections,
        };
        encode(&ProcessReport::Prepared(Box::new(head)), &more)
    }

    /// Decodes the part, and the corrections of its process's writers; `more` is what followed the JSON.
    pub fn decode(self, mut more: &[u8]) -> io::Result<(Prepared, Vec<u64>)> {
        let batch = |batch: BatchHead| {
            let deletes = batch.deletes.into_iter().map(|path| {
                let rows = RoaringTreemap::deserialize_from(&mut more)?;
                Ok((path, rows))
            });
            Ok::<_, io::Error>(TableBatch {
                deletes: deletes.collect::<io::Result<_>>()?,
                adds: batch.adds,
                removes: batch.removes,
                changes: batch.changes,
                data_change: batch.data_change,
            })
        };
        let mut batch = batch;
        let tables = self.tables.into_iter().map(|(table, head)| Ok((table, batch(head)?)));
        let part = Prepared {
            writer: self.writer,
            epoch: self.epoch,
            tables: tables.collect::<io::Result<_>>()?,
            progress: self.progress,
            learned: self.learned,
        };
        Ok((part, self.corrections))
    }
}

impl FiguresHead {
    /// Encodes the message, with these latencies.
    pub fn encode(mut self, latencies: &[InputLatency]) -> Vec<u8> {
        let mut more = Vec::new();
        let mut serializer = V2Serializer::new();
        for part in latencies {
            let mut lengths = [0; Stage::COUNT];
            for (length, histogram) in lengths.iter_mut().zip(&part.stages) {
                let written = serializer.serialize(histogram, &mut more);
                *length = written.expect("histograms of an hour fit, and memory takes all") as u32;
            }
            self.latencies.push((part.input, part.out_of_scale, lengths));
        }
        encode(&ProcessReport::Figures(Box::new(self)), &more)
    }

    /// Decodes the latencies; `more` is what followed the JSON.
    pub fn latencies(&self, mut more: &[u8]) -> Result<Vec<InputLatency>, GarbledMessage> {
        let mut deserializer = Deserializer::new();
        let mut parts = Vec::new();
        for (input, out_of_scale, lengths) in &self.latencies {
            let mut histogram = |length: u32| -> Result<Histogram<u64>, GarbledMessage> {
                let mut own = (&mut more).take(u64::from(length));
                Ok(deserializer.deserialize(&mut own).map_err(|e| format!("{e:?}"))?)
            };
            let stages: Vec<Histogram<u64>> = lengths
                .iter()
                .map(|length| histogram(*length))
                .collect::<Result<_, _>>()?;
            parts.push(InputLatency {
                input: *input,
                out_of_scale: *out_of_scale,
                stages: stages.try_into().expect("there are as many as lengths"),
            });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_snapshot_arrives_as_it_was() {
        let add = AddFile {
            path: "a b.parquet".into(),
            partition_values: BTreeMap::from([("day".into(), None), ("country".into(), Some("É\"".into()))]),
            size: u64::MAX,
            modification_time: -1,
            data_change: true,
            stats: Some("{\"numRecords\":3}".into()),
            deletion_vector: None,
        };
        let change = ChangeFile {
            path: "_change_data/c".into(),
            partition_values: BTreeMap::new(),
            size: 9,
            data_change: false,
        };
        let id = PartitionId {
            input: "orders".into(),
            feed: "live".into(),
            partition: "0".into(),
        };
        let position = Position {
            next: 1 << 60,
            done: true,
            tag: None,
            ..Position::default()
        };
        let part = || Prepared {
            writer: 3,
            epoch: 1_795_260_472_387,
            tables: vec![
                (
                    7,
                    TableBatch {
                        adds: vec![add.clone()],
                        deletes: vec![("x".into(), [1, 5, 1 << 40].into_iter().collect())],
                        removes: vec!["gone".into()],
                        changes: vec![change.clone()],
                        data_change: true,
                    },
                ),
                (8, TableBatch::default()),
                (
                    9,
                    TableBatch {
                        deletes: vec![("y".into(), RoaringTreemap::new()), ("z".into(), (0..9000).collect())],
                        ..TableBatch::default()
                    },
                ),
            ],
            progress: vec![(id.clone(), position.clone())],
            learned: 2,
        };
        let bytes = PreparedHead::encode(part(), vec![0, 5]);
        let (report, more) = decode(&bytes).expect("a report");
        let ProcessReport::Prepared(head) = report else {
            panic!("{report:?}")
        };
        let (decoded, corrections) = head.decode(more).expect("bitmaps");
        assert_eq!(format!("{decoded:?}"), format!("{:?}", part()));
        assert_eq!(corrections, [0, 5]);
        for cut in 0..bytes.len() {
            let read = decode::<ProcessReport>(&bytes[..cut]).and_then(|(report, more)| match report {
                ProcessReport::Prepared(head) => Ok(head.decode(more)?),
                other => panic!("{other:?}"),
            });
            assert!(read.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_start_arrives_as_it_was() {
        let file = LiveFile {
            path: "f".into(),
            partition_values: BTreeMap::from([("p".into(), Some("1".into()))]),
            size: 5,
            rows: 10,
            deleted: [2, 4].into_iter().collect(),
        };
        let tables = vec![vec![file.clone()], vec![], vec![file.clone(), file]];
        let restored = Restored {
            epoch: Some(4),
            generation: 6,
            progress: BTreeMap::new(),
            tables: vec![],
            altered: vec![],
            versions: vec![],
            plan: None,
        };
        let epochs = Epochs::new(Some(9), 4, 20);
        let bytes = StartCommand::new(epochs, &restored, None, true).encode(&tables);
        let (command, more) = decode(&bytes).expect("a command");
        let ProcessCommand::Start(mut start) = command else {
            panic!("{command:?}")
        };
        assert_eq!((start.epochs, start.generation, start.epoch), (epochs, 6, Some(4)));
        assert!(start.stop_at_end && start.sources.is_none());
        let decoded = start.tables(more).expect("bitmaps");
        assert_eq!(format!("{decoded:?}"), format!("{tables:?}"));
    }

    #[test]
    fn latencies_arrive_as_they_were() {
        let histogram = |values: &[u64]| {
            let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("valid bounds");
            values.iter().for_each(|v| histogram.saturating_record(*v));
            histogram
        };
        let part = InputLatency {
            input: 1,
            out_of_scale: 7,
            stages: [
                histogram(&[1, 50_000, 50_001]),
                histogram(&[]),
                histogram(&[3_599_999_999]),
                histogram(&[]),
                histogram(&[7]),
                histogram(&[]),
            ],
        };
        let bytes = FiguresHead::default().encode(std::slice::from_ref(&part));
        let (report, more) = decode(&bytes).expect("a report");
        let ProcessReport::Figures(figures) = report else {
            panic!("{report:?}")
        };
        let decoded = figures.latencies(more).expect("histograms");
        assert_eq!(decoded.len(), 1);
        assert_eq!((decoded[0].input, decoded[0].out_of_scale), (1, 7));
        assert!(decoded[0].stages == part.stages);
    }
}
