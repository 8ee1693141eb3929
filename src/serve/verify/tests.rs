//! Tests that `verify` detects mistakes of the run: each is injected into the plan, so that the run and batch share
//! it.

use std::path::Path;
use std::sync::Arc;

use super::{Judgement, VerifyReport, verify, verify_tables};
use crate::definition::{Dataflow, load};
use crate::plan::faults::FAULTS;
use crate::run::{self, Options};

const INPUT: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
k = "BIGINT"
d = "DECIMAL(12,2)"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

/// On these rows, no two tables below give the same result with and without their mistake.
const ROWS: [&str; 4] = [
    r#"{"id": 1, "k": 1, "d": "4.35"}"#,
    r#"{"id": 2, "k": 1, "d": "0.10"}"#,
    r#"{"id": 3, "k": null, "d": "16.60"}"#,
    r#"{"id": 4, "k": 7, "d": null}"#,
];

const TABLES: [(&str, &str); 4] = [
    ("absent", "SELECT id FROM rows WHERE id NOT IN (SELECT k FROM rows)"),
    ("dearer", "SELECT id, d + 0.1 AS d FROM rows"),
    (
        "left_over",
        "SELECT k FROM rows EXCEPT ALL SELECT k FROM rows WHERE id = 1",
    ),
    ("grouped", "SELECT k, count(*) AS n, sum(d) AS d FROM rows GROUP BY k"),
];

/// The report on a run of all tables; the dataflow's name selects the injected mistake.
fn report(folder: &Path, name: &str) -> VerifyReport {
    let dataflow = ran(folder, name, &TABLES);
    verify(&dataflow, None).unwrap_or_else(|e| panic!("{e}"))
}

fn ran(folder: &Path, name: &str, tables: &[(&str, &str)]) -> Arc<Dataflow> {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("dataflow.toml", &format!("name = \"{name}\"\ndurability = \"none\"\n"));
    write("inputs/rows.toml", INPUT);
    for (table, sql) in tables {
        write(&format!("gold/{table}.sql"), sql);
    }
    let record = |row: &&str| {
        let id: serde_json::Value = serde_json::from_str(row).unwrap();
        format!("{{\"key\": {{\"id\": {}}}, \"value\": {row}}}\n", id["id"])
    };
    write("live/0.ndjson", &ROWS.iter().map(record).collect::<String>());
    let mut dataflow = load(folder, &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    dataflow.lake = folder.join("lake").display().to_string();
    let dataflow = Arc::new(dataflow);
    let options = Options {
        workers: 1,
        until_caught_up: true,
        ..Options::default()
    };
    run::run(dataflow.clone(), &options).unwrap_or_else(|e| panic!("{e}"));
    dataflow
}

fn of<'a>(report: &'a VerifyReport, table: &str) -> &'a Judgement {
    &report.standings[&format!("gold.{table}")]
}

#[test]
fn a_right_run_is_equal_independently() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(folder.path(), "right");
    assert_eq!(report.differences, []);
    for (table, _) in TABLES {
        assert_eq!(*of(&report, table), Judgement::Independent(vec![]), "{table}");
    }
}

/// The run and its plan in batch agree on a wrong result.
#[test]
fn a_rewriting_that_is_wrong_is_told() {
    let wrong = [
        ("two_valued", "absent", "gold.absent: expected 0, found 1: id=2"),
        (
            "double_literals",
            "dearer",
            "gold.dearer: expected 1, found 0: column d as DECIMAL with 2 digits behind the point",
        ),
        ("uncounted", "left_over", "gold.left_over: expected 1, found 0: k=1"),
    ];
    assert_eq!(wrong.map(|(fault, _, _)| fault), FAULTS);
    for (fault, table, difference) in wrong {
        let folder = tempfile::tempdir().unwrap();
        let report = report(folder.path(), fault);
        assert_eq!(*of(&report, table), Judgement::DiffersFromOpinion, "{fault}");
        let differences: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
        assert!(
            differences.contains(&difference.to_string()),
            "{fault}: {differences:?}"
        );
        for (other, _) in TABLES.iter().filter(|(other, _)| *other != table) {
            assert_eq!(*of(&report, other), Judgement::Independent(vec![]), "{fault}: {other}");
        }
    }
}

/// A row of another table that did not evaluate made the whole verification fail.
#[test]
fn a_table_is_verified_whatever_becomes_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let tables = [
        TABLES[3],
        ("failing", "SELECT id, 10 / (id - 2) AS x FROM rows"),
        ("behind", "SELECT count(*) AS n FROM gold.failing"),
    ];
    let dataflow = ran(folder.path(), "failing", &tables);
    let report = verify_tables(&dataflow, None, &["gold.grouped".to_string()]).unwrap();
    assert_eq!(report.tables, [("gold.grouped".to_string(), 3)]);
    assert_eq!(*of(&report, "grouped"), Judgement::Independent(vec![]));
    let report = verify_tables(&dataflow, None, &["gold.behind".to_string()]).unwrap();
    assert_eq!(report.tables, [("gold.behind".to_string(), 1)]);
    assert_eq!(report.differences, []);
    let report = verify(&dataflow, None).unwrap();
    assert_eq!(report.differences, []);
    assert!(matches!(of(&report, "failing"), Judgement::OwnPlan(why) if why.contains("does not evaluate")));
}
