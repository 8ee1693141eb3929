//! Tests the effects of a registry's answers, and of a registry that does not answer.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;

use super::mock::Mock;
use super::*;
use crate::definition::Credentials;
use crate::testing::{Prerequisite, skip};

/// A feed's registry settings.
pub(crate) fn settings(urls: &[&str]) -> definition::RegistrySettings {
    definition::RegistrySettings {
        urls: urls.iter().map(|url| format!("{url}/").parse().unwrap()).collect(),
        credentials: None,
        ca: None,
        subject: None,
        version: None,
    }
}

/// Registries that give up almost at once.
fn hasty(lake: Option<Lake>) -> Registries {
    Registries::patient(
        lake,
        RegistryTimeouts {
            request: Duration::from_secs(5),
            budget: Duration::from_millis(60),
            pause: Duration::from_millis(20),
        },
    )
}

fn schema(found: Result<SchemaLookup, Unready>) -> Arc<RegisteredSchema> {
    match found.unwrap() {
        SchemaLookup::Schema(schema) => schema,
        SchemaLookup::Unknown => panic!("the registry says that there is none"),
    }
}

fn lake(folder: &tempfile::TempDir) -> Lake {
    Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap()
}

#[test]
fn a_schema_is_asked_for_once_and_then_found_in_the_lake_without_the_registry() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let id = mock.register("orders/eu-value", "AVRO", "\"string\"", json!([]));
    let registry = hasty(Some(lake(&folder))).registry(&settings(&[&mock.url])).unwrap();
    let first = schema(registry.schema(id));
    assert_eq!(first.to_string(), "schema 1 (orders/eu-value version 1)");
    let asked = mock.asked();
    assert_eq!(schema(registry.schema(id)), first);
    assert_eq!(mock.asked(), asked, "it was in memory");
    let settings = settings(&[&mock.url]);
    drop(mock);
    let registry = hasty(Some(lake(&folder))).registry(&settings).unwrap();
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
    let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
    let found = schema(registry.schema(id));
    let names: Vec<&str> = found
        .references
        .iter()
        .map(|reference| reference.name.as_str())
        .collect();
    assert_eq!(names, ["a.proto", "b.proto"]);
    assert_eq!(found.language, Language::Protobuf);
    assert!(matches!(registry.schema(broken), Ok(SchemaLookup::Unknown)));
}

#[test]
fn a_registry_that_does_not_answer_says_nothing_and_another_address_is_asked() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
    // An error page of a proxy is not the registry's answer, whatever its status.
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
    // Port 9 is the discard port, on which nothing listens.
    let registry = hasty(None)
        .registry(&settings(&["http://127.0.0.1:9", &mock.url]))
        .unwrap();
    assert_eq!(schema(registry.schema(id)).id, id);
}

#[test]
fn a_schema_that_the_registry_does_not_know_is_unknown_for_a_while() {
    let mock = Mock::start();
    let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
    assert!(matches!(registry.schema(7), Ok(SchemaLookup::Unknown)));
    let asked = mock.asked();
    assert!(matches!(registry.schema(7), Ok(SchemaLookup::Unknown)));
    assert_eq!(mock.asked(), asked);
}

#[test]
fn secrets_open_the_registry_and_are_never_printed() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    // The base64 text is user:secret.
    mock.demand("Basic dXNlcjpzZWNyZXQ=");
    let basic = |password: &str| definition::RegistrySettings {
        credentials: Some(Credentials::Basic {
            username: "user".to_string(),
            password: password.to_string(),
        }),
        ..settings(&[&mock.url])
    };
    let registry = hasty(None).registry(&basic("wrong-one")).unwrap();
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
    assert_eq!(
        schema(hasty(None).registry(&basic("secret")).unwrap().schema(id)).id,
        id
    );
    mock.demand("Bearer t0ken");
    let token = definition::RegistrySettings {
        credentials: Some(Credentials::Token("t0ken".to_string())),
        ..settings(&[&mock.url])
    };
    assert_eq!(schema(hasty(None).registry(&token).unwrap().schema(id)).id, id);
}

