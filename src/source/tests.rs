//! Feeds from end to end: real threads, real files, a decoder that only passes records on.

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
use crate::definition::{Column, Dataflow, Feed, FeedKind, Format, Generate, Input};
use crate::repr::SqlType;

fn input(name: &str, feeds: Vec<(&str, FeedKind, Format)>) -> Input {
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
        feeds: feeds
            .into_iter()
            .map(|(name, kind, format)| Feed {
                name: name.into(),
                kind,
                format,
                columns: vec![],
            })
            .collect(),
        file: PathBuf::new(),
    }
}

fn dataflow(inputs: Vec<Input>) -> Arc<Dataflow> {
    Arc::new(Dataflow {
        name: "t".into(),
        folder: PathBuf::new(),
        lake: "lake".into(),
        epoch: Duration::from_millis(10),
        commit: Duration::from_secs(1),
        store_options: BTreeMap::new(),
        durable: false,
        history: std::time::Duration::from_secs(86_400),
        inputs,
        tables: vec![],
    })
}

fn files(folder: &Path, glob: &str, format: Format) -> Arc<Dataflow> {
    let path = folder.join(glob).to_str().unwrap().to_string();
    dataflow(vec![input("i", vec![("f", FeedKind::Files { path }, format)])])
}

fn log(folder: &Path) -> Arc<Dataflow> {
    dataflow(vec![input(
        "i",
        vec![("f", FeedKind::Log { path: folder.into() }, Format::Json)],
    )])
}

/// Old enough to be whole at first sight.
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::write(&path, bytes).unwrap();
    age(&path);
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
fn run(dataflow: &Arc<Dataflow>, resume: &Progress, workers: usize, queue: usize, options: ReaderOptions) -> Run {
    try_run(dataflow, resume, workers, queue, options).unwrap_or_else(|e| panic!("{e}"))
}

fn try_run(
    dataflow: &Arc<Dataflow>,
    resume: &Progress,
    workers: usize,
    queue: usize,
    options: ReaderOptions,
) -> Result<Run, SourceError> {
    let (decoded, wakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (senders, deliveries): (Vec<_>, Vec<_>) = (0..workers).map(|_| crossbeam_channel::bounded(queue)).unzip();
    let outlets = senders.into_iter().map(|sender| {
        let wakes = wakes.clone();
        Outlet {
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
            decoded
        })
    });
    let readers = start(dataflow.clone(), resume, decoders, outlets.collect(), options)?;
    Ok(Run {
        readers,
        deliveries,
        decoded,
        wakes,
    })
}

