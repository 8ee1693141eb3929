//! The REST API of a Confluent-compatible registry, as a client: what it says, or that it says nothing.
//!
//! Addresses are asked in turn, the one that answered last first. No answer, 5xx, 429 and whatever a proxy may say is
//! asked again until the budget is spent; 404 with the API's own error codes is an answer. Asking twice changes nothing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use reqwest::{Certificate, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::{Language, Patience, Reference, RegistryError, Schema, Unready, Version};
use crate::definition::{self, Credentials};

/// The longest answer that is taken, in bytes.
const ANSWER: usize = 16 << 20;

/// How many schemas one may refer to.
const REFERENCES: usize = 500;

/// The API's codes for "no such subject, version, schema".
const NOT_THERE: [i64; 3] = [40401, 40402, 40403];

/// How a schema is refused: it is not compatible with its subject's others, or is none.
const NOT_TAKEN: [StatusCode; 2] = [StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY];

/// What is sent, and answered.
const MEDIA: &str = "application/vnd.schemaregistry.v1+json";

/// A registry that does not know the question at all.
const NO_SUCH_PATH: i64 = 404;

/// A client of one registry. `Debug` shows its addresses alone.
pub(super) struct Client {
    http: reqwest::Client,
    urls: Vec<Url>,
    credentials: Option<Credentials>,
    patience: Patience,
    /// The address that answered last.
    good: AtomicUsize,
}

/// What the registry says.
pub(super) enum Answer<T> {
    Is(T),
    /// There is no such thing, or it is not taken; why, in the registry's words.
    No(String),
}

/// What is asked: a path to read, or what is put there.
struct Question<'a> {
    path: &'a [&'a str],
    put: Option<&'a Value>,
}

/// A subject's version.
pub(super) struct SubjectVersion {
    pub id: u32,
    pub text: String,
    references: Vec<Refers>,
}

#[derive(Deserialize)]
struct ById {
    schema: String,
    #[serde(rename = "schemaType")]
    language: Option<Language>,
    #[serde(default)]
    references: Option<Vec<Refers>>,
}

#[derive(Deserialize)]
struct ByVersion {
    id: u32,
    schema: String,
    #[serde(default)]
    references: Option<Vec<Refers>>,
}

#[derive(Clone, Deserialize)]
struct Refers {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
struct Refused {
    error_code: i64,
    #[serde(default)]
    message: String,
}

impl Client {
    pub fn new(settings: &definition::Registry, patience: Patience) -> Result<Self, RegistryError> {
        let mut builder = reqwest::Client::builder()
            .user_agent("alluvium")
            .connect_timeout(patience.request.min(std::time::Duration::from_secs(5)))
            .timeout(patience.request)
            .redirect(reqwest::redirect::Policy::none()); // credentials go nowhere else
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
        Ok(Client {
            http: builder.build().map_err(|error| RegistryError::Client(error.into()))?,
            urls: settings.urls.clone(),
            credentials: settings.credentials.clone(),
            patience,
            good: AtomicUsize::new(0),
        })
    }

    /// A schema by its id, with all it refers to and where it is registered.
    pub async fn schema(&self, id: u32) -> Result<Answer<Schema>, Unready> {
        let what = format!("schema {id}");
        let number = id.to_string();
        let found = match self.get::<ById>(&["schemas", "ids", &number], &what).await? {
            Answer::Is(found) => found,
            Answer::No(reason) => return Ok(Answer::No(reason)),
        };
        let Some(references) = self.references(found.references.unwrap_or_default()).await? else {
            return Ok(Answer::No("what it refers to is gone".into()));
        };
        // Older registries do not say.
        let versions = self.get(&["schemas", "ids", &number, "versions"], &what).await;
        let versions: Vec<Version> = match versions? {
            Answer::Is(versions) => versions,
            Answer::No(_) => Vec::new(),
        };
        Ok(Answer::Is(Schema {
            id,
            language: found.language.unwrap_or(Language::Avro),
            text: found.schema,
            references,
            versions,
        }))
    }

