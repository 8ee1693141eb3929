//! Looks up schemas by their ids: asks a Confluent-compatible registry once, and keeps the schema in the lake for
//! ever.
//!
//! ```text
//! memory -> lake (_alluvium/schemas/<registry>/) -> the registry's REST API
//! ```
//!
//! 1. The schema of an id never changes, so a schema that was found is never asked for again.
//! 2. A schema is kept in the lake before anything is decoded with it: so Bronze and the definition decode the same
//!    again, without the registry. The same holds for the newest schema of a subject, which gives fields their
//!    defaults: the schema that was newest when it was first asked for stays, until the definition names a version.
//! 3. A registry that does not answer is not evidence about a schema: that is [`Unready`], and the caller waits. Only
//!    the registry's own answer that the schema does not exist ([`SchemaLookup::Unknown`]) counts, and is believed for
//!    a minute.
//!
//! Calls block their thread, so a timely worker must not make them.

mod client;
mod lake_schemas;
#[cfg(test)]
pub(crate) mod mock;
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
use crate::lake::Lake;
use crate::runtime::{FILES, io_runtime};
use client::{RegistryAnswer, RegistryClient};
use lake_schemas::LakeSchemas;

/// How long the registry's answer that a schema does not exist is believed.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// The most ids without a schema that are remembered: garbage records may have any id.
const UNKNOWN_IDS: usize = 10_000;

/// The registries of a dataflow; each client is created when it is first needed.
pub struct Registries {
    lake: Option<Lake>,
    patience: RegistryTimeouts,
    known: Mutex<HashMap<definition::RegistrySettings, Arc<Registry>>>,
}

/// How long one call waits for a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryTimeouts {
    /// The most time for one response.
    pub request: Duration,
    /// The most time for the call, over all addresses and pauses.
    pub budget: Duration,
    /// The pause after all addresses failed; it doubles each time.
    pub pause: Duration,
}

impl Default for RegistryTimeouts {
    fn default() -> Self {
        RegistryTimeouts {
            request: Duration::from_secs(10),
            budget: Duration::from_secs(20),
            pause: Duration::from_millis(100),
        }
    }
}

/// One registry.
pub struct Registry {
    client: RegistryClient,
    lake_schemas: Option<LakeSchemas>,
    memory: Mutex<KnownSchemas>,
    /// Held during a request, so that several threads that need the same schema send one.
    asking: Mutex<()>,
    /// Runs the requests. Each registry has its own runtime, because the caller may be inside another one, or in none.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct KnownSchemas {
    schemas: HashMap<u32, SchemaLookup>,
    unknown_since: HashMap<u32, Instant>,
    readers: HashMap<(String, Option<u32>), Option<u32>>,
}

/// The result of looking up an id.
#[derive(Clone, Debug)]
pub enum SchemaLookup {
    /// The schema.
    Schema(Arc<RegisteredSchema>),
    /// The registry says that no schema has this id.
    Unknown,
}

/// The registry's answer to a schema that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationOutcome {
    /// The schema has this id.
    As(u32),
    /// The schema was refused, for this reason in the registry's words.
    Refused(String),
}

/// The language of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Language {
    /// Avro, as JSON.
    #[serde(rename = "AVRO")]
    Avro,
    /// JSON Schema.
    #[serde(rename = "JSON")]
    Json,
    /// Protocol Buffers, as the text of a .proto file.
    #[serde(rename = "PROTOBUF")]
    Protobuf,
}

/// A registered schema, with all schemas that it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredSchema {
    /// Its id in the registry.
    pub id: u32,
    /// The language of its text.
    pub language: Language,
    /// Its text.
    pub text: String,
    /// All schemas that it refers to, directly or not; each comes before those that refer to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<SchemaReference>,
    /// Where it is registered; empty if the registry does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaReference {
    /// The name that references use: an Avro type's full name, or a .proto file's path.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A subject and version under which a schema is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The subject: usually the topic's name with `-value` or `-key`.
    pub subject: String,
    /// The version, from 1.
    pub version: u32,
}

/// Displays `schema 7 (orders-value version 3)`.
impl fmt::Display for RegisteredSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema {}", self.id)?;
        if let Some(Version { subject, version }) = self.versions.first() {
            write!(f, " ({subject} version {version})")?;
        }
        Ok(())
    }
}

/// The registry could not be asked now, which may pass: the caller waits and asks again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("could not ask the schema registry at {url} for {what}: {reason}; records wait until it answers")]
pub struct Unready {
    /// The address that was tried last, or the lake's.
    pub url: String,
    /// What was asked for.
    pub what: String,
    /// What happened instead.
    pub reason: String,
}

