//! Walks the folders below a glob's fixed part, and finds the files that the glob names.
//!
//! 1. Any byte string can be a name. One that is not UTF-8 is matched as its lossy UTF-8 form.
//! 2. A folder is entered once, by its real path, for each glob state in which it is reached. So a walk terminates
//!    whatever links there are.
//! 3. A file is found once, by its real path: under its own name if the glob names that, otherwise under that of the
//!    first link. That is why names without links are walked first.
//! 4. A link is followed if its target is within the folder or if links may lead out of it, but never to a folder
//!    that contains the link.
//! 5. Everything left out is reported with its reason. A folder that cannot be read does not keep the others from
//!    being walked.
//! 6. A path that is longer than the system can open is left out, because waiting does not help. This bounds the
//!    depth, too.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::definition::{FileGlob, GlobState, LAKE_FOLDERS};
use crate::source::guard::kind_of;

/// The arguments of a walk.
pub(crate) struct FolderWalk<'a> {
    /// The glob's fixed part.
    pub folder: &'a Path,
    pub glob: &'a FileGlob,
    /// Whether links may lead out of the folder.
    pub follow_links: bool,
    /// The lake's folder, whose own folders are not entered.
    pub lake: Option<&'a Path>,
    /// Returns whether to give up.
    pub stops: &'a dyn Fn() -> bool,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub files: Vec<WalkedFile>,
    pub left_out: Vec<LeftOut>,
    /// Names that the glob would name if they did not begin with `_` or `.`, and the first of them.
    pub hidden: Option<(u64, PathBuf)>,
    /// Names that the glob would name in another case of letters, and the first of them.
    pub other_case: Option<(u64, PathBuf)>,
}

/// A file that a glob names.
#[derive(Debug)]
pub(crate) struct WalkedFile {
    /// Below the walked folder.
    pub path: PathBuf,
    pub metadata: Metadata,
}

/// Something that a walk leaves out, although the glob names it or could name something in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftOut {
    /// Below the walked folder.
    pub path: PathBuf,
    pub why: WhyLeftOut,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WhyLeftOut {
    /// A folder or a file whose metadata the system does not let us read; with its reason.
    Unreadable(String),
    /// A link out of the folder, and its target.
    LeadsOut(PathBuf),
    /// A link to a folder that contains the link.
    LeadsUp(PathBuf),
    /// A link without a target or to itself; with the system's reason.
    LeadsNowhere(String),
    /// Its path is longer than the system can open.
    TooLong,
    /// Not a regular file; with the kind of file that it is.
    Special(&'static str),
    /// The lake's own folder.
    Lake,
}

/// A folder to walk.
struct WalkedFolder {
    /// Below the walked folder.
    path: PathBuf,
    real: PathBuf,
    state: GlobState,
}

/// A link whose name can lead to a match.
struct Link {
    path: PathBuf,
    /// The folder that contains it, without links.
    parent: PathBuf,
    /// The glob's state in the target, if that is a folder.
    state: Option<GlobState>,
    /// Whether the glob names it; matters if the target is a file.
    is_named: bool,
}

struct WalkState<'a> {
    walk: FolderWalk<'a>,
    /// The walk's glob, case-insensitive.
    any_case: FileGlob,
    /// The real path of the walked folder.
    real: PathBuf,
    lake: Option<PathBuf>,
    entered: HashSet<(PathBuf, GlobState)>,
    todo: Vec<WalkedFolder>,
    links: Vec<Link>,
    /// The real paths of files found so far; filled once there are links.
    seen: Option<HashSet<PathBuf>>,
    walked: Walked,
}

