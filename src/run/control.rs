//! What the processes of a run tell each other: process 0 commands, the others report.
//!
//! A message is `u32` length, JSON of that length, then the bitmaps and histograms that the JSON speaks of, in its
//! order. What reaches process 0 of one process is in order: `taken` and violations of an epoch come no later than the
//! frontier behind it, a writer's part of a snapshot behind its part of the one before.

use std::collections::BTreeMap;
use std::io::{self, Read};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use roaring::RoaringTreemap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decode::skip::Skip;
use crate::evolve::{Met, Taken};
use crate::latency::{Part, Stage};
use crate::repr::Epoch;
use crate::run::epochs::Epochs;
use crate::run::past::Sources;
use crate::sink::{AddFile, Batch, ChangeFile, LiveFile, Prepared, Restored};
use crate::source::{FeedStatus, PartitionId, Position};

/// From process 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Load this, build the graph, and say when that is done.
    Start(Box<Start>),
    /// This epoch is open.
    Open(Epoch),
    /// Prepare the snapshot at this epoch; feeds may be read.
    Seal(Epoch),
    /// Log what is behind.
    Ask,
    /// Read no more.
    Drain,
    /// This snapshot is committed.
    Committed(Epoch),
    /// All is committed: end.
    Stop {
        /// And begin anew.
        again: bool,
    },
    /// The run failed: end.
    Failed(String),
}

/// What a process starts from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Where the run begins.
    pub epochs: Epochs,
    /// Of the run.
    pub generation: u64,
    /// The newest snapshot.
    pub epoch: Option<Epoch>,
    /// Where the past comes from, if there is any.
    pub sources: Option<Sources>,
    /// How far feeds are read as of it.
    pub progress: Vec<(PartitionId, Position)>,
    /// By table, its live files.
    tables: Vec<Vec<FileHead>>,
    /// Whether feeds end once they have handed over all that exists.
    pub stop_at_end: bool,
    /// What inputs take beside the definition's columns.
    pub taken: Taken,
    /// Records that are passed by.
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

/// To process 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The graph is built.
    Ready,
    /// What changed since the last one.
    Progress(Progress),
    /// A writer's part of a snapshot.
    Prepared(Box<PreparedHead>),
    /// Whether every feed here is exhausted and taken.
    CaughtUp(bool),
    /// No feed is read any more, and all that was read is taken.
    Drained,
    /// Somebody asked this process to stop.
    Stop,
    /// A feed here holds back records behind a schema with new fields.
    Evolves(Met),
    /// For people.
    Figures(Box<FiguresHead>),
    /// All has ended here.
    Done,
    /// This process failed.
    Failed(String),
}

/// See [`super::shared::Shared`].
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Every epoch before it has closed at every worker here.
    pub frontier: Epoch,
    /// The newest epoch that something was taken into; 0: none since.
    pub taken: Epoch,
    /// A worker's share of the open epoch is full.
    pub full: bool,
    /// So much was taken here that a snapshot is due.
    pub heavy: bool,
    /// Nothing of the past is left here.
    pub replayed: bool,
    /// Rows that break an expectation which must hold: from when, how many more, one of them.
    pub violations: Vec<(Epoch, i64, Vec<u8>)>,
}

/// A [`Prepared`] without its bitmaps.
#[derive(Debug, Serialize, Deserialize)]
pub struct PreparedHead {
    writer: usize,
    epoch: Epoch,
    tables: Vec<(usize, BatchHead)>,
    progress: Vec<(PartitionId, Position)>,
    /// By table, rows that audits of this process's writers corrected so far.
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
    /// By input: records, replayed, rejected, rejected files, since the last ones.
    pub inputs: Vec<[u64; 4]>,
    /// Fields that no column takes, since the last ones: input, name, records.
    pub ignored: Vec<(usize, String, u64)>,
    /// How the feeds are doing.
    pub feeds: Vec<FeedStatus>,
    /// Latencies since the last ones: input, out of scale, how long each stage's histogram is.
    pub latencies: Vec<(usize, u64, [u32; Stage::COUNT])>,
}

/// A message that no process of ours sends.
pub type Garbled = Box<dyn std::error::Error + Send + Sync>;

/// A message and what follows its JSON.
pub fn encode(message: &impl Serialize, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data, written to memory");
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(more);
    bytes
}

/// Takes a message apart.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Garbled> {
    let (length, rest) = bytes.split_first_chunk().ok_or("no length")?;
    let length = u32::from_be_bytes(*length) as usize;
    let (json, more) = rest.split_at_checked(length).ok_or("too short")?;
    Ok((serde_json::from_slice(json)?, more))
}

