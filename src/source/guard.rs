//! Opens files in folders to which others can write.
//!
//! 1. Only regular files are opened: opening a FIFO blocks until it has a writer, and opening a device may do
//!    anything.
//! 2. If links must not leave a folder, the check is on the opened file and not on its name: between a check of a
//!    name and its opening, somebody who can write to the folder may replace the file with a link. The system reports
//!    the path of an open file, and that path must be in the folder.
//! 3. If somebody else named the file, a [`Vetting`] is asked whether it may be read, after it was opened and for the
//!    same reason.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::shown::shown_path;

/// The advice for a link that leaves its folder.
pub(crate) const ALLOW_LINKS: &str = "set follow_links = true in the feed if that is meant";

/// Checks whether a file may be read, by the opened file's metadata and real path. It refuses with an error of kind
/// `InvalidInput`.
pub(crate) type Vetting = Arc<dyn Fn(&Metadata, &Path) -> io::Result<()> + Send + Sync>;

/// Opens a file for reading if the vetting permits it; by (3).
///
/// # Errors
/// Those of [`open_regular`], and those of the vetting.
pub(crate) fn open_vetted(path: &Path, within: Option<&Path>, vetting: &Vetting) -> io::Result<File> {
    let file = open_regular(path, within)?;
    vetting(&file.metadata()?, &real_path(&file, path)?)?;
    Ok(file)
}

/// Opens a file for reading; `within`, if given, is the real path of the folder that links must not leave.
///
/// # Errors
/// Those of the system; `InvalidInput` for what is no regular file, and for a link that leaves the folder.
pub(crate) fn open_regular(path: &Path, within: Option<&Path>) -> io::Result<File> {
    // By (1) the kind is checked before the file is opened, and again afterwards, because the file may have been
    // replaced.
    refuse_special(std::fs::metadata(path)?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    refuse_special(file.metadata()?.file_type())?;
    if let Some(folder) = within {
        let real = real_path(&file, path)?; // by (2)
        if !real.starts_with(folder) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a link leads out of the feed's folder, to {}; {ALLOW_LINKS}",
                    shown_path(&real)
                ),
            ));
        }
    }
    Ok(file)
}

/// What kind of thing a path is, if it is no regular file.
pub(crate) fn kind_of(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_fifo() => Some("a FIFO"),
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        _ => Some("no regular file"),
    }
}

fn refuse_special(kind: FileType) -> io::Result<()> {
    match kind_of(kind) {
        None => Ok(()),
        Some("a folder") => Err(io::Error::from(ErrorKind::IsADirectory)),
        Some(kind) => Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("it is {kind}, not a file"),
        )),
    }
}

/// The real path of an open file.
fn real_path(file: &File, path: &Path) -> io::Result<PathBuf> {
    if let Ok(real) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        return Ok(real);
    }
    // Without procfs, the canonical path serves if it belongs to this very file.
    let real = path.canonicalize()?;
    let (opened, named) = (file.metadata()?, real.symlink_metadata()?);
    match (opened.dev(), opened.ino()) == (named.dev(), named.ino()) {
        true => Ok(real),
        false => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "another file took its place while it was opened",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    /// Opening a FIFO without a writer blocked forever.
    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, kind) in [(fifo, "a FIFO"), (socket, "a socket"), ("/dev/null".into(), "a device")] {
            let error = open_regular(&path, None).expect_err("it is no file");
            assert!(error.to_string().contains(kind), "{error}");
        }
    }

    #[test]
    fn a_link_is_followed_as_far_as_the_folder_reaches() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = folder.path().canonicalize().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::write(real.join("a"), "x").unwrap();
        symlink(outside.path().join("secret"), real.join("out")).unwrap();
        symlink(outside.path(), real.join("folder")).unwrap();
        symlink("a", real.join("in")).unwrap();
        open_regular(&real.join("in"), Some(&real)).expect("it stays in the folder");
        for name in ["out", "folder/secret"] {
            let error = open_regular(&real.join(name), Some(&real)).expect_err("it leaves the folder");
            assert!(error.to_string().contains("follow_links"), "{error}");
            open_regular(&real.join(name), None).expect("links may lead anywhere");
        }
    }
}