/// What came of a partition.
#[derive(Debug, Default, Clone, PartialEq)]
struct Came {
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
    fn drain(&self) -> BTreeMap<String, Came> {
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

    fn failure(&self) -> SourceError {
        for _ in 0..5000 {
            if let Some(failure) = self.readers.failure() {
                return failure;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("no reader failed");
    }
}

fn values(raw: &Raw) -> Vec<(u64, String)> {
    let Payloads::Records { values, .. } = &raw.payloads else {
        panic!("columns")
    };
    let text = |v: Option<&[u8]>| v.map_or("(null)".into(), |v| String::from_utf8_lossy(v).into_owned());
    raw.offsets.iter().copied().zip(values.iter().map(text)).collect()
}

fn take(came: &mut BTreeMap<String, Came>, delivery: Delivery) {
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

fn records(came: &Came) -> Vec<&str> {
    came.records.iter().map(|(_, value)| value.as_str()).collect()
}

fn progress(partition: &str, position: &Position) -> Progress {
    let id = PartitionId {
        input: "i".into(),
        feed: "f".into(),
        partition: partition.into(),
    };
    Progress::from([(id, position.clone())])
}

#[test]
fn existing_files_come_by_name_then_new_ones_as_they_appear_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("b.csv"), "a\n3\n");
    put(folder.path().join("a.csv.gz"), gz(b"\xef\xbb\xbfa\n1\n\n2"));
    put(
        folder.path().join("c.csv.zst"),
        zstd::encode_all(&b"a\n4"[..], 1).unwrap(),
    );
    let flow = files(folder.path(), "*.csv*", Format::Csv);
    let run = run(
        &flow,
        &Progress::new(),
        1,
        100,
        ReaderOptions {
            file_readers: 1,
            ..options()
        },
    );
    let first: Vec<Delivery> = (0..3).map(|_| run.next()).collect();
    assert_eq!(
        first.iter().map(|d| &*d.partition).collect::<Vec<_>>(),
        ["a.csv.gz", "b.csv", "c.csv.zst"]
    );
    assert_eq!(values(&first[0].decoded.raw), [(0, "1".into()), (1, "2".into())]);
    assert_eq!(first[0].decoded.raw.header.as_deref(), Some("a"));
    assert!(first[0].position.done && first[0].position.next == 2);
    // New: one under a passing name first, one that grows.
    std::fs::write(folder.path().join("d.csv.tmp"), "a\n5\n").unwrap();
    std::fs::rename(folder.path().join("d.csv.tmp"), folder.path().join("d.csv")).unwrap();
    let delivery = run.next();
    assert_eq!(
        (&*delivery.partition, values(&delivery.decoded.raw)),
        ("d.csv", vec![(0, "5".into())])
    );
    std::thread::sleep(Duration::from_millis(80));
    assert!(run.deliveries[0].is_empty(), "each file once");
    let status = run.readers.statuses().remove(0);
    assert_eq!(
        (status.files_done, status.records, status.lag_files, status.exhausted),
        (4, 5, 0, true)
    );
    assert!(run.wakes.load(Ordering::Relaxed) >= 4);
    run.readers.stop().unwrap();
}

#[test]
fn a_file_that_is_being_written_is_not_read_half() {
    let folder = tempfile::tempdir().unwrap();
    let flow = files(folder.path(), "*.csv", Format::Csv);
    let settle = Duration::from_millis(800);
    let run = run(&flow, &Progress::new(), 1, 100, ReaderOptions { settle, ..options() });
    let mut file = std::fs::File::create(folder.path().join("a.csv")).unwrap();
    file.write_all(b"a\n").unwrap();
    for n in 0..8 {
        writeln!(file, "{n}").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(run.deliveries[0].is_empty() && !run.readers.exhausted() || n == 0);
    }
    drop(file);
    let came = run.drain();
    assert_eq!(records(&came["a.csv"]), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(came["a.csv"].rejects, Vec::<String>::new());
}

#[test]
fn an_unreadable_file_gives_its_good_rows_and_a_dead_letter_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..20_000)
        .map(|n| format!("{{\"a\":\"{}\"}}\n", n * 7919 % 10_007))
        .collect();
    let whole = gz(text.as_bytes());
    put(folder.path().join("a.ndjson.gz"), &whole[..whole.len() / 2]);
    put(folder.path().join("b.ndjson"), "{\"a\":1}\n");
    put(folder.path().join("c.ndjson.gz"), "no gzip");
    put(
        folder.path().join("d.ndjson.zst"),
        &zstd::encode_all(text.as_bytes(), 1).unwrap()[..1000],
    );
    put(folder.path().join("e.ndjson"), "");
    let flow = files(folder.path(), "*.ndjson*", Format::Ndjson);
    let run = run(
        &flow,
        &Progress::new(),
        1,
        100_000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let came = run.drain();
    let torn = &came["a.ndjson.gz"];
    let expected: Vec<&str> = text.lines().collect();
    assert!(torn.records.len() > 1000 && torn.records.len() < 20_000);
    assert_eq!(records(torn), expected[..torn.records.len()]);
    let position = torn.position.as_ref().unwrap();
    assert_eq!((position.done, position.next), (true, torn.records.len() as u64));
    assert_eq!(torn.rejects.len(), 1);
    assert!(
        torn.rejects[0].contains("a.ndjson.gz") && torn.rejects[0].contains("drop what is missing"),
        "{torn:?}"
    );
    assert_eq!(records(&came["b.ndjson"]), ["{\"a\":1}"]);
    for broken in ["c.ndjson.gz", "d.ndjson.zst"] {
        assert_eq!(
            (came[broken].rejects.len(), came[broken].position.as_ref().unwrap().done),
            (1, true),
            "{broken}"
        );
    }
    assert_eq!((came["e.ndjson"].records.len(), came["e.ndjson"].rejects.len()), (0, 0));
    assert!(came["e.ndjson"].position.as_ref().unwrap().done);
    run.readers.stop().unwrap();
}

#[test]
fn reading_goes_on_in_the_middle_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..10).map(|n| format!("{n},\"x\ny\"")).collect();
    put(folder.path().join("a.csv"), format!("a,b\n{}\n", rows.join("\n")));
    let flow = files(folder.path(), "*.csv", Format::Csv);
    let first = run(&flow, &Progress::new(), 1, 100, options());
    let position = first.next().position;
    assert_eq!((position.next, position.done), (4, false));
    first.readers.stop().unwrap();
    let second = run(&flow, &progress("a.csv", &position), 1, 100, options());
    let came = second.drain().remove("a.csv").unwrap();
    assert_eq!(records(&came), rows[4..]);
    assert_eq!(came.records[0].0, 4);
    let done = came.position.unwrap();
    assert!(done.done && done.next == 10);
    second.readers.stop().unwrap();
    // Done is done; a change is told, once.
    let third = run(&flow, &progress("a.csv", &done), 1, 100, options());
    assert!(third.drain().is_empty());
    put(folder.path().join("a.csv"), "a,b\nother");
    let told = third.next();
    assert!(
        told.decoded.rejects[0]
            .reason
            .contains("was already read; drop corrected rows as a new file")
    );
    assert_eq!(
        (told.decoded.raw.len(), told.position.done, told.position.next),
        (0, true, 10)
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(third.deliveries[0].is_empty());
    third.readers.stop().unwrap();
    let fourth = run(&flow, &progress("a.csv", &told.position), 1, 100, options());
    assert!(fourth.drain().is_empty(), "told once over restarts too");
}

#[test]
fn parquet_and_avro_come_as_columns_and_go_on_in_the_middle() {
    use arrow::array::{Int64Array, RecordBatch};
    let folder = tempfile::tempdir().unwrap();
    let numbers = Arc::new(Int64Array::from_iter_values(0..10));
    let batch = RecordBatch::try_from_iter([("a", numbers as arrow::array::ArrayRef)]).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let parquet = parquet.into_inner().unwrap();
    put(folder.path().join("a.parquet"), &parquet);
    put(folder.path().join("b.parquet"), &parquet[..parquet.len() - 10]);
    let mut avro = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    avro.write(&batch).unwrap();
    avro.write(&batch).unwrap();
    avro.finish().unwrap();
    let avro = avro.into_inner();
    put(folder.path().join("a.avro"), &avro);
    put(folder.path().join("b.avro"), &avro[..avro.len() - 20]);
    for (ending, format, rows) in [("parquet", Format::Parquet, 10), ("avro", Format::Avro, 20)] {
        let flow = files(folder.path(), &format!("*.{ending}"), format);
        let name = format!("a.{ending}");
        let mut tag = None;
        for from in [0, 3, rows] {
            let position = Position {
                next: from,
                done: false,
                tag: tag.clone(),
            };
            let resume = if from == 0 {
                Progress::new()
            } else {
                progress(&name, &position)
            };
            let run = run(
                &flow,
                &resume,
                1,
                100,
                ReaderOptions {
                    stop_at_end: true,
                    ..options()
                },
            );
            let (mut offsets, mut taken, mut rejects) = (vec![], vec![], vec![]);
            while let Ok(delivery) = run.deliveries[0].recv_timeout(Duration::from_secs(10)) {
                if *delivery.partition != *name {
                    rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
                    continue;
                }
                tag.clone_from(&delivery.position.tag);
                offsets.extend(delivery.decoded.raw.offsets);
                if let Payloads::Columns { batch, path } = delivery.decoded.raw.payloads {
                    assert!(path.ends_with(&name) && path.starts_with('/'));
                    let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
                    taken.extend(column.values().iter().map(|v| *v as u64));
                }
                if delivery.position.done && !rejects.is_empty() {
                    break;
                }
                if run.readers.exhausted() && run.deliveries[0].is_empty() {
                    break;
                }
            }
            assert_eq!(offsets, (from..rows).collect::<Vec<_>>(), "{name} from {from}");
            assert_eq!(taken, (from..rows).map(|n| n % 10).collect::<Vec<_>>());
            for delivery in run.deliveries[0].iter() {
                rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
            }
            assert_eq!(rejects.len(), 1, "the torn file is a dead letter: {rejects:?}");
            run.readers.stop().unwrap();
        }
    }
}

#[test]
fn a_log_is_followed_a_torn_line_waits_and_new_partitions_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let flow = log(&path);
    let run = run(&flow, &Progress::new(), 1, 100, options());
    assert!(run.drain().is_empty(), "a folder that is not there is an empty log");
    let mut writer = LogWriter::open(&path, false).unwrap();
    let record = |value| LogRecord {
        key: Some(b"\"k\""),
        value,
        ts_ms: Some(5),
    };
    let end = writer.append("0", [record(Some(b"{\"a\":1}")), record(None)]).unwrap();
    let delivery = run.next();
    let Payloads::Records {
        values: _,
        keys: Some(keys),
        ts_ms,
    } = &delivery.decoded.raw.payloads
    else {
        panic!()
    };
    assert_eq!(
        (keys.value(0), ts_ms.as_slice()),
        (&b"\"k\""[..], &[Some(5), Some(5)][..])
    );
    assert_eq!(
        values(&delivery.decoded.raw),
        [(0, "{\"a\":1}".into()), (38, "(null)".into())]
    );
    assert_eq!((delivery.position.next, &*delivery.partition), (end, "0"));
    // Torn, whatever it looks like.
    let mut file = std::fs::OpenOptions::new().append(true).open(writer.path("0")).unwrap();
    file.write_all(b"{\"value\":{\"a\":2}}").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert!(run.deliveries[0].is_empty() && run.readers.exhausted());
    file.write_all(b"\n\nbroken\n").unwrap();
    let mut came = BTreeMap::new();
    while came.get("0").is_none_or(|c: &Came| c.records.len() < 2) {
        take(&mut came, run.next());
    }
    assert_eq!(
        came["0"].records,
        [(end, "{\"a\":2}".into()), (end + 19, "broken".into())]
    );
    assert_eq!(came["0"].position.as_ref().unwrap().next, end + 26);
    writer.append("7", [record(Some(b"3"))]).unwrap();
    assert_eq!(&*run.next().partition, "7");
    run.readers.stop().unwrap();
}

