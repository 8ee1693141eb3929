//! The folder of requests in the lake: where commands put them, and a run takes them from.
//!
//! | object below `_alluvium/requests` | put by | meaning |
//! |---|---|---|
//! | `<id>.json` | the command | the request; ids sort by when they were made |
//! | `status/<id>.json` | the run, about every second | it is being served, and how far it is |
//! | `done/<id>.json` | the run | how it ended; put before the request goes, so that one of the two is always there |
//! | `broken/<name>` | the run | what was no request: moved aside, so that it is told once |
//!
//! Others can write to the lake, so nothing that lies here is trusted. What is read is a regular file of a bounded size (on a
//! local disk no link is followed and no FIFO is waited for). Nothing is written or deleted while one of the folders is a link. A request that is none is moved aside, and whoever waits for it is
//! answered; if it cannot be moved, it is passed by for as long as the run lasts.

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
use super::{Asker, Outcome, Request, Status};
use crate::shown::{shown, shown_bytes};
use crate::sink::Lake;

const FOLDER: &str = "_alluvium/requests";
/// The most bytes of an object that are read: more than the request that names the most files, and than any outcome.
pub(super) const LARGEST: u64 = 64 << 20;
/// How long what is no request must have been left alone before it counts as broken.
const SETTLED: Duration = Duration::from_secs(1);

/// The requests of a lake.
#[derive(Clone, Debug)]
pub struct Requests {
    lake: Lake,
    durable: bool,
    /// Names of what is no request and could not be moved aside.
    passed_by: Arc<Mutex<BTreeSet<String>>>,
}

/// Something in the folder of requests.
#[derive(Clone, Debug)]
struct Posted {
    /// Its name, made harmless where it is no text.
    name: String,
    at: PostedAt,
}

#[derive(Clone, Debug)]
enum PostedAt {
    Local(PathBuf),
    Store(Path),
}

/// What a look into the folder found.
#[derive(Debug, PartialEq)]
pub enum Look {
    /// The oldest request that is not done.
    Request(Request),
    /// Something that is no request, and may still be being written.
    Unsettled,
    /// Nothing to do.
    Nothing,
}

/// What an object holds.
enum Held {
    Nothing,
    /// Its bytes, and on a local disk whose it is: by what was open while they were read.
    Bytes(Vec<u8>, Option<Asker>),
    /// It is not read, for this reason.
    Refused(String),
}

impl Posted {
    /// Whether it may still be being written. A store shows an object when it is whole.
    fn is_young(&self) -> bool {
        let PostedAt::Local(path) = &self.at else { return false };
        let changed = std::fs::symlink_metadata(path).and_then(|found| found.modified());
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age < SETTLED))
    }
}

impl Requests {
    /// Of this lake.
    pub fn new(lake: Lake, durable: bool) -> Requests {
        Requests {
            lake,
            durable,
            passed_by: Arc::default(),
        }
    }