fn put(bitmap: &RoaringTreemap, more: &mut Vec<u8>) {
    bitmap.serialize_into(more).expect("memory takes all");
}

impl Start {
    /// The message; `tables` are those that this process needs.
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
        encode(&Command::Start(Box::new(self)), &more)
    }

    /// Without tables.
    pub fn new(epochs: Epochs, restored: &Restored, sources: Option<Sources>, stop_at_end: bool) -> Self {
        let progress = restored.progress.iter();
        Start {
            epochs,
            generation: restored.generation,
            epoch: restored.epoch,
            sources,
            progress: progress.map(|(id, position)| (id.clone(), position.clone())).collect(),
            tables: vec![],
            stop_at_end,
            taken: Taken::default(),
            skips: vec![],
        }
    }

    /// The tables' live files; `more` is what followed the message.
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
    /// The message.
    pub fn encode(part: Prepared, corrections: Vec<u64>) -> Vec<u8> {
        let mut more = Vec::new();
        let Prepared {
            writer,
            epoch,
            tables,
            progress,
            learned,
        } = part;
        let mut head = |batch: Batch| {
            let Batch {
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
        encode(&Report::Prepared(Box::new(head)), &more)
    }

    /// The part, and what its process's writers corrected; `more` is what followed the message.
    pub fn decode(self, mut more: &[u8]) -> io::Result<(Prepared, Vec<u64>)> {
        let batch = |batch: BatchHead| {
            let deletes = batch.deletes.into_iter().map(|path| {
                let rows = RoaringTreemap::deserialize_from(&mut more)?;
                Ok((path, rows))
            });
            Ok::<_, io::Error>(Batch {
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
    /// The message.
    pub fn encode(mut self, latencies: &[Part]) -> Vec<u8> {
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
        encode(&Report::Figures(Box::new(self)), &more)
    }

    /// The latencies; `more` is what followed the message.
    pub fn latencies(&self, mut more: &[u8]) -> Result<Vec<Part>, Garbled> {
        let mut deserializer = Deserializer::new();
        let mut parts = Vec::new();
        for (input, out_of_scale, lengths) in &self.latencies {
            let mut histogram = |length: u32| -> Result<Histogram<u64>, Garbled> {
                let mut own = (&mut more).take(u64::from(length));
                Ok(deserializer.deserialize(&mut own).map_err(|e| format!("{e:?}"))?)
            };
            let stages: Vec<Histogram<u64>> = lengths
                .iter()
                .map(|length| histogram(*length))
                .collect::<Result<_, _>>()?;
            parts.push(Part {
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
                    Batch {
                        adds: vec![add.clone()],
                        deletes: vec![("x".into(), [1, 5, 1 << 40].into_iter().collect())],
                        removes: vec!["gone".into()],
                        changes: vec![change.clone()],
                        data_change: true,
                    },
                ),
                (8, Batch::default()),
                (
                    9,
                    Batch {
                        deletes: vec![("y".into(), RoaringTreemap::new()), ("z".into(), (0..9000).collect())],
                        ..Batch::default()
                    },
                ),
            ],
            progress: vec![(id.clone(), position.clone())],
            learned: 2,
        };
        let bytes = PreparedHead::encode(part(), vec![0, 5]);
        let (report, more) = decode(&bytes).expect("a report");
        let Report::Prepared(head) = report else {
            panic!("{report:?}")
        };
        let (decoded, corrections) = head.decode(more).expect("bitmaps");
        assert_eq!(format!("{decoded:?}"), format!("{:?}", part()));
        assert_eq!(corrections, [0, 5]);
        for cut in 0..bytes.len() {
            let read = decode::<Report>(&bytes[..cut]).and_then(|(report, more)| match report {
                Report::Prepared(head) => Ok(head.decode(more)?),
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
        let bytes = Start::new(epochs, &restored, None, true).encode(&tables);
        let (command, more) = decode(&bytes).expect("a command");
        let Command::Start(mut start) = command else {
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
        let part = Part {
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
        let Report::Figures(figures) = report else {
            panic!("{report:?}")
        };
        let decoded = figures.latencies(more).expect("histograms");
        assert_eq!(decoded.len(), 1);
        assert_eq!((decoded[0].input, decoded[0].out_of_scale), (1, 7));
        assert!(decoded[0].stages == part.stages);
    }
}