#[test]
fn a_log_goes_on_in_the_middle_and_must_not_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(folder.path(), false).unwrap();
    let values: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for value in &values {
        writer
            .append(
                "0",
                [LogRecord {
                    value: Some(value.as_bytes()),
                    ..LogRecord::default()
                }],
            )
            .unwrap();
    }
    let flow = log(folder.path());
    let first = run(&flow, &Progress::new(), 1, 100, options());
    let position = first.next().position;
    first.readers.stop().unwrap();
    let second = run(
        &flow,
        &progress("0", &position),
        1,
        100,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let came = second.drain().remove("0").unwrap();
    assert_eq!(records(&came), values[4..]);
    second.readers.stop().unwrap();
    let all = std::fs::read(writer.path("0")).unwrap();
    let resume = progress("0", &came.position.unwrap());
    // Shorter at the start, shorter while running, gone, other bytes.
    std::fs::write(writer.path("0"), &all[..all.len() - 1]).unwrap();
    let third = run(&flow, &resume, 1, 100, options());
    assert!(matches!(third.failure(), SourceError::LogShrank { .. }));
    assert!(matches!(third.readers.stop(), Err(SourceError::LogShrank { .. })));
    std::fs::write(writer.path("0"), &all).unwrap();
    let fourth = run(&flow, &resume, 1, 100, options());
    fourth.drain();
    std::fs::OpenOptions::new()
        .write(true)
        .open(writer.path("0"))
        .unwrap()
        .set_len(20)
        .unwrap();
    let message = fourth.failure().to_string();
    assert!(
        message.contains("0.ndjson") && message.contains("is 20 bytes long"),
        "{message}"
    );
    std::fs::write(writer.path("0"), [&all[..all.len() - 1], b"x\n"].concat()).unwrap();
    assert!(matches!(
        run(&flow, &resume, 1, 100, options()).failure(),
        SourceError::LogRewritten { .. }
    ));
    std::fs::remove_file(writer.path("0")).unwrap();
    assert!(matches!(
        run(&flow, &resume, 1, 100, options()).failure(),
        SourceError::LogShrank { size: 0, .. }
    ));
}

