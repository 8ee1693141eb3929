//! A client of a Confluent-compatible registry's REST API. It distinguishes the registry's answers from the lack of
//! one.
//!
//! Addresses are tried in turn, beginning with the one that answered last. No response, 5xx, 429 and any response that
//! may come from a proxy are retried until the budget is spent; 404 with one of the API's own error codes is an
//! answer. Retrying is safe, because asking twice changes nothing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use reqwest::{Certificate, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::{Language, RegisteredSchema, RegistryError, RegistryTimeouts, SchemaReference, Unready, Version};
use crate::backoff::Backoff;
use crate::definition::{self, Credentials};

/// The longest pause between two attempts.
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);

/// The most bytes of a response.
const ANSWER: usize = 16 << 20;

/// The most schemas that one schema may refer to, directly or not.
const REFERENCES: usize = 500;

/// The API's error codes for a subject, version or schema that does not exist.
const NOT_THERE: [i64; 3] = [40401, 40402, 40403];

/// The statuses of a refused schema: it is incompatible with the others of its subject, or invalid.
const NOT_TAKEN: [StatusCode; 2] = [StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY];

/// The media type of requests and responses.
const MEDIA: &str = "application/vnd.schemaregistry.v1+json";

/// The error code of a registry that does not have the requested endpoint.
const NO_SUCH_PATH: i64 = 404;

/// A client of one registry. `Debug` shows only its addresses.
pub(super) struct RegistryClient {
    http: reqwest::Client,
    urls: Vec<Url>,
    credentials: Option<Credentials>,
    patience: RegistryTimeouts,
    /// The address that answered last.
    good: AtomicUsize,
}

/// The registry's answer.
pub(super) enum RegistryAnswer<T> {
    Is(T),
    /// The item does not exist, or the schema is refused; with the registry's reason.
    No(String),
}

/// A request: a path to read, or a body to post there.
struct RegistryRequest<'a> {
    path: &'a [&'a str],
    put: Option<&'a Value>,
}

/// A version of a subject.
pub(super) struct SubjectVersion {
    pub id: u32,
    pub text: String,
    references: Vec<SubjectReference>,
}

#[derive(Deserialize)]
struct SchemaById {
    schema: String,
    #[serde(rename = "schemaType")]
    language: Option<Language>,
    #[serde(default)]
    references: Option<Vec<SubjectReference>>,
}

#[derive(Deserialize)]
struct SchemaByVersion {
    id: u32,
    schema: String,
    #[serde(default)]
    references: Option<Vec<SubjectReference>>,
}

