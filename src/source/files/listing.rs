//! Lists the files that match a glob now, in a local folder or an object store, and opens them.
//!
//! A store behind a URL shows a file only when it is complete; a local folder also shows it while it is being
//! written. Names by which programs mark unfinished files are left out: a leading `.` or `_` in any part below the
//! glob's fixed part, and the suffixes of copying tools. So are the lake's own files, and what [`super::walk`] leaves
//! out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::walk::{FolderWalk, LeftOut, Walked, WhyLeftOut, note_first};
use crate::definition::{Dataflow, FileGlob, LAKE_FOLDERS, pattern_of_file};
use crate::shown::{shown, shown_path};
use crate::source::SourceError;
use crate::source::guard::{Vetting, open_regular, open_vetted};
use crate::source::names::{partition_of, path_in};

const UNFINISHED: [&str; 5] = [".tmp", ".partial", ".crdownload", ".filepart", "._copying_"];

/// A file that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedFile {
    /// Its path below the glob's fixed part, with `/`; see [`crate::source::names`].
    pub partition: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Identifies its version: the size, and the store's entity tag or the modification time.
    pub tag: String,
    /// When it last changed.
    pub modified: SystemTime,
}

/// The result of listing a location.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The files, by name.
    pub files: Vec<ListedFile>,
    /// Whether the folder exists: a missing one may be a disk that is not mounted.
    pub is_there: bool,
    /// What was left out, and why.
    pub left_out: Vec<LeftOut>,
    /// The number of names that only a leading `_` or `.` keeps from matching, and the first of them.
    pub hidden: Option<(u64, PathBuf)>,
    /// The number of names that would match in another case of letters, and the first of them.
    pub other_case: Option<(u64, PathBuf)>,
    /// Of the files whose names mark them as unfinished, the one that has been unchanged for longest: since when, and
    /// its path.
    pub unfinished: Option<(SystemTime, PathBuf)>,
}

impl Listing {
    fn observe_unfinished(&mut self, modified: SystemTime, path: PathBuf) {
        let oldest = self.unfinished.take().into_iter().chain([(modified, path)]).min();
        self.unfinished = oldest;
    }
}

/// The location of a glob's files.
#[derive(Clone)]
pub(crate) enum GlobLocation {
    /// A local folder.
    Local {
        /// The glob's fixed part.
        folder: PathBuf,
        /// The glob below it.
        glob: FileGlob,
        /// Whether links may lead out of the folder.
        follow_links: bool,
        /// The lake, if it is a local folder.
        lake: Option<PathBuf>,
        /// Asked for each file that is opened whether it may be read.
        vetting: Option<Vetting>,
    },
    /// An object store.
    Remote {
        store: Arc<dyn ObjectStore>,
        /// The URL of the glob's fixed part.
        base: String,
        /// The glob's fixed part within the store.
        prefix: StorePath,
        /// The glob below it.
        glob: FileGlob,
        /// The lake's URL.
        lake: String,
        runtime: tokio::runtime::Handle,
    },
}

/// What is needed to open a location besides its path.
pub(crate) struct Surroundings<'a> {
    pub store_options: &'a BTreeMap<String, String>,
    /// See [`Dataflow::lake`].
    pub lake: &'a str,
    /// Whether links may lead out of a local folder.
    pub follow_links: bool,
    /// Needed for object stores.
    pub runtime: Option<tokio::runtime::Handle>,
}

impl<'a> Surroundings<'a> {
    /// Those of a dataflow.
    pub fn of_dataflow(dataflow: &'a Dataflow, follow_links: bool, runtime: Option<tokio::runtime::Handle>) -> Self {
        Surroundings {
            store_options: &dataflow.store_options,
            lake: &dataflow.lake,
            follow_links,
            runtime,
        }
    }
}

/// Whether a feed's path is a URL of a store. `file://` is local.
pub(crate) fn is_remote(path: &str) -> bool {
    path.contains("://") && !path.starts_with("file://")
}

