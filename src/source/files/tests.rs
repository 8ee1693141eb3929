//! Reads from a store that fails in every way a store can.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, io};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::*;

use super::content::KnownFiles;
use super::listing::GlobLocation;
use super::queue::FileQueue;
use super::reader::{FileEnd, FileReader};
use crate::definition::{Dataflow, Feed, FeedKind, FileFeed, Format, Input};
use crate::source::batch::{BatchLimits, nothing};
use crate::source::feed_handle::{FeedHandle, Gauges, WorkerChannel};
use crate::source::options::ReaderOptions;
use crate::source::{Decode, Delivery, Share};

/// A store whose first `failures` reads break after half of the bytes.
#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    failures: AtomicU32,
    /// Reads are refused for good.
    denied: bool,
    /// After this number of reads, another object replaces the one read.
    replacement: Mutex<Option<(u32, Bytes)>>,
}

impl Flaky {
    fn of(failures: u32, denied: bool) -> Flaky {
        Flaky {
            inner: InMemory::new(),
            failures: failures.into(),
            denied,
            replacement: Mutex::default(),
        }
    }

    async fn put(&self, at: &StorePath, bytes: Bytes) {
        self.inner.put(at, bytes.into()).await.unwrap();
    }

    async fn replace_in_time(&self, at: &StorePath) {
        let mut replacement = self.replacement.lock().unwrap().take();
        match &mut replacement {
            Some((0, bytes)) => self.put(at, bytes.clone()).await,
            Some((reads, _)) => {
                *reads -= 1;
                *self.replacement.lock().unwrap() = replacement;
            }
            None => {}
        }
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

fn unavailable() -> Error {
    Error::Generic {
        store: "flaky",
        source: "503 service unavailable".into(),
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, at: &StorePath, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &StorePath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &StorePath, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        if self.denied && !head {
            return Err(Error::PermissionDenied {
                path: at.to_string(),
                source: "403 forbidden".into(),
            });
        }
        if !head {
            self.replace_in_time(at).await;
        }
        let got = self.inner.get_opts(at, options).await?;
        let fails = |n: u32| n.checked_sub(1);
        if head
            || self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails)
                .is_err()
        {
            return Ok(got);
        }
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let bytes = got.bytes().await?;
        let half: Vec<Result<Bytes>> = vec![Ok(bytes.slice(..bytes.len() / 2)), Err(unavailable())];
        let payload = GetResultPayload::Stream(stream::iter(half).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
        })
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<StorePath>>) -> BoxStream<'static, Result<StorePath>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Reads one object of a flaky store; what was delivered, and how it ended.
fn read(name: &str, bytes: impl Into<Bytes>, format: Format, failures: u32, denied: bool) -> (Vec<Delivery>, FileEnd) {
    read_stored(Flaky::of(failures, denied), name, bytes, format)
}

fn read_stored(store: Flaky, name: &str, bytes: impl Into<Bytes>, format: Format) -> (Vec<Delivery>, FileEnd) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.put(&StorePath::from(format!("in/{name}")), bytes.into()));
    let place = GlobLocation::Remote {
        store: Arc::new(store),
        base: "s3://bucket/in".into(),
        prefix: StorePath::from("in"),
        glob: crate::definition::FileGlob::new("*").unwrap(),
        lake: "s3://lake".into(),
        runtime: runtime.handle().clone(),
    };
    read_place(place, format)
}

