//! The lake: the folder or bucket that holds every table of a dataflow, and how its objects are written.
//!
//! [`Lake::store`] is rooted at the lake: paths are `silver/order_lines/part-0.parquet`. The lake promises
//! that [`Lake::put_new`] is put-if-absent and all-or-nothing; with `durable` on a local disk, the bytes and
//! the name survive a power cut once it returns. It knows nothing of Delta beyond how to open a table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use thiserror::Error;
use tokio::runtime::Handle;
use url::Url;
use uuid::Uuid;

use super::disk;
use crate::store::Closing;

/// Where the tables of a dataflow live.
#[derive(Clone)]
pub struct Lake {
    /// Rooted at the lake.
    pub store: Arc<dyn ObjectStore>,
    /// The lake's address, ending in a slash; without credentials.
    pub root: Url,
    /// Its folder, when it is on a local disk.
    pub local: Option<PathBuf>,
    /// Rooted at the bucket or file system, as deltalake wants it.
    bucket: Arc<dyn ObjectStore>,
}

/// Bytes of a stream that are held and sent at once: stores take parts from 5 MiB on.
const PART: u64 = 8 << 20;
/// Bytes of an object that is read at once, at most.
const MOST: u64 = 4 << 30;

/// What became of a put-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The name is ours.
    Written,
    /// The name was taken; nothing was written.
    Taken,
}

/// A lake that could not be opened or touched.
#[derive(Debug, Error)]
pub enum LakeError {
    /// Neither a folder nor a URL of a known kind.
    #[error(
        "could not understand the lake's address {address:?}: {reason}; give a folder, or a URL like s3://bucket/lake, abfss://container@account.dfs.core.windows.net/lake, gs://bucket/lake"
    )]
    Address {
        /// As given.
        address: String,
        /// Why.
        reason: String,
    },
    /// No run has made it.
    #[error("there is no lake in {folder:?} yet; `alluvium run` makes it with the dataflow's first snapshot")]
    Absent {
        /// Which folder.
        folder: PathBuf,
    },
    /// The folder could not be made.
    #[error("could not open the lake's folder {folder:?}: check that its parent exists and may be written")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A store refused its settings.
    #[error("could not open the store of {url}: check store options and credentials")]
    Store {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

impl Lake {
    /// Opens the lake at a folder, which must be there, or at a URL. `options` are the object store's own
    /// (`aws_region`, `azure_storage_account_key`, ...), and beat the environment's. Nothing is made: who only reads leaves no
    /// trace.
    pub fn open(address: &str, options: &BTreeMap<String, String>) -> Result<Lake, LakeError> {
        Lake::at(address, options, false)
    }

    /// The same for who writes: a folder that is missing is made.
    pub fn make(address: &str, options: &BTreeMap<String, String>) -> Result<Lake, LakeError> {
        Lake::at(address, options, true)
    }

    fn at(address: &str, options: &BTreeMap<String, String>, makes: bool) -> Result<Lake, LakeError> {
        let bad = |reason: String| LakeError::Address {
            address: address.to_string(),
            reason,
        };
        let url = match Url::parse(address) {
            Ok(url) if url.scheme() != "file" && url.scheme().len() > 1 => url,
            Ok(url) if url.scheme() == "file" => {
                let folder = url.to_file_path().map_err(|()| bad("not a local file URL".into()))?;
                return Lake::at_folder(folder, makes);
            }
            _ => return Lake::at_folder(PathBuf::from(address), makes),
        };
        let mut root = url.clone();
        root.set_query(None);
        root.set_fragment(None);
        root.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        let (bucket, prefix) = crate::store::open(&url, options).map_err(|source| match source {
            object_store::Error::Generic { store: "URL", source } => bad(source.to_string()),
            source => LakeError::Store {
                url: root.to_string(),
                source,
            },
        })?;
        Ok(Lake::over(bucket, prefix, root))
    }

    /// A lake below `prefix` of a store that was made elsewhere; `root` is the address of both.
    pub fn over(bucket: Arc<dyn ObjectStore>, prefix: Path, root: Url) -> Lake {
        let store: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            bucket.clone()
        } else {
            Arc::new(PrefixStore::new(bucket.clone(), prefix))
        };
        Lake {
            store,
            root,
            local: None,
            bucket,
        }
    }

    fn at_folder(folder: PathBuf, makes: bool) -> Result<Lake, LakeError> {
        let failed = |source| LakeError::Folder {
            folder: folder.clone(),
            source,
        };
        if makes {
            let made = std::path::absolute(&folder).and_then(|folder| create_dir_synced(&folder));
            made.map_err(failed)?;
        }
        let folder = fs::canonicalize(&folder).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LakeError::Absent { folder: folder.clone() },
            _ => failed(error),
        })?;
        let root = Url::from_directory_path(&folder).expect("a canonical path is absolute");
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|source| LakeError::Store {
            url: root.to_string(),
            source,
        })?;
        Ok(Lake {
            store: Arc::new(Closing::new(store)),
            root,
            local: Some(folder),
            bucket: Arc::new(Closing::new(LocalFileSystem::new())),
        })
    }

    /// The address of a table, `path` being its folder below the lake.
    pub fn table_url(&self, path: &str) -> Url {
        self.root
            .join(&format!("{}/", path.trim_end_matches('/')))
            .expect("a relative path joins any base")
    }

    /// A fresh handle of the table at `path`, not loaded yet.
    pub fn delta_table(&self, path: &str) -> DeltaTable {
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(self.store.clone(), Path::from(path)));
        let url = self.table_url(path);
        DeltaTable::new(default_logstore(
            store,
            self.bucket.clone(),
            &url,
            &StorageConfig::default(),
        ))
    }

    /// Writes an object unless its name is taken.
    pub async fn put_new(&self, path: &Path, bytes: Bytes, durable: bool) -> Result<Put, object_store::Error> {
        if let (true, Some(folder)) = (durable, self.local.clone()) {
            let path = path.clone();
            return tokio::task::spawn_blocking(move || put_synced(folder, &path, |file| file.write_all(&bytes)))
                .await
                .map_err(|source| object_store::Error::JoinError { source })?
                .map_err(|source| object_store::Error::Generic {
                    store: "lake",
                    source: Box::new(source),
                });
        }
        match self.store.put_opts(path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Written),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Taken),
            Err(e) => Err(e),
        }
    }

    /// Writes an object as its bytes come, of which few are held at a time; it is there once all of them are. Not to be
    /// called from inside the runtime. If the name is taken, whose bytes stay is left open: it must stand for its content.
    pub fn put_stream(&self, path: &Path, bytes: &mut dyn Read, durable: bool, runtime: &Handle) -> io::Result<()> {
        if let (true, Some(folder)) = (durable, self.local.clone()) {
            put_synced(folder, path, |file| io::copy(bytes, file).map(drop))?;
            return Ok(());
        }
        let mut next = || -> io::Result<Bytes> {
            let mut part = Vec::new();
            bytes.take(PART).read_to_end(&mut part)?;
            Ok(part.into())
        };
        let mut part = next()?;
        if (part.len() as u64) < PART {
            runtime.block_on(self.put_new(path, part, durable))?;
            return Ok(());
        }
        let mut upload = runtime.block_on(self.store.put_multipart(path))?;
        let sent = loop {
            if part.is_empty() {
                break Ok(());
            }
            if let Err(error) = runtime.block_on(upload.put_part(part.into())) {
                break Err(io::Error::from(error));
            }
            part = match next() {
                Ok(part) => part,
                Err(error) => break Err(error),
            };
        };
        if let Err(error) = sent {
            // What was sent is of no use; the failure is what counts.
            let _ = runtime.block_on(upload.abort());
            return Err(error);
        }
        runtime.block_on(upload.complete())?;
        Ok(())
    }

    /// An object's bytes; none if there is no such object. What is no file on a disk is not opened: reading a FIFO never ends.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>, object_store::Error> {
        if let Some(folder) = &self.local {
            let place = local_path(folder, path);
            if fs::metadata(&place).is_ok_and(|found| !found.is_file()) {
                return Err(unreadable(format!("{} is no file", place.display())));
            }
        }
        match self.store.get(path).await {
            Ok(found) if found.meta.size > MOST => Err(unreadable(format!(
                "{path} has {} bytes, more than any file of a lake",
                found.meta.size
            ))),
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lake({})", self.root)
    }
}