impl FolderWalk<'_> {
    /// Runs the walk.
    ///
    /// # Errors
    /// The folder itself is missing or cannot be read; `Interrupted` if `stops` returned true.
    pub fn walk(self) -> io::Result<Walked> {
        let real = self.folder.canonicalize()?;
        let mut state = WalkState {
            any_case: self.glob.in_any_case(),
            lake: self.lake.and_then(|lake| lake.canonicalize().ok()),
            real: real.clone(),
            entered: HashSet::new(),
            todo: Vec::new(),
            links: Vec::new(),
            seen: None,
            walked: Walked::default(),
            walk: self,
        };
        let start = state.walk.glob.start();
        state.enter(PathBuf::new(), real, start);
        loop {
            state.drain()?;
            // By (3), the links of a round are followed in the order of their names.
            let mut links = std::mem::take(&mut state.links);
            if links.is_empty() {
                break;
            }
            links.sort_by(|a, b| a.path.cmp(&b.path));
            if state.seen.is_none() {
                let files = state.walked.files.iter();
                state.seen = Some(files.map(|file| state.real.join(&file.path)).collect());
            }
            links.into_iter().for_each(|link| state.follow(link));
        }
        let mut walked = state.walked;
        walked.files.sort_by(|a, b| a.path.cmp(&b.path));
        walked.left_out.sort();
        Ok(walked)
    }
}

