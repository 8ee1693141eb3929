//! The folder of requests in the lake: commands put requests there, and a run serves them.
//!
//! | object below `_alluvium/requests` | put by | meaning |
//! |---|---|---|
//! | `<id>.json` | the command | the request; ids sort by the time at which they were made |
//! | `status/<id>.json` | the run, about every second | it is being served, with its progress |
//! | `done/<id>.json` | the run | its outcome; put before the request is deleted, so that one of the two always exists |
//! | `broken/<name>` | the run | an invalid request: moved here, so that it is reported once |
//!
//! Others can write to the lake, so nothing in this folder is trusted. Only regular files of bounded size are read
//! (on a local disk, no link is followed and no FIFO is waited for). Nothing is written or deleted while one of the
//! folders is a link. An invalid request is moved aside, and a client that waits for it gets an outcome; if it cannot
//! be moved, it is ignored for the rest of the run.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::request::{is_id, shortened};
use super::{BackfillOutcome, BackfillStatus, Request, Requester};
use crate::lake::Lake;
use crate::shown::{shown, shown_bytes};

const FOLDER: &str = "_alluvium/requests";
/// The most bytes of an object that are read: more than the largest request and the largest outcome have.
pub(super) const LARGEST: u64 = 64 << 20;
/// How long an invalid request must have been unchanged before it counts as broken.
const SETTLED: Duration = Duration::from_secs(1);

/// The requests in a lake.
#[derive(Clone, Debug)]
pub struct RequestBoard {
    lake: Lake,
    /// The names of invalid requests that could not be moved aside.
    passed_by: Arc<Mutex<BTreeSet<String>>>,
}

/// An entry in the folder of requests.
#[derive(Clone, Debug)]
struct PostedEntry {
    /// Its name, escaped if it is no valid text.
    name: String,
    at: PostedAt,
}

#[derive(Clone, Debug)]
enum PostedAt {
    Local(PathBuf),
    Store(Path),
}

/// The result of a look into the folder.
#[derive(Debug, PartialEq)]
pub enum NextRequest {
    /// The oldest request that is not done.
    Request(Request),
    /// An invalid request that may still be being written.
    Unsettled,
    /// There is no request.
    Nothing,
}

/// The content of an object.
enum ReadObject {
    Nothing,
    /// Its bytes, and on a local disk its owner, by the metadata of the file that was open while it was read.
    Bytes(Vec<u8>, Option<Requester>),
    /// It is not read, for this reason.
    Refused(String),
}

impl PostedEntry {
    /// Whether it may still be being written. In a store, an object appears only when it is complete.
    fn is_young(&self) -> bool {
        let PostedAt::Local(path) = &self.at else { return false };
        let changed = std::fs::symlink_metadata(path).and_then(|found| found.modified());
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < SETTLED))
    }
}

impl RequestBoard {
    /// The board in a lake.
    pub fn new(lake: Lake) -> RequestBoard {
        RequestBoard {
            lake,
            passed_by: Arc::default(),
        }
    }

