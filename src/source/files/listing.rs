//! Which files a glob names right now, in a local folder or an object store, and how to open them.
//!
//! A store behind a URL shows a file only when it is whole; a local folder shows it while it is being written.
//! Names that say "not yet" are left out: a leading `.` or `_` in any part below the glob's fixed part, and the endings
//! that copying tools use for unfinished files.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::source::SourceError;

const UNFINISHED: [&str; 4] = [".tmp", ".partial", ".crdownload", ".filepart"];

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its path below the glob's fixed part, with `/`.
    pub partition: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Identifies its content: size and the store's entity tag, or the time of its last change.
    pub tag: String,
    /// When it last changed.
    pub modified: SystemTime,
}

/// Where a glob's files are.
#[derive(Clone)]
pub(crate) enum Place {
    /// A local folder.
    Local {
        /// The glob's fixed part.
        folder: PathBuf,
        /// The whole glob.
        glob: String,
    },
    /// An object store.
    Remote {
        store: Arc<dyn ObjectStore>,
        /// The URL of the glob's fixed part.
        base: String,
        /// The glob's fixed part within the store.
        prefix: StorePath,
        /// The rest.
        pattern: glob::Pattern,
        runtime: tokio::runtime::Handle,
    },
}

pub(crate) const MATCHING: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Whether a feed's path is a URL of a store. `file://` is local.
pub(crate) fn is_remote(path: &str) -> bool {
    path.contains("://") && !path.starts_with("file://")
}

/// Splits a path before the first part that holds a wildcard; without one, before the file's name.
fn split(path: &str) -> (&str, &str) {
    let wild = path.find(['*', '?', '[']).unwrap_or(path.len());
    match path[..wild].rfind('/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => ("", path),
    }
}

impl Place {
    /// Takes a feed's path apart. `runtime` is there for remote ones.
    pub fn new(
        feed: &str,
        path: &str,
        store_options: &BTreeMap<String, String>,
        runtime: Option<tokio::runtime::Handle>,
    ) -> Result<Place, SourceError> {
        let bad_glob = |e: glob::PatternError| SourceError::Glob {
            feed: feed.to_string(),
            path: path.to_string(),
            reason: e.to_string(),
        };
        if !is_remote(path) {
            let path = path.strip_prefix("file://").unwrap_or(path);
            glob::Pattern::new(path).map_err(bad_glob)?;
            let folder = match split(path).0 {
                "" if path.starts_with('/') => "/",
                "" => ".",
                folder => folder,
            };
            return Ok(Place::Local {
                folder: folder.into(),
                glob: path.to_string(),
            });
        }
        let bad_store = |reason: String| SourceError::Store {
            feed: feed.to_string(),
            path: path.to_string(),
            reason,
        };
        let (fixed, rest) = split(path);
        if fixed.ends_with('/') || !fixed.contains("://") {
            return Err(bad_store(
                "a bucket or container must be named without wildcards".into(),
            ));
        }
        let url = url::Url::parse(&format!("{fixed}/")).map_err(|e| bad_store(e.to_string()))?;
        let (store, prefix) = crate::store::open(&url, store_options).map_err(|e| bad_store(e.to_string()))?;
        Ok(Place::Remote {
            store,
            base: fixed.to_string(),
            prefix,
            pattern: glob::Pattern::new(rest).map_err(bad_glob)?,
            runtime: runtime.expect("a runtime is made where a feed is remote"),
        })
    }

    /// Whether a file shows up only when it is whole.
    pub fn is_atomic(&self) -> bool {
        matches!(self, Place::Remote { .. })
    }

    /// Whether there is a folder to list: one that is missing may be a disk that is not mounted.
    pub fn is_there(&self) -> bool {
        match self {
            Place::Local { folder, .. } => folder.is_dir(),
            Place::Remote { .. } => true,
        }
    }

    /// The files that are there, by name.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = match self {
            Place::Local { folder, glob } => list_local(folder, glob)?,
            Place::Remote {
                store,
                prefix,
                pattern,
                runtime,
                ..
            } => {
                let objects = runtime
                    .block_on(store.list(Some(prefix)).try_collect::<Vec<_>>())
                    .map_err(store_error)?;
                let mut found = Vec::new();
                for object in objects {
                    let Some(parts) = object.location.prefix_match(prefix) else {
                        continue;
                    };
                    let name = parts.map(|p| p.as_ref().to_string()).collect::<Vec<_>>().join("/");
                    if !name.is_empty() && pattern.matches_with(&name, MATCHING) && is_finished(&name) {
                        let modified = SystemTime::from(object.last_modified);
                        let tag = tag(object.size, object.e_tag.as_deref(), modified);
                        found.push(Found {
                            partition: name.into(),
                            size: object.size,
                            tag,
                            modified,
                        });
                    }
                }
                found
            }
        };
        found.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(found)
    }

    /// The tag a file has now; none if it is gone.
    pub fn tag(&self, partition: &str) -> io::Result<Option<String>> {
        Ok(self.found(partition)?.map(|found| found.tag))
    }

    /// A file as it is now; none if it is gone.
    pub fn found(&self, partition: &str) -> io::Result<Option<Found>> {
        let found = match self {
            Place::Local { folder, .. } => {
                std::fs::metadata(folder.join(partition)).and_then(|m| Ok((m.len(), None, m.modified()?)))
            }
            Place::Remote { store, runtime, .. } => runtime
                .block_on(store.head(&self.location(partition)))
                .map(|o| (o.size, o.e_tag, SystemTime::from(o.last_modified)))
                .map_err(store_error),
        };
        match found {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
            Ok((size, entity, modified)) => Ok(Some(Found {
                partition: partition.into(),
                size,
                tag: tag(size, entity.as_deref(), modified),
                modified,
            })),
        }
    }

    /// A file's location in the store. Only of remote places.
    pub fn location(&self, partition: &str) -> StorePath {
        match self {
            Place::Remote { prefix, .. } => partition.split('/').fold(prefix.clone(), |path, part| path.join(part)),
            Place::Local { .. } => unreachable!("local files are opened by their path"),
        }
    }

    /// A file's absolute path or URL.
    pub fn display(&self, partition: &str) -> String {
        match self {
            Place::Local { folder, .. } => folder.join(partition).display().to_string(),
            Place::Remote { base, .. } => format!("{base}/{partition}"),
        }
    }
}

