//! Reading from a store that fails in every way a store can.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::*;

use super::*;
use crate::definition::{Dataflow, Feed, FeedKind, Input};
use crate::source::batch::{BatchLimits, nothing};
use crate::source::outlet::{Gauges, Outlet};
use crate::source::{Delivery, Share};

/// A store whose first `failures` reads break after half of the bytes.
#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    failures: AtomicU32,
    /// Reads are refused for good.
    denied: bool,
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
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Flaky {
        inner: InMemory::new(),
        failures: failures.into(),
        denied,
    };
    runtime
        .block_on(
            store
                .inner
                .put(&StorePath::from(format!("in/{name}")), bytes.into().into()),
        )
        .unwrap();
    let place = Place::Remote {
        store: Arc::new(store),
        base: "s3://bucket/in".into(),
        prefix: StorePath::from("in"),
        glob: crate::definition::FileGlob::new("*").unwrap(),
        lake: "s3://lake".into(),
        runtime: runtime.handle().clone(),
    };
    let feed = Feed {
        name: "f".into(),
        kind: FeedKind::Files {
            path: String::new(),
            rules: Default::default(),
        },
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
    let hand = Hand {
        dataflow: Arc::new(dataflow),
        input: 0,
        feed: 0,
        outlets: vec![Outlet {
            together: sender.clone(),
            sender,
            wake: Arc::new(|| {}),
        }]
        .into(),
        stop: stopped,
        gauges: Arc::new(Gauges::default()),
        line: None,
        limits: BatchLimits {
            rows: 100,
            bytes: 1 << 20,
            record: 1 << 20,
        },
        room: crate::source::passage::Passage::of_limit(None),
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
    let mut settle = Settle::new((place.is_atomic(), false), options.settle, BTreeMap::new());
    settle.observe(
        Some(place.list(&|| false).unwrap().files),
        &|_| false,
        Instant::now(),
        std::time::SystemTime::now(),
    );
    let job = settle.next_job().unwrap();
    let end = FileReader {
        hand,
        place,
        options,
        decode,
        known: Default::default(),
        current: CurrentFile::default(),
        headers: HeadersTold::default(),
    }
    .run(&job);
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

/// A store that was away for half a minute ended the run.
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
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..250));
    let batch = RecordBatch::try_from_iter([("a", numbers)]).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let parquet = parquet.into_inner().unwrap();
    let mut avro = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    avro.write(&batch).unwrap();
    avro.finish().unwrap();
    for (name, bytes, format) in [
        ("a.parquet", parquet, Format::Parquet),
        ("a.avro", avro.into_inner(), Format::Avro),
    ] {
        for failures in [0, 2] {
            let (deliveries, end) = read(name, bytes.clone(), format, failures, false);
            assert_eq!(offsets(&deliveries), (0..250).collect::<Vec<_>>(), "{name} {failures}");
            assert!(is_done(&end));
            assert!(deliveries.iter().all(|d| d.decoded.rejects.is_empty()));
        }
    }
}
