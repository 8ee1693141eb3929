//! Opens files of folders that others write to.
//!
//! 1. Only regular files are opened: to open a FIFO waits for its writer, and to open a device may do anything.
//! 2. Where links must not leave a folder, what counts is the file that was opened, not the name: between a look at a
//!    name and its opening, whoever writes to the folder can put a link in the file's place. The system tells the path
//!    of an open file, and that path must be in the folder.
//! 3. Where somebody else named the file, whoever lets it be read is asked once it is open, for the same reason.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::shown::shown_path;

/// What to do about a link that leaves its folder.
pub(crate) const ALLOW_LINKS: &str = "set follow_links = true in the feed if that is meant";

/// Says whether a file may be read, by what is open and by its real path; why it may not is an error of kind `InvalidInput`.
pub(crate) type Vetting = Arc<dyn Fn(&Metadata, &Path) -> io::Result<()> + Send + Sync>;

/// Opens a file for reading, if it may be read; by (3).
///
/// # Errors
/// As [`open_regular`], and those of the vetting.
pub(crate) fn open_vetted(path: &Path, within: Option<&Path>, vetting: &Vetting) -> io::Result<File> {
    let file = open_regular(path, within)?;
    vetting(&file.metadata()?, &real_path(&file, path)?)?;
    Ok(file)
}

/// Opens a file for reading; `within` is the real path of the folder that its links must not leave, if there is one.
///
/// # Errors
/// Those of the system; `InvalidInput` for what is no regular file, and for a link that leaves the folder.
pub(crate) fn open_regular(path: &Path, within: Option<&Path>) -> io::Result<File> {
    // By (1) it is looked at first; and again once it is open, for it may have changed its kind.
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

/// What a path is that is no regular file.
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

/// Where an open file is.
fn real_path(file: &File, path: &Path) -> io::Result<PathBuf> {
    if let Ok(real) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        return Ok(real);
    }
    // Without procfs: the path without its links, if it is of this very file.
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

    /// A FIFO without a writer kept whoever opened it for ever.
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