/// Reads the only file of a place.
fn read_place(place: GlobLocation, format: Format) -> (Vec<Delivery>, FileEnd) {
    let feed = Feed {
        name: "f".into(),
        kind: FeedKind::Files(FileFeed {
            path: String::new(),
            rules: Default::default(),
        }),
        format,
        wire: Default::default(),
        columns: vec![],
        max_record: 16 << 20,
    };
    let input = Input {
        name: "i".into(),
        description: None,
        columns: vec![],
        key: vec![],
        order_by: vec![],
        dedup_key: vec![],
        bronze: true,
        retention: None,
        evolved: vec![],
        feeds: vec![feed],
        file: PathBuf::new(),
    };
    let dataflow = Dataflow {
        name: "t".into(),
        folder: PathBuf::new(),
        lake: "lake".into(),
        epoch: Duration::from_millis(10),
        commit: Duration::from_secs(1),
        store_options: BTreeMap::new(),
        durable: false,
        guard: false,
        history: std::time::Duration::from_secs(86_400),
        dead_letters: None,
        http: None,
        bounds: Default::default(),
        inputs: vec![input.clone()],
        tables: vec![],
    };
    let (sender, deliveries) = crossbeam_channel::unbounded();
    let (_stop, stopped) = crossbeam_channel::bounded(0);
    let handle = FeedHandle {
        dataflow: Arc::new(dataflow),
        input: 0,
        feed: 0,
        channels: vec![WorkerChannel {
            together: sender.clone(),
            sender,
            wake: Arc::new(|| {}),
        }]
        .into(),
        stop: stopped,
        gauges: Arc::new(Gauges::default()),
        coordinator: None,
        limits: BatchLimits {
            rows: 100,
            bytes: 1 << 20,
            record: 1 << 20,
        },
        patience: Duration::ZERO,
        room: crate::source::in_flight::InFlightBudget::of_limit(None),
        share: Share::default(),
    };
    let decode: Decode = Box::new(move |raw| {
        let mut decoded = nothing(&input, None);
        decoded.raw = raw;
        Ok(decoded)
    });
    let options = ReaderOptions {
        back_off: Duration::from_micros(10),
        retries: 3,
        ..ReaderOptions::default()
    };
    let mut queue = FileQueue::new((place.is_atomic(), false), options.settle, BTreeMap::new());
    queue.observe(
        Some(place.list(&|| false).unwrap().files),
        &|_| false,
        Instant::now(),
        std::time::SystemTime::now(),
    );
    let job = queue.next_job().unwrap();
    let end = FileReader::new(handle, place, options, decode, KnownFiles::default()).run(&job);
    (deliveries.try_iter().collect(), end.unwrap())
}

fn is_done(end: &FileEnd) -> bool {
    matches!(end, FileEnd::Done(position) if position.done)
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries
        .iter()
        .flat_map(|d| d.decoded.raw.offsets.iter().copied())
        .collect()
}

#[test]
fn a_read_that_breaks_for_a_while_goes_on_at_the_next_record() {
    let text: String = (0..50_000).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    let (deliveries, end) = read("a.ndjson", text.clone(), Format::Ndjson, 3, false);
    assert_eq!(offsets(&deliveries), (0..50_000).collect::<Vec<_>>());
    assert!(deliveries.iter().all(|d| d.decoded.rejects.is_empty()));
    assert!(is_done(&end));
    let zipped = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let (deliveries, _) = read("a.ndjson.zst", zipped, Format::Ndjson, 2, false);
    assert_eq!(offsets(&deliveries), (0..50_000).collect::<Vec<_>>());
}

/// A store that was unavailable for half a minute ended the run.
#[test]
fn a_file_that_cannot_be_read_for_long_waits_and_is_no_dead_letter() {
    let text: String = (0..50_000).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    for (failures, denied, kind) in [
        (1000, false, io::ErrorKind::Other),
        (0, true, io::ErrorKind::PermissionDenied),
    ] {
        let (deliveries, end) = read("a.ndjson", text.clone(), Format::Ndjson, failures, denied);
        assert!(
            deliveries
                .iter()
                .all(|d| d.decoded.rejects.is_empty() && !d.position.done)
        );
        let FileEnd::Stuck { position, cause } = end else {
            panic!("{end:?}")
        };
        assert_eq!(cause.kind(), kind);
        let handed_over = deliveries.last().map(|delivery| delivery.position.next);
        assert_eq!(position.map(|position| position.next), handed_over);
    }
}

#[test]
fn columnar_files_are_read_from_a_store_too() {
    for (name, bytes, format) in [
        ("a.parquet", parquet_from(0), Format::Parquet),
        ("a.avro", avro_from(0), Format::Avro),
    ] {
        for failures in [0, 2] {
            let (deliveries, end) = read(name, bytes.clone(), format, failures, false);
            assert_eq!(offsets(&deliveries), (0..250).collect::<Vec<_>>(), "{name} {failures}");
            assert!(is_done(&end));
            assert!(deliveries.iter().all(|d| d.decoded.rejects.is_empty()));
        }
    }
}

fn numbers(from: i64) -> arrow::array::RecordBatch {
    let numbers: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(from..from + 250));
    arrow::array::RecordBatch::try_from_iter([("a", numbers)]).unwrap()
}

/// A Parquet file of 250 numbers in groups of 50.
fn parquet_from(from: i64) -> Vec<u8> {
    let batch = numbers(from);
    let settings = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(50))
        .set_dictionary_enabled(false)
        .build();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(settings)).unwrap();
    parquet.write(&batch).unwrap();
    parquet.into_inner().unwrap()
}

fn avro_from(from: i64) -> Vec<u8> {
    let batch = numbers(from);
    let mut avro = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    avro.write(&batch).unwrap();
    avro.finish().unwrap();
    avro.into_inner()
}