#[derive(Clone, Deserialize)]
struct SubjectReference {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct RegisteredId {
    id: u32,
}

#[derive(Deserialize)]
struct RefusalBody {
    error_code: i64,
    #[serde(default)]
    message: String,
}

impl RegistryClient {
    pub fn new(settings: &definition::RegistrySettings, patience: RegistryTimeouts) -> Result<Self, RegistryError> {
        let mut builder = reqwest::Client::builder()
            .user_agent("alluvium")
            .connect_timeout(patience.request.min(std::time::Duration::from_secs(5)))
            .timeout(patience.request)
            .redirect(reqwest::redirect::Policy::none()); // Redirects are off: credentials must not go elsewhere.
        if let Some(path) = &settings.ca {
            let ca = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Ca {
                path: path.clone(),
                source,
            };
            let pem = std::fs::read(path).map_err(|error| ca(error.into()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| ca(error.into()))?;
            if certificates.is_empty() {
                return Err(ca("it holds no certificate".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(RegistryClient {
            http: builder.build().map_err(|error| RegistryError::Client(error.into()))?,
            urls: settings.urls.clone(),
            credentials: settings.credentials.clone(),
            patience,
            good: AtomicUsize::new(0),
        })
    }

    /// Returns a schema by its id, with all schemas that it refers to and the subjects that it is registered under.
    pub async fn schema(&self, id: u32) -> Result<RegistryAnswer<RegisteredSchema>, Unready> {
        let what = format!("schema {id}");
        let number = id.to_string();
        let answer = match self.get::<SchemaById>(&["schemas", "ids", &number], &what).await? {
            RegistryAnswer::Is(answer) => answer,
            RegistryAnswer::No(reason) => return Ok(RegistryAnswer::No(reason)),
        };
        let Some(references) = self.references(answer.references.unwrap_or_default()).await? else {
            return Ok(RegistryAnswer::No("what it refers to is gone".into()));
        };
        // Older registries lack this endpoint.
        let versions = self.get(&["schemas", "ids", &number, "versions"], &what).await;
        let versions: Vec<Version> = match versions? {
            RegistryAnswer::Is(versions) => versions,
            RegistryAnswer::No(_) => Vec::new(),
        };
        Ok(RegistryAnswer::Is(RegisteredSchema {
            id,
            language: answer.language.unwrap_or(Language::Avro),
            text: answer.schema,
            references,
            versions,
        }))
    }

    /// A version of a subject (by default the newest); none if it does not exist.
    pub async fn version(&self, subject: &str, version: Option<u32>) -> Result<Option<SubjectVersion>, Unready> {
        let version = version.map_or("latest".to_string(), |version| version.to_string());
        let what = format!("version {version} of subject {subject:?}");
        match self
            .get::<SchemaByVersion>(&["subjects", subject, "versions", &version], &what)
            .await?
        {
            RegistryAnswer::Is(found) => Ok(Some(SubjectVersion {
                id: found.id,
                text: found.schema,
                references: found.references.unwrap_or_default(),
            })),
            RegistryAnswer::No(_) => Ok(None),
        }
    }

    /// Registers an Avro schema under a subject, unless it is registered already; returns its id, or the registry's
    /// refusal.
    pub async fn register(&self, subject: &str, text: &str) -> Result<RegistryAnswer<u32>, Unready> {
        let question = RegistryRequest {
            path: &["subjects", subject, "versions"],
            put: Some(&json!({ "schema": text, "schemaType": Language::Avro })),
        };
        let what = format!("an id of the schema of subject {subject:?}");
        Ok(match self.ask::<RegisteredId>(&question, &what).await? {
            RegistryAnswer::Is(registered) => RegistryAnswer::Is(registered.id),
            RegistryAnswer::No(reason) => RegistryAnswer::No(reason),
        })
    }

    /// All schemas that are referred to, each after those that it refers to itself; none if one of them is gone.
    async fn references(&self, first: Vec<SubjectReference>) -> Result<Option<Vec<SchemaReference>>, Unready> {
        /// A step of the depth-first walk: visit a schema, or add it after those that it refers to.
        enum Step {
            Into(SubjectReference),
            Done(SchemaReference),
        }
        let mut done: Vec<SchemaReference> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut steps: Vec<Step> = first.into_iter().rev().map(Step::Into).collect();
        while let Some(step) = steps.pop() {
            let refers = match step {
                Step::Done(reference) => {
                    done.push(reference);
                    continue;
                }
                Step::Into(refers) if seen.contains(&refers.name) => continue,
                Step::Into(refers) => refers,
            };
            if seen.len() == REFERENCES {
                return Ok(None);
            }
            seen.push(refers.name.clone());
            let Some(found) = self.version(&refers.subject, Some(refers.version)).await? else {
                return Ok(None);
            };
            steps.push(Step::Done(SchemaReference {
                name: refers.name,
                text: found.text,
            }));
            steps.extend(found.references.into_iter().rev().map(Step::Into));
        }
        Ok(Some(done))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], what: &str) -> Result<RegistryAnswer<T>, Unready> {
        self.ask(&RegistryRequest { path, put: None }, what).await
    }

    /// Sends a request until there is an answer or the budget is spent.
    async fn ask<T: DeserializeOwned>(
        &self,
        question: &RegistryRequest<'_>,
        what: &str,
    ) -> Result<RegistryAnswer<T>, Unready> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.patience.pause, LONGEST_PAUSE);
        loop {
            let good = self.good.load(Ordering::Relaxed);
            let mut trouble = None;
            for n in 0..self.urls.len() {
                let index = (good + n) % self.urls.len();
                match self.ask_once(&self.urls[index], question).await {
                    Ok(answer) => {
                        self.good.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(reason) => {
                        trouble = Some(Unready {
                            url: self.urls[index].to_string(),
                            what: what.to_string(),
                            reason,
                        });
                    }
                }
            }
            let trouble = trouble.expect("a registry has an address");
            if started.elapsed() + backoff.most() >= self.patience.budget {
                return Err(trouble);
            }
            tracing::debug!(error = %trouble, "asking the schema registry again");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Sends a request once. An error means that a retry may succeed.
    async fn ask_once<T: DeserializeOwned>(
        &self,
        base: &Url,
        question: &RegistryRequest<'_>,
    ) -> Result<RegistryAnswer<T>, String> {
        let path = question.path;
        let mut url = base.clone();
        let segments = url.path_segments_mut();
        segments
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(path);
        let request = match question.put {
            None => self.http.get(url),
            Some(body) => self.http.post(url).header("content-type", MEDIA).body(body.to_string()),
        };
        let accepted = format!("{MEDIA}, application/vnd.schemaregistry+json, application/json");
        let request = request.header("accept", accepted);
        let request = match &self.credentials {
            None => request,
            Some(Credentials::Basic { username, password }) => request.basic_auth(username, Some(password)),
            Some(Credentials::Token(token)) => request.bearer_auth(token),
        };
        // The error's own URL is removed, because the message already has the address.
        let reason = |error: reqwest::Error| crate::causes::chain(&error.without_url());
        let mut response = request.send().await.map_err(reason)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(reason)? {
            if body.len() + part.len() > ANSWER {
                return Err(format!("its answer is longer than {ANSWER} bytes"));
            }
            body.extend_from_slice(&part);
        }
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map(RegistryAnswer::Is)
                .map_err(|error| format!("its answer is none of the registry's API: {error}"));
        }
        let refused = serde_json::from_slice::<RefusalBody>(&body).ok();
        let unknown = path.len() == 4 && path[3] == "versions" && path[0] == "schemas";
        let not_there = |code: i64| NOT_THERE.contains(&code) || (unknown && code == NO_SUCH_PATH);
        match refused {
            Some(refused) if status == StatusCode::NOT_FOUND && not_there(refused.error_code) => {
                Ok(RegistryAnswer::No(refused.message))
            }
            Some(refused) if question.put.is_some() && NOT_TAKEN.contains(&status) => {
                Ok(RegistryAnswer::No(refused.message))
            }
            _ if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(format!(
                "it answered {status}; check the registry's username and password, or token"
            )),
            Some(refused) if !refused.message.is_empty() => Err(format!("it answered {status}: {}", refused.message)),
            _ => Err(format!("it answered {status}; check the address")),
        }
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
        write!(f, "{}", urls.join(", "))
    }
}
