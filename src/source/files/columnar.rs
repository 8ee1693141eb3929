//! Reads the batches of a columnar file: Parquet and Avro object containers.

use std::error::Error;
use std::io::{self, BufReader};
use std::ops::Range;
use std::sync::Arc;

use ::parquet as parquet_files;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path as StorePath;
use object_store::{GetOptions, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, ObjectStoreExt, coalesce_ranges};
use parquet_files::arrow::ParquetRecordBatchStreamBuilder;
use parquet_files::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet_files::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use parquet_files::errors::ParquetError;
use parquet_files::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet_files::file::reader::ChunkReader;

use super::content::ByteDigest;
use super::listing::{GlobLocation, store_error};
use super::open::{ReadBreak, StoredBytes};
use crate::contain::contain;
use crate::decode::read_container;
use crate::decode::{Damage, parquet};
use crate::repr::rows_at_once;

/// A file's batches, in order.
pub(crate) type FileBatches = Box<dyn Iterator<Item = Result<RecordBatch, ReadBreak>>>;

/// Which rows of a columnar file to read, and in what portions.
pub(crate) struct RowRange<'a> {
    /// The file's length in bytes.
    pub size: u64,
    /// The first row wanted.
    pub next: u64,
    /// The most rows of a batch; `bytes` is a soft limit of its size.
    pub rows: usize,
    pub bytes: u64,
    /// Identifies the version of the file that must be read.
    pub tag: &'a str,
}

/// The batches of a Parquet file from row `extent.next` on.
pub(crate) fn parquet(place: &GlobLocation, partition: &str, extent: RowRange<'_>) -> Result<FileBatches, ReadBreak> {
    match place {
        GlobLocation::Local { .. } => {
            let file = place.open_local(partition).map_err(ReadBreak::from_io)?;
            let at_once = (extent.rows, extent.bytes);
            let batches = parquet::batches(move || file.try_clone(), extent.next, at_once).map_err(of_arrow)?;
            Ok(Box::new(batches.map(|batch| batch.map_err(of_arrow))))
        }
        GlobLocation::Remote { store, runtime, .. } => {
            let location = place.location(partition);
            let object = runtime.block_on(store.head(&location));
            let object = object.map_err(|e| ReadBreak::from_io(store_error(e)))?;
            if super::listing::tag(object.size, object.e_tag.as_deref(), object.last_modified.into()) != extent.tag {
                return Err(ReadBreak::Changed);
            }
            let file = StoredFile {
                store: store.clone(),
                location,
                entity: object.e_tag,
                columns: None,
            };
            stored_parquet(file, &extent, runtime.clone())
        }
    }
}

/// The footer of a Parquet file.
pub(crate) fn footer(place: &GlobLocation, partition: &str, size: u64) -> Result<ArrowReaderMetadata, ReadBreak> {
    match place {
        GlobLocation::Local { .. } => {
            let file = place.open_local(partition).map_err(ReadBreak::from_io)?;
            let fetch = |range: Range<u64>| {
                let bytes = file.get_bytes(range.start, (range.end - range.start) as usize);
                bytes.map_err(of_parquet)
            };
            parquet::read_metadata(size, fetch)
        }
        GlobLocation::Remote { store, runtime, .. } => {
            let location = place.location(partition);
            parquet::read_metadata(size, |range| {
                let fetched = runtime.block_on(store.get_range(&location, range));
                fetched.map_err(|e| ReadBreak::from_io(store_error(e)))
            })
        }
    }
}

/// The batches of a Parquet file in an object store.
fn stored_parquet(
    file: StoredFile,
    extent: &RowRange<'_>,
    runtime: tokio::runtime::Handle,
) -> Result<FileBatches, ReadBreak> {
    let metadata = parquet::read_metadata(extent.size, |range| {
        let fetched = runtime.block_on(file.range(range));
        fetched.map_err(|e| ReadBreak::from_io(store_error(e)))
    })?;
    let mut groups = parquet::groups_from(metadata.metadata(), extent.next).into_iter();
    let rows = rows_at_once(metadata.metadata(), extent.rows, extent.bytes);
    let mut open: Option<ParquetRecordBatchStream<StoredFile>> = None;
    let mut ended = false;
    let mut next_batch = move || -> Result<Option<RecordBatch>, ReadBreak> {
        loop {
            if let Some(batch) = open.as_mut().and_then(|open| runtime.block_on(open.next())) {
                let batch = batch.map_err(of_parquet)?;
                return parquet::checked(batch, metadata.metadata()).map(Some).map_err(of_arrow);
            }
            let Some((group, before)) = groups.next() else {
                return Ok(None);
            };
            let file = StoredFile {
                columns: Some((metadata.metadata().clone(), group)),
                ..file.clone()
            };
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata.clone())
                .with_row_groups(vec![group])
                .with_batch_size(rows)
                .with_offset(before);
            open = Some(builder.build().map_err(of_parquet)?);
        }
    };
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let read = contain(&mut next_batch).map_err(|panic| ReadBreak::from(Damage::of_panic(panic)));
        let batch = read.flatten().transpose();
        ended = !matches!(batch, Some(Ok(_)));
        batch
    })))
}