#[test]
fn the_schema_of_defaults_stays_the_same_until_the_definition_names_another() {
    let (mock, folder) = (Mock::start(), tempfile::tempdir().unwrap());
    let first = mock.register("s", "AVRO", "\"long\"", json!([]));
    let reader = |version| {
        let registry = hasty(Some(lake(&folder))).registry(&settings(&[&mock.url])).unwrap();
        registry.reader("s", version).unwrap().map(|schema| schema.id)
    };
    assert_eq!(reader(None), Some(first));
    let second = mock.register("s", "AVRO", "\"string\"", json!([]));
    assert_eq!(reader(None), Some(first), "a restart decodes as before");
    assert_eq!(reader(Some(2)), Some(second));
    assert_eq!(reader(Some(3)), None);
    let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
    assert_eq!(registry.newest("s").unwrap().unwrap().id, second);
    assert_eq!(registry.newest("nobody's").unwrap(), None);
}

#[test]
fn an_answer_is_awaited_inside_a_runtime_too() {
    let mock = Mock::start();
    let id = mock.register("s", "AVRO", "\"long\"", json!([]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
        assert_eq!(schema(registry.schema(id)).id, id);
        drop(registry);
    });
}

#[test]
fn authorities_that_cannot_be_read_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let with_ca = definition::RegistrySettings {
        ca: Some(path.clone()),
        ..settings(&["https://localhost"])
    };
    assert!(matches!(hasty(None).registry(&with_ca), Err(RegistryError::Ca { .. })));
    std::fs::write(&path, "no certificate").unwrap();
    assert!(matches!(hasty(None).registry(&with_ca), Err(RegistryError::Ca { .. })));
}

/// A server that prints its port, and then answers three requests over TLS.
const TLS_SERVER: &str = r#"
import http.server, ssl, sys
class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'[{"subject": "s", "version": 1}]' if self.path.endswith("/versions") else b'{"schema": "\\"long\\""}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Registry)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
fn a_registry_behind_an_own_authority_is_trusted_by_its_file_alone() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let run = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output();
        run.is_ok_and(|run| run.status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(
        folder.path().join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
    )
    .unwrap();
    let made = openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"
    )) && openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=localhost"
    )) && openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
    let server = Command::new("python3")
        .args(["-c", TLS_SERVER])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let (true, Ok(mut server)) = (made, server) else {
        skip(Prerequisite::Tools, "needs openssl and python3");
        return;
    };
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let url = format!("https://localhost:{}", port.trim());
    let asked = |ca: Option<std::path::PathBuf>| {
        let with_ca = definition::RegistrySettings {
            ca,
            ..settings(&[&url])
        };
        let registry = hasty(None).registry(&with_ca).unwrap();
        registry.schema(1).map(|_| ())
    };
    let (trusting, doubting) = (asked(Some(folder.path().join("ca.pem"))), asked(None));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(trusting, Ok(()));
    let reason = doubting.unwrap_err().reason;
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
}

#[test]
fn a_schema_is_registered_once_and_one_that_is_not_compatible_is_told_in_the_registrys_words() {
    let mock = Mock::start();
    let registry = hasty(None).registry(&settings(&[&mock.url])).unwrap();
    let register = |text| registry.register("sales/eu-value", text).unwrap();
    assert_eq!(register("\"string\""), RegistrationOutcome::As(1));
    assert_eq!(register("\"long\""), RegistrationOutcome::As(2));
    mock.refuse("sales/eu-value");
    assert_eq!(register("\"string\""), RegistrationOutcome::As(1));
    let RegistrationOutcome::Refused(reason) = register("\"int\"") else {
        panic!("it was taken")
    };
    assert_eq!(reason, "incompatible with version 1");
    mock.fail(Some(StatusCode::SERVICE_UNAVAILABLE));
    let error = registry.register("sales/eu-value", "\"string\"").unwrap_err();
    assert!(error.to_string().contains("sales/eu-value"), "{error}");
}