    /// A version of a subject, or its newest. None: there is none.
    pub async fn version(&self, subject: &str, version: Option<u32>) -> Result<Option<SubjectVersion>, Unready> {
        let version = version.map_or("latest".to_string(), |version| version.to_string());
        let what = format!("version {version} of subject {subject:?}");
        match self
            .get::<ByVersion>(&["subjects", subject, "versions", &version], &what)
            .await?
        {
            Answer::Is(found) => Ok(Some(SubjectVersion {
                id: found.id,
                text: found.schema,
                references: found.references.unwrap_or_default(),
            })),
            Answer::No(_) => Ok(None),
        }
    }

    /// Registers an Avro schema under a subject, unless it is there; says its id. No: the registry does not take it.
    pub async fn register(&self, subject: &str, text: &str) -> Result<Answer<u32>, Unready> {
        let question = Question {
            path: &["subjects", subject, "versions"],
            put: Some(&json!({ "schema": text, "schemaType": Language::Avro })),
        };
        let what = format!("an id of the schema of subject {subject:?}");
        Ok(match self.ask::<Id>(&question, &what).await? {
            Answer::Is(registered) => Answer::Is(registered.id),
            Answer::No(reason) => Answer::No(reason),
        })
    }

    /// All that is referred to, what refers behind what it refers to. None: some of it is gone.
    async fn references(&self, first: Vec<Refers>) -> Result<Option<Vec<Reference>>, Unready> {
        /// A step of the walk: go into one, or it is done with all it refers to.
        enum Step {
            Into(Refers),
            Done(Reference),
        }
        let mut done: Vec<Reference> = Vec::new();
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
            steps.push(Step::Done(Reference {
                name: refers.name,
                text: found.text,
            }));
            steps.extend(found.references.into_iter().rev().map(Step::Into));
        }
        Ok(Some(done))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], what: &str) -> Result<Answer<T>, Unready> {
        self.ask(&Question { path, put: None }, what).await
    }

    /// Asks until there is an answer or the budget is spent.
    async fn ask<T: DeserializeOwned>(&self, question: &Question<'_>, what: &str) -> Result<Answer<T>, Unready> {
        let started = Instant::now();
        let mut pause = self.patience.pause;
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
            if started.elapsed() + pause >= self.patience.budget {
                return Err(trouble);
            }
            tracing::debug!(error = %trouble, "asking the schema registry again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(5));
        }
    }

    /// Asks once; the error is a reason to ask again.
    async fn ask_once<T: DeserializeOwned>(&self, base: &Url, question: &Question<'_>) -> Result<Answer<T>, String> {
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
        // Without its URL: the address is told beside it.
        let told = |error: reqwest::Error| crate::causes::chain(&error.without_url());
        let mut response = request.send().await.map_err(told)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(told)? {
            if body.len() + part.len() > ANSWER {
                return Err(format!("its answer is longer than {ANSWER} bytes"));
            }
            body.extend_from_slice(&part);
        }
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map(Answer::Is)
                .map_err(|error| format!("its answer is none of the registry's API: {error}"));
        }
        let refused = serde_json::from_slice::<Refused>(&body).ok();
        let unknown = path.len() == 4 && path[3] == "versions" && path[0] == "schemas";
        let not_there = |code: i64| NOT_THERE.contains(&code) || (unknown && code == NO_SUCH_PATH);
        match refused {
            Some(refused) if status == StatusCode::NOT_FOUND && not_there(refused.error_code) => {
                Ok(Answer::No(refused.message))
            }
            Some(refused) if question.put.is_some() && NOT_TAKEN.contains(&status) => Ok(Answer::No(refused.message)),
            _ if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(format!(
                "it answered {status}; check the registry's username and password, or token"
            )),
            Some(refused) if !refused.message.is_empty() => Err(format!("it answered {status}: {}", refused.message)),
            _ => Err(format!("it answered {status}; check the address")),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
        write!(f, "{}", urls.join(", "))
    }
}