#[test]
fn a_full_queue_stops_the_readers() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..40_000).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    put(folder.path().join("a.ndjson"), &text);
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let run = run(&flow, &Progress::new(), 1, 2, options());
    run.next();
    std::thread::sleep(Duration::from_millis(200));
    // One was taken, two are in the queue, one is in the reader's hands; four records each.
    assert_eq!(run.decoded.load(Ordering::Relaxed), 16);
    assert!(!run.readers.exhausted());
    assert_eq!(run.readers.statuses()[0].lag_files, 1);
    let came = run.drain();
    assert_eq!(came["a.ndjson"].records.len(), 40_000 - 4);
    run.readers.stop().unwrap();
}

#[test]
fn stopping_does_not_wait_for_a_worker_that_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.ndjson"), "1\n".repeat(1000));
    let run = run(
        &files(folder.path(), "*", Format::Ndjson),
        &Progress::new(),
        1,
        1,
        options(),
    );
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    run.readers.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(run.deliveries[0].len() <= 1);
}

#[test]
fn partitions_are_spread_over_workers_and_each_has_one() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        put(folder.path().join(format!("{n}.ndjson")), "1\n2\n3\n4\n5\n6\n7\n");
    }
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let run = run(
        &flow,
        &Progress::new(),
        2,
        1000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut by_worker = Vec::new();
    for worker in &run.deliveries {
        let mut came = BTreeMap::new();
        worker.try_iter().for_each(|delivery| take(&mut came, delivery));
        assert!(came.len() > 8, "{} of 40 files at one worker", came.len());
        assert!(came.values().all(|c| records(c) == ["1", "2", "3", "4", "5", "6", "7"]));
        by_worker.push(came);
    }
    assert_eq!(by_worker[0].len() + by_worker[1].len(), 40);
    assert!(by_worker[0].keys().all(|name| !by_worker[1].contains_key(name)));
}

