//! Tests Spark with Delta, the engine that reads most lakes: it must open every table of a lake at every snapshot, and
//! its writes must have the effects that the README describes for other writers.
//!
//! Starting it takes seconds, so all tests share one session, one after another.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use alluvium::definition::Dataflow;
use alluvium::serve::{LakeReader, PrintFormat};
use serde_json::Value;

use crate::lake::{ask, assert_newest_is_exact};
use crate::readers::{ROWS, python};
use crate::support::{Folder, Running, catch_up, chain, snapshots};
use crate::testing::{Prerequisite, checkout, skip};

/// A session of Spark. It ends with the tests, because its input is closed then.
pub struct Spark {
    _process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Spark {
    fn start(python: &str) -> Spark {
        let mut process = Command::new(python)
            .arg(checkout().join("tests/it/spark.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let questions = process.stdin.take().expect("it has an input");
        let answers = BufReader::new(process.stdout.take().expect("it has an output"));
        Spark {
            _process: process,
            questions,
            answers,
        }
    }

    /// The rows of a statement; a null is `None`.
    pub fn try_sql(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        writeln!(self.questions, "{}", Value::from(sql)).expect("Spark listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Spark answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("Spark ended ({e}): {line}"));
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(serde_json::from_value(answer["rows"].clone()).expect("rows of texts")),
        }
    }

    /// The rows of a statement that Spark must accept.
    #[track_caller]
    pub fn sql(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The rows as CSV, in the format of [`ask`].
    #[track_caller]
    pub fn ask(&mut self, sql: &str) -> String {
        let rows = self.sql(sql).into_iter();
        let rows = rows.map(|row| {
            row.into_iter()
                .map(Option::unwrap_or_default)
                .collect::<Vec<_>>()
                .join(",")
        });
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// The shared session, locked for one test; none without Java or Python.
pub fn spark() -> Option<MutexGuard<'static, Spark>> {
    static SPARK: OnceLock<Option<Mutex<Spark>>> = OnceLock::new();
    let started = SPARK.get_or_init(|| {
        let python = python()?;
        if std::env::var("ALLUVIUM_SPARK_JARS").is_err() {
            skip(
                Prerequisite::Tools,
                "no Spark: scripts/test installs it where there is Java 17 or later",
            );
            return None;
        }
        Some(Mutex::new(Spark::start(&python)))
    });
    started
        .as_ref()
        .map(|spark| spark.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A table's name for Spark; `table` is its name in our SQL.
pub fn named(dataflow: &Dataflow, table: &str) -> String {
    format!("delta.`{}/{}`", dataflow.lake, table.replacen('.', "/", 1))
}

/// Tables of every kind: with and without deletion vectors, with partitions, with a change feed, with columns that
/// must not be null.
const TABLES: [(&str, &str, &str); 5] = [
    (
        "silver.rows",
        "SELECT id, name, amount, at FROM rows",
        "deletes = \"vectors\"\n",
    ),
    (
        "silver.rewritten",
        "SELECT id, amount FROM rows",
        "deletes = \"rewrite\"\n",
    ),
    (
        "silver.parts",
        "SELECT id % 3 AS part, id, name FROM rows",
        "deletes = \"vectors\"\npartition_by = [\"part\"]\nchange_data_feed = true\n",
    ),
    (
        "gold.by_name",
        "SELECT name, COUNT(*) AS n, SUM(amount) AS amount FROM silver.rows GROUP BY name",
        "",
    ),
    (
        "gold.totals",
        "SELECT COUNT(*) AS n, MAX(id) AS last FROM silver.rows",
        "change_data_feed = true\n",
    ),
];

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name, &[("inputs/rows.toml", ROWS)]);
    for (table, sql, settings) in TABLES {
        let file = table.replace('.', "/");
        folder.write(&format!("{file}.sql"), sql);
        folder.write(&format!("{file}.toml"), settings);
    }
    folder
}

/// Appends changes of many rows: updates, some deletions, and one record that is not a row.
fn feed(folder: &Folder, round: u32) {
    let mut lines = String::new();
    for id in 0..200 {
        if round == 0 || (id + round).is_multiple_of(7) {
            let version = id + round * 1000;
            lines.push_str(&format!(
                "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"name\": \"n{}\", \"amount\": \"{version}.25\", \"at\": \"2024-01-01T00:00:{:02}.000123\"}}}}\n",
                (id + round) % 5,
                version % 60
            ));
        } else if (id + round).is_multiple_of(31) {
            lines.push_str(&format!("{{\"key\": {{\"id\": {id}}}, \"value\": null}}\n"));
        }
    }
    lines.push_str("{\"key\": {\"id\": 1}, \"value\": {\"id\": \"one\"}}\n");
    folder.append("live/rows/0.ndjson", &lines);
}

/// Each table with a query, in which `t` stands for its name; including Bronze and the dead letters.
const QUESTIONS: [(&str, &str); 7] = [
    (
        "silver.rows",
        "SELECT COUNT(*), SUM(id), SUM(amount), MAX(name), COUNT(at) FROM t",
    ),
    ("silver.rewritten", "SELECT COUNT(*), SUM(id), SUM(amount) FROM t"),
    (
        "silver.parts",
        "SELECT part, COUNT(*), SUM(id), MIN(name) FROM t GROUP BY part ORDER BY part",
    ),
    ("gold.by_name", "SELECT name, n, amount FROM t ORDER BY name"),
    ("gold.totals", "SELECT n, last FROM t"),
    (
        "bronze.rows",
        "SELECT COUNT(*), SUM(records), COUNT(payload), MAX(epoch) FROM t",
    ),
    (
        "dead_letters",
        "SELECT COUNT(*), COUNT(payload), COUNT(DISTINCT reason) FROM t",
    ),
];

/// Asserts that Spark reads every table of a snapshot as `query` does.
#[track_caller]
fn assert_read_alike(spark: &mut Spark, dataflow: &Dataflow, epoch: Option<u64>) {
    let reader = LakeReader::open(dataflow, epoch).unwrap_or_else(|e| panic!("{}", chain(&e)));
    for (table, sql) in QUESTIONS {
        let version = reader.snapshot().versions()[table];
        let ours = reader.print(&sql.replace("FROM t", &format!("FROM {table}")), PrintFormat::Csv);
        let ours = ours.unwrap_or_else(|e| panic!("{}", chain(&e)));
        let ours = ours.lines().skip(1).collect::<Vec<_>>().join("\n");
        let place = format!("FROM {} VERSION AS OF {version}", named(dataflow, table));
        assert_eq!(
            spark.ask(&sql.replace("FROM t", &place)),
            ours,
            "{table} at version {version}"
        );
    }
}

/// Spark refused every table with a column that must not be null, including Bronze and the dead letters.
#[test]
fn spark_reads_every_table_at_every_snapshot_as_query_does() {
    let Some(mut spark) = spark() else { return };
    let folder = folder("spark-reads");
    let dataflow = folder.load("lake");
    let mut epochs = Vec::new();
    for round in 0..3 {
        feed(&folder, round);
        epochs.push(catch_up(&dataflow, 1 + round as usize % 2).snapshot);
    }
    // Spark travels in time by the versions that the table of snapshots has.
    for epoch in &epochs {
        assert_read_alike(&mut spark, &dataflow, Some(*epoch));
    }
    let recorded = format!(
        "SELECT COUNT(DISTINCT epoch) FROM delta.`{}/_alluvium/snapshots`",
        dataflow.lake
    );
    assert!(spark.ask(&recorded).parse::<usize>().expect("a number") >= epochs.len());
}

/// The changes that Spark reads between two snapshots, applied to the first one, make the second.
#[test]
fn spark_reads_the_change_feed_of_a_table() {
    let Some(mut spark) = spark() else { return };
    let folder = folder("spark-changes");
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    let first = catch_up(&dataflow, 1).snapshot;
    feed(&folder, 1);
    feed(&folder, 2);
    catch_up(&dataflow, 2);
    let version = |epoch| {
        let reader = LakeReader::open(&dataflow, epoch).unwrap_or_else(|e| panic!("{}", chain(&e)));
        reader.snapshot().versions()["silver.parts"]
    };
    let (from, to) = (version(Some(first)), version(None));
    assert!(from < to, "the table changed");
    let table = named(&dataflow, "silver.parts");
    let path = format!("{}/silver/parts", dataflow.lake);
    let changes = format!("table_changes_by_path('{path}', {}, {to})", from + 1);
    let kinds = spark.ask(&format!("SELECT DISTINCT _change_type FROM {changes} ORDER BY 1"));
    assert_eq!(kinds, "delete\ninsert");
    let differing = spark.ask(&format!(
        "SELECT COUNT(*) FROM (
            SELECT part, id, name, SUM(d) AS d FROM (
                SELECT part, id, name, 1 AS d FROM {table} VERSION AS OF {from}
                UNION ALL
                SELECT part, id, name, CASE _change_type WHEN 'insert' THEN 1 ELSE -1 END FROM {changes}
                UNION ALL
                SELECT part, id, name, -1 FROM {table} VERSION AS OF {to}
            ) GROUP BY part, id, name HAVING SUM(d) <> 0
        )"
    ));
    assert_eq!(differing, "0");
}

/// As in the book, "Other writers": rows that Spark appends stay while a run goes on, and its OPTIMIZE is followed or
/// undone.
#[test]
fn a_run_goes_on_behind_what_spark_appends_and_optimizes() {
    let Some(mut spark) = spark() else { return };
    let folder = folder("spark-writes");
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    for round in 1..5 {
        let before = snapshots(&dataflow);
        feed(&folder, round);
        running.wait_until(|| snapshots(&dataflow) > before);
    }
    for table in [
        "silver.rows",
        "silver.rewritten",
        "silver.parts",
        "gold.by_name",
        "bronze.rows",
    ] {
        spark.sql(&format!("OPTIMIZE {}", named(&dataflow, table)));
    }
    let rows = named(&dataflow, "silver.rows");
    spark.sql(&format!("OPTIMIZE {rows} ZORDER BY (id)"));
    spark.sql(&format!(
        "INSERT INTO {rows} VALUES (1000000, 'stranger', 1.00, TIMESTAMP_NTZ '2024-01-01 00:00:00')"
    ));
    for round in 5..8 {
        let before = snapshots(&dataflow);
        feed(&folder, round);
        running.wait_until(|| snapshots(&dataflow) > before);
    }
    running.stop();
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM silver.rows WHERE id = 1000000"),
        "1"
    );
    assert_read_alike(&mut spark, &dataflow, None);
    let outcome = catch_up(&dataflow, 1);
    assert_eq!(outcome.corrections, Some(vec![("silver.rows".to_string(), 1)]));
    assert_newest_is_exact(&dataflow, "behind what Spark wrote");
    assert_read_alike(&mut spark, &dataflow, None);

    // While no run is active, Spark runs OPTIMIZE, and appends so often that it writes a checkpoint.
    for table in ["silver.rows", "silver.parts", "bronze.rows"] {
        spark.sql(&format!("OPTIMIZE {}", named(&dataflow, table)));
    }
    for id in 0..12 {
        spark.sql(&format!(
            "INSERT INTO {rows} VALUES ({}, NULL, NULL, NULL)",
            2_000_000 + id
        ));
    }
    let outcome = catch_up(&dataflow, 2);
    assert_eq!(outcome.corrections, Some(vec![("silver.rows".to_string(), 12)]));
    feed(&folder, 9);
    catch_up(&dataflow, 1);
    assert_newest_is_exact(&dataflow, "behind a restart after Spark");
    assert_read_alike(&mut spark, &dataflow, None);
}

/// `guard = true` prevents Spark from writing, but not from reading.
#[test]
fn a_guarded_table_is_read_by_spark_and_not_written() {
    let Some(mut spark) = spark() else { return };
    let folder = folder("spark-guarded");
    let root = std::fs::read_to_string(folder.path().join("dataflow.toml")).expect("it was written");
    folder.write("dataflow.toml", &format!("{root}guard = true\n"));
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    catch_up(&dataflow, 1);
    assert_read_alike(&mut spark, &dataflow, None);
    for table in ["silver.rows", "silver.rewritten"] {
        let written = spark.try_sql(&format!("DELETE FROM {} WHERE id = 1", named(&dataflow, table)));
        let refused = written.expect_err("a writer that does not know the guard must not write");
        assert!(refused.contains("alluvium.guard"), "{refused}");
    }
}