    /// How often to look; a listing of a store behind a URL is a paid request.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(if self.lake.local.is_some() { 500 } else { 2000 })
    }

    /// Puts a request.
    ///
    /// # Errors
    /// Those of the store; or a request that no run would serve.
    pub async fn put(&self, request: &Request) -> Result<(), Error> {
        let refused = |reason: String| Error::Generic {
            store: "requests",
            source: reason.into(),
        };
        request.check().map_err(refused)?;
        let bytes = json(request);
        if bytes.len() as u64 > LARGEST {
            return Err(refused(too_large(bytes.len() as u64) + "; ask for fewer files at once"));
        }
        self.lake.put_new(&object_path("", &request.id), bytes).await.map(drop)
    }

    /// Finds the oldest request that is not done. Invalid requests that have not changed for a while are moved aside.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub async fn next_request(&self) -> Result<NextRequest, Error> {
        let mut next = NextRequest::Nothing;
        for posted in self.posted().await? {
            let is_passed_by = self.passed_by().contains(&posted.name);
            let Some(id) = posted.name.strip_suffix(".json").filter(|_| !is_passed_by) else {
                continue; // under another name, a request may still be being written
            };
            if !is_id(id) {
                let reason = "a request is called <id>.json, its id of letters, digits, - and _ alone";
                self.move_aside(&posted, reason).await;
                continue;
            }
            match self.outcome(id).await {
                Ok(None) => {}
                Ok(Some(_)) => {
                    // The run that served it ended before it could delete the request.
                    if let Err(error) = self.remove("", id).await {
                        tracing::warn!(id, %error, "a request that is done is passed by, and could not be deleted");
                        self.pass_by(id);
                    }
                    continue;
                }
                Err(error) => tracing::warn!(id, %error, "an outcome of a request cannot be read; it is served again"),
            }
            let read = match self.read_object(&posted.at, self.lake.local.clone()).await? {
                ReadObject::Nothing => continue,
                ReadObject::Bytes(bytes, asker) => {
                    Request::parse(&bytes, id).map(|request| Request { asker, ..request })
                }
                ReadObject::Refused(reason) => Err(reason),
            };
            match read {
                Ok(request) => return Ok(NextRequest::Request(request)),
                Err(_) if posted.is_young() => next = NextRequest::Unsettled,
                Err(reason) => self.refuse(&posted, id, reason).await,
            }
        }
        Ok(next)
    }

    /// Whether a request exists that is not done.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub async fn is_posted(&self, id: &str) -> Result<bool, Error> {
        let name = format!("{id}.json");
        Ok(self.posted().await?.iter().any(|posted| posted.name == name))
    }

    /// Whether a request has been deleted; false if that is unknown.
    pub async fn is_deleted(&self, id: &str) -> bool {
        let head = self.lake.store.head(&object_path("", id)).await;
        matches!(head, Err(Error::NotFound { .. }))
    }

    /// Writes the status of a request.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write_status(&self, id: &str, status: &BackfillStatus) -> Result<(), Error> {
        let location = object_path("status/", id);
        self.folders()?
            .store
            .put(&location, json(status).into())
            .await
            .map(drop)
    }

    /// The status of a request; none if it is not being served yet.
    ///
    /// # Errors
    /// Those of the store; or an object that is no valid status.
    pub async fn status(&self, id: &str) -> Result<Option<BackfillStatus>, Error> {
        self.read("status/", id).await
    }

    /// Writes the outcome of a request, and deletes the request.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn finish(&self, id: &str, outcome: &BackfillOutcome) -> Result<(), Error> {
        let lake = self.folders()?;
        lake.put_new(&object_path("done/", id), json(outcome)).await?;
        self.remove("", id).await?;
        if let Err(error) = self.remove("status/", id).await {
            tracing::warn!(id, %error, "what was told of a request could not be deleted, now that it has ended");
        }
        Ok(())
    }

    /// The outcome of a request; none if it has not ended.
    ///
    /// # Errors
    /// Those of the store; or an object that is no valid outcome.
    pub async fn outcome(&self, id: &str) -> Result<Option<BackfillOutcome>, Error> {
        self.read("done/", id).await
    }

    /// Ignores a request for the rest of the run.
    pub fn pass_by(&self, id: &str) {
        self.passed_by().insert(format!("{id}.json"));
    }

    /// Deletes outcomes older than `age`; clients that waited for them have seen them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, age: Duration) -> Result<(), Error> {
        let folder = Path::from(format!("{FOLDER}/done"));
        let lake = self.folders()?;
        let done: Vec<_> = lake.store.list(Some(&folder)).try_collect().await?;
        let age = chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX);
        for object in done.iter().filter(|object| Utc::now() - object.last_modified > age) {
            match lake.store.delete(&object.location).await {
                Err(Error::NotFound { .. }) => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    /// The lake, after a check that none of the request folders is a link.
    fn folders(&self) -> Result<&Lake, Error> {
        for part in ["", "/status", "/done", "/broken"] {
            let folder = self
                .lake
                .local
                .as_ref()
                .map(|lake| lake.join(format!("{FOLDER}{part}")));
            if folder.is_some_and(|folder| std::fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink())) {
                return Err(Error::Generic {
                    store: "requests",
                    source: format!(
                        "{FOLDER}{part} in the lake is a link to somewhere else; put a folder in its place"
                    )
                    .into(),
                });
            }
        }
        Ok(&self.lake)
    }

    /// The entries directly in the folder of requests, by name.
    async fn posted(&self) -> Result<Vec<PostedEntry>, Error> {
        let mut posted = match self.folders()?.local.clone() {
            Some(lake) => blocking(move || list_local(lake.join(FOLDER))).await?,
            None => {
                let listed = self.lake.store.list_with_delimiter(Some(&Path::from(FOLDER))).await?;
                let of_object = |location: Path| PostedEntry {
                    name: location.filename().unwrap_or_default().to_string(),
                    at: PostedAt::Store(location),
                };
                listed
                    .objects
                    .into_iter()
                    .map(|object| of_object(object.location))
                    .collect()
            }
        };
        posted.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(posted)
    }

    /// Moves an invalid request aside, and writes an outcome with the reason for a client that waits for it.
    async fn refuse(&self, posted: &PostedEntry, id: &str, reason: String) {
        let reason = shortened(reason);
        let outcome = BackfillOutcome {
            error: Some(reason.clone()),
            ..BackfillOutcome::default()
        };
        let noted = match self.folders() {
            Ok(lake) => lake.put_new(&object_path("done/", id), json(&outcome)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(id, %error, "could not note that a request is broken");
        }
        self.move_aside(posted, &reason).await;
    }

    async fn move_aside(&self, posted: &PostedEntry, reason: &str) {
        let moved = match (&posted.at, self.folders()) {
            (_, Err(error)) => Err(error),
            (PostedAt::Local(path), Ok(_)) => {
                let path = path.clone();
                blocking(move || move_local(path)).await
            }
            (PostedAt::Store(location), Ok(_)) => {
                let name = location.filename().unwrap_or_default();
                let aside = Path::from(format!("{FOLDER}/broken/{name}"));
                self.lake.store.rename(location, &aside).await
            }
        };
        let request = shown(&posted.name);
        match moved {
            Ok(()) => tracing::warn!(%request, reason, "a broken request was moved to {FOLDER}/broken"),
            Err(error) => {
                tracing::warn!(%request, reason, %error, "a broken request is passed by, and could not be moved aside");
                self.passed_by().insert(posted.name.clone());
            }
        }
    }

    fn passed_by(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.passed_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, part: &str, id: &str) -> Result<Option<T>, Error> {
        let location = object_path(part, id);
        let place = match &self.lake.local {
            Some(lake) => PostedAt::Local(lake.join(location.as_ref())),
            None => PostedAt::Store(location.clone()),
        };
        let unreadable = |reason: String| Error::Generic {
            store: "requests",
            source: format!("{location} cannot be read ({reason}); delete it").into(),
        };
        match self.read_object(&place, None).await? {
            ReadObject::Nothing => Ok(None),
            ReadObject::Bytes(bytes, _) => {
                serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))
            }
            ReadObject::Refused(reason) => Err(unreadable(reason)),
        }
    }

    /// Reads an object, if that is safe. `lake`: see [`read_local`].
    async fn read_object(&self, place: &PostedAt, lake: Option<PathBuf>) -> Result<ReadObject, Error> {
        let location = match place {
            PostedAt::Local(path) => {
                let path = path.clone();
                return blocking(move || read_local(&path, lake.as_deref())).await;
            }
            PostedAt::Store(location) => location,
        };
        match self.lake.store.head(location).await {
            Err(Error::NotFound { .. }) => return Ok(ReadObject::Nothing),
            Err(error) => return Err(error),
            Ok(object) if object.size > LARGEST => return Ok(ReadObject::Refused(too_large(object.size))),
            Ok(_) => {}
        }
        let bytes = self.lake.get(location).await?;
        Ok(bytes.map_or(ReadObject::Nothing, |bytes| ReadObject::Bytes(bytes.into(), None)))
    }

    async fn remove(&self, part: &str, id: &str) -> Result<(), Error> {
        match self.folders()?.store.delete(&object_path(part, id)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }
}