#[test]
fn a_reader_that_panics_or_loses_its_worker_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.ndjson"), "1\n");
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let outlet = || Outlet {
        sender: sender.clone(),
        wake: Arc::new(|| {}),
    };
    let wait = |readers: Readers| {
        let start = Instant::now();
        while readers.failure().is_none() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        readers.stop().unwrap_err()
    };
    let panicking: Decoders = Arc::new(|_, _| Box::new(|_| panic!("on purpose")));
    let readers = start(
        flow.clone(),
        &Progress::new(),
        panicking.clone(),
        vec![outlet()],
        options(),
    )
    .unwrap();
    assert!(wait(readers).to_string().contains("panicked: on purpose"));
    put(folder.path().join("a.ndjson"), "");
    drop(receiver);
    let readers = start(flow, &Progress::new(), panicking, vec![outlet()], options()).unwrap();
    assert!(matches!(wait(readers), SourceError::Disconnected { worker: 0, .. }));
}

fn generate(rate: Option<f64>, limit: Option<u64>, partitions: u32) -> Arc<Dataflow> {
    let settings = Generate {
        generator: "retail.products".into(),
        rate,
        limit,
        seed: 3,
        partitions,
        updates: 0.4,
        deletes: 0.1,
        duplicates: 0.0,
        late: 0.1,
        broken: 0.0,
    };
    dataflow(vec![input(
        "i",
        vec![("f", FeedKind::Generate(settings), Format::DebeziumJson)],
    )])
}

#[test]
fn a_generator_hands_over_each_event_once_over_a_restart() {
    let flow = generate(None, Some(1000), 3);
    let whole = run(&flow, &Progress::new(), 1, 10_000, options()).drain();
    assert_eq!(whole.values().map(|c| c.records.len()).sum::<usize>(), 1000);
    assert_eq!(whole.len(), 3);
    // The snapshot between holds one partition further than the others.
    let resume: Progress = [("0", 300), ("1", 304)]
        .into_iter()
        .flat_map(|(name, next)| {
            progress(
                name,
                &Position {
                    next,
                    done: false,
                    tag: None,
                },
            )
        })
        .collect();
    let rest = run(&flow, &resume, 1, 10_000, options()).drain();
    for (name, from) in [("0", 300), ("1", 304), ("2", 0)] {
        let expected: Vec<_> = whole[name]
            .records
            .iter()
            .filter(|(n, _)| *n >= from)
            .cloned()
            .collect();
        assert_eq!(rest[name].records, expected);
    }
}

