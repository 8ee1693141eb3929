//! Locations of data as users write them: local folders, globs and URLs.
//!
//! Relative paths are joined to a base folder; `.` and `..` are resolved lexically. Nothing is opened, so a valid
//! location may not exist. A URL with a secret is refused, so that locations can be printed.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;
use url::Url;

use super::diagnostic::nearest;
use super::file_glob::{FileGlob, literal};

const SCHEMES: [&str; 8] = ["abfs", "abfss", "az", "azure", "file", "gs", "s3", "s3a"];

/// Why a text is no valid location.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LocationError {
    /// The text is empty.
    #[error("the location is empty")]
    Empty,
    /// A scheme that is not supported, such as `http://`.
    #[error("unknown URL scheme {0:?}")]
    UnknownScheme(String),
    /// The slashes are missing, as in `s3:/bucket`.
    #[error("the URL lacks \"//\" behind \"{0}:\"")]
    NoSlashes(String),
    /// The bucket is missing or invalid, as in `s3:///folder`.
    #[error("the {0} URL names no bucket or container")]
    NoBucket(String),
    /// The URL has a user or password, as in `s3://key:secret@bucket`.
    #[error("the URL carries a user or password")]
    Secret,
    /// A file URL with a relative path.
    #[error("the file URL names no absolute path")]
    NotAbsolute,
    /// A glob that is no valid pattern.
    #[error("bad glob: {0}")]
    BadGlob(String),
    /// A glob in place of the bucket, as in `s3://*/x`.
    #[error("a glob cannot stand in the bucket's name")]
    GlobInBucket,
    /// A lake in the dataflow's own folder.
    #[error("the dataflow's own folder cannot be its lake: silver/ and gold/ hold SQL there, and tables in a lake")]
    DataflowFolder,
    /// A URL or a glob where a local folder is required.
    #[error("the embedded log is one local folder, not a {0}")]
    NotAFolder(&'static str),
}

impl LocationError {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            LocationError::Empty => "write a folder or a URL".to_string(),
            LocationError::UnknownScheme(scheme) => {
                let known = "a folder, or s3://, abfss://, az://, gs:// or file://";
                match nearest(scheme, SCHEMES) {
                    Some(near) => format!("did you mean \"{near}://\"? a location is {known}"),
                    None => format!("a location is {known}"),
                }
            }
            LocationError::NoSlashes(scheme) => format!("write {scheme}://bucket/folder"),
            LocationError::NoBucket(scheme) => format!("write {scheme}://bucket/folder"),
            LocationError::Secret => {
                "put credentials into [store] of dataflow.toml, as in access_key_id = \"${KEY_ID}\"".to_string()
            }
            LocationError::NotAbsolute => "write file:///folder, or the folder alone".to_string(),
            LocationError::BadGlob(_) => {
                "* is any text, ? one character, ** any folders, [ab] one of these; [*] is a star itself".to_string()
            }
            LocationError::GlobInBucket => "one feed reads one bucket; write another feed for another".to_string(),
            LocationError::DataflowFolder => "name a folder of its own, as in lake = \"lake\"".to_string(),
            LocationError::NotAFolder(_) => {
                "name the folder that holds 0.ndjson, 1.ndjson, ...; kind \"files\" takes globs and URLs".to_string()
            }
        }
    }
}

/// The location of a lake: an absolute local folder, or a URL without a trailing slash.
///
/// # Errors
/// The text is no valid location; see [`LocationError::help`] for what to do.
pub fn lake_location(text: &str, base: &Path) -> Result<String, LocationError> {
    match parse_location(text)? {
        WrittenLocation::Local(path) => Ok(absolute(base, Path::new(&path)).to_string_lossy().into_owned()),
        WrittenLocation::Url { url, .. } => Ok(url.trim_end_matches('/').to_string()),
    }
}

/// Like [`lake_location`], for the lake of the dataflow in `folder`.
///
/// # Errors
/// The text is no valid location, or it is the dataflow's folder itself.
pub fn lake_of_dataflow(text: &str, base: &Path, folder: &Path) -> Result<String, LocationError> {
    let lake = lake_location(text, base)?;
    match Path::new(&lake) == absolute(folder, Path::new("")) {
        true => Err(LocationError::DataflowFolder),
        false => Ok(lake),
    }
}

