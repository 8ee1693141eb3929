//! Requests as objects in the lake.
//!
//! | object below `_alluvium/requests` | put by | meaning |
//! |---|---|---|
//! | `<id>.json` | the command | the request; ids sort by when they were made |
//! | `status/<id>.json` | the run, about every second | it is being served, and how far it is |
//! | `done/<id>.json` | the run | how it ended; put before the request goes, so that one of the two is always there |

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::repr::Epoch;
use crate::sink::Lake;

const FOLDER: &str = "_alluvium/requests";

/// What is asked of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it was made, in Unix microseconds (two that are put one after the other are never of one), and a random part.
    pub id: String,
    /// The input's name.
    pub input: String,
    /// What to feed to it.
    pub work: Work,
    /// Records a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// What to feed to an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Files.
    Files {
        /// The feed whose format and columns they have.
        feed: String,
        /// Absolute paths or URLs.
        files: Vec<String>,
        /// Those that were read before too.
        again: bool,
    },
    /// What Bronze holds: all of a keyed input, refused records of another.
    Bronze {
        /// Records from this moment on, in Unix microseconds: that of the event where the source says it, of arrival otherwise.
        since: Option<i64>,
        /// Records before this moment.
        until: Option<i64>,
    },
    /// Records and files that are dead letters.
    Letters,
}

/// How far a request is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Records fed so far.
    pub records: u64,
    /// Files that are done, of how many.
    pub files: (u64, u64),
    /// Everything is fed; what is missing is the commit.
    pub committing: bool,
}

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why nothing, or not all of it, could be done.
    pub error: Option<String>,
    /// Records fed.
    pub records: u64,
    /// Of them, those that were refused.
    pub rejected: u64,
    /// Dead letters that were looked at.
    pub letters: u64,
    /// By file.
    pub files: Vec<FileOutcome>,
    /// The snapshot that holds all of it; 0: nothing changed.
    pub snapshot: Epoch,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// As asked.
    pub path: String,
    /// What became of it.
    pub state: FileState,
    /// Its records.
    pub records: u64,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It was read.
    Read,
    /// It was read by an earlier backfill.
    Known,
    /// A feed of the input reads it by itself.
    Feeds(String),
    /// It is a dead letter, or was not there.
    Failed(String),
}

impl Request {
    /// A request of now.
    pub fn new(input: &str, work: Work, rate: Option<f64>) -> Request {
        let random = Uuid::new_v4().simple().to_string();
        Request {
            id: format!("{:017}-{}", Utc::now().timestamp_micros(), &random[..8]),
            input: input.to_string(),
            work,
            rate,
        }
    }
}

/// The requests of a lake.
#[derive(Clone, Debug)]
pub struct Requests {
    lake: Lake,
    durable: bool,
}

impl Requests {
    /// Of this lake.
    pub fn new(lake: Lake, durable: bool) -> Requests {
        Requests { lake, durable }
    }

    /// How often it is worth to look: a listing of a store behind a URL is a paid request.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(if self.lake.local.is_some() { 500 } else { 2000 })
    }

    /// Puts a request.
    pub async fn put(&self, request: &Request) -> Result<(), Error> {
        let put = self
            .lake
            .put_new(&at("", &request.id), json(request), self.durable)
            .await;
        put.map(drop)
    }

    /// The oldest that is not done.
    pub async fn oldest(&self) -> Result<Option<Request>, Error> {
        let listed = match self.lake.store.list_with_delimiter(Some(&Path::from(FOLDER))).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            listed => listed?,
        };
        let names = listed
            .objects
            .iter()
            .filter_map(|object| object.location.filename()?.strip_suffix(".json"));
        let mut ids: Vec<&str> = names.collect();
        ids.sort_unstable();
        for id in ids {
            if self.outcome(id).await?.is_some() {
                self.remove("", id).await?; // its run ended in between
                continue;
            }
            if let Some(request) = self.read::<Request>("", id).await? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    /// Says how far a request is.
    pub async fn tell(&self, id: &str, status: &Status) -> Result<(), Error> {
        self.lake
            .store
            .put(&at("status/", id), json(status).into())
            .await
            .map(drop)
    }

    /// How far a request is; none: nobody serves it yet.
    pub async fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        self.read("status/", id).await
    }

    /// A request has ended.
    pub async fn finish(&self, id: &str, outcome: &Outcome) -> Result<(), Error> {
        self.lake.put_new(&at("done/", id), json(outcome), self.durable).await?;
        self.remove("", id).await?;
        self.remove("status/", id).await
    }

    /// How a request ended; none: it has not.
    pub async fn outcome(&self, id: &str) -> Result<Option<Outcome>, Error> {
        self.read("done/", id).await
    }

    /// Deletes outcomes that are older than this: who waited for them has seen them.
    pub async fn forget(&self, age: Duration) -> Result<(), Error> {
        let folder = Path::from(format!("{FOLDER}/done"));
        let done: Vec<_> = self.lake.store.list(Some(&folder)).try_collect().await?;
        let age = chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX);
        for object in done.iter().filter(|object| Utc::now() - object.last_modified > age) {
            match self.lake.store.delete(&object.location).await {
                Err(Error::NotFound { .. }) => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, part: &str, id: &str) -> Result<Option<T>, Error> {
        let bytes = self.lake.get(&at(part, id)).await?;
        let read = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        read.map_err(|source| Error::Generic {
            store: "requests",
            source: format!("{} cannot be read ({source}); delete it", at(part, id)).into(),
        })
    }

    async fn remove(&self, part: &str, id: &str) -> Result<(), Error> {
        match self.lake.store.delete(&at(part, id)).await {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn a_request_stays_until_its_outcome_is_there_and_comes_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let requests = Requests::new(lake, true);
        assert_eq!(requests.oldest().await.unwrap(), None);
        let first = Request::new("orders", Work::Letters, None);
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
        assert_eq!(requests.oldest().await.unwrap().as_ref(), Some(&first));
        requests.tell(&first.id, &Status::default()).await.unwrap();
        assert_eq!(requests.status(&first.id).await.unwrap(), Some(Status::default()));
        // A run that ended between the outcome and the request's removal.
        let outcome = Outcome {
            records: 7,
            ..Outcome::default()
        };
        requests.finish(&first.id, &outcome).await.unwrap();
        requests.put(&first).await.unwrap();
        assert_eq!(requests.oldest().await.unwrap(), Some(second));
        assert_eq!(requests.outcome(&first.id).await.unwrap(), Some(outcome));
        assert_eq!(requests.status(&first.id).await.unwrap(), None);
        requests.forget(Duration::from_secs(60)).await.unwrap();
        assert!(requests.outcome(&first.id).await.unwrap().is_some(), "it is young");
    }
}
