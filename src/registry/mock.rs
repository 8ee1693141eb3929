//! A registry over HTTP on loopback, as simple as the API allows. Shared by the crate's own tests and, by path, by `tests/it`.
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

/// A registry that runs until it is dropped.
pub struct Mock {
    /// Its address.
    pub url: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    held: Mutex<Held>,
    asked: AtomicUsize,
}

#[derive(Default)]
struct Held {
    schemas: BTreeMap<usize, Value>,
    /// By subject and version, from 1: the schema's id.
    subjects: BTreeMap<String, Vec<usize>>,
    /// Subjects with which no new schema is compatible.
    closed: Vec<String>,
    /// The header that is demanded.
    authorization: Option<String>,
    /// Nothing is answered but this.
    fails: Option<StatusCode>,
}

type Held_ = State<Arc<Shared>>;

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

    /// Registers a schema as the next version of a subject; says its id.
    pub fn register(&self, subject: &str, language: &str, text: &str, references: Value) -> u32 {
        let id = self.shared.held.lock().unwrap().schemas.len() + 1;
        self.register_as(id as u32, subject, language, text, references);
        id as u32
    }

    /// The same, under an id.
    pub fn register_as(&self, id: u32, subject: &str, language: &str, text: &str, references: Value) {
        let mut held = self.shared.held.lock().unwrap();
        let schema = json!({"schema": text, "schemaType": language, "references": references});
        held.schemas.insert(id as usize, schema);
        held.subjects.entry(subject.to_string()).or_default().push(id as usize);
    }

    /// Takes no schema for this subject.
    pub fn refuse(&self, subject: &str) {
        self.shared.held.lock().unwrap().closed.push(subject.to_string());
    }

    /// Answers nothing but this.
    pub fn fail(&self, status: Option<StatusCode>) {
        self.shared.held.lock().unwrap().fails = status;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Mock {
    /// Demands this header.
    pub fn demand(&self, authorization: &str) {
        self.shared.held.lock().unwrap().authorization = Some(authorization.to_string());
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Refuses what is to be refused.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let held = shared.held.lock().unwrap();
    if let Some(status) = held.fails {
        return Err((status, "<html>oops</html>").into_response());
    }
    let said = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_string());
    if held.authorization.is_some() && held.authorization != said {
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

async fn by_id(State(shared): Held_, UrlPath(id): UrlPath<usize>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    match shared.held.lock().unwrap().schemas.get(&id) {
        Some(schema) => Json(schema.clone()).into_response(),
        None => missing(40403),
    }
}

async fn versions(State(shared): Held_, UrlPath(id): UrlPath<usize>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let held = shared.held.lock().unwrap();
    let mut found = Vec::new();
    for (subject, ids) in &held.subjects {
        let of_id = ids.iter().enumerate().filter(|(_, of)| **of == id);
        found.extend(of_id.map(|(n, _)| json!({"subject": subject, "version": n + 1})));
    }
    Json(Value::Array(found)).into_response()
}

async fn by_version(
    State(shared): Held_,
    UrlPath((subject, version)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let held = shared.held.lock().unwrap();
    let Some(ids) = held.subjects.get(&subject) else {
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
    let mut found = held.schemas[id].clone();
    found["id"] = json!(id);
    found["subject"] = json!(subject);
    found["version"] = json!(version);
    Json(found).into_response()
}

async fn put(State(shared): Held_, UrlPath(subject): UrlPath<String>, headers: HeaderMap, body: String) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let schema: Value = serde_json::from_str(&body).unwrap();
    let mut held = shared.held.lock().unwrap();
    let known = held.subjects.get(&subject).into_iter().flatten();
    let mut known = known.filter(|id| held.schemas[*id]["schema"] == schema["schema"]);
    if let Some(id) = known.next() {
        return Json(json!({"id": id})).into_response();
    }
    if held.closed.contains(&subject) {
        let refused = json!({"error_code": 409, "message": "incompatible with version 1"});
        return (StatusCode::CONFLICT, Json(refused)).into_response();
    }
    let id = held.schemas.len() + 1;
    held.schemas.insert(id, schema);
    held.subjects.entry(subject).or_default().push(id);
    Json(json!({"id": id})).into_response()
}
