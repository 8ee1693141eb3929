//! A registry over HTTP on loopback, as simple as the API allows, and what comes of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::definition::Credentials;

/// A registry that runs until it is dropped.
pub(crate) struct Mock {
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
    /// By id, from 1.
    schemas: Vec<Value>,
    /// By subject and version, from 1: the schema's id.
    subjects: BTreeMap<String, Vec<usize>>,
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
    pub(crate) fn start() -> Mock {
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
    pub(crate) fn register(&self, subject: &str, language: &str, text: &str, references: Value) -> u32 {
        let mut held = lock(&self.shared.held);
        held.schemas
            .push(json!({"schema": text, "schemaType": language, "references": references}));
        let id = held.schemas.len();
        held.subjects.entry(subject.to_string()).or_default().push(id);
        id as u32
    }

    /// What a feed says of it.
    pub(crate) fn settings(&self) -> definition::Registry {
        settings(&[&self.url])
    }

    fn fail(&self, status: Option<StatusCode>) {
        lock(&self.shared.held).fails = status;
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn settings(urls: &[&str]) -> definition::Registry {
    definition::Registry {
        urls: urls.iter().map(|url| format!("{url}/").parse().unwrap()).collect(),
        credentials: None,
        ca: None,
        subject: None,
        version: None,
    }
}

/// Refuses what is to be refused.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let held = lock(&shared.held);
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
    match lock(&shared.held).schemas.get(id.wrapping_sub(1)) {
        Some(schema) => Json(schema.clone()).into_response(),
        None => missing(40403),
    }
}

async fn versions(State(shared): Held_, UrlPath(id): UrlPath<usize>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, &headers) {
        return refused;
    }
    let held = lock(&shared.held);
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
    let held = lock(&shared.held);
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
    let mut found = held.schemas[id - 1].clone();
    found["id"] = json!(id);
    found["subject"] = json!(subject);
    found["version"] = json!(version);
    Json(found).into_response()
}

/// Gives up at once.
fn hasty(lake: Option<Lake>) -> Registries {
    Registries::patient(
        lake,
        Patience {
            request: Duration::from_secs(5),
            budget: Duration::from_millis(60),
            pause: Duration::from_millis(20),
        },
    )
}

fn schema(found: Result<Found, Unready>) -> Arc<Schema> {
    match found.unwrap() {
        Found::Schema(schema) => schema,
        Found::Unknown => panic!("the registry says that there is none"),
    }
}

fn lake(folder: &tempfile::TempDir) -> Lake {
    Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap()
}

#[test]
fn a_schema_is_asked_for_once_and_then_found_in_the_lake_without_the_registry() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let id = mock.register("orders/eu-value", "AVRO", "\"string\"", json!([]));
    let registry = hasty(Some(lake(&folder))).of(&mock.settings()).unwrap();
    let first = schema(registry.schema(id));
    assert_eq!(first.to_string(), "schema 1 (orders/eu-value version 1)");
    let asked = mock.asked();
    assert_eq!(schema(registry.schema(id)), first);
    assert_eq!(mock.asked(), asked, "it was in memory");
    let settings = mock.settings();
    drop(mock);
    let registry = hasty(Some(lake(&folder))).of(&settings).unwrap();
    assert_eq!(schema(registry.schema(id)), first);
    assert!(
        registry.schema(id + 1).is_err(),
        "what the lake has not, only the registry knows"
    );
}

#[test]
fn references_come_before_what_refers_to_them_each_once() {
    let mock = Mock::start();
    let refers = |name: &str, subject: &str| json!({"name": name, "subject": subject, "version": 1});
    mock.register("a", "PROTOBUF", "a", json!([]));
    mock.register("b", "PROTOBUF", "b", json!([refers("a.proto", "a")]));
    let id = mock.register(
        "c",
        "PROTOBUF",
        "c",
        json!([refers("b.proto", "b"), refers("a.proto", "a")]),
    );
    let broken = mock.register("d", "PROTOBUF", "d", json!([refers("x.proto", "x")]));
    let registry = hasty(None).of(&mock.settings()).unwrap();
    let found = schema(registry.schema(id));
    let names: Vec<&str> = found
        .references
        .iter()
        .map(|reference| reference.name.as_str())
        .collect();
    assert_eq!(names, ["a.proto", "b.proto"]);
    assert_eq!(found.language, Language::Protobuf);
    assert!(matches!(registry.schema(broken), Ok(Found::Unknown)));
}

