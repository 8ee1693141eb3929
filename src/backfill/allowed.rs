//! Decides which files requests may name.
//!
//! A request is an object in the lake, and anyone who can write there can put one; but the run that serves it reads
//! with its own rights. So it reads only files below folders and URLs that the definition names: `backfill_from` (by
//! default the dataflow's own folder), and the folders that feeds of kind `files` and `log` read anyway.
//!
//! 1. A path must be absolute and without `..`, percent-encoded or not, so that the path that is compared is the one
//!    that is opened.
//! 2. A local file is compared by its canonical path, so a link counts as its target; and again after it was opened
//!    ([`crate::source::SingleFile`]), so that it cannot be replaced in between.
//! 3. Secrets of runs are never data, wherever they are and whoever asks: the definition's own file, the secret of a
//!    cluster, the key of TLS, and everything that a lake stores for itself.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::definition::{Dataflow, FileGlob};
use crate::shown::shown_path;
use crate::source::{is_remote, local_path};

/// The folder in which a lake stores what is not data.
const FOLDER_OF_LAKES: &str = "_alluvium";
/// The names of files that hold secrets, in any folder.
const PRIVATE: [&str; 2] = ["dataflow.toml", "cluster.secret"];

/// Why a file may not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Forbidden {
    /// By (1).
    #[error("it is no absolute path or URL without \"..\"")]
    Unclear,
    /// By (2).
    #[error("it lies outside of the folders that may be backfilled")]
    Outside,
    /// By (2).
    #[error("it leads to {0}, outside of the folders that may be backfilled")]
    LeadsOutside(String),
    /// By (3).
    #[error(
        "it is a file of the run's own (of _alluvium, dataflow.toml, cluster.secret, a key), which is never backfilled"
    )]
    Private,
    /// The file's metadata cannot be read.
    #[error("{0}")]
    Unseen(String),
}

/// The places where files may be read.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Canonical folders.
    folders: Vec<PathBuf>,
    /// URLs without a trailing slash.
    stores: Vec<String>,
    /// The value of `backfill_from`.
    set: Vec<String>,
    /// Whether only the folder of one feed is allowed.
    is_of_feed: bool,
    /// The device and inode of private files of the definition, so that they are recognised under any name.
    private: Vec<(u64, u64)>,
}

impl Allowed {
    /// The places that a definition allows, with its folders as they are now: a folder that does not exist allows
    /// nothing.
    pub fn from_dataflow(dataflow: &Dataflow) -> Allowed {
        let feeds = dataflow.inputs.iter().flat_map(|input| &input.feeds);
        // If a feed can read everything, its folder is empty, and only folders in `backfill_from` count.
        let of_feeds = feeds.filter_map(|feed| feed.kind.contract().folder());
        let set = dataflow.bounds.backfill_from.clone();
        let places: Vec<String> = set
            .iter()
            .cloned()
            .chain(of_feeds.filter(|folder| !folder.is_empty()))
            .collect();
        let names = PRIVATE.iter().map(|name| dataflow.folder.join(name));
        let tls = dataflow.http.iter().filter_map(|http| http.tls.as_ref());
        let private = names.chain(tls.map(|tls| tls.key.clone()));
        Allowed {
            set,
            private: private
                .filter_map(|file| Some(number(&std::fs::metadata(file).ok()?)))
                .collect(),
            ..Allowed::in_places(&places)
        }
    }

    /// The place of one feed of kind `files`: only its own folder, or everything that links can lead to if it follows
    /// links.
    pub fn of_feed(feed_path: &str, follows_links: bool) -> Allowed {
        let fixed = fixed_part(feed_path);
        let folder = match follows_links {
            _ if is_remote(&fixed) => fixed,
            false if !fixed.is_empty() => fixed,
            _ => "/".to_string(),
        };
        Allowed {
            is_of_feed: true,
            ..Allowed::in_places(&[folder])
        }
    }

    fn in_places(places: &[String]) -> Allowed {
        let (stores, folders): (Vec<&String>, Vec<&String>) = places.iter().partition(|place| is_remote(place));
        let canonical = folders
            .into_iter()
            .filter_map(|folder| std::fs::canonicalize(folder).ok());
        Allowed {
            folders: canonical.collect(),
            stores: stores
                .into_iter()
                .map(|url| url.trim_end_matches('/').to_string())
                .collect(),
            set: vec![],
            is_of_feed: false,
            private: vec![],
        }
    }