/// An object's file below a local lake.
fn local_path(lake: &std::path::Path, path: &Path) -> PathBuf {
    path.parts()
        .fold(lake.to_path_buf(), |folder, part| folder.join(part.as_ref()))
}

fn unreadable(reason: String) -> object_store::Error {
    object_store::Error::Generic {
        store: "lake",
        source: reason.into(),
    }
}

/// Where the file that a Delta action names is: `path` is URL-encoded (protocol, "Add File and Remove File").
pub fn file_location(table: &str, path: &str) -> Result<Path, object_store::path::Error> {
    Path::parse(format!("{table}/{}", percent_decode(path)))
}

/// Turns `%41` into `A`; what is not such an escape stays.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = (bytes[i] == b'%')
            .then(|| bytes.get(i + 1..i + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What to do about a local disk that fails.
pub fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full; make room, then run again: what is committed stays, and the next run goes on from there"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ": it may not be written; give this user the right to, then run again: what is committed stays, and the next run goes on from there"
        }
        _ => "; what is committed stays, and the next run goes on from there",
    }
}

/// A local disk's failure with its place and remedy.
fn placed(path: &std::path::Path, source: io::Error) -> io::Error {
    let kind = source.kind();
    io::Error::new(kind, format!("{}{} ({source})", path.display(), remedy(kind)))
}

