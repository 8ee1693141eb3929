//! Files that a path names, for whoever looks into them without a dataflow. They are found and opened as a feed does.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::charset::Peeked;
use super::columnar::{self, Extent};
use super::listing::{Found, Place, Surroundings};
use super::magic::{HEAD, Mark, mark};
use super::open::{Break, Source, decompress, refusal};
use crate::source::SourceError;

/// The files of a glob.
#[derive(Clone)]
pub(crate) struct NamedFiles {
    place: Place,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct NamedFile {
    place: Place,
    found: Found,
}

impl NamedFiles {
    /// Finds the files that an absolute glob or a URL names. A store's credentials come from the environment.
    ///
    /// # Errors
    /// It names no store, or is no glob.
    pub fn at(path: &str, follow_links: bool, runtime: tokio::runtime::Handle) -> Result<Self, SourceError> {
        let around = Surroundings {
            store_options: &BTreeMap::new(),
            lake: "",
            follow_links,
            runtime: Some(runtime),
        };
        let place = Place::new("infer", path, around)?;
        Ok(NamedFiles { place })
    }

    /// Those that have something in them, in no order.
    ///
    /// # Errors
    /// The folder or the store cannot be listed.
    pub fn list(&self, stops: &dyn Fn() -> bool) -> io::Result<Vec<NamedFile>> {
        let listed = self.place.list(stops)?.files.into_iter();
        let listed = listed.filter(|found| found.size > 0).map(|found| NamedFile {
            place: self.place.clone(),
            found,
        });
        Ok(listed.collect())
    }
}

impl NamedFile {
    /// Its path below the glob's fixed part.
    pub fn partition(&self) -> &Arc<str> {
        &self.found.partition
    }

    /// When it last changed.
    pub fn modified(&self) -> SystemTime {
        self.found.modified
    }

    /// Its path or URL as people are shown it.
    pub fn shown(&self) -> String {
        self.place.shown(&self.found.partition)
    }

    /// What its first bytes say that it is, where that is no text.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn mark(&self) -> Result<Option<Mark>, String> {
        let (source, trouble) = Source::open(&self.place, &self.found.partition).map_err(told)?;
        let peeked = Peeked::new(source, HEAD);
        match peeked.failure {
            Some(failure) => Err(told(trouble.explain(failure))),
            None => Ok(mark(&peeked.head)),
        }
    }

    /// Its bytes without their compression.
    ///
    /// # Errors
    /// It cannot be opened, or is no text.
    pub fn text(&self) -> Result<Box<dyn Read>, String> {
        let (source, trouble) = Source::open(&self.place, &self.found.partition).map_err(told)?;
        let unpacked = decompress(source, &trouble, &self.found.partition).map_err(told)?;
        Ok(unpacked.source)
    }

    /// The footer of a Parquet file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn footer(&self) -> Result<ArrowReaderMetadata, String> {
        columnar::footer(&self.place, &self.found.partition, self.found.size).map_err(told)
    }

    /// Batches of an Avro container or a Parquet file, of at most so many rows.
    ///
    /// # Errors
    /// It cannot be read; the iterator's items fail where it is damaged.
    pub fn batches(
        &self,
        of: Mark,
        rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, String>> + use<>, String> {
        let extent = Extent {
            size: self.found.size,
            next: 0,
            rows,
            bytes: BATCH_BYTES,
            tag: &self.found.tag,
        };
        let batches = match of {
            Mark::Parquet => columnar::parquet(&self.place, &self.found.partition, extent),
            _ => columnar::avro(&self.place, &self.found.partition, extent).map(|(batches, _)| batches),
        };
        Ok(batches.map_err(told)?.map(|batch| batch.map_err(told)))
    }
}

/// About how many bytes a batch may have.
const BATCH_BYTES: u64 = 8 << 20;

fn told(broken: Break) -> String {
    match broken {
        Break::Refused(reason) | Break::Spoilt(reason) => reason,
        Break::Vanished => "it is not there any more".to_string(),
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

    /// `infer` looked at local files alone.
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
            place: Place::Remote {
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
        assert_eq!(files[1].mark(), Ok(Some(Mark::Parquet)));
        assert_eq!(files[1].footer().unwrap().schema().fields().len(), 1);
        let batches: Vec<RecordBatch> = files[1]
            .batches(Mark::Parquet, 2)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
    }
}