    /// How often it is worth to look: a listing of a store behind a URL is a paid request.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(if self.lake.local.is_some() { 500 } else { 2000 })
    }

    /// Puts a request.
    ///
    /// # Errors
    /// The store's; a request that no run would serve.
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
        self.lake
            .put_new(&at("", &request.id), bytes, self.durable)
            .await
            .map(drop)
    }

    /// Looks for the oldest that is not done. What is no request is moved aside, once it is left alone.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    pub async fn look(&self) -> Result<Look, Error> {
        let mut found = Look::Nothing;
        for posted in self.posted().await? {
            let is_passed_by = self.passed_by().contains(&posted.name);
            let Some(id) = posted.name.strip_suffix(".json").filter(|_| !is_passed_by) else {
                continue; // what somebody writes under another name first is not there yet
            };
            if !is_id(id) {
                let reason = "a request is called <id>.json, its id of letters, digits, - and _ alone";
                self.move_aside(&posted, reason).await;
                continue;
            }
            match self.outcome(id).await {
                Ok(None) => {}
                Ok(Some(_)) => {
                    // Its run ended in between.
                    if let Err(error) = self.remove("", id).await {
                        tracing::warn!(id, %error, "a request that is done is passed by, and could not be deleted");
                        self.pass_by(id);
                    }
                    continue;
                }
                Err(error) => tracing::warn!(id, %error, "an outcome of a request cannot be read; it is served again"),
            }
            let read = match self.hold(&posted.at, self.lake.local.clone()).await? {
                Held::Nothing => continue,
                Held::Bytes(bytes, asker) => Request::parse(&bytes, id).map(|request| Request { asker, ..request }),
                Held::Refused(reason) => Err(reason),
            };
            match read {
                Ok(request) => return Ok(Look::Request(request)),
                Err(_) if posted.is_young() => found = Look::Unsettled,
                Err(reason) => self.refuse(&posted, id, reason).await,
            }
        }
        Ok(found)
    }

    /// Whether a request is there and not done.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    pub async fn is_posted(&self, id: &str) -> Result<bool, Error> {
        let name = format!("{id}.json");
        Ok(self.posted().await?.iter().any(|posted| posted.name == name))
    }

    /// Whether a request that was there has been deleted since; not where that cannot be told.
    pub async fn is_deleted(&self, id: &str) -> bool {
        let found = self.lake.store.head(&at("", id)).await;
        matches!(found, Err(Error::NotFound { .. }))
    }

    /// Says how far a request is.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell(&self, id: &str, status: &Status) -> Result<(), Error> {
        let told = at("status/", id);
        self.folders()?.store.put(&told, json(status).into()).await.map(drop)
    }

    /// How far a request is; none: nobody serves it yet.
    ///
    /// # Errors
    /// The store's; what lies there is no status.
    pub async fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        self.read("status/", id).await
    }

    /// A request has ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish(&self, id: &str, outcome: &Outcome) -> Result<(), Error> {
        let lake = self.folders()?;
        lake.put_new(&at("done/", id), json(outcome), self.durable).await?;
        self.remove("", id).await?;
        if let Err(error) = self.remove("status/", id).await {
            tracing::warn!(id, %error, "what was told of a request could not be deleted, now that it has ended");
        }
        Ok(())
    }

    /// How a request ended; none: it has not.
    ///
    /// # Errors
    /// The store's; what lies there is no outcome.
    pub async fn outcome(&self, id: &str) -> Result<Option<Outcome>, Error> {
        self.read("done/", id).await
    }

    /// Passes a request by for as long as the run lasts.
    pub fn pass_by(&self, id: &str) {
        self.passed_by().insert(format!("{id}.json"));
    }

    /// Deletes outcomes that are older than this: who waited for them has seen them.
    ///
    /// # Errors
    /// The store's.
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

    /// The lake, if what is put into the folders of requests comes to lie there.
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

    /// All that lies in the folder of requests itself, by name.
    async fn posted(&self) -> Result<Vec<Posted>, Error> {
        let mut posted = match self.folders()?.local.clone() {
            Some(lake) => blocking(move || list_local(lake.join(FOLDER))).await?,
            None => {
                let listed = self.lake.store.list_with_delimiter(Some(&Path::from(FOLDER))).await?;
                let of_object = |location: Path| Posted {
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

    /// What is no request goes, and whoever waits for it is told why.
    async fn refuse(&self, posted: &Posted, id: &str, reason: String) {
        let reason = shortened(reason);
        let outcome = Outcome {
            error: Some(reason.clone()),
            ..Outcome::default()
        };
        let noted = match self.folders() {
            Ok(lake) => lake.put_new(&at("done/", id), json(&outcome), self.durable).await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(id, %error, "could not note that a request is broken");
        }
        self.move_aside(posted, &reason).await;
    }

    async fn move_aside(&self, posted: &Posted, reason: &str) {
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
        let location = at(part, id);
        let place = match &self.lake.local {
            Some(lake) => PostedAt::Local(lake.join(location.as_ref())),
            None => PostedAt::Store(location.clone()),
        };
        let unreadable = |reason: String| Error::Generic {
            store: "requests",
            source: format!("{location} cannot be read ({reason}); delete it").into(),
        };
        match self.hold(&place, None).await? {
            Held::Nothing => Ok(None),
            Held::Bytes(bytes, _) => serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string())),
            Held::Refused(reason) => Err(unreadable(reason)),
        }
    }

    /// What an object holds, if that may be looked at. `lake`: as of [`hold_local`].
    async fn hold(&self, place: &PostedAt, lake: Option<PathBuf>) -> Result<Held, Error> {
        let location = match place {
            PostedAt::Local(path) => {
                let path = path.clone();
                return blocking(move || hold_local(&path, lake.as_deref())).await;
            }
            PostedAt::Store(location) => location,
        };
        match self.lake.store.head(location).await {
            Err(Error::NotFound { .. }) => return Ok(Held::Nothing),
            Err(error) => return Err(error),
            Ok(object) if object.size > LARGEST => return Ok(Held::Refused(too_large(object.size))),
            Ok(_) => {}
        }
        let bytes = self.lake.get(location).await?;
        Ok(bytes.map_or(Held::Nothing, |bytes| Held::Bytes(bytes.into(), None)))
    }

    async fn remove(&self, part: &str, id: &str) -> Result<(), Error> {
        match self.folders()?.store.delete(&at(part, id)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }
}

fn at(part: &str, id: &str) -> Path {
    Path::from(format!("{FOLDER}/{part}{id}.json"))
}

fn json<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("plain data becomes JSON"))
}

fn too_large(bytes: u64) -> String {
    format!("it has {bytes} bytes, and a request at most {LARGEST}")
}

/// Work on a local disk, off the threads that drive stores.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::JoinError { source })?
        .map_err(|source| Error::Generic {
            store: "requests",
            source: source.into(),
        })
}

