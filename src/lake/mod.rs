//! The lake: the folder or bucket that holds all tables of a dataflow, and how objects are written to it.
//!
//! [`Lake::store`] is rooted at the lake, so its paths are like `silver/order_lines/part-0.parquet`. [`Lake::put_new`]
//! is put-if-absent and all-or-nothing. In a durable lake on a local disk, bytes and name survive a power cut once it
//! has returned. Of Delta, this module only knows how to open a table.

pub(crate) mod disk;
mod table_name;

pub use table_name::{LakeLayer, bronze_input, bronze_table, schema_and_name, table_folder};

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
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::runtime::Handle;
use url::Url;
use uuid::Uuid;

use crate::store::Closing;

/// The place where the tables of a dataflow are stored.
#[derive(Clone)]
pub struct Lake {
    /// The store, rooted at the lake.
    pub store: Arc<dyn ObjectStore>,
    /// The lake's address without credentials; ends in a slash.
    pub root: Url,
    /// The lake's folder, if it is on a local disk.
    pub local: Option<PathBuf>,
    /// The store rooted at the bucket or file system, as deltalake needs it.
    bucket: Arc<dyn ObjectStore>,
    durable: bool,
}

/// How many bytes of a stream are held in memory and sent as one part; stores require at least 5 MiB.
const PART: u64 = 8 << 20;
/// The greatest size in bytes of an object that is read as a whole.
const MOST: u64 = 4 << 30;

/// The result of a put-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object was written.
    Written,
    /// The name was taken, and nothing was written.
    Taken,
}

/// Why a lake could not be opened.
#[derive(Debug, Error)]
pub enum LakeError {
    /// The address is neither a folder nor a URL of a known kind.
    #[error(
        "could not understand the lake's address {address:?}: {reason}; give a folder, or a URL like s3://bucket/lake, abfss://container@account.dfs.core.windows.net/lake, gs://bucket/lake"
    )]
    Address {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// No run has made the lake.
    #[error("there is no lake in {folder:?} yet; `alluvium run` makes it with the dataflow's first snapshot")]
    Absent {
        /// Which folder.
        folder: PathBuf,
    },
    /// The folder could not be made or opened.
    #[error("could not open the lake's folder {folder:?}: check that its parent exists and may be written")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store refused its settings.
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
    /// Opens the lake at a folder, which must exist, or at a URL. `options` are the object store's own (`aws_region`,
    /// `azure_storage_account_key`, ...), and take precedence over the environment's. Nothing is created, so readers
    /// leave no traces.
    pub fn open(address: &str, options: &BTreeMap<String, String>) -> Result<Lake, LakeError> {
        Lake::at(address, options, false)
    }

    /// Opens the lake for writing: like [`Lake::open`], but makes a folder that is missing.
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

    /// The same lake with syncs of everything written, or without: `durability` in `dataflow.toml`. Only local disks
    /// need syncs; object stores are durable in any case. A lake that was just opened does not sync.
    pub fn with_durability(self, durable: bool) -> Lake {
        Lake { durable, ..self }
    }

    /// Whether writes are synced to the disk.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// A lake below `prefix` of a store that the caller has opened; `root` is the address of store and prefix.
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
            durable: false,
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
            durable: false,
        })
    }

    /// The address of the table in the folder `path`, which is relative to the lake.
    pub fn table_url(&self, path: &str) -> Url {
        self.root
            .join(&format!("{}/", path.trim_end_matches('/')))
            .expect("a relative path joins any base")
    }

    /// A new handle of the table at `path`, which is not loaded.
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

    /// Writes an object, unless its name is taken.
    pub async fn put_new(&self, path: &Path, bytes: Bytes) -> Result<Put, object_store::Error> {
        if let (true, Some(folder)) = (self.durable, self.local.clone()) {
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

    /// Writes an object from a stream of bytes, a few of which are held in memory at a time. The object appears once
    /// all bytes are written. If the name is taken, either content may remain, so the name must determine the content.
    /// Must not be called from within the runtime.
    pub fn put_stream(&self, path: &Path, bytes: &mut dyn Read, runtime: &Handle) -> io::Result<()> {
        if let (true, Some(folder)) = (self.durable, self.local.clone()) {
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
            runtime.block_on(self.put_new(path, part))?;
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
            // The error of sending counts; failing to remove the parts that were sent does not.
            let _ = runtime.block_on(upload.abort());
            return Err(error);
        }
        runtime.block_on(upload.complete())?;
        Ok(())
    }

    /// The bytes of an object; `None` if it does not exist. On a disk, only regular files are opened, because reading
    /// a FIFO would never end.
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

/// The file of an object in a local lake.
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

/// The location of a file that a Delta action names. `path` is URL-encoded (Delta protocol, "Add File and Remove
/// File").
pub fn file_location(table: &str, path: &str) -> Result<Path, object_store::path::Error> {
    Path::parse(format!("{table}/{}", percent_decode_str(path).decode_utf8_lossy()))
}

/// The remedy for an error of a local disk, as the end of a message.
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

/// Adds place and remedy to an error of a local disk.
fn placed(path: &std::path::Path, source: io::Error) -> io::Error {
    let kind = source.kind();
    io::Error::new(kind, format!("{}{} ({source})", path.display(), remedy(kind)))
}

/// A synced put-if-absent on a local disk. The name is made as a hard link to the complete, synced file, so nobody
/// ever sees part of the bytes, even after a power cut. `object_store` alone would not sync.
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

/// Makes a folder and its missing parents, and syncs the folders that contain their names.
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
                lake.clone()
                    .with_durability(durable)
                    .put_new(&path, Bytes::from_static(b"one"))
                    .await
                    .unwrap(),
                Put::Written
            );
            assert_eq!(
                lake.clone()
                    .with_durability(!durable)
                    .put_new(&path, Bytes::from_static(b"two"))
                    .await
                    .unwrap(),
                Put::Taken
            );
            assert_eq!(lake.get(&path).await.unwrap().unwrap(), Bytes::from_static(b"one"));
        }
        assert!(lake.get(&Path::from("nothing")).await.unwrap().is_none());
    }

    /// A stream that checks, whenever more bytes are requested, how many have arrived below a folder.
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

    /// Regression: a start waited forever for a FIFO with the name of a ledger entry, and a sparse file of 100 GB
    /// aborted it.
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

    /// Regression: a file was read into memory as a whole to be archived, so a file of a gigabyte took a gigabyte of
    /// memory.
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
                lake.clone()
                    .with_durability(durable)
                    .put_stream(&path, &mut bytes, runtime.handle())
                    .unwrap();
                let stored = runtime.block_on(lake.get(&path)).unwrap().unwrap();
                assert_eq!(stored.len() as u64, length);
                assert!(
                    bytes.most_held <= PART,
                    "{} bytes of {length} were held",
                    bytes.most_held
                );
            }
        }
    }

    /// A stream that fails leaves no object under the name.
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
            let put = lake
                .clone()
                .with_durability(durable)
                .put_stream(&path, &mut Broken(100), runtime.handle());
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
        assert_eq!(file_location("silver/x", "100%").unwrap().as_ref(), "silver/x/100%");
    }
}