/// The values of a column of numbers that were delivered.
fn delivered(deliveries: &[Delivery]) -> Vec<i64> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    // Avro records are delivered undecoded: here a zigzag varint.
    let of_avro = |record: &[u8]| {
        let number = record
            .iter()
            .rev()
            .fold(0u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
        (number >> 1) as i64 ^ -((number & 1) as i64)
    };
    let of_delivery = |delivery: &Delivery| match &delivery.decoded.raw.payloads {
        crate::decode::Payloads::Columns { batch, .. } => match batch.column(0).as_primitive_opt::<Int64Type>() {
            Some(numbers) => numbers.values().to_vec(),
            None => batch
                .column(0)
                .as_binary::<i32>()
                .iter()
                .flatten()
                .map(of_avro)
                .collect(),
        },
        crate::decode::Payloads::Records { .. } => vec![],
    };
    deliveries.iter().flat_map(of_delivery).collect()
}

fn rejections(deliveries: &[Delivery]) -> Vec<&str> {
    let rejects = deliveries.iter().flat_map(|delivery| &delivery.decoded.rejects);
    rejects.map(|reject| reject.reason.as_str()).collect()
}

/// A file that was replaced before any of it was read became a dead letter as damaged, and was never read.
#[test]
fn rows_of_a_file_that_is_replaced_in_its_store_are_never_mixed_with_the_others() {
    type Written = fn(i64) -> Vec<u8>;
    let forms: [(&str, Format, Written); 2] = [
        ("a.parquet", Format::Parquet, parquet_from),
        ("a.avro", Format::Avro, avro_from),
    ];
    let mut seen = [0; 3];
    for (name, format, bytes) in forms {
        for reads in 0..9 {
            let store = Flaky {
                replacement: Mutex::new(Some((reads, bytes(1000).into()))),
                ..Flaky::of(0, false)
            };
            let (deliveries, end) = read_stored(store, name, bytes(0), format);
            let came = delivered(&deliveries);
            assert_eq!(came, (0..came.len() as i64).collect::<Vec<_>>(), "{name} {reads}");
            match (&end, came.len()) {
                // The next listing takes up the new version.
                (FileEnd::Changed, 0) => seen[0] += 1,
                (FileEnd::Done(_), 1..250) => {
                    let message = rejections(&deliveries).concat();
                    assert!(
                        message.contains(&format!("changed after {} of its records", came.len())),
                        "{message}"
                    );
                    seen[1] += 1;
                }
                (FileEnd::Done(_), 250) => seen[2] += 1,
                _ => panic!("{name} {reads}: {end:?}, {} rows", came.len()),
            }
        }
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "before, amid and behind the reading: {seen:?}"
    );
}

/// After a failure the name was opened again without a check of its version, and reading went on in the middle of
/// another file.
#[test]
fn a_text_that_is_replaced_while_a_failure_is_waited_out_is_not_read_on() {
    let text = |from: u32| -> String { (from..from + 50_000).map(|n| format!("{{\"a\":{n}}}\n")).collect() };
    for reads in [0, 1] {
        let store = Flaky {
            replacement: Mutex::new(Some((reads, text(500_000).into()))),
            ..Flaky::of(1, false)
        };
        let (deliveries, end) = read_stored(store, "a.ndjson", text(100_000), Format::Ndjson);
        let came = offsets(&deliveries);
        assert_eq!(came, (0..came.len() as u64).collect::<Vec<_>>());
        match reads {
            0 => assert!(matches!(end, FileEnd::Changed) && came.is_empty(), "{end:?}"),
            _ => {
                assert!(is_done(&end) && (1..50_000).contains(&came.len()), "{end:?}");
                let message = rejections(&deliveries).concat();
                assert!(message.contains("changed after"), "{message}");
            }
        }
    }
}

/// Files in stores are fetched by ranges, and their page headers are validated like those of local files.
#[test]
fn a_damaged_file_of_columns_comes_to_the_same_in_a_store_as_on_a_disk() {
    let whole = parquet_from(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(23) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60))
            .unwrap();
        let local = GlobLocation::Local {
            folder: folder.path().into(),
            glob: crate::definition::FileGlob::new("*").unwrap(),
            follow_links: false,
            lake: None,
            vetting: None,
        };
        let (here, _) = read_place(local, Format::Parquet);
        let (from_parquet, _) = read("a.parquet", bytes, Format::Parquet, 0, false);
        assert_eq!(delivered(&here), delivered(&from_parquet), "byte {at}");
        assert_eq!(rejections(&here).len(), rejections(&from_parquet).len(), "byte {at}");
        damaged += rejections(&from_parquet).len();
    }
    assert!(damaged > 3, "{damaged}");
}
