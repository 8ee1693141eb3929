//! Stores and reads a writer's files. When [`FileStore::put_all`] returns, the files are complete; on the local disk
//! of a durable lake they and the folders that name them are also synced, so they survive a crash.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::error::WriterError;
use crate::lake::{Lake, disk as steps};

/// The most files that one writer stores concurrently.
const PARALLEL: usize = 16;

/// Access to a lake's files. On a local disk they are written directly, not through the lake's object store.
pub(super) struct FileStore {
    lake: Lake,
    runtime: Handle,
    /// Folders that exist (and are synced). Nobody removes folders, so checking once is enough.
    folders: Mutex<HashSet<PathBuf>>,
}

fn disk(action: &'static str, path: &FilePath) -> impl FnOnce(std::io::Error) -> WriterError {
    let path = path.to_path_buf();
    move |source| WriterError::Disk { action, path, source }
}

fn location(path: &str) -> Result<Path, WriterError> {
    Path::parse(path).map_err(|source| WriterError::Store {
        action: "name",
        path: path.to_string(),
        source: source.into(),
    })
}

impl FileStore {
    /// Opens the files of a lake; `runtime` runs blocking and concurrent operations.
    pub(super) fn new(lake: Lake, runtime: Handle) -> FileStore {
        FileStore {
            lake,
            runtime,
            folders: Mutex::default(),
        }
    }

    /// Stores several files, concurrently.
    pub(super) fn put_all(self: &Arc<Self>, files: Vec<(String, Bytes)>) -> Result<(), WriterError> {
        match &self.lake.local {
            Some(root) => self.put_local(root, files),
            None => self.runtime.block_on(
                stream::iter(files)
                    .map(|(path, bytes)| async move {
                        let stored = self.lake.store.put(&location(&path)?, bytes.into()).await;
                        stored.map(drop).map_err(|source| WriterError::Store {
                            action: "write",
                            path,
                            source,
                        })
                    })
                    .buffer_unordered(PARALLEL)
                    .try_collect(),
            ),
        }
    }

    fn put_local(self: &Arc<Self>, root: &FilePath, files: Vec<(String, Bytes)>) -> Result<(), WriterError> {
        let mut stale: BTreeSet<PathBuf> = BTreeSet::new();
        let mut made = Vec::new();
        let mut by_path = BTreeMap::new();
        for (path, bytes) in files {
            let path = root.join(path);
            let folder = path
                .parent()
                .expect("a data file lies in a table's folder")
                .to_path_buf();
            if self.make_folder(root, &folder, &mut stale)? {
                made.push(folder.clone());
            }
            stale.insert(folder);
            by_path.insert(path, bytes);
        }
        let durable = self.lake.is_durable();
        let write = move |path: PathBuf, bytes: Bytes| {
            let mut file = fs::File::create(&path).map_err(disk("create", &path))?;
            steps::named(&path);
            file.write_all(&bytes).map_err(disk("write", &path))?;
            if durable {
                steps::sync_file(&file, &path).map_err(disk("sync", &path))
            } else {
                Ok(())
            }
        };
        if !durable || by_path.len() == 1 {
            by_path.into_iter().try_for_each(|(path, bytes)| write(path, bytes))?;
        } else {
            self.in_parallel(by_path.into_iter().map(|(path, bytes)| move || write(path, bytes)))?;
        }
        if durable {
            let sync = |folder: PathBuf| steps::sync_folder(&folder).map_err(disk("sync", &folder));
            self.in_parallel(stale.into_iter().map(|folder| move || sync(folder)))?;
        }
        // Only now, because a compaction in the background must not rely on a folder that is not synced yet.
        self.folders
            .lock()
            .expect("nobody panics while holding the list of folders")
            .extend(made);
        Ok(())
    }

    /// Creates a folder unless it is known to exist, and adds its parents to `stale`, to be synced. Returns whether it
    /// did.
    fn make_folder(
        &self,
        root: &FilePath,
        folder: &FilePath,
        stale: &mut BTreeSet<PathBuf>,
    ) -> Result<bool, WriterError> {
        if self
            .folders
            .lock()
            .expect("nobody panics while holding the list of folders")
            .contains(folder)
        {
            return Ok(false);
        }
        fs::create_dir_all(folder).map_err(disk("create", folder))?;
        stale.extend(
            folder
                .ancestors()
                .skip(1)
                .take_while(|a| a.starts_with(root))
                .map(FilePath::to_path_buf),
        );
        Ok(true)
    }

    fn in_parallel<F>(&self, tasks: impl Iterator<Item = F>) -> Result<(), WriterError>
    where
        F: FnOnce() -> Result<(), WriterError> + Send + 'static,
    {
        self.runtime.block_on(
            stream::iter(tasks)
                .map(|task| async {
                    tokio::task::spawn_blocking(task)
                        .await
                        .map_err(|_| WriterError::Task { task: "writing files" })?
                })
                .buffer_unordered(PARALLEL)
                .try_collect(),
        )
    }

    /// A file's content.
    pub(super) fn get(&self, path: &str) -> Result<Bytes, WriterError> {
        if let Some(root) = &self.lake.local {
            let path = root.join(path);
            return fs::read(&path).map(Bytes::from).map_err(disk("read", &path));
        }
        let location = location(path)?;
        let got = self
            .runtime
            .block_on(async { self.lake.store.get(&location).await?.bytes().await });
        got.map_err(|source| WriterError::Store {
            action: "read",
            path: path.to_string(),
            source,
        })
    }

    /// Deletes a file that no log entry names or will name.
    pub(super) fn delete(&self, path: &str) -> Result<(), WriterError> {
        if let Some(root) = &self.lake.local {
            let path = root.join(path);
            return fs::remove_file(&path).map_err(disk("delete", &path));
        }
        let location = location(path)?;
        let deleted = self.runtime.block_on(self.lake.store.delete(&location));
        deleted.map_err(|source| WriterError::Store {
            action: "delete",
            path: path.to_string(),
            source,
        })
    }
}
