//! The folders of file feeds, as a lake records them.
//!
//! A file is identified by its path relative to its feed's folder, which is the part of the feed's path before the
//! first wildcard. If that folder moves up or down the tree, as from `data/2024/*.csv` to `data/*/*.csv`, the same
//! file gets another name and would be read a second time. So the folder is part of the blueprint, and a run refuses
//! to start where names have shifted.
//!
//! A folder that is neither above nor below the old one is assumed to hold the same files after a move: they keep
//! their names and are not read again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::blueprint::Blueprint;
use crate::definition::{Dataflow, FileGlob};
use crate::repr::FeedPositions;

/// By input and feed: the folder or URL that file names are relative to. A folder inside the dataflow's folder is
/// itself given relative to that.
pub type Folders = BTreeMap<String, BTreeMap<String, String>>;

/// The folder of a feed is above or below the folder that the names of its files were relative to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "could not go on with feed {feed} of input {input}: its files are known by their names below {then:?}, and by its new path they would be named below {now:?} and read a second time; leave its path as it was and add a feed for the other files, or rename this one to have all of its files read anew"
)]
pub struct ShiftedFolder {
    /// The input of the feed.
    pub input: String,
    /// Which feed.
    pub feed: String,
    /// The folder as of the newest snapshot.
    pub then: String,
    /// The folder in the definition.
    pub now: String,
}

/// The folder of each file feed.
pub fn folders(dataflow: &Dataflow) -> Folders {
    let mut folders = Folders::new();
    // The dataflow's folder is resolved as loading resolves it for the paths of feeds.
    let own = dataflow
        .folder
        .canonicalize()
        .unwrap_or_else(|_| dataflow.folder.clone());
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            if let Some(files) = feed.kind.contract().files() {
                let plain = files.path.strip_prefix("file://").unwrap_or(files.path);
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

/// The dataflow's folder as loading resolves it for the paths of feeds.
fn own_folder(dataflow: &Dataflow) -> PathBuf {
    dataflow
        .folder
        .canonicalize()
        .unwrap_or_else(|_| dataflow.folder.clone())
}

/// Refuses a definition in which files that have been read would get other names.
///
/// # Errors
/// Names the first feed whose folder has shifted.
pub fn refuse_shifted(
    dataflow: &Dataflow,
    (then, now): (&Blueprint, &Blueprint),
    progress: &FeedPositions,
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
