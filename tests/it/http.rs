//! Tests rows that clients post: they are acknowledged once they are stored, refused with a reason, and counted once,
//! even if processes are killed, requests repeated or writes torn.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::run::{Options, RunError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cluster::Processes;
use crate::lake::{ask, assert_all_are_exact, assert_newest_is_exact};
use crate::support::{Folder, POSTED_EVENTS, Running, Size, catch_up, chain, posted_events, recompute, run_all};
use crate::testing::{Prerequisite, skip};

/// The most time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A dataflow of posted events, and a client of it. `http`: further settings of `[http]`.
fn events(name: &str, http: &str) -> (Folder, Client) {
    let (folder, listen) = posted_events(name, http);
    (folder, Client::of(&format!("http://{listen}")))
}

/// A client that posts rows.
struct Client {
    runtime: Runtime,
    client: reqwest::Client,
    url: String,
}

/// The server's response.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: HeaderMap,
    told: Value,
}

impl Answered {
    fn error(&self) -> &str {
        self.told["error"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn assert_accepted(&self, rows: u64) {
        assert_eq!((self.status, &self.told), (200, &json!({"accepted": rows})), "{self:?}");
    }

    #[track_caller]
    fn assert_refused(&self, status: u16, says: &str) {
        assert!(
            self.status == status && self.error().contains(says),
            "{status}, {says:?}: {self:?}"
        );
    }

    fn replayed(&self) -> bool {
        self.headers.contains_key("idempotent-replayed")
    }
}

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const JSON: (&str, &str) = ("content-type", "application/json");

impl Client {
    fn of(url: &str) -> Client {
        Client::with(url, reqwest::Client::builder())
    }

    fn with(url: &str, client: reqwest::ClientBuilder) -> Client {
        Client {
            runtime: Runtime::new().expect("a runtime"),
            client: client.no_proxy().timeout(PATIENCE).build().expect("a client"),
            url: url.to_string(),
        }
    }

    /// Posts a request; none if there is no response.
    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Option<Answered> {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answered(request.send().await.ok()?).await
    }

    #[track_caller]
    fn post(&self, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answered {
        self.post_to("/v1/inputs/events", headers, body)
    }

    #[track_caller]
    fn post_to(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answered {
        self.runtime
            .block_on(self.send(path, headers, body))
            .expect("an answer")
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Option<Answered> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime
            .block_on(async { answered(request.send().await.ok()?).await })
    }

    /// Waits until the server listens.
    #[track_caller]
    fn wait(&self) {
        let started = Instant::now();
        while self.get("/healthz", &[]).is_none_or(|answered| answered.status != 200) {
            assert!(started.elapsed() < PATIENCE, "nobody listens at {}", self.url);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The host and port of the URL.
    fn address(&self) -> &str {
        self.url.split("//").nth(1).expect("a URL")
    }
}

async fn answered(response: reqwest::Response) -> Option<Answered> {
    Some(Answered {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        told: serde_json::from_slice(&response.bytes().await.ok()?).expect("every answer is JSON"),
    })
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).expect("memory");
    gzip.finish().expect("memory")
}

fn lines(ids: std::ops::Range<u64>, kind: &str) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"kind\":\"{kind}\"}}\n")).collect()
}

fn kinds(dataflow: &Dataflow) -> String {
    ask(dataflow, "SELECT kind, n, ids FROM gold.kinds ORDER BY kind")
}

/// The segments of the log of posted rows, in order.
fn segments(dataflow: &Dataflow) -> Vec<PathBuf> {
    let folder = PathBuf::from(&dataflow.lake).join("_alluvium/http/events.posted");
    let entries = std::fs::read_dir(folder).expect("the log's folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    found.sort();
    found
}

#[test]
fn rows_of_every_shape_are_in_the_tables_once_at_any_size() {
    for size in [(1, 1), (1, 2), (2, 1)] {
        let (folder, client) = events("shapes", "");
        let dataflow = folder.load("lake");
        let running = Running::start(dataflow.clone(), size);
        client.wait();
        client
            .post(&[JSON], "{\"id\": 1, \"kind\": \"one\"}")
            .assert_accepted(1);
        client
            .post(
                &[JSON],
                "[{\"id\": 2, \"kind\":\n \"array\"}, {\"id\": 3, \"kind\": \"array\"}]",
            )
            .assert_accepted(2);
        client
            .post(&[NDJSON], lines(0..10_000, "lines"))
            .assert_accepted(10_000);
        let compressed = gzip(&lines(0..1000, "gzip"));
        client
            .post(&[NDJSON, ("content-encoding", "gzip")], compressed)
            .assert_accepted(1000);
        let compressed = zstd::encode_all(lines(0..1000, "zstd").as_bytes(), 3).expect("memory");
        client
            .post(&[NDJSON, ("content-encoding", "zstd")], compressed)
            .assert_accepted(1000);
        client.post(&[JSON], "[]").assert_accepted(0);
        // A row that does not fit the columns is accepted, and becomes a dead letter.
        client
            .post(
                &[NDJSON],
                "{\"id\": 4, \"kind\": \"good\"}\n{\"id\": \"x\"}\n7\n{\"kind\": \"no id\"}\nnull\n",
            )
            .assert_accepted(5);
        let told = client.get("/v1/inputs", &[]).expect("an answer").told;
        assert_eq!(
            told,
            json!({"inputs": [{"name": "events", "columns": [
                {"name": "id", "type": "BIGINT", "nullable": false},
                {"name": "kind", "type": "VARCHAR", "nullable": true}]}]})
        );
        let outcome = running.stop();
        assert_eq!(outcome.records, 12_008, "{size:?}");
        assert_eq!(
            kinds(&dataflow),
            "array,2,5\ngood,1,4\ngzip,1000,499500\nlines,10000,49995000\none,1,1\nzstd,1000,499500",
            "{size:?}"
        );
        let letters = ask(
            &dataflow,
            "SELECT CAST(payload AS VARCHAR) AS payload FROM dead_letters ORDER BY payload",
        );
        assert_eq!(
            letters, "7\nnull\n\"{\"\"id\"\": \"\"x\"\"}\"\n\"{\"\"kind\"\": \"\"no id\"\"}\"",
            "{size:?}"
        );
        assert!(assert_all_are_exact(&dataflow) > 1, "{size:?}");
        // No row comes again.
        let outcome = catch_up(&dataflow, size);
        assert_eq!((outcome.records, outcome.corrections), (0, Some(vec![])), "{size:?}");
    }
}

#[test]
fn changes_are_posted_as_debezium_tells_them() {
    let (folder, client) = events("changes", "");
    folder.write(
        "inputs/events.toml",
        &format!(
            "key = [\"id\"]\n{}",
            POSTED_EVENTS.replace("\"json\"", "\"debezium-json\"")
        ),
    );
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    client.wait();
    let change =
        |op: &str, before: Value, after: Value| json!({"op": op, "before": before, "after": after, "ts_ms": 1});
    let row = |id: u64, kind: &str| json!({"id": id, "kind": kind});
    let changes = json!([
        change("c", Value::Null, row(1, "new")),
        change("c", Value::Null, row(2, "new")),
        change("u", row(1, "new"), row(1, "paid")),
        change("d", row(2, "new"), Value::Null),
    ]);
    client.post(&[JSON], changes.to_string()).assert_accepted(4);
    running.stop();
    assert_eq!(kinds(&dataflow), "paid,1,1");
    assert_newest_is_exact(&dataflow, "changes");
}

#[test]
fn every_refusal_has_its_code_and_says_what_to_do_and_takes_nothing() {
    let (folder, client) = events("refused", "max_body = \"0.01 MB\"\ntimeout = \"500ms\"\n");
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    client.wait();
    let refused = client.post(&[NDJSON], "{\"id\": 1}\n{\"id\": 2}\n{\"id\": 3");
    refused.assert_refused(400, "line 3 is not JSON");
    assert_eq!(refused.told["line"], 3);
    client
        .post(&[JSON], "[{\"id\": 1},\n{\"id\" 2}]")
        .assert_refused(400, "line 2");
    client
        .post(&[NDJSON, ("content-encoding", "gzip")], "{\"id\": 1}")
        .assert_refused(400, "not compressed");
    client
        .post(&[JSON, ("idempotency-key", "")], "{\"id\": 1}")
        .assert_refused(400, "Idempotency-Key");
    client
        .post_to("/v1/inputs/event", &[JSON], "{\"id\": 1}")
        .assert_refused(404, "those that do are events");
    client
        .post_to("/v2", &[JSON], "{}")
        .assert_refused(404, "/v1/inputs/<name>");
    let refused = client.get("/v1/inputs/events", &[]).expect("an answer");
    refused.assert_refused(405, "by POST");
    assert_eq!(refused.headers["allow"], "POST");
    client.post(&[], "{\"id\": 1}").assert_refused(415, "no Content-Type");
    client
        .post(&[("content-type", "text/csv")], "id\n1\n")
        .assert_refused(415, "application/x-ndjson");
    client
        .post(&[JSON, ("content-encoding", "br")], "{\"id\": 1}")
        .assert_refused(415, "gzip, zstd");
    // Bodies are too large by their declared length, by their sent bytes, or by their uncompressed bytes.
    let large = lines(0..1000, "large");
    client.post(&[NDJSON], large.clone()).assert_refused(413, "10000 bytes");
    let mut unsized_body = TcpStream::connect(client.address()).expect("a connection");
    let chunks: String = large
        .lines()
        .map(|line| format!("{:x}\r\n{line}\n\r\n", line.len() + 1))
        .collect();
    write!(
        unsized_body,
        "POST /v1/inputs/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
    .expect("sent");
    let mut said = String::new();
    unsized_body.read_to_string(&mut said).expect("an answer, and the end");
    assert!(
        said.starts_with("HTTP/1.1 413") && said.contains("several requests"),
        "{said}"
    );
    let small = gzip(&large);
    assert!(small.len() < 9000, "{}", small.len());
    client
        .post(&[NDJSON, ("content-encoding", "gzip")], small)
        .assert_refused(413, "compressed or not");
    // This client stops in the middle of a request.
    let mut slow = TcpStream::connect(client.address()).expect("a connection");
    write!(
        slow,
        "POST /v1/inputs/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"id\":"
    )
    .expect("sent");
    let mut said = String::new();
    slow.read_to_string(&mut said).expect("an answer, and the end");
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    client
        .post(&[JSON], "{\"id\": 1, \"kind\": \"good\"}")
        .assert_accepted(1);
    let outcome = running.stop();
    assert_eq!(outcome.records, 1);
    assert_eq!(kinds(&dataflow), "good,1,1");
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let secret = "abcdefghijklmnop-the-first";
    let (folder, client) = events(
        "tokens",
        &format!("token = [\"{secret}\", \"abcdefghijklmnop-the-second\"]\n"),
    );
    let dataflow = folder.load("lake");
    assert!(!format!("{dataflow:?}").contains("abcdef"), "{dataflow:?}");
    let running = Running::start(dataflow.clone(), 1);
    client.wait();
    let row = "{\"id\": 1, \"kind\": \"x\"}";
    for wrong in [
        "",
        "Bearer",
        "Bearer x",
        "Basic abcdefghijklmnop-the-first",
        "Bearer abcdefghijklmnop-the-firs",
    ] {
        let refused = client.post(&[JSON, ("authorization", wrong)], row);
        refused.assert_refused(401, "Authorization: Bearer");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    client.post(&[JSON], row).assert_refused(401, "needs its token");
    client
        .post_to("/v1/inputs/none", &[JSON], row)
        .assert_refused(401, "needs its token");
    assert_eq!(client.get("/v1/inputs", &[]).expect("an answer").status, 401);
    for right in [
        format!("Bearer {secret}"),
        "bearer  abcdefghijklmnop-the-second".to_string(),
    ] {
        client.post(&[JSON, ("authorization", &right)], row).assert_accepted(1);
        let told = client
            .get("/v1/inputs", &[("authorization", &right)])
            .expect("an answer");
        assert_eq!(told.status, 200);
    }
    running.stop();
    assert_eq!(kinds(&dataflow), "x,2,2");
}

#[test]
fn rows_come_over_tls_and_a_broken_certificate_is_told_at_the_start() {
    let (folder, plain) = events("tls", "tls = { cert = \"server.pem\", key = \"server.key\" }\n");
    let openssl = |arguments: &str| {
        let run = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output();
        run.is_ok_and(|run| run.status.success())
    };
    folder.write("names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let made = openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"
    )) && openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=localhost"
    )) && openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
    if !made {
        skip(Prerequisite::Tools, "needs openssl");
        return;
    }
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    let ca = std::fs::read(folder.path().join("ca.pem")).expect("the authority");
    let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
    let url = format!("https://{}", plain.address());
    let client = Client::with(&url, reqwest::Client::builder().tls_certs_only([ca]));
    client.wait();
    // A client that does not complete the TLS handshake keeps nobody waiting.
    let _silent = TcpStream::connect(plain.address()).expect("a connection");
    client.post(&[JSON], "{\"id\": 1, \"kind\": \"x\"}").assert_accepted(1);
    assert!(plain.get("/healthz", &[]).is_none(), "without TLS nobody answers");
    running.stop();
    assert_eq!(kinds(&dataflow), "x,1,1");
    folder.write("server.pem", "no certificate\n");
    let ended = run_all(&dataflow, Size::from(1), &Default::default()).remove(0);
    let error = chain(&ended.expect_err("no certificate"));
    assert!(error.contains("certificate or key of [http] tls"), "{error}");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let (folder, client) = events("taken", "");
    let _other = std::net::TcpListener::bind(client.address()).expect("the port");
    let ended = run_all(&folder.load("lake"), Size::from(1), &Default::default()).remove(0);
    let Err(error @ RunError::Source(_)) = ended else {
        panic!("{ended:?}")
    };
    let error = chain(&error);
    assert!(
        error.contains("change [http] listen") && error.contains(client.address()),
        "{error}"
    );
}

#[test]
fn a_key_that_comes_again_adds_nothing_at_once_later_and_behind_a_restart() {
    let (folder, client) = events("keys", "");
    let dataflow = folder.load("lake");
    let body = "{\"id\": 5, \"kind\": \"once\"}\n{\"id\": 6, \"kind\": \"once\"}\n";
    let with = |key: &'static str| [NDJSON, ("idempotency-key", key)];
    for life in 0..3 {
        let running = Running::start(dataflow.clone(), 1 + life % 2);
        client.wait();
        for round in 0..2 {
            let answered = client.post(&with("first"), body);
            answered.assert_accepted(2);
            assert_eq!(answered.replayed(), life + round > 0, "{answered:?}");
        }
        client
            .post(&with("first"), "{\"id\": 5, \"kind\": \"other\"}")
            .assert_refused(422, "another body");
        // A compressed body counts as equal: only its uncompressed content matters.
        let headers = [NDJSON, ("idempotency-key", "first"), ("content-encoding", "gzip")];
        assert!(client.post(&headers, gzip(body)).replayed());
        // Many equal requests are sent at once.
        let key = format!("together-{life}");
        let answers = client.runtime.block_on(async {
            let headers = [NDJSON, ("idempotency-key", &*key)];
            let row = "{\"id\": 1, \"kind\": \"together\"}";
            let all = (0..50).map(|_| client.send("/v1/inputs/events", &headers, row));
            futures::future::join_all(all).await
        });
        let answers: Vec<Answered> = answers
            .into_iter()
            .map(|answered| answered.expect("an answer"))
            .collect();
        answers.iter().for_each(|answered| answered.assert_accepted(1));
        assert_eq!(answers.iter().filter(|answered| !answered.replayed()).count(), 1);
        running.stop();
        assert_eq!(kinds(&dataflow), format!("once,2,11\ntogether,{0},{0}", life + 1));
        assert_newest_is_exact(&dataflow, "keys");
        assert!(segments(&dataflow).len() <= 2, "what a snapshot holds is removed");
    }
    // A key is forgotten after its time, and then its rows count again.
    folder.write(
        "dataflow.toml",
        &std::fs::read_to_string(folder.path().join("dataflow.toml"))
            .expect("the settings")
            .replace("[http]", "[http]\nremember = \"1ms\""),
    );
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    client.wait();
    let answered = client.post(&with("first"), body);
    answered.assert_accepted(2);
    assert!(!answered.replayed());
    running.stop();
    assert_eq!(kinds(&dataflow), "once,4,22\ntogether,3,3");
}

#[test]
fn a_feed_that_is_not_read_puts_requests_off_and_loses_none() {
    let (folder, client) = events("full", "max_waiting = \"0.1 MB\"\n");
    let settings = std::fs::read_to_string(folder.path().join("dataflow.toml")).expect("the settings");
    // Any process takes more memory than this, so nothing is read.
    folder.write(
        "dataflow.toml",
        &settings.replace("[http]", "memory_limit = \"1 MiB\"\n[http]"),
    );
    let held = folder.load("lake");
    let running = Running::start(held.clone(), 1);
    client.wait();
    let (mut taken, mut sent) = (0, 0);
    let put_off = loop {
        let answered = client.post(&[NDJSON], lines(0..20_000, "row"));
        if answered.status != 200 {
            break answered;
        }
        sent += 1;
        taken += answered.told["accepted"].as_u64().expect("a number");
        assert!(sent < 1000, "nothing was put off");
    };
    put_off.assert_refused(429, "max_waiting");
    assert_eq!(put_off.headers["retry-after"], HeaderValue::from_static("1"));
    running.stop();
    folder.write("dataflow.toml", &settings);
    let free = folder.load("lake");
    catch_up(&free, 2);
    assert_eq!(ask(&free, "SELECT n FROM gold.kinds"), taken.to_string());
    assert_newest_is_exact(&free, "without a limit");
}

#[test]
fn without_bronze_the_log_stays_and_an_input_is_made_of_it_again() {
    let (folder, client) = events("no-bronze", "folder = \"requests\"\n");
    folder.write("inputs/events.toml", &format!("bronze = false\n{POSTED_EVENTS}"));
    let dataflow = folder.load("lake");
    for life in 1..4u64 {
        let running = Running::start(dataflow.clone(), 1);
        client.wait();
        client.post(&[NDJSON], lines(0..1000, "row")).assert_accepted(1000);
        running.stop();
        assert_eq!(ask(&dataflow, "SELECT n FROM gold.kinds"), (life * 1000).to_string());
    }
    let logs = std::fs::read_dir(folder.path().join("requests/events.posted")).expect("the folder that is named");
    let logs = logs.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|e| e.path().extension().is_some_and(|e| e == "log"))
    });
    assert_eq!(logs.count(), 3);
    assert_eq!(recompute(&dataflow, 2).corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.kinds"), "3000");
    // If a part of the log is missing, its rows do not count as retracted.
    std::fs::remove_file(folder.path().join("requests/events.posted/00000000000000000000.log")).expect("removed");
    let again = Options {
        recompute: true,
        until_caught_up: true,
        ..Options::default()
    };
    let ended = run_all(&dataflow, Size::from(1), &again).remove(0);
    let error = chain(&ended.expect_err("the log is not whole"));
    assert!(error.contains("segments are missing"), "{error}");
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.kinds"), "3000");
}