/// A Parquet file in a store. All its ranges are read from one version of the object.
#[derive(Clone)]
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    location: StorePath,
    /// The object's entity tag, if the store has entity tags.
    entity: Option<String>,
    /// The row group whose columns are being read.
    columns: Option<(Arc<ParquetMetaData>, usize)>,
}

impl StoredFile {
    /// The bytes of a range. Fails once another object has the name.
    async fn range(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        let options = GetOptions {
            range: Some(range.into()),
            if_match: self.entity.clone(),
            ..GetOptions::default()
        };
        self.store.get_opts(&self.location, options).await?.bytes().await
    }

    /// Validates the page headers of a column chunk that was fetched.
    fn check(&self, range: &Range<u64>, bytes: &Bytes) -> Result<(), ParquetError> {
        let Some((metadata, group)) = &self.columns else {
            return Ok(());
        };
        let columns = metadata.row_group(*group).columns();
        let of_range = |column: &&ColumnChunkMetaData| column.byte_range() == (range.start, range.end - range.start);
        let Some(column) = columns.iter().find(of_range) else {
            return Ok(());
        };
        let checked = parquet::check_pages(column, |start, length| {
            let from = (start - range.start) as usize;
            Ok::<_, Damage>(bytes.slice(from..from + length as usize))
        });
        checked.map_err(|damage| ParquetError::External(Box::new(damage)))
    }
}

type Fetched<'a, T> = BoxFuture<'a, parquet_files::errors::Result<T>>;

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> Fetched<'_, Bytes> {
        async move {
            let fetched = self.range(range.clone()).await.map_err(external)?;
            self.check(&range, &fetched)?;
            Ok(fetched)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> Fetched<'_, Vec<Bytes>> {
        async move {
            let fetched = coalesce_ranges(&ranges, |range| self.range(range), OBJECT_STORE_COALESCE_DEFAULT);
            let fetched = fetched.await.map_err(external)?;
            for (range, bytes) in ranges.iter().zip(&fetched) {
                self.check(range, bytes)?;
            }
            Ok(fetched)
        }
        .boxed()
    }

    fn get_metadata<'a>(&'a mut self, _: Option<&'a ArrowReaderOptions>) -> Fetched<'a, Arc<ParquetMetaData>> {
        // Each reader is constructed with the footer that was read before, so it never asks for the metadata.
        async {
            Err(ParquetError::General(
                "the file's footer was read before its columns".to_string(),
            ))
        }
        .boxed()
    }
}

/// The batches of an Avro object container from row `extent.next` on. Earlier rows are decoded and skipped,
/// because a block does not say how many bytes a row has. Also returns a digest of the file's bytes as far as they
/// are read.
pub(crate) fn avro(
    place: &GlobLocation,
    partition: &str,
    extent: RowRange<'_>,
) -> Result<(FileBatches, Option<ByteDigest>), ReadBreak> {
    let (mut source, trouble) = StoredBytes::open_version(place, partition, extent.tag)?;
    let digest = source.digested();
    let source = BufReader::with_capacity(256 << 10, source);
    let broken = move |error: ArrowError| match error {
        ArrowError::IoError(_, e) => trouble.explain(e),
        other => of_arrow(other),
    };
    let batches = read_container(source, extent.next, extent.rows).map_err(&broken)?;
    Ok((Box::new(batches.map(move |batch| batch.map_err(&broken))), Some(digest)))
}

fn of_arrow(error: ArrowError) -> ReadBreak {
    match error {
        ArrowError::ParquetError(message) => ReadBreak::Spoilt(message),
        ArrowError::IoError(_, e) => ReadBreak::from_io(e),
        ArrowError::ExternalError(e) => of_any(e),
        other => ReadBreak::Spoilt(other.to_string()),
    }
}

fn of_parquet(error: ParquetError) -> ReadBreak {
    match error {
        ParquetError::External(e) => of_any(e),
        other => ReadBreak::Spoilt(parquet::plain(&other)),
    }
}

/// Classifies an error that Parquet wraps, by the failure of the disk or the store inside of it.
fn of_any(error: Box<dyn Error + Send + Sync>) -> ReadBreak {
    match error.downcast::<object_store::Error>() {
        Ok(e) => ReadBreak::from_io(store_error(*e)),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(e) if e.kind() == io::ErrorKind::UnexpectedEof => ReadBreak::Spoilt(e.to_string()),
            Ok(e) => ReadBreak::from_io(*e),
            Err(error) => ReadBreak::Spoilt(error.to_string()),
        },
    }
}
