//! Readers we did not write: DuckDB, Polars and deltalake for Python read every table as `query` does, while a
//! run goes on and after it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use alluvium::definition::Dataflow;
use alluvium::serve::{OutputFormat, Reader};

use crate::support::{Folder, catch_up, chain};

/// The Python with the readers (`scripts/readers.sh` installs it and names it).
fn python() -> Option<String> {
    let python = std::env::var("ALLUVIUM_PYTHON").ok();
    if python.is_none() {
        eprintln!("SKIPPED: no Python with DuckDB, Polars and deltalake: scripts/test installs one");
    }
    python
}

const ROWS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
name = "VARCHAR"
amount = "DECIMAL(12,2)"
at = "TIMESTAMP"
[[feeds]]
name = "live"
kind = "log"
path = "live/rows"
format = "json"
"#;

fn record(id: u32, version: u32) -> String {
    format!(
        "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"name\": \"n{version}\", \"amount\": \"{version}.25\", \"at\": \"2024-01-01T00:00:{:02}\"}}}}\n",
        version % 60
    )
}

/// What the other engines see: for each, a line `engine table rows sum-of-ids sum-of-amounts`.
fn others(python: &str, dataflow: &Dataflow, version: i64) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/readers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&dataflow.lake)
        .arg(version.to_string())
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn duckdb_polars_and_deltalake_agree_with_query_deletion_vectors_included() {
    let Some(python) = python() else { return };
    let folder = Folder::new("others", &[("inputs/rows.toml", ROWS)]);
    folder.write("silver/rows.sql", "SELECT id, name, amount, at FROM rows");
    folder.write("silver/rows.toml", "deletes = \"vectors\"\n");
    folder.write(
        "gold/by_name.sql",
        "SELECT name, COUNT(*) AS n, SUM(amount) AS amount FROM silver.rows GROUP BY name",
    );
    let dataflow: Arc<Dataflow> = folder.load("lake");
    let mut checked = 0;
    for round in 0..6u32 {
        let mut lines = String::new();
        for id in 0..600 {
            if round == 0 || (id + round) % 7 == 0 {
                lines.push_str(&record(id, id + round * 1000));
            } else if (id + round) % 31 == 0 {
                lines.push_str(&format!("{{\"key\": {{\"id\": {id}}}, \"value\": null}}\n"));
            }
        }
        folder.append("live/rows/0.ndjson", &lines);
        catch_up(&dataflow, 2);
        std::thread::sleep(Duration::from_millis(5));
        let reader = Reader::open(&dataflow, None).unwrap_or_else(|e| panic!("{}", chain(&e)));
        let version = reader.snapshot().versions()["silver.rows"];
        let expected = reader
            .print(
                "SELECT COUNT(*), SUM(id), SUM(amount) FROM silver.rows",
                OutputFormat::Csv,
            )
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let expected = expected.lines().nth(1).expect("one row").to_string();
        for line in others(&python, &dataflow, version).lines() {
            let (engine, seen) = line.split_once(' ').expect("engine and figures");
            assert_eq!(seen, expected, "{engine} at version {version}, round {round}");
            checked += 1;
        }
    }
    assert_eq!(checked, 18, "three engines, six rounds");
}