impl GlobLocation {
    /// Parses a feed's path.
    pub fn new(feed: &str, path: &str, around: Surroundings<'_>) -> Result<GlobLocation, SourceError> {
        let bad_glob = |e: glob::PatternError| SourceError::Glob {
            feed: feed.to_string(),
            path: path.to_string(),
            reason: e.to_string(),
        };
        if !is_remote(path) {
            let path = path.strip_prefix("file://").unwrap_or(path);
            let (fixed, rest) = FileGlob::split(path);
            let folder = match fixed.as_str() {
                "" if path.starts_with('/') => "/",
                "" => ".",
                folder => folder,
            };
            return Ok(GlobLocation::Local {
                folder: folder.into(),
                glob: FileGlob::new(rest).map_err(bad_glob)?,
                follow_links: around.follow_links,
                lake: (!is_remote(around.lake)).then(|| around.lake.into()),
                vetting: None,
            });
        }
        let bad_store = |reason: String| SourceError::Store {
            feed: feed.to_string(),
            path: path.to_string(),
            reason,
        };
        let (fixed, rest) = FileGlob::split(path);
        if fixed.ends_with('/') || !fixed.contains("://") {
            return Err(bad_store(
                "a bucket or container must be named without wildcards".into(),
            ));
        }
        let url = url::Url::parse(&format!("{fixed}/")).map_err(|e| bad_store(e.to_string()))?;
        let (store, prefix) = crate::store::open(&url, around.store_options).map_err(|e| bad_store(e.to_string()))?;
        Ok(GlobLocation::Remote {
            store,
            base: fixed,
            prefix,
            glob: FileGlob::new(rest).map_err(bad_glob)?,
            lake: around.lake.to_string(),
            runtime: around.runtime.expect("a runtime is made where a feed is remote"),
        })
    }

    /// Whether files become visible only when they are complete.
    pub fn is_atomic(&self) -> bool {
        matches!(self, GlobLocation::Remote { .. })
    }

    /// Lists the files, by name, and what is left out. `stops` returns whether to give up.
    ///
    /// # Errors
    /// The folder or the store cannot be listed; `Interrupted` if `stops` returned true.
    pub fn list(&self, stops: &dyn Fn() -> bool) -> io::Result<Listing> {
        let mut listing = match self {
            GlobLocation::Local {
                folder,
                glob,
                follow_links,
                lake,
                ..
            } => {
                let walk = FolderWalk {
                    folder,
                    glob,
                    follow_links: *follow_links,
                    lake: lake.as_deref(),
                    stops,
                };
                match walk.walk() {
                    Ok(walked) => list_walked(walked)?,
                    Err(error) if error.kind() == ErrorKind::NotFound => Listing::default(),
                    Err(error) => return Err(error),
                }
            }
            GlobLocation::Remote { .. } => self.list_remote()?,
        };
        listing.files.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(listing)
    }

    fn list_remote(&self) -> io::Result<Listing> {
        let GlobLocation::Remote {
            store,
            base,
            prefix,
            glob,
            lake,
            runtime,
        } = self
        else {
            unreachable!("asked of stores alone")
        };
        let objects = runtime
            .block_on(store.list(Some(prefix)).try_collect::<Vec<_>>())
            .map_err(store_error)?;
        let mut listing = Listing {
            is_there: true,
            ..Listing::default()
        };
        let of_lake = |name: &str| {
            let below = format!("{base}/{name}");
            let below = below
                .strip_prefix(lake.as_str())
                .and_then(|below| below.strip_prefix('/'));
            let first = below.and_then(|below| below.split('/').next());
            first.is_some_and(|first| LAKE_FOLDERS.contains(&first))
        };
        let any_case = glob.in_any_case();
        for object in objects {
            let Some(parts) = object.location.prefix_match(prefix) else {
                continue;
            };
            let parts: Vec<_> = parts.collect();
            let parts: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
            let name = parts.join("/");
            if !glob.names(&parts) {
                if any_case.names(&parts) && is_read(&parts) {
                    note_first(&mut listing.other_case, PathBuf::from(&name));
                }
                continue;
            }
            if is_unfinished(&name) {
                listing.observe_unfinished(object.last_modified.into(), name.into());
                continue;
            }
            if parts.iter().any(|part| part.starts_with(['.', '_'])) {
                note_first(&mut listing.hidden, PathBuf::from(&name));
            } else if of_lake(&name) {
                let lake = LeftOut {
                    path: lake.into(),
                    why: WhyLeftOut::Lake,
                };
                if !listing.left_out.contains(&lake) {
                    listing.left_out.push(lake);
                }
            } else {
                let modified = SystemTime::from(object.last_modified);
                listing.files.push(ListedFile {
                    partition: name.into(),
                    size: object.size,
                    tag: tag(object.size, object.e_tag.as_deref(), modified),
                    modified,
                });
            }
        }
        Ok(listing)
    }

    /// The tag that a file has now; none if the file is gone.
    pub fn tag(&self, partition: &str) -> io::Result<Option<String>> {
        Ok(self.find(partition)?.map(|found| found.tag))
    }

