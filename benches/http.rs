//! Requests and rows a second that the HTTP feed takes over loopback, each answered once its rows are synced.
//!
//! `cargo bench --bench http` (`-- "100 rows"` for some cases alone). A run listens in this process; so many clients post
//! bodies of so many rows of NDJSON, one after another, for some seconds. A client that is put off (429) waits a little and
//! posts again.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod support;

use std::time::{Duration, Instant};

use reqwest::Client;
use support::{Running, posted_events};

/// How long each case posts.
const LENGTH: Duration = Duration::from_secs(5);
/// The longest that the run may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client waits that was put off.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    println!("posted rows, synced\n{}\n", common::machine());
    let (folder, listen) = posted_events("posted", "");
    let running = Running::start(folder.load("lake"), 1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .expect("a client");
    runtime.block_on(listening(&client, &format!("http://{listen}/healthz")));

    let url = format!("http://{listen}/v1/inputs/events");
    let mut table = common::Table::new(&["case", "requests/s", "rows/s", "put off"]);
    for rows in [1u64, 100, 10_000] {
        for clients in [1usize, 32] {
            let name = format!("{rows} rows, {clients} clients");
            if !common::wanted(&name) {
                continue;
            }
            let body: String = (0..rows)
                .map(|id| format!("{{\"id\": {id}, \"kind\": \"row {}\"}}\n", id % 7))
                .collect();
            let started = Instant::now();
            let (taken, put_off) = runtime.block_on(async {
                let posting = (0..clients).map(|_| post(&client, &url, &body));
                let counts = futures::future::join_all(posting).await;
                counts.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
            });
            let each_second = taken as f64 / started.elapsed().as_secs_f64();
            table.row(&[
                name,
                format!("{each_second:.0}"),
                format!("{:.0}", each_second * rows as f64),
                put_off.to_string(),
            ]);
        }
    }
    running.stop();
    table.print();
}

/// Returns once the run answers.
async fn listening(client: &Client, url: &str) {
    let started = Instant::now();
    while !matches!(client.get(url).send().await, Ok(answer) if answer.status().is_success()) {
        assert!(started.elapsed() < PATIENCE, "nobody listens at {url}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// One client: how many of its requests were taken, and how many were put off.
async fn post(client: &Client, url: &str, body: &str) -> (u64, u64) {
    let (started, mut taken, mut put_off) = (Instant::now(), 0, 0);
    while started.elapsed() < LENGTH {
        let request = client
            .post(url)
            .header("content-type", "application/x-ndjson")
            .body(body.to_string());
        match request.send().await.expect("an answer").status().as_u16() {
            200 => taken += 1,
            429 => {
                put_off += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => panic!("answered with {other}"),
        }
    }
    (taken, put_off)
}