    /// Checks whether a file may be read. For a local file, returns the folder that it must not leave, and its
    /// canonical path.
    ///
    /// # Errors
    /// Why the file may not be read, or that a local file does not exist.
    pub fn check(&self, file: &str) -> Result<Option<(PathBuf, PathBuf)>, Forbidden> {
        if is_remote(file) {
            let is_plain = file.split('/').all(|part| !is_dots(part));
            let is_below = |store: &String| file.strip_prefix(store).is_some_and(|rest| rest.starts_with('/'));
            return match (is_plain, self.stores.iter().any(is_below)) {
                (false, _) => Err(Forbidden::Unclear),
                (true, false) => Err(Forbidden::Outside),
                (true, true) if file.split('/').any(is_private_part) => Err(Forbidden::Private),
                (true, true) => Ok(None),
            };
        }
        let path = local_path(file);
        let is_plain = path.components().all(|part| part != Component::ParentDir);
        if !path.is_absolute() || !is_plain {
            return Err(Forbidden::Unclear);
        }
        let root_of = |path: &Path| self.folders.iter().find(|folder| path.starts_with(folder));
        let place = std::fs::canonicalize(&path).map_err(|error| match error.kind() {
            // For a file outside of the allowed places, the message does not reveal whether it exists.
            _ if root_of(&path).is_none() => Forbidden::Outside,
            std::io::ErrorKind::NotFound => Forbidden::Unseen("it is not there".to_string()),
            _ => Forbidden::Unseen(format!("could not look at it: {error}")),
        })?;
        match (root_of(&place), root_of(&path)) {
            (Some(_), _) if self.is_private(std::fs::metadata(&place).ok().as_ref(), &place) => Err(Forbidden::Private),
            (Some(root), _) => Ok(Some((root.clone(), place))),
            (None, Some(_)) => Err(Forbidden::LeadsOutside(shown_path(&place).to_string())),
            (None, None) => Err(Forbidden::Outside),
        }
    }

    /// Whether a local file must never be read, by (3). The path must be canonical.
    pub(super) fn is_private(&self, file: Option<&Metadata>, path: &Path) -> bool {
        file.is_some_and(|file| self.private.contains(&number(file)))
            || path
                .components()
                .any(|part| is_private_part(&part.as_os_str().to_string_lossy()))
    }

    /// The setting that would allow a file, as text for dataflow.toml or for the feed.
    pub fn remedy(&self, file: &str) -> String {
        if self.is_of_feed {
            return "set follow_links = true in the feed, if that is meant".to_string();
        }
        let folder = file.rsplit_once('/').map_or(file, |(folder, _)| folder);
        let places = self.set.iter().map(String::as_str).chain([folder]);
        let places: Vec<String> = places.map(|place| format!("{place:?}")).collect();
        format!(
            "set backfill_from = [{}] in dataflow.toml (and restart the run, if one is on the lake), or move the file there",
            places.join(", ")
        )
    }

    /// The same for a message about one of many files: it does not list what is allowed.
    pub fn short_remedy(&self, file: &str) -> String {
        if self.is_of_feed {
            return self.remedy(file);
        }
        let folder = file.rsplit_once('/').map_or(file, |(folder, _)| folder);
        format!("add {folder:?} to backfill_from in dataflow.toml and restart the run, or move the file")
    }

    /// The allowed folders and URLs, for messages.
    pub fn names(&self) -> String {
        let folders = self.folders.iter().map(|folder| folder.display().to_string());
        let names: Vec<String> = folders.chain(self.stores.iter().cloned()).collect();
        match names.is_empty() {
            true => "there are none".to_string(),
            false => names.join(", "),
        }
    }
}

/// The folder or URL that contains everything a feed's path can match.
fn fixed_part(feed_path: &str) -> String {
    FileGlob::split(feed_path.strip_prefix("file://").unwrap_or(feed_path)).0
}

/// Whether a folder or file with this name, which may be percent-encoded, is private.
fn is_private_part(part: &str) -> bool {
    let plain = percent_decode_str(part).decode_utf8_lossy();
    plain == FOLDER_OF_LAKES || PRIVATE.contains(&&*plain)
}