fn list_local(folder: PathBuf) -> io::Result<Vec<Posted>> {
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let posted = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok(Posted {
            name: shown_bytes(entry.file_name().as_encoded_bytes()).to_string(),
            at: PostedAt::Local(entry.path()),
        })
    };
    entries.map(posted).collect()
}

/// What a file holds; no link is followed, and nothing is waited for. `lake`: where a file can be made that is the run's own.
fn hold_local(path: &std::path::Path, lake: Option<&std::path::Path>) -> io::Result<Held> {
    let refused = |reason: &str| Ok(Held::Refused(reason.to_string()));
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Held::Nothing),
        found => found?,
    };
    if !found.is_file() {
        return refused("it is no regular file (a folder, a link, a FIFO or a socket)");
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened: io::Result<File> = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Held::Nothing),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return refused("it may not be read"),
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return refused("it is no regular file any more");
    }
    if found.len() > LARGEST {
        return Ok(Held::Refused(too_large(found.len())));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?; // it may grow meanwhile
    match bytes.len() as u64 > LARGEST {
        true => Ok(Held::Refused(too_large(bytes.len() as u64))),
        false => {
            // One that has no name: nobody else can have put it there.
            let own = lake.and_then(|lake| tempfile::tempfile_in(lake).and_then(|own| own.metadata()).ok());
            Ok(Held::Bytes(bytes, Some(Asker::of(&found, own.as_ref()))))
        }
    }
}

/// Moves what lies there into the folder beside it.
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

    fn board(folder: &std::path::Path) -> Requests {
        let lake = Lake::open(folder.to_str().unwrap(), &BTreeMap::new()).unwrap();
        Requests::new(lake, true)
    }

    fn own(folder: &std::path::Path) -> Option<Asker> {
        let made = std::fs::metadata(folder).unwrap();
        Some(Asker::of(&made, Some(&made)))
    }

    #[tokio::test]
    async fn a_request_stays_until_its_outcome_is_there_and_comes_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let requests = board(folder.path());
        let asker = own(folder.path());
        assert_eq!(requests.look().await.unwrap(), Look::Nothing);
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
        assert_eq!(requests.look().await.unwrap(), Look::Request(first.clone()));
        requests.tell(&first.id, &Status::default()).await.unwrap();
        assert_eq!(requests.status(&first.id).await.unwrap(), Some(Status::default()));
        // A run that ended between the outcome and the request's removal.
        let outcome = Outcome {
            records: 7,
            ..Outcome::default()
        };
        requests.finish(&first.id, &outcome).await.unwrap();
        requests.put(&first).await.unwrap();
        assert_eq!(requests.look().await.unwrap(), Look::Request(second));
        assert!(!requests.is_posted(&first.id).await.unwrap());
        assert_eq!(requests.outcome(&first.id).await.unwrap(), Some(outcome));
        assert_eq!(requests.status(&first.id).await.unwrap(), None);
        requests.forget(Duration::from_secs(60)).await.unwrap();
        assert!(requests.outcome(&first.id).await.unwrap().is_some(), "it is young");
    }

    /// A request with `..` in its name hung the end of a run, and one that was no JSON ended it at its thirtieth try.
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
        assert_eq!(requests.look().await.unwrap(), Look::Unsettled);
        let left = names();
        assert!(
            left.contains("001-text.json") && !left.contains("a..b.json"),
            "{left:?}"
        );
        tokio::time::sleep(SETTLED).await;

        requests.put(&good).await.unwrap();
        assert_eq!(requests.look().await.unwrap(), Look::Request(good.clone()));
        let folders = ["broken", "done", "not-yet.json.tmp"].map(String::from);
        let good_name = format!("{}.json", good.id);
        // Ids sort by time: what sorts behind the first good one is looked at later.
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
        requests.finish(&good.id, &Outcome::default()).await.unwrap();
        assert_eq!(requests.look().await.unwrap(), Look::Nothing);
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
            assert_eq!(requests.look().await.unwrap(), Look::Request(good.clone()));
        }
        assert!(at.join("a b.json").exists());
    }

    /// A link in place of a folder led what a run wrote, moved and deleted to wherever its maker liked.
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
            let looked = requests.look().await;
            assert!(
                looked.is_err_and(|error| error.to_string().contains("is a link")),
                "{part}"
            );
            assert!(requests.tell("1", &Status::default()).await.is_err(), "{part}");
            assert!(requests.finish("1", &Outcome::default()).await.is_err(), "{part}");
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
        let requests = Requests::new(lake.clone(), false);
        let put = |name: &str, bytes: &'static [u8]| {
            let location = Path::from(format!("{FOLDER}/{name}"));
            let lake = lake.clone();
            async move { lake.store.put(&location, bytes.into()).await.unwrap() }
        };
        put("1.json", b"no json").await;
        put("a b.json", b"{}").await;
        assert_eq!(requests.look().await.unwrap(), Look::Nothing);
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