/// The location that a `files` feed reads: an absolute glob, or a URL with a glob in its path. A folder (a last
/// segment without a dot and without a glob, or a trailing slash) stands for all files directly in it.
///
/// # Errors
/// The text is no valid location; see [`LocationError::help`] for what to do.
pub fn files_location(text: &str, base: &Path) -> Result<String, LocationError> {
    match parse_location(text)? {
        WrittenLocation::Local(path) => {
            check_glob(&path)?;
            let whole = everything_in(path);
            // The base is a literal path, even if names of its folders contain wildcard characters.
            let base = glob::Pattern::escape(&base.to_string_lossy());
            Ok(absolute(Path::new(&base), Path::new(&whole))
                .to_string_lossy()
                .into_owned())
        }
        WrittenLocation::Url { url, path } => {
            let bucket = &url[..url.len() - path.len()];
            check_glob(&path)?;
            let path = if path.is_empty() { "/".to_string() } else { path };
            Ok(format!("{bucket}{}", everything_in(path)))
        }
    }
}

/// A pattern for one file that is not taken for a folder. `escaped` is the file's path with wildcards in brackets. If
/// its last part has no dot, one character `c` of that part is written as `[cc]`, and is returned as well; if all of
/// its characters are special, each becomes `?`.
pub fn pattern_of_file(escaped: &str) -> (String, Option<char>) {
    if everything_in(escaped.to_string()) == escaped {
        return (escaped.to_string(), None);
    }
    let start = escaped.rfind('/').map_or(0, |at| at + 1);
    let (folder, name) = escaped.split_at(start);
    match name.char_indices().rfind(|(_, c)| !"[]*?!".contains(*c)) {
        Some((at, c)) => {
            let (before, behind) = (&name[..at], &name[at + c.len_utf8()..]);
            (format!("{folder}{before}[{c}{c}]{behind}"), Some(c))
        }
        None => {
            let length = literal(name).map_or(1, |name| name.chars().count());
            (format!("{folder}{}", "?".repeat(length)), None)
        }
    }
}

/// The folder of an embedded log, or of stored HTTP rows.
pub(super) fn folder_location(text: &str, base: &Path) -> Result<PathBuf, LocationError> {
    match parse_location(text)? {
        WrittenLocation::Url { .. } => Err(LocationError::NotAFolder("URL")),
        WrittenLocation::Local(path) if path.contains(['*', '?']) => Err(LocationError::NotAFolder("glob")),
        WrittenLocation::Local(path) => Ok(absolute(base, Path::new(&path))),
    }
}

enum WrittenLocation {
    /// A relative or absolute path.
    Local(String),
    /// `path` is the end of `url` behind the bucket; it is empty or starts with a slash.
    Url { url: String, path: String },
}

fn parse_location(text: &str) -> Result<WrittenLocation, LocationError> {
    if text.trim().is_empty() {
        return Err(LocationError::Empty);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text.split_once(':') {
            Some((scheme, _)) if SCHEMES.contains(&scheme) => Err(LocationError::NoSlashes(scheme.to_string())),
            _ => Ok(WrittenLocation::Local(text.to_string())),
        };
    };
    if !SCHEMES.contains(&scheme) {
        return Err(LocationError::UnknownScheme(scheme.to_string()));
    }
    if scheme == "file" {
        return file_path(rest)
            .map(WrittenLocation::Local)
            .ok_or(LocationError::NotAbsolute);
    }
    let (bucket, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if bucket.is_empty() {
        return Err(LocationError::NoBucket(scheme.to_string()));
    }
    if bucket.contains(['*', '?', '[']) {
        return Err(LocationError::GlobInBucket);
    }
    let parsed =
        Url::parse(&format!("{scheme}://{bucket}/")).map_err(|_| LocationError::NoBucket(scheme.to_string()))?;
    // In `abfss://container@account.dfs.core.windows.net` the user is the container.
    let user_is_container = scheme.starts_with("abfs");
    if parsed.password().is_some() || (!parsed.username().is_empty() && !user_is_container) {
        return Err(LocationError::Secret);
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(LocationError::NoBucket(scheme.to_string()));
    }
    Ok(WrittenLocation::Url {
        url: text.to_string(),
        path: path.to_string(),
    })
}

/// The path of a file URL, with percent-encoding resolved; `?` and `#` belong to globs and names here.
fn file_path(rest: &str) -> Option<String> {
    let escaped = rest.replace('?', "%3F").replace('#', "%23");
    if !escaped.starts_with('/') {
        return None;
    }
    let path = Url::parse(&format!("file://{escaped}")).ok()?.to_file_path().ok()?;
    Some(path.to_string_lossy().into_owned())
}

fn check_glob(pattern: &str) -> Result<(), LocationError> {
    match FileGlob::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(LocationError::BadGlob(error.msg.to_string())),
    }
}

