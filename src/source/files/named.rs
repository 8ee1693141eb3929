//! Files that a path names, for commands that inspect files without a dataflow. They are found and opened as a feed
//! does it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::charset::Peeked;
use super::columnar::{self, RowRange};
use super::listing::{GlobLocation, ListedFile, Surroundings};
use super::magic::{FileMark, HEAD, mark};
use super::open::{ReadBreak, StoredBytes, decompress, refusal};
use crate::source::SourceError;

/// The files of a glob.
#[derive(Clone)]
pub(crate) struct NamedFiles {
    place: GlobLocation,
}

/// A file of a glob.
#[derive(Clone)]
pub(crate) struct NamedFile {
    place: GlobLocation,
    listed: ListedFile,
}

impl NamedFiles {
    /// The files of an absolute glob or a URL. A store's credentials come from the environment.
    ///
    /// # Errors
    /// The path names no known store, or is no valid glob.
    pub fn at(path: &str, follow_links: bool, runtime: tokio::runtime::Handle) -> Result<Self, SourceError> {
        let around = Surroundings {
            store_options: &BTreeMap::new(),
            lake: "",
            follow_links,
            runtime: Some(runtime),
        };
        let place = GlobLocation::new("infer", path, around)?;
        Ok(NamedFiles { place })
    }

    /// The files that are not empty, in no particular order.
    ///
    /// # Errors
    /// The folder or the store cannot be listed.
    pub fn list(&self, stops: &dyn Fn() -> bool) -> io::Result<Vec<NamedFile>> {
        let listed = self.place.list(stops)?.files.into_iter();
        let listed = listed.filter(|listed| listed.size > 0).map(|listed| NamedFile {
            place: self.place.clone(),
            listed,
        });
        Ok(listed.collect())
    }
}

impl NamedFile {
    /// Its path below the glob's fixed part.
    pub fn partition(&self) -> &Arc<str> {
        &self.listed.partition
    }

    /// When it last changed.
    pub fn modified(&self) -> SystemTime {
        self.listed.modified
    }

    /// Its path or URL, in the form that is safe to show to people.
    pub fn shown(&self) -> String {
        self.place.shown(&self.listed.partition)
    }

    /// The format that its first bytes show; none if it may be text.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn mark(&self) -> Result<Option<FileMark>, String> {
        let (source, trouble) = StoredBytes::open(&self.place, &self.listed.partition).map_err(describe_break)?;
        let peeked = Peeked::new(source, HEAD);
        match peeked.failure {
            Some(failure) => Err(describe_break(trouble.explain(failure))),
            None => Ok(mark(&peeked.head)),
        }
    }

    /// Its decompressed bytes.
    ///
    /// # Errors
    /// It cannot be opened, or is not text.
    pub fn text(&self) -> Result<Box<dyn Read>, String> {
        let (source, trouble) = StoredBytes::open(&self.place, &self.listed.partition).map_err(describe_break)?;
        let unpacked = decompress(source, &trouble, &self.listed.partition).map_err(describe_break)?;
        Ok(unpacked.source)
    }

    /// The footer of a Parquet file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn footer(&self) -> Result<ArrowReaderMetadata, String> {
        columnar::footer(&self.place, &self.listed.partition, self.listed.size).map_err(describe_break)
    }

    /// The batches of an Avro container or a Parquet file, of at most `rows` rows each.
    ///
    /// # Errors
    /// It cannot be read. The iterator's items fail where the file is damaged.
    pub fn batches(
        &self,
        of: FileMark,
        rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, String>> + use<>, String> {
        let extent = RowRange {
            size: self.listed.size,
            next: 0,
            rows,
            bytes: BATCH_BYTES,
            tag: &self.listed.tag,
        };
        let batches = match of {
            FileMark::Parquet => columnar::parquet(&self.place, &self.listed.partition, extent),
            _ => columnar::avro(&self.place, &self.listed.partition, extent).map(|(batches, _)| batches),
        };
        Ok(batches
            .map_err(describe_break)?
            .map(|batch| batch.map_err(describe_break)))
    }
}

/// About how many bytes a batch may have.
const BATCH_BYTES: u64 = 8 << 20;

fn describe_break(broken: ReadBreak) -> String {
    match broken {
        ReadBreak::Refused(reason) | ReadBreak::Spoilt(reason) => reason,
        ReadBreak::Vanished => "it is not there any more".to_string(),
        other => refusal(other).to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;
    use crate::definition::FileGlob;
    use arrow::array::{ArrayRef, Int64Array};
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};
    use std::io::Write;

    /// `infer` could only read local files.
    #[test]
    fn files_of_a_store_are_looked_into_as_local_ones_are() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let store = InMemory::new();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"a,b\n1,2\n").unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        for (name, bytes) in [
            ("lake/in/a.csv", gzip.finish().unwrap()),
            ("lake/in/deep/b.parquet", writer.into_inner().unwrap()),
            ("lake/in/empty.csv", Vec::new()),
            ("lake/in/_hidden.csv", b"x".to_vec()),
        ] {
            runtime.block_on(store.put(&Path::from(name), bytes.into())).unwrap();
        }
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let files = NamedFiles {
            place: GlobLocation::Remote {
                store,
                base: "memory://lake/in".to_string(),
                prefix: Path::from("lake/in"),
                glob: FileGlob::new("**/*").unwrap(),
                lake: String::new(),
                runtime: runtime.handle().clone(),
            },
        };
        let mut files = files.list(&|| false).unwrap();
        files.sort_by_key(|file| file.partition().clone());
        let names: Vec<String> = files.iter().map(NamedFile::shown).collect();
        assert_eq!(names, ["memory://lake/in/a.csv", "memory://lake/in/deep/b.parquet"]);
        let mut text = String::new();
        files[0].text().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a,b\n1,2\n");
        assert_eq!(files[1].mark(), Ok(Some(FileMark::Parquet)));
        assert_eq!(files[1].footer().unwrap().schema().fields().len(), 1);
        let batches: Vec<RecordBatch> = files[1]
            .batches(FileMark::Parquet, 2)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
    }
}