fn list_local(folder: &std::path::Path, pattern: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let paths = glob::glob_with(pattern, MATCHING).map_err(|e| io::Error::new(ErrorKind::InvalidInput, e))?;
    for path in paths {
        let path =
            path.map_err(|e| io::Error::new(e.error().kind(), format!("{}: {}", e.path().display(), e.error())))?;
        let below = path.strip_prefix(folder).unwrap_or(&path);
        // A name that is no UTF-8 cannot be kept in progress as it is; it is not one that a drop folder should hold.
        let Some(name) = below.to_str() else {
            tracing::warn!(path = %path.display(), "file with a name that is not UTF-8 is left out; rename it");
            continue;
        };
        if !is_finished(name) {
            continue;
        }
        let metadata = match std::fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue, // gone since it was listed
            metadata => metadata?,
        };
        if metadata.is_file() {
            let modified = metadata.modified()?;
            let tag = tag(metadata.len(), None, modified);
            found.push(Found {
                partition: name.into(),
                size: metadata.len(),
                tag,
                modified,
            });
        }
    }
    Ok(found)
}

fn is_finished(name: &str) -> bool {
    !name.split('/').any(|part| part.starts_with(['.', '_']))
        && !UNFINISHED
            .iter()
            .any(|ending| name.to_ascii_lowercase().ends_with(ending))
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

/// An object store's error by kind, so that what may pass and what cannot are told apart.
pub(crate) fn store_error(error: object_store::Error) -> io::Error {
    use object_store::Error::*;
    let kind = match &error {
        NotFound { .. } => ErrorKind::NotFound,
        PermissionDenied { .. } | Unauthenticated { .. } => ErrorKind::PermissionDenied,
        // The file is not the one that was asked for any more.
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

    #[test]
    fn the_fixed_part_ends_before_the_first_wildcard() {
        assert_eq!(split("/a/b/*.csv"), ("/a/b", "*.csv"));
        assert_eq!(split("/a/b-[0-9]/c/*.csv"), ("/a", "b-[0-9]/c/*.csv"));
        assert_eq!(split("/a/b.csv"), ("/a", "b.csv"));
        assert_eq!(split("s3://bucket/in/**/x?.csv"), ("s3://bucket/in", "**/x?.csv"));
    }

    #[test]
    fn a_url_that_names_no_store_is_refused() {
        for path in ["nosuch://bucket/a/*.csv", "s3://buck*/a.csv"] {
            assert!(
                matches!(
                    Place::new("i.f", path, &BTreeMap::new(), None),
                    Err(SourceError::Store { .. })
                ),
                "{path}"
            );
        }
        assert!(matches!(
            Place::new("i.f", "/a/[b.csv", &BTreeMap::new(), None),
            Err(SourceError::Glob { .. })
        ));
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
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names = |glob: &str| {
            let glob = folder.path().join(glob);
            let place = Place::new("i.f", glob.to_str().unwrap(), &BTreeMap::new(), None).unwrap();
            place
                .list()
                .unwrap()
                .iter()
                .map(|f| f.partition.to_string())
                .collect::<Vec<_>>()
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
        ["in/b.csv", "in/a.csv", "in/_t/c.csv", "in/sub/d.csv", "other/e.csv"]
            .iter()
            .for_each(|n| put(n, "x"));
        let place = Place::Remote {
            store: store.clone(),
            base: "memory://in".into(),
            prefix: StorePath::from("in"),
            pattern: glob::Pattern::new("*.csv").unwrap(),
            runtime: runtime.handle().clone(),
        };
        let before = place.list().unwrap();
        assert_eq!(
            before.iter().map(|f| &*f.partition).collect::<Vec<_>>(),
            ["a.csv", "b.csv"]
        );
        assert_eq!(place.tag("a.csv").unwrap().as_ref(), Some(&before[0].tag));
        put("in/a.csv", "y");
        assert_ne!(place.list().unwrap()[0].tag, before[0].tag);
        assert_eq!(place.tag("gone.csv").unwrap(), None);
    }
}