fn number(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether a part of a URL is `.` or `..`, percent-encoded or not.
fn is_dots(part: &str) -> bool {
    matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_read_below_an_allowed_folder_whatever_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for made in ["shop/old", "shopping", "secrets"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        for file in ["shop/old/a.csv", "shopping/a.csv", "secrets/a.csv"] {
            std::fs::write(root.join(file), "a").unwrap();
        }
        symlink(root.join("secrets/a.csv"), root.join("shop/link.csv")).unwrap();
        symlink(root.join("shop"), root.join("door")).unwrap();
        let at = |path: &str| root.join(path).display().to_string();
        // The allowed folder is given by a link, as a user may write it.
        let allowed = Allowed::in_places(&[at("door")]);
        let check = |path: &str| allowed.check(&at(path));
        let allowed_path = Ok(Some((root.join("shop"), root.join("shop/old/a.csv"))));
        assert_eq!(check("shop/old/a.csv"), allowed_path);
        assert_eq!(check("door/old/a.csv"), allowed_path);
        assert_eq!(allowed.check(&format!("file://{}", at("shop/old/a.csv"))), allowed_path);
        assert_eq!(
            check("shop/./old%2Fa.csv"),
            allowed_path,
            "as names that are not UTF-8 are written"
        );
        assert!(
            matches!(check("shopping/a.csv"), Err(Forbidden::Outside)),
            "a longer name is another folder"
        );
        assert!(
            matches!(check("secrets/none.csv"), Err(Forbidden::Outside)),
            "nor whether it is there"
        );
        assert!(matches!(check("shop/link.csv"), Err(Forbidden::LeadsOutside(..))));
        assert!(matches!(check("shop/none.csv"), Err(Forbidden::Unseen(_))));
        for unclear in ["shop/../secrets/a.csv", "shop/./%2E%2E/secrets/a.csv"] {
            assert_eq!(check(unclear), Err(Forbidden::Unclear), "{unclear}");
        }
        assert_eq!(allowed.check("old/a.csv"), Err(Forbidden::Unclear));
        assert_eq!(allowed.check(""), Err(Forbidden::Unclear));
        assert!(Allowed::in_places(&[]).check(&at("shop/old/a.csv")).is_err());
    }

    #[test]
    fn what_runs_keep_secret_is_not_read_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("lakes/one/_alluvium/http")).unwrap();
        let files = [
            "cluster.secret",
            "dataflow.toml",
            "lakes/one/_alluvium/http/1",
            "tls.pem",
        ];
        for file in files {
            std::fs::write(root.join(file), "secret").unwrap();
        }
        std::fs::hard_link(root.join("tls.pem"), root.join("a.csv")).unwrap();
        symlink(root.join("cluster.secret"), root.join("b.csv")).unwrap();
        symlink(root.join("lakes/one/_alluvium"), root.join("door")).unwrap();
        std::fs::write(root.join("c.csv"), "a").unwrap();
        let at = |path: &str| root.join(path).display().to_string();
        let allowed = Allowed {
            private: vec![number(&std::fs::metadata(root.join("tls.pem")).unwrap())],
            ..Allowed::in_places(&[at("")])
        };
        for file in files.iter().chain(&["a.csv", "b.csv", "door/http/1"]) {
            assert_eq!(allowed.check(&at(file)), Err(Forbidden::Private), "{file}");
        }
        assert!(allowed.check(&at("c.csv")).is_ok());
    }

    #[test]
    fn a_url_is_read_below_an_allowed_one() {
        let allowed = Allowed::in_places(&["s3://bucket/drops/".into(), "s3://all".into()]);
        for (url, want) in [
            ("s3://bucket/drops/a.csv", true),
            ("s3://all/a.csv", true),
            ("s3://bucket/dropsy/a.csv", false),
            ("s3://bucket/a.csv", false),
            ("s3://allmine/a.csv", false),
            ("s3://bucket/drops/../a.csv", false),
            ("s3://bucket/drops/%2E%2e/a.csv", false),
            ("s3://bucket/drops/.%2e/a.csv", false),
            ("s3a://bucket/drops/a.csv", false),
            ("s3://all/lake/_alluvium/http/1", false),
            ("s3://all/lake/%5Falluvium/http/1", false),
            ("s3://all/shop/cluster.secret", false),
            ("s3://all/lake/alluvium/1.csv", true),
            ("/etc/passwd", false),
        ] {
            assert_eq!(allowed.check(url).is_ok(), want, "{url}");
        }
    }
}