/// The definition of a registry is unusable.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The file with certificates cannot be used.
    #[error("could not read the certificates in {path:?}; name a PEM file")]
    Ca {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client could not be created.
    #[error("could not set up the client of the schema registry")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Registries {
    /// Registries whose schemas are kept in `lake`, if there is one.
    pub fn new(lake: Option<Lake>) -> Self {
        Registries::patient(lake, RegistryTimeouts::default())
    }

    /// Like [`Registries::new`], with these timeouts.
    pub fn patient(lake: Option<Lake>, patience: RegistryTimeouts) -> Self {
        Registries {
            lake,
            patience,
            known: Mutex::default(),
        }
    }

    /// The registry that a definition names. It is not contacted yet.
    pub fn registry(&self, settings: &definition::RegistrySettings) -> Result<Arc<Registry>, RegistryError> {
        let mut known = lock(&self.known);
        if let Some(registry) = known.get(settings) {
            return Ok(registry.clone());
        }
        let lake_schemas = self.lake.clone().map(|lake| LakeSchemas::new(lake, &settings.urls[0]));
        let registry = Arc::new(Registry {
            client: RegistryClient::new(settings, self.patience)?,
            lake_schemas,
            memory: Mutex::default(),
            asking: Mutex::default(),
            runtime: Some(
                io_runtime("schema registry", 1, FILES).map_err(|error| RegistryError::Client(error.into()))?,
            ),
        });
        known.insert(settings.clone(), registry.clone());
        Ok(registry)
    }
}

impl Registry {
    /// Looks up the schema of an id.
    ///
    /// # Errors
    /// Neither memory nor lake has it, and the registry does not answer.
    pub fn schema(&self, id: u32) -> Result<SchemaLookup, Unready> {
        if let Some(lookup) = self.remembered(id) {
            return Ok(lookup);
        }
        let _asking = lock(&self.asking);
        if let Some(lookup) = self.remembered(id) {
            return Ok(lookup);
        }
        let lookup = self.drive(self.look_up(id))?;
        let mut memory = lock(&self.memory);
        if matches!(lookup, SchemaLookup::Unknown) {
            if memory.unknown_since.len() == UNKNOWN_IDS {
                memory.unknown_since.clear();
                memory
                    .schemas
                    .retain(|_, lookup| matches!(lookup, SchemaLookup::Schema(_)));
            }
            memory.unknown_since.insert(id, Instant::now());
        }
        memory.schemas.insert(id, lookup.clone());
        Ok(lookup)
    }

    /// The schema of a subject that gives defaults to fields which a record lacks: that of `version`, or by (2) the
    /// one that was the newest when it was first asked for. None if the subject or version does not exist.
    ///
    /// # Errors
    /// Neither memory nor lake knows it, and the registry does not answer.
    pub fn reader(&self, subject: &str, version: Option<u32>) -> Result<Option<Arc<RegisteredSchema>>, Unready> {
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
            Some(SchemaLookup::Schema(schema)) => Ok(Some(schema)),
            _ => Ok(None),
        }
    }

    /// The present newest schema of a subject, always asked from the registry. None if the subject does not exist.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn newest(&self, subject: &str) -> Result<Option<RegisteredSchema>, Unready> {
        let id = self.drive(self.client.version(subject, None))?;
        let Some(id) = id.map(|registered| registered.id) else {
            return Ok(None);
        };
        match self.drive(self.client.schema(id))? {
            RegistryAnswer::Is(schema) => Ok(Some(schema)),
            RegistryAnswer::No(_) => Ok(None),
        }
    }

    /// Registers an Avro schema under a subject, unless it is registered already.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn register(&self, subject: &str, text: &str) -> Result<RegistrationOutcome, Unready> {
        Ok(match self.drive(self.client.register(subject, text))? {
            RegistryAnswer::Is(id) => RegistrationOutcome::As(id),
            RegistryAnswer::No(reason) => RegistrationOutcome::Refused(reason),
        })
    }

    fn remembered(&self, id: u32) -> Option<SchemaLookup> {
        let memory = lock(&self.memory);
        let schema = memory.schemas.get(&id)?;
        if matches!(schema, SchemaLookup::Unknown) && memory.unknown_since.get(&id)?.elapsed() >= UNKNOWN_FOR {
            return None;
        }
        Some(schema.clone())
    }

    async fn look_up(&self, id: u32) -> Result<SchemaLookup, Unready> {
        if let Some(lake_schemas) = &self.lake_schemas
            && let Some(schema) = lake_schemas.schema(id).await?
        {
            return Ok(SchemaLookup::Schema(Arc::new(schema)));
        }
        match self.client.schema(id).await? {
            RegistryAnswer::No(_) => Ok(SchemaLookup::Unknown),
            RegistryAnswer::Is(schema) => {
                if let Some(lake_schemas) = &self.lake_schemas {
                    lake_schemas.keep(&schema).await?; // By (2), the schema is kept before it is used.
                }
                Ok(SchemaLookup::Schema(Arc::new(schema)))
            }
        }
    }

    async fn choose_reader(&self, subject: &str, version: Option<u32>) -> Result<Option<u32>, Unready> {
        if let Some(lake_schemas) = &self.lake_schemas
            && let Some(id) = lake_schemas.reader(subject, version).await?
        {
            return Ok(Some(id));
        }
        let Some(registered) = self.client.version(subject, version).await? else {
            return Ok(None);
        };
        match &self.lake_schemas {
            Some(lake_schemas) => lake_schemas
                .choose_reader(subject, version, registered.id)
                .await
                .map(Some),
            None => Ok(Some(registered.id)),
        }
    }

    /// Blocks on a future, on a new thread outside any runtime, because the caller may be inside one. It happens once
    /// per schema.
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

/// A runtime must not block for its shutdown inside another one.
impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            crate::runtime::end(runtime);
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
