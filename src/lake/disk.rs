//! The steps that make writes to a local disk durable, in one place, so that tests can check their order.

use std::fs::File;
use std::io;
use std::path::Path;

/// Syncs a file's bytes. `named` is the name that the file has or will get.
pub fn sync_file(file: &File, named: &Path) -> io::Result<()> {
    file.sync_all()?;
    note(SyncStep::File, named);
    Ok(())
}

/// Syncs the names in a folder.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    note(SyncStep::Folder, folder);
    Ok(())
}

/// Records, for tests, that a file has got its name.
pub fn named(path: &Path) {
    note(SyncStep::Named, path);
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncStep {
    File,
    Folder,
    Named,
}

#[cfg(not(test))]
fn note(_: SyncStep, _: &Path) {}

#[cfg(test)]
static SEEN: std::sync::Mutex<Vec<(SyncStep, std::path::PathBuf)>> = std::sync::Mutex::new(Vec::new());

#[cfg(test)]
fn note(step: SyncStep, path: &Path) {
    SEEN.lock().unwrap().push((step, path.to_path_buf()));
}

/// The steps below a folder, in the order in which they were taken.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "it serves tests")]
pub(crate) fn steps_below(folder: &Path) -> Vec<(SyncStep, std::path::PathBuf)> {
    let seen = SEEN.lock().unwrap();
    seen.iter()
        .filter(|(_, path)| path.starts_with(folder))
        .cloned()
        .collect()
}