fn object_path(part: &str, id: &str) -> Path {
    Path::from(format!("{FOLDER}/{part}{id}.json"))
}

fn json<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("plain data becomes JSON"))
}

fn too_large(bytes: u64) -> String {
    format!("it has {bytes} bytes, and a request at most {LARGEST}")
}

/// Runs blocking work on a local disk outside of the runtime's worker threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::JoinError { source })?
        .map_err(|source| Error::Generic {
            store: "requests",
            source: source.into(),
        })
}

fn list_local(folder: PathBuf) -> io::Result<Vec<PostedEntry>> {
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let posted = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok(PostedEntry {
            name: shown_bytes(entry.file_name().as_encoded_bytes()).to_string(),
            at: PostedAt::Local(entry.path()),
        })
    };
    entries.map(posted).collect()
}

/// Reads a file without following links or waiting. `lake` is where a file can be made to find out which user the run
/// is.
fn read_local(path: &std::path::Path, lake: Option<&std::path::Path>) -> io::Result<ReadObject> {
    let refused = |reason: &str| Ok(ReadObject::Refused(reason.to_string()));
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ReadObject::Nothing),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return refused("it is no regular file (a folder, a link, a FIFO or a socket)");
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened: io::Result<File> = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ReadObject::Nothing),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return refused("it may not be read"),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return refused("it is no regular file any more");
    }
    if metadata.len() > LARGEST {
        return Ok(ReadObject::Refused(too_large(metadata.len())));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?; // it may grow meanwhile
    match bytes.len() as u64 > LARGEST {
        true => Ok(ReadObject::Refused(too_large(bytes.len() as u64))),
        false => {
            // This file has no name, so nobody else can have put it there.
            let own = lake.and_then(|lake| tempfile::tempfile_in(lake).and_then(|own| own.metadata()).ok());
            Ok(ReadObject::Bytes(
                bytes,
                Some(Requester::from_metadata(&metadata, own.as_ref())),
            ))
        }
    }
}

