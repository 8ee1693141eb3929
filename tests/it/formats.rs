//! Tests records with schema ids, from a log to tables: with the registry away, with a new version, and recomputed
//! without the registry.

use serde_json::json;

use crate::avro_bytes::{line, long, text};
use crate::commands::{alluvium, exits, text as output_text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::registry::Mock;
use crate::support::{Folder, Running, catch_up, recompute};
use axum::http::StatusCode;

const VERSIONS: [&str; 2] = [
    r#"{"type":"record","name":"Account","fields":[{"name":"id","type":"long"},{"name":"name","type":"string"}]}"#,
    r#"{"type":"record","name":"Account","fields":[{"name":"id","type":"long"},{"name":"name","type":"string"},
        {"name":"city","type":["null","string"],"default":null}]}"#,
];

fn folder(url: &str) -> Folder {
    let input = "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\nname = \"VARCHAR\"\ncity = \"VARCHAR\"\n\
                 [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"avro\"\n";
    let folder = Folder::new("formats", &[("inputs/accounts.toml", input)]);
    folder.write("silver/accounts.sql", "SELECT id, name, city FROM accounts");
    // The registry in dataflow.toml applies to every feed.
    let root = std::fs::read_to_string(folder.path().join("dataflow.toml")).expect("it was written");
    folder.write("dataflow.toml", &format!("{root}registry = {{ url = {url:?} }}\n"));
    folder
}

#[test]
fn avro_records_wait_for_their_registry_and_are_made_again_without_it() {
    let mock = Mock::start();
    let folder = folder(&mock.url);
    let dataflow = folder.load("lake");
    let first = mock.register("accounts-value", "AVRO", VERSIONS[0], json!([]));
    folder.append("live/0.ndjson", &line(first, &[long(1), text("Ann")]));
    folder.append("live/0.ndjson", &line(first, &[long(2), text("Bob")]));
    // This record is too short.
    folder.append("live/0.ndjson", &line(first, &[long(3), long(99)]));
    catch_up(&dataflow, 2);
    let accounts = || ask(&dataflow, "SELECT id, name, city FROM silver.accounts ORDER BY id");
    assert_eq!(accounts(), "1,Ann,\n2,Bob,");
    let letters = || ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(
        letters().contains("written by schema 1 (accounts-value version 1)"),
        "{}",
        letters()
    );

    // The registry fails while a record of a new version comes: the record waits, and nothing is refused.
    let second = mock.register("accounts-value", "AVRO", VERSIONS[1], json!([]));
    mock.fail(Some(StatusCode::SERVICE_UNAVAILABLE));
    folder.append(
        "live/0.ndjson",
        &line(second, &[long(2), text("Bea"), long(1), text("Bonn")]),
    );
    let asked = mock.asked();
    let running = Running::start(dataflow.clone(), 2);
    // A run that had refused the record would not ask for its schema again and again.
    running.wait_until(|| mock.asked() >= asked + 5);
    assert_eq!(letters().lines().count(), 1, "the letter from before: {}", letters());
    assert_eq!(accounts(), "1,Ann,\n2,Bob,");
    mock.fail(None);
    running.wait_until(|| accounts() == "1,Ann,\n2,Bea,Bonn");
    running.stop();

    // Bronze and the registry's schemas in the lake suffice.
    drop(mock);
    assert_newest_is_exact(&dataflow, "the lake without a registry");
    recompute(&dataflow, 1);
    assert_eq!(accounts(), "1,Ann,\n2,Bea,Bonn");
}

/// A run until caught up never ended while the registry was away.
#[test]
fn a_run_that_ends_names_the_registry_that_is_away_and_leaves_its_records_to_the_next() {
    let mock = Mock::start();
    let folder = folder(&mock.url);
    let dataflow = folder.load("lake");
    let accounts = || ask(&dataflow, "SELECT id, name FROM silver.accounts ORDER BY id");
    let lake = folder.lake("lake").display().to_string();
    let run = || alluvium(&["run", ".", "--until-caught-up", "--lake", &lake], folder.path());
    let first = mock.register("accounts-value", "AVRO", VERSIONS[0], json!([]));
    folder.append("live/0.ndjson", &line(first, &[long(1), text("Ann")]));
    exits(&run(), 0);
    let second = mock.register("accounts-value", "AVRO", VERSIONS[1], json!([]));
    mock.fail(Some(StatusCode::SERVICE_UNAVAILABLE));
    let record = [long(2), text("Bob"), long(0)];
    folder.append("live/0.ndjson", &line(second, &record));
    let output = run();
    exits(&output, 1);
    let said = output_text(&output);
    assert!(
        said.contains("not caught up: feed accounts.live: could not ask the schema registry"),
        "{said}"
    );
    assert_eq!(accounts(), "1,Ann");
    mock.fail(None);
    exits(&run(), 0);
    assert_eq!(accounts(), "1,Ann\n2,Bob");
}
