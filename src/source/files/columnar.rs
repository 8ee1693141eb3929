//! Reads the batches of a columnar file: Parquet and Avro object containers.

use std::error::Error;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path as StorePath;
use object_store::{GetOptions, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, ObjectStoreExt, coalesce_ranges};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::listing::{Place, store_error};
use super::open::{Break, Source};
use crate::repr::rows_at_once;

/// A file's batches, in order.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, Break>>>;

/// What to read of a columnar file.
pub(crate) struct Extent<'a> {
    /// Its length in bytes.
    pub size: u64,
    /// The first row wanted.
    pub next: u64,
    /// Rows of a batch, and about how many bytes they may have.
    pub rows: usize,
    pub bytes: u64,
    /// Which content of the file.
    pub tag: &'a str,
}

/// Rows of Avro that are decoded at once: blocks say nothing of their size once they are uncompressed.
const AVRO_ROWS: usize = 128;

/// The batches of a Parquet file from row `extent.next` on.
pub(crate) fn parquet(place: &Place, partition: &str, extent: Extent<'_>) -> Result<Batches, Break> {
    let skip = usize::try_from(extent.next).expect("row numbers fit into memory's");
    match place {
        Place::Local { .. } => {
            let file = place.open_local(partition).map_err(Break::from_io)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(of_parquet)?;
            let rows = rows_at_once(builder.metadata(), extent.rows, extent.bytes);
            let reader = builder
                .with_batch_size(rows)
                .with_offset(skip)
                .build()
                .map_err(of_parquet)?;
            Ok(Box::new(reader.map(|batch| batch.map_err(of_arrow))))
        }
        Place::Remote { store, runtime, .. } => {
            let location = place.location(partition);
            let there = runtime.block_on(store.head(&location));
            let there = there.map_err(|e| Break::from_io(store_error(e)))?;
            if super::listing::tag(there.size, there.e_tag.as_deref(), there.last_modified.into()) != extent.tag {
                return Err(Break::Changed);
            }
            let reader = StoredFile {
                store: store.clone(),
                location,
                size: extent.size,
                entity: there.e_tag,
            };
            let builder = runtime
                .block_on(ParquetRecordBatchStreamBuilder::new(reader))
                .map_err(of_parquet)?;
            let rows = rows_at_once(builder.metadata(), extent.rows, extent.bytes);
            let stream = builder.with_batch_size(rows).with_offset(skip).build();
            let (mut stream, runtime) = (stream.map_err(of_parquet)?, runtime.clone());
            let next = move || runtime.block_on(stream.next()).map(|batch| batch.map_err(of_parquet));
            Ok(Box::new(std::iter::from_fn(next)))
        }
    }
}

/// A Parquet file in a store, read by ranges, all of one object.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    location: StorePath,
    size: u64,
    /// The object's entity tag, where the store has such.
    entity: Option<String>,
}

impl StoredFile {
    /// A range's bytes; none once another object has the name.
    async fn range(&self, range: std::ops::Range<u64>) -> object_store::Result<Bytes> {
        let options = GetOptions {
            range: Some(range.into()),
            if_match: self.entity.clone(),
            ..GetOptions::default()
        };
        self.store.get_opts(&self.location, options).await?.bytes().await
    }
}

type Fetched<'a, T> = BoxFuture<'a, parquet::errors::Result<T>>;

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: std::ops::Range<u64>) -> Fetched<'_, Bytes> {
        async move { self.range(range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<std::ops::Range<u64>>) -> Fetched<'_, Vec<Bytes>> {
        async move {
            let fetched = coalesce_ranges(&ranges, |range| self.range(range), OBJECT_STORE_COALESCE_DEFAULT);
            fetched.await.map_err(external)
        }
        .boxed()
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> Fetched<'a, Arc<ParquetMetaData>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// The batches of an Avro object container from row `extent.next` on. Rows before are decoded and dropped: blocks do
/// not say what they hold.
pub(crate) fn avro(place: &Place, partition: &str, extent: Extent<'_>) -> Result<Batches, Break> {
    let (source, trouble) = Source::open(place, partition)?;
    let tail = Tail::default();
    let source = BufReader::with_capacity(
        256 << 10,
        Tailed {
            source,
            tail: tail.clone(),
        },
    );
    let reader = ReaderBuilder::new()
        .with_batch_size(extent.rows.min(AVRO_ROWS))
        .build(source);
    let mut reader = reader.map_err(|e| trouble.explain(e))?;
    let marker = reader.avro_header().sync();
    let (mut skip, mut ended) = (extent.next, false);
    let next = move || {
        loop {
            if ended {
                return None;
            }
            match reader.next() {
                Some(Ok(batch)) => {
                    let rows = batch.num_rows() as u64;
                    if skip < rows {
                        let from = std::mem::take(&mut skip) as usize;
                        return Some(Ok(batch.slice(from, batch.num_rows() - from)));
                    }
                    skip -= rows;
                }
                Some(Err(e)) => {
                    ended = true;
                    return Some(Err(trouble.explain(e)));
                }
                None => {
                    ended = true;
                    // The reader takes a torn last block for the end; every container ends with its marker.
                    let whole = tail.bytes() == marker;
                    return (!whole).then(|| Err(Break::Spoilt("the last block of the Avro file is torn".into())));
                }
            }
        }
    };
    Ok(Box::new(std::iter::from_fn(next)))
}

/// The last bytes that a [`Tailed`] gave: as many as a marker of an Avro container has.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<[u8; 16]>>);

impl Tail {
    fn bytes(&self) -> [u8; 16] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Tailed<R> {
    source: R,
    tail: Tail,
}

impl<R: Read> Read for Tailed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        let new = &buffer[read.saturating_sub(16)..read];
        let mut tail = self.tail.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.rotate_left(new.len() % 16);
        tail[16 - new.len()..].copy_from_slice(new);
        Ok(read)
    }
}

fn of_arrow(error: ArrowError) -> Break {
    match error {
        ArrowError::ParquetError(message) => Break::Spoilt(message),
        ArrowError::IoError(_, e) => Break::from_io(e),
        ArrowError::ExternalError(e) => of_any(e),
        other => Break::Spoilt(other.to_string()),
    }
}

fn of_parquet(error: ParquetError) -> Break {
    match error {
        ParquetError::External(e) => of_any(e),
        other => Break::Spoilt(other.to_string()),
    }
}

/// What an error below Parquet's means, by the failure of disk or store in it.
fn of_any(error: Box<dyn Error + Send + Sync>) -> Break {
    match error.downcast::<object_store::Error>() {
        Ok(e) => Break::from_io(store_error(*e)),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(e) if e.kind() == io::ErrorKind::UnexpectedEof => Break::Spoilt(e.to_string()),
            Ok(e) => Break::from_io(*e),
            Err(error) => Break::Spoilt(error.to_string()),
        },
    }
}
