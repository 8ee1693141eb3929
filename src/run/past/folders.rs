//! Folders of file feeds, as a lake knows them.
//!
//! A file is identified by its path relative to its feed's folder: the part of the feed's path before the first wildcard. Where that
//! folder moves up or down the tree, as from `data/2024/*.csv` to `data/*/*.csv`, the same file has another name and would be
//! read a second time. So the folder is part of the blueprint, and a run refuses to go on where names have shifted.
//!
//! An unrelated folder is assumed to hold the same files, moved there: they keep their names and are not read again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::blueprint::Blueprint;
use crate::definition::{Dataflow, FeedKind, FileGlob};
use crate::source::Progress;

/// By input and feed: the folder or URL that names are relative to; itself relative to the dataflow's folder if inside it.
pub type Folders = BTreeMap<String, BTreeMap<String, String>>;

/// The folder of a feed is above or below the one that its files were known by.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "could not go on with feed {feed} of input {input}: its files are known by their names below {then:?}, and by its new path they would be named below {now:?} and read a second time; leave its path as it was and add a feed for the other files, or rename this one to have all of its files read anew"
)]
pub struct ShiftedFolder {
    /// Of which input.
    pub input: String,
    /// Which feed.
    pub feed: String,
    /// The folder as of the newest snapshot.
    pub then: String,
    /// The folder by the definition.
    pub now: String,
}

/// The folder of each file feed.
pub fn folders(dataflow: &Dataflow) -> Folders {
    let mut folders = Folders::new();
    // As loading has resolved the feeds' paths.
    let own = dataflow
        .folder
        .canonicalize()
        .unwrap_or_else(|_| dataflow.folder.clone());
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            if let FeedKind::Files { path, .. } = &feed.kind {
                let plain = path.strip_prefix("file://").unwrap_or(path);
                let folder = FileGlob::split(plain).0;
                let below = Path::new(&folder).strip_prefix(&own);
                let folder = below.map_or_else(|_| folder.clone(), |below| below.display().to_string());
                folders
                    .entry(input.name.clone())
                    .or_default()
                    .insert(feed.name.clone(), folder);
            }
        }
    }
    folders
}

/// The dataflow's folder, which loading resolves the feeds' paths against.
fn own_folder(dataflow: &Dataflow) -> PathBuf {
    dataflow
        .folder
        .canonicalize()
        .unwrap_or_else(|_| dataflow.folder.clone())
}

/// Refuses a definition by which files that were read would be named otherwise.
///
/// # Errors
/// The first feed whose folder has shifted.
pub fn refuse_shifted(
    dataflow: &Dataflow,
    (then, now): (&Blueprint, &Blueprint),
    progress: &Progress,
) -> Result<(), ShiftedFolder> {
    let own = own_folder(dataflow);
    for (input, feeds) in now.folders() {
        for (feed, folder) in feeds {
            let before = then.folders().get(input).and_then(|feeds| feeds.get(feed));
            let Some(before) = before.filter(|before| *before != folder) else {
                continue;
            };
            let (old, new) = (own.join(before), own.join(folder));
            let is_shifted = old.starts_with(&new) || new.starts_with(&old);
            if is_shifted && progress.keys().any(|read| read.input == *input && read.feed == *feed) {
                return Err(ShiftedFolder {
                    input: input.clone(),
                    feed: feed.clone(),
                    then: before.clone(),
                    now: folder.clone(),
                });
            }
        }
    }
    Ok(())
}
