//! Feeds from end to end: real threads, real files, and a decoder that only passes records on. This module has the
//! shared helpers.

mod files;
mod generate;
mod kafka;
mod log;
mod readers;
mod real;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;

use super::batch::nothing;
use super::*;
use crate::decode::{Payloads, Raw};
use crate::definition::{
    Changed, Column, Dataflow, Feed, FeedKind, FileFeed, Format, Generate, Input, LogFeed, LogRules, OnMissing,
};
use crate::repr::{FeedPositions, PartitionId, SqlType};

pub(in crate::source) fn input(name: &str, feeds: Vec<(&str, FeedKind, Format)>) -> Input {
    let column = Column {
        name: "a".into(),
        sql_type: SqlType::Varchar,
        nullable: false,
        from: vec!["a".into()],
        format: vec![],
        null: vec![],
    };
    Input {
        name: name.into(),
        description: None,
        columns: vec![column],
        key: vec![],
        order_by: vec![],
        dedup_key: vec![],
        bronze: true,
        retention: None,
        evolved: vec![],
        feeds: feeds
            .into_iter()
            .map(|(name, kind, format)| Feed {
                name: name.into(),
                kind,
                format,
                wire: Default::default(),
                columns: vec![],
                max_record: 16 << 20,
            })
            .collect(),
        file: PathBuf::new(),
    }
}

pub(in crate::source) fn dataflow(inputs: Vec<Input>) -> Arc<Dataflow> {
    Arc::new(Dataflow {
        name: "t".into(),
        folder: PathBuf::new(),
        lake: "lake".into(),
        epoch: Duration::from_millis(10),
        commit: Duration::from_secs(1),
        store_options: BTreeMap::new(),
        durable: false,
        guard: false,
        history: Duration::from_secs(86_400),
        dead_letters: None,
        http: None,
        bounds: Default::default(),
        inputs,
        tables: vec![],
    })
}

fn files(folder: &Path, glob: &str, format: Format) -> Arc<Dataflow> {
    let path = folder.join(glob).to_str().unwrap().to_string();
    dataflow(vec![input(
        "i",
        vec![(
            "f",
            FeedKind::Files(FileFeed {
                path,
                rules: Default::default(),
            }),
            format,
        )],
    )])
}

fn log(folder: &Path) -> Arc<Dataflow> {
    log_with(folder, OnMissing::Stop)
}

fn log_with(folder: &Path, on_missing: OnMissing) -> Arc<Dataflow> {
    dataflow(vec![input(
        "i",
        vec![(
            "f",
            FeedKind::Log(LogFeed {
                path: folder.into(),
                rules: LogRules {
                    on_missing,
                    ..LogRules::default()
                },
            }),
            Format::Json,
        )],
    )])
}

/// Writes a file that is old enough to count as complete at first sight.
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    // It is renamed into place, because a reader that sees it young first would take it for another version.
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes).unwrap();
    age(&aside);
    std::fs::rename(aside, path).unwrap();
}