impl WalkState<'_> {
    fn leave_out(&mut self, path: PathBuf, why: WhyLeftOut) {
        self.walked.left_out.push(LeftOut { path, why });
    }

    /// Queues a folder, by (2).
    fn enter(&mut self, path: PathBuf, real: PathBuf, state: GlobState) {
        if self.is_of_lake(&real) {
            return self.leave_out(path, WhyLeftOut::Lake);
        }
        if self.entered.insert((real.clone(), state.clone())) {
            self.todo.push(WalkedFolder { path, real, state });
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(folder) = self.todo.pop() {
            if (self.walk.stops)() {
                return Err(io::Error::from(ErrorKind::Interrupted));
            }
            match self.entries(&folder) {
                Ok(entries) => entries
                    .into_iter()
                    .for_each(|(name, kind)| self.look_at(&folder, &name, kind)),
                Err(error) if folder.path.as_os_str().is_empty() => return Err(error),
                Err(error) if error.kind() == ErrorKind::NotFound => {} // deleted since it was listed
                Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                    self.leave_out(folder.path, WhyLeftOut::TooLong);
                }
                Err(error) => self.leave_out(folder.path, WhyLeftOut::Unreadable(error.to_string())),
            }
        }
        Ok(())
    }

    /// The entries of a folder that may match. If the glob allows only fixed names here, these are looked up without
    /// a listing.
    fn entries(&self, folder: &WalkedFolder) -> io::Result<Vec<(OsString, FileType)>> {
        if let Some(names) = self.walk.glob.literals(&folder.state) {
            let mut entries = Vec::new();
            for name in names {
                match folder.real.join(name).symlink_metadata() {
                    Ok(metadata) => entries.push((name.into(), metadata.file_type())),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(entries);
        }
        let entries = std::fs::read_dir(&folder.real)?;
        entries
            .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))))
            .filter(|entry| !matches!(entry, Err(error) if error.kind() == ErrorKind::NotFound))
            .collect()
    }

    fn look_at(&mut self, folder: &WalkedFolder, name: &OsStr, kind: FileType) {
        let text = name.to_string_lossy(); // by (1)
        let is_named = self.walk.glob.matches(&folder.state, &text);
        let state = match kind.is_dir() || kind.is_symlink() {
            true => self.walk.glob.enter(&folder.state, &text),
            false => None,
        };
        let is_hidden = matches!(name.as_bytes().first(), Some(b'.' | b'_'));
        if state.is_none() && (!is_named || kind.is_dir()) {
            let is_alike = match kind.is_dir() {
                true => self.any_case.enter(&folder.state, &text).is_some(),
                false => self.any_case.matches(&folder.state, &text),
            };
            if is_alike && !is_hidden {
                let path = folder.path.join(name);
                note_first(&mut self.walked.other_case, path);
            }
            return;
        }
        let path = folder.path.join(name);
        if is_hidden {
            note_first(&mut self.walked.hidden, path);
            return;
        }
        if self.is_too_long(&path, &folder.real, name) {
            self.leave_out(path, WhyLeftOut::TooLong);
        } else if kind.is_symlink() {
            self.links.push(Link {
                path,
                parent: folder.real.clone(),
                state,
                is_named,
            });
        } else if let Some(state) = state {
            self.enter(path, folder.real.join(name), state);
        } else if let Some(special) = kind_of(kind) {
            self.leave_out(path, WhyLeftOut::Special(special));
        } else {
            match folder.real.join(name).symlink_metadata() {
                Ok(metadata) => self.add(path, folder.real.join(name), metadata),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.leave_out(path, WhyLeftOut::Unreadable(error.to_string())),
            }
        }
    }

    /// Follows a link, by (4).
    fn follow(&mut self, link: Link) {
        let name = link.path.file_name().unwrap_or_default();
        let target = link.parent.join(name).canonicalize();
        let (real, metadata) = match target.and_then(|real| Ok((real.metadata()?, real))) {
            Ok((metadata, real)) => (real, metadata),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return self.leave_out(link.path, WhyLeftOut::Unreadable(error.to_string()));
            }
            Err(error) => return self.leave_out(link.path, WhyLeftOut::LeadsNowhere(error.to_string())),
        };
        if metadata.is_dir() {
            let Some(state) = link.state else { return };
            if link.parent.starts_with(&real) || self.real.starts_with(&real) {
                return self.leave_out(link.path, WhyLeftOut::LeadsUp(real));
            }
            match self.may_lead_to(&real) {
                true => self.enter(link.path, real, state),
                false => self.leave_out(link.path, WhyLeftOut::LeadsOut(real)),
            }
        } else if link.is_named {
            if !self.may_lead_to(&real) {
                return self.leave_out(link.path, WhyLeftOut::LeadsOut(real));
            }
            if let Some(special) = kind_of(metadata.file_type()) {
                return self.leave_out(link.path, WhyLeftOut::Special(special));
            }
            if self.is_of_lake(&real) {
                return self.leave_out(link.path, WhyLeftOut::Lake);
            }
            self.add(link.path, real, metadata);
        }
    }

    fn is_of_lake(&self, real: &Path) -> bool {
        let below = self.lake.as_ref().and_then(|lake| real.strip_prefix(lake).ok());
        let first = below.and_then(|below| below.components().next());
        first.is_some_and(|first| LAKE_FOLDERS.iter().any(|own| first.as_os_str() == *own))
    }

    /// Whether a path is too long for the system, by (6). Both of its forms count: the one below the folder as the
    /// feed names it, with which the file is opened, and the one below the real folder, with which it is examined.
    fn is_too_long(&self, path: &Path, parent: &Path, name: &OsStr) -> bool {
        let most = libc::PATH_MAX as usize - 1; // `PATH_MAX` counts the terminating NUL
        let named = self.walk.folder.as_os_str().len() + 1 + path.as_os_str().len();
        named.max(parent.as_os_str().len() + 1 + name.len()) > most
    }

    /// Whether a link may lead to this real path.
    fn may_lead_to(&self, real: &Path) -> bool {
        self.walk.follow_links || real.starts_with(&self.real)
    }

    /// Adds a file, by (3).
    fn add(&mut self, path: PathBuf, real: PathBuf, metadata: Metadata) {
        if self.seen.as_mut().is_none_or(|seen| seen.insert(real)) {
            self.walked.files.push(WalkedFile { path, metadata });
        }
    }
}

