//! Where files go and come from. When [`Lake::put_all`] returns, the files are complete, and on a local
//! disk (with durability on) they survive a crash: files and the folders that name them are synced.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use super::error::WriterError;
use crate::sink::disk as steps;

/// Files on their way to a store at once, per writer.
const PARALLEL: usize = 16;

/// The lake as a writer sees it.
pub(super) struct Lake {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) root: Path,
    pub(super) local: Option<PathBuf>,
    pub(super) durable: bool,
    pub(super) runtime: Handle,
    /// Folders that exist (and are synced): making sure once is enough, nobody takes folders away.
    pub(super) folders: Mutex<HashSet<PathBuf>>,
}

fn disk(action: &'static str, path: &FilePath) -> impl FnOnce(std::io::Error) -> WriterError {
    let path = path.to_path_buf();
    move |source| WriterError::Disk { action, path, source }
}

impl Lake {
    fn location(&self, path: &str) -> Result<Path, WriterError> {
        Path::parse(format!("{}/{path}", self.root)).map_err(|source| WriterError::Store {
            action: "name",
            path: path.to_string(),
            source: source.into(),
        })
    }

    /// Stores files, all at once.
    pub(super) fn put_all(self: &Arc<Self>, files: Vec<(String, Bytes)>) -> Result<(), WriterError> {
        match &self.local {
            Some(root) => self.put_local(root, files),
            None => self.runtime.block_on(
                stream::iter(files)
                    .map(|(path, bytes)| async move {
                        let stored = self.store.put(&self.location(&path)?, bytes.into()).await;
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
        let durable = self.durable;
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
        // Only now: a compaction in the background must not rely on a folder that is not synced yet.
        self.folders
            .lock()
            .expect("nobody panics while holding the list of folders")
            .extend(made);
        Ok(())
    }

    /// Makes a folder unless it is known; says so, and which folders name it.
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
        if let Some(root) = &self.local {
            let path = root.join(path);
            return fs::read(&path).map(Bytes::from).map_err(disk("read", &path));
        }
        let location = self.location(path)?;
        let got = self
            .runtime
            .block_on(async { self.store.get(&location).await?.bytes().await });
        got.map_err(|source| WriterError::Store {
            action: "read",
            path: path.to_string(),
            source,
        })
    }

    /// Takes away a file that no log entry names and none will.
    pub(super) fn delete(&self, path: &str) -> Result<(), WriterError> {
        if let Some(root) = &self.local {
            let path = root.join(path);
            return fs::remove_file(&path).map_err(disk("delete", &path));
        }
        let location = self.location(path)?;
        let gone = self.runtime.block_on(self.store.delete(&location));
        gone.map_err(|source| WriterError::Store {
            action: "delete",
            path: path.to_string(),
            source,
        })
    }
}
