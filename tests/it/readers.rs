//! Tests with readers that we did not write: DuckDB, Polars and deltalake for Python must read every table as `query`
//! does, while a run goes on and after it.

use std::collections::BTreeMap;
use std::process::Command;

use alluvium::definition::Dataflow;
use alluvium::serve::{LakeReader, PrintFormat};

use crate::support::{Folder, Running, catch_up, chain, snapshots};
use crate::testing::{Prerequisite, checkout, skip};

/// The Python that has the readers (`scripts/readers.sh` installs it and prints its path).
pub fn python() -> Option<String> {
    let python = std::env::var("ALLUVIUM_PYTHON").ok();
    if python.is_none() {
        skip(
            Prerequisite::Tools,
            "no Python with DuckDB, Polars and deltalake: scripts/test installs one",
        );
    }
    python
}

/// An input of keyed rows, which other programs read as tables.
pub const ROWS: &str = r#"
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

/// A table, its SQL and settings, and a query over it.
const TABLES: [(&str, &str, &str, &str); 5] = [
    (
        "silver.rows",
        "SELECT id, name, amount, at FROM rows",
        "deletes = \"vectors\"\n",
        "SELECT COUNT(*) AS n, SUM(id) AS ids, SUM(amount) AS amount, MAX(name) AS name FROM t",
    ),
    (
        "silver.rewritten",
        "SELECT id, amount FROM rows",
        "deletes = \"rewrite\"\n",
        "SELECT COUNT(*) AS n, SUM(id) AS ids, SUM(amount) AS amount FROM t",
    ),
    (
        "silver.parts",
        "SELECT id % 3 AS part, id, name FROM rows",
        "deletes = \"vectors\"\npartition_by = [\"part\"]\nchange_data_feed = true\n",
        "SELECT COUNT(*) AS n, SUM(id) AS ids, SUM(part) AS parts, MIN(name) AS name FROM t",
    ),
    (
        "gold.by_name",
        "SELECT name, COUNT(*) AS n, SUM(amount) AS amount FROM silver.rows GROUP BY name",
        "",
        "SELECT COUNT(*) AS names, SUM(n) AS n, SUM(amount) AS amount FROM t",
    ),
    (
        "gold.totals",
        "SELECT COUNT(*) AS n, SUM(amount) AS amount, MAX(id) AS last FROM silver.rows",
        "change_data_feed = true\n",
        "SELECT n, amount, last FROM t",
    ),
];

fn folder() -> Folder {
    let folder = Folder::new("others", &[("inputs/rows.toml", ROWS)]);
    for (table, sql, settings, _) in TABLES {
        let file = table.replace('.', "/");
        folder.write(&format!("{file}.sql"), sql);
        folder.write(&format!("{file}.toml"), settings);
    }
    folder
}

/// Appends changes of many rows: updates, and some deletions.
fn feed(folder: &Folder, round: u32) {
    let mut lines = String::new();
    for id in 0..600 {
        if round == 0 || (id + round).is_multiple_of(7) {
            let version = id + round * 1000;
            lines.push_str(&format!(
                "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"name\": \"n{version}\", \"amount\": \"{version}.25\", \"at\": \"2024-01-01T00:00:{:02}\"}}}}\n",
                version % 60
            ));
        } else if (id + round).is_multiple_of(31) {
            lines.push_str(&format!("{{\"key\": {{\"id\": {id}}}, \"value\": null}}\n"));
        }
    }
    folder.append("live/rows/0.ndjson", &lines);
}

/// Each table, with a query over it.
fn questions() -> Vec<(&'static str, &'static str)> {
    TABLES.iter().map(|(table, _, _, sql)| (*table, *sql)).collect()
}

/// Asks the other engines about the newest snapshot that they find, and `query` about the same one. `questions` are
/// tables, each with a query over it as `t`. Returns the snapshot's epoch.
pub fn assert_agreed(python: &str, dataflow: &Dataflow, questions: &[(&str, &str)]) -> u64 {
    let script = checkout().join("tests/it/readers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&dataflow.lake)
        .args(questions.iter().map(|(table, sql)| format!("{table}={sql}")))
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let (first, answers) = said.split_once('\n').expect("a snapshot and answers");
    let epoch: u64 = first.trim_start_matches("snapshot ").parse().expect("an epoch");

    let reader = LakeReader::open(dataflow, Some(epoch)).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(
        reader.snapshot().epoch(),
        epoch,
        "`query` knows the snapshot that is recorded"
    );
    let expected: BTreeMap<&str, String> = questions
        .iter()
        .map(|(table, sql)| {
            let printed = reader.print(&sql.replace("FROM t", &format!("FROM {table}")), PrintFormat::Csv);
            let printed = printed.unwrap_or_else(|e| panic!("{}", chain(&e)));
            (*table, printed.lines().nth(1).expect("one row").to_string())
        })
        .collect();
    let mut checked = 0;
    for line in answers.lines() {
        let [engine, table, seen] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        assert_eq!(seen, expected[table], "{engine} reads {table} at snapshot {epoch}");
        checked += 1;
    }
    assert_eq!(checked, 3 * questions.len(), "three engines, every table");
    epoch
}

#[test]
fn duckdb_polars_and_deltalake_agree_with_query_deletion_vectors_included() {
    let Some(python) = python() else { return };
    let folder = folder();
    let root = std::fs::read_to_string(folder.path().join("dataflow.toml")).expect("it was written");
    for round in 0..4u32 {
        // A guard that is switched on and off must keep no reader out.
        folder.write("dataflow.toml", &format!("{root}guard = {}\n", round.is_multiple_of(2)));
        let dataflow = folder.load("lake");
        feed(&folder, round);
        let committed = catch_up(&dataflow, 1 + round as usize % 3).snapshot;
        assert_eq!(
            assert_agreed(&python, &dataflow, &questions()),
            committed,
            "the run's last snapshot is recorded"
        );
    }
}

#[test]
fn they_agree_with_query_while_a_run_commits() {
    let Some(python) = python() else { return };
    let folder = folder();
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    // The readers take seconds: meanwhile there are always further commits that remove rows of the files being read.
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let mut seen = vec![];
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let mut round = 0;
            while let Err(crossbeam_channel::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(std::time::Duration::from_millis(40))
            {
                round += 1;
                feed(&folder, round);
            }
        });
        let stop = stop; // The sender is dropped even if an assertion fails.
        for _ in 0..4 {
            let before = snapshots(&dataflow);
            seen.push(assert_agreed(&python, &dataflow, &questions()));
            assert!(snapshots(&dataflow) > before + 5, "the run went on meanwhile");
        }
        drop(stop);
        feeding.join().expect("the feeder does not panic");
    });
    running.stop();
    assert!(
        seen.is_sorted() && seen.first() < seen.last(),
        "ever newer snapshots: {seen:?}"
    );
}
