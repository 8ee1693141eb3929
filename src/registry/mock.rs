//! A simple registry over HTTP on loopback, for the crate's own tests and, by path, for `tests/it`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "these are tests, and not all of them need all of it"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A registry that serves until it is dropped.
pub struct Mock {
    /// The registry's address.
    pub url: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    contents: Mutex<MockContents>,
    asked: AtomicUsize,
}

#[derive(Default)]
struct MockContents {
    schemas: BTreeMap<usize, Value>,
    /// The schema ids of each subject's versions, from version 1.
    subjects: BTreeMap<String, Vec<usize>>,
    /// Subjects that accept no new schema, as incompatible.
    closed: Vec<String>,
    /// The authorization header that requests must have.
    authorization: Option<String>,
    /// If set, every response has this status.
    fails: Option<StatusCode>,
}

type SharedState = State<Arc<Shared>>;

struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        (
            [("content-type", "application/vnd.schemaregistry.v1+json")],
            self.0.to_string(),
        )
            .into_response()
    }
}

impl Mock {
    pub fn start() -> Mock {
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let router = Router::new()
            .route("/schemas/ids/{id}", get(by_id))
            .route("/schemas/ids/{id}/versions", get(versions))
            .route("/subjects/{subject}/versions/{version}", get(by_version))
            .route("/subjects/{subject}/versions", post(put))
            .with_state(shared.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Mock {
            url,
            shared,
            runtime: Some(runtime),
        }
    }

    /// Registers a schema as the next version of a subject; returns its id.
    pub fn register(&self, subject: &str, language: &str, text: &str, references: Value) -> u32 {
        let id = self.shared.contents.lock().unwrap().schemas.len() + 1;
        self.register_as(id as u32, subject, language, text, references);
        id as u32
    }

    /// Registers a schema under a given id.
    pub fn register_as(&self, id: u32, subject: &str, language: &str, text: &str, references: Value) {
        let mut contents = self.shared.contents.lock().unwrap();
        let schema = json!({"schema": text, "schemaType": language, "references": references});
        contents.schemas.insert(id as usize, schema);
        contents
            .subjects
            .entry(subject.to_string())
            .or_default()
            .push(id as usize);
    }

    /// Makes the registry refuse every new schema of this subject.
    pub fn refuse(&self, subject: &str) {
        self.shared.contents.lock().unwrap().closed.push(subject.to_string());
    }

    /// Makes every response have this status; none: answers normally again.
    pub fn fail(&self, status: Option<StatusCode>) {
        self.shared.contents.lock().unwrap().fails = status;
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Mock {
    /// Makes the registry require this authorization header.
    pub fn demand(&self, authorization: &str) {
        self.shared.contents.lock().unwrap().authorization = Some(authorization.to_string());
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.runtime
            .take()
            .unwrap()
            .shutdown_timeout(std::time::Duration::from_millis(100));
    }
}

/// Counts a request, and refuses it if it must fail.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let contents = shared.contents.lock().unwrap();
    if let Some(status) = contents.fails {
        return Err((status, "<html>oops</html>").into_response());
    }
    let said = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_string());
    if contents.authorization.is_some() && contents.authorization != said {
        return Err((
            StatusCode::UNAUTHORIZED,
            Json(json!({"error_code": 401, "message": "Unauthorized"})),
        )
            .into_response());
    }
    Ok(())
}

fn missing(code: i64) -> Response {
    (
        StatusCode::NOT_FOUND,
        Json(json!({"error_code": code, "message": "not found"})),
    )
        .into_response()
}

async fn by_id(State(shared): SharedState, UrlPath(id): UrlPath<usize>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    match shared.contents.lock().unwrap().schemas.get(&id) {
        Some(schema) => Json(schema.clone()).into_response(),
        None => missing(40403),
    }
}

async fn versions(State(shared): SharedState, UrlPath(id): UrlPath<usize>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let contents = shared.contents.lock().unwrap();
    let mut found = Vec::new();
    for (subject, ids) in &contents.subjects {
        let of_id = ids.iter().enumerate().filter(|(_, of)| **of == id);
        found.extend(of_id.map(|(n, _)| json!({"subject": subject, "version": n + 1})));
    }
    Json(Value::Array(found)).into_response()
}

async fn by_version(
    State(shared): SharedState,
    UrlPath((subject, version)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let contents = shared.contents.lock().unwrap();
    let Some(ids) = contents.subjects.get(&subject) else {
        return missing(40401);
    };
    let version = if version == "latest" {
        ids.len()
    } else {
        version.parse().unwrap()
    };
    let Some(id) = ids.get(version.wrapping_sub(1)) else {
        return missing(40402);
    };
    let mut found = contents.schemas[id].clone();
    found["id"] = json!(id);
    found["subject"] = json!(subject);
    found["version"] = json!(version);
    Json(found).into_response()
}

async fn put(
    State(shared): SharedState,
    UrlPath(subject): UrlPath<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let schema: Value = serde_json::from_str(&body).unwrap();
    let mut contents = shared.contents.lock().unwrap();
    let known = contents.subjects.get(&subject).into_iter().flatten();
    let mut known = known.filter(|id| contents.schemas[*id]["schema"] == schema["schema"]);
    if let Some(id) = known.next() {
        return Json(json!({"id": id})).into_response();
    }
    if contents.closed.contains(&subject) {
        let refused = json!({"error_code": 409, "message": "incompatible with version 1"});
        return (StatusCode::CONFLICT, Json(refused)).into_response();
    }
    let id = contents.schemas.len() + 1;
    contents.schemas.insert(id, schema);
    contents.subjects.entry(subject).or_default().push(id);
    Json(json!({"id": id})).into_response()
}