    /// A file's present metadata; none if the file is gone.
    pub fn find(&self, partition: &str) -> io::Result<Option<ListedFile>> {
        let metadata = match self {
            GlobLocation::Local { folder, .. } => {
                std::fs::metadata(path_in(folder, partition)).and_then(|m| Ok((m.len(), None, m.modified()?)))
            }
            GlobLocation::Remote { store, runtime, .. } => runtime
                .block_on(store.head(&self.location(partition)))
                .map(|o| (o.size, o.e_tag, SystemTime::from(o.last_modified)))
                .map_err(store_error),
        };
        match metadata {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
            Ok((size, entity, modified)) => Ok(Some(ListedFile {
                partition: partition.into(),
                size,
                tag: tag(size, entity.as_deref(), modified),
                modified,
            })),
        }
    }

    /// A file's path in the store. Only object stores have such paths.
    pub fn location(&self, partition: &str) -> StorePath {
        match self {
            GlobLocation::Remote { prefix, .. } => {
                partition.split('/').fold(prefix.clone(), |path, part| path.join(part))
            }
            GlobLocation::Local { .. } => unreachable!("local files are opened by their path"),
        }
    }

    /// Opens a local file for reading, as [`open_regular`] does.
    pub fn open_local(&self, partition: &str) -> io::Result<File> {
        match self {
            GlobLocation::Local {
                folder,
                follow_links,
                vetting,
                ..
            } => {
                let within = match follow_links {
                    true => None,
                    false => Some(folder.canonicalize()?),
                };
                let path = path_in(folder, partition);
                match vetting {
                    None => open_regular(&path, within.as_deref()),
                    Some(vetting) => open_vetted(&path, within.as_deref(), vetting),
                }
            }
            GlobLocation::Remote { .. } => unreachable!("files of stores are opened by their location"),
        }
    }

    /// A file's absolute path or URL, from which its partition can be derived.
    pub fn display(&self, partition: &str) -> String {
        match self {
            GlobLocation::Local { folder, .. } => folder.join(partition).display().to_string(),
            GlobLocation::Remote { base, .. } => format!("{base}/{partition}"),
        }
    }

    /// A path below the glob's fixed part, in the form that is safe to show to people.
    pub fn shown_below(&self, path: &Path) -> String {
        match self {
            GlobLocation::Local { folder, .. } => shown_path(&folder.join(path)).to_string(),
            GlobLocation::Remote { .. } if path.to_string_lossy().contains("://") => shown_path(path).to_string(),
            GlobLocation::Remote { base, .. } => format!("{}/{}", shown(base), shown_path(path)),
        }
    }

    /// The message for the case that the glob's fixed part is a file: a path without a dot in its last part is taken
    /// for a folder.
    pub fn not_a_folder_message(&self) -> String {
        let GlobLocation::Local { folder, .. } = self else {
            return format!("could not list {}: it is no folder", self.shown(""));
        };
        let escaped = glob::Pattern::escape(&folder.to_string_lossy());
        format!(
            "could not list {}: it is a file, and a path whose last part has no dot and no wildcard is a folder's; for the file write \
             path = {:?}",
            shown_path(folder),
            pattern_of_file(&escaped).0
        )
    }

    /// A file's absolute path or URL, in the form that is safe to show to people.
    pub fn shown(&self, partition: &str) -> String {
        match self {
            GlobLocation::Local { folder, .. } => shown_path(&path_in(folder, partition)).to_string(),
            GlobLocation::Remote { base, .. } => shown(&format!("{base}/{partition}")).to_string(),
        }
    }
}

fn list_walked(walked: Walked) -> io::Result<Listing> {
    let mut listing = Listing {
        is_there: true,
        left_out: walked.left_out,
        hidden: walked.hidden,
        other_case: walked.other_case,
        ..Listing::default()
    };
    for file in walked.files {
        let partition = partition_of(file.path.as_os_str().as_bytes());
        let (size, modified) = (file.metadata.len(), file.metadata.modified()?);
        if is_unfinished(&partition) {
            listing.observe_unfinished(modified, file.path);
            continue;
        }
        listing.files.push(ListedFile {
            partition,
            size,
            tag: tag(size, None, modified),
            modified,
        });
    }
    Ok(listing)
}

/// Whether a feed would read a file that its glob names, given the parts of the path below the fixed part.
pub(super) fn is_read(parts: &[&str]) -> bool {
    !parts.iter().any(|part| part.starts_with(['.', '_'])) && !parts.last().is_some_and(|name| is_unfinished(name))
}

