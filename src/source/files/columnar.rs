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
use super::listing::{Place, store_error};
use super::open::{Break, Source};
use crate::contain::contain;
use crate::decode::avro::read_container;
use crate::decode::{Damage, parquet};
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

/// The batches of a Parquet file from row `extent.next` on.
pub(crate) fn parquet(place: &Place, partition: &str, extent: Extent<'_>) -> Result<Batches, Break> {
    match place {
        Place::Local { .. } => {
            let file = place.open_local(partition).map_err(Break::from_io)?;
            let at_once = (extent.rows, extent.bytes);
            let batches = parquet::batches(move || file.try_clone(), extent.next, at_once).map_err(of_arrow)?;
            Ok(Box::new(batches.map(|batch| batch.map_err(of_arrow))))
        }
        Place::Remote { store, runtime, .. } => {
            let location = place.location(partition);
            let there = runtime.block_on(store.head(&location));
            let there = there.map_err(|e| Break::from_io(store_error(e)))?;
            if super::listing::tag(there.size, there.e_tag.as_deref(), there.last_modified.into()) != extent.tag {
                return Err(Break::Changed);
            }
            let file = StoredFile {
                store: store.clone(),
                location,
                entity: there.e_tag,
                columns: None,
            };
            stored_parquet(file, &extent, runtime.clone())
        }
    }
}

/// The footer of a Parquet file.
pub(crate) fn footer(place: &Place, partition: &str, size: u64) -> Result<ArrowReaderMetadata, Break> {
    match place {
        Place::Local { .. } => {
            let file = place.open_local(partition).map_err(Break::from_io)?;
            let fetch = |range: Range<u64>| {
                let bytes = file.get_bytes(range.start, (range.end - range.start) as usize);
                bytes.map_err(of_parquet)
            };
            parquet::read_metadata(size, fetch)
        }
        Place::Remote { store, runtime, .. } => {
            let location = place.location(partition);
            parquet::read_metadata(size, |range| {
                let fetched = runtime.block_on(store.get_range(&location, range));
                fetched.map_err(|e| Break::from_io(store_error(e)))
            })
        }
    }
}

/// The batches of a Parquet file in a store.
fn stored_parquet(file: StoredFile, extent: &Extent<'_>, runtime: tokio::runtime::Handle) -> Result<Batches, Break> {
    let metadata = parquet::read_metadata(extent.size, |range| {
        let fetched = runtime.block_on(file.range(range));
        fetched.map_err(|e| Break::from_io(store_error(e)))
    })?;
    let mut groups = parquet::groups_from(metadata.metadata(), extent.next).into_iter();
    let rows = rows_at_once(metadata.metadata(), extent.rows, extent.bytes);
    let mut open: Option<ParquetRecordBatchStream<StoredFile>> = None;
    let mut ended = false;
    let mut next_batch = move || -> Result<Option<RecordBatch>, Break> {
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
        let read = contain(&mut next_batch).map_err(|panic| Break::from(Damage::of_panic(panic)));
        let batch = read.flatten().transpose();
        ended = !matches!(batch, Some(Ok(_)));
        batch
    })))
}

/// A Parquet file in a store, read by ranges, all of one object.
#[derive(Clone)]
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    location: StorePath,
    /// The object's entity tag, where the store has such.
    entity: Option<String>,
    /// Of which row group columns are read.
    columns: Option<(Arc<ParquetMetaData>, usize)>,
}

impl StoredFile {
    /// A range's bytes; none once another object has the name.
    async fn range(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        let options = GetOptions {
            range: Some(range.into()),
            if_match: self.entity.clone(),
            ..GetOptions::default()
        };
        self.store.get_opts(&self.location, options).await?.bytes().await
    }

    /// Looks over the pages of a column that was fetched.
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
        // Readers are made with what was read before.
        async {
            Err(ParquetError::General(
                "the file's footer was read before its columns".to_string(),
            ))
        }
        .boxed()
    }
}

/// The batches of an Avro object container from row `extent.next` on. Rows before are gone past: blocks do not say how many
/// bytes a row has. With them what the file's bytes are, as far as they are read.
pub(crate) fn avro(place: &Place, partition: &str, extent: Extent<'_>) -> Result<(Batches, Option<ByteDigest>), Break> {
    let (mut source, trouble) = Source::open_version(place, partition, extent.tag)?;
    let digest = source.digested();
    let source = BufReader::with_capacity(256 << 10, source);
    let broken = move |error: ArrowError| match error {
        ArrowError::IoError(_, e) => trouble.explain(e),
        other => of_arrow(other),
    };
    let batches = read_container(source, extent.next, extent.rows).map_err(&broken)?;
    Ok((Box::new(batches.map(move |batch| batch.map_err(&broken))), Some(digest)))
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
        other => Break::Spoilt(parquet::plain(&other)),
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
