//! A local file system that does not keep small files open after a request.
//!
//! A reader that replays a table's log asks for hundreds of its entries before it reads the first one; deltalake's
//! kernel asks for up to a thousand. [`LocalFileSystem`] answers each request with an open file. So a log with 750
//! entries since its newest checkpoint took 750 descriptors while it was read, of the 1,024 that a process has by
//! default, and without a free descriptor a commit fails. Here a file of at most [`SMALL`] bytes is read and closed
//! before the request is answered, at most [`AT_ONCE`] files at a time. Larger files, data and checkpoints, are few.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::sync::Semaphore;

/// The greatest size in bytes of a file that is read into memory instead of being kept open.
const SMALL: u64 = 128 << 10;
/// How many files are read at the same time.
const AT_ONCE: usize = 16;

/// See the module's header.
#[derive(Debug)]
pub struct Closing {
    inner: LocalFileSystem,
    turns: Semaphore,
}

impl Closing {
    /// Wraps a local file system.
    pub fn new(inner: LocalFileSystem) -> Closing {
        Closing {
            inner,
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Closing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.inner.get_opts(location, options).await;
        }
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        let got = self.inner.get_opts(location, options).await?;
        if got.range.end - got.range.start > SMALL {
            return Ok(got);
        }
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let bytes = got.bytes().await?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }.boxed()).boxed()),
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn open_below(folder: &std::path::Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").expect("Linux tells");
        let targets = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.starts_with(folder)).count()
    }

    /// Regression: a run whose tables had logs of 750 entries held 783 descriptors.
    #[tokio::test]
    async fn answers_that_wait_to_be_read_hold_no_small_file_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("it is there");
        let store = Closing::new(LocalFileSystem::new_with_prefix(&folder).expect("a store"));
        for n in 0..300 {
            std::fs::write(folder.join(format!("{n}.json")), n.to_string()).expect("a file");
        }
        std::fs::write(folder.join("large"), vec![1; SMALL as usize + 1]).expect("a file");
        let asked = (0..300).map(|n| {
            let path = Path::from(format!("{n}.json"));
            let store = &store;
            async move { store.get(&path).await }
        });
        let answers: Vec<GetResult> = futures::future::try_join_all(asked).await.expect("all are there");
        assert_eq!(open_below(&folder), 0);
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.bytes().await.expect("its bytes"), n.to_string());
        }
        let large = store.get(&Path::from("large")).await.expect("it is there");
        assert_eq!(open_below(&folder), 1, "it is read as it comes");
        assert_eq!(large.bytes().await.expect("its bytes").len() as u64, SMALL + 1);
    }
}