fn everything_in(path: String) -> String {
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.is_empty() {
        format!("{path}*")
    } else if literal(last).is_none_or(|name| name.trim_matches('.').contains('.')) {
        path
    } else {
        format!("{path}/*")
    }
}

/// Joins the path to the base, and removes `.` and `..`.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/flows/retail";

    #[test]
    fn a_lake_is_an_absolute_folder_or_a_url() {
        for (text, want) in [
            ("lake", "/flows/retail/lake"),
            ("../lake/./x", "/flows/lake/x"),
            ("/data/lake", "/data/lake"),
            ("file:///data/a%20lake", "/data/a lake"),
            ("s3://bucket/lake/", "s3://bucket/lake"),
            ("s3://bucket", "s3://bucket"),
            (
                "abfss://lake@account.dfs.core.windows.net/x",
                "abfss://lake@account.dfs.core.windows.net/x",
            ),
        ] {
            assert_eq!(lake_location(text, Path::new(BASE)).as_deref(), Ok(want), "{text}");
        }
    }

    /// The tables' folders would be taken for folders of SQL, and the remedy that was told destroyed them.
    #[test]
    fn the_dataflow_s_folder_is_no_lake() {
        let folder = Path::new(BASE);
        for text in [".", "./", "lake/..", "/flows/retail", "file:///flows/retail/"] {
            let refused = lake_of_dataflow(text, folder, folder);
            assert_eq!(refused, Err(LocationError::DataflowFolder), "{text}");
        }
        assert!(lake_of_dataflow(".", Path::new("/lakes"), folder).is_ok());
        assert!(lake_of_dataflow("..", folder, folder).is_ok());
    }

    #[test]
    fn a_files_feed_reads_a_glob_and_a_folder_means_all_in_it() {
        for (text, want) in [
            ("drops/*.csv.gz", "/flows/retail/drops/*.csv.gz"),
            ("../drops/**/x?.csv", "/flows/drops/**/x?.csv"),
            ("drops/orders", "/flows/retail/drops/orders/*"),
            ("drops/orders/", "/flows/retail/drops/orders/*"),
            ("drops/one.csv", "/flows/retail/drops/one.csv"),
            ("drops/[[]x[]]", "/flows/retail/drops/[[]x[]]/*"),
            ("drops/a[[]x[]].csv", "/flows/retail/drops/a[[]x[]].csv"),
            ("drops/a[xy]", "/flows/retail/drops/a[xy]"),
            ("s3://bucket/a?.csv", "s3://bucket/a?.csv"),
            ("gs://bucket", "gs://bucket/*"),
            ("file:///data/a?.csv", "/data/a?.csv"),
        ] {
            assert_eq!(files_location(text, Path::new(BASE)).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(
            files_location("*.csv", Path::new("/flows/[x]")).as_deref(),
            Ok("/flows/[[]x[]]/*.csv")
        );
    }

    /// `path = "/data/05"` was taken for a folder.
    #[test]
    fn the_pattern_of_a_file_names_it_alone_whatever_it_is_called() {
        for name in ["datafile", "05", "a[1]", "größe", "--", "[", "a b", "x.csv", "a.", "*]"] {
            let escaped = glob::Pattern::escape(&format!("/data/{name}"));
            let location = files_location(&pattern_of_file(&escaped).0, Path::new(BASE)).expect(name);
            let (folder, rest) = FileGlob::split(&location);
            let glob = FileGlob::new(rest).expect(name);
            assert_eq!(folder, "/data", "{name}");
            assert!(glob.names(&[name]) && !glob.names(&["other"]), "{name}: {location}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused() {
        let lake = |text: &str| lake_location(text, Path::new(BASE)).expect_err(text);
        assert_eq!(lake(""), LocationError::Empty);
        assert_eq!(lake("http://x/y"), LocationError::UnknownScheme("http".into()));
        assert_eq!(lake("s3:/bucket"), LocationError::NoSlashes("s3".into()));
        assert_eq!(lake("s3:///x"), LocationError::NoBucket("s3".into()));
        assert_eq!(lake("s3://key:secret@bucket/x"), LocationError::Secret);
        assert_eq!(lake("file://x"), LocationError::NotAbsolute);
        let files = |text: &str| files_location(text, Path::new(BASE)).expect_err(text);
        assert!(matches!(files("a/[x.csv"), LocationError::BadGlob(_)));
        assert_eq!(files("s3://b*/x.csv"), LocationError::GlobInBucket);
        let log = |text: &str| folder_location(text, Path::new(BASE)).expect_err(text);
        assert_eq!(log("s3://b/x"), LocationError::NotAFolder("URL"));
        assert_eq!(log("live/*"), LocationError::NotAFolder("glob"));
    }
}
