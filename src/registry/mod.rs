//! Schemas by their ids: asked of a Confluent-compatible registry once, kept in the lake for ever.
//!
//! ```text
//! memory -> lake (_alluvium/schemas/<registry>/) -> the registry's REST API
//! ```
//!
//! 1. A schema never changes under its id, so what was found once is never asked again.
//! 2. A schema is kept in the lake before anything is decoded by it: Bronze and the definition decode the same again,
//!    without the registry. The same holds for the newest schema of a subject, by which fields get their defaults: what
//!    was the newest when it was first asked for stays, until the definition names a version.
//! 3. A registry that does not answer says nothing about a schema: that is [`Unready`], and the caller waits. Only the
//!    registry's own word that there is no such schema ([`Found::Unknown`]) is an answer, and holds for a minute.
//!
//! Calls block their thread, which may not be one of timely's.

mod client;
#[cfg(test)]
pub(crate) mod mock;
mod shelf;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
pub(crate) mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::runtime::Runtime;

use crate::definition;
use crate::sink::Lake;
use client::{Answer, Client};
use shelf::Shelf;

/// How long the registry's word that there is no such schema holds.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How many ids without a schema are remembered: garbage has any.
const UNKNOWN_IDS: usize = 10_000;

/// The registries of a dataflow, each made when it is first needed.
pub struct Registries {
    lake: Option<Lake>,
    patience: Patience,
    known: Mutex<HashMap<definition::Registry, Arc<Registry>>>,
}

/// How long a registry is waited for in one call.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one answer.
    pub request: Duration,
    /// In all, over every address and pause.
    pub budget: Duration,
    /// The pause after all addresses failed; it doubles each time.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            request: Duration::from_secs(10),
            budget: Duration::from_secs(20),
            pause: Duration::from_millis(100),
        }
    }
}

/// One registry.
pub struct Registry {
    client: Client,
    shelf: Option<Shelf>,
    memory: Mutex<Memory>,
    /// Held while something is asked for, so that threads that need one schema ask once.
    asking: Mutex<()>,
    /// Drives the requests. It is this registry's own: whoever asks may be inside another runtime, or in none.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Memory {
    schemas: HashMap<u32, Found>,
    unknown_since: HashMap<u32, Instant>,
    readers: HashMap<(String, Option<u32>), Option<u32>>,
}

/// What a registry knows under an id.
#[derive(Clone, Debug)]
pub enum Found {
    /// The schema.
    Schema(Arc<Schema>),
    /// It says that there is none.
    Unknown,
}

/// What a registry makes of a schema that it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It has this id.
    As(u32),
    /// It is not taken; why, in the registry's words.
    Refused(String),
}

/// What language a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Language {
    /// Avro, as JSON.
    #[serde(rename = "AVRO")]
    Avro,
    /// JSON Schema.
    #[serde(rename = "JSON")]
    Json,
    /// A .proto file's text.
    #[serde(rename = "PROTOBUF")]
    Protobuf,
}

/// A schema as it is registered, with all it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Its id in the registry.
    pub id: u32,
    /// What it is written in.
    pub language: Language,
    /// Its text.
    pub text: String,
    /// All that it refers to, directly or not; what is referred to comes before what refers to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Where it is registered, where the registry says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// What it is referred to by: an Avro type's full name, a .proto file's path.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A place of a schema in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Usually the topic's name and `-value` or `-key`.
    pub subject: String,
    /// From 1.
    pub version: u32,
}

/// `schema 7 (orders-value version 3)`.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema {}", self.id)?;
        if let Some(Version { subject, version }) = self.versions.first() {
            write!(f, " ({subject} version {version})")?;
        }
        Ok(())
    }
}

/// A registry that could not be asked, which may pass: wait, and ask again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("could not ask the schema registry at {url} for {what}: {reason}; records wait until it answers")]
pub struct Unready {
    /// The address that was asked last, or the lake.
    pub url: String,
    /// What was asked for.
    pub what: String,
    /// What came instead.
    pub reason: String,
}

/// A registry that can never be asked as it is defined.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The authorities' file.
    #[error("could not read the certificates in {path:?}; name a PEM file")]
    Ca {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client could not be made.
    #[error("could not set up the client of the schema registry")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Registries {
    /// Registries whose schemas are kept in `lake`, if there is one.
    pub fn new(lake: Option<Lake>) -> Self {
        Registries::patient(lake, Patience::default())
    }

    /// The same, waiting as told.
    pub fn patient(lake: Option<Lake>, patience: Patience) -> Self {
        Registries {
            lake,
            patience,
            known: Mutex::default(),
        }
    }

    /// The registry that a definition names. Nothing is asked yet.
    pub fn of(&self, settings: &definition::Registry) -> Result<Arc<Registry>, RegistryError> {
        let mut known = lock(&self.known);
        if let Some(registry) = known.get(settings) {
            return Ok(registry.clone());
        }
        let shelf = self.lake.clone().map(|lake| Shelf::new(lake, &settings.urls[0]));
        let registry = Arc::new(Registry {
            client: Client::new(settings, self.patience)?,
            shelf,
            memory: Mutex::default(),
            asking: Mutex::default(),
            runtime: Some(
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("schema registry")
                    .enable_all()
                    .build()
                    .map_err(|error| RegistryError::Client(error.into()))?,
            ),
        });
        known.insert(settings.clone(), registry.clone());
        Ok(registry)
    }
}