/// Counts a name, and keeps the least one.
pub(super) fn note_first(noted: &mut Option<(u64, PathBuf)>, path: PathBuf) {
    let (count, first) = noted.take().unwrap_or_else(|| (0, path.clone()));
    *noted = Some((count + 1, first.min(path)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    struct Drop {
        folder: tempfile::TempDir,
        follow_links: bool,
        lake: Option<PathBuf>,
    }

    impl Drop {
        fn new(files: &[&str]) -> Drop {
            let drop = Drop {
                folder: tempfile::tempdir().unwrap(),
                follow_links: false,
                lake: None,
            };
            for file in files {
                let path = drop.path(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, file).unwrap();
            }
            drop
        }

        fn path(&self, below: &str) -> PathBuf {
            self.folder.path().join(below)
        }

        fn link(&self, target: impl AsRef<Path>, name: &str) {
            symlink(target, self.path(name)).unwrap();
        }

        fn walk(&self, glob: &str) -> Walked {
            let walk = FolderWalk {
                folder: self.folder.path(),
                glob: &FileGlob::new(glob).unwrap(),
                follow_links: self.follow_links,
                lake: self.lake.as_deref(),
                stops: &|| false,
            };
            walk.walk().unwrap()
        }
    }

    fn names(walked: &Walked) -> Vec<String> {
        let shown = |file: &WalkedFile| crate::shown::shown_path(&file.path).to_string();
        walked.files.iter().map(shown).collect()
    }

    fn left_out(walked: &Walked) -> Vec<(&str, &WhyLeftOut)> {
        let path = |left: &'_ LeftOut| left.path.to_str().unwrap().to_string().leak() as &str;
        walked.left_out.iter().map(|left| (path(left), &left.why)).collect()
    }

    /// A name that is not UTF-8 made the listing panic, even if it was hidden or the glob did not name it.
    #[test]
    fn every_byte_string_is_a_name() {
        let drop = Drop::new(&["a.csv", "sub/b.csv"]);
        for name in [
            &b"\xff.csv"[..],
            b"\xe9.txt",
            b"._\xff.csv",
            b"sub/\xc3\x28.csv",
            b"d\xff",
        ] {
            let path = drop.folder.path().join(OsStr::from_bytes(name));
            match name {
                b"d\xff" => {
                    std::fs::create_dir(&path).unwrap();
                    std::fs::write(path.join("c.csv"), "x").unwrap();
                }
                _ => std::fs::write(path, "x").unwrap(),
            }
        }
        assert_eq!(names(&drop.walk("*.csv")), ["a.csv", "\\xff.csv"]);
        assert_eq!(
            names(&drop.walk("**/*.csv")),
            ["a.csv", "d\\xff/c.csv", "sub/b.csv", "sub/\\xc3(.csv", "\\xff.csv"]
        );
        assert_eq!(drop.walk("*.csv").hidden.unwrap().0, 1);
    }

    /// `X.CSV` beside `*.csv` was silently left out.
    #[test]
    fn names_in_another_case_are_counted_and_none_of_the_others() {
        let drop = Drop::new(&["a.csv", "X.CSV", "B.Csv", "_y.CSV", "z.txt", "Sub/c.csv", "sub/d.CSV"]);
        let walked = drop.walk("*.csv");
        assert_eq!(names(&walked), ["a.csv"]);
        assert_eq!(walked.other_case, Some((2, "B.Csv".into())));
        assert_eq!(drop.walk("s*/*.csv").other_case, Some((2, "Sub".into())));
        assert_eq!(drop.walk("**/*.[cC][sS][vV]").other_case, None);
        assert_eq!(drop.walk("*").other_case, None);
    }

    /// With one link upwards rows came 41 times; with two links to each other's folders the listing never ended.
    #[test]
    fn links_that_loop_bring_no_file_twice_and_end() {
        let drop = Drop::new(&["a/1.csv", "b/2.csv", "c/3.csv"]);
        drop.link("..", "a/up");
        drop.link(".", "c/self");
        drop.link("../b", "a/x");
        drop.link("../a", "b/y");
        drop.link("loop", "loop");
        drop.link("nowhere", "gone.csv");
        drop.link("a/1.csv", "again.csv");
        let walked = drop.walk("**/*.csv");
        assert_eq!(names(&walked), ["a/1.csv", "b/2.csv", "c/3.csv"]);
        let left = left_out(&walked);
        let kinds: Vec<&str> = left.iter().map(|(path, _)| *path).collect();
        assert_eq!(kinds, ["a/up", "c/self", "gone.csv", "loop"]);
        assert!(matches!(left[0].1, WhyLeftOut::LeadsUp(_)) && matches!(left[3].1, WhyLeftOut::LeadsNowhere(_)));
        // If the glob does not name the file itself, the link's name is used.
        assert_eq!(names(&drop.walk("*.csv")), ["again.csv"]);
    }

    /// Anyone who could write to a drop folder could have any file of the machine read through a link.
    #[test]
    fn links_out_of_the_folder_are_left_out_unless_they_are_allowed() {
        let outside = Drop::new(&["secret.csv", "more/d.csv"]);
        let mut drop = Drop::new(&["a.csv"]);
        drop.link(outside.path("secret.csv"), "s.csv");
        drop.link(outside.path("more"), "folder");
        drop.link("/", "root");
        let walked = drop.walk("**/*.csv");
        assert_eq!(names(&walked), ["a.csv"]);
        assert!(matches!(
            left_out(&walked)[..],
            [
                ("folder", WhyLeftOut::LeadsOut(_)),
                ("root", WhyLeftOut::LeadsUp(_)),
                ("s.csv", WhyLeftOut::LeadsOut(_))
            ]
        ));
        drop.follow_links = true;
        assert_eq!(names(&drop.walk("**/*.csv")), ["a.csv", "folder/d.csv", "s.csv"]);
    }

    #[test]
    fn what_is_no_file_and_what_is_of_the_lake_is_left_out_and_told() {
        let mut drop = Drop::new(&["a.csv", "lake/silver/b.csv"]);
        assert!(
            Command::new("mkfifo")
                .arg(drop.path("f.csv"))
                .status()
                .unwrap()
                .success()
        );
        drop.link("/dev/zero", "z.csv");
        drop.link("lake/silver/b.csv", "b.csv");
        drop.lake = Some(drop.path("lake"));
        drop.follow_links = true;
        let walked = drop.walk("**/*.csv");
        assert_eq!(names(&walked), ["a.csv"]);
        assert_eq!(
            left_out(&walked),
            [
                ("b.csv", &WhyLeftOut::Lake),
                ("f.csv", &WhyLeftOut::Special("a FIFO")),
                ("lake/silver", &WhyLeftOut::Lake),
                ("z.csv", &WhyLeftOut::Special("a device"))
            ]
        );
    }

    /// A folder whose path is too long for any system call counted as temporarily unreadable, so the feed waited for
    /// it.
    #[test]
    fn what_lies_deeper_than_a_path_reaches_is_left_out_and_what_lies_above_it_is_found() {
        for (name, levels) in [("a".to_string(), 3_000), ("n".repeat(200), 300)] {
            let drop = Drop::new(&["top.csv"]);
            let chain = |levels: usize| vec![name.as_str(); levels].join("/");
            // No single path may be longer than the system can open, so a chain of folders is moved below another
            // one.
            let at_once = 2_000 / (name.len() + 1);
            for part in 0..levels / at_once {
                let below = drop.path(&format!("next/{}", chain(at_once - 1)));
                std::fs::create_dir_all(&below).unwrap();
                std::fs::write(below.join(format!("{part}.csv")), "x").unwrap();
                if part > 0 {
                    std::fs::rename(drop.path(&name), below.join(&name)).unwrap();
                }
                std::fs::rename(drop.path("next"), drop.path(&name)).unwrap();
            }
            let walked = drop.walk("**/*.csv");
            let removed = Command::new("rm").arg("-rf").arg(drop.path(&name)).status();
            assert!(removed.unwrap().success());
            assert_eq!(walked.files.len(), 3, "the one at the top, and two that a path reaches");
            assert!(matches!(left_out(&walked)[..], [(_, WhyLeftOut::TooLong)]));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_keeps_nobody_from_the_others() {
        let drop = Drop::new(&["a/1.csv", "b/2.csv"]);
        std::fs::set_permissions(drop.path("a"), PermissionsExt::from_mode(0o000)).unwrap();
        let walked = drop.walk("**/*.csv");
        if walked.files.len() == 2 {
            eprintln!("SKIPPED: nothing is forbidden here");
            return;
        }
        assert_eq!(names(&walked), ["b/2.csv"]);
        assert!(matches!(left_out(&walked)[..], [("a", WhyLeftOut::Unreadable(_))]));
    }
}