#[test]
fn a_paced_generator_keeps_its_rate_and_a_slow_worker_shows_as_lateness() {
    let flow = generate(Some(2000.0), Some(1000), 1);
    let start = Instant::now();
    let run = run(
        &flow,
        &Progress::new(),
        1,
        1,
        ReaderOptions {
            batch_rows: 100,
            ..options()
        },
    );
    let first = run.next();
    std::thread::sleep(Duration::from_millis(200)); // held up
    let mut last = first.arrived;
    let (mut records, mut lateness) = (first.decoded.raw.len(), Duration::ZERO);
    while records < 1000 {
        let delivery = run.next();
        let now = Instant::now();
        assert!(delivery.arrived >= last, "due times do not go back");
        lateness = lateness.max(now - delivery.arrived);
        last = delivery.arrived;
        records += delivery.decoded.raw.len();
        // Due by its number, however late it came.
        let due = Duration::from_secs_f64(delivery.decoded.raw.offsets[0] as f64 / 2000.0);
        let off = (delivery.arrived - first.arrived).abs_diff(due);
        assert!(off < Duration::from_millis(2), "{off:?}");
    }
    assert_eq!(records, 1000);
    assert!(lateness > Duration::from_millis(150), "{lateness:?}");
    assert!(
        start.elapsed() > Duration::from_millis(495),
        "not ahead of the rate: {:?}",
        start.elapsed()
    );
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    run.readers.stop().unwrap();
}

/// The real data's folder, if it is there.
fn data() -> Option<PathBuf> {
    let places = std::env::var_os("ALLUVIUM_DATA").map(PathBuf::from).into_iter();
    let ancestors = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|a| a.join("../shared/data"));
    let found = places.chain(ancestors).find(|p| p.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no real data; set ALLUVIUM_DATA");
    }
    found
}

#[test]
fn every_record_of_a_year_of_invoices_comes_once() {
    let Some(data) = data() else { return };
    let flow = files(&data.join("online_retail/by-day"), "*.csv.gz", Format::Csv);
    let options = ReaderOptions {
        stop_at_end: true,
        ..ReaderOptions::default()
    };
    let start = Instant::now();
    let run = run(&flow, &Progress::new(), 2, 16, options);
    let (mut files, mut records, mut bytes) = (0, 0, 0);
    loop {
        let exhausted = run.readers.exhausted();
        for delivery in run.deliveries.iter().flat_map(|d| d.try_iter()) {
            files += usize::from(delivery.position.done);
            records += delivery.decoded.raw.len();
            assert!(delivery.decoded.rejects.is_empty());
            assert!(
                delivery.decoded.raw.is_empty() || delivery.decoded.raw.header.as_deref().unwrap().starts_with("Inv")
            );
            let Payloads::Records { values, .. } = &delivery.decoded.raw.payloads else {
                panic!()
            };
            bytes += values.value_data().len();
        }
        if exhausted {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64();
    eprintln!(
        "retail: {files} files, {records} records, {bytes} bytes in {took:.2} s: {:.0}/s",
        records as f64 / took
    );
    assert_eq!((files, records), (305, 541_909));
    run.readers.stop().unwrap();
}

#[test]
fn event_hubs_captures_are_read_as_containers() {
    let Some(data) = data() else { return };
    let flow = files(&data.join("eventhubs_capture"), "*/*", Format::Avro);
    let run = run(
        &flow,
        &Progress::new(),
        1,
        1000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let mut came: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for delivery in run.deliveries[0].try_iter() {
        let (records, rejects) = came.entry(delivery.partition.to_string()).or_default();
        *records += delivery.decoded.raw.len();
        rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
    }
    for (name, records) in [("cosh/54.avro", 380), ("cosh/empty.avro", 0), ("bluefrog/05", 1)] {
        assert_eq!(came[name], (records, vec![]), "{name}");
    }
    assert_eq!(came["cosh/README.md"].1.len(), 1, "no container: {came:?}");
}