impl Registry {
    /// The schema of an id.
    ///
    /// # Errors
    /// Neither memory nor lake has it, and the registry does not answer.
    pub fn schema(&self, id: u32) -> Result<Found, Unready> {
        if let Some(found) = self.remembered(id) {
            return Ok(found);
        }
        let _asking = lock(&self.asking);
        if let Some(found) = self.remembered(id) {
            return Ok(found);
        }
        let found = self.drive(self.look_up(id))?;
        let mut memory = lock(&self.memory);
        if matches!(found, Found::Unknown) {
            if memory.unknown_since.len() == UNKNOWN_IDS {
                memory.unknown_since.clear();
                memory.schemas.retain(|_, found| matches!(found, Found::Schema(_)));
            }
            memory.unknown_since.insert(id, Instant::now());
        }
        memory.schemas.insert(id, found.clone());
        Ok(found)
    }

    /// The schema of a subject by which fields that a record lacks get their defaults: that of `version`, or the one that
    /// was the newest when it was first asked for, by (2). None: there is no such subject or version.
    ///
    /// # Errors
    /// Neither memory nor lake knows it, and the registry does not answer.
    pub fn reader(&self, subject: &str, version: Option<u32>) -> Result<Option<Arc<Schema>>, Unready> {
        let key = (subject.to_string(), version);
        let known = lock(&self.memory).readers.get(&key).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let _asking = lock(&self.asking);
                let id = self.drive(self.choose_reader(subject, version))?;
                lock(&self.memory).readers.insert(key, id);
                id
            }
        };
        match id.map(|id| self.schema(id)).transpose()? {
            Some(Found::Schema(schema)) => Ok(Some(schema)),
            _ => Ok(None),
        }
    }

    /// The newest schema of a subject as of now, from the registry itself. None: there is no such subject.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn newest(&self, subject: &str) -> Result<Option<Schema>, Unready> {
        let id = self.drive(self.client.version(subject, None))?;
        let Some(id) = id.map(|registered| registered.id) else {
            return Ok(None);
        };
        match self.drive(self.client.schema(id))? {
            Answer::Is(schema) => Ok(Some(schema)),
            Answer::No(_) => Ok(None),
        }
    }

    /// Registers an Avro schema under a subject, unless it is there.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn register(&self, subject: &str, text: &str) -> Result<Registered, Unready> {
        Ok(match self.drive(self.client.register(subject, text))? {
            Answer::Is(id) => Registered::As(id),
            Answer::No(reason) => Registered::Refused(reason),
        })
    }

    fn remembered(&self, id: u32) -> Option<Found> {
        let memory = lock(&self.memory);
        let found = memory.schemas.get(&id)?;
        if matches!(found, Found::Unknown) && memory.unknown_since.get(&id)?.elapsed() >= UNKNOWN_FOR {
            return None;
        }
        Some(found.clone())
    }

    async fn look_up(&self, id: u32) -> Result<Found, Unready> {
        if let Some(shelf) = &self.shelf
            && let Some(schema) = shelf.schema(id).await?
        {
            return Ok(Found::Schema(Arc::new(schema)));
        }
        match self.client.schema(id).await? {
            Answer::No(_) => Ok(Found::Unknown),
            Answer::Is(schema) => {
                if let Some(shelf) = &self.shelf {
                    shelf.keep(&schema).await?; // by (2), before it is used
                }
                Ok(Found::Schema(Arc::new(schema)))
            }
        }
    }

    async fn choose_reader(&self, subject: &str, version: Option<u32>) -> Result<Option<u32>, Unready> {
        if let Some(shelf) = &self.shelf
            && let Some(id) = shelf.reader(subject, version).await?
        {
            return Ok(Some(id));
        }
        let Some(registered) = self.client.version(subject, version).await? else {
            return Ok(None);
        };
        match &self.shelf {
            Some(shelf) => shelf.choose_reader(subject, version, registered.id).await.map(Some),
            None => Ok(Some(registered.id)),
        }
    }

    /// Waits for an answer on a thread that is in no runtime, whatever the caller is in. Rare: once a schema.
    fn drive<T: Send>(&self, answer: impl Future<Output = T> + Send) -> T {
        let runtime = self
            .runtime
            .as_ref()
            .expect("it is there until the registry is dropped")
            .handle();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime.block_on(answer));
            waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A runtime may not wait for its end inside another one.
impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({:?})", self.client)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