#[test]
fn a_registry_that_does_not_answer_says_nothing_and_another_address_is_asked() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    let registry = hasty(None).of(&mock.settings()).unwrap();
    // A proxy's page is no answer of the registry's, whatever its status.
    for status in [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::NOT_FOUND,
        StatusCode::TOO_MANY_REQUESTS,
    ] {
        mock.fail(Some(status));
        let error = registry.schema(id).unwrap_err();
        assert!(error.to_string().contains(&format!("{}", status.as_u16())), "{error}");
    }
    mock.fail(None);
    assert_eq!(schema(registry.schema(id)).id, id);
    // Port 9 is discard: nobody listens.
    let registry = hasty(None).of(&settings(&["http://127.0.0.1:9", &mock.url])).unwrap();
    assert_eq!(schema(registry.schema(id)).id, id);
}

#[test]
fn a_schema_that_the_registry_does_not_know_is_unknown_for_a_while() {
    let mock = Mock::start();
    let registry = hasty(None).of(&mock.settings()).unwrap();
    assert!(matches!(registry.schema(7), Ok(Found::Unknown)));
    let asked = mock.asked();
    assert!(matches!(registry.schema(7), Ok(Found::Unknown)));
    assert_eq!(mock.asked(), asked);
}

#[test]
fn secrets_open_the_registry_and_are_never_printed() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    // user:secret
    lock(&mock.shared.held).authorization = Some("Basic dXNlcjpzZWNyZXQ=".to_string());
    let basic = |password: &str| definition::Registry {
        credentials: Some(Credentials::Basic {
            username: "user".to_string(),
            password: password.to_string(),
        }),
        ..mock.settings()
    };
    let registry = hasty(None).of(&basic("wrong-one")).unwrap();
    let error = registry.schema(id).unwrap_err();
    assert!(
        error.reason.contains("check the registry's username and password"),
        "{error}"
    );
    for printed in [
        format!("{error:?}"),
        format!("{registry:?}"),
        format!("{:?}", basic("wrong-one")),
    ] {
        assert!(!printed.contains("wrong-one"), "{printed}");
    }
    assert_eq!(schema(hasty(None).of(&basic("secret")).unwrap().schema(id)).id, id);
    lock(&mock.shared.held).authorization = Some("Bearer t0ken".to_string());
    let token = definition::Registry {
        credentials: Some(Credentials::Token("t0ken".to_string())),
        ..mock.settings()
    };
    assert_eq!(schema(hasty(None).of(&token).unwrap().schema(id)).id, id);
}

#[test]
fn the_schema_of_defaults_stays_the_same_until_the_definition_names_another() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let first = mock.register("s", "AVRO", "\"long\"", json!([]));
    let reader = |version| {
        let registry = hasty(Some(lake(&folder))).of(&mock.settings()).unwrap();
        registry.reader("s", version).unwrap().map(|schema| schema.id)
    };
    assert_eq!(reader(None), Some(first));
    let second = mock.register("s", "AVRO", "\"string\"", json!([]));
    assert_eq!(reader(None), Some(first), "a restart decodes as before");
    assert_eq!(reader(Some(2)), Some(second));
    assert_eq!(reader(Some(3)), None);
    let registry = hasty(None).of(&mock.settings()).unwrap();
    assert_eq!(registry.newest("s").unwrap().unwrap().id, second);
    assert_eq!(registry.newest("nobody's").unwrap(), None);
}

#[test]
fn an_answer_is_awaited_inside_a_runtime_too() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let registry = hasty(None).of(&mock.settings()).unwrap();
        assert_eq!(schema(registry.schema(id)).id, id);
        drop(registry);
    });
}

#[test]
fn authorities_that_cannot_be_read_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let with_ca = definition::Registry {
        ca: Some(path.clone()),
        ..settings(&["https://localhost"])
    };
    assert!(matches!(hasty(None).of(&with_ca), Err(RegistryError::Ca { .. })));
    std::fs::write(&path, "no certificate").unwrap();
    assert!(matches!(hasty(None).of(&with_ca), Err(RegistryError::Ca { .. })));
}