/// Moves a file into the folder `broken` beside it.
fn move_local(path: PathBuf) -> io::Result<()> {
    let name = path.file_name().expect("what was listed has a name");
    let folder = path.with_file_name("broken");
    std::fs::create_dir_all(&folder)?;
    let mut aside = folder.join(name);
    if std::fs::symlink_metadata(&aside).is_ok() {
        let mut another = name.to_os_string();
        another.push(format!(".{}", Utc::now().timestamp_micros()));
        aside = folder.join(another);
    }
    std::fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::backfill::Work;

    fn board(folder: &std::path::Path) -> RequestBoard {
        let lake = Lake::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap();
        RequestBoard::new(lake.with_durability(true))
    }

    fn own(folder: &std::path::Path) -> Option<Requester> {
        let made = std::fs::metadata(folder).unwrap();
        Some(Requester::from_metadata(&made, Some(&made)))
    }

    #[tokio::test]
    async fn a_request_stays_until_its_outcome_is_there_and_comes_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let requests = board(folder.path());
        let asker = own(folder.path());
        assert_eq!(requests.next_request().await.unwrap(), NextRequest::Nothing);
        let first = Request {
            asker,
            ..Request::new("orders", Work::Letters, None)
        };
        let second = Request {
            id: format!("{}z", first.id),
            rate: Some(5.0),
            work: Work::Bronze {
                since: Some(1),
                until: None,
            },
            ..first.clone()
        };
        requests.put(&second).await.unwrap();
        requests.put(&first).await.unwrap();
        assert_eq!(
            requests.next_request().await.unwrap(),
            NextRequest::Request(first.clone())
        );
        requests
            .write_status(&first.id, &BackfillStatus::default())
            .await
            .unwrap();
        assert_eq!(
            requests.status(&first.id).await.unwrap(),
            Some(BackfillStatus::default())
        );
        // As if a run ended after it wrote the outcome and before it deleted the request.
        let outcome = BackfillOutcome {
            records: 7,
            ..BackfillOutcome::default()
        };
        requests.finish(&first.id, &outcome).await.unwrap();
        requests.put(&first).await.unwrap();
        assert_eq!(requests.next_request().await.unwrap(), NextRequest::Request(second));
        assert!(!requests.is_posted(&first.id).await.unwrap());
        assert_eq!(requests.outcome(&first.id).await.unwrap(), Some(outcome));
        assert_eq!(requests.status(&first.id).await.unwrap(), None);
        requests.forget(Duration::from_secs(60)).await.unwrap();
        assert!(requests.outcome(&first.id).await.unwrap().is_some(), "it is young");
    }

    /// A request with `..` in its name hung the end of a run, and one that was no JSON ended the run at the thirtieth
    /// try.
    #[tokio::test]
    async fn what_is_no_request_is_moved_aside_answered_and_the_next_one_served() {
        let folder = tempfile::tempdir().unwrap();
        let requests = board(folder.path());
        let at = folder.path().join(FOLDER);
        std::fs::create_dir_all(at.join("done")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
        write("001-text.json", "no json");
        write("002-cut.json", "{\"id\": \"002-cut\", \"inp");
        write("003-later.json", "{\"version\": 9}");
        write("...json", "{}");
        write("a..b.json", "{}");
        write("%2e%2e%2fx.json", "{}");
        write(".json", "{}");
        write("not-yet.json.tmp", "{");
        std::fs::write(at.join(std::ffi::OsStr::from_bytes(b"\xff.json")), "{}").unwrap();
        std::fs::create_dir_all(at.join("004-folder.json/sub")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at.join("005-link.json")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(at.join("006-fifo.json"))
            .status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo is there");
        let huge = File::create(at.join("007-huge.json")).unwrap();
        huge.set_len(LARGEST + 1).unwrap();
        let good = Request {
            asker: own(folder.path()),
            ..Request::new("orders", Work::Letters, None)
        };
        write("008-copy.json", &serde_json::to_string(&good).unwrap());
        write("done/006-fifo.json", "no outcome");
        let names = || -> BTreeSet<String> { list_local(at.clone()).unwrap().into_iter().map(|p| p.name).collect() };
        let before = names();
        assert_eq!(requests.next_request().await.unwrap(), NextRequest::Unsettled);
        let left = names();
        assert!(
            left.contains("001-text.json") && !left.contains("a..b.json"),
            "{left:?}"
        );
        tokio::time::sleep(SETTLED).await;

        requests.put(&good).await.unwrap();
        assert_eq!(
            requests.next_request().await.unwrap(),
            NextRequest::Request(good.clone())
        );
        let folders = ["broken", "done", "not-yet.json.tmp"].map(String::from);
        let good_name = format!("{}.json", good.id);
        // Ids sort by time, so entries behind the first valid request are looked at later.
        assert!(
            names().is_subset(&folders.iter().cloned().chain([good_name]).collect()),
            "{:?}",
            names()
        );
        let broken = list_local(at.join("broken")).unwrap().len();
        assert_eq!(broken, before.len() - 2, "all but done and not-yet.json.tmp");
        for (id, reason) in [
            ("001-text", "it is no request"),
            ("002-cut", "EOF"),
            ("003-later", "of version 9"),
            ("004-folder", "no regular file"),
            ("005-link", "no regular file"),
            ("007-huge", "bytes"),
            ("008-copy", "its id is"),
        ] {
            let outcome = requests.outcome(id).await.unwrap().and_then(|outcome| outcome.error);
            assert!(
                outcome.as_ref().is_some_and(|error| error.contains(reason)),
                "{id}: {outcome:?}"
            );
        }
        requests.finish(&good.id, &BackfillOutcome::default()).await.unwrap();
        assert_eq!(requests.next_request().await.unwrap(), NextRequest::Nothing);
    }

    #[tokio::test]
    async fn what_cannot_be_moved_aside_is_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let requests = board(folder.path());
        let at = folder.path().join(FOLDER);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("broken"), "in the way").unwrap();
        std::fs::write(at.join("a b.json"), "{}").unwrap();
        let good = Request {
            asker: own(folder.path()),
            ..Request::new("orders", Work::Letters, None)
        };
        requests.put(&good).await.unwrap();
        for _ in 0..2 {
            assert_eq!(
                requests.next_request().await.unwrap(),
                NextRequest::Request(good.clone())
            );
        }
        assert!(at.join("a b.json").exists());
    }

    /// A link in place of a folder made a run write, move and delete files wherever the link led.
    #[tokio::test]
    async fn nothing_is_written_or_deleted_through_a_link() {
        for part in ["", "/status", "/done", "/broken"] {
            let folder = tempfile::tempdir().unwrap();
            let requests = board(folder.path());
            let at = folder.path().join(FOLDER);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("a b.json"), "{}").unwrap();
            let elsewhere = tempfile::tempdir().unwrap();
            let other = elsewhere.path().join("1.json");
            std::fs::write(&other, "theirs").unwrap();
            if part.is_empty() {
                std::fs::remove_dir_all(&at).unwrap();
            }
            std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(format!("{FOLDER}{part}"))).unwrap();
            let looked = requests.next_request().await;
            assert!(
                looked.is_err_and(|error| error.to_string().contains("is a link")),
                "{part}"
            );
            assert!(
                requests.write_status("1", &BackfillStatus::default()).await.is_err(),
                "{part}"
            );
            assert!(
                requests.finish("1", &BackfillOutcome::default()).await.is_err(),
                "{part}"
            );
            assert!(requests.forget(Duration::ZERO).await.is_err(), "{part}");
            assert!(requests.remove("status/", "1").await.is_err(), "{part}");
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
            assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "{part}");
        }
    }

    #[tokio::test]
    async fn a_broken_request_of_a_store_is_moved_aside_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        lake.local = None; // as of a store
        let requests = RequestBoard::new(lake.clone());
        let put = |name: &str, bytes: &'static [u8]| {
            let location = Path::from(format!("{FOLDER}/{name}"));
            let lake = lake.clone();
            async move { lake.store.put(&location, bytes.into()).await.unwrap() }
        };
        put("1.json", b"no json").await;
        put("a b.json", b"{}").await;
        assert_eq!(requests.next_request().await.unwrap(), NextRequest::Nothing);
        for name in ["1.json", "a b.json"] {
            let aside = lake.get(&Path::from(format!("{FOLDER}/broken/{name}"))).await.unwrap();
            assert!(aside.is_some(), "{name}");
        }
        assert!(
            requests
                .outcome("1")
                .await
                .unwrap()
                .is_some_and(|outcome| outcome.error.is_some())
        );
        assert!(!requests.is_posted("1").await.unwrap());
    }
}