/// The real binary, as a single process.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(folder: &Folder, dataflow: &Dataflow, workers: usize) -> Process {
        let log = folder.path().join("process.log");
        let said = std::fs::File::create(&log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .arg("run")
            .arg(folder.path())
            .args(["-w", &workers.to_string(), "--lake", &dataflow.lake])
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a log"))
            .stderr(said)
            .spawn();
        Process {
            child: child.expect("the binary runs"),
            log,
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success(), "{signal}: {}", self.said());
    }

    fn end(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it goes on: {}", self.said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- it said:\n{}", self.said());
        }
    }
}

#[test]
fn a_run_that_is_to_end_answers_what_is_under_way_and_commits_it() {
    let (folder, client) = events("drained", "");
    let dataflow = folder.load("lake");
    let mut process = Process::start(&folder, &dataflow, 2);
    client.wait();
    let body = lines(0..1000, "late");
    let (first, second) = body.split_at(100);
    let mut slow = TcpStream::connect(client.address()).expect("a connection");
    slow.set_nodelay(true).expect("a socket");
    write!(
        slow,
        "POST /v1/inputs/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{first}",
        body.len()
    )
    .expect("sent");
    // The request is under way.
    client.post(&[NDJSON], "no JSON").assert_refused(400, "line 1");
    client.post(&[NDJSON], lines(0..3, "early")).assert_accepted(3);
    let started = Instant::now();
    while !process
        .said()
        .contains("feed events.posted: 3 records, 1 requests, 1 refused")
    {
        assert!(
            started.elapsed() < PATIENCE,
            "no report of the feed: {}",
            process.said()
        );
        process.signal("-USR1");
        std::thread::sleep(Duration::from_millis(100));
    }
    process.signal("-TERM");
    let started = Instant::now();
    while TcpStream::connect(client.address()).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    slow.write_all(second.as_bytes()).expect("sent");
    let mut said = String::new();
    slow.read_to_string(&mut said).expect("an answer, and the end");
    assert!(
        said.starts_with("HTTP/1.1 200") && said.contains("\"accepted\":1000"),
        "{said}"
    );
    assert_eq!(process.end(), Some(0), "{}", process.said());
    assert!(process.said().contains("took 1003 records"), "{}", process.said());
    assert_eq!(kinds(&dataflow), "early,3,3\nlate,1000,499500");
}