fn is_unfinished(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    UNFINISHED.iter().any(|ending| name.ends_with(ending))
}

pub(super) fn tag(size: u64, entity: Option<&str>, modified: SystemTime) -> String {
    match entity {
        Some(entity) => format!("{size}:{}", entity.trim_matches('"')),
        None => format!(
            "{size}:{}",
            modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
        ),
    }
}

/// Converts an object store's error, so that its kind separates transient failures from permanent ones.
pub(crate) fn store_error(error: object_store::Error) -> io::Error {
    use object_store::Error::*;
    let kind = match &error {
        NotFound { .. } => ErrorKind::NotFound,
        PermissionDenied { .. } | Unauthenticated { .. } => ErrorKind::PermissionDenied,
        // The object is no longer the version that was asked for.
        Precondition { .. } | NotModified { .. } => ErrorKind::StaleNetworkFileHandle,
        InvalidPath { .. } | NotSupported { .. } | NotImplemented { .. } | UnknownConfigurationKey { .. } => {
            ErrorKind::InvalidInput
        }
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn place(path: &str) -> Result<GlobLocation, SourceError> {
        let around = Surroundings {
            store_options: &BTreeMap::new(),
            lake: "/lake",
            follow_links: false,
            runtime: None,
        };
        GlobLocation::new("i.f", path, around)
    }

    fn list(place: &GlobLocation) -> Vec<ListedFile> {
        place.list(&|| false).unwrap().files
    }

    #[test]
    fn a_url_that_names_no_store_is_refused() {
        for path in ["nosuch://bucket/a/*.csv", "s3://buck*/a.csv"] {
            assert!(matches!(place(path), Err(SourceError::Store { .. })), "{path}");
        }
        assert!(matches!(place("/a/[b.csv"), Err(SourceError::Glob { .. })));
    }

    #[test]
    fn a_folder_lists_what_matches_and_is_finished_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b.csv",
            "a.csv",
            "a.csv.tmp",
            "_c.csv",
            ".d.csv",
            "sub/e.csv",
            "_sub/f.csv",
            "g.txt",
            "h.csv.partial",
            "i.csv._COPYING_", // HDFS gives such a name to a file that is being uploaded
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names = |glob: &str| {
            let glob = folder.path().join(glob);
            let place = place(glob.to_str().unwrap()).unwrap();
            list(&place).iter().map(|f| f.partition.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("*.csv*"), ["a.csv", "b.csv"]);
        assert_eq!(names("**/*.csv"), ["a.csv", "b.csv", "sub/e.csv"]);
        assert_eq!(names("*/*.csv"), ["sub/e.csv"]);
        assert_eq!(names("nothing/*.csv"), Vec::<String>::new());
        assert_eq!(names("b.csv"), ["b.csv"]);
    }

    #[test]
    fn a_store_lists_by_the_same_rules_and_tags_change_with_content() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let put = |name: &str, text: &'static str| {
            runtime
                .block_on(store.put(&StorePath::from(name), text.into()))
                .unwrap();
        };
        [
            "in/b.csv",
            "in/a.csv",
            "in/_t/c.csv",
            "in/sub/d.csv",
            "other/e.csv",
            "in/lake/gold/f.csv",
        ]
        .iter()
        .for_each(|n| put(n, "x"));
        let place = GlobLocation::Remote {
            store: store.clone(),
            base: "memory://in".into(),
            prefix: StorePath::from("in"),
            glob: FileGlob::new("**/*.csv").unwrap(),
            lake: "memory://in/lake".into(),
            runtime: runtime.handle().clone(),
        };
        let before = list(&place);
        assert_eq!(
            before.iter().map(|f| &*f.partition).collect::<Vec<_>>(),
            ["a.csv", "b.csv", "sub/d.csv"]
        );
        let listing = place.list(&|| false).unwrap();
        assert!(matches!(
            &listing.left_out[..],
            [LeftOut {
                why: WhyLeftOut::Lake,
                ..
            }]
        ));
        assert_eq!(listing.hidden, Some((1, "_t/c.csv".into())));
        assert_eq!(place.tag("a.csv").unwrap().as_ref(), Some(&before[0].tag));
        put("in/a.csv", "y");
        assert_ne!(list(&place)[0].tag, before[0].tag);
        assert_eq!(place.tag("gone.csv").unwrap(), None);
    }
}