/// Put-if-absent on a local disk, synced. The name appears by a hard link to complete, synced bytes, so
/// nobody can see a part of them, power cut or not; `object_store` alone would not sync.
fn put_synced(lake: PathBuf, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Put> {
    let target = local_path(&lake, path);
    let parent = target.parent().expect("an object's path has a folder");
    if !parent.is_dir() {
        create_dir_synced(parent).map_err(|e| placed(parent, e))?;
    }
    let staging = lake.join("_alluvium/tmp");
    fs::create_dir_all(&staging).map_err(|e| placed(&staging, e))?;
    let staged = staging.join(Uuid::new_v4().to_string());
    let written: io::Result<()> = (|| {
        let mut file = File::create_new(&staged)?;
        write(&mut file)?;
        disk::sync_file(&file, &target)?;
        fs::hard_link(&staged, &target)?;
        disk::named(&target);
        Ok(())
    })();
    let _ = fs::remove_file(&staged);
    match written {
        Ok(()) => {
            disk::sync_folder(parent).map_err(|e| placed(parent, e))?;
            Ok(Put::Written)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Put::Taken),
        Err(e) => Err(placed(&target, e)),
    }
}

/// Makes a folder and those above it, and syncs the folders that name them.
fn create_dir_synced(folder: &std::path::Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_dir_synced(parent)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match folder.parent() {
        Some(parent) => disk::sync_folder(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_put_once_synced_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        for durable in [true, false] {
            let path = Path::from(format!("a/b/{durable}.json"));
            assert_eq!(
                lake.put_new(&path, Bytes::from_static(b"one"), durable).await.unwrap(),
                Put::Written
            );
            assert_eq!(
                lake.put_new(&path, Bytes::from_static(b"two"), !durable).await.unwrap(),
                Put::Taken
            );
            assert_eq!(lake.get(&path).await.unwrap().unwrap(), Bytes::from_static(b"one"));
        }
        assert!(lake.get(&Path::from("nothing")).await.unwrap().is_none());
    }

    /// Bytes that look, whenever more of them are asked for, how many have arrived below a folder.
    struct Watched {
        folder: PathBuf,
        given: u64,
        length: u64,
        most_held: u64,
    }

    impl Read for Watched {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let arrived: u64 = glob::glob(&format!("{}/**/*", self.folder.display()))
                .unwrap()
                .filter_map(|path| path.unwrap().metadata().ok().filter(|m| m.is_file()))
                .map(|m| m.len())
                .sum();
            self.most_held = self.most_held.max(self.given.saturating_sub(arrived));
            let n = (buffer.len() as u64).min(1 << 20).min(self.length - self.given) as usize;
            buffer[..n].fill(7);
            self.given += n as u64;
            Ok(n)
        }
    }

    /// A start waited for ever for a FIFO that was called like a ledger entry, and a sparse file of 100 GB ended it by an abort.
    #[tokio::test]
    async fn what_is_no_file_of_a_lake_is_named_and_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join("fifo"))
            .status();
        assert!(made.is_ok_and(|status| status.success()));
        fs::create_dir(folder.path().join("folder")).unwrap();
        let sparse = File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(100 << 30).unwrap();
        for name in ["fifo", "folder", "sparse"] {
            let error = lake.get(&Path::from(name)).await.expect_err(name);
            assert!(crate::causes::chain(&error).contains(name), "{error}");
        }
        assert!(lake.get(&Path::from("none")).await.unwrap().is_none());
    }

    /// A drop was archived by reading all of it first: a file of a gigabyte took a gigabyte of memory.
    #[test]
    fn a_stream_is_written_as_it_comes() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for durable in [true, false] {
            for length in [0, 1000, PART, 5 * PART + 1] {
                let folder = tempfile::tempdir().unwrap();
                let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
                let mut bytes = Watched {
                    folder: folder.path().to_path_buf(),
                    given: 0,
                    length,
                    most_held: 0,
                };
                let path = Path::from("archive/a file.parquet");
                lake.put_stream(&path, &mut bytes, durable, runtime.handle()).unwrap();
                let there = runtime.block_on(lake.get(&path)).unwrap().unwrap();
                assert_eq!(there.len() as u64, length);
                assert!(
                    bytes.most_held <= PART,
                    "{} bytes of {length} were held",
                    bytes.most_held
                );
            }
        }
    }

    /// A source that breaks off leaves nothing under the name.
    #[test]
    fn a_stream_that_breaks_leaves_no_object() {
        struct Broken(u64);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::Error::other("the disk is gone"))?;
                Ok(buffer.len())
            }
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        for durable in [true, false] {
            let path = Path::from("archive/torn.parquet");
            let put = lake.put_stream(&path, &mut Broken(100), durable, runtime.handle());
            assert!(put.unwrap_err().to_string().contains("the disk is gone"));
            assert!(runtime.block_on(lake.get(&path)).unwrap().is_none());
        }
    }

    #[test]
    fn addresses_that_mean_nothing_are_refused() {
        let error = Lake::open("ftp://somewhere/lake", &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("ftp://somewhere/lake"), "{error}");
    }

    #[test]
    fn escapes_in_paths_are_undone_once() {
        assert_eq!(
            file_location("silver/x", "d=a%2520b/p.parquet").unwrap().as_ref(),
            "silver/x/d=a%20b/p.parquet"
        );
        assert_eq!(percent_decode("100%"), "100%");
    }
}