fn age(path: &Path) {
    let file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn options() -> ReaderOptions {
    ReaderOptions {
        batch_rows: 4,
        poll: Duration::from_millis(10),
        settle: Duration::from_millis(40),
        log_poll: Duration::from_millis(1),
        log_idle_poll: Duration::from_millis(5),
        back_off: Duration::from_millis(1),
        ..ReaderOptions::default()
    }
}

struct Run {
    readers: Readers,
    deliveries: Vec<Receiver<Delivery>>,
    decoded: Arc<AtomicUsize>,
    wakes: Arc<AtomicUsize>,
}

/// Starts readers whose decoder passes records on.
fn run(dataflow: &Arc<Dataflow>, resume: &FeedPositions, workers: usize, queue: usize, options: ReaderOptions) -> Run {
    try_run(dataflow, resume, workers, queue, options).unwrap_or_else(|e| panic!("{e}"))
}

fn try_run(
    dataflow: &Arc<Dataflow>,
    resume: &FeedPositions,
    workers: usize,
    queue: usize,
    options: ReaderOptions,
) -> Result<Run, SourceError> {
    let (decoded, wakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (senders, deliveries): (Vec<_>, Vec<_>) = (0..workers).map(|_| crossbeam_channel::bounded(queue)).unzip();
    let channels = senders.into_iter().map(|sender| {
        let wakes = wakes.clone();
        WorkerChannel {
            together: sender.clone(),
            sender,
            wake: Arc::new(move || {
                wakes.fetch_add(1, Ordering::Relaxed);
            }),
        }
    });
    let (flow, count) = (dataflow.clone(), decoded.clone());
    let decoders: Decoders = Arc::new(move |input, _| {
        let (flow, count) = (flow.clone(), count.clone());
        Box::new(move |raw: Raw| {
            count.fetch_add(raw.len(), Ordering::Relaxed);
            let mut decoded = nothing(&flow.inputs[input], None);
            decoded.raw = raw;
            Ok(decoded)
        })
    });
    let readers = start(dataflow.clone(), resume, decoders, channels.collect(), options)?;
    Ok(Run {
        readers,
        deliveries,
        decoded,
        wakes,
    })
}

/// What arrived from a partition.
#[derive(Debug, Default, Clone, PartialEq)]
struct PartitionArrivals {
    records: Vec<(u64, String)>,
    position: Option<Position>,
    rejects: Vec<String>,
}

impl Run {
    fn next(&self) -> Delivery {
        self.deliveries[0]
            .recv_timeout(Duration::from_secs(20))
            .expect("a delivery comes")
    }

    /// Takes deliveries until every feed is exhausted and nothing is left.
    fn drain(&self) -> BTreeMap<String, PartitionArrivals> {
        let start = Instant::now();
        let mut came = BTreeMap::new();
        loop {
            let exhausted = self.readers.exhausted();
            for delivery in self.deliveries.iter().flat_map(|d| d.try_iter()) {
                take(&mut came, delivery);
            }
            if exhausted {
                return came;
            }
            if let Some(failure) = self.readers.failure() {
                panic!("{failure}");
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "not exhausted: {:?}",
                self.readers.statuses()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The cause for which the feed waits, once it waits.
    fn waits_for(&self) -> String {
        self.within_a_while("the feed waits", |run| run.readers.statuses()[0].waits_for.clone())
    }

    /// Waits until the feed no longer waits.
    fn wait_until_resumed(&self) {
        self.within_a_while("the feed goes on", |run| {
            run.readers.statuses()[0].waits_for.is_none().then_some(())
        });
    }

    fn within_a_while<T>(&self, what: &str, look: impl Fn(&Run) -> Option<T>) -> T {
        for _ in 0..10_000 {
            if let Some(failure) = self.readers.failure() {
                panic!("{failure}");
            }
            if let Some(seen) = look(self) {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("not in 20 s: {what}: {:?}", self.readers.statuses());
    }
}

fn values(raw: &Raw) -> Vec<(u64, String)> {
    let Payloads::Records { values, .. } = &raw.payloads else {
        panic!("columns")
    };
    let text = |v: Option<&[u8]>| v.map_or("(null)".into(), |v| String::from_utf8_lossy(v).into_owned());
    raw.offsets.iter().copied().zip(values.iter().map(text)).collect()
}

fn take(came: &mut BTreeMap<String, PartitionArrivals>, delivery: Delivery) {
    let came = came.entry(delivery.partition.to_string()).or_default();
    assert!(
        came.position
            .as_ref()
            .is_none_or(|p| p.next <= delivery.position.next && !p.done)
    );
    came.records.extend(values(&delivery.decoded.raw));
    came.rejects.extend(delivery.decoded.rejects.into_iter().map(|r| {
        assert_eq!(r.record, None);
        r.reason
    }));
    came.position = Some(delivery.position);
}

fn records(came: &PartitionArrivals) -> Vec<&str> {
    came.records.iter().map(|(_, value)| value.as_str()).collect()
}

fn progress(partition: &str, position: &Position) -> FeedPositions {
    let id = PartitionId {
        input: "i".into(),
        feed: "f".into(),
        partition: partition.into(),
    };
    FeedPositions::from([(id, position.clone())])
}