/// Posts a client's rows, each request with a key, and repeats each request until it is acknowledged. Returns the
/// acknowledged ids.
fn insist(client: &Client, who: u64, stop: &AtomicBool, answered: &AtomicU64) -> BTreeSet<u64> {
    let mut rng = StdRng::seed_from_u64(who);
    let mut accepted = BTreeSet::new();
    let mut next = who << 32;
    while !stop.load(Ordering::Acquire) {
        let rows = [1, 3, 40, 700][rng.random_range(0..4)];
        let ids = next..next + rows;
        next += rows;
        let (key, body) = (format!("{who}-{}", ids.start), lines(ids.clone(), "row"));
        let headers = [NDJSON, ("idempotency-key", &*key)];
        let mut lost = rng.random_bool(0.2); // The client may lose the first response.
        loop {
            let sent = client.send("/v1/inputs/events", &headers, body.clone());
            match client.runtime.block_on(sent) {
                Some(answer) if answer.status == 200 && !std::mem::take(&mut lost) => {
                    answer.assert_accepted(rows);
                    accepted.extend(ids);
                    answered.fetch_add(1, Ordering::AcqRel);
                    break;
                }
                Some(answer) => assert!([200, 429, 503].contains(&answer.status), "{answer:?}"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
    accepted
}

/// Asserts that the table has exactly the acknowledged rows, once each.
fn assert_has(dataflow: &Dataflow, accepted: &BTreeSet<u64>) {
    let count = ask(
        dataflow,
        "SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids FROM silver.events",
    );
    assert_eq!(count, format!("{0},{0}", accepted.len()));
    let sum: u64 = accepted.iter().sum();
    assert_eq!(ask(dataflow, "SELECT SUM(id) AS s FROM silver.events"), sum.to_string());
    assert_newest_is_exact(dataflow, "what was answered");
}

#[test]
fn what_was_answered_is_in_the_tables_once_whatever_is_killed_and_repeated() {
    let (folder, client) = events("killed", "");
    let dataflow = folder.load("lake");
    let kills = std::env::var("ALLUVIUM_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(12);
    let mut rng = StdRng::seed_from_u64(7);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients: Vec<Client> = (0..4).map(|_| Client::of(&client.url)).collect();
    let accepted = std::thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let stopping = Stop(&stop);
        let clients = clients.iter().enumerate();
        let threads: Vec<_> = clients
            .map(|(who, client)| {
                let (stop, answered) = (&stop, &answered);
                scope.spawn(move || insist(client, who as u64 + 1, stop, answered))
            })
            .collect();
        for kill in 0..kills {
            let before = answered.load(Ordering::Acquire);
            let mut process = Process::start(&folder, &dataflow, 1 + kill % 2);
            let started = Instant::now();
            while answered.load(Ordering::Acquire) < before + 5 {
                assert!(started.elapsed() < PATIENCE, "nothing is answered: {}", process.said());
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
            process.signal("-KILL");
            assert_eq!(process.end(), None);
            if kill % 3 == 1 {
                // This simulates a write that the kill tore.
                let newest = segments(&dataflow).pop().expect("a segment");
                let mut log = std::fs::OpenOptions::new().append(true).open(newest).expect("the log");
                log.write_all(b"5f3a09c1 {\"rows\":1,\"bytes\":10,\"at\":17952")
                    .expect("torn");
            }
        }
        let mut last = Process::start(&folder, &dataflow, 2);
        client.wait();
        drop(stopping);
        let sets = threads.into_iter().map(|thread| thread.join().expect("clients agree"));
        let accepted: BTreeSet<u64> = sets.flatten().collect();
        // Segments whose rows are in snapshots are deleted, however many there are.
        let started = Instant::now();
        while segments(&dataflow).len() > 2 {
            assert!(started.elapsed() < PATIENCE, "{:?}", segments(&dataflow));
            std::thread::sleep(Duration::from_millis(20));
        }
        last.signal("-TERM");
        assert_eq!(last.end(), Some(0), "{}", last.said());
        accepted
    });
    assert!(accepted.len() > kills * 100, "only {} rows", accepted.len());
    assert_has(&dataflow, &accepted);
    assert_eq!(recompute(&dataflow, 1).corrections, Some(vec![]));
}

#[test]
fn of_two_processes_the_first_listens_and_what_it_answered_outlives_both() {
    let (folder, client) = events("both", "");
    let dataflow = folder.load("lake");
    let environment = vec![("ALLUVIUM_SECRET", "the secret of these processes".to_string())];
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let accepted = std::thread::scope(|scope| {
        let poster = Client::of(&client.url);
        let (stop, answered) = (&stop, &answered);
        let thread = scope.spawn(move || insist(&poster, 1, stop, answered));
        for victim in [0, 1, 2] {
            let mut processes = Processes::over(folder.path(), folder.path(), 2, 1).with(environment.clone());
            processes.start_all(&["--lake", &dataflow.lake]);
            let before = answered.load(Ordering::Acquire);
            processes.wait_until("answers", |_| answered.load(Ordering::Acquire) > before + 20);
            if victim == 2 {
                stop.store(true, Ordering::Release);
                let accepted = thread.join().expect("the client agrees");
                processes.signal(0, "-TERM");
                processes.assert_ends(0, PATIENCE, 0, &["took "]);
                processes.assert_ends(1, PATIENCE, 0, &[]);
                return accepted;
            }
            processes.signal(victim, "-KILL");
            processes.end(victim, PATIENCE);
            processes.end(1 - victim, PATIENCE);
        }
        unreachable!("the last life returns")
    });
    assert_has(&dataflow, &accepted);
}
